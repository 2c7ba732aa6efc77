"""From a row of the table to a complete Training and its Dataset."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from dpnb.errors import ConfigError, Problem
from dpnb.presets.memory import Fit, fit
from dpnb.presets.table import MEMORIES_GB, ROWS, Row
from dpnb.schema.adapter import LoraAdapter
from dpnb.schema.dataset import Dataset, Directory
from dpnb.schema.families.base import TextEncoder
from dpnb.schema.model import model_of
from dpnb.schema.optimizer import AdamW, AdamW8bit
from dpnb.schema.sample import Prompt, Sampling
from dpnb.schema.training import Training

USUAL_GB = 24  # what a plain name means, where the model fits
BETAS = [0.9, 0.99]
PROMPTS = ("a photo of a cat on a wooden table", "a lighthouse on a cliff at dusk, oil painting")
TRIGGER_PROMPTS = ("a photo of [trigger] on a wooden table", "[trigger] in the snow, seen from afar")


class Preset(NamedTuple):
    """A name of the list: its row, the memory of the card in GB, and how the run fits it."""

    name: str
    model: str
    memory_gb: int
    row: Row
    fit: Fit

    @property
    def family(self) -> str:
        """The `type` of [model]."""
        return self.row.family or self.model

    @property
    def folder(self) -> str:
        """Where the model's files are looked for unless another folder is given."""
        return f"models/{self.model}"


@cache
def every_preset() -> dict[str, Preset]:
    """All presets by name, `flux-24gb`, model by model; only sizes at which the estimate fits the card."""
    found = {}
    for model, row in ROWS.items():
        for memory in MEMORIES_GB:
            if memory in row.sizes and (way := fit(row.network, row.sizes[memory], row.rank, memory)) is not None:
                name = f"{model}-{memory}gb"
                found[name] = Preset(name, model, memory, row, way)
    return found


def names() -> list[str]:
    """The names of all presets. A name without its size, `flux`, stands for 24 GB, or the nearest size there is."""
    return list(every_preset())


def find(name: str) -> Preset:
    """The preset of a name. Raises `ConfigError` with the nearest names for one that is not there."""
    presets = every_preset()
    sizes = [preset for preset in presets.values() if preset.model == name]
    if sizes:
        return min(sizes, key=lambda preset: abs(preset.memory_gb - USUAL_GB))
    if name in presets:
        return presets[name]
    hint = "`dpnb new --list` shows all of them."
    if near := _nearest(name):
        hint = f"Nearest: {', '.join(near)}. {hint}"
    raise ConfigError([Problem("error", "value", (), f"there is no preset '{name}'.", hint)])


def _nearest(name: str) -> list[str]:
    """Names that a person may have meant: other sizes of the same model first."""
    said = name.lower()
    model = said.rpartition("-")[0] if said.endswith("gb") else said
    same = [preset.name for preset in every_preset().values() if preset.model == model]
    return same or difflib.get_close_matches(said, [*ROWS, *every_preset()], n=3)


def preset(
    name: str,
    *,
    model_dir: Path | str | None = None,
    pictures: Path | str = "pictures",
    output_dir: Path | str = "runs",
    dataset_toml: Path | str = "dataset.toml",
    prompts: Sequence[str] | None = None,
    trigger_word: str = "",
) -> tuple[Training, Dataset]:
    """The training and dataset of a preset, `flux-24gb` or just `flux`.

    `model_dir` is the folder of the model's files, models/<model> unless given; `pictures` the folder of pictures or
    clips with their captions. `prompts` are drawn while training; unset gives two examples. Raises `ConfigError` for
    a name that is not there.
    """
    found = find(name)
    row, size = found.row, found.row.sizes[found.memory_gb]
    if prompts is None:
        prompts = TRIGGER_PROMPTS if trigger_word else PROMPTS
    training = Training(
        output_dir=str(output_dir),
        dataset=str(dataset_toml),
        epochs=row.epochs,
        trigger_word=trigger_word,
        micro_batch_size_per_gpu=size.batch,
        gradient_accumulation_steps=max(1, row.batch // size.batch),
        activation_checkpointing="unsloth" if found.fit.offload else True,
        blocks_to_swap=found.fit.blocks_to_swap,
        warmup_steps=20,
        save_every_n_epochs=row.save_every,
        checkpoint_every_n_minutes=30.0,
        model=_model(found, model_dir),
        adapter=LoraAdapter(rank=row.rank, dtype="float32"),
        optimizer=(AdamW8bit if found.fit.eight_bit_optimizer else AdamW)(lr=row.lr, betas=BETAS),
        sample=_sampling(row, max(size.resolutions), prompts),
    )
    return training, _dataset(found, pictures)


def _model(found: Preset, model_dir: Path | str | None) -> Any:  # noqa: ANN401 - the section of any family
    section = model_of(found.family)
    folder = Path(found.folder if model_dir is None else model_dir)
    values: dict[str, Any] = {**found.row.model}
    for key, file in found.row.paths.items():
        name, _, kind = key.partition(":")
        path = str(folder / file)
        values[name] = [TextEncoder(path=path, type=kind)] if kind else path
    if found.fit.float8:
        storage = "transformer_dtype" if "transformer_dtype" in section.model_fields else "diffusion_model_dtype"
        values[storage] = found.fit.float8
    return section(**values)


def _sampling(row: Row, side_px: int, prompts: Sequence[str]) -> Sampling | None:
    if not prompts:
        return None
    return Sampling(
        prompts=[Prompt(text=text) for text in prompts],
        every_n_epochs=row.save_every,
        width=side_px,
        height=side_px,
        steps=row.steps,
        true_cfg=row.true_cfg,
    )


def _dataset(found: Preset, pictures: Path | str) -> Dataset:
    row, size = found.row, found.row.sizes[found.memory_gb]
    folders = [Directory(path=str(pictures))]
    if row.size_buckets:
        return Dataset(size_buckets=[list(bucket) for bucket in row.size_buckets], directory=folders)
    sides: list[int | float] = [*size.resolutions]
    return Dataset(
        resolutions=sides,
        enable_ar_bucket=True,
        min_ar=0.5,
        max_ar=2.0,
        num_ar_buckets=7,
        frame_buckets=list(size.frames),
        directory=folders,
    )
