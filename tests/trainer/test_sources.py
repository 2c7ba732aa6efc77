"""Pictures that are encoded while training: what is drawn for them, in which stream, and what stays of them."""

from __future__ import annotations

import re
import shutil
import threading
from collections import Counter
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from dpnb.dataset.bucket import Plan, Size, plan
from dpnb.dataset.complete import complete_scan
from dpnb.errors import DatasetError
from dpnb.schema.dataset import Augmentation, Dataset, Directory
from dpnb.schema.model import FACTS
from tests.trainer import small
from trainer import families
from trainer.data.augment import render
from trainer.data.cache import Cache
from trainer.data.digests import Digests
from trainer.data.fill import fill
from trainer.data.folder import folders_of
from trainer.data.hashing import hashed
from trainer.data.loader import Loader, MicroBatch
from trainer.data.media import to_floats, to_tensor
from trainer.data.prepare import Data
from trainer.data.sources import Found, Shown, decoded

SIZE = Size(32, 32)
ANEW = Augmentation(brightness=0.4, flip=0.5, cached_variants=0)


class Encoder:
    """Latents are every fourth pixel, with a little noise where it `draws`; embeds are the length of a caption."""

    pixels_identity, text_identity = "p", "t"

    def __init__(self, *, draws: bool = False) -> None:
        self.draws = draws
        self.pictures = 0
        self.calls: list[int] = []

    def encode_pixels(self, pixels: Tensor) -> dict[str, Tensor]:
        self.pictures += len(pixels)
        self.calls.append(len(pixels))
        latents = pixels[:, :, 0, 2::4, 2::4].clone()
        return {"latents": latents + torch.randn(latents.shape) if self.draws else latents}

    def encode_text(self, captions: list[str]) -> dict[str, Tensor]:
        return {"embeds": torch.tensor([[float(len(caption))] for caption in captions])}


def draw(path: Path, seed: int, size: tuple[int, int] = (48, 40)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)).save(path)
    path.with_suffix(".txt").write_text("x" * (seed + 1))  # its length is all that becomes of it
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for i in range(6):
        draw(tmp_path / "p" / f"{i}.png", i)
    return tmp_path


def dataset(root: Path, **keys: object) -> Dataset:
    folder = Directory(**({"path": str(root / "p"), "augmentation": ANEW, "crop": "random"} | keys))
    return Dataset(resolutions=[32], directory=[folder])


def filled(root: Path, config: Dataset, **batch: int) -> tuple[Plan, Cache, Encoder]:
    made, encoder, cache = (
        plan(complete_scan(config).rows, config, FACTS["flux"], **batch),
        Encoder(),
        Cache(root / "c"),
    )
    assert fill(cache, made, encoder, folders=folders_of(config)).failures == []
    return made, cache, encoder


def loader(made: Plan, cache: Cache, config: Dataset, **keys: object) -> Loader:
    options = {"pixels_identity": "p", "text_identity": "t", "seed": 5, "workers": 2}
    return Loader(made, cache, folders=folders_of(config), **(options | keys))


def load(made: Plan, cache: Cache, config: Dataset, count: int, **keys: object) -> list[MicroBatch]:
    encoder = Encoder(draws=True)
    with loader(made, cache, config, **keys) as source:
        return [batch.encoded(encoder.encode_pixels) for batch in islice(source, count)]


def rows(batches: list[MicroBatch]) -> list[tuple[object, ...]]:
    """Everything of a stream, example by example, to be compared exactly."""
    return [
        (seed, *((name, tensor[place].numpy().tobytes()) for name, tensor in sorted(shown(batch).items())))
        for batch in batches
        for place, seed in enumerate(batch.seeds)
    ]


def shown(batch: MicroBatch) -> dict[str, Tensor]:
    return batch.tensors if batch.mask_B1HW is None else batch.tensors | {"mask": batch.mask_B1HW}


