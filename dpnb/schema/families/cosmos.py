"""Cosmos 1 (7B, text to world)."""

from typing import ClassVar, Literal

from dpnb.schema.base import InputFile
from dpnb.schema.families import base as k


class CosmosModel(k.ModelSection):
    """Cosmos 1 (7B, text to world)."""

    facts: ClassVar[k.FamilyFacts] = k.FamilyFacts(
        title="Cosmos 1",
        needs=(("transformer_path", "vae_path", "text_encoder_path"),),
        full_finetune=False,
        video=True,
        frames_per_latent=8,
        fps=24,
        robust_loss=False,
    )

    type: Literal["cosmos"] = "cosmos"
    """Architecture of the model that is trained."""
    transformer_path: k.TransformerFile
    vae_path: k.VaeFile
    text_encoder_path: InputFile
    """Weights of the old T5-XXL: one .safetensors file."""
    dtype: k.ComputeDtype = "bfloat16"
