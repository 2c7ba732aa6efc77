"""Draft, further parameters and history: the truth behind a form, without a widget."""

from __future__ import annotations

import random
from typing import Annotated, Any

import pytest
from pydantic import SecretStr

from dpnb.errors import errors_in
from dpnb.schema import Dataset, Directory, LegacyLora, Monitoring, OtherOptimizer, Training
from dpnb.schema.base import Section, Ui
from dpnb.toml import dump
from dpnb.widgets.draft import UNSET, Draft, blank_data, to_data
from dpnb.widgets.further import read_further, show_further
from dpnb.widgets.history import MOMENTS, History, moment_of
from tests.dpnb.every_family import FAMILIES, training
from tests.dpnb.random_section import random_section


def draft_of(section: Section) -> Draft:
    return Draft(type(section), to_data(section))


@pytest.mark.parametrize("seed", range(60))
def test_data_of_any_object_is_that_object(seed: int) -> None:
    rng = random.Random(seed)
    section = random_section(rng.choice((Training, Dataset)), rng)
    draft = draft_of(section)
    assert type(section).model_validate(draft.data) == section


# --- type ------------------------------------------------------------------------------------------------------------


def test_a_typed_type_switches_the_variant() -> None:
    draft = draft_of(training())
    draft.put(("optimizer", "betas"), [0.5, 0.6])
    draft.put(("optimizer", "type"), "sgd")
    assert draft.data["optimizer"] == {"type": "sgd"}
    draft.put(("optimizer", "type"), "adamw")
    assert draft.data["optimizer"] == {"type": "adamw", "betas": [0.5, 0.6]}


def test_a_type_that_none_has_is_the_open_section() -> None:
    draft = draft_of(training())
    draft.switch(("optimizer",), OtherOptimizer)
    assert draft.class_at(("optimizer",)) is OtherOptimizer
    assert [p.key for p in errors_in(draft.validate()[1]) if p.code != "path"] == ["optimizer.type"]
    draft.put(("optimizer", "type"), "Prodigy")
    assert draft.class_at(("optimizer",)) is OtherOptimizer
    value, _ = draft.validate()
    assert isinstance(value, Training)
    assert value.optimizer.type == "Prodigy"


@pytest.mark.parametrize("family", list(FAMILIES))
def test_going_to_any_family_and_back_changes_nothing(family: str) -> None:
    draft = draft_of(training())
    before = dict(draft.data["model"])
    draft.switch(("model",), FAMILIES[family])
    assert draft.data["model"]["type"] == family
    draft.switch(("model",), FAMILIES["flux"])
    assert draft.data["model"] == before


# --- what applies ----------------------------------------------------------------------------------------------------


def applies(draft: Draft, owner: type[Section], *loc: str | int) -> bool:
    from dpnb.widgets.shapes import Spec

    return draft.applies(Spec.of(owner, str(loc[-1]), loc))


@pytest.mark.parametrize("family", list(FAMILIES))
@pytest.mark.parametrize(
    ("key", "fact"),
    [
        ("blocks_to_swap", "block_swap"),
        ("disable_block_swap_for_eval", "block_swap"),
        ("video_clip_mode", "video"),
        ("image_micro_batch_size_per_gpu", "video"),
        ("eval_image_micro_batch_size_per_gpu", "video"),
        ("huber_delta", "robust_loss"),
        ("smooth_l1_beta", "robust_loss"),
    ],
)
def test_a_field_applies_where_the_family_supports_it(family: str, key: str, fact: str) -> None:
    draft = draft_of(training(family=family))
    assert applies(draft, Training, key) == getattr(FAMILIES[family].facts, fact)


def test_a_dataset_form_can_be_told_the_family() -> None:
    draft = draft_of(Dataset(directory=[Directory(path="a")]))
    assert applies(draft, Dataset, "frame_buckets")
    draft.family = FAMILIES["sdxl"].facts
    assert not applies(draft, Dataset, "frame_buckets")
    draft.family = FAMILIES["wan"].facts
    assert applies(draft, Directory, "directory", 0, "frame_buckets")
    assert not applies(draft, Directory, "directory", 0, "control_path")


# --- lists -----------------------------------------------------------------------------------------------------------


def test_a_duplicate_stands_behind_its_original() -> None:
    draft = draft_of(Dataset(directory=[Directory(path="a", num_repeats=2), Directory(path="b")]))
    draft.duplicate(("directory",), 0)
    assert [item["path"] for item in draft.data["directory"]] == ["a", "a", "b"]
    draft.put(("directory", 1, "path"), "c")
    assert draft.data["directory"][0] == {"path": "a", "num_repeats": 2}
    assert draft.data["directory"][1] == {"path": "c", "num_repeats": 2}


# --- further parameters ----------------------------------------------------------------------------------------------


def test_further_parameters_are_toml_lines() -> None:
    data: dict[str, Any] = {"d_coef": 0.5, "safeguard_warmup": True, "names": ["a"]}
    assert show_further(data) == 'd_coef = 0.5\nsafeguard_warmup = true\nnames = ["a"]'
    assert read_further(show_further(data), ("optimizer",)) == (data, [])
    assert read_further("", ("optimizer",)) == ({}, [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("d_coef = x", "the further parameters cannot be read: Invalid value (at line 1, column 10)."),
        ("lr = 1.0", "lr has a field of its own."),
        ("a.b = 1", "a is a table; a parameter is a number, a text, true or false, or a list."),
    ],
)
def test_a_text_that_cannot_be_read_is_kept_and_reported(text: str, message: str) -> None:
    draft = draft_of(training(optimizer=OtherOptimizer(type="Prodigy", lr=1.0, d_coef=0.5)))
    draft.put_further(("optimizer",), text)
    assert draft.unread == {("optimizer",): text}
    assert draft.data["optimizer"]["d_coef"] == 0.5
    found = [problem for problem in draft.validate()[1] if problem.key == "optimizer.further"]
    assert [problem.message for problem in found] == [message]
    draft.put_further(("optimizer",), "d_coef = 2.0")
    assert draft.data["optimizer"] == {"type": "Prodigy", "lr": 1.0, "d_coef": 2.0}
    assert draft.unread == {}


