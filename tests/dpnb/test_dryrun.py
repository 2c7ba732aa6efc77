"""The dry run: what it counts, what it offers, and that the trainer then does the same, bucket by bucket."""

from __future__ import annotations

import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageOps

from dpnb import toml
from dpnb.dataset import dryrun as dryrun_module
from dpnb.dataset.batch import Batch
from dpnb.dataset.bucket import deal, plan
from dpnb.dataset.crop import decode, fit, kept_box
from dpnb.dataset.dryrun import CAUSES, DryRun, dry_run, kept_share
from dpnb.dataset.mends import Mend, findings
from dpnb.dataset.scan import Cancelled, Row, read_folders, scan
from dpnb.errors import DatasetError
from dpnb.schema import FACTS, AdamW, Dataset, Directory, FluxModel, Training
from dpnb.schema.dataset import with_trigger_word
from dpnb.schema.families.base import FamilyFacts
from tests.dpnb.filmed import film

FLUX = FACTS["flux"]
VIDEO = FamilyFacts(title="Video", rounding_px=32, video=True, frames_per_latent=4, fps=16)
RATIOS = {"enable_ar_bucket": True, "min_ar": 0.5, "max_ar": 2.0, "num_ar_buckets": 5}


def picture(path: Path, size: tuple[int, int] = (64, 64), caption: str | None = "a thing") -> Path:
    Image.new("RGB", size).save(path)
    if caption is not None:
        path.with_suffix(".txt").write_text(caption)
    return path


@pytest.fixture
def messy(tmp_path: Path) -> Path:
    """Two folders of pictures of many shapes; some files have something wrong with them."""
    rng = random.Random(3)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        for index in range(20):
            size = (rng.randrange(24, 160, 8), rng.randrange(24, 160, 8))
            picture(tmp_path / name / f"{index:02}.png", size)
    picture(tmp_path / "one" / "bare.png", caption=None)
    picture(tmp_path / "one" / "silent.png", caption="  ")
    (tmp_path / "one" / "broken.jpg").write_bytes(b"no picture")
    (tmp_path / "one" / "none.png").touch()
    picture(tmp_path / "two" / "wide.png", (400, 50))
    return tmp_path


def dataset(*folders: Path, own: dict[str, Any] | None = None, **keys: Any) -> Dataset:
    directories = [Directory(path=str(path), **(own or {})) for path in folders]
    return Dataset(**({"resolutions": [64], "directory": directories} | keys))


def training(**keys: Any) -> Training:
    values = {"output_dir": "runs", "dataset": "dataset.toml", "epochs": 1, "save_every_n_epochs": 1}
    model, optimizer = FluxModel(diffusers_path="nowhere"), AdamW(lr=1e-4)
    return Training(**(values | {"model": model, "optimizer": optimizer} | keys))


def row(name: str, width: int = 64, height: int = 64, **keys: Any) -> Row:
    return Row(name, width_px=width, height_px=height, **({"captions": ("x",)} | keys))


def made_of(rows: list[Row], config: Dataset, facts: FamilyFacts = FLUX, **batch: int) -> DryRun:
    return DryRun(config, facts, deal(rows, config, facts, **batch))


# --- the same as the trainer -----------------------------------------------------------------------------------------


def test_it_is_what_scan_and_plan_do(messy: Path) -> None:
    config = dataset(messy / "one", messy / "two", **RATIOS)
    found = scan(config)
    batch = {"micro_batch": 2, "gradient_accumulation_steps": 2, "data_parallel": 2}
    run = dry_run(config, FLUX, **batch)
    assert run.plan == plan(found.rows, config, FLUX, **batch)
    assert (run.notes, run.errors) == (found.notes, ())


def test_folders_of_which_nothing_is_cached_are_told_of(messy: Path) -> None:
    own = {"augmentation": {"flip": 0.5, "cached_variants": 0}}
    told = (
        f"{messy / 'one'}: no latents are cached (augmentation.cached_variants = 0): every example is changed and "
        "encoded anew, for which steps take longer and the VAE stays on the GPU"
    )
    config = dataset(messy / "one", messy / "two").model_copy()
    config.directory[0] = Directory(path=str(messy / "one"), **own)
    assert told in dry_run(config, FLUX).notes
    assert sum("no latents are cached" in note for note in dry_run(config, FLUX).notes) == 1
    assert not any("cached" in note for note in dry_run(config, FLUX, held_out=True).notes)
    plain = dataset(messy / "one", augmentation={"cached_variants": 0})
    assert not any("cached" in note for note in dry_run(plain, FLUX).notes), "nothing in it is random"


