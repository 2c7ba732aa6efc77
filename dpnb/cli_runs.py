"""`dpnb launch`, `runs`, `status`, `logs`, `stop` and `queue`: the life of runs from a shell."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpnb.cli_arguments import add_one_run, positive, shell_code
from dpnb.errors import LaunchError, errors_in

if TYPE_CHECKING:
    from dpnb.runs.process import Run

_FOLLOW_SECONDS = 0.3


def _attach(arguments: argparse.Namespace) -> Run:
    from dpnb.runs.process import Run

    return Run.attach(arguments.name, root=arguments.root)


# --- launch ----------------------------------------------------------------------------------------------------------


def add_launch(launch: argparse.ArgumentParser) -> None:
    """Arguments of `dpnb launch`."""
    launch.add_argument("file", type=Path, metavar="FILE", help="training file")
    launch.add_argument("--wait", action="store_true", help="show progress and exit with the code of the run")
    launch.add_argument("--num-gpus", type=positive, metavar="N", help="processes; default: pipeline_stages")
    launch.add_argument(
        "--resume", nargs="?", const=True, metavar="NAME", help="go on with the newest run, or this one"
    )
    launch.add_argument("--yes", action="store_true", help="start in spite of warnings, without asking")
    launch.add_argument("--check", action="store_true", help="only check file and machine, start nothing")
    where = launch.add_mutually_exclusive_group()
    where.add_argument("--hostfile", type=Path, metavar="FILE", help="on these machines: lines NAME slots=GPUS")
    where.add_argument("--slurm", action="store_true", help="with srun, on what this SLURM job has")
    launch.add_argument(
        "--backend", choices=("trainer", "diffusion-pipe"), default="trainer", help="the program that trains"
    )
    launch.add_argument("--path", type=Path, metavar="DIR", help="the checkout of diffusion-pipe")


def launch(arguments: argparse.Namespace) -> int:
    """`dpnb launch`."""
    from dpnb.runs.launch import launch as start
    from dpnb.runs.progress import follow

    if arguments.path is not None and arguments.backend == "trainer":
        raise LaunchError("--path names a checkout of diffusion-pipe: add --backend diffusion-pipe, or leave it out.")
    if arguments.check:
        return _check(arguments)
    run = start(
        arguments.file,
        num_gpus=arguments.num_gpus,
        resume=arguments.resume,
        hostfile=arguments.hostfile,
        slurm=arguments.slurm,
        backend=arguments.backend,
        checkout=arguments.path,
        ask=lambda: arguments.yes or _agreed(),
    )
    print(run.path, flush=True)
    if not arguments.wait:
        return 0
    code = follow(run)
    return 0 if code is None else shell_code(code)


def _agreed() -> bool:
    """Whether the person at the terminal wants to start in spite of the warnings; a script has nobody to ask."""
    if not sys.stdin.isatty():
        return True
    print("start all the same? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _check(arguments: argparse.Namespace) -> int:
    """`dpnb launch --check`: problems on stderr, on stdout what the run would be."""
    from dpnb import toml
    from dpnb.runs import backends, preflight
    from dpnb.runs.forecast import lines
    from dpnb.runs.launch import spread_of

    upstream = arguments.backend != "trainer"
    if upstream:
        backends.check_checkout(arguments.path)
    config = toml.load_run(arguments.file)
    spread = spread_of(config.training.value, arguments.num_gpus, arguments.hostfile, slurm=arguments.slurm)
    here = spread.hostfile is None and spread.allocation is None
    problems = [*config.warnings, *preflight.check(config, spread.num_gpus, here=here, upstream=upstream)]
    for problem in problems:
        print(problem, file=sys.stderr)
    if not errors_in(problems):
        for line in lines(config, spread.num_gpus):
            print(line)
    print(f"{arguments.file}: {'cannot be launched' if errors_in(problems) else 'ready to launch'}")
    return int(bool(errors_in(problems)))


# --- one run, and all ------------------------------------------------------------------------------------------------


def add_runs(command: argparse.ArgumentParser) -> None:
    """Arguments of `dpnb runs`."""
    command.add_argument("folder", nargs="?", type=Path, default=Path(), metavar="DIR")


def runs(arguments: argparse.Namespace) -> int:
    """`dpnb runs`."""
    from dpnb.runs.process import runs as table

    print(table(arguments.folder))
    return 0


def add_status(command: argparse.ArgumentParser) -> None:
    """Arguments of `dpnb status`."""
    add_one_run(command).add_argument("--json", action="store_true", help="for programs")


def status(arguments: argparse.Namespace) -> int:
    """`dpnb status`: one line, or how it ended; of a run that failed also why, and what would mend it."""
    from dpnb.runs.process import FINAL_STATES
    from dpnb.runs.progress import ending, line
    from dpnb.runs.triage import diagnose

    run = _attach(arguments)
    card = diagnose(run)
    if arguments.json:
        print(json.dumps(run.to_json() | {"triage": None if card is None else card.to_json()}, indent=1))
        return 0
    state = run.state
    print(run.path)
    print(ending(run, state) if state in FINAL_STATES else line(run.status, run.silence_seconds))
    if card is not None:
        print(card)
    for export in run.exports():
        print(f"saved: {export}")
    return 0


def add_logs(command: argparse.ArgumentParser) -> None:
    """Arguments of `dpnb logs`."""
    add_one_run(command)
    command.add_argument("-n", type=int, default=40, metavar="N", dest="lines", help="number of lines")
    command.add_argument("-f", "--follow", action="store_true", help="go on as it grows, until the run ends")


def logs(arguments: argparse.Namespace) -> int:
    """`dpnb logs`."""
    run = _attach(arguments)
    log = run.directory.console_log
    # Taken before the tail is read: what is written in between is shown twice rather than lost.
    offset = log.stat().st_size if log.exists() else 0
    for text in run.log(arguments.lines):
        print(text)
    while arguments.follow:
        over = run.is_over
        log = run.directory.console_log
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


def add_stop(stopping: argparse.ArgumentParser) -> None:
    """Arguments of `dpnb stop`."""
    how = add_one_run(stopping).add_mutually_exclusive_group()
    how.add_argument("--now", action="store_true", help="by a signal at once, instead of by its control file")
    how.add_argument("--kill", action="store_true", help="end it without saving")


def stop(arguments: argparse.Namespace) -> int:
    """`dpnb stop`: counts down to the next, harder means, and says in the end what was saved."""
    from dpnb.runs.progress import Countdown, ending
    from dpnb.runs.stopping import How

    run = _attach(arguments)
    if run.is_over:
        print(f"{run.path} has ended already: {run.state}")
        return 0
    how: How = "kill" if arguments.kill else "now" if arguments.now else "save"
    countdown = Countdown(sys.stdout)
    print(f"stopping {run.path}", flush=True)
    for step in run.stopping(how):
        countdown.show(step)
    print(ending(run, run.state))
    return 0


# --- the queue -------------------------------------------------------------------------------------------------------


def add_queue(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dpnb queue`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name: str, words: str) -> argparse.ArgumentParser:
        made = actions.add_parser(name, help=words)
        made.add_argument("--folder", type=Path, default=Path("dpnb-queue"), metavar="DIR", help="where it is kept")
        return made

    add = action("add", "put training files at its end, and start it")
    add.add_argument("files", type=Path, nargs="+", metavar="FILE")
    add.add_argument("--num-gpus", type=positive, metavar="N")
    add.add_argument("--gpus", metavar="0,1", help="the GPUs to use; runs on others go on beside them")
    action("list", "show what waits, runs and is over")
    action("start", "go on with what waits, after a restart of the machine")
    cancel = action("cancel", "take out what waits, or save and stop what runs")
    cancel.add_argument("number", type=positive, nargs="+", metavar="N")
    move = action("move", "let one that waits come earlier or later")
    move.add_argument("number", type=positive, metavar="N")
    move.add_argument("place", type=positive, metavar="PLACE", help="1 is next")


def queue(arguments: argparse.Namespace) -> int:
    """`dpnb queue`."""
    from dpnb.runs.queue import Queue

    line: Any = Queue(arguments.folder)
    if arguments.action == "add":
        gpus = None if arguments.gpus is None else [int(part) for part in arguments.gpus.split(",") if part.isdigit()]
        for file in arguments.files:
            line.add(file, num_gpus=arguments.num_gpus, gpus=gpus)
        line.start()
    elif arguments.action == "start":
        line.start()
    elif arguments.action == "cancel":
        for number in arguments.number:
            line.cancel(number)
    elif arguments.action == "move":
        line.move(arguments.number, arguments.place)
    print(line)
    return 0
