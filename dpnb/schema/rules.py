"""Rules across fields: each a small function that yields Problems, each message saying what to change.

`check_training` and `check_dataset` run them all. A rule reports an error for what cannot work and a warning for an
option that would have no effect. Rules see schema objects only: no file is opened here (paths: `check_paths`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

from dpnb.errors import Loc, Problem
from dpnb.schema.base import PathKind, Section, ui_of, walk
from dpnb.schema.dataset import Dataset, DirectorySettings, settings_of
from dpnb.schema.model import FACTS
from dpnb.schema.training import Training


def _error(loc: Loc, message: str, suggestion: str) -> Problem:
    return Problem("error", "rule", loc, message, suggestion)


def _warning(loc: Loc, message: str, suggestion: str) -> Problem:
    return Problem("warning", "rule", loc, message, suggestion)


# --- training file ---------------------------------------------------------------------------------------------------


def _saves_something(t: Training) -> Iterator[Problem]:
    if t.save_every_n_epochs is None and t.save_every_n_steps is None and t.save_every_n_examples is None:
        yield _error(
            ("save_every_n_epochs",),
            "none of save_every_n_epochs, save_every_n_steps and save_every_n_examples is set.",
            "Add one of them, such as save_every_n_epochs = 1.",
        )


def _partition_matches_stages(t: Training) -> Iterator[Problem]:
    if t.partition_method != "manual":
        if t.partition_split is not None:
            yield _warning(
                ("partition_split",), "has no effect.", "Set partition_method = 'manual' or remove partition_split."
            )
        return
    split = t.partition_split or []
    if len(split) != t.pipeline_stages - 1:
        yield _error(
            ("partition_split",),
            f"holds {len(split)} layer numbers, but {t.pipeline_stages} stages need {t.pipeline_stages - 1}.",
            "Give the first layer of each further stage.",
        )
    elif any(b <= a for a, b in pairwise(split)):
        yield _error(("partition_split",), f"{split} does not rise.", "Sort the layer numbers, without repeats.")


def _family_takes_adapter(t: Training) -> Iterator[Problem]:
    facts = FACTS[t.model.type]
    if t.adapter is None and not facts.full_finetune:
        yield _error(("adapter",), f"{facts.title} cannot be fine-tuned as a whole.", "Add an [adapter] table.")
    if t.adapter is not None and t.adapter.type not in facts.adapters:
        yield _error(
            ("adapter", "type"),
            f"{facts.title} does not take {t.adapter.type}.",
            f"Use one of: {', '.join(facts.adapters)}.",
        )


def _evaluation_has_data(t: Training) -> Iterator[Problem]:
    schedule = ("eval_every_n_epochs", "eval_every_n_steps", "eval_every_n_examples")
    if not t.eval_datasets:
        for key in schedule:
            if getattr(t, key) is not None:
                yield _warning((key,), "has no effect without eval_datasets.", "Add eval_datasets or remove it.")
    elif all(getattr(t, key) is None for key in schedule) and not t.eval_before_first_step:
        yield _warning(("eval_datasets",), "are never used.", "Set eval_every_n_epochs or eval_every_n_steps.")
    names = [item.name for item in t.eval_datasets]
    for position, name in enumerate(names):
        if name in names[:position]:
            yield _error(
                ("eval_datasets", position, "name"), f"'{name}' stands twice.", "Give each set a name of its own."
            )


def _one_key_wins(t: Training) -> Iterator[Problem]:
    pairs = (
        ("huber_delta", "smooth_l1_beta"),
        ("save_every_n_examples", "save_every_n_steps"),
        ("eval_every_n_examples", "eval_every_n_steps"),
    )
    for winner, loser in pairs:
        if getattr(t, winner) is not None and getattr(t, loser) is not None:
            yield _warning((loser,), f"has no effect because {winner} is set.", "Remove one of the two.")
    if t.force_constant_lr is not None and (t.warmup_steps or t.lr_scheduler != "constant"):
        key = "warmup_steps" if t.warmup_steps else "lr_scheduler"
        yield _warning((key,), "has no effect because force_constant_lr is set.", "Remove one of the two.")
    if t.model.shift is not None and t.model.flux_shift:
        yield _warning(("model", "flux_shift"), "has no effect because shift is set.", "Remove one of the two.")


def _storage_fits_computation(t: Training) -> Iterator[Problem]:
    if t.model.dtype == "float32" and t.model.transformer_dtype not in (None, "float32"):
        yield _error(
            ("model", "transformer_dtype"),
            f"'{t.model.transformer_dtype}' weights cannot be computed with in float32.",
            "Set model.dtype to the same, or remove transformer_dtype.",
        )


def _full_finetune_needs_precision(t: Training) -> Iterator[Problem]:
    storage = t.model.transformer_dtype or t.model.dtype
    if t.adapter is None and storage == "float16":
        yield _error(
            ("model", "dtype"), "'float16' weights cannot be trained as a whole.", "Use 'bfloat16' or 'float32'."
        )


def _reentrant_needs_checkpointing(t: Training) -> Iterator[Problem]:
    if t.reentrant_activation_checkpointing and not t.activation_checkpointing:
        yield _warning(
            ("reentrant_activation_checkpointing",), "has no effect.", "Set activation_checkpointing = true as well."
        )


def _sampling_happens(t: Training) -> Iterator[Problem]:
    s = t.sample
    if s is None:
        return
    if s.every_n_steps is None and s.every_n_epochs is None and not s.before_first_step:
        yield _warning(("sample",), "only samples at the end.", "Set sample.every_n_steps or sample.every_n_epochs.")
    rounding = FACTS[t.model.type].rounding_px
    places = [(("sample",), s), *((("sample", "prompts", i), p) for i, p in enumerate(s.prompts))]
    for loc, where in places:
        for key in ("width", "height"):
            side = getattr(where, key)
            if side is not None and side % rounding:
                yield _error(
                    (*loc, key),
                    f"{side} px is not a multiple of {rounding}, which {FACTS[t.model.type].title} needs.",
                    f"Use {max(rounding, round(side / rounding) * rounding)}.",
                )
    for i, prompt in enumerate(s.prompts):
        if prompt.negative and s.true_cfg <= 1:
            yield _warning(
                ("sample", "prompts", i, "negative"), "has no effect.", "Set sample.true_cfg above 1, such as 3.0."
            )


TRAINING_RULES: tuple[Callable[[Training], Iterator[Problem]], ...] = (
    _saves_something,
    _partition_matches_stages,
    _family_takes_adapter,
    _evaluation_has_data,
    _one_key_wins,
    _storage_fits_computation,
    _full_finetune_needs_precision,
    _reentrant_needs_checkpointing,
    _sampling_happens,
)


# --- dataset file ----------------------------------------------------------------------------------------------------


def _has_sizes(s: DirectorySettings, loc: Loc) -> Iterator[Problem]:
    if s.size_buckets is not None:
        if s.resolutions is not None:
            yield _warning(
                (*loc, "resolutions"), "has no effect because size_buckets is set.", "Remove one of the two."
            )
    elif not s.resolutions:
        yield _error((*loc, "resolutions"), "is missing.", "Say the sizes to train at, such as resolutions = [512].")


def _aspect_ratios_complete(s: DirectorySettings, loc: Loc) -> Iterator[Problem]:
    bounds = ("min_ar", "max_ar", "num_ar_buckets")
    if s.size_buckets is not None or not s.enable_ar_bucket:
        return
    if s.ar_buckets is not None:
        for key in bounds:
            if getattr(s, key) is not None:
                yield _warning((*loc, key), "has no effect because ar_buckets is set.", "Remove one of the two.")
        return
    missing = [key for key in bounds if getattr(s, key) is None]
    if missing:
        yield _error(
            (*loc, "enable_ar_bucket"),
            f"needs {' and '.join(missing)} as well.",
            "Add min_ar, max_ar and num_ar_buckets, such as 0.5, 2.0 and 7, or ar_buckets.",
        )
    elif s.min_ar is not None and s.max_ar is not None and s.min_ar > s.max_ar:
        yield _error((*loc, "min_ar"), f"{s.min_ar} is above max_ar {s.max_ar}.", "Swap the two.")


def check_dataset(dataset: Dataset) -> list[Problem]:
    """All rules of the dataset file; what a folder inherits is reported once, at the top."""
    found: list[Problem] = []
    top = DirectorySettings.model_construct(**{k: getattr(dataset, k) for k in DirectorySettings.model_fields})
    for rule in (_has_sizes, _aspect_ratios_complete):
        at_top = list(rule(top, ()))
        below: list[Problem] = []
        for position, directory in enumerate(dataset.directory):
            own = set(directory.model_fields_set)
            for problem in rule(settings_of(dataset, directory), ("directory", position)):
                inherited = any(p.message == problem.message for p in at_top)
                if not inherited or problem.loc[-1] in own:
                    below.append(problem)
        # diffusion-pipe wants sizes at the top even when every folder has its own; here each folder needs them.
        every_folder_fine = not below and all(
            not list(rule(settings_of(dataset, directory), ())) for directory in dataset.directory
        )
        found += below if every_folder_fine else [*at_top, *below]
    return found


def check_training(training: Training) -> list[Problem]:
    """All rules of the training file."""
    return [problem for rule in TRAINING_RULES for problem in rule(training)]


# --- paths -----------------------------------------------------------------------------------------------------------


def check_paths(section: Section) -> list[Problem]:
    """Every path of a schema object that must exist and does not."""
    found: list[Problem] = []
    for loc, info, value in walk(section):
        kind = ui_of(info).path
        if isinstance(value, str) and kind is not None:
            found += check_path(loc, value, kind)
    return found


def check_path(loc: Loc, value: str, kind: PathKind) -> list[Problem]:
    """What is wrong with one path. Relative paths count from the working directory, as diffusion-pipe's do."""
    path = Path(value)
    if kind == "output_dir":
        message = _not_creatable(path)
    elif kind == "dir":
        message = "" if path.is_dir() else f"'{value}' is not a folder." if path.exists() else _missing(value)
    else:
        message = "" if path.is_file() else f"'{value}' is not a file." if path.exists() else _missing(value)
    return [Problem("error", "path", loc, message, _what_to_do(value))] if message else []


def _missing(value: str) -> str:
    return f"'{value}' does not exist."


def _not_creatable(path: Path) -> str:
    """Why the folder cannot be made, or an empty string: some ancestor is a file."""
    ancestor = next((p for p in (path, *path.parents) if p.exists()), None)
    if ancestor is not None and not ancestor.is_dir():
        return f"'{path}' cannot be created: '{ancestor}' is a file."
    return ""


def _what_to_do(value: str) -> str:
    if value == "":
        return "Name a path."
    if not Path(value).is_absolute():
        return f"Relative paths count from the working directory ({Path.cwd()}): correct it, or write the full path."
    return "Correct the path."
