"""Bucket arithmetic against known values of diffusion-pipe, and plans against their own sums."""

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpnb.dataset.batch import Batch
from dpnb.dataset.bucket import (
    Size,
    TwoBatches,
    areas_px,
    aspect_ratios,
    clip_length,
    deal,
    nearest_ratio,
    plan,
    round_to,
    size_at,
    size_bucket,
)
from dpnb.dataset.scan import Row, without
from dpnb.dataset.video import retimed_frames
from dpnb.errors import ConfigError, DatasetError
from dpnb.schema import AdamW, FluxModel, Training, WanModel
from dpnb.schema.dataset import Dataset, Directory, DirectorySettings, settings_of
from dpnb.schema.families.base import FamilyFacts
from dpnb.schema.model import FACTS

FLUX = FACTS["flux"]
VIDEO = FamilyFacts(title="Video", rounding_px=32, video=True, frames_per_latent=4, fps=16)


def row(name: str, width=512, height=512, captions=("x",), **keys) -> Row:
    return Row(name, width_px=width, height_px=height, captions=captions, **keys)


def small_training(**keys) -> Training:
    values = {
        "output_dir": "runs",
        "dataset": "d.toml",
        "epochs": 1,
        "save_every_n_epochs": 1,
        "optimizer": AdamW(lr=1),
    }
    return Training(**values | {"micro_batch_size_per_gpu": 4} | keys)


def rows(count: int, **keys) -> list[Row]:
    return [row(f"{i}.png", **keys) for i in range(count)]


def dataset(folders: int = 1, own: dict | None = None, **keys) -> Dataset:
    keys = {"resolutions": [512]} | keys
    return Dataset(directory=[Directory(path=f"f{i}", **((own or {}) if i else {})) for i in range(folders)], **keys)


@pytest.mark.parametrize(
    ("rounding", "ratio", "size"),
    [
        (16, 1.0, (512, 512)),
        (16, 2.0, (720, 368)),
        (32, 2.0, (736, 352)),
        (16, 0.5, (368, 720)),
        (32, 1.0, (512, 512)),
    ],
)
def test_known_sizes(rounding, ratio, size):
    facts = replace(FLUX, rounding_px=rounding)
    assert size_at(512**2, ratio, 1, facts) == (*size, 1)


def test_families_that_round_twice():
    """407 px become 400 and then 384, where rounding once to 32 would give 416."""
    ltx2 = FACTS["ltx2"]
    assert (ltx2.rounding_px, ltx2.trained_px, ltx2.multiple_px) == (16, 32, 32)
    assert size_at(407 * 407, 1.0, 1, ltx2) == (384, 384, 1)
    assert size_at(407 * 407, 1.0, 1, replace(ltx2, rounding_px=32)) == (416, 416, 1)


def test_rounding_goes_to_the_even_multiple_and_never_to_nothing():
    assert [round_to(v, 16) for v in (8, 24, 40, 23.9, 3)] == [16, 32, 32, 16, 16]
    assert size_at(32**2, 100.0, 1, FLUX) == (320, 16, 1)


def test_aspect_ratios():
    spaced = {"enable_ar_bucket": True, "min_ar": 0.5, "max_ar": 2.0, "num_ar_buckets": 7}
    assert aspect_ratios(DirectorySettings()) == [1.0]
    assert aspect_ratios(DirectorySettings(**spaced)) == [0.5, 0.63, 0.794, 1.0, 1.26, 1.587, 2.0]
    assert aspect_ratios(DirectorySettings(**spaced | {"num_ar_buckets": 1})) == [0.5]
    explicit = DirectorySettings(enable_ar_bucket=True, ar_buckets=[1.5, 1, 0.3333, 0.33331])
    assert aspect_ratios(explicit) == [0.333, 1.0, 1.5]
    pairs = DirectorySettings(enable_ar_bucket=True, ar_buckets=[[1920, 1080], [512, 512]])
    assert aspect_ratios(pairs) == [1.0, 1.778]
    assert aspect_ratios(DirectorySettings(ar_buckets=[2.0])) == [1.0]


