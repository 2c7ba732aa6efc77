"""Ranks as `srun` starts them: processes that find their place in the environment, without a launcher.

They are forked from a process that has imported the trainer's libraries (preloaded.py): that takes most of the time of
a small run, and thrice through DeepSpeed's launcher, which is for the tests of what a launched run does.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any
from unittest import mock

from tests.trainer.launching import ONE_THREAD, free_port

PATIENCE_SECONDS = 280.0
LAST_WORDS_SECONDS = 10.0  # for the others, once one rank has failed


@functools.cache
def _server() -> ForkServerContext:
    """It ends with this process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.trainer.preloaded"])
    with mock.patch.dict(os.environ, ONE_THREAD):
        forkserver.ensure_running()
    return context


def run_ranks(work: Callable[..., int], *arguments: object, processes: int = 1) -> subprocess.CompletedProcess[str]:
    """Call a function of some module on every rank, and wait. Its result is the exit code; the worst counts."""
    with tempfile.TemporaryDirectory() as folder:
        shared = {"WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
        ranks = []
        for number in range(processes):
            place = {name: str(value) for name, value in (shared | {"RANK": number, "LOCAL_RANK": number}).items()}
            rank = _server().Process(target=_rank, args=(work, arguments, place, Path(folder)))
            rank.start()
            ranks.append(rank)
        _wait(ranks)
        told = [
            "".join(path.read_text() for path in sorted(Path(folder).glob(f"*.{kind}"))) for kind in ("out", "err")
        ]
    worst = max((rank.exitcode or 0 for rank in ranks), key=abs)
    return subprocess.CompletedProcess([str(argument) for argument in arguments], worst, *told)


def _wait(ranks: Sequence[ForkServerProcess]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while any(rank.is_alive() for rank in ranks) and time.monotonic() < deadline:
        if any(rank.exitcode for rank in ranks):
            deadline = min(deadline, time.monotonic() + LAST_WORDS_SECONDS)
        time.sleep(0.02)
    for rank in ranks:
        rank.kill()
        rank.join()


def _rank(work: Callable[..., int], arguments: Sequence[Any], place: dict[str, str], folder: Path) -> None:
    for stream, kind in ((1, "out"), (2, "err")):
        with (folder / f"{place['RANK']}.{kind}").open("wb") as file:
            os.dup2(file.fileno(), stream)
    os.environ.update(place)
    sys.exit(work(*arguments))
