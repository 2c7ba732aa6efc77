"""The command `dpnb`: the same functions that a notebook uses, from a shell.

    dpnb demo --out DIR         the whole story in a few minutes      dpnb runs [DIR]     a table of runs
    dpnb lab                    JupyterLab on the notebooks           dpnb status RUN     one run
    dpnb new PRESET -o DIR      files to start from                   dpnb logs RUN       its console
    dpnb import FILE... -o DIR  another trainer's files as ours
    dpnb validate FILE...       check TOML files                      dpnb schema [KEY]   every key, or one
    dpnb dryrun FILE            buckets and steps of a dataset        dpnb stop RUN       save and stop it
    dpnb launch FILE            train in the background

RUN is a run directory, a folder that holds runs, the name of a run, or "latest" (the default) below --root.
Exit codes: 0 well, 1 a problem (one line each on stderr), 2 a wrong command line, else the code of the run.
Each command imports what it needs itself, so that `dpnb --help` is instant.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dpnb import cli_config, cli_dryrun, cli_import, cli_new
from dpnb.errors import DpnbError, errors_in

if TYPE_CHECKING:
    from dpnb.runs.process import Run

_SHELL_SIGNAL_BASE = 128
_FOLLOW_SECONDS = 0.3


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
        return _SHELL_SIGNAL_BASE + 2
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dpnb", description="Fine-tune image and video diffusion models.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, words: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=words, description=words[0].upper() + words[1:] + ".")
        command.set_defaults(run=globals()[f"_{name}"])
        return command

    demo = add("demo", "train the embedded tiny model on a new concept, in minutes and without a download")
    demo.add_argument("--out", type=Path, default=Path("dpnb-demo"), metavar="DIR", help="where everything goes")
    demo.add_argument("--steps", type=_positive, help="training steps, to shorten or lengthen it")

    lab = add("lab", "open JupyterLab on the notebooks")
    lab.add_argument("--port", type=_positive, default=8888)
    lab.add_argument("--no-browser", action="store_true", help="print the address, open no browser")
    lab.add_argument("--folder", type=Path, help="another folder than the notebooks that come with dpnb")

    cli_new.add_arguments(add("new", "write a training and a dataset file to start from"))

    cli_import.add_arguments(add("import", "turn another trainer's files into a training and a dataset file"))

    cli_config.add_validate(add("validate", "check training and dataset files"))
    cli_config.add_schema(add("schema", "list every key of a file, or write its JSON Schema"))

    dryrun = add("dryrun", "show what the trainer would make of a dataset, without training")
    cli_dryrun.add_arguments(dryrun, _positive)

    launch = add("launch", "start training in the background")
    launch.add_argument("file", type=Path, metavar="FILE", help="training file")
    launch.add_argument("--wait", action="store_true", help="show progress and exit with the code of the run")
    launch.add_argument("--num-gpus", type=_positive, metavar="N", help="processes; default: pipeline_stages")
    launch.add_argument(
        "--resume", nargs="?", const=True, metavar="NAME", help="go on with the newest run, or this one"
    )
    launch.add_argument("--check", action="store_true", help="only check file and machine, start nothing")

    runs = add("runs", "list runs")
    runs.add_argument("folder", nargs="?", type=Path, default=Path(), metavar="DIR")

    status = _for_one_run(add("status", "show one run"))
    status.add_argument("--json", action="store_true", help="for programs")

    logs = _for_one_run(add("logs", "show the end of a run's console"))
    logs.add_argument("-n", type=int, default=40, metavar="N", dest="lines", help="number of lines")
    logs.add_argument("-f", "--follow", action="store_true", help="go on as it grows, until the run ends")

    stop = _for_one_run(add("stop", "save and stop a run, and wait for it"))
    how = stop.add_mutually_exclusive_group()
    how.add_argument("--now", action="store_true", help="by a signal at once, instead of by its control file")
    how.add_argument("--kill", action="store_true", help="end it without saving")
    return parser


def _for_one_run(command: argparse.ArgumentParser) -> argparse.ArgumentParser:
    command.add_argument("name", nargs="?", default="latest", metavar="RUN")
    command.add_argument("--root", type=Path, default=Path(), metavar="DIR", help="where to look for it")
    return command


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def _attach(arguments: argparse.Namespace) -> Run:
    from dpnb.runs.process import Run

    return Run.attach(arguments.name, root=arguments.root)


# --- commands --------------------------------------------------------------------------------------------------------


def _demo(arguments: argparse.Namespace) -> int:
    from dpnb.demo import run_demo

    return _shell_code(run_demo(arguments.out, steps=arguments.steps))


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


def _launch(arguments: argparse.Namespace) -> int:
    from dpnb import toml
    from dpnb.runs import preflight
    from dpnb.runs.launch import launch
    from dpnb.runs.progress import follow

    if arguments.check:
        config = toml.load_run(arguments.file)
        num_gpus = arguments.num_gpus or config.training.value.pipeline_stages
        problems = [*config.warnings, *preflight.check(config, num_gpus)]
        for problem in problems:
            print(problem, file=sys.stderr)
        print(f"{arguments.file}: {'cannot be launched' if errors_in(problems) else 'ready to launch'}")
        return int(bool(errors_in(problems)))
    run = launch(arguments.file, num_gpus=arguments.num_gpus, resume=arguments.resume)
    print(run.path, flush=True)
    if not arguments.wait:
        return 0
    code = follow(run)
    return 0 if code is None else _shell_code(code)


def _runs(arguments: argparse.Namespace) -> int:
    from dpnb.runs.process import runs

    print(runs(arguments.folder))
    return 0


def _status(arguments: argparse.Namespace) -> int:
    run = _attach(arguments)
    if arguments.json:
        print(json.dumps(run.to_json(), indent=1))
        return 0
    from dpnb.runs.process import FINAL_STATES
    from dpnb.runs.progress import ending, line

    state = run.state
    print(run.path)
    print(ending(run, state) if state in FINAL_STATES else line(run.status))
    for export in run.exports():
        print(f"saved: {export}")
    return 0


def _logs(arguments: argparse.Namespace) -> int:
    run = _attach(arguments)
    log = run.directory.console_log
    # Taken before the tail is read: what is written in between is shown twice rather than lost.
    offset = log.stat().st_size if log.exists() else 0
    for text in run.log(arguments.lines):
        print(text)
    while arguments.follow:
        over = run.is_over
        if log.exists():
            with log.open("rb") as file:
                file.seek(offset)
                new = file.read()
            offset += len(new)
            sys.stdout.write(new.decode("utf-8", errors="replace"))
            sys.stdout.flush()
        if over:
            break
        time.sleep(_FOLLOW_SECONDS)
    return 0


def _stop(arguments: argparse.Namespace) -> int:
    from dpnb.runs.progress import ending

    run = _attach(arguments)
    if run.is_over:
        print(f"{run.path} has ended already: {run.state}")
        return 0
    if arguments.kill:
        run.kill()
    else:
        print(f"asked {run.path} to save and stop ...", flush=True)
        run.stop(save=not arguments.now)
    print(ending(run, run.state))
    return 0


def _shell_code(code: int) -> int:
    """An exit code as a shell knows it: a signal n is 128 + n."""
    return code if code >= 0 else _SHELL_SIGNAL_BASE - code


if __name__ == "__main__":
    sys.exit(main())