def test_ratios_between_two_thousandths_go_where_upstream_puts_them():
    """Python rounds what stands in a file, NumPy what it has spaced."""
    explicit = DirectorySettings(enable_ar_bucket=True, ar_buckets=[[169, 2000]])
    assert aspect_ratios(explicit) == [round(169 / 2000, 3)] == [0.085]
    spaced = DirectorySettings(enable_ar_bucket=True, min_ar=0.0845, max_ar=1.0005, num_ar_buckets=2)
    assert aspect_ratios(spaced) == np.round([0.0845, 1.0005], 3).tolist() == [0.084, 1.0]


def test_areas():
    assert areas_px(DirectorySettings(resolutions=[768, 512, 512.0001])) == [512**2, 768**2]
    assert areas_px(DirectorySettings(resolutions=[[1280, 720], [720, 1280]])) == [1280 * 720]
    assert areas_px(DirectorySettings(resolutions=[[512, 768]])) == [627.069**2]


def test_nearest_ratio_ties_go_to_the_smaller():
    assert nearest_ratio(100, 100, [0.5, 2.0]) == 0.5
    assert nearest_ratio(1000, 10, [0.5, 2.0]) == 2.0


@pytest.mark.parametrize(
    ("frames", "lengths", "length"), [(1, [33], 1), (40, [1, 33, 65], 33), (65, [33, 65], 65), (20, [33], None)]
)
def test_clip_length(frames, lengths, length):
    assert clip_length(frames, lengths) == length


def test_a_video_never_becomes_a_picture():
    assert clip_length(1, [1, 33], video=True) is None
    assert clip_length(0, [1, 33], video=True) is None
    assert size_bucket(512, 512, 1, [Size(512, 512, 1)], video=True) is None
    still = row("a.mp4", frames=1, fps=30.0)
    made = plan([row("b"), still], dataset(frame_buckets=[1, 3]), VIDEO)
    reason = "a clip of 0 frames at 16 fps (it has 1 at 30): add a shorter one"
    assert made.rows[1].reason == f"no bucket of its aspect ratio is short enough for {reason}"
    # Three frames are cut to one by this family: that is no clip either.
    three = plan([row("b"), row("a.mp4", frames=3)], dataset(frame_buckets=[1, 3]), VIDEO)
    assert three.rows[1].cause == "no_bucket"


def test_a_video_is_dealt_out_by_its_frames_at_the_rate_of_the_family():
    film = row("a.mp4", frames=124, fps=30.0)  # 66 frames at 16 fps
    made = plan([film], dataset(frame_buckets=[1, 33, 65, 69]), VIDEO)
    assert [str(b.size) for b in made.buckets] == ["512x512x65"]
    # A bucket that the family cuts down is still chosen by the length that is written, as upstream.
    uneven = dataset(frame_buckets=[1, 33, 68])
    assert [str(b.size) for b in plan([film], uneven, VIDEO).buckets] == ["512x512x33"]
    assert [str(b.size) for b in plan([film._replace(frames=140)], uneven, VIDEO).buckets] == ["512x512x65"]


def test_videos_of_a_family_of_pictures():
    made = plan([row("a"), row("b.mp4", frames=40)], dataset(frame_buckets=[1, 33]), FLUX)
    assert made.rows[1].reason == f"a video: {FLUX.title} is trained on pictures alone"
    assert (made.rows[1].cause, made.rows[1].by_plan) == ("video", True)


