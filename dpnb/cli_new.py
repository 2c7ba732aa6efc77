"""`dpnb new PRESET -o DIR`: a training and a dataset file to start from, with comments.

The files say what a preset says (dpnb/presets) and nothing that is not theirs to know: which paths are not there yet,
where the model comes from, and what dpnb's own trainer does not act on yet is printed, not written.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from dpnb.errors import ConfigError, Problem

if TYPE_CHECKING:
    from dpnb.presets import Preset
    from dpnb.schema.dataset import Dataset
    from dpnb.schema.training import Training

PROFILES = ("dpnb", "diffusion-pipe")


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The command line of `dpnb new`."""
    command.add_argument("preset", nargs="?", metavar="PRESET", help="name of a preset, such as flux or wan-48gb")
    command.add_argument("-o", "--out", type=Path, metavar="DIR", help="folder for run.toml and dataset.toml")
    command.add_argument("--list", action="store_true", help="show all presets instead")
    command.add_argument(
        "--profile", choices=PROFILES, default="dpnb", help="who will read the files; diffusion-pipe: its keys alone"
    )
    command.add_argument("--pictures", type=Path, metavar="DIR", help="folder of pictures or clips with captions")
    command.add_argument("--model-dir", type=Path, metavar="DIR", help="folder of the model's files")
    command.add_argument("--force", action="store_true", help="replace files that are there already")
    command.set_defaults(usage=command.error)


def run(arguments: argparse.Namespace) -> int:
    """Carry the command out. Raises `ConfigError` for an unknown preset, one that the profile cannot say, and files
    that would be overwritten; nothing is written then."""
    from dpnb import presets, toml
    from dpnb.runs.rundir import write_text

    if arguments.list:
        print("\n".join(_list(list(presets.every_preset().values()))))
        return 0
    if arguments.preset is None or arguments.out is None:
        arguments.usage("say PRESET and -o DIR, or --list to see the presets")
    found = presets.find(arguments.preset)
    training_file, dataset_file = arguments.out / "run.toml", arguments.out / "dataset.toml"
    upstream = arguments.profile == "diffusion-pipe"
    training, dataset = presets.preset(
        found.name,
        model_dir=arguments.model_dir,
        pictures=arguments.pictures or "pictures",
        dataset_toml=dataset_file,
        prompts=[] if upstream else None,
    )
    texts = {
        training_file: toml.dump(training, comments=True, profile=arguments.profile),
        dataset_file: toml.dump(dataset, comments=True, profile=arguments.profile),
    }
    if not arguments.force:
        _refuse_to_overwrite(list(texts))
    arguments.out.mkdir(parents=True, exist_ok=True)
    for file, text in texts.items():
        write_text(file, text)
    memory = f"about {found.fit.gib:.0f} of {found.memory_gb} GiB, estimated"
    print(f"wrote {training_file} and {dataset_file}: {_described(found)}, {memory}")
    print("\n".join(_next_steps(found, training, dataset, training_file, upstream=upstream)))
    return 0


def _refuse_to_overwrite(files: list[Path]) -> None:
    there = [
        Problem("error", "path", (), "is there already.", "Name another folder, or add --force to replace it.", str(f))
        for f in files
        if f.exists()
    ]
    if there:
        raise ConfigError(there)


def _list(found: list[Preset]) -> Iterator[str]:
    """One line for each preset, under a headline."""
    width = max(len(preset.name) for preset in found)
    yield f"{'preset':<{width}}  memory  what"
    for preset in found:
        yield f"{preset.name:<{width}}  {preset.fit.gib:2.0f}/{preset.memory_gb}   {_described(preset)}"
    yield "Memory is what a run takes of what a card has, in GiB; it and the settings are estimates, not measured."
    yield "A name without its size means 24 GB, or the nearest size there is."


def _described(preset: Preset) -> str:
    """What is trained, at which size, with which savings."""
    size, fit = preset.row.sizes[preset.memory_gb], preset.fit
    words = [f"{preset.row.what}: {max(size.resolutions)} px"]
    if max(size.frames) > 1:
        words.append(f"{max(size.frames)} frames")
    if size.batch > 1:
        words.append(f"{size.batch} at a time")
    if fit.float8:
        words.append(fit.float8)
    if fit.blocks_to_swap:
        words.append(f"swaps {fit.blocks_to_swap} blocks")
    return ", ".join(words)


def _next_steps(
    found: Preset, training: Training, dataset: Dataset, training_file: Path, *, upstream: bool
) -> Iterator[str]:
    """What is to be filled in: paths that are not there, where the model is from, what the trainer does not do yet."""
    from dpnb.errors import errors_in
    from dpnb.schema.paths import check_paths
    from dpnb.schema.profiles import not_here

    folder = dataset.directory[0].path
    missing = [problem.key for problem in check_paths(training)]
    if missing:
        yield f"to download: {found.row.source} from Hugging Face; then correct {', '.join(missing)}"
    if check_paths(dataset):
        yield f"to fill: {folder}, with pictures or clips and a caption for each (name.jpg, name.txt)"
    if training.sample is not None:
        yield "to write: sample.prompts, what is drawn while training"
    refused = [] if upstream else errors_in(not_here(training))
    if refused:
        keys = ", ".join(problem.key for problem in refused)
        yield f"not yet in dpnb's own trainer, which would refuse to start: {keys}"
    yield f"then: dpnb validate {training_file}"
