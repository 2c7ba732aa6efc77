"""Form: value, problems, places, pages, code and widgets in step, threads, closing, speed."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import pytest
from ipywidgets.widgets.widget import _instances as live_widgets
from pydantic import Field

import dpnb
from dpnb import toml
from dpnb.errors import ConfigError, Problem
from dpnb.presets import TINY_STEPS, preset, tiny_lora
from dpnb.schema import AdamW, Dataset, Directory, LoraAdapter, Sgd, Training
from dpnb.schema.base import Section, Ui
from dpnb.widgets.form import Form, TrainingForm
from tests.dpnb.model_folder import lay_out


@pytest.fixture(autouse=True)
def _close_what_is_left() -> Iterator[None]:
    """A form that is not closed stays in the registry of ipywidgets, which other tests count."""
    before = set(live_widgets)
    yield
    for name in set(live_widgets) - before:
        live_widgets[name].close()


@pytest.fixture
def training(tmp_path: Path) -> Training:
    (tmp_path / "dataset.toml").touch()
    return tiny_lora(
        model_dir=tmp_path, pictures=tmp_path, output_dir=tmp_path / "runs", dataset_toml=tmp_path / "dataset.toml"
    )[0]


def page(form: Form, title: str) -> object:
    """Open a page and give its panel."""
    position = [p.title for p in form._pages].index(title)
    if form._tab is not None:
        form._tab.selected_index = position
    return form._pages[position].panel


def row(panel: object, name: str) -> object:
    return next(row for row in panel.rows if row.spec.name == name)


# --- value and problems ----------------------------------------------------------------------------------------------


def test_the_value_of_an_instance_is_that_instance(training: Training) -> None:
    form = TrainingForm(training)
    assert form.value == training
    assert form.problems == []
    assert form.toml == toml.dump(training)


def test_the_value_is_a_copy(training: Training) -> None:
    form = TrainingForm(training)
    form.value.epochs = 1
    form.value.optimizer.lr = 1.0
    assert form.value == training


def test_an_empty_form_says_what_is_missing() -> None:
    form = TrainingForm()
    assert {problem.key for problem in form.problems} == {"output_dir", "dataset", "epochs", "model.diffusers_path"}
    with pytest.raises(ConfigError, match="epochs: is missing"):
        _ = form.value


def test_a_wrong_value_stands_beside_its_field_in_the_validators_words(training: Training) -> None:
    form = TrainingForm(training)
    epochs = row(page(form, "General"), "epochs")
    epochs.control.widget.value = "many"
    assert "&#x27;many&#x27; is a text; expected a whole number." in epochs.note.value
    assert 'role="alert"' in epochs.note.value
    assert "dpnb-bad" in epochs.widget._dom_classes
    assert form._tab.get_title(0) == "General (1)"
    assert "1 field needs attention: epochs" in form._summary.value
    epochs.control.widget.value = "3"
    assert "alert" not in epochs.note.value
    assert form.value.epochs == 3


def test_a_warning_does_not_stop_the_value(training: Training) -> None:
    form = TrainingForm(training)
    form.set("model.shift", 3.0)
    form.set("model.flux_shift", True)
    assert "dpnb-warning" in nested_row(page(form, "Model"), "model", "flux_shift").note.value
    assert form.value.model.shift == 3.0


def nested_row(panel: object, section: str, name: str) -> object:
    return row(row(panel, section).control.panel, name)


def test_a_rule_across_fields_is_shown_at_its_field(training: Training) -> None:
    form = TrainingForm(training)
    form.set("save_every_n_steps", None)
    assert "None of save_every_n_epochs" in row(page(form, "Saving"), "save_every_n_epochs").note.value
    with pytest.raises(ConfigError, match="none of save_every_n_epochs"):
        _ = form.value


def test_a_missing_path_is_shown_at_once_but_does_not_stop_the_value(training: Training, tmp_path: Path) -> None:
    form = TrainingForm(training)
    dataset = row(page(form, "General"), "dataset")
    assert "Found." in dataset.note.value
    dataset.control.text.value = str(tmp_path / "other.toml")
    assert "other.toml&#x27; does not exist." in dataset.note.value
    assert [problem.code for problem in form.problems] == ["path"]
    assert form.value.dataset == str(tmp_path / "other.toml")
    assert "Will be created." in row(page(form, "General"), "output_dir").note.value


def test_a_missing_path_is_found_beside_other_errors() -> None:
    form = TrainingForm()
    form.set("dataset", "nowhere.toml")
    assert ("path", "dataset") in {(problem.code, problem.key) for problem in form.problems}


def test_a_problem_without_a_field_stands_at_the_head(training: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "dpnb.widgets.draft.validate", lambda data, cls: (None, [Problem("error", "rule", (), "<all> is wrong.")])
    )
    form = TrainingForm(training)
    assert "&lt;all&gt; is wrong." in form._summary.value


# --- code and widgets in step ----------------------------------------------------------------------------------------


def test_what_code_sets_the_widgets_show(training: Training) -> None:
    form = TrainingForm(training)
    panel = page(form, "Optimizer")
    form.set("optimizer.lr", 3e-4)
    assert nested_row(panel, "optimizer", "lr").control.widget.value == "3e-4"
    form.set("optimizer", Sgd(lr=0.1))
    assert row(panel, "optimizer").control.kind.value == "sgd"
    assert form.value.optimizer == Sgd(lr=0.1)
    form.set(("sample", "prompts", 0, "text"), "a heart")
    assert form.value.sample.prompts[0].text == "a heart"


def test_none_takes_a_key_out(training: Training) -> None:
    form = TrainingForm(training)
    form.set("max_steps", None)
    assert form.value.max_steps is None
    assert "max_steps" not in form.toml


def test_setting_a_key_of_a_section_that_is_off_switches_it_on(training: Training) -> None:
    form = TrainingForm(training.model_copy(update={"adapter": None}))
    form.set("adapter.rank", 8)
    assert form.value.adapter == LoraAdapter(rank=8)


def test_an_unknown_key_is_refused_and_changes_nothing(training: Training) -> None:
    form = TrainingForm(training)
    with pytest.raises(ConfigError, match="Did you mean 'epochs'"):
        form.set("epoch", 3)
    with pytest.raises(ConfigError, match="there is no epochs to hold 'x'"):
        form.set("epochs.x", 3)
    assert form.value == training


def test_a_new_value_replaces_everything(training: Training) -> None:
    form = TrainingForm()
    form.value = training
    assert form.value == training
    assert row(page(form, "General"), "max_steps").control.widget.value == str(TINY_STEPS)


def test_watchers_hear_of_every_change(training: Training) -> None:
    form = TrainingForm(training)
    heard: list[int] = []
    end = form.observe(lambda f: heard.append(f.value.epochs))
    form.set("epochs", 3)
    row(page(form, "General"), "epochs").control.widget.value = "4"
    end()
    form.set("epochs", 5)
    assert heard == [3, 4]


# --- what is shown ---------------------------------------------------------------------------------------------------


def test_what_differs_from_the_default_is_marked(training: Training) -> None:
    form = TrainingForm(training)
    warmup = row(page(form, "General"), "warmup_steps")
    assert "Changed (default: 0)." in warmup.note.value
    form.set("warmup_steps", 0)
    assert "Changed" not in warmup.note.value


def test_help_and_unit_can_be_read(training: Training) -> None:
    form = TrainingForm(training)
    seed = row(page(form, "General"), "seed")
    assert "Seed of everything random" in seed.note.value
    assert seed.control.widget.tooltip.startswith("Seed of everything random")
    width = nested_row(page(form, "Sample"), "sample", "width")
    assert width.control.widget.description == "Width (px)"


def test_advanced_fields_are_built_when_asked_for(training: Training) -> None:
    form = TrainingForm(training)
    general = page(form, "General")
    assert "partition_method" not in [r.spec.name for r in general.rows]
    form._toggle.value = True
    assert row(general, "partition_method").control.widget.value == "parameters"
    form._toggle.value = False
    assert all("dpnb-hidden" in part._dom_classes for part in general.advanced)


def test_an_error_in_an_advanced_field_brings_it_out(training: Training) -> None:
    form = TrainingForm(training)
    form.set("caching_batch_size", 0)
    assert "must be at least 1" in row(page(form, "General"), "caching_batch_size").note.value


def test_fields_appear_where_they_apply(training: Training) -> None:
    form = TrainingForm(training)
    form._toggle.value = True
    split = row(page(form, "General"), "partition_split")
    assert "dpnb-hidden" in split.widget._dom_classes
    form.set("partition_method", "manual")
    assert "dpnb-hidden" not in split.widget._dom_classes
    form.set("partition_split", [3])
    form.set("partition_method", "uniform")
    # It has no effect now, and says so where it stands.
    assert "dpnb-hidden" not in split.widget._dom_classes
    assert "Has no effect." in split.note.value


def test_a_folder_inherits_what_its_fields_depend_on() -> None:
    dataset = Dataset(resolutions=[64], enable_ar_bucket=True, min_ar=0.5, max_ar=2.0, num_ar_buckets=3,
                      directory=[Directory(path=".")])  # fmt: skip
    form = Form(dataset)
    form._toggle.value = True
    folder = row(page(form, "Directory"), "directory").control.panels[0]
    assert "dpnb-hidden" not in row(folder, "min_ar").widget._dom_classes
    form.set("enable_ar_bucket", False)
    assert "dpnb-hidden" in row(folder, "min_ar").widget._dom_classes


def test_everything_foreign_is_escaped(training: Training) -> None:
    form = TrainingForm(training)
    form.set("dataset", "<script>alert(1)</script>")
    assert "<script>" not in row(page(form, "General"), "dataset").note.value


def test_a_form_displays_itself(training: Training) -> None:
    form = TrainingForm(training)
    assert "application/vnd.jupyter.widget-view+json" in form._repr_mimebundle_()
    assert repr(form) == "TrainingForm(Training, 0 errors)"


def test_a_section_written_in_a_notebook_needs_no_further_code() -> None:
    class Mine(Section):
        """Anything."""

        size: Annotated[int, Field(ge=1), Ui(unit="px")] = 4
        """How large."""

    form = Form(Mine)
    assert form._tab is None
    row(form._pages[0].panel, "size").control.widget.value = "0"
    assert [p.message for p in form.problems] == ["0 is too small: it must be at least 1."]
    row(form._pages[0].panel, "size").control.widget.value = "9"
    assert form.value == Mine(size=9)


# --- files -----------------------------------------------------------------------------------------------------------


def test_a_form_saves_and_loads(training: Training, tmp_path: Path) -> None:
    lay_out(tmp_path)
    path = TrainingForm(training).save(tmp_path / "deep" / "run.toml")
    assert TrainingForm.load(path).value == training
    assert toml.load(path, Training).value == training


def test_a_broken_file_is_reported_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text("epochs = 'x'\n")
    with pytest.raises(ConfigError, match=r"run.toml:1:1: error: epochs"):
        TrainingForm.load(tmp_path / "run.toml")


def test_a_preset_can_be_named() -> None:
    assert TrainingForm("flux").value == preset("flux-24gb")[0]
    with pytest.raises(ConfigError, match=r"there is no preset 'nothing'\."):
        TrainingForm("nothing")


# --- threads, closing, cost ------------------------------------------------------------------------------------------


def test_edits_from_many_threads_are_all_kept(training: Training) -> None:
    form = TrainingForm(training)
    names = ["epochs", "max_steps", "seed", "warmup_steps", "pipeline_stages"]
    panel = page(form, "General")

    def edit(name: str) -> None:
        for number in range(1, 20):
            row(panel, name).control.widget.value = str(number)

    threads = [threading.Thread(target=edit, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert [getattr(form.value, name) for name in names] == [19] * len(names)


def test_closing_leaves_no_widget_behind(training: Training) -> None:
    before = len(live_widgets)
    for _ in range(5):
        form = TrainingForm(training)
        form._toggle.value = True
        for title in ("Model", "Adapter", "Optimizer", "Sample", "Evaluation", "Saving"):
            page(form, title)
        form.set("optimizer.type", "sgd")
        form.set("optimizer", AdamW())
        form.set("eval_datasets", [{"name": "a", "config": "b"}])
        form.close()
        form.close()
    assert len(live_widgets) == before
    assert form.data["optimizer"]["type"] == "adamw"


def test_a_form_is_cheap(training: Training) -> None:
    before, start = len(live_widgets), time.thread_time()
    form = TrainingForm(training)
    assert time.thread_time() - start < 0.3
    assert len(live_widgets) - before < 150
    start = time.thread_time()
    form.set("epochs", 7)
    assert time.thread_time() - start < 0.05


def test_forms_do_not_import_charts() -> None:
    code = "import sys, dpnb.widgets.form; print({'bqplot', 'pandas', 'numpy', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_public_face_knows_the_panels() -> None:
    assert dpnb.TrainingForm is TrainingForm