def test_clips_and_pictures_have_batches_of_their_own():
    films = [row(f"{i}.mp4", frames=40) for i in range(4)]
    both = TwoBatches(clips=2, pictures=[[256, 8], [512, 3]])
    made = plan([*rows(6), *films], dataset(frame_buckets=[1, 33]), VIDEO, micro_batch=both)
    assert [(b.size.frames, b.micro_batch_size, b.batches) for b in made.buckets] == [(1, 3, 2), (33, 2, 2)]
    assert str(TwoBatches(2, 8)) == "2 clips or 8 pictures"


def test_batches_of_a_training():
    wan = small_training(model=WanModel(ckpt_path="wan"))
    assert Batch.of(wan)[:3] == (4, 1, 1)
    assert Batch.of_evaluation(wan)[:3] == (4, 1, 1)
    both = wan.model_copy(update={"image_micro_batch_size_per_gpu": 8})
    assert Batch.of(both).micro_batch == TwoBatches(4, 8)
    assert Batch.of_evaluation(both).micro_batch == TwoBatches(4, 8)
    own = both.model_copy(update={"eval_micro_batch_size_per_gpu": 2})
    assert Batch.of_evaluation(own).micro_batch == 2
    flux = small_training(model=FluxModel(diffusers_path="x"), image_micro_batch_size_per_gpu=8)
    assert Batch.of(flux).micro_batch == 8


def test_a_bucket_smaller_than_the_batch_with_a_smaller_batch():
    ratios = {"enable_ar_bucket": True, "ar_buckets": [1.0, 2.0], "drop_last": False}
    some = [*rows(9), *[row(f"wide{i}.png", 1000, 500) for i in range(3)]]
    made = plan(some, dataset(**ratios), FLUX, micro_batch=4, gradient_accumulation_steps=1)
    assert [(b.micro_batch_size, b.global_batch_size, b.batches, b.dropped) for b in made.buckets] == [
        (4, 4, 2, 1),
        (3, 3, 1, 0),
    ]
    assert (made.warnings, [r for r in made.rows if not r.used]) == ((), [])
    two = plan(some, dataset(**ratios), FLUX, micro_batch=4, data_parallel=2)
    assert [(b.micro_batch_size, b.batches, b.dropped) for b in two.buckets] == [(4, 1, 1), (1, 1, 1)]
    # Every GPU needs an example.
    four = plan(some, dataset(**ratios), FLUX, micro_batch=4, data_parallel=4)
    assert four.warnings[0].startswith("bucket 720x368 (aspect ratio 2.0) has 3 examples, fewer than one global batch")


def test_size_bucket_is_nearest_ratio_then_longest():
    # the list that upstream misindexes: a square becomes 704x960 there
    cosmos = [Size(*s) for s in [(1280, 704, 1), (960, 704, 1), (960, 960, 1), (704, 960, 1), (704, 1280, 1)]]
    assert size_bucket(1000, 1000, 1, cosmos) == (960, 960, 1)
    assert size_bucket(1820, 1000, 1, cosmos) == (1280, 704, 1)
    clips = [Size(512, 512, 1), Size(512, 512, 33), Size(512, 512, 65), Size(256, 512, 33)]
    assert size_bucket(100, 100, 1, clips) == (512, 512, 1)
    assert size_bucket(100, 100, 64, clips) == (512, 512, 33)
    assert size_bucket(100, 200, 1, clips) is None
    assert size_bucket(100, 100, 20, clips) is None  # a video is not a picture


def test_size_buckets_of_one_ratio_go_by_the_size_of_the_picture():
    sizes = [Size(1024, 1024), Size(512, 512)]
    assert size_bucket(1500, 1400, 1, sizes) == (1024, 1024, 1)
    assert size_bucket(1000, 1000, 1, sizes) == (512, 512, 1)
    assert size_bucket(100, 100, 1, sizes) == (512, 512, 1)


