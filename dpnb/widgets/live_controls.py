"""The buttons that ask something of a running run: save, sample, evaluate, stop, pause, another learning rate.

Each writes a control file and returns at once; what comes of it is seen by the panel's thread.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, get_args

import ipywidgets as w

from dpnb.errors import RunError
from dpnb.plain_toml import loads
from dpnb.runs.process import FINAL_STATES, Run, State
from dpnb.runs.rundir import Request, RunDir
from dpnb.widgets.cells import answer_while_busy
from dpnb.widgets.live_prompts import LivePrompts
from dpnb.widgets.look import Look, escape, set_class

_BUTTONS: tuple[tuple[str, Request, str], ...] = (
    ("Save now", "save", "Write a checkpoint at the next step, to resume from"),
    ("Sample now", "sample", "Draw the sample prompts at the next step"),
    ("Evaluate now", "evaluate", "Measure the loss on the held-out sets at the next step"),
    ("Stop", "save_quit", "Save, then end the run; it can be resumed from there"),
)
_RATE_TIP = "The next step is taken with it, and the schedule goes on from there in proportion. A resume keeps it"
_PAUSE_TIP = "Wait after the next step; the GPU keeps its memory"
# diffusion-pipe's own trainer knows these two.
_UPSTREAM: tuple[Request, ...] = ("save", "save_quit")


class LiveControls:
    """One bar of controls. `asked` is called after each."""

    def __init__(self, look: Look, run: Run, asked: Callable[[], None]) -> None:
        self._run, self._asked = run, asked
        self.error = ""
        self.buttons = {request: self._request_button(look, text, request, tip) for text, request, tip in _BUTTONS}
        self.pause = look.button("Pause", tooltip=_PAUSE_TIP)
        self.pause.on_click(self._pause_or_continue)
        self.rate = look.make(
            w.Text,
            description="Learning rate",
            placeholder="5e-5",
            classes=("dpnb-short",),
            continuous_update=False,
        )
        self.set_rate = look.button("Set", tooltip=_RATE_TIP)
        self.set_rate.on_click(self._change_rate)
        self._ours = look.box((self.pause, self.rate, self.set_rate), "dpnb-bar")
        self.prompts = LivePrompts(look, run, asked)
        bar = look.box((*self.buttons.values(), self.prompts.open, self._ours), "dpnb-bar")
        self.widget = look.make(w.VBox, children=(bar, self.prompts.widget), classes=("dpnb-controls",))
        for request in without_effect(run.directory):
            if request == "set_lr":
                set_class(self._ours, "dpnb-hidden", on=True)
            else:
                set_class(self.buttons[request], "dpnb-hidden", on=True)
            if request == "sample":
                set_class(self.prompts.open, "dpnb-hidden", on=True)

    def _request_button(self, look: Look, text: str, request: Request, tip: str) -> Any:  # noqa: ANN401 - a widget
        button = look.button(text, tooltip=tip, kind="danger" if request == "save_quit" else "")
        button.on_click(lambda _: self._ask(request))
        return button

    def _ask(self, request: Request) -> None:
        if request == "save_quit":
            self._do(self._run.request_stop)
        else:
            self._do(lambda: self._run.directory.request(request))

    def _pause_or_continue(self, _button: Any) -> None:  # noqa: ANN401 - the button that was clicked
        self._do(lambda: self._run.directory.pause(on=not self._run.directory.pause_file.exists()))

    def _do(self, act: Callable[[], None]) -> None:
        """Ask for something; why that cannot be is shown."""
        self.error = ""
        try:
            act()
        except RunError as error:
            self.error = str(error)
        self._asked()

    def _change_rate(self, _button: Any) -> None:  # noqa: ANN401 - the button that was clicked
        try:
            lr = float(self.rate.value)
        except ValueError:
            lr = math.nan
        if 0 < lr < math.inf:
            self._do(lambda: self._run.directory.request("set_lr", {"lr": lr}))
        else:
            self.error = f"'{self.rate.value}' is no learning rate: write a number above 0, such as 5e-5."
            self._asked()

    def show(self, state: State, pending: list[Request]) -> None:
        """Offer what can be asked now."""
        over = state in FINAL_STATES
        for request, button in self.buttons.items():
            button.disabled = over or request in pending
        self.set_rate.disabled = over or "set_lr" in pending
        self.rate.disabled = self.pause.disabled = over
        self.prompts.show(state, pending)
        self.pause.description = "Continue" if self._run.directory.pause_file.exists() and not over else "Pause"
        answer_while_busy(*self.buttons.values(), self.pause, self.rate, self.set_rate)

    def error_html(self) -> str:
        """What was wrong with what was asked, as HTML; empty when nothing was."""
        return f'<span class="dpnb-error" role="alert">{escape(self.error)}</span>' if self.error else ""


def without_effect(run: RunDir) -> list[Request]:
    """Requests that a run cannot serve: those of another trainer that it does not know, evaluations without held-out
    sets, samples without prompts. None where its file is not to be read."""
    info = run.process()
    if info is None or (info.argv and not any("trainer.train" in word for word in info.argv)):
        return [request for request in get_args(Request) if request not in _UPSTREAM]
    try:
        asked = loads(run.run_toml.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    needs: dict[Request, str] = {"sample": "sample", "evaluate": "eval_datasets"}
    return [request for request, key in needs.items() if not asked.get(key)]
