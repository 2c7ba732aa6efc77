"""DatasetForm: the dry run below its fields is the real scan and plan, in the background, after the newest edit."""

from __future__ import annotations

import io
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ipywidgets.widgets.widget import _instances as live_widgets
from PIL import Image

from dpnb.dataset.bucket import Size, plan
from dpnb.dataset.dryrun import dry_run
from dpnb.dataset.scan import Row, scan
from dpnb.errors import DatasetError
from dpnb.presets import tiny_lora
from dpnb.schema import FACTS, Dataset, Directory, Training
from dpnb.widgets import crops
from dpnb.widgets import dataset as module
from dpnb.widgets.buckets import PARTS, left_out_html
from dpnb.widgets.charts import BLUE, BarChart
from dpnb.widgets.dataset import THREAD, DatasetForm
from dpnb.widgets.form import Form, TrainingForm
from tests.dpnb.waiting import until


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SETTLE_SECONDS", 0.02)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for index in range(6):
        Image.new("RGB", (80, 64), (200, 100, 50)).save(tmp_path / f"{index}.png")
        (tmp_path / f"{index}.txt").write_text("a zorbi")
    Image.new("RGB", (80, 64)).save(tmp_path / "silent.png")
    (tmp_path / "<broken>.png").write_bytes(b"no picture")
    return tmp_path


def dataset(pictures: Path, **keys: Any) -> Dataset:
    return Dataset(**({"resolutions": [64]} | keys), directory=[Directory(path=str(pictures))])


@pytest.fixture
def form(pictures: Path) -> Iterator[DatasetForm]:
    made = DatasetForm(dataset(pictures))
    yield made
    made.close()


def figure(form: DatasetForm, what: str) -> str:
    before = form.view.figures.value.split(f"</b><span>{what}</span>")[0]
    return before.rsplit("<b>", 1)[-1]


def settled(form: DatasetForm) -> None:
    until(lambda: form.outcome is not None and not shown(form.view.cancel))


def shown(widget: Any) -> bool:
    return "dpnb-hidden" not in widget._dom_classes


def offered(form: DatasetForm) -> list[str]:
    """What the buttons that a person sees beside the findings say."""
    return [b.description for row in form.view.findings if shown(row.widget) for b in row.buttons if shown(b)]


def click(form: DatasetForm, words: str) -> None:
    (button,) = [b for row in form.view.findings for b in row.buttons if shown(b) and b.description == words]
    assert not button.disabled
    button.click()


# --- what is shown ---------------------------------------------------------------------------------------------------


def test_the_figures_say_what_a_run_will_do(form: DatasetForm) -> None:
    settled(form)
    names = ("pictures", "left out", "buckets", "steps per epoch", "of the area cut off")
    assert {what: figure(form, what) for what in names} == {
        "pictures": "6",
        "left out": "2",
        "buckets": "1",
        "steps per epoch": "6",
        "of the area cut off": "20.0%",
    }
    assert "clips" not in form.view.figures.value
    assert "&lt;broken&gt;.png" in form.view.reasons.value
    assert "<broken>" not in form.view.reasons.value
    assert "has no caption in silent.txt" in form.view.reasons.value
    assert "64x64 (aspect ratio 1.0)" in form.view.table.value


def test_the_outcome_is_the_plan(form: DatasetForm) -> None:
    settled(form)
    found = scan(form.value)
    assert form.outcome is not None
    assert form.outcome.plan == plan(found.rows, form.value, FACTS["flux"])


def test_a_video_family_counts_clips(pictures: Path) -> None:
    form = DatasetForm(dataset(pictures), family="wan")
    settled(form)
    assert figure(form, "clips") == "0"
    form.close()


def test_an_edit_is_followed_by_a_new_look(form: DatasetForm) -> None:
    settled(form)
    form.set("num_repeats", 2)
    until(lambda: figure(form, "steps per epoch") == "12")
    assert form.undo()
    until(lambda: figure(form, "steps per epoch") == "6")


def test_the_button_looks_again(form: DatasetForm, pictures: Path) -> None:
    until(lambda: figure(form, "pictures") == "6")
    (pictures / "silent.txt").write_text("a zorbi")
    form._again.click()
    until(lambda: figure(form, "pictures") == "7")


def test_errors_come_before_the_look() -> None:
    form = DatasetForm()
    until(lambda: "must be filled in first" in form.view.message.value)
    form.close()


def test_a_folder_with_nothing_in_it_is_explained(tmp_path: Path) -> None:
    form = DatasetForm(dataset(tmp_path))
    until(lambda: "it holds no pictures" in form.view.message.value)
    assert 'role="alert"' in form.view.message.value
    assert figure(form, "pictures") == "0"
    form.close()


