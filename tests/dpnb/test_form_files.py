"""A form and its file: comments kept, no overwriting of somebody else's change, the live text and the difference."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ipywidgets.widgets.widget import _instances as live_widgets
from pydantic import SecretStr

from dpnb import toml
from dpnb.errors import ConfigError
from dpnb.schema import Monitoring, Training
from dpnb.schema.base import Section
from dpnb.widgets.form import Form, TrainingForm
from dpnb.widgets.preview import DIFF, diff_html, marked_html
from tests.dpnb.every_family import training

TEXT = """# My run, do not touch!
output_dir = 'out'   # where it goes
dataset = 'dataset.toml'
epochs = 1
save_every_n_epochs = 1

[optimizer]
type = 'adamw'
lr = 2e-5  # small

[model]  # last
type = 'flux'
diffusers_path = 'weights/diffusers_path'
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "run.toml").write_text(TEXT)
    return tmp_path / "run.toml"


@pytest.fixture
def form(path: Path) -> Iterator[TrainingForm]:
    made = TrainingForm.load(path)
    yield made
    made.close()


# --- saving ----------------------------------------------------------------------------------------------------------


def test_comments_and_layout_are_kept(form: TrainingForm, path: Path) -> None:
    form.set("optimizer.lr", 1e-4)
    form.set("warmup_steps", 10)
    assert form.save() == path
    saved = path.read_text()
    assert "# My run, do not touch!" in saved
    assert "output_dir = 'out'   # where it goes" in saved
    assert "lr = 0.0001  # small" in saved
    assert saved.index("[optimizer]") < saved.index("[model]")
    assert toml.load(path, Training, paths=False).value == form.value


def test_a_form_without_a_change_saves_the_same_bytes(form: TrainingForm, path: Path) -> None:
    form.save()
    assert path.read_text() == TEXT


def test_saving_again_and_again_follows_the_form(form: TrainingForm, path: Path) -> None:
    for number in (5, 6, 7):
        form.set("epochs", number)
        form.save()
        assert f"epochs = {number}\n" in path.read_text()


def test_what_somebody_else_wrote_is_not_overwritten(form: TrainingForm, path: Path) -> None:
    path.write_text(TEXT.replace("epochs = 1\n", "epochs = 99\n"))
    form.set("max_steps", 5)
    with pytest.raises(
        ConfigError,
        match=r"run.toml: error: has been changed by something else since this form read or saved it\. "
        r"Load it again, save to another file, or write over it with save\(overwrite=True\)\.",
    ):
        form.save()
    assert "epochs = 99" in path.read_text()
    form.save(overwrite=True)
    assert "epochs = 99" not in path.read_text()
    assert "# My run, do not touch!" in path.read_text()
    form.save()


def test_saving_elsewhere_takes_the_comments_along(form: TrainingForm, path: Path, tmp_path: Path) -> None:
    form.set("epochs", 3)
    other = form.save(tmp_path / "deep" / "other.toml")
    assert "# My run, do not touch!" in other.read_text()
    assert path.read_text() == TEXT
    assert form.file == other
    form.set("epochs", 4)
    assert form.save() == other
    assert "epochs = 4" in other.read_text()


def test_a_deleted_file_is_written_anew(form: TrainingForm, path: Path) -> None:
    path.unlink()
    form.save()
    assert path.read_text() == TEXT


def test_a_form_that_came_from_no_file_wants_a_name(tmp_path: Path) -> None:
    form = TrainingForm(training())
    with pytest.raises(ConfigError, match=r"this form came from no file\. Name one: save\('run.toml'\)\."):
        form.save()
    form.save(tmp_path / "new.toml")
    form.set("epochs", 9)
    form.save()
    assert toml.load(tmp_path / "new.toml", Training, paths=False).value.epochs == 9
    form.close()


def test_permissions_stay_and_nothing_else_is_left(form: TrainingForm, path: Path) -> None:
    path.chmod(0o640)
    form.set("epochs", 2)
    form.save()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert list(path.parent.iterdir()) == [path]


def test_an_invalid_form_writes_nothing(form: TrainingForm, path: Path) -> None:
    form.set("epochs", "many")
    with pytest.raises(ConfigError, match="epochs"):
        form.save()
    assert path.read_text() == TEXT


def test_a_file_can_be_opened_into_a_form_and_undone(form: TrainingForm, tmp_path: Path) -> None:
    other = training(epochs=42)
    (tmp_path / "other.toml").write_text(toml.dump(other))
    before = form.value
    form.open(tmp_path / "other.toml")
    assert form.value == other
    assert form.file == tmp_path / "other.toml"
    form.undo()
    assert form.value == before
    with pytest.raises(ConfigError, match="cannot be read"):
        form.open(tmp_path / "nowhere.toml")


class Thing(Section):
    """Of a notebook."""

    size: int = 1


def test_a_form_of_any_class_opens_and_saves(tmp_path: Path) -> None:
    (tmp_path / "thing.toml").write_text("# mine\nsize = 3\n")
    form = Form(Thing)
    form.open(tmp_path / "thing.toml")
    form.set("size", 4)
    form.save()
    assert (tmp_path / "thing.toml").read_text() == "# mine\nsize = 4\n"
    form.close()


