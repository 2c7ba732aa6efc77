"""Parts of forms: cards of a list, reset, search, further parameters, undo, what a family cannot do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from ipywidgets.widgets.widget import _instances as live_widgets
from pydantic import SecretStr

from dpnb.schema import Dataset, Directory, Ema, EvalDataset, Monitoring, OtherOptimizer, Sampling, Training
from dpnb.schema.base import Section
from dpnb.widgets.fields import every_field
from dpnb.widgets.form import Form, TrainingForm
from dpnb.widgets.look import ORDERS
from dpnb.widgets.search import MOST, find
from dpnb.widgets.sections import title_of
from tests.dpnb.every_family import FAMILIES, training
from tests.dpnb.test_form import nested_row, page, row


@pytest.fixture
def form() -> Iterator[TrainingForm]:
    made = TrainingForm(training())
    yield made
    made.close()


def hidden(widget: Any) -> bool:
    return "dpnb-hidden" in widget._dom_classes


# --- cards -----------------------------------------------------------------------------------------------------------


def folders(count: int) -> Dataset:
    return Dataset(resolutions=[512], directory=[Directory(path=f"photos/{i}") for i in range(count)])


@pytest.fixture
def many() -> Iterator[Form[Dataset]]:
    made = Form(folders(30), first=("directory",))
    yield made
    made.close()


def cards(form: Form[Any]) -> Any:
    return form._pages[0].panel.rows[0].control


def test_a_long_list_is_folded_and_a_short_one_is_not(many: Form[Dataset]) -> None:
    control = cards(many)
    assert control.panels == []
    assert control.cards[4].fold.description == "▸ Directory 5: photos/4 (1 to mend)"
    short = Form(folders(2), first=("directory",))
    assert len(cards(short).panels) == 2
    assert cards(short).cards[0].fold.description == "▾ Directory 1: photos/0"
    short.close()


def test_a_card_unfolds_and_folds(many: Form[Dataset]) -> None:
    card = cards(many).cards[2]
    card.fold.click()
    assert card.panel is not None
    assert not hidden(card.panel.widget)
    card.panel.rows[0].control.text.value = "elsewhere"
    assert card.fold.description == "▾ Directory 3: elsewhere"
    card.fold.click()
    assert hidden(card.panel.widget)
    assert many.data["directory"][2] == {"path": "elsewhere"}


def test_items_are_added_duplicated_moved_and_removed(many: Form[Dataset]) -> None:
    control = cards(many)
    control.cards[1].fold.click()
    press(control, 1, "Duplicate")
    assert [item["path"] for item in many.data["directory"]][:4] == ["photos/0", "photos/1", "photos/1", "photos/2"]
    assert [card.unfolded for card in control.cards][:4] == [False, True, True, False]
    press(control, 2, "Move up")
    press(control, 0, "Remove")
    assert control.cards[0].fold.description.startswith("▾ Directory 1: photos/1")
    assert control.cards[0].panel.rows[0].control.text.value == "photos/1"
    control.add.click()
    assert control.cards[-1].panel is not None
    assert len(many.data["directory"]) == 31
    assert hidden(control.cards[0].up)
    assert hidden(control.cards[-1].down)


def press(control: Any, position: int, text: str) -> None:
    head = control.cards[position].widget.children
    next(child for child in head if getattr(child, "description", "") == text).click()


def test_all_cards_fold_at_once(many: Form[Dataset]) -> None:
    control = cards(many)
    control.unfold_all.click()
    assert len(control.panels) == 30
    control.fold_all.click()
    assert all(hidden(panel.widget) for panel in control.panels)


def test_thirty_folders_are_cheap() -> None:
    before, start = len(live_widgets), time.thread_time()
    form = Form(folders(30), first=("directory",))
    assert time.thread_time() - start < 0.5
    assert len(live_widgets) - before < 300
    form.close()
    assert len(live_widgets) == before


def test_a_card_keeps_its_fields_when_undo_brings_copies(many: Form[Dataset]) -> None:
    control = cards(many)
    control.cards[3].fold.click()
    panel = control.cards[3].panel
    many.set("num_repeats", 2)
    many.undo()
    assert control.cards[3].panel is panel


# --- reset -----------------------------------------------------------------------------------------------------------


def test_a_changed_field_offers_its_default_and_one_press_resets(form: TrainingForm) -> None:
    warmup = row(page(form, "General"), "warmup_steps")
    assert warmup.reset is None
    warmup.control.widget.value = "7"
    assert "Changed (default: 0)." in warmup.note.value
    assert warmup.reset.description == "Reset"
    assert warmup.reset.tooltip == "Set Warmup steps back to its default"
    warmup.reset.click()
    assert "warmup_steps" not in form.data
    assert warmup.control.widget.value == "0"
    assert hidden(warmup.reset)
    form.set("warmup_steps", 3)
    assert not hidden(warmup.reset)


def test_no_field_has_a_reset_button_before_it_is_changed(form: TrainingForm) -> None:
    assert [r for r in page(form, "General").rows if r.reset is not None] == []


def test_a_secret_can_be_taken_out() -> None:
    wandb = Monitoring(
        enable_wandb=True, wandb_tracker_name="a", wandb_run_name="b", wandb_api_key=SecretStr("hunter2")
    )
    form = TrainingForm(training(monitoring=wandb))
    key = nested_row(page(form, "Monitoring"), "monitoring", "wandb_api_key")
    assert "default: not set" in key.note.value
    assert "hunter2" not in key.note.value
    key.reset.click()
    assert form.value.monitoring.wandb_api_key is None
    assert key.control.widget.placeholder == "not set"
    form.close()


# --- search ----------------------------------------------------------------------------------------------------------


def found(form: Form[Any], words: str) -> list[str]:
    return [".".join(map(str, spec.loc)) for spec in find(form.draft, words)]


def test_search_finds_by_key_label_and_help(form: TrainingForm) -> None:
    assert found(form, "partition_split") == ["partition_split"]
    assert found(form, "Partition split") == ["partition_split"]
    assert "optimizer.lr" in found(form, "how far one step moves")
    assert found(form, "ema.decay")[0] == "ema.decay"
    assert found(form, "no such field") == []


def test_names_come_before_help(form: TrainingForm) -> None:
    assert found(form, "epochs")[0] == "epochs"
    assert found(form, "epochs")[:2] == ["epochs", "eval_every_n_epochs"]


def test_every_field_of_the_vocabulary_can_be_found(form: TrainingForm) -> None:
    form.value = training(ema=Ema(), sample=Sampling(prompts=[{"text": "a"}]), monitoring=Monitoring())
    seen = set(found(form, "e")) | set(found(form, "a")) | set(found(form, "t"))
    for spec in every_field(Training):
        if spec.owner is Training and not spec.shape.holds_sections:
            assert spec.name in seen


def test_results_stand_in_place_of_the_pages_and_edit_the_same_draft(form: TrainingForm) -> None:
    before = len(live_widgets)
    form._search.value = "force_constant_lr"
    assert hidden(form._body)
    (result,) = form.results.rows.values()
    assert "1 field found." in form.results.said.value
    result.control.widget.value = "1e-4"
    assert form.value.force_constant_lr == 1e-4
    assert "Changed (default: not set)." in result.note.value
    form._search.value = ""
    assert not hidden(form._body)
    assert len(live_widgets) == before


def test_a_result_says_where_it_stands_and_whether_it_has_an_effect(form: TrainingForm) -> None:
    form._search.value = "partition_split"
    (result,) = form.results.rows.values()
    assert not hidden(result.widget)
    assert "Without effect as things are." in result.note.value
    form._search.value = "ema decay"
    place = form.results.grid.children[-1].children[0]
    assert place.value == "EMA (not in use)"
    next(iter(r for r in form.results.rows.values() if r.spec.name == "decay")).control.widget.value = "0.5"
    assert form.value.ema == Ema(decay=0.5)


def test_many_results_are_cut_off_in_their_order(form: TrainingForm) -> None:
    assert MOST <= ORDERS
    form._search.value = "the"
    shown = [cell for cell in form.results.grid.children if not hidden(cell)]
    assert len(shown) == MOST
    assert "the first 30 are shown" in form.results.said.value
    form._search.value = "the x axis"
    assert [cell for cell in form.results.grid.children if not hidden(cell)] != shown
    form._search.value = "<b>"
    assert form.results.said.value == "No field has &#x27;&lt;b&gt;&#x27; in its name or help."


# --- further parameters ----------------------------------------------------------------------------------------------


def test_any_optimizer_can_be_named_with_its_parameters(form: TrainingForm) -> None:
    optimizer = row(page(form, "Optimizer"), "optimizer").control
    optimizer.kind.value = "other"
    kind = row(optimizer.panel, "type")
    assert "Prodigy" in kind.control.widget.options
    kind.control.widget.value = "Prodigy"
    row(optimizer.panel, "lr").control.widget.value = "1"
    further = optimizer.panel.further
    further.area.value = "d_coef = 0.5\nsafeguard_warmup = true"
    assert form.value.optimizer == OtherOptimizer(type="Prodigy", lr=1.0, d_coef=0.5, safeguard_warmup=True)
    assert "What Prodigy takes besides" in further.note.value
    further.area.value = "d_coef ="
    assert "The further parameters cannot be read" in further.note.value
    assert "dpnb-bad" in further.widget._dom_classes
    further.area.value = "d_coeff = 0.5"
    assert "<b>d_coeff</b>: " in further.note.value
    assert "Did you mean &#x27;d_coef&#x27;?" in further.note.value
    form.undo()
    assert further.area.value == "d_coef ="
    form.undo()
    assert further.area.value == "d_coef = 0.5\nsafeguard_warmup = true"


# --- variants --------------------------------------------------------------------------------------------------------


def test_a_family_that_dpnb_does_not_train_says_so() -> None:
    assert title_of(FAMILIES["flux"]) == "flux: FLUX.1 [dev], [schnell], Kontext and models of the same shape"
    for name, family in FAMILIES.items():
        assert title_of(family).startswith(f"{name}: ")
        assert ("(not trained by dpnb yet)" in title_of(family)) == (family.pending == "refused")


def test_a_wrong_type_is_said_at_the_head(form: TrainingForm) -> None:
    form.set("model.type", "sd3")
    form.set("adapter.type", "lokr")
    panel = row(page(form, "Adapter"), "adapter").control.panel
    said = panel._rest.value if panel._rest is not None else ""
    allowed = "lokr" in FAMILIES["sd3"].facts.adapters
    assert ("does not take lokr" in said) != allowed


def test_fields_that_a_family_cannot_use_are_not_shown(form: TrainingForm) -> None:
    form._toggle.value = True
    general = page(form, "General")
    swap, clips = row(general, "blocks_to_swap"), row(general, "video_clip_mode")
    assert not hidden(swap.widget)
    assert hidden(clips.widget)
    form.set("model.type", "wan")
    assert not hidden(clips.widget)
    form.set("blocks_to_swap", 4)
    form.set("model.type", "sdxl")
    # It is set all the same, so that it can be taken out.
    assert not hidden(swap.widget)
    assert "Without effect as things are." in swap.note.value
    swap.reset.click()
    assert hidden(swap.widget)


def test_pages_stand_in_the_order_of_the_plan(form: TrainingForm) -> None:
    titles = [page.title for page in form._pages]
    assert titles[:8] == [
        "General", "Model", "Adapter", "Optimizer", "Evaluation", "Saving", "Sample", "Monitoring",
    ]  # fmt: skip
    assert "LoRA" not in titles
    form._toggle.value = True
    assert row(page(form, "General"), "lora").control.switch.value is False


# --- undo and redo ---------------------------------------------------------------------------------------------------


def test_every_way_of_changing_can_be_undone(form: TrainingForm) -> None:
    start = form.value
    assert form._undo.disabled
    row(page(form, "General"), "epochs").control.widget.value = "7"
    form.set("optimizer.lr", 5e-4)
    form.set("eval_datasets", [EvalDataset(name="a", config="b.toml")])
    row(page(form, "Optimizer"), "optimizer").control.kind.value = "sgd"
    form.value = training(family="wan")
    end = form.value
    for _ in range(5):
        assert form.undo()
    assert form.value == start
    assert not form.undo()
    for _ in range(5):
        assert form.redo()
    assert form.value == end
    assert not form.redo()


def test_the_buttons_undo_and_redo(form: TrainingForm) -> None:
    epochs = row(page(form, "General"), "epochs").control.widget
    epochs.value = "7"
    assert not form._undo.disabled
    form._undo.click()
    assert epochs.value == "1"
    assert not form._redo.disabled
    form._redo.click()
    assert epochs.value == "7"


def test_watchers_hear_of_an_undo(form: TrainingForm) -> None:
    heard: list[int] = []
    form.set("epochs", 7)
    form.observe(lambda f: heard.append(f.value.epochs))
    form.undo()
    form.redo()
    assert heard == [1, 7]


# --- a class of one's own --------------------------------------------------------------------------------------------


class Wheel(Section):
    """A wheel."""

    size: int = 28
    """Diameter."""


class Motor(Section):
    """A motor."""

    watts: int
    """Power."""
    wheels: list[Wheel] = []
    """What it turns."""


class Bike(Section):
    """A bike."""

    name: str = ""
    """What it is called."""
    wheels: list[Wheel] = [Wheel(), Wheel()]
    """Front and back."""
    motor: Motor | None = None
    """Help uphill."""


def test_sections_and_lists_in_one_another_work_without_any_code() -> None:
    form = Form(Bike)
    position = [page.title for page in form._pages].index("Motor")
    form._tab.selected_index = position
    motor = form._pages[position].panel.rows[0].control
    motor.switch.value = True
    row(motor.panel, "watts").control.widget.value = "250"
    wheels = row(motor.panel, "wheels").control
    wheels.add.click()
    wheels.panels[0].rows[0].control.widget.value = "20"
    assert form.value == Bike(motor=Motor(watts=250, wheels=[Wheel(size=20)]))
    assert form.file.name == "bike.toml"
    assert "[[motor.wheels]]" in form.toml
    form._search.value = "diameter"
    assert len(form.results.rows) == 3
    form.close()