def test_every_resolution_and_wide_pictures():
    ratios = {"enable_ar_bucket": True, "ar_buckets": [1.0, 2.0]}
    made = plan([row("a"), row("b", 4000, 500)], dataset(resolutions=[512, 256], **ratios), FLUX)
    assert [(b.name, b.rows) for b in made.buckets] == [
        ("256x256 (aspect ratio 1.0)", (0,)),
        ("512x512 (aspect ratio 1.0)", (0,)),
        ("368x176 (aspect ratio 2.0)", (1,)),
        ("720x368 (aspect ratio 2.0)", (1,)),
    ]
    assert (made.steps_per_epoch, made.examples_per_epoch) == (4, 4)


def test_resolutions_that_round_to_one_size_count_once():
    made = plan(rows(1), dataset(resolutions=[512, 514]), FLUX)
    assert [b.rows for b in made.buckets] == [(0,)]


def test_size_buckets_in_a_plan():
    keys = {"size_buckets": [[510, 510, 1], [512, 256, 35]], "resolutions": None}
    clip = row("c.mp4", 512, 256, frames=40)
    made = plan([row("a"), clip, row("b", 512, 256)], dataset(**keys), VIDEO)
    assert [(str(b.size), b.ar, b.rows) for b in made.buckets] == [("512x256x33", None, (1,)), ("512x512", None, (0,))]
    reason = "no bucket of its aspect ratio is short enough for a picture: add a shorter one"
    assert made.rows[2].reason == reason
    short = plan([row("a"), clip._replace(frames=20)], dataset(frame_buckets=[1, 33]), VIDEO)
    assert short.rows[1].reason.startswith("no bucket of its aspect ratio is short enough for a clip of 20 frames")


def test_captions_are_examples_slot_by_slot_and_repeats_wrap():
    two = [row("a", captions=("a1", "a2")), row("b", captions=("b1",))]
    captions = lambda repeats: [  # noqa: E731
        e.caption for b in plan(two, dataset(num_repeats=repeats), FLUX).buckets for e in b.examples
    ]
    assert captions(1) == ["a1", "b1", "a2"]
    assert captions(2.5) == ["a1", "b1", "a2"] * 2 + ["a1"]
    assert captions(0.5) == ["a1"]
    made = plan(two, dataset(num_repeats=0.5), FLUX)
    assert made.rows[1].reason == "num_repeats below 1 leaves it out: raise num_repeats"


def test_planning_again_forgets_what_the_first_plan_left_out():
    ratios = {"enable_ar_bucket": True, "ar_buckets": [1.0, 2.0], "num_repeats": 0.5}
    some = [*rows(8), row("wide.png", 1000, 500)]
    first = plan(some, dataset(**ratios), FLUX)
    assert [r.by_plan for r in first.rows] == [False] * 4 + [True] * 5
    assert plan(first.rows, dataset(**ratios), FLUX) == first
    broken = without(first.rows, {Path("0.png"): "corrupt", Path("7.png"): "corrupt"})
    again = plan(broken, dataset(**ratios), FLUX)
    assert again.steps_per_epoch == 3
    assert [r.reason for r in again.rows if not r.by_plan] == ["corrupt", "", "", "", "corrupt"]
    assert again.warnings == first.warnings


def test_directories_share_buckets_and_keep_their_repeats():
    both = [*rows(3), *[row(f"o{i}.png", directory=1) for i in range(2)]]
    made = plan(both, dataset(2, {"num_repeats": 3}), FLUX, micro_batch=3)
    (bucket,) = made.buckets
    assert bucket.rows == (0, 1, 2, 3, 4)
    assert Counter(e.row for e in bucket.examples) == {0: 1, 1: 1, 2: 1, 3: 3, 4: 3}
    assert (bucket.batches, bucket.dropped) == (3, 0)


def test_same_size_of_other_ratio_stays_apart():
    ratios = {"enable_ar_bucket": True, "ar_buckets": [1.0, 1.001]}
    made = plan([row("a"), row("b", 1002, 1000)], dataset(**ratios), FLUX)
    assert [(str(b.size), b.ar) for b in made.buckets] == [("512x512", 1.0), ("512x512", 1.001)]


