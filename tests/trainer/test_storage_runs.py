"""Whole runs over weights in float8."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from dpnb.runs.rundir import RunDir
from dpnb.schema import FluxModel, LokrAdapter, LoraAdapter
from tests.trainer.launching import STEPS_PER_EPOCH, Project
from tests.trainer.test_training import losses_after_resume, only_run, scalars
from trainer import adapters
from trainer.tiny import model_dir

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
Run = Callable[..., subprocess.CompletedProcess[str]]
EXPORT = "epoch2/adapter_model.safetensors"


def model(name: str | None, dtype: str = "float32") -> FluxModel:
    return FluxModel(diffusers_path=str(model_dir()), dtype=dtype, transformer_dtype=name)


def write(project: Project, name: str, **changes: object) -> Path:
    """A run with everything that looks at the network: recomputed activations, evaluation, samples, checkpoints."""
    common = {
        "model": model("float8"),
        "adapter": LoraAdapter(rank=4, dtype="float32"),
        "activation_checkpointing": True,
        "eval_datasets": project.held_out,
        "eval_every_n_epochs": 1,
        "sample": project.sample,
    }
    return project.write(name, **(common | changes))


@pytest.fixture(scope="module")
def alone(project: Project, train_ranks: Run) -> RunDir:
    """One process, one stage: 12 steps; the exports in float8, too."""
    config = write(project, "float8", save_dtype="float8_e5m2")
    done = train_ranks(config)
    assert done.returncode == 0, done.stdout + done.stderr
    return only_run(config)


def test_two_stages_over_float8_give_the_losses_of_one(project: Project, train_ranks: Run, alone: RunDir) -> None:
    config = write(project, "float8-stages", pipeline_stages=2, save_dtype="float8_e5m2")
    done = train_ranks(config, processes=2)
    assert done.returncode == 0, done.stdout + done.stderr
    run = only_run(config)
    for tag in ("train/loss", "train/grad_norm", "held/loss"):
        assert scalars(run, tag) == pytest.approx(scalars(alone, tag), abs=1e-4, rel=1e-3), tag
    for a, b in zip(alone.samples(), run.samples(), strict=True):
        pictures = [np.asarray(Image.open(sample.path), dtype=float) for sample in (a, b)]
        assert np.abs(pictures[0] - pictures[1]).mean() < 2, f"{a.path} differs from {b.path}"
    assert {t.dtype for t in load_file(run.path / EXPORT).values()} == {torch.float8_e5m2}


def test_a_resume_over_float8_repeats_every_bit(
    project: Project, train_ranks: Run, train_here: Run, alone: RunDir, tmp_path: Path
) -> None:
    config = write(project, "float8-resumed", save_dtype="float8_e5m2", max_steps=STEPS_PER_EPOCH + 2)
    done = train_here(config)
    assert done.returncode == 0, done.stdout + done.stderr
    config = write(project, "float8-resumed", save_dtype="float8_e5m2")
    done = train_ranks(config, "--resume_from_checkpoint")
    assert done.returncode == 0, done.stdout + done.stderr
    run = only_run(config)
    resumed, whole = losses_after_resume(run, tmp_path), scalars(alone, "train/loss")
    assert sorted(resumed) == list(range(STEPS_PER_EPOCH + 3, 2 * STEPS_PER_EPOCH + 1))
    assert resumed == {step: whole[step] for step in resumed}
    one, two = (load_file(r.path / EXPORT) for r in (alone, run))
    assert all(torch.equal(one[name].float(), two[name].float()) for name in one)
    layers = [torch.load(file, weights_only=True) for file in run.path.glob("global_step12/layer_*")]
    kept = {name for layer in layers for name in layer}
    assert len(kept) > 10
    assert all(adapters.is_adapter(name) for name in kept), "a checkpoint holds the adapter alone"


def test_float8_learns_as_bfloat16_does_also_with_replicas(project: Project, train_ranks: Run) -> None:
    adapter = LokrAdapter(rank=4, dtype="float32")
    found = {}
    for name in ("float8_e4m3fn", None):
        config = project.write(
            f"replicas-{name}",
            model=model(name, "bfloat16"),
            adapter=adapter,
            gradient_accumulation_steps=1,
            eval_datasets=project.held_out,
            eval_every_n_epochs=1,
            epochs=1,
            save_every_n_epochs=1,
        )
        done = train_ranks(config, processes=2)
        assert done.returncode == 0, done.stdout + done.stderr
        found[name] = scalars(only_run(config), "held/loss")
    assert found["float8_e4m3fn"] != found[None]
    assert found["float8_e4m3fn"] == pytest.approx(found[None], rel=0.1)
