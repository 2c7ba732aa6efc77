"""The training file run.toml: global, evaluation and saving keys, and the tables below them.

The order of the fields is the order of a written file and of a form. What is not here: [model] (model.py),
[adapter] (adapter.py), [optimizer] (optimizer.py), [sample] (sample.py), rules across keys (rules.py).
"""

import re
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import Field, field_validator

from dpnb.schema.adapter import Adapter
from dpnb.schema.base import (
    WHOLE,
    Dtype,
    InputFile,
    OutputDir,
    Pending,
    Section,
    StorageDtype,
    Ui,
    texts_as_tables,
)
from dpnb.schema.loss import Ema, Loss
from dpnb.schema.model import Model
from dpnb.schema.monitoring import Monitoring
from dpnb.schema.optimizer import Optimizer
from dpnb.schema.sample import Sampling

Count: TypeAlias = Annotated[int, Field(ge=1)]
Times: TypeAlias = Annotated[int, Field(ge=1), WHOLE]
TimesOrOff: TypeAlias = Annotated[int | None, Field(ge=0), WHOLE]  # 0 is the same as unset
ResolutionBatch: TypeAlias = Annotated[list[Count], Field(min_length=2, max_length=2)]
BatchSize: TypeAlias = Count | Annotated[list[ResolutionBatch], Field(min_length=1)]


LARGEST_SEED = 2**32 - 1  # what is derived from it for each step and rank has to fit into 64 bits


class EvalDataset(Section):
    """Held-out pictures on which the loss is measured."""

    name: Annotated[str, Field(min_length=1, pattern=r"^[^\x00-\x1f\x7f<>&\"'`]+$")]
    """Name of the set, without quotes, &, < and >; its curves are called <name>/loss."""
    config: InputFile
    """Dataset file of the set."""

    @classmethod
    def of_text(cls, text: str) -> dict[str, Any]:
        """A bare path is a set named after its file, the short form that diffusion-pipe documents."""
        name = text.replace("\\", "/").rsplit("/", 1)[-1].removesuffix(".toml")
        return {"name": re.sub(r"[^\w.\- ]", "_", name) or "_", "config": text}


class LegacyLora(Section):
    """What is still read of a [lora] table."""

    pending: ClassVar[Pending] = "ignored"

    dtype: Dtype | None = None
    """Number format of what processes send to one another."""


