"""Videos all the way: plan, cache and loader around a real, tiny video VAE of diffusers."""

from __future__ import annotations

import os
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
import torch
from PIL import Image

from dpnb.dataset.batch import Batch
from dpnb.dataset.bucket import Plan, Size, plan
from dpnb.dataset.complete import complete_scan
from dpnb.dataset.dryrun import dry_run
from dpnb.dataset.video import Clip, clip_starts, retimed_frames
from dpnb.schema.dataset import Augmentation, Dataset, Directory
from dpnb.schema.families.base import FamilyFacts
from tests.dpnb.filmed import film
from tests.trainer import small  # noqa: F401 - one thread
from trainer.data import ahead as looking
from trainer.data import fill as filling
from trainer.data.augment import Draw
from trainer.data.cache import Cache
from trainer.data.cache_keys import latents_key
from trainer.data.fill import fill
from trainer.data.folder import folders_of
from trainer.data.hashing import hashed
from trainer.data.loader import Loader
from trainer.data.media import clip_pixels, to_floats

FACTS = FamilyFacts(title="Video", rounding_px=16, video=True, frames_per_latent=4, fps=8)


class VideoVae:
    """AutoencoderKLWan with random weights as the encoder of a family; embeds are the length of a caption."""

    pixels_identity, text_identity = "wan", "t"

    def __init__(self) -> None:
        from diffusers import AutoencoderKLWan

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            vae = AutoencoderKLWan(base_dim=4, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1)
        self.vae = vae.eval().requires_grad_(False)
        self.seen: list[tuple[int, ...]] = []

    def encode_pixels(self, pixels):
        self.seen.append(tuple(pixels.shape))
        return {"latents": self.vae.encode(pixels).latent_dist.mode()}

    def encode_text(self, captions):
        return {"embeds": torch.tensor([[float(len(caption))] for caption in captions])}


@pytest.fixture(scope="module")
def vae():
    return VideoVae()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    film(folder / "long.mp4", frames=28, fps=8, size=(64, 64))
    film(folder / "fast.mkv", frames=24, fps=16, size=(64, 64))
    film(folder / "short.webm", frames=6, fps=8, size=(64, 64))
    Image.new("RGB", (64, 64), (200, 10, 10)).save(folder / "picture.png")
    for path in list(folder.iterdir()):
        path.with_suffix(".txt").write_text(path.stem)
    return folder


def dataset(folder: Path, **keys) -> Dataset:
    return Dataset(**{"resolutions": [32], "frame_buckets": [1, 5, 9]} | keys, directory=[Directory(path=str(folder))])


def planned(config: Dataset, mode="single_beginning", **batch) -> Plan:
    return plan(complete_scan(config).rows, config, FACTS, clip_mode=mode, **batch)


def loader(made: Plan, cache: Cache, config: Dataset) -> Loader:
    return Loader(made, cache, pixels_identity="wan", text_identity="t", seed=0, folders=folders_of(config))


def latents(vae: VideoVae, path: Path, clip: Clip, size: Size, draw: Draw = Draw()) -> torch.Tensor:  # noqa: B008
    (pixels,) = clip_pixels(path, clip, [(size, draw)])
    return vae.encode_pixels(to_floats(pixels)[None])["latents"][0]


@pytest.mark.parametrize("mode", ["single_middle", "multiple_overlapping"])
def test_every_clip_of_the_plan_reaches_the_loader_once_an_epoch(folder, vae, tmp_path, mode):
    config = dataset(folder)
    made, cache = planned(config, mode), Cache(tmp_path)
    done = fill(cache, made, vae, folders=folders_of(config))
    assert done.failures == []
    expected = Counter()
    for name, frames, fps, length in (("long.mp4", 28, 8, 9), ("fast.mkv", 24, 16, 9), ("short.webm", 6, 8, 5)):
        for start in clip_starts(retimed_frames(frames, fps, 8), length, mode):
            own = latents(vae, folder / name, Clip(start, 8), Size(32, 32, length))
            expected[own.numpy().tobytes()] += 1
    assert sum(expected.values()) == (3 if mode.startswith("single") else 4 + 2 + 2)
    assert done.misses == sum(expected.values()) + 1 + 4
    with loader(made, cache, config) as source:
        batches = list(islice(source, len(source)))
    assert Counter(batch.tensors["latents"].shape[2] for batch in batches) == Counter(
        {1: 1, 2: 1 if mode.startswith("single") else 2, 3: 2 if mode.startswith("single") else 6}
    ), "a picture and clips of two lengths, each in batches of its own"
    seen = Counter(b.tensors["latents"][0].numpy().tobytes() for b in batches if b.tensors["latents"].shape[2] > 1)
    assert seen == expected