def test_an_unforeseen_error_is_shown(form: DatasetForm, monkeypatch: pytest.MonkeyPatch) -> None:
    settled(form)

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no <luck>")

    monkeypatch.setattr(module, "dry_run", fail)
    form.refresh()
    until(lambda: "The dry run stopped: RuntimeError: no &lt;luck&gt;." in form.view.message.value)


def test_bars_show_each_bucket_and_what_is_not_trained(pictures: Path) -> None:
    for index in range(3):
        Image.new("RGB", (160, 80)).save(pictures / f"w{index}.png")
        (pictures / f"w{index}.txt").write_text("wide")
    form = DatasetForm(dataset(pictures, enable_ar_bucket=True, ar_buckets=[1.0, 2.0]), micro_batch=4)
    settled(form)
    chart = form.view._chart
    assert chart is not None
    assert list(chart._bars.x) == ["64x64", "96x48"]
    assert chart._bars.y.tolist() == [[4, 0], [2, 0], [0, 3]]
    keys = re.sub(r"<[^>]+>", "|", chart._head.value)
    assert all(f"{part} {count}" in keys for part, count in zip(PARTS, (4, 2, 3), strict=True))
    figure_before = chart._figure
    form.set("num_repeats", 4)
    until(lambda: chart._bars.y.tolist() == [[24, 12], [0, 0], [0, 0]])
    assert chart._figure is figure_before, "views are not made anew"
    form.close()


def test_buckets_of_one_size_have_different_names(pictures: Path) -> None:
    Image.new("RGB", (1002, 1000)).save(pictures / "nearly.png")
    (pictures / "nearly.txt").write_text("x")
    Image.new("RGB", (1000, 1000)).save(pictures / "square.png")
    (pictures / "square.txt").write_text("x")
    form = DatasetForm(dataset(pictures, enable_ar_bucket=True, ar_buckets=[1.0, 1.001, 1.25]))
    settled(form)
    assert form.view._chart is not None
    assert list(form.view._chart._bars.x) == ["64x64 (1.0)", "64x64 (1.001)", "64x64 (1.25)"]
    form.close()


def test_many_names_below_bars_are_thinned() -> None:
    chart = BarChart("Many", {"a": BLUE})
    chart.draw([f"{i}" for i in range(100)], [[1.0] * 100])
    assert len(chart._axes[0].tick_values) <= 48
    chart.draw(["x", "y"], [[3.0, 4.0]])
    assert list(chart._axes[0].tick_values) == ["x", "y"]
    chart.close()


# --- what is left out ------------------------------------------------------------------------------------------------


def test_left_out_files_are_grouped_and_paged(pictures: Path) -> None:
    for index in range(120):
        (pictures / f"bad{index:03}.png").write_bytes(b"x")
    form = DatasetForm(dataset(pictures))
    settled(form)
    view = form.view
    assert "Cannot be read: 121" in view.reasons.value
    assert "Without a caption: 1" in view.reasons.value
    assert view.reasons.value.count("/bad") == 2, "three are named, with <broken>"
    assert "and 118 more" in view.reasons.value
    assert (shown(view.show_all), view.show_all.description) == (True, "Show all 122")
    assert not shown(view.later)
    view.show_all.click()
    assert "bad048" in view.reasons.value
    assert "bad049" not in view.reasons.value
    assert shown(view.later)
    view.later.click()
    view.later.click()
    assert "silent.png" in view.reasons.value
    assert view.later.disabled
    view.earlier.click()
    view.show_all.click()
    assert view.reasons.value.count("/bad") == 2
    form.close()


def test_few_left_out_files_need_no_paging(form: DatasetForm) -> None:
    settled(form)
    assert not shown(form.view.show_all)


def test_everything_foreign_is_escaped() -> None:
    row = Row("/x/<i>.png", reason="<b>no</b>", cause="unreadable")
    text = left_out_html([row], [row], most=3)
    assert "<i>" not in text
    assert "<b>" not in text


# --- mends -----------------------------------------------------------------------------------------------------------


def test_a_mend_is_one_click_and_can_be_undone(form: DatasetForm) -> None:
    settled(form)
    assert offered(form) == ["Train them without a caption"]
    click(form, "Train them without a caption")
    assert form.value.skip_empty_caption is False
    until(lambda: figure(form, "pictures") == "7")
    until(lambda: offered(form) == ["Leave them out"])
    form.undo()
    until(lambda: figure(form, "pictures") == "6")


def test_mends_wait_while_a_newer_look_is_on_its_way(form: DatasetForm, monkeypatch: pytest.MonkeyPatch) -> None:
    settled(form)
    monkeypatch.setattr(module, "SETTLE_SECONDS", 30.0)
    form.set("num_repeats", 2)
    assert all(button.disabled for row in form.view.findings for button in row.buttons)


