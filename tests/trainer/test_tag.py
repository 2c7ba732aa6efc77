"""The super-tagger with tiny models of real classes: captions, resuming, and a person's own words kept."""

from __future__ import annotations

import contextlib
import json
import pickle
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from dpnb.cli import main
from dpnb.dataset.crop import decode
from dpnb.dataset.tagged import JOB_FOLDER, TagJob, Tags, raw_pictures
from dpnb.errors import DatasetError, RunError
from dpnb.runs.rundir import RunDir
from dpnb.tools import tagging
from tests.dpnb.waiting import until
from tests.trainer.tiny_vision import save_blip, save_llava, save_qwen
from trainer.jobs.tag import ModelError, stretched, tag
from trainer.jobs.tag import main as tag_main
from trainer.jobs.vision import VisionModel, check_folder, tidy

ALL = ("caption", "caption_short", "contrast_stretch")
PROMPT = "describe this image"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_llava(tmp_path_factory.mktemp("llava"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures with soft colours, the third in a folder below."""
    for number, place in enumerate(("a.jpg", "b.png", "below/c.webp")):
        path = tmp_path / "raw" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.linear_gradient("L").resize((64, 48)).point(lambda v, n=number: 80 + v // 4 + n).convert("RGB").save(
            path
        )
    return tmp_path


def job_for(folder: Path, model: Path, **more) -> TagJob:
    return TagJob(str(folder), str(model), **{"max_new_tokens": 3, "prompt": PROMPT, "device": "cpu", **more})


def done(job: TagJob) -> tuple[str, Path]:
    """Carry a job out here; the words that it ends with, and its run directory."""
    run = RunDir(Path(job.folder) / JOB_FOLDER)
    run.path.mkdir(exist_ok=True)
    tag(job, run)
    status = run.status()
    assert status is not None
    assert status.phase == "done"
    return status.detail, run.path


def train(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("train/**/*.*")}


def test_a_whole_folder(folder, model):
    ending, _ = done(job_for(folder, model, steps=ALL, short_prompt="one short sentence"))
    assert ending == "3 of 3 pictures done anew"
    assert sorted(train(folder)) == sorted(
        f"train/{stem}.{suffix}"
        for stem, kind in (("a", "jpg"), ("b", "png"), ("below/c", "webp"))
        for suffix in (kind, "txt", "json")
    )
    eyes = VisionModel.load(model, "cpu")
    picture = decode((folder / "raw" / "a.jpg").read_bytes())
    tags = json.loads((folder / "train" / "a.json").read_text())
    assert tags["caption"] == eyes.describe(picture, PROMPT, 3) == (folder / "train" / "a.txt").read_text().strip()
    assert tags["caption_short"] == eyes.describe(picture, "one short sentence", 3)
    assert tags["version"] == 2
    assert tags["caption_method"] == model.name
    assert tags["state"]["steps_complete"] == list(ALL)
    low, high = Image.open(folder / "train" / "b.png").convert("L").getextrema()
    assert high - low > 240, "the contrast is stretched"


def test_nothing_is_done_twice(folder, model, tmp_path_factory):
    own = tmp_path_factory.mktemp("models") / "moved-away"
    shutil.copytree(model, own)
    job = job_for(folder, own, steps=ALL)
    done(job)
    shutil.rmtree(own)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("train/**/*.*")}
    assert done(job)[0] == "0 of 3 pictures done anew", "the model is not even loaded"
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("train/**/*.*")} == before


def test_only_what_follows_from_a_change_is_done_again(folder, model):
    job = job_for(folder, model)
    done(job)
    first = train(folder)
    Image.new("RGB", (64, 48), "red").save(folder / "raw" / "a.jpg")
    assert done(job)[0] == "1 of 3 pictures done anew"
    assert {name for name, content in train(folder).items() if first[name] != content} <= {
        "train/a.jpg",
        "train/a.txt",
        "train/a.json",
    }
    assert train(folder)["train/a.jpg"] == (folder / "raw" / "a.jpg").read_bytes()
    before = train(folder)
    assert done(replace(job, steps=ALL))[0] == "3 of 3 pictures done anew"
    after = train(folder)
    assert {name: after[name] for name in after if name.endswith(".txt")} == {
        name: before[name] for name in before if name.endswith(".txt")
    }
    assert after["train/b.png"] != before["train/b.png"]
    assert done(job)[0] == "3 of 3 pictures done anew"
    assert train(folder)["train/b.png"] == (folder / "raw" / "b.png").read_bytes(), "as it came, again"


def test_another_prompt_asks_again_and_keeps_the_old_caption(folder, model):
    job = job_for(folder, model)
    done(job)
    old = Tags.load(folder / "train" / "a.json")
    done(replace(job, prompt="a red disc on paper", max_new_tokens=9))
    new = Tags.load(folder / "train" / "a.json")
    assert new.caption != old.caption
    assert new.other_captions[model.name]["caption"] == old.caption
    assert (folder / "train" / "a.txt").read_text() == f"{new.caption}\n"


def test_what_a_person_has_written_stays(folder, model):
    (folder / "raw" / "a.txt").write_text("a caption by hand, with ä\n")
    job = job_for(folder, model)
    done(job)
    assert (folder / "train" / "a.txt").read_text() == "a caption by hand, with ä\n"
    assert Tags.load(folder / "train" / "a.json").caption_method == "by hand"
    assert Tags.load(folder / "train" / "a.json").caption_short
    (folder / "train" / "b.txt").write_text("corrected")
    (folder / "raw" / "a.txt").write_text("another by hand")
    ending, _ = done(replace(job, prompt="a red disc on paper", max_new_tokens=9))
    assert ending == "3 of 3 pictures done anew, 1 captions kept as they were edited"
    assert (folder / "train" / "b.txt").read_text() == "corrected"
    assert (folder / "train" / "a.txt").read_text() == "another by hand\n"


def test_the_short_caption_can_be_the_one(folder, model):
    done(job_for(folder, model, steps=("caption_short",), write="short"))
    tags = Tags.load(folder / "train" / "a.json")
    assert (folder / "train" / "a.txt").read_text() == f"{tags.caption_short}\n"
    assert tags.caption == ""


def test_without_a_caption_no_model_is_asked_for(folder):
    done(TagJob(str(folder), "", steps=("contrast_stretch",)))
    assert sorted(train(folder)) == sorted(
        ["train/a.jpg", "train/a.json", "train/b.png", "train/b.json", "train/below/c.webp", "train/below/c.json"]
    )


def test_what_cannot_be_read_is_left_out_and_told(folder, model, capsys):
    whole = (folder / "raw" / "b.png").read_bytes()
    (folder / "raw" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "raw" / "a.png").write_bytes(whole)
    (folder / "raw" / "clip.mp4").write_bytes(b"")
    ending, place = done(job_for(folder, model))
    assert ending == "3 of 4 pictures done anew, 3 left out (see left_out.json)"
    left_out = json.loads((place / "left_out.json").read_text())
    assert left_out["a.png"] == "shares its stem, and so its caption, with a.jpg: rename one"
    assert left_out["clip.mp4"] == "a video: only pictures are captioned"
    assert left_out["cut.png"].startswith("corrupt: ")
    assert "cut.png: left out: corrupt: " in capsys.readouterr().out


def test_a_picture_that_comes_back_in_another_format(folder, model):
    job = job_for(folder, model)
    done(job)
    (folder / "raw" / "b.png").unlink()
    Image.new("RGB", (64, 48), "blue").save(folder / "raw" / "b.jpg")
    ending, place = done(job)
    assert ending == "0 of 3 pictures done anew, 1 left out (see left_out.json)"
    assert json.loads((place / "left_out.json").read_text())["b.jpg"].endswith(
        "train/b.png is of an earlier picture of this name: remove it, then run again"
    )


class Death(BaseException):
    """The end of a process, as far as this can be had within one."""


def test_dying_at_any_file_loses_and_repeats_nothing(folder, model, monkeypatch):
    """Killed before each renaming in turn; after it the outcome is that of a job which was left alone."""
    for place in ("a", "b", "below/c"):  # by hand, since it is about the files: no model is loaded
        (folder / "raw" / f"{place}.txt").write_text(f"a caption of {place}\n")
    job = job_for(folder, model, steps=("caption", "contrast_stretch"))
    done(job)
    expected = train(folder)
    replaced = Path.replace
    for deadly in range(14):
        shutil.rmtree(folder / "train")
        left = [deadly]

        def dying(self: Path, target: Path, left: list[int] = left) -> Path:
            if "train" in Path(target).parts:
                left[0] -= 1
                if left[0] < 0:
                    raise Death
            return replaced(self, target)

        with monkeypatch.context() as patched:
            patched.setattr(Path, "replace", dying)
            with contextlib.suppress(Death):
                done(job)
        done(job)
        assert train(folder) == expected, f"after a death at file {deadly}"
    assert left[0] >= 0, "the last one was not killed any more"


def complete(folder: Path) -> list[Path]:
    """The .json of the pictures that are done."""
    return [path for path in folder.glob("train/*.json") if Tags.load(path).steps_complete]


def test_a_killed_process_goes_on_where_it_was(folder, model):
    for number in range(9):
        shutil.copy(folder / "raw" / "a.jpg", folder / "raw" / f"{number:02}.jpg")
    run = tagging.start(job_for(folder, model, max_new_tokens=12))
    with pytest.raises(RunError, match="is being started or run by another process"):
        tagging.start(job_for(folder, model))
    until(lambda: len(complete(folder)) >= 2 or run.is_over, 240)
    assert run.state == "running", run.log()
    assert run.status.phase == "captioning"
    run.kill()
    assert run.state == "stopped"
    before = {path: path.stat().st_mtime_ns for path in complete(folder)}
    assert 2 <= len(before) < 12
    assert done(job_for(folder, model, max_new_tokens=12))[0] == f"{12 - len(before)} of 12 pictures done anew"
    assert len(list(folder.rglob("train/**/*.txt"))) == 12
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert tagging.attach(folder).status.step == 12


def test_stopping_and_failing(folder, model, capsys):
    run = RunDir(folder / JOB_FOLDER)
    run.path.mkdir()
    run.request("save_quit")
    tag(job_for(folder, model), run)
    assert run.status().detail == "stopped: 0 of 3 pictures done anew"
    assert run.pending_requests() == []
    with pytest.raises(ModelError, match="there is no folder 'nowhere'"):
        tag(job_for(folder, Path("nowhere")), run)
    assert run.status().phase == "failed"
    job_for(folder, Path("nowhere")).save(run.path)
    assert tag_main([str(run.path)]) == 1
    assert "there is no folder 'nowhere'" in capsys.readouterr().err
    (run.path / "job.json").write_text("{")
    assert tag_main([str(run.path)]) == 1
    assert "job.json is not there or no JSON object: start the tagger anew" in capsys.readouterr().err
    assert tag_main([]) == 2


def test_without_the_libraries_of_the_trainer(folder, model, monkeypatch):
    monkeypatch.setitem(sys.modules, "trainer.jobs.vision", None)
    (folder / JOB_FOLDER).mkdir()
    with pytest.raises(ModelError, match=r"needs PyTorch and transformers \(.*\): pip install 'dpnb\[train\]'"):
        tag(job_for(folder, model), RunDir(folder / JOB_FOLDER))


# --- models ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("save", [save_llava, save_blip, save_qwen], ids=["llava", "blip", "qwen2-vl"])
def test_models_of_several_kinds(save, tmp_path):
    eyes = VisionModel.load(save(tmp_path / "model"), "cpu")
    caption = eyes.describe(Image.new("RGB", (90, 70), "red"), PROMPT, 6)
    assert caption
    assert PROMPT not in caption, "what was asked is no part of the answer"
    assert caption == eyes.describe(Image.new("RGB", (90, 70), "red"), PROMPT, 6)


def test_folders_that_are_no_model(tmp_path, model):
    with pytest.raises(DatasetError, match=r"there is no folder '.*no': name one with a vision-language model"):
        check_folder(tmp_path / "no")
    with pytest.raises(DatasetError, match=r"has no config.json: name the folder of a vision-language model"):
        check_folder(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(DatasetError, match="cannot be read as JSON: copy the model anew"):
        check_folder(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DatasetError, match="names no model_type: it is not one of transformers' models"):
        check_folder(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps({}))
    with pytest.raises(
        DatasetError, match="has no weights in safetensors: others can run code when read, and are not"
    ):
        check_folder(tmp_path)
    shutil.copy(model / "model.safetensors", tmp_path)
    with pytest.raises(DatasetError, match=r"the model in '.*' cannot be loaded: "):
        VisionModel.load(tmp_path, "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(model):
    with pytest.raises(
        DatasetError, match="device = 'cuda', and there is no GPU that PyTorch can use: choose auto or"
    ):
        VisionModel.load(model, "cuda")


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (' "A cat\n on a sofa." ', "A cat on a sofa."),
        ("Caption: a cat", "a cat"),
        ('a "cat" and a "dog"', 'a "cat" and a "dog"'),
        ("猫  と 犬", "猫 と 犬"),
    ],
)
def test_tidying(said, line):
    assert tidy(said) == line


def test_pictures_that_are_not_stretched(tmp_path):
    frames = [Image.new("P", (8, 8), n) for n in (0, 5)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    data = (tmp_path / "a.gif").read_bytes()
    assert stretched(data, decode(data)) == data


# --- jobs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"steps": ()}, "there is nothing to do: name at least one step of caption, caption_short, contrast_stretch"),
        ({"steps": ("poi",)}, "there is no step 'poi': choose from caption, caption_short, contrast_stretch"),
        (
            {"steps": ("caption",), "write": "short"},
            "the short caption is to be written, but caption_short is not among",
        ),
        ({"prompt": " "}, "prompt is empty: ask the model something"),
        ({"short_prompt": ""}, "short_prompt is empty: ask the model something"),
        ({"max_new_tokens": 0}, "max_new_tokens = 0: expected 1 or more"),
        ({"longest_px": 0}, "longest_px = 0: expected 1 or more"),
        ({"write": "both"}, "write = 'both': expected one of long, short"),
        ({"device": "tpu"}, "device = 'tpu': expected one of auto, cpu, cuda"),
    ],
)
def test_jobs_that_cannot_be(more, words):
    with pytest.raises(DatasetError, match=words):
        TagJob("photos", "model", **more)


def test_folders_without_pictures(tmp_path):
    with pytest.raises(DatasetError, match="has no folder raw/: put the pictures into "):
        raw_pictures(tmp_path)
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.mp4").write_bytes(b"")
    with pytest.raises(
        DatasetError, match=r"there is no picture in .*raw\n  a.mp4: a video: only pictures are captioned"
    ):
        raw_pictures(tmp_path)


def test_starting_without_a_model(folder):
    with pytest.raises(DatasetError, match=r"'nowhere' is not the folder of a model: there is no config.json in it"):
        tagging.start(TagJob(str(folder), "nowhere"))
    assert not (folder / JOB_FOLDER).exists()
    assert tagging.attach(folder) is None


def test_the_command(folder, capsys):
    assert main(["tag", str(folder), "--status"]) == 1
    assert f"no tagger was ever started in {folder}: start one with --model DIR" in capsys.readouterr().err
    options = ["--prompt", "what is it?", "--short-prompt", "briefly?", "--write", "short", "--max-new-tokens", "7"]
    options += ["--longest-px", "64", "--device", "cpu", "--steps", "contrast_stretch"]
    assert main(["tag", str(folder), *options, "--wait"]) == 0
    asked = TagJob.load(folder / JOB_FOLDER)
    assert (asked.prompt, asked.short_prompt, asked.write, asked.device) == ("what is it?", "briefly?", "short", "cpu")
    assert (asked.max_new_tokens, asked.longest_px, asked.steps) == (7, 64, ("contrast_stretch",))
    assert main(["tag", str(folder), "--status"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "done: 3 of 3 pictures; 3 of 3 pictures done anew"
    assert main(["tag", str(folder), "--stop"]) == 0
