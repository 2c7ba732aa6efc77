"""Presets: every one is a faultless pair of files that fits its card by the estimate, and says which it is."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

import dpnb
from dpnb import presets, toml
from dpnb.errors import ConfigError
from dpnb.presets.memory import (
    SPARE,
    Fit,
    Network,
    Size,
    activations_gib,
    adapter_gib,
    fit,
    latent_tokens,
    training_gib,
    weights_gib,
)
from dpnb.presets.table import MEMORIES_GB, ROWS
from dpnb.schema import Dataset, Training
from dpnb.schema.base import ui_of, walk
from dpnb.schema.model import FACTS
from dpnb.schema.rules import check_training
from dpnb.schema.rules_dataset import check_dataset
from dpnb.schema.rules_pair import check_pair

EVERY = sorted(presets.every_preset())


# --- each preset -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVERY)
def test_a_preset_has_neither_errors_nor_warnings(name: str) -> None:
    training, dataset = presets.preset(name)
    problems = [*check_training(training), *check_dataset(dataset), *check_pair(training, dataset)]
    assert [str(problem) for problem in problems] == []


@pytest.mark.parametrize("name", EVERY)
def test_a_preset_comes_back_from_its_files(name: str, tmp_path: Path) -> None:
    written = presets.preset(name, dataset_toml=tmp_path / "dataset.toml")
    for file, value in zip(("run.toml", "dataset.toml"), written, strict=True):
        (tmp_path / file).write_text(toml.dump(value, comments=True), encoding="utf-8")
    config = toml.load_run(tmp_path / "run.toml", paths=False)
    assert (config.training.value, config.dataset.value) == written
    assert config.warnings == []


@pytest.mark.parametrize("name", [name for name in EVERY if not name.startswith("sd15")])
def test_without_samples_a_preset_is_a_file_of_diffusion_pipe(name: str) -> None:
    training, dataset = presets.preset(name, prompts=[])
    assert training.sample is None
    for value, cls in ((training, Training), (dataset, Dataset)):
        text = toml.dump(value, profile="diffusion-pipe")
        assert toml.validate(tomllib.loads(text), cls) == (value, [])
        for loc, info, item in walk(value):
            assert not ui_of(info).ours or item == info.get_default(call_default_factory=True), loc


def test_every_family_has_a_preset_under_its_own_name() -> None:
    families = {preset.family for preset in presets.every_preset().values()}
    assert families == set(FACTS)
    for family in FACTS:
        assert presets.find(family).family == family


@pytest.mark.parametrize("name", EVERY)
def test_a_preset_fits_its_card_and_saves_no_more_than_it_has_to(name: str) -> None:
    preset = presets.find(name)
    size, way = preset.row.sizes[preset.memory_gb], preset.fit
    assert way.gib == training_gib(preset.row.network, size, preset.row.rank, way)
    assert way.gib <= preset.memory_gb * (1 - SPARE)
    assert way.blocks_to_swap <= (FACTS[preset.family].max_swap or preset.row.network.max_swap)
    if way.blocks_to_swap:
        fewer = replace(way, blocks_to_swap=way.blocks_to_swap - 1)
        assert training_gib(preset.row.network, size, preset.row.rank, fewer) > preset.memory_gb * (1 - SPARE)


@pytest.mark.parametrize("name", EVERY)
def test_clips_have_lengths_that_the_family_takes(name: str) -> None:
    facts = FACTS[presets.find(name).family]
    frames = presets.preset(name)[1].frame_buckets
    assert [facts.whole_frames(count) for count in frames] == frames
    assert facts.video or frames == [1]


def test_a_larger_card_never_trains_less() -> None:
    for model, row in ROWS.items():
        pixels = [max(row.sizes[memory].resolutions) for memory in MEMORIES_GB if memory in row.sizes]
        assert pixels == sorted(pixels), model


# --- names -----------------------------------------------------------------------------------------------------------


def test_names_tell_model_and_memory_and_a_plain_one_means_24_gb() -> None:
    assert len(presets.names()) == len(set(presets.names()))
    assert {"flux-16gb", "flux-24gb", "flux-48gb", "flux-80gb", "wan-1.3b-16gb", "sd15-16gb"} <= set(presets.names())
    assert "flux2-16gb" not in presets.names()  # 32 B do not fit, whatever is swapped
    assert presets.find("flux").name == "flux-24gb"
    assert presets.preset("flux") == presets.preset("flux-24gb") == presets.PRESETS["flux"]()
    assert set(presets.PRESETS) == {*ROWS, *presets.names()}


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("flux-32gb", "Nearest: flux-16gb, flux-24gb, flux-48gb, flux-80gb."),
        ("wan-14b", "Nearest: wan-"),
        ("Flux", "Nearest: flux"),
        ("xyz", "`dpnb new --list` shows all of them."),
    ],
)
def test_an_unknown_name_is_one_error_with_the_nearest_names(name: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        presets.preset(name)
    assert str(caught.value).startswith(f"error: there is no preset '{name}'. {hint}")
    assert str(caught.value).endswith("`dpnb new --list` shows all of them.")


# --- paths and prompts -----------------------------------------------------------------------------------------------


def test_paths_follow_one_scheme_and_can_be_given() -> None:
    training, dataset = presets.preset("flux2")
    assert training.model.diffusion_model == "models/flux2/flux2-dev.safetensors"
    assert training.model.text_encoders[0].path == "models/flux2/mistral_3_small_flux2_bf16.safetensors"
    assert training.model.text_encoders[0].type == "flux2"
    assert (training.output_dir, training.dataset, dataset.directory[0].path) == ("runs", "dataset.toml", "pictures")
    training, dataset = presets.preset(
        "chroma-16gb", model_dir="/m", pictures="p", output_dir="o", dataset_toml="d.toml"
    )
    assert (training.model.diffusers_path, training.model.transformer_path) == (
        "/m/FLUX.1-schnell",
        "/m/Chroma1-HD.safetensors",
    )
    assert (training.output_dir, training.dataset, dataset.directory[0].path) == ("o", "d.toml", "p")


def test_a_trigger_word_is_in_the_prompts() -> None:
    training, _ = presets.preset("flux", trigger_word="mycat")
    assert training.trigger_word == "mycat"
    assert all("[trigger]" in prompt.text for prompt in training.sample.prompts)
    assert all("[trigger]" not in prompt.text for prompt in presets.preset("flux")[0].sample.prompts)
    own = presets.preset("flux", prompts=["a fox"])[0].sample
    assert [prompt.text for prompt in own.prompts] == ["a fox"]


def test_flux_lora_is_a_preset_by_another_name() -> None:
    assert presets.flux_lora(memory_gb=24, trigger_word="x") == presets.preset("flux-24gb", trigger_word="x")
    training, _ = dpnb.flux_lora(model_dir="models/FLUX.1-dev")
    assert training.model.transformer_dtype is None
    assert training.blocks_to_swap == 0


# --- memory ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "side_px", "batch", "measured_gib"),
    [
        ("flux", 512, 1, 24.1),  # an H200, bare diffusers and peft; every block recomputed
        ("flux", 512, 4, 27.0),
        ("flux", 1024, 1, 26.0),
        ("flux", 1024, 4, 34.4),
        ("krea2", 512, 1, 30.1),  # SimpleTuner on an H100, as its authors publish it
    ],
)
def test_the_estimate_agrees_with_what_was_measured(model: str, side_px: int, batch: int, measured_gib: float) -> None:
    estimate = training_gib(ROWS[model].network, Size((side_px,), batch=batch), 16, Fit())
    assert estimate == pytest.approx(measured_gib, rel=1 / 6)


def test_weights_shrink_with_format_and_swapping() -> None:
    network = Network(10.0, 4096, blocks=40, max_swap=38, float8="float8")
    assert weights_gib(network) == pytest.approx(20e9 / 2**30)
    assert weights_gib(network, float8=True) == pytest.approx(10e9 / 2**30)
    assert weights_gib(replace(network, sensitive_billion=2.0), float8=True) == pytest.approx(12e9 / 2**30)
    assert weights_gib(network, float8=True, blocks_to_swap=30) == pytest.approx(2.5e9 / 2**30)
    assert adapter_gib(network, 32) == pytest.approx(2 * adapter_gib(network, 16))
    assert adapter_gib(network, 32, eight_bit=True) < adapter_gib(network, 32)


def test_activations_grow_with_pixels_frames_and_batch() -> None:
    network = Network(10.0, 3072, px=16, frames=4, text_tokens=0)
    assert latent_tokens(network, 512, 1) == 1024
    assert latent_tokens(network, 512, 33) == 9 * 1024
    one = activations_gib(network, Size((512,)))
    assert one == pytest.approx(0.61 * 1.024)
    assert activations_gib(network, Size((1024,))) == pytest.approx(4 * one)
    assert activations_gib(network, Size((512,), (1, 33))) == pytest.approx(9 * one)
    assert activations_gib(network, Size((512,), batch=3)) == pytest.approx(3 * one)
    assert activations_gib(network, Size((512,)), offload=True) < one


def test_the_fastest_way_that_fits_is_taken() -> None:
    network = Network(10.0, 4096, blocks=40, max_swap=38, float8="float8")
    ways = [fit(network, Size((512,)), 16, memory) for memory in (48, 16, 14.2, 13.8, 10, 3)]
    assert [way and (way.float8, way.eight_bit_optimizer, way.offload, way.blocks_to_swap > 0) for way in ways] == [
        ("", False, False, False),
        ("float8", False, False, False),
        ("float8", True, False, False),
        ("float8", True, True, False),
        ("float8", True, True, True),
        None,
    ]