# --- secrets ---------------------------------------------------------------------------------------------------------


def test_a_typed_secret_is_in_no_text(tmp_path: Path) -> None:
    form = TrainingForm(training(monitoring=Monitoring()))
    form.set("monitoring.wandb_api_key", "hunter2")
    form._preview.turn()
    form.set("epochs", "many")
    texts = [form._preview.shown.value, form.text_now()[0], repr(form.data), repr(form.problems)]
    form.set("epochs", 1)
    form.save(tmp_path / "run.toml")
    texts += [form.toml, form.code(), (tmp_path / "run.toml").read_text(), form._preview.shown.value]
    assert not [text for text in texts if "hunter2" in text]
    assert form.value.monitoring.wandb_api_key == SecretStr("hunter2")
    form.close()


def test_a_secret_of_a_persons_own_file_stays_there_and_is_never_shown(path: Path, tmp_path: Path) -> None:
    path.write_text(TEXT + "\n[monitoring]\nwandb_api_key = 'hunter2'\n")
    form = TrainingForm.load(path)
    form._preview.turn()
    assert "hunter2" not in form._preview.shown.value
    form._preview.kind.value = DIFF
    assert "hunter2" not in form._preview.shown.value
    form.set("epochs", 2)
    form.save()
    assert "hunter2" in path.read_text()
    assert "hunter2" not in form.toml
    assert "hunter2" not in form.save(tmp_path / "other.toml").read_text()
    form.close()


# --- preview ---------------------------------------------------------------------------------------------------------


def lines(html: str, name: str) -> list[str]:
    return [line.split(">", 1)[1].removesuffix("</span>") for line in html.split("\n") if f"class={name}" in line]


def test_the_text_is_live_and_changed_lines_are_marked(form: TrainingForm) -> None:
    form._preview.turn()
    assert lines(form._preview.shown.value, "dpnb-new") == []
    form.set("epochs", 7)
    assert lines(form._preview.shown.value, "dpnb-new") == ["* epochs = 7"]
    form.save()
    assert lines(form._preview.shown.value, "dpnb-new") == []


def test_the_text_of_an_invalid_draft_is_what_was_typed(form: TrainingForm) -> None:
    form._preview.turn()
    form.set("epochs", "many")
    assert "Not valid yet: this is what has been typed." in form._preview.shown.value
    assert "epochs = &quot;many&quot;" in form._preview.shown.value
    with pytest.raises(ConfigError, match="epochs"):
        _ = form.toml


def test_rough_text_has_the_order_of_a_valid_one() -> None:
    form = TrainingForm(training(monitoring=Monitoring(), max_steps=3))
    rough, valid = form.text_now()
    assert valid
    form.set("epochs", "many")
    assert form.text_now() == (rough.replace("epochs = 1\n", 'epochs = "many"\n', 1), False)
    form.close()


def test_the_difference_to_the_file_on_disk_is_shown(form: TrainingForm, path: Path) -> None:
    form._preview.turn()
    form._preview.kind.value = DIFF
    assert "on disk says the same." in form._preview.shown.value
    form.set("epochs", 7)
    assert lines(form._preview.shown.value, "dpnb-new") == ["+ epochs = 7"]
    assert lines(form._preview.shown.value, "dpnb-old") == ["- epochs = 1"]
    path.write_bytes(b"\xff")
    form.set("epochs", 8)
    assert "is not UTF-8 text" in form._preview.shown.value
    path.write_text("epochs =")
    form.set("epochs", 9)
    assert 'role="alert"' in form._preview.shown.value


def test_saving_and_loading_by_button(form: TrainingForm, path: Path, tmp_path: Path) -> None:
    preview = form._preview
    preview.turn()
    assert preview.name.value == str(path)
    form.set("epochs", 7)
    preview.save.click()
    assert "Saved to" in preview.said.value
    assert "epochs = 7" in path.read_text()
    path.write_text(TEXT)
    form.set("epochs", 8)
    preview.save.click()
    assert "has been changed by something else" in preview.said.value
    assert "dpnb-hidden" not in preview.force._dom_classes
    preview.load.click()
    assert form.value.epochs == 1
    assert "dpnb-hidden" in preview.force._dom_classes
    path.write_text(TEXT + "# more\n")
    preview.save.click()
    preview.force.click()
    assert path.read_text() == TEXT
    preview.name.value = str(tmp_path / "<nowhere>.toml")
    preview.load.click()
    assert "&lt;nowhere&gt;.toml" in preview.said.value
    assert "error: cannot be read: No such file or directory." in preview.said.value


def test_a_preview_costs_nothing_until_it_is_opened(form: TrainingForm) -> None:
    before = len(live_widgets)
    form.set("epochs", 3)
    assert len(live_widgets) - before <= 1  # the reset button of the field
    form._preview.turn()
    assert len(live_widgets) - before > 5
    assert form._preview.fold.description == "▾ TOML file"


@pytest.mark.parametrize("show", [lambda text: marked_html("", text), lambda text: diff_html("", text, "<a>")])
def test_text_is_escaped(show: Any) -> None:
    html = show('a = "<script>"')
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
