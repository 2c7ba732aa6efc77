"""The store of headers: what it saves, what it notices, and that nothing on the disk can stop a scan."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from dpnb.dataset import headers
from dpnb.dataset import scan as scan_module
from dpnb.dataset import store as store_module
from dpnb.dataset.headers import Header, Signature
from dpnb.dataset.scan import Scan, scan_folder
from dpnb.dataset.store import HeaderStore
from dpnb.schema.dataset import DirectorySettings
from tests.dpnb.filmed import film


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, in which files count as settled at once."""
    monkeypatch.setenv("DPNB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(store_module, "_SETTLED_NS", -(10**9))
    (tmp_path / "pictures").mkdir()
    return tmp_path


def pictures(home: Path, count: int = 5) -> Path:
    folder = home / "pictures"
    for number in range(count):
        Image.new("RGB", (20 + number, 10)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text("a thing")
    return folder


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files whose headers are read."""
    seen: list[str] = []

    def listen(path: Path) -> Header:
        seen.append(path.name)
        return headers.read_header(path)

    monkeypatch.setattr(scan_module, "read_header", listen)
    return seen


def scanned(folder: Path) -> Scan:
    return scan_folder(folder, DirectorySettings())


def test_a_second_scan_reads_nothing_and_says_the_same(home: Path, read: list[str]) -> None:
    folder = pictures(home)
    film(folder / "v.mp4")
    (folder / "v.txt").write_text("a clip")
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue")]
    frames[0].save(folder / "x.gif", save_all=True, append_images=frames[1:])
    (folder / "broken.jpg").write_bytes(b"no picture")
    first = scanned(folder)
    assert sorted(read) == ["0.png", "1.png", "2.png", "3.png", "4.png", "broken.jpg", "v.mp4", "x.gif"]
    read.clear()
    assert scanned(folder) == first
    assert read == ["broken.jpg"], "what could not be read is tried again"
    assert (home / "cache" / "headers.sqlite").is_file()
    assert sorted(path.name for path in home.iterdir()) == ["cache", "pictures"], "nothing beside the pictures"


def test_exactly_what_has_changed_is_read_again(home: Path, read: list[str]) -> None:
    folder = pictures(home)
    scanned(folder)
    read.clear()
    Image.new("RGB", (99, 9)).save(folder / "2.png")
    (folder / "3.png").unlink()
    Image.new("RGB", (7, 7)).save(folder / "new.png")
    os.utime(folder / "4.png", ns=(1, 1))
    widths = {row.path.name: row.width_px for row in scanned(folder).rows}
    assert widths == {"0.png": 20, "1.png": 21, "2.png": 99, "4.png": 24, "new.png": 7}
    assert sorted(read) == ["2.png", "4.png", "new.png"]
    assert sorted(HeaderStore().known(folder).names()) == ["0.png", "1.png", "2.png", "4.png", "new.png"]


def test_a_file_of_the_same_length_and_time_is_known_by_its_entry(home: Path, read: list[str]) -> None:
    """Copying with times kept, as rsync and cp -p do, still changes when the entry was written."""
    folder = pictures(home)
    before = (folder / "0.png").stat()
    scanned(folder)
    Image.new("RGB", (10, 20)).save(folder / "0.png")
    data = (folder / "0.png").read_bytes()
    (folder / "0.png").write_bytes(data + bytes(max(0, before.st_size - len(data))))
    os.utime(folder / "0.png", ns=(before.st_atime_ns, before.st_mtime_ns))
    read.clear()
    assert (scanned(folder).rows[0].width_px, read) == (10, ["0.png"])


def test_captions_are_never_remembered(home: Path) -> None:
    folder = pictures(home)
    scanned(folder)
    (folder / "0.txt").write_text("another")
    assert scanned(folder).rows[0].captions == ("another",)


def test_a_file_of_this_moment_is_not_trusted(home: Path, monkeypatch: pytest.MonkeyPatch, read: list[str]) -> None:
    monkeypatch.setattr(store_module, "_SETTLED_NS", 2 * 10**9)
    folder = pictures(home, 1)
    for _ in range(2):
        scanned(folder)
    assert read == ["0.png", "0.png"]


@pytest.mark.parametrize("damage", ["noise", "cut", "another", "old"])
def test_a_broken_store_is_begun_anew(home: Path, damage: str, read: list[str]) -> None:
    folder = pictures(home, 400)
    first = scanned(folder)
    path = home / "cache" / "headers.sqlite"
    if damage == "noise":
        path.write_bytes(b"no database at all" * 1000)
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 + 100])
    elif damage == "another":
        with sqlite3.connect(path) as database:
            database.execute("drop table headers")
    else:
        with sqlite3.connect(path) as database:
            database.execute("pragma user_version = 0")
    read.clear()
    assert scanned(folder) == first
    assert len(read) == 400
    read.clear()
    assert (scanned(folder), read) == (first, [])


def test_where_nothing_can_be_written_a_scan_does_without(
    home: Path, monkeypatch: pytest.MonkeyPatch, read: list[str]
) -> None:
    folder = pictures(home, 2)
    (home / "file").touch()
    monkeypatch.setenv("DPNB_CACHE_DIR", str(home / "file" / "below"))
    assert [row.width_px for _ in range(2) for row in scanned(folder).rows] == [20, 21, 20, 21]
    assert len(read) == 4

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(store_module, "default_root", homeless)
    assert [row.width_px for row in scanned(folder).rows] == [20, 21]


def test_a_store_that_another_process_holds_is_done_without(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = pictures(home)
    first = scanned(folder)
    monkeypatch.setattr(store_module, "_WAIT_SECONDS", 0.05)
    holder = sqlite3.connect(home / "cache" / "headers.sqlite", isolation_level=None)
    holder.execute("begin exclusive")
    with caplog.at_level("INFO"):
        assert scanned(folder) == first
    assert "cannot be used (database is locked): files are read without it" in caplog.text
    holder.close()


_WRITER = """
import sys, time
from pathlib import Path
from dpnb.dataset.store import HeaderStore
from dpnb.dataset.headers import Header, Signature
number, rounds = int(sys.argv[1]), int(sys.argv[2])
store = HeaderStore()
print("ready", flush=True)
for turn in range(rounds):
    found = {f"{number}-{turn}-{i}": (Signature(1, 2, 3), Header(number, turn)) for i in range(50)}
    store.remember(Path("/shared"), found)
"""


def writer(number: int, rounds: int) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", _WRITER, str(number), str(rounds)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


def test_digests_are_remembered_by_signature(home: Path) -> None:
    store = HeaderStore()
    old, digest = Signature(5, 1, 1), "ab" * 32
    paths = [Path(f"/nowhere/{i}.png") for i in range(1200)]
    store.remember_digests(dict.fromkeys(paths, (old, digest)))
    store.remember_digests({Path("/nowhere/new.png"): (Signature(5, time.time_ns() + 10**12, 1), digest)})
    store.close()
    found = HeaderStore().known_digests([*paths, Path("/nowhere/new.png"), Path("/nowhere/never.png")])
    assert found == dict.fromkeys(paths, (old, digest)), "a file that has just changed may change again"


def test_several_processes_share_it(home: Path) -> None:
    processes = [writer(number, 20) for number in range(4)]
    assert [process.wait(60) for process in processes] == [0] * 4
    known = HeaderStore().known(Path("/shared"))
    assert len(known.names()) == 4 * 20 * 50
    assert known.header("3-19-49", Signature(1, 2, 3)) == Header(3, 19)
    assert known.header("3-19-49", Signature(1, 2, 4)) is None


def test_it_survives_a_killed_process(home: Path) -> None:
    for turn in range(5):
        process = writer(turn, 100_000)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.05 + 0.02 * turn)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    known = HeaderStore().known(Path("/shared"))
    turns: dict[str, int] = {}
    for name in known.names():
        turns[name.rsplit("-", 1)[0]] = turns.get(name.rsplit("-", 1)[0], 0) + 1
    assert turns, "something was written"
    assert set(turns.values()) == {50}, "each piece whole or not at all"
    path = home / "cache" / "headers.sqlite"
    assert sqlite3.connect(path).execute("pragma integrity_check").fetchone() == ("ok",)


def test_a_scan_that_is_called_off_keeps_what_it_has_read(home: Path, read: list[str]) -> None:
    from dpnb.dataset.scan import Cancelled, read_folders
    from dpnb.schema.dataset import Dataset, Directory

    folder = pictures(home, 200)
    config = Dataset(resolutions=[64], directory=[Directory(path=str(folder))])
    asked = iter([False, False, True])
    with pytest.raises(Cancelled):
        read_folders(config, cancelled=lambda: next(asked))
    assert len(HeaderStore().known(folder).names()) == len(read) == 128
