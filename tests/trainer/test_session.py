"""The pieces that train.py puts together: which run directory, what was left in it, what is written down."""

from __future__ import annotations

import argparse
import fcntl
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from dpnb import toml
from dpnb.errors import ConfigError, RunError
from dpnb.runs.rundir import RunDir
from dpnb.schema import LokrAdapter, LoraAdapter, Training
from tests.trainer import small
from tests.trainer.launching import Project
from tests.trainer.test_adapters import exported
from trainer import adapters, fuse, session
from trainer.engine import World
from trainer.families.flux import Flux


def arguments(run_dir: Path | None = None, resume: Any = None) -> argparse.Namespace:
    return argparse.Namespace(run_dir=run_dir, resume_from_checkpoint=resume)


def asked(path: Path, **changes: Any) -> Training:
    return small.training(output_dir=str(path), **changes)


def with_checkpoint(path: Path) -> Path:
    (path / "global_step3").mkdir(parents=True)
    (path / "latest").write_text("global_step3")
    (path / "status.json").write_text("{}")
    return path


def test_a_new_run_below_output_dir(tmp_path: Path) -> None:
    run, resume_from = session.open_run(asked(tmp_path), arguments(), small.alone())
    assert (run.path.parent, run.path.is_dir(), resume_from) == (tmp_path, True, None)


@pytest.mark.parametrize(("in_file", "argument"), [(True, None), (False, True), ("20250101_00-00-00", None)])
def test_a_run_that_goes_on(in_file: Any, argument: Any, tmp_path: Path) -> None:
    old = with_checkpoint(tmp_path / "20250101_00-00-00")
    training = asked(tmp_path, resume_from_checkpoint=in_file)
    assert session.open_run(training, arguments(resume=argument), small.alone()) == (RunDir(old), old / "global_step3")


def test_a_named_run_directory(tmp_path: Path) -> None:
    own = tmp_path / "deep" / "own"
    assert session.open_run(asked(tmp_path), arguments(own), small.alone()) == (RunDir(own), None)
    with_checkpoint(own)
    assert session.open_run(asked(tmp_path), arguments(own), small.alone()) == (RunDir(own), None)
    assert session.open_run(asked(tmp_path), arguments(own, True), small.alone())[1] == own / "global_step3"


def test_a_run_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    message = f"cannot make the run directory {tmp_path}/file/run: Not a directory. Name another --run-dir."
    with pytest.raises(RunError, match=f"^{re.escape(message)}$"):
        session.open_run(asked(tmp_path), arguments(tmp_path / "file" / "run"), small.alone())


def test_stages_that_do_not_divide_the_processes(tmp_path: Path) -> None:
    message = (
        "error: pipeline_stages: 2 stages do not divide 3 processes. "
        "Start a multiple of 2 processes (--num_gpus), or change it."
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        session.open_run(asked(tmp_path, pipeline_stages=2), arguments(), World(0, 3, torch.device("cpu")))


def test_what_a_killed_run_left_behind_is_cleared(tmp_path: Path) -> None:
    own = RunDir(with_checkpoint(tmp_path / "own"))
    for name in (".global_step4.tmp", ".epoch1.tmp"):
        (own.path / name).mkdir()
    own.request("save_quit")
    os.utime(own.request_file("save_quit"), (0, 0))  # before this process began
    own.request("sample")
    with session.claimed(own):
        kept = [".lock", "global_step3", "latest", "sample", "status.json"]
        assert sorted(p.name for p in own.path.iterdir()) == kept


def test_the_folder_that_a_killed_export_had_put_aside_comes_back(tmp_path: Path) -> None:
    own = RunDir(with_checkpoint(tmp_path / "own"))
    (own.path / ".best.before").mkdir()
    with session.claimed(own):
        assert (own.path / "best").is_dir()


def test_nobody_else_starts_a_run_that_is_at_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = RunDir(with_checkpoint(tmp_path / "own"))
    (own.path / ".epoch1.tmp").mkdir()  # what the other one is just writing
    message = f"{own.path} is being started or run by another process: wait, or stop it with `dpnb stop`"
    with own.lock_file.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(RunError, match=f"^{re.escape(message)}$"), session.claimed(own):
            pass
        assert (own.path / ".epoch1.tmp").is_dir()
        monkeypatch.setenv("DPNB_SUPERVISED", "1")  # then the supervisor has locked it for us
        with session.claimed(own):
            pass
    monkeypatch.delenv("DPNB_SUPERVISED")
    with session.claimed(own):
        pass


class Shipped(Flux):
    """Flux around the random network."""

    def load_transformer(self) -> Any:
        return small.network()


def test_what_is_fused_lies_below_what_is_trained(tmp_path: Path) -> None:
    weights = {}
    for name, adapter in (("below", LokrAdapter(rank=2)), ("trained", LoraAdapter(rank=4))):
        network, config = small.lora_network(adapter)
        weights[name] = exported(network, adapter)
        small.family().save_adapter(tmp_path / name, weights[name], adapters.export_config(config))
    fused = {"path": str(tmp_path / "below" / "adapter_model.safetensors"), "weight": 0.5}
    adapter = LoraAdapter(rank=4, fuse_adapters=[fused], init_from_existing=str(tmp_path / "trained"))
    family = Shipped(small.training().model)
    built = session.build_network(family, small.training(adapter=adapter), small.alone(), 5)
    expected = small.network()
    fuse.fuse(expected, weights["below"], 0.5, ())
    fuse.fuse(expected, weights["trained"], 1.0, ())
    inputs, _ = small.noised(small.family(), small.batch(), [1, 2])
    wire: Any = inputs
    for layer in small.family().layers(expected):
        wire = layer(wire)
    torch.testing.assert_close(built.engine.predict(inputs), wire, atol=2e-6, rtol=1e-5)
    assert all(".lora_" in name for name in built.names.values())


def test_an_adapter_to_fuse_that_cannot_be_read_is_named_at_its_key(tmp_path: Path) -> None:
    adapter = LoraAdapter(rank=4, fuse_adapters=[{"path": str(tmp_path)}])
    start = f"error: adapter.fuse_adapters[0].path: '{tmp_path}' holds no .safetensors file. "
    with pytest.raises(ConfigError, match=f"^{re.escape(start)}Name the folder of an export"):
        session.build_network(Shipped(small.training().model), small.training(adapter=adapter), small.alone(), 5)


def test_what_was_asked_is_kept_word_for_word(project: Project, tmp_path: Path) -> None:
    file = project.write("words", eval_datasets=project.held_out)
    file.write_text("# mine\n" + file.read_text())
    files = session.request_files(RunDir(tmp_path), toml.load_run(file))
    assert files == {
        tmp_path / "run.toml": file.read_text(),
        tmp_path / "dataset.toml": (project.root / "dataset.toml").read_text(),
        tmp_path / "eval_held.toml": (project.root / "held.toml").read_text(),
    }
    assert files[tmp_path / "run.toml"].startswith("# mine")
