"""How many examples a training has and how many make a batch: the one answer of dry run, checks and trainer."""

from __future__ import annotations

from typing import NamedTuple

from dpnb.dataset.bucket import MicroBatch, OneBatch, TwoBatches
from dpnb.dataset.video import ClipMode
from dpnb.schema.model import FACTS
from dpnb.schema.training import Training


class Batch(NamedTuple):
    """What a plan needs of a training. `data_parallel`: copies of the model that train side by side. `clip_mode`:
    which clips of a video are examples."""

    micro_batch: MicroBatch = 1
    gradient_accumulation_steps: int = 1
    data_parallel: int = 1
    clip_mode: ClipMode = "single_beginning"

    @classmethod
    def of(cls, training: Training, *, gpus: int | None = None) -> Batch:
        """The batch of a training on so many GPUs; None means as many as one copy of the model takes."""
        micro_batch = _either(training, training.micro_batch_size_per_gpu, training.image_micro_batch_size_per_gpu)
        copies = _copies(training, gpus)
        return cls(micro_batch, training.gradient_accumulation_steps, copies, training.video_clip_mode)

    @classmethod
    def of_evaluation(cls, training: Training, *, gpus: int | None = None) -> Batch:
        """The batch in which the held-out sets of a training are evaluated."""
        clips = training.eval_micro_batch_size_per_gpu
        pictures = training.eval_image_micro_batch_size_per_gpu or clips or training.image_micro_batch_size_per_gpu
        micro_batch = _either(training, clips or training.micro_batch_size_per_gpu, pictures)
        copies = _copies(training, gpus)
        return cls(micro_batch, training.eval_gradient_accumulation_steps, copies, training.video_clip_mode)


def _either(training: Training, clips: OneBatch, pictures: OneBatch | None) -> MicroBatch:
    """One number where a family is trained on pictures alone, or where both kinds have the same."""
    if pictures is None or pictures == clips:
        return clips
    return TwoBatches(clips, pictures) if FACTS[training.model.type].video else pictures


def _copies(training: Training, gpus: int | None) -> int:
    return 1 if gpus is None else max(1, gpus // training.pipeline_stages)
