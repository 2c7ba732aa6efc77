"""A run directory that grows as a real one does, without a trainer: event file, status, log and pictures.

    python growing_run.py DIR --steps 120 --seconds 0.05

Each step appends to the event file and replaces the heartbeat; every tenth draws pictures; a `save_quit` file ends it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import time
from pathlib import Path

import psutil
from PIL import Image, ImageDraw
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from dpnb.runs import session
from dpnb.runs.rundir import ProcessInfo, RunDir, Status

PROMPTS = ("a zorbi on a white background", "a <b>large</b> zorbi & friends", "a red circle", "a heart at the top")
SAMPLE_EVERY_N_STEPS = 10


class GrowingRun:
    """Writes a run step by step; the process that makes it counts as the one that trains."""

    def __init__(self, path: Path, total_steps: int = 60) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.run = RunDir(path)
        self.total_steps = total_steps
        self.started = time.time()
        self.process = ProcessInfo(
            run_id="growing",
            host=session.host_name(),
            boot_id=session.boot_id(),
            pid=os.getpid(),
            process_started=psutil.Process().create_time(),
            supervised=False,
            started=self.started,
        )
        self.run.write_process(self.process)
        self.events = EventFileWriter(str(path), flush_secs=1)
        self.random = random.Random(0)
        self.status("loading", 0)

    def status(self, phase: str, step: int, **more: object) -> None:
        loss = None if step == 0 else round(loss_at(step), 4)
        left = (self.total_steps - step) * 0.5
        heartbeat = Status(
            phase=phase, step=step, total_steps=self.total_steps, epoch=1, total_epochs=4, loss=loss,
            seconds_per_step=0.5, eta_seconds=left,
        )  # fmt: skip
        for name, value in more.items():
            setattr(heartbeat, name, value)
        self.run.write_status(heartbeat)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])
        self.events.add_event(Event(step=step, wall_time=time.time(), summary=summary))
        self.events.flush()

    def step(self, step: int) -> None:
        """One optimizer step, and what comes with it."""
        noise = self.random.gauss(0, 0.06)
        values = {
            "train/loss": loss_at(step) + noise,
            "train/lr": 1e-3 * min(1.0, step / 10),
            "train/grad_norm": 0.8 + abs(noise) * 3,
            "train/seconds_per_step": 0.5 + abs(noise),
            "memory/host_gib": 1.4 + step / 400,
        }
        if step > SAMPLE_EVERY_N_STEPS:
            values["memory/gpu_gib"] = 3.0  # a curve that joins a chart which is on the screen by then
        if step % SAMPLE_EVERY_N_STEPS == 0:
            values |= {"held_out/loss": loss_at(step) + 0.03}
            values |= {
                f"held_out/loss_quantile_{q:.2f}": loss_at(step) + 0.2 - q / 4 for q in (k / 10 for k in range(1, 10))
            }
        self.scalars(step, values)
        self.log(f"step {step} loss {values['train/loss']:.4f}")
        self.status("training", step)
        if step % SAMPLE_EVERY_N_STEPS == 0:
            self.pictures(step)

    def pictures(self, step: int, prompts: tuple[str, ...] = PROMPTS) -> None:
        folder = self.run.sample_dir(step)
        folder.mkdir(parents=True, exist_ok=True)
        for index, prompt in enumerate(prompts):
            share = step / self.total_steps
            image = Image.new("RGB", (64, 64), (235 - 25 * index, 235, 200 + 15 * index))
            pen = ImageDraw.Draw(image)
            half = 8 + 18 * share
            pen.ellipse((32 - half, 32 - half, 32 + half, 32 + half), fill=(20, 90 + int(85 * share), 170))
            image.save(folder / f"{index:02d}.png")
            settings = {"prompt": prompt, "seed": 42 + index, "step": step, "steps": 24, "guidance": 3.5}
            settings |= {"width": 64, "height": 64}
            (folder / f"{index:02d}.json").write_text(json.dumps(settings))

    def log(self, line: str) -> None:
        with self.run.console_log.open("a") as file:
            file.write(f"caching  1%\rcaching 100%\n{line}\n" if line.endswith("0") else f"{line}\n")

    def finish(self, step: int) -> None:
        """The end that a trainer and its supervisor write."""
        self.events.close()
        export = self.run.export_dir("step", step)
        export.mkdir(exist_ok=True)
        (export / "adapter_model.safetensors").write_bytes(b"\0" * 8)
        self.status("done", step)
        self.process.ended, self.process.exit_code, self.process.pid = time.time(), 0, None
        self.run.write_process(self.process)


def loss_at(step: int) -> float:
    """A loss that falls as losses do."""
    return 0.25 + 0.6 * math.exp(-step / 25)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=0.1)
    arguments = parser.parse_args()
    growing = GrowingRun(arguments.folder, arguments.steps)
    growing.pictures(0)
    for step in range(1, arguments.steps + 1):
        time.sleep(arguments.seconds)
        growing.step(step)
        for request in growing.run.pending_requests():
            growing.run.clear_request(request)
            (growing.run.path / f"asked_{request}").touch()
            if request == "save_quit":
                growing.finish(step)
                return
    growing.finish(arguments.steps)


if __name__ == "__main__":
    main()
