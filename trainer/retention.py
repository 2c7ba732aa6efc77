"""Which checkpoints and exports of a run stay: keep_last_n_checkpoints, keep_last_n_saves.

Only folders with the names that runs give, and with the file that our trainer writes last into them, are ever deleted;
the checkpoint that `latest` names is not, nor the best export (which has another name). One process calls this.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from dpnb.runs.rundir import RunDir
from trainer.checkpoint import PROGRESS_FILE
from trainer.export import HEALTH_FILE


def prune_checkpoints(run: RunDir, keep: int) -> list[str]:
    """Delete all but the `keep` newest checkpoints; what there is to say about it."""
    written = [path for _, path in run.checkpoints() if (path / PROGRESS_FILE).is_file()]
    return _remove([path for path in written[:-keep] if path != run.latest_checkpoint()])


def prune_exports(run: RunDir, keep: int) -> list[str]:
    """Delete all but the `keep` newest exports; what there is to say about it."""
    return _remove([path for path in run.exports() if (path / HEALTH_FILE).is_file()][:-keep])


def _remove(folders: Sequence[Path]) -> list[str]:
    said = []
    for folder in folders:
        # Renamed first, to a name that the next start sweeps: a run that is killed here leaves no half a checkpoint.
        hidden = folder.with_name(f".{folder.name}.tmp")
        try:
            if folder.is_symlink():
                raise OSError(0, "it is a link")
            folder.rename(hidden)
            shutil.rmtree(hidden)
            said.append(f"deleted {folder.name}, which is no longer among the newest")
        except OSError as error:
            said.append(f"warning: cannot delete {folder}: {error.strerror}. Delete it by hand")
    return said
