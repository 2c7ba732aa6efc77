"""A monitor on a run of 100,000 logged steps, in a real kernel: how long a fresh kernel takes to show its history, and
what one more step costs in kernel time and in messages to the browser.

The history is shown once every chart has its figure. The first kernel is killed with -9 while it watches.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

STEPS = 100_000
TAGS = (
    "train/loss",
    "train/lr",
    "train/grad_norm",
    "train/seconds_per_step",
    "train/samples_per_second",
    "memory/host_gib",
    "memory/gpu_gib",
)
EVERY = 500  # steps between two evaluations of nine quantiles
UPDATES = 15

SHOW = """
import time
start, used = time.perf_counter(), time.process_time()
import dpnb
run = dpnb.attach({path!r})
monitor = dpnb.Monitor(run)
while len(monitor._grid.children) < 8:
    time.sleep(0.01)
points = max(len(curve.series) for chart in monitor.charts.values() for curve in chart._curves.values())
print(time.perf_counter() - start, time.process_time() - used, len(monitor._grid.children), points)
"""
TIMED = """
taken = []
look = monitor._ticker._look
def timed():
    before = time.thread_time()
    try:
        return look()
    finally:
        taken.append(time.thread_time() - before)
monitor._ticker._look = timed
"""


def write(folder: Path) -> Any:
    """The history; gives the writer, which goes on."""
    from torch.utils.tensorboard import SummaryWriter

    from dpnb.runs.rundir import Mark, ProcessInfo, RunDir, Status

    run = RunDir(folder)
    writer = SummaryWriter(str(folder), max_queue=100_000, flush_secs=600)
    for step in range(1, STEPS + 1):
        for number, tag in enumerate(TAGS):
            writer.add_scalar(tag, 1 / step + number + (step * 7919 % 101) / 500, step)
        if step % EVERY == 0:
            for quantile in range(1, 10):
                writer.add_scalar(f"held/loss_quantile_0.{quantile}0", quantile / step, step)
            writer.add_scalar("held/loss", 1 / step, step)
    writer.flush()
    for step in range(500, STEPS + 1, 5000):
        run.add_mark(Mark("saved", step, time.time(), f"step{step}"))
    # It lives as long as this process does.
    import psutil

    from dpnb.runs import session

    me = psutil.Process()
    run.write_process(
        ProcessInfo(
            "bench",
            ["trainer.train"],
            host=session.host_name(),
            boot_id=session.boot_id(),
            pid=me.pid,
            session_id=os.getsid(0),
            process_started=me.create_time(),
            supervised=False,
            started=time.time(),
        )
    )
    run.write_status(Status("training", STEPS, 2 * STEPS, loss=0.1, seconds_per_step=1.0))
    return writer


def run_cell(client: Any, code: str, patience: float = 120.0) -> str:
    """Run code in a kernel; what it printed."""
    printed = []
    client.execute_interactive(
        code, timeout=patience, output_hook=lambda message: printed.append(message["content"].get("text", ""))
    )
    return "".join(printed)


def messages_of(client: Any, seconds: float) -> int:
    """Bytes of all messages to the browser for so long."""
    deadline, size = time.monotonic() + seconds, 0
    while time.monotonic() < deadline:
        try:
            message = client.get_iopub_msg(timeout=0.1)
        except queue.Empty:
            continue
        size += len(json.dumps(message["content"], default=str)) + sum(map(len, message.get("buffers", ())))
    return size


def main() -> None:
    from jupyter_client.manager import start_new_kernel

    from dpnb.runs.rundir import RunDir, Status

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "20260101_00-00-00"
        folder.mkdir()
        writer = write(folder)
        shown = []
        for attempt in range(4):
            manager, client = start_new_kernel()
            seconds, cpu, charts, points = run_cell(client, SHOW.format(path=str(folder))).split()
            words = f"{float(seconds):.2f} s, of which {float(cpu):.2f} s at work"
            print(f"  kernel {attempt}: {words}, to {charts} charts and {points} points in a curve")
            shown.append(float(seconds))
            if attempt < 3:
                manager.provisioner.process.send_signal(signal.SIGKILL)
                manager.cleanup_resources()
        run_cell(client, TIMED)
        messages_of(client, 2.0)
        sizes = []
        for step in range(STEPS + 1, STEPS + UPDATES + 1):
            for tag in TAGS:
                writer.add_scalar(tag, 0.1, step)
            writer.flush()
            RunDir(folder).write_status(Status("training", step, 2 * STEPS, loss=0.1, seconds_per_step=1.0))
            sizes.append(messages_of(client, 1.1))
        busy = json.loads(run_cell(client, "print(taken)"))
        manager.shutdown_kernel(now=True)
    print(f"\na monitor on {STEPS:,} steps of {len(TAGS)} curves")
    print(f"  history in a fresh kernel, imports included   {statistics.median(shown):8.2f} s")
    print(f"  kernel time of an update                      {1000 * statistics.median(busy):8.1f} ms")
    print(f"  messages of an update                         {statistics.median(sizes) / 1000:8.1f} kB")


if __name__ == "__main__":
    main()