@pytest.mark.parametrize("keys", [{}, {"eval_gradient_accumulation_steps": 2, "eval_micro_batch_size_per_gpu": 1}])
def test_the_trainer_then_does_the_same_bucket_by_bucket(
    messy: Path, keys: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    from tests.trainer.launching import Project
    from tests.trainer.test_prepare import Family
    from tests.trainer.test_prepare import run as prepare

    own = {"num_repeats": 1.5}
    files = {"train": dataset(messy / "one", messy / "two", own=own, **RATIOS), "held": dataset(messy / "two")}
    for name, config in files.items():
        (messy / f"{name}.toml").write_text(toml.dump(config))
    asked = {
        "dataset": str(messy / "train.toml"),
        "eval_datasets": [{"name": "held", "config": str(messy / "held.toml")}],
        "trigger_word": "zorbi",
        "micro_batch_size_per_gpu": 3,
    }
    config = toml.load_run(Project(messy).write("run", **(asked | keys)))
    data = prepare(config, Family())
    asked_for = config.training.value
    for name, planned in {"train": data.train, "held": data.held_out["held"]}.items():
        batch = Batch.of(asked_for) if name == "train" else Batch.of_evaluation(asked_for)
        document = config.dataset if name == "train" else config.eval_datasets[name]
        run = dry_run(with_trigger_word(document.value, "zorbi"), FACTS[asked_for.model.type], **batch._asdict())
        assert len(run.plan.buckets) >= 1 + 4 * (name == "train")
        assert [bucket.to_json() for bucket in run.plan.buckets] == [b.to_json() for b in planned.buckets]
        assert run.plan == planned, "every example and every reason too"
    assert data.train.buckets[0].examples[0].caption == "zorbi, a thing"


def test_batches_of_a_training() -> None:
    plain = training(micro_batch_size_per_gpu=4, gradient_accumulation_steps=2)
    assert Batch.of(plain)[:3] == (4, 2, 1)
    assert Batch.of_evaluation(plain)[:3] == (4, 1, 1)
    staged = training(pipeline_stages=2, image_micro_batch_size_per_gpu=3, eval_micro_batch_size_per_gpu=5)
    assert Batch.of(staged, gpus=8)[:3] == (3, 1, 4)
    assert Batch.of_evaluation(staged, gpus=8)[:3] == (5, 1, 4)
    assert Batch.of_evaluation(training(eval_image_micro_batch_size_per_gpu=6))[:3] == (6, 1, 1)
    assert Batch.of(staged, gpus=1).data_parallel == 1


def test_the_trigger_word_of_the_training_is_for_datasets_without_one(messy: Path) -> None:
    config = dataset(messy / "two")
    assert with_trigger_word(config, "zorbi").trigger_word == "zorbi"
    assert with_trigger_word(config.model_copy(update={"trigger_word": "own"}), "zorbi").trigger_word == "own"


# --- what it counts --------------------------------------------------------------------------------------------------


def test_files_are_counted_by_what_becomes_of_them(messy: Path) -> None:
    run = dry_run(dataset(messy / "one", messy / "two", **RATIOS), FLUX, micro_batch=4)
    assert {cause: len(rows) for cause, rows in run.left_out.items() if cause != "small_bucket"} == {
        "unreadable": 2,
        "no_caption": 1,
        "empty_caption": 1,
    }
    assert set(run.left_out) <= set(CAUSES)
    assert len(run.rows) == 45 == run.pictures + sum(map(len, run.left_out.values()))
    assert run.captions == {"written": 41, "missing": 1, "empty": 1}
    assert 0 < run.cropped_share < 0.5


def test_every_reason_names_its_mend(messy: Path) -> None:
    reasons = {row.path.name: row.reason for row in dry_run(dataset(messy / "one", **RATIOS), FLUX).rows}
    assert reasons["bare.png"] == (
        "has no caption in bare.txt: write one, or set skip_empty_caption = false to train it without"
    )
    assert "its caption in silent.txt is empty: write one" in reasons["silent.png"]
    assert reasons["none.png"] == "empty: the file has 0 bytes"


def test_json(messy: Path) -> None:
    data = dry_run(dataset(messy / "one", resolutions=[32, 64]), FLUX, micro_batch=3).to_json()
    assert data["files"][0] == {
        "path": str(messy / "one" / "00.png"),
        "directory": 0,
        "width": data["files"][0]["width"],
        "height": data["files"][0]["height"],
        "frames": 1,
        "captions": ["a thing"],
        "used": True,
        "reason": "",
        "buckets": [[32, 32, 1], [64, 64, 1]],
    }
    assert [(b["size"], b["files"], b["examples"], b["batches"], b["dropped"]) for b in data["buckets"]] == [
        ([32, 32, 1], 20, 20, 6, 2),
        ([64, 64, 1], 20, 20, 6, 2),
    ]
    assert data["steps_per_epoch"] == 12
    assert data["totals"]["captions"] == {"written": 20, "empty": 1, "missing": 1}
    assert data["totals"]["left_out"] == {"unreadable": 2, "no_caption": 1, "empty_caption": 1}
    assert (data["errors"], data["totals"]["pictures"], data["totals"]["clips"]) == ([], 20, 0)


def test_what_stops_the_trainer_is_told_with_the_rest(messy: Path) -> None:
    (messy / "bad").mkdir()
    picture(messy / "bad" / "a.png", caption=None)
    config = dataset(messy / "nowhere", messy / "bad", messy / "two")
    run = dry_run(config, FLUX)
    assert len(run.errors) == 2
    assert run.errors[0].startswith(f"the folder '{messy}/nowhere' cannot be read: No such file")
    assert run.errors[1].startswith(f"directory[1]: nothing in '{messy}/bad' can be trained on; 1 file was left out:")
    assert run.pictures == 21
    with pytest.raises(DatasetError) as caught:
        scan(config)
    assert str(caught.value) == run.errors[0]
    too_large = dry_run(dataset(messy / "two"), FLUX, micro_batch=50)
    assert too_large.errors[0].startswith("nothing is left to train on: no bucket fills a global batch\n")
    assert too_large.plan.steps_per_epoch == 0


def test_share_that_a_bucket_keeps() -> None:
    from dpnb.dataset.bucket import Size

    assert kept_share(row("a", 200, 100), Size(64, 64)) == 0.5
    assert kept_share(row("a", 100, 200), Size(64, 64)) == 0.5
    assert kept_share(row("a", 128, 64), Size(64, 32)) == 1.0


def test_progress_and_an_end(messy: Path) -> None:
    seen: list[tuple[int, int]] = []
    read_folders(dataset(messy / "one", messy / "two"), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(0, 45), (24, 45), (24, 45), (45, 45)]
    with pytest.raises(Cancelled):
        dry_run(dataset(messy / "one"), FLUX, cancelled=lambda: True)


# --- the crop --------------------------------------------------------------------------------------------------------


def test_the_kept_box_is_what_pillow_would_cut() -> None:
    rng = random.Random(0)
    for _ in range(100):
        width, height, *bucket = (rng.randint(1, 80) for _ in range(4))
        image = Image.frombytes("RGB", (width, height), rng.randbytes(3 * width * height))
        theirs = ImageOps.fit(image, tuple(bucket), method=Image.Resampling.LANCZOS)
        assert fit(image, *bucket).tobytes() == theirs.tobytes()
    assert kept_box((200, 100), 64, 64) == (50, 0, 150, 100)
    assert kept_box((100, 200), 64, 64) == (0, 50, 100, 150)


def test_a_draft_is_smaller_and_shows_the_same(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.radial_gradient("L").resize((1600, 800)).convert("RGB").save(tmp_path / "a.jpg", exif=exif)
    data = (tmp_path / "a.jpg").read_bytes()
    assert decode(data).size == (800, 1600)
    assert decode(data, draft_px=200).size == (200, 400)
    Image.new("RGB", (300, 200)).save(tmp_path / "a.png")
    assert decode((tmp_path / "a.png").read_bytes(), draft_px=20).size == (300, 200)


def test_captions_of_a_table_and_masks_count_too(tmp_path: Path) -> None:
    for name in ("a", "b"):
        picture(tmp_path / f"{name}.png", caption=None)
    (tmp_path / "table.csv").write_text("image,text\na.png,from the table\nb.png,this too\n")
    (tmp_path / "masks").mkdir()
    picture(tmp_path / "masks" / "b.png", (32, 32), caption=None)
    own = {"metadata_file": str(tmp_path / "table.csv"), "mask_path": str(tmp_path / "masks")}
    run = dry_run(dataset(tmp_path, own=own), FLUX)
    rows = {row.path.name: row for row in run.rows if row.path.suffix == ".png"}
    assert rows["a.png"].captions == ("from the table",)
    assert "is 32 x 32 px, and the picture 64 x 64" in rows["b.png"].reason


# --- videos ----------------------------------------------------------------------------------------------------------


def test_it_shows_what_is_done_to_each_video(tmp_path: Path) -> None:
    film(tmp_path / "long.mp4", frames=60, fps=30)
    film(tmp_path / "short.mkv", frames=9, fps=30)
    film(tmp_path / "same.avi", frames=9, fps=16)
    for name in ("long", "short", "same"):
        (tmp_path / f"{name}.txt").write_text("a clip")
    picture(tmp_path / "still.png")
    config = dataset(tmp_path, frame_buckets=[1, 5, 9, 33])
    run = dry_run(config, VIDEO)
    assert (run.pictures, run.clips, run.errors) == (1, 2, ())
    assert [(str(b.size), [run.rows[i].path.name for i in b.rows]) for b in run.plan.buckets] == [
        ("64x64", ["still.png"]),
        ("64x64x9", ["long.mp4", "same.avi"]),
    ]
    assert run.notes == (
        f"{tmp_path / 'long.mp4'}: 60 frames at 30 fps become 32 at 16 fps; 9 are trained "
        "(0.56 s, from 0.00 s on); 23 are not used",
        f"{tmp_path / 'same.avi'}: 9 frames at 16 fps; 9 are trained (0.56 s, from 0.00 s on)",
    )
    assert run.left_out["no_bucket"][0].reason == (
        "no bucket of its aspect ratio is short enough for a clip of 4 frames at 16 fps (it has 9 at 30): add a "
        "shorter one"
    )
    files = {Path(entry["path"]).name: entry for entry in run.to_json()["files"]}
    assert (files["long.mp4"]["fps"], files["long.mp4"]["seconds"], files["long.mp4"]["frames"]) == (30.0, 2.0, 60)
    assert files["long.mp4"]["clips"] == [
        {
            "retimed_frames": 32,
            "fps": 16,
            "frames": 9,
            "start_seconds": [0.0],
            "seconds": 0.562,
            "unused_frames": 23,
        }
    ]
    assert "clips" not in files["still.png"]
    middle = dry_run(config, VIDEO, clip_mode="single_middle")
    assert [clips.starts for clips in middle.videos[0]] == [(11,)]
    every = dry_run(config, VIDEO, clip_mode="multiple_overlapping")
    assert [(clips.starts, clips.unused) for clips in every.videos[0]] == [((0, 7, 15, 23), 0)]
    assert every.notes[0].endswith("become 32 at 16 fps; 4 clips of 9 are trained (0.56 s each)")


def test_videos_of_a_family_of_pictures(tmp_path: Path) -> None:
    film(tmp_path / "a.mp4")
    (tmp_path / "a.txt").write_text("a clip")
    picture(tmp_path / "b.png")
    run = dry_run(dataset(tmp_path), FLUX)
    assert [row.reason for row in run.left_out["video"]] == [f"a video: {FLUX.title} is trained on pictures alone"]
    assert (run.pictures, run.clips, run.errors) == (1, 0, ())
    assert deal(run.rows, run.dataset, VIDEO).rows[0].cause == "no_bucket", "another plan looks at it again"


def test_of_many_videos_the_first_are_told_of() -> None:
    config = Dataset(resolutions=[64], frame_buckets=[1, 5], directory=[Directory(path="a")])
    rows = [row(f"{i}.mp4", frames=5, fps=16.0) for i in range(23)]
    made = DryRun(config, VIDEO, deal(rows, config, VIDEO))
    lines = list(dryrun_module._of_videos(made))
    assert lines[19] == "19.mp4: 5 frames at 16 fps; 5 are trained (0.31 s, from 0.00 s on)"
    assert lines[20:] == ["3 more videos are re-timed and cut in the same way (--json has them all)"]


# --- mends -----------------------------------------------------------------------------------------------------------


def apply(config: Dataset, mend: Mend) -> Dataset:
    """The dataset with one mend carried out, as a form would."""
    data = config.model_dump()
    place: Any = data
    for part in mend.loc[:-1]:
        place = place[part]
    place[mend.loc[-1]] = mend.value
    return Dataset.model_validate(data)


def test_a_bucket_smaller_than_the_batch() -> None:
    config = Dataset(resolutions=[64], directory=[Directory(path="many/a"), Directory(path="few")], **RATIOS)
    rows = [row(f"{i}.png") for i in range(9)] + [row(f"w{i}.png", 128, directory=1) for i in range(3)]
    asked = training(micro_batch_size_per_gpu=4, gradient_accumulation_steps=2)
    run = made_of(rows, config, **Batch.of(asked)._asdict())
    (found,) = findings(run, asked)
    assert found.words == (
        "1 bucket holds less than one global batch and is not trained (3 files): 3 of 8 in 96x48 (aspect ratio 2.0)."
    )
    assert found.mends == (
        Mend("Lower the batch to 1", ("micro_batch_size_per_gpu",), 1, "training"),
        Mend("num_repeats = 3 for few", ("directory", 1, "num_repeats"), 3),
        Mend("Train the small buckets too", ("drop_last",), False),
    )
    assert not made_of(rows, apply(config, found.mends[1]), micro_batch=8).vanished
    assert not made_of(rows, config, micro_batch=1, gradient_accumulation_steps=2).vanished
    kept = made_of(rows, apply(config, found.mends[2]), **Batch.of(asked)._asdict())
    assert not kept.vanished
    assert [mend.file for mend in findings(run)[0].mends] == ["dataset"] * 2, "nothing of a training that is not there"


def test_less_accumulation_where_a_smaller_batch_is_not_enough() -> None:
    config = Dataset(resolutions=[64], directory=[Directory(path="a", num_repeats=0.1)], **RATIOS)
    rows = [row(f"{i}.png") for i in range(90)] + [row(f"w{i}.png", 128) for i in range(20)]
    asked = training(gradient_accumulation_steps=4)
    found = findings(made_of(rows, config, **Batch.of(asked)._asdict()), asked)[0]
    assert [mend.words for mend in found.mends] == ["Accumulate 2 instead of 4", "num_repeats = 1 for a"]
    pictures = training(micro_batch_size_per_gpu=1, image_micro_batch_size_per_gpu=4)
    config = Dataset(resolutions=[64], directory=[Directory(path="a")])
    found = findings(made_of(rows[:2], config, micro_batch=4), pictures)[0]
    assert found.mends[0] == Mend("Lower the batch to 2", ("image_micro_batch_size_per_gpu",), 2, "training")


def test_last_batches_that_are_not_full() -> None:
    config = Dataset(resolutions=[64], directory=[Directory(path="a")], **RATIOS)
    rows = [row(f"{i}.png") for i in range(7)] + [row(f"w{i}.png", 128) for i in range(9)]
    asked = training(micro_batch_size_per_gpu=4)
    run = made_of(rows, config, **Batch.of(asked)._asdict())
    (found,) = findings(run, asked)
    assert found.words == (
        "3 examples do not fill a global batch and are left out, others each epoch: "
        "3 of 7 in 64x64 (aspect ratio 1.0)."
    )
    assert found.mends == (Mend("Lower the batch to 3", ("micro_batch_size_per_gpu",), 3, "training"),)
    assert findings(made_of(rows, config, micro_batch=3)) == [], "it mends"
    assert findings(run)[0].mends == (), "nothing of a training that is not there"
    many = training(micro_batch_size_per_gpu=[[512, 4]])
    assert findings(made_of(rows, config, **Batch.of(many)._asdict()), many)[0].mends == ()


def test_less_accumulation_fills_the_last_batch() -> None:
    config = Dataset(resolutions=[64], directory=[Directory(path="a")])
    asked = training(micro_batch_size_per_gpu=1, gradient_accumulation_steps=6)
    (found,) = findings(made_of([row(f"{i}.png") for i in range(10)], config, **Batch.of(asked)._asdict()), asked)
    assert found.words.startswith("4 examples do not fill a global batch and are left out, others each epoch: 4 of 10")
    assert found.mends == (Mend("Accumulate 5 instead of 6", ("gradient_accumulation_steps",), 5, "training"),)
    assert findings(made_of([row(f"{i}.png") for i in range(10)], config, gradient_accumulation_steps=5)) == []


def test_a_few_examples_that_are_left_over_are_no_finding() -> None:
    config = Dataset(resolutions=[64], directory=[Directory(path="a")], **RATIOS)
    for square, wide, batch in ((9, 0, 4), (6, 0, 5), (100, 7, 4), (41, 5, 2)):
        rows = [row(f"{i}.png") for i in range(square)] + [row(f"w{i}.png", 128) for i in range(wide)]
        assert findings(made_of(rows, config, micro_batch=batch)) == []
    (one,) = findings(made_of([row(f"{i}.png") for i in range(5)], config, micro_batch=2))
    assert one.words.startswith(
        "1 example does not fill a global batch and is left out, another each epoch: 1 of 5 in"
    )


def test_many_small_buckets_are_one_finding() -> None:
    config = Dataset(resolutions=[64, 96], directory=[Directory(path="a")], **RATIOS)
    rows = [row(f"{i}.png", 64, 32 + 16 * i) for i in range(5)] + [row("more.png")] * 20
    (found,) = findings(made_of(rows, config, micro_batch=30))
    assert found.words.startswith("8 buckets hold less than one global batch and are not trained (25 files): ")
    assert found.words.endswith(" and 5 more.")
    assert [mend.words for mend in found.mends] == ["num_repeats = 30 for a", "Train the small buckets too"]


def test_clips_shorter_than_every_bucket() -> None:
    config = Dataset(resolutions=[64], frame_buckets=[1, 33], directory=[Directory(path="a"), Directory(path="b")])
    rows = [row("a.png"), row("c.mp4", frames=20), row("d.mp4", frames=18, directory=1)]
    (found,) = findings(made_of(rows, config, VIDEO))
    assert found.words == "2 clips are shorter than every frame bucket."
    assert found.mends == (Mend("Add frame bucket 17", ("frame_buckets",), [1, 17, 33]),)
    mended = made_of(rows, apply(config, found.mends[0]), VIDEO)
    assert (mended.clips, mended.pictures, findings(mended)) == (2, 1, [])
    exact = config.model_copy(update={"resolutions": None, "size_buckets": [[64, 64, 1], [64, 64, 33]]})
    assert findings(made_of(rows, exact, VIDEO))[0].mends == ()


def test_captions_that_are_missing_or_empty(messy: Path) -> None:
    config = dataset(messy / "one", messy / "two")
    (found,) = findings(dry_run(config, FLUX))
    assert found.words == "1 file without a caption and 1 file with an empty one are left out."
    assert found.mends == (Mend("Train them without a caption", ("skip_empty_caption",), False),)
    mended = apply(config, found.mends[0])
    (after,) = findings(dry_run(mended, FLUX))
    assert after.words == "2 files are trained with an empty or missing caption."
    assert after.mends == (Mend("Leave them out", ("skip_empty_caption",), True),)
    assert findings(dry_run(apply(mended, after.mends[0]), FLUX)) == [found]


def test_a_folder_with_a_key_of_its_own_is_mended_there(messy: Path) -> None:
    picture(messy / "two" / "bare.png", caption=None)
    config = dataset(messy / "one", messy / "two")
    config.directory[1].skip_empty_caption = True
    (found,) = findings(dry_run(config, FLUX))
    assert found.mends == (
        Mend("Train them without a caption in the other folders", ("skip_empty_caption",), False),
        Mend("Train them without a caption in two", ("directory", 1, "skip_empty_caption"), False),
    )


def test_less_than_one_repeat() -> None:
    config = Dataset(resolutions=[64], num_repeats=0.5, directory=[Directory(path="a")])
    (found,) = findings(made_of([row("a"), row("b")], config))
    assert found.words == "num_repeats below 1 leaves out 1 file in every epoch."
    assert found.mends == (Mend("num_repeats = 1", ("num_repeats",), 1),)


def test_notes_of_the_scan_are_findings_too() -> None:
    config = Dataset(resolutions=[64], directory=[Directory(path="a")])
    run = replace(made_of([row("a")], config), notes=("a: captions without a picture: b.txt",))
    assert [found.words for found in findings(run)] == ["a: captions without a picture: b.txt"]


def test_imports_are_light() -> None:
    code = "import sys, dpnb.dataset.mends; print([m for m in ('torch', 'PIL', 'ipywidgets') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
