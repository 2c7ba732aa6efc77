"""The card of a run that failed: the cause, the line that shows it, what mends it, and a button that does so.

It is worked out once for each end of the run. "Apply and resume" starts the run again with the changes of the card,
from its last checkpoint; a run without one begins anew, in a folder of its own.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dpnb.errors import DpnbError
from dpnb.runs.process import FINAL_STATES, Run, State
from dpnb.widgets.cells import answer_while_busy
from dpnb.widgets.look import Look, escape, failure_html, set_class

if TYPE_CHECKING:
    from dpnb.runs.triage import Card

log = logging.getLogger(__name__)

THREAD = "dpnb restart"


class TriageCard:
    """Unseen until the run has failed. `restarted` is called with the run that was started, on the thread of that."""

    def __init__(self, look: Look, run: Run, restarted: Callable[[Run], object]) -> None:
        self._run, self._restarted = run, restarted
        self.card: Card | None = None
        self._end: object = None  # the end of the run that the card is of
        self._starting = False
        self._words, self._said = look.html(), look.html("", "dpnb-message")
        self.button = look.button("Resume", kind="primary")
        self.button.on_click(lambda _: self._start())
        children = (self._words, look.box((self.button,), "dpnb-bar"), self._said)
        self.widget = look.box(children, "dpnb-triage", "dpnb-hidden")

    def show(self, state: State) -> None:
        """Show why the run failed; nothing for one that goes on or ended well."""
        over = state in FINAL_STATES
        info = self._run.process
        end = (state, None if info is None else (info.started, info.ended)) if over else None
        if end != self._end:
            self._end = end
            self.card = _diagnosis(self._run) if over else None
            self._draw()
        if not self._starting:
            self.button.disabled = not over
        answer_while_busy(self.button)

    def _draw(self) -> None:
        card = self.card
        if card is None:
            set_class(self.widget, "dpnb-hidden", on=True)
            self._said.value = ""
            return
        self._words.value = card_html(card, self._run)
        verb = "resume" if card.resumes else "start again"
        self.button.description = f"Apply and {verb}" if card.changes else verb.capitalize()
        self.button.tooltip = (
            "Go on from the last checkpoint" if card.resumes else "There is no checkpoint: a new run of the same files"
        )
        set_class(self.widget, "dpnb-hidden", on=False)

    def _start(self) -> None:
        card = self.card
        if card is None or self._starting:
            return
        self._starting = self.button.disabled = True
        self._say("Starting ...")
        threading.Thread(target=self._carefully, args=(card,), name=THREAD, daemon=True).start()

    def _carefully(self, card: Card) -> None:
        from dpnb.runs.restart import restart  # the whole schema, which a monitor does without

        try:
            run = restart(self._run, card)
        except DpnbError as error:
            self._said.value = f'<span class="dpnb-error" role="alert">{escape(error)}</span>'
        except Exception as error:  # a thread has nobody else to tell
            log.exception("the restart failed")
            self._said.value = failure_html("restart", error)
        else:
            self._say("" if run.path == self._run.path else f"Started {run.path}")
            self._restarted(run)
        finally:
            self._starting = self.button.disabled = False

    def _say(self, words: str) -> None:
        self._said.value = f'<span class="dpnb-quiet" role="status">{escape(words)}</span>' if words else ""


def _diagnosis(run: Run) -> Card | None:
    from dpnb.runs.triage import diagnose

    return diagnose(run)


def card_html(card: Card, run: Run) -> str:
    """Cause, evidence, advice and changes with the values that they replace, as HTML."""
    from dpnb.runs.triage import training_of

    seen = (
        f'<p>Seen in the log: <code class="dpnb-evidence">{escape(card.evidence)}</code></p>' if card.evidence else ""
    )
    training = training_of(run) if card.changes else None
    rows = "".join(
        f"<tr><td><code>{escape(key)}</code></td><td>{escape(_before(training, key))}</td>"
        f"<td><b>{escape(value)}</b></td></tr>"
        for key, value in card.changes.items()
    )
    head = "<tr><th>What would mend it</th><th>now</th><th>then</th></tr>"
    table = f'<table class="dpnb-table">{head}{rows}</table>' if rows else ""
    return f'<h4 role="alert">Why it ended: {escape(card.title)}</h4>{seen}<p>{escape(card.advice)}</p>{table}'


def _before(training: Any, key: str) -> object:  # noqa: ANN401 - any section of the schema
    """The value that a dotted key has now; a dash for none."""
    for part in key.split("."):
        training = getattr(training, part, None)
    return "-" if training is None else training
