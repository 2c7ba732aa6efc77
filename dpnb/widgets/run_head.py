"""The words of a monitor: state, progress and figures of a run, what was asked of it, the health of its exports."""

from __future__ import annotations

from time import localtime, strftime

from dpnb.runs.health import Health, health_of
from dpnb.runs.process import FINAL_STATES, Run, State, short_time
from dpnb.runs.progress import SILENCE_SECONDS
from dpnb.runs.rundir import Mark, Request, RunDir, Status
from dpnb.widgets.look import escape

MARKS_SHOWN = 30

_ASKED: dict[Request, str] = {
    "save": "Writing a checkpoint at the next step.",
    "save_quit": "Saving and stopping at the next step.",
    "sample": "Drawing samples at the next step.",
    "evaluate": "Evaluating at the next step.",
    "set_lr": "Changing the learning rate at the next step.",
}


def head_html(name: str, state: State, status: Status) -> str:
    """Name, state, progress bar and the numbers of a run, as HTML."""
    share = min(1.0, status.step / status.total_steps) if status.total_steps else 0.0
    title = f"<h3>Run {escape(name)}</h3>"
    badge = f'<span class="dpnb-badge dpnb-badge-{escape(state)}">{escape(state)}</span>'
    phase = escape(status.phase if state in ("starting", "running") else "")
    detail = f" {escape(status.detail)}" if status.detail else ""
    bar = (
        f'<div class="dpnb-track" role="progressbar" aria-valuenow="{share * 100:.0f}" aria-valuemin="0" '
        f'aria-valuemax="100" aria-label="Progress"><div style="width: {share * 100:.1f}%"></div></div>'
    )
    figures = "".join(
        f"<div><b>{escape(value)}</b><span>{escape(what)}</span></div>" for what, value in _figures(state, status)
    )
    return (
        f'<div class="dpnb-bar">{title}{badge}<span class="dpnb-quiet">{phase}{detail}</span></div>'
        f'{bar}<div class="dpnb-figures">{figures}</div>'
    )


def _figures(state: State, status: Status) -> list[tuple[str, str]]:
    total = f" / {status.total_steps}" if status.total_steps else ""
    figures = [("step", f"{status.step}{total}")]
    if status.total_epochs:
        figures.append(("epoch", f"{status.epoch} / {status.total_epochs}"))
    figures.append(("loss", "-" if status.loss is None else f"{status.loss:.4f}"))
    if status.seconds_per_step is not None:
        figures.append(("per step", f"{status.seconds_per_step:.2f} s"))
    if status.seconds_per_step and status.examples and status.step:
        figures.append(("samples per second", f"{status.examples / status.step / status.seconds_per_step:.3g}"))
    if state == "running" and status.eta_seconds is not None:
        figures.append(("time left", short_time(status.eta_seconds)))
    return figures


def message_html(run: Run, state: State, status: Status, pending: list[Request]) -> str:
    """What was asked and is not done yet, how it ended, and where the results are, as HTML."""
    lines = []
    if state not in FINAL_STATES:
        lines += [f'<span class="dpnb-quiet">{_ASKED[request]}</span>' for request in pending]
        if run.directory.pause_file.exists():
            lines.append('<span class="dpnb-quiet">Paused after its step, until you press Continue.</span>')
        silence = run.silence_seconds
        if silence is not None and silence > SILENCE_SECONDS:
            words = f"No sign of life for {short_time(silence)}: its processes live, but it tells nothing."
            lines.append(f'<span class="dpnb-warning" role="status">{words}</span>')
    if status.last_error:
        lines.append(f'<span class="dpnb-error" role="alert">{escape(status.last_error)}</span>')
    if state == "dead":
        lines.append(
            '<span class="dpnb-error" role="alert">Its processes are gone. Resume it from its checkpoint.</span>'
        )
    if state in FINAL_STATES and (exports := run.exports()):
        lines.append(f"<span>Result: <code>{escape(exports[-1])}</code></span>")
    return "<br>".join(lines)


def health_html(run: RunDir) -> str:
    """A badge for the newest export, and one for each broken one, as HTML; empty before the first."""
    badges = "".join(_health_badge(health) for health in health_of(run))
    return f'<div class="dpnb-bar">{badges}</div>' if badges else ""


def _health_badge(health: Health) -> str:
    word = "unhealthy" if health.wrong else "healthy"
    return (
        f'<span><span class="dpnb-badge dpnb-badge-{word}">{escape(health.folder.name)}: {word}</span> '
        f'<span class="dpnb-quiet">{escape(", ".join(health.wrong or health.facts))}</span></span>'
    )


def marks_html(marks: list[Mark]) -> str:
    """The newest of what happened, as an HTML table."""
    rows = "".join(
        f"<tr><td>{strftime('%H:%M:%S', localtime(mark.time))}</td><td>{mark.x}</td><td>{escape(mark.kind)}</td>"
        f"<td>{escape(mark.text)}</td></tr>"
        for mark in reversed(marks[-MARKS_SHOWN:])
    )
    head = "<tr><th>time</th><th>step</th><th></th><th></th></tr>"
    return f'<table class="dpnb-table">{head}{rows}</table>' if rows else ""