def test_micro_batch_by_resolution():
    made = plan(rows(9), dataset(resolutions=[256, 1024]), FLUX, micro_batch=[[256, 4], [1024, 1]])
    assert [(b.size.width_px, b.micro_batch_size, b.batches, b.dropped) for b in made.buckets] == [
        (256, 4, 2, 1),
        (1024, 1, 9, 0),
    ]


def test_bucket_that_vanishes_is_reported_with_a_mend():
    ratios = {"enable_ar_bucket": True, "ar_buckets": [1.0, 2.0]}
    some = [*rows(8), row("wide.png", 1000, 500)]
    made = plan(some, dataset(**ratios), FLUX, micro_batch=2, gradient_accumulation_steps=2, data_parallel=2)
    text = (
        "bucket 720x368 (aspect ratio 2.0) has 1 example, fewer than one global batch of 8 (2 x 2 accumulated x 2 "
        "GPUs), and is not trained: lower micro_batch_size_per_gpu or gradient_accumulation_steps, raise num_repeats "
        "8-fold, or use fewer aspect ratios (num_ar_buckets)"
    )
    assert made.warnings == (text,)
    assert made.rows[8].reason == f"its {text}"
    assert made.steps_per_epoch == 1


def test_nothing_left():
    with pytest.raises(DatasetError) as caught:
        plan(rows(3), dataset(), FLUX, data_parallel=4)
    assert str(caught.value) == (
        "nothing is left to train on: no bucket fills a global batch\n  bucket 512x512 (aspect ratio 1.0) has 3 "
        "examples, fewer than one global batch of 4 (1 x 1 accumulated x 4 GPUs), and is not trained: raise "
        "num_repeats 2-fold, or use fewer aspect ratios (num_ar_buckets)"
    )
    with pytest.raises(DatasetError, match=r"has 0 examples, .*: raise num_repeats, or use fewer"):
        plan(rows(3), dataset(num_repeats=0.1), FLUX)
    with pytest.raises(DatasetError, match=r"^nothing is left to train on: every file was left out\n  corrupt$"):
        plan([row("a", reason="corrupt")], dataset(), FLUX)


def test_contradicting_keys_are_a_config_error():
    with pytest.raises(ConfigError, match=r"enable_ar_bucket: needs min_ar and max_ar and num_ar_buckets as well"):
        plan(rows(1), dataset(enable_ar_bucket=True), FLUX)


def test_json():
    data = plan([*rows(3), row("bad", reason="corrupt")], dataset(), FLUX, micro_batch=2).to_json()
    assert data["steps_per_epoch"] == 1
    assert data["examples_per_epoch"] == 2
    assert data["buckets"] == [
        {
            "size": [512, 512, 1],
            "ar": 1.0,
            "files": 3,
            "examples": 3,
            "batches": 1,
            "dropped": 1,
            "micro_batch_size": 2,
            "global_batch_size": 2,
        }
    ]
    assert [(f["path"], f["buckets"], f["used"]) for f in data["files"]][2:] == [
        ("2.png", [[512, 512, 1]], True),
        ("bad", [], False),
    ]


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 4000), st.integers(1, 4000), st.integers(1, 3)), min_size=1, max_size=20),
    repeats=st.sampled_from([0.5, 1, 1.5, 3]),
    micro=st.integers(1, 3),
    accumulation=st.integers(1, 3),
    rounding=st.sampled_from([8, 16, 32]),
)
def test_plan_adds_up(sizes, repeats, micro, accumulation, rounding):
    some = [row(f"{i}", w, h, tuple(f"{i}-{c}" for c in range(n))) for i, (w, h, n) in enumerate(sizes)]
    config = dataset(
        resolutions=[256, 512], enable_ar_bucket=True, min_ar=0.5, max_ar=2.0, num_ar_buckets=5, num_repeats=repeats
    )
    facts = replace(FLUX, rounding_px=rounding)
    try:
        made = plan(some, config, facts, micro_batch=micro, gradient_accumulation_steps=accumulation)
    except DatasetError:
        return
    assert Counter(r for b in made.buckets for r in b.rows) == dict.fromkeys(range(len(some)), 2)
    for bucket in made.buckets:
        pairs = sum(len(some[r].captions) for r in bucket.rows)
        assert len(bucket.examples) == int(pairs * repeats)
        assert bucket.batches * bucket.global_batch_size + bucket.dropped == len(bucket.examples)
        assert bucket.size.width_px % rounding == bucket.size.height_px % rounding == 0
    trained = {e.row for b in made.buckets if b.batches for e in b.examples}
    assert [r.used for r in made.rows] == [i in trained for i in range(len(some))]


