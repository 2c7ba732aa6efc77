"""What a field of the schema takes, in the few words that fit a cell of the reference page: type, bounds, default.

Messages say the same in whole phrases (dpnb/toml/words.py); here bounds stand with the type that they bound.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from dpnb.schema.base import Section, Ui, help_of, ui_of
from dpnb.schema.unions import section_types
from dpnb.toml.write import inline

_TEXTS = {
    None: "text",
    "dir": "folder",
    "file": "file",
    "path": "file or folder",
    "output_dir": "folder",
    "pictures": "folder or .tar file",
}
_BOUNDS = ("ge", "gt", "le", "lt", "min_length", "max_length")


def type_cell(info: FieldInfo) -> str:
    """Type and bounds: "whole number ≥ 1", "list of [number > 0, number > 0]", "`'a'`, `'b'`"."""
    return _words(info.annotation, _limits(info.metadata), _TEXTS[ui_of(info).path])


def default_cell(info: FieldInfo) -> str:
    """The default as TOML, "required", or "unset"."""
    if info.is_required():
        return "**required**"
    value = info.get_default(call_default_factory=True)
    return "unset" if value is None else f"`{inline(value)}`"


def meaning_cell(section: type[Section], name: str) -> str:
    """Help, unit, when it applies, and the two marks."""
    ui = ui_of(section.model_fields[name])
    words = [escape(help_of(section, name))]
    if ui.unit:
        words.append(f"Unit: {ui.unit}.")
    if ui.when is not None:
        words.append(_when(ui.when))
    return " ".join([word for word in words if word] + marks(ours=ui.ours, pending=ui.pending))


def marks(*, ours: bool, pending: str) -> list[str]:
    """What diffusion-pipe does not read, and what our own trainer does not act on yet."""
    found = ["**ours**"] if ours else []
    return [*found, f"**not yet ({pending})**"] if pending else found


def escape(text: str) -> str:
    """Text as Markdown shows it unchanged, in a cell too."""
    for sign, shown in (("\\", "\\\\"), ("|", "\\|"), ("<", "&lt;"), ("*", "\\*")):
        text = text.replace(sign, shown)
    return text


def _when(when: tuple[str, tuple[Any, ...]]) -> str:
    sibling, allowed = when
    values = [f"`{inline(value)}`" for value in allowed if value is not None]
    return f"Only with `{sibling}` = {' or '.join(values)}." if values else f"Only without `{sibling}`."


def _words(annotation: Any, limits: Mapping[str, float], text: str) -> str:  # noqa: ANN401 - any typing form
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *metadata = get_args(annotation)
        return _words(inner, {**limits, **_limits(metadata)}, text)
    if origin in (Union, UnionType):
        arms = [arm for arm in get_args(annotation) if arm is not NoneType]
        arms = [arm for arm in arms if not (arm is int and float in arms)]
        return " or ".join(dict.fromkeys(_words(arm, limits, text) for arm in arms))
    if origin is list:
        return _list_words(_words(get_args(annotation)[0], {}, text), limits)
    if origin is Literal:
        return ", ".join(f"`{inline(choice)}`" for choice in get_args(annotation))
    if section_types(annotation):
        return "table"
    names = {bool: "true or false", int: "whole number", float: "number", str: text, SecretStr: "text", dict: "table"}
    name = names[annotation if annotation in names else origin]
    return f"{name}{_range(limits)}" if annotation in (int, float) else name


def _list_words(item: str, limits: Mapping[str, float]) -> str:
    least, most = limits.get("min_length"), limits.get("max_length")
    if least is not None and least == most:
        return f"[{', '.join([item] * int(least))}]"
    return f"list of {item}"


def _range(limits: Mapping[str, float]) -> str:
    low, high = limits.get("ge", limits.get("gt")), limits.get("le", limits.get("lt"))
    if low is not None and high is not None:
        ends = [f"{'above ' if 'gt' in limits else ''}{low:g}", f"{'below ' if 'lt' in limits else ''}{_shown(high)}"]
        return f" {' to '.join(ends)}"
    if low is not None:
        return f" {'≥' if 'ge' in limits else '>'} {low:g}"
    return "" if high is None else f" {'≤' if 'le' in limits else '<'} {high:g}"


def _shown(bound: float) -> str:
    """A bound; powers of two, which seeds have, as such."""
    for bits in (32, 63):
        if bound == 2**bits - 1:
            return f"2^{bits} - 1"
    return f"{bound:g}"


def _limits(metadata: Iterable[Any]) -> dict[str, float]:
    """The bounds among markers of an annotation."""
    found: dict[str, float] = {}
    for marker in metadata:
        if isinstance(marker, FieldInfo):
            found |= _limits(marker.metadata)
        elif not isinstance(marker, Ui):
            found |= {name: bound for name in _BOUNDS if (bound := getattr(marker, name, None)) is not None}
    return found
