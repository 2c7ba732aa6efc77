"""The head of the Studio: presets, Open, Import, Save, and where files will be written.

What it brings in goes into the pair of forms (pair.py), where Undo takes it back. The tiny demo is prepared by
commands of the trainer, in the background.
"""

from __future__ import annotations

import importlib.util
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ipywidgets as w

from dpnb import importers, presets
from dpnb.demo import Demo, prepare
from dpnb.errors import DpnbError
from dpnb.runs.process import Run
from dpnb.schema.dataset import Dataset
from dpnb.schema.model import FACTS
from dpnb.widgets.cells import answer_while_busy
from dpnb.widgets.confirm import Confirm
from dpnb.widgets.look import Look, escape, failure_html, set_class
from dpnb.widgets.pair import RUN_FILE, Pair
from dpnb.widgets.picker import Picker, Wanted, shown_path
from dpnb.widgets.run_list import RunList

log = logging.getLogger(__name__)

CHOOSE, TINY = "", "tiny demo"
DEMO_FOLDER = "dpnb-demo"
THREAD = "dpnb demo files"
FOREIGN = (".toml", ".yaml", ".yml", ".json")
OPEN, IMPORT = "open", "import"


class FileBar:
    """Where a configuration comes from and goes to. It belongs to the Studio, which closes the widgets."""

    def __init__(self, look: Look, pair: Pair, runs: RunList, root: Path) -> None:
        self.pair, self.runs, self.root = pair, runs, root
        self._look = look
        self._closed = self._drawing = False
        self._drawer: str | None = None
        self.picker = Picker(look, threading.RLock())
        self._build()
        pair.said = self.say
        pair.observe(self.refresh)
        pair.training.observe(lambda _: self.refresh())
        runs.observe(lambda _: self._offer_runs())
        self.refresh()
        self.say("Begin with a preset, open or import a file, or fill in the fields below.")

    # --- widgets -------------------------------------------------------------------------------------------------

    def _build(self) -> None:
        look = self._look
        self.preset = look.make(w.Dropdown, description="Preset", options=_preset_options(), value=CHOOSE)
        self.preset.observe(self._preset_chosen, "value")
        self.open = look.button("Open...", tooltip="A training file, or the files of a previous run")
        self.open.on_click(lambda _: self._turn(OPEN))
        self.importing = look.button("Import...", tooltip="The file of another trainer")
        self.importing.on_click(lambda _: self._turn(IMPORT))
        self.save_button = look.button("Save", tooltip="Write run.toml and dataset.toml", kind="primary")
        self.save_button.on_click(lambda _: self._save())
        self.target = look.make(w.Text, description="Save to", continuous_update=False, classes=("dpnb-target",))
        self.target.observe(self._target_typed, "value")
        self.confirm = Confirm(look)
        self._where, self._said = look.html("", "dpnb-quiet"), look.html("", "dpnb-message")
        head = (look.html("<h3>Studio</h3>"), look.html("", "dpnb-spring"), self.preset, self.open, self.importing)
        saving = look.box((self.target, self.save_button, self._where), "dpnb-bar", "dpnb-message")
        self._open_box, self._import_box = self._build_open(), self._build_import()
        drawer = (self._open_box, self._import_box)
        children = (look.box(head, "dpnb-bar"), *drawer, saving, self.confirm.widget, self._said)
        self.widget = look.make(w.VBox, children=children, classes=("dpnb-card",))

    def _build_open(self) -> Any:  # noqa: ANN401 - a widget
        look = self._look
        self.run_choice = look.make(w.Dropdown, description="Files of a run", options=[("no run yet", "")])
        self.open_run = look.button("Open them", "dpnb-small", tooltip="A copy: those of the run stay as they are")
        self.open_run.on_click(lambda _: self._open_chosen_run())
        bar = look.box((self.run_choice, self.open_run), "dpnb-bar")
        self._open_host = look.make(w.VBox, children=())
        words = look.html("A training file, with the dataset file that it names; or a dataset file alone:")
        return look.make(w.VBox, children=(bar, words, self._open_host), classes=("dpnb-drawer", "dpnb-hidden"))

    def _build_import(self) -> Any:  # noqa: ANN401 - a widget
        look = self._look
        families = [("as the file says", ""), *((name, name) for name in FACTS)]
        self.family = look.make(w.Dropdown, description="Model type", options=families, value="")
        self.second = look.make(
            w.Text,
            description="Dataset file of kohya's",
            placeholder="if it has one",
            continuous_update=False,
            classes=("dpnb-target",),
        )
        self._import_host = look.make(w.VBox, children=())
        self._report = look.html("", "dpnb-code")
        words = look.html("A file of AI Toolkit, kohya sd-scripts, musubi-tuner, EriDiffusion or Transformer Lab:")
        bar = look.box((words, self.family, self.second), "dpnb-bar")
        children = (bar, self._import_host, self._report)
        return look.make(w.VBox, children=children, classes=("dpnb-drawer", "dpnb-hidden"))

    def _turn(self, drawer: str) -> None:
        """Open a drawer, or close the one that is open."""
        self._drawer = None if self._drawer == drawer else drawer
        set_class(self._open_box, "dpnb-hidden", on=self._drawer != OPEN)
        set_class(self._import_box, "dpnb-hidden", on=self._drawer != IMPORT)
        self._list(self.root)

    def _list(self, start: Path) -> None:
        """Offer the files of a folder in the drawer that is open."""
        self.picker.close_list()
        if self._drawer == OPEN:
            self._offer_runs()
            self.picker.open(self._open_host, Wanted("file", (".toml",)), str(start), self.open_file)
        elif self._drawer == IMPORT:
            self.picker.open(self._import_host, Wanted("file", FOREIGN), str(start), self.import_file)

    def _offer_runs(self) -> None:
        """The runs whose files can be opened; asked for when the drawer is open."""
        options = [(label, path) for label, path in self.runs.choice.options if path]
        if self._closed or self._drawer != OPEN or not options or options == list(self.run_choice.options):
            return
        with self.run_choice.hold_sync():
            self.run_choice.options = options
            self.run_choice.value = options[0][1]

    # --- bringing in ---------------------------------------------------------------------------------------------

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """What cannot be done is said, not raised: there is nobody to catch it."""
        try:
            yield
        except DpnbError as error:
            self.say(str(error), wrong=True)
        except OSError as error:
            self.say(f"{error.filename}: {error.strerror}", wrong=True)

    def _preset_chosen(self, change: dict[str, Any]) -> None:
        if self._drawing or change["new"] == CHOOSE:
            return
        with self._telling():
            if change["new"] == TINY:
                self.say(f"Drawing the pictures of the demo into {shown_path(self._demo.folder)} ...")
                threading.Thread(target=self._show_demo, name=THREAD, daemon=True).start()
            else:
                self.show_preset(change["new"])

    def show_preset(self, name: str) -> None:
        """Show a preset, to be saved into a folder of its name. Raises `ConfigError` for a name that is not there."""
        training, dataset = presets.preset(
            name, pictures=shown_path(self.root / "pictures"), output_dir=shown_path(self.root / "runs")
        )
        self.pair.show_new(training, dataset, self.root / name, comments=True)
        self.say(f"This is the preset {name}. Fill in what is marked; Undo brings back what was there.")

    @property
    def _demo(self) -> Demo:
        return Demo(self.root / DEMO_FOLDER)

    def _show_demo(self) -> None:
        try:
            if not self._demo.run_toml.is_file():
                prepare(self._demo)
            self.pair.open(self._demo.run_toml)
        except DpnbError as error:
            self.say(str(error), wrong=True)
        except Exception as error:  # a thread has nobody else to tell
            log.exception("the demo could not be prepared")
            self._said.value = failure_html("demo", error)
        else:
            self.say("Everything is filled in: go on to Launch. Two cores take some minutes.")

    def open_file(self, path: Path | str) -> None:
        """Open a training file with the dataset file that it names, or a dataset file alone."""
        with self._telling():
            self.say(f"Opened {path}.")
            self.pair.open(Path(path))
            self._turn_off()
            return
        self._list(Path(path))

    def open_files_of(self, run: Run) -> None:
        """Show a copy of what a run was started with, to be saved into a folder of its name."""
        with self._telling():
            self.pair.copy_of(run.directory.run_toml, run.directory.dataset_toml, self.root / run.name)
            self.say(f"These are the settings of run {run.name}; its own files stay as they are.")
            self._turn_off()

    def _open_chosen_run(self) -> None:
        run = next((run for run in self.runs.runs if str(run.path) == self.run_choice.value), None)
        if run is not None:
            self.open_files_of(run)

    def import_file(self, path: Path | str) -> None:
        """Show what a file of another trainer says in our words, with the report of every key."""
        with self._telling():
            second = self.second.value.strip()
            imported = importers.read([path, second] if second else path, model=self.family.value or None)
            dataset: Dataset | None = next(iter(imported.datasets.values()), None)
            folder = self.root / Path(path).stem
            self.pair.show_new(imported.training, dataset, folder, comments=False)
            self._report.value = f"<pre><span>{escape(imported.text())}</span></pre>"
            self.say(f"Imported {path}; what became of each key stands above.")
            return
        self._list(Path(path))

    def _turn_off(self) -> None:
        if self._drawer is not None:
            self._turn(self._drawer)

    # --- saving --------------------------------------------------------------------------------------------------

    def _target_typed(self, change: dict[str, Any]) -> None:
        if self._drawing:
            return
        path = Path(change["new"].strip() or shown_path((self.root / RUN_FILE).absolute())).expanduser()
        self.pair.run_file = path if path.suffix == ".toml" else path / RUN_FILE
        self.refresh()

    def _save(self) -> None:
        replaced = self.pair.in_the_way()
        if replaced:
            names = " and ".join(shown_path(path.absolute()) for path in replaced)
            what = "holds" if len(replaced) == 1 else "hold"
            self.confirm.ask(f"{names} {what} something else than was read here. Replace?", "Replace", self.save)
        else:
            self.save()

    def save(self) -> None:
        """Write both files; what is wrong is said."""
        with self._telling():
            files = self.pair.save()
            self.say("Saved " + " and ".join(shown_path(file.absolute()) for file in files) + ".")

    # --- showing -------------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Say where Save writes to."""
        if self._closed:
            return
        self._drawing = True
        try:
            self.target.value = shown_path(self.pair.run_file.absolute())
            self.preset.value = CHOOSE
        finally:
            self._drawing = False
        self._where.value = where_html(self.pair)
        answer_while_busy(self.preset, self.open, self.importing, self.save_button, self.target)

    def say(self, words: str, *, wrong: bool = False) -> None:
        """Show what has happened, or why not."""
        if not self._closed:
            kind = 'class="dpnb-error" role="alert"' if wrong else 'role="status"'
            self._said.value = "".join(f"<span {kind}>{escape(line)}</span><br>" for line in words.splitlines())

    def close(self) -> None:
        """Show nothing more."""
        self._closed = True
        self.picker.close()


def where_html(pair: Pair) -> str:
    """Which files Save writes, and which of them are there, as HTML."""
    words = []
    for file in (pair.run_file, pair.dataset_file):
        there = "there already" if file.is_file() else "new"
        words.append(f"<code>{escape(shown_path(file.absolute()))}</code> ({there})")
    return f"Save writes {' and '.join(words)}"


def _preset_options() -> list[tuple[str, str]]:
    """What the menu offers; the demo where the trainer with its embedded model is installed."""
    found = importlib.util.find_spec("trainer")
    places = [] if found is None else found.submodule_search_locations or []
    tiny = any((Path(place) / "tiny").is_dir() for place in places)
    demo = [("tiny demo: minutes, on any computer", TINY)] if tiny else []
    return [("Choose one ...", CHOOSE), *demo, *((name, name) for name in presets.names())]
