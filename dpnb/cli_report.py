"""`dpnb report`: a run as one HTML file."""

from __future__ import annotations

import argparse
from pathlib import Path

from dpnb.cli_arguments import add_one_run


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The arguments of `dpnb report`."""
    add_one_run(command)
    command.add_argument("-o", "--out", type=Path, default=Path("report.html"), metavar="FILE", help="the HTML file")


def run(arguments: argparse.Namespace) -> int:
    """Write the report and print where it is."""
    from dpnb.html_report import write_report
    from dpnb.runs.process import Run

    target = write_report(Run.attach(arguments.name, root=arguments.root), arguments.out)
    print(f"{target}: open it in a browser; it needs neither this machine nor a kernel")
    return 0