# --- secrets ---------------------------------------------------------------------------------------------------------


class Login(Section):
    """Secrets of both types, also in a list."""

    token: SecretStr | None = None
    password: Annotated[str, Ui(secret=True)] = ""


class Logins(Section):
    """Several."""

    main: Login | None = None
    others: list[Login] = []
    note: str = ""


def test_secrets_are_closed_wherever_they_come_from() -> None:
    draft = Draft(Logins, {})
    draft.put(("main", "token"), "hunter2")
    draft.put(("main", "password"), "hunter2")
    draft.put(("others",), [{"token": "hunter2", "password": "hunter2"}])
    assert "hunter2" not in repr(draft.data)
    value, problems = draft.validate()
    assert problems == []
    assert isinstance(value, Logins)
    assert value.main is not None
    assert value.main.password == "hunter2"
    assert value.others[0].token == SecretStr("hunter2")
    assert "hunter2" not in repr(draft.data)
    assert "hunter2" not in repr(to_data(value))


def test_no_secret_is_in_a_moment() -> None:
    draft = Draft(Logins, {})
    history = History()
    before = moment_of(draft)
    draft.put(("main", "token"), "hunter2")
    draft.put(("others",), [{"token": "hunter2"}])
    draft.toggle(("main",), Login, on=False)
    assert "SecretStr" not in repr(moment_of(draft))
    history.changed(before, draft)
    assert history.undo(draft)
    assert history.redo(draft)
    draft.toggle(("main",), Login, on=True)
    # There was no place for it in between, and nothing else keeps it.
    assert "hunter2" not in repr([draft.validate()[0], draft.data, draft.left])
    assert draft.data == {"main": {}, "others": [{}]}


def test_a_secret_stays_when_a_form_goes_back() -> None:
    draft, history = Draft(Logins, {"main": {}}), History()
    draft.put(("main", "token"), "hunter2")
    before = moment_of(draft)
    draft.put(("note",), "x")
    history.changed(before, draft)
    draft.put(("main", "token"), UNSET)
    history.undo(draft)
    assert draft.data == {"main": {}}
    draft.put(("main", "token"), "other")
    history.redo(draft)
    assert draft.data == {"main": {"token": SecretStr("other")}, "note": "x"}


def test_a_secret_alone_is_no_change_to_undo() -> None:
    draft, history = Draft(Logins, {"main": {}}), History()
    before = moment_of(draft)
    draft.put(("main", "token"), "hunter2")
    history.changed(before, draft)
    assert not history.can_undo


# --- going back and forth --------------------------------------------------------------------------------------------


def step(draft: Draft, history: History, number: int) -> None:
    before = moment_of(draft)
    draft.put(("epochs",), number)
    history.changed(before, draft)


def test_every_change_can_be_undone_and_redone() -> None:
    draft, history = draft_of(training(epochs=1)), History()
    for number in (2, 3, 4):
        step(draft, history, number)
    seen = []
    while history.undo(draft):
        seen.append(draft.data["epochs"])
    assert seen == [3, 2, 1]
    assert history.redo(draft)
    assert draft.data["epochs"] == 2
    step(draft, history, 9)
    assert not history.redo(draft)
    assert history.undo(draft)
    assert draft.data["epochs"] == 2


def test_history_is_bounded() -> None:
    draft, history = draft_of(training(epochs=1)), History()
    for number in range(2, MOMENTS + 50):
        step(draft, history, number)
    count = 0
    while history.undo(draft):
        count += 1
    assert count == MOMENTS


def test_what_was_left_in_other_variants_comes_back_too() -> None:
    draft, history = draft_of(training()), History()
    draft.put(("optimizer", "betas"), [0.5, 0.6])
    before = moment_of(draft)
    draft.put(("optimizer", "type"), "sgd")
    history.changed(before, draft)
    history.undo(draft)
    assert draft.data["optimizer"]["betas"] == [0.5, 0.6]
    history.redo(draft)
    draft.put(("optimizer", "type"), "adamw")
    assert draft.data["optimizer"]["betas"] == [0.5, 0.6]


def test_blank_data_is_what_a_blank_form_holds() -> None:
    assert blank_data(Monitoring) == {}
    assert blank_data(LegacyLora) == {}
    assert blank_data(OtherOptimizer) == {"type": ""}
    assert blank_data(Training) == {"model": {"type": "flux"}, "optimizer": {"type": "adamw"}}


def test_the_text_of_an_object_with_a_secret_has_none() -> None:
    assert "hunter2" not in dump(training(monitoring=Monitoring(wandb_api_key=SecretStr("hunter2"))))


def test_nothing_can_be_put_below_a_value() -> None:
    with pytest.raises(KeyError, match="there is no epochs to hold 'x'"):
        draft_of(training()).put(("epochs", "x"), 1)
