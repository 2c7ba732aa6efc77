"""Every key of the vocabulary, of every family, optimizer and adapter, is set and unset by what a browser sends.

`set_state` is what a message of the front end ends in. What has been clicked is compared with the object made in code.
"""

from __future__ import annotations

import random
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from dpnb import toml
from dpnb.errors import Loc
from dpnb.schema import Dataset, Directory, Training
from dpnb.schema.base import Section
from dpnb.schema.unions import tag_of
from dpnb.widgets.cards import SectionListControl
from dpnb.widgets.controls import ChoiceControl, EitherControl
from dpnb.widgets.form import Form
from dpnb.widgets.rows import Row
from dpnb.widgets.sections import NestedControl, Panel
from dpnb.widgets.shapes import Spec
from tests.dpnb.every_family import training
from tests.dpnb.random_section import drawn_value

ROOTS = {Training: training(), Dataset: Dataset(resolutions=[512], directory=[Directory(path="photos")])}


def places(cls: type[Section], loc: Loc = ()) -> Iterator[tuple[Loc, tuple[type[Section], ...]]]:
    """Every section below one: its place, and the classes on the way there, itself last."""
    yield loc, (cls,)
    for name in cls.model_fields:
        spec = Spec.of(cls, name, (*loc, name))
        for kind in spec.shape.sections:
            here = (*spec.loc, 0) if "list[section]" in spec.shape.arms else spec.loc
            yield from ((place, (cls, *way)) for place, way in places(kind, here))


EVERY = [(root, loc, way) for root in ROOTS for loc, way in places(root)]


def click(button: Any) -> None:
    button._handle_button_msg(None, {"event": "click"}, [])


def panel_at(form: Form[Any], loc: Loc, way: tuple[type[Section], ...]) -> Panel:
    """Open the page of a place, switch on and choose what stands on the way, and give its fields."""
    form._toggle.set_state({"value": True})
    if not loc:
        return _with_all_pages(form)
    position = next(i for i, page in enumerate(form._pages) if page.holds(loc))
    if form._tab is not None:
        form._tab.set_state({"selected_index": position})
    panel = form._pages[position].panel
    for name, kind in zip([part for part in loc if isinstance(part, str)], way[1:], strict=True):
        panel = _into(next(row for row in panel.rows if row.spec.name == name).control, kind)
    return panel


def _into(control: Any, kind: type[Section]) -> Panel:
    if isinstance(control, SectionListControl):
        if not control.cards:
            click(control.add)
        if not control.cards[0].unfolded:
            click(control.cards[0].fold)
        return control.cards[0].panel
    assert isinstance(control, NestedControl)
    if control.switch is not None:
        control.switch.set_state({"value": True})
    if control.kind is not None:
        control.kind.set_state({"index": list(control._members.values()).index(kind)})
    return control.panel


def _with_all_pages(form: Form[Any]) -> Panel:
    """The rows of every page as one panel's."""
    for position in range(len(form._pages) if form._tab is not None else 0):
        form._tab.set_state({"selected_index": position})
    panel = form._pages[0].panel
    panel.rows = [row for page in form._pages for row in page.panel.rows]
    return panel


def type_in(row: Row, value: Any) -> None:
    """Bring a value into a field as a person would."""
    control: Any = row.control
    if isinstance(control, ChoiceControl):
        index = next(i for i, (_, option) in enumerate(control._options) if option == value and option is not None)
        control.widget.set_state({"index": index})
    elif isinstance(control, EitherControl):
        mode = next(i for i, mode in enumerate(control.modes) if mode.fits(value))
        control.which.set_state({"index": mode + len(control.unset)})
        if (codec := control.modes[mode].codec) is not None:
            control.text.set_state({"value": codec.show(value)})
    else:
        widget = getattr(control, "text", getattr(control, "area", control.widget))
        shown = control.codec.show(value) if hasattr(control, "codec") else value
        widget.set_state({"value": "\n".join(shown) if isinstance(shown, list) else shown})


def drawn_values(cls: type[Section], rng: random.Random) -> dict[str, Any]:
    """A value other than its default for every key of a section that is no section itself."""
    values = {}
    for name in cls.model_fields:
        spec = Spec.of(cls, name, (name,))
        if spec.shape.holds_sections or (name == "type" and tag_of(cls)):
            continue
        tries = (drawn_value(spec, rng) for _ in range(400))
        values[name] = next(
            value for value in tries if value != spec.default and is_plain(value) and fits(cls, name, value)
        )
    return values


def fits(cls: type[Section], name: str, value: Any) -> bool:
    try:
        cls.model_validate({name: value})
    except ValidationError as error:
        return all(one["loc"] == () or one["loc"][0] != name for one in error.errors())
    return True


def is_plain(value: Any) -> bool:
    """Values whose notation is exact: a line break or a comma inside a name has no place in a list of names."""
    texts = [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, str)]
    return all(text == text.strip() and text and not set(text) & set("\n,") for text in texts)


def in_code(root: type[Section], loc: Loc, way: tuple[type[Section], ...], values: dict[str, Any]) -> dict[str, Any]:
    """What a file says that has these values at a place, made without a form."""
    data = tomllib.loads(toml.dump(ROOTS[root]))
    here = data
    kinds = iter(way[1:])
    for position, part in enumerate(loc):
        if isinstance(part, str):
            kind = next(kinds)
            fresh = {"type": tag_of(kind)} if tag_of(kind) else {}
            if loc[position + 1 : position + 2] == (0,):
                here.setdefault(part, [fresh])
            else:
                kept = here.get(part, {}).items()
                here[part] = {key: value for key, value in kept if key in kind.model_fields} | fresh
        here = here[part]
    here |= values
    return data


@pytest.mark.parametrize(
    ("root", "loc", "way"),
    EVERY,
    ids=[f"{'.'.join(map(str, loc)) or 'root'}-{way[-1].__name__}" for _, loc, way in EVERY],
)
def test_every_key_is_set_written_and_unset(root: type[Section], loc: Loc, way: tuple[type[Section], ...]) -> None:
    cls = way[-1]
    values = drawn_values(cls, random.Random(7))
    form = Form(ROOTS[root])
    panel = panel_at(form, loc, way)
    rows = [row for row in panel.rows if not row.nested]
    assert {row.spec.name for row in rows} == set(values)
    for row in rows:
        type_in(row, values[row.spec.name])
    assert form.draft.data_at(loc).items() >= _sealed(cls, values).items()
    wanted, _ = toml.validate(in_code(root, loc, way, values), root)
    made, _ = form.draft.validate()
    assert made == wanted
    if made is not None:
        text = toml.dump(made)
        assert text == toml.dump(wanted)
        assert toml.validate(tomllib.loads(text), root)[0] is not None
    for row in rows:
        unset(row)
    assert {name for name in form.draft.data_at(loc) if name in values} == set()
    form.close()


def _sealed(cls: type[Section], values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: SecretStr(value) if Spec.of(cls, name, (name,)).ui.secret else value for name, value in values.items()
    }


def unset(row: Row) -> None:
    """Press Reset where it is offered, else empty the field."""
    if row.reset is not None and "dpnb-hidden" not in row.reset._dom_classes:
        click(row.reset)
    elif isinstance(row.control, ChoiceControl):
        row.control.widget.set_state({"index": 0})
    else:
        control: Any = row.control
        getattr(control, "text", getattr(control, "area", control.widget)).set_state({"value": ""})
