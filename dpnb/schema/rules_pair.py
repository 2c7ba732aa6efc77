"""What a training file and a dataset file ask of one another. Problems stand in the dataset file, unless said."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from dpnb.errors import Problem
from dpnb.schema.base import Section
from dpnb.schema.dataset import Dataset, DirectorySettings, settings_of
from dpnb.schema.families.base import FamilyFacts
from dpnb.schema.model import FACTS
from dpnb.schema.rules import error, warning
from dpnb.schema.training import Training

_WAN_KINDS = re.compile("ti2v|flf2v|i2v|t2v")
COSMOS_FRAMES = (1, 121)
COSMOS_SIZES = ((1280, 704), (704, 1280), (960, 960), (960, 704), (704, 960))


def _tables(d: Dataset) -> list[tuple[tuple[str | int, ...], Section]]:
    """The dataset's own keys and those of each folder, with their places."""
    return [((), d), *((("directory", i), folder) for i, folder in enumerate(d.directory))]


def _family_takes_controls(t: Training, d: Dataset) -> Iterator[Problem]:
    facts = FACTS[t.model.type]
    for position, folder in enumerate(d.directory):
        if folder.control_path is not None and not facts.edit:
            yield error(
                ("directory", position, "control_path"),
                f"{facts.title} is not trained on pairs of pictures.",
                "Remove control_path, or train a model that edits, such as qwen_image.",
            )


def _frames_fit_family(t: Training, d: Dataset) -> Iterator[Problem]:
    facts = FACTS[t.model.type]
    for loc, table in _tables(d):
        longer = [frames for frames in getattr(table, "frame_buckets", None) or [] if frames > 1]
        place = (*loc, "frame_buckets")
        if longer and not facts.video:
            yield warning(
                place, f"clips are left out: {facts.title} is trained on pictures.", "Use frame_buckets = [1]."
            )
        elif uneven := [frames for frames in longer if facts.whole_frames(frames) != frames]:
            yield warning(place, _uneven_words(uneven, facts), f"Use {_even_frames(longer, facts)}.")


def _uneven_words(uneven: Sequence[int], facts: FamilyFacts) -> str:
    rule = f"{facts.frames_per_latent}n+{facts.frame_offset}" if facts.frame_offset else f"{facts.frames_per_latent}n"
    cut = ", ".join(f"{frames} is cut to {facts.whole_frames(frames)}" for frames in uneven)
    return f"{facts.title} takes clips of {rule} frames: {cut}."


def _even_frames(longer: Sequence[int], facts: FamilyFacts) -> list[int]:
    return list(dict.fromkeys([1, *(facts.whole_frames(frames) for frames in longer)]))


def _batch_sizes_are_used(t: Training, d: Dataset) -> Iterator[Problem]:
    """Pairs [resolution, batch] of the training file that no resolution of the dataset comes nearest to."""
    pairs = t.micro_batch_size_per_gpu
    if isinstance(pairs, int):
        return
    sides = {side for folder in d.directory for side in _sides(settings_of(d, folder))}
    if not sides:
        return
    used = {min(pairs, key=lambda pair: abs(pair[0] - side))[0] for side in sides}
    if idle := [resolution for resolution, _ in pairs if resolution not in used]:
        shown = ", ".join(f"{side:g}" for side in sorted(sides))
        yield warning(
            ("resolutions",),
            f"micro_batch_size_per_gpu gives a batch size for {', '.join(map(str, idle))}, which no picture has: the "
            f"resolutions are {shown}.",
            "Add the resolution here, or remove its pair there.",
        )


def _sides(s: DirectorySettings) -> list[float]:
    """Square roots of the areas that a folder is trained at."""
    if s.size_buckets is not None:
        return [(width * height) ** 0.5 for width, height, _ in s.size_buckets]
    return [(r[0] * r[1]) ** 0.5 if isinstance(r, list) else float(r) for r in s.resolutions or []]


def _image_to_video_has_clips(t: Training, d: Dataset) -> Iterator[Problem]:
    if t.model.type != "wan":
        return
    # The last word counts, which stands nearest to the file. TI2V is trained on pictures as well as on clips.
    kinds = _WAN_KINDS.findall((t.model.ckpt_path + (t.model.transformer_path or "")).lower())
    if not kinds or kinds[-1] not in ("i2v", "flf2v"):
        return
    for position, folder in enumerate(d.directory):
        s = settings_of(d, folder)
        exact = s.size_buckets is not None
        frames = [size[2] for size in s.size_buckets] if s.size_buckets is not None else s.frame_buckets
        if max(frames, default=1) == 1:
            seen = "size_buckets of 1 frame" if exact else "frame_buckets = [1]"
            clips = "size_buckets = [[512, 512, 33]]" if exact else "frame_buckets = [1, 33]"
            yield error(
                ("directory", position),
                f"holds pictures alone ({seen}), and image-to-video models are trained on clips.",
                f"Add a clip length such as {clips}, or train a text-to-video model.",
            )


def _cosmos_sizes(t: Training, d: Dataset) -> Iterator[Problem]:
    if t.model.type != "cosmos":
        return
    for loc, table in _tables(d):
        for position, size in enumerate(getattr(table, "size_buckets", None) or []):
            if tuple(size[:2]) not in COSMOS_SIZES or size[2] not in COSMOS_FRAMES:
                yield warning(
                    (*loc, "size_buckets", position),
                    f"Cosmos 1 was not made for {size[0]} x {size[1]} px and {size[2]} frames.",
                    "Use 1280 x 704, 960 x 704, either way round, or 960 x 960 px, and 1 or 121 frames.",
                )


PAIR_RULES: tuple[Callable[[Training, Dataset], Iterator[Problem]], ...] = (
    _family_takes_controls,
    _frames_fit_family,
    _batch_sizes_are_used,
    _image_to_video_has_clips,
    _cosmos_sizes,
)


def check_pair(training: Training, dataset: Dataset) -> list[Problem]:
    """All rules between a training file and one dataset file that it names."""
    return [problem for rule in PAIR_RULES for problem in rule(training, dataset)]
