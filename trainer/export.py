"""Exports: what a person takes home. Gathered from all stages, checked, written whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dpnb.errors import RunError
from dpnb.runs.rundir import RunDir
from dpnb.schema.training import Training
from trainer import adapters
from trainer.engine import StageEngine, World, from_first, together
from trainer.families.base import DTYPES, Family


class Exporter:
    """Writes epoch{N} and step{N} folders. `names` maps a trained parameter to its name in the diffusers network."""

    def __init__(
        self,
        family: Family,
        training: Training,
        run: RunDir,
        world: World,
        names: dict[nn.Parameter, str],
        peft: Any,  # noqa: ANN401
    ) -> None:
        self.family = family
        self.training = training
        self.run = run
        self.world = world
        self.names = names
        self.peft_config = peft

    def save(self, engine: StageEngine, name: str) -> dict[str, Any]:
        """Write the export `name`; collective. Returns its health.

        An export that is not finite is kept under the name `<name>.broken`, beside the last good one. Raises
        `RunError`, on every rank, when the disk does not take it; nothing of it is left then.
        """
        weights = self._gather(engine)
        return from_first(lambda: self._publish(weights, name))

    def _publish(self, weights: dict[str, Tensor], name: str) -> dict[str, Any]:
        """Write under a hidden name, then rename."""
        hidden = self.run.path / f".{name}.tmp"
        try:
            shutil.rmtree(hidden, ignore_errors=True)
            hidden.mkdir()
            return self._write(weights, name, hidden)
        except (OSError, SafetensorError) as error:
            raise RunError(_refused(self.run.path / name, error)) from error
        finally:
            shutil.rmtree(hidden, ignore_errors=True)

    def _write(self, weights: dict[str, Tensor], name: str, hidden: Path) -> dict[str, Any]:
        health = check_health(weights)
        if self.training.adapter is not None:
            baked = adapters.bake_scale(weights, self.training.adapter)
            self.family.save_adapter(hidden, baked, adapters.export_config(self.peft_config))
        else:
            self.family.save_model(hidden, weights)
        (hidden / "health.json").write_text(json.dumps(health, indent=1))
        if self.run.run_toml.exists():
            shutil.copyfile(self.run.run_toml, hidden / self.run.run_toml.name)
        for file in hidden.glob("*.safetensors"):
            file.chmod(0o644)  # safetensors gives its files to their owner alone; an export is made to be taken home
        flush_folder(hidden)
        target = self.run.path / (name if health["finite"] else f"{name}.broken")
        shutil.rmtree(target, ignore_errors=True)
        hidden.rename(target)
        return health

    def _gather(self, engine: StageEngine) -> dict[str, Tensor]:
        """All trained weights on the CPU, in save_dtype, as rank 0 needs them; other ranks get their own share."""
        dtype = None if self.training.save_dtype is None else DTYPES[self.training.save_dtype]
        mine = {
            adapters.export_name(self.names[p]): p.detach().to("cpu", dtype or p.dtype).contiguous()
            for p in engine.module.parameters()
            if p.requires_grad
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


def check_health(weights: dict[str, Tensor]) -> dict[str, Any]:
    """What can be seen of trained weights: finite, B matrices not zero, overall norm, number of tensors."""
    lora_b = [t for name, t in weights.items() if ".lora_B." in name]
    squares = sum(float(t.float().pow(2).sum()) for t in weights.values())
    return {
        "finite": all(bool(torch.isfinite(t).all()) for t in weights.values()),
        "b_nonzero": sum(bool(t.any()) for t in lora_b),
        "b_total": len(lora_b),
        "norm": squares**0.5,
        "tensors": len(weights),
    }


def flush_folder(folder: Path) -> None:
    """Force every file of a folder, and the folder's own listing, to the disk."""
    for path in [*(p for p in folder.rglob("*") if p.is_file()), folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
