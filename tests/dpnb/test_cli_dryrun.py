"""`dpnb dryrun`: its table, its JSON, its exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dpnb import cli_dryrun, presets, toml
from dpnb.cli import main
from dpnb.schema import Dataset, Directory

TINY = Path(__file__).parents[2] / "trainer" / "tiny" / "flux"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Eight square pictures and a wide one, one without a caption, and a broken file."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(9):
        Image.new("RGB", (160 if index == 8 else 80, 80)).save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text("a zorbi")
    Image.new("RGB", (80, 80)).save(folder / "bare.png")
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


@pytest.fixture
def dataset_file(pictures: Path, tmp_path: Path) -> Path:
    keys = {"enable_ar_bucket": True, "ar_buckets": [1.0, 2.0]}
    dataset = Dataset(resolutions=[64], directory=[Directory(path=str(pictures))], **keys)
    (tmp_path / "dataset.toml").write_text(toml.dump(dataset))
    return tmp_path / "dataset.toml"


@pytest.fixture
def training_file(dataset_file: Path, pictures: Path, tmp_path: Path) -> Path:
    training, _ = presets.tiny_lora(
        model_dir=TINY, pictures=pictures, output_dir=tmp_path / "runs", dataset_toml=dataset_file
    )
    held = [{"name": "held", "config": str(dataset_file)}]
    values = training.model_dump() | {"micro_batch_size_per_gpu": 4, "gradient_accumulation_steps": 1}
    values |= {"eval_datasets": held, "eval_micro_batch_size_per_gpu": 2, "trigger_word": "zorbi"}
    (tmp_path / "run.toml").write_text(toml.dump(type(training).model_validate(values)))
    return tmp_path / "run.toml"


def asked(capsys: pytest.CaptureFixture[str], *arguments: Path | str) -> tuple[int, str, str]:
    code = main(["dryrun", *map(str, arguments)])
    told = capsys.readouterr()
    return code, told.out, told.err


def data(capsys: pytest.CaptureFixture[str], *arguments: Path | str) -> dict[str, Any]:
    code, out, err = asked(capsys, *arguments, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


def test_a_dataset_file(dataset_file: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = asked(capsys, dataset_file, "--micro-batch", "2")
    assert (code, err) == (0, "")
    assert (
        out
        == f"""{dataset_file}
FLUX.1, batch 2 x 1 accumulated x 1 data-parallel
11 files: 8 pictures used, 3 left out; 0.0% of the area cut off
4 steps per epoch, 8 examples

bucket                      files  examples  batch   steps  unfilled
64x64 (aspect ratio 1.0)        8         8      2       4         0
96x48 (aspect ratio 2.0)        1         1      2       0         1

left out, cannot be read: 1
  {pictures}/broken.png: corrupt, or not a picture although its name ends in .png: Pillow cannot identify it

left out, without a caption: 1
  {pictures}/bare.png: has no caption in bare.txt: write one, or set skip_empty_caption = false to train it without

left out, in a bucket smaller than one batch: 1
  {pictures}/8.png: its bucket 96x48 (aspect ratio 2.0) has 1 example, fewer than one global batch of 2 \
(2 x 1 accumulated), and is not trained: lower micro_batch_size_per_gpu or gradient_accumulation_steps, raise \
num_repeats 2-fold, or use fewer aspect ratios (num_ar_buckets)

