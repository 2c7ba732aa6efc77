"""The cache and the loader: how fast entries are written and read, beside one file for each entry, the disk and the
memory; what a batch costs; what decoding does where nothing is cached; and how much memory a training set takes.

    python tests/bench/bench_cache.py [ENTRIES]

An entry is 16 channels of 64 x 64 in bfloat16, the latents of a picture of 512 px: 131 kB.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

from timing import median_seconds, show

ENTRIES = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
SHAPE = (16, 64, 64)
ENTRY_BYTES = 2 * 16 * 64 * 64
BATCH = 8
STEP_SECONDS = 0.02


def key(kind: str, number: int) -> Any:
    """The entry of that number."""
    from trainer.data.cache_keys import Key

    return Key(kind, f"{number:064x}")


def files_beside(root: Path, count: int) -> dict[str, float]:
    """One safetensors file for each entry, as the cache once was: seconds for an entry."""
    import torch
    from safetensors.torch import safe_open, save

    tensor = torch.randn(SHAPE).to(torch.bfloat16)
    root.mkdir()
    start = time.perf_counter()
    for number in range(count):
        with (root / "tmp").open("wb") as file:
            file.write(save({"latents": tensor}))
            file.flush()
            os.fsync(file.fileno())
        (root / "tmp").replace(root / f"{number}.safetensors")
    written = (time.perf_counter() - start) / count

    def read() -> None:
        for number in range(count):
            with safe_open(root / f"{number}.safetensors", framework="pt") as file:
                file.get_tensor("latents").sum()

    return {"written": written, "read": median_seconds(read, repeats=3) / count}


def fill(root: Path, count: int) -> float:
    """Seconds for an entry."""
    import torch

    from trainer.data.cache import Cache

    cache, tensor = Cache(root), torch.randn(SHAPE).to(torch.bfloat16)
    start = time.perf_counter()
    for number in range(count):
        cache.put(key("latents", number), {"latents": tensor})
    cache.flush()
    return (time.perf_counter() - start) / count


def drop_from_memory(root: Path) -> None:
    """Take files out of the page cache."""
    for path in root.rglob("*.safetensors"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def reading(root: Path, count: int) -> None:
    """Cold: the disk's own speed against reading every entry in order. Warm: memory against the same at random.

    Memory is read twice over: as torch keeps it, in large pages, and as the system keeps a file, in small ones.
    """
    import random

    import torch

    from trainer.data.cache import Cache

    torch.set_num_threads(1)

    def sequential() -> float:
        drop_from_memory(root)
        start = time.perf_counter()
        for path in sorted(root.rglob("*.safetensors")):
            with path.open("rb", buffering=0) as file:
                while file.read(8 << 20):
                    pass
        return time.perf_counter() - start

    def entries(numbers: list[int], target: torch.Tensor, cache: Cache) -> float:
        cache.has(key("latents", 0))
        keys = [key("latents", number) for number in numbers]
        start = time.perf_counter()
        for position, wanted in enumerate(keys):
            target[position % len(target)].copy_(cache.get(wanted)["latents"])
        return time.perf_counter() - start

    numbers, target = list(range(count)), torch.empty((BATCH, *SHAPE), dtype=torch.bfloat16)
    whole = count * ENTRY_BYTES / 1e9
    cold_disk = sorted(sequential() for _ in range(3))[1]
    colds = []
    for _ in range(3):
        drop_from_memory(root)
        colds.append(entries(numbers, target, Cache(root)))
    show(
        f"cold: {whole:.1f} GB in order (GB/s)",
        {"the disk, by read()": whole / cold_disk, "Cache.get and a copy": whole / sorted(colds)[1]},
        unit="GB/s",
        scale=1.0,
    )
    random.Random(0).shuffle(numbers)
    source = torch.randn(count, *SHAPE).to(torch.bfloat16) if whole < 4 else torch.randn(4096, *SHAPE).bfloat16()
    kept = Cache(root)
    entries(numbers, target, kept)

    def memory(tensors: torch.Tensor) -> float:
        start = time.perf_counter()
        for position, number in enumerate(numbers):
            target[position % BATCH].copy_(tensors[number % len(tensors)])
        return time.perf_counter() - start

    shard = max(root.rglob("*.safetensors"), key=lambda path: path.stat().st_size)
    held = shard.stat().st_size // ENTRY_BYTES
    mapped = torch.from_file(str(shard), size=held * ENTRY_BYTES // 2, dtype=torch.bfloat16).view(held, *SHAPE)
    memory(mapped)
    ways = (lambda: memory(source), lambda: memory(mapped), lambda: entries(numbers, target, kept))
    copied, of_file, warm = (sorted(work() for _ in range(5))[2] for work in ways)
    show(
        "warm, at random (GB/s)",
        {
            "memory: torch copies of as many tensors": whole / copied,
            "the same out of one mapped file": whole / of_file,
            "Cache.get and a copy": whole / warm,
        },
        unit="GB/s",
        scale=1.0,
    )


def plan_of(count: int) -> Any:
    """A plan of so many pictures in one bucket, and a cache key for each of them."""
    from dpnb.dataset.bucket import plan
    from dpnb.dataset.scan import Row
    from dpnb.schema import FACTS, Dataset, Directory

    rows = [Row(f"/nowhere/{i:07}.png", 0, 512, 512, captions=(f"caption {i}",)) for i in range(count)]
    return plan(rows, Dataset(resolutions=[512], directory=[Directory(path="x")]), FACTS["flux"], micro_batch=BATCH)


def fill_for(root: Path, count: int) -> Any:
    """The entries that `plan_of` needs."""
    import torch

    from dpnb.dataset.bucket import Size
    from trainer.data.cache import Cache
    from trainer.data.cache_keys import latents_key, text_key

    cache = Cache(root)
    latents, text = torch.randn(SHAPE).to(torch.bfloat16), torch.randn(77, 768).to(torch.bfloat16)
    for i in range(count):
        cache.put(latents_key(f"{i:064x}", Size(512, 512), "p"), {"latents": latents})
        cache.put(text_key(f"caption {i}", "t"), {"text": text})
    cache.flush()


def loader_of(root: Path, count: int) -> Any:
    """A loader over that plan."""
    from trainer.data.cache import Cache
    from trainer.data.loader import Loader

    made, cache = plan_of(count), Cache(root)
    cache.digests.add({row.file: bytes.fromhex(f"{i:064x}") for i, row in enumerate(made.rows)})
    return Loader(made, cache, pixels_identity="p", text_identity="t", seed=0)


def batches(root: Path, count: int) -> None:
    """What a batch costs the thread that reads it, and the training that asks for it while it computes elsewhere.

    In CPU time, which a busy machine does not change much; the waiting by the clock, in which the network computes as
    a GPU does: without Python.
    """
    import torch

    torch.set_num_threads(1)
    with loader_of(root, count) as loader:
        reader = loader._reader.stream(0, 0)
        many = count // BATCH
        for _ in islice(reader, many):
            pass
        start = time.thread_time()
        for _ in islice(reader, many):
            pass
        reading_seconds = (time.thread_time() - start) / many
        next(loader)
        waited, taken = [], []
        for _ in range(200):
            time.sleep(STEP_SECONDS)
            start, started = time.perf_counter(), time.thread_time()
            next(loader)
            waited.append(time.perf_counter() - start)
            taken.append(time.thread_time() - started)
    show(
        f"a batch of {BATCH} latents and captions ({BATCH * (ENTRY_BYTES + 2 * 77 * 768) / 1e6:.1f} MB)",
        {
            "CPU time of the thread that reads it": reading_seconds,
            "CPU time of the training that takes it": sorted(taken)[100],
            f"waited for in steps of {STEP_SECONDS * 1000:.0f} ms (median)": sorted(waited)[100],
            "   the longest of 20": sorted(waited)[190],
        },
    )


_PEAK = """
import sys, resource
sys.path[:0] = [{here!r}, {root!r}]
sys.argv = ["x"]
from itertools import islice
from pathlib import Path
import bench_cache
with bench_cache.loader_of(Path({cache!r}), {count}) as loader:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in islice(loader, {batches}):
        pass
