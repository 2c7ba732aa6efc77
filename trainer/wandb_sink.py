"""Weights & Biases beside the run's own TensorBoard files, where [monitoring] asks for it and its package is there.

Whatever goes wrong here is said once and ends it: charts elsewhere are worth less than the run. The key is looked for
in WANDB_API_KEY (dpnb.launch puts one there from the file) or where `wandb login` left it; WANDB_MODE=offline
keeps everything in the run directory until `wandb sync`.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Mapping
from typing import Any

from dpnb.runs.rundir import RunDir
from dpnb.toml.secrets import without_secrets
from dpnb.toml.syntax import loads

_MISSING = (
    "warning: monitoring.enable_wandb asks for Weights & Biases, but the package wandb is not installed: "
    "pip install wandb. The run goes on with its own charts alone"
)


class WandbSink:
    """An open run on Weights & Biases; `say` tells what goes wrong."""

    def __init__(self, run: Any, say: Callable[[str], None]) -> None:  # noqa: ANN401 - wandb's own
        self._run: Any = run
        self._say = say

    def log(self, values: Mapping[str, float], *, x: int, axis: str) -> None:
        """Send points; `axis` is what `x` counts: step or epoch. It is a field like the others, as in diffusion-pipe,
        so that a resumed run may go back."""
        self._attempt(lambda: self._run.log({**values, axis: x}))

    def close(self, exit_code: int) -> None:
        """End the run there too."""
        self._attempt(lambda: self._run.finish(exit_code=exit_code))
        self._run = None

    def _attempt(self, act: Callable[[], object]) -> None:
        if self._run is None:
            return
        try:
            act()
        except Exception as error:  # a library that talks to a network fails in its own ways
            self._run = None
            self._say(f"warning: Weights & Biases: {_one_line(error)}. The run goes on with its own charts alone")


def open_sink(run: RunDir, training_text: str, say: Callable[[str], None]) -> WandbSink | None:
    """The sink that a training file asks for; None where it asks for none or there can be none, which is said."""
    asked = loads(without_secrets(training_text))
    monitoring = asked.get("monitoring", {})
    if not monitoring.get("enable_wandb"):
        return None
    try:
        wandb = importlib.import_module("wandb")  # by name: it is no dependency
    except ImportError as error:
        broken = f"warning: Weights & Biases: its package cannot be imported: {_one_line(error)}. Install it anew"
        say(_MISSING if error.name == "wandb" else f"{broken}. The run goes on with its own charts alone")
        return None
    try:
        opened = wandb.init(
            project=monitoring.get("wandb_tracker_name"),
            name=monitoring.get("wandb_run_name"),
            config=asked,
            dir=str(run.path),
            id=hashlib.sha256(str(run.path).encode()).hexdigest()[:16],  # a resumed run goes on in its own curves
            resume="allow",
        )
        for axis in ("step", "epoch"):
            opened.define_metric(axis)
        opened.define_metric("*", step_metric="step")
        opened.define_metric("train/epoch_loss", step_metric="epoch")
    except Exception as error:  # no key, no network, no such project: each has an exception of its own
        say(
            f"warning: Weights & Biases does not take the run: {_one_line(error)}. Set WANDB_API_KEY, or "
            "WANDB_MODE=offline to keep its files in the run directory. The run goes on with its own charts alone"
        )
        return None
    return WandbSink(opened, say)


def _one_line(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__).rstrip(".")
