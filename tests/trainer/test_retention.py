"""What stays of a run: the newest, the one in use, the best, and everything that the trainer did not write."""

from __future__ import annotations

import os
import re
from pathlib import Path

from dpnb.runs.rundir import RunDir
from trainer import retention


def checkpoints(path: Path, *steps: int) -> RunDir:
    for step in steps:
        (path / f"global_step{step}").mkdir(parents=True)
        (path / f"global_step{step}" / "progress.json").write_text("{}")
        (path / "latest").write_text(f"global_step{step}")
    return RunDir(path)


def exports(path: Path, *names: str) -> RunDir:
    for age, name in enumerate(names):
        (path / name).mkdir(parents=True)
        for file in ("adapter_model.safetensors", "health.json"):
            (path / name / file).touch()
        os.utime(path / name, (1000 + age, 1000 + age))
    return RunDir(path)


def names(path: Path) -> list[str]:
    return sorted(p.name for p in path.iterdir() if p.is_dir())


def test_the_newest_checkpoints_stay(tmp_path: Path) -> None:
    run = checkpoints(tmp_path, 5, 10, 100, 20)
    (tmp_path / "latest").write_text("global_step100")
    said = retention.prune_checkpoints(run, 2)
    assert names(tmp_path) == ["global_step100", "global_step20"]
    assert said == [f"deleted global_step{step}, which is no longer among the newest" for step in (5, 10)]
    assert retention.prune_checkpoints(run, 2) == []
    assert retention.prune_checkpoints(run, 7) == []


def test_the_checkpoint_in_use_stays(tmp_path: Path) -> None:
    run = checkpoints(tmp_path, 10, 20, 30)
    (tmp_path / "latest").write_text("global_step10")
    retention.prune_checkpoints(run, 1)
    assert names(tmp_path) == ["global_step10", "global_step30"]


def test_what_this_trainer_did_not_write_stays(tmp_path: Path) -> None:
    run = checkpoints(tmp_path, 10, 20, 30)
    exports(tmp_path, "epoch1", "epoch2", "best", "epoch2.broken", "epoch7-mine")
    (tmp_path / "global_step10" / "progress.json").unlink()
    (tmp_path / "epoch1" / "health.json").unlink()
    retention.prune_checkpoints(run, 1)
    retention.prune_exports(run, 1)
    kept = ["best", "epoch1", "epoch2", "epoch2.broken", "epoch7-mine", "global_step10", "global_step30"]
    assert names(tmp_path) == kept


def test_the_newest_exports_stay_by_their_age(tmp_path: Path) -> None:
    run = exports(tmp_path, "epoch1", "step900", "epoch2", "best", "step1000", "epoch3")
    said = retention.prune_exports(run, 2)
    assert names(tmp_path) == ["best", "epoch3", "step1000"]
    assert said[0] == "deleted epoch1, which is no longer among the newest"


def test_a_link_is_left_alone_and_named(tmp_path: Path) -> None:
    elsewhere = exports(tmp_path / "elsewhere", "epoch1").path / "epoch1"
    run = exports(tmp_path / "run", "epoch2")
    (run.path / "epoch1").symlink_to(elsewhere)
    (said,) = retention.prune_exports(run, 1)
    assert said == f"warning: cannot delete {run.path}/epoch1: it is a link. Delete it by hand"
    assert (elsewhere / "health.json").exists()


def test_a_folder_that_cannot_be_removed_is_named(tmp_path: Path) -> None:
    run = exports(tmp_path, "epoch1", "epoch2")
    (tmp_path / ".epoch1.tmp").write_text("in the way")
    (said,) = retention.prune_exports(run, 1)
    assert re.fullmatch(rf"warning: cannot delete {tmp_path}/epoch1: Not a directory\. Delete it by hand", said)
    assert names(tmp_path) == ["epoch1", "epoch2"]