anonymous = [line for line in open("/proc/self/status") if line.startswith("RssAnon")][0].split()[1]
print(before, anonymous)
"""


def memory(root: Path, counts: list[int]) -> None:
    """Anonymous memory (what cannot be given back, unlike mapped files) of a process that trains an epoch."""
    here = Path(__file__).parent
    rows = {}
    for count in counts:
        code = _PEAK.format(
            here=str(here), root=str(here.parents[1]), cache=str(root), count=count, batches=count // BATCH
        )
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        rows[f"{count:,} pictures"] = float(ran.stdout.split()[1]) / 1024
    show("memory after an epoch (MiB)", rows, unit="MiB", scale=1.0)
    few, many = rows.values()
    print(f"  {(many - few) * 2**20 / (counts[1] - counts[0]):.0f} bytes more for each picture more")


def photographs(root: Path, count: int) -> list[Path]:
    """JPEG pictures of 1.5 megapixels, with as much detail as a photograph."""
    import numpy as np
    from PIL import Image, ImageFilter

    root.mkdir()
    for number in range(count):
        noise = np.random.default_rng(number).integers(0, 256, (1000, 1500, 3), dtype=np.uint8)
        Image.fromarray(noise).filter(ImageFilter.GaussianBlur(2)).save(root / f"{number}.jpg", quality=90)
    return sorted(root.iterdir())


def decoded_picture(path: Path) -> Any:
    """The pixels of one picture as a training that caches none asks for them: cut at random, changed, 512 px."""
    from dpnb.dataset.bucket import Size
    from trainer.data.augment import Draw
    from trainer.data.media import picture_pixels

    return picture_pixels(path.read_bytes(), [(Size(512, 512), Draw(along=0.2, flip=True, brightness=1.1, hue=0.02))])


def decoding(paths: list[Path]) -> None:
    """Threads, which the loader has, beside processes, which would hand over 0.8 MB for each picture."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    from trainer.data.ahead import ahead

    workers = os.cpu_count() or 1
    rows = {"one thread": median_seconds(lambda: [decoded_picture(path) for path in paths], repeats=3)}
    rows[f"{workers} threads"] = median_seconds(lambda: list(ahead(decoded_picture, paths, workers)), repeats=3)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        rows[f"{workers} processes"] = median_seconds(lambda: list(pool.map(decoded_picture, paths)), repeats=3)
    show("decoding a picture of 1.5 megapixels", {name: seconds / len(paths) for name, seconds in rows.items()})


def main() -> None:
    with tempfile.TemporaryDirectory(dir=os.environ.get("DPNB_BENCH_DIR")) as name:
        root = Path(name)
        beside = files_beside(root / "files", min(ENTRIES, 2000))
        written = fill(root / "cache", ENTRIES)
        show("writing an entry of 131 kB", {"a file for each, flushed": beside["written"], "shards, flushed": written})
        reading(root / "cache", ENTRIES)
        from trainer.data.cache import Cache

        cache = Cache(root / "cache")
        numbers = range(min(ENTRIES, 2000))
        shards_read = median_seconds(
            lambda: [cache.get(key("latents", n))["latents"].sum() for n in numbers], repeats=3
        ) / len(numbers)
        show("reading an entry, warm", {"a file for each": beside["read"], "shards": shards_read})
        fill_for(root / "loader", ENTRIES)
        batches(root / "loader", ENTRIES)
        decoding(photographs(root / "photographs", 40))
        memory(root / "loader", [ENTRIES // 10, ENTRIES])
        print(f"  (this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MiB)")


if __name__ == "__main__":
    main()
