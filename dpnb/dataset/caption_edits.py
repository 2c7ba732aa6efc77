"""Edits of captions: pure functions from the captions of one picture to those that it shall have.

    replacing("a cat", "a dog")  adding("outdoors")  removing("blurry")  ->  an Edit, for `CaptionStore.changes`

A tag is what stands between separators ("zorbi, outdoors": two tags). The separator of a dataset is its
cache_shuffle_delimiter; the white space around a tag does not count.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from dpnb.errors import DatasetError

Edit = Callable[[Sequence[str]], Sequence[str]]


def separator_of(delimiter: str) -> str:
    """What separates tags, by the delimiter of the dataset file: ", " -> ","; white space alone stays."""
    return delimiter.strip() or delimiter


def tags_of(caption: str, separator: str) -> list[str]:
    """The tags of a caption, in order."""
    return [tag for tag in map(str.strip, caption.split(separator)) if tag]


def cleaned(caption: str) -> str:
    """A caption as it can be saved: a line feed at each line's end, no white space around, nothing that is no text."""
    text = caption.replace("\r\n", "\n").replace("\r", "\n")
    return text.encode("utf-8", "replace").decode().strip()


def replacing(find: str, by: str, *, regular: bool = False, match_case: bool = True) -> Edit:
    r"""Replace a text wherever it stands. `regular`: `find` is a regular expression, and `\1` in `by` its first group.

    Raises `DatasetError` when there is nothing to find, or the expression or its replacement is wrong.
    """
    if not find:
        raise DatasetError("there is nothing to find: say which text is to be replaced")
    try:
        pattern = re.compile(find if regular else re.escape(find), 0 if match_case else re.IGNORECASE)
    except (re.error, RecursionError, OverflowError) as error:
        raise DatasetError(
            f"'{find}' is not a regular expression: {error}. Correct it, or look for plain text"
        ) from error
    by = by if regular else by.replace("\\", r"\\")
    try:
        pattern.sub(by, "")
    except (re.error, IndexError) as error:
        words = (
            f"'{by}' cannot replace '{find}': {error}. A backslash calls a group: write \\\\ for a backslash itself"
        )
        raise DatasetError(words) from error
    return lambda captions: [pattern.sub(by, caption) for caption in captions]


def adding(tag: str, separator: str, *, first: bool = False) -> Edit:
    """Add a tag (or several, separated) to every caption that lacks it, at the end or `first`; also to none at all.

    Raises `DatasetError` for an empty tag.
    """
    wanted = _wanted(tag, separator)
    between = separator if separator.isspace() else f"{separator} "

    def edit(captions: Sequence[str]) -> Sequence[str]:
        made = []
        for caption in captions or ("",):
            there = tags_of(caption, separator)
            lacking = [one for one in wanted if one not in there]
            # A caption that ends (or, before, begins) with a separator gets no second one.
            rest = caption.strip().removeprefix(separator if first else "").removesuffix("" if first else separator)
            parts = [*lacking, rest.strip()] if first else [rest.strip(), *lacking]
            made.append(between.join(part for part in parts if part) if lacking else caption)
        return made

    return edit


def removing(tag: str, separator: str) -> Edit:
    """Remove a tag (or several, separated) from every caption. Raises `DatasetError` for an empty tag."""
    unwanted = set(_wanted(tag, separator))

    def edit(captions: Sequence[str]) -> Sequence[str]:
        made = []
        for caption in captions:
            parts = caption.split(separator)
            kept = [part for part in parts if part.strip() not in unwanted]
            made.append(caption if len(kept) == len(parts) else separator.join(kept).strip())
        return made

    return edit


def setting(place: int, caption: str) -> Edit:
    """Set one caption of a picture by its place; one place further adds it. An emptied one of several is taken out."""

    def edit(captions: Sequence[str]) -> Sequence[str]:
        text = cleaned(caption)
        if not captions and not text:
            return captions
        others = [*captions[:place], *captions[place + 1 :]]
        return others if others and not text else [*captions[:place], text, *captions[place + 1 :]]

    return edit


def _wanted(tag: str, separator: str) -> list[str]:
    tags = tags_of(cleaned(tag), separator)
    if not tags:
        raise DatasetError("there is no tag: say which one is meant")
    return tags