def test_nothing_is_cached_but_captions_and_every_example_is_drawn_anew(root: Path) -> None:
    config = dataset(root)
    made, cache, encoder = filled(root, config)
    assert encoder.pictures == 0
    assert not (cache.root / "latents").exists()
    encoder = Encoder()
    with loader(made, cache, config) as source:
        for batch in islice(source, 3 * 6):
            assert (set(batch.tensors), batch.mask_B1HW) == ({"embeds"}, None), "the rest is waiting"
            done = batch.encoded(encoder.encode_pixels)
            assert done.waiting == ()
            assert done.encoded(encoder.encode_pixels) is done
            path = root / "p" / f"{int(done.tensors['embeds']) - 1}.png"
            drawn = folders_of(config)[0].look.draw(cache.digest(path), hashed("variant", batch.seeds[0]))
            expected = to_floats(to_tensor(render(Image.open(path), SIZE, drawn)))[None]
            assert torch.equal(done.tensors["latents"], Encoder().encode_pixels(expected)["latents"])
    assert encoder.pictures == 18
    seen = Counter(row[1:] for row in rows(load(made, cache, config, 10 * 6)))
    assert len(seen) == 60, "no two alike in ten epochs"


def test_the_stream_is_a_function_of_the_seed_alone(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = dataset(root)
    made, cache, _ = filled(root, config, micro_batch=2, gradient_accumulation_steps=2)
    whole = rows(load(made, cache, config, 8))
    assert rows(load(made, cache, config, 8, workers=1)) == whole
    monkeypatch.setattr("trainer.data.loader._PREFETCHED", 7)
    monkeypatch.setattr("trainer.data.ahead.DECODED_BYTES", 1)
    assert rows(load(made, cache, config, 8, workers=5)) == whole
    assert rows(load(made, cache, config, 8, seed=6)) != whole


def test_a_resume_goes_on_in_the_same_stream(root: Path) -> None:
    config = dataset(root)
    made, cache, _ = filled(root, config, micro_batch=2)
    whole = rows(load(made, cache, config, 9))
    for consumed in (1, 3, 4):
        with loader(made, cache, config) as source:
            list(islice(source, consumed))
            state = source.state_dict()
        with loader(made, Cache(cache.root), config) as source:
            source.load_state_dict(state)
            encoder = Encoder(draws=True)
            after = [batch.encoded(encoder.encode_pixels) for batch in islice(source, 5)]
        assert rows(after) == whole[2 * consumed : 2 * consumed + 10]


def test_two_ranks_train_what_one_does(root: Path) -> None:
    config = dataset(root)
    made, cache, _ = filled(root, config, micro_batch=2, gradient_accumulation_steps=2)
    one = rows(load(made, cache, config, 4))
    made, cache, _ = filled(root, config, micro_batch=2, data_parallel=2)
    ranks = [rows(load(made, cache, config, 2, dp_rank=rank)) for rank in range(2)]
    assert [row for step in range(2) for rank in ranks for row in rank[2 * step : 2 * step + 2]] == one


def test_cached_and_new_stand_in_one_batch(root: Path) -> None:
    """With masks and control pictures, which go along with either."""
    for i in range(3):
        draw(root / "q" / f"{i}.png", 20 + i)
    for name in ("p", "q"):
        for path in (root / name).glob("*.png"):
            (root / f"{name}-mask").mkdir(exist_ok=True)
            half = Image.new("L", (48, 40), 0)
            half.paste(255, (0, 0, 24, 40))
            half.save(root / f"{name}-mask" / path.name)
            for number in (1, 2):  # control pictures that show what their picture shows
                (root / f"{name}-{number}").mkdir(exist_ok=True)
                Image.open(path).save(root / f"{name}-{number}" / path.name)

    def folder(name: str, variants: int) -> Directory:
        changes = Augmentation(flip=0.5, cached_variants=variants)
        controls = [str(root / f"{name}-{number}") for number in (1, 2)]
        masks = str(root / f"{name}-mask")
        return Directory(path=str(root / name), mask_path=masks, control_path=controls, augmentation=changes)

    config = Dataset(resolutions=[32], directory=[folder("p", 0), folder("q", 2)])
    made, cache, encoder = filled(root, config, micro_batch=3)
    assert 3 <= encoder.pictures <= 6, "the control pictures of q are of the same content"
    encoder, kinds = Encoder(), set()
    with loader(made, cache, config) as source:
        for batch in islice(source, 12):
            assert batch.waiting or "latents" in batch.tensors
            waiting = sum(bool(found.pixels) for found in batch.waiting)
            kinds.add(waiting)
            encoder.calls.clear()
            done = batch.encoded(encoder.encode_pixels, 2)
            assert encoder.calls == 3 * {0: [], 1: [1], 2: [2], 3: [2, 1]}[waiting], "two at a time"
            assert done.tensors["latents"].shape == (3, 3, 8, 8)
            for which in ("control_latents", "control_2_latents"):
                assert torch.equal(done.tensors[which], done.tensors["latents"])
            assert done.mask_B1HW is not None
            for mask in done.mask_B1HW:
                assert sorted([float(mask[0, 0, 0]), float(mask[0, 0, 7])]) == [0.0, 1.0]
    assert {1, 2} & kinds, "both kinds stood in one batch"


def test_a_new_example_is_what_a_cached_variant_of_the_same_draw_is(root: Path) -> None:
    """Latents and mask to the bit, also where the encoder is the VAE of the embedded model."""
    family = families.build(small.training().model.model_copy(update={"diffusers_path": str(small.model_dir())}))
    family.load_encoders(torch.device("cpu"))
    mask = root / "m" / "2.png"
    mask.parent.mkdir()
    Image.fromarray(np.random.default_rng(9).integers(0, 256, (40, 48), dtype=np.uint8)).save(mask)
    anew = dataset(root, mask_path=str(mask.parent))
    folder = anew.directory[0]
    made = plan(complete_scan(anew).rows, anew, FACTS["flux"])
    cache = Cache(root / "c")
    fill(cache, made, family, folders=folders_of(anew))
    data = Data(cache, family, made, {}, folders_of(anew))
    family.free_encoders()
    keys = {"pixels_identity": family.pixels_identity, "text_identity": family.text_identity}
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    with loader(made, cache, anew, **keys) as source:
        new = [data.encoded(batch) for batch in islice(source, 6)]
        assert family.encoders.keys() == {"vae"}, "text encoders are not loaded again"
        family.decode(new[0].tensors["latents"], torch.device("cpu"))
        assert not family.encoders, "sampling has taken it away"
        new += [data.encoded(batch) for batch in islice(source, 6)]
    assert torch.equal(torch.random.get_rng_state(), before), "dropout is drawn as without"
    family.load_encoders(torch.device("cpu"))
    drawn = _Cached(cache, family, made, anew, folder)
    for batch in new:
        assert rows([batch]) == rows([drawn.batch(batch)])


class _Cached:
    """The same examples by way of the cache: their draws put there as `fill` does, and read as the loader does."""

    def __init__(self, cache: Cache, family: object, made: Plan, config: Dataset, folder: Directory) -> None:
        self.cache, self.family, self.made, self.config = cache, family, made, config

    def batch(self, batch: MicroBatch) -> MicroBatch:
        from trainer.data.cache_keys import latents_key, mask_key
        from trainer.data.media import mask_on_grid, mask_pixels
        from trainer.data.sources import FromCache

        (own,) = folders_of(self.config)
        (seed,) = batch.seeds
        found = []
        for row in self.made.rows:
            content = self.cache.digest(row.path)
            drawn = own.look.drawn_by(content, hashed("variant", seed))
            shown = own.shown(row.path, SIZE, drawn, None)
            pixels = to_floats(to_tensor(render(Image.open(row.path), SIZE, drawn)))[None]
            made = {name: tensor[0] for name, tensor in self.family.encode_pixels(pixels).items()}
            self.cache.put(latents_key(content, SIZE, self.family.pixels_identity, drawn), made)
            if shown.mask is not None:
                grid = tuple(made["latents"].shape[-2:])
                key = mask_key(self.cache.digest(shown.mask), SIZE, drawn, grid)
                values = mask_on_grid(mask_pixels(shown.mask.read_bytes(), SIZE, drawn), grid)
                self.cache.put(key, {"mask": values})
            one = FromCache(self.cache, self.family.pixels_identity).find(shown)
            found.append(one)
        same = [one for one in found if torch.equal(one.tensors["latents"], batch.tensors["latents"][0])]
        assert len(same) == 1, "a picture of the folder, drawn for this example"
        embeds = {name: tensor for name, tensor in batch.tensors.items() if name != "latents"}
        return batch._replace(tensors=embeds, mask_B1HW=None).showing(same)


@pytest.mark.parametrize("which", ["picture", "mask", "control"])
def test_what_is_broken_is_found_before_the_training(root: Path, which: str) -> None:
    beside = {"mask": "mask_path", "control": "control_path"}
    bad = root / "p" / "3.png"
    keys = {}
    if which != "picture":
        for i in range(6):
            draw(root / which / f"{i}.png", 30 + i)
        bad, keys = root / which / "3.png", {beside[which]: str(root / which)}
    config = dataset(root, **keys)
    made = plan(complete_scan(config).rows, config, FACTS["flux"])
    bad.write_bytes(bad.read_bytes()[:200])
    told: list[tuple[int, int, str]] = []
    done = fill(Cache(root / "c"), made, Encoder(), folders=folders_of(config), progress=lambda *a: told.append(a))
    (failure,) = done.failures
    assert failure.path == root / "p" / "3.png"
    kind = {"picture": "", "mask": f"its mask {bad} cannot be used: "}.get(
        which, f"its control picture {bad} cannot be used: "
    )
    assert failure.reason.startswith(f"{kind}corrupt: ")
    assert told[-1][2] == "encoding captions"
    assert (6, 6, "trying pictures that are encoded while training") in told


def test_what_could_be_decoded_is_not_tried_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainer.data import fill as filling

    seen: list[str] = []

    def counted(shown: Shown, digests: Digests) -> Found:
        seen.append(shown.path.name)
        return decoded(shown, digests)

    monkeypatch.setattr(filling, "decoded", counted)
    filled(root, dataset(root))
    assert len(seen) == 6
    filled(root, dataset(root, augmentation=ANEW.model_copy(update={"hue": 0.1})))
    assert len(seen) == 6, "however it is changed"
    draw(root / "p" / "2.png", 70)
    (root / "copy").mkdir()
    shutil.copytree(root / "p", root / "copy" / "p")
    filled(root, dataset(root))
    filled(root, dataset(root / "copy"))
    assert seen[6:] == ["2.png"], "by content, not by name"
    for i in range(6):
        draw(root / "m" / f"{i}.png", 30 + i)
    filled(root, dataset(root, mask_path=str(root / "m")))
    assert len(seen) == 6 + 1 + 6, "with what lies beside it"


def test_a_file_that_changes_or_goes_while_it_is_trained_on(root: Path) -> None:
    config = dataset(root, num_repeats=3)
    made, cache, _ = filled(root, config)
    again = ". Put the file back as it was when the run began, and resume"
    for path in (root / "p").glob("*.png"):
        draw(path, 77)
    with loader(made, cache, config) as source, pytest.raises(DatasetError) as error:
        next(source)
    path = str(error.value).partition(":")[0]
    assert str(error.value) == f"{path}: changed since it was first read{again}"
    for name in (root / "p").glob("*.png"):
        name.unlink()
    with loader(made, cache, config) as source, pytest.raises(DatasetError) as error:
        next(source)
    assert re.fullmatch(
        rf"{root}/p/\d.png: cannot be read: No such file or directory{re.escape(again)}", str(error.value)
    )


def test_evaluation_is_cached_all_the_same(root: Path) -> None:
    config = dataset(root)
    made, encoder, cache = plan(complete_scan(config).rows, config, FACTS["flux"]), Encoder(), Cache(root / "c")
    fill(cache, made, encoder, folders=[folder.for_evaluation() for folder in folders_of(config)])
    assert encoder.pictures == 6
    with loader(made, cache, config, evaluation=True) as source:
        assert [batch.waiting for batch in source] == [()] * 6


def test_without_chance_one_variant_is_cached(root: Path) -> None:
    config = dataset(root, crop="center", augmentation=Augmentation(cached_variants=0))
    _, _, encoder = filled(root, config)
    assert encoder.pictures == 6


def test_no_thread_is_left_behind(root: Path) -> None:
    config = dataset(root)
    made, cache, _ = filled(root, config)
    before = set(threading.enumerate())
    with loader(made, cache, config, workers=3) as source:
        next(source)
        assert len(set(threading.enumerate()) - before) > 1
    assert set(threading.enumerate()) <= before


def test_several_tensors_of_an_encoder_reach_the_batch(root: Path) -> None:
    def encode(pixels: Tensor) -> Mapping[str, Tensor]:
        return {"latents": pixels[:, :, 0], "more": pixels.flatten(1)[:, :2]}

    config = dataset(root)
    made, cache, _ = filled(root, config, micro_batch=3)
    with loader(made, cache, config) as source:
        done = next(source).encoded(encode)
    assert {name: tuple(t.shape) for name, t in done.tensors.items()} == {
        "latents": (3, 3, 32, 32),
        "more": (3, 2),
        "embeds": (3, 1),
    }
