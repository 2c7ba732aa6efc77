"""What folders ask for, through cache and loader: variants, masks, control pictures, tags left out."""

from __future__ import annotations

import tarfile
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dpnb.dataset.beside import Beside
from dpnb.dataset.bucket import Plan, Size, plan
from dpnb.dataset.captions import thinned
from dpnb.dataset.complete import complete_scan
from dpnb.errors import DatasetError
from dpnb.schema.dataset import Augmentation, Dataset, Directory, DirectorySettings
from dpnb.schema.model import FACTS
from trainer.data.augment import Draw, Look, render
from trainer.data.cache import Cache
from trainer.data.cache_keys import Key, latents_key, mask_key, text_key
from trainer.data.fill import captions_of, fill
from trainer.data.folder import Folder, folders_of
from trainer.data.loader import Loader, MicroBatch
from trainer.data.media import mask_on_grid, mask_pixels

SIZE = Size(32, 32)


class Encoder:
    """Latents are the pixels on an 8 x 8 grid; embeds are the number of a caption among all it has seen."""

    pixels_identity, text_identity = "p", "t"

    def __init__(self) -> None:
        self.pictures = 0
        self.captions: list[str] = []

    def encode_pixels(self, pixels):
        self.pictures += len(pixels)
        return {"latents": torch.nn.functional.interpolate(pixels[:, :, 0], size=(8, 8), mode="nearest-exact")}

    def encode_text(self, captions):
        self.captions += captions
        return {"embeds": torch.tensor([[float(len(caption))] for caption in captions])}