def test_the_dry_run_tells_what_is_trained(folder):
    asked = Batch(clip_mode="multiple_overlapping")
    told = dry_run(dataset(folder), FACTS, **asked._asdict())
    made = planned(dataset(folder), "multiple_overlapping")
    assert told.plan == made
    counted = {told.rows[index].path.name: [clips.starts for clips in own] for index, own in told.videos.items()}
    assert counted == {"long.mp4": [(0, 6, 12, 19)], "fast.mkv": [(0, 3)], "short.webm": [(0, 1)]}
    assert made.steps_per_epoch == 4 + 2 + 2 + 1


def test_clips_are_encoded_again_when_what_they_show_changes_and_only_then(folder, vae, tmp_path):
    config = dataset(folder)

    def encoded(mode: str, facts: FamilyFacts = FACTS) -> int:
        made = plan(complete_scan(config).rows, config, facts, clip_mode=mode)
        return fill(Cache(tmp_path), made, vae, folders=folders_of(config)).misses

    assert encoded("single_beginning") == 3 + 1 + 4
    assert encoded("single_beginning") == 0
    assert encoded("single_middle") == 2, "the middle of short.webm, which has a frame more, begins at its beginning"
    assert encoded("multiple_overlapping") == 8 - 3, "three begin at the beginning"
    assert encoded("single_beginning", FamilyFacts(title="V", video=True, frames_per_latent=4, fps=16)) == 3


