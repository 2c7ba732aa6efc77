"""The Family protocol: everything that differs from one architecture to the next, behind one interface.

A family is one file over the matching diffusers classes; shared mathematics lives in trainer/objective.py, the
engine knows nothing but this protocol. How the pieces meet:

    pixels  --encode_pixels--> latents \\                    .--> inputs -> layers() in turn -> prediction
    caption --encode_text----> embeds  / cache -> prepare --+                                     | loss
                                                             '--> target -------------------------'

Legend: B batch, C channels, F frames, H W picture or latent size, L tokens, D width.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from trainer.objective import TimestepDistribution

Tensors = Mapping[str, Tensor]
Denoise = Callable[[tuple[Tensor, ...]], Tensor]
"""Inputs of the first layer -> prediction, wherever the layers live (one process, or several pipeline stages)."""

DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float8": torch.float8_e4m3fn,
    "float8_e4m3fn": torch.float8_e4m3fn,
    "float8_e5m2": torch.float8_e5m2,
}


class Prepared(NamedTuple):
    """What one micro-batch becomes: the inputs of the first layer, and the target of the last layer's output.

    `time_B`: when the latents were noised, after the family's own shift; losses are weighted by it.
    """

    inputs: tuple[Tensor, ...]
    target: Tensor
    time_B: Tensor


@dataclass(frozen=True, slots=True)
class SampleRequest:
    """One picture to draw. `embeds`: what `encode_text` gave for its prompt, batch of one."""

    prompt: str
    negative: str | None
    embeds: Tensors
    negative_embeds: Tensors | None
    width_px: int
    height_px: int
    steps: int
    guidance: float
    true_cfg: float
    seed: int


class Family(Protocol):
    """One architecture. Built from its [model] section; nothing heavy is loaded before a `load_*` call."""

    times: TimestepDistribution
    """How training times are drawn (before the family's own shift)."""
    adapter_blocks: Sequence[str]
    """Class names of the blocks whose linear layers get an adapter by default, and which float8 storage is for."""
    sensitive: Sequence[str]
    """How names of modules inside those blocks begin whose weights are too sensitive for float8 and stay in dtype."""
    most_controls: float
    """Of how many control pictures of a picture `prepare` makes something, which finds them with `controls_of`."""

    @property
    def pixels_identity(self) -> str:
        """Fingerprint of what turns pixels into latents: weights, configuration, dtype."""

    @property
    def text_identity(self) -> str:
        """Fingerprint of what turns captions into embeds: weights, tokenizers, configuration, dtype."""

    def load_encoders(self, device: torch.device) -> None:
        """Load VAE and text encoders."""

    def load_pixels_encoder(self, device: torch.device) -> None:
        """Load what `encode_pixels` needs and no more; quick where it is there already."""

    def free_encoders(self) -> None:
        """Let go of VAE and text encoders."""

    def encode_pixels(self, pixels_BCFHW: Tensor) -> dict[str, Tensor]:
        """Pixels in [-1, 1] -> tensors for the cache, each with batch first. A draw from a posterior comes from
        PyTorch's default generators."""

    def encode_text(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """Captions -> tensors for the cache, each with batch first and independent of the rest of the batch."""

    def load_transformer(self) -> nn.Module:
        """The diffusers network on the CPU, frozen, in `storage.loading_dtype`."""

    def layers(self, transformer: Any) -> list[nn.Module]:  # noqa: ANN401 - the network of its own kind
        """The network cut into modules: inputs -> wire, wire -> wire ..., wire -> prediction."""

    def noise_shape(self, batch: Tensors) -> Sequence[int]:
        """Shape of the noise that `prepare` wants for a micro-batch (batch first)."""

    def prepare(self, batch: Tensors, t_B: Tensor, noise: Tensor) -> Prepared:
        """Shift the times, noise the latents at t (1 = pure noise), lay out inputs and target, all on the CPU."""

    def over_target(self, mask_B1HW: Tensor, batch: Tensors) -> Tensor:
        """Weights on the grid of the latents, laid out as `prepare` lays out the target of that micro-batch."""

    def sample(self, denoise: Denoise, request: SampleRequest) -> Tensor:
        """Draw one picture with the stock diffusers pipeline around `denoise`: final latents, batch of one."""

    def decode(self, latents: Tensor, device: torch.device) -> Tensor:
        """Final latents -> pixels in [0, 1], (B, C, F, H, W) float32 on the CPU."""

    def save_adapter(self, folder: Path, weights: dict[str, Tensor], config: Any) -> None:  # noqa: ANN401 - peft's
        """Write an adapter as diffusers and ComfyUI read it. `weights`: "<module>.lora_A.weight" and so on, as
        `adapters.export_name` has them, with alpha = rank."""

    def load_adapter(self, place: Path) -> dict[str, Tensor]:
        """Read back what `save_adapter` wrote: the folder, or the .safetensors file in it."""

    def save_model(self, folder: Path, weights: dict[str, Tensor]) -> None:
        """Write a fully fine-tuned network as a diffusers folder. `weights`: the network's own keys."""


def control_prefix(number: int) -> str:
    """How the names of the tensors of a picture's first, second, ... control picture begin in a batch."""
    return "control_" if number == 1 else f"control_{number}_"


def controls_of(batch: Tensors, name: str) -> list[Tensor]:
    """That tensor of each control picture in a batch, in order."""
    names = itertools.takewhile(batch.__contains__, (f"{control_prefix(n)}{name}" for n in itertools.count(1)))
    return [batch[name] for name in names]


def fingerprint(*parts: object) -> str:
    """A short hash of files and plain values: what a cache entry depends on besides the example itself.

    A folder stands for all of its files. Files up to 64 MiB are hashed whole; larger ones by their size and 64
    blocks of 1 MiB spread over the file: a fine-tuned encoder differs in every block, and T5-XXL is 9 GB.
    """
    digest = hashlib.sha256()
    for part in parts:
        if not isinstance(part, Path):
            digest.update(json.dumps(part, sort_keys=True, default=str).encode())
            continue
        for file in sorted(p for p in part.rglob("*") if p.is_file()) if part.is_dir() else [part]:
            digest.update(f"{file.relative_to(part) if part.is_dir() else file.name}:{file.stat().st_size}".encode())
            _update_with_file(digest, file)
    return digest.hexdigest()[:32]


def _update_with_file(digest: hashlib._Hash, file: Path) -> None:
    block = 1 << 20
    size = file.stat().st_size
    offsets = range(0, size, block) if size <= 64 * block else [i * (size - block) // 63 for i in range(64)]
    with file.open("rb") as handle:
        for offset in offsets:
            handle.seek(offset)
            digest.update(handle.read(block))
