"""The report of a run as one HTML file that opens without a kernel, without a network, and without the run directory.

What was asked (without secrets), what happened, the charts as SVG, the samples inside the file, what was exported, and
with which versions. Everything that comes from a file is escaped, and the page may load nothing.
"""

from __future__ import annotations

import base64
import html
import io
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from dpnb.errors import RunError
from dpnb.runs.events import Floats, Series, read_all, smoothed, thin
from dpnb.runs.health import health_of
from dpnb.runs.marks import marks_of
from dpnb.runs.plots import PLOTS, TRAINING_LOSS, Plot, evenly, quantile_of, quantile_table
from dpnb.runs.process import Run
from dpnb.runs.rundir import Mark, RunDir, Sample, write_text
from dpnb.svg import heat_map, line_chart

MOST_STEPS = 10  # of the samples: an even choice, first and last among them
PICTURE_PX = 512
LARGEST_CLIP_BYTES = 8 << 20
_POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"
_STYLE = """
:root { color-scheme: light dark; }
body { font: 14px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 24px auto; padding: 0 16px; }
h1 { font-size: 22px; } h2 { font-size: 17px; margin-top: 32px; } h3 { font-size: 14px; margin-bottom: 4px; }
table { border-collapse: collapse; } td, th { text-align: left; padding: 3px 18px 3px 0; vertical-align: top; }
pre { background: #8881; padding: 10px 12px; border-radius: 6px; overflow: auto; font-size: 12px; }
figure { margin: 0; } figcaption { font-size: 12px; opacity: 0.75; overflow-wrap: anywhere; }
.row { display: grid; grid-auto-flow: column; grid-auto-columns: minmax(120px, 240px); gap: 12px; overflow-x: auto; }
.row img, .row video { width: 100%; border-radius: 4px; image-rendering: auto; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(340px, 1fr)); gap: 8px 24px; }
.bad { color: #c0392b; font-weight: 600; }
"""


def write_report(run: Run | RunDir | Path | str, path: Path | str) -> Path:
    """Write the report of a run and give its path. The run may still be going on.

    `run`: what launch or attach gave, a run directory, its name, or "latest". Raises `RunError` when there is no such
    run or the file cannot be written.
    """
    if not isinstance(run, Run):
        run = Run(run) if isinstance(run, RunDir) else Run.attach(run)
    target = Path(path)
    try:
        write_text(target, html_of(run))
    except OSError as error:
        raise RunError(f"cannot write the report {target}: {error.strerror or error}. Name another file.") from error
    return target


def html_of(run: Run) -> str:
    """The report of a run as the text of an HTML page."""
    series = read_all(run.path)
    marks = marks_of(run.directory)
    sections: list[tuple[str, str]] = [
        ("Charts", _charts(series, marks)),
        ("Samples", "".join(_samples(run.samples()))),
        ("What was exported", _exports(run)),
        ("What was asked", "".join(_files(run.directory))),
        ("What happened", _happened(marks)),
        ("Versions", _environment(run.directory)),
    ]
    body = "".join(f"<h2>{title}</h2>{inner}" for title, inner in sections if inner)
    name = _escape(run.name)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Run {name}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{_escape(_POLICY)}">'
        f"<style>{_STYLE}</style></head><body><h1>Run {name}</h1>{_summary(run)}{body}</body></html>\n"
    )


# --- parts -----------------------------------------------------------------------------------------------------------


def _summary(run: Run) -> str:
    status, info = run.status, run.process
    rows = [("state", run.state), ("step", f"{status.step} of {status.total_steps}" if status.total_steps else "")]
    rows += [("epoch", f"{status.epoch} of {status.total_epochs}" if status.total_epochs else "")]
    rows += [("loss", "" if status.loss is None else f"{status.loss:.4f}")]
    if info is not None and info.started is not None:
        rows += [("started", _time(info.started)), ("ended", "" if info.ended is None else _time(info.ended))]
    rows += [("last words", status.detail), ("error", status.last_error), ("report written", _time(time.time()))]
    return _table((), [(what, _escape(value)) for what, value in rows if value])


def _charts(series: Mapping[str, Series], marks: list[Mark]) -> str:
    drawn = [
        f"<div><h3>{_escape(plot.title)}</h3>{chart}</div>" for plot in PLOTS if (chart := _chart(plot, series, marks))
    ]
    maps = [f"<div><h3>{_escape(title)}</h3>{drawn_map}</div>" for title, drawn_map in _heat_maps(series)]
    return f'<div class="charts">{"".join(drawn)}</div>{"".join(maps)}' if drawn or maps else ""


