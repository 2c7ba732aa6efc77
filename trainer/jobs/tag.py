"""The super-tagger: captions for the pictures of a folder, raw/ -> train/.

    python -m trainer.jobs.tag RUN_DIR      job.json there says what to do; dpnb/tools/tagging.py writes and starts it

Picture by picture: decode, ask the model, stretch the contrast, write train/<name>, .txt, and .json last. What is
complete there is not done again, so a job that was killed goes on where it was; another prompt or model, another raw
picture or image step redoes exactly what follows from it. A .txt that a person has edited is never written over.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpnb.dataset.caption_files import write_durably
from dpnb.dataset.crop import decode, is_animated, open_picture
from dpnb.dataset.tagged import BY_HAND, LEFT_OUT_FILE, RAW, TRAIN, TagJob, Tags, TagStep, raw_pictures
from dpnb.errors import DatasetError, DpnbError
from dpnb.runs.rundir import RunDir, write_text
from trainer.report import Report
from trainer.signals import StopSignal

if TYPE_CHECKING:
    from PIL.Image import Image

    from trainer.jobs.vision import VisionModel

_STRETCH_CUTOFF_PERCENT = (0.1, 0.0)  # as AI Toolkit's contrast_stretch
_CAPTION_STEPS: tuple[TagStep, ...] = ("caption", "caption_short")
_SAVED_AS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "PNG": {},
    "WEBP": {"quality": 95},
    "AVIF": {"quality": 95},
    "BMP": {},
    "TIFF": {},
}


def main(argv: list[str]) -> int:
    """One job; the exit code."""
    if len(argv) != 1:
        print("usage: python -m trainer.jobs.tag RUN_DIR", file=sys.stderr)
        return 2
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        run = RunDir(Path(argv[0]).resolve())
        tag(TagJob.load(run.path), run)
    except DpnbError as error:
        print(error, file=sys.stderr, flush=True)
        return 1
    return 0


def tag(job: TagJob, run: RunDir) -> None:
    """Do a whole job, and tell of it in its run directory. Raises `DpnbError` for what stops all of it."""
    stop = StopSignal()
    with stop.caught(), Report(run, speaks=True) as report:
        report.phase("loading", "looking at the pictures")
        tagger = Tagger(job, report)
        ending = tagger.work(lambda: stop.seen.is_set() or "save_quit" in run.pending_requests())
        run.clear_request("save_quit")
        report.phase("done", ending)
        report.note_exit(0)


@dataclass(slots=True)
class Tagger:
    """Works a folder off. `left_out`: place below raw/ -> why."""

    job: TagJob
    report: Report
    left_out: dict[str, str] = field(default_factory=dict)
    kept: int = 0
    made: int = 0
    _model: VisionModel | None = None
    _loading_seconds: float = 0.0  # of the time for the picture at hand

    def work(self, wants_to_stop: Any) -> str:  # noqa: ANN401 - a function without arguments that gives a bool
        """Every picture in turn; tells how it ended."""
        pictures = raw_pictures(Path(self.job.folder))
        self.left_out = dict(pictures.left_out)
        self.report.totals(steps=len(pictures.places), epochs=1)
        stopped = False
        for number, place in enumerate(pictures.places):
            if stopped := wants_to_stop():
                break
            started, self._loading_seconds = time.monotonic(), 0.0
            try:
                busy = self._settle(place)
            except (DatasetError, OSError) as error:
                self.left_out[place] = str(error)
                self.report.say(f"{place}: left out: {error}")
                busy = False
            seconds = time.monotonic() - started - self._loading_seconds
            self._tell(number + 1, place, seconds if busy else None)
        write_text(
            self.report.run.path / LEFT_OUT_FILE, json.dumps(self.left_out, indent=1, ensure_ascii=False) + "\n"
        )
        words = [f"{self.made} of {len(pictures.places)} pictures done anew"]
        words += [f"{self.kept} captions kept as they were edited"] if self.kept else []
        words += [f"{len(self.left_out)} left out (see {LEFT_OUT_FILE})"] if self.left_out else []
        return ("stopped: " if stopped else "") + ", ".join(words)

    def _tell(self, done: int, place: str, seconds: float | None) -> None:
        status = self.report.status
        if seconds is None:  # it was complete before, or could not be read: that says nothing of those to come
            status.step = done
            return
        self.made += 1
        before = status.seconds_per_step
        status.seconds_per_step = seconds if before is None else 0.9 * before + 0.1 * seconds
        status.step, status.eta_seconds = done, (status.total_steps - done) * status.seconds_per_step
        self.report.say(f"{done}/{status.total_steps} {place} {seconds:.1f} s")

    # --- one picture ---------------------------------------------------------------------------------------------

    def _settle(self, place: str) -> bool:
        """Do what is missing of one picture; False when nothing was. Raises `DatasetError` or `OSError`."""
        raw = Path(self.job.folder) / RAW / place
        train = Path(self.job.folder) / TRAIN / place
        sidecar = train.with_suffix(".json")
        tags = Tags.load(sidecar)
        info = raw.stat()
        by_hand = _by_hand(raw)
        unread = {"name": raw.name, "size_bytes": info.st_size, "written_ns": info.st_mtime_ns}
        if {key: tags.raw.get(key) for key in unread} == unread and not self._missing(tags, train, by_hand):
            return False
        data = raw.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        changed = tags.raw.get("sha256") != digest
        if changed:
            if tags.raw and tags.raw.get("name") != raw.name and (old := train.with_name(tags.raw["name"])).exists():
                raise DatasetError(f"{old} is of an earlier picture of this name: remove it, then run again")
            tags.steps_complete = []
        tags.raw = {**unread, "sha256": digest}
        picture = decode(data)
        train.parent.mkdir(parents=True, exist_ok=True)
        for step in self._missing(tags, train, by_hand):
            if step in _CAPTION_STEPS:
                self._caption(step, tags, picture, by_hand)
        self._write_text(tags, sidecar)
        if changed or "picture" in self._missing(tags, train, by_hand):
            self._write_picture(tags, train, data, picture)
        tags.save(sidecar)
        return True

    def _missing(self, tags: Tags, train: Path, by_hand: str) -> list[str]:
        """The steps that are to be done; "picture" stands for that in train/."""
        missing: list[str] = []
        for step in _CAPTION_STEPS:
            if step in self.job.steps:
                done = step in tags.steps_complete and tags.asked.get(step) == self._asked(step, by_hand)
                missing += [] if done else [step]
        stretched = "contrast_stretch" in tags.steps_complete
        if stretched != ("contrast_stretch" in self.job.steps) or not train.exists():
            missing.append("picture")
        if any(step in self.job.steps for step in _CAPTION_STEPS) and not train.with_suffix(".txt").exists():
            missing.append("text")
        return missing

    def _asked(self, step: TagStep, by_hand: str) -> dict[str, Any]:
        if by_hand and step == self.job.text_step:
            return {"model": BY_HAND, "text": _mark(by_hand.encode())}
        return self.job.asked(step)

    # --- captions ------------------------------------------------------------------------------------------------

    def _caption(self, step: TagStep, tags: Tags, picture: Image, by_hand: str) -> None:
        asked = self._asked(step, by_hand)
        if asked["model"] == BY_HAND:
            caption, method = by_hand, BY_HAND
        else:
            prompt = self.job.prompt if step == "caption" else self.job.short_prompt
            caption = self._eyes().describe(self._small(picture), prompt, self.job.max_new_tokens)
            method = Path(self.job.model).name
        if not caption:
            raise DatasetError(f"the model says nothing when it is asked for {step}: try another prompt")
        before = getattr(tags, step)
        if before and before != caption:
            tags.other_captions.setdefault(tags.caption_method or "before", {})[step] = before
        setattr(tags, step, caption)
        if step == self.job.text_step or not tags.caption_method:
            tags.caption_method = method
        tags.asked[step] = asked
        tags.steps_complete = [*(one for one in tags.steps_complete if one != step), step]

    def _small(self, picture: Image) -> Image:
        """What the model sees: no longer side than is asked for."""
        if max(picture.size) <= self.job.longest_px:
            return picture
        small = picture.copy()
        small.thumbnail((self.job.longest_px, self.job.longest_px))
        return small

    def _eyes(self) -> VisionModel:
        """The model, loaded when it is first needed."""
        if self._model is None:
            try:
                from trainer.jobs.vision import VisionModel
            except ImportError as error:
                message = f"the super-tagger needs PyTorch and transformers ({error}): pip install 'dpnb[train]'"
                raise ModelError(message) from error
            started = time.monotonic()
            self.report.phase("loading", f"loading {self.job.model}")
            self.report.keep_request({})
            try:
                self._model = VisionModel.load(Path(self.job.model), self.job.device)
            except DatasetError as error:
                raise ModelError(str(error)) from error  # not the fault of this one picture
            self.report.phase("captioning", "asking the model")
            self._loading_seconds = time.monotonic() - started
        return self._model

    def _write_text(self, tags: Tags, sidecar: Path) -> None:
        """The .txt file, unless a person has written another one."""
        caption = getattr(tags, self.job.text_step)
        if not caption or not {"caption", "caption_short"} & set(self.job.steps):
            return
        path, content = sidecar.with_suffix(".txt"), f"{caption}\n".encode()
        there = path.read_bytes() if path.exists() else None
        if there == content:
            return
        if there is not None and _mark(there) not in tags.written:
            self.kept += 1
            return
        if _mark(content) not in tags.written:
            # First that it is ours: killed between the two, the job would take it for a person's.
            tags.written.append(_mark(content))
            _save_unfinished(tags, sidecar)
        _replace(path, content)

    # --- pictures ------------------------------------------------------------------------------------------------

    def _write_picture(self, tags: Tags, train: Path, data: bytes, picture: Image) -> None:
        stretch = "contrast_stretch" in self.job.steps
        _replace(train, stretched(data, picture) if stretch else data)
        tags.steps_complete = [step for step in tags.steps_complete if step != "contrast_stretch"]
        tags.steps_complete += ["contrast_stretch"] if stretch else []


class ModelError(DpnbError):
    """The model cannot be used at all: no picture can be captioned."""


def stretched(data: bytes, picture: Image) -> bytes:
    """A picture with its contrast stretched, in the format it had; an animated one, or of another format, as it is.

    `data`: its file, `picture`: that decoded, upright and in RGB.
    """
    from PIL import ImageOps

    with open_picture(io.BytesIO(data)) as image:
        kind = "JPEG" if image.format == "MPO" else image.format
        profile = image.info.get("icc_profile") if image.mode == "RGB" else None
        if kind not in _SAVED_AS or is_animated(image):
            return data
    wide = ImageOps.autocontrast(picture, cutoff=_STRETCH_CUTOFF_PERCENT, preserve_tone=True)
    target = io.BytesIO()
    more = {"icc_profile": profile} if profile else {}
    wide.save(target, kind, **_SAVED_AS[kind], **more)
    return target.getvalue()


def _by_hand(raw: Path) -> str:
    """The caption that a person has put beside a picture in raw/; empty without one."""
    from dpnb.dataset.captions import read_text

    text = raw.with_suffix(".txt")
    return read_text(text).strip() if text.is_file() else ""


def _mark(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _save_unfinished(tags: Tags, sidecar: Path) -> None:
    """Write the .json as it is on disk, with what has been written added: its steps are not complete yet."""
    before = Tags.load(sidecar)
    before.written = tags.written
    before.save(sidecar)


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write_durably(temporary, content, like=None)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
