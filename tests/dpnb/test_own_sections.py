"""A form of somebody's own section: what a TOML file can hold has a field, and what it cannot is told with advice."""

from __future__ import annotations

import enum
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, SecretStr, create_model

from dpnb import toml
from dpnb.errors import ConfigError
from dpnb.schema.base import Section, Ui
from dpnb.schema.unions import one_of
from dpnb.widgets.form import Form


class Mean(Section):
    """The mean of it."""

    type: Literal["mean"] = "mean"
    window: int = 3


class Peak(Section):
    """The highest of it."""

    type: Literal["peak"] = "peak"
    label: str = ""


class Step(Section):
    """One step of a study."""

    name: str
    measures: list[one_of(Mean, Peak)] = []  # type: ignore[valid-type]
    last: one_of(Mean, Peak) | None = None  # type: ignore[valid-type]


class Study(Section):
    """A study, with steps in steps."""

    title: str = ""
    steps: list[Step] = []
    inner: Study | None = None


def section(kind: Any, default: Any = None) -> type[Section]:
    """A section with one field of a kind, which may be left out."""
    made = create_model("Own", __base__=Section, it=(kind if default is not None else kind | None, default))
    assert issubclass(made, Section)
    return made


def row(form: Form[Any]) -> Any:
    return form._pages[0].panel.rows[0]


@pytest.mark.parametrize(
    ("kind", "typed", "value"),
    [
        (int | str, "12", 12),
        (int | str, "twelve", "twelve"),
        (int | str, '"12"', "12"),
        (float | str, "1e-4", 1e-4),
        (bool | int, "true", True),
        (bool | float, "0.5", 0.5),
        (Literal["auto"] | int, "auto", "auto"),
        (Literal["auto"] | int, "7", 7),
        (Literal["auto"] | list[float], "[0.5, 1]", [0.5, 1]),
        (int | list[int], "4", 4),
        (int | list[int], "4, 5", [4, 5]),
        (list[bool], "true, false", [True, False]),
        (list[Literal["a", "b"]], '["a", "b"]', ["a", "b"]),
        (list[list[str]], '[["a", "b"], ["c"]]', [["a", "b"], ["c"]]),
        (list[int | str], '[1, "a"]', [1, "a"]),
        (list[list[list[int]]], "[[[1]]]", [[[1]]]),
        (str | list[str] | bool, "true", True),
        (date, "2026-01-31", date(2026, 1, 31)),
        (datetime, "2026-01-31T10:20:30", datetime(2026, 1, 31, 10, 20, 30)),
        (dict[str, float], "first = 0.5\nsecond = 1.0", {"first": 0.5, "second": 1.0}),
        (dict[str, dict[str, int]], "[a]\nb = 1", {"a": {"b": 1}}),
        (dict[str, Any], 'a = ["x"]', {"a": ["x"]}),
        (list[Any], '[1, "x", true]', [1, "x", True]),
    ],
    ids=str,
)
def test_a_value_is_typed_shown_written_read_and_told_as_code(
    kind: Any, typed: str, value: Any, tmp_path: Path
) -> None:
    form = Form(section(kind))
    control = row(form).control
    control.widget.value = typed
    assert form.value.it == value
    assert type(form.value.it) is type(value)
    assert control.read(control.codec.show(value)) == value
    assert toml.load(form.save(tmp_path / "own.toml"), form.cls).value == form.value
    made: dict[str, Any] = {"Own": form.cls}
    exec(form.code().replace(f"from {form.cls.__module__} import Own\n", ""), made)  # noqa: S102 - what it made itself
    assert made["own"] == form.value
    control.widget.value = ""
    assert form.data == {}
    form.close()