def _chart(plot: Plot, series: Mapping[str, Series], marks: list[Mark]) -> str:
    curves: dict[str, tuple[Floats, Floats]] = {}
    pale: dict[str, tuple[Floats, Floats]] = {}
    for tag, one in series.items():
        if (name := plot.curve(tag)) is not None and len(one):
            curves[name] = thin(one.steps, one.values)
            if plot.title == TRAINING_LOSS and len(one) > 20:
                pale[name], curves[name] = curves[name], thin(one.steps, smoothed(one.values))
    flags = [(float(mark.x), f"{mark.kind}: {mark.text}") for mark in marks] if plot.title == TRAINING_LOSS else []
    return line_chart(curves, pale=pale, marks=flags, width_px=420, height_px=210)  # as large as it is shown


def _heat_maps(series: Mapping[str, Series]) -> Iterator[tuple[str, str]]:
    sets: dict[str, dict[float, Series]] = {}
    for tag, one in series.items():
        if (row := quantile_of(tag)) is not None:
            sets.setdefault(row.held_out, {})[row.quantile] = one
    for held_out, rows in sets.items():
        steps, quantiles, values = quantile_table(rows)
        title = f"Evaluation loss by timestep quantile: {held_out}"
        yield title, heat_map([str(step) for step in steps], [f"{quantile:.2f}" for quantile in quantiles], values)


def _samples(samples: list[Sample]) -> Iterator[str]:
    for step in reversed(evenly(sorted({sample.step for sample in samples}), MOST_STEPS)):
        own = [sample for sample in samples if sample.step == step]
        yield f'<h3>Step {step}</h3><div class="row">{"".join(map(_figure, own))}</div>'


def _figure(sample: Sample) -> str:
    known = ("seed", "steps", "guidance", "width", "height")
    settings = ", ".join(f"{key} {sample.settings[key]}" for key in known if key in sample.settings)
    words = f"<figcaption>{_escape(sample.prompt)}<br>{_escape(settings)}</figcaption>"
    return f"<figure>{_medium(sample.path, sample.words)}{words}</figure>"


def _medium(path: Path, words: str) -> str:
    """The picture or clip inside the page; `words` are for who cannot see it. What cannot be read, or is too large, is
    said."""
    from PIL import Image

    try:
        if path.suffix == ".mp4":
            if path.stat().st_size > LARGEST_CLIP_BYTES:
                return f"<p>{_escape(path.name)} is too large for this page.</p>"
            data = f"data:video/mp4;base64,{_base64(path.read_bytes())}"
            return f'<video controls loop aria-label="{_escape(words)}" src="{data}"></video>'
        with Image.open(path) as picture:
            small = picture.convert("RGB")
        small.thumbnail((PICTURE_PX, PICTURE_PX))
        target = io.BytesIO()
        small.save(target, "WEBP", quality=88, lossless=max(small.size) <= 128)
        return f'<img alt="{_escape(words)}" src="data:image/webp;base64,{_base64(target.getvalue())}">'
    except (OSError, ValueError) as error:
        return f"<p>{_escape(path.name)} cannot be read: {_escape(error)}</p>"


def _exports(run: Run) -> str:
    health = {one.folder: one for one in health_of(run.directory)}
    rows = []
    for folder in dict.fromkeys([*run.exports(), *health]):
        one = health.get(folder)
        wrong = f'<span class="bad">{_escape(", ".join(one.wrong))}</span>' if one is not None and one.wrong else ""
        rows.append((folder.name, wrong or _escape(", ".join(one.facts) if one is not None else "")))
    return _table(("folder", ""), [(_escape(name), words) for name, words in rows]) if rows else ""


def _files(run: RunDir) -> Iterator[str]:
    from dpnb.toml.secrets import without_secrets

    paths = [run.run_toml, run.dataset_toml, *sorted(run.path.glob("eval_*.toml"))]
    # diffusion-pipe copies its files under their own names.
    paths += [path for path in sorted(run.path.glob("*.toml")) if path not in paths]
    for path in paths:
        text = _text(path, without_secrets)
        if text:
            yield f"<h3>{_escape(path.name)}</h3><pre>{_escape(text)}</pre>"


def _text(path: Path, clean: Callable[[str], str]) -> str:
    """A file's text as `clean` leaves it. A file that `clean` does not understand may hold anything: nothing of it."""
    try:
        return clean(path.read_text(encoding="utf-8"))
    except OSError:
        return ""
    except ValueError:
        return "This file is not valid TOML. It is left out, since it may hold a secret."


def _happened(marks: list[Mark]) -> str:
    rows = [tuple(map(_escape, (_time(mark.time), mark.x, mark.kind, mark.text))) for mark in marks]
    return _table(("time", "step", "", ""), rows) if rows else ""


def _environment(run: RunDir) -> str:
    text = _text(run.environment_file, str)
    return f"<pre>{_escape(text)}</pre>" if text else ""


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """`rows` hold HTML."""
    titles = "".join(f"<th>{title}</th>" for title in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table>{f'<tr>{titles}</tr>' if head else ''}{body}</table>"


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _escape(text: object) -> str:
    return html.escape(str(text), quote=True)
