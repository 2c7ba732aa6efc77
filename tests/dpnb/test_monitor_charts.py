"""The charts, log and badges of a monitor: what stands on them, and what they cost."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ipywidgets import Widget
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

from dpnb.runs.events import Points
from dpnb.runs.health import unhealthy
from dpnb.runs.plots import MOST_EVALUATIONS, quantile_of
from dpnb.runs.rundir import Mark, RunDir, Status
from dpnb.widgets import charts
from dpnb.widgets import monitor as module
from dpnb.widgets.across import across_of
from dpnb.widgets.heat import HeatMap
from dpnb.widgets.log_view import ERRORS, EVERYTHING, WARNINGS, matching
from dpnb.widgets.monitor import SELECT, ZOOM, Monitor
from tests.dpnb.growing import GrowingRun, Watch
from tests.dpnb.waiting import until


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TICK_SECONDS", 0.05)
    monkeypatch.setattr(charts, "REST_SECONDS", 0.1)
    monkeypatch.setattr(charts, "LINGER_SECONDS", 0.2)


# --- charts ----------------------------------------------------------------------------------------------------------


def test_the_heat_map_has_a_row_for_each_quantile(growing: Any, monitor: Monitor) -> None:
    for step in range(10, 40, 10):
        growing.step(step)
    until(lambda: "step" in str([m._html.value for m in monitor.heat_maps.values()]))
    (heat_map,) = monitor.heat_maps.values()
    until(lambda: heat_map._html.value.count("<rect") == 27)
    assert "30, 0.10: " in heat_map._html.value
    assert "held_out" in heat_map._html.value
    assert heat_map._html.value.index(">0.90<") < heat_map._html.value.index(">0.10<")


def test_many_evaluations_are_a_bounded_message() -> None:
    heat_map = HeatMap("<set>")
    steps = np.arange(1, 1001, dtype=np.int64)
    for row in range(1, 10):
        heat_map.add(row / 10, Points(steps, steps * 1.0, np.where(steps == 500, np.nan, steps / row)))
    heat_map.draw()
    assert heat_map._html.value.count("<rect") == 9 * MOST_EVALUATIONS
    assert len(heat_map._html.value) < 100_000
    assert "1000, 0.10: 1000" in heat_map._html.value  # the newest is among them
    assert "<set>" not in heat_map._html.value
    heat_map.close()


@pytest.mark.parametrize(
    ("tag", "row"), [("a/loss_quantile_0.10", ("a", 0.1)), ("a/loss", None), ("/loss_quantile_x", None)]
)
def test_quantiles_are_rows(tag: str, row: Any) -> None:
    assert quantile_of(tag) == row


def test_steps_examples_or_minutes_stand_across(growing: Any, monitor: Monitor) -> None:
    for step in range(1, 5):
        growing.step(step)
    growing.status("training", 4, examples=16)
    until(lambda: "Training loss" in monitor.charts and monitor.charts["Training loss"]._figure is not None)
    chart = monitor.charts["Training loss"]
    monitor._across.value = "examples"
    until(lambda: chart._figure.marks[0].x.tolist() == [4, 8, 12, 16])
    monitor._across.value = "minutes"
    until(lambda: chart._figure.marks[0].x[0] == 0 and 0 <= chart._figure.marks[0].x[-1] < 1)
    monitor._across.value = "steps"
    until(lambda: chart._figure.marks[0].x.tolist() == [1, 2, 3, 4])


def test_a_run_that_logs_examples_is_shown_in_steps_too() -> None:
    status = Status(step=10, examples=40)
    assert across_of("steps", status, logs_examples=True, started=0).factor == 0.25
    assert across_of("examples", status, logs_examples=True, started=0).factor == 1
    assert across_of("examples", Status(), logs_examples=False, started=0).factor == 1
    assert across_of("minutes", status, logs_examples=True, started=60).of_mark(Mark("saved", 1, 180.0)) == 2


def test_runs_are_laid_over_each_other(growing: Any, tmp_path: Path, watch: Watch) -> None:
    other = GrowingRun(tmp_path / "another", 40)
    for step in range(1, 11):
        growing.step(step)
        other.step(2 * step)
    monitor = watch(growing.run, also=[other.run])
    until(lambda: "Training loss" in monitor.charts and len(monitor.charts["Training loss"]._curves) == 2)
    own, others = monitor.charts["Training loss"]._curves.values()
    assert (own.name, others.name) == (growing.run.name, "another")
    assert others.series.steps[-1] == 20
    assert set(monitor.charts["Evaluation loss"]._curves) == {f"{growing.run.name} held_out", "another held_out"}
    assert len(monitor.heat_maps) == 1
    growing.finish(10)
    other.step(21)
    until(lambda: others.series.steps[-1] == 21)  # it follows as long as one of them goes on
    other.finish(21)
    until(lambda: not monitor._ticker.thread.is_alive())


def test_selected_steps_are_told(growing: Any, monitor: Monitor) -> None:
    told: list[Any] = []
    monitor.on_steps(told.append)
    for step in range(1, 31):
        growing.step(step)
    monitor._hand.value = SELECT
    until(lambda: "Training loss" in monitor.charts and monitor.charts["Training loss"]._hands.hand == "brush")
    chart = monitor.charts["Training loss"]
    chart._figure.interaction.selected = np.array([9.6, 20.2])
    assert told == [(10, 20)]
    assert monitor._selected.value == "steps 10 to 20"
    assert monitor.charts["Learning rate"]._figure.interaction is None
    monitor._hand.value = ZOOM
    until(lambda: told == [(10, 20), None])
    assert monitor._selected.value == ""


def test_a_selection_among_minutes_is_told_in_steps(growing: Any, monitor: Monitor) -> None:
    told: list[Any] = []
    monitor.on_steps(told.append)
    for step in range(1, 6):
        growing.step(step)
    monitor._across.value, monitor._hand.value = "minutes", SELECT
    until(lambda: "Training loss" in monitor.charts and monitor.charts["Training loss"]._hands.hand == "brush")
    monitor.charts["Training loss"]._figure.interaction.selected = np.array([-1.0, 10.0])
    assert told == [(1, 5)]


# --- log -------------------------------------------------------------------------------------------------------------

LOG = ["step 1 loss 1.0", "warning: late", "ValueError: bad <x>", "Step 2 LOSS 2.0", "UserWarning: odd"]


@pytest.mark.parametrize(
    ("words", "level", "expected"),
    [
        ("", EVERYTHING, LOG),
        ("loss step", EVERYTHING, [LOG[0], LOG[3]]),
        ("", WARNINGS, [LOG[1], LOG[2], LOG[4]]),
        ("", ERRORS, [LOG[2]]),
        ("odd", ERRORS, []),
    ],
)
def test_lines_are_found(words: str, level: str, expected: list[str]) -> None:
    assert matching(LOG, words, level) == expected


def test_the_log_is_searched_further_back_than_it_is_shown(growing: Any, monitor: Monitor) -> None:
    growing.run.console_log.write_text("error: <first>\n" + "step\n" * 1000 + "z" * 5000 + "\n")
    until(lambda: "step" in monitor._log.text.value)
    assert "first" not in monitor._log.text.value
    assert len(monitor._log.text.value) < 10_000
    monitor._log._level.value = ERRORS
    until(lambda: "error: &lt;first&gt;" in monitor._log.text.value and "step" not in monitor._log.text.value)
    assert monitor._log._count.value == "1 of the last 1002 lines"
    monitor._log._level.value = EVERYTHING
    until(lambda: "step" in monitor._log.text.value and monitor._log._count.value == "")


# --- health ----------------------------------------------------------------------------------------------------------


def export(run: RunDir, name: str, **health: object) -> None:
    (run.path / name).mkdir()
    (run.path / name / "adapter_model.safetensors").touch()
    (run.path / name / "health.json").write_text(json.dumps(health))


def test_the_health_of_exports_is_shown(growing: Any, monitor: Monitor) -> None:
    sound = {"finite": True, "b_nonzero": 4, "b_total": 4, "norm": 1.25, "tensors": 8}
    export(growing.run, "step10", **sound)
    until(lambda: "step10: healthy" in monitor._health.value)
    assert "8 tensors, all finite, norm 1.25" in monitor._health.value
    export(growing.run, "step20.broken", **(sound | {"finite": False, "norm": float("nan")}))
    until(lambda: "step20.broken: unhealthy" in monitor._health.value)
    assert "it holds numbers that are not finite" in monitor._health.value
    assert "step10: healthy" in monitor._health.value


@pytest.mark.parametrize(
    ("health", "expected"),
    [
        ({"b_nonzero": 1, "b_total": 3, "finite": True}, ["2 of 3 trained matrices are still zero"]),
        ({"tensors": 0}, ["it holds no weights"]),
        ({}, []),
    ],
)
def test_what_is_unhealthy(health: dict[str, Any], expected: list[str]) -> None:
    assert unhealthy(health) == expected


# --- cost ------------------------------------------------------------------------------------------------------------


def write_history(file: Path, tags: Sequence[str], steps: int) -> None:
    """A long event file in a moment: without the check sums of the data, which take TensorBoard's writer minutes."""
    heads: dict[int, bytes] = {}
    with file.open("wb") as out:
        for step in range(1, steps + 1):
            for tag in tags:
                value = Summary.Value(tag=tag, simple_value=0.1 + 1 / step)
                data = Event(step=step, wall_time=1e9 + step, summary=Summary(value=[value])).SerializeToString()
                if len(data) not in heads:
                    length = struct.pack("<Q", len(data))
                    heads[len(data)] = length + struct.pack("<I", masked_crc32c(length))
                out.write(heads[len(data)] + data + bytes(4))


