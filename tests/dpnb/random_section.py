"""Random valid schema objects: plain data by the shape of each field, with what the validator refuses taken out."""

from __future__ import annotations

import random
from typing import Any, TypeVar

from pydantic import ValidationError

from dpnb.schema.base import Section
from dpnb.widgets.draft import blank_data
from dpnb.widgets.shapes import Spec

S = TypeVar("S", bound=Section)
TEXTS = ("a", "photos/cats", 'with "quotes"', "it's", "two\nlines", "back\\slash", "ünï", "", "to_q")
NUMBERS = (0, 1, 2, 7, 64, 512, 0.25, 0.5, 0.9, 1e-5, 2e-3, 1.0)


def random_section(cls: type[S], rng: random.Random) -> S:
    """A valid object; `cls` must be valid once random data replaced its blanks."""
    while True:
        data = random_data(cls, rng)
        for _ in range(60):
            try:
                return cls.model_validate(data)
            except ValidationError as error:
                if not _without(data, error.errors()[0]["loc"], cls):
                    break  # a required key drew a value that it cannot have: draw again


def random_data(cls: type[Section], rng: random.Random) -> dict[str, Any]:
    """Data of a section in which about a third of the keys are set, and every required one."""
    data = blank_data(cls)
    for name in cls.model_fields:
        spec = Spec.of(cls, name, (name,))
        if name != "type" and (spec.required or rng.random() < 0.33):
            data[name] = drawn_value(spec, rng)
    if data.get("type") == "":
        data |= {"type": rng.choice(("Prodigy", "Lion", "CAME")), "lr": rng.choice((1.0, 1e-4))}
    return data


def drawn_value(spec: Spec, rng: random.Random) -> Any:
    """A value of a field's kind; its bounds may refuse it."""
    arm = rng.choice(sorted(spec.shape.arms))
    if arm == "section":
        return random_data(rng.choice(spec.shape.sections), rng)
    if arm == "list[section]":
        return [random_data(spec.shape.sections[0], rng) for _ in range(rng.randint(1, 2))]
    if arm == "choice":
        return rng.choice(spec.shape.choices)
    if arm.startswith("list["):
        inner = arm.removeprefix("list[").removesuffix("]")
        if inner.startswith("list["):
            return [[rng.choice((64, 512, 1)) for _ in range(rng.choice((2, 2, 3)))] for _ in range(2)]
        return [rng.choice(TEXTS) if inner == "str" else rng.choice(NUMBERS) for _ in range(2)]
    whole = [number for number in NUMBERS if isinstance(number, int)]
    drawn: dict[str, Any] = {
        "int": rng.choice(whole),
        "float": float(rng.choice(NUMBERS)),
        "bool": rng.random() < 0.5,
        "secret": "hunter2",
        "str": rng.choice(spec.ui.suggestions or TEXTS),
    }
    return drawn[arm]


def _without(data: dict[str, Any], loc: tuple[int | str, ...], cls: type[Section]) -> bool:
    """Take the key that is wrong out of its table; False where it has to be there, or there is no such place."""
    here: Any = data
    path = [part for part in loc if isinstance(part, int) or not part.startswith(("list[", "constrained", "literal["))]
    owner: Any = None
    key: Any = None
    for part in path:
        if isinstance(here, dict) and part in here:
            owner, key, here = here, part, here[part]
        elif isinstance(here, list) and isinstance(part, int):
            here = here[part]
    if owner is None:
        return False
    del owner[key]
    return True
