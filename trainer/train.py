"""The whole story of a training run.

    deepspeed --module trainer.train --config run.toml [--run-dir DIR] [--resume_from_checkpoint [NAME]]

run.toml -> schema -> family -> scan, bucket, cache -> layers and adapter -> engine -> loop. Each step has its module;
this file only tells them in order. Errors of the user end with exit code 1 and one line each; SIGTERM and Ctrl+C
finish the step, save and exit with 0; before the first step there is nothing to save, and the run just ends.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from dpnb.errors import ConfigError, DpnbError, errors_in
from dpnb.toml import RunConfig, beyond_trainer, load_run

if TYPE_CHECKING:
    from dpnb.runs.rundir import RunDir
    from trainer.callbacks import StopSignal
    from trainer.engine import World
    from trainer.report import Report


def main(argv: list[str] | None = None) -> int:
    """Parse the command line, check the configuration before anything heavy is imported, then train."""
    arguments = parse(argv)
    is_first = os.environ.get("RANK", "0") == "0"
    try:
        config = load_run(arguments.config)
        beyond = beyond_trainer(config)
        if errors_in(beyond):
            raise ConfigError(beyond)
    except DpnbError as error:
        if is_first:  # every process finds the same
            print(located(error, arguments.config), file=sys.stderr, flush=True)
        return 1
    for warning in [*config.warnings, *beyond] if is_first else ():
        print(warning, file=sys.stderr, flush=True)
    try:
        train(config, arguments)
    except KeyboardInterrupt:  # while libraries are imported; later it is caught
        return 130
    except DpnbError as error:
        from trainer.engine import PeerError

        if not isinstance(error, PeerError):
            print(located(error, arguments.config), file=sys.stderr, flush=True)
        return 1
    return 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line; `--local_rank` is added by the deepspeed launcher."""
    parser = argparse.ArgumentParser(prog="trainer.train", description="Train with dpnb's run.toml.")
    parser.add_argument("--config", type=Path, required=True, help="the training file")
    parser.add_argument("--run-dir", type=Path, help="use this run directory instead of a new one below output_dir")
    parser.add_argument(
        "--resume_from_checkpoint",
        nargs="?",
        const=True,
        help="go on with the newest run in output_dir, or with the named one",
    )
    parser.add_argument("--local_rank", type=int, default=-1, help=argparse.SUPPRESS)
    parser.add_argument("--deepspeed", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def train(config: RunConfig, arguments: argparse.Namespace) -> None:
    """One run: its directory, its voice, and its end. Raises `DpnbError` in the process that failed first."""
    from trainer import callbacks, session
    from trainer.engine import join_world, one_voice
    from trainer.report import Report

    training = config.training.value
    session.quiet_libraries()
    stop = callbacks.StopSignal()
    with stop.caught(), ExitStack() as claim:
        world = join_world()
        with one_voice():
            run, resume_from = session.open_run(training, arguments, world)
            claim.enter_context(session.claimed(run))
        with Report(run, speaks=world.is_first, x_axis_examples=training.x_axis_examples) as report, one_voice():
            report.keep_request(session.request_files(run, config))
            try:
                ending = learn(config, run, resume_from, world, stop, report)
            except callbacks.Stopped:
                ending = "stopped before the first step"
            report.phase("done", ending)
            report.note_exit(0)


def learn(
    config: RunConfig, run: RunDir, resume_from: Path | None, world: World, stop: StopSignal, report: Report
) -> str:
    """From the configuration to the last export; tells how it ended. Raises `Stopped` before the first step."""
    from trainer import callbacks, checkpoint, families, session
    from trainer.data.prepare import prepare
    from trainer.evaluate import noised

    training = config.training.value
    report.phase("loading", "reading the configuration")
    family = families.build(training.model)
    data = prepare(config, family, world, report, stop.seen.is_set)
    steps_per_epoch = data.train.steps_per_epoch

    callbacks.check_stop(stop, run)
    report.phase("loading", "loading the network")
    network = session.build_network(family, training, world, steps_per_epoch)
    engine = network.engine
    now = callbacks.Progress()
    with session.open_loaders(data, training, engine.replica) as (loader, held_out):
        if resume_from is not None:
            now, place = checkpoint.load(engine, resume_from, training, network.average)
            loader.load_state_dict(place)
            report.start_at(step=now.step, epoch=now.epoch, examples=now.examples)
            report.say(f"resumed {resume_from.name} of {run.path}")
        calendar = callbacks.Calendar(training, run, world, stop, steps_per_epoch, now, engine.optimizer)
        report.totals(steps=calendar.total_steps, epochs=training.epochs)
        report.open_charts(first_step=now.step + 1)
        acts = session.Acts(config, family, data, network, run, world, report, held_out)
        callbacks.check_stop(stop, run)
        if resume_from is None:
            acts.before_first_step(now)
            callbacks.check_stop(stop, run)

        report.phase("training")
        due = callbacks.Due(quit=now.step >= calendar.total_steps)
        while not due.quit:
            started = time.monotonic()
            checkpoint.seed_step(training.seed, now.step, world.rank)
            batches = [next(loader) for _ in range(training.gradient_accumulation_steps)]
            # One by one, as this stage asks for them: only those at both ends of the network do.
            loss = engine.train_step(noised(family, data.encoded(batch), training.loss) for batch in batches)
            now.step += 1
            now.examples += sum(batch.size for batch in batches) * engine.replicas
            now.epoch = -(-now.step // steps_per_epoch)
            acts.after_step(now, loss, seconds=time.monotonic() - started)
            due = calendar.due(now)
            if acts.measure(due, now):
                due = calendar.ending(due, now)
            acts.carry_out(due, now, loader.state_dict())
    return acts.last_words(now, calendar.total_steps)


def located(error: DpnbError, config: Path) -> str:
    """An error in the user's words; a configuration error found late still names the file."""
    if isinstance(error, ConfigError):
        return "\n".join(str(p if p.file else p.at(config, None, None)) for p in error.problems)
    return f"error: {error}"


if __name__ == "__main__":
    sys.exit(main())
