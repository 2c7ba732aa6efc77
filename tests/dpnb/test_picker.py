"""The list of files and folders: what it shows, how it moves, and that one serves a whole form."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import pytest
from ipywidgets.widgets.widget import _instances as live_widgets

from dpnb.schema import Dataset, Training
from dpnb.schema.base import InputFile, Section, Ui
from dpnb.schema.families.base import TextEncoder
from dpnb.schema.families.flux import FluxModel
from dpnb.widgets.form import Form
from dpnb.widgets.look import Look
from dpnb.widgets.picker import PER_PAGE, TOML, WEIGHTS, Entry, Picker, Wanted, entries_of
from dpnb.widgets.shapes import Spec


class Paths(Section):
    """Every kind of path."""

    folder: Annotated[str | None, Ui(path="dir")] = None
    file: InputFile | None = None
    out: Annotated[str, Ui(path="output_dir")] = "out"
    either: Annotated[str | None, Ui(path="path")] = None
    several: Annotated[list[str], Ui(path="file")] = []
    one_or_several: Annotated[str | list[str] | None, Ui(path="file")] = None


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with folders and files."""
    for name in ("photos/cats", "photos/dogs", "part10", "part2", ".hidden"):
        (tmp_path / "work" / name).mkdir(parents=True)
    for name in ("a.toml", "b.safetensors", "c.txt", "photos/x.toml", ".dot.toml"):
        (tmp_path / "work" / name).touch()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


@pytest.fixture
def form() -> Iterator[Form[Paths]]:
    made = Form(Paths)
    yield made
    made.close()


def control(form: Form[Paths], name: str) -> object:
    return next(row.control for row in form._pages[0].panel.rows if row.spec.name == name)


def shown(form: Form[Paths]) -> list[str]:
    return [line.description for line in form.picker.lines if "dpnb-hidden" not in line._dom_classes]


def press(form: Form[Paths], name: str) -> None:
    next(line for line in form.picker.lines if line.description == name).click()


def note(form: Form[Paths], name: str) -> str:
    return next(row.note.value for row in form._pages[0].panel.rows if row.spec.name == name)


def test_folders_come_first_in_natural_order(here: Path) -> None:
    names = [entry.name for entry in entries_of(here, (), files=True)]
    assert names == ["part2", "part10", "photos", "a.toml", "b.safetensors", "c.txt"]
    assert entries_of(here, TOML, files=True)[-1] == Entry("a.toml", is_dir=False)
    assert all(entry.is_dir for entry in entries_of(here, (), files=False))


@pytest.mark.parametrize(
    ("owner", "name", "suffixes"),
    [
        (Training, "dataset", TOML),
        (FluxModel, "transformer_path", WEIGHTS),
        (TextEncoder, "path", WEIGHTS),
        (Dataset, "metadata_file", (".csv", ".jsonl", ".parquet")),
        (Paths, "file", ()),
    ],
)
def test_files_are_filtered_by_what_the_field_is_for(
    owner: type[Section], name: str, suffixes: tuple[str, ...]
) -> None:
    assert Wanted.by(Spec.of(owner, name, (name,))).suffixes == suffixes


def test_a_folder_is_chosen_by_opening_it(form: Form[Paths]) -> None:
    control(form, "folder").browse.click()
    assert shown(form) == ["part2/", "part10/", "photos/"]
    press(form, "photos/")
    assert shown(form) == ["cats/", "dogs/"]
    press(form, "cats/")
    assert form.picker.said.value == "Nothing to choose here."
    form.picker.use.click()
    assert form.value.folder == "photos/cats"
    assert control(form, "folder").text.value == "photos/cats"
    assert "Found." in note(form, "folder")
    assert form.picker.widget not in control(form, "folder").widget.children


def test_a_file_is_chosen_by_one_press(form: Form[Paths]) -> None:
    control(form, "file").browse.click()
    assert "dpnb-hidden" in form.picker.use._dom_classes
    press(form, "c.txt")
    assert form.value.file == "c.txt"


