"""Rules across fields: each a small function that yields Problems, each message saying what to change.

`check_training` and `check_dataset` run them all. A rule reports an error for what cannot work and a warning for an
option that would have no effect. Rules see schema objects only: no file is opened here (paths: `check_paths`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from stat import S_ISDIR

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
        return
    split = t.partition_split or []
    loc = ("partition_method" if t.partition_split is None else "partition_split",)
    if len(split) != t.pipeline_stages - 1:
        yield _error(
            loc,
            f"{len(split)} layer numbers in partition_split do not fit pipeline_stages = {t.pipeline_stages}.",
            f"Give the first layer of each further stage, {t.pipeline_stages - 1} in all.",
        )
    elif any(b <= a for a, b in pairwise(split)):
        yield _error(loc, f"{split} does not rise.", "Sort the layer numbers, without repeats.")


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
                yield _warning(
                    (key,), "has no effect without eval_datasets.", "Add eval_datasets, or remove this key."
                )
    elif all(getattr(t, key) is None for key in schedule) and not t.eval_before_first_step:
        yield _warning(("eval_datasets",), "is never used.", "Set eval_every_n_epochs or eval_every_n_steps.")
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
    if t.force_constant_lr is not None:
        for key, is_set in (("warmup_steps", t.warmup_steps > 0), ("lr_scheduler", t.lr_scheduler != "constant")):
            if is_set:
                yield _warning((key,), "has no effect because force_constant_lr is set.", "Remove one of the two.")
    if t.model.shift is not None and t.model.flux_shift:
        yield _warning(("model", "flux_shift"), "has no effect because shift is set.", "Remove one of the two.")


def _storage_fits_computation(t: Training) -> Iterator[Problem]:
    if t.model.dtype == "float32" and t.model.transformer_dtype not in (None, "float32"):
        yield _error(
            ("model", "transformer_dtype"),
            f"weights in '{t.model.transformer_dtype}' do not go together with dtype = 'float32'.",
            "Set dtype to the same, or remove transformer_dtype.",
        )


def _full_finetune_needs_precision(t: Training) -> Iterator[Problem]:
    key = "dtype" if t.model.transformer_dtype is None else "transformer_dtype"
    if t.adapter is None and getattr(t.model, key) == "float16":
        yield _error(("model", key), "'float16' weights cannot be trained as a whole.", "Use 'bfloat16' or 'float32'.")


def _every_key_counts(t: Training) -> Iterator[Problem]:
    yield from _without_effect(t)


def _without_effect(section: Section, loc: Loc = ()) -> Iterator[Problem]:
    """Keys that were set although another key switches them off (`Ui.when`), here and in the sections below."""
    for name, info in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, Section):
            yield from _without_effect(value, (*loc, name))
        when = ui_of(info).when
        if when is None or value == info.get_default(call_default_factory=True):
            continue
        sibling, allowed = when
        if getattr(section, sibling) in allowed:
            continue
        if None in allowed:
            yield _warning((*loc, name), f"has no effect because {sibling} is set.", "Remove one of the two.")
        else:
            choices = " or ".join(str(a).lower() if isinstance(a, bool) else f"'{a}'" for a in allowed)
            yield _warning((*loc, name), "has no effect.", f"Set {sibling} = {choices}, or remove {name}.")


def _sampling_happens(t: Training) -> Iterator[Problem]:
    s = t.sample
    if s is None:
        return
    if s.every_n_steps is None and s.every_n_epochs is None and not s.before_first_step:
        yield _warning(
            ("sample",), "draws pictures only at the end of the run.", "Set every_n_steps or every_n_epochs."
        )
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
    _every_key_counts,
    _sampling_happens,
)


# --- dataset file ----------------------------------------------------------------------------------------------------


def _has_sizes(s: DirectorySettings, loc: Loc) -> Iterator[Problem]:
    if s.size_buckets is None and not s.resolutions:
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


DATASET_RULES: tuple[Callable[[DirectorySettings, Loc], Iterator[Problem]], ...] = (
    _has_sizes,
    _aspect_ratios_complete,
    _without_effect,
)


def check_dataset(dataset: Dataset) -> list[Problem]:
    """All rules of the dataset file; what a folder inherits is reported once, at the top.

    diffusion-pipe wants sizes at the top even when every folder has its own; here each folder needs them. So an error
    at the top counts when a folder inherits it, and a key at the top is without effect when it is so in every folder.
    """
    found: list[Problem] = []
    top = DirectorySettings.model_construct(**{k: getattr(dataset, k) for k in DirectorySettings.model_fields})
    for rule in DATASET_RULES:
        at_top = list(rule(top, ()))
        said_at_top = {(problem.loc[-1], problem.message) for problem in at_top}
        inherited: list[set[tuple[str | int, str]]] = []
        below: list[Problem] = []
        for position, directory in enumerate(dataset.directory):
            own = {name for name in DirectorySettings.model_fields if getattr(directory, name) is not None}
            problems = list(rule(settings_of(dataset, directory), ("directory", position)))
            inherited.append({(p.loc[-1], p.message) for p in problems if p.loc[-1] not in own} & said_at_top)
            for problem in problems:
                # A key at the top that this folder alone overrules is no fault of either.
                news = problem.severity == "error" and (problem.loc[-1], problem.message) not in said_at_top
                if problem.loc[-1] in own or news:
                    below.append(problem)
        for problem in at_top:
            counts = any if problem.severity == "error" else all
            if counts((problem.loc[-1], problem.message) in folder for folder in inherited):
                found.append(problem)
        found += below
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
    wanted = {"dir": "folder", "file": "file", "output_dir": "folder"}[kind]
    if not value:
        return [Problem("error", "path", loc, "must not be empty.", f"Name a {wanted}.")]
    # A message stays on one line, whatever the path holds.
    shown = f"'{value}'" if value.isprintable() else repr(value)
    found = kind_of_path(value)
    if kind == "output_dir":
        obstacle = _in_the_way(Path(value))
        if not obstacle:
            return []
        return [Problem("error", "path", loc, f"{shown} cannot be created: {obstacle}.", "Name another folder.")]
    if found == kind:
        return []
    if found in ("dir", "file"):
        return [Problem("error", "path", loc, f"{shown} is not a {wanted}.", f"Name a {wanted}.")]
    message = f"{shown} cannot be read: {found}." if found else f"{shown} does not exist."
    return [Problem("error", "path", loc, message, _what_to_do(value))]


def kind_of_path(value: Path | str) -> str:
    """What stands at a path: "dir", "file", an empty text for nothing, or why that cannot be told."""
    try:
        return "dir" if S_ISDIR(Path(value).stat().st_mode) else "file"
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:  # no permission, a name that is too long, links in a circle
        return error.strerror or str(error)
    except ValueError:  # a zero byte
        return "it holds a zero byte"


def _in_the_way(path: Path) -> str:
    """Why the folder cannot be made, or an empty text: some ancestor is a file, or cannot be looked at."""
    for ancestor in (path, *path.parents):
        found = kind_of_path(ancestor)
        if found:
            return "" if found == "dir" else f"'{ancestor}' is a file" if found == "file" else found
    return ""


def _what_to_do(value: str) -> str:
    if value.startswith("~"):
        return f"'~' is not expanded in a TOML file: write the full path, such as '{os.path.expanduser(value)}'."  # noqa: PTH111 - Path.expanduser raises for an unknown user
    if "$" in value:
        return "Variables are not expanded in a TOML file: write the full path."
    if "\\" in value and os.sep == "/":
        return "Folders are separated by / here: write the path with / instead of \\ (under WSL, C: is /mnt/c)."
    if not Path(value).is_absolute():
        return f"Relative paths count from the working directory ({Path.cwd()}): correct it, or write the full path."
    return "Correct the path."


def check_model_folder(training: Training) -> list[Problem]:
    """Does diffusers_path hold a whole model of the family that is asked for? Nothing about a folder that is not."""
    model, loc, facts = training.model, ("model", "diffusers_path"), FACTS[training.model.type]
    folder = Path(model.diffusers_path)
    if not folder.is_dir():
        return []

    def problem(message: str, suggestion: str) -> Problem:
        return Problem("error", "path", loc, message, suggestion)

    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        hint = "Name a folder in diffusers format, as `huggingface-cli download REPOSITORY` makes it."
        return [problem(f"'{folder}' has no readable model_index.json.", hint)]
    found = []
    missing = [name for name in facts.components if not (folder / name).is_dir()]
    if missing:
        found.append(problem(f"'{folder}' lacks {', '.join(missing)}.", "Download the model again, whole."))
    entry = index.get("transformer") if isinstance(index, dict) else None
    seen = entry[-1] if isinstance(entry, list) and entry else None
    if seen is not None and seen != facts.network:
        message = f"'{folder}' holds a {seen}; {facts.title} is a {facts.network}."
        found.append(problem(message, "Change model.type or the folder."))
    own_network = "transformer" not in missing and model.transformer_path is None
    if own_network and not any((folder / "transformer").glob("*.safetensors")):
        message = f"'{folder / 'transformer'}' holds no .safetensors file."
        found.append(problem(message, "Download the model again, whole."))
    return found
