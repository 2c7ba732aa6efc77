"""The table from kind of field to widget: exactly one row matches each field of the schema.

A row says which arms of an annotation (shapes.py) it takes, with what `Ui` hint where arms alone do not tell, and how
its control is built. To teach forms a new kind of field, add a row with `register`; a field that two rows match is a
`TypeError` that names it. What no row takes but a TOML file can hold is typed as TOML (any_value.py); anything else is
a `TypeError` too. A test walks every field of the schema, so that each field of ours has a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

from dpnb.schema.base import Section
from dpnb.widgets import any_value
from dpnb.widgets import controls as c
from dpnb.widgets.cards import SectionListControl
from dpnb.widgets.sections import NestedControl
from dpnb.widgets.shapes import Spec, shape_of
from dpnb.widgets.stepping import steps_of

Build = Callable[[c.Host, Spec], c.Control]
Match = Callable[[Spec], bool]


@dataclass(frozen=True, slots=True)
class Kind:
    """One row: a name, the fields it takes, and what it builds."""

    name: str
    matches: Match
    build: Build


def _arms(*names: str, also: Match = lambda spec: True) -> Match:
    wanted = frozenset(names)
    return lambda spec: spec.shape.arms == wanted and also(spec) and (not spec.ui.secret or wanted != {"str"})


def _text(codec: c.Codec) -> Build:
    return lambda host, spec: c.TextControl(host, spec, codec)


def _float(host: c.Host, spec: Spec) -> c.Control:
    """What goes up and down by orders of magnitude is written so."""
    steps = steps_of(spec)
    return c.TextControl(host, spec, c.RATE if steps is not None and steps.size is None else c.FLOAT)


def _is_path(spec: Spec) -> bool:
    return spec.ui.path is not None


def _is_no_path(spec: Spec) -> bool:
    return spec.ui.path is None


def _names_or_text(host: c.Host, spec: Spec) -> c.Control:
    return c.EitherControl(host, spec, _NAMES_OR_TEXT)


def _choices(host: c.Host, spec: Spec) -> c.Control:
    return c.ChoiceControl(host, spec, [(str(value), value) for value in spec.shape.choices])


def _yes_no_or_choice(host: c.Host, spec: Spec) -> c.Control:
    options = [("no", False), ("yes", True), *((str(value), value) for value in spec.shape.choices)]
    return c.ChoiceControl(host, spec, options)


def _yes_no_unset(host: c.Host, spec: Spec) -> c.Control:
    return c.ChoiceControl(host, spec, [("yes", True), ("no", False)])


def _as_toml(host: c.Host, spec: Spec) -> c.Control:
    return c.TextControl(host, spec, any_value.value_codec(spec.shape))


_BOOL_OR_TEXT = (
    c.Mode("no", lambda value: value is False, value=False),
    c.Mode("yes", lambda value: value is True, value=True),
    c.Mode("name", lambda value: not isinstance(value, bool), codec=c.WORDS),
)
_NAMES_OR_TEXT = (
    c.Mode("several, with commas", lambda value: isinstance(value, list), codec=c.NAMES),
    c.Mode("one text", lambda value: not isinstance(value, list), codec=c.WORDS),
)

TABLE: list[Kind] = [
    Kind("secret", lambda s: s.shape.arms == {"secret"} or (s.ui.secret and s.shape.arms == {"str"}), c.SecretControl),
    Kind("path", _arms("str", also=_is_path), c.PathControl),
    Kind("list of paths", _arms("list[str]", also=_is_path), c.PathsControl),
    Kind("path or list of paths", _arms("str", "list[str]", also=_is_path), c.PathsControl),
    Kind("suggested text", _arms("str", also=lambda s: bool(s.ui.suggestions) and not _is_path(s)), _text(c.WORDS)),
    Kind("free text", _arms("str", also=lambda s: not s.ui.suggestions and not _is_path(s)), c.ProseControl),
    Kind("integer", _arms("int"), _text(c.NUMBER)),
    Kind("float", _arms("float"), _float),
    Kind("number", _arms("int", "float"), _text(c.NUMBER)),
    Kind("yes or no", _arms("bool", also=lambda s: not s.shape.optional), c.CheckControl),
    Kind("yes, no or not set", _arms("bool", also=lambda s: s.shape.optional), _yes_no_unset),
    Kind("choice", _arms("choice"), _choices),
    Kind("yes, no or a choice", _arms("bool", "choice"), _yes_no_or_choice),
    Kind("list of numbers", _arms("list[number]"), _text(c.NUMBERS)),
    Kind("list of pairs", _arms("list[list[number]]"), _text(c.PAIRS)),
    Kind("number or list of pairs", _arms("int", "list[list[number]]"), _text(c.NUMBER_OR_PAIRS)),
    Kind("list of numbers or of pairs", _arms("list[number]", "list[list[number]]"), _text(c.NUMBERS_OR_PAIRS)),
    Kind("list of text", _arms("list[str]", also=_is_no_path), _text(c.NAMES)),
    Kind("text or list of text", _arms("str", "list[str]", also=_is_no_path), _names_or_text),
    Kind("yes, no or text", _arms("bool", "str"), lambda h, s: c.EitherControl(h, s, _BOOL_OR_TEXT)),
    Kind("table of free keys", lambda s: s.is_table and any_value.holds_any(s), _text(any_value.TABLE_LINES)),
    Kind("nested section", _arms("section", also=lambda s: any_value.told_apart(s.shape)), NestedControl),
    Kind("list of sections", _arms("list[section]", also=lambda s: any_value.told_apart(s.shape)), SectionListControl),
]


OTHER = Kind("any value of TOML", any_value.holds_any, _as_toml)


def register(kind: Kind) -> None:
    """Add a row for a kind of field that the table lacks."""
    TABLE.append(kind)


def kind_of(spec: Spec) -> Kind:
    """The one row that takes a field, or `OTHER`. Raises `TypeError` where nothing does, or several rows do."""
    rows = [kind for kind in TABLE if kind.matches(spec)]
    if len(rows) == 1:
        return rows[0]
    if not rows and OTHER.matches(spec):
        return OTHER
    where = f"{spec.owner.__name__}.{spec.name}"
    what = " | ".join(sorted(spec.shape.arms))
    if rows:
        names = ", ".join(kind.name for kind in rows)
        raise TypeError(
            f"{where} ({what}) is taken by {len(rows)} kinds of widget: {names}. Make their rows exclude each other."
        )
    raise TypeError(
        f"no kind of widget takes {where} ({what}). {any_value.advice(spec.shape)} "
        "Or add a widget with dpnb.widgets.fields.register(Kind(...))."
    )


@cache
def check_fields(cls: type[Section]) -> None:
    """See that every field below a section has a widget, before a page with one that has none is opened.

    Raises `TypeError` as `kind_of` does; a section that passed once is not looked at again.
    """
    for spec in every_field(cls):
        kind_of(spec)


def every_field(*roots: type[Section]) -> Iterator[Spec]:
    """Every field of the given sections and of all sections below them, union members and list items included."""
    seen: set[type[Section]] = set()
    waiting = list(roots)
    while waiting:
        owner = waiting.pop(0)
        if owner in seen:
            continue
        seen.add(owner)
        for name, info in owner.model_fields.items():
            yield Spec.of(owner, name, (name,))
            waiting += shape_of(info.annotation).sections
