"""A stand-in for `deepspeed`: a launcher that starts ranks, which behave as the first argument says.

    python stand_in.py launch RUN_DIR BEHAVIOUR [RANKS]   ->   python stand_in.py rank RUN_DIR BEHAVIOUR

The launcher behaves as DeepSpeed's: it dies at once on SIGTERM, looks after its ranks now and then, and when one ended
badly asks the others to end and waits for them; it gives 0 when a rank died by a signal. Ranks carry LOCAL_RANK, write
status.json, and serve save_quit.

    train      until told to stop: then saves for `SAVE_SECONDS`, writes phase done and "stopped", exits 0
    stubborn   passes over SIGTERM and save_quit
    finish     phase done, exit 0
    fail       phase failed, exit 3
    mute       exit 0 without a word
    quiet      as train, but never writes a status
    late       finish, but rank 0 goes on saving for `LATE_SECONDS` after the others have ended
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from dpnb.runs.rundir import RunDir, Status

SAVE_SECONDS = 0.3
LATE_SECONDS = 4.0
LOOK_SECONDS = 0.3
PATIENCE_SECONDS = 30


def launch(run_dir: str, behaviour: str, count: int) -> int:
    commands = [[sys.executable, __file__, "rank", run_dir, behaviour]] * count
    ranks = [
        subprocess.Popen(command, env=os.environ | {"LOCAL_RANK": str(rank)}) for rank, command in enumerate(commands)
    ]
    codes: list[int | None] = [None]
    while None in codes:
        codes = [rank.poll() for rank in ranks]
        if any(codes):
            for rank in ranks:
                rank.terminate()
            deadline = time.monotonic() + PATIENCE_SECONDS
            while time.monotonic() < deadline and any(rank.poll() is None for rank in ranks):
                time.sleep(LOOK_SECONDS)
            for rank in ranks:
                rank.kill()
            codes = [rank.wait() for rank in ranks]
        time.sleep(LOOK_SECONDS)
    worst = max(code or 0 for code in codes)
    return worst if worst > 0 else 0


def rank(run: RunDir, behaviour: str) -> int:
    signals: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: signals.append(number))
    print(f"rank {os.environ['LOCAL_RANK']} started", flush=True)
    first = os.environ["LOCAL_RANK"] == "0" and behaviour != "quiet"
    if behaviour == "mute":
        return 0
    if behaviour == "late" and first:
        run.write_status(Status("saving", 5, 5))
        time.sleep(LATE_SECONDS)
    if behaviour in ("finish", "fail", "late"):
        run.write_status(Status("failed" if behaviour == "fail" else "done", 5, 5, last_error="it broke"))
        return 3 if behaviour == "fail" else 0
    step = 0
    while behaviour == "stubborn" or not (signals or run.request_file("save_quit").exists()):
        step += 1
        if first:
            run.write_status(Status("training", step, 1000, loss=1 / step))
        time.sleep(0.05)
    time.sleep(SAVE_SECONDS)
    if first:
        (run.path / f"step{step}").mkdir()
        (run.path / f"step{step}" / "adapter_model.safetensors").write_text(f"{len(signals)}")
        run.write_status(Status("done", step, 1000, detail=f"stopped at step {step}"))
    return 0


if __name__ == "__main__":
    what, folder, how = sys.argv[1:4]
    if what == "launch":
        sys.exit(launch(folder, how, int(sys.argv[4]) if len(sys.argv) > 4 else 1))
    sys.exit(rank(RunDir(Path(folder)), how))
