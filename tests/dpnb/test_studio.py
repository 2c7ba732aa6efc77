"""The Studio: two forms whose files stay together, tabs that are built when opened, one run for all panels."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ipywidgets.widgets.widget import _instances as live_widgets
from PIL import Image

from dpnb import presets, toml
from dpnb.errors import ConfigError
from dpnb.runs.process import Run
from dpnb.runs.rundir import RunDir, Status
from dpnb.schema import Training
from dpnb.widgets import cells, compare, launcher, run_list
from dpnb.widgets import studio as module
from dpnb.widgets.captions import CaptionEditor
from dpnb.widgets.gallery import Gallery
from dpnb.widgets.monitor import Monitor
from dpnb.widgets.studio import MONITOR, SAMPLES, TABS, Studio
from dpnb.widgets.studio_files import TINY
from tests.dpnb.test_form_kernel import MOST_BYTES, MOST_MODELS, REPOSITORY, Kernel
from tests.dpnb.waiting import threads_of_ours, until

MODEL = Path(__file__).parents[2] / "trainer" / "tiny" / "flux"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(run_list, "TICK_SECONDS", 0.05)
    monkeypatch.setattr(launcher, "SETTLE_SECONDS", 0.02)
    monkeypatch.setattr(compare, "TICK_SECONDS", 0.05)
    monkeypatch.setattr(module, "LINGER_SECONDS", 0.1)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def studio() -> Iterator[Studio]:
    made = Studio()
    yield made
    made.close()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Two files below `mine/`, with comments; the training file."""
    pictures = tmp_path / "photos"
    pictures.mkdir()
    for number in range(8):
        Image.new("RGB", (64, 64), (number, 0, 0)).save(pictures / f"{number}.png")
        (pictures / f"{number}.txt").write_text("a zorbi")
    folder = tmp_path / "mine"
    folder.mkdir()
    training, dataset = presets.tiny_lora(
        model_dir=MODEL, pictures="photos", output_dir="runs", dataset_toml="mine/data.toml", steps=5
    )
    (folder / "run.toml").write_text("# my run\n" + toml.dump(training))
    (folder / "data.toml").write_text("# my data\n" + toml.dump(dataset))
    return Path("mine/run.toml")


def said(studio: Studio) -> str:
    return studio.files._said.value


def finished_run(files: Path, name: str = "20260101_00-00-00") -> RunDir:
    run = RunDir(Path("runs", name).absolute())
    run.path.mkdir(parents=True)
    run.dataset_toml.write_text("# of the run\n" + Path("mine/data.toml").read_text())
    text = files.read_text().replace("mine/data.toml", str(run.dataset_toml))
    run.run_toml.write_text(text.replace("# my run", "# as it was started\nresume_from_checkpoint = true"))
    run.write_status(Status("done", 5, 5))
    return run


# --- files -----------------------------------------------------------------------------------------------------------


def test_open_takes_the_dataset_file_along_and_save_keeps_the_comments(studio, files):
    studio.open(files)
    assert studio.training.value.max_steps == 5
    assert studio.dataset.value.directory[0].path == "photos"
    assert "mine/run.toml</code> (there already) and <code>mine/data.toml</code>" in studio.files._where.value
    studio.training.set("epochs", 3)
    studio.dataset.set("directory[0].num_repeats", 2)
    studio.files.save_button.click()
    assert "Saved mine/run.toml and mine/data.toml." in said(studio)
    assert files.read_text().startswith("# my run\n")
    assert "epochs = 3\n" in files.read_text()
    assert Path("mine/data.toml").read_text().startswith("# my data\n")
    assert "num_repeats = 2" in Path("mine/data.toml").read_text()


def test_a_dataset_file_that_is_never_looked_at_is_kept_too(studio, files):
    text = Path("mine/data.toml").read_text()
    studio.open(files)
    assert not studio.pair.has_dataset_form
    studio.files.save()
    assert Path("mine/data.toml").read_text() == text


def test_saved_elsewhere_the_dataset_file_goes_along(studio, files):
    studio.open(files)
    studio.files.target.value = "other/"
    assert "other/run.toml</code> (new) and <code>other/data.toml</code> (new)" in studio.files._where.value
    studio.files.save_button.click()
    assert toml.load("other/run.toml", Training).value.dataset == "other/data.toml"
    assert Path("other/data.toml").read_text().startswith("# my data\n")
    assert "mine/data.toml" in files.read_text()
    studio.files.target.value = ""
    assert studio.pair.run_file == Path("run.toml")


