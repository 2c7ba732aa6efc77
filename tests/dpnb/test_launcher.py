"""The launcher: what it says will be run, when it lets one launch, and that it starts, resumes and ends processes."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ipywidgets.widgets.widget import _instances as live_widgets
from PIL import Image

from dpnb import presets, toml
from dpnb.errors import ConfigError, RunError
from dpnb.runs import launch as launching
from dpnb.runs import session
from dpnb.runs.process import Run
from dpnb.runs.rundir import RunDir, Status
from dpnb.schema import Dataset, Monitoring, Training
from dpnb.widgets import launcher as module
from dpnb.widgets import run_list
from dpnb.widgets.dataset import DatasetForm
from dpnb.widgets.form import TrainingForm
from dpnb.widgets.launch_check import Checked, facts_html, number_in, problems_html, verdict_html
from dpnb.widgets.launcher import Launcher
from dpnb.widgets.rows import told_html
from tests.dpnb.test_launch import SECRET, STAND_IN, TINY, old_run
from tests.dpnb.waiting import until


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "SETTLE_SECONDS", 0.02)
    monkeypatch.setattr(run_list, "TICK_SECONDS", 0.05)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def config(tmp_path: Path) -> tuple[Training, Dataset]:
    """A complete configuration that this machine can train."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(16):
        Image.new("RGB", (64, 64), (number, 0, 0)).save(pictures / f"{number}.png")
        (pictures / f"{number}.txt").write_text("a zorbi")
    training, dataset = presets.tiny_lora(
        model_dir=TINY, pictures=pictures, output_dir=tmp_path / "runs", steps=50, epochs=10
    )
    return training, dataset


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """Start a stand-in instead of DeepSpeed; what `command` was asked for is kept."""
    asked: list[dict[str, Any]] = []
    started: list[RunDir] = []

    def command(config_path: Path, **options: Any) -> list[str]:
        asked.append({"config": config_path, **options})
        return [sys.executable, str(STAND_IN), "launch", str(options["run_dir"]), "train"]

    def start(directory: RunDir, *rest: Any) -> None:
        start_supervisor(directory, *rest)
        started.append(directory)

    start_supervisor = launching._start_supervisor
    monkeypatch.setattr(launching, "command", command)
    monkeypatch.setattr(launching, "_start_supervisor", start)
    yield asked
    for directory in started:
        session.wait_until(lambda directory=directory: not _killed(directory), 10, 0.05)  # type: ignore[misc]


def _killed(directory: RunDir) -> bool:
    info = directory.process()
    left = [] if info is None else session.members(info)
    for process in left:
        process.kill()
    return bool(left)


@pytest.fixture
def forms(config: tuple[Training, Dataset]) -> Iterator[tuple[TrainingForm, DatasetForm]]:
    training, dataset = TrainingForm(config[0]), DatasetForm(config[1])
    dataset.use_training(training)
    yield training, dataset
    training.close()
    dataset.close()


@pytest.fixture
def made() -> Iterator[Any]:
    """A function that makes launchers, which are closed in the end."""
    launchers: list[Launcher] = []

    def make(*arguments: Any, **options: Any) -> Launcher:
        launchers.append(Launcher(*arguments, **options))
        return launchers[-1]

    yield make
    for launcher in launchers:
        launcher.close()


def ready(launcher: Launcher) -> None:
    until(lambda: not launcher.button.disabled)


# --- what is said ----------------------------------------------------------------------------------------------------


def test_it_says_what_will_be_run(made, forms):
    launcher = made(*forms)
    ready(launcher)
    until(lambda: "2 per epoch x 10 epochs = <b>20</b>" in launcher._facts.value)
    assert "Ready to launch." in launcher._verdict.value
    assert "runs/YYYYMMDD_HH-MM-SS</code>" in launcher._facts.value
    assert "--num_gpus 1 --master_port FREE_PORT --module trainer.train --config runs/" in launcher._facts.value
    assert "1 on the CPU, since there is no GPU here" in launcher._facts.value
    forms[0].set("max_steps", 7)
    until(lambda: "ended by max_steps after <b>7</b>" in launcher._facts.value)


