"""From the [optimizer] table to an optimizer over the trained weights of this process."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import nn

from dpnb.errors import ConfigError, Problem
from dpnb.schema.base import Section
from dpnb.schema.optimizer import OtherOptimizer

Groups = list[dict[str, Any]]
Make = Callable[..., torch.optim.Optimizer]
OURS = frozenset({"type", "gradient_release", "beta2_half_life"})  # keys that are no parameter of any optimizer

_CLOSURE = "needs the loss computed again within a step"
_CURVATURE = "needs second derivatives, which pipeline stages do not pass on"
_OBJECTS = "keeps Python objects in its state, which a checkpoint of ours does not hold"
_ACROSS = "talks to all processes by itself, as DeepSpeed does"
UNFIT = {
    "AdaHessian": _CURVATURE,
    "AdaShift": _OBJECTS,
    "AliG": _CLOSURE,
    "BSAM": _CLOSURE,
    "Conda": _OBJECTS,
    "DeMo": _ACROSS,
    "DistributedMuon": _ACROSS,
    "LBFGS": _CLOSURE,
    "LoRARite": "has to be told which two matrices of an adapter belong together",
    "SCION": _OBJECTS,
    "SCIONLight": _OBJECTS,
    "ScalableShampoo": _OBJECTS,
    "SophiaH": _CURVATURE,
}
"""Classes of the library that a run of ours cannot step or resume, and why."""

# They want to be told which group is orthogonalised; vectors cannot be.
_MUON = frozenset({"AdaGO", "AdaMuon", "Muon", "MuonClip", "NorMuon"})


def build(
    optimizer: Section, parameters: Iterable[nn.Parameter], *, examples_per_step: int | None = None
) -> torch.optim.Optimizer:
    """The optimizer of a section. Weights with one dimension (biases, norms) are never decayed, as upstream has it.

    `examples_per_step`, over all processes, is what `beta2_half_life` counts in. Raises `ConfigError` for one that
    this machine cannot run, that a run of ours cannot step, or that does not take its settings.
    """
    kind: str = getattr(optimizer, "type", "")
    make = _of_library(kind) if isinstance(optimizer, OtherOptimizer) else OPTIMIZERS[kind]
    if getattr(optimizer, "lr", None) is None and _signature(optimizer).model_fields["lr"].default is None:
        message, suggestion = f"is missing, and {kind} has none of its own.", "Add lr."
        raise ConfigError([Problem("error", "missing", ("optimizer", "lr"), message, suggestion)])
    options = optimizer.model_dump(exclude=set(OURS), exclude_none=True)
    options |= {name: tuple(value) for name, value in options.items() if isinstance(value, list)}
    if half_life := getattr(optimizer, "beta2_half_life", None):
        assert examples_per_step, "whoever builds an optimizer with a half-life says how many examples a step has"
        options["betas"] = _with_half_life(optimizer, half_life, examples_per_step)
    groups = _groups(list(parameters), options.pop("weight_decay", None), muon=kind in _MUON)
    try:
        return make(groups, **options)
    except ConfigError:
        raise
    except Exception as error:  # each library has exceptions of its own for a setting it does not take
        message = f"'{kind}' does not take these settings: {' '.join(str(error).split()).rstrip('.')}."
        suggestion = "Change or remove the key that this speaks of."
        raise ConfigError([Problem("error", "value", ("optimizer",), message, suggestion)]) from error


def _signature(optimizer: Section) -> type[Section]:
    """The keys of the class behind a section, with its own defaults."""
    return optimizer.for_table(optimizer.model_dump())


def _with_half_life(optimizer: Section, half_life: float, examples_per_step: int) -> tuple[float, float]:
    """betas with the beta2 that halves what it remembers of a gradient within `half_life` examples."""
    betas = getattr(optimizer, "betas", None) or _signature(optimizer).model_fields["betas"].default
    return betas[0], 0.5 ** (examples_per_step / half_life)


def _groups(trained: list[nn.Parameter], decay: float | None, *, muon: bool) -> Groups:
    """Matrices with the decay that was asked for (None: the optimizer's own), and vectors without any."""
    matrices: dict[str, Any] = {"params": [p for p in trained if p.ndim > 1]}
    vectors: dict[str, Any] = {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0}
    if decay is not None:
        matrices["weight_decay"] = decay
    if muon:
        matrices["use_muon"], vectors["use_muon"] = True, False
    return [group for group in (matrices, vectors) if group["params"]]


# --- named -----------------------------------------------------------------------------------------------------------


def _adamw(groups: Groups, **options: Any) -> torch.optim.Optimizer:  # noqa: ANN401 - keyword options
    if options.get("capturable") and not torch.cuda.is_available():
        raise _needs_cuda("capturable", "it is about CUDA graphs", "Remove it on this machine.")
    return torch.optim.AdamW(groups, **options)


def _adamw8bit(groups: Groups, **options: Any) -> torch.optim.Optimizer:  # noqa: ANN401 - keyword options
    if not torch.cuda.is_available():
        raise _needs_cuda(
            "type",
            "the kernels of bitsandbytes that it steps with are built for it",
            "Use 'adamw' on this machine.",
            seen="'adamw8bit' ",
        )
    from bitsandbytes.optim import AdamW8bit

    return AdamW8bit(groups, **options)


def _needs_cuda(key: str, reason: str, suggestion: str, *, seen: str = "") -> ConfigError:
    message = f"{seen}needs a CUDA GPU: {reason}."
    return ConfigError([Problem("error", "value", ("optimizer", key), message, suggestion)])


def _adamw_optimi(groups: Groups, **options: Any) -> torch.optim.Optimizer:  # noqa: ANN401 - keyword options
    import optimi

    return optimi.AdamW(groups, **options)


def _stableadamw(groups: Groups, **options: Any) -> torch.optim.Optimizer:  # noqa: ANN401 - keyword options
    import optimi

    return optimi.StableAdamW(groups, **options)


def _sgd(groups: Groups, **options: Any) -> torch.optim.Optimizer:  # noqa: ANN401 - keyword options
    return torch.optim.SGD(groups, **options)


OPTIMIZERS: dict[str, Make] = {
    "adamw": _adamw,
    "adamw8bit": _adamw8bit,
    "adamw_optimi": _adamw_optimi,
    "sgd": _sgd,
    "stableadamw": _stableadamw,
}


# --- by class --------------------------------------------------------------------------------------------------------


def _of_library(name: str) -> Make:
    """A class of pytorch-optimizer, imported when it is asked for: that takes seconds."""
    if name in UNFIT:
        message = f"'{name}' cannot be used here: it {UNFIT[name]}."
        suggestion = "Use another optimizer, such as adamw or Prodigy."
        raise ConfigError([Problem("error", "value", ("optimizer", "type"), message, suggestion)])
    import pytorch_optimizer

    def make(groups: Groups, **options: Any) -> torch.optim.Optimizer:  # noqa: ANN401 - keyword options
        made: torch.optim.Optimizer = getattr(pytorch_optimizer, name)(groups, **options)
        made.register_step_pre_hook(_draw_by_gradient)
        return made

    return make


def _draw_by_gradient(optimizer: torch.optim.Optimizer, _args: Any, _options: Any) -> None:  # noqa: ANN401 - torch's
    """What a class draws within a step (masks, projections) becomes a function of the step's gradient.

    That is the same on all replicas, which would drift apart otherwise, and after a resume. The library draws from the
    global generators of PyTorch, NumPy and Python, and offers no other way.
    """
    grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    total = float(torch.stack([grad.detach().float().sum() for grad in grads]).sum()) if grads else 0.0
    seed = zlib.crc32(struct.pack("<d", total))
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
