"""Cosmos-Predict2."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from dpnb.schema.base import InputFile, Ui
from dpnb.schema.families import base as k


class CosmosPredict2Model(k.ModelSection):
    """Cosmos-Predict2."""

    facts: ClassVar[k.FamilyFacts] = k.FamilyFacts(
        title="Cosmos-Predict2",
        needs=(("transformer_path", "vae_path", "llm_path"), ("transformer_path", "vae_path", "t5_path")),
        video=True,
        frames_per_latent=4,
        fps=16,
        block_swap=True,
    )

    type: Literal["cosmos_predict2"] = "cosmos_predict2"
    """Architecture of the model that is trained."""
    transformer_path: k.TransformerFile
    vae_path: k.VaeFile
    t5_path: InputFile | None = None
    """Weights of the old T5-XXL: one .safetensors file. Makes the model read captions as Cosmos-Predict2 does."""
    llm_path: Annotated[str | None, Ui(path="path")] = None
    """Language model that reads captions (Qwen3-0.6B for Anima): a .safetensors file or a folder."""
    llm_adapter_path: InputFile | None = None
    """Weights of the network between language model and transformer, where they are not in the transformer's file."""
    dtype: k.ComputeDtype = "bfloat16"
    transformer_dtype: k.TransformerDtype = None
    text_encoder_nf4: Annotated[bool, Ui(advanced=True)] = False
    """Hold the T5 text encoder in 4 bits, a quarter of the memory."""
    text_encoder_fp8: k.TextEncoderFp8 = False
    cache_text_embeddings: k.CacheTextEmbeddings = True
    multiscale_loss_weight: Annotated[float | None, Field(ge=0), Ui(advanced=True, step=0.1)] = None
    """Weight of a second loss on the half-size picture, for pictures of about 1024 px and more; unset leaves it
    out."""
    self_attn_lr: k.PartLr = None
    """Learning rate of self-attention; unset means optimizer.lr, 0 freezes it."""
    cross_attn_lr: k.PartLr = None
    """Learning rate of cross-attention; unset means optimizer.lr, 0 freezes it."""
    mlp_lr: k.PartLr = None
    """Learning rate of the feed-forward layers; unset means optimizer.lr, 0 freezes them."""
    mod_lr: k.PartLr = None
    """Learning rate of the modulation layers; unset means optimizer.lr, 0 freezes them."""
    llm_adapter_lr: k.PartLr = None
    """Learning rate of the network between language model and transformer; unset means optimizer.lr, 0 freezes it."""
    timestep_sample_method: k.TimestepSampleMethod = "logit_normal"
    sigmoid_scale: k.SigmoidScale = 1.0
    shift: k.Shift = None
    flux_shift: k.FluxShift = False