def test_objects_and_files_are_counted_too(made, config, tmp_path):
    training, dataset = config
    launcher = made(training, dataset)
    until(lambda: "2 per epoch" in launcher._facts.value)
    (tmp_path / "dataset.toml").write_text(toml.dump(dataset))
    (tmp_path / "run.toml").write_text(toml.dump(training))
    from_file = made("run.toml")
    until(lambda: "2 per epoch" in from_file._facts.value and not from_file.button.disabled)


def test_the_facts_of_a_run(config, monkeypatch):
    training = config[0].model_copy(update={"max_steps": None})
    assert "<td>10 epochs</td>" in facts_html(training, 1, None)
    assert "3 per epoch x 10 epochs = <b>30</b></td>" in facts_html(training, 1, 3)
    assert "10 epochs, 5 steps at most" in facts_html(training.model_copy(update={"max_steps": 5}), 1, None)
    monkeypatch.setattr("dpnb.runs.preflight.gpus", lambda: [0, 2, 5])
    assert "2 on GPU 0, 2" in facts_html(training, 2, None)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    monkeypatch.setenv("PATH", "/nowhere")
    assert "the deepspeed command was found neither beside" in facts_html(training, 1, None)


def test_problems_are_escaped_and_not_too_many():
    from dpnb.errors import Problem

    problems = [Problem("error", "value", (), f"<b>{number}</b>") for number in range(60)]
    shown = problems_html(problems)
    assert "<b>" not in shown
    assert shown.count("alert") == 40
    assert "and 20 more" in shown
    assert "60 errors to mend first" in verdict_html(Checked((Path(), None), 1, problems))
    assert "Checking ..." in verdict_html(None)


def test_problems_are_sentences_that_begin_with_the_key():
    from dpnb.errors import Problem

    missing = Problem("error", "missing", ("output_dir",), "is missing.", "(Meaning: Folder of the runs.)")
    unknown = Problem("warning", "unknown_key", ("model", "x"), "unknown key.", "Take it out.", "run.toml", 3, 1)
    whole = Problem("error", "rule", (), "there is no GPU.", "Take fewer.")
    assert [part.split(">", 1)[1].removesuffix("</span>") for part in map(told_html, (missing, unknown, whole))] == [
        "<b>output_dir</b> is missing. Folder of the runs.",
        "Warning: run.toml:3:1: <b>model.x</b>: unknown key. Take it out.",
        "There is no GPU. Take fewer.",
    ]


def test_a_number_of_processes():
    assert (number_in(" "), number_in(" 2 ")) == (None, 2)
    for text in ("0", "many", "-1"):
        with pytest.raises(ConfigError, match=f"'{text}' is no number of processes. Write 1 or more, or nothing."):
            number_in(text)


# --- when it lets one launch -----------------------------------------------------------------------------------------


def test_errors_of_either_form_stop_it_in_the_words_of_the_validator(made, forms):
    training, dataset = forms
    launcher = made(training, dataset)
    ready(launcher)
    training.set("epochs", "many")
    assert launcher.button.disabled  # at once: what is on the screen is not what was checked
    until(lambda: "is a text; expected a whole number" in launcher._problems.value)
    assert "dataset.toml" not in launcher._problems.value  # what the form holds is launched, saved or not
    dataset.set("resolutions", [])
    until(lambda: "resolutions" in launcher._problems.value)
    assert launcher.button.disabled
    training.set("epochs", 10)
    dataset.set("resolutions", [64])
    ready(launcher)
    training.set("model.diffusers_path", "nowhere")
    until(lambda: "&#x27;nowhere&#x27; does not exist" in launcher._problems.value)
    assert launcher.button.disabled
    assert "to mend first" in launcher._verdict.value


def test_preflight_errors_stop_it(made, config):
    training, dataset = config
    launcher = made(training.model_copy(update={"micro_batch_size_per_gpu": 500}), dataset)
    until(lambda: "nothing is left to train on" in launcher._problems.value)
    assert launcher.button.disabled
    assert launcher.anyway.value is False
    assert "dpnb-hidden" in launcher.anyway._dom_classes


def test_a_warning_asks_for_a_tick(made, config, stand_in, tmp_path):
    (tmp_path / "pictures" / "broken.png").write_bytes(b"no picture")
    launcher = made(*config)
    until(lambda: "1 file left out: broken.png" in launcher._problems.value)
    assert "1 warning: read, then tick" in launcher._verdict.value
    assert launcher.button.disabled
    launcher.launch()
    assert stand_in == []
    launcher.anyway.value = True
    assert not launcher.button.disabled
    launcher.button.click()
    until(lambda: launcher.runs.state == "running")


