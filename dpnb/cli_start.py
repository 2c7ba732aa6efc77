"""`dpnb demo` and `dpnb lab`: the two ways to begin."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from dpnb.cli_arguments import positive, shell_code


def add_demo(command: argparse.ArgumentParser) -> None:
    """Arguments of `dpnb demo`."""
    command.add_argument("--out", type=Path, default=Path("dpnb-demo"), metavar="DIR", help="where everything goes")
    command.add_argument("--steps", type=positive, help="training steps, to shorten or lengthen it")


def demo(arguments: argparse.Namespace) -> int:
    """`dpnb demo`."""
    from dpnb.demo import run_demo

    return shell_code(run_demo(arguments.out, steps=arguments.steps))


def add_lab(command: argparse.ArgumentParser) -> None:
    """Arguments of `dpnb lab`."""
    command.add_argument("--port", type=positive, default=8888)
    command.add_argument("--no-browser", action="store_true", help="print the address, open no browser")
    command.add_argument("--folder", type=Path, help="another folder than the notebooks that come with dpnb")


def lab(arguments: argparse.Namespace) -> int:
    """`dpnb lab`: the server takes this process's place."""
    folder = arguments.folder or notebooks_folder()
    argv = [sys.executable, "-m", "jupyterlab", "--ip=127.0.0.1", f"--port={arguments.port}"]
    argv.append(f"--ServerApp.root_dir={folder}")
    if arguments.no_browser:
        argv.append("--no-browser")
    if os.geteuid() == 0:
        argv.append("--allow-root")  # in a container everybody is root; it listens on this machine alone
    sys.stdout.flush()
    os.execv(argv[0], argv)  # noqa: S606 - the server takes this process's place, and with it its signals


def notebooks_folder() -> Path:
    """The notebooks beside the package in a checkout, else the working directory."""
    beside = Path(__file__).resolve().parent.parent / "notebooks"
    return beside if beside.is_dir() else Path.cwd()
