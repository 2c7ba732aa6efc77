"""Sample now, with other words: the prompts of the run in a field, to be edited and drawn at the next step.

The file of the run is not changed: at its own times it goes on drawing its own prompts.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable

import ipywidgets as w

from dpnb.errors import RunError
from dpnb.runs.process import FINAL_STATES, Run, State
from dpnb.runs.rundir import Request, RunDir
from dpnb.widgets.cells import answer_while_busy
from dpnb.widgets.look import Look, escape, set_class

_TIP = "Once, at the next step, with the other settings of the [sample] table; they stand behind the run's own prompts"


class LivePrompts:
    """A button that opens the field, and the one that asks. `asked` is called after a request."""

    def __init__(self, look: Look, run: Run, asked: Callable[[], None]) -> None:
        self._run, self._asked = run, asked
        self.open = look.button("Other prompts...", tooltip="Edit the prompts and draw them now")
        self.open.on_click(lambda _: self._turn())
        self.field = look.make(
            w.Textarea, description="Prompts, one on each line", value="\n".join(prompts_of(run.directory)), rows=4
        )
        self.draw = look.button("Draw these now", tooltip=_TIP)
        self.draw.on_click(lambda _: self._draw())
        self._said = look.html("", "dpnb-caption")
        cell = look.box((self.field,), "dpnb-cell")
        bar = look.box((self.draw, self._said), "dpnb-bar")
        self.widget = look.make(w.VBox, children=(cell, bar), classes=("dpnb-drawer", "dpnb-hidden"))

    @property
    def is_hidden(self) -> bool:
        """Whether the field is out of sight."""
        return "dpnb-hidden" in self.widget._dom_classes

    def _turn(self) -> None:
        set_class(self.widget, "dpnb-hidden", on=not self.is_hidden)

    def _draw(self) -> None:
        prompts = [line.strip() for line in self.field.value.splitlines() if line.strip()]
        if not prompts:
            self._said.value = '<span class="dpnb-error" role="alert">Write a prompt first.</span>'
            return
        self._said.value = ""
        try:
            self._run.directory.request("sample", {"prompts": prompts})
        except RunError as error:
            self._said.value = f'<span class="dpnb-error" role="alert">{escape(error)}</span>'
        self._asked()

    def show(self, state: State, pending: list[Request]) -> None:
        """Offer what can be asked now."""
        self.open.disabled = state in FINAL_STATES
        if state in FINAL_STATES:
            set_class(self.widget, "dpnb-hidden", on=True)
        self.draw.disabled = state in FINAL_STATES or "sample" in pending
        answer_while_busy(self.open, self.field, self.draw)


def prompts_of(run: RunDir) -> list[str]:
    """The texts of the prompts that a run draws; none where its file has none, or is not to be read."""
    try:
        asked = tomllib.loads(run.run_toml.read_text(encoding="utf-8")).get("sample", {}).get("prompts", [])
    except (OSError, ValueError, AttributeError):
        return []
    texts = [prompt.get("text") if isinstance(prompt, dict) else prompt for prompt in asked]
    return [" ".join(text.split()) for text in texts if isinstance(text, str)]