def test_variants_and_masks_of_clips(folder, vae, tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    half = Image.new("L", (64, 64), 0)
    half.paste(255, (0, 0, 32, 64))
    half.save(masks / "long.png")
    own = Directory(path=str(folder), mask_path=str(masks), augmentation=Augmentation(flip=0.5, cached_variants=2))
    config = Dataset(resolutions=[32], frame_buckets=[9], directory=[own])
    made, cache = planned(config), Cache(tmp_path / "cache")
    done = fill(cache, made, vae, folders=folders_of(config))
    assert done.failures == []
    with loader(made, cache, config) as source:
        batches = list(islice(source, 8 * len(source)))
    masked = [batch for batch in batches if batch.mask_B1HW is not None]
    assert len(masked) == 8
    path = folder / "long.mp4"
    content = cache.digest(path)
    shown = {draw.flip: latents(vae, path, Clip(0, 8), Size(32, 32, 9), draw) for draw in own_draws(config, content)}
    for batch in masked:
        mask = batch.mask_B1HW[0, 0]
        left = bool(mask[:, :2].all())
        assert left != bool(mask[:, 2:].all())
        torch.testing.assert_close(
            batch.tensors["latents"][0], shown[not left], msg="the mask is mirrored with its clip"
        )


def test_clips_that_are_encoded_while_training(folder, vae, tmp_path):
    changes = Augmentation(flip=0.5, brightness=0.2, cached_variants=0)
    own = Directory(path=str(folder), augmentation=changes)
    config = Dataset(resolutions=[32], frame_buckets=[9], directory=[own])
    made, cache = planned(config, "multiple_overlapping"), Cache(tmp_path / "cache")
    before = len(vae.seen)
    done = fill(cache, made, vae, folders=folders_of(config))
    assert (done.failures, len(vae.seen)) == ([], before)
    clips = [(folder / "long.mp4", start) for start in clip_starts(28, 9, "multiple_overlapping")]
    clips += [(folder / "fast.mkv", start) for start in clip_starts(12, 9, "multiple_overlapping")]
    look, seen = folders_of(config)[0].look, Counter()
    with loader(made, cache, config) as source:
        for batch in islice(source, len(source)):
            (ready,) = batch.encoded(vae.encode_pixels).tensors["latents"]
            number = hashed("variant", batch.seeds[0])
            for path, start in clips if ready.shape[1] > 1 else ():
                own = latents(vae, path, Clip(start, 8), Size(32, 32, 9), look.drawn_by(cache.digest(path), number))
                seen[path.name, start] += torch.equal(ready, own)
    assert seen == dict.fromkeys([(path.name, start) for path, start in clips], 1)


def own_draws(config: Dataset, content: str) -> list[Draw]:
    return folders_of(config)[0].look.draws(content)


def test_control_pictures_of_clips_are_single_frames(folder, vae, tmp_path):
    for name in ("long", "fast", "short", "picture"):
        for which in ("a", "b"):
            (tmp_path / which).mkdir(exist_ok=True)
            Image.new("RGB", (80, 80), (len(name) * 9, 0, 255 if which == "a" else 0)).save(
                tmp_path / which / f"{name}.png"
            )
    own = Directory(path=str(folder), control_path=[str(tmp_path / "a"), str(tmp_path / "b")])
    config = Dataset(resolutions=[32], frame_buckets=[1, 5, 9], directory=[own])
    made, cache = planned(config), Cache(tmp_path / "cache")
    assert fill(cache, made, vae, folders=folders_of(config)).failures == []
    with loader(made, cache, config) as source:
        for batch in islice(source, len(source)):
            first, second = batch.tensors["control_latents"], batch.tensors["control_2_latents"]
            assert first.shape == second.shape == (1, 4, 1, 4, 4)
            assert not torch.equal(first, second)


def test_a_video_that_breaks_off_is_left_out_by_name(folder, vae, tmp_path):
    cut = tmp_path / "films" / "cut.avi"
    cut.parent.mkdir()
    film(cut, frames=20, fps=8, size=(64, 64), noise=True)
    cut.with_suffix(".txt").write_text("cut")
    config = Dataset(resolutions=[32], frame_buckets=[17], directory=[Directory(path=str(cut.parent))])
    made = planned(config)
    data = cut.read_bytes()
    cut.write_bytes(data[: len(data) * 2 // 3])
    os.utime(cut)
    (failure,) = fill(Cache(tmp_path / "cache"), made, vae, folders=folders_of(config)).failures
    assert failure.path == cut
    assert failure.reason.startswith(("corrupt: ", "has "))


def test_long_videos_are_decoded_within_bounds(folder, vae, tmp_path, monkeypatch):
    """Never more pixels wait for the encoder than are allowed, however many clips a video has."""
    decoding: list[int] = []
    most = 0

    def decode(job):
        nonlocal most
        decoding.append(job.size_bytes)
        most = max(most, sum(decoding))
        return inner(job)

    class Counts(VideoVae):
        def encode_pixels(self, pixels):
            decoding.pop(0)
            return super().encode_pixels(pixels)

    inner = filling._decode
    one = 3 * 9 * 32 * 32
    monkeypatch.setattr(filling, "_decode", decode)
    monkeypatch.setattr(looking, "DECODED_BYTES", 2 * one)
    config = dataset(folder, frame_buckets=[9])
    done = fill(Cache(tmp_path), planned(config, "multiple_overlapping"), Counts(), workers=4)
    assert done.misses == 6 + 1 + 3
    assert one < most <= 3 * one, "two that wait, and one with the encoder"


def test_a_clip_is_known_by_its_content_and_not_by_its_name(folder, vae, tmp_path):
    copies = tmp_path / "films"
    copies.mkdir()
    for name in ("one", "two"):
        (copies / f"{name}.mp4").write_bytes((folder / "long.mp4").read_bytes())
        (copies / f"{name}.txt").write_text(name)
    config = Dataset(resolutions=[32], frame_buckets=[9], directory=[Directory(path=str(copies))])
    cache = Cache(tmp_path / "cache")
    assert fill(cache, planned(config), vae).misses == 1 + 2
    assert cache.has(latents_key(cache.digest(copies / "two.mp4"), Size(32, 32, 9), "wan", clip=Clip(0, 8)))
