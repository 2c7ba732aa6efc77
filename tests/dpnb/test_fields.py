"""The table of widgets takes every field once; each control shows, reads and clears its kind of value."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import ConfigDict, SecretStr

from dpnb.schema import Dataset, Training
from dpnb.schema.base import Section, Ui
from dpnb.schema.unions import one_of
from dpnb.widgets import controls, fields
from dpnb.widgets.fields import Kind, every_field, kind_of
from dpnb.widgets.form import Form
from dpnb.widgets.shapes import Spec, label_of, shape_of


class Cat(Section):
    """A cat."""

    type: Literal["cat"] = "cat"
    name: str = ""
    lives: int = 9


class Dog(Section):
    """A dog."""

    type: Literal["dog"] = "dog"
    name: str = ""
    tricks: list[str] = []


class Toy(Section):
    """A toy."""

    title: str


class Keeper(Section):
    """Takes whatever further keys there are."""

    model_config = ConfigDict(extra="allow")

    name: str = ""


class Zoo(Section):
    """One field of each kind."""

    whole: int = 1
    fraction: float = 2e-5
    number: int | float | None = None
    flag: bool = False
    maybe: bool | None = None
    choice: Literal["a", "b"] = "a"
    maybe_choice: Literal["a", "b"] | None = None
    text: str = "hello"
    maybe_text: str | None = None
    long: Annotated[str, Ui(multiline=True)] = ""
    named: Annotated[str, Ui(suggestions=("red", "blue"))] = "red"
    folder: Annotated[str | None, Ui(path="dir")] = None
    weights: Annotated[list[str], Ui(path="file")] = []
    parts: Annotated[str | list[str] | None, Ui(path="file")] = None
    key: Annotated[SecretStr | None, Ui(secret=True)] = None
    numbers: list[float] = [0.9, 0.999]
    pairs: list[list[int]] | None = None
    batch: int | list[list[int]] = 1
    sizes: list[int | float] | list[list[int]] | None = None
    names: list[str] | None = None
    names_or_text: list[str] | str | None = None
    free: dict[str, float] = {}
    resume: bool | str = False
    recompute: bool | Literal["unsloth"] = False
    toys: list[Toy] = []
    favourite: Toy | None = None
    keeper: Keeper | None = None
    pet: one_of(Cat, Dog) = Cat()  # type: ignore[valid-type]


def control(form: Form[Zoo], name: str) -> object:
    """The control of a field on the first page that has it."""
    for page in form._pages:
        for row in page.panel.rows if page.panel is not None else []:
            if row.spec.name == name:
                return row.control
    raise AssertionError(name)


def entry(form: Form[Zoo], name: str) -> object:
    """The input of a field's control, which may stand in a box with a button."""
    found = control(form, name)
    return getattr(found, "text", found.widget)


@pytest.fixture
def form() -> Form[Zoo]:
    made = Form(Zoo)
    for position in range(len(made._pages)):
        made._tab.selected_index = position
    yield made
    made.close()


@pytest.mark.parametrize(
    "spec", list(every_field(Training, Dataset, Zoo)), ids=lambda s: f"{s.owner.__name__}.{s.name}"
)
def test_exactly_one_row_takes_each_field(spec: Spec) -> None:
    assert kind_of(spec) in fields.TABLE


def test_every_row_is_used() -> None:
    used = {kind_of(spec).name for spec in every_field(Training, Dataset, Zoo)}
    assert used == {kind.name for kind in fields.TABLE}


def test_the_zoo_has_every_kind() -> None:
    assert {kind_of(spec).name for spec in every_field(Zoo)} == {kind.name for kind in fields.TABLE}


def test_a_field_without_a_row_is_named() -> None:
    class Odd(Section):
        pair: tuple[int, int] = (1, 2)

    with pytest.raises(TypeError, match=r"no kind of widget takes Odd.pair \(tuple\[int, int\]\). A TOML file holds"):
        Form(Odd)


