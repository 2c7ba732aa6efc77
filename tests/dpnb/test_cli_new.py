"""`dpnb new`: two files that validate, nothing overwritten, and what is left to do."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from dpnb import presets, toml
from dpnb.cli import main


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Relative paths count from the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_files_of_a_preset_validate(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "flux-24gb", "-o", "my/run"]) == 0
    shown = capsys.readouterr().out
    wrote, about = shown.splitlines()[0].split(": ", 1)
    assert wrote == "wrote my/run/run.toml and my/run/dataset.toml"
    assert about == "FLUX.1 [dev], 12 B: 768 px, float8, about 19 of 24 GiB, estimated"
    assert main(["validate", "--no-paths", "my/run/run.toml", "my/run/dataset.toml"]) == 0
    config = toml.load_run("my/run/run.toml", paths=False)
    expected = presets.preset("flux-24gb", dataset_toml="my/run/dataset.toml")
    assert (config.training.value, config.dataset.value) == expected
    text = Path("my/run/run.toml").read_text()
    assert "# Passes over the dataset.\nepochs = 65\n" in text
    assert sorted(path.name for path in Path("my/run").iterdir()) == ["dataset.toml", "run.toml"]


def test_it_says_what_is_left_to_do(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    main(["new", "wan", "-o", "w"])
    lines = capsys.readouterr().out.splitlines()[1:]
    assert lines == [
        "to download: Wan-AI/Wan2.1-T2V-14B from Hugging Face; then correct model.ckpt_path",
        "to fill: pictures, with pictures or clips and a caption for each (name.jpg, name.txt)",
        "to write: sample.prompts, what is drawn while training",
        "not yet in dpnb's own trainer, which would refuse to start: model.type",
        "then: dpnb validate w/run.toml",
    ]
    for folder in ("models/flux", "cats"):
        (tmp_path / folder).mkdir(parents=True)
    main(["new", "flux-48gb", "-o", "f", "--pictures", "cats", "--model-dir", "models/flux"])
    lines = capsys.readouterr().out.splitlines()[1:]
    assert lines == ["to write: sample.prompts, what is drawn while training", "then: dpnb validate f/run.toml"]


def test_folders_can_be_given() -> None:
    main(["new", "z_image-16gb", "-o", "z", "--pictures", "/data/cats", "--model-dir", "/models/z"])
    config = toml.load_run("z/run.toml", paths=False)
    assert config.training.value.model.vae == "/models/z/ae.safetensors"
    assert config.dataset.value.directory[0].path == "/data/cats"


def test_files_for_diffusion_pipe_hold_its_keys_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "wan", "-o", "w", "--profile", "diffusion-pipe"]) == 0
    data = tomllib.loads(Path("w/run.toml").read_text())
    assert "sample" not in data
    assert "dpnb's own trainer" not in capsys.readouterr().out
    assert main(["validate", "--no-paths", "w/run.toml"]) == 0


def test_what_diffusion_pipe_does_not_train_is_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "sd15", "-o", "s", "--profile", "diffusion-pipe"]) == 1
    assert "diffusion-pipe does not train Stable Diffusion 1.x and 2.x." in capsys.readouterr().err
    assert not Path("s").exists()


def test_nothing_is_overwritten_unless_asked(capsys: pytest.CaptureFixture[str]) -> None:
    Path("dataset.toml").write_text("mine")
    assert main(["new", "flux", "-o", "."]) == 1
    assert capsys.readouterr().err == (
        "dataset.toml: error: is there already. Name another folder, or add --force to replace it.\n"
    )
    assert Path("dataset.toml").read_text() == "mine"
    assert not Path("run.toml").exists()
    assert main(["new", "flux", "-o", ".", "--force"]) == 0
    assert "[[directory]]" in Path("dataset.toml").read_text()


def test_an_unknown_preset_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "flux-12gb", "-o", "x"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: there is no preset 'flux-12gb'. Nearest: flux-16gb")
    assert error.count("\n") == 1
    assert not Path("x").exists()


@pytest.mark.parametrize("argv", [["new"], ["new", "flux"], ["new", "-o", "x"], ["new", "flux", "-o"]])
def test_a_missing_argument_is_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(argv)
    assert exit_.value.code == 2
    if "-o" not in argv[-1:]:
        assert "say PRESET and -o DIR, or --list to see the presets" in capsys.readouterr().err


def test_the_list_has_one_line_for_each_preset(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:-2]] == presets.names()
    (line,) = [line for line in lines if line.startswith("wan-24gb ")]
    assert line.split(maxsplit=2)[1:] == [
        "21/24",
        "Wan 2.1 text to video, 14 B: 512 px, 33 frames, float8, swaps 8 blocks",
    ]
    assert all(len(line) < 120 for line in lines)
    assert "not measured" in lines[-2]
