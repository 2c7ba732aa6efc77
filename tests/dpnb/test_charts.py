"""LineChart: what is sent to the browser, seen from the kernel's side."""

from __future__ import annotations

import time

import numpy as np
import pytest
from ipywidgets.widgets.widget import _instances as live_widgets

from dpnb.runs.events import MAX_POINTS, Points, thin
from dpnb.widgets import charts as module
from dpnb.widgets.across import Across
from dpnb.widgets.charts import (
    COLOURS,
    LINGER_SECONDS,
    REST_SECONDS,
    Flags,
    LineChart,
    decades,
    drawable,
    round_ticks,
)


def points(values: list[float] | np.ndarray, first_step: int = 1) -> Points:
    steps = np.arange(first_step, first_step + len(values), dtype=np.int64)
    return Points(steps, np.zeros(len(values)), np.asarray(values, dtype=np.float64))


@pytest.fixture
def chart() -> LineChart:
    made = LineChart("Loss")
    yield made
    made.close()


def test_what_cannot_be_drawn_becomes_a_gap() -> None:
    values = np.array([1.0, 0.0, -1.0, np.inf, np.nan])
    assert np.isnan(drawable(values, log=True)).tolist() == [False, True, True, True, True]
    assert np.isnan(drawable(values, log=False)).tolist() == [False, False, False, True, True]


def test_long_series_are_thinned_and_keep_their_spikes() -> None:
    values = np.zeros(100_000)
    values[54_321] = 9.0
    steps, shown = thin(np.arange(100_000), values)
    assert len(steps) <= MAX_POINTS
    assert shown.max() == 9.0
    assert steps[shown.argmax()] == 54_321


def test_short_series_are_left_alone() -> None:
    steps, shown = thin(np.arange(3), np.array([3.0, 1.0, 2.0]))
    assert steps.tolist() == [0, 1, 2]
    assert shown.tolist() == [3, 1, 2]


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.12, 0.83, [0.2, 0.4, 0.6, 0.8]),
        (0, 200, [0, 100, 200]),
        (0.75, 9.2, [2, 4, 6, 8]),
        (0, 1e-3, [0, 0.0005, 0.001]),
        (2, 2, [2]),
    ],
)
def test_ticks_are_round(low: float, high: float, ticks: list[float]) -> None:
    assert round_ticks(low, high) == pytest.approx(ticks)


def test_steps_are_whole_numbers() -> None:
    assert round_ticks(1, 2, whole=True) == [1, 2]
    assert round_ticks(1, 24, whole=True) == [5, 10, 15, 20]


def test_log_ticks_are_decades() -> None:
    assert decades(1e-5, 1.0) == pytest.approx([1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0])
    assert decades(0.01, 0.3) == pytest.approx([0.01, 0.02, 0.05, 0.1, 0.2])
    assert decades(0.2, 0.8) == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert decades(0.0, 1.0) == []


def test_points_are_appended(chart: LineChart) -> None:
    chart.add("train", points([3.0, 2.0]))
    chart.draw()
    (mark,) = chart._figure.marks
    chart.add("train", points([1.0], first_step=3))
    chart.draw()
    assert mark.x.tolist() == [1, 2, 3]
    assert mark.y.tolist() == [3, 2, 1]
    assert "1" in chart._head.value


def test_a_single_point_is_seen(chart: LineChart) -> None:
    chart.add("train", points([3.0]))
    chart.draw()
    (mark,) = chart._figure.marks
    assert mark.marker == "circle"
    chart.add("train", points([2.0], first_step=2))
    chart.draw()
    assert mark.marker is None


def test_x_and_y_travel_in_one_message(chart: LineChart, monkeypatch: pytest.MonkeyPatch) -> None:
    chart.add("train", points([3.0, 2.0]))
    chart.draw()
    (mark,) = chart._figure.marks
    sent: list[set[str]] = []
    real = mark.send_state
    monkeypatch.setattr(mark, "send_state", lambda key=None: (sent.append(set(key)), real(key)))
    chart.add("train", points([1.0], first_step=3))
    chart.draw()
    assert sent == [{"x", "y"}]


def test_nothing_new_sends_nothing(chart: LineChart) -> None:
    chart.add("train", points([3.0, 2.0]))
    chart.draw()
    figure = chart._figure
    chart.draw()
    assert chart._figure is figure


def test_smoothing_stands_over_the_pale_raw_curve(chart: LineChart) -> None:
    chart.set_mode(smoothing=0.9)
    chart.add("train", points([1.0, 3.0]))
    chart.draw()
    raw, smooth = chart._figure.marks
    assert raw.opacities == [0.3]
    assert smooth.y.tolist() == pytest.approx([1.0, (0.9 * 1 + 3) / 1.9])  # the debiased average
    chart.set_mode(smoothing=0.5)
    chart.draw()
    assert chart._figure.marks[1] is smooth
    chart.set_mode(smoothing=0.0)
    chart.draw()
    assert chart._figure.marks == [raw, smooth]
    assert smooth.y.tolist() == raw.y.tolist() == [1.0, 3.0]


def test_smoothing_can_begin_later(chart: LineChart) -> None:
    chart.add("train", points([1.0, 3.0]))
    chart.draw()
    figure, (raw,) = chart._figure, chart._figure.marks
    assert raw.opacities == [1.0]
    chart.set_mode(smoothing=0.9)
    chart.draw()
    assert chart._figure is figure
    assert len(figure.marks) == 2
    assert figure.marks[0] is raw
    assert raw.opacities == [0.3]