def test_a_field_with_two_rows_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fields, "TABLE", [*fields.TABLE])
    fields.register(Kind("second", lambda s: s.shape.arms == {"int"}, fields.TABLE[0].build))
    with pytest.raises(TypeError, match=r"Zoo.whole \(int\) is taken by 2 kinds of widget: integer, second"):
        Form(Zoo)


def test_shapes_fold_unions_and_annotations() -> None:
    assert shape_of(Annotated[int, "x"] | None).arms == {"int"}
    assert shape_of(Annotated[int, "x"] | None).optional
    assert shape_of(int | list[list[int]]).arms == {"int", "list[list[number]]"}
    assert shape_of(one_of(Cat, Dog)).sections == (Cat, Dog)
    assert shape_of(Literal["a", "b"]).choices == ("a", "b")


@pytest.mark.parametrize(
    ("key", "label"),
    [
        ("lr", "LR"),
        ("save_every_n_steps", "Save every n steps"),
        ("micro_batch_size_per_gpu", "Micro batch size per GPU"),
    ],
)
def test_a_label_is_the_key_in_words(key: str, label: str) -> None:
    assert label_of(key) == label


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (controls.parse_number, " 7 ", 7),
        (controls.parse_number, "1_000", 1000),
        (controls.parse_number, "2e-5", 2e-5),
        (controls.parse_number, "seven", "seven"),
        (controls.parse_float, "1", 1.0),
        (controls.parse_numbers, "0.9, .999", [0.9, 0.999]),
        (controls.parse_numbers, "[512, 768]", [512, 768]),
        (controls.parse_list, "[512, 4], [1024, 1]", [[512, 4], [1024, 1]]),
        (controls.parse_list, "[[512, 4], [1024, 1]]", [[512, 4], [1024, 1]]),
        (controls.parse_list, "[1280, 720]", [[1280, 720]]),
        (controls.parse_list, "1280x720; 960 x 544", [[1280, 720], [960, 544]]),
        (controls.parse_list, "512, 4; 1024, 1", [[512, 4], [1024, 1]]),
        (controls.parse_list, "512, four", "512, four"),
        (controls.parse_number_or_list, "4", 4),
        (controls.parse_number_or_list, "[512, 4]", [[512, 4]]),
        (controls.parse_names, "to_q, to_k,", ["to_q", "to_k"]),
    ],
)
def test_notations(parse: object, text: str, value: object) -> None:
    assert parse(text) == value


@pytest.mark.parametrize(
    ("value", "text"), [(2e-5, "2e-5"), (1e-10, "1e-10"), (1.0, "1.0"), (3, "3"), (0.001, "0.001"), ("2e-", "2e-")]
)
def test_numbers_are_shown_as_people_write_them(value: object, text: str) -> None:
    assert controls.show_number(value) == text


@pytest.mark.parametrize(
    ("name", "typed", "value"),
    [
        ("whole", "12", 12),
        ("fraction", "3e-5", 3e-5),
        ("number", "0.5", 0.5),
        ("flag", True, True),
        ("maybe", False, False),
        ("choice", "b", "b"),
        ("maybe_choice", "a", "a"),
        ("long", "two\nlines", "two\nlines"),
        ("named", "green", "green"),
        ("numbers", "0.5, 0.6", [0.5, 0.6]),
        ("pairs", "[1, 2]", [[1, 2]]),
        ("batch", "[512, 4]", [[512, 4]]),
        ("sizes", "512, 768", [512, 768]),
        ("names", "a, b", ["a", "b"]),
        ("free", "a = 0.5", {"a": 0.5}),
    ],
)
def test_what_is_typed_is_the_value(form: Form[Zoo], name: str, typed: object, value: object) -> None:
    control(form, name).widget.value = typed
    assert getattr(form.value, name) == value


def test_an_emptied_field_leaves_the_key_out(form: Form[Zoo]) -> None:
    for name in ("whole", "number", "folder", "pairs"):
        form.set(name, {"whole": 5, "number": 2, "folder": "x", "pairs": [[1]]}[name])
        entry(form, name).value = ""
    assert form.data.keys().isdisjoint({"whole", "number", "folder", "pairs"})
    assert control(form, "whole").widget.value == "1"
    assert control(form, "number").widget.placeholder == "not set"


