"""The scan of 100,000 pictures with captions: with nothing remembered, again, and with one of them changed; beside it
what `datasets` takes, where it is installed.

"Cold" means an empty store; the files themselves are in the page cache, since they have just been written.
"""

from __future__ import annotations

import io
import os
import random
import sys
import tempfile
import time
from pathlib import Path

from timing import show

PICTURES = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
IN_A_FOLDER = 10_000
SIDES_PX = range(64, 257, 16)
SETTLE_SECONDS = 2.5  # files that are younger are not remembered
LIMITS = {"cold": 60.0, "warm": 5.0}


def write(folder: Path) -> None:
    """JPEG, PNG and WebP files of many sizes, all of one colour: their headers are what counts."""
    from PIL import Image

    rng = random.Random(0)
    made: dict[tuple[str, int, int], bytes] = {}
    for number in range(PICTURES):
        kind = (rng.choice(("JPEG", "PNG", "WEBP")), rng.choice(SIDES_PX), rng.choice(SIDES_PX))
        if kind not in made:
            target = io.BytesIO()
            Image.new("RGB", kind[1:], (90, 120, 30)).save(target, kind[0])
            made[kind] = target.getvalue()
        below = folder / f"{number // IN_A_FOLDER:02}"
        if number % IN_A_FOLDER == 0:
            below.mkdir()
        (below / f"{number:06}.{kind[0].lower()}").write_bytes(made[kind])
        (below / f"{number:06}.txt").write_text(f"a picture, number {number}")


def seconds(folder: Path) -> float:
    """One scan of everything."""
    from dpnb.dataset.scan import scan
    from dpnb.schema import Dataset, Directory

    start = time.perf_counter()
    rows = scan(Dataset(resolutions=[512], recursive=True, directory=[Directory(path=str(folder))]), workers=2).rows
    taken = time.perf_counter() - start
    assert sum(row.used for row in rows) == PICTURES
    return taken


def with_datasets(folder: Path, cache: Path) -> float | None:
    """Hugging Face `datasets`: sizes and captions of the same files; None where it is not installed."""
    try:
        from datasets import load_dataset
    except ImportError:
        return None
    start = time.perf_counter()
    found = load_dataset("imagefolder", data_dir=str(folder), split="train", cache_dir=str(cache))
    sizes = [(row["image"].size) for row in found]
    assert len(sizes) == PICTURES
    return time.perf_counter() - start


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        os.environ["DPNB_CACHE_DIR"] = f"{name}/cache"
        folder = Path(name) / "pictures"
        folder.mkdir()
        write(folder)
        time.sleep(SETTLE_SECONDS)
        figures = {"cold: nothing remembered": seconds(folder), "warm: everything remembered": seconds(folder)}
        one = next((folder / "00").glob("*.png"))
        one.write_bytes(one.read_bytes())
        figures["warm, one picture changed"] = seconds(folder)
        other = with_datasets(folder, Path(name) / "datasets")
        if other is not None:
            figures["datasets: load and size of each, cold"] = other
        show(f"scan of {PICTURES:,} pictures with captions, 2 threads", figures, unit="s ", scale=1.0)
        size = (Path(name) / "cache" / "headers.sqlite").stat().st_size
        print(f"  the store takes {size / PICTURES:.0f} bytes a picture")
        for (what, limit), taken in zip(LIMITS.items(), figures.values(), strict=False):
            print(f"  {what}: {taken:.1f} s of {limit:.0f} s {'' if taken < limit else 'TOO SLOW'}")


if __name__ == "__main__":
    main()
