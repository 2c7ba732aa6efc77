"""The whole of dpnb on a laptop in a few minutes: `dpnb demo --out DIR`.

    DIR/dataset/ held-out/    drawn pictures of a creature that the base model has never seen, with captions
    DIR/known/                pictures of things that it has seen, so that it does not forget them
    DIR/config/               run.toml, dataset.toml, held-out.toml: ordinary files, to look at and to launch again
    DIR/runs/<time>/          the run directory
    DIR/contact-sheet.png     rows = steps, columns = prompts
    DIR/loss.png              the loss

dpnb never imports the trainer, so the embedded model and the drawing are asked for as commands.
"""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dpnb import presets, report, toml
from dpnb.errors import LaunchError
from dpnb.runs.events import read_all
from dpnb.runs.launch import launch
from dpnb.runs.process import Run
from dpnb.runs.progress import follow
from dpnb.runs.rundir import write_text

PICTURES, HELD_OUT_PICTURES = 24, 8
SEEDS = {"dataset": 0, "held-out": 1, "known": 2}


@dataclass(frozen=True, slots=True)
class Demo:
    """The folders of one demo."""

    folder: Path

    @property
    def run_toml(self) -> Path:
        """The training file, to be launched again by hand."""
        return self.folder / "config" / "run.toml"

    @property
    def runs_dir(self) -> Path:
        """Where its runs are."""
        return self.folder / "runs"

    @property
    def contact_sheet(self) -> Path:
        """The samples of the last run."""
        return self.folder / "contact-sheet.png"

    @property
    def loss_chart(self) -> Path:
        """The loss of the last run."""
        return self.folder / "loss.png"


def run_demo(out: Path | str, *, steps: int | None = None, say: Callable[[str], None] = print) -> int:
    """Draw, configure, check, train, show; gives the run's exit code. `steps` shortens it; a repeat adds a run."""
    demo = Demo(Path(out).resolve())
    say(f"1/4  drawing {PICTURES} pictures of a '{presets.TINY_TRIGGER}', which the base model does not know,")
    say(f"     and {PICTURES} of things that it knows, so that it does not forget them")
    prepare(demo, steps=steps)
    say(f"2/4  wrote {shown(demo.run_toml)} and checked it against this machine")
    run = launch(demo.run_toml)
    say("3/4  training in the background; it goes on when this terminal closes (Ctrl+C: save and stop)")
    say(f"     {shown(run.path)}")
    code = follow(run)
    if code is None:
        return 0
    say("4/4  results")
    for line in results(demo, run):
        say(f"     {line}")
    return code


def prepare(demo: Demo, *, steps: int | None = None) -> None:
    """Draw the pictures and write the three TOML files."""
    model_dir = _trainer("trainer.tiny").strip()
    config = demo.run_toml.parent
    config.mkdir(parents=True, exist_ok=True)
    for name, seed in SEEDS.items():
        count = HELD_OUT_PICTURES if name == "held-out" else PICTURES
        options = ["--count", str(count), "--seed", str(seed), *(["--known"] if name == "known" else [])]
        _trainer("trainer.tiny.drawing", str(demo.folder / name), *options)
    total = presets.TINY_STEPS if steps is None else steps
    training, dataset = presets.tiny_lora(
        model_dir=model_dir,
        pictures=demo.folder / "dataset",
        known_pictures=demo.folder / "known",
        output_dir=demo.runs_dir,
        dataset_toml=config / "dataset.toml",
        held_out_toml=config / "held-out.toml",
        cache_dir=demo.folder / "cache",
        steps=total,
        epochs=math.ceil(total * presets.TINY_BATCH / (2 * PICTURES)),
        sample_every_n_steps=max(1, min(presets.TINY_SAMPLE_EVERY_N_STEPS, total // 3)),
    )
    unseen = dataset.directory[0].model_copy(update={"path": str(demo.folder / "held-out")})
    held_out = dataset.model_copy(update={"directory": [unseen]})
    for path, value in (
        (config / "dataset.toml", dataset),
        (config / "held-out.toml", held_out),
        (demo.run_toml, training),
    ):
        write_text(path, toml.dump(value, comments=True))


def results(demo: Demo, run: Run) -> list[str]:
    """Draw the contact sheet and the chart of a run, and say where everything is."""
    lines = []
    samples = run.samples()
    if samples:
        report.contact_sheet(samples, title=f"samples of {run.name}").save(demo.contact_sheet)
        lines.append(f"contact sheet  {shown(demo.contact_sheet)}")
    curves = {
        name: series
        for name, tag in (("training loss", "train/loss"), ("held-out loss", "held_out/loss"))
        if (series := read_all(run.path).get(tag)) is not None
    }
    if curves:
        report.loss_chart(curves, title=f"loss of {run.name}").save(demo.loss_chart)
        lines.append(f"loss chart     {shown(demo.loss_chart)}")
    exports = run.exports()
    if exports:
        lines.insert(0, f"LoRA           {shown(exports[-1] / 'adapter_model.safetensors')}")
    return [*lines, f"run            {shown(run.path)}"]


def shown(path: Path) -> str:
    """A path as short as it can be said from here."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _trainer(module: str, *arguments: str) -> str:
    """Run a command of the trainer and give what it prints."""
    done = subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        raise LaunchError(f"`python -m {module}` failed: {last}")
    return done.stdout
