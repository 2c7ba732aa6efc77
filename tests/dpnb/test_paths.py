"""Paths that are not there, and model folders that are not what a family needs, with their words."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from dpnb import toml
from dpnb.errors import ConfigError
from dpnb.presets import flux_lora
from dpnb.schema import EvalDataset, FluxModel, Training
from dpnb.schema.families.base import TextEncoder
from dpnb.schema.paths import check_model_folder, check_path, check_paths, kind_of_path
from tests.dpnb.every_family import training
from tests.dpnb.model_folder import lay_out

EVAL = EvalDataset(name="a", config="a.toml")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    (tmp_path / "file.tar").write_text("x")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("value", "kind", "said"),
    [
        ("folder", "dir", None),
        ("file", "file", None),
        ("folder", "output_dir", None),
        ("folder/new/newer", "output_dir", None),
        ("folder", "path", None),
        ("file", "path", None),
        ("/none", "path", "'/none' does not exist. Correct the path."),
        ("", "path", "must not be empty. Name a file or folder."),
        ("", "dir", "must not be empty. Name a folder."),
        ("", "output_dir", "must not be empty. Name a folder."),
        ("", "file", "must not be empty. Name a file."),
        ("file", "dir", "'file' is not a folder. Name a folder."),
        ("folder", "pictures", None),
        ("file.tar", "pictures", None),
        ("file", "pictures", "'file' is not a folder or .tar file. Name a folder or .tar file."),
        ("folder", "file", "'folder' is not a file. Name a file."),
        ("none", "file", "'none' does not exist. Relative paths count from the working directory ({cwd}): correct "
            "it, or write the full path."),
        ("file/x", "dir", "'file/x' does not exist. Relative paths count from the working directory ({cwd}): correct "
            "it, or write the full path."),
        ("/no/such", "dir", "'/no/such' does not exist. Correct the path."),
        ("/no/a\nb", "dir", "'/no/a\\nb' does not exist. Correct the path."),
        ("$A/x", "dir", "'$A/x' does not exist. Variables are not expanded in a TOML file: write the full path."),
        ("file", "output_dir", "'file' cannot be created: 'file' is a file. Name another folder."),
        ("file/x", "output_dir", "'file/x' cannot be created: 'file' is a file. Name another folder."),
        ("/no/\0", "file", "'/no/\\x00' cannot be read: it holds a zero byte. Correct the path."),
        ("a\0", "output_dir", "'a\\x00' cannot be created: it holds a zero byte. Name another folder."),
    ],
)  # fmt: skip
def test_paths(folder, value, kind, said):
    found = check_path(("key",), value, kind)
    expected = [] if said is None else [f"error: key: {said.replace('{cwd}', str(folder))}"]
    assert [str(problem) for problem in found] == expected


def test_an_empty_path_of_a_key_that_may_be_left_out_is_none(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    asked = training(dataset=str(file), model={"diffusers_path": str(tmp_path)}, output_dir=str(tmp_path))
    text = toml.dump(asked).replace("[model]", "cache_dir = ''\n[model]\ntransformer_path = ''")
    file.write_text(text)
    assert toml.load(file, Training, paths=False).value == asked
    assert "transformer_path" not in str(check_paths(asked))
    with pytest.raises(ConfigError) as caught:
        toml.load(file, Training)
    assert [problem.key for problem in caught.value.problems] == ["model.diffusers_path"]  # it is no model


def test_a_tilde_is_written_out(folder, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    (problem,) = check_path(("key",), "~/flux", "dir")
    assert problem.suggestion == "'~' is not expanded in a TOML file: write the full path, such as '/home/me/flux'."


@pytest.mark.skipif(os.sep != "/", reason="there a backslash is right")
def test_a_path_of_windows(folder):
    (problem,) = check_path(("key",), "C:\\flux", "dir")
    assert str(problem) == (
        "error: key: 'C:\\flux' does not exist. Folders are separated by / here: write the path with / instead of \\ "
        "(under WSL, C: is /mnt/c)."
    )


@pytest.mark.skipif(sys.platform == "win32", reason="another limit there")
def test_a_name_that_is_too_long(folder):
    name = "a" * 300
    (read,), (made,) = check_path(("key",), name, "dir"), check_path(("key",), name, "output_dir")
    assert read.message == f"'{name}' cannot be read: File name too long."
    assert made.message == f"'{name}' cannot be created: File name too long."


def test_links_in_a_circle(folder):
    Path("loop").symlink_to("loop")
    assert kind_of_path("loop") == "Too many levels of symbolic links"


def test_check_paths_looks_at_every_path_of_an_object(folder):
    found = check_paths(training(cache_dir="file", eval_datasets=[EVAL]))
    assert [problem.key for problem in found] == [
        "dataset",
        "cache_dir",
        "eval_datasets[0].config",
        "model.diffusers_path",
    ]
    encoder = TextEncoder(type="lumina2", paths=["file", "none"], path="folder")
    found = check_paths(training(family="z_image", model={"text_encoders": [encoder], "merge_adapters": ["folder"]}))
    assert [problem.key for problem in found] == [
        "dataset",
        "model.diffusion_model",
        "model.vae",
        "model.text_encoders[0].path",
        "model.text_encoders[0].paths[1]",
        "model.merge_adapters[0]",
    ]


# --- the model's folder ----------------------------------------------------------------------------------------------


def said_of(folder: Path, **changes: object) -> list[str]:
    model = FluxModel(diffusers_path=str(folder), **changes)
    base = flux_lora(model_dir=folder)[0]
    return [str(p).replace(str(folder), "M") for p in check_model_folder(base.model_copy(update={"model": model}))]


def test_a_whole_model_folder_and_one_that_is_missing_are_no_problem_here(tmp_path: Path) -> None:
    assert said_of(lay_out(tmp_path / "model")) == []
    assert said_of(tmp_path / "gone") == []  # check_paths says it


def test_a_model_folder_that_is_none_or_not_whole(tmp_path: Path) -> None:
    where = "error: model.diffusers_path: "
    assert said_of(tmp_path) == [
        f"{where}'M' has no readable model_index.json. "
        "Name a folder in diffusers format, as `huggingface-cli download REPOSITORY` makes it."
    ]
    model = lay_out(tmp_path / "model")
    (model / "vae").rmdir()
    (model / "tokenizer").rmdir()
    (model / "transformer" / "model.safetensors").unlink()
    assert said_of(model) == [
        f"{where}'M' lacks vae, tokenizer. Download the model again, whole.",
        f"{where}'M/transformer' holds no .safetensors file. Download the model again, whole.",
    ]
    (model / "model_index.json").write_text('{"transformer": ["diffusers", "QwenImageTransformer2DModel"]}')
    assert said_of(model, transformer_path="other.safetensors")[1:] == [
        f"{where}'M' holds a QwenImageTransformer2DModel; FLUX.1 is a FluxTransformer2DModel. "
        "Change model.type or the folder."
    ]
