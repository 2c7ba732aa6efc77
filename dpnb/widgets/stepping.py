"""One step up or down from a number, by what the schema says of its field. No widgets here.

A number climbs from rung to rung: a step leads to the next one above or below, also from a number between two rungs,
and never past the bounds of the field. What the rungs are, the first of these rules decides that fits:

- `Field(multiple_of=16)` or `Ui(step=64)`: the multiples of that number. `Ui(step="1-2-5")`: 1, 2 and 5 times each
  power of ten (1e-5, 2e-5, 5e-5, 1e-4), for what is known by its order of magnitude, as a learning rate is.
- A whole number: every one.
- A default between 0 and 0.01, such as 1e-8; or no default, and not bounds on both sides: 1-2-5.
- Bounds on both sides: about twenty rungs between them (0.05 for 0 to 1), unless the default lies between these.
- Else the last decimal place of the default as it is written: 0.1 for 3.5, 0.0001 for 0.9999; 0.1 for 0.0.

Arithmetic is exact, on what a number looks like: three steps of 0.05 are 0.15.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Any, Literal, TypeAlias, TypeGuard

from pydantic.fields import FieldInfo

from dpnb.schema.base import Section, markers_of
from dpnb.widgets.shapes import Spec

Number: TypeAlias = int | float
Direction: TypeAlias = Literal[1, -1]

SMALL = 0.01  # a default below this is known by its order of magnitude
USUAL_RATE = 1e-4  # where a 1-2-5 ladder begins whose field has no default, and what follows after 0 on it
RUNGS_BETWEEN_BOUNDS = 20


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a number may be; an open end is not allowed itself."""

    low: Number = -math.inf
    high: Number = math.inf
    low_open: bool = False
    high_open: bool = False

    def allow(self, value: Number) -> bool:
        """True for a number within."""
        above = self.low < value if self.low_open else self.low <= value
        below = value < self.high if self.high_open else value <= self.high
        return above and below and math.isfinite(value)


@dataclass(frozen=True, slots=True)
class Steps:
    """The rungs of one field: the multiples of `size`, or 1-2-5 where it is None.

    `whole`: only whole numbers are meant; `mixed`: these stay whole, among others that are not.
    `begin`: what a field begins with that is not set and has no default; None takes the first rung within the bounds,
    or 0, or 1 where it must be above 0.
    """

    size: Fraction | None
    bounds: Bounds
    default: Number | None = None
    begin: Number | None = None
    whole: bool = False
    mixed: bool = False

    def step(self, value: object, direction: Direction) -> Number:
        """The number one step from `value`, or from the default where that is no number.

        Without a default it is the number to begin with. A value outside of the bounds comes back to the nearer one,
        and one at the last rung stays.
        """
        if not is_number(value):
            return self.start() if self.default is None else self.step(self.default, direction)
        if not self.bounds.allow(value):
            return self._inside(value)
        moved = self._next(value, direction)
        if self.bounds.allow(moved):
            return moved
        end = self.bounds.low if direction < 0 else self.bounds.high
        return self._typed(_exact(end)) if self.bounds.allow(end) else value

    def start(self) -> Number:
        """What a field begins with that has no default."""
        low, size = self.bounds.low, self.size or Fraction(1)
        if self.begin is not None:
            return self._inside(self.begin)
        if low == 0 and self.bounds.low_open:
            return self._inside(_plain(max(Fraction(1), size)))
        return self._inside(_plain(math.ceil(_exact(low) / size) * size) if math.isfinite(low) else 0)

    def _next(self, value: Number, direction: Direction) -> Number:
        """The next rung, wherever the bounds are."""
        exact = _exact(value)
        if self.size is not None:
            rungs = exact / self.size
            return self._typed((math.floor(rungs) + 1 if direction > 0 else math.ceil(rungs) - 1) * self.size)
        if exact == 0:
            return direction * abs(self.default or USUAL_RATE)
        side = 1 if exact > 0 else -1
        return self._typed(side * _next_of_1_2_5(abs(exact), direction * side))

    def _inside(self, value: Number) -> Number:
        """The value within the bounds that is nearest, on a rung where a bound itself is not allowed."""
        bounds = self.bounds
        if bounds.allow(value):
            return self._typed(_exact(value))
        end, inwards = (bounds.high, -1) if value >= bounds.high else (bounds.low, 1)
        nearest = end if bounds.allow(end) else self._next(end, 1 if inwards > 0 else -1)
        return self._typed(_exact(nearest if bounds.allow(nearest) else (bounds.low + bounds.high) / 2))

    def _typed(self, exact: Fraction) -> Number:
        """A result as the field has it; what is too large for a float is infinite."""
        if self.whole or (self.mixed and exact.denominator == 1):
            return int(exact)
        try:
            return float(exact)
        except OverflowError:
            return math.copysign(math.inf, exact)


