"""RunControls: one run of a list, whoever started it, and the buttons that resume and end it.

Stop and Stop now return at once and the state of the list shows what comes of them; Kill asks first.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

import ipywidgets as w

from dpnb.errors import RunError
from dpnb.runs.process import FINAL_STATES, Run
from dpnb.widgets.cells import answer_while_busy
from dpnb.widgets.confirm import Confirm
from dpnb.widgets.look import Look, escape
from dpnb.widgets.run_list import RunList

THREAD = "dpnb kill"


class Resume(Protocol):
    """Goes on with a run, with its own settings or with those of the panel."""

    def __call__(self, run: Run, *, as_above: bool) -> None:
        """Return at once."""


class RunControls:
    """The card of the chosen run. It belongs to a panel, which closes the widgets."""

    def __init__(self, look: Look, runs: RunList, resume: Resume) -> None:
        self.runs = runs
        self._closed = False
        self.resume = look.button("Resume", tooltip="Go on from the newest checkpoint of this run")
        self.as_above = look.make(w.Checkbox, description="with the settings above", indent=False)
        self.stop = look.button("Stop", tooltip="Save at the next step, then end; it can be resumed", kind="danger")
        self.now = look.button("Stop now", tooltip="End by a signal: finish the step, save if possible")
        self.kill = look.button("Kill", tooltip="End every process at once, saving nothing")
        self.message = look.html("", "dpnb-message")
        self.confirm = Confirm(look)
        self.resume.on_click(lambda _: self._on_run(lambda run: resume(run, as_above=self.as_above.value)))
        self.stop.on_click(lambda _: self._on_run(self._stop))
        self.now.on_click(lambda _: self._on_run(self._stop_now))
        self.kill.on_click(lambda _: self._on_run(self._ask_to_kill))
        self._buttons = (self.resume, self.as_above, self.stop, self.now, self.kill)
        bar = look.box(self._buttons, "dpnb-bar", "dpnb-message")
        children = (look.html("<h3>Runs</h3>"), runs.widget, bar, self.confirm.widget, self.message)
        self.widget = look.make(w.VBox, children=children, classes=("dpnb-card",))
        self._run: Run | None = None
        runs.observe(lambda _: self.refresh())
        self.refresh()

    def refresh(self) -> None:
        """Enable what makes sense for the chosen run in its present state."""
        run, state = self.runs.run, self.runs.state
        if self._closed:
            return
        if run is not self._run:
            self._run = run
            self.message.value = ""
            self.confirm.withdraw()
        lives = state is not None and state not in FINAL_STATES
        for button in (self.stop, self.now, self.kill):
            button.disabled = not lives
        self.resume.disabled = lives or run is None or run.directory.latest_checkpoint() is None
        if not lives:
            self.confirm.withdraw()
        answer_while_busy(*self._buttons)

    def _on_run(self, act: Callable[[Run], object]) -> None:
        """Do something with the chosen run; what it refuses is shown."""
        run = self.runs.run
        if run is None or self._closed:
            return
        try:
            act(run)
        except RunError as error:
            self._refused(error)

    def _stop(self, run: Run) -> None:
        run.request_stop()
        self._note("It saves at the next step and ends.")

    def _stop_now(self, run: Run) -> None:
        run.terminate()
        self._note("It was told to end: it finishes the step, saves and exits.")

    def _ask_to_kill(self, run: Run) -> None:
        question = f"Kill {run.name}? What has happened since its last checkpoint is lost."
        self.confirm.ask(question, "Kill it", lambda: self._kill(run))

    def _kill(self, run: Run) -> None:
        def end() -> None:
            try:
                run.kill()
            except RunError as error:
                self._refused(error)
            else:
                self._note("Its processes are gone.")

        # Processes that hang in the kernel are waited for some seconds.
        threading.Thread(target=end, name=THREAD, daemon=True).start()

    def _note(self, words: str) -> None:
        self._say(f'<span class="dpnb-quiet" role="status">{escape(words)}</span>')

    def _refused(self, error: RunError) -> None:
        self._say(f'<span class="dpnb-error" role="alert">{escape(error)}</span>')

    def _say(self, text: str) -> None:
        if not self._closed:
            self.message.value = text
            self.runs.look_again()

    def close(self) -> None:
        """Show nothing more."""
        self._closed = True
