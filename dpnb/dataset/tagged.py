"""A folder that is captioned by a model: raw/ as it came, train/ as it is trained, and what has been done to it.

    FOLDER/raw/a.jpg  (a.txt: a caption by hand)   ->   FOLDER/train/a.jpg   a.txt   a.json (`Tags`: the steps done)
    FOLDER/.dpnb-tag/     the run directory of the job that does it: job.json (`TagJob`), status.json, console.log ...

dpnb/tools/tagging.py starts the job, trainer/jobs/tag.py is it. `Tags` has the keys of AI Toolkit's SuperTagger
(version 2), and two more: `raw`, which picture it is of, and `asked`, what the model was asked. It is written last, so
that what a killed job has left half done is done again.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Self, get_args

from dpnb.dataset.listing import Listing, list_folder, list_tree, printable
from dpnb.errors import DatasetError
from dpnb.runs.rundir import read_json, write_text

RAW, TRAIN = "raw", "train"
JOB_FOLDER = ".dpnb-tag"
JOB_FILE, LEFT_OUT_FILE = "job.json", "left_out.json"
PROMPT = "Describe this image in detail: subject, setting, composition, light, colours and style."
SHORT_PROMPT = "Describe this image in one short sentence."
TagStep = Literal["caption", "caption_short", "contrast_stretch"]
TAG_STEPS: tuple[TagStep, ...] = get_args(TagStep)
DEFAULT_TOKENS, DEFAULT_LONGEST_PX = 256, 1024
BY_HAND = "by hand"
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class TagJob:
    """What is asked of a tagger. `write`: which caption stands in the .txt file. `longest_px`: the model sees no more.

    `device`: "auto" is a GPU where there is one. Raises `DatasetError` for values that cannot be.
    """

    folder: str
    model: str
    steps: tuple[TagStep, ...] = ("caption", "caption_short")
    prompt: str = PROMPT
    short_prompt: str = SHORT_PROMPT
    write: Literal["long", "short"] = "long"
    max_new_tokens: int = DEFAULT_TOKENS
    longest_px: int = DEFAULT_LONGEST_PX
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", tuple(step for step in TAG_STEPS if step in self.steps or _unknown(self)))
        if not self.steps:
            raise DatasetError(f"there is nothing to do: name at least one step of {', '.join(TAG_STEPS)}")
        if {"caption", "caption_short"} & set(self.steps) and self.text_step not in self.steps:
            raise DatasetError(
                f"the {self.write} caption is to be written, but {self.text_step} is not among the steps"
            )
        for name in ("prompt", "short_prompt"):
            if not getattr(self, name).strip():
                raise DatasetError(f"{name} is empty: ask the model something")
        for name in ("max_new_tokens", "longest_px"):
            if getattr(self, name) < 1:
                raise DatasetError(f"{name} = {getattr(self, name)}: expected 1 or more")
        for name, known in (("write", ("long", "short")), ("device", ("auto", "cpu", "cuda"))):
            if getattr(self, name) not in known:
                raise DatasetError(f"{name} = '{getattr(self, name)}': expected one of {', '.join(known)}")

    @property
    def text_step(self) -> TagStep:
        """The step whose outcome stands in the .txt file."""
        return "caption" if self.write == "long" else "caption_short"

    def asked(self, step: TagStep) -> dict[str, Any]:
        """What decides on a caption; another prompt or model gives another caption."""
        prompt = self.prompt if step == "caption" else self.short_prompt
        return {"model": self.model, "prompt": prompt, "max_new_tokens": self.max_new_tokens}

    def save(self, place: Path) -> None:
        """Write it into the folder of a job."""
        write_text(place / JOB_FILE, json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, place: Path) -> Self:
        """Read it from there. Raises `DatasetError` when there is none."""
        data = read_json(place / JOB_FILE)
        if data is None:
            raise DatasetError(f"{place / JOB_FILE} is not there or no JSON object: start the tagger anew")
        known = {f.name for f in fields(cls)}
        values: dict[str, Any] = {
            name: tuple(v) if name == "steps" else v for name, v in data.items() if name in known
        }
        return cls(**values)


def _unknown(job: TagJob) -> bool:
    """Raises `DatasetError` for a step that there is not; else False."""
    for step in job.steps:
        if step not in TAG_STEPS:
            raise DatasetError(f"there is no step '{step}': choose from {', '.join(TAG_STEPS)}")
    return False


@dataclass(slots=True)
class Tags:
    """The .json beside a picture in train/: its captions, and the steps that are complete.

    `written`: marks of what the tagger wrote into the .txt file; one that has another was edited by a person.
    """

    caption_method: str = ""
    caption: str = ""
    caption_short: str = ""
    steps_complete: list[str] = field(default_factory=list)
    other_captions: dict[str, Any] = field(default_factory=dict)
    poi: list[Any] = field(default_factory=list)
    raw: dict[str, Any] = field(default_factory=dict)
    asked: dict[str, Any] = field(default_factory=dict)
    written: list[str] = field(default_factory=list)

    @classmethod
    def load(cls, path: Path) -> Self:
        """From a file; a new one where there is none that can be read."""
        data = read_json(path) or {}
        known = {f.name for f in fields(cls)} - {"steps_complete"}
        state = data.get("state")
        steps = state.get("steps_complete", []) if isinstance(state, dict) else []
        return cls(
            **{k: v for k, v in data.items() if k in known}, steps_complete=[s for s in steps if s in TAG_STEPS]
        )

    def save(self, path: Path) -> None:
        """Write it, whole or not at all."""
        data = asdict(self)
        steps = data.pop("steps_complete")
        told = {"version": 2, **data, "state": {"steps_complete": steps}}
        write_text(path, json.dumps(told, indent=1, ensure_ascii=False) + "\n")


@dataclass(frozen=True, slots=True)
class RawPictures:
    """The pictures of raw/, by their place below it, and why some are left out."""

    places: tuple[str, ...]
    left_out: dict[str, str]


def raw_pictures(folder: Path) -> RawPictures:
    """List raw/. Raises `DatasetError` when there is none, or nothing in it.

    Of two pictures of one stem only the first can have a .txt and a .json; the other is left out.
    """
    from dpnb.dataset.scan import SIDECAR_SUFFIXES  # late: the command line names the steps without it
    from dpnb.dataset.video import VIDEO_SUFFIXES

    raw = folder / RAW
    if not raw.is_dir():
        raise DatasetError(
            f"{folder} has no folder {RAW}/: put the pictures into {raw}, the tagger fills {folder / TRAIN}"
        )
    places: list[str] = []
    left_out: dict[str, str] = {}
    stems: dict[str, str] = {}
    for listing in list_tree(list_folder(raw), frozenset()):
        for path in listing.files if isinstance(listing, Listing) else ():
            suffix = path.suffix.lower()
            if suffix in SIDECAR_SUFFIXES or printable(path) is not None:
                if printable(path) is not None:
                    left_out[printable(path.relative_to(raw)) or ""] = (
                        "its name is not UTF-8: `dpnb repair` tells more"
                    )
                continue
            place = path.relative_to(raw).as_posix()
            first = stems.setdefault(place.removesuffix(path.suffix), place)
            if suffix in VIDEO_SUFFIXES:
                left_out[place] = "a video: only pictures are captioned"
            elif first != place:
                left_out[place] = f"shares its stem, and so its caption, with {first}: rename one"
            else:
                places.append(place)
    if not places:
        named = "".join(f"\n  {place}: {why}" for place, why in list(left_out.items())[:_SHOWN])
        raise DatasetError(f"there is no picture in {raw}{named}")
    return RawPictures(tuple(places), left_out)
