"""DatasetForm: the summary is the real scan and plan, in the background, after the newest edit."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ipywidgets.widgets.widget import _instances as live_widgets
from PIL import Image

from dpnb.dataset.bucket import plan
from dpnb.dataset.scan import scan
from dpnb.schema import FACTS, Dataset, Directory
from dpnb.widgets import dataset as module
from dpnb.widgets.dataset import DatasetForm, summary_html
from tests.dpnb.waiting import until


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SETTLE_SECONDS", 0.02)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for index in range(6):
        Image.new("RGB", (80, 64)).save(tmp_path / f"{index}.png")
        (tmp_path / f"{index}.txt").write_text("a zorbi")
    Image.new("RGB", (80, 64)).save(tmp_path / "silent.png")
    (tmp_path / "<broken>.png").write_bytes(b"no picture")
    return tmp_path


@pytest.fixture
def form(pictures: Path) -> Iterator[DatasetForm]:
    made = DatasetForm(Dataset(resolutions=[64], directory=[Directory(path=str(pictures))]))
    yield made
    made.close()


def figure(form: DatasetForm, what: str) -> str:
    before = form.summary.value.split(f"</b><span>{what}</span>")[0]
    return before.rsplit("<b>", 1)[-1]


def test_the_summary_says_what_a_run_will_do(form: DatasetForm) -> None:
    until(lambda: "files used" in form.summary.value)
    shown = {what: figure(form, what) for what in ("files used", "left out", "buckets", "steps per epoch")}
    assert shown == {"files used": "6", "left out": "2", "buckets": "1", "steps per epoch": "6"}
    assert "&lt;broken&gt;.png" in form.summary.value
    assert "<broken>" not in form.summary.value
    assert "has no caption in silent.txt" in form.summary.value


def test_the_summary_equals_the_plan(form: DatasetForm, pictures: Path) -> None:
    found = scan(form.value)
    assert summary_html(plan(found.rows, form.value, FACTS["flux"]), found.notes)
    until(lambda: form.summary.value == summary_html(plan(found.rows, form.value, FACTS["flux"]), found.notes))


def test_an_edit_is_followed_by_a_new_look(form: DatasetForm) -> None:
    until(lambda: "files used" in form.summary.value)
    form.set("num_repeats", 2)
    until(lambda: figure(form, "steps per epoch") == "12")


def test_the_button_looks_again(form: DatasetForm, pictures: Path) -> None:
    until(lambda: figure(form, "files used") == "6")
    (pictures / "silent.txt").write_text("a zorbi")
    form._again.click()
    until(lambda: figure(form, "files used") == "7")


def test_the_training_decides_the_batch(form: DatasetForm, pictures: Path) -> None:
    from dpnb.presets import tiny_lora

    training, _ = tiny_lora(model_dir=pictures, pictures=pictures, output_dir=pictures)
    form.use_training(training.model_copy(update={"micro_batch_size_per_gpu": 4}))
    until(lambda: figure(form, "steps per epoch") == "1")


def test_errors_come_before_the_look() -> None:
    form = DatasetForm()
    until(lambda: "must be filled in first" in form.summary.value)
    form.close()


def test_a_folder_with_nothing_in_it_is_explained(tmp_path: Path) -> None:
    form = DatasetForm(Dataset(resolutions=[64], directory=[Directory(path=str(tmp_path))]))
    until(lambda: "it holds no pictures" in form.summary.value)
    form.close()


def test_a_newer_request_overtakes_an_older_one(form: DatasetForm, monkeypatch: pytest.MonkeyPatch) -> None:
    until(lambda: "files used" in form.summary.value)
    go, real = threading.Event(), scan
    calls: list[float] = []

    def slow(dataset: Dataset) -> Any:
        calls.append(dataset.num_repeats)
        if len(calls) == 1:
            go.wait(5)
        return real(dataset)

    monkeypatch.setattr(module, "scan", slow)
    form.set("num_repeats", 2)
    until(lambda: len(calls) == 1)
    form.set("num_repeats", 3)
    until(lambda: figure(form, "steps per epoch") == "18")
    go.set()
    time.sleep(0.2)
    assert figure(form, "steps per epoch") == "18"


def test_folders_come_first(form: DatasetForm) -> None:
    assert [page.title for page in form._pages] == ["Directory", "General"]


def test_a_form_saves_and_loads(form: DatasetForm, tmp_path: Path) -> None:
    path = form.save(tmp_path / "dataset.toml")
    loaded = DatasetForm.load(path)
    assert loaded.value == form.value
    loaded.close()


def test_closing_leaves_no_widget_behind(pictures: Path) -> None:
    before = len(live_widgets)
    form = DatasetForm(Dataset(resolutions=[64], directory=[Directory(path=str(pictures))]))
    form._toggle.value = True
    form.close()
    form.refresh()
    time.sleep(0.2)
    assert len(live_widgets) == before
