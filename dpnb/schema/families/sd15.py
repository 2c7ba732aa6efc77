"""Stable Diffusion 1.x and 2.x."""

from typing import ClassVar, Literal

from dpnb.schema.base import InputFile
from dpnb.schema.families import base as k


class Sd15Model(k.ModelSection):
    """Stable Diffusion 1.x and 2.x."""

    ours: ClassVar[bool] = True
    facts: ClassVar[k.FamilyFacts] = k.FamilyFacts(
        title="Stable Diffusion 1.x and 2.x",
        needs=(("diffusers_path",), ("checkpoint_path",)),
        upstream_adapters=(),
        rounding_px=8,
        robust_loss=False,
        fuses=True,
    )

    type: Literal["sd15"] = "sd15"
    """Architecture of the model that is trained."""
    diffusers_path: k.OptionalDiffusersPath = None
    checkpoint_path: InputFile | None = None
    """Checkpoint with UNet, VAE and text encoder: one .safetensors file."""
    dtype: k.ComputeDtype = "bfloat16"
    v_pred: bool = False
    """Train the velocity instead of the noise; for models made so, such as 2.x at 768 px."""
    min_snr_gamma: k.MinSnrGamma = None
    unet_lr: k.PartLr = None
    """Learning rate of the UNet; unset means optimizer.lr."""
    text_encoder_lr: k.PartLr = None
    """Learning rate of the text encoder; unset leaves it frozen."""
