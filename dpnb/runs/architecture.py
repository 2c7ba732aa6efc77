"""What a weight file holds, told from the names of its tensors: only where a name is one family's alone.

A file that is not recognised says nothing: there are more ways to name tensors than stand here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from dpnb.errors import Problem
from dpnb.runs.safetensors import shapes
from dpnb.schema.model import FACTS
from dpnb.schema.training import Training

_KEYS = ("transformer_path", "checkpoint_path")
_PREFIX = "model.diffusion_model."  # as ComfyUI writes whole checkpoints

NAMES: dict[str, frozenset[str]] = {
    "flux": frozenset({"double_blocks.0.img_mod.lin.weight", "double_blocks.0.img_attn.qkv.weight"}),
    "flux2": frozenset({"double_stream_modulation_img.lin.weight", "double_blocks.0.img_attn.qkv.weight"}),
    "chroma": frozenset({"distilled_guidance_layer.in_proj.weight", "double_blocks.0.img_attn.qkv.weight"}),
    "hunyuan-video": frozenset(
        {"double_blocks.0.img_attn_qkv.weight", "txt_in.individual_token_refiner.blocks.0.mlp.fc1.weight"}
    ),
    "sd3": frozenset({"joint_blocks.0.x_block.attn.qkv.weight"}),
    "sdxl": frozenset({"input_blocks.0.0.weight", "conditioner.embedders.1.model.text_projection"}),
    "wan": frozenset({"blocks.0.self_attn.norm_q.weight", "blocks.0.cross_attn.k.weight", "text_embedding.0.weight"}),
    "qwen_image": frozenset({"transformer_blocks.0.attn.add_q_proj.weight", "txt_norm.weight"}),
}
"""Tensors that a weight file of a family holds, under the names that its makers and ComfyUI use."""


def family_of(names: Iterable[str]) -> str | None:
    """The family whose tensors these are, None when that is not certain."""
    held = {name.removeprefix(_PREFIX) for name in names}
    found = [family for family, needed in NAMES.items() if needed <= held]
    return found[0] if len(found) == 1 else None


def wrong_architecture(training: Training) -> Iterator[Problem]:
    """An error for each weight file that is certainly another family's than model.type."""
    wanted = training.model.type
    for key in _KEYS:
        value = getattr(training.model, key, None)
        if wanted not in NAMES or not value:
            continue
        seen = family_of(shapes(Path(value)))
        if seen is not None and seen != wanted:
            message = f"'{value}' holds the tensors of {FACTS[seen].title}, not of {FACTS[wanted].title}."
            yield Problem(
                "error", "value", ("model", key), message, f"Name another file, or set model.type = '{seen}'."
            )
