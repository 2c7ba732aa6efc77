"""What can be known before anything heavy starts: does this machine have what the run needs?

`check` gives Problems: errors stop a launch, warnings are shown. Each check is a small function that opens headers and
asks the file system, nothing more: no torch, no model, no GPU context. What the configuration itself says wrong is
found before, by dpnb.toml and dpnb.schema.rules.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dpnb.dataset.batch import Batch
from dpnb.dataset.bucket import Plan, plan
from dpnb.dataset.complete import complete_scan
from dpnb.dataset.scan import Row
from dpnb.dataset.subsample import subsample
from dpnb.errors import DatasetError, Loc, Problem
from dpnb.runs import gpus as machine
from dpnb.runs.architecture import wrong_architecture, wrong_format, wrong_text_encoder
from dpnb.runs.safetensors import shapes
from dpnb.schema.base import Section
from dpnb.schema.dataset import Dataset, with_trigger_word
from dpnb.schema.model import FACTS
from dpnb.schema.paths import check_model_folder
from dpnb.schema.profiles import not_upstream
from dpnb.schema.training import Training
from dpnb.toml import Document, RunConfig, beyond_trainer
from dpnb.toml.places import nearest_place, places

INSTALL_HINT = "pip install 'dpnb[train]'"
_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
_OPTIMIZER_BYTES = 12  # a checkpoint holds a float32 copy and two moments of each trained number
_KEPT_CHECKPOINTS = 2
_NEARLY_FULL = 0.8
_FREE_SHARE = 0.9  # a desktop takes a little of a GPU too
_LARGE_ON_CPU_BYTES = 1 << 30
_SHOWN_FILES = 5


def check(config: RunConfig, num_gpus: int, *, here: bool = True, upstream: bool = False) -> list[Problem]:
    """Everything that would stop or surprise a run of `config` with `num_gpus` processes, errors first.

    `here`: they all run on this machine. `upstream`: diffusion-pipe trains, whose packages are its own affair.
    """
    training = config.training.value
    if upstream:
        problems = [
            *_beyond_upstream(config),
            *_gpus_suffice(training, num_gpus, here=here),
            *_folders(training),
            *wrong_architecture(training),
            *wrong_text_encoder(training),
        ]
        return _in_order(problems, config)
    beyond = beyond_trainer(config)
    if training.model.pending:
        return sorted(beyond, key=lambda problem: problem.severity != "error")  # the rest is about what it trains
    problems = [
        *beyond,
        *_packages(training),
        *_gpus_suffice(training, num_gpus, here=here),
        *(_gpus_are_free(num_gpus) if here else ()),
        *_folders(training),
        *check_model_folder(training),
        *wrong_architecture(training),
        *wrong_text_encoder(training),
        *wrong_format(_network_files(training), _network_key(training)),
    ]
    made: Plan | None = None
    for loc, document, batch in _datasets(config, num_gpus):
        found, planned = _pictures(training, document, loc, batch)
        problems += found
        made = planned if loc == ("dataset",) else made
    problems += _disk(training, made)
    return _in_order(problems, config)


def _in_order(problems: list[Problem], config: RunConfig) -> list[Problem]:
    """Each with its file, errors first."""
    file = str(config.training.path)
    problems = [problem if problem.file else problem.at(file, None, None) for problem in problems]
    return sorted(problems, key=lambda problem: problem.severity != "error")


def _beyond_upstream(config: RunConfig) -> Iterator[Problem]:
    """An error for each key that diffusion-pipe does not read or would refuse."""
    documents: list[tuple[Section, Path, str]] = [
        (config.training.value, config.training.path, config.training.text),
        (config.dataset.value, config.dataset.path, config.dataset.text),
        *((document.value, document.path, document.text) for document in config.eval_datasets.values()),
    ]
    for value, path, text in documents:
        found = places(text)
        for problem in not_upstream(value):
            yield problem.at(path, *nearest_place(found, problem.loc))


def _error(loc: Loc, message: str, suggestion: str = "") -> Problem:
    return Problem("error", "value", loc, message, suggestion)


def _warning(loc: Loc, message: str, suggestion: str = "") -> Problem:
    return Problem("warning", "value", loc, message, suggestion)


# --- packages --------------------------------------------------------------------------------------------------------


def _packages(training: Training) -> Iterator[Problem]:
    """Is the trainer installed, with its packages? Asked of the package index on disk: nothing is imported."""
    if importlib.util.find_spec("trainer") is None:
        yield _error((), "the package 'trainer' is not installed.", f"Install dpnb with its trainer: {INSTALL_HINT}")
    for name, oldest in train_requirements().items():
        if name == "bitsandbytes" and not training.optimizer.type.endswith("8bit"):
            continue
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield _error((), f"the package '{name}' is not installed.", f"Install it: {INSTALL_HINT}")
            continue
        if _numbers(version) < _numbers(oldest):
            yield _error((), f"the package '{name}' is {version}; at least {oldest} is needed.", f"Run {INSTALL_HINT}")


def train_requirements() -> dict[str, str]:
    """The packages of the extra `train` and their oldest versions ("" for any), from dpnb's own metadata."""
    try:
        lines = importlib.metadata.requires("dpnb") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    found = {}
    for line in lines:
        match = re.fullmatch(r"""([\w.-]+)\s*(?:>=([\d.]+))?[^;]*;.*extra\s*==\s*['"]train['"].*""", line)
        if match:
            found[match[1]] = match[2] or ""
    return found


