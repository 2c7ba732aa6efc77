"""Monitor: it shows what stands in a run directory, follows it, asks by control files, and ends with the run."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from ipywidgets.widgets.widget import _instances as live_widgets

from dpnb import presets, toml
from dpnb.errors import RunError
from dpnb.runs.marks import marks_of
from dpnb.runs.plots import PLOTS
from dpnb.runs.process import Run
from dpnb.runs.rundir import Mark, RunDir, Status
from dpnb.widgets import charts
from dpnb.widgets import monitor as module
from dpnb.widgets.monitor import ZOOM, Monitor
from dpnb.widgets.polling import SPOILED_LOOKS
from dpnb.widgets.run_head import head_html
from tests.dpnb.growing import GrowingRun, Watch
from tests.dpnb.waiting import until


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TICK_SECONDS", 0.05)
    monkeypatch.setattr(charts, "REST_SECONDS", 0.1)
    monkeypatch.setattr(charts, "LINGER_SECONDS", 0.2)


def test_it_follows_a_growing_run(growing: Any, monitor: Monitor) -> None:
    until(lambda: "loading" in monitor._head.value)
    for step in range(1, 11):
        growing.step(step)
    until(lambda: "10 / 40" in monitor._head.value and len(monitor._grid.children) == 7)
    assert "running" in monitor._head.value
    assert f"{growing.run.status().loss:.4f}" in monitor._head.value
    growing.step(11)
    until(lambda: monitor.charts["Training loss"]._figure.marks[0].x[-1] == 11)
    assert len(monitor._grid.children) == 7


def test_it_ends_with_the_run(growing: Any, monitor: Monitor) -> None:
    for step in range(1, 4):
        growing.step(step)
    growing.finish(3)
    until(lambda: not monitor._ticker.thread.is_alive())
    assert "dpnb-badge-done" in monitor._head.value
    assert "step3" in monitor._message.value
    # what was written last is there, although the run was over when it was next looked at
    assert monitor.charts["Training loss"]._curves["train/loss"].series.steps[-1] == 3
    assert all(button.disabled for button in monitor.controls.buttons.values())


GONE = "The folder of this run is not there any more: "


def test_a_folder_that_vanishes_is_said_and_can_come_back(
    growing: Any, monitor: Monitor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    growing.step(1)
    until(lambda: "1 / 40" in monitor._head.value)
    buttons = monitor.controls.buttons
    growing.run.path.rename(tmp_path / "elsewhere")
    buttons["save"].click()
    growing.run.path.mkdir()  # what is left of it while it is deleted
    until(lambda: f"{GONE}{growing.run.path}. It was deleted or moved" in monitor._message.value)
    assert "1 / 40" in monitor._head.value, "what has been read stays"
    assert monitor.charts["Training loss"]._curves["train/loss"].series.steps[-1] == 1
    assert all(button.disabled for button in (*buttons.values(), monitor.controls.pause))
    growing.run.path.rmdir()
    for control in (buttons["sample"], monitor.controls.pause, monitor.controls.set_rate):
        control.click()
    until(lambda: monitor.controls.error == "")
    assert monitor._message.value.count(GONE) == 1
    (tmp_path / "elsewhere").rename(growing.run.path)
    until(lambda: "running" in monitor._head.value and not monitor._message.value)
    assert caplog.records == []


def test_a_file_that_is_deleted_while_it_is_read_spoils_one_look(
    growing: Any, monitor: Monitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str] = []

    def spoiled(*_: object) -> str:
        looks.append("")
        if len(looks) < limit:
            raise FileNotFoundError(2, "No such file", "step9")
        return ""

    limit = SPOILED_LOOKS
    monkeypatch.setattr(module, "health_html", spoiled)
    growing.step(1)
    until(lambda: "1 / 40" in monitor._head.value and len(looks) > limit)
    assert monitor.charts["Training loss"]._curves["train/loss"].series.steps[-1] == 1
    limit = 10**6
    until(lambda: "The monitor stopped: FileNotFoundError" in monitor._message.value)


def test_a_finished_run_can_still_be_looked_at_closely(growing: Any, watch: Watch) -> None:
    for step in range(1, 4):
        growing.step(step)
    growing.finish(3)
    monitor = watch(Run(growing.run))
    until(lambda: not monitor._ticker.thread.is_alive())
    chart = monitor.charts["Training loss"]
    monitor._log_axis.value = True
    until(lambda: type(chart._y_scale).__name__ == "LogScale")
    assert type(monitor.charts["Learning rate"]._y_scale).__name__ == "LinearScale"
    monitor._smoothing.value = 0.0
    until(lambda: chart.smoothing == 0)
    monitor._hand.value = ZOOM
    until(lambda: chart._figure.interaction is not None)
    until(lambda: not monitor._ticker.thread.is_alive())
    assert all(chart.settled for chart in monitor.charts.values())


def test_a_figure_that_must_wait_is_made_even_after_the_end(
    growing: Any, monkeypatch: pytest.MonkeyPatch, watch: Watch
) -> None:
    monkeypatch.setattr(charts, "REST_SECONDS", 0.3)
    growing.step(1)
    growing.finish(1)
    monitor = watch(Run(growing.run))
    until(lambda: monitor._over)
    chart = monitor.charts["Training loss"]
    for on in (True, False, True):
        monitor._log_axis.value = on
        until(lambda on=on: chart.log == on)
    until(lambda: monitor._over)
    assert type(chart._y_scale).__name__ == "LogScale"


def test_charts_are_only_appended_and_stand_in_order(growing: Any, monitor: Monitor) -> None:
    growing.step(1)
    until(lambda: len(monitor._grid.children) == 5)
    first = monitor._grid.children
    growing.step(10)
    until(lambda: len(monitor._grid.children) == 7)
    assert monitor._grid.children[:5] == first
    by_title = {plot.title: f"dpnb-order-{place}" for place, plot in enumerate(PLOTS)}
    for title, chart in monitor.charts.items():
        assert by_title[title] in chart.widget._dom_classes


@pytest.mark.parametrize(
    ("text", "file"), [("Save now", "save"), ("Sample now", "sample"), ("Evaluate now", "evaluate")]
)
def test_buttons_put_control_files_there(growing: Any, monitor: Monitor, text: str, file: str) -> None:
    growing.step(1)
    button = next(b for b in monitor.controls.buttons.values() if b.description == text)
    button.click()
    assert (growing.run.path / file).exists()
    until(lambda: button.disabled and "next step" in monitor._message.value)
    growing.run.clear_request(file)
    until(lambda: not button.disabled)


def test_stop_asks_for_save_and_stop(growing: Any, monitor: Monitor, monkeypatch: pytest.MonkeyPatch) -> None:
    growing.step(1)
    monitor.controls.buttons["save_quit"].click()
    assert (growing.run.path / "save_quit").exists()
    until(lambda: "Saving and stopping" in monitor._message.value)


def test_requests_without_effect_are_not_offered(growing: Any, watch: Watch) -> None:
    growing.run.run_toml.write_text("epochs = 1\n[sample]\nprompts = ['x']\n")
    monitor = watch(growing.run)
    assert "dpnb-hidden" in monitor.controls.buttons["evaluate"]._dom_classes
    assert "dpnb-hidden" not in monitor.controls.buttons["sample"]._dom_classes


def test_the_log_is_escaped_and_progress_bars_are_one_line(growing: Any, monitor: Monitor) -> None:
    growing.run.console_log.write_text("1%\r50%\r100% <b>\nnext\n")
    until(lambda: "next" in monitor._log.text.value)
    assert "100% &lt;b&gt;\nnext" in monitor._log.text.value
    assert "50%" not in monitor._log.text.value


def test_a_failed_run_shows_why(growing: Any, monitor: Monitor) -> None:
    growing.status("failed", 3, last_error="CUDA out of <memory>")
    growing.process.ended, growing.process.exit_code, growing.process.pid = time.time(), 1, None
    growing.run.write_process(growing.process)
    until(lambda: monitor._log.widget.selected_index == 0)
    assert "dpnb-badge-failed" in monitor._head.value
    assert "CUDA out of &lt;memory&gt;" in monitor._message.value


def test_why_it_failed_and_what_mends_it(growing: Any, monitor: Monitor, monkeypatch: pytest.MonkeyPatch) -> None:
    training, _ = presets.tiny_lora(model_dir=".", pictures="pictures", output_dir=growing.run.path.parent)
    growing.run.run_toml.write_text(toml.dump(training))
    growing.run.console_log.write_text("torch.OutOfMemoryError: CUDA out of <memory>. Tried to allocate 2 GiB\n")
    assert "dpnb-hidden" in monitor.triage.widget._dom_classes
    growing.status("failed", 3)
    growing.process.ended, growing.process.exit_code, growing.process.pid = time.time(), 1, None
    growing.run.write_process(growing.process)
    until(lambda: "dpnb-hidden" not in monitor.triage.widget._dom_classes)
    shown = monitor.triage._words.value
    assert "Why it ended: the GPU ran out of memory" in shown
    assert "CUDA out of &lt;memory&gt;" in shown
    assert "<code>activation_checkpointing</code></td><td>False</td><td><b>True</b>" in shown
    assert monitor.triage.button.description == "Apply and start again"
    started: list[Any] = []

    def restart(run: Run, card: Any) -> Run:
        started.append((run, card.changes))
        if len(started) == 1:
            raise RunError("the disk is <full>")
        return run

    monkeypatch.setattr("dpnb.runs.restart.restart", restart)
    monitor.triage.button.click()
    until(lambda: "the disk is &lt;full&gt;" in monitor.triage._said.value)
    until(lambda: not monitor.triage.button.disabled)
    monitor.triage.button.click()
    until(lambda: len(started) == 2 and monitor.triage._said.value == "")
    assert started[1] == (monitor.run, {"activation_checkpointing": True})


def test_a_silent_run_says_so(growing: Any, monitor: Monitor, monkeypatch: pytest.MonkeyPatch) -> None:
    growing.step(1)
    monkeypatch.setattr(Run, "silence_seconds", 95.0)
    until(lambda: "No sign of life for 1 min 35 s" in monitor._message.value)


def test_other_prompts_are_asked_for(growing: Any, watch: Watch) -> None:
    growing.run.run_toml.write_text('[sample]\nprompts = ["a zorbi", {text = "a\\nred zorbi", seed = 1}]\n')
    growing.step(1)
    monitor = watch(growing.run.path)
    prompts = monitor.controls.prompts
    until(lambda: not prompts.draw.disabled)
    assert prompts.is_hidden
    prompts.open.click()
    assert not prompts.is_hidden
    assert prompts.field.value == "a zorbi\na red zorbi"
    prompts.field.value = " \n"
    prompts.draw.click()
    assert "Write a prompt first." in prompts._said.value
    assert growing.run.pending_requests() == []
    prompts.field.value = "a blue zorbi\n\n a dog "
    prompts.draw.click()
    assert growing.run.request_detail("sample") == {"prompts": ["a blue zorbi", "a dog"]}
    until(lambda: prompts.draw.disabled)


def test_a_run_whose_processes_vanished_is_dead(growing: Any, monitor: Monitor) -> None:
    growing.process.pid, growing.process.started = None, 1.0
    growing.run.write_process(growing.process)
    until(lambda: "Resume it" in monitor._message.value)
    assert "dpnb-badge-dead" in monitor._head.value


def test_a_run_of_diffusion_pipe_itself_is_charted(tmp_path: Path, watch: Watch) -> None:
    growing = GrowingRun(tmp_path / "run", 3)
    growing.step(1)
    for name in ("status.json", "process.json"):
        (growing.run.path / name).unlink()
    monitor = watch(growing.run.path)
    until(lambda: "Training loss" in monitor.charts)


def test_an_error_of_the_thread_is_shown(growing: Any, monkeypatch: pytest.MonkeyPatch, watch: Watch) -> None:
    monkeypatch.setattr(Run, "log", lambda self, lines: 1 / 0)
    monitor = watch(growing.run)
    until(lambda: "The monitor stopped: ZeroDivisionError" in monitor._message.value)


def test_closing_ends_the_thread_and_leaves_no_widget_behind(growing: Any, watch: Watch) -> None:
    before = len(live_widgets)
    monitor = watch(growing.run)
    for step in range(1, 11):
        growing.step(step)
    until(lambda: len(monitor._grid.children) == 7)
    monitor.close()
    monitor.close()
    until(lambda: not monitor._ticker.thread.is_alive())
    assert len(live_widgets) == before


def test_it_costs_little_to_make(growing: Any, watch: Watch) -> None:
    start = time.perf_counter()
    watch(growing.run)
    assert time.perf_counter() - start < 0.5


@pytest.mark.parametrize(
    ("tag", "title", "curve"),
    [
        ("train/loss", "Training loss", "train/loss"),
        ("train/lr", "Learning rate", "train/lr"),
        ("train/grad_norm", "Gradient norm", "train/grad_norm"),
        ("train/seconds_per_step", "Time per step", "train/seconds_per_step"),
        ("memory/gpu_gib", "Memory", "gpu"),
        ("my set/loss", "Evaluation loss", "my set"),
        ("train/epoch_loss", "Loss by epoch", "train/epoch_loss"),
        ("train/samples_per_second", "Samples per second", "train/samples_per_second"),
        ("train/prodigy_d", "Prodigy's d", "train/prodigy_d"),
        ("train/automagic_avg_lr", "Learning rate", "train/automagic_avg_lr"),
    ],
)
def test_each_tag_has_one_chart(tag: str, title: str, curve: str) -> None:
    assert [(plot.title, name) for plot in PLOTS if (name := plot.curve(tag)) is not None] == [(title, curve)]


def test_names_are_escaped() -> None:
    shown = head_html("<run>", "running", Status(phase="training", detail="<detail>"))
    assert "<run>" not in shown
    assert "<detail>" not in shown


def test_a_monitor_displays_itself(monitor: Monitor) -> None:
    assert "application/vnd.jupyter.widget-view+json" in monitor._repr_mimebundle_()
    assert repr(monitor) == "Monitor('20260101_00-00-00')"


def test_latest_and_names_are_understood(growing: Any, monkeypatch: pytest.MonkeyPatch, watch: Watch) -> None:
    monkeypatch.chdir(growing.run.path.parent)
    for what in ("latest", "20260101_00-00-00", RunDir(growing.run.path), Path(os.fspath(growing.run.path))):
        monitor = watch(what)
        assert monitor.run.path == growing.run.path
        monitor.close()


# --- what happened, and what is asked --------------------------------------------------------------------------------


def test_marks_stand_on_the_training_loss(growing: Any, monitor: Monitor) -> None:
    growing.step(5)
    until(lambda: "Training loss" in monitor.charts)
    for kind, x in (("saved", 2), ("saved", 4), ("learning rate", 3)):
        growing.run.add_mark(Mark(kind, x, time.time(), f"<{kind}>"))
    chart = monitor.charts["Training loss"]
    until(lambda: chart._figure is not None and len(chart._figure.marks) == 4)  # two curves, two kinds
    saved = chart._figure.marks[2]
    assert saved.x.tolist() == [2, 2, 2, 4, 4, 4]
    assert saved.y[[1, 2, 4, 5]].tolist() == [0, 1, 0, 1]
    assert "saved 2" in chart._head.value
    assert "&lt;learning rate&gt;" in monitor._happened.value
    assert "dpnb-hidden" not in monitor._events._dom_classes


def test_the_folders_of_diffusion_pipe_are_marks_too(tmp_path: Path) -> None:
    growing = GrowingRun(tmp_path / "run", 3)
    for name in ("step40", "epoch2"):
        (growing.run.path / name).mkdir()
        (growing.run.path / name / "adapter_model.safetensors").touch()
    (growing.run.path / "global_step30").mkdir()
    assert [(mark.kind, mark.x, mark.text) for mark in marks_of(growing.run)] == [
        ("saved", 40, "step40"),
        ("saved", 30, "global_step30"),
    ]


def test_a_learning_rate_is_asked_for(growing: Any, monitor: Monitor) -> None:
    growing.step(1)
    controls = monitor.controls
    until(lambda: not controls.set_rate.disabled)
    controls.rate.value = "fast"
    controls.set_rate.click()
    wrong = "&#x27;fast&#x27; is no learning rate: write a number above 0, such as 5e-5."
    until(lambda: wrong in monitor._message.value)
    assert growing.run.pending_requests() == []
    controls.rate.value = "5e-5"
    controls.set_rate.click()
    until(lambda: "Changing the learning rate" in monitor._message.value and controls.set_rate.disabled)
    assert wrong not in monitor._message.value
    assert growing.run.request_detail("set_lr") == {"lr": 5e-5}


def test_a_run_is_paused_and_goes_on(growing: Any, monitor: Monitor) -> None:
    growing.step(1)
    pause = monitor.controls.pause
    until(lambda: not pause.disabled)
    pause.click()
    assert growing.run.pause_file.exists()
    until(lambda: pause.description == "Continue" and "Paused" in monitor._message.value)
    pause.click()
    until(lambda: pause.description == "Pause" and "Paused" not in monitor._message.value)
    assert not growing.run.pause_file.exists()


def test_diffusion_pipe_is_asked_for_what_it_knows(growing: Any, watch: Watch) -> None:
    growing.process.argv = ["deepspeed", "train.py", "--deepspeed"]
    growing.run.write_process(growing.process)
    monitor = watch(growing.run)
    shown = [name for name, b in monitor.controls.buttons.items() if "dpnb-hidden" not in b._dom_classes]
    assert shown == ["save", "save_quit"]
    assert "dpnb-hidden" in monitor.controls._ours._dom_classes