def test_a_persons_notation_stays(form: Form[Zoo]) -> None:
    widget = control(form, "fraction").widget
    widget.value = "0.00003"
    assert widget.value == "0.00003"
    form.set("fraction", 4e-5)
    assert widget.value == "4e-5"


def test_optional_text_tells_empty_from_unset(form: Form[Zoo]) -> None:
    text = control(form, "maybe_text")
    text.is_set.value = True
    assert form.value.maybe_text == ""
    text.area.value = "words"
    assert form.value.maybe_text == "words"
    text.is_set.value = False
    assert form.value.maybe_text is None


def test_a_notation_can_be_chosen(form: Form[Zoo]) -> None:
    resume = control(form, "resume")
    resume.which.value = 1
    assert form.value.resume is True
    resume.which.value = 2
    resume.text.value = "20260101_00-00-00"
    assert form.value.resume == "20260101_00-00-00"
    names = control(form, "names_or_text")
    names.which.value = 0
    names.text.value = "a, b"
    assert form.value.names_or_text == ["a", "b"]
    names.which.value = -1
    assert form.value.names_or_text is None


def test_a_secret_leaves_the_widget_at_once(form: Form[Zoo]) -> None:
    key = control(form, "key")
    key.widget.value = "hunter2"
    assert form.value.key.get_secret_value() == "hunter2"
    assert "hunter2" not in str(key.widget.get_state())
    assert key.widget.placeholder == "set (hidden)"
    assert "hunter2" not in form.toml
    assert "hunter2" not in repr(form)


def test_labels_are_tied_to_their_inputs(form: Form[Zoo]) -> None:
    # `description` becomes a <label for=...>; a separate Label widget would say nothing to a screen reader.
    for name in ("whole", "flag", "choice", "long", "folder", "key"):
        assert entry(form, name).description == label_of(name)


def test_sections_can_be_added_moved_and_removed(form: Form[Zoo]) -> None:
    toys = control(form, "toys")
    toys.add.click()
    toys.add.click()
    for position, title in enumerate(("ball", "bone")):
        toys.panels[position].rows[0].control.widget.value = title
    assert [toy.title for toy in form.value.toys] == ["ball", "bone"]
    button(toys, 0, "Move down").click()
    assert [toy.title for toy in form.value.toys] == ["bone", "ball"]
    assert toys.panels[0].rows[0].control.widget.value == "bone"
    button(toys, 0, "Remove").click()
    assert [toy.title for toy in form.value.toys] == ["ball"]
    button(toys, 0, "Remove").click()
    assert form.value.toys == []


def button(toys: object, position: int, text: str) -> object:
    head = toys.cards[position].widget.children
    return next(child for child in head if getattr(child, "description", "") == text)


def test_an_optional_section_comes_back_as_it_was(form: Form[Zoo]) -> None:
    favourite = control(form, "favourite")
    favourite.switch.value = True
    favourite.panel.rows[0].control.widget.value = "ball"
    favourite.switch.value = False
    assert form.value.favourite is None
    favourite.switch.value = True
    assert form.value.favourite == Toy(title="ball")


def test_switching_a_variant_keeps_what_is_shared_and_brings_back_the_rest(form: Form[Zoo]) -> None:
    pet = control(form, "pet")
    form.set("pet.name", "Mia")
    form.set("pet.lives", 7)
    pet.kind.value = "dog"
    assert form.value.pet == Dog(name="Mia")
    form.set("pet.name", "Rex")
    form.set("pet.tricks", ["sit"])
    pet.kind.value = "cat"
    assert form.value.pet == Cat(name="Rex", lives=7)
    form.set("pet.name", None)
    pet.kind.value = "dog"
    assert form.value.pet == Dog(tricks=["sit"])


def test_an_unknown_choice_is_shown_and_reported(form: Form[Zoo]) -> None:
    form.set("choice", "z")
    assert control(form, "choice").widget.value == "z"
    assert [problem.message for problem in form.problems] == ["'z' is not one of a, b."]
