"""Real trainings in this process over folders as people have them: hostile files, buckets too small for a batch."""

from __future__ import annotations

from pathlib import Path

import pytest

from dpnb import toml
from dpnb.runs.rundir import find_runs
from dpnb.schema import FACTS, Dataset, Directory
from dpnb.schema.dataset import Augmentation
from tests.dpnb.filmed import film
from tests.dpnb.hostile import write_hostile
from tests.trainer import small
from tests.trainer.launching import Project
from trainer import train
from trainer.tiny import drawing


@pytest.fixture(autouse=True)
def joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one launched process, with a store of headers of its own."""
    small.alone()
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("DPNB_CACHE_DIR", str(tmp_path / "headers"))


@pytest.mark.parametrize("variants", [1, 0], ids=["cached", "encoded while training"])
def test_hostile_files_leave_a_run_alive_and_are_all_named(
    variants: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    names = write_hostile(folder)
    film(folder / "whole.mp4")
    (folder / "whole.txt").write_text("a video")
    drawing.draw_dataset(folder / "below", count=4, seed=1)
    changes = Augmentation(flip=0.5, cached_variants=variants)
    folders = [Directory(path=str(folder))]
    dataset = Dataset(resolutions=[64], recursive=True, augmentation=changes, directory=folders)
    (tmp_path / "dataset.toml").write_text(toml.dump(dataset))
    config = Project(tmp_path).write("hostile", max_steps=1, gradient_accumulation_steps=1)
    assert train.main(["--config", str(config)]) == 0
    (run,) = find_runs(tmp_path / "runs-hostile")
    status = run.status()
    assert status is not None
    assert (status.phase, status.step) == ("done", 1)
    told = capfd.readouterr().out
    left_out = {
        line.split("left out: ", 1)[1].split(": ", 1)[0] for line in told.splitlines() if "  left out: " in line
    }
    assert left_out == {str(folder / name) for name in [*names, "whole.mp4"]}
    assert f"dataset: 4 of {len(names) + 5} files used" in told
    assert (f"  note: {folder}: no latents are cached" in told) == (variants == 0)
    assert f"whole.mp4: a video: {FACTS['flux'].title} is trained on pictures alone" in told


def test_a_bucket_smaller_than_the_batch_is_trained_with_a_smaller_one(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    drawing.draw_dataset(tmp_path / "many", count=9, seed=1)
    drawing.draw_dataset(tmp_path / "few", count=3, seed=1, width=96, height=64)
    folders = [Directory(path=str(tmp_path / name)) for name in ("many", "few")]
    ratios = {"enable_ar_bucket": True, "ar_buckets": [1.0, 1.5]}
    dataset = Dataset(resolutions=[64], drop_last=False, directory=folders, **ratios)
    (tmp_path / "dataset.toml").write_text(toml.dump(dataset))
    keys = {"micro_batch_size_per_gpu": 4, "gradient_accumulation_steps": 1}
    config = Project(tmp_path).write("kept", epochs=1, save_every_n_epochs=1, **keys)
    assert train.main(["--config", str(config)]) == 0
    (run,) = find_runs(tmp_path / "runs-kept")
    status = run.status()
    assert status is not None
    assert (status.phase, status.step, status.examples) == ("done", 3, 4 + 4 + 3)
    assert "not trained" not in capfd.readouterr().out