def test_the_number_of_processes_is_checked(made, forms, stand_in):
    launcher = made(*forms)
    launcher.gpus.value = "many"
    until(lambda: "&#x27;many&#x27; is no number of processes." in launcher._problems.value)
    forms[0].set("pipeline_stages", 2)
    launcher.gpus.value = "3"
    until(lambda: "3 GPUs cannot be shared out to 2 stages each." in launcher._problems.value)
    launcher.gpus.value = "2"
    ready(launcher)
    launcher.button.click()
    until(lambda: [asked["num_gpus"] for asked in stand_in] == [2])
    until(lambda: launcher.runs.state == "running")


def test_an_unseen_launcher_checks_when_it_is_seen_again(made, forms):
    launcher = made(*forms)
    ready(launcher)
    launcher.show(seen=False)
    forms[0].set("epochs", 4)
    assert launcher.checked is None
    assert not [t for t in threading.enumerate() if t.name == "dpnb launch check"]
    launcher.show(seen=True)
    until(lambda: "4 epochs" in launcher._facts.value and not launcher.button.disabled)


def test_what_nobody_foresaw_is_shown(made, config, monkeypatch):
    def broken(*_: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("dpnb.runs.preflight.check", broken)
    launcher = made(*config)
    until(lambda: "The check stopped: ZeroDivisionError: by zero." in launcher._verdict.value)
    assert launcher.button.disabled


# --- starting and ending ---------------------------------------------------------------------------------------------


def test_what_is_launched_is_what_was_checked(made, forms, stand_in):
    told: list[Run] = []
    launcher = made(*forms, launched=told.append)
    ready(launcher)
    launcher.button.click()
    until(lambda: told != [])
    assert launcher.runs.run is told[0]
    assert "Started <code>" in launcher._message.value
    assert toml.load(told[0].directory.run_toml, Training, paths=False).value.max_steps == 50
    until(lambda: launcher.runs.state == "running")
    until(lambda: not launcher.controls.stop.disabled and launcher.controls.resume.disabled)
    launcher.controls.stop.click()
    until(lambda: launcher.runs.state == "stopped")
    until(lambda: launcher.controls.stop.disabled)


def test_stop_now_and_kill_with_a_question(made, config, stand_in):
    launcher = made(*config)
    for act, state in (("now", "stopped"), ("kill", "stopped")):
        ready(launcher)
        launcher.button.click()
        until(lambda: launcher.runs.state == "running" and not launcher.controls.kill.disabled)
        getattr(launcher.controls, act).click()
        if act == "kill":
            confirm = launcher.controls.confirm
            assert confirm.is_asking
            assert "What has happened since its last checkpoint is lost." in confirm._words.value
            confirm.no.click()
            assert not confirm.is_asking
            assert launcher.runs.run is not None
            assert launcher.runs.run.state == "running"
            launcher.controls.kill.click()
            confirm.yes.click()
        until(lambda state=state: launcher.runs.state == state)
    assert launcher.runs.run.process.stopped_by == "SIGKILL"
    until(lambda: "Its processes are gone." in launcher.controls.message.value)


def test_what_a_run_refuses_is_shown(made, config, tmp_path):
    directory = RunDir(tmp_path / "runs" / "20260101_00-00-00")
    directory.path.mkdir(parents=True)
    directory.write_status(Status("training", 3, 10))
    launcher = made(*config)
    until(lambda: launcher.runs.run is not None)
    launcher.controls.now.click()
    until(lambda: "has no process.json: it was not started by dpnb" in launcher.controls.message.value)
    with pytest.raises(RunError):
        launcher.runs.run.terminate()


def test_resume_with_its_own_settings_or_those_above(made, config, stand_in, tmp_path):
    training, dataset = config
    old = old_run(tmp_path / "runs")
    old.clear_request("save_quit")
    old.dataset_toml.write_text(toml.dump(dataset))
    own = training.model_copy(update={"dataset": str(old.dataset_toml), "epochs": 77})
    old.run_toml.write_text("# its own\n" + toml.dump(own))
    launcher = made(training, dataset)
    until(lambda: not launcher.controls.resume.disabled)
    launcher.controls.resume.click()
    until(lambda: launcher.runs.state == "running")
    assert old.run_toml.read_text().startswith("# its own\n")
    assert stand_in[0]["resume"] == old.name
    launcher.controls.now.click()
    until(lambda: launcher.runs.state == "stopped")
    until(lambda: not launcher.controls.resume.disabled)
    launcher.controls.as_above.value = True
    launcher.controls.resume.click()
    until(lambda: len(stand_in) == 2 and launcher.runs.state == "running")
    assert toml.load(old.run_toml, Training, paths=False).value.epochs == 10


def test_a_resume_that_cannot_be_is_said(made, config, tmp_path):
    old = old_run(tmp_path / "runs")
    old.run_toml.write_text("epochz = 1\n")
    launcher = made(*config)
    until(lambda: not launcher.controls.resume.disabled)
    launcher.controls.resume.click()
    until(lambda: "<b>epochz</b>: unknown key" in launcher._message.value)
    assert not launcher._starting
    old.run_toml.write_text(toml.dump(config[0]))
    (tmp_path / "dataset.toml").write_text(toml.dump(config[1]))
    (tmp_path / "pictures" / "broken.png").write_bytes(b"no picture")
    launcher.controls.resume.click()
    until(lambda: "above and resume again" in launcher._message.value)
    until(lambda: "dpnb-hidden" not in launcher.anyway._dom_classes)


def test_a_launch_that_fails_is_said(made, config, monkeypatch, tmp_path):
    launcher = made(*config)
    ready(launcher)
    (tmp_path / "runs").write_text("a file in the way")
    launcher.button.click()
    until(lambda: "runs&#x27; is a file. Name another folder." in launcher._message.value)
    until(lambda: not launcher.button.disabled)

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(module, "launch", broken)
    launcher.button.click()
    until(lambda: "The launch stopped: ZeroDivisionError: by zero." in launcher._message.value)


# --- the key ---------------------------------------------------------------------------------------------------------


def test_the_key_goes_to_the_environment_and_nowhere_else(made, config, stand_in, monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    training, dataset = config
    assert "dpnb-hidden" in made(training, dataset).api_key.widget._dom_classes
    monitoring = Monitoring(enable_wandb=True, wandb_tracker_name="a", wandb_run_name="b")
    launcher = made(training.model_copy(update={"monitoring": monitoring}), dataset)
    until(lambda: launcher.checked is not None)
    assert "dpnb-hidden" not in launcher.api_key.widget._dom_classes
    launcher.api_key.field.value = SECRET
    assert launcher.api_key.field.value == ""
    assert launcher.api_key.field.placeholder == "set (hidden)"
    launcher.anyway.value = True
    ready(launcher)
    launcher.button.click()
    until(lambda: launcher.runs.state == "running")
    run = launcher.runs.run
    until(lambda: bool(session.ranks(session.members(run.process))))
    (rank, *_) = session.ranks(session.members(run.process))
    assert rank.environ()["WANDB_API_KEY"] == SECRET
    for file in (path for path in tmp_path.rglob("*") if path.is_file()):
        assert SECRET.encode() not in file.read_bytes(), file
    assert SECRET not in " ".join(run.process.argv)
    states = [widget.get_state() for widget in live_widgets.values() if hasattr(widget, "get_state")]
    assert SECRET not in json.dumps(states, default=str)


def test_a_key_of_the_environment_counts(made, config, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "from outside")
    assert made(*config).api_key.field.placeholder == "taken from WANDB_API_KEY"


# --- the end ---------------------------------------------------------------------------------------------------------


def test_close_leaves_nothing(forms, tmp_path):
    until(lambda: forms[1].outcome is not None)
    with forms[1]._lock:  # held until the outcome is drawn, with widgets of its own
        before = set(live_widgets)
    watchers = [len(form._watchers) for form in forms]
    launcher = Launcher(*forms)
    ready(launcher)
    assert repr(launcher) == "Launcher(0 runs)"
    launcher.check()
    launcher.close()
    launcher.close()
    forms[0].set("epochs", 3)
    names = ("dpnb launch check", "dpnb run list", "dpnb launch")
    until(lambda: not [t for t in threading.enumerate() if t.name in names])
    assert set(live_widgets) == before
    assert [len(form._watchers) for form in forms] == watchers