def test_it_opens_where_the_field_points_and_goes_up(form: Form[Paths], here: Path) -> None:
    control(form, "folder").text.value = "photos/cats"
    control(form, "folder").browse.click()
    assert form.picker.place.value == str(here / "photos/cats")
    form.picker.up.click()
    form.picker.up.click()
    form.picker.up.click()
    form.picker.use.click()
    assert form.value.folder == str(here.parent)
    control(form, "folder").browse.click()
    form.picker.home.click()
    form.picker.place.value = "photos"
    assert shown(form) == ["cats/", "dogs/"]
    form.picker.use.click()
    assert form.value.folder == "photos"


def test_lists_of_paths_grow_by_one_line(form: Form[Paths]) -> None:
    for name in ("c.txt", "a.toml"):
        control(form, "several").browse.click()
        press(form, name)
    assert form.value.several == ["c.txt", "a.toml"]
    control(form, "one_or_several").text.value = "a.toml"
    assert form.value.one_or_several == "a.toml"
    assert "Found." in note(form, "one_or_several")
    control(form, "one_or_several").text.value = "a.toml\nmissing"
    assert form.data["one_or_several"] == ["a.toml", "missing"]
    assert "does not exist" in note(form, "one_or_several")
    control(form, "one_or_several").text.value = ""
    assert "one_or_several" not in form.data


def test_names_can_be_narrowed_down_and_paged(form: Form[Paths], here: Path) -> None:
    for number in range(100):
        (here / f"f{number}.bin").touch()
    control(form, "either").browse.click()
    assert len(shown(form)) == PER_PAGE
    assert form.picker.said.value == "1 to 24 of 106"
    form.picker.later.click()
    assert form.picker.said.value == "25 to 48 of 106"
    assert form.picker.earlier.disabled is False
    form.picker.names.value = "F99"
    assert shown(form) == ["f99.bin"]
    press(form, "f99.bin")
    assert form.value.either == "f99.bin"


def test_all_files_can_be_seen(here: Path) -> None:
    picked: list[str] = []
    look = Look()
    picker, host = Picker(look, threading.RLock()), look.box(())
    picker.open(host, Wanted("file", TOML), "", picked.append)
    seen = [line.description for line in picker.lines if "dpnb-hidden" not in line._dom_classes]
    assert seen[-1] == "a.toml"
    picker.all_files.value = True
    assert "c.txt" in [line.description for line in picker.lines]
    next(line for line in picker.lines if line.description == "c.txt").click()
    assert picked == ["c.txt"]


def test_one_list_serves_the_whole_form(form: Form[Paths]) -> None:
    before = len(live_widgets)
    control(form, "folder").browse.click()
    models = len(live_widgets) - before
    control(form, "file").browse.click()
    assert len(live_widgets) - before == models
    assert form.picker.widget in control(form, "file").widget.children
    assert form.picker.widget not in control(form, "folder").widget.children
    control(form, "file").browse.click()
    assert form.picker.widget not in control(form, "file").widget.children


def test_a_folder_that_cannot_be_read_is_said_to_be(form: Form[Paths]) -> None:
    control(form, "folder").browse.click()
    form.picker.place.value = "nowhere"
    assert form.picker.said.value == "This folder cannot be read: No such file or directory."
    assert shown(form) == []


def test_closing_the_form_closes_the_list() -> None:
    before = len(live_widgets)
    form = Form(Paths)
    control(form, "folder").browse.click()
    form.close()
    assert len(live_widgets) == before


def test_a_huge_folder_is_listed_quickly(form: Form[Paths], here: Path) -> None:
    for number in range(5000):
        (here / "photos" / f"{number}.png").touch()
    start = time.thread_time()
    control(form, "either").text.value = "photos"
    control(form, "either").browse.click()
    assert time.thread_time() - start < 1.0
    assert form.picker.said.value == "1 to 24 of 5003"
