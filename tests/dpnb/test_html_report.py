"""The report of a run: one file, nothing loaded from anywhere, everything escaped, no secret."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import dpnb
from dpnb.cli import main
from dpnb.errors import RunError
from dpnb.html_report import LARGEST_CLIP_BYTES, MOST_STEPS, html_of
from dpnb.runs.process import Run
from dpnb.runs.rundir import Mark
from dpnb.svg import heat_map, line_chart
from tests.dpnb.growing import GrowingRun

KEY = "0123456789abcdef0123456789abcdef01234567"


class Page(HTMLParser):
    """What a browser would make of the page: its tags with their attributes, and its texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def growing(tmp_path: Path) -> Any:
    made = GrowingRun(tmp_path / "<run> & co", 40)
    for step in range(1, 31):
        made.step(step)
    return made


def test_a_report_has_all_of_a_run(growing: Any, tmp_path: Path) -> None:
    run = growing.run
    run.run_toml.write_text('epochs = 3 # <b>\n[monitoring]\nwandb_api_key = "secret-words"\n')
    run.dataset_toml.write_text("resolutions = [64]\n")
    run.environment_file.write_text("torch 2.13\n<x> 1\n")
    run.add_mark(Mark("saved", 20, 1.0e9, "exporting <step20>"))
    growing.finish(30)
    target = dpnb.report(run, tmp_path / "report.html")
    text = target.read_text()
    page = Page(text)
    assert page.open == []
    assert "secret-words" not in text
    for words in ("<run> & co", "epochs = 3 # <b>", "resolutions = [64]", "<x> 1", "exporting <step20>", "step30"):
        assert words in page.words
    assert page.words.count("a <b>large</b> zorbi & friends") == 3
    pictures = [attributes["src"] or "" for attributes in page.named("img")]
    assert len(pictures) == 12
    data = [base64.b64decode(source.removeprefix("data:image/webp;base64,")) for source in pictures]
    assert all(one.startswith(b"RIFF") for one in data)
    assert {"Training loss", "Evaluation loss", "Memory"} <= set(re.findall("<h3>(.*?)</h3>", text))
    assert len(page.named("rect")) == 27
    assert "saved: exporting <step20>" in page.words  # the tooltip of a mark


def test_a_report_loads_nothing(growing: Any) -> None:
    page = Page(html_of(Run(growing.run)))
    assert {tag for tag, _ in page.tags} <= {
        *("html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "table", "tr", "td", "th", "pre", "div"),
        *("figure", "figcaption", "img", "br", "svg", "path", "text", "rect"),
    }
    for _, attributes in page.tags:
        assert not {"href", "srcset", "onload", "onerror"} & set(attributes)
        assert (attributes.get("src") or "data:").startswith("data:")
    policies = [meta["content"] for meta in page.named("meta") if meta.get("http-equiv")]
    assert policies == ["default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"]


def test_a_file_that_may_hold_a_secret_is_left_out(growing: Any) -> None:
    growing.run.run_toml.write_text(f'epochs = \nwandb_api_key = "{KEY}"\n')
    (growing.run.path / "main.toml").write_text(f'[monitoring]\nwandb_api_key = "{KEY}"\nenable_wandb = true\n')
    (growing.run.path / "bytes.toml").write_bytes(b"\xff\xfe")
    text = html_of(Run(growing.run))
    assert KEY not in text
    assert "enable_wandb = true" in text  # a run of diffusion-pipe keeps its file under its own name
    assert text.count("This file is not valid TOML. It is left out, since it may hold a secret.") == 2


def test_clips_and_what_cannot_be_read(growing: Any) -> None:
    first, second, third, _ = growing.run.samples()[:4]
    first.path.with_suffix(".mp4").write_bytes(b"clip")
    first.path.unlink()
    second.path.write_bytes(b"no picture")
    with third.path.with_suffix(".mp4").open("wb") as file:
        file.truncate(LARGEST_CLIP_BYTES + 1)
    third.path.unlink()
    page = Page(html_of(Run(growing.run)))
    assert [video["src"] for video in page.named("video")] == ["data:video/mp4;base64,Y2xpcA=="]
    assert f"{second.path.name} cannot be read" in page.words
    assert "02.mp4 is too large for this page." in page.words


def test_large_pictures_are_reduced_and_many_steps_are_chosen_from(growing: Any) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (1500, 1500, 3), dtype=np.uint8)
    Image.fromarray(noise).save(growing.run.samples()[0].path)
    for step in range(31, 60):
        growing.pictures(step)
    text = html_of(Run(growing.run))
    assert len(re.findall(r"<h3>Step \d+</h3>", text)) == MOST_STEPS
    assert "<h3>Step 10</h3>" in text
    assert "<h3>Step 59</h3>" in text
    assert len(text) < 1_000_000


def test_a_run_that_has_only_begun_has_a_report(tmp_path: Path) -> None:
    growing = GrowingRun(tmp_path / "run", 3)
    text = html_of(Run(growing.run))
    assert "<h2>Charts</h2>" not in text
    assert Page(text).open == []


def test_a_report_that_cannot_be_written(growing: Any, tmp_path: Path) -> None:
    with pytest.raises(RunError) as error:
        dpnb.report(growing.run.path, tmp_path / "nowhere" / "report.html")
    expected = f"cannot write the report {tmp_path}/nowhere/report.html: No such file or directory. Name another file."
    assert str(error.value) == expected


def test_the_command(growing: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "out.html"
    assert main(["report", str(growing.run.path), "-o", str(target)]) == 0
    assert target.read_text().startswith("<!doctype html>")
    assert capsys.readouterr().out == f"{target}: open it in a browser; it needs neither this machine nor a kernel\n"


def test_the_module_is_the_function_and_has_the_pictures() -> None:
    from dpnb.report import contact_sheet

    assert dpnb.report.contact_sheet is contact_sheet


# --- svg -------------------------------------------------------------------------------------------------------------


def test_a_heat_map_is_darkest_where_it_is_lowest() -> None:
    drawn = heat_map(["1", "<2>"], ["a"], np.array([[1.0, 2.0]]))
    assert re.findall(r'fill="(#\w+)"><title>(.*?)</title>', drawn) == [
        ("#440154", "1, a: 1"),
        ("#fde725", "&lt;2&gt;, a: 2"),
    ]
    assert re.findall(r'fill="(#\w+)"><title>', heat_map(["1"], ["a"], np.array([[np.nan]]))) == ["#8884"]
    assert "#440154" in heat_map(["1"], ["a"], np.array([[3.0]]))


def test_a_line_is_broken_where_it_is_not_finite() -> None:
    x = np.arange(5.0)
    drawn = line_chart({"<a>": (x, np.array([1.0, 2.0, np.nan, 1.0, np.inf])), "b": (x, x)})
    first = re.findall(r'<path d="(M[^"]*)" fill="none" stroke="#0072b2"', drawn)[0]
    assert (first.count("M"), first.count("L")) == (2, 1)
    assert "&lt;a&gt;" in drawn
    assert line_chart({"a": (x, np.full(5, np.nan))}) == ""
    assert "NaN" not in line_chart({"a": (np.array([3.0]), np.array([2.0]))})
