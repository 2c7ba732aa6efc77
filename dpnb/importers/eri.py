"""EriDiffusion's configuration keys and what each is here; ai_toolkit.py reads its files, whose layout is the same.

`PARAMETERS` is for the docs: the dotted key as it stands in such a file, our dotted key ("" for none), and a note.
"""

from __future__ import annotations

from dpnb.schema.dataset import Dataset
from dpnb.schema.foreign import ERI, Row, rows
from dpnb.schema.sample import Sampling
from dpnb.schema.training import Training

NAMES = (
    *(f"network.{key}" for key in ("type", "linear", "linear_alpha", "conv", "conv_alpha")),
    *(f"save.{key}" for key in ("dtype", "save_every", "max_step_saves_to_keep", "push_to_hub")),
    *(
        f"datasets.{key}"
        for key in (
            "folder_path",
            "caption_ext",
            "caption_dropout_rate",
            "shuffle_tokens",
            "cache_latents_to_disk",
            "resolution",
        )
    ),
    *(
        f"train.{key}"
        for key in (
            "batch_size",
            "steps",
            "gradient_accumulation_steps",
            "train_unet",
            "train_text_encoder",
            "gradient_checkpointing",
            "noise_scheduler",
            "optimizer",
            "lr",
            "skip_first_sample",
            "disable_sampling",
            "linear_timesteps",
            "ema_config.use_ema",
            "ema_config.ema_decay",
            "dtype",
            "bypass_guidance_embedding",
        )
    ),
    *(
        f"sample.{key}"
        for key in (
            "sampler",
            "sample_every",
            "width",
            "height",
            "prompts",
            "neg",
            "seed",
            "walk_seed",
            "guidance_scale",
            "sample_steps",
        )
    ),
)


_PART = "It is part of the checkpoint or of the model's folder."
DOCUMENTED: dict[str, Row] = {
    "model.name_or_path": ("model.diffusers_path", "sdxl and sd15: model.checkpoint_path."),
    "model.vae_path": ("model.vae_path", "Not for sdxl and sd15, whose checkpoint holds it."),
    "model.clip_l_path": ("", _PART),
    "model.clip_g_path": ("", _PART),
    "train.learning_rate": ("optimizer.lr", ""),
    "train.max_train_steps": ("max_steps", "epochs has to be given as well: the run ends with whichever comes first."),
    "train.mixed_precision": ("model.dtype", ""),
    "snr_gamma": ("model.min_snr_gamma", "sdxl and sd15 alone have it."),
    "max_checkpoints": ("keep_last_n_checkpoints", ""),
    "validation_prompts": ("sample.prompts", ""),
    "validation_interval": ("sample.every_n_steps", ""),
}
"""What its documentation calls things besides, though its files do not."""


def _home(name: str) -> Row:
    """Our key and a note; a key that is called the same here stands in no table of foreign keys."""
    table, _, key = name.rpartition(".")
    known = rows(ERI, "dataset" if table == "datasets" else "training")
    found = known.get(name) or known.get(key)
    if found is None and table == "sample" and key in Sampling.model_fields:
        found = (name, "")
    if found is None:
        assert key in Training.model_fields or key in Dataset.model_fields, name
        found = (key, "")
    return found


PARAMETERS: dict[str, Row] = {name: _home(name) for name in NAMES} | DOCUMENTED
