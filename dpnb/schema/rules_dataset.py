"""Rules across fields of the dataset file. They hold for each folder, which inherits what it does not say itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from dpnb.errors import Loc, Problem
from dpnb.schema.dataset import Augmentation, Dataset, DirectorySettings, is_random, settings_of
from dpnb.schema.rules import error, warning, without_effect


def _has_sizes(s: DirectorySettings, loc: Loc) -> Iterator[Problem]:
    if s.size_buckets is None and not s.resolutions:
        yield error((*loc, "resolutions"), "is missing.", "Say the sizes to train at, such as resolutions = [512].")


def _aspect_ratios_complete(s: DirectorySettings, loc: Loc) -> Iterator[Problem]:
    bounds = ("min_ar", "max_ar", "num_ar_buckets")
    if s.size_buckets is not None or not s.enable_ar_bucket:
        return
    if s.ar_buckets is not None:
        for key in bounds:
            if getattr(s, key) is not None:
                yield warning((*loc, key), "has no effect because ar_buckets is set.", "Remove one of the two.")
        return
    missing = [key for key in bounds if getattr(s, key) is None]
    if missing:
        yield error(
            (*loc, "enable_ar_bucket"),
            f"needs {' and '.join(missing)} as well.",
            "Add min_ar, max_ar and num_ar_buckets, such as 0.5, 2.0 and 7, or ar_buckets.",
        )
    elif s.min_ar is not None and s.max_ar is not None and s.min_ar > s.max_ar:
        yield error((*loc, "min_ar"), f"{s.min_ar} is above max_ar {s.max_ar}.", "Swap the two.")


def _columns_have_a_table(s: DirectorySettings, loc: Loc) -> Iterator[Problem]:
    for key in ("image_column", "caption_column"):
        if s.metadata_file is None and getattr(s, key) != DirectorySettings.model_fields[key].default:
            yield warning((*loc, key), "has no effect without metadata_file.", f"Add metadata_file, or remove {key}.")


def _tags_are_changed(s: DirectorySettings, loc: Loc) -> Iterator[Problem]:
    if s.shuffle_tags or s.cache_shuffle_num or s.tag_dropout:
        return
    for key in ("keep_first_tags", "cache_shuffle_delimiter"):
        if getattr(s, key) != DirectorySettings.model_fields[key].default:
            yield warning(
                (*loc, key),
                "has no effect where tags are neither shuffled nor dropped.",
                f"Set cache_shuffle_num or tag_dropout, or remove {key}.",
            )


def _variants_differ(s: DirectorySettings, loc: Loc) -> Iterator[Problem]:
    """`cached_variants` of pictures that all look the same."""
    default = Augmentation.model_fields["cached_variants"].default
    if s.augmentation is not None and s.augmentation.cached_variants != default and not is_random(s):
        yield warning(
            (*loc, "augmentation"),
            "cached_variants has no effect, because nothing about the pictures is random.",
            "Set flip or another change, or crop = 'random'; or remove cached_variants.",
        )


DATASET_RULES: tuple[Callable[[DirectorySettings, Loc], Iterator[Problem]], ...] = (
    _has_sizes,
    _aspect_ratios_complete,
    _columns_have_a_table,
    _tags_are_changed,
    _variants_differ,
    without_effect,
)


def check_dataset(dataset: Dataset) -> list[Problem]:
    """All rules of the dataset file; what a folder inherits is reported once, at the top.

    diffusion-pipe wants sizes at the top even when every folder has its own; here each folder needs them. So an error
    at the top counts when a folder inherits it, and a key at the top is without effect when it is so in every folder.
    """
    found: list[Problem] = []
    names = tuple(DirectorySettings.model_fields)
    top = DirectorySettings.model_construct(**{name: getattr(dataset, name) for name in names})
    folders = [
        (settings_of(dataset, folder), {name for name in names if getattr(folder, name) is not None})
        for folder in dataset.directory
    ]
    for rule in DATASET_RULES:
        at_top = list(rule(top, ()))
        said_at_top = {(problem.loc[-1], problem.message) for problem in at_top}
        inherited: list[set[tuple[str | int, str]]] = []
        below: list[Problem] = []
        for position, (settings, own) in enumerate(folders):
            problems = list(rule(settings, ("directory", position)))
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
