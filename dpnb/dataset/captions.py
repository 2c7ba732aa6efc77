"""Captions: where they stand, and what becomes of them before they are encoded.

    captions.json, or <name>.txt  ->  tag shuffle  ->  trigger word  ->  caption_prefix  ->  Row.captions
                                                                       while training, a caption  ->  thinned

With a captions.json in the folder ({file name: [captions]}), the .txt files of that folder are ignored. All of it is
a pure function of the texts and the settings, so that an unchanged caption is found in the cache again.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dpnb.dataset.archive import read_file
from dpnb.dataset.listing import split_name
from dpnb.errors import DatasetError
from dpnb.schema.dataset import DirectorySettings

CAPTIONS_FILE = "captions.json"
PLACEHOLDER = "[trigger]"
TAG_VARIANTS = 4
"""So many variants of each caption are encoded where tags are left out; the help of tag_dropout names the number."""


@dataclass(frozen=True, slots=True)
class FolderCaptions:
    """Where the captions of one folder are.

    `texts`: stem -> path of the .txt file, as text, since folders can be large; `listed`: captions.json, None without.
    """

    texts: Mapping[str, str] = field(default_factory=dict)
    listed: Mapping[str, Sequence[str]] | None = None

    def of(self, picture: str) -> list[str]:
        """The written captions of a picture by its file name; empty without any. Raises `DatasetError` (bad bytes)."""
        if self.listed is not None:
            return list(self.listed.get(picture, ()))
        text = self.texts.get(split_name(picture)[0])
        return [] if text is None else [read_text(text).strip()]

    def unused(self, pictures: Sequence[str]) -> list[str]:
        """Captions whose picture is not there: names of .txt files, or of entries in captions.json."""
        if self.listed is not None:
            return sorted(set(self.listed) - set(pictures))
        stems = {split_name(name)[0] for name in pictures}
        return sorted(text.rpartition("/")[2] for stem, text in self.texts.items() if stem not in stems)


def folder_captions(folder: Path, names: Iterable[str]) -> FolderCaptions:
    """Find the captions among the files of one folder. Raises `DatasetError` for a captions.json that is not one."""
    place = str(folder / "_")[:-1]
    named = sorted(names)  # so that of a.TXT and a.txt the usual spelling stays
    texts = {name[:-4]: f"{place}{name}" for name in named if name[-4:].lower() == ".txt" and len(name) > 4}
    listed = read_captions_json(folder / CAPTIONS_FILE) if CAPTIONS_FILE in named else None
    return FolderCaptions(texts, listed)


def read_text(path: Path | str) -> str:
    """A text file in UTF-8, with or without byte-order mark; lines end with a line feed. Raises `DatasetError` naming
    file and byte."""
    try:
        text = read_file(path).removeprefix(codecs.BOM_UTF8).decode()
        return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text
    except UnicodeDecodeError as error:
        message = (
            f"{path} is not UTF-8 text (byte {error.start} is 0x{error.object[error.start]:02x}): save it as UTF-8"
        )
        raise DatasetError(message) from error
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from error


def read_captions_json(path: Path) -> dict[str, list[str]]:
    """captions.json -> {file name: captions}. Raises `DatasetError` naming the file and the line or the entry."""
    try:
        data = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise DatasetError(f"{path}:{error.lineno}:{error.colno}: is not JSON: {error.msg}") from error
    if not isinstance(data, dict):
        raise DatasetError(f'{path} holds a {type(data).__name__}; expected {{"picture.jpg": ["a caption"], ...}}')
    for name, captions in data.items():
        if not isinstance(captions, list) or not all(isinstance(caption, str) for caption in captions):
            seen = json.dumps(captions, ensure_ascii=False)
            seen = seen if len(seen) <= 60 else seen[:57] + "..."
            raise DatasetError(
                f'{path}: the entry "{name}" is {seen}; expected a list of texts, such as ["a caption"]'
            )
    # JSON can spell half of a surrogate pair (\ud800), which is no text: neither a hash nor a tokenizer takes it.
    return {name: [c.encode("utf-8", "replace").decode().strip() for c in listed] for name, listed in data.items()}


def final_captions(written: Sequence[str], settings: DirectorySettings) -> tuple[str, ...]:
    """What is trained on, in this order: tag shuffle, trigger word, prefix. Empty when the picture is to be left out.

    Each of the captions gives `cache_shuffle_num` shuffled ones (or itself, with 0), and each of those is an example.
    """
    captions = written
    if settings.skip_empty_caption:
        captions = [caption for caption in written if caption]
    elif not written:
        captions = [""]
    count = settings.cache_shuffle_num or int(settings.shuffle_tags)
    if count:
        delimiter = settings.cache_shuffle_delimiter
        keep = settings.keep_first_tags
        captions = [shuffled(caption, delimiter, variant, keep) for caption in captions for variant in range(count)]
    if settings.trigger_word:
        captions = [with_trigger(caption, settings.trigger_word) for caption in captions]
    return tuple([settings.caption_prefix + caption for caption in captions])


def shuffled(caption: str, delimiter: str, variant: int, keep_first: int = 0) -> str:
    """The tags of a caption in an order that depends on nothing but the caption and the variant.

    The first `keep_first` tags stay where they are.
    """
    tags = caption.split(delimiter)
    kept, others = tags[:keep_first], tags[keep_first:]
    _drawn(caption, str(variant)).shuffle(others)
    return delimiter.join([*kept, *others])


def thinned(caption: str, settings: DirectorySettings) -> tuple[str, ...]:
    """The variants of a final caption with tags left out (tag_dropout); the caption itself where none are.

    There are `TAG_VARIANTS` of them, among which each epoch draws, since every text has to be encoded beforehand.
    The prefix, the first keep_first_tags tags, tags with the trigger word and at least one tag stay.
    """
    if not settings.tag_dropout or not caption:
        return (caption,)
    prefix = settings.caption_prefix if caption.startswith(settings.caption_prefix) else ""
    tags = caption[len(prefix) :].split(settings.cache_shuffle_delimiter)
    # A trigger word that was put in front is not one of the tags that a person counted.
    keep_first = settings.keep_first_tags + (tags[0] == settings.trigger_word != "")
    found = []
    for variant in range(TAG_VARIANTS):
        draw = _drawn(caption, f"tags {variant}")
        chances = [draw.random() for _ in tags]
        kept = [
            tag
            for position, (tag, chance) in enumerate(zip(tags, chances, strict=True))
            if chance >= settings.tag_dropout or position < keep_first or _has_word(tag, settings.trigger_word)
        ]
        kept = kept or [tags[chances.index(max(chances))]]
        found.append(prefix + settings.cache_shuffle_delimiter.join(kept))
    return tuple(found)


def _drawn(caption: str, variant: str) -> random.Random:
    seed = hashlib.sha256(f"{variant}\0{caption}".encode()).digest()
    return random.Random(int.from_bytes(seed, "big"))  # noqa: S311 - an order, not a secret


def with_trigger(caption: str, trigger: str) -> str:
    """The caption with the trigger word: in place of [trigger], or in front when the word does not stand in it.

    The word counts as there in any case of letters, but not as a part of another word. Without a trigger word the
    caption stays as it is, [trigger] included.
    """
    if not trigger:
        return caption
    if PLACEHOLDER in caption:
        return caption.replace(PLACEHOLDER, trigger)
    if _has_word(caption, trigger):
        return caption
    return f"{trigger}, {caption}" if caption else trigger


def _has_word(text: str, word: str) -> bool:
    return bool(word) and re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE) is not None
