"""What several runs differ in, and the panel that shows it: curves over one another, table, pictures by prompt."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from ipywidgets.widgets.widget import _instances as live_widgets

from dpnb import presets, toml
from dpnb.runs.compare import (
    Loss,
    Prompt,
    differing,
    names_of,
    nearest_step,
    numbered,
    outcome_of,
    prompts_of,
    settings_of,
    steps_of,
)
from dpnb.runs.events import Series
from dpnb.runs.process import Run
from dpnb.runs.rundir import RunDir, Sample, Status
from dpnb.widgets import charts
from dpnb.widgets import compare as module
from dpnb.widgets.compare import Compare, table_html
from tests.dpnb.test_monitor import GrowingRun
from tests.dpnb.waiting import until


def written_run(folder: Path, name: str = "20260101_00-00-00", **changes: object) -> RunDir:
    """A run directory with its two files; `changes` are of the training."""
    run = RunDir(folder / name)
    run.path.mkdir(parents=True)
    training, dataset = presets.tiny_lora(model_dir="m", pictures="p", output_dir="runs")
    training = training.model_copy(update={"dataset": str(run.dataset_toml), **changes})
    run.run_toml.write_text(toml.dump(training))
    run.dataset_toml.write_text(toml.dump(dataset))
    run.write_status(Status("done", 5, 10))
    return run


def series(values: list[float]) -> Series:
    made = Series()
    made.extend((np.arange(1, len(values) + 1), 100.0 + 2 * np.arange(len(values)), np.array(values)))
    return made


def sample(step: int, index: int, prompt: str = "a zorbi") -> Sample:
    return Sample(step, index, Path(f"{step}-{index}.png"), {"prompt": prompt, "seed": 4})


# --- settings --------------------------------------------------------------------------------------------------------


def test_only_what_differs_and_a_default_spelled_out_does_not(tmp_path):
    one, other = written_run(tmp_path / "a"), written_run(tmp_path / "b", epochs=7)
    other.run_toml.write_text(other.run_toml.read_text().replace("[model]", "[model]\nguidance = 1.0", 1))
    rows = differing([settings_of(one), settings_of(other)])
    assert rows == [("epochs", ["1000", "7"])]


def test_tables_lists_and_the_dataset_file_are_compared(tmp_path):
    one, other = written_run(tmp_path / "a"), written_run(tmp_path / "b")
    other.run_toml.write_text(other.run_toml.read_text().replace("on a blue background", "in the snow"))
    other.dataset_toml.write_text(other.dataset_toml.read_text().replace("[64]", "[64, 128]"))
    assert differing([settings_of(one), settings_of(other)]) == [
        ("sample.prompts[1].text", ['"a zorbi on a blue background"', '"a zorbi in the snow"']),
        ("dataset file: resolutions", ["[64]", "[64, 128]"]),
    ]


def test_a_key_that_one_run_does_not_have_is_not_set(tmp_path):
    one, other = written_run(tmp_path / "a"), written_run(tmp_path / "b", max_steps=None)
    assert differing([settings_of(one), settings_of(other)]) == [("max_steps", [str(presets.TINY_STEPS), "-"])]


def test_files_of_another_version_give_what_they_have(tmp_path):
    run = written_run(tmp_path)
    run.run_toml.write_text("epochs = 3\nnobody_knows = [1, 2]\n[[sets]]\nx = true\n")
    assert {"epochs": "3", "nobody_knows": "[1, 2]", "sets[0].x": "true"}.items() <= settings_of(run).items()
    run.run_toml.write_text("epochs = ")
    run.dataset_toml.unlink()
    assert settings_of(run) == {}


def test_a_secret_is_no_setting(tmp_path):
    table = '\n[monitoring]\nenable_wandb = true\nwandb_api_key = "hunter2"\n'
    run = written_run(tmp_path)
    run.run_toml.write_text(run.run_toml.read_text() + table)
    found = settings_of(run)
    assert found["monitoring.enable_wandb"] == "true"
    assert "hunter2" not in str(found)


# --- outcome ---------------------------------------------------------------------------------------------------------


def test_the_outcome_of_a_run(tmp_path):
    run = Run(written_run(tmp_path))
    values = [1.0, 0.5, 0.25, math.nan, 0.75]
    found = outcome_of(run, {"held_out/loss": series([3.0, 1.0, 2.0]), "train/loss": series(values)})
    assert (found.state, found.steps, found.total_steps, found.seconds) == ("done", 5, 10, 8.0)
    assert list(found.losses) == ["training", "held_out"]
    assert found.losses["held_out"] == Loss(2.0, 1.0, 2)
    # the average of 1 and 0.5 by weights 0.9 and 1, and so on: the last is above the lowest
    assert found.losses["training"].lowest == pytest.approx((0.81 * 1 + 0.9 * 0.5 + 0.25) / 2.71)
    assert found.losses["training"].lowest_step == 3


def test_a_run_that_has_logged_nothing_has_no_losses(tmp_path):
    run = Run(written_run(tmp_path))
    assert outcome_of(run, {}).losses == {}
    found = outcome_of(run, {"train/loss": series([math.nan]), "train/lr": series([1.0])})
    assert (found.losses, found.seconds) == ({}, None)


# --- pictures --------------------------------------------------------------------------------------------------------


def test_pictures_by_prompt_and_step():
    one = [sample(0, 1, "b"), sample(0, 0, "a"), sample(0, 2, "a"), sample(10, 0, "a")]
    other = [sample(5, 0, "c")]
    assert list(numbered(one, 0)) == [Prompt("a", 0), Prompt("b", 0), Prompt("a", 1)]
    assert steps_of([one, other]) == [0, 5, 10]
    assert [nearest_step(one, step) for step in (9, 10, 99)] == [0, 10, 10]
    assert nearest_step(other, 4) is None
    assert prompts_of([one, other], 7) == [Prompt("a", 0), Prompt("b", 0), Prompt("a", 1), Prompt("c", 0)]
    assert prompts_of([other], 1) == []


def test_names_are_told_apart():
    assert names_of([Path("x/1"), Path("y/1"), Path("x/2")]) == ["x/1", "y/1", "2"]


# --- the panel -------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TICK_SECONDS", 0.05)
    monkeypatch.setattr(module, "REST_SECONDS", 0.1)
    monkeypatch.setattr(module, "LINGER_SECONDS", 0.2)
    monkeypatch.setattr(charts, "REST_SECONDS", 0.1)
    monkeypatch.setattr(charts, "LINGER_SECONDS", 0.2)


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[GrowingRun, GrowingRun]]:
    """Two runs with some steps and pictures; the second is named by its folder too."""
    pair = GrowingRun(tmp_path / "runs" / "20260101_00-00-00", 40), GrowingRun(tmp_path / "runs" / "20260102_00", 40)
    for growing in pair:
        for step in range(1, 12):
            growing.step(step)
    return pair


def test_it_shows_curves_table_and_pictures_of_the_chosen_runs(two, tmp_path):
    panel = Compare(root=tmp_path)
    until(lambda: len(panel._charts.children) == 2 and len(panel.pictures._grid.children) == 2)
    assert [run.name for run in panel.choices.runs] == ["20260102_00", "20260101_00-00-00"]
    until(lambda: panel._table.value != "")
    (chart, _) = panel._overlay.drawn
    assert list(chart._curves) == ["20260102_00", "20260101_00-00-00"]
    assert "training loss, lowest" in panel._table.value
    assert [row._title.value.split("<span")[0] for row in panel.pictures._rows] == [
        "<h4>20260102_00 ",
        "<h4>20260101_00-00-00 ",
    ]
    two[0].step(12)
    until(lambda: chart._curves["20260101_00-00-00"].series.steps[-1] == 12)
    # one run less: other charts, and the row of the other one is not seen
    panel.chosen.value = (panel.chosen.options[0][1],)
    until(lambda: panel._overlay.names == ["20260102_00"] and panel._overlay.drawn != [])
    until(lambda: panel._charts.children == tuple(chart.widget for chart in panel._overlay.drawn))
    until(lambda: "dpnb-hidden" in panel.pictures._rows[1].widget._dom_classes)
    panel.smoothing.value = 0.0
    panel.log_axis.value = True
    until(lambda: panel._overlay.drawn[0].log and panel._overlay.drawn[0].smoothing == 0)
    panel.chosen.value = ()
    until(lambda: "No run is chosen." in panel._said.value)
    panel.close()


def test_named_runs_are_those_that_are_compared(two):
    panel = Compare(two[0].run.path, two[1].run.path)
    until(lambda: len(panel._overlay.runs) == 2)
    assert repr(panel) == "Compare(20260101_00-00-00, 20260102_00)"
    assert [label for label, _ in panel.chosen.options] == ["20260101_00-00-00", "20260102_00"]
    panel.close()


def test_each_run_is_shown_at_the_chosen_step_or_last_before(two):
    two[0].pictures(20)
    panel = Compare(two[0].run.path, two[1].run.path)
    until(lambda: list(panel.pictures.step.options) == [10, 20] and panel.pictures._prompts.value != "")
    titles = [row._title.value for row in panel.pictures._rows]
    assert "step 20" in titles[0]
    assert "step 10" in titles[1]
    assert len(panel.pictures._rows[0]._cells) == 4
    panel.pictures.step.value = 10
    assert "step 10" in panel.pictures._rows[0]._title.value
    assert "seed 42" in panel.pictures._rows[0]._cells[0][2].value
    panel.close()


def test_a_prompt_that_a_run_did_not_draw_is_blank(two):
    two[1].pictures(30, ("something else",))
    panel = Compare(two[0].run.path, two[1].run.path)
    until(lambda: "5. something else" in panel.pictures._prompts.value)
    notes = [note.value for _, _, note in panel.pictures._rows[0]._cells]
    assert notes[4] == "5. not drawn"
    words = [picture.value.split('"')[1] for _, picture, _ in panel.pictures._rows[0]._cells]
    assert words[0].endswith(f": {two[0].run.samples()[0].words}".replace("Step 0", "Step 20"))
    assert words[4].endswith(": prompt 5 is not drawn yet")
    assert "5. something else" in panel.pictures._prompts.value
    panel.close()


def test_a_run_whose_folder_vanishes_keeps_what_has_been_read(two, tmp_path):
    panel = Compare(two[0].run.path, two[1].run.path)
    until(lambda: len(panel.pictures._rows) == 2 and "running" in panel._table.value)
    title = panel.pictures._rows[0]._title.value
    assert "step " in title
    two[0].run.path.rename(tmp_path / "elsewhere")
    until(lambda: "folder gone" in panel._table.value)
    assert panel.pictures._rows[0]._title.value == title
    assert panel._said.value == ""
    panel.close()


def test_an_unseen_panel_does_not_look(two):
    panel = Compare(two[0].run.path)
    until(lambda: panel._overlay.drawn != [])
    panel.show(seen=False)
    two[0].step(12)
    curve = panel._overlay.drawn[0]._curves["20260101_00-00-00"]
    until(panel._ticker.thread.is_alive)
    assert curve.series.steps[-1] == 11
    panel.show(seen=True)
    until(lambda: curve.series.steps[-1] == 12)
    panel.close()


def test_what_comes_from_files_is_escaped():
    assert "<b>" not in table_html(["<b>"], [], [("a", ["<b>", "<b>"])])
    assert "Their settings do not differ." in table_html(["a", "b"], [], [])


def test_close_leaves_nothing(two, tmp_path):
    before = set(live_widgets)
    panel = Compare(root=tmp_path)
    until(lambda: len(panel._charts.children) == 2)
    panel.chosen.value = (panel.chosen.options[1][1],)
    until(lambda: len(panel._overlay.runs) == 1 and panel._overlay.drawn != [])
    panel.close()
    panel.close()
    until(lambda: not panel._ticker.thread.is_alive() and not panel.choices.thread.is_alive())
    assert set(live_widgets) == before
