"""`dpnb import`, as a person runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dpnb.cli import main
from dpnb.toml import load_run
from tests.dpnb.test_importers_ai_toolkit import FLUX_JOB
from tests.dpnb.test_importers_kohya import WAN_DATA


@pytest.fixture
def job(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(FLUX_JOB.replace("${OUT}", "output"), encoding="utf-8")
    return path


def test_a_job_becomes_two_files_that_validate(job: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "folder"
    assert main(["import", str(job), "-o", str(out)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("from AI Toolkit: ")
    assert "config.process[0].train.lr = 0.0001 -> optimizer.lr = 0.0001" in printed
    assert printed.endswith(
        f"wrote {out / 'run.toml'}\nwrote {out / 'dataset.toml'}\nnext: dpnb validate {out / 'run.toml'}\n"
    )
    assert "#" not in (out / "run.toml").read_text(encoding="utf-8")
    config = load_run(out / "run.toml", paths=False)
    assert config.training.value.dataset == str(out / "dataset.toml")
    assert main(["validate", "--no-paths", str(out / "run.toml")]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["dataset.toml", "run.toml"]


def test_nothing_is_replaced_without_force(job: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "dataset.toml").write_text("mine", encoding="utf-8")
    assert main(["import", str(job), "-o", str(tmp_path)]) == 1
    assert capsys.readouterr().err == (
        f"{tmp_path / 'dataset.toml'}: error: is there already. Name another folder, or add --force to replace it.\n"
    )
    assert not (tmp_path / "run.toml").exists()
    assert (tmp_path / "dataset.toml").read_text(encoding="utf-8") == "mine"
    assert main(["import", str(job), "-o", str(tmp_path), "--force", "--name", "other"]) == 0
    assert load_run(tmp_path / "run.toml", paths=False).training.value.output_dir == "output/other"


def test_a_dataset_file_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "data.toml"
    source.write_text(WAN_DATA, encoding="utf-8")
    assert main(["import", str(source), "-o", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.endswith(f"next: dpnb validate {tmp_path / 'out' / 'dataset.toml'}\n")
    assert not (tmp_path / "out" / "run.toml").exists()


def test_bad_input_is_one_line_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "job.yaml"
    source.write_text("a: [", encoding="utf-8")
    assert main(["import", str(source), "-o", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"{source}:1:5: error: ")
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written(job: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", str(job), "-o", str(job / "below")]) == 1
    assert capsys.readouterr().err == (
        f"{job / 'below'}: error: cannot be written: Not a directory. Name another folder with -o.\n"
    )


def test_the_family_can_be_said(tmp_path: Path, job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", str(job), "-o", str(tmp_path / "out"), "--model", "nothing"]) == 1
    assert capsys.readouterr().err.startswith("error: --model nothing is no family. Use one of: flux, ")
