"""TensorBoard on a run, in the notebook: a server on this machine alone, which ends with the kernel."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO

from dpnb.errors import RunError
from dpnb.runs.process import Run
from dpnb.runs.rundir import RunDir
from dpnb.widgets.cells import replaces_predecessor
from dpnb.widgets.look import escape
from dpnb.widgets.polling import run_of

START_SECONDS = 60.0
_POLL_SECONDS = 0.1
_HOST = "127.0.0.1"


class TensorBoard:
    """A TensorBoard server with the event files of a run. Displays itself; `url` is where it answers."""

    def __init__(self, run: Run | RunDir | Path | str, *, height_px: int = 800) -> None:
        """`run`: what launch or attach gave, a run directory, its name, or "latest". Takes a few seconds.

        Raises `RunError` when there is no such run or the server does not start.
        """
        self.run, self.height_px = run_of(run), height_px
        port = _free_port()
        self.url = f"http://{_HOST}:{port}/"
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the server
        argv = [sys.executable, "-m", "dpnb.tensorboard_server", "--logdir", str(self.run.path)]
        argv += ["--host", _HOST, "--port", str(port), "--reload_interval", "5"]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=self._log, stderr=subprocess.STDOUT)
        try:
            self._wait()
        except BaseException:
            self.close()
            raise
        replaces_predecessor(self)

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not _answers(self.url):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self._log.seek(0)
                said = self._log.read().decode("utf-8", "replace").strip().splitlines()
                raise RunError(f"TensorBoard did not start: {said[-1] if said else 'it said nothing'}")
            time.sleep(_POLL_SECONDS)

    def close(self) -> None:
        """End the server."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.terminate()
        self.process.wait()
        self._log.close()

    def _repr_html_(self) -> str:
        frame = f'<iframe src="{self.url}" width="100%" height="{self.height_px}" frameborder="0"></iframe>'
        words = (
            f'TensorBoard on run {escape(self.run.name)}: <a href="{self.url}" target="_blank">{self.url}</a>, '
            "on the machine of the kernel. It ends with the kernel."
        )
        return f"<p>{words}</p>{frame}"

    def __repr__(self) -> str:
        return f"TensorBoard({self.run.name!r}, {self.url!r})"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):  # noqa: S310 - our own server
            return True
    except (OSError, urllib.error.URLError):
        return False
