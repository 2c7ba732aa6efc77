"""Steps of numbers: what the schema says of a field decides where a click on up or down leads."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Annotated, Any, Literal

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from pydantic import Field, PositiveInt, TypeAdapter, create_model

from dpnb.schema import Dataset, Training
from dpnb.schema.base import Section, Ui
from dpnb.widgets.fields import every_field
from dpnb.widgets.form import Form
from dpnb.widgets.shapes import Spec
from dpnb.widgets.stepping import Bounds, Steps, is_number, steps_of


def steps(kind: Any, default: Any = ...) -> Steps:
    made = create_model("Own", __base__=Section, it=(kind, default))
    found = steps_of(Spec.of(made, "it", ("it",)))
    assert found is not None
    return found


def climb(of: Steps, value: object, *directions: int) -> list[float]:
    seen = []
    for direction in directions:
        value = of.step(value, 1 if direction > 0 else -1)
        seen.append(value)
    return seen


RATE = Annotated[float, Field(ge=0), Ui(step="1-2-5")]
SHARE = Annotated[float, Field(ge=0, le=1)]
WIDTH = Annotated[int, Field(ge=10, le=100, multiple_of=16)]


@pytest.mark.parametrize(
    ("of", "value", "up", "down"),
    [
        (steps(int), 3, [4, 5], [2, 1]),
        (steps(int), 2**63 - 1, [2**63, 2**63 + 1], [2**63 - 2, 2**63 - 3]),
        (steps(int), 1000.0, [1001, 1002], [999, 998]),  # 1e3, as a file may have it
        (steps(PositiveInt), 1, [2, 3], [1, 1]),
        (steps(Annotated[int, Field(gt=0, lt=3)]), 2, [2, 2], [1, 1]),
        (steps(Annotated[int, Field(ge=1)] | None, None), None, [1, 2], [1, 1]),
        (steps(Annotated[int, Field(ge=16), Ui(step=64)], 512), None, [576, 640], [448, 384]),
        (steps(Annotated[int, Field(ge=16), Ui(step=64)]), 64, [128, 192], [16, 16]),
        (steps(WIDTH), 30, [32, 48], [16, 16]),
        (steps(WIDTH), 96, [96, 96], [80, 64]),
        (steps(WIDTH), 7, [16, 32], [16, 16]),
        (steps(RATE), 2e-5, [5e-5, 1e-4], [1e-5, 5e-6]),
        (steps(RATE), 3e-5, [5e-5, 1e-4], [2e-5, 1e-5]),
        (steps(RATE), 1e-3, [2e-3, 5e-3], [5e-4, 2e-4]),
        (steps(RATE), 0.0, [1e-4, 2e-4], [0.0, 0.0]),
        (steps(RATE), None, [1e-4, 2e-4], [1e-4, 5e-5]),
        (steps(RATE), "2e-", [1e-4, 2e-4], [1e-4, 5e-5]),
        (steps(RATE), -1.0, [0.0, 1e-4], [0.0, 0.0]),
        (steps(float, 1e-8), None, [2e-8, 5e-8], [5e-9, 2e-9]),
        (steps(float), None, [0.0, 1e-4], [0.0, -1e-4]),
        (steps(float), -2.0, [-1.0, -0.5], [-5.0, -10.0]),
        (steps(Annotated[float, Field(gt=0)] | None, None), None, [1.0, 2.0], [1.0, 0.5]),
        (steps(SHARE, 0.0), 0.1, [0.15, 0.2], [0.05, 0.0]),
        (steps(SHARE, 0.0), 0.97, [1.0, 1.0], [0.95, 0.9]),
        (steps(SHARE, 0.999), None, [1.0, 1.0], [0.998, 0.997]),
        (steps(SHARE, 0.0), 7.0, [1.0, 1.0], [1.0, 0.95]),
        (steps(Annotated[float, Field(gt=0, lt=1)], 0.9999), None, [0.9999, 0.9999], [0.9998, 0.9997]),
        (steps(Annotated[float, Field(gt=0, lt=1)], 0.9999), 1.0, [0.9999, 0.9999], [0.9999, 0.9998]),
        (steps(Annotated[float, Field(ge=0, le=180)], 0.0), 0.0, [5.0, 10.0], [0.0, 0.0]),
        (steps(float, 3.5), None, [3.6, 3.7], [3.4, 3.3]),
        (steps(float, 0.0), 0.1, [0.2, 0.3], [0.0, -0.1]),
        (steps(Annotated[int | float, Field(gt=0)], 1), None, [2, 3], [1, 1]),
        (steps(Annotated[int | float, Field(gt=0)], 1), 1.5, [2, 3], [1, 1]),
        (steps(Literal["auto"] | int, "auto"), 7, [8, 9], [6, 5]),
        (steps(Annotated[float, Field(gt=0, lt=1), Ui(step=5)]), None, [0.5, 0.5], [0.5, 0.5]),
    ],
)
def test_where_two_steps_lead(of: Steps, value: object, up: list[float], down: list[float]) -> None:
    for wanted, direction in ((up, 1), (down, -1)):
        found = climb(of, value, direction, direction)
        assert found == wanted
        assert [type(number) for number in found] == [type(number) for number in wanted]


def test_only_numbers_have_steps() -> None:
    for kind in (str, bool, list[int], list[list[int]], Literal["a", "b"], dict[str, float]):
        made = create_model("Own", __base__=Section, it=(kind, ...))
        assert steps_of(Spec.of(made, "it", ("it",))) is None
    assert [is_number(value) for value in (1, 0.5, True, "1", None, math.nan, math.inf)] == [True, True, *[False] * 5]


# What a field may be: bounds of any kind around what is stepped, with and without a default.
FINITE = st.floats(-1e6, 1e6).map(lambda number: float(f"{number:.4g}"))


@st.composite
def fields(draw: st.DrawFn) -> Steps:
    """Any field with steps whose bounds leave room."""
    whole = draw(st.booleans())
    number = st.integers(-(10**6), 10**6) if whole else FINITE
    low, high = sorted(draw(st.tuples(number, number)))
    assume(high - low > (2 if whole else 1e-3))
    limits: dict[str, Any] = {}
    if (end := draw(st.sampled_from(["ge", "gt", ""]))) != "":
        limits[end] = low
    if (end := draw(st.sampled_from(["le", "lt", ""]))) != "":
        limits[end] = high
    step = draw(st.sampled_from([0, 2, 64] if whole else [0, 0.05, 3, "1-2-5"]))
    kind = Annotated[int if whole else float, Field(**limits), Ui(step=step)]
    inside = low + 1 if whole else (low + high) / 2
    return steps(kind, draw(st.sampled_from([..., inside])))


VALUES = st.one_of(st.integers(-(2**70), 2**70), st.floats(allow_nan=True), st.none(), st.just("words"))


@given(fields(), VALUES, st.lists(st.sampled_from([1, -1]), min_size=1, max_size=8))
def test_no_step_leaves_the_bounds(of: Steps, value: object, directions: list[int]) -> None:
    for number in climb(of, value, *directions):
        assert of.bounds.allow(number)
        assert isinstance(number, int if of.whole else float)


@given(fields(), st.integers(-(10**7), 10**7) | st.floats(-1e7, 1e7), st.sampled_from([1, -1]))
@example(steps(SHARE, 0.0), 0.1, 1)
@example(steps(RATE), 1e-5, -1)
def test_a_step_and_the_step_back_end_where_they_began(of: Steps, value: float, direction: int) -> None:
    rung, there, back = climb(of, value, direction, direction, -direction)
    assume(of.bounds.allow(value) and is_rung(of, rung) and rung != 0)
    assert rung in (back, there)  # it stays where the next rung is out of bounds


def is_rung(of: Steps, number: float) -> bool:
    exact = Fraction(repr(number)) if isinstance(number, float) else Fraction(number)
    if of.size is not None:
        return (exact / of.size).denominator == 1
    return number != 0 and f"{abs(number):e}"[0] in "125" and float(f"{number:.0e}") == number


@given(st.integers(1, 400), st.sampled_from([0.05, 0.1, 0.01, 0.002]))
def test_many_steps_bring_no_binary_noise(count: int, size: float) -> None:
    number = climb(Steps(Fraction(repr(size)), Bounds()), 0.0, *[1] * count)[-1]
    assert number == float(count * Fraction(repr(size)))
    assert len(repr(number)) <= len("400.002")


def test_steps_of_every_number_of_the_vocabulary_are_valid() -> None:
    for spec in every_field(Training, Dataset):
        of = steps_of(spec)
        if of is not None:
            field = TypeAdapter(
                Annotated[(spec.info.annotation, *spec.info.metadata, spec.ui)], config={"strict": True}
            )
            for number in (*climb(of, None, 1, 1, 1), *climb(of, None, -1, -1, -1)):
                field.validate_python(number)


# --- in a form -------------------------------------------------------------------------------------------------------


class Own(Section):
    """A section of one's own, with the fields that have steps."""

    lr: Annotated[float, Field(ge=0), Ui(step="1-2-5")] = 1e-4
    rounds: Annotated[int, Field(ge=1, le=3)]
    batch: int | list[list[int]] = 1
    name: str = ""


