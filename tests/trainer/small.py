"""What the fast tests of the trainer share: a small random Flux of the real class, and an engine in this process."""

from __future__ import annotations

import contextlib
import functools
import os
import resource
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from dpnb.schema import AdamW, FluxModel, LoraAdapter, Sampling, Sgd, Training
from tests.trainer.launching import ONE_THREAD, free_port
from trainer import adapters, objective
from trainer.families import flux
from trainer.tiny import model_dir

if TYPE_CHECKING:
    from trainer import engine

for key, setting in ONE_THREAD.items():  # before DeepSpeed, that is trainer.engine, looks for an accelerator
    os.environ.setdefault(key, setting)
torch.set_num_threads(1)  # the machine may be busy: threads that wait for each other are slower than one

CHANNELS, TEXT_WIDTH, POOLED_WIDTH, TEXT_TOKENS = 4, 24, 20, 5


@functools.cache
def alone() -> engine.World:
    """The process group of one rank, joined as a launched run joins it; it stays until pytest ends."""
    from trainer import engine

    # DeepSpeed looks these up again for every engine.
    here = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    os.environ |= here | {"MASTER_PORT": str(free_port())}
    return engine.join_world()


def network(*, guidance: bool = True, seed: int = 0) -> Any:
    """A random FluxTransformer2DModel: 2 double and 2 single blocks of width 32, float32, frozen."""
    from diffusers import FluxTransformer2DModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = FluxTransformer2DModel(
            in_channels=4 * CHANNELS,
            num_layers=2,
            num_single_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=TEXT_WIDTH,
            pooled_projection_dim=POOLED_WIDTH,
            guidance_embeds=guidance,
            axes_dims_rope=(4, 6, 6),
        )
    return made.eval().requires_grad_(False)


def family(**changes: Any) -> flux.Flux:
    """Flux in float32 around no folder."""
    return flux.Flux(FluxModel(**({"diffusers_path": "nowhere", "dtype": "float32"} | changes)))


def batch(size: int = 2, height: int = 4, width: int = 6, seed: int = 0) -> dict[str, Tensor]:
    """What the loader gives: latents, text and pooled of `size` examples."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        "latents": (size, CHANNELS, height, width),
        "text": (size, TEXT_TOKENS, TEXT_WIDTH),
        "pooled": (size, POOLED_WIDTH),
    }
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def noised(own: flux.Flux, tensors: dict[str, Tensor], seeds: Sequence[int]) -> engine.MicroBatch:
    """Inputs and target of a batch, each example from its seed."""
    noise = objective.draw_noise(own.noise_shape(tensors), seeds)
    inputs, target, _ = own.prepare(tensors, own.times.at(objective.draw_quantiles(seeds)), noise)
    return inputs, target


def training(**changes: Any) -> Training:
    """A complete training file around no files."""
    values = {
        "output_dir": "nowhere",
        "dataset": "nowhere.toml",
        "epochs": 2,
        "save_every_n_epochs": 1,
        "model": FluxModel(diffusers_path="nowhere", dtype="float32"),
        "adapter": LoraAdapter(rank=4),
        "optimizer": AdamW(lr=1e-2),
    }
    return Training(**(values | changes))


def sampling(**changes: Any) -> Sampling:
    """Two prompts at 64 px, 2 steps."""
    return Sampling(**({"prompts": ["one", "two"], "width": 64, "height": 64, "steps": 2} | changes))


def lora_network(adapter: adapters.Adapter, *, seed: int = 0) -> tuple[Any, Any]:
    """The random network with an adapter of which nothing is zero, and peft's configuration of it."""
    made = network()
    config = adapters.attach(made, adapter, flux.Flux.adapter_blocks, dtype=torch.float32, seed=seed)
    generator = torch.Generator().manual_seed(99)
    for name, parameter in made.named_parameters():
        if adapters.export_name(name).endswith(adapters.SCALED):
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.05
    return made, config


def lora_engine(asked: Training) -> tuple[engine.StageEngine, Any, Any]:
    """An engine around the random network with asked.adapter; also the network and peft's configuration."""
    from trainer import engine

    if not dist.is_initialized():
        alone()
    assert asked.adapter is not None
    made, config = lora_network(asked.adapter)
    built = engine.build(
        family().layers(made),
        asked,
        loss=objective.make_loss(asked.huber_delta, asked.smooth_l1_beta, asked.loss.type if asked.loss else "mse"),
        make_optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1.0),
        make_schedule=lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0),
        micro_batch_size=1,
        autocast_dtype=None,
    )
    return built, made, config


def trained_names(made: Any) -> dict[Any, str]:
    """Trained parameter -> name in the diffusers network."""
    return {parameter: name for name, parameter in made.named_parameters() if parameter.requires_grad}


@functools.cache
def copied_model(folder: Path) -> Path:
    """A copy of the embedded model, which does not change under a test."""
    return Path(shutil.copytree(model_dir(), folder / "model"))


__all__ = ["AdamW", "Sgd"]


@contextlib.contextmanager
def small_files() -> Iterator[None]:
    """No file may grow beyond 20 kB: what a full disk does, without one. (Nor may pytest's own log: be brief.)"""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