# --- against the rules of diffusion-pipe, written down a second time -------------------------------------------------


def upstream_buckets(file: Row, keys: DirectorySettings, facts: FamilyFacts) -> list[tuple]:
    """(aspect ratio or None, width, height, frames) of each bucket of a file, by the rules as they are described."""
    first, last = facts.rounding_px, facts.trained_px or facts.rounding_px
    exact = lambda value: round(value / last) * last  # noqa: E731
    rounded = lambda value: exact(round(value / first) * first)  # noqa: E731
    cut = lambda frames: max(1, (frames - 1) // facts.frames_per_latent * facts.frames_per_latent + 1)  # noqa: E731
    frames = int(file.frames * facts.fps / file.fps) if file.fps else 1
    if keys.size_buckets is not None:
        ratios = np.round([w / h for w, h, _ in keys.size_buckets], 3)
        distances = np.abs(np.log(file.width_px / file.height_px) - np.log(np.unique(ratios)))
        nearest = np.unique(ratios)[np.argmin(distances)]
        fitting = [
            s for s, ratio in zip(keys.size_buckets, ratios, strict=True) if ratio == nearest and s[2] <= frames
        ]
        fitting = [s for s in fitting if s[2] > 1 or not file.fps]
        if not fitting:
            return []
        (width, height, length) = max(fitting, key=lambda s: s[2])
        return [(None, exact(width), exact(height), cut(length))]
    if not keys.enable_ar_bucket:
        ratios = np.array([1.0])
    elif keys.ar_buckets is not None:
        ratios = np.array([round(r[0] / r[1] if isinstance(r, list) else r, 3) for r in keys.ar_buckets])
    else:
        ratios = np.round(np.geomspace(keys.min_ar, keys.max_ar, num=keys.num_ar_buckets), 3)
    ratios = np.unique(ratios)
    ratio = ratios[np.argmin(np.abs(np.log(file.width_px / file.height_px) - np.log(ratios)))]
    length = max((length for length in {1, *keys.frame_buckets} if length <= frames), default=1)
    if file.fps and cut(length) == 1:
        return []
    found = []
    for side in keys.resolutions:
        area = round(math.sqrt(side[0] * side[1]) if isinstance(side, list) else side, 3) ** 2
        width = math.sqrt(area * ratio)
        found.append((float(ratio), rounded(width), rounded(area / width), cut(length)))
    return list(dict.fromkeys(found))


_RATIOS = st.one_of(
    st.just({}),
    st.builds(
        lambda low, more, count: {
            "enable_ar_bucket": True,
            "min_ar": low,
            "max_ar": low * more,
            "num_ar_buckets": count,
        },
        st.floats(0.2, 1.5),
        st.floats(1.0, 5.0),
        st.integers(1, 12),
    ),
    st.builds(
        lambda ratios: {"enable_ar_bucket": True, "ar_buckets": ratios},
        st.one_of(
            st.lists(st.floats(0.2, 5.0), min_size=1, max_size=6),
            st.lists(st.lists(st.integers(100, 2000), min_size=2, max_size=2), min_size=1, max_size=6),
        ),
    ),
)
_RESOLUTIONS = st.one_of(
    st.lists(st.sampled_from([256, 512, 640.5, 768, 1024]), min_size=1, max_size=3, unique=True),
    st.lists(st.sampled_from([[1280, 720], [512, 512], [832, 480]]), min_size=1, max_size=2, unique_by=tuple),
)
_LENGTHS = st.lists(st.sampled_from([1, 5, 17, 33, 35, 65, 81]), max_size=4)
_EXACT = st.lists(
    st.tuples(st.integers(64, 1500), st.integers(64, 1500), st.sampled_from([1, 17, 33])).map(list),
    min_size=1,
    max_size=6,
    unique_by=(lambda s: (round(s[0] / s[1], 3), s[2]),),
)
_KEYS = st.one_of(
    st.builds(lambda r, a, f: {"resolutions": r, "frame_buckets": f} | a, _RESOLUTIONS, _RATIOS, _LENGTHS),
    st.builds(lambda sizes: {"size_buckets": sizes, "resolutions": None}, _EXACT),
)
_FILES = st.lists(
    st.builds(
        lambda w, h, clip, n: {"width": w, "height": h, "captions": tuple(map(str, range(n)))} | (clip or {}),
        st.integers(16, 4000),
        st.integers(16, 4000),
        st.one_of(
            st.none(),
            st.builds(
                lambda n, fps: {"frames": n, "fps": fps},
                st.integers(1, 300),
                st.sampled_from([8.0, 24.0, 30000 / 1001]),
            ),
        ),
        st.integers(1, 3),
    ),
    min_size=1,
    max_size=15,
)


@settings(max_examples=400, deadline=None)
@given(
    files=_FILES,
    keys=_KEYS,
    repeats=st.sampled_from([0.3, 1, 1.5, 2]),
    micro=st.integers(1, 4),
    rounding=st.sampled_from([(16, 0), (32, 0), (16, 32), (32, 16)]),
)
def test_buckets_are_those_of_diffusion_pipe(files, keys, repeats, micro, rounding):
    facts = replace(VIDEO, rounding_px=rounding[0], trained_px=rounding[1])
    config = dataset(num_repeats=repeats, **keys)
    own = settings_of(config, config.directory[0])
    some = [row(f"{i}", **file) for i, file in enumerate(files)]
    made = deal(some, config, facts, micro_batch=micro)
    expected: dict[tuple, list[int]] = {}
    for index, file in enumerate(some):
        for key in upstream_buckets(file, own, facts):
            expected.setdefault(key, []).append(index)
    assert {(b.ar, *b.size): list(b.rows) for b in made.buckets} == expected
    # Every file is in a bucket for each resolution, or in the report with a reason.
    in_buckets = {index for bucket in made.buckets for index in bucket.rows}
    for index, done in enumerate(made.rows):
        assert (index in in_buckets) == (done.cause != "no_bucket")
        assert done.used == (not done.reason)
        assert done.used == any(e.row == index for b in made.buckets if b.batches for e in b.examples)
    for bucket in made.buckets:
        entries = sum(len(some[i].captions) for i in bucket.rows)
        assert len(bucket.examples) == int(entries * repeats)
        assert bucket.batches == len(bucket.examples) // micro
        counted = Counter(bucket.examples)
        assert not counted or max(counted.values()) - min(counted.values()) <= 1
    kept = deal(some, config.model_copy(update={"drop_last": False}), facts, micro_batch=micro)
    assert all(bucket.batches for bucket in kept.buckets if bucket.examples)


@given(frames=st.integers(1, 500), fps=st.sampled_from([8.0, 23.976, 24.0, 25.0, 29.97, 30.0, 59.94, 60.0]))
def test_frames_at_another_rate_are_counted_as_upstream_counts_them(frames, fps):
    assert retimed_frames(frames, fps, 16) == int(frames * 16 / fps)
