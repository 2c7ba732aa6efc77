"""Duplicates: equal and near copies are found, others are not, the best is kept, and all of it comes back."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dpnb.dataset.scan import Cancelled
from dpnb.errors import DatasetError
from dpnb.tools.aside import undo
from dpnb.tools.duplicates import find_duplicates, plan, set_aside
from dpnb.tools.perceptual import BITS, dhash, fingerprint, near_pairs
from tests.dpnb.filmed import film
from tests.dpnb.messy import snapshot


def scene(seed: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """A picture with smooth shapes, another for each seed."""
    cells = np.random.default_rng(seed).integers(0, 255, (7, 9, 3), dtype=np.uint8)
    return Image.fromarray(cells).resize(size, Image.Resampling.BICUBIC)


def groups(found) -> list[list[tuple[str, str]]]:
    return [[(copy.path.relative_to(found.folder).as_posix(), copy.kind) for copy in group] for group in found.groups]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twelve pictures, of the first four copies of all kinds."""
    for seed in range(12):
        scene(seed).save(tmp_path / f"{seed:02}.png")
    shutil.copy(tmp_path / "00.png", tmp_path / "equal.png")
    (tmp_path / "below").mkdir()
    scene(1).save(tmp_path / "below" / "compressed.jpg", quality=30)
    scene(2).resize((160, 120)).save(tmp_path / "smaller.webp")
    scene(3, (640, 480)).save(tmp_path / "larger.png")
    return tmp_path


def test_copies_are_found_and_the_largest_is_kept(photos):
    found = find_duplicates(photos)
    assert sorted(groups(found)) == [
        [("00.png", "kept"), ("equal.png", "equal")],
        [("01.png", "kept"), ("below/compressed.jpg", "near")],
        [("02.png", "kept"), ("smaller.webp", "near")],
        [("larger.png", "kept"), ("03.png", "near")],
    ]
    assert (found.files, found.extra, found.unreadable) == (16, 4, ())
    assert found.extra_bytes == sum(
        (photos / name).stat().st_size for name in ("equal.png", "below/compressed.jpg", "smaller.webp", "03.png")
    )


def test_equal_files_only(photos):
    assert groups(find_duplicates(photos, threshold=-1)) == [[("00.png", "kept"), ("equal.png", "equal")]]


def test_what_looks_alike_without_being_the_same_is_kept(tmp_path):
    """The same shape in another colour, flat pictures of several colours, a picture and its mirror image."""
    base = np.asarray(scene(1))
    for name, pixels in (("red", base), ("blue", base[..., ::-1]), ("mirror", base[:, ::-1])):
        Image.fromarray(np.ascontiguousarray(pixels)).save(tmp_path / f"{name}.png")
    for level in (0, 60, 120, 255):
        Image.new("RGB", (200, 200), (level, level, level)).save(tmp_path / f"flat{level}.png")
    assert find_duplicates(tmp_path).groups == ()


def test_a_caption_is_handed_on_to_the_kept(photos):
    (photos / "smaller.txt").write_text("the smaller has the words")
    (photos / "02.txt").write_text(" \n")
    (photos / "equal.txt").write_text("equal")
    found = find_duplicates(photos)
    assert ("equal.png", "kept") in [group[0] for group in groups(found)], "of equals the captioned one"
    before = snapshot(photos)
    change = set_aside(found)
    assert change.refused == ()
    after = {name: content for name, (content, *_) in snapshot(photos).items()}
    unique = [f"{seed:02}.png" for seed in (1, 2, *range(4, 12))]
    assert sorted(after) == sorted([*unique, "02.txt", "equal.png", "equal.txt", "larger.png"])
    assert after["02.txt"] == b"the smaller has the words"
    assert find_duplicates(photos).groups == ()
    assert undo(photos, "duplicates").refused == ()
    assert snapshot(photos) == before


def test_a_shared_caption_stays(tmp_path):
    for name in ("a.png", "b.png"):
        scene(0).save(tmp_path / name)
    scene(5).save(tmp_path / "b.webp")
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text(name)
    found = find_duplicates(tmp_path)
    assert groups(found) == [[("a.png", "kept"), ("b.png", "equal")]]
    set_aside(found)
    assert sorted(path.name for path in tmp_path.glob("*.*")) == [".dpnb-aside", "a.png", "a.txt", "b.txt", "b.webp"]


