"""dpnb: fine-tune image and video diffusion models from a Jupyter notebook.

The public face. Names are looked up when they are first used (PEP 562), so `import dpnb` costs next to nothing and a
script that only launches never loads a widget.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dpnb import runs as runs
    from dpnb.presets import flux_lora, tiny_lora
    from dpnb.runs.launch import launch
    from dpnb.runs.process import Run
    from dpnb.schema.dataset import Dataset
    from dpnb.schema.training import Training
    from dpnb.toml import dump, load, load_run
    from dpnb.widgets.captions import CaptionEditor
    from dpnb.widgets.dataset import DatasetForm
    from dpnb.widgets.form import TrainingForm
    from dpnb.widgets.gallery import Gallery
    from dpnb.widgets.monitor import Monitor

    attach = Run.attach
    __version__: str

_HOMES = {
    "CaptionEditor": "dpnb.widgets.captions",
    "Dataset": "dpnb.schema.dataset",
    "DatasetForm": "dpnb.widgets.dataset",
    "Gallery": "dpnb.widgets.gallery",
    "Monitor": "dpnb.widgets.monitor",
    "Run": "dpnb.runs.process",
    "Training": "dpnb.schema.training",
    "TrainingForm": "dpnb.widgets.form",
    "dump": "dpnb.toml",
    "flux_lora": "dpnb.presets",
    "launch": "dpnb.runs.launch",
    "load": "dpnb.toml",
    "load_run": "dpnb.toml",
    "tiny_lora": "dpnb.presets",
}

__all__ = [
    "CaptionEditor",
    "Dataset",
    "DatasetForm",
    "Gallery",
    "Monitor",
    "Run",
    "Training",
    "TrainingForm",
    "__version__",
    "attach",
    "dump",
    "flux_lora",
    "launch",
    "load",
    "load_run",
    "runs",
    "tiny_lora",
]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    elif name == "runs":  # the package itself, which can be called
        value = importlib.import_module("dpnb.runs")
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