note: bucket 96x48 (aspect ratio 2.0) has 1 example, fewer than one global batch of 2 (2 x 1 accumulated), and is not \
trained: lower micro_batch_size_per_gpu or gradient_accumulation_steps, raise num_repeats 2-fold, or use fewer aspect \
ratios (num_ar_buckets)
"""
    )


def test_last_batches_that_are_not_full(dataset_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = asked(capsys, dataset_file, "--micro-batch", "5")
    words = "note: 3 examples do not fill a global batch and are left out, others each epoch: 3 of 8 in 64x64 (aspect"
    assert words in out
    assert "left out, others" not in asked(capsys, dataset_file, "--micro-batch", "4")[1]


def test_json_of_a_dataset_file(dataset_file: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = data(capsys, dataset_file)
    assert found["steps_per_epoch"] == 9
    assert [(b["size"], b["files"], b["examples"], b["batches"], b["dropped"]) for b in found["buckets"]] == [
        ([64, 64, 1], 8, 8, 8, 0),
        ([96, 48, 1], 1, 1, 1, 0),
    ]
    files = {Path(file["path"]).name: file for file in found["files"]}
    assert files["8.png"] == {
        "path": str(pictures / "8.png"),
        "directory": 0,
        "width": 160,
        "height": 80,
        "frames": 1,
        "captions": ["a zorbi"],
        "buckets": [[96, 48, 1]],
        "used": True,
        "reason": "",
    }
    assert not files["broken.png"]["used"]
    assert "eval_datasets" not in found


def test_the_family_and_the_batch_may_be_said(dataset_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = data(capsys, dataset_file, "--model", "wan", "--micro-batch", "2", "--accumulation", "2", "--gpus", "2")
    assert (found["gradient_accumulation_steps"], found["data_parallel"]) == (2, 2)
    assert found["buckets"][0]["global_batch_size"] == 8
    code, out, err = asked(capsys, dataset_file, "--model", "fluks")
    assert (code, out) == (1, "")
    assert err.startswith("error: --model: there is no family 'fluks'. There are: flux, flux2, sdxl,")
    assert err.count("\n") == 1


def test_a_training_file_brings_all_its_sets(training_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = data(capsys, training_file)
    assert (found["buckets"][0]["micro_batch_size"], found["steps_per_epoch"]) == (4, 2)
    held = found["eval_datasets"]["held"]
    assert (held["buckets"][0]["micro_batch_size"], held["steps_per_epoch"]) == (2, 4)
    assert found["files"][0]["captions"] == held["files"][0]["captions"] == ["a zorbi"]
    code, out, _ = asked(capsys, training_file, "--micro-batch", "8", "--gpus", "1")
    assert code == 0
    assert "FLUX.1, batch 8 x 1 accumulated x 1 data-parallel\n" in out
    assert f"{training_file.with_name('dataset.toml')} (held-out set held)\n" in out
    assert "FLUX.1, batch 2 x 1 accumulated x 1 data-parallel\n" in out


def test_nothing_left_is_1_with_one_line(dataset_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = asked(capsys, dataset_file, "--micro-batch", "50")
    assert code == 1
    assert "0 steps per epoch, 0 examples" in out
    start = f"{dataset_file}: error: nothing is left to train on: no bucket fills a global batch; bucket 64x64"
    assert err.startswith(start)
    assert err.count("\n") == 1
    code = main(["dryrun", str(dataset_file), "--micro-batch", "50", "--json"])
    told = capsys.readouterr()
    assert code == 1
    assert json.loads(told.out)["errors"][0].startswith("nothing is left to train on")


def test_a_folder_that_is_not_there_is_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = Dataset(resolutions=[64], directory=[Directory(path=str(tmp_path / "nowhere"))])
    (tmp_path / "d.toml").write_text(toml.dump(dataset))
    code, out, err = asked(capsys, tmp_path / "d.toml")
    assert code == 1
    assert "0 files: 0 pictures used" in out
    assert err.startswith(f"{tmp_path}/d.toml: error: the folder '{tmp_path}/nowhere' cannot be read: No such file")


def test_a_file_with_errors_is_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "d.toml").write_text('resolution = [512]\n[[directory]]\npath = "x"\n')
    code, out, err = asked(capsys, tmp_path / "d.toml")
    assert (code, out) == (1, "")
    assert f"{tmp_path}/d.toml:1:1: error: resolution: " in err
    code, out, err = asked(capsys, tmp_path / "none.toml")
    assert (code, out) == (1, "")
    assert "none.toml" in err


def test_many_files_and_notes_are_counted(
    dataset_file: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for index in range(5):
        (pictures / f"bad{index}.png").write_bytes(b"x")
    for index in range(25):
        (pictures / f"sub{index}").mkdir()
    _, out, _ = asked(capsys, dataset_file)
    assert "left out, cannot be read: 6\n" in out
    assert out.count("/bad") == 3
    assert "  and 3 more\n" in out


def test_progress_on_a_terminal(
    dataset_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli_dryrun.sys.stderr, "isatty", lambda: True)
    _, _, err = asked(capsys, dataset_file)
    assert "\rreading headers: 0 of 11\rreading headers: 11 of 11\r\033[K" in err