class Training(Section):
    """The training file."""

    output_dir: OutputDir
    """Folder in which each run gets a folder of its own, named by its start time."""
    dataset: InputFile
    """Dataset file: which pictures and captions to train on."""
    epochs: Times
    """Passes over the dataset."""
    max_steps: Annotated[Times | None, Ui(unit="steps")] = None
    """Stop after this many optimizer steps, if the epochs have not ended before."""
    seed: Annotated[int, Field(ge=0, le=LARGEST_SEED), Ui(ours=True)] = 0
    """Seed of everything random: adapter weights, order, noise and timesteps. The same seed gives the same losses."""
    trigger_word: Annotated[str, Ui(ours=True)] = ""
    """A rare word for what is learned: replaces [trigger] in sample prompts, and is the trigger word of a dataset that
    names none."""
    micro_batch_size_per_gpu: BatchSize = 1
    """Examples in one forward pass on one GPU, or [resolution, examples] pairs such as [[512, 4], [1024, 1]]."""
    image_micro_batch_size_per_gpu: Annotated[BatchSize | None, Ui(advanced=True)] = None
    """Pictures in one forward pass on one GPU, where pictures and clips are mixed; unset means
    micro_batch_size_per_gpu."""
    gradient_accumulation_steps: Count = 1
    """Micro-batches added up for one optimizer step: a larger batch without more memory."""
    gradient_clipping: Annotated[float, Field(ge=0)] = 1.0
    """A gradient longer than this is cut to this length, so that one bad batch does little harm; 0 turns that off."""
    pipeline_stages: Count = 1
    """How many GPUs one copy of the model is spread over; the rest of the GPUs hold further copies."""
    partition_method: Annotated[
        str,
        Field(pattern=r"^(parameters|uniform|manual|type:.+)$"),
        Ui(advanced=True, suggestions=("parameters", "uniform", "manual")),
    ] = "parameters"
    """How layers are dealt out to pipeline stages: parameters, uniform, manual, or type:<class name>."""
    partition_split: Annotated[
        list[Annotated[int, Field(ge=1)]] | None, Ui(advanced=True, when=("partition_method", ("manual",)))
    ] = None
    """First layer of each further stage, one number less than there are stages."""
    activation_checkpointing: bool | Literal["unsloth"] = False
    """Recompute activations in the backward pass: less memory, about a third more time. 'unsloth' also moves large
    ones to host memory."""
    reentrant_activation_checkpointing: Annotated[
        bool, Ui(advanced=True, when=("activation_checkpointing", (True, "unsloth")))
    ] = False
    """Use PyTorch's re-entrant variant of activation checkpointing."""
    blocks_to_swap: Annotated[int, Field(ge=0), Ui(unit="blocks", pending="ignored")] = 0
    """Transformer blocks that wait in host memory until they are needed: less GPU memory, more time."""
    compile: Annotated[bool, Ui(advanced=True, pending="ignored")] = False
    """Compile the network (torch.compile): a slow start, then faster steps."""
    warmup_steps: Annotated[int, Field(ge=0), WHOLE, Ui(unit="steps")] = 0
    """The learning rate rises in a straight line over this many steps."""
    lr_scheduler: Literal["constant", "linear", "cosine"] = "constant"
    """Shape of the learning rate after the warm-up: flat, down to 0 in a line, or down along a cosine."""
    force_constant_lr: Annotated[float | None, Field(ge=0), Ui(advanced=True, step="1-2-5")] = None
    """Use exactly this learning rate from now on, also after a resume, without warm-up or schedule."""
    huber_delta: Annotated[float | None, Field(gt=0), Ui(advanced=True, step=0.1)] = None
    """Use the Huber loss with this threshold instead of the squared error."""
    smooth_l1_beta: Annotated[float | None, Field(ge=0), Ui(advanced=True, step=0.1)] = None
    """Use the smooth L1 loss with this threshold instead of the squared error."""
    uncond_fraction: Annotated[float, Field(ge=0, le=1), Ui(advanced=True)] = 0.0
    """Share of examples (0 to 1) that are trained with an empty caption, for classifier-free guidance."""
    caching_batch_size: Annotated[Count, Ui(advanced=True)] = 1
    """Pictures or captions encoded at a time while the cache is filled, or pictures where they are encoded while
    training (augmentation.cached_variants = 0)."""
    map_num_proc: Annotated[Count | None, Ui(advanced=True)] = None
    """Threads that read picture headers and decode pictures; unset means one for each core, 8 at most."""
    video_clip_mode: Annotated[
        Literal["single_beginning", "single_middle", "multiple_overlapping"], Ui(advanced=True)
    ] = "single_beginning"
    """Which part of a longer video is trained: its beginning, its middle, or overlapping clips of all of it."""
    regenerate_cache: Annotated[bool, Ui(advanced=True)] = False
    """Without effect, in diffusion-pipe too: there it is an option of the command line, here what has changed is
    encoded again by itself."""
    cache_dir: Annotated[OutputDir | None, Ui(advanced=True, ours=True)] = None
    """Folder of cached latents and text embeddings, shared by all runs; unset means the user's cache folder."""
    steps_per_print: Annotated[Times, Ui(unit="steps", advanced=True)] = 1
    """Print a line to the console after every this many steps."""
    logging_steps: Annotated[Times, Ui(unit="steps", advanced=True)] = 1
    """Write loss, learning rate and speed for the charts after every this many steps."""
    x_axis_examples: Annotated[bool, Ui(advanced=True)] = False
    """Count examples instead of steps on the x axis of the charts."""
    resume_from_checkpoint: Annotated[bool | str, Ui(advanced=True)] = False
    """Go on with an earlier run: true for the newest in output_dir, or the name of its folder."""

    eval_datasets: Annotated[list[EvalDataset], Ui(group="Evaluation")] = []
    """Held-out sets on which the loss is measured."""
    eval_every_n_epochs: Annotated[TimesOrOff, Ui(group="Evaluation", unit="epochs")] = None
    """Evaluate after every this many epochs."""
    eval_every_n_steps: Annotated[TimesOrOff, Ui(group="Evaluation", unit="steps")] = None
    """Evaluate after every this many steps."""
    eval_every_n_examples: Annotated[TimesOrOff, Ui(group="Evaluation", unit="examples", advanced=True)] = None
    """Evaluate after every this many examples; replaces eval_every_n_steps."""
    eval_before_first_step: Annotated[bool, Ui(group="Evaluation")] = True
    """Evaluate once before training starts."""
    eval_micro_batch_size_per_gpu: Annotated[BatchSize | None, Ui(group="Evaluation", advanced=True)] = None
    """Examples in one forward pass of an evaluation; unset means micro_batch_size_per_gpu."""
    eval_image_micro_batch_size_per_gpu: Annotated[BatchSize | None, Ui(group="Evaluation", advanced=True)] = None
    """Pictures in one forward pass of an evaluation, where pictures and clips are mixed."""
    eval_gradient_accumulation_steps: Annotated[Count, Ui(group="Evaluation", advanced=True)] = 1
    """Micro-batches in one batch of an evaluation."""
    disable_block_swap_for_eval: Annotated[bool, Ui(group="Evaluation", advanced=True, pending="ignored")] = False
    """Keep all blocks on the GPU during an evaluation: faster, where the memory is there."""
    early_stopping_patience: Annotated[
        Count | None, Ui(group="Evaluation", unit="evaluations", advanced=True, ours=True)
    ] = None
    """End the run when the evaluation loss has not improved for this many evaluations."""

    save_every_n_epochs: Annotated[Times | None, Ui(group="Saving", unit="epochs")] = None
    """Export what was trained after every this many epochs."""
    save_every_n_steps: Annotated[Times | None, Ui(group="Saving", unit="steps")] = None
    """Export what was trained after every this many steps."""
    save_every_n_examples: Annotated[Times | None, Ui(group="Saving", unit="examples", advanced=True)] = None
    """Export what was trained after every this many examples; replaces save_every_n_steps."""
    save_dtype: Annotated[StorageDtype | None, Ui(group="Saving")] = None
    """Number format of exported weights; unset means the format they are trained in."""
    checkpoint_every_n_epochs: Annotated[Times | None, Ui(group="Saving", unit="epochs")] = None
    """Write a checkpoint to resume from after every this many epochs."""
    checkpoint_every_n_minutes: Annotated[float | None, Field(gt=0), Ui(group="Saving", unit="minutes", step=5)] = None
    """Write a checkpoint to resume from after this much time."""

    keep_last_n_checkpoints: Annotated[Count | None, Ui(group="Saving", unit="checkpoints", ours=True)] = None
    """Keep only this many of the newest checkpoints; unset keeps all."""
    keep_last_n_saves: Annotated[Count | None, Ui(group="Saving", unit="exports", ours=True)] = None
    """Keep only this many of the newest exports; unset keeps all."""
    keep_best: Annotated[bool, Ui(group="Saving", ours=True)] = False
    """Keep the export with the lowest evaluation loss as well, in a folder named best."""
    push_to_hub: Annotated[str | None, Ui(group="Saving", advanced=True, ours=True, pending="refused")] = None
    """Repository on the Hugging Face hub to which exports are uploaded; the token comes from HF_TOKEN."""

    model: Model
    """The model that is trained."""
    adapter: Adapter | None = None
    """What is trained on top of the model; leave it out to train all weights of the model itself."""
    optimizer: Optimizer
    """How weights are updated."""
    loss: Loss | None = None
    """How the error is measured."""
    ema: Ema | None = None
    """Moving average of the trained weights."""
    sample: Sampling | None = None
    """Pictures drawn while training."""
    monitoring: Monitoring | None = None
    """Where else the charts go."""
    lora: Annotated[LegacyLora | None, Ui(advanced=True)] = None
    """The old name of the [adapter] table, of which diffusion-pipe still reads the number format."""

    @field_validator("eval_datasets", mode="before")
    @classmethod
    def _paths_are_datasets(cls, value: Any) -> Any:  # noqa: ANN401 - anything that a TOML file can hold
        return texts_as_tables(value, EvalDataset)


def batch_size_for(setting: int | list[list[int]], width_px: int, height_px: int) -> int:
    """Micro-batch size of a bucket: the pair whose resolution is nearest to sqrt(width * height) wins."""
    if isinstance(setting, int):
        return setting
    side = (width_px * height_px) ** 0.5
    return min(setting, key=lambda pair: abs(pair[0] - side))[1]
