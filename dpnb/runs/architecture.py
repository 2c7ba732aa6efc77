"""What weight files hold, told from their headers: the family of a network, the kind and width of a text encoder, the
format of the numbers. Only where it is certain: a file that is not recognised says nothing, for there are more ways
to name tensors than stand here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from dpnb.errors import Problem
from dpnb.runs.rundir import read_json
from dpnb.runs.safetensors import header, shapes
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


TEXT_ENCODERS: dict[str, tuple[str, ...]] = {
    "CLIP text model": ("text_model.embeddings.token_embedding.weight", "embeddings.token_embedding.weight"),
    "T5 encoder": ("encoder.block.0.layer.0.SelfAttention.q.weight", "blocks.0.attn.q.weight"),
    "language model": ("model.layers.0.self_attn.q_proj.weight", "layers.0.self_attn.q_proj.weight"),
}
"""A tensor that every text encoder of a kind holds, under the names that are in use."""
_KINDS = {"CLIPTextModel": "CLIP text model", "T5EncoderModel": "T5 encoder", "UMT5EncoderModel": "T5 encoder"}
_SINGLE_FILES = {"t5_path": "T5 encoder", "clip_path": "CLIP text model"}
# Diffusers class of a network -> the matrix that takes the text, and the encoder whose width it has to have.
_TEXT_WIDTHS = {"FluxTransformer2DModel": ("context_embedder.weight", "text_encoder_2")}
_T5_WIDTH = "encoder.block.0.layer.0.SelfAttention.q.weight"
_QUANTISED = {"U8": "quantised (4 bits or GGUF)", "I8": "quantised (8 bits)"}


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


def wrong_text_encoder(training: Training) -> Iterator[Problem]:
    """An error for each text encoder that is certainly of another kind, or width, than the model takes."""
    for key, wanted in _SINGLE_FILES.items():
        value = getattr(training.model, key, None)
        if value and (seen := _kind_of([Path(value)])) not in (None, wanted):
            yield _error(key, f"'{value}' holds a {seen}, not a {wanted}.", "Name another file.")
    folder = Path(getattr(training.model, "diffusers_path", None) or "")
    index = read_json(folder / "model_index.json") if folder.name else None
    for part, entry in (index or {}).items():
        needed = _KINDS.get(str(entry[-1])) if part.startswith("text_encoder") and isinstance(entry, list) else None
        seen = _kind_of(_files(folder / part)) if needed else None
        if needed and seen not in (None, needed):
            message = f"'{folder / part}' holds a {seen}, not a {needed}."
            yield _error("diffusers_path", message, "Download the model again, whole.")
    yield from _wrong_width(folder, FACTS[training.model.type].network)


def _wrong_width(folder: Path, network: str) -> Iterator[Problem]:
    name, part = _TEXT_WIDTHS.get(network, ("", ""))
    if not name or not folder.name:
        return
    takes = [shape[1] for file in _files(folder / "transformer") if (shape := shapes(file).get(name))]
    gives = [shape[1] for file in _files(folder / part) if (shape := shapes(file).get(_T5_WIDTH))]
    if takes and gives and takes != gives:
        message = f"the network takes text of width {takes[0]}, '{folder / part}' gives {gives[0]}."
        yield _error("diffusers_path", message, "These parts are not of one model: download it again, whole.")


def wrong_format(files: Iterable[Path], key: str) -> Iterator[Problem]:
    """An error where the network's weights are stored in whole numbers, which nothing is trained upon here."""
    for file in files:
        kinds = [entry.get("dtype") for entry in header(file).values() if len(entry["shape"]) > 1]
        kind = max(set(kinds), key=kinds.count, default=None)
        if kind in _QUANTISED:
            message = f"'{file}' holds {_QUANTISED[kind]} weights, which cannot be trained upon."
            yield _error(key, message, "Name the weights in bfloat16 or float8.")
            return


def _kind_of(files: Iterable[Path]) -> str | None:
    """The kind of text encoder in these files, None when that is not certain."""
    names = {name for file in files for name in shapes(file)}
    found = [kind for kind, known in TEXT_ENCODERS.items() if names & set(known)]
    return found[0] if len(found) == 1 else None


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def _error(key: str, message: str, suggestion: str) -> Problem:
    return Problem("error", "value", ("model", key), message, suggestion)
