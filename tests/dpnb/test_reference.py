"""The reference page: it says what the schema says, all of it, and the committed one is up to date."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from dpnb import reference
from dpnb.importers import eri, transformer_lab
from dpnb.reference_words import default_cell, escape, meaning_cell, type_cell
from dpnb.schema import Dataset, Training, foreign, pytorch_optimizers
from dpnb.schema.base import InputDir, Section, Ui, ui_of
from dpnb.schema.model import FACTS
from dpnb.schema.optimizer import OPTIMIZERS
from dpnb.schema.unions import arm_of, sections_below

PAGE = reference.page()
ROWS = [line for line in PAGE.splitlines() if line.startswith("| `")]


def everything(cls: type[Section]) -> Iterator[type[Section]]:
    """A section and all that can stand below it."""
    yield cls
    for info in cls.model_fields.values():
        for below in sections_below(info.annotation):
            yield from everything(below)


def rows_of(key: str) -> list[str]:
    return [row for row in ROWS if row.startswith(f"| `{key}` |")]


def test_the_committed_page_is_what_the_schema_says() -> None:
    committed = reference.PAGE.read_text(encoding="utf-8")
    assert committed == PAGE, f"dpnb/docs/keys.md is out of date: run `{reference.COMMAND}` and commit the page"


def test_the_page_is_written_by_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reference, "PAGE", tmp_path / "docs" / "keys.md")
    reference.main()
    assert (tmp_path / "docs" / "keys.md").read_text(encoding="utf-8") == PAGE
    assert capsys.readouterr().out == f"wrote {tmp_path / 'docs' / 'keys.md'}\n"


@pytest.mark.parametrize("cls", sorted({*everything(Training), *everything(Dataset)}, key=lambda cls: cls.__name__))
def test_every_key_has_a_row_with_all_that_the_schema_says_of_it(cls: type[Section]) -> None:
    for name, info in cls.model_fields.items():
        if sections_below(info.annotation) or isinstance(info.annotation, type(Literal["x"])):
            continue  # a table has a heading; `type` is the heading of its kind
        if cls.__name__ == "Directory" and name in Dataset.model_fields:
            continue  # a general key, which stands with those of the file
        found = [row for row in rows_of(name) if meaning_cell(cls, name) in row]
        assert any(type_cell(info) in row and default_cell(info) in row for row in found), (cls, name)


def test_a_table_for_each_table_and_a_heading_for_each_kind() -> None:
    for owner in (Training, Dataset):
        for name, info in owner.model_fields.items():
            if sections_below(info.annotation):
                assert f"\n### `[{name}]`" in PAGE or f"\n### `[[{name}]]`" in PAGE
    for family, facts in FACTS.items():
        assert f'\n#### `type = "{family}"`\n' in PAGE
        (row,) = [row for row in ROWS if f" {facts.title} |" in row]
        assert f"`{family}`" in row
        assert f" {facts.multiple_px} px |" in row
    for optimizer in OPTIMIZERS:
        assert arm_of(optimizer) == "other" or f'\n#### `type = "{arm_of(optimizer)}"`\n' in PAGE
    for name in pytorch_optimizers.names():
        assert len(rows_of(name)) == 1


def test_shared_keys_stand_once() -> None:
    assert len(rows_of("timestep_sample_method")) == 1
    assert len(rows_of("diffusion_model_dtype")) == 1
    (row,) = [row for row in rows_of("dtype") if row.endswith("| all |") and "computation" in row]
    assert "frozen weights" in row
    (row,) = rows_of("shift")
    assert row.endswith("| all but sdxl, sd15, ltx-video, cosmos |")


def test_facts_of_a_family() -> None:
    (wan,) = [row for row in ROWS if " Wan |" in row]
    assert "| 16 px | 1 or 4n + 1 | 16 |" in wan
    (minimax,) = [row for row in ROWS if " MiniMax H3 |" in row]
    assert "| 1 or 17n | 24 |" in minimax
    assert "up to 48" in minimax
    (sdxl,) = [row for row in ROWS if " Stable Diffusion XL |" in row]
    assert sdxl.endswith("| while training |")


def test_every_name_of_another_trainer_is_there() -> None:
    for name in (*transformer_lab.PARAMETERS, *eri.PARAMETERS):
        assert rows_of(name), name
    for trainer in (foreign.KOHYA, foreign.MUSUBI, foreign.AI_TOOLKIT, foreign.ONETRAINER, foreign.DIFFUSERS):
        for name in (*foreign.rows(trainer, "training"), *foreign.rows(trainer, "dataset")):
            assert rows_of(name), name
    assert "| `network_dim` | `adapter.rank` |  |" in ROWS
    assert any(row.startswith("| `caption_ext") and "| none |" in row for row in ROWS)


def test_rows_have_as_many_cells_as_their_head() -> None:
    cells = 0
    for line in PAGE.splitlines():
        if not line.startswith("|"):
            cells = 0
            continue
        count = line.replace("\\|", "").count("|")
        assert cells in (0, count), line
        cells = count


# --- cells -----------------------------------------------------------------------------------------------------------


class Example(Section):
    """One of each."""

    whole: Annotated[int, Field(ge=1), Ui(unit="px")]
    """A | and a *."""
    share: Annotated[float | None, Field(ge=0, lt=1), Ui(ours=True, pending="ignored")] = None
    above: Annotated[float, Field(gt=0)] = 1e-8
    below: Annotated[float, Field(le=2)] = 1.0
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    words: Annotated[str, Ui(when=("choice", ("a", "b")))] = "x"
    choice: Literal["a", "b"] = "a"
    pair: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=2, max_length=2)] = [1, 2]
    mixed: bool | str | list[int] = False
    number: int | float = 1
    folder: Annotated[InputDir | None, Ui(when=("share", (None,)))] = None


@pytest.mark.parametrize(
    ("name", "kind", "default"),
    [
        ("whole", "whole number ≥ 1", "**required**"),
        ("share", "number 0 to below 1", "unset"),
        ("above", "number > 0", "`1e-08`"),
        ("below", "number ≤ 2", "`1.0`"),
        ("seed", "whole number 0 to 2^63 - 1", "`0`"),
        ("words", "text", '`"x"`'),
        ("choice", '`"a"`, `"b"`', '`"a"`'),
        ("pair", "[whole number ≥ 1, whole number ≥ 1]", "`[1, 2]`"),
        ("mixed", "true or false or text or list of whole number", "`false`"),
        ("number", "number", "`1`"),
        ("folder", "folder", "unset"),
    ],
)
def test_type_and_default_of_a_key(name: str, kind: str, default: str) -> None:
    info = Example.model_fields[name]
    assert (type_cell(info), default_cell(info)) == (kind, default)


def test_what_a_key_means() -> None:
    assert meaning_cell(Example, "whole") == r"A \| and a \*. Unit: px."
    assert meaning_cell(Example, "share") == "**ours** **not yet (ignored)**"
    assert meaning_cell(Example, "words") == 'Only with `choice` = `"a"` or `"b"`.'
    assert meaning_cell(Example, "folder") == "Only without `share`."
    assert escape("<name>/loss") == "&lt;name>/loss"
    assert ui_of(Example.model_fields["share"]).ours
