"""Captions from one table: what it may look like, whom it captions, and what is said of one that is wrong."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from dpnb.dataset.complete import complete, complete_scan
from dpnb.dataset.metadata import read_table, without_captions
from dpnb.dataset.scan import read_folders
from dpnb.errors import DatasetError
from dpnb.schema.dataset import Dataset, Directory


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_csv(tmp_path):
    text = '\ufeffid,file,words\n1,a.png,"one, ""two"""\n2,./sub\\b.png,"two\nlines"\n\n3,a.png, again \n'
    table = write(tmp_path / "m.CSV", text)
    assert read_table(table, "file", "words") == {"a.png": ['one, "two"', "again"], "sub/b.png": ["two\nlines"]}
    tabs = write(tmp_path / "m.tsv", "image\ttext\na.png\tone, two\n")
    assert read_table(tabs, "image", "text") == {"a.png": ["one, two"]}


def test_json_lines(tmp_path):
    lines = [{"image": "a.png", "text": ["one", "two"]}, {"image": "b.png", "text": None, "more": 3}]
    table = write(tmp_path / "m.jsonl", "\n\n".join(json.dumps(line) for line in lines) + "\n")
    assert read_table(table, "image", "text") == {"a.png": ["one", "two"], "b.png": [""]}
    assert read_table(write(tmp_path / "n.jsonl", '{"image": "a", "text": "x\\ud800"}'), "image", "text") == {
        "a": ["x?"]
    }


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("m.csv", "image,text\na.png\n", "m.csv:2 has 1 values for 2 columns: put a text that holds a comma or a"),
        ("m.csv", 'image,text\na.png,"x" y\n', "m.csv:2 is not CSV: "),
        (
            "m.csv",
            "image,caption\na.png,x\n",
            "m.csv:2 has no column 'text'; its columns are image, caption. Set caption_column to one of them",
        ),
        (
            "m.csv",
            "file,text\na.png,x\n",
            "m.csv:2 has no column 'image'; its columns are file, text. Set image_column",
        ),
        (
            "m.csv",
            "image,text\n,x\n",
            "m.csv:2: the column 'image' is \"\"; expected the name of a picture. Correct it, "
            "or set image_column to another column",
        ),
        ("m.jsonl", '{"image": "a.png", "text": "x"}\n{"a": }\n', "m.jsonl:2:7 is not JSON: Expecting value"),
        (
            "m.jsonl",
            '["a.png"]\n',
            'm.jsonl:1 is ["a.png"]; expected an object such as {"image": "a.png", "text": "a caption"}',
        ),
        (
            "m.jsonl",
            '{"image": "a", "text": 3}\n',
            "m.jsonl:1: the column 'text' is 3; expected a text, or a list of "
            "texts. Correct it, or set caption_column to another column",
        ),
        ("m.jsonl", '{"image": {"bytes": "x"}, "text": ""}\n', 'the column \'image\' is {"bytes": "x"}; expected'),
        ("m.txt", "", "m.txt is no table that is known here; expected one of .csv, .tsv, .jsonl, .ndjson, .parquet"),
    ],
)
def test_wrong_tables(tmp_path, name, text, message):
    with pytest.raises(DatasetError) as error:
        read_table(write(tmp_path / name, text), "image", "text")
    assert message in str(error.value)


def test_a_table_that_is_not_there(tmp_path):
    with pytest.raises(DatasetError, match=r"m\.csv cannot be read: No such file or directory$"):
        read_table(tmp_path / "m.csv", "image", "text")


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DatasetError, match=r"is Parquet, which pyarrow reads, and that is not installed: run `pip"):
        read_table(tmp_path / "m.parquet", "image", "text")


def test_parquet(tmp_path):
    parquet.write_table(pyarrow.table({"image": ["a.png", "b.png"], "text": ["one", None]}), tmp_path / "m.parquet")
    assert read_table(tmp_path / "m.parquet", "image", "text") == {"a.png": ["one"], "b.png": [""]}
    (tmp_path / "bad.parquet").write_text("no")
    with pytest.raises(DatasetError, match=r"bad\.parquet cannot be read as Parquet: "):
        read_table(tmp_path / "bad.parquet", "image", "text")


