"""tests/browser/growing_run.py, which writes runs without a trainer, for tests outside of a browser."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dpnb.widgets.monitor import Monitor


def _loaded() -> Any:
    path = Path(__file__).parents[1] / "browser" / "growing_run.py"
    spec = importlib.util.spec_from_file_location("growing_run", path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


growing_run = _loaded()
GrowingRun = growing_run.GrowingRun

Watch = Callable[..., Monitor]
"""What the fixture `watch` is: Monitor, closed after the test."""
