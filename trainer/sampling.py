"""Pictures drawn while training: one for each prompt, written as samples/step_000100/00.png with 00.json beside it.

Replicas share the prompts; the stages of one replica draw a picture together, each running the same diffusers
pipeline around its share of the network (StageEngine.predict).
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed as dist
from PIL import Image
from torch import Tensor

from dpnb.dataset.captions import PLACEHOLDER
from dpnb.errors import RunError
from dpnb.runs.rundir import RunDir, write_text
from dpnb.schema.sample import Prompt, Sampling
from trainer.engine import StageEngine, World
from trainer.families.base import Family, SampleRequest, Tensors
from trainer.report import Report


def prompts_of(sampling: Sampling, trigger_word: str) -> list[Prompt]:
    """The prompts as they are drawn: with the trigger word, and with the table's negative and seed where they have
    none of their own."""
    return [
        prompt.model_copy(
            update={
                "text": prompt.text.replace(PLACEHOLDER, trigger_word) if trigger_word else prompt.text,
                "negative": sampling.negative if prompt.negative is None else prompt.negative,
                "seed": sampling.seed + index * sampling.walk_seed if prompt.seed is None else prompt.seed,
            }
        )
        for index, prompt in enumerate(sampling.prompts)
    ]


def texts_of(sampling: Sampling | None, trigger_word: str = "") -> list[str]:
    """Every caption whose embeds are needed to draw the samples."""
    if sampling is None:
        return []
    prompts = prompts_of(sampling, trigger_word)
    negatives = [prompt.negative or "" for prompt in prompts] if sampling.true_cfg > 1 else []
    return list(dict.fromkeys([*(prompt.text for prompt in prompts), *negatives]))


class Sampler:
    """Draws the prompts of the [sample] table. `embeds_of`: caption -> what `encode_text` gave, batch of one."""

    def __init__(
        self,
        family: Family,
        sampling: Sampling,
        embeds_of: Callable[[str], Tensors],
        run: RunDir,
        world: World,
        *,
        trigger_word: str = "",
    ) -> None:
        self.family = family
        self.sampling = sampling
        self.run = run
        self.world = world
        self.embeds_of, self.trigger_word = embeds_of, trigger_word
        self.requests = [_request(sampling, prompt, embeds_of) for prompt in prompts_of(sampling, trigger_word)]

    def others(self, prompts: Sequence[Prompt]) -> Sampling:
        """The [sample] table with other prompts than its own."""
        return self.sampling.model_copy(update={"prompts": list(prompts)})

    def draw(self, engine: StageEngine, step: int, report: Report, other: Sequence[Prompt] = ()) -> None:
        """Draw every prompt of the table, or `other` ones, which stand behind those; collective.

        Files appear one by one. The embeds of other prompts have to be in the cache.
        """
        folder = self.run.sample_dir(step)
        started = time.monotonic()
        first, requests = 0, self.requests
        if other:
            first, word = len(requests), self.trigger_word
            requests = [_request(self.sampling, p, self.embeds_of) for p in prompts_of(self.others(other), word)]
        for index, request in enumerate(requests):
            if index % engine.replicas != engine.replica:
                continue
            report.progress(index, len(requests), "sample")
            latents = self.family.sample(engine.predict, request)
            if engine.is_first_stage():
                pixels = self.family.decode(latents, engine.device)
                write_sample(folder, first + index, pixels[0], _settings(request, step))
        if self.world.size > 1:
            dist.barrier()
        report.scalars({"samples/seconds": time.monotonic() - started})


def _request(sampling: Sampling, prompt: Prompt, embeds_of: Callable[[str], Tensors]) -> SampleRequest:
    """One of `prompts_of` with the table's other settings where it has none of its own."""
    assert prompt.seed is not None
    return SampleRequest(
        prompt=prompt.text,
        negative=(prompt.negative or "") if sampling.true_cfg > 1 else None,
        embeds=embeds_of(prompt.text),
        negative_embeds=embeds_of(prompt.negative or "") if sampling.true_cfg > 1 else None,
        width_px=prompt.width or sampling.width,
        height_px=prompt.height or sampling.height,
        steps=prompt.steps or sampling.steps,
        guidance=sampling.guidance if prompt.guidance is None else prompt.guidance,
        true_cfg=sampling.true_cfg,
        seed=prompt.seed,
    )


def _settings(request: SampleRequest, step: int) -> dict[str, Any]:
    return {
        "prompt": request.prompt,
        "negative": request.negative,
        "step": step,
        "seed": request.seed,
        "steps": request.steps,
        "guidance": request.guidance,
        "true_cfg": request.true_cfg,
        "width": request.width_px,
        "height": request.height_px,
    }


def write_sample(folder: Path, index: int, pixels_CFHW: Tensor, settings: dict[str, Any]) -> None:
    """One picture (F = 1) and its settings. The .json comes last: readers count a picture once it stands.

    Raises `RunError` when the disk does not take them.
    """
    assert pixels_CFHW.shape[1] == 1, "clips are written by families that make them"
    array = (pixels_CFHW[:, 0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    target = folder / f"{index:02d}.png"
    hidden = folder / f".{target.name}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(hidden, format="PNG")
        hidden.replace(target)
        write_text(target.with_suffix(".json"), json.dumps(settings, indent=1))
    except OSError as error:
        with contextlib.suppress(OSError):
            hidden.unlink()
        raise RunError(
            f"cannot write the sample {target}: {error.strerror or error}. Make room, then resume."
        ) from error
