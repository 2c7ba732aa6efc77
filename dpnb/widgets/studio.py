"""Studio: everything in one cell. Configure, Dataset, Launch, Monitor, Samples and Compare as tabs of one panel.

    dpnb.Studio()              # files are saved and runs are looked for below the working directory
    studio.training.value      # what the forms hold, as code sees it

Each tab holds a panel that can be used alone, and is built when it is first opened. What ties them together: the two
forms share their files (pair.py), Launch starts what they hold, and Monitor and Samples show the run that is chosen in
one list, wherever it was started. Needs nothing but ipywidgets, so it works under Voila too.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import ipywidgets as w

from dpnb.errors import ConfigError
from dpnb.runs.process import Run
from dpnb.widgets.captions import CaptionEditor
from dpnb.widgets.cells import answer_while_busy, parts_of_a_panel, replaces_predecessor
from dpnb.widgets.charts import LINGER_SECONDS
from dpnb.widgets.compare import Compare
from dpnb.widgets.dataset import DatasetForm
from dpnb.widgets.dataset_tools import DatasetTools
from dpnb.widgets.form import TrainingForm
from dpnb.widgets.gallery import Gallery
from dpnb.widgets.launcher import Launcher
from dpnb.widgets.look import Look, close_tree, escape
from dpnb.widgets.monitor import Monitor
from dpnb.widgets.pair import Pair
from dpnb.widgets.panel import Displayed
from dpnb.widgets.run_list import RunList
from dpnb.widgets.studio_files import FileBar

TABS = ("Configure", "Dataset", "Launch", "Monitor", "Samples", "Compare")
CONFIGURE, DATASET, LAUNCH, MONITOR, SAMPLES, COMPARE = range(len(TABS))


class Panel(Protocol):
    """What stands in a tab."""

    widget: Any

    def close(self) -> None:
        """Close its widgets and end its threads."""


class Studio(Displayed):
    """The whole of dpnb as one panel. Displays itself; `widget` is the same thing for other layouts."""

    def __init__(self, root: Path | str = ".") -> None:
        """`root`: the folder below which files are saved and runs are looked for."""
        self.root = Path(root)
        self.look = Look()
        self._lock = threading.RLock()
        self._closed = False
        self._launcher: Launcher | None = None
        self._compare: Compare | None = None
        self._tools: DatasetTools | None = None
        self._captions: Slot | None = None
        self._caption_folders: list[str] = []
        self._leave_dataset: Callable[[], None] = lambda: None
        self.pair = Pair(self.root)
        self.runs = RunList(self.look, self._run_folders)
        self.files = FileBar(self.look, self.pair, self.runs, self.root)
        no_run = (
            "No run to show yet: start one in the Launch tab. Runs are looked for below this folder and output_dir."
        )
        self._shown = {MONITOR: Slot(self.look, Monitor, no_run), SAMPLES: Slot(self.look, Gallery, no_run)}
        self._pages = [self.look.make(w.VBox, children=()) for _ in TABS]
        self.tab = self.look.make(
            w.Tab, children=self._pages, titles=TABS, selected_index=CONFIGURE, classes=("dpnb-pages", "dpnb-tabs")
        )
        self.tab.observe(lambda _: self._opened(), "selected_index")
        self._pages[CONFIGURE].children = (self.pair.training.widget,)
        self.widget = self.look.root((self.files.widget, self.tab), "dpnb-studio")
        self.runs.observe(lambda _: self._looked())
        self.runs.start()
        replaces_predecessor(self)

    # --- for code ------------------------------------------------------------------------------------------------

    @property
    def training(self) -> TrainingForm:
        """The form of run.toml."""
        return self.pair.training

    @property
    def dataset(self) -> DatasetForm:
        """The form of dataset.toml."""
        return self.pair.dataset

    @property
    def run(self) -> Run | None:
        """The run that Monitor and Samples show."""
        return self.runs.run

    @property
    def launcher(self) -> Launcher:
        """The panel of the Launch tab."""
        with self._lock:
            if self._launcher is None:
                with parts_of_a_panel():
                    self._launcher = Launcher(self.training, self.dataset, runs=self.runs, launched=self._launched)
            return self._launcher

    def open(self, path: Path | str) -> None:
        """Open a training file with its dataset file, or a dataset file alone; what is wrong is shown."""
        self.files.open_file(path)

    def show(self, tab: str) -> None:
        """Open a tab by its name, one of `TABS`."""
        self.tab.selected_index = TABS.index(tab)

    def _run_folders(self) -> list[Path]:
        """Where runs are: below the root, and where the training form writes them."""
        output_dir = self.training.data.get("output_dir")
        return [self.root, *([Path(output_dir)] if isinstance(output_dir, str) and output_dir else [])]

    # --- tabs ----------------------------------------------------------------------------------------------------

    def _opened(self) -> None:
        """A tab is to be seen: build it if it is new, and let the others rest."""
        with self._lock:
            if self._closed:
                return
            here = self.tab.selected_index
            if not self._pages[here].children:
                self._pages[here].children = self._build(here)
            if self._launcher is not None:
                self._launcher.show(seen=here == LAUNCH)
            if self._compare is not None:
                self._compare.show(seen=here == COMPARE)
            if here in (LAUNCH, MONITOR, SAMPLES, COMPARE):
                self.runs.refresh()
            self._show_run()
            answer_while_busy(self.tab)

    def _build(self, tab: int) -> tuple[Any, ...]:
        if tab == DATASET:
            self._captions = Slot(self.look, CaptionEditor, "")
            self._leave_dataset = self.dataset.observe(lambda _: self._show_captions())
            self._show_captions()
            with parts_of_a_panel():
                self._tools = DatasetTools(self._first_folder, folded=True)
            return (self.dataset.widget, self._captions.widget, self._tools.widget)
        if tab == LAUNCH:
            return (self.launcher.widget,)
        if tab == COMPARE:
            with parts_of_a_panel():
                self._compare = Compare(choices=self.runs)
            return (self._compare.widget,)
        # The list of runs is one widget, which stands in each tab that is about a run.
        return (self.runs.widget, self._shown[tab].widget)

    def _first_folder(self) -> str:
        """What the tools begin with: the first folder of the dataset, empty where there is none."""
        directories = self.dataset.data.get("directory") or [{}]
        path = directories[0].get("path") if isinstance(directories[0], dict) else None
        return path if isinstance(path, str) else ""

    def _show_captions(self) -> None:
        """The captions of the folders that are there."""
        with self._lock:
            if self._closed or self._captions is None:
                return
            try:
                dataset = self.dataset.value
            except ConfigError:
                return  # the form says what is wrong; what is shown stays
            there = [one for one in dataset.directory if Path(one.path).is_dir()]
            folders = [one.path for one in there]
            if folders != self._caption_folders:
                self._caption_folders = folders
                self._captions.show(dataset.model_copy(update={"directory": there}) if there else None)

    # --- the run -------------------------------------------------------------------------------------------------

    def _looked(self) -> None:
        """The list of runs has been looked at: another one may be chosen."""
        with self._lock:
            if not self._closed:
                self._show_run()
                for slot in self._slots():
                    slot.sweep(LINGER_SECONDS)

    def _show_run(self) -> None:
        slot = self._shown.get(self.tab.selected_index)
        if slot is not None and self._pages[self.tab.selected_index].children:
            slot.show(self.runs.run)

    def _launched(self, run: Run) -> None:
        """A run has been started: watch it."""
        del run  # it is the chosen one of the list
        self.tab.selected_index = MONITOR

    def _slots(self) -> list[Slot]:
        return [*self._shown.values(), *([] if self._captions is None else [self._captions])]

    def close(self) -> None:
        """Close every widget and end the threads. Files and runs are not touched."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self.runs.close()
        self._leave_dataset()
        if self._launcher is not None:
            self._launcher.close()
        if self._compare is not None:
            self._compare.close()
        if self._tools is not None:
            self._tools.close()
        for slot in self._slots():
            slot.close()
        self.files.close()
        self.pair.close()
        close_tree(self.widget)
        close_tree(self.runs.widget)
        self.look.close()

    def __repr__(self) -> str:
        return f"Studio({str(self.root)!r}, {self.training.file})"