def test_a_dataset_file_that_is_named_is_shown(studio, files):
    studio.open(files)
    other = Path("mine/data.toml").read_text().replace("[64]", "[128]")
    Path("second.toml").write_text(other)
    studio.training.set("dataset", "second.toml")
    assert studio.dataset.value.resolutions == [128]
    assert "The Dataset tab shows second.toml now." in said(studio)
    assert studio.pair.dataset_file == Path("second.toml")
    Path("broken.toml").write_text("resolutionz = 3")
    studio.training.set("dataset", "broken.toml")
    assert "The Dataset tab keeps what it had: broken.toml:1:1: error: directory: is missing." in said(studio)
    assert "broken.toml:1:1: error: resolutionz: unknown key." in said(studio)
    assert studio.dataset.value.resolutions == [128]


def test_a_dataset_file_alone_can_be_opened(studio, files):
    studio.open("mine/data.toml")
    assert studio.dataset.value.resolutions == [64]
    assert "output_dir" not in studio.training.data


def test_a_dataset_file_that_is_not_there_is_said(studio, files):
    Path("mine/data.toml").unlink()
    studio.open(files)
    assert "The dataset file &#x27;mine/data.toml&#x27; is not there" in said(studio)
    assert studio.training.data["max_steps"] == 5


def note_of(studio: Studio, name: str) -> str:
    rows = studio.training._pages[0].panel.rows
    return next(row for row in rows if row.spec.name == name).note.value


def test_a_dataset_file_that_save_will_write_is_no_mistake(studio, files):
    assert "Begin with a preset" in said(studio)
    studio.files.show_preset("flux-24gb")
    assert "Will be created." in note_of(studio, "dataset")
    studio.files.target.value = "elsewhere/"
    assert "Will be created." in note_of(studio, "dataset")
    studio.open(files)
    studio.training.set("dataset", "gone.toml")
    assert "does not exist" in note_of(studio, "dataset")
    studio.training.undo()
    studio.files.target.value = "new/"
    studio.files.save()
    assert "Found." in note_of(studio, "dataset")


def test_what_is_in_the_way_is_asked_for(studio, files):
    Path("run.toml").write_text("# of somebody else\n")
    studio.open(files)
    studio.files.target.value = "run.toml"
    studio.files.save_button.click()
    assert studio.files.confirm.is_asking
    assert "run.toml holds something else than was read here. Replace?" in studio.files.confirm._words.value
    assert Path("run.toml").read_text() == "# of somebody else\n"
    studio.files.confirm.no.click()
    studio.files.save_button.click()
    studio.files.confirm.yes.click()
    assert Path("run.toml").read_text().startswith("# my run\n")
    # and a file that another program has changed since
    Path("run.toml").write_text("# changed meanwhile\n")
    studio.files.save_button.click()
    assert studio.files.confirm.is_asking


def test_nothing_is_written_where_something_is_wrong(studio, files):
    studio.open(files)
    before = files.read_text()
    studio.dataset.set("resolutions", "large")
    studio.training.set("epochs", "many")
    studio.files.save_button.click()
    assert "epochs" in said(studio)
    assert "resolutions" in said(studio)
    assert files.read_text() == before
    with pytest.raises(ConfigError):
        studio.pair.save()
    studio.open(files)
    Path("wall").write_text("")
    studio.files.target.value = "wall/run.toml"
    studio.files.save_button.click()
    assert "wall: error: cannot be made: " in said(studio)
    assert "Save to another folder." in said(studio)


def test_what_cannot_be_opened_is_said(studio):
    studio.open("nowhere.toml")
    assert "nowhere.toml" in said(studio)
    assert 'role="alert"' in said(studio)
    Path("wrong.toml").write_text("epochz = 1")
    studio.open("wrong.toml")
    assert "wrong.toml:1:1: error: epochz: unknown key" in said(studio)


# --- where a configuration comes from --------------------------------------------------------------------------------


def test_a_preset_fills_both_forms_and_has_a_folder_of_its_own(studio):
    studio.files.preset.value = "flux-24gb"
    training, dataset = presets.preset("flux-24gb", dataset_toml="flux-24gb/dataset.toml")
    assert studio.files.preset.value == ""
    assert studio.training.value == training
    assert studio.dataset.value == dataset
    studio.files.save_button.click()
    assert toml.load("flux-24gb/run.toml", Training, paths=False).value == training
    assert "# " in Path("flux-24gb/dataset.toml").read_text()
    assert studio.training.undo()
    assert "output_dir" not in studio.training.data


def test_every_preset_is_offered_and_the_demo_where_there_is_a_trainer(studio, monkeypatch):
    offered = [value for _, value in studio.files.preset.options]
    assert offered == ["", TINY, *presets.names()]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    other = Studio()
    assert TINY not in [value for _, value in other.files.preset.options]
    other.close()