def test_repeats_for_a_folder(pictures: Path) -> None:
    form = DatasetForm(dataset(pictures), micro_batch=10)
    settled(form)
    assert form.view.message.value.count("nothing is left to train on") == 1
    words = f"num_repeats = 2 for {pictures.name}"
    assert words in offered(form)
    click(form, words)
    until(lambda: figure(form, "steps per epoch") == "1")
    assert form.value.directory[0].num_repeats == 2
    form.close()


@pytest.fixture
def training(pictures: Path) -> Training:
    made, _ = tiny_lora(model_dir=pictures, pictures=pictures, output_dir=pictures)
    return made.model_copy(update={"micro_batch_size_per_gpu": 4, "gradient_accumulation_steps": 1})


def test_a_training_decides_the_batch_and_the_trigger(form: DatasetForm, training: Training) -> None:
    form.use_training(training.model_copy(update={"trigger_word": "blip"}))
    until(lambda: figure(form, "steps per epoch") == "1")
    assert form.outcome is not None
    assert next(row for row in form.outcome.rows if row.used).captions == ("blip, a zorbi",)
    form.use_training(training, gpus=2)
    until(lambda: "nothing is left to train on" in form.view.message.value)
    assert not [words for words in offered(form) if "batch" in words], "there is no form whose batch could be lowered"


def test_the_batch_of_a_training_form_is_lowered_by_a_click(form: DatasetForm, training: Training) -> None:
    both: Form[Training] = TrainingForm(training.model_copy(update={"micro_batch_size_per_gpu": 8}))
    form.use_training(both)
    until(lambda: "Lower the batch to 6" in offered(form))
    click(form, "Lower the batch to 6")
    assert both.value.micro_batch_size_per_gpu == 6
    until(lambda: figure(form, "steps per epoch") == "1" and not shown(form.view.cancel))
    both.set("micro_batch_size_per_gpu", 2)
    until(lambda: figure(form, "steps per epoch") == "3")
    both.set("micro_batch_size_per_gpu", "many")
    until(lambda: not shown(form.view.cancel))
    assert figure(form, "steps per epoch") == "3", "while the training is not valid, its last batch holds"
    form.use_training(training)
    until(lambda: figure(form, "steps per epoch") == "1")
    both.set("micro_batch_size_per_gpu", 1)
    time.sleep(0.2)
    assert figure(form, "steps per epoch") == "1", "it is no longer followed"
    both.close()


# --- in the background -----------------------------------------------------------------------------------------------