def test_parquet_rows_go_the_same_way_as_lines(tmp_path):
    parquet.write_table(pyarrow.table({"image": ["a.png", "b.png"], "text": [1, 3]}), tmp_path / "m.parquet")
    with pytest.raises(DatasetError, match=r"m\.parquet: row 1: the column 'text' is 1; expected a text"):
        read_table(tmp_path / "m.parquet", "image", "text")


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in "abcd":
        Image.new("RGB", (64, 48)).save(folder / f"{name}.png")
    (folder / "a.txt").write_text("ignored")
    table = 'image,text\na.png,[trigger] sits\nb.png,\nd.png,"x, y"\nd.png,second\ngone.png,x\n'
    write(folder / "metadata.csv", table)
    return folder


def of(folder: Path, **keys) -> Dataset:
    general = {"resolutions": [32], "metadata_file": str(folder / "metadata.csv")} | keys
    return Dataset(directory=[Directory(path=str(folder))], **general)


def test_a_folder_with_a_table(folder):
    found = complete_scan(of(folder, trigger_word="ohwx", caption_prefix="art. "))
    rows = {row.path.name: row for row in found.rows}
    assert sorted(rows) == ["a.png", "b.png", "c.png", "d.png"], "the table is no picture"
    assert rows["a.png"].captions == ("art. ohwx sits",)
    assert rows["d.png"].captions == ("art. ohwx, x, y", "art. ohwx, second")
    assert rows["b.png"].reason == (
        "its caption in metadata.csv is empty: write one, or set skip_empty_caption = false to train it without"
    )
    assert rows["c.png"].reason.startswith("is not named in metadata.csv: write one, or set skip_empty_caption")
    assert (rows["b.png"].cause, rows["c.png"].cause) == ("empty_caption", "no_caption")
    assert [rows[f"{n}.png"].caption_state for n in "abcd"] == ["written", "empty", "missing", "written"]
    assert f"{folder / 'metadata.csv'}: names pictures that are not there: gone.png" in found.notes
    without = complete_scan(of(folder, skip_empty_caption=False))
    assert [row.captions for row in without.rows if row.path.stem in "bc"] == [("",), ("",)]


def test_a_folder_of_which_the_table_names_nothing(folder):
    write(folder / "metadata.csv", "image,text\nx.png,x\n")
    with pytest.raises(DatasetError) as error:
        complete_scan(of(folder))
    assert str(error.value).startswith(
        f"directory[0]: nothing in '{folder}' can be trained on; left out:\n  a.png: is not named in metadata.csv: "
    )
    for name in "efg":
        Image.new("RGB", (64, 48)).save(folder / f"{name}.png")
    with pytest.raises(DatasetError, match=r"\n  and \d+ more$"):
        complete_scan(of(folder))


def test_many_entries_without_a_picture_are_counted(folder):
    table = "image,text\na.png,x\n" + "".join(f"gone{i}.png,x\n" for i in range(7))
    write(folder / "metadata.csv", table)
    assert complete_scan(of(folder)).notes[-1].endswith("gone3.png, gone4.png and 2 more")


def test_broken_pictures_stay_broken_and_other_folders_keep_their_texts(folder, tmp_path):
    (folder / "a.png").write_bytes(b"")
    other = tmp_path / "other"
    other.mkdir()
    Image.new("RGB", (64, 48)).save(other / "o.png")
    (other / "o.txt").write_text("text")
    own = Directory(path=str(folder), metadata_file=str(folder / "metadata.csv"))
    found = complete_scan(Dataset(resolutions=[32], directory=[own, Directory(path=str(other))]))
    rows = {row.path.name: row for row in found.rows}
    assert rows["a.png"].reason == "empty: the file has 0 bytes"
    assert rows["o.png"].captions == ("text",)


def test_one_table_for_several_folders(folder, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    Image.new("RGB", (64, 48)).save(other / "gone.png")
    directories = [Directory(path=str(folder)), Directory(path=str(other))]
    found = complete_scan(Dataset(resolutions=[32], metadata_file=str(folder / "metadata.csv"), directory=directories))
    assert {row.path.name: row.captions for row in found.rows}["gone.png"] == ("x",)
    assert not any("not there" in note for note in found.notes)


def test_for_a_dry_run_everything_is_told_and_nothing_raised(folder, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    own = Directory(path=str(folder), metadata_file=str(tmp_path / "gone.csv"), mask_path=str(tmp_path / "gone"))
    dataset = Dataset(resolutions=[32], directory=[own, Directory(path=str(empty))])
    found = complete(read_folders(without_captions(dataset)), dataset)
    assert [error.partition(":")[0] for error in found.errors] == [
        "directory[1]",
        f"{tmp_path / 'gone.csv'} cannot be read",
        f"the folder '{tmp_path / 'gone'}' cannot be read",
    ]
    assert {row.path.name for row in found.rows} >= {"a.png", "d.png"}
