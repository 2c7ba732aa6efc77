"""Who acts on what: the keys and values that diffusion-pipe does not read, and those that our own trainer does not.

`ours` and `pending` stand at the keys and sections themselves (base.py); here they are collected for one object, with
the few cases that hang on a value instead of a key. What is not here: whether a file is right (rules.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from pydantic.fields import FieldInfo

from dpnb.errors import Loc, Problem
from dpnb.schema.base import Pending, Section, ui_of
from dpnb.schema.dataset import Dataset, Directory, DirectorySettings
from dpnb.schema.model import FACTS, FAMILIES, model_of
from dpnb.schema.training import Training

_LEAVE_OUT = "Remove it, or keep it for dpnb's own trainer."
_MOST_RESOLUTIONS = 3


# --- diffusion-pipe --------------------------------------------------------------------------------------------------


def not_upstream(value: Section) -> list[Problem]:
    """An error for each key of a training or dataset object that diffusion-pipe does not read or would refuse.

    A warning for what it refuses unless it is started with --i_know_what_i_am_doing, or unless a secret is written.
    """
    found = [_error(loc, "diffusion-pipe does not read this.", _LEAVE_OUT) for loc in _ours(value)]
    if isinstance(value, Training):
        found += _refused_training(value)
    if isinstance(value, Dataset):
        found += _refused_dataset(value)
    return list({problem.loc: problem for problem in found}.values())


def _ours(value: Section, loc: Loc = ()) -> Iterator[Loc]:
    """The places of sections and keys of our own that say something."""
    for here, info, item in _set_keys(value, loc):
        if here in (("model",), ("adapter",)) and item.ours:
            continue  # said of its type
        if ui_of(info).ours or any(section.ours for section in _sections(item)):
            yield here
        else:
            for place, section in _placed_sections(here, item):
                yield from _ours(section, place)


def _refused_training(t: Training) -> Iterator[Problem]:
    facts = FACTS[t.model.type]
    if t.model.ours:
        others = ", ".join(family for family in FAMILIES if not model_of(family).ours)
        yield _error(("model", "type"), f"diffusion-pipe does not train {facts.title}.", f"It trains {others}.")
    elif t.adapter is not None and not t.adapter.ours and t.adapter.type not in facts.upstream_adapters:
        message = f"diffusion-pipe does not train '{t.adapter.type}' adapters of {facts.title}."
        yield _error(("adapter", "type"), message, f"Use {' or '.join(map(repr, facts.upstream_adapters))}.")
    if t.adapter is not None and t.adapter.ours:
        yield _error(
            ("adapter", "type"),
            f"diffusion-pipe has no '{t.adapter.type}' adapters.",
            f"Use {' or '.join(map(repr, facts.upstream_adapters or ('lora',)))}.",
        )
    if getattr(t.optimizer, "beta2_half_life", None) is not None and t.optimizer.betas is None:
        yield _error(
            ("optimizer", "beta2_half_life"), "diffusion-pipe wants betas beside it.", "Add them, such as [0.9, 0.99]."
        )
    if t.monitoring is not None and t.monitoring.enable_wandb:
        message = "diffusion-pipe wants wandb_api_key in its file, and dpnb writes no secrets."
        hint = "Write it into that file by hand, or turn this off."
        yield Problem("warning", "rule", ("monitoring", "enable_wandb"), message, hint)
    if t.video_clip_mode == "multiple_overlapping":
        yield _error(
            ("video_clip_mode",),
            "diffusion-pipe refuses 'multiple_overlapping'.",
            "Use 'single_beginning' or 'single_middle'.",
        )


def _refused_dataset(d: Dataset) -> Iterator[Problem]:
    """It looks up a folder's defaults at the top of the file before it looks into the folder."""
    for position, folder in enumerate(d.directory):
        if isinstance(folder.control_path, list):
            yield _error(
                ("directory", position, "control_path"),
                "diffusion-pipe takes one folder of control pictures.",
                "Name one folder, as a text.",
            )
    if d.size_buckets is None and d.resolutions is None and all(f.size_buckets is None for f in d.directory):
        yield _error(
            ("resolutions",),
            "diffusion-pipe wants this at the top of the file, even where every folder has its own.",
            "Put one of the folders' there as well.",
        )
    places: list[tuple[Loc, DirectorySettings | Directory]] = [((), d)]
    places += [(("directory", position), folder) for position, folder in enumerate(d.directory)]
    for loc, table in places:
        if len(table.resolutions or []) > _MOST_RESOLUTIONS:
            message = f"diffusion-pipe stops at more than {_MOST_RESOLUTIONS} resolutions."
            hint = "Name fewer, or start it with --i_know_what_i_am_doing."
            yield Problem("warning", "rule", (*loc, "resolutions"), message, hint)
    bounds = [key for key in ("min_ar", "max_ar", "num_ar_buckets") if getattr(d, key) is None]
    buckets = [d.ar_buckets, *(folder.ar_buckets for folder in d.directory)]
    enabled = d.enable_ar_bucket or any(folder.enable_ar_bucket for folder in d.directory)
    if enabled and bounds and not any(buckets):
        for key in bounds:
            if any(getattr(folder, key) is not None for folder in d.directory):
                yield _error(
                    (key,),
                    "diffusion-pipe wants this at the top of the file, even where every folder has its own.",
                    "Put one of the folders' there as well.",
                )


