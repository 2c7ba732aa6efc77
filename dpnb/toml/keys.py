"""What an unknown key was meant to be: a key of another table or file of ours, of another trainer, or a slip.

`where_it_belongs` gives the one sentence that follows "unknown key."; an exact match elsewhere in our own vocabulary
counts for more than another trainer's name, and that for more than a name that is merely similar.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Sequence
from functools import cache, lru_cache
from typing import Any, Literal

from dpnb.errors import Loc
from dpnb.schema.base import Section, ui_of
from dpnb.schema.dataset import Dataset
from dpnb.schema.families.base import ALIKE, ModelSection
from dpnb.schema.pytorch_optimizers import Signature
from dpnb.schema.training import LegacyLora, Training
from dpnb.schema.unions import section_types, sections_below, tag_of

_MANY_TRAINERS = 2
_MANY_TABLES = 2
_MANY_NAMES = 2
_FEW_TYPES = 4
MANY_KEYS = 15  # beyond this a list of all keys helps nobody


def where_it_belongs(
    loc: Loc,
    owner: type[Section] | None,
    root: type[Section],
    value: Any = None,  # noqa: ANN401 - anything that TOML can hold
    beside: Collection[str] = (),
) -> str:
    """What to do about an unknown key at `loc`, which stands in a table of `owner` in a file of `root`.

    `value` is what it holds, `beside` the keys of its table.
    """
    name = str(loc[-1])
    siblings = list(owner.model_fields) if owner is not None else []
    is_table = isinstance(value, dict)
    if len(loc) > 1 and name in root.model_fields:
        if is_table:
            return f"It is a table of its own: write [{name}]."
        return f"It is a top-level key: move it above the first [table] header (now it belongs to {header(loc[:-1])})."
    if around := _table_around(loc, root):
        return f"It belongs to {around}: move it above {header(loc[:-1])}."
    if owner is LegacyLora:
        return "[lora] is the old name of the [adapter] table, and nothing but its dtype is read: write [adapter]."
    if len(loc) == 1 and is_table and (moved := _keys_of_the_top(value, root)):
        return f"Its keys stand at the top of the file: move {all_of(moved)} above the first [table] header."
    if owner is not None and issubclass(owner, Signature):
        taken = [key for key in siblings if key != "type"]
        return did_you_mean(name, taken) or f"{owner.__name__} takes {', '.join(taken)}."
    if kinds := _variants_with(name, loc, root):
        return _of_other_types(name, owner, kinds)
    tables = is_table or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))
    return (
        _of_another_trainer(loc, root, by_table=True)
        or _in_another_table(name, root)
        or _of_another_trainer(loc, root)
        or _slip_of(name, siblings, beside)
        or _what_there_is(siblings, root, tables=tables and owner is root)
    )


def _keys_of_the_top(table: dict[str, Any], root: type[Section]) -> list[str]:
    """The keys of an unknown table, if most of them are keys of the file itself: [eval] with eval_every_n_epochs."""
    tables = _keys_by_table(root)
    ours = [key for key in table if key in root.model_fields and f"[{key}]" not in tables]
    return ours if 2 * len(ours) > len(table) else []


def _slip_of(name: str, siblings: Sequence[str], beside: Collection[str]) -> str:
    near = _nearest(name, siblings)
    also = " It stands here too: remove one of the two." if near in beside else ""
    return f"Did you mean '{near}'?{also}" if near else ""


def _of_other_types(name: str, owner: type[Section] | None, kinds: Sequence[type[Section]]) -> str:
    """What to do about a key that a table knows for other values of its `type`."""
    own = tag_of(owner) if owner is not None else None
    takers = f"Only type = {any_of([repr(tag_of(kind)) for kind in kinds])} takes it."
    if owner is None or own is None:
        return takers
    if len(kinds) <= _FEW_TYPES and not issubclass(owner, ModelSection):
        return f"{takers} {did_you_mean(name, list(owner.model_fields))}".rstrip()
    alike = [key for keys in ALIKE if name in keys for key in owner.model_fields if key in keys]
    if alike:
        return f"type = '{own}' has {any_of(alike)} in its place."
    if issubclass(owner, ModelSection) and ui_of(kinds[0].model_fields[name]).path:
        return f"type = '{own}' does not read it: its files are named by {', '.join(owner.facts.needs[0])}."
    if len(kinds) <= _FEW_TYPES:
        return takers
    return f"type = '{own}' does not take it: remove it."


def _in_another_table(name: str, root: type[Section]) -> str:
    """The table of this file, or the other file, that knows a key."""
    if tables := [table for table, keys in _keys_by_table(root).items() if name in keys]:
        return f"It belongs in {any_of(tables)}."
    other: type[Section] | None = Dataset if root is Training else Training if root is Dataset else None
    if other is None:
        return ""
    file = "dataset" if other is Dataset else "training"
    if name in other.model_fields:
        return f"It belongs in the {file} file."
    tables = [table for table, keys in _keys_by_table(other).items() if name in keys]
    # A name that many tables have, such as type, says nothing of what was meant.
    return f"It belongs in the {file} file, in {any_of(tables)}." if 0 < len(tables) <= _MANY_TABLES else ""


def _of_another_trainer(loc: Loc, root: type[Section], *, by_table: bool = False) -> str:
    """Whose key it is, and what it is called here; `by_table` asks for what is known of it in this table alone."""
    if root not in (Training, Dataset):
        return ""
    from dpnb.schema.foreign import foreign

    dotted = ".".join(part for part in loc if isinstance(part, str))
    found = foreign(dotted, _file_of(root))
    if found is None or (by_table and ("." not in dotted or found == foreign(str(loc[-1]), _file_of(root)))):
        return ""
    name = str(loc[-1])
    words = []
    if found.trainer:
        whose = re.split(", | and ", found.trainer)
        trainers = found.trainer if len(whose) <= _MANY_TRAINERS else f"{whose[0]} and others"
        words.append(f"'{name}' is a name of {trainers}.")
        words.append(f"Here it is {found.ours}." if found.ours else "There is no such key here.")
    words.append(found.note)
    if found.ours and not found.trainer and found.ours not in found.note:
        words.append(f"It is called {found.ours}.")
    return " ".join(filter(None, words))


def _file_of(root: type[Section]) -> Literal["training", "dataset"]:
    return "training" if root is Training else "dataset"


def _what_there_is(siblings: Sequence[str], root: type[Section], *, tables: bool) -> str:
    if tables:
        return f"Tables known here: {', '.join(_keys_by_table(root))}."
    if 0 < len(siblings) <= MANY_KEYS:
        return f"Known here: {', '.join(siblings)}."
    return "There is no such key: remove it."


def header(loc: Loc) -> str:
    """The header of the table at a place, as it is written."""
    name = ".".join(part for part in loc if isinstance(part, str))
    return f"[[{name}]]" if isinstance(loc[-1], int) else f"[{name}]"


def _table_around(loc: Loc, root: type[Section]) -> str:
    """The header of the table around the one that holds a key, where that table knows it; else nothing."""
    around = loc[:-1]
    while around and isinstance(around[-1], int):
        around = around[:-1]
    around = around[:-1]
    if not around or not any(str(loc[-1]) in section.model_fields for section in _kinds_at(around, root)):
        return ""
    return header(around)


def _kinds_at(table: Loc, root: type[Section]) -> list[type[Section]]:
    """The kinds of table that may stand at a place."""
    return _kinds_below(tuple(part for part in table if isinstance(part, str)), root)


@lru_cache(maxsize=64)
def _kinds_below(names: tuple[str, ...], root: type[Section]) -> list[type[Section]]:
    sections = [root]
    for name in names:
        fields = [s.model_fields[name] for s in sections if name in s.model_fields]
        sections = [below for field in fields for below in sections_below(field.annotation)]
    return sections


def _variants_with(name: str, loc: Loc, root: type[Section]) -> list[type[Section]]:
    """The kinds of the same table that know a key."""
    sections = _kinds_at(loc[:-1], root)
    return [section for section in sections if tag_of(section) and name in section.model_fields]


@cache
def _keys_by_table(root: type[Section]) -> dict[str, set[str]]:
    """The keys that the tables below a file's root know, by header, all variants of a table together."""
    return {
        header((name,) if section_types(info.annotation) else (name, 0)): {
            key for section in sections_below(info.annotation) for key in section.model_fields
        }
        for name, info in root.model_fields.items()
        if sections_below(info.annotation)
    }