def test_a_hundred_thousand_steps_are_shown_quickly_and_follow_cheaply(
    growing: Any, monkeypatch: pytest.MonkeyPatch, watch: Watch
) -> None:
    tags = ("train/loss", "train/lr", "train/grad_norm", "train/seconds_per_step", "memory/gpu_gib")
    write_history(growing.run.path / "events.out.tfevents.1.history", tags, 100_000)
    charts.load_library()
    start = time.process_time()
    monitor = watch(growing.run)
    until(lambda: "Training loss" in monitor.charts and monitor.charts["Training loss"]._figure is not None)
    until(lambda: len(monitor._grid.children) == len(tags))
    assert time.process_time() - start < 2.0
    assert monitor.charts["Training loss"]._figure.marks[0].x[-1] == 100_000
    monitor._ticker.stop()
    until(lambda: not monitor._ticker.thread.is_alive())
    sent: list[int] = []
    real = Widget._send

    def weighed(self: Any, message: Any, buffers: Any = None) -> None:
        sent.append(len(json.dumps(message, default=str)) + sum(len(bytes(buffer)) for buffer in buffers or ()))
        real(self, message, buffers)

    monkeypatch.setattr(Widget, "_send", weighed)
    seconds = []
    for step in range(100_001, 100_006):
        growing.step(step)
        before = time.thread_time()
        monitor._tick()
        seconds.append(time.thread_time() - before)
    assert monitor.charts["Training loss"]._figure.marks[0].x[-1] == 100_005
    assert sorted(seconds)[2] < 0.1
    assert sum(sent) / 5 < 200_000
