"""Any text gives an object or says why not, with a line: files of every family with faults as people make them.

The full number is run with DPNB_MUTATIONS=10000.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from dpnb.errors import ConfigError, errors_in
from dpnb.schema import Dataset, Section, Training
from dpnb.toml import dump, load
from tests.dpnb.drawn import written
from tests.dpnb.every_family import FAMILIES, training

MUTATIONS = int(os.environ.get("DPNB_MUTATIONS", "1000"))

EXTRA = """
[monitoring]
enable_wandb = true
wandb_api_key = "0123456789abcdef0123456789abcdef01234567"
[sample]
width = 64
prompts = ["a", {text = '''b''', seed = 3}]
"""
DATASETS = (
    """
resolutions = [[64, 32], [32, 64]]
enable_ar_bucket = true
ar_buckets = [0.5, 1]
[[directory]]
path = 'pictures'
num_repeats = 1.5
[[directory]]
path = 'more'
size_buckets = [[64, 64, 1]]
[directory.augmentation]
flip = 0.5
""",
    """
resolutions = [512, 768] # px
enable_ar_bucket = true
min_ar = 0.5
max_ar = 2.0
num_ar_buckets = 7
frame_buckets = [1, 33]
[[directory]]
path = '/data/clips'
mask_path = "/data/masks"
caption_prefix = "x, "
directory = []
""",
)


def mutated(text: str, chance: random.Random) -> str:
    """A text with one to three faults as people make them: in characters, lines and values."""
    odd = ["", "true", "inf", "-nan", "[]", "{}", '""', "0", "-1", "1e400", "9" * 25, "1979-05-27", "[[1, 2.5], 'a']"]
    odd += [
        "{ type = 1 }",
        "[{}]",
        "'type'",
        "07:32:00",
        "[1, [2]]",
        '"\\u0000"',
        "[true]",
        "-0",
        "0x1F",
        "'''\n\n'''",
    ]
    for _ in range(chance.randint(1, 3)):
        lines = text.split("\n")
        at, line = chance.randrange(len(text) + 1), chance.randrange(len(lines))
        match chance.randrange(8):
            case 0:
                text = text[:at] + text[at + chance.randint(1, 5) :]
            case 1:
                text = text[:at] + chance.choice("[]{}=.,\"'#\n\\ \t\x000aé") + text[at:]
            case 2:
                text = text[:at] + chance.choice("[]{}=.,\"'#\n\\ 0a") + text[at + 1 :]
            case 3:
                text = "\n".join(lines[:line] + lines[line + 1 :])
            case 4:
                text = "\n".join([*lines[:line], chance.choice(lines), *lines[line:]])
            case 5:
                text = "\n".join(
                    [*lines[:line], f"{lines[line].split('=')[0]}= {chance.choice(odd)}", *lines[line + 1 :]]
                )
            case 6:
                text = "\n".join(
                    [*lines[:line], lines[line].replace("[[", "[").replace("]]", "]"), *lines[line + 1 :]]
                )
            case 7:
                key = chance.choice(["x", "type", "sample", "a.b", "model", "int", "'list[int]'", "directory", "seed"])
                text = "\n".join([*lines[:line], f"{key} = {chance.choice(odd) or 1}", *lines[line:]])
    return text


def texts() -> list[tuple[type[Section], str]]:
    """Files of every family, as we write them and as people do, and dataset files."""
    found: list[tuple[type[Section], str]] = [(Dataset, text) for text in DATASETS * 8]
    for number, family in enumerate(sorted(FAMILIES)):
        value = training({"diffusers_path": "x"} if family == "sd15" else {}, family=family)
        found.append((Training, dump(value, everything=number % 2 == 0, comments=number % 3 == 0) + EXTRA))
        found.append((Training, written(value, random.Random(number))))
    return found


@pytest.mark.timeout(1200)
def test_any_text_loads_or_says_why_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    chance = random.Random(7)
    sources = texts()
    broken = 0
    for number in range(MUTATIONS):
        cls, source = sources[number % len(sources)]
        text = mutated(source, chance)
        Path("x.toml").write_bytes(text.encode())
        try:
            found = load("x.toml", cls, paths=number % 4 == 0).warnings
        except ConfigError as error:
            found = error.problems
            broken += 1
            assert errors_in(found), text
        for problem in found:
            assert problem.file == "x.toml", (problem, text)
            assert (problem.line or 0) >= 1, (problem, text)
            assert (problem.column or 0) >= 1, (problem, text)
            assert problem.line <= text.count("\n") + 1, (problem, text)
            assert "\n" not in str(problem), (problem, text)
            assert "0123456789abcdef0123" not in str(problem), (problem, text)
    assert broken > 0.6 * MUTATIONS