def steps_of(spec: Spec) -> Steps | None:
    """The rungs of a field that takes a number, maybe among other values; None for any other field."""
    return _read(spec.owner, spec.name) if spec.shape.arms & {"int", "float"} else None


@lru_cache(maxsize=4096)
def _read(owner: type[Section], name: str) -> Steps:
    """What the schema says; it never changes."""
    spec = Spec.of(owner, name, (name,))
    told = dict(_limits(markers_of(spec.info)))
    default = spec.default if is_number(spec.default) else None
    whole = "float" not in spec.shape.arms
    mixed = "int" in spec.shape.arms
    multiple = _exact(told["multiple_of"]) if "multiple_of" in told else Fraction(1) if whole else None
    bounds = _bounds(told, multiple)
    step = spec.ui.step
    if "multiple_of" in told:
        size = multiple
    elif step:
        size = None if step == "1-2-5" else _exact(step)
    else:
        size = multiple or _size(default, bounds)
    return Steps(size, bounds, default, USUAL_RATE if step == "1-2-5" else None, whole, mixed)


def is_number(value: object) -> TypeGuard[Number]:
    """True for a finite number; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _limits(markers: list[Any]) -> Iterator[tuple[str, Number]]:
    """`ge`, `gt`, `le`, `lt` and `multiple_of` of a field, the outermost last."""
    for marker in markers:
        if isinstance(marker, FieldInfo):
            yield from _limits(marker.metadata)
            continue
        for name in ("ge", "gt", "le", "lt", "multiple_of"):
            limit = getattr(marker, name, None)
            if is_number(limit):
                yield name, limit


def _bounds(told: dict[str, Number], multiple: Fraction | None) -> Bounds:
    """The bounds of a field. Where only multiples of a number are allowed they are such ones, and never open."""
    low, high = told.get("ge", -math.inf), told.get("le", math.inf)
    low_open, high_open = told.get("gt", -math.inf) >= low, told.get("lt", math.inf) <= high
    low, high = max(low, told.get("gt", low)), min(high, told.get("lt", high))
    if multiple is None:
        return Bounds(low, high, low_open and low != -math.inf, high_open and high != math.inf)
    if math.isfinite(low):
        rungs = _exact(low) / multiple
        low = _plain((math.floor(rungs) + 1 if low_open else math.ceil(rungs)) * multiple)
    if math.isfinite(high):
        rungs = _exact(high) / multiple
        high = _plain((math.ceil(rungs) - 1 if high_open else math.floor(rungs)) * multiple)
    return Bounds(low, high)


def _size(default: Number | None, bounds: Bounds) -> Fraction | None:
    """How far the rungs of a float are apart that nothing is said of; None for 1-2-5."""
    between = math.isfinite(bounds.low) and math.isfinite(bounds.high) and bounds.low < bounds.high
    if (default is None and not between) or (default is not None and 0 < abs(default) < SMALL):
        return None
    place = _last_place(default) if default else Fraction(1, 10)
    if not between:
        return place
    apart = (_exact(bounds.high) - _exact(bounds.low)) / RUNGS_BETWEEN_BOUNDS
    size = apart if _is_1_2_5(apart) else _next_of_1_2_5(apart, -1)
    return size if default is None or (_exact(default) / size).denominator == 1 else place


def _last_place(number: Number) -> Fraction:
    """The unit of the last decimal place of a number as it is written, 1 at most: 0.01 for 0.25."""
    exponent = Decimal(repr(number)).as_tuple().exponent
    assert isinstance(exponent, int), f"{number} is not finite"
    return Fraction(10) ** min(exponent, 0)


def _next_of_1_2_5(number: Fraction, direction: int) -> Fraction:
    """The next of 1, 2 and 5 times a power of ten above or below a positive number."""
    rungs = _around(number)
    return min(rung for rung in rungs if rung > number) if direction > 0 else max(r for r in rungs if r < number)


def _is_1_2_5(number: Fraction) -> bool:
    return number in _around(number)


def _around(number: Fraction) -> list[Fraction]:
    """The rungs of 1-2-5 about a positive number."""
    power = math.floor(math.log10(number.numerator) - math.log10(number.denominator))
    return [digit * Fraction(10) ** (power + by) for by in (-1, 0, 1) for digit in (1, 2, 5)]


def _exact(number: Number) -> Fraction:
    """A number as it is written: 0.1 is one tenth."""
    return Fraction(repr(number)) if isinstance(number, float) else Fraction(number)


def _plain(exact: Fraction) -> Number:
    return int(exact) if exact.denominator == 1 else float(exact)