def test_the_demo_is_drawn_once_and_opened(studio):
    studio.files.preset.value = TINY
    until(lambda: "Everything is filled in" in said(studio), 30)
    assert studio.training.value.model.diffusers_path == str(MODEL)
    assert len(list(Path("dpnb-demo/dataset").glob("*.png"))) == 24
    assert studio.training.file == Path("dpnb-demo/config/run.toml")
    studio.training.set("max_steps", 7)
    studio.files.save()
    studio.files.preset.value = TINY
    until(lambda: "Everything is filled in" in said(studio))
    assert studio.training.value.max_steps == 7


def test_a_demo_that_cannot_be_made_is_said(studio, monkeypatch):
    def broken(*_: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("dpnb.widgets.studio_files.prepare", broken)
    studio.files.preset.value = TINY
    until(lambda: "The demo stopped: ZeroDivisionError: by zero." in said(studio))


def test_the_files_of_a_run_are_opened_as_a_copy(studio, files):
    run = finished_run(files)
    before = run.run_toml.read_text()
    studio.files.open.click()
    studio.runs.refresh()
    until(lambda: studio.files.run_choice.options[0][1] == str(run.path))
    studio.files.open_run.click()
    assert studio.training.value.max_steps == 5
    assert studio.training.value.resume_from_checkpoint is False
    assert studio.training.value.dataset == "20260101_00-00-00/dataset.toml"
    studio.files.save_button.click()
    assert run.run_toml.read_text() == before
    assert Path("20260101_00-00-00/run.toml").read_text().startswith("# as it was started\n")
    assert Path("20260101_00-00-00/dataset.toml").read_text().startswith("# of the run\n")


def test_a_file_is_picked_from_the_list(studio, files):
    studio.files.open.click()
    picker = studio.files.picker
    picker.go(Path("mine").absolute())
    (line,) = [line for line in picker.lines if line.description == "run.toml"]
    line.click()
    assert "Opened mine/run.toml." in said(studio)
    assert studio.files._drawer is None
    studio.files.open.click()
    studio.files.importing.click()
    assert "dpnb-hidden" in studio.files._open_box._dom_classes
    assert "dpnb-hidden" not in studio.files._import_box._dom_classes


KOHYA = """
pretrained_model_name_or_path = "models/sdxl.safetensors"
network_module = "networks.lora"
network_dim = 8
learning_rate = 1e-4
max_train_epochs = 4
output_dir = "out"
save_every_n_epochs = 1
optimizer_type = "AdamW"
train_batch_size = 2
train_data_dir = "photos"
xformers = true
"""


def test_after_a_file_that_cannot_be_read_another_one_can_be_picked(studio):
    Path("bad.toml").write_text("[model")
    studio.files.open.click()
    studio.files.open_file("bad.toml")
    assert "bad.toml:1:" in said(studio)
    assert studio.files.picker.widget in studio.files._open_host.children
    studio.files.importing.click()
    studio.files.import_file("bad.toml")
    assert studio.files.picker.widget in studio.files._import_host.children


def test_there_is_a_word_where_there_is_no_run(studio):
    studio.show("Monitor")
    assert "No run to show yet" in studio._shown[MONITOR].widget.children[0].value


def test_an_import_is_shown_with_its_report(studio, files):
    Path("kohya.toml").write_text(KOHYA)
    studio.files.importing.click()
    studio.files.import_file("kohya.toml")
    if 'role="alert"' in said(studio):
        studio.files.family.value = "sdxl"
        studio.files.import_file("kohya.toml")
    assert "Imported kohya.toml" in said(studio)
    assert "network_dim = 8" in studio.files._report.value
    assert studio.training.value.adapter.rank == 8
    assert studio.pair.run_file == Path("kohya/run.toml")
    studio.files.import_file(files)
    assert "is in the format of dpnb and diffusion-pipe already" in said(studio)


# --- tabs and runs ---------------------------------------------------------------------------------------------------


def test_tabs_are_built_when_they_are_opened(studio, files):
    studio.open(files)
    assert [bool(page.children) for page in studio._pages] == [True, False, False, False, False, False]
    for tab in TABS:
        studio.show(tab)
    assert all(page.children for page in studio._pages)
    assert isinstance(studio._captions.panel, CaptionEditor)
    assert studio.dataset._training_form is studio.training
    assert repr(studio) == "Studio('.', mine/run.toml)"


def test_captions_follow_the_folders(studio, files):
    studio.open(files)
    studio.show("Dataset")
    first = studio._captions.panel
    assert first.store.folder == Path("photos")
    studio.dataset.set("directory[0].num_repeats", 3)
    assert studio._captions.panel is first
    studio.dataset.set("directory[0].path", "nowhere")
    assert studio._captions.panel is None
    studio.dataset.set("directory[0].path", "photos")
    assert studio._captions.panel is not first
    until(lambda: first._closed)


def test_monitor_and_samples_show_the_chosen_run(studio, files):
    runs = [finished_run(files, f"2026010{day}_00-00-00") for day in (1, 2)]
    studio.show("Monitor")
    until(lambda: studio._shown[MONITOR].panel is not None)
    monitor = studio._shown[MONITOR].panel
    assert isinstance(monitor, Monitor)
    assert monitor.run.path == studio.run.path == runs[1].path
    studio.runs.choice.value = str(runs[0].path)
    chosen = studio._shown[MONITOR].panel
    assert chosen.run.path == runs[0].path
    studio.runs.refresh()
    studio.runs._look()
    assert studio._shown[MONITOR].panel is chosen
    assert studio._shown[SAMPLES].panel is None
    until(lambda: monitor._closed)
    studio.show("Samples")
    assert isinstance(studio._shown[SAMPLES].panel, Gallery)
    third = finished_run(files, "20260103_00-00-00")
    studio.runs.refresh()
    until(lambda: len(studio.runs.runs) == 3)
    assert studio.run.path == runs[0].path  # a person's choice stays
    studio.runs.choice.value = str(third.path)
    fourth = finished_run(files, "20260104_00-00-00")
    studio.runs.refresh()
    until(lambda: studio.run.path == fourth.path)  # the newest one is followed


def test_a_launch_goes_to_the_monitor(studio, files):
    run = Run(finished_run(files))
    studio.show("Launch")
    studio.runs.choose(run)
    studio._launched(run)
    assert studio.tab.selected_index == MONITOR
    assert studio._shown[MONITOR].panel.run.path == run.path


def test_runs_of_another_output_dir_are_found(studio, files, tmp_path):
    far = RunDir(tmp_path / "a" / "b" / "c" / "d" / "runs" / "20260105_00-00-00")
    far.path.mkdir(parents=True)
    far.write_status(Status("done", 1, 1))
    studio.training.set("output_dir", "a/b/c/d/runs")
    studio.runs.refresh()
    until(lambda: studio.run is not None and studio.run.path == far.path)


def test_parts_belong_to_no_cell(monkeypatch, files):
    monkeypatch.setattr(cells, "_current_cell", lambda: ("one", "request 1"))
    studio = Studio()
    monkeypatch.setattr(cells, "_current_cell", lambda: ("two", "request 2"))
    studio.open(files)
    for tab in TABS:
        studio.show(tab)
    assert "two" not in cells._made
    (panel,) = cells._made.pop("one")[1]
    assert panel is studio
    studio.close()


# --- what it costs ---------------------------------------------------------------------------------------------------


def test_the_first_display_is_small(tmp_path):
    kernel = Kernel(tmp_path)
    try:
        kernel.run(f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); import dpnb; dpnb.Studio; dpnb.TrainingForm")
        messages, _ = kernel.run("studio = dpnb.Studio(); studio")
        opened = [message for message in messages if message["msg_type"] == "comm_open"]
        assert 40 < len(opened) < MOST_MODELS
        assert sum(len(json.dumps(message, default=str)) for message in messages) < MOST_BYTES
        again = "studio.show('Launch'); studio.show('Dataset'); studio.close()"
        ids = "from ipywidgets.widgets.widget import _instances as live; print([type(one) for one in live.values()])"
        kernel.run(again)
        assert kernel.run(ids)[1].strip() == "[]"
    finally:
        kernel.close()


def test_nothing_of_jupyterlab_is_needed():
    """Voila and other front ends have no JupyterLab."""
    code = """
import sys, dpnb
studio = dpnb.Studio()
for tab in ('Dataset', 'Launch', 'Monitor', 'Samples', 'Compare'):
    studio.show(tab)
studio.close()
print(sorted(name for name in sys.modules if name.split('.')[0] in ('jupyterlab', 'jupyter_server', 'notebook')))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": str(REPOSITORY)}
    )
    assert done.stdout.strip() == "[]"


def test_close_leaves_nothing(files):
    finished_run(files)
    before, running = set(live_widgets), threads_of_ours()
    studio = Studio()
    studio.open(files)
    for tab in TABS:
        studio.show(tab)
    until(lambda: studio._shown[MONITOR].panel is None or studio.run is not None)
    studio.show("Monitor")
    studio.files.open.click()
    studio.close()
    studio.close()
    until(lambda: threads_of_ours() <= running)
    assert set(live_widgets) == before