# --- our own trainer -------------------------------------------------------------------------------------------------


def not_here(training: Training) -> list[Problem]:
    """What dpnb's own trainer does not act on yet: errors where the result would differ, else warnings.

    No part of `dpnb validate`: a file that another trainer reads is right all the same.
    """
    found = list(_pending(training))
    for loc, is_so, pending in _VALUES:
        if is_so(training):
            found.append(_problem(loc, pending))
    return found


def not_here_in_dataset(dataset: Dataset) -> list[Problem]:
    """The same for a dataset file."""
    return list(_pending(dataset))


_VALUES: tuple[tuple[Loc, Callable[[Training], bool], Pending], ...] = (
    (("activation_checkpointing",), lambda t: t.activation_checkpointing == "unsloth", "ignored"),
)
"""Values that it does not act on although it does on others of the same key."""


def _pending(value: Section, loc: Loc = ()) -> Iterator[Problem]:
    for here, info, item in _set_keys(value, loc):
        pending = ui_of(info).pending
        if pending:
            yield _problem(here, pending)
            continue
        for place, section in _placed_sections(here, item):
            if section.pending:
                yield _kind_problem(place, section)
            else:
                yield from _pending(section, place)


def _kind_problem(loc: Loc, section: Section) -> Problem:
    kind = getattr(section, "type", None)
    if not isinstance(kind, str):
        return _problem(loc, section.pending)
    if loc == ("model",):
        trained = ", ".join(family for family in FAMILIES if not model_of(family).pending)
        message = f"'{kind}' is not trained by dpnb's own trainer yet."
        return _error((*loc, "type"), message, f"It trains {trained}; diffusion-pipe reads this file as it is.")
    return _problem((*loc, "type"), section.pending, f"'{kind}' is")


def _problem(loc: Loc, pending: Pending, what: str = "is") -> Problem:
    if pending == "ignored":
        message = f"{what} not acted on by dpnb's own trainer yet: the run takes more time or memory."
        return Problem("warning", "rule", loc, message, "The result is the same.")
    message = f"{what} not acted on by dpnb's own trainer yet, and the result would differ."
    return _error(loc, message, "Choose another value, or leave it out.")


# --- walking ---------------------------------------------------------------------------------------------------------


def _set_keys(value: Section, loc: Loc) -> Iterator[tuple[Loc, FieldInfo, Any]]:
    """The keys that are not at their defaults; for a folder those of the dataset."""
    for name, info in type(value).model_fields.items():
        item = getattr(value, name)
        general = DirectorySettings.model_fields.get(name, info) if isinstance(value, Directory) else info
        if item is not None and (info.is_required() or item != general.get_default(call_default_factory=True)):
            yield (*loc, name), info, item


def _placed_sections(loc: Loc, item: Any) -> list[tuple[Loc, Section]]:  # noqa: ANN401 - values of any field
    if isinstance(item, Section):
        return [(loc, item)]
    items = enumerate(item) if isinstance(item, list) else ()
    return [((*loc, position), entry) for position, entry in items if isinstance(entry, Section)]


def _sections(item: Any) -> list[Section]:  # noqa: ANN401 - values of any field
    return [section for _, section in _placed_sections((), item)]


def _error(loc: Loc, message: str, suggestion: str) -> Problem:
    return Problem("error", "rule", loc, message, suggestion)
