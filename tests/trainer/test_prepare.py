"""From dataset files to plans and a full cache: what is encoded when, what is left out, how it is stopped."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from dpnb import toml
from dpnb.dataset.dryrun import dry_run
from dpnb.errors import DatasetError
from dpnb.runs.rundir import RunDir
from dpnb.schema import Dataset, Directory
from dpnb.schema.dataset import Augmentation
from dpnb.schema.model import FACTS
from dpnb.toml import RunConfig
from tests.trainer import small
from tests.trainer.launching import Project
from trainer.callbacks import Stopped
from trainer.data.folder import Folder
from trainer.data.prepare import Data, prepare
from trainer.report import Report
from trainer.tiny import drawing


class Family:
    """Counts what it encodes."""

    pixels_identity, text_identity = "p", "t"
    most_controls = 1

    def __init__(self) -> None:
        self.loaded = self.freed = 0
        self.pixels: list[tuple[int, ...]] = []
        self.captions: list[str] = []

    def load_encoders(self, _device: torch.device) -> None:
        self.loaded += 1

    def free_encoders(self) -> None:
        self.freed += 1

    def encode_pixels(self, pixels: Tensor) -> dict[str, Tensor]:
        self.pixels.append(tuple(pixels.shape))
        return {"latents": pixels[:, :1, 0, ::16, ::16].contiguous()}

    def encode_text(self, captions: Sequence[str]) -> dict[str, Tensor]:
        self.captions += captions
        return {"text": torch.tensor([[float(len(caption))] for caption in captions])}


@pytest.fixture
def pictures(tmp_path: Path) -> Project:
    drawing.draw_dataset(tmp_path / "train", count=4, seed=1)
    drawing.draw_dataset(tmp_path / "held", count=2, seed=2)
    for name in ("train", "held"):
        dataset = Dataset(resolutions=[32], directory=[Directory(path=str(tmp_path / name))])
        (tmp_path / f"{name}.toml").write_text(toml.dump(dataset))
    return Project(tmp_path)


def config_of(project: Project, **changes: Any) -> RunConfig:
    held = [{"name": "held", "config": str(project.root / "held.toml")}]
    values = {"dataset": str(project.root / "train.toml"), "eval_datasets": held, "gradient_accumulation_steps": 1}
    return toml.load_run(project.write("run", **(values | changes)))


def run(config: RunConfig, family: Any, stopped: Callable[[], bool] = lambda: False) -> Data:
    report = Report(RunDir(Path(config.training.value.output_dir)), speaks=False)
    report.speaks = True
    report._write_status = lambda: None  # type: ignore[method-assign]
    return prepare(config, family, small.alone(), report, stopped)


def test_everything_that_training_needs_is_cached_once(pictures: Project, capsys: pytest.CaptureFixture[str]) -> None:
    config = config_of(pictures, sample=small.sampling(prompts=["a prompt"]), uncond_fraction=0.1)
    family = Family()
    data = run(config, family)
    assert (family.loaded, family.freed) == (1, 1)
    assert len(family.pixels) == 6
    assert {"a prompt", ""} <= set(family.captions)
    assert len(family.captions) == len(set(family.captions))
    assert data.train.steps_per_epoch == 2
    assert data.held_out["held"].steps_per_epoch == 1
    assert data.embeds_of("a prompt")["text"].tolist() == [[8.0]]
    with data.loader(data.train, config.training.value, replica=0) as loader:
        assert next(loader).tensors["latents"].shape == (2, 1, 2, 2)
    out = capsys.readouterr().out
    assert "dataset: 4 of 4 files used, 2 steps an epoch" in out
    assert "  bucket 32x32 (aspect ratio 1.0): 4 examples, 2 batches" in out
    again = Family()
    run(config, again)
    assert (again.loaded, again.pixels, again.captions) == (0, [], [])


def test_the_dry_run_tells_what_is_trained_bucket_by_bucket(pictures: Project) -> None:
    sizes = [(64, 64)] * 5 + [(96, 64)] * 4 + [(64, 96)] * 3 + [(200, 40), (64, 128)]
    for position, size in enumerate(sizes):
        picture = pictures.root / "mixed" / f"{position:02}.png"
        picture.parent.mkdir(exist_ok=True)
        Image.new("RGB", size, (position, 0, 0)).save(picture)
        if position % 6:
            picture.with_suffix(".txt").write_text(f"caption {position}")
    ratios: dict[str, Any] = {"enable_ar_bucket": True, "min_ar": 0.5, "max_ar": 2.0, "num_ar_buckets": 3}
    folders = [
        Directory(path=str(pictures.root / "mixed"), num_repeats=1.5),
        Directory(path=str(pictures.root / "train"), resolutions=[32]),
    ]
    dataset = Dataset(resolutions=[32, 64], directory=folders, **ratios)
    (pictures.root / "train.toml").write_text(toml.dump(dataset))
    config = config_of(pictures, micro_batch_size_per_gpu=5, eval_datasets=[])
    told = dry_run(dataset, FACTS["flux"], micro_batch=5)
    data = run(config, Family())
    assert len(told.plan.buckets) > 4
    assert told.vanished, "one that is too small is among them"
    assert [bucket.to_json() for bucket in data.train.buckets] == [bucket.to_json() for bucket in told.plan.buckets]
    assert [(row.path, row.used) for row in data.train.rows] == [(row.path, row.used) for row in told.rows]
    trained: Counter[tuple[int, int]] = Counter()
    with data.loader(data.train, config.training.value, replica=0) as loader:
        for batch in islice(loader, told.plan.steps_per_epoch):
            height, width = batch.tensors["latents"].shape[-2:]
            trained[16 * width, 16 * height] += 1
    wanted: Counter[tuple[int, int]] = Counter()
    for bucket in told.plan.buckets:
        wanted[bucket.size.width_px, bucket.size.height_px] += bucket.batches
    assert trained == +wanted


def test_the_trigger_word_is_that_of_datasets_that_name_none(pictures: Project) -> None:
    held = Dataset(resolutions=[32], directory=[Directory(path=str(pictures.root / "held"))], trigger_word="own")
    (pictures.root / "held.toml").write_text(toml.dump(held))
    data = run(config_of(pictures, trigger_word="ohwx", sample=small.sampling(prompts=["[trigger]"])), Family())
    assert all(row.captions[0].startswith("ohwx, ") for row in data.train.rows)
    assert all(row.captions[0].startswith("own, ") for row in data.held_out["held"].rows)
    assert data.embeds_of("ohwx")["text"].tolist() == [[4.0]]


def test_what_folders_ask_of_their_examples(pictures: Project) -> None:
    folders = [
        Directory(path=str(pictures.root / "train"), loss_weight=0.5),
        Directory(path=str(pictures.root / "held"), caption_dropout=1.0),
    ]
    dataset = Dataset(resolutions=[32], directory=folders, caption_dropout=0.0)
    (pictures.root / "train.toml").write_text(toml.dump(dataset))
    config = config_of(pictures)
    data = run(config, Family())
    assert data.folders == (Folder(0.5, 0.0), Folder(1.0, 1.0))
    seen = []
    with data.loader(data.train, config.training.value, replica=0) as loader:
        for batch in islice(loader, len(loader)):
            assert batch.weights is not None
            seen += list(zip(batch.weights, batch.tensors["text"][:, 0].tolist(), strict=True))
    assert {weight for weight, _ in seen} == {0.5, 1.0}
    assert all((length == 0) == (weight == 1.0) for weight, length in seen), "the empty caption is 0 long"
    with data.loader(data.train, config.training.value, replica=0, evaluation=True) as loader:
        batches = list(loader)
    assert all(batch.weights is None for batch in batches)
    assert all(length > 0 for batch in batches for length in batch.tensors["text"][:, 0].tolist())


def test_masks_variants_and_tables_of_a_dataset(pictures: Project) -> None:
    train = pictures.root / "train"
    names = sorted(path.name for path in train.glob("*.png"))
    for name in names[:2]:
        Image.open(train / name).convert("L").point(lambda _: 128).save(pictures.root / f"mask-{name}")
    (pictures.root / "masks").mkdir()
    for name in names[:2]:
        (pictures.root / f"mask-{name}").rename(pictures.root / "masks" / name)
    table = pictures.root / "words.csv"
    table.write_text("image,text\n" + "".join(f"{name},words\n" for name in names))
    folder = Directory(path=str(train), mask_path=str(pictures.root / "masks"))
    looks = {"crop": "random", "augmentation": Augmentation(cached_variants=2), "metadata_file": str(table)}
    for name in ("train", "held"):
        (pictures.root / f"{name}.toml").write_text(toml.dump(Dataset(resolutions=[32], directory=[folder], **looks)))
    config, family = config_of(pictures), Family()
    data = run(config, family)
    assert set(family.captions) == {"words"}
    assert len(family.pixels) == 4 * 3, "two variants to train on, and the middle to measure on"
    with data.loader(data.train, config.training.value, replica=0) as loader:
        masks = [batch.mask_B1HW for batch in islice(loader, 8)]
    assert {round(float(v), 3) for mask in masks if mask is not None for v in mask.flatten()} == {0.502, 1.0}
    with data.loader(data.held_out["held"], config.training.value, replica=0, evaluation=True) as loader:
        assert any(batch.mask_B1HW is not None for batch in loader)


def test_a_share_of_the_batches(pictures: Project) -> None:
    dataset = Dataset(resolutions=[32], subsample_ratio=0.5, directory=[Directory(path=str(pictures.root / "train"))])
    (pictures.root / "train.toml").write_text(toml.dump(dataset))
    family = Family()
    data = run(config_of(pictures, eval_datasets=[]), family)
    assert data.train.steps_per_epoch == 1
    assert len(family.pixels) == 2, "nothing else is encoded"


def test_control_pictures_for_a_family_that_makes_nothing_of_them(pictures: Project) -> None:
    folder = Directory(path=str(pictures.root / "train"), control_path=str(pictures.root / "train"))
    (pictures.root / "train.toml").write_text(toml.dump(Dataset(resolutions=[32], directory=[folder])))
    family = Family()
    data = run(config_of(pictures, eval_datasets=[]), family)
    with data.loader(data.train, config_of(pictures).training.value, replica=0) as loader:
        batch = next(loader)
    assert torch.equal(batch.tensors["latents"], batch.tensors["control_latents"])
    family.most_controls = 0
    with pytest.raises(DatasetError) as error:
        run(config_of(pictures, eval_datasets=[]), family)
    assert str(error.value) == (
        "control_path: this family is not trained on pairs of pictures by dpnb's own trainer yet. Remove control_path "
        "from the dataset file"
    )


def test_more_control_pictures_than_the_family_knows(pictures: Project) -> None:
    train = str(pictures.root / "train")
    folder = Directory(path=train, control_path=[train, train])
    (pictures.root / "train.toml").write_text(toml.dump(Dataset(resolutions=[32], directory=[folder])))
    with pytest.raises(DatasetError) as error:
        run(config_of(pictures, eval_datasets=[]), Family())
    assert str(error.value) == (
        "control_path names 2 folders, and this family makes something of 1 alone. Name one folder in the dataset "
        "file, as a text"
    )


def test_a_broken_file_is_named_and_left_out(pictures: Project, capsys: pytest.CaptureFixture[str]) -> None:
    first = sorted((pictures.root / "train").glob("*.png"))[0]
    first.write_bytes(first.read_bytes()[:200])
    data = run(config_of(pictures), Family())
    assert sum(row.used for row in data.train.rows) == 3
    assert data.train.steps_per_epoch == 1
    assert f"  left out: {first}: " in capsys.readouterr().out


def test_a_held_out_set_without_a_batch_is_named(pictures: Project) -> None:
    config = config_of(pictures, eval_micro_batch_size_per_gpu=50)
    start = f"held-out set 'held' ({pictures.root}/held.toml): "
    with pytest.raises(DatasetError, match=f"^{re.escape(start)}."):
        run(config, Family())


def test_a_training_set_without_a_batch(pictures: Project) -> None:
    with pytest.raises(DatasetError):
        run(config_of(pictures, micro_batch_size_per_gpu=50), Family())


@pytest.mark.parametrize("after", [1, 3])
def test_stopped_while_caching(after: int, pictures: Project) -> None:
    family, stop = Family(), threading.Event()
    encode = family.encode_pixels

    def encode_and_stop(pixels: Tensor) -> dict[str, Tensor]:
        if len(family.pixels) + 1 == after:
            stop.set()
        return encode(pixels)

    family.encode_pixels = encode_and_stop  # type: ignore[method-assign]
    with pytest.raises(Stopped):
        run(config_of(pictures), family, stop.is_set)
    assert len(family.pixels) == after, "nothing is encoded after that"
    rest = Family()
    run(config_of(pictures), rest)
    assert len(rest.pixels) == 6 - after, "what was encoded is kept"


def test_a_full_cache_disk_is_the_datasets_error(pictures: Project) -> None:
    config = config_of(pictures)
    (pictures.root / "file").touch()
    config.training.value.cache_dir = str(pictures.root / "file" / "below")
    with pytest.raises(DatasetError, match=r"the cache folder '.*' cannot be written"):
        run(config, Family())
