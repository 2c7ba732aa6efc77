"""The dry run of 10,000 pictures with captions: headers only, then buckets; what one thread less costs; and how long a
kernel takes to answer while a form makes one in the background."""

from __future__ import annotations

import io
import random
import statistics
import tempfile
import time
from pathlib import Path

from timing import median_seconds, show

PICTURES = 10_000
SIDES_PX = range(256, 2049, 64)
RATIOS = {"enable_ar_bucket": True, "min_ar": 0.25, "max_ar": 4.0, "num_ar_buckets": 20}
ECHO = "text.value = str(time.time())"
IN_A_KERNEL = """
import time, ipywidgets
from dpnb.schema import Dataset, Directory
from dpnb.widgets.dataset import DatasetForm
text = ipywidgets.Text()
dataset = Dataset(resolutions=[512, 768], directory=[Directory(path={folder!r})], **{ratios!r})
"""


def write(folder: Path) -> None:
    """JPEG and PNG files of many sizes, all of one colour: their headers are what counts."""
    from PIL import Image

    rng = random.Random(0)
    made: dict[tuple[str, int, int], bytes] = {}
    for number in range(PICTURES):
        kind = (rng.choice(("jpg", "png")), rng.choice(SIDES_PX), rng.choice(SIDES_PX))
        if kind not in made:
            target = io.BytesIO()
            options = {"quality": 30} if kind[0] == "jpg" else {"compress_level": 1}
            Image.new("RGB", kind[1:], (90, 120, 30)).save(target, kind[0].replace("jpg", "JPEG"), **options)
            made[kind] = target.getvalue()
        (folder / f"{number:05}.{kind[0]}").write_bytes(made[kind])
        (folder / f"{number:05}.txt").write_text(f"a picture, number {number}")


def answers(folder: str) -> dict[str, float]:
    """Seconds from a request to its reply, at rest and while a form reads the folder."""
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(kernel_name="python3")

    def answer(code: str) -> float:
        start = time.perf_counter()
        reply = client.execute_interactive(code, store_history=False, output_hook=lambda _: None)
        assert reply["content"]["status"] == "ok", reply["content"]
        return time.perf_counter() - start

    try:
        answer(IN_A_KERNEL.format(folder=folder, ratios=RATIOS))
        idle = [answer(ECHO) for _ in range(50)]
        answer("form = DatasetForm(dataset)")
        busy, until = [], time.perf_counter() + 1.5  # less than a dry run takes
        while time.perf_counter() < until:
            busy.append(answer(ECHO))
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    rows = {"at rest, median": statistics.median(idle)}
    return rows | {"during a dry run, median": statistics.median(busy), "during a dry run, slowest": max(busy)}


def main() -> None:
    from dpnb.dataset.bucket import deal
    from dpnb.dataset.dryrun import dry_run
    from dpnb.dataset.scan import scan
    from dpnb.schema import FACTS, Dataset, Directory

    with tempfile.TemporaryDirectory() as name:
        write(Path(name))
        dataset = Dataset(resolutions=[512, 768], directory=[Directory(path=name)], **RATIOS)
        rows = scan(dataset).rows
        assert sum(row.used for row in rows) == PICTURES

        def whole(workers: int) -> None:
            run = dry_run(dataset, FACTS["flux"], micro_batch=8, workers=workers)
            assert run.pictures == PICTURES

        figures = {
            "dry run, 2 threads (dpnb dryrun on 2 cores)": median_seconds(lambda: whole(2), repeats=3),
            "dry run, 1 thread (as in a kernel)": median_seconds(lambda: whole(1), repeats=3),
            "the plan alone": median_seconds(lambda: deal(rows, dataset, FACTS["flux"], micro_batch=8), repeats=3),
        }
        show(f"{PICTURES:,} pictures in 40 buckets, files in the page cache", figures)
        show("a kernel's answer to a cell that writes a widget", answers(name))


if __name__ == "__main__":
    main()