def test_a_curve_joins_the_figure_that_is_there(chart: LineChart) -> None:
    chart.add("one", points([1.0, 3.0]))
    chart.draw()
    figure, (first,) = chart._figure, chart._figure.marks
    chart.add("two", points([5.0, 4.0]))
    chart.draw()
    assert chart._figure is figure
    assert figure.marks[0] is first
    assert figure.marks[1].y.tolist() == [5.0, 4.0]
    assert chart.widget.children == (chart._head, figure)
    assert chart.settled


def test_figures_follow_each_other_slowly(chart: LineChart, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    chart.add("train", points([1.0, 3.0]))
    chart.draw()
    figure = chart._figure
    chart.set_mode(log=True)
    chart.draw()
    assert chart._figure is figure
    assert not chart.settled
    now[0] += REST_SECONDS
    chart.draw()
    assert chart._figure is not figure
    assert not chart.settled, "the old figure lingers"
    now[0] += LINGER_SECONDS
    chart.draw()
    assert chart.settled


def test_a_change_of_mind_makes_no_figure(chart: LineChart) -> None:
    chart.add("train", points([1.0, 3.0]))
    chart.draw()
    figure = chart._figure
    chart.set_mode(log=True)
    chart.draw()
    chart.set_mode(log=False)
    chart.draw()
    assert chart._figure is figure
    assert chart.settled


def test_a_log_axis_hides_what_is_not_positive(chart: LineChart) -> None:
    chart.add("train", points([1.0, -1.0, 0.1]))
    chart.set_mode(log=True)
    chart.draw()
    assert type(chart._y_scale).__name__ == "LogScale"
    assert np.isnan(chart._figure.marks[0].y).tolist() == [False, True, False]


def test_a_resumed_run_replaces_what_it_repeats(chart: LineChart) -> None:
    chart.add("train", points([4.0, 3.0, 2.0, 1.0]))
    chart.add("train", points([9.0], first_step=3))
    chart.draw()
    assert chart._figure.marks[0].x.tolist() == [1, 2, 3]
    assert chart._figure.marks[0].y.tolist() == [4, 3, 9]


def test_curves_have_their_own_colours_and_a_legend(chart: LineChart) -> None:
    for number in range(len(COLOURS) + 1):
        chart.add(f"<set{number}>", points([1.0 + number]))
    chart.draw()
    marks = chart._figure.marks
    assert [mark.colors[0] for mark in marks[: len(COLOURS)]] == list(COLOURS)
    assert marks[-1].line_style == "dashed"
    assert "&lt;set6&gt;" in chart._head.value


def test_zoom_off_shows_everything_again(chart: LineChart, monkeypatch: pytest.MonkeyPatch) -> None:
    chart.add("train", points([3.0, 2.0]))
    chart.draw()
    chart.set_zoom(True)
    chart._x_scale.min, chart._x_scale.max = 1.0, 1.5
    monkeypatch.setattr(module, "REST_SECONDS", 0.0)
    chart.set_mode(log=True)
    chart.draw()
    assert chart._figure.interaction is not None
    chart.set_zoom(False)
    assert chart._figure.interaction is None
    assert chart._x_scale.min is None


def test_small_numbers_are_written_with_an_exponent(chart: LineChart) -> None:
    chart.add("lr", points([1e-5, 2e-5]))
    chart.draw()
    assert chart._axes[1].tick_format == ".3~e"


def test_closing_leaves_no_widget_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REST_SECONDS", 0.0)
    before = len(live_widgets)
    made = LineChart("Loss", smoothing=0.9)
    made.add("a", points([1.0, 2.0]))
    made.draw()
    made.add("b", points([1.0, 2.0]))
    made.set_mode(log=True)
    made.draw()
    made.set_zoom(True)
    made.close()
    assert len(live_widgets) == before


def test_flags_are_lines_from_bottom_to_top(chart: LineChart) -> None:
    chart.add("train", points([1.0, 2.0, 3.0]))
    chart.set_flags([Flags("<saved>", "#123456", (2.0, 3.0))])
    chart.draw()
    figure, (_, flags) = chart._figure, chart._figure.marks
    assert flags.x.tolist() == [2, 2, 2, 3, 3, 3]
    assert np.isnan(flags.y).tolist() == [True, False, False] * 2
    assert flags.y[-1] == 1, "bqplot places a label by the last point"
    assert "&lt;saved&gt; 2" in chart._head.value
    chart.set_flags([Flags("warning", "#654321", (1.0,))])
    chart.draw()
    assert chart._figure is figure
    assert [mark.visible for mark in figure.marks] == [True, False, True]
    assert "saved" not in chart._head.value
    chart.set_flags([Flags("warning", "#654321", (1.0,))])
    assert not chart._stale


def test_zoom_and_brush_take_turns(chart: LineChart) -> None:
    told: list[object] = []
    chart.brushed = told.append
    chart.set_hand("brush")  # before there is a figure
    chart.add("train", points([1.0, 2.0, 3.0]))
    chart.draw()
    brush = chart._figure.interaction
    brush.selected = np.array([2.5, 1.5])
    assert told == [(1.5, 2.5)]
    assert chart.logged_within("train", 1.5, 2.5) == (2, 2)
    assert chart.logged_within("train", 1.4, 1.6) is None
    brush.selected = None
    chart.set_zoom(True)
    assert type(chart._figure.interaction).__name__ == "PanZoom"
    assert told == [(1.5, 2.5), None, None]
    chart.set_hand("")
    assert chart._figure.interaction is None


def test_another_axis_moves_the_points(chart: LineChart) -> None:
    chart.add("train", points([1.0, 2.0, 3.0]))
    chart.set_across("train", Across("examples", 4.0))
    chart.draw()
    assert chart._figure.marks[0].x.tolist() == [4, 8, 12]
    chart.set_across("train", Across("examples", 4.0))
    assert not chart._stale
