"""The cache as files: its size, what may go, and the command that says and does it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from dpnb.cli import main
from dpnb.cli_cache import size_words
from dpnb.dataset.cache_folder import DAY_SECONDS, Share, default_root, mark_used, prune, usage
from dpnb.errors import RunError


def shard(root: Path, kind: str, number: int, *, size: int = 300, entries: int = 1, days: float = 0.0) -> Path:
    """A shard of so many entries that is `size` bytes long."""
    told = {f"{i:064x}/a": {"dtype": "U8", "shape": [1], "data_offsets": [i, i + 1]} for i in range(entries)}
    header = json.dumps(told).encode()
    header += b" " * (size - entries - len(header) - 8)
    path = aged(root / kind / f"{number:032x}.safetensors", 0, days)
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"x" * entries)
    assert path.stat().st_size == size
    os.utime(path, (time.time() - days * DAY_SECONDS,) * 2)
    return path


def aged(path: Path, size: int, days: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    os.utime(path, (time.time() - days * DAY_SECONDS,) * 2)
    return path


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "cache"
    shard(root, "latents", 1, size=2048, entries=7, days=40)
    shard(root, "latents", 2, size=1024, entries=3)
    shard(root, "text", 3, days=10)
    shard(root, "masks", 4, days=40)
    aged(root / "tmp" / "abc.1", 7, 40)
    aged(root / "latents" / "somebody.png", 5, 400)
    aged(root / "notes.txt", 5, 400)
    return root


def test_usage(root, tmp_path):
    kinds = {"latents": Share(10, 3072), "masks": Share(1, 300), "text": Share(1, 300), "tried": Share()}
    assert usage(root) == kinds | {"old": Share(), "tmp": Share(1, 7)}
    assert usage(tmp_path / "nothing")["latents"] == Share()
    (root / "latents" / f"{1:032x}.safetensors").write_bytes(b"torn")
    assert usage(root)["latents"] == Share(3, 1028)


def test_what_no_run_has_asked_for_is_removed_and_nothing_else(root):
    assert prune(root, unused_days=30, remove=False) == Share(9, 2355)
    assert usage(root)["latents"].entries == 10
    assert prune(root, unused_days=30) == Share(9, 2355)
    kinds = {"latents": Share(3, 1024), "masks": Share(), "text": Share(1, 300), "tried": Share()}
    assert usage(root) == kinds | {"old": Share(), "tmp": Share()}
    assert prune(root, unused_days=0) == Share(4, 1324)
    assert sorted(path.name for path in root.rglob("*") if path.is_file()) == ["notes.txt", "somebody.png"]


def test_entries_of_the_earlier_layout_are_shown_and_pruned(root, capsys):
    old = [aged(root / "latents" / "ab" / f"ab{'0' * 62}.safetensors", 100, 40)]
    old += [aged(root / "text" / "01" / f"01{number:062x}.safetensors", 50, 3) for number in range(2)]
    aged(root / "latents" / "ab" / "own.safetensors", 9, 40)
    aged(root / "latents" / "mine" / f"{'0' * 64}.safetensors", 9, 40)
    assert usage(root)["old"] == Share(3, 200)
    assert main(["cache", str(root)]) == 0
    assert "\n  old layout  3 entries, 200 bytes\n" in capsys.readouterr().out
    assert prune(root, unused_days=30) == Share(10, 2455)
    assert [path.exists() for path in old] == [False, True, True]
    assert prune(root, unused_days=2).entries == 1 + 2
    assert sum(path.is_file() for path in (root / "latents").rglob("*.safetensors")) == 2 + 1


def test_what_is_asked_for_stays(root):
    path = root / "text" / f"{3:032x}.safetensors"
    mark_used(path)
    assert prune(root, unused_days=5).entries == 9
    assert path.exists()
    before = path.stat().st_mtime_ns
    mark_used(path)
    assert path.stat().st_mtime_ns == before, "once a day is enough"
    mark_used(root / "gone")


def test_an_entry_that_cannot_be_removed(root, monkeypatch):
    def refuse(path, missing_ok=False):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(RunError) as error:
        prune(root, unused_days=30)
    first = root / "latents" / f"{1:032x}.safetensors"
    assert str(error.value) == (
        f"{first} cannot be removed: Permission denied. 0 entries are removed so far; run it as the user who owns the "
        "folder."
    )


def test_a_folder_that_cannot_be_listed(root, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(RunError, match=rf"^the cache folder '{root}' cannot be read: Permission denied\.$"):
        usage(root)


def test_the_command(root, capsys, monkeypatch):
    monkeypatch.setenv("DPNB_CACHE_DIR", str(root))
    assert default_root() == root
    assert main(["cache"]) == 0
    assert capsys.readouterr().out == (
        f"{root}\n  pictures    10 entries, 3.0 KiB\n  masks       1 entry, 300 bytes\n"
        "  captions    1 entry, 300 bytes\n  unfinished  1 entry, 7 bytes\n"
    )
    assert main(["cache", str(root), "--prune", "30", "--dry-run"]) == 0
    assert capsys.readouterr().out.endswith("would be removed: 9 entries, 2.3 KiB\n")
    assert main(["cache", str(root), "--prune", "30", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["folder"] == str(root)
    assert told["kinds"]["removed"] == {"entries": 9, "bytes": 2355}
    assert told["kinds"]["latents"] == {"entries": 3, "bytes": 1024}
    assert main(["cache", "--prune", "30"]) == 0
    assert capsys.readouterr().out.endswith("captions    1 entry, 300 bytes\nremoved: 0 entries, 0 bytes\n")


def test_a_wrong_age(capsys):
    with pytest.raises(SystemExit):
        main(["cache", "--prune", "-1"])
    assert "-1 is not 0 or more" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("size", "words"), [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (3 * 2**40, "3.0 TiB")]
)
def test_sizes_in_words(size, words):
    assert size_words(size) == words
