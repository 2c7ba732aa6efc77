"""How much GPU memory a LoRA run takes, estimated from what is published of a network: pure arithmetic, in GiB.

The constants come from one network, measured: FLUX.1 with a LoRA of rank 16 in bfloat16 and every block recomputed in
the backward pass peaked, weights included, at 24.1 GiB for one picture of 512 px, 26.0 for one of 1024 px and 34.4
for four. What others published of Krea 2 and LTX 2 agrees within a sixth (tests/dpnb/test_presets.py). An estimate,
not a promise: the presets leave `SPARE` of a card free.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

GIB = 2**30
SPARE = 0.1  # share of a card's memory that stays free: what fragments, and what a desktop takes
WORKSPACE_GIB = 1.5  # CUDA itself, and what a step needs besides activations
ACTIVATIONS_GIB = 0.61  # for 1000 tokens of width 3072, each block recomputed in the backward pass
OFFLOADED_GIB = 0.49  # the same with the inputs of the blocks in host memory (activation_checkpointing = "unsloth")
ADAPTER_SHARE = 1.5  # parameters of a LoRA on all linear layers, over weights * rank / width
ADAMW_BYTES = 16  # of one trained parameter in float32: itself, its gradient and two averages
ADAMW_8BIT_BYTES = 10  # the same with the averages in 8 bits


@dataclass(frozen=True, slots=True)
class Network:
    """What the memory of a run depends on.

    `billion`: weights that are held on the GPU while training, in thousands of millions. `width`: size of a token.
    `blocks`: swapping one takes 1 / blocks of the weights off the GPU, and `max_swap` can be swapped. `px`: side of
    the square of pixels that one token stands for. `frames`: frames that one token stands for; `text_tokens` come on
    top. `stored_bytes`: of one weight in the files that the preset names. `float8`: the format in which frozen
    weights can be held instead, empty where the family has none, and `sensitive_billion` the weights that stay as they
    are beside it. `beside_gib`: a text encoder that stays loaded.
    """

    billion: float
    width: int
    blocks: int = 0
    max_swap: int = 0
    px: int = 16
    frames: int = 1
    text_tokens: int = 512
    stored_bytes: int = 2
    float8: str = ""
    sensitive_billion: float = 0.0
    beside_gib: float = 0.0


@dataclass(frozen=True, slots=True)
class Size:
    """What is trained at a time: sides of squares of the same area in px, clip lengths, examples in a batch."""

    resolutions: tuple[int, ...]
    frames: tuple[int, ...] = (1,)
    batch: int = 1


@dataclass(frozen=True, slots=True)
class Fit:
    """The savings with which a run fits, and what it then takes."""

    float8: str = ""
    eight_bit_optimizer: bool = False
    offload: bool = False
    blocks_to_swap: int = 0
    gib: float = 0.0


def weights_gib(network: Network, *, float8: bool = False, blocks_to_swap: int = 0) -> float:
    """Frozen weights on the GPU. Takes all weights for blocks of one size: embeddings, which stay, are a few per cent
    of them, and the block that is on its way to the GPU is counted in the workspace."""
    share = 1 - blocks_to_swap / network.blocks if blocks_to_swap else 1.0
    numbers = network.billion * network.stored_bytes
    if float8:
        numbers = network.billion + network.sensitive_billion * (network.stored_bytes - 1)
    return numbers * 1e9 * share / GIB


def adapter_gib(network: Network, rank: int, *, eight_bit: bool = False) -> float:
    """A LoRA of this rank on all linear layers in float32, with gradient and optimizer state."""
    parameters = network.billion * 1e9 * ADAPTER_SHARE * rank / network.width
    return parameters * (ADAMW_8BIT_BYTES if eight_bit else ADAMW_BYTES) / GIB


def activations_gib(network: Network, size: Size, *, offload: bool = False) -> float:
    """What the largest batch of `size` needs in a backward pass that recomputes each block."""
    tokens = size.batch * (latent_tokens(network, max(size.resolutions), max(size.frames)) + network.text_tokens)
    return (OFFLOADED_GIB if offload else ACTIVATIONS_GIB) * tokens / 1000 * network.width / 3072


def latent_tokens(network: Network, side_px: int, frames: int) -> int:
    """Tokens of a picture (frames = 1) or clip of side_px x side_px."""
    return (side_px // network.px) ** 2 * (1 + ceil((frames - 1) / network.frames))


def training_gib(network: Network, size: Size, rank: int, fit: Fit) -> float:
    """All of it: weights, adapter, activations, workspace, and the text encoder that stays loaded."""
    return (
        weights_gib(network, float8=bool(fit.float8), blocks_to_swap=fit.blocks_to_swap)
        + adapter_gib(network, rank, eight_bit=fit.eight_bit_optimizer)
        + activations_gib(network, size, offload=fit.offload)
        + WORKSPACE_GIB
        + network.beside_gib
    )


def fit(network: Network, size: Size, rank: int, memory_gib: float) -> Fit | None:
    """The first way, from the fastest to the thriftiest, that fits a card of this memory; None where none does."""
    for way in _ways(network):
        taken = training_gib(network, size, rank, way)
        if taken <= memory_gib * (1 - SPARE):
            return Fit(way.float8, way.eight_bit_optimizer, way.offload, way.blocks_to_swap, taken)
    return None


def _ways(network: Network) -> Iterator[Fit]:
    """Savings in the order of what they cost: number format, optimizer state, activations, then one block after
    another."""
    yield Fit()
    if network.float8:
        yield Fit(network.float8)
    yield Fit(network.float8, eight_bit_optimizer=True)
    for blocks in range(network.max_swap + 1):
        yield Fit(network.float8, eight_bit_optimizer=True, offload=True, blocks_to_swap=blocks)
