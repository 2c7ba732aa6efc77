"""The LoRA on the embedded tiny model that `dpnb demo` trains."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dpnb.schema.adapter import LoraAdapter
from dpnb.schema.dataset import Dataset, Directory
from dpnb.schema.families.flux import FluxModel
from dpnb.schema.optimizer import AdamW
from dpnb.schema.sample import Prompt, Sampling
from dpnb.schema.training import EvalDataset, Training

# The demo: long enough that a person sees the creature appear, short enough for two cores and three minutes.
TINY_STEPS = 300
TINY_SAMPLE_EVERY_N_STEPS = 100
TINY_RANK = 16
TINY_LR = 3e-3
TINY_BATCH = 8
TINY_SHIFT = 2.0  # in so small a picture the outline is decided close to pure noise
TINY_TRUE_CFG = 2.0  # the model is not guidance-distilled: a negative prompt makes its outlines crisp
TINY_SIDE_PX = 64
TINY_SAMPLER_STEPS = 16
TINY_TRIGGER = "zorbi"
TINY_PROMPTS = (
    "a zorbi on a white background",
    "a zorbi on a blue background",
    "a zorbi on a pink background",
    "a red circle on a white background",
)


def tiny_lora(
    *,
    model_dir: Path | str,
    pictures: Path | str,
    output_dir: Path | str,
    known_pictures: Path | str | None = None,
    dataset_toml: Path | str = "dataset.toml",
    held_out_toml: Path | str | None = None,
    cache_dir: Path | str | None = None,
    prompts: Sequence[str] = TINY_PROMPTS,
    trigger_word: str = TINY_TRIGGER,
    steps: int = TINY_STEPS,
    epochs: int = 1000,
    sample_every_n_steps: int = TINY_SAMPLE_EVERY_N_STEPS,
    rank: int = TINY_RANK,
    seed: int = 0,
) -> tuple[Training, Dataset]:
    """A LoRA on the embedded tiny Flux, in minutes on a CPU. `model_dir` is what `python -m trainer.tiny` prints.

    `known_pictures` show what the model draws well already: trained along with the new ones, they keep it so.
    `dataset_toml` is where the dataset will be written; `held_out_toml` names a dataset file to evaluate on. The run
    ends after `steps` or `epochs`, whichever comes first.
    """
    held_out = [] if held_out_toml is None else [EvalDataset(name="held_out", config=str(held_out_toml))]
    training = Training(
        output_dir=str(output_dir),
        dataset=str(dataset_toml),
        epochs=epochs,
        max_steps=steps,
        seed=seed,
        micro_batch_size_per_gpu=TINY_BATCH,
        warmup_steps=min(10, steps // 4),
        lr_scheduler="cosine",
        cache_dir=None if cache_dir is None else str(cache_dir),
        eval_datasets=held_out,
        eval_every_n_steps=sample_every_n_steps if held_out else None,
        save_every_n_steps=max(1, steps // 2),
        checkpoint_every_n_minutes=1.0,
        model=FluxModel(diffusers_path=str(model_dir), dtype="float32", shift=TINY_SHIFT),
        adapter=LoraAdapter(rank=rank),
        optimizer=AdamW(lr=TINY_LR),
        sample=Sampling(
            prompts=[Prompt(text=text) for text in prompts],
            every_n_steps=sample_every_n_steps,
            width=TINY_SIDE_PX,
            height=TINY_SIDE_PX,
            steps=TINY_SAMPLER_STEPS,
            true_cfg=TINY_TRUE_CFG,
        ),
    )
    # The trigger word belongs to the new pictures alone: it would be put before the captions of the known ones.
    folders = [Directory(path=str(pictures), trigger_word=trigger_word)]
    if known_pictures is not None:
        folders.append(Directory(path=str(known_pictures)))
    sides: list[int | float] = [TINY_SIDE_PX]
    return training, Dataset(resolutions=sides, directory=folders)
