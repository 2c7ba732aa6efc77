"""dpnb: fine-tune image and video diffusion models from a Jupyter notebook.

The public face. Names are looked up when they are first used (PEP 562), so `import dpnb` costs next to nothing and a
script that only launches never loads a widget.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dpnb import report as report
    from dpnb import runs as runs
    from dpnb.presets import flux_lora, tiny_lora
    from dpnb.runs.launch import launch
    from dpnb.runs.process import Run
    from dpnb.runs.queue import Queue, queue
    from dpnb.runs.restart import restart
    from dpnb.runs.triage import Card, diagnose
    from dpnb.schema.dataset import Dataset
    from dpnb.schema.training import Training
    from dpnb.toml import dump, load, load_run
    from dpnb.widgets.captions import CaptionEditor
    from dpnb.widgets.compare import Compare
    from dpnb.widgets.dataset import DatasetForm
    from dpnb.widgets.dataset_tools import DatasetTools
    from dpnb.widgets.form import Form, TrainingForm
    from dpnb.widgets.gallery import Gallery
    from dpnb.widgets.launcher import Launcher
    from dpnb.widgets.monitor import Monitor
    from dpnb.widgets.queue_panel import QueuePanel
    from dpnb.widgets.studio import Studio
    from dpnb.widgets.tensorboard import TensorBoard as tensorboard  # noqa: N813 - it is called like a function
    from dpnb.widgets.tool_duplicates import Duplicates
    from dpnb.widgets.tool_repair import Repair
    from dpnb.widgets.tool_sync import Sync
    from dpnb.widgets.tool_tagger import Tagger

    attach = Run.attach
    __version__: str

_HOMES = {
    "CaptionEditor": "dpnb.widgets.captions",
    "Card": "dpnb.runs.triage",
    "Compare": "dpnb.widgets.compare",
    "Dataset": "dpnb.schema.dataset",
    "DatasetForm": "dpnb.widgets.dataset",
    "DatasetTools": "dpnb.widgets.dataset_tools",
    "Duplicates": "dpnb.widgets.tool_duplicates",
    "Form": "dpnb.widgets.form",
    "Gallery": "dpnb.widgets.gallery",
    "Launcher": "dpnb.widgets.launcher",
    "Monitor": "dpnb.widgets.monitor",
    "Queue": "dpnb.runs.queue",
    "QueuePanel": "dpnb.widgets.queue_panel",
    "Repair": "dpnb.widgets.tool_repair",
    "Run": "dpnb.runs.process",
    "Studio": "dpnb.widgets.studio",
    "Sync": "dpnb.widgets.tool_sync",
    "Tagger": "dpnb.widgets.tool_tagger",
    "Training": "dpnb.schema.training",
    "TrainingForm": "dpnb.widgets.form",
    "diagnose": "dpnb.runs.triage",
    "dump": "dpnb.toml",
    "flux_lora": "dpnb.presets",
    "launch": "dpnb.runs.launch",
    "load": "dpnb.toml",
    "load_run": "dpnb.toml",
    "queue": "dpnb.runs.queue",
    "restart": "dpnb.runs.restart",
    "tiny_lora": "dpnb.presets",
}

__all__ = [
    "CaptionEditor",
    "Card",
    "Compare",
    "Dataset",
    "DatasetForm",
    "DatasetTools",
    "Duplicates",
    "Form",
    "Gallery",
    "Launcher",
    "Monitor",
    "Queue",
    "QueuePanel",
    "Repair",
    "Run",
    "Studio",
    "Sync",
    "Tagger",
    "Training",
    "TrainingForm",
    "__version__",
    "attach",
    "diagnose",
    "dump",
    "flux_lora",
    "launch",
    "load",
    "load_run",
    "queue",
    "report",
    "restart",
    "runs",
    "tensorboard",
    "tiny_lora",
]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    elif name in ("report", "runs"):  # the modules themselves, which can be called
        value = importlib.import_module(f"dpnb.{name}")
    elif name == "tensorboard":
        from dpnb.widgets.tensorboard import TensorBoard

        value = TensorBoard
    elif name == "attach":
        from dpnb.runs.process import Run

        value = Run.attach
    elif name == "__version__":
        from importlib.metadata import version

        value = version("dpnb")
    else:
        raise AttributeError(f"module 'dpnb' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
