"""`dpnb repair` and `dpnb duplicates` from a shell; `dpnb sync` and `dpnb tag` are tried beside what they do."""

from __future__ import annotations

import json
import shutil

import pytest

from dpnb.cli import main
from tests.dpnb.messy import picture, snapshot, write_messy
from tests.dpnb.test_duplicates import scene


def test_repair(tmp_path, capsys):
    before = snapshot(write_messy(tmp_path))
    assert main(["repair", str(tmp_path), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"23 pictures, clips and captions in {tmp_path}; 14 findings\nwould be mended:\n  cut.jpg: ")
    assert "left to you:\n  blank.txt: empty caption" in out
    assert snapshot(tmp_path) == before
    assert main(["repair", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "\nmended:\n" in out
    place = tmp_path / ".dpnb-aside" / "0001-repair"
    assert out.endswith(f"moved aside: {place}; take it back with: dpnb repair {tmp_path} --undo\n")
    assert snapshot(tmp_path) != before
    assert main(["repair", str(tmp_path), "--undo"]) == 0
    assert capsys.readouterr().out == f"{place}: undone\n"
    assert snapshot(tmp_path) == before
    assert main(["repair", str(tmp_path), "--undo"]) == 1
    assert capsys.readouterr().err == f"{tmp_path} has no change to undo\n"


def test_repair_for_programs(tmp_path, capsys):
    picture(tmp_path / "A.JPG")
    assert main(["repair", str(tmp_path), "--json", "--dry-run"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["change"] is None
    assert told["findings"] == [
        {
            "path": "A.JPG",
            "kind": "name",
            "words": "A.JPG: upper-case suffix: renamed to A.jpg",
            "steps": [{"do": "move", "path": "A.JPG", "to": "A.jpg"}],
        }
    ]
    main(["repair", str(tmp_path), "--json"])
    assert json.loads(capsys.readouterr().out)["change"]["done"] == 1
    main(["repair", str(tmp_path), "--json", "--undo"])
    assert json.loads(capsys.readouterr().out)["change"]["refused"] == []


def test_many_findings_are_counted(tmp_path, capsys):
    for number in range(23):
        picture(tmp_path / f"{number}.JPG")
    main(["repair", str(tmp_path), "--dry-run"])
    assert "  and 3 more (--all names them)\n" in capsys.readouterr().out
    main(["repair", str(tmp_path), "--dry-run", "--all"])
    assert capsys.readouterr().out.count("upper-case suffix") == 23


def test_duplicates(tmp_path, capsys):
    scene(0).save(tmp_path / "a.png")
    shutil.copy(tmp_path / "a.png", tmp_path / "b.png")
    scene(0).resize((160, 120)).save(tmp_path / "c.webp")
    (tmp_path / "d.png").write_bytes(b"nothing")
    before = snapshot(tmp_path)
    assert main(["duplicates", str(tmp_path), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"4 pictures and clips in {tmp_path}; 2 copies would go aside (")
    assert "  a.png is kept; b.png (equal), c.webp (near)\n" in out
    assert "cannot be read, see dpnb repair:\n  d.png: " in out
    assert main(["duplicates", str(tmp_path), "--threshold", "-1", "--json", "--dry-run"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [[copy["path"] for copy in group] for group in told["groups"]] == [["a.png", "b.png"]]
    assert main(["duplicates", str(tmp_path)]) == 0
    assert set(snapshot(tmp_path)) == {"a.png", "d.png"}
    assert main(["repair", str(tmp_path), "--undo"]) == 1
    assert "was made by duplicates (0001-duplicates): undo that one first" in capsys.readouterr().err
    assert main(["duplicates", str(tmp_path), "--undo"]) == 0
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("command", ["repair", "duplicates"])
def test_a_folder_that_is_none(command, tmp_path, capsys):
    assert main([command, str(tmp_path / "no")]) == 1
    assert capsys.readouterr().err == f"{tmp_path / 'no'} is not a folder: name one that holds pictures\n"