class Slow:
    """Takes the place of dry_run: reads on until it is let go, or called off."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go, self.calls, self.ended = threading.Event(), 0, 0
        monkeypatch.setattr(module, "dry_run", self)

    def __call__(self, *arguments: Any, progress: Any, cancelled: Any, **keys: Any) -> Any:
        self.calls += 1
        progress(30, 200)
        while self.calls == 1 and not self.go.wait(0.01):
            if cancelled():
                self.ended += 1
                raise module.Cancelled
        return dry_run(*arguments, progress=progress, cancelled=cancelled, **keys)


def test_progress_and_cancel(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow(monkeypatch)
    form = DatasetForm(dataset(pictures))
    gauge = form.view.status[0]
    until(lambda: "Reading headers: 30 of 200 files" in gauge.value)
    assert "width: 15%" in gauge.value
    assert shown(gauge)
    assert shown(form.view.cancel)
    form.view.cancel.click()
    until(lambda: slow.ended == 1)
    assert ">Cancelled. Look again starts anew.<" in form.view.message.value
    assert not shown(gauge)
    assert form.outcome is None
    form._again.click()
    settled(form)
    assert form.view.message.value == ""
    form.cancel()
    assert "Cancelled. What stands below is of an earlier look." in form.view.message.value
    form.close()


def test_a_newer_request_ends_an_older_one(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow(monkeypatch)
    form = DatasetForm(dataset(pictures))
    until(lambda: slow.calls == 1)
    form.set("num_repeats", 3)
    until(lambda: figure(form, "steps per epoch") == "18")
    until(lambda: slow.ended == 1)
    form.close()


def test_closing_leaves_no_widget_and_no_thread_behind(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(live_widgets)
    form = DatasetForm(dataset(pictures))
    settled(form)
    form.close()
    form.close()
    form.refresh()
    form.cancel()
    slow = Slow(monkeypatch)
    at_work = DatasetForm(dataset(pictures))
    until(lambda: slow.calls == 1)
    at_work.close()
    ours = (THREAD, crops.THREAD)
    until(lambda: not [thread for thread in threading.enumerate() if thread.name in ours])
    assert len(live_widgets) == before


def test_a_hundred_forms_leave_nothing_behind(pictures: Path) -> None:
    before = len(live_widgets)
    for _ in range(100):
        form = DatasetForm(dataset(pictures))
        settled(form)
        form.close()
    assert len(live_widgets) == before


def test_the_first_display_is_small(form: DatasetForm) -> None:
    settled(form)
    assert form.view.crops is not None
    until(lambda: "1 to 6 of 6" in form.view.crops._where.value)  # type: ignore[union-attr]
    models = list(live_widgets.values())
    assert len(models) < 300
    assert sum(len(str(model.get_state())) for model in models) < 400_000


# --- crops -----------------------------------------------------------------------------------------------------------


def test_the_kept_part_is_bright_and_the_rest_dimmed(tmp_path: Path) -> None:
    Image.new("RGB", (400, 200), (200, 200, 200)).save(tmp_path / "a.png")
    data = crops.preview(Row(str(tmp_path / "a.png"), width_px=400, height_px=200), Size(64, 64))
    shown = Image.open(io.BytesIO(data)).convert("L")
    assert shown.size == (220, 110)
    middle = [shown.getpixel((x, 55)) for x in (20, 50, 60, 160, 170, 200)]
    assert [value > 150 for value in middle] == [False, False, True, True, False, False]
    assert len(data) < 20_000


def test_a_file_that_cannot_be_decoded_is_named(pictures: Path) -> None:
    whole = Image.effect_noise((80, 64), 90)
    whole.save(pictures / "0.png")
    (pictures / "0.png").write_bytes((pictures / "0.png").read_bytes()[:300])
    form = DatasetForm(dataset(pictures))
    settled(form)
    assert form.view.crops is not None
    captions = form.view.crops._captions
    until(lambda: "corrupt: " in captions[0].value)
    until(lambda: "80 x 64: 20.0% cut off" in captions[1].value)
    assert not shown(form.view.crops._pictures[0])
    assert shown(form.view.crops._pictures[1])
    form.close()


def test_a_file_that_has_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"^cannot be read: No such file or directory$"):
        crops.preview(Row(str(tmp_path / "a.png"), width_px=4, height_px=2), Size(64, 64))


def test_pages_and_buckets_of_crops(pictures: Path) -> None:
    for index in range(8):
        Image.new("RGB", (160, 80)).save(pictures / f"w{index}.png")
        (pictures / f"w{index}.txt").write_text("wide")
    form = DatasetForm(dataset(pictures, enable_ar_bucket=True, ar_buckets=[1.0, 2.0]))
    settled(form)
    pages = form.view.crops
    assert pages is not None
    until(lambda: "1 to 6 of 8" in pages._where.value)  # of the largest bucket
    pages._choice.value = 0
    until(lambda: "1 to 6 of 6" in pages._where.value)
    assert [words for words, _ in pages._choice.options] == [
        "64x64 (aspect ratio 1.0): 6",
        "96x48 (aspect ratio 2.0): 8",
    ]
    pages._choice.value = 1
    until(lambda: "1 to 6 of 8" in pages._where.value)
    assert "<b>w0.png</b><br>160 x 80: nothing cut off" in pages._captions[0].value
    pages._later.click()
    until(lambda: "7 to 8 of 8" in pages._where.value)
    assert [shown(shot) for shot in pages._shots] == [True, True, False, False, False, False]
    assert (pages._earlier.disabled, pages._later.disabled) == (False, True)
    form.set("num_repeats", 2)
    until(lambda: "1 to 6 of 8" in pages._where.value)
    assert pages._choice.value == 1, "the bucket that was looked at is still there"
    pages._earlier.click()
    form.close()


def test_enlarged_pictures_are_named_so() -> None:
    assert crops._caption(Row("<x>.png", width_px=32, height_px=32), Size(64, 64)) == (
        "<b>&lt;x&gt;.png</b><br>32 x 32: nothing cut off, enlarged 2.0 times"
    )
    long = crops._caption(Row("y" * 60 + ".png", width_px=64, height_px=64), Size(64, 64))
    assert f"<b>{'y' * 28}...{'y' * 5}.png</b>" in long


# --- the file --------------------------------------------------------------------------------------------------------


def test_folders_come_first(form: DatasetForm) -> None:
    assert next(iter(form._pages)).title == "Directory"


def test_a_form_saves_and_loads(form: DatasetForm, tmp_path: Path) -> None:
    path = form.save(tmp_path / "dataset.toml")
    path.write_text(f"# mine\n{path.read_text()}")
    loaded = DatasetForm.load(path)
    assert loaded.value == form.value
    loaded.set("num_repeats", 2)
    loaded.save()
    assert path.read_text().startswith("# mine\n")
    loaded.close()
