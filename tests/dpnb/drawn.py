"""What property tests draw: schema objects, and TOML texts in every hand that people write."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args, get_origin

import tomlkit
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo

from dpnb.schema.base import Section
from dpnb.schema.unions import section_types
from dpnb.toml.write import differs, inline, keys_of

# --- objects ---------------------------------------------------------------------------------------------------------


def strategy(annotation: Any, metadata: tuple[Any, ...] = ()) -> st.SearchStrategy[Any]:
    """Values that a field accepts, read off its annotation: a new field is covered as soon as it exists."""
    if get_origin(annotation) is Annotated:
        return strategy(get_args(annotation)[0], (*get_args(annotation)[1:], *metadata))
    bounds = {
        key: value
        for marker in metadata
        for part in (marker.metadata if isinstance(marker, FieldInfo) else [marker])
        for key in ("ge", "gt", "le", "lt", "min_length", "max_length", "pattern")
        if (value := getattr(part, key, None)) is not None
    }
    if get_origin(annotation) is Literal:
        return st.sampled_from(get_args(annotation))
    if get_origin(annotation) is list:
        sizes = {"min_size": bounds.get("min_length", 0), "max_size": bounds.get("max_length", 3)}
        return st.lists(strategy(get_args(annotation)[0]), **sizes)
    if get_args(annotation):
        arms = [arm for arm in get_args(annotation) if arm is not type(None)]
        found = st.one_of([strategy(arm, metadata) for arm in arms])
        return found if len(arms) == len(get_args(annotation)) else st.none() | found
    if kinds := section_types(annotation):
        return st.one_of([sections(kind) for kind in kinds])
    return _scalars(annotation, bounds)


def _scalars(kind: type, bounds: dict[str, Any]) -> st.SearchStrategy[Any]:
    if kind is bool:
        return st.booleans()
    if kind is SecretStr:
        return st.none()  # never written
    if kind is int:
        low = int(bounds["gt"]) + 1 if "gt" in bounds else bounds.get("ge", -(2**31))
        return st.integers(low, bounds.get("le", 2**31))
    if kind is float:
        return st.floats(
            bounds.get("gt", bounds.get("ge")),
            bounds.get("lt", bounds.get("le")),
            exclude_min="gt" in bounds,
            exclude_max="lt" in bounds,
            allow_nan=False,
            allow_infinity=False,
        )
    assert kind is str, kind
    if "pattern" in bounds:
        return st.from_regex(bounds["pattern"], fullmatch=True, alphabet=st.characters(codec="ascii", categories="LN"))
    awkward = st.sampled_from(list("\n\r\"'\\#é\t\x00\x7f\u2028\x85[],"))
    return st.text(
        st.characters(exclude_categories=["Cs"]) | awkward, min_size=bounds.get("min_length", 0), max_size=9
    )


def sections(cls: type[Section]) -> st.SearchStrategy[Any]:
    """Valid sections with a random choice of their keys set."""
    if cls.__name__ == "OtherOptimizer":
        kinds = [
            {"type": "Prodigy", "d_coef": 2.0},
            {"type": "Lion"},
            {"type": "Muon", "ns_coeffs": [[1.0, 2.0, 3.0]]},
            {"type": "SCION", "norm_kwargs": {"a b": 1, "c": [1.0, 2]}},
            {"type": "SCION", "norm_kwargs": {"c": "d"}, "momentum": 0.5},
        ]
        rates = st.floats(0, 1, allow_nan=False)
        return st.builds(lambda kind, lr: cls(**kind, lr=lr), st.sampled_from(kinds), rates)
    required = {n: strategy(i.annotation, tuple(i.metadata)) for n, i in cls.model_fields.items() if i.is_required()}
    optional = {n: strategy(i.annotation, tuple(i.metadata)) for n, i in cls.model_fields.items() if n not in required}
    return st.fixed_dictionaries(required, optional=optional).map(lambda values: _built(cls, values)).filter(bool)


def _built(cls: type[Section], values: dict[str, Any]) -> Section | None:
    try:
        return cls(**values)
    except ValidationError:  # the keys of a section may depend on each other
        return None


def changed(old: Section, other: Section, chance: random.Random) -> Section:
    """`old` with some of its keys as `other` has them, down to single items of lists."""
    values: dict[str, Any] = {}
    for key, was in keys_of(old).items():
        now = keys_of(other).get(key, was)
        values[key] = was if chance.random() < 0.6 else _changed(was, now, chance)
    built = _built(type(old), values)
    return old if built is None else built


def _changed(was: Any, now: Any, chance: random.Random) -> Any:
    if isinstance(was, Section) and type(was) is type(now) and chance.random() < 0.8:
        return changed(was, now, chance)
    if isinstance(was, list) and was and isinstance(was[0], BaseModel) and isinstance(now, list):
        items = [item if chance.random() < 0.7 else changed(item, chance.choice(now or was), chance) for item in was]
        items = [item for item in items if chance.random() < 0.8] + [item for item in now if chance.random() < 0.4]
        if chance.random() < 0.5:
            chance.shuffle(items)
        return items or was
    return now


# --- texts -----------------------------------------------------------------------------------------------------------


def written(value: Section, chance: random.Random) -> str:
    """A TOML text that says `value`, in one of the many ways that people write it."""
    text = "".join(_Hand(chance).table(value, ()))
    if chance.random() < 0.3:
        text = text.rstrip("\n")
    if chance.random() < 0.3:
        text = text.replace("\n", "\r\n")
    return ("\ufeff" if chance.random() < 0.2 else "") + text


class _Hand:
    """One author: how much is commented, indented and aligned."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.talkative, self.dotted, self.braces = chance.random() * 0.5, chance.random() * 0.4, chance.random() * 0.5
        self.words = 0

    def table(self, value: Section, path: tuple[str, ...], prefix: str = "") -> Iterator[str]:
        keys = [key for key, item in keys_of(value).items() if item is not None]
        keys = [key for key in keys if differs(value, key) or self.chance.random() < 0.1]
        if self.chance.random() < 0.3:
            self.chance.shuffle(keys)
        later: list[tuple[str, Any]] = []
        for key in keys:
            item = getattr(value, key)
            tables = isinstance(item, Section) or (isinstance(item, list) and item and isinstance(item[0], Section))
            if not tables:
                yield from self.pair(prefix + key, self.value(item))
            elif self.chance.random() < self.braces:
                yield from self.pair(prefix + key, self.inline(item))
            elif isinstance(item, Section) and self.chance.random() < self.dotted and self.flat(item):
                yield from self.table(item, path, f"{prefix}{key}{self.chance.choice(['.', ' . '])}")
            else:
                later.append((key, item))
        for key, item in later:
            name = ".".join((*path, key))
            for entry in item if isinstance(item, list) else [item]:
                yield from self.remark()
                header = f"[[{name}]]" if isinstance(item, list) else f"[{name}]"
                yield f"{header}{self.tail()}\n"
                yield from self.table(entry, (*path, key))

    def flat(self, item: Section) -> bool:
        written = [key for key in keys_of(item) if differs(item, key) and getattr(item, key) is not None]
        return bool(written) and not any(isinstance(getattr(item, k), list | dict | Section) for k in keys_of(item))

    def pair(self, key: str, value: str) -> Iterator[str]:
        yield from self.remark()
        gap = self.chance.choice(["", " ", " ", "\t"])
        yield f"{self.chance.choice(['', '', '  ', chr(9)])}{key}{gap}={gap}{value}{self.tail()}\n"

    def remark(self) -> Iterator[str]:
        if self.chance.random() < self.talkative:
            self.words += 1
            yield self.chance.choice(["\n", f"# remark {self.words} [x] = 'y'\n", f"\n# remark {self.words}\n"])

    def tail(self) -> str:
        self.words += 1
        return f"  # tail {self.words}" if self.chance.random() < self.talkative else ""

    def value(self, item: Any) -> str:
        if isinstance(item, list):
            return self.array([self.value(entry) for entry in item])
        if isinstance(item, dict):
            return inline(item)
        text = tomlkit.item(item).as_string()
        if isinstance(item, str) and self.chance.random() < 0.4 and item.isprintable() and "'" not in item:
            return f"'{item}'"
        if isinstance(item, str) and self.chance.random() < 0.1:
            return f'""{text}""' if not item.startswith("\n") else text
        return text

    def array(self, items: list[str]) -> str:
        if items and self.chance.random() < 0.3:
            lines = "".join(f"    {item},{self.tail()}\n" for item in items)
            return f"[{self.tail()}\n{lines}]"
        return f"[{self.chance.choice([', ', ',', ' , ']).join(items)}]"

    def inline(self, item: Any) -> str:
        if isinstance(item, list):
            return self.array([self.short(entry) or self.inline(entry) for entry in item])
        keys = [key for key, v in keys_of(item).items() if v is not None and differs(item, key)]
        pairs = []
        for key in keys:
            v = getattr(item, key)
            tables = isinstance(v, Section) or (isinstance(v, list) and v and isinstance(v[0], Section))
            pairs.append(f"{key} = {self.inline(v) if tables else self.value(v)}")
        if pairs and self.chance.random() < 0.2:
            indent = "\n        "
            commas = [*[","] * (len(pairs) - 1), ""]
            lines = [f"{pair}{comma}{self.tail()}" for pair, comma in zip(pairs, commas, strict=True)]
            return "{" + self.tail() + indent + indent.join(lines) + "\n    }"
        return "{" + ", ".join(pairs) + "}"

    def short(self, item: Section) -> str:
        said = {key: v for key, v in keys_of(item).items() if v is not None and differs(item, key)}
        for value in said.values():
            if isinstance(value, str) and type(item).of_text(value) == said and self.chance.random() < 0.8:
                return self.value(value)
        return ""
