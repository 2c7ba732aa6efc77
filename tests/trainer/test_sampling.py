"""Pictures drawn while training: what is asked for, which files appear, and in what order."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dpnb.errors import RunError
from dpnb.runs.rundir import RunDir
from dpnb.schema import Prompt
from tests.trainer import small
from trainer import sampling
from trainer.engine import World
from trainer.report import Report

PROMPTS = [
    Prompt(text="one"),
    Prompt(text="two", negative="bad", width=32, height=48, seed=5, steps=9, guidance=0.0),
    Prompt(text="one"),
]


class Family:
    """Draws the seed as grey."""

    def sample(self, _denoise: Any, request: Any) -> Any:
        return request

    def decode(self, request: Any, _device: torch.device) -> torch.Tensor:
        return torch.full((1, 3, 1, request.height_px, request.width_px), request.seed / 255)


class Engine:
    device = torch.device("cpu")

    def __init__(self, replica: int = 0, replicas: int = 1, *, first: bool = True) -> None:
        self.replica, self.replicas, self.first = replica, replicas, first

    def predict(self, _inputs: Any) -> None: ...

    def is_first_stage(self) -> bool:
        return self.first


def sampler(path: Path, **changes: Any) -> Any:
    asked = small.sampling(**({"prompts": PROMPTS} | changes))
    family: Any = Family()
    world = World(0, 1, torch.device("cpu"))
    return sampling.Sampler(family, asked, lambda caption: {"text": caption}, RunDir(path), world)  # type: ignore[dict-item]


def draw(own: Any, engine: Any, other: Sequence[Prompt] = (), step: int = 7) -> None:
    own.draw(engine, step, Report(own.run, speaks=False), other)


def test_texts_whose_embeds_are_needed() -> None:
    assert sampling.texts_of(None) == []
    assert sampling.texts_of(small.sampling(prompts=PROMPTS)) == ["one", "two"]
    assert sampling.texts_of(small.sampling(prompts=PROMPTS, true_cfg=2.0)) == ["one", "two", "", "bad"]
    assert sampling.texts_of(small.sampling(prompts=PROMPTS, negative="ugly")) == ["one", "two"]
    asked = small.sampling(prompts=[*PROMPTS, Prompt(text="[trigger]!", negative="")], negative="ugly", true_cfg=2.0)
    assert sampling.texts_of(asked) == ["one", "two", "[trigger]!", "ugly", "bad", ""]
    assert sampling.texts_of(asked, "zorbi")[2] == "zorbi!"


def test_a_prompt_takes_from_the_table_what_it_does_not_say(tmp_path: Path) -> None:
    first, second, third = sampler(tmp_path, seed=40, guidance=4.0).requests
    assert (first.width_px, first.height_px, first.steps, first.guidance, first.seed) == (64, 64, 2, 4.0, 40)
    assert (second.width_px, second.height_px, second.steps, second.guidance, second.seed) == (32, 48, 9, 0.0, 5)
    assert third.seed == 42
    assert (second.negative, second.negative_embeds, second.embeds) == (None, None, {"text": "two"})


def test_negatives_count_with_true_cfg(tmp_path: Path) -> None:
    first, second, _ = sampler(tmp_path, true_cfg=3.0).requests
    assert (first.negative, first.negative_embeds) == ("", {"text": ""})
    assert (second.negative, second.negative_embeds, second.true_cfg) == ("bad", {"text": "bad"}, 3.0)


def test_the_tables_negative_is_for_prompts_without_one(tmp_path: Path) -> None:
    prompts = [*PROMPTS, Prompt(text="three", negative="")]
    requests = sampler(tmp_path, prompts=prompts, true_cfg=3.0, negative="ugly").requests
    assert [r.negative for r in requests] == ["ugly", "bad", "ugly", ""]
    assert requests[0].negative_embeds == {"text": "ugly"}


def test_one_seed_for_all_prompts_that_have_none(tmp_path: Path) -> None:
    assert [r.seed for r in sampler(tmp_path, seed=40, walk_seed=False).requests] == [40, 5, 40]


def test_the_trigger_word_takes_its_place(tmp_path: Path) -> None:
    asked = small.sampling(prompts=["a [trigger] on a [trigger]", "a dog"])
    family: Any = Family()
    own = sampling.Sampler(
        family,
        asked,
        lambda caption: {"text": caption},  # type: ignore[dict-item]
        RunDir(tmp_path),
        World(0, 1, torch.device("cpu")),
        trigger_word="zorbi",
    )
    assert [(r.prompt, r.embeds) for r in own.requests] == [
        ("a zorbi on a zorbi", {"text": "a zorbi on a zorbi"}),
        ("a dog", {"text": "a dog"}),
    ]


def test_files_of_a_sampling(tmp_path: Path) -> None:
    draw(sampler(tmp_path), Engine())
    samples = RunDir(tmp_path).samples()
    assert [(s.step, s.index, s.prompt) for s in samples] == [(7, 0, "one"), (7, 1, "two"), (7, 2, "one")]
    assert samples[1].settings == {
        "prompt": "two",
        "negative": None,
        "step": 7,
        "seed": 5,
        "steps": 9,
        "guidance": 0.0,
        "true_cfg": 1.0,
        "width": 32,
        "height": 48,
    }
    picture = np.asarray(Image.open(samples[1].path))
    assert picture.shape == (48, 32, 3)
    assert (picture == 5).all()
    assert sorted(p.name for p in (tmp_path / "samples" / "step_000007").iterdir()) == [
        f"0{i}.{kind}" for i in range(3) for kind in ("json", "png")
    ]


def test_other_prompts_stand_behind_the_runs_own(tmp_path: Path) -> None:
    own = sampler(tmp_path)
    draw(own, Engine())
    draw(own, Engine(), [Prompt(text="new", seed=3)])
    last = RunDir(tmp_path).samples()[-1]
    assert (last.step, last.index, last.prompt) == (7, len(own.requests), "new")
    assert (last.settings["seed"], last.settings["width"]) == (3, own.sampling.width)
    assert [request.prompt for request in own.requests] == ["one", "two", "one"]


def test_replicas_share_the_prompts_and_only_first_stages_write(tmp_path: Path) -> None:
    own = sampler(tmp_path)
    draw(own, Engine(1, 2))
    assert [s.index for s in own.run.samples()] == [1]
    draw(own, Engine(0, 2, first=False))
    assert [s.index for s in own.run.samples()] == [1]
    draw(own, Engine(0, 2))
    assert [s.index for s in own.run.samples()] == [0, 1, 2]


def test_the_settings_come_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    write = sampling.write_text

    def watched(path: Path, text: str) -> None:
        seen.append((path.name, sorted(p.name for p in tmp_path.iterdir())))
        write(path, text)

    monkeypatch.setattr(sampling, "write_text", watched)
    sampling.write_sample(tmp_path, 3, torch.zeros(3, 1, 16, 16), {"prompt": "x"})
    assert seen == [("03.json", ["03.png"])]
    assert json.loads((tmp_path / "03.json").read_text()) == {"prompt": "x"}


def test_a_disk_that_takes_no_more(tmp_path: Path) -> None:
    (tmp_path / "step").write_text("a file where the folder should be")
    message = f"cannot write the sample {tmp_path}/step/00.png: File exists. Make room, then resume."
    with pytest.raises(RunError, match=f"^{re.escape(message)}$"):
        sampling.write_sample(tmp_path / "step", 0, torch.zeros(3, 1, 16, 16), {})
