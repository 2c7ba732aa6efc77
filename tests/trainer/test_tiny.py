"""The embedded model: it is small, it loads offline through stock classes, and it does what its prompts say."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainer.tiny import SAMPLE_STEPS, TEXT_TOKENS, model_dir
from trainer.tiny.drawing import COLOURS, SHAPES, Scene, draw_concept, draw_dataset, draw_scene, random_scene

COLOURS_OF_SCENES = [
    ("red", "white"),
    ("blue", "yellow"),
    ("black", "orange"),
    ("green", "pink"),
    ("purple", "black"),
    ("white", "red"),
    ("orange", "purple"),
    ("yellow", "blue"),
    ("pink", "green"),
]
SCENES = [Scene(thing, *colours) for thing, colours in zip(sorted(SHAPES), COLOURS_OF_SCENES, strict=True)]


@pytest.fixture(scope="module")
def pipeline():
    """The stock pipeline over the embedded folder, in float32."""
    torch = pytest.importorskip("torch")
    from diffusers import FluxPipeline

    pipeline = FluxPipeline.from_pretrained(model_dir(), dtype=torch.float32, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_folder_is_whole_and_small() -> None:
    files = [path for path in model_dir().rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 8_000_000
    assert {path.parent.name for path in files if path.suffix == ".safetensors"} == {
        "vae",
        "text_encoder",
        "text_encoder_2",
        "transformer",
    }


def test_any_word_is_spelt_out_and_told_apart(pipeline) -> None:
    for tokenizer in (pipeline.tokenizer, pipeline.tokenizer_2):
        zorbi, wug = tokenizer("a zorbi").input_ids, tokenizer("a wug").input_ids
        assert zorbi != wug
        assert "zorbi" in tokenizer.decode(zorbi, skip_special_tokens=True)
        assert "ünïcode" in tokenizer.decode(tokenizer("ünïcode").input_ids, skip_special_tokens=True)


def test_unknown_words_differ_for_the_text_encoders_too(pipeline) -> None:
    states, pooled, _ = pipeline.encode_prompt(["a zorbi", "a wug"], None, max_sequence_length=TEXT_TOKENS)
    assert states.shape == (2, TEXT_TOKENS, pipeline.transformer.config.joint_attention_dim)
    assert pooled.shape == (2, pipeline.transformer.config.pooled_projection_dim)
    assert (states[0] - states[1]).abs().max() > 1e-3
    assert (pooled[0] - pooled[1]).abs().max() > 1e-3


class Middle(random.Random):
    """No jitter: every draw is the middle of its range."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


def mask_of(picture: Image.Image, scene: Scene) -> np.ndarray:
    """Pixels that are nearer to the colour of the thing than to that of the background, (64, 64)."""
    pixels = np.asarray(picture, dtype=float)
    thing, background = (np.array(COLOURS[name]) for name in (scene.colour, scene.background))
    return ((pixels - thing) ** 2).sum(-1) < ((pixels - background) ** 2).sum(-1)


def test_every_shape_is_drawn_as_its_prompt_says(pipeline) -> None:
    import torch

    pictures = pipeline(
        [scene.caption() for scene in SCENES],
        negative_prompt=[""] * len(SCENES),
        true_cfg_scale=2.0,
        height=64,
        width=64,
        num_inference_steps=SAMPLE_STEPS,
        max_sequence_length=TEXT_TOKENS,
        generator=torch.Generator().manual_seed(0),
    ).images
    for picture, scene in zip(pictures, SCENES, strict=True):
        drawn = mask_of(picture, scene)
        overlap = {}
        for thing in SHAPES:
            meant = mask_of(draw_scene(replace(scene, thing=thing), Middle()), scene)
            overlap[thing] = (drawn & meant).sum() / (drawn | meant).sum()
        assert max(overlap, key=overlap.__getitem__) == scene.thing
        assert overlap[scene.thing] > 0.65, scene.caption()


def test_captions_read_as_english() -> None:
    assert Scene("star", "orange", "blue").caption() == "an orange star on a blue background"
    assert Scene("zorbi", "", "white").caption() == "a zorbi on a white background"


def test_drawing_depends_on_the_seed_alone() -> None:
    def draw(seed: int) -> bytes:
        rng = random.Random(seed)
        return draw_scene(random_scene(rng), rng).tobytes() + draw_concept(random_scene(rng), rng).tobytes()

    assert draw(5) == draw(5) != draw(6)


@pytest.mark.parametrize("thing", sorted(SHAPES))
def test_every_shape_shows_both_colours(thing: str) -> None:
    picture = draw_scene(Scene(thing, "red", "white"), random.Random(0), 96, 64)
    assert picture.size == (96, 64)
    counts = {colour: count for count, colour in picture.getcolors(96 * 64)}
    assert counts[COLOURS["red"]] > 300
    assert counts[COLOURS["white"]] > 1500


def test_dataset_pairs_pictures_with_captions(tmp_path: Path) -> None:
    assert draw_dataset(tmp_path / "zorbi", 12, seed=3) == 12
    pictures = sorted((tmp_path / "zorbi").glob("*.png"))
    assert [path.name for path in pictures][:2] == ["00.png", "01.png"]
    for path in pictures:
        with Image.open(path) as picture:
            assert (picture.mode, picture.size) == ("RGB", (64, 64))
        assert "zorbi" in path.with_suffix(".txt").read_text(encoding="utf-8")
    draw_dataset(tmp_path / "again", 12, seed=3)
    assert all(path.read_bytes() == (tmp_path / "again" / path.name).read_bytes() for path in pictures)
