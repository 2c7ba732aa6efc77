"""The life of a run: its directory, launch, supervision, and the readers that follow it.

The package is also the function `dpnb.runs(root)`: a table of runs. Python gives the name `dpnb.runs` to the package
as soon as any module of it is imported, so the two have to be one object: a module that can be called.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dpnb.runs.process import RunTable


class _Runs(ModuleType):
    """A module that answers `dpnb.runs()`."""

    def __call__(self, root: Path | str = ".") -> RunTable:
        """A table of all runs up to three folders below `root`, oldest first."""
        from dpnb.runs.process import runs

        return runs(root)


sys.modules[__name__].__class__ = _Runs
