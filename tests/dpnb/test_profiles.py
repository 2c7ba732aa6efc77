"""What diffusion-pipe does not read, and what our own trainer does not act on: read off the schema, and by value."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from dpnb.errors import ConfigError, errors_in
from dpnb.schema import Dataset, Directory, DoraAdapter, LohaAdapter, LokrAdapter, LoraAdapter, Training
from dpnb.schema.base import Section, ui_of
from dpnb.schema.model import FACTS, model_of
from dpnb.schema.profiles import not_here, not_here_in_dataset, not_upstream
from dpnb.toml import dump
from tests.dpnb.every_family import FAMILIES, training


def dataset(top: dict[str, Any] | None = None, **folder: Any) -> Dataset:
    return Dataset(**({"resolutions": [512]} | (top or {})), directory=[Directory(path="x", **folder)])


def said(value: Section) -> list[str]:
    return [str(problem) for problem in not_upstream(value)]


READ = "diffusion-pipe does not read this. Remove it, or keep it for dpnb's own trainer."


@pytest.mark.parametrize(
    ("value", "messages"),
    [
        (training(), []),
        (dataset(control_path="a"), []),
        (
            dataset(control_path=["a", "b"]),
            [
                "error: directory[0].control_path: diffusion-pipe takes one folder of control pictures. Name one "
                "folder, as a text."
            ],
        ),
        (training(seed=3, keep_best=True), [f"error: seed: {READ}", f"error: keep_best: {READ}"]),
        (training(sample={"prompts": ["a"]}), [f"error: sample: {READ}"]),
        (training(ema={}, loss={}), [f"error: loss: {READ}", f"error: ema: {READ}"]),
        (training(adapter=LoraAdapter(rank=4, alpha=2)), [f"error: adapter.alpha: {READ}"]),
        (
            training(adapter=LokrAdapter(rank=4)),
            ["error: adapter.type: diffusion-pipe does not train 'lokr' adapters of FLUX.1. Use 'lora'."],
        ),
        (training(adapter=LokrAdapter(rank=4), family="wan"), []),
        (
            training(adapter=LohaAdapter(rank=4), family="wan"),
            ["error: adapter.type: diffusion-pipe has no 'loha' adapters. Use 'lora' or 'lokr'."],
        ),
        (
            training(adapter=DoraAdapter(rank=4), family="sdxl"),
            ["error: adapter.type: diffusion-pipe has no 'dora' adapters. Use 'lora'."],
        ),
        (
            training(video_clip_mode="multiple_overlapping", family="wan"),
            ["error: video_clip_mode: diffusion-pipe refuses 'multiple_overlapping'. Use 'single_beginning' or "
                "'single_middle'."],
        ),
        (
            training({"diffusers_path": "x"}, family="sd15"),
            ["error: model.type: diffusion-pipe does not train Stable Diffusion 1.x and 2.x. It trains "
                f"{', '.join(tag for tag in FACTS if tag != 'sd15')}."],
        ),
        (training(optimizer={"type": "Lion", "beta2_half_life": 9.0}),
            ["error: optimizer.beta2_half_life: diffusion-pipe wants betas beside it. Add them, such as "
                "[0.9, 0.99]."]),
        (training(optimizer={"type": "adamw", "beta2_half_life": 9.0}), []),
        (training(monitoring={"enable_wandb": True, "wandb_tracker_name": "a", "wandb_run_name": "b"}),
            ["warning: monitoring.enable_wandb: diffusion-pipe wants wandb_api_key in its file, and dpnb writes no "
                "secrets. Write it into that file by hand, or turn this off."]),
        (dataset({"resolutions": [1, 2, 3, 4]}, resolutions=[1, 2, 3]),
            ["warning: resolutions: diffusion-pipe stops at more than 3 resolutions. Name fewer, or start it with "
                "--i_know_what_i_am_doing."]),
        (dataset(), []),
        (dataset({"trigger_word": "x"}, loss_weight=0.5),
            [f"error: trigger_word: {READ}", f"error: directory[0].loss_weight: {READ}"]),
        (dataset({"augmentation": {"flip": 0.5}}), [f"error: augmentation: {READ}"]),
        (dataset({"resolutions": None}, resolutions=[512]),
            ["error: resolutions: diffusion-pipe wants this at the top of the file, even where every folder has its "
                "own. Put one of the folders' there as well."]),
        (dataset({"resolutions": None}, size_buckets=[[512, 512, 1]]), []),
        (dataset({"min_ar": 0.5, "enable_ar_bucket": True}, max_ar=2.0, num_ar_buckets=7),
            ["error: max_ar: diffusion-pipe wants this at the top of the file, even where every folder has its own. "
                "Put one of the folders' there as well.",
             "error: num_ar_buckets: diffusion-pipe wants this at the top of the file, even where every folder has "
                "its own. Put one of the folders' there as well."]),
    ],
)  # fmt: skip
def test_what_diffusion_pipe_does_not_read(value, messages):
    assert said(value) == messages


def test_every_key_of_ours_is_reported_and_nothing_else():
    """Whether a key is ours is said at the key alone: each that differs from its default shows up."""
    changes: dict[str, Any] = {}
    for name, info in Training.model_fields.items():
        if ui_of(info).ours:
            changes[name] = {bool: True, int: 7, str: "x"}.get(type(info.default), 7)
    changes |= {"push_to_hub": "me/it", "cache_dir": "cache"}
    assert {problem.key for problem in not_upstream(training(**changes))} == set(changes)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_file_for_diffusion_pipe_has_no_key_of_ours(family):
    value = training(family=family)
    if family == "sd15":
        with pytest.raises(ConfigError, match="diffusion-pipe does not train Stable Diffusion"):
            dump(value, profile="diffusion-pipe")
        return
    for everything in (False, True):
        data = tomllib.loads(dump(value, profile="diffusion-pipe", everything=everything))
        assert data["model"]["dtype"] == "bfloat16"
        assert "seed" not in data
        assert "alpha" not in data["adapter"]


def test_dump_for_diffusion_pipe_says_everything_before_it_writes():
    with pytest.raises(ConfigError) as caught:
        dump(training(seed=3, adapter=LokrAdapter(rank=4, alpha=1)), profile="diffusion-pipe")
    assert [problem.key for problem in caught.value.problems] == ["seed", "adapter.alpha", "adapter.type"]


# --- our own trainer -------------------------------------------------------------------------------------------------


def test_what_our_trainer_does_with_each_family():
    for model in map(model_of, FAMILIES):
        family = str(model.model_fields["type"].default)
        changes = {"diffusers_path": "x"} if family == "sd15" else {}
        found = [problem for problem in not_here(training(changes, family=family)) if problem.loc == ("model", "type")]
        trained = ", ".join(tag for tag, section in FAMILIES.items() if not section.pending)
        expected = (
            [
                f"error: model.type: '{family}' is not trained by dpnb's own trainer yet. It trains {trained}; "
                "diffusion-pipe reads this file as it is."
            ]
            if model.pending
            else []
        )
        assert [str(problem) for problem in found] == expected


DIFFERS = (
    "is not acted on by dpnb's own trainer yet, and the result would differ. Choose another value, or leave it out."
)
SLOWER = "is not acted on by dpnb's own trainer yet: the run takes more time or memory. The result is the same."


@pytest.mark.parametrize(
    ("value", "messages"),
    [
        (training(), []),
        (training({"transformer_dtype": "float8"}, save_dtype="float8_e5m2"), []),
        (training(activation_checkpointing="unsloth"), [f"warning: activation_checkpointing: {SLOWER}"]),
        (training(activation_checkpointing=True), []),
        (training(compile=True), [f"warning: compile: {SLOWER}"]),
        (training(push_to_hub="me/it"), [f"error: push_to_hub: {DIFFERS}"]),
        (training(lora={"dtype": "bfloat16"}), [f"warning: lora: {SLOWER}"]),
        (training(optimizer={"type": "automagic"}), [f"error: optimizer.type: 'automagic' {DIFFERS}"]),
    ],
)
def test_keys_and_values(value, messages):
    assert [str(problem) for problem in not_here(value)] == messages


def test_keys_of_the_dataset_at_their_default_in_a_folder_say_nothing():
    found = not_here_in_dataset(dataset({"online_captions": True}, shuffle_metadata=False, crop="center"))
    assert [str(problem) for problem in found] == [
        f"warning: online_captions: {SLOWER}",
        f"warning: directory[0].shuffle_metadata: {SLOWER}",
    ]
    assert not errors_in(found)


def test_betas_are_written_beside_a_half_life():
    """diffusion-pipe looks them up without a default there."""
    value = training(optimizer={"type": "adamw", "beta2_half_life": 9.0})
    assert tomllib.loads(dump(value))["optimizer"]["betas"] == [0.9, 0.999]
    assert "betas" not in tomllib.loads(dump(training(optimizer={"type": "adamw"})))["optimizer"]
