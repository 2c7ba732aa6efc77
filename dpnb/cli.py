"""The command `dpnb`: the same functions that a notebook uses, from a shell.

    dpnb demo --out DIR         the whole story in a few minutes      dpnb runs [DIR]     a table of runs
    dpnb lab                    JupyterLab on the notebooks           dpnb status RUN     one run
    dpnb new PRESET -o DIR      files to start from                   dpnb logs RUN       its console
    dpnb import FILE... -o DIR  another trainer's files as ours       dpnb report RUN     one HTML file of it
    dpnb validate FILE...       check TOML files                      dpnb schema [KEY]   every key, or one
    dpnb dryrun FILE            buckets and steps of a dataset        dpnb stop RUN       save and stop it
    dpnb launch FILE            train in the background           dpnb cache [DIR]    its size; --prune what is old

    dpnb sync unsplash ID -o DIR   fetch a collection of photos   dpnb repair FOLDER      mend pictures and captions
    dpnb tag FOLDER --model DIR    caption pictures by a model    dpnb duplicates FOLDER  keep the best of each

RUN is a run directory, a folder that holds runs, the name of a run, or "latest" (the default) below --root.
Exit codes: 0 well, 1 a problem (one line each on stderr), 2 a wrong command line, else the code of the run.
A command's module is imported when the command is asked for, so that `dpnb --help` is instant.
"""

from __future__ import annotations

import argparse
import atexit
import gc
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NamedTuple

from dpnb.errors import DpnbError


class _Entry(NamedTuple):
    """A command, what it is for, and where it stands: "module below dpnb:its arguments:what it does"."""

    name: str
    words: str
    home: str


_COMMANDS = (
    _Entry(
        "demo",
        "train the embedded tiny model on a new concept, in minutes and without a download",
        "cli_start:add_demo:demo",
    ),
    _Entry("lab", "open JupyterLab on the notebooks", "cli_start:add_lab:lab"),
    _Entry("new", "write a training and a dataset file to start from", "cli_new:add_arguments:run"),
    _Entry(
        "import", "turn another trainer's files into a training and a dataset file", "cli_import:add_arguments:run"
    ),
    _Entry("validate", "check training and dataset files", "cli_config:add_validate:validate"),
    _Entry("schema", "list every key of a file, or write its JSON Schema", "cli_config:add_schema:schema"),
    _Entry(
        "dryrun", "show what the trainer would make of a dataset, without training", "cli_dryrun:add_arguments:run"
    ),
    _Entry("cache", "show how large the cache is, and remove what no run needs", "cli_cache:add_arguments:run"),
    _Entry("launch", "start training in the background", "cli_runs:add_launch:launch"),
    _Entry("runs", "list runs", "cli_runs:add_runs:runs"),
    _Entry("status", "show one run", "cli_runs:add_status:status"),
    _Entry("logs", "show the end of a run's console", "cli_runs:add_logs:logs"),
    _Entry("report", "write a run as one HTML file that opens anywhere", "cli_report:add_arguments:run"),
    _Entry("stop", "save and stop a run, and wait for it", "cli_runs:add_stop:stop"),
    _Entry("sync", "fetch the photos of a collection, with licence and author", "cli_tools:add_sync:sync"),
    _Entry(
        "duplicates",
        "find pictures that are there twice, and move the lesser ones aside",
        "cli_tools:add_duplicates:duplicates",
    ),
    _Entry(
        "repair", "mend corrupt and misnamed pictures and captions; nothing is deleted", "cli_tools:add_repair:repair"
    ),
    _Entry("tag", "caption pictures by a local model, in the background", "cli_tools:add_tag:tag"),
    _Entry("queue", "train one after the other, in the background", "cli_runs:add_queue:queue"),
)


_SHORT = ("validate", "schema")  # commands that end as soon as they have loaded what they need


def start() -> int:
    """The command as a process of its own; gives the exit code.

    A short one looks for no garbage: all that it makes while it starts is needed until it ends, and going through that
    again and again, at the end too, takes a fifth of its time. Nor does it look for plugins of pydantic, which reads
    the metadata of every installed distribution for that.
    """
    if any(name in _SHORT for name in sys.argv[1:2]):
        gc.disable()
        atexit.register(gc.freeze)
        os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    return main()


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; gives the exit code. Errors of the user are printed, one line each, without a traceback."""
    arguments = _parser(sys.argv[1:] if argv is None else argv).parse_args(argv)
    try:
        code: int = arguments.run(arguments)
        sys.stdout.flush()
    except DpnbError as error:
        print(error, file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader of a pipe (`| head`) has gone; give the interpreter nothing to complain about at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        from dpnb.cli_arguments import SHELL_SIGNAL_BASE

        return SHELL_SIGNAL_BASE + 2
    return code


class _Command(argparse.ArgumentParser):
    """The command line of one command, whose module is imported when it is the one that was asked for."""

    home = ""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # noqa: ANN401 - as argparse has it
        """Make the arguments first, then do as argparse does."""
        home, self.home = self.home, ""
        if home:
            file, add_arguments, run = home.split(":")
            module = import_module(f"dpnb.{file}")
            getattr(module, add_arguments)(self)
            self.set_defaults(run=getattr(module, run))
        return super().parse_known_args(args, namespace)


def _parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    """A parser for this command line: of the commands it knows all, or only the one that stands first."""
    parser = argparse.ArgumentParser(prog="dpnb", description="Fine-tune image and video diffusion models.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Command)
    asked = [entry for entry in _COMMANDS if entry.name in argv[:1]]
    for name, words, home in asked or _COMMANDS:
        commands.add_parser(name, help=words, description=words[0].upper() + words[1:] + ".").home = home
    return parser


if __name__ == "__main__":
    sys.exit(start())