@pytest.fixture
def form() -> Iterator[Form[Own]]:
    made = Form(Own)
    yield made
    made.close()


def row(form: Form[Own], name: str) -> Any:
    return next(row for row in form._pages[0].panel.rows if row.spec.name == name)


def test_buttons_step_what_was_typed_and_say_of_which_field(form: Form[Own]) -> None:
    lr = row(form, "lr")
    down, up = lr._step_buttons
    assert (down.description, up.description) == ("LR: one step down", "LR: one step up")
    up.click()
    assert (lr.control.widget.value, form.data["lr"]) == ("2e-4", 2e-4)
    lr.control.widget.value = "3e-5"
    down.click()
    assert (lr.control.widget.value, form.data["lr"]) == ("2e-5", 2e-5)
    assert "default: 1e-4" in lr.note.value
    form.undo()
    assert lr.control.widget.value == "3e-5"


def test_buttons_begin_where_nothing_is_set_and_stay_within_bounds(form: Form[Own]) -> None:
    rounds = row(form, "rounds")
    _, up = rounds._step_buttons
    for wanted in ("1", "2", "3", "3"):
        up.click()
        assert rounds.control.widget.value == wanted
    assert form.value.rounds == 3


def test_buttons_are_there_for_numbers_alone(form: Form[Own]) -> None:
    assert row(form, "name")._step_buttons == ()
    batch = row(form, "batch")
    for typed, there in (("2", True), ("[512, 4]", False), ("many", False), ("", True)):
        batch.control.widget.value = typed
        assert ["dpnb-hidden" not in button._dom_classes for button in batch._step_buttons] == [there, there]