def draw(path: Path, seed: int, size=(48, 40)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def root(tmp_path):
    for i in range(4):
        draw(tmp_path / "p" / f"{i}.png", i).with_suffix(".txt").write_text(f"one {i}, two, three, four, five")
    return tmp_path


def dataset(root: Path, general=None, **keys) -> Dataset:
    return Dataset(resolutions=[32], directory=[Directory(path=str(root / "p"), **keys)], **(general or {}))


def planned(config: Dataset, **batch) -> Plan:
    return plan(complete_scan(config).rows, config, FACTS["flux"], **batch)


def filled(root: Path, config: Dataset, **batch):
    made, encoder, cache = planned(config, **batch), Encoder(), Cache(root / "cache")
    return made, fill(cache, made, encoder, folders=folders_of(config), batch_size=2), encoder, cache


def load(made: Plan, cache: Cache, config: Dataset, count: int, **keys) -> list[MicroBatch]:
    identities = {"pixels_identity": "p", "text_identity": "t", "seed": 0}
    with Loader(made, cache, folders=folders_of(config), **(identities | keys)) as source:
        return list(islice(source, count))


# --- variants --------------------------------------------------------------------------------------------------------


def test_variants_are_encoded_once_and_drawn_anew_in_each_epoch(root):
    config = dataset(root, {"crop": "random", "augmentation": Augmentation(brightness=0.3, cached_variants=3)})
    made, done, encoder, cache = filled(root, config)
    assert (encoder.pictures, done.failures) == (12, [])
    seen = Counter(batch.tensors["latents"].numpy().tobytes() for batch in load(made, cache, config, 60))
    assert len(seen) == 12, "15 epochs show every variant"
    assert len(load(made, cache, config, 8)) == 8
    first, second = load(made, cache, config, 60), load(made, cache, config, 60)
    assert all(torch.equal(a.tensors["latents"], b.tensors["latents"]) for a, b in zip(first, second, strict=True))
    _, _, again, _ = filled(root, config)
    assert again.pictures == 0


def test_only_what_matters_to_the_pixels_is_encoded_again(root):
    filled(root, dataset(root))
    config = dataset(root, {"tag_dropout": 0.5, "caption_prefix": "x, "}, loss_weight=0.5)
    _, _, encoder, _ = filled(root, config)
    assert (encoder.pictures, len(encoder.captions) > 0) == (0, True)
    flips = {"augmentation": Augmentation(flip=0.5)}
    _, _, encoder, cache = filled(root, dataset(root, flips))
    contents = [cache.digest(root / "p" / f"{i}.png") for i in range(4)]
    mirrored = sum(Draw(flip=True) in Look(flip=0.5, variants=4).draws(content) for content in contents)
    assert encoder.pictures == mirrored, "those that are not mirrored are in the cache already"
    _, _, encoder, _ = filled(root, dataset(root, {"interpolation": "nearest"}))
    assert encoder.pictures == 4
    _, _, encoder, _ = filled(root, dataset(root, {"interpolation": "nearest"} | flips))
    assert encoder.pictures == mirrored


def test_what_is_cached_is_what_was_drawn(root):
    config = dataset(root, {"augmentation": Augmentation(rotation_degrees=20.0, rotation_probability=1.0)})
    _, _, _, cache = filled(root, config)
    path = root / "p" / "1.png"
    drawn = folders_of(config)[0].look.draw(cache.digest(path), 2)
    latents = cache.get(latents_key(cache.digest(path), SIZE, "p", drawn))["latents"]
    picture = np.asarray(render(Image.open(path), SIZE, drawn)).astype(np.float32).transpose(2, 0, 1) / 127.5 - 1
    np.testing.assert_allclose(latents, picture[:, 2::4, 2::4], atol=1e-6)


def test_the_cache_knows_draws_by_their_numbers():
    plain = latents_key("f" * 64, SIZE, "p")
    assert latents_key("f" * 64, SIZE, "p", Draw()) == plain
    changed = [latents_key("f" * 64, SIZE, "p", d) for d in (Draw(flip=True), Draw(hue=0.1), Draw(hue=0.2))]
    assert len({plain, *changed}) == 4
    masks = [
        mask_key("f" * 64, SIZE, Draw(), (8, 8)),
        mask_key("e" * 64, SIZE, Draw(), (8, 8)),
        mask_key("f" * 64, SIZE, Draw(flip=True), (8, 8)),
        mask_key("f" * 64, SIZE, Draw(), (4, 4)),
        mask_key("f" * 64, Size(32, 48), Draw(), (8, 8)),
    ]
    assert len(set(masks)) == 5
    assert mask_key("f" * 64, SIZE, Draw(hue=0.1), (8, 8)) == masks[0], "colours do not move a mask"


def test_evaluation_leaves_nothing_to_chance(root):
    config = dataset(
        root,
        {"crop": "random", "augmentation": Augmentation(flip=0.5), "tag_dropout": 0.5, "caption_dropout": 0.5},
        loss_weight=0.5,
    )
    plain = tuple(folder.for_evaluation() for folder in folders_of(config))
    assert plain == (Folder(),)
    made, encoder, cache = planned(config), Encoder(), Cache(root / "cache")
    fill(cache, made, encoder, folders=plain)
    assert (encoder.pictures, len(encoder.captions)) == (4, 4)
    batches = load(made, cache, config, 99, evaluation=True)
    assert len(batches) == 4
    assert all(batch.weights is None for batch in batches)
    assert {float(b.tensors["embeds"]) for b in batches} == {float(len("one 0, two, three, four, five"))}


# --- captions --------------------------------------------------------------------------------------------------------


def test_tags_are_left_out_anew_in_each_epoch(root):
    config = dataset(root, {"tag_dropout": 0.5, "keep_first_tags": 1})
    made, _, encoder, cache = filled(root, config)
    assert set(encoder.captions) == captions_of(made, folders_of(config))
    folder = folders_of(config)[0]
    for row in made.rows:
        variants = folder.captions(row.captions[0])
        assert variants == thinned(row.captions[0], DirectorySettings(tag_dropout=0.5, keep_first_tags=1))
        assert all(variant.startswith(row.captions[0][:5]) for variant in variants)
    lengths = Counter(float(batch.tensors["embeds"]) for batch in load(made, cache, config, 80))
    assert set(lengths) == {float(len(c)) for c in encoder.captions}, "every variant has its turn"


def test_an_empty_caption_is_empty(root):
    general = {"caption_dropout": 1.0, "tag_dropout": 0.5, "caption_prefix": "art, ", "trigger_word": "ohwx"}
    config = dataset(root, general)
    made = planned(config)
    cache = Cache(root / "cache")
    fill(cache, made, Encoder(), folders=folders_of(config), prompts=[""])
    assert cache.has(text_key("", "t"))
    assert all(float(batch.tensors["embeds"]) == 0 for batch in load(made, cache, config, 12))


# --- masks -----------------------------------------------------------------------------------------------------------


def mask(path: Path, size=(48, 40)) -> Path:
    """White on the left half, grey above and black below on the right."""
    path.parent.mkdir(exist_ok=True)
    values = np.zeros(size[::-1], np.uint8)
    values[:, : size[0] // 2] = 255
    values[: size[1] // 2, size[0] // 2 :] = 51
    Image.fromarray(values).save(path)
    return path


def test_a_mask_on_the_grid_of_the_latents(root):
    data = mask(root / "m.png").read_bytes()
    grid = mask_on_grid(mask_pixels(data, SIZE, Draw()), (8, 8))
    assert (grid.dtype, tuple(grid.shape)) == (torch.uint8, (8, 8))
    assert grid[0].tolist() == [255] * 4 + [51] * 4
    assert grid[7].tolist() == [255] * 4 + [0] * 4
    flipped = mask_on_grid(mask_pixels(data, SIZE, Draw(flip=True)), (8, 8))
    torch.testing.assert_close(flipped.float(), grid.flip(1).float(), atol=3, rtol=0)  # the resizing rings at the edge
    colour = Image.merge("RGB", [Image.open(root / "m.png"), *[Image.new("L", (48, 40), 7)] * 2])
    colour.save(root / "colour.png")
    coloured = mask_pixels((root / "colour.png").read_bytes(), SIZE, Draw())
    assert torch.equal(mask_on_grid(coloured, (8, 8)), grid), "red counts"


def test_masks_reach_the_batch_and_go_along_with_their_picture(root):
    mask(root / "m" / "1.png")
    config = dataset(root, {"augmentation": Augmentation(flip=0.5)}, mask_path=str(root / "m"))
    made, done, encoder, cache = filled(root, config, micro_batch=2)
    pictures = encoder.pictures
    batches = load(made, cache, config, 40)
    shown = {None if b.mask_B1HW is None else tuple(b.mask_B1HW.shape) for b in batches}
    assert shown == {None, (2, 1, 8, 8)}, "a batch of pictures without masks has none"
    kinds = Counter(
        "ones" if one.min() == 1 else "left" if one[0, 0, 0] == 1 else "right"
        for b in batches
        if b.mask_B1HW is not None
        for one in b.mask_B1HW
    )
    assert kinds["ones"] == kinds["left"] + kinds["right"]
    content = cache.digest(root / "p" / "1.png")
    flips = [Look(flip=0.5, variants=4).draw(content, variant).flip for variant in range(4)]
    assert (kinds["left"] > 0, kinds["right"] > 0) == (not all(flips), any(flips))
    values = {round(float(v), 1) for b in batches if b.mask_B1HW is not None for v in b.mask_B1HW.flatten()}
    assert values == {0.0, 0.2, 1.0}
    Image.new("L", (48, 40), 255).save(root / "m" / "1.png")
    again, encoder = Cache(root / "cache"), Encoder()
    redone = fill(again, made, encoder, folders=folders_of(config))
    assert encoder.pictures == 0 < pictures, "a changed mask encodes no picture"
    assert redone.misses == len(set(flips))
    assert done.failures == []


def test_a_mask_that_breaks_leaves_its_picture_out(root):
    mask(root / "m" / "1.png")
    config = dataset(root, mask_path=str(root / "m"))
    made = planned(config)
    (root / "m" / "1.png").write_bytes((root / "m" / "1.png").read_bytes()[:60])
    failures = fill(Cache(root / "cache"), made, Encoder(), folders=folders_of(config)).failures
    assert [failure.path.name for failure in failures] == ["1.png"]
    assert failures[0].path == root / "p" / "1.png"
    assert failures[0].reason.startswith(f"its mask {root / 'm' / '1.png'} cannot be used: corrupt: ")
    folders = folders_of(config)
    (root / "m" / "1.png").unlink()
    failures = fill(Cache(root / "cache"), made, Encoder(), folders=folders).failures
    assert (
        failures[0].reason
        == f"its mask {root / 'm' / '1.png'} cannot be used: cannot be read: No such file or directory"
    )


def test_latents_that_vanish_under_a_mask(root):
    cache = Cache(root / "cache")
    with pytest.raises(DatasetError, match=r"is missing or unreadable .*Start again, and it is encoded anew$"):
        cache.grid(Key("latents", "0" * 64))


# --- control pictures ------------------------------------------------------------------------------------------------


def test_control_pictures_are_cut_like_their_picture(root):
    for i in range(4):
        draw(root / "c" / f"{i}.jpg", 50 + i, size=(96, 80))
    config = dataset(root, {"crop": "random"}, control_path=str(root / "c"))
    made, _, encoder, cache = filled(root, config)
    assert encoder.pictures == 4 * 4 * 2
    for batch in load(made, cache, config, 12):
        assert batch.tensors["latents"].shape == batch.tensors["control_latents"].shape
    content = cache.digest(root / "p" / "2.png")
    drawn = Look(crop="random", variants=4).draw(content, 1)
    assert cache.has(latents_key(cache.digest(root / "c" / "2.jpg"), SIZE, "p", drawn)), "drawn for the picture"


def test_a_control_picture_that_breaks_leaves_its_picture_out(root):
    for i in range(4):
        draw(root / "c" / f"{i}.jpg", 50 + i)
    config = dataset(root, control_path=str(root / "c"))
    made, bad = planned(config), root / "c" / "3.jpg"
    bad.write_bytes(bad.read_bytes()[:400])
    failures = fill(Cache(root / "cache"), made, Encoder(), folders=folders_of(config)).failures
    assert [failure.path for failure in failures] == [root / "p" / "3.png"]
    assert failures[0].reason.startswith(f"its control picture {bad} cannot be used: corrupt: ")
    folders = folders_of(config)
    bad.unlink()
    failures = fill(Cache(root / "cache"), made, Encoder(), folders=folders).failures
    assert failures[0].reason == f"its control picture {bad} cannot be used: cannot be read: No such file or directory"


def test_all_folders_have_control_pictures_or_none(root):
    folders = [Directory(path="a", control_path=str(root / "p")), Directory(path="b")]
    with pytest.raises(DatasetError) as error:
        folders_of(Dataset(resolutions=[32], directory=folders))
    assert str(error.value) == (
        "directory[1] has no control_path, and others have: a model is trained either on pairs or on pictures alone. "
        "Add it, or train them in runs of their own"
    )


def test_a_folder_asks_for_nothing_by_default(root):
    assert folders_of(dataset(root)) == (Folder(),)
    assert Folder().masks == Beside()
    assert Folder().captions("a, b") == ("a, b",)


def test_ranks_and_accumulation_draw_the_same(root):
    mask(root / "m" / "1.png")
    general = {"augmentation": Augmentation(flip=0.5), "tag_dropout": 0.5, "crop": "random"}
    config = dataset(root, general, mask_path=str(root / "m"))

    def steps(dp: int, accumulation: int):
        made, _, _, cache = filled(root, config, data_parallel=dp, gradient_accumulation_steps=accumulation)
        streams = [load(made, cache, config, 4 * accumulation, dp_rank=rank) for rank in range(dp)]
        order = [streams[rank][i] for i in range(4 * accumulation) for rank in range(dp)]
        return [
            (b.seeds, b.tensors["latents"].tolist(), b.tensors["embeds"].tolist(), b.mask_B1HW is None) for b in order
        ]

    assert steps(2, 1) == steps(1, 2)


def test_pictures_in_a_tar_file_are_those_beside_it(root):
    """The same contents under the same names in the cache, and nothing is unpacked."""
    filled(root, dataset(root))
    with tarfile.open(root / "p.tar", "w") as archive:
        for path in sorted((root / "p").iterdir()):
            archive.add(path, path.name)
    config = Dataset(resolutions=[32], directory=[Directory(path=str(root / "p.tar"))])
    made, done, encoder, cache = filled(root, config)
    assert (done.failures, done.hits, encoder.pictures, encoder.captions) == ([], 8, 0, [])
    assert len(load(made, cache, config, 4)) == 4