def test_another_choice_than_the_suggested(photos):
    found = find_duplicates(photos)
    chosen = [tuple(reversed(group)) for group in found.groups if group[0].path.name == "larger.png"]
    set_aside(replace(found, groups=tuple(chosen)))
    assert (photos / "03.png").exists()
    assert not (photos / "larger.png").exists()
    assert (photos / "equal.png").exists(), "a group that was left out"


def test_what_went_meanwhile_is_no_error(photos):
    found = find_duplicates(photos)
    (photos / "equal.png").unlink()
    assert set_aside(found).refused == ()
    assert len(plan(found)) == len(found.groups)


def test_clips_and_files_that_are_none(tmp_path):
    film(tmp_path / "a.mp4", frames=4)
    shutil.copy(tmp_path / "a.mp4", tmp_path / "b.mp4")
    (tmp_path / "c.png").write_bytes(b"no picture")
    (tmp_path / "notes.md").write_text("of another kind")
    found = find_duplicates(tmp_path)
    assert groups(found) == [[("a.mp4", "kept"), ("b.mp4", "equal")]]
    assert found.files == 3
    assert found.unreadable == (
        "c.png: corrupt, or not a picture although its name ends in .png: Pillow cannot identify it",
    )


def test_a_chain_of_small_differences_unites_nothing_far_apart(tmp_path):
    """Each step is near the next, but the ends are not: everything in a group is near the one that is kept."""
    first, last = (np.asarray(scene(seed), np.float32) for seed in (1, 2))
    for step in range(12):
        mixed = first + (last - first) * step / 11
        Image.fromarray(mixed.astype(np.uint8)).save(tmp_path / f"{step:02}.png")
    found = find_duplicates(tmp_path)
    assert len(found.groups) > 1
    for kept, *others in found.groups:
        for copy in others:
            apart = fingerprint(kept.path).hash_2 ^ fingerprint(copy.path).hash_2
            assert int(np.bitwise_count(apart).sum()) <= 8


def test_what_is_meant_to_be_alike_is_passed_by(tmp_path):
    for place in ("raw/a.png", "train/a.png", "train/below/a.png", "b/masks/1.png", "b/masks/2.png", "b/a.png"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        scene(0).save(tmp_path / place)
    found = find_duplicates(tmp_path)
    assert groups(found) == [[("b/a.png", "kept"), ("raw/a.png", "equal")]]
    assert found.passed == ("b/masks/: masks are alike by nature", "train/: it is made of raw/ beside it")
    assert find_duplicates(tmp_path / "train").extra == 1, "what a person names is looked at"


def test_settings_and_cancelling(photos):
    with pytest.raises(DatasetError, match=r"threshold = 65: expected -1 \(equal files only\) to 64 of 128 bits"):
        find_duplicates(photos, threshold=65)
    with pytest.raises(DatasetError, match="no is not a folder"):
        find_duplicates(photos / "no")
    with pytest.raises(Cancelled):
        find_duplicates(photos, cancelled=lambda: True)
    told = []
    find_duplicates(photos, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (16, 16)


# --- hashes ----------------------------------------------------------------------------------------------------------


def test_the_hash_is_the_published_one():
    """Of values that rise to the right and fall downwards: all ones, then all zeros."""
    across = np.tile(np.arange(0, 90, 10, np.float32), (8, 1))
    down = np.tile(np.arange(90, 0, -10, dtype=np.float32)[:, None], (1, 8))
    assert dhash(across, down).tolist() == [2**64 - 1, 0]
    assert dhash(across[:, ::-1], down[::-1]).tolist() == [0, 2**64 - 1]
    across[:, 1:] -= 9  # a first step of one grey level is none
    assert np.unpackbits(dhash(across, down).view(np.uint8)).reshape(2, 8, 8)[0].sum(axis=0).tolist() == [0] + [8] * 7


def test_pairs_equal_those_of_a_plain_search():
    chance = np.random.default_rng(0)
    hashes = chance.integers(0, 2**64, (600, 2), dtype=np.uint64)
    hashes[300:] = hashes[:300] ^ (np.uint64(1) << chance.integers(0, 64, (300, 2), dtype=np.uint64))
    hashes[550:] = hashes[0]
    colours = np.zeros((600, 8, 8, 3), np.uint8)
    colours[560:] = 200
    expected = {
        (i, j)
        for i in range(600)
        for j in range(i + 1, 600)
        if sum(int(a ^ b).bit_count() for a, b in zip(hashes[i], hashes[j], strict=True)) <= 8
        and (colours[i] == colours[j]).all()
    }
    found = list(near_pairs(hashes, colours, 8))
    assert set(found) == expected
    assert len(found) == len(set(found))
    assert BITS == 128
