"""The super-tagger as a panel: which model, which steps, which questions; start it, watch it, stop it.

    dpnb.Tagger("photos", model="models/Qwen2.5-VL-3B-Instruct")

The tagger is a process of its own: it goes on when the notebook is closed, and any panel of the folder shows it again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ipywidgets as w

from dpnb.dataset.tagged import LEFT_OUT_FILE, PROMPT, SHORT_PROMPT, TAG_STEPS, TagJob
from dpnb.errors import DpnbError
from dpnb.runs.process import Run
from dpnb.runs.rundir import read_json
from dpnb.runs.text import short_time
from dpnb.tools import tagging
from dpnb.widgets.cells import answer_while_busy
from dpnb.widgets.look import escape, failure_html, set_class
from dpnb.widgets.panel import Displayed
from dpnb.widgets.polling import Ticker
from dpnb.widgets.tool_frame import Frame, alert_html, folder_in, folder_of, gauge_html, rows_html

LOOK_SECONDS = 1.0
_TITLES = {"caption": "Long caption", "caption_short": "Short caption", "contrast_stretch": "Stretch the contrast"}


class Tagger(Displayed):
    """The panel. Displays itself; `run` is the tagger of the folder, at work or over, None before the first."""

    def __init__(self, folder: Path | str = "", *, model: Path | str = "") -> None:
        """`folder`: its raw/ holds the pictures, its train/ gets them with their captions."""
        self.run: Run | None = None
        self._drawn: object = None
        self.frame = Frame("Super-tagger", "Captions by a local vision-language model: raw/ becomes train/.")
        look, field = self.frame.look, self.frame.field
        self.folder = self.frame.path_field("Folder", str(folder), placeholder="its raw/ holds the pictures")
        self.model = self.frame.path_field("Model folder", str(model), placeholder="config.json and safetensors")
        self.prompt, prompt_box = field(w.Textarea, "Ask for the long caption", value=PROMPT)
        self.short_prompt, short_box = field(w.Textarea, "Ask for the short caption", value=SHORT_PROMPT)
        choices = [("the long caption", "long"), ("the short caption", "short")]
        self.write, write_box = field(w.Dropdown, "In the .txt file stands", options=choices)
        self.steps = {
            step: look.make(w.Checkbox, description=_TITLES[step], value=step in TagJob("", "").steps, indent=False)
            for step in TAG_STEPS
        }
        self.start_button = look.button("Start", kind="primary", tooltip="Caption what has no captions yet")
        self.stop_button = look.button("Stop", "dpnb-hidden", tooltip="Stop after the picture it is at")
        self.start_button.on_click(lambda _: self.start())
        self.stop_button.on_click(lambda _: self.stop())
        self.folder.observe(lambda _: self.refresh(), "value")
        self.status = look.html("", "dpnb-message")
        steps = look.box(tuple(self.steps.values()), "dpnb-cell")
        boxes = (self.folder.box, self.model.box, prompt_box, short_box, write_box, steps)
        self.widget = self.frame.arrange(boxes, (self.start_button, self.stop_button), self.status)
        self._ticker = Ticker(self._look, LOOK_SECONDS, "dpnb tagger", self._failed)
        self._ticker.start()
        self.frame.adopt(self)

    def job(self) -> TagJob:
        """What the fields ask for. Raises `DatasetError` when it cannot be."""
        steps = tuple(step for step, box in self.steps.items() if box.value)
        return TagJob(
            str(folder_of(self.folder.value)),
            self.model.value.strip(),
            steps,
            prompt=self.prompt.value,
            short_prompt=self.short_prompt.value,
            write=self.write.value,
        )

    def start(self) -> None:
        """Start the tagger of the folder."""
        self.frame.start("Starting", lambda _p, _c: tagging.start(self.job()), lambda _: self.refresh())

    def stop(self) -> None:
        """Ask it to stop after the picture that it is at."""
        run = self.run
        if run is not None:
            run.request_stop()
            self.refresh()

    def refresh(self) -> None:
        """Look at the tagger now."""
        self._ticker.wake()

    # --- what it shows, on the ticker's thread -------------------------------------------------------------------

    def _look(self) -> bool:
        folder = folder_in(self.folder.value)
        run = None if folder is None else tagging.attach(folder)
        state = None if run is None else run.state
        status = None if run is None else run.status
        left_out = {} if run is None else read_json(run.path / LEFT_OUT_FILE) or {}
        # The log of one that came to no good end tells why.
        log = run.log(6) if run is not None and state in ("failed", "dead") else []
        drawn = (
            folder,
            state,
            status and (status.phase, status.step, status.detail, status.last_error),
            tuple(left_out),
        )
        with self.frame.lock:
            if self.frame.closed:
                return False
            self.run = run
            if drawn != self._drawn:
                self._drawn = drawn
                self._draw(run, state, left_out if state in ("done", "stopped") else {}, log)
        return True

    def _draw(self, run: Run | None, state: str | None, left_out: dict[str, Any], log: list[str]) -> None:
        going = state in ("starting", "running")
        set_class(self.stop_button, "dpnb-hidden", not going)
        set_class(self.start_button, "dpnb-hidden", going)
        answer_while_busy(self.start_button, self.stop_button)
        if run is None:
            self.status.value = ""
            self.frame.outcome.value = ""
            return
        status = run.status
        badge = f'<span class="dpnb-badge dpnb-badge-{escape(state)}">{escape(state)}</span>'
        words = f"{status.step:,} of {status.total_steps:,} pictures"
        if going and status.eta_seconds is not None:
            words += f", {short_time(status.eta_seconds)} left"
        share = status.step / status.total_steps if status.total_steps else 0.0
        detail = f" <span>{escape(status.detail)}</span>" if status.detail else ""
        wrong = alert_html("\n".join([status.last_error or "It ended without a word.", *log])) if log else ""
        self.status.value = f"{badge}{detail}{gauge_html(words, share)}{wrong}"
        rows = [f"{place}: {why}" for place, why in left_out.items()]
        self.frame.outcome.value = rows_html("Left out", rows)

    def _failed(self, error: Exception) -> None:
        with self.frame.lock:
            if not self.frame.closed:
                known = isinstance(error, DpnbError)
                self.frame.say(alert_html(str(error)) if known else failure_html("tagger's panel", error))

    def close(self) -> None:
        """Close every widget. The tagger itself goes on."""
        self._ticker.stop()
        self.frame.close()

    def __repr__(self) -> str:
        return f"Tagger({self.folder.value!r}, model={self.model.value!r})"