class Slot:
    """A place for one panel after the other, each made for something: a run, a dataset.

    What is replaced leaves the screen at once and is closed a little later: a browser that still draws a figure whose
    model has ended sends messages to nothing.
    """

    def __init__(self, look: Look, make: Callable[[Any], Panel], nothing: str) -> None:
        """`make` gives the panel of something; `nothing` is said while there is none."""
        self._make = make
        self._shown: Any = None
        self._panel: Panel | None = None
        self._replaced: list[tuple[float, Panel]] = []
        self._nothing = look.html(escape(nothing), "dpnb-quiet")
        self.widget = look.make(w.VBox, children=(self._nothing,))

    @property
    def panel(self) -> Panel | None:
        """The panel that is to be seen."""
        return self._panel

    def show(self, what: Any) -> None:  # noqa: ANN401 - what the panel is made for
        """Show the panel of something; None shows nothing. The same again changes nothing."""
        if what is self._shown:
            return
        self._shown = what
        if self._panel is not None:
            self._replaced.append((time.monotonic(), self._panel))
        with parts_of_a_panel():
            self._panel = None if what is None else self._make(what)
        self.widget.children = (self._nothing if self._panel is None else self._panel.widget,)

    def sweep(self, after_seconds: float) -> None:
        """Close what was replaced so long ago."""
        while self._replaced and time.monotonic() - self._replaced[0][0] >= after_seconds:
            self._replaced.pop(0)[1].close()

    def close(self) -> None:
        """Close what is shown and what was, and the place itself."""
        self.sweep(0.0)
        if self._panel is not None:
            self._panel.close()
        self._nothing.close()
        self.widget.close()