def _numbers(version: str) -> tuple[int, ...]:
    """The release numbers of a version: (2, 13, 0) of 2.13.0+cpu."""
    return tuple(int(part) for part in re.findall(r"\d+", version.split("+", maxsplit=1)[0])[:3])


# --- GPUs ------------------------------------------------------------------------------------------------------------


def gpus() -> list[int]:
    """The numbers of the GPUs that a run here may use; empty means that it runs on the CPU.

    Read from the device files, because asking CUDA takes seconds and holds memory. CUDA_VISIBLE_DEVICES restricts,
    DS_ACCELERATOR=cpu denies.
    """
    if os.environ.get("DS_ACCELERATOR") == "cpu":
        return []
    # A container may hold /dev/nvidia3 alone, which CUDA calls 0: the device files tell the number, not the names.
    count = sum(path.name[6:].isdigit() for path in Path("/dev").glob("nvidia[0-9]*"))
    if Path("/dev/kfd").exists():  # AMD: one render node for each GPU
        count = len(list(Path("/dev/dri").glob("renderD*")))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return list(range(count))
    parts = [part.strip() for part in visible.split(",") if part.strip()]
    if any(not part.isdigit() for part in parts):
        return list(range(min(count, len(parts))))
    return [int(part) for part in parts if int(part) < count]


def gpus_are_restricted() -> bool:
    """True when the environment names the GPUs to use, by number."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible is not None and all(part.strip().isdigit() for part in visible.split(","))


def _gpus_suffice(training: Training, num_gpus: int, *, here: bool = True) -> Iterator[Problem]:
    stages = training.pipeline_stages
    if num_gpus < 1:
        yield _error(
            (), f"{num_gpus} GPUs were asked for.", "Ask for at least 1; without a GPU that means one process."
        )
    elif num_gpus % stages:
        fitting = max(1, num_gpus // stages) * stages
        yield _error(
            ("pipeline_stages",),
            f"{num_gpus} GPUs cannot be shared out to {stages} stages each.",
            f"Use {fitting} GPUs.",
        )
    if not here:
        return
    available = gpus()
    if available and num_gpus > len(available):
        allowed = " (CUDA_VISIBLE_DEVICES allows no more)" if gpus_are_restricted() else ""
        yield _error(
            (),
            f"{num_gpus} GPUs were asked for, {len(available)} are here{allowed}.",
            f"Use {len(available)} at most.",
        )
    if os.environ.get("CUDA_VISIBLE_DEVICES") and not gpus_are_restricted():
        yield _warning((), "CUDA_VISIBLE_DEVICES names GPUs by UUID, which DeepSpeed passes over.", "Use numbers.")
    if not available and _weights_bytes(_network_files(training)) > _LARGE_ON_CPU_BYTES:
        yield _warning(
            ("model", "diffusers_path"), "there is no GPU: a model of this size takes hours a step on a CPU."
        )


def _gpus_are_free(num_gpus: int) -> Iterator[Problem]:
    """A warning for each GPU that would be used while another program holds much of its memory."""
    used = gpus()[:num_gpus]
    for gpu in machine.query() if used else []:
        if gpu.index in used and gpu.free_mib < _FREE_SHARE * gpu.total_mib:
            yield _warning(
                (),
                f"GPU {gpu.index} ({gpu.name}) has {gpu.free_mib / 1024:.1f} of {gpu.total_mib / 1024:.1f} GiB free: "
                "another program uses it.",
                "End that (nvidia-smi names it), or choose others with CUDA_VISIBLE_DEVICES.",
            )


# --- folders ---------------------------------------------------------------------------------------------------------


def _folders(training: Training) -> Iterator[Problem]:
    for key, value in (("output_dir", training.output_dir), ("cache_dir", training.cache_dir)):
        if value is None:
            continue
        reason = _not_writable(existing_ancestor(Path(value)))
        if reason:
            yield _error((key,), f"'{value}' cannot be written to: {reason}.", "Choose another folder or free it.")


def _not_writable(folder: Path) -> str:
    """Why no file can be made in a folder, or an empty string. Tried, not asked: a full disk has permissions too."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
            file.flush()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def existing_ancestor(path: Path) -> Path:
    """The path itself, or the nearest folder above it that is there."""
    absolute = path.absolute()
    return next(folder for folder in (absolute, *absolute.parents) if folder.is_dir())


# --- the model -------------------------------------------------------------------------------------------------------


