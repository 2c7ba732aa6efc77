"""From a section to an optimizer: classes, options, groups."""

from __future__ import annotations

import re
import sys
import types
from typing import Any, get_args

import pytest
import torch
from torch import nn

from dpnb.errors import ConfigError
from dpnb.schema import AdamW, AdamW8bit, Sgd
from dpnb.schema.optimizer import OPTIMIZERS as SECTIONS
from trainer import optim


def parameters() -> list[nn.Parameter]:
    return [nn.Parameter(torch.ones(2, 3)), nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(()))]


def test_vectors_are_not_decayed() -> None:
    built = optim.build(AdamW(lr=0.1, weight_decay=0.5), parameters())
    found = [([p.ndim for p in group["params"]], group["weight_decay"]) for group in built.param_groups]
    assert found == [([2], 0.5), ([1, 0], 0.0)]


def test_a_group_without_weights_is_left_out() -> None:
    assert len(optim.build(AdamW(), parameters()[:1]).param_groups) == 1
    assert len(optim.build(Sgd(), parameters()[1:]).param_groups) == 1


def test_options_reach_the_optimizer() -> None:
    built = optim.build(AdamW(lr=0.1, betas=[0.8, 0.95], eps=1e-6), parameters())
    assert isinstance(built, torch.optim.AdamW)
    assert {key: built.defaults[key] for key in ("lr", "betas", "eps")} == {
        "lr": 0.1,
        "betas": (0.8, 0.95),
        "eps": 1e-6,
    }
    built = optim.build(Sgd(lr=0.2, momentum=0.9, weight_decay=0.1), parameters())
    assert isinstance(built, torch.optim.SGD)
    assert (built.param_groups[0]["momentum"], built.param_groups[0]["weight_decay"]) == (0.9, 0.1)


def test_every_optimizer_of_the_schema_can_be_built() -> None:
    names = {get_args(section.model_fields["type"].annotation)[0] for section in SECTIONS}
    assert names == set(optim.OPTIMIZERS)


def test_eight_bits_need_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    message = (
        "error: optimizer.type: 'adamw8bit' needs a CUDA GPU: the kernels of bitsandbytes that it steps with are "
        "built for it. Use 'adamw' on this machine."
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        optim.build(AdamW8bit(), parameters())


def test_eight_bits_with_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fake:
        def __init__(self, groups: list[dict[str, Any]], **options: Any) -> None:
            self.groups, self.options = groups, options

    module = types.ModuleType("bitsandbytes.optim")
    module.AdamW8bit = Fake  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", module)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    built: Any = optim.build(AdamW8bit(lr=0.3, betas=[0.5, 0.6]), parameters())
    assert built.options == {"lr": 0.3, "betas": (0.5, 0.6), "eps": 1e-8}
    assert [group["weight_decay"] for group in built.groups] == [0.01, 0.0]
