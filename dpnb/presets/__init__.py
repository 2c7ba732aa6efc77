"""Starting points: each gives a complete Training and its Dataset, ready to be edited, shown, written or launched.

`names()` lists the presets of the large models, `preset(name)` makes one: every family at the memory sizes that it
fits. What a preset does not name stands at the schema's default. The rows stand in table.py, the estimate of memory
in memory.py, the demo's own preset in tiny.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from dpnb.presets.build import Preset, every_preset, find, names, preset
from dpnb.presets.table import ROWS
from dpnb.presets.tiny import (
    TINY_BATCH,
    TINY_LR,
    TINY_PROMPTS,
    TINY_RANK,
    TINY_SAMPLE_EVERY_N_STEPS,
    TINY_SAMPLER_STEPS,
    TINY_SHIFT,
    TINY_SIDE_PX,
    TINY_STEPS,
    TINY_TRIGGER,
    TINY_TRUE_CFG,
    tiny_lora,
)
from dpnb.schema.dataset import Dataset
from dpnb.schema.training import Training

__all__ = [
    "PRESETS",
    "TINY_BATCH",
    "TINY_LR",
    "TINY_PROMPTS",
    "TINY_RANK",
    "TINY_SAMPLER_STEPS",
    "TINY_SAMPLE_EVERY_N_STEPS",
    "TINY_SHIFT",
    "TINY_SIDE_PX",
    "TINY_STEPS",
    "TINY_TRIGGER",
    "TINY_TRUE_CFG",
    "Preset",
    "every_preset",
    "find",
    "flux_lora",
    "names",
    "preset",
    "tiny_lora",
]


def flux_lora(
    *,
    model_dir: Path | str = "models/flux",
    pictures: Path | str = "pictures",
    output_dir: Path | str = "runs",
    dataset_toml: Path | str = "dataset.toml",
    prompts: Sequence[str] | None = None,
    trigger_word: str = "",
    memory_gb: int = 48,
) -> tuple[Training, Dataset]:
    """A LoRA on FLUX.1 [dev] for one GPU of 16, 24, 48 (40 will do) or 80 GB: `preset` that Python can complete.

    `model_dir` is the model's folder in diffusers format; `pictures` a folder of pictures with captions.
    """
    return preset(
        f"flux-{memory_gb}gb",
        model_dir=model_dir,
        pictures=pictures,
        output_dir=output_dir,
        dataset_toml=dataset_toml,
        prompts=prompts,
        trigger_word=trigger_word,
    )


PRESETS: dict[str, Callable[[], tuple[Training, Dataset]]] = {
    name: partial(preset, name) for name in dict.fromkeys([*ROWS, *names()])
}
"""What `TrainingForm(name)` starts from: every name that `preset` takes."""
