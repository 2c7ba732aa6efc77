"""Stable Diffusion XL and its many fine-tunes."""

from typing import Annotated, ClassVar, Literal

from dpnb.schema.base import InputFile, Ui
from dpnb.schema.families import base as k


class SdxlModel(k.ModelSection):
    """Stable Diffusion XL and its many fine-tunes."""

    facts: ClassVar[k.FamilyFacts] = k.FamilyFacts(
        title="Stable Diffusion XL",
        needs=(("checkpoint_path",),),
        upstream_adapters=("lora",),
        cached_text=False,
        robust_loss=False,
    )

    type: Literal["sdxl"] = "sdxl"
    """Architecture of the model that is trained."""
    checkpoint_path: InputFile
    """Checkpoint with UNet, VAE and both text encoders: one .safetensors file."""
    dtype: k.ComputeDtype = "bfloat16"
    v_pred: bool = False
    """Train the velocity instead of the noise, with a schedule that ends in pure noise; for models made so."""
    min_snr_gamma: k.MinSnrGamma = None
    debiased_estimation_loss: Annotated[bool | None, Ui(advanced=True)] = None
    """Weigh the loss by the inverse root of the signal-to-noise ratio (Yu et al. 2023). diffusion-pipe takes false for
    true as well: leave the key out."""
    unet_lr: k.PartLr = None
    """Learning rate of the UNet; unset means optimizer.lr."""
    text_encoder_1_lr: k.PartLr = None
    """Learning rate of CLIP-L; unset means optimizer.lr."""
    text_encoder_2_lr: k.PartLr = None
    """Learning rate of OpenCLIP-bigG; unset means optimizer.lr."""
