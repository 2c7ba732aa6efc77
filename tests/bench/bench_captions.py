"""Captions of 5,000 pictures: read, looked through, changed all at once and taken back, as .txt and in one file."""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from timing import show

from dpnb.dataset.caption_edits import adding, replacing, setting
from dpnb.dataset.caption_store import CaptionStore

COUNT = 5000


def write_folder(folder: Path, *, listed: bool) -> None:
    """Pictures without content, each with fifteen tags of five hundred."""
    draw = random.Random(0)
    captions = {f"{i:05d}.jpg": ", ".join(draw.sample([f"tag {tag}" for tag in range(500)], 15)) for i in range(COUNT)}
    for name, caption in captions.items():
        (folder / name).touch()
        if not listed:
            (folder / name).with_suffix(".txt").write_text(caption)
    if listed:
        lists = {name: [caption] for name, caption in captions.items()}
        (folder / "captions.json").write_text(json.dumps(lists, indent=2))


def measured(folder: str) -> dict[str, float]:
    """Seconds of each kind of work, once: what is written a second time is another work."""
    rows: dict[str, float] = {}

    def timed(what: str, work: Callable[[], object]) -> None:
        start = time.perf_counter()
        work()
        rows[what] = time.perf_counter() - start

    timed("read the folder", lambda: CaptionStore(folder))
    store = CaptionStore(folder)
    timed("count the tags", store.tag_counts)
    timed("filter by text", lambda: store.select(text="tag 33"))
    timed("filter by tag", lambda: store.select(tag="tag 33"))
    timed("preview find and replace", lambda: store.changes(replacing("tag 1", "TAG 1"), store.names))
    timed("edit one", lambda: store.apply("edit", store.changes(setting(0, "hello"), store.names[:1])))
    changes = store.changes(replacing("tag 1", "TAG 1"), store.names)
    timed(f"replace in {len(changes)}", lambda: store.apply("replace", changes))
    timed("undo that", store.undo)
    timed("add a tag to all", lambda: store.apply("add", store.changes(adding("new", ","), store.names)))
    return rows


def main() -> None:
    for listed in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            write_folder(Path(folder), listed=listed)
            show(f"{COUNT} captions in {'captions.json' if listed else '.txt files'}", measured(folder))


if __name__ == "__main__":
    main()
