"""How fast the tools for folders are: 10,000 pictures searched for copies, 2,000 files looked at by repair.

    python tests/bench/bench_tools.py [pictures]

Beside them what cannot be avoided: decoding the same pictures with Pillow in the same number of threads.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from dpnb.dataset.crop import decode
from dpnb.dataset.scan import default_workers
from dpnb.tools.duplicates import find_duplicates
from dpnb.tools.perceptual import near_pairs
from dpnb.tools.repair import look

PICTURES = 10_000
REPAIRED = 2000
DISTINCT = 500  # drawn; the rest are these, compressed more or made smaller


def fill(folder: Path, pictures: int) -> None:
    """Photographs of 1 MP as JPEG: so many distinct ones, and near copies of them."""
    chance = np.random.default_rng(0)
    for number in range(min(DISTINCT, pictures)):
        cells = chance.integers(0, 255, (9, 12, 3), dtype=np.uint8)
        image = Image.fromarray(cells).resize((1184, 888), Image.Resampling.BICUBIC)
        image.save(folder / f"{number:05}_0.jpg", quality=88)
        image.save(folder / f"{number:05}_1.jpg", quality=60)
    made = sorted(folder.iterdir())
    for number in range(len(made), pictures):
        source = made[number % len(made)]
        # The same pixels with another comment: equal to the eye, and not byte for byte.
        content = source.read_bytes()
        comment = f"{number}".encode()
        mark = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
        (folder / f"again_{number:05}.jpg").write_bytes(content[:2] + mark + content[2:])


def seconds(act: Callable[[], object]) -> float:
    """How long something takes, once: the folders are too large to repeat it."""
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


def decode_small(paths: list[Path]) -> None:
    """What a search for copies cannot do without: each picture at an eighth of its size."""
    with ThreadPoolExecutor(default_workers()) as pool:
        list(pool.map(lambda path: decode(path.read_bytes(), draft_px=128), paths))


def decode_whole(paths: list[Path]) -> None:
    """What a repair cannot do without."""
    with ThreadPoolExecutor(default_workers()) as pool:
        list(pool.map(lambda path: decode(path.read_bytes()), paths))


def main() -> None:
    """Print the figures."""
    pictures = int(sys.argv[1]) if len(sys.argv) > 1 else PICTURES
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fill(folder, pictures)
        paths = sorted(folder.iterdir())
        print(f"{len(paths):,} JPEG files of 1 MP, {default_workers()} threads, load {os.getloadavg()[0]:.1f}")
        small = seconds(lambda: decode_small(paths))
        found = []
        searched = seconds(lambda: found.append(find_duplicates(folder)))
        print(f"duplicates: {searched:.1f} s, {len(found[0].groups):,} groups, {found[0].extra:,} copies", end="")
        print(f"; decoding alone {small:.1f} s: {searched / small:.2f} times")
        few = folder / "few"
        few.mkdir()
        for path in paths[:REPAIRED]:
            path.rename(few / path.name)
        whole = seconds(lambda: decode_whole(sorted(few.iterdir())))
        repaired = seconds(lambda: look(few))
        print(f"repair of {min(REPAIRED, len(paths)):,}: {repaired:.1f} s; decoding alone {whole:.1f} s", end="")
        print(f": {repaired / whole:.2f} times")
    for count in (10_000, 100_000):
        chance = np.random.default_rng(0)
        hashes = chance.integers(0, 2**64, (count, 2), dtype=np.uint64)
        colours = chance.integers(0, 255, (count, 8, 8, 3), dtype=np.uint8)
        compared = seconds(lambda h=hashes, c=colours: list(near_pairs(h, c, 8)))
        print(f"comparing {count:,} hashes with each other: {compared:.2f} s")


if __name__ == "__main__":
    main()
