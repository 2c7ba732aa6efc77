"""A stand-in for diffusion-pipe's train.py: makes a run folder below output_dir and writes what that program writes.

    python upstream_stand_in.py OUTPUT_DIR SECONDS
    deepspeed-like: ... train.py --deepspeed --config FILE      (with `main`, as a checkout's train.py calls it)

No status.json, no handler for signals; `save` and `save_quit` are served at the next step.
"""

from __future__ import annotations

import shutil
import sys
import time
import tomllib
from datetime import UTC, datetime
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter


def train(output_dir: Path, seconds: float, config: Path | None = None) -> None:
    run = output_dir / datetime.now(UTC).strftime("%Y%m%d_%H-%M-%S")
    run.mkdir(parents=True, exist_ok=True)
    if config is not None:
        shutil.copy(config, run)
    writer = EventFileWriter(str(run), flush_secs=1)
    started, step, quitting = time.monotonic(), 0, False
    while not quitting and time.monotonic() - started < seconds:
        step += 1
        summary = Summary(value=[Summary.Value(tag="train/loss", simple_value=1 / step)])
        writer.add_event(Event(step=step, wall_time=time.time(), summary=summary))
        writer.flush()
        time.sleep(0.1)
        quitting = (run / "save_quit").is_file()
        if quitting or (run / "save").is_file():
            (run / f"global_step{step}").mkdir()
            (run / "latest").write_text(f"global_step{step}")
            (run / ("save_quit" if quitting else "save")).unlink()
    writer.close()
    if not quitting and config is not None:
        folder = run / f"epoch{tomllib.loads(config.read_text())['epochs']}"
        folder.mkdir()
        (folder / "adapter_model.safetensors").write_text("weights")


def main() -> None:
    config = Path(sys.argv[sys.argv.index("--config") + 1])
    settings = tomllib.loads(config.read_text())
    print("loading", flush=True)
    train(Path(settings["output_dir"]), float(Path("seconds").read_text()), config)


if __name__ == "__main__":
    train(Path(sys.argv[1]), float(sys.argv[2]))
