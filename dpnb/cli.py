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
Each command imports what it needs itself, so that `dpnb --help` is instant.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dpnb import cli_cache, cli_config, cli_dryrun, cli_import, cli_new, cli_report, cli_runs, cli_tools
from dpnb.errors import DpnbError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; gives the exit code. Errors of the user are printed, one line each, without a traceback."""
    arguments = _parser().parse_args(argv)
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
        return cli_runs.SHELL_SIGNAL_BASE + 2
    return code


class _Command(argparse.ArgumentParser):
    """The command line of one command, whose options are made when it is the one that was asked for."""

    options: Callable[[argparse.ArgumentParser], object] | None = None

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # noqa: ANN401 - as argparse has it
        """Make the options first, then do as argparse does."""
        make, self.options = self.options, None
        if make is not None:
            make(self)
        return super().parse_known_args(args, namespace)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dpnb", description="Fine-tune image and video diffusion models.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Command)

    def add(name: str, words: str, options: Callable[[argparse.ArgumentParser], object]) -> None:
        command = commands.add_parser(name, help=words, description=words[0].upper() + words[1:] + ".")
        command.set_defaults(run=globals()[f"_{name}"])
        command.options = options

    one_run, positive = cli_runs.add_one_run, _positive
    add("demo", "train the embedded tiny model on a new concept, in minutes and without a download", _add_demo)
    add("lab", "open JupyterLab on the notebooks", _add_lab)
    add("new", "write a training and a dataset file to start from", cli_new.add_arguments)
    add("import", "turn another trainer's files into a training and a dataset file", cli_import.add_arguments)
    add("validate", "check training and dataset files", cli_config.add_validate)
    add("schema", "list every key of a file, or write its JSON Schema", cli_config.add_schema)
    words = "show what the trainer would make of a dataset, without training"
    add("dryrun", words, lambda command: cli_dryrun.add_arguments(command, positive))
    add("cache", "show how large the cache is, and remove what no run needs", cli_cache.add_arguments)
    add("launch", "start training in the background", lambda command: cli_runs.add_launch(command, positive))
    add("runs", "list runs", _add_runs)
    add("status", "show one run", _add_status)
    add("logs", "show the end of a run's console", _add_logs)
    words = "write a run as one HTML file that opens anywhere"
    add("report", words, lambda command: cli_report.add_arguments(one_run(command)))
    add("stop", "save and stop a run, and wait for it", cli_runs.add_stop)
    words = "fetch the photos of a collection, with licence and author"
    add("sync", words, lambda command: cli_tools.add_sync(command, positive))
    words = "find pictures that are there twice, and move the lesser ones aside"
    add("duplicates", words, cli_tools.add_duplicates)
    add("repair", "mend corrupt and misnamed pictures and captions; nothing is deleted", cli_tools.add_repair)
    words = "caption pictures by a local model, in the background"
    add("tag", words, lambda command: cli_tools.add_tag(command, positive))
    words = "train one after the other, in the background"
    add("queue", words, lambda command: cli_runs.add_queue(command, positive))
    return parser


def _add_demo(command: argparse.ArgumentParser) -> None:
    command.add_argument("--out", type=Path, default=Path("dpnb-demo"), metavar="DIR", help="where everything goes")
    command.add_argument("--steps", type=_positive, help="training steps, to shorten or lengthen it")


def _add_lab(command: argparse.ArgumentParser) -> None:
    command.add_argument("--port", type=_positive, default=8888)
    command.add_argument("--no-browser", action="store_true", help="print the address, open no browser")
    command.add_argument("--folder", type=Path, help="another folder than the notebooks that come with dpnb")


def _add_runs(command: argparse.ArgumentParser) -> None:
    command.add_argument("folder", nargs="?", type=Path, default=Path(), metavar="DIR")


def _add_status(command: argparse.ArgumentParser) -> None:
    cli_runs.add_one_run(command).add_argument("--json", action="store_true", help="for programs")


def _add_logs(command: argparse.ArgumentParser) -> None:
    cli_runs.add_one_run(command)
    command.add_argument("-n", type=int, default=40, metavar="N", dest="lines", help="number of lines")
    command.add_argument("-f", "--follow", action="store_true", help="go on as it grows, until the run ends")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


# --- commands --------------------------------------------------------------------------------------------------------


def _demo(arguments: argparse.Namespace) -> int:
    from dpnb.demo import run_demo

    return cli_runs.shell_code(run_demo(arguments.out, steps=arguments.steps))


def _lab(arguments: argparse.Namespace) -> int:
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


def _new(arguments: argparse.Namespace) -> int:
    return cli_new.run(arguments)


def _import(arguments: argparse.Namespace) -> int:
    return cli_import.run(arguments)


def _validate(arguments: argparse.Namespace) -> int:
    return cli_config.validate(arguments)


def _schema(arguments: argparse.Namespace) -> int:
    return cli_config.schema(arguments)


def _dryrun(arguments: argparse.Namespace) -> int:
    return cli_dryrun.run(arguments)


def _cache(arguments: argparse.Namespace) -> int:
    return cli_cache.run(arguments)


def _launch(arguments: argparse.Namespace) -> int:
    return cli_runs.launch(arguments)


def _runs(arguments: argparse.Namespace) -> int:
    return cli_runs.runs(arguments)


def _status(arguments: argparse.Namespace) -> int:
    return cli_runs.status(arguments)


def _logs(arguments: argparse.Namespace) -> int:
    return cli_runs.logs(arguments)


def _report(arguments: argparse.Namespace) -> int:
    return cli_report.run(arguments)


def _stop(arguments: argparse.Namespace) -> int:
    return cli_runs.stop(arguments)


def _sync(arguments: argparse.Namespace) -> int:
    return cli_tools.sync(arguments)


def _duplicates(arguments: argparse.Namespace) -> int:
    return cli_tools.duplicates(arguments)


def _repair(arguments: argparse.Namespace) -> int:
    return cli_tools.repair(arguments)


def _tag(arguments: argparse.Namespace) -> int:
    return cli_tools.tag(arguments)


def _queue(arguments: argparse.Namespace) -> int:
    return cli_runs.queue(arguments)


if __name__ == "__main__":
    sys.exit(main())
