"""TOML to plain data: what tomllib reads, and what diffusion-pipe's parser and TOML 1.1 read besides."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from dpnb.plain_toml import joined, loads
from dpnb.schema import Training
from dpnb.toml import load
from dpnb.toml.edit import edit

ENCODER = {"path": "t", "type": "lumina2"}


@pytest.mark.parametrize(
    "text",
    [
        "text_encoders = [\n  {\n    path = 't', # the {first}\n    type = 'lumina2'\n  },\n]\n",
        "text_encoders = [{path = 't',\n type = 'lumina2'}]\n",
        "text_encoders = [\n  { # it's\n    path = 't',\r\n    # type = 'x' }\n    type = \"lumina2\"\n  }]\n",
        "\ufefftext_encoders = [{\npath\n =\n 't', type = 'lumina2'}]",
    ],
)
def test_inline_tables_on_several_lines(text):
    assert loads(text) == {"text_encoders": [ENCODER]}
    assert len(joined(text)) == len(text)


@pytest.mark.parametrize("text", ["a = {b = [1,\n2], c = '''\n{'''}\n", "a = '{'\nb = 2\n", "[a]\n'b{' = 1\n", ""])
def test_what_tomllib_reads_is_read_as_it_does(text):
    assert loads(text) == tomllib.loads(text)


@pytest.mark.parametrize("text", ["a = {b = 1\nc = 2\n", "a = [{\nb = 1]\n", "a = {b = 1,\n}\n", "a = 1\na = {\n}\n"])
def test_what_nobody_reads(text):
    with pytest.raises(tomllib.TOMLDecodeError):
        loads(text)


def test_such_a_file_is_loaded_placed_and_edited(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(
        "output_dir = 'o'\ndataset = 'd'\nepochs = 1\nsave_every_n_epochs = 1\n[model]\ntype = 'z_image'\n"
        "diffusion_model = 'm'\nvae = 'v'\n"
        "text_encoders = [\n  {\n    path = 't', # big\n    type = 'lumina2'\n  },\n]\n"
        "dtype = 'bfloat16'\n[adapter]\ntype = 'lora'\nrank = 4\n[optimizer]\ntype = 'adamw'\nlr = 1e-4\n"
    )
    document = load(path, Training, paths=False)
    assert document.warnings == []
    assert document.value.model.model_dump()["text_encoders"][0]["path"] == "t"
    assert edit(document.text, document.value, document.value) == document.text
    new = document.value.model_copy(deep=True)
    new.model.text_encoders[0].path = "u"  # type: ignore[union-attr]
    assert document.edited(new) == document.text.replace("path = 't'", "path = 'u'")
    missing = [problem for problem in _problems(path) if problem.key == "model.text_encoders[0].path"]
    assert [(problem.line, problem.column) for problem in missing] == [(11, 5)]


def _problems(path: Path):
    from dpnb.toml import check_files

    return [problem for found in check_files(path).values() for problem in found]
