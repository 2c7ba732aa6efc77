"""Every key of the vocabulary can be typed: what a field shows of a value reads back as that value."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from dpnb.schema import Dataset, Training
from dpnb.widgets.controls import ChoiceControl, EitherControl, SecretControl
from dpnb.widgets.draft import UNSET
from dpnb.widgets.form import Form
from dpnb.widgets.rows import Row
from dpnb.widgets.search import fields_now
from tests.dpnb.random_section import random_section


def rows(form: Form[Any]) -> Iterator[Row]:
    """A row of every field as things are, built for the occasion."""
    for spec in list(fields_now(form.draft, form.cls, ())):
        if not spec.shape.holds_sections:
            row = Row(form, spec)
            with form._writing():
                row.refresh()
            yield row
            row.close()


def typed_again(row: Row) -> Any:
    """What the field would hand on if a person typed what it shows."""
    control: Any = row.control
    if isinstance(control, ChoiceControl):
        return control.widget.value
    if isinstance(control, EitherControl):
        mode = control.modes[control.which.value] if control.which.value >= 0 else None
        return UNSET if mode is None else mode.value if mode.codec is None else mode.codec.parse(control.text.value)
    if getattr(control, "is_set", None) is not None and not control.is_set.value:
        return UNSET
    return control.read(getattr(control, "text", getattr(control, "area", control.widget)).value)


def is_plain(value: Any) -> bool:
    """Values whose notation is exact: a line break or a comma inside a name has no place in a list of names."""
    texts = [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, str)]
    return all(text == text.strip() and text and not set(text) & set("\n,") for text in texts)


@pytest.mark.parametrize("seed", range(30))
def test_what_is_shown_reads_back_as_the_value(seed: int) -> None:
    rng = random.Random(1000 + seed)
    section = random_section(rng.choice((Training, Dataset)), rng)
    form = Form(section)
    checked = 0
    for row in rows(form):
        value = form.draft.value(row.spec)
        if isinstance(row.control, SecretControl) or not is_plain(value):
            continue
        again = typed_again(row)
        assert again == value or (again is UNSET and value == row.spec.default), (row.spec.owner, row.spec.name, value)
        checked += 1
    assert checked > 20
    assert form.draft.validate()[0] == section
    form.close()