def any_of(words: Sequence[str]) -> str:
    """Words in a row: a, b or c."""
    return _in_a_row(words, "or")


def all_of(words: Sequence[str]) -> str:
    """Words in a row: a, b and c."""
    return _in_a_row(words, "and")


def _in_a_row(words: Sequence[str], last: str) -> str:
    return f" {last} ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


_SHORT_NAMES = {
    "fp16": "float16",
    "bf16": "bfloat16",
    "fp32": "float32",
    "fp8": "float8",
    "fp8_e4m3fn": "float8_e4m3fn",
    "fp8_e5m2": "float8_e5m2",
    "nf4": "float8",
    "learning_rate": "lr",
}


def did_you_mean(seen: str, choices: Sequence[str]) -> str:
    """A name that was probably meant: the same words in another order, or nearly the same letters; else nothing."""
    near = _nearest(seen, choices)
    return f"Did you mean '{near}'?" if near else ""


def _nearest(seen: str, choices: Sequence[str]) -> str:
    low = seen.lower().replace("-", "_").replace(" ", "_")
    words = sorted(low.split("_"))
    near = [c for c in choices if c == _SHORT_NAMES.get(low) or sorted(c.split("_")) == words]
    # A number in a name is never a slip of the fingers: float8 is not float32. One too many may be: wan2.1 is wan.
    digits = re.findall(r"\d+", low)
    alike = [c for c in choices if not digits or re.findall(r"\d+", c) in (digits, [])]
    near += [c for c in difflib.get_close_matches(low, alike, n=3, cutoff=0.65) if _is_a_slip(low, c.lower())]
    return near[0] if near else ""


