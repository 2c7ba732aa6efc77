"""Reading 200,000 scalars from one TensorBoard file: our incremental reader beside TensorBoard's EventAccumulator."""

from __future__ import annotations

import tempfile
from pathlib import Path

from timing import median_seconds, show

TAGS = ("train/loss", "train/lr", "train/grad_norm", "train/seconds_per_step")
STEPS = 50_000


def write(folder: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder), max_queue=10_000) as writer:
        for step in range(STEPS):
            for tag in TAGS:
                writer.add_scalar(tag, step * 0.5, step)


def main() -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from dpnb.runs.events import Reader

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder)

        def ours() -> None:
            series = Reader(folder).poll()
            assert len(series["train/loss"][0]) == STEPS

        def theirs() -> None:
            accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0})
            accumulator.Reload()
            assert len(accumulator.Scalars("train/loss")) == STEPS

        reader = Reader(folder)
        reader.poll()
        rows = {
            "dpnb.runs.events.Reader": median_seconds(ours, repeats=3),
            "tensorboard EventAccumulator": median_seconds(theirs, repeats=3),
            "a poll with nothing new": median_seconds(reader.poll, repeats=20),
        }
    show(f"{STEPS * len(TAGS):,} scalars", rows)


if __name__ == "__main__":
    main()