@pytest.mark.parametrize(
    ("kind", "typed", "message"),
    [
        (
            Literal["auto"] | int,
            "atuo",
            "'atuo' is not known here; expected 'auto' or a whole number. Did you mean 'auto'",
        ),
        (Literal["auto"] | int, "1.5", "1.5 is a number; expected 'auto' or a whole number."),
        (Literal["auto"] | int, "'12'", "expected 'auto' or a whole number. Write 12 without quotes."),
        (
            bool | Literal["some"] | float,
            "'yes'",
            "expected true, false, 'some' or a number.",
        ),
        (Literal[1, 2] | str, "3", "3 is a whole number; expected 1, 2 or a text in quotes."),
        (list[Literal["a"] | int], '["b"]', "'b' is not known here; expected 'a' or a whole number."),
        (list[Literal["a"] | int], "[1.5]", "1.5 is a number; expected 'a' or a whole number."),
        (list[Literal[1, "b c", "a or b"]], "[3]", "3 is not one of 1, b c, a or b."),
        (Literal["a"] | list[Literal["b", "c"]], "d", "'d' is not known here; expected 'a' or a list of 'b' or 'c'."),
        (Literal["a"] | list[Literal["b", "c"]], '["d"]', "'d' is not one of b, c."),
        (date, "tomorrow", "'tomorrow' is a text; expected a date such as 2026-01-31."),
        (datetime, "2026", "2026 is a whole number; expected a time such as 2026-01-31T12:30:00."),
        (time, "late", "'late' is a text; expected a time such as 12:30:00."),
        (dict[str, float], "first = half", "expected a table. Write one `key = value` a line, texts in"),
        (dict[str, float], "first = 0.5\nlast = 'half'", "<b>last</b>: 'half' is a text; expected a number."),
        (dict[str, Literal["a"] | int], "x = 'b'", "'b' is not known here; expected 'a' or a whole number."),
        (dict[str, list[int]], "x = ['b']", "'b' is a text; expected a whole number."),
        (list[bool], "true, perhaps", "perhaps"),
    ],
    ids=str,
)
def test_what_is_wrong_stands_beside_the_field(kind: Any, typed: str, message: str) -> None:
    form = Form(section(kind))
    row(form).control.widget.value = typed
    assert message in row(form).note.value.replace("&#x27;", "'")
    assert row(form).control.widget.value == typed
    form.close()


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@pytest.mark.parametrize(
    ("kind", "advice"),
    [
        (
            tuple[int, int],
            r"Own.it \(tuple\[int, int\]\). A TOML file holds no such value: write `list\[int\]`, with `Fi",
        ),
        (set[str], r"write `list\[str\]`. Or add a widget with dpnb.widgets.fields.register"),
        (Colour, r"Own.it \(Colour\). A TOML file holds no such value: write `Literal\['red', 'blue'\]`"),
        (Path, r"write `Annotated\[str, Ui\(path='dir'\)\]` \(or 'file', 'path', 'output_dir'\)"),
        (timedelta, r"write `Annotated\[float, Ui\(unit='seconds'\)\]`"),
        (complex, "write text, a number, yes or no, a date, a list or a table"),
        (dict[int, str], "write text, a number, yes or no, a date, a list or a table"),
        (list[list[Mean]], "Sections stand alone, as a union of sections, or in a list"),
        (dict[str, Mean], "Sections stand alone, as a union of sections, or in a list"),
        (Step | Study, r"Nobody can tell these sections apart: give each a `type: Literal\['name'\] = 'name'`"),
        (list[SecretStr], "A secret is a single text"),
    ],
    ids=str,
)
def test_what_has_no_field_is_told_before_anything_is_built(kind: Any, advice: str) -> None:
    inside = create_model("Outer", __base__=Section, one=(int, 1), two=(int, 2), own=(section(kind) | None, None))
    with pytest.raises(TypeError, match=advice):
        Form(inside)


def test_a_list_takes_sections_of_several_kinds(tmp_path: Path) -> None:
    form = Form(Study(steps=[Step(name="a", measures=[Mean(window=5), Peak(label="top")])]))
    measures = control_at(form, ("steps", 0, "measures"))
    assert [card.fold.description for card in measures.cards] == ["▾ Item 1", "▾ Item 2: top"]
    measures.cards[0].panel.kind.value = "peak"
    measures.cards[0].panel.panel.rows[0].control.widget.value = "high"
    measures.add.click()
    wanted = [Peak(label="high"), Peak(label="top"), Mean()]
    assert form.value.steps[0].measures == wanted
    measures.cards[0].down.click()
    assert form.value.steps[0].measures == [wanted[1], wanted[0], wanted[2]]
    form._search.value = "label"
    assert len(form.results.rows) == 2
    assert toml.load(form.save(tmp_path / "study.toml"), Study).value == form.value
    form.close()


def control_at(form: Form[Any], loc: tuple[str | int, ...]) -> Any:
    """The control of a field in a list of sections on one of the pages."""
    page = next(page for page in form._pages if page.holds(loc))
    form._tab.selected_index = form._pages.index(page)
    card = page.panel.rows[[row.spec.name for row in page.panel.rows].index(loc[0])].control.cards[loc[1]]
    return next(row.control for row in card.panel.rows if row.spec.name == loc[2])


def test_a_section_may_hold_its_own_kind() -> None:
    form = Form(Study)
    form._search.value = "title"
    assert [spec.loc for spec in (row.spec for row in form.results.rows.values())] == [("title",), ("inner", "title")]
    form.set("inner.inner.title", "deep")
    assert form.value.inner.inner.title == "deep"
    form._search.value = "title "
    form.redraw()
    assert len(form.results.rows) == 4
    form.close()


def test_bounds_units_and_help_of_an_own_section_are_shown() -> None:
    class Oven(Section):
        degrees: Annotated[int, Field(ge=0, le=300), Ui(unit="°C")] = 180
        """How hot it is."""

    form = Form(Oven)
    assert row(form).control.widget.description == "Degrees (°C)"
    assert "How hot it is." in row(form).note.value
    row(form).control.widget.value = "400"
    assert "300" in row(form).note.value
    form.close()


def test_a_wrong_value_of_a_table_is_told_with_its_key_and_line(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text("[it]\nfirst = 0.5\nlast = [1, 'half']\n")
    with pytest.raises(ConfigError) as caught:
        toml.load(file, section(dict[str, float | list[int]]))
    assert str(caught.value) == f"{file}:3:12: error: it.last[1]: 'half' is a text; expected a whole number."