def _network_files(training: Training) -> list[Path]:
    """The weight files of the network that is trained."""
    if training.model.transformer_path is not None:
        return [Path(training.model.transformer_path)]
    return sorted((Path(training.model.diffusers_path) / "transformer").glob("*.safetensors"))


def _network_key(training: Training) -> str:
    return "diffusers_path" if training.model.transformer_path is None else "transformer_path"


def _weights_bytes(files: list[Path]) -> int:
    return sum(file.stat().st_size for file in files if file.is_file())


# --- the pictures ----------------------------------------------------------------------------------------------------


def _datasets(config: RunConfig, num_gpus: int) -> Iterator[tuple[Loc, Document[Dataset], Batch]]:
    training = config.training.value
    yield ("dataset",), config.dataset, Batch.of(training, gpus=num_gpus)
    for position, item in enumerate(training.eval_datasets):
        yield (
            ("eval_datasets", position),
            config.eval_datasets[item.name],
            Batch.of_evaluation(training, gpus=num_gpus),
        )


def _pictures(
    training: Training, document: Document[Dataset], loc: Loc, batch: Batch
) -> tuple[list[Problem], Plan | None]:
    """What is wrong with the pictures of one dataset file, and what an epoch of it would be."""
    problems: list[Problem] = []
    made = None
    try:
        dataset = with_trigger_word(document.value, training.trigger_word)
        seen = complete_scan(dataset, workers=training.map_num_proc)
        problems += [_warning(loc, note) for note in seen.notes]
        made = plan(seen.rows, dataset, FACTS[training.model.type], **batch._asdict())
        made = subsample(made, dataset.subsample_ratio)
        problems += [_warning(loc, warning) for warning in made.warnings]
        problems += [_warning(loc, _left_out(unused)) for unused in [[r for r in seen.rows if not r.used]] if unused]
    except DatasetError as error:
        problems.append(_error(loc, f"{error}"))
    return [problem.at(document.path, None, None) for problem in problems], made


def planned(config: RunConfig, num_gpus: int) -> Plan | None:
    """What an epoch would be; None where the dataset has nothing to train on, or cannot be read."""
    loc, document, batch = next(_datasets(config, num_gpus))
    return _pictures(config.training.value, document, loc, batch)[1]


def _left_out(rows: list[Row]) -> str:
    words = "; ".join(f"{row.path.name}: {row.reason}" for row in rows[:_SHOWN_FILES])
    more = f"; and {len(rows) - _SHOWN_FILES} more" if len(rows) > _SHOWN_FILES else ""
    return f"{len(rows)} file{'s' * (len(rows) != 1)} left out: {words}{more}"


# --- the disk --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a run will write, at most: so many exports and checkpoints of so many bytes each."""

    exports: int
    export_bytes: int
    checkpoint_bytes: int

    @property
    def total_bytes(self) -> int:
        """All of it together."""
        return self.exports * self.export_bytes + _KEPT_CHECKPOINTS * self.checkpoint_bytes


def forecast(training: Training, made: Plan) -> Forecast:
    """Upper bound of what a run writes. A LoRA is counted as if it stood on every matrix of the network."""
    matrices = [shape for file in _network_files(training) for shape in shapes(file).values()]
    if training.adapter is None:
        trained = sum(math.prod(shape) for shape in matrices)
        dtype = training.save_dtype or training.model.dtype
    else:
        trained = training.adapter.rank * sum(sum(shape) for shape in matrices if len(shape) == 2)
        dtype = training.save_dtype or training.adapter.dtype or training.model.dtype
    steps = training.epochs * made.steps_per_epoch
    if training.max_steps is not None:
        steps = min(steps, training.max_steps)
    return Forecast(_exports(training, made, steps), trained * _BYTES[dtype], trained * _OPTIMIZER_BYTES)


def _exports(training: Training, made: Plan, steps: int) -> int:
    """How often is saved; the last step is always saved too."""
    per_step = made.examples_per_epoch / max(1, made.steps_per_epoch)
    count = 1
    if training.save_every_n_epochs is not None:
        count += steps // max(1, training.save_every_n_epochs * made.steps_per_epoch)
    if training.save_every_n_examples is not None:
        count += int(steps * per_step) // training.save_every_n_examples
    elif training.save_every_n_steps is not None:
        count += steps // training.save_every_n_steps
    return count


def _disk(training: Training, made: Plan | None) -> Iterator[Problem]:
    if made is None:
        return
    expected = forecast(training, made)
    free = shutil.disk_usage(existing_ancestor(Path(training.output_dir))).free
    needed = expected.total_bytes
    words = (
        f"about {needed / 2**30:.1f} GiB will be written ({expected.exports} exports of "
        f"{expected.export_bytes / 2**30:.2f} GiB, and checkpoints); {free / 2**30:.1f} GiB are free."
    )
    hint = "Save less often, lower the rank, or choose an output_dir on another disk."
    if needed > free:
        yield _error(("output_dir",), words, hint)
    elif needed > _NEARLY_FULL * free:
        yield _warning(("output_dir",), words, hint)
