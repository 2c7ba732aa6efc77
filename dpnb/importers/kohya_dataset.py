"""kohya's and musubi-tuner's dataset files: [general], [[datasets]] and [[datasets.subsets]] as ours.

An option of [general] stands at the top of our file, one of a data set in each of its folders, one of a subset in its
own folder. A data set of musubi-tuner has no subsets: it is a folder itself.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from dpnb.importers import settings
from dpnb.importers.ai_toolkit_dataset import SHUFFLED_ORDERS
from dpnb.importers.draft import Draft
from dpnb.importers.source import Node, Source, as_number
from dpnb.schema.foreign import MUSUBI

_INTERPOLATION = {"linear": "bilinear", "cubic": "bicubic", "area": "bicubic", "box": "bilinear"}
_CLIPS = {
    "head": ("single_beginning", ""),
    "chunk": ("multiple_overlapping", "Clips overlap here."),
    "slide": ("multiple_overlapping", "The stride is chosen here."),
    "uniform": ("multiple_overlapping", "The number of clips is chosen here."),
    "full": ("single_beginning", "A clip is no longer than the longest of frame_buckets."),
}
_DEFAULT = "kohya's default."
_MOST_FRAMES = 129  # musubi-tuner's own
_LENGTH_STEP = 16
_KOHYAS_JSON = "captions stand in .txt files, in captions.json or in a table: write those of kohya's JSON there."
# Options of folders that a training file of sd-scripts may say for all of them.
_OPTIONS = (
    "resolution",
    "enable_bucket",
    "num_repeats",
    "random_crop",
    "flip_aug",
    "resize_interpolation",
    "shuffle_caption",
    "caption_separator",
    "keep_tokens",
    "caption_dropout_rate",
    "caption_tag_dropout_rate",
    "caption_prefix",
    "caption_extension",
)
_REPEATS = re.compile(r"(\d+)_")  # of the folder names of sd-scripts: 10_zorbi is seen ten times


def says(source: Source, key: str) -> bool:
    """Does a dataset file set this key, for all folders or for some?"""
    root = Node(source, source.root)
    tables = [root.table("general"), *root.tables("datasets")]
    return any(table.has(key) for table in tables)


def put_fallbacks(draft: Draft, node: Node, dataset: Source) -> None:
    """What a training file says of folders holds in sd-scripts where the dataset file does not say it."""
    general = Node(dataset, dataset.root).table("general")
    for key in _OPTIONS:
        if node.has(key) and general.has(key):
            draft.drop(node, key, "the dataset file says it too, and takes precedence in kohya's scripts as well.")
    left = {key: value for key, value in node.data.items() if key in _OPTIONS and not general.has(key)}
    options = Node(node.source, left, node.loc)
    _put_options(draft, options, None, with_training=False)
    node.taken |= options.taken & left.keys()


def put_dataset(draft: Draft, source: Source, *, with_training: bool, masked: bool = False) -> None:
    """A dataset file; `with_training` puts what belongs to the training file there, `masked` is its masked_loss."""
    root = Node(source, source.root)
    general = root.table("general")
    _put_options(draft, general, None, with_training)
    if draft.get("resolutions", file="dataset") is None:
        _add_default_resolution(draft, root)
    folder = 0
    for data in root.tables("datasets"):
        subsets = data.tables("subsets") or [data]
        for subset in subsets:
            if subset is not data:
                _put_options(draft, data, folder, with_training)
            _put_folder(draft, subset, folder, masked)
            _put_options(draft, subset, folder, with_training)
            draft.rest(subset)
            folder += 1
        draft.rest(data)
    if folder == 0:
        source.fail(("datasets",), "names no folder.", "Add a [[datasets]] table with the pictures.")
    _add_bounds(draft)
    draft.rest(general)
    draft.rest(root)


def put_train_data_dir(draft: Draft, node: Node) -> None:
    """The folders below train_data_dir, whose names begin with how often they are seen, or the folder itself."""
    path = node.text("train_data_dir")
    if not path:
        hint = "Name the dataset file behind the training file: dpnb import TRAINING DATASET."
        node.source.fail(node.at("train_data_dir"), "no folder with pictures is named, and no dataset_config.", hint)
    _put_options(draft, node, None, with_training=True)
    if not node.has("resolution"):
        draft.add("resolutions", [512], _DEFAULT, file="dataset")
    found = _repeated_folders(path)
    if not found:
        note = "sd-scripts looks for folders such as 10_name below it; here it is the folder with the pictures."
        draft.put_folder(node, "train_data_dir", "path", path, 0, note)
    for position, (folder, repeats) in enumerate(found):
        draft.put_folder(node, "train_data_dir", "path", folder, position)
        draft.add("num_repeats", repeats, "by the name of the folder.", folder=position, file="dataset")
    _add_bounds(draft)


def _repeated_folders(path: str) -> list[tuple[str, int]]:
    try:
        below = sorted(each for each in Path(path).iterdir() if each.is_dir())
    except (OSError, ValueError):
        return []
    named = [(str(each), int(number[1])) for each in below if (number := _REPEATS.match(each.name))]
    return [(folder, repeats) for folder, repeats in named if repeats > 0]


def _put_folder(draft: Draft, node: Node, folder: int, masked: bool) -> None:
    """What a subset alone can say: where its pictures lie."""
    key = next((key for key in ("image_dir", "image_directory", "video_directory") if node.text(key)), None)
    table = next((key for key in ("image_jsonl_file", "video_jsonl_file") if node.text(key)), None)
    if key is not None:
        draft.put_folder(node, key, "path", node.text(key), folder)
    elif table is not None:
        _put_table(draft, node, table, folder)
    else:
        hint = "Name it as image_dir (sd-scripts), image_directory or video_directory (musubi-tuner)."
        node.source.fail(node.loc, "names no folder of pictures or clips.", hint)
    for key in ("conditioning_data_dir", "control_directory"):
        if (path := node.text(key)) and masked:
            draft.put_folder(node, key, "mask_path", path, folder)
        elif path:
            settings.put_controls(draft, node, key, [path], folder)
    if path := node.text("mask_directory"):
        draft.put_folder(node, "mask_directory", "mask_path", path, folder)
    if node.has("metadata_file"):
        draft.drop(node, "metadata_file", _KOHYAS_JSON)
    if node.flag("is_reg"):
        draft.put_folder(node, "is_reg", "loss_weight", 1.0, folder)
    _put_frames(draft, node, folder)


def _put_frames(draft: Draft, node: Node, folder: int) -> None:
    """Lengths of clips; frame_extraction = full takes each clip as long as it is, whatever target_frames says."""
    if node.text("frame_extraction") == "full":
        most = node.whole("max_frames") or _MOST_FRAMES
        lengths = [1, *range(_LENGTH_STEP + 1, most, _LENGTH_STEP), most]
        key = "max_frames" if node.has("max_frames") else "frame_extraction"
        draft.put_folder(node, key, "frame_buckets", lengths, folder, "A clip is cut to the longest that it has.")
        if node.has("target_frames"):
            draft.drop(node, "target_frames", "frame_extraction = full takes no notice of it.")
        return
    frames = node.any("target_frames")
    if frames is not None:
        counts = [as_number(item) for item in (frames if isinstance(frames, list) else [frames])]
        whole = [int(count) for count in counts if count is not None and float(count).is_integer()]
        if not whole or len(whole) != len(counts):
            node.source.fail(node.at("target_frames"), "is no list of whole numbers.", "Write it as [1, 25].")
        draft.put_folder(node, "target_frames", "frame_buckets", whole, folder)
    elif (longest := node.whole("max_frames")) is not None:
        draft.put_folder(node, "max_frames", "frame_buckets", [1, longest], folder)


def _put_table(draft: Draft, node: Node, key: str, folder: int) -> None:
    table = node.text(key) or ""
    note = "The paths in it count from this folder."
    draft.put_folder(node, key, "path", str(Path(table).parent), folder, note)
    draft.put_folder(node, key, "metadata_file", table, folder)
    column = "image_path" if key.startswith("image") else "video_path"
    draft.add("image_column", column, "as musubi-tuner names it.", folder=folder, file="dataset")
    draft.add("caption_column", "caption", "as musubi-tuner names it.", folder=folder, file="dataset")


def _put_options(draft: Draft, node: Node, folder: int | None, with_training: bool) -> None:
    """Options that may stand at any level, for one folder or (None) for all."""

    def put(key: str, target: str, value: Any, note: str = "") -> None:  # noqa: ANN401 - whatever TOML can hold
        draft.put(node, key, target, value, note, folder=folder, file="dataset")

    if node.has("resolution"):
        put("resolution", "resolutions", _resolution(node))
    if (bucketed := node.flag("enable_bucket")) is not None:
        put("enable_bucket", "enable_ar_bucket", bucketed)
    if (repeats := node.number("num_repeats")) is not None:
        put("num_repeats", "num_repeats", repeats)
    if node.flag("random_crop"):
        put("random_crop", "crop", "random")
    if node.flag("flip_aug"):
        put("flip_aug", "augmentation.flip", 0.5)
    if method := node.text("resize_interpolation"):
        ours = _INTERPOLATION.get(method, method)
        put("resize_interpolation", "interpolation", ours, "" if ours == method else f"The nearest to {method}.")
    _put_captions(draft, node, folder)
    if with_training:
        _put_in_training(draft, node)


def _put_captions(draft: Draft, node: Node, folder: int | None) -> None:
    def put(key: str, target: str, value: Any, note: str = "") -> None:  # noqa: ANN401 - whatever TOML can hold
        draft.put(node, key, target, value, note, folder=folder, file="dataset")

    if node.flag("shuffle_caption"):
        put("shuffle_caption", "cache_shuffle_num", SHUFFLED_ORDERS, f"{SHUFFLED_ORDERS} shuffled orders are cached.")
    if separator := node.text("caption_separator"):
        put("caption_separator", "cache_shuffle_delimiter", separator)
    if (kept := node.whole("keep_tokens")) is not None:
        put("keep_tokens", "keep_first_tags", kept)
    for key, target in (("caption_dropout_rate", "caption_dropout"), ("caption_tag_dropout_rate", "tag_dropout")):
        if (share := node.number(key)) is not None:
            put(key, target, share)
    if prefix := node.text("caption_prefix"):
        put("caption_prefix", "caption_prefix", f"{prefix} ", "sd-scripts puts a space behind it.")
    ending = node.text("caption_extension")
    if ending is not None and ending.lstrip(".") != "txt":
        draft.drop(node, "caption_extension", f"captions stand in .txt files: rename the .{ending.lstrip('.')} files.")


def _put_in_training(draft: Draft, node: Node) -> None:
    """The batch size and the choice of clips, which hold for all folders here: the first word counts."""
    clips = node.text("frame_extraction")
    choices: list[tuple[str, str, Any, str]] = []
    if (batch := node.whole("batch_size")) is not None:
        choices.append(("batch_size", "micro_batch_size_per_gpu", batch, ""))
    if clips is not None:
        mode, note = _CLIPS.get(clips, ("single_beginning", f"'{clips}' is not there."))
        choices.append(("frame_extraction", "video_clip_mode", mode, note))
    for key, target, value, note in choices:
        before = draft.get(target)
        if before is None:
            draft.put(node, key, target, value, note)
        elif before != value:
            draft.drop(node, key, f"it holds for all folders here, and {target} is {before} already.")


def _resolution(node: Node) -> list[Any]:
    """One number, [width, height], or both in one text as `1024,1024`; a pair means the area of such a picture."""
    value = node.any("resolution")
    items = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else [value]
    numbers = [as_number(item) for item in items]
    sides = [number for number in numbers if number is not None]
    if len(sides) != len(numbers) or len(sides) not in (1, 2):
        node.source.fail(node.at("resolution"), "is neither a side nor a pair of sides.", "Write 1024 or [960, 544].")
    if len(set(sides)) == 1:
        return [sides[0]]
    return [[int(sides[0]), int(sides[1])]]


def _add_default_resolution(draft: Draft, root: Node) -> None:
    if any(not data.has("resolution") for data in root.tables("datasets")):
        default, whose = ([[960, 544]], "musubi-tuner's") if draft.trainer == MUSUBI else ([512], "kohya's")
        draft.add("resolutions", default, f"{whose} default.", file="dataset")


def _add_bounds(draft: Draft) -> None:
    """Bounds of aspect ratios, where buckets are on; kohya's are sides in px, which mean nothing here."""
    folders = draft.dataset.get("directory", [])
    if not any(table.get("enable_ar_bucket") for table in [draft.dataset, *folders]):
        return
    for name, value in (("min_ar", 0.5), ("max_ar", 2.0), ("num_ar_buckets", 7)):
        draft.add(name, value, "usual, where pictures are grouped by their shape.", file="dataset")
