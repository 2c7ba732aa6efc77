"""An AI Toolkit job's folders of pictures, as the dataset file."""

from __future__ import annotations

from typing import Any

from dpnb.importers import settings
from dpnb.importers.draft import Draft
from dpnb.importers.source import Node, as_number

SHUFFLED_ORDERS = 10  # of the tags of a caption: AI Toolkit shuffles anew each time, here so many are cached
_FRAMES = (
    "AI Toolkit spreads so many frames over the whole of a clip; here so many that follow each other are cut out."
)


def put_datasets(draft: Draft, process: Node, *, reg_weight: float | None) -> None:
    """Each entry of `datasets` is a [[directory]]; what all of them agree on stands at the top."""
    nodes = process.tables("datasets")
    if not nodes:
        process.source.fail(process.at("datasets"), "is missing.", "Name the folders to train on under datasets.")
    for name, value, why in (
        ("enable_ar_bucket", True, "AI Toolkit's default."),
        ("min_ar", 0.5, "AI Toolkit has no bounds; these are usual."),
        ("max_ar", 2.0, "AI Toolkit has no bounds; these are usual."),
        ("num_ar_buckets", 7, "AI Toolkit makes buckets as it needs them."),
        ("skip_empty_caption", False, "AI Toolkit trains pictures without a caption too."),
    ):
        draft.add(name, value, why, file="dataset")
    for folder, node in enumerate(nodes):
        _put_folder(draft, node, folder, reg_weight)
        draft.rest(node)


def _put_folder(draft: Draft, node: Node, folder: int, reg_weight: float | None) -> None:
    def put(key: str, target: str, value: Any, note: str = "") -> None:  # noqa: ANN401 - whatever TOML can hold
        draft.put_folder(node, key, target, value, folder, note)

    key = "folder_path" if node.has("folder_path") else "dataset_path"
    path = node.text(key)
    if not path:
        node.source.fail(node.at("folder_path"), "is missing.", "Name the folder with the pictures.")
    put(key, "path", path)
    if node.has("resolution"):
        put("resolution", "resolutions", _resolutions(node))
    else:
        draft.add("resolutions", [512], "AI Toolkit's default.", folder=folder, file="dataset")
    if repeats := node.number("num_repeats"):
        put("num_repeats", "num_repeats", repeats)
    if trigger := node.text("trigger_word"):
        put("trigger_word", "trigger_word", trigger)
    if node.flag("buckets") is False or node.flag("square_crop"):
        put("buckets" if node.flag("buckets") is False else "square_crop", "enable_ar_bucket", False)
    if node.flag("random_crop"):
        put("random_crop", "crop", "random")
    if (frames := node.whole("num_frames")) is not None and frames > 1:
        put("num_frames", "frame_buckets", [1, frames], _FRAMES)
    else:
        node.taken |= {"shrink_video_to_frames", "do_i2v", "do_audio"}  # of clips, and these are pictures
    _put_captions(draft, node, folder)
    _put_pictures(draft, node, folder)
    _put_weight(draft, node, folder, reg_weight)


def _resolutions(node: Node) -> list[float]:
    value = node.any("resolution")
    items = value if isinstance(value, list) else [value]
    numbers = [as_number(item) for item in items]
    if not numbers or None in numbers:
        node.source.fail(node.at("resolution"), "is neither a number nor a list of numbers.", "Write [512, 768].")
    return [number for number in numbers if number is not None]


def _put_captions(draft: Draft, node: Node, folder: int) -> None:
    for key in ("caption_ext", "caption_type"):
        ending = node.text(key)
        if ending is not None and ending.lstrip(".") != "txt":
            draft.drop(
                node, key, f"captions stand in .txt files or in captions.json: rename the .{ending.lstrip('.')} files."
            )
    if (share := node.number("caption_dropout_rate")) is not None:
        draft.put_folder(node, "caption_dropout_rate", "caption_dropout", share, folder)
    shuffled = node.flag("shuffle_tokens")
    if shuffled:
        note = f"{SHUFFLED_ORDERS} shuffled orders are cached."
        draft.put_folder(node, "shuffle_tokens", "cache_shuffle_num", SHUFFLED_ORDERS, folder, note)
    if share := node.number("token_dropout_rate"):
        draft.put_folder(node, "token_dropout_rate", "tag_dropout", share, folder)
    if kept := node.whole("keep_tokens"):
        draft.put_folder(node, "keep_tokens", "keep_first_tags", kept, folder)


def _put_pictures(draft: Draft, node: Node, folder: int) -> None:
    """Mirroring, masks and control pictures."""
    if node.flag("flip_x"):
        note = "AI Toolkit adds a mirrored copy of each picture; here half of them are mirrored."
        draft.put_folder(node, "flip_x", "augmentation.flip", 0.5, folder, note)
    if path := node.text("mask_path"):
        draft.put_folder(node, "mask_path", "mask_path", path, folder)
    else:
        node.taken |= {"mask_min_value", "invert_mask"}
    for key in ("control_path", "control_path_1", "control_path_2", "control_path_3"):
        if paths := node.texts(key):
            settings.put_controls(draft, node, key, paths, folder)


def _put_weight(draft: Draft, node: Node, folder: int, reg_weight: float | None) -> None:
    weight = (node.number("network_weight") or 1.0) if node.has("network_weight") else 1.0
    if (factor := node.number("loss_multiplier")) is not None:
        weight *= factor
    if node.flag("is_reg"):
        draft.put_folder(node, "is_reg", "loss_weight", weight * (1.0 if reg_weight is None else reg_weight), folder)
    elif weight != 1.0:
        key = "loss_multiplier" if node.has("loss_multiplier") else "network_weight"
        draft.put_folder(node, key, "loss_weight", weight, folder)
