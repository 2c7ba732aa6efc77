"""Contact sheet and chart: sizes, places, and what is drawn where; pixels are asked, no golden files."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import numpy as np
import pytest
from PIL import Image

from dpnb.report import LINES, comparison_sheet, contact_sheet, fit, loss_chart, ticks
from dpnb.runs.events import Series
from dpnb.runs.process import Run
from dpnb.runs.rundir import RunDir, Sample, Status
from tests.dpnb.filmed import film, number_of


def sample(folder, step: int, index: int, colour, size=(16, 16)) -> Sample:
    path = folder / f"{step}-{index}.png"
    Image.new("RGB", size, colour).save(path)
    return Sample(step, index, path, {"prompt": f"a picture of number {index} with a rather long description"})


def series(values, first: int = 1) -> Series:
    made = Series()
    steps = np.arange(first, first + len(values), dtype=np.int64)
    made.extend((steps, np.zeros(len(values)), np.array(values, float)))
    return made


def has(picture: Image.Image, colour, tolerance: int = 40) -> bool:
    distance = np.abs(np.asarray(picture, int) - np.array(colour)).max(axis=2)
    return bool((distance < tolerance).any())


def test_sheet_has_a_row_for_each_step_and_a_column_for_each_prompt(tmp_path):
    reds = [
        sample(tmp_path, step, index, (10 * row + 100, 0, 100 * index))
        for row, step in enumerate([0, 40])
        for index in (0, 1)
    ]
    sheet = contact_sheet(reds, title="a run", cell_px=64)
    assert sheet.width == 96 + 2 * 72 + 8
    pixels = [
        sheet.getpixel((96 + column * 72 + 32, sheet.height - (2 - row) * 72 + 32))
        for row in (0, 1)
        for column in (0, 1)
    ]
    assert pixels == [(100, 0, 0), (100, 0, 100), (110, 0, 0), (110, 0, 100)]


def test_sheet_leaves_a_gap_for_a_missing_picture(tmp_path):
    some = [sample(tmp_path, 0, 0, (90, 9, 9)), sample(tmp_path, 5, 1, (90, 9, 9))]
    sheet = contact_sheet(some, cell_px=32)
    assert sheet.getpixel((96 + 16, sheet.height - 80 + 16)) == (90, 9, 9)
    assert sheet.getpixel((96 + 16, sheet.height - 40 + 16)) == (255, 255, 255)


def test_of_a_clip_the_first_frame_is_shown(tmp_path):
    clip = Sample(9, 0, film(tmp_path / "00.mp4", frames=6, size=(64, 64)), {})
    sheet = contact_sheet([clip], cell_px=64)
    assert number_of(sheet.crop((96, sheet.height - 72, 96 + 64, sheet.height - 8))) == 0


def test_runs_stand_one_above_the_other(tmp_path):
    runs = []
    for number, steps in enumerate(((0, 10), (0,))):
        run = RunDir.create(tmp_path, now=datetime(2026, 1, 1 + number, tzinfo=UTC))
        run.write_status(Status("done", 10, 10))
        for step in steps:
            folder = run.sample_dir(step)
            folder.mkdir(parents=True)
            for index, prompt in enumerate(("one", "two")[number:]):
                Image.new("RGB", (16, 16), (100 * number, step, 50 * len(prompt))).save(folder / f"{index:02d}.png")
                (folder / f"{index:02d}.json").write_text(json.dumps({"prompt": prompt}))
        runs.append(Run(run))
    sheet = comparison_sheet(runs, cell_px=64)
    rows = [sheet.height - (2 - row) * 72 + 32 for row in (0, 1)]
    seen = [[sheet.getpixel((96 + column * 72 + 32, y)) for column in (0, 1)] for y in rows]
    # The second run has not drawn at step 10, and knows the second prompt alone.
    assert seen == [[(0, 10, 150), (0, 10, 150)], [(255, 255, 255), (100, 0, 150)]]
    assert comparison_sheet(runs, step=0, cell_px=64).getpixel((96 + 32, rows[0])) == (0, 0, 150)
    with pytest.raises(ValueError, match="none of the 0 runs has drawn a picture"):
        comparison_sheet([])


def test_sheet_of_many_steps_shows_first_and_last(tmp_path):
    many = [sample(tmp_path, step, 0, (step, 0, 0)) for step in range(0, 200, 10)]
    sheet = contact_sheet(many, cell_px=32, max_rows=4)
    column = {sheet.getpixel((96 + 16, y)) for y in range(sheet.height)}
    shown = sorted(red for red, green, blue in column if green == blue == 0)
    assert (len(shown), shown[0], shown[-1]) == (4, 0, 190)


def test_a_sheet_needs_a_picture(tmp_path):
    with pytest.raises(
        ValueError, match=r"no picture among 1 samples: a contact sheet needs \.png, \.webp or \.mp4 files"
    ):
        contact_sheet([Sample(0, 0, tmp_path / "00.gif", {})])


@pytest.mark.parametrize(
    ("size", "expected"), [((64, 64), (192, 192)), ((50, 40), (150, 120)), ((384, 192), (192, 96))]
)
def test_fit(size, expected):
    assert fit(Image.new("RGB", size), 192).size == expected


def test_chart_draws_raw_and_smoothed_lines_and_a_second_curve():
    picture = loss_chart({"training": series(np.linspace(1, 0.2, 100)), "held out": series([0.9, 0.5, 0.3], 10)})
    assert picture.size == (900, 480)
    assert has(picture, LINES[0])
    assert has(picture, LINES[1])


def test_chart_survives_nan_single_points_and_constant_values():
    for values in ([1.0, float("nan"), 0.5, float("inf")], [2.0], [0.0] * 30):
        assert has(loss_chart({"loss": series(values)}), LINES[0])


def test_a_chart_needs_a_finite_point():
    with pytest.raises(
        ValueError, match="no finite point to draw: the run has not logged a loss yet, or every loss is NaN"
    ):
        loss_chart({"loss": series([float("nan")]), "empty": series([])})


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0.12, 0.31, [0.15, 0.2, 0.25, 0.3]),
        (-3, 120, [0, 20, 40, 60, 80, 100, 120]),
    ],
)
def test_ticks_are_round(low, high, expected):
    assert ticks(low, high) == pytest.approx(expected)
