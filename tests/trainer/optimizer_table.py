"""Writes dpnb/schema/pytorch_optimizers.json: the classes of the installed pytorch-optimizer and what they take.

    python -m tests.trainer.optimizer_table

dpnb may not import torch, so it checks files against this table. Each class maps its parameters to [kind, default],
or [kind] where there is no default; a class that needs what no TOML value can be maps to the name of that parameter.
Parameters with a default that no TOML value can replace (functions, tensors, dtypes) are left out.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytorch_optimizer
import torch
import torch.distributed as dist
from torch import Tensor, nn

import dpnb.schema
from dpnb.schema.optimizer import NAMED
from dpnb.schema.unions import tag_of

FILE = Path(dpnb.schema.__file__).with_name("pytorch_optimizers.json")
Table = dict[str, dict[str, list[Any]] | str]

# Read from param groups by the classes whose **kwargs end up there, so no signature tells them.
GROUP_OPTIONS = {
    "adam_debias": "bool",
    "adanorm": "bool",
    "adanorm_r": "float",
    "cautious": "bool",
    "normalized": "bool",
    "projection_type": "text",
    "rank": "int",
    "scale": "float",
    "sn": "bool",
    "stable_adamw": "bool",
    "update_proj_gap": "int",
    "use_gc": "bool",
    "use_palm": "bool",
}
# Classes that hand their **kwargs to another one.
PASSES_ON = {"Magma": torch.optim.AdamW}


def table() -> Table:
    """Every class of the package that a file can reach; upstream takes some of their names for its own optimizers."""
    named = {tag_of(section) for section in NAMED}
    classes = {name: item for name, item in vars(pytorch_optimizer).items() if isinstance(item, type)}
    with _process_group():
        return {
            name: _parameters(name, classes[name])
            for name in sorted(classes)
            if issubclass(classes[name], torch.optim.Optimizer) and name.lower() not in named
        }


@contextlib.contextmanager
def _process_group() -> Iterator[None]:
    """A process group of one, without which some classes cannot be made."""
    if dist.is_initialized():
        yield
        return
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def _parameters(name: str, cls: type) -> dict[str, list[Any]] | str:
    found: dict[str, list[Any]] = {}
    own = [*inspect.signature(cls).parameters.values()]
    own += [p for p in _signature(PASSES_ON.get(name)) if p.name not in {q.name for q in own}]
    for parameter in own:
        if parameter.name == "params" or parameter.kind is inspect.Parameter.VAR_KEYWORD:
            continue
        kind = _kind(parameter.annotation, parameter.default)
        required = parameter.default is inspect.Parameter.empty
        if kind is not None:
            required = required or (parameter.name == "lr" and parameter.default is None and _has_no_rate(cls))
            found[parameter.name] = [kind] if required else [kind, _plain(kind, parameter.default)]
        elif required and not _takes_weights(parameter.annotation):
            return parameter.name
    for option, kind in GROUP_OPTIONS.items():
        if option not in found and _reads(cls, option):
            found[option] = [kind, None]
    if found.get("betas", [""])[0].startswith("floats:") and _takes_any_count(cls, len(found["betas"][1])):
        found["betas"][0] = "floats"
    return found


def _signature(cls: type | None) -> list[inspect.Parameter]:
    return [] if cls is None else [*inspect.signature(cls).parameters.values()]


def _takes_weights(annotation: Any) -> bool:
    return any(typing.get_args(arm) == (Tensor,) for arm in typing.get_args(annotation))


def _kind(annotation: Any, default: Any) -> Any:
    """What a TOML value for a parameter has to be; None where there is none."""
    arms = [annotation]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        arms = [arm for arm in typing.get_args(annotation) if arm is not types.NoneType]
    lists = [arm for arm in arms if typing.get_origin(arm) in (tuple, list)]
    if _takes_weights(annotation):
        return None
    if lists and str in arms:
        return "text or lists of numbers"
    if lists:
        whole = typing.get_args(lists[0])[0] is int
        return f"ints{_count(lists[0], default)}" if whole else f"floats{_count(lists[0], default)}"
    if typing.get_origin(arms[0]) is typing.Literal:
        return list(typing.get_args(arms[0]))
    if bool in arms and float in arms:
        return "bool or float"
    words = {float: "float", int: "int", bool: "bool", str: "text", dict: "table"}
    return next((words[arm] for arm in arms if arm in words), None)


def _count(annotation: Any, default: Any) -> str:
    return "" if Ellipsis in typing.get_args(annotation) else f":{len(default)}"


def _plain(kind: Any, default: Any) -> Any:
    """A default as a file would hold it; some signatures say 0 or 1 where they mean a fraction."""
    if kind == "float" and default is not None:
        return float(default)
    return list(default) if isinstance(default, tuple) else default


def _reads(cls: type, option: str) -> bool:
    """True when a class reads an option from its groups, and its **kwargs bring it there."""
    if not any(re.search(rf"""(get\(|group\[)'{option}'""", _source(base)) for base in cls.__mro__):
        return False
    try:
        made = cls(_groups(), **{option: True})
    except (TypeError, ValueError, AttributeError, RuntimeError):
        return False
    return option in made.defaults


@functools.cache
def _source(cls: type) -> str:
    return inspect.getsource(cls) if cls.__module__.startswith("pytorch_optimizer") else ""


def _has_no_rate(cls: type) -> bool:
    """True when a class does without a learning rate, so that a schedule has none to scale; SaRA works one out."""
    return cls(_groups()).param_groups[0].get("lr") is None


def _groups() -> list[dict[str, Any]]:
    return [{"params": [nn.Parameter(torch.ones(8, 6))], "use_muon": True}]


def _takes_any_count(cls: type, count: int) -> bool:
    """True when a step works with another number of betas too."""
    try:
        made = cls(_groups(), betas=(0.9,) * (count + 1))
        for _ in range(2):
            for group in made.param_groups:
                for parameter in group["params"]:
                    parameter.grad = torch.ones_like(parameter)
            made.step()
    except (TypeError, ValueError, AttributeError, RuntimeError):
        return False
    return True


def text_of(content: Table) -> str:
    """The file's text: one class a line, so that a change of the package shows as changed lines."""
    lines = [f"  {json.dumps(name)}: {json.dumps(parameters)}" for name, parameters in content.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    made = table()
    FILE.write_text(text_of(made))
    print(f"{FILE}: {len(made)} classes")