def same_beginning(seen: str, choices: Sequence[str]) -> str:
    """The names that begin with the same words as one that is longer or shorter: wan_video is wan, qwen is qwen_image.

    An empty text where there are none, or too many to be of help.
    """
    words = _words_of(seen)
    shared = {choice: _shared_words(words, _words_of(choice)) for choice in choices}
    most = max(shared.values(), default=0)
    near = [choice for choice in choices if most and shared[choice] == most]
    fewest = min((len(_words_of(choice)) for choice in near), default=0)
    near = [choice for choice in near if len(_words_of(choice)) == fewest]
    return f"Did you mean {any_of([repr(choice) for choice in near])}?" if 0 < len(near) <= _MANY_NAMES else ""


def _words_of(name: str) -> list[str]:
    return re.findall(r"[a-z]+|\d+", name.lower())


def _shared_words(first: Sequence[str], second: Sequence[str]) -> int:
    return next(
        (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )


def _is_a_slip(seen: str, choice: str) -> bool:
    """Whether one name can come of the other by a slip: its words are all there, or each is nearly there.

    caption_path is no slip of caption_dropout, although most of the letters are the same; lora_dtype is one of dtype.
    A word that begins with another letter has to be all the nearer: sana is no anima.
    """
    first, second = seen.split("_"), choice.split("_")
    if len(first) == len(second) == 1:
        return seen[:1] == choice[:1] or bool(difflib.get_close_matches(seen, [choice], cutoff=0.75))
    fewer, more = sorted((first, second), key=len)
    return all(difflib.get_close_matches(word, more, n=1, cutoff=0.72) for word in fewer)
