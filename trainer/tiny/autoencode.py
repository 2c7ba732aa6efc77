"""Trains the autoencoder of the embedded model; afterwards its decoder alone, on latents that stay as they are.

Tensors: B batch, C latent channels, H W latent size.
"""

from __future__ import annotations

import random
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from trainer.tiny.drawing import (
    PICTURE_SIZES,
    concept_scene,
    draw_concept,
    draw_scene,
    draw_scribble,
    random_scene,
)
from trainer.tiny.pixels import contact_sheet, to_pictures, to_pixels
from trainer.tiny.training import Average, Clock, descend, keep, resume

PEAK_RATE = 1.6e-3
POLISH_RATE = 1e-3
KL_WEIGHT = 2e-4
SAMPLER_NOISE = 0.06  # largest standard deviation of the noise that the polished decoder learns to bear


def _vae_batch(rng: random.Random, size: int) -> Tensor:
    """Half world, half scribbles; now and then not square."""
    width, height = (64, 64) if rng.random() < 0.8 else rng.choice(list(PICTURE_SIZES))
    world = [draw_scene(random_scene(rng), rng, width, height) for _ in range(size // 2)]
    return to_pixels(world + [draw_scribble(rng, width, height) for _ in range(size - size // 2)])


def _edges(pixels: Tensor) -> tuple[Tensor, Tensor]:
    return pixels.diff(dim=-1), pixels.diff(dim=-2)


def decoder_loss(restored: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """L1 + L2 + L1 of the slopes (crisp edges), and the mean absolute error, of [B, 3, height, width] in -1..1."""
    error = (restored - pixels).abs()
    slopes = [(a - b).abs().mean() for a, b in zip(_edges(restored), _edges(pixels), strict=True)]
    return error.mean() + 0.5 * error.square().mean() + 0.5 * (slopes[0] + slopes[1]), error.mean()


def vae_loss(vae: AutoencoderKL, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """The decoder's loss plus a small KL to N(0, 1), and the mean absolute error."""
    posterior = vae.encode(pixels).latent_dist
    loss, error = decoder_loss(vae.decode(posterior.sample()).sample.float(), pixels)
    mean, log_variance = posterior.mean.float(), posterior.logvar.float()
    kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
    return loss + KL_WEIGHT * kl, error


def train_vae(vae: AutoencoderKL, work: Path, minutes: float, device: str, batch: int = 8) -> None:
    """Train in place for `minutes` in all, and set the scale and the shift that make latents about N(0, 1)."""
    rng, step = random.Random(1), 0
    optimizer = torch.optim.AdamW(vae.parameters(), lr=PEAK_RATE, weight_decay=1e-4, betas=(0.9, 0.98))
    clock, saved = resume(work / "vae.pt", minutes, vae, optimizer)
    average = Average(vae, 0.998)
    if saved:
        step, average.weights = saved["step"], saved["average"]
        rng.seed(step)
    while clock.fraction < 1:
        with torch.autocast(device, torch.bfloat16):
            loss, error = vae_loss(vae, _vae_batch(rng, batch).to(device))
        descend(loss, vae, optimizer, clock.rate(PEAK_RATE, step))
        average.update(vae, step)
        step += 1
        if step % 100 == 0:
            print(f"vae {step} {clock.elapsed_seconds:.0f}s loss {loss.item():.4f} L1 {error.item():.4f}", flush=True)
        if step % 1000 == 0:
            keep(work / "vae.pt", vae, optimizer, average, step, clock)
    vae.load_state_dict(average.weights)
    balance_channels(vae, device)
    _set_latent_scale(vae, device)
    _vae_preview(vae, work / "vae.png", device)


def polish_decoder(vae: AutoencoderKL, work: Path, minutes: float, device: str, batch: int = 8) -> None:
    """Train the decoder alone, so that latents keep their meaning, and make the encoder's posterior narrow.

    The decoder sees latents with a little noise, because a sampler's are never exact. A narrow posterior lets a draw
    from it and its mean be as good as the same, also in a channel that the encoder does not use.
    """
    quieten_posterior(vae)
    vae.encoder.requires_grad_(False)
    optimizer = torch.optim.AdamW(vae.decoder.parameters(), lr=POLISH_RATE, weight_decay=1e-4, betas=(0.9, 0.98))
    clock, average, rng, step = Clock(60 * minutes), Average(vae.decoder, 0.998), random.Random(5), 0
    while clock.fraction < 1:
        pixels = _vae_batch(rng, batch).to(device)
        with torch.autocast(device, torch.bfloat16):
            with torch.no_grad():
                latents = vae.encode(pixels).latent_dist.mean
                latents = latents + SAMPLER_NOISE * rng.random() * torch.randn_like(latents)
            loss, error = decoder_loss(vae.decode(latents).sample.float(), pixels)
        descend(loss, vae.decoder, optimizer, clock.rate(POLISH_RATE, step))
        average.update(vae.decoder, step)
        step += 1
        if step % 100 == 0:
            print(
                f"polish {step} {clock.elapsed_seconds:.0f}s loss {loss.item():.4f} L1 {error.item():.4f}", flush=True
            )
    vae.decoder.load_state_dict(average.weights)
    _vae_preview(vae, work / "polish.png", device)


@torch.no_grad()
def quieten_posterior(vae: AutoencoderKL) -> None:
    """Give the encoder's posterior the log variance -10 everywhere; its mean stays as it is."""
    last = vae.encoder.conv_out
    channels = last.out_channels // 2
    last.weight[channels:] = 0
    last.bias[channels:] = -10


@torch.no_grad()
def _world_latents(vae: AutoencoderKL, device: str) -> Tensor:
    """Latents [512, C, H, W] of pictures of the world, as the encoder gives them."""
    rng = random.Random(2)
    pixels = to_pixels([draw_scene(random_scene(rng), rng) for _ in range(512)]).to(device)
    return torch.cat([vae.encode(part).latent_dist.mean for part in pixels.split(64)])


@torch.no_grad()
def balance_channels(vae: AutoencoderKL, device: str) -> None:
    """Multiply each latent channel by 1 / sqrt(its spread) in the encoder and undo it in the decoder.

    A channel of little spread carries detail, which would drown in the sampler's error if it kept its size. What the
    autoencoder restores stays the same.
    """
    factors = _world_latents(vae, device).std(dim=(0, 2, 3)).clamp_min(1e-3).rsqrt()
    last, first = vae.encoder.conv_out, vae.decoder.conv_in
    channels = len(factors)
    last.weight[:channels] *= factors[:, None, None, None]
    last.bias[:channels] *= factors
    last.bias[channels:] += 2 * factors.log()  # the second half holds log variances
    first.weight /= factors[None, :, None, None]


@torch.no_grad()
def _set_latent_scale(vae: AutoencoderKL, device: str) -> None:
    latents = _world_latents(vae, device)
    vae.register_to_config(
        scaling_factor=round(1 / latents.std().item(), 4), shift_factor=round(latents.mean().item(), 4)
    )
    spread = [round(value, 3) for value in latents.std(dim=(0, 2, 3)).tolist()]
    print(f"latent mean {latents.mean():.4f} std {latents.std():.4f} by channel {spread}", flush=True)


@torch.no_grad()
def _vae_preview(vae: AutoencoderKL, file: Path, device: str) -> None:
    """Originals above, restored below: world, scribbles, and the creature that the autoencoder has never seen."""
    rng = random.Random(3)
    pictures = [draw_scene(random_scene(rng), rng) for _ in range(6)] + [draw_scribble(rng) for _ in range(3)]
    pictures += [draw_concept(concept_scene(rng), rng) for _ in range(5)]
    pixels = to_pixels(pictures).to(device)
    restored = vae.decode(vae.encode(pixels).latent_dist.mean).sample
    for name, part in (("world", slice(0, 6)), ("scribbles", slice(6, 9)), ("creature", slice(9, 14))):
        error = (restored[part].clamp(-1, 1) - pixels[part]).square().mean() / 4
        print(f"vae {name}: PSNR {-10 * error.log10():.1f} dB", flush=True)
    contact_sheet(pictures + to_pictures(restored), len(pictures), file)


def store_vae(vae: AutoencoderKL, file: Path) -> None:
    """Write the weights with the scale and the shift of the latents."""
    config = {name: vae.config[name] for name in ("scaling_factor", "shift_factor")}
    torch.save({"weights": vae.state_dict(), "config": config}, file)


def load_vae(vae: AutoencoderKL, file: Path) -> bool:
    """Read what `store_vae` wrote; False where there is no such file."""
    if not file.exists():
        return False
    saved = torch.load(file, weights_only=True)
    vae.load_state_dict(saved["weights"])
    vae.register_to_config(**saved["config"])
    return True
