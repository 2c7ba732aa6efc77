"""What a training file and a dataset file ask of one another, with the words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dpnb import toml
from dpnb.errors import ConfigError
from dpnb.schema import Dataset, Directory, rules_pair
from dpnb.schema.rules_pair import check_pair
from tests.dpnb.every_family import FAMILIES, training


def dataset(folders: list[dict[str, Any]] | None = None, **top: Any) -> Dataset:
    made = [Directory(path=f"folder{i}", **keys) for i, keys in enumerate(folders or [{}])]
    return Dataset(**({"resolutions": [512]} | top), directory=made)


@pytest.mark.parametrize("family", FAMILIES)
def test_pictures_at_512_suit_every_family(family: str) -> None:
    assert check_pair(training(family=family), dataset()) == []


@pytest.mark.parametrize(
    ("asked", "data", "said"),
    [
        ({"family": "qwen_image"}, dataset([{"control_path": "c"}]), ""),
        (
            {"family": "sdxl"},
            dataset([{}, {"control_path": "c"}]),
            "error: directory[1].control_path: Stable Diffusion XL is not trained on pairs of pictures. Remove "
            "control_path, or train a model that edits, such as qwen_image.",
        ),
        (
            {},
            dataset(frame_buckets=[1, 33]),
            "warning: frame_buckets: clips are left out: FLUX.1 is trained on pictures. Use frame_buckets = [1].",
        ),
        ({"family": "wan"}, dataset(frame_buckets=[1, 33, 81]), ""),
        ({"family": "minimax_h3"}, dataset(frame_buckets=[1, 17, 34]), ""),
        (
            {"family": "wan"},
            dataset([{"frame_buckets": [1, 32, 33, 50]}]),
            "warning: directory[0].frame_buckets: Wan takes clips of 4n+1 frames: 32 is cut to 29, 50 is cut to 49. "
            "Use [1, 29, 33, 49].",
        ),
        (
            {"family": "minimax_h3"},
            dataset(frame_buckets=[33]),
            "warning: frame_buckets: MiniMax H3 takes clips of 17n frames: 33 is cut to 17. Use [1, 17].",
        ),
        ({"micro_batch_size_per_gpu": [[512, 4], [1024, 1]]}, dataset(resolutions=[[512, 512], [1280, 820]]), ""),
        (
            {"micro_batch_size_per_gpu": [[512, 4], [1024, 1]]},
            dataset([{"size_buckets": [[640, 480, 1]]}]),
            "warning: resolutions: micro_batch_size_per_gpu gives a batch size for 1024, which no picture has: the "
            "resolutions are 554.256. Add the resolution here, or remove its pair there.",
        ),
        ({"micro_batch_size_per_gpu": [[512, 4]]}, dataset(resolutions=None, ar_buckets=[1.0]), ""),
        (
            {"family": "wan", "model": {"ckpt_path": "Wan2.1-I2V-14B"}},
            dataset([{"frame_buckets": [1, 33]}, {}]),
            "error: directory[1]: holds pictures alone (frame_buckets = [1]), and image-to-video models are trained "
            "on clips. Add a clip length such as frame_buckets = [1, 33], or train a text-to-video model.",
        ),
        (
            {"family": "wan", "model": {"ckpt_path": "Wan2.1-FLF2V-14B"}},
            dataset(resolutions=None, size_buckets=[[512, 512, 1]]),
            "error: directory[0]: holds pictures alone (size_buckets of 1 frame), and image-to-video models are "
            "trained on clips. Add a clip length such as size_buckets = [[512, 512, 33]], or train a text-to-video "
            "model.",
        ),
        ({"family": "wan", "model": {"ckpt_path": "Wan2.2-TI2V-5B"}}, dataset(), ""),
        ({"family": "wan", "model": {"ckpt_path": "i2v-tests/Wan2.1-T2V-14B"}}, dataset(), ""),
        (
            {"family": "cosmos"},
            dataset(resolutions=None, size_buckets=[[960, 960, 1], [512, 512, 121]]),
            "warning: size_buckets[1]: Cosmos 1 was not made for 512 x 512 px and 121 frames. Use 1280 x 704, 960 x "
            "704, either way round, or 960 x 960 px, and 1 or 121 frames.",
        ),
    ],
)
def test_rules_between_the_files(asked: dict[str, Any], data: Dataset, said: str) -> None:
    assert "\n".join(map(str, check_pair(training(**asked), data))) == said


def test_every_rule_is_pinned_above() -> None:
    """A new rule is a new row: count them."""
    assert len(rules_pair.PAIR_RULES) == 5


def test_they_stand_at_their_line_in_the_dataset_file(tmp_path: Path) -> None:
    data, run = tmp_path / "dataset.toml", tmp_path / "run.toml"
    data.write_text("resolutions = [512]\nframe_buckets = [1, 33]\n[[directory]]\npath = 'x'\n")
    asked = training(dataset=str(data))
    run.write_text(toml.dump(asked))
    (problem,) = toml.load_run(run, paths=False).warnings
    assert (problem.file, problem.line, problem.column) == (str(data), 2, 1)
    data.write_text(data.read_text() + "control_path = 'c'\n")
    run.write_text(toml.dump(training(family="sdxl", dataset=str(data))))
    with pytest.raises(ConfigError) as caught:
        toml.load_run(run, paths=False)
    assert [(p.file, p.line, p.severity) for p in caught.value.problems] == [
        (str(data), 2, "warning"),
        (str(data), 5, "error"),
    ]


PAIRS = "5:1: error: directory[0].control_path: Wan is not trained on pairs of pictures"
CLIPS = (
    "3:1: error: directory[0]: holds pictures alone (frame_buckets = [1]), and image-to-video models are trained on "
)


@pytest.mark.parametrize(
    ("run_line", "data_line", "said"),
    [
        ("foo = 1", "min_ar = 0.5", [CLIPS, PAIRS]),
        ("foo = 1", "bar = 1", [CLIPS, PAIRS]),
        ("keep_best = true", "min_ar = 2", [CLIPS, PAIRS]),
        # It may be what the rule misses.
        ("foo = 1", "frame_bucket = [1, 33]", [PAIRS]),
        # A value that does not hold: nobody knows what it would be.
        ("seed = 'x'", "min_ar = 0.5", []),
        ("foo = 1", "min_ar = 'x'", []),
        ("= 1", "min_ar = 0.5", []),
        ("foo = 1", "= 1", []),
    ],
)
def test_they_are_told_beside_other_problems_of_either_file(
    run_line: str, data_line: str, said: list[str], tmp_path: Path
) -> None:
    data, run = tmp_path / "dataset.toml", tmp_path / "run.toml"
    data.write_text(f"resolutions = [512]\n{data_line}\n[[directory]]\npath = 'x'\ncontrol_path = 'c'\n")
    asked = training(family="wan", dataset=str(data))
    asked.model.ckpt_path = "Wan2.1-I2V-14B"
    run.write_text(f"{run_line}\n{toml.dump(asked)}")
    with pytest.raises(ConfigError) as caught:
        toml.load_run(run, paths=False)
    lines = [str(problem).removeprefix(f"{data}:") for problem in caught.value.problems]
    told = [line for line in lines if "directory[0]" in line]
    assert all(line.startswith(begin) for line, begin in zip(told, said, strict=True))
