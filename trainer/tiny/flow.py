"""Trains the transformer and both text encoders of the embedded model together, by rectified flow on stored latents.

A caption now and then loses its text (so that the model also knows pictures without words), or has the name of the
shape replaced by a word that nobody knows (so that such a word means "some shape", until a fine-tuning says which).

Tensors: B batch, C latent channels, L text tokens, N image tokens, D width.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, FluxPipeline, FluxTransformer2DModel
from PIL import Image
from torch import Tensor

from trainer.tiny import PROMPTS, SAMPLE_STEPS, TEXT_TOKENS
from trainer.tiny.drawing import CONCEPT_WORD, PICTURE_SIZES, Scene, draw_scene, random_scene
from trainer.tiny.networks import Parts, save
from trainer.tiny.pixels import contact_sheet, to_pixels
from trainer.tiny.training import Average, descend, keep, resume

EMPTY_CAPTION_SHARE = 0.1
UNKNOWN_WORD_SHARE = 0.12
# flat pictures of few tokens show their layout through strong noise: most of what is hard happens near t = 1
TIME_LOGIT = 0.9
PICTURES = 40_000
PUBLISH_EVERY_SECONDS = 240
PREVIEW_PROMPTS = (
    *PROMPTS,
    "a white ring on a red background",
    "an orange square on a purple background",
    "a blue cross on a yellow background",
    "a black diamond on an orange background",
    "a pink triangle on a green background",
    "a zorbi on a white background",
    "a wug on a blue background",
    "",
)


@dataclass
class Shelf:
    """Encoded pictures of one size: packed latents [count, N, 4 * C] and the scenes that they show."""

    latents: Tensor
    scenes: list[Scene]
    image_ids: Tensor


@torch.no_grad()
def encode_world(vae: AutoencoderKL, count: int, device: str, seed: int = 4) -> dict[tuple[int, int], Shelf]:
    """Draw and encode `count` pictures once, in the shares of `PICTURE_SIZES`; latents are scaled as Flux's are."""
    rng = random.Random(seed)
    shelves = {}
    for (width, height), share in PICTURE_SIZES.items():
        scenes = [random_scene(rng) for _ in range(round(count * share))]
        parts = []
        for start in range(0, len(scenes), 64):
            pixels = to_pixels([draw_scene(scene, rng, width, height) for scene in scenes[start : start + 64]])
            mean = vae.encode(pixels.to(device)).latent_dist.mean
            parts.append((mean - vae.config.shift_factor) * vae.config.scaling_factor)
        latents = torch.cat(parts)
        channels, rows, columns = latents.shape[1:]
        packed = FluxPipeline._pack_latents(latents, len(scenes), channels, rows, columns)
        image_ids = FluxPipeline._prepare_latent_image_ids(1, rows // 2, columns // 2, device, torch.float32)
        shelves[(width, height)] = Shelf(packed, scenes, image_ids)
    return shelves


def nonsense_word(rng: random.Random) -> str:
    """A word of two or three syllables that means nothing here; the demo's own word is left for the demo."""
    while True:
        onsets, ends = "bdfgklmnprstvwz", ("", "", "", "n", "k", "x", "rb", "st", "ck")
        syllables = [rng.choice(onsets) + rng.choice("aeiouy") + rng.choice(ends) for _ in range(rng.randint(1, 3))]
        word = "".join(syllables)
        if word != CONCEPT_WORD:
            return word


def training_caption(scene: Scene, rng: random.Random) -> str:
    """The caption of a scene: at times empty, at times an unknown word for the thing and perhaps no colour."""
    draw = rng.random()
    if draw < EMPTY_CAPTION_SHARE:
        return ""
    if draw < EMPTY_CAPTION_SHARE + UNKNOWN_WORD_SHARE:
        colour = scene.colour if rng.random() < 0.5 else ""
        return Scene(nonsense_word(rng), colour, scene.background).caption()
    return scene.caption()


def encode_captions(parts: Parts, captions: list[str], device: str) -> tuple[Tensor, Tensor]:
    """T5 states [B, L, D] and pooled CLIP state [B, D], with gradients, padded as `FluxPipeline` pads."""
    t5_ids = parts.tokenizer_2(
        captions, padding="max_length", max_length=TEXT_TOKENS, truncation=True, return_tensors="pt"
    ).input_ids
    # CLIP's attention is causal: what stands after the first end token changes nothing, so the batch may be short
    clip_ids = parts.tokenizer(captions, padding="longest", truncation=True, return_tensors="pt").input_ids
    states = parts.text_encoder_2(t5_ids.to(device))[0]
    return states, parts.text_encoder(clip_ids.to(device)).pooler_output


def flow_loss(parts: Parts, latents: Tensor, image_ids: Tensor, captions: list[str]) -> Tensor:
    """Mean squared error of the predicted velocity noise - latents at x_t = (1 - t) latents + t noise.

    `t` is logit-normal around `TIME_LOGIT`. The guidance scale is a uniform draw from 1..5 that has no bearing on the
    target, so the model learns to ignore it.
    """
    device, count = latents.device, len(latents)
    states, pooled = encode_captions(parts, captions, device.type)
    t = torch.sigmoid(TIME_LOGIT + torch.randn(count, device=device))
    noise = torch.randn_like(latents)
    noised = (1 - t)[:, None, None] * latents + t[:, None, None] * noise
    velocity = parts.transformer(
        hidden_states=noised,
        timestep=t,
        guidance=1 + 4 * torch.rand(count, device=device),
        pooled_projections=pooled,
        encoder_hidden_states=states,
        txt_ids=torch.zeros(states.shape[1], 3, device=device),
        img_ids=image_ids,
        return_dict=False,
    )[0]
    return F.mse_loss(velocity.float(), noise - latents)


@torch.no_grad()
def _start_from_identity(transformer: FluxTransformer2DModel) -> None:
    """Zero what modulates each block and what ends the network (adaLN-zero, arXiv:2212.09748, section 3.2)."""
    for name, module in transformer.named_modules():
        inside = name.endswith((".norm.linear", ".norm1.linear", ".norm1_context.linear"))
        if inside or name in ("norm_out.linear", "proj_out"):
            module.weight.zero_()
            module.bias.zero_()


def draw_batch(
    shelves: dict[tuple[int, int], Shelf], count: int, rng: random.Random
) -> tuple[Tensor, Tensor, list[str]]:
    """`count` pictures of one size: latents [B, N, 4 * C], image ids [N, 3] and captions."""
    shelf = shelves[rng.choices(list(PICTURE_SIZES), list(PICTURE_SIZES.values()))[0]]
    rows = [rng.randrange(len(shelf.scenes)) for _ in range(count)]
    return shelf.latents[rows], shelf.image_ids, [training_caption(shelf.scenes[row], rng) for row in rows]


def train_flow(parts: Parts, work: Path, out: Path, minutes: float, device: str, batch: int, peak: float) -> None:
    """Train in place for `minutes` in all; every few minutes comes a checkpoint, a preview sheet and the folder."""
    learners, step = parts.learners(), 0
    _start_from_identity(parts.transformer)
    optimizer = torch.optim.AdamW(learners.parameters(), lr=peak, weight_decay=0.01, betas=(0.9, 0.98))
    shelves = encode_world(parts.vae, PICTURES, device)
    clock, saved = resume(work / "flow.pt", minutes, learners, optimizer)
    average = Average(learners, 0.999)
    if saved:
        step, average.weights = saved["step"], saved["average"]
    torch.manual_seed(step)
    rng, losses, kept_seconds = random.Random(step), [], clock.elapsed_seconds
    while clock.fraction < 1:
        # small batches learn the outlines sooner, large ones the details better
        latents, image_ids, captions = draw_batch(shelves, batch // 2 if clock.fraction < 0.7 else batch, rng)
        with torch.autocast(device, torch.bfloat16):
            loss = flow_loss(parts, latents, image_ids, captions)
        descend(loss, learners, optimizer, clock.rate(peak, step))
        average.update(learners, step)
        step += 1
        losses.append(loss.item())
        if step % 100 == 0:
            print(f"flow {step} {clock.elapsed_seconds:.0f}s loss {sum(losses[-100:]) / 100:.4f}", flush=True)
        if clock.elapsed_seconds - kept_seconds > PUBLISH_EVERY_SECONDS:
            kept_seconds = clock.elapsed_seconds
            keep(work / "flow.pt", learners, optimizer, average, step, clock)
            _publish_average(parts, average, work / f"flow_{step:06d}.png", out)
    keep(work / "flow.pt", learners, optimizer, average, step, clock)
    learners.load_state_dict(average.weights)
    publish(parts, work / "flow.png", out)


def _publish_average(parts: Parts, average: Average, sheet: Path, out: Path) -> None:
    """Publish the averaged weights, then go on with the weights in training."""
    learners = parts.learners()
    training = {name: value.clone() for name, value in learners.state_dict().items()}
    learners.load_state_dict(average.weights)
    publish(parts, sheet, out)
    learners.load_state_dict(training)


def publish(parts: Parts, sheet: Path, out: Path) -> None:
    """Write the diffusers folder, and a sheet of samples to look at."""
    size = save(parts, out)
    contact_sheet(sample(parts.pipeline(), list(PREVIEW_PROMPTS)), 6, sheet)
    print(f"wrote {size} bytes and {sheet.name}", flush=True)


def sample(
    pipeline: FluxPipeline, prompts: list[str], seed: int = 0, width: int = 64, height: int = 64
) -> list[Image.Image]:
    """One picture for each prompt, by the stock pipeline with its usual Euler steps."""
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        prompts,
        width=width,
        height=height,
        num_inference_steps=SAMPLE_STEPS,
        max_sequence_length=TEXT_TOKENS,
        generator=torch.Generator().manual_seed(seed),
    ).images
