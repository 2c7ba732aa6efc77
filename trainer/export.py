"""Exports: what a person takes home. Gathered from all stages, checked, written whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dpnb.errors import RunError
from dpnb.runs.rundir import RunDir
from dpnb.schema.training import Training
from trainer import adapters, ema, storage
from trainer.engine import StageEngine, World, from_first, gather, together
from trainer.families.base import DTYPES, Family
from trainer.health import check_change, check_health, check_names

HEALTH_FILE = "health.json"
_BEFORE = ".before"  # the ending of an export that is being replaced; see `replace_folder`


class Exporter:
    """Writes epoch{N}, step{N} and best folders. `names`: a trained parameter -> its name in the diffusers network.

    With an average (trainer/ema.py) the folder itself holds the weights that samples are drawn with, and a sub-folder
    the others.
    """

    def __init__(
        self,
        family: Family,
        training: Training,
        run: RunDir,
        world: World,
        names: dict[nn.Parameter, str],
        peft: Any,  # noqa: ANN401
        average: ema.Average | None = None,
    ) -> None:
        self.family = family
        self.training = training
        self.run = run
        self.world = world
        self.names = names
        self.peft_config = peft
        self.average = average

    def save(self, engine: StageEngine, name: str) -> dict[str, Any]:
        """Write the export `name`; collective. Returns its health.

        An export that is not finite is kept under the name `<name>.broken`, beside the last good one. Raises
        `RunError`, on every rank, when the disk does not take it; nothing of it is left then.
        """
        found: dict[str, dict[str, Tensor]] = {}
        with ema.shown(self.average):
            found["."] = self._gather(engine)
        if self.average is not None:
            gather(None)  # the parts of the first are taken away before those of the second are written
            with self.average.hidden():
                found[self.average.beside] = self._gather(engine)
        return from_first(lambda: self._publish(found, name))

    def _publish(self, found: dict[str, dict[str, Tensor]], name: str) -> dict[str, Any]:
        """Write under a hidden name, then rename. `found`: place within the folder -> weights."""
        hidden = self.run.path / f".{name}.tmp"
        try:
            shutil.rmtree(hidden, ignore_errors=True)
            hidden.mkdir()
            return self._write(found, name, hidden)
        except (OSError, SafetensorError) as error:
            raise RunError(_refused(self.run.path / name, error)) from error
        finally:
            shutil.rmtree(hidden, ignore_errors=True)

    def _write(self, found: dict[str, dict[str, Tensor]], name: str, hidden: Path) -> dict[str, Any]:
        for place, weights in found.items():
            (hidden / place).mkdir(exist_ok=True)
            self._save(hidden / place, weights)
        health = check_health(found["."]) | check_names(found["."], hidden)
        if (before := self._last_good()) is not None:
            health |= check_change(found["."], before)
        if self.run.run_toml.exists():
            shutil.copyfile(self.run.run_toml, hidden / self.run.run_toml.name)
        (hidden / HEALTH_FILE).write_text(json.dumps(health, indent=1))
        for file in hidden.rglob("*.safetensors"):
            file.chmod(0o644)  # safetensors gives its files to their owner alone; an export is made to be taken home
        flush_folder(hidden)
        replace_folder(hidden, self.run.path / (name if health["finite"] else f"{name}.broken"))
        return health

    def _last_good(self) -> Path | None:
        return next((folder for folder in reversed(self.run.exports()) if (folder / HEALTH_FILE).exists()), None)

    def _save(self, folder: Path, weights: dict[str, Tensor]) -> None:
        if self.training.adapter is not None:
            self.family.save_adapter(folder, weights, adapters.export_config(self.peft_config))
        else:
            self.family.save_model(folder, weights)

    def _gather(self, engine: StageEngine) -> dict[str, Tensor]:
        """All trained weights on the CPU, scaled, in save_dtype: what rank 0 needs; others get their own share."""
        dtype = None if self.training.save_dtype is None else DTYPES[self.training.save_dtype]
        twice = self.average is not None  # then the network holds other numbers before these are written
        own = {adapters.export_name(self.names[p]): p.detach() for p in engine.module.parameters() if p.requires_grad}
        if self.training.adapter is not None:
            own = adapters.bake_scale(own, self.training.adapter)  # first: float8 cannot be multiplied
        mine = {
            name: storage.cast(values, dtype or values.dtype).to("cpu", copy=twice).contiguous()
            for name, values in own.items()
        }
        if engine.num_stages == 1:
            return mine
        # Through files: the run directory is shared by all machines already, and no stage has to hold it all.
        parts = self.run.path / ".export-parts"
        files = [parts / f"stage_{stage}.safetensors" for stage in range(engine.num_stages)]

        def hand_over() -> None:
            try:
                parts.mkdir(exist_ok=True)
                save_file(mine, files[engine.stage_id])
            except (OSError, SafetensorError) as error:
                raise RunError(_refused(files[engine.stage_id], error)) from error

        try:
            together(hand_over if engine.replica == 0 else lambda: None)
            return {name: t for f in files for name, t in load_file(f).items()} if self.world.is_first else mine
        finally:
            if self.world.is_first:
                shutil.rmtree(parts, ignore_errors=True)


def _refused(path: Path, error: Exception) -> str:
    reason = getattr(error, "strerror", None) or error
    return f"cannot write {path}: {reason}. What was saved before is kept. Make room, then resume."


def replace_folder(new: Path, target: Path) -> None:
    """Put a finished folder in the place of another, so that at every moment one of the two is whole on the disk.

    A run that is killed in between leaves the old one under another name, which `restore_folders` gives back.
    """
    before = target.with_name(f".{target.name}{_BEFORE}")
    if target.exists():
        shutil.rmtree(before, ignore_errors=True)
        target.rename(before)
    new.rename(target)
    shutil.rmtree(before, ignore_errors=True)


def restore_folders(root: Path) -> None:
    """Give back what a killed `replace_folder` had put aside, or remove it where the new folder stands."""
    for before in root.glob(f".*{_BEFORE}"):
        target = before.with_name(before.name[1:].removesuffix(_BEFORE))
        if target.exists():
            shutil.rmtree(before, ignore_errors=True)
        else:
            before.rename(target)


def flush_folder(folder: Path) -> None:
    """Force every file of a folder, and the folder's own listing, to the disk."""
    for path in [*(p for p in folder.rglob("*") if p.is_file()), folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
