"""What the command lines of several commands share: how a run is named, kinds of numbers, exit codes of a shell."""

from __future__ import annotations

import argparse
from pathlib import Path

SHELL_SIGNAL_BASE = 128


def add_one_run(command: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The arguments that name a run."""
    command.add_argument("name", nargs="?", default="latest", metavar="RUN")
    command.add_argument("--root", type=Path, default=Path(), metavar="DIR", help="where to look for it")
    return command


def positive(text: str) -> int:
    """A whole number above 0. Raises what argparse turns into a message."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def shell_code(code: int) -> int:
    """An exit code as a shell knows it: a signal n is 128 + n."""
    return code if code >= 0 else SHELL_SIGNAL_BASE - code
