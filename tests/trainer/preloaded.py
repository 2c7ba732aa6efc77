"""What ranks.py imports before it forks ranks: all that a training of Flux imports."""

import bitsandbytes
import diffusers
import peft
import transformers
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from torch.utils.tensorboard import SummaryWriter
from transformers import AutoTokenizer, CLIPTextModel, T5EncoderModel

from tests.trainer import small
from trainer import session, train
from trainer.data import prepare

__all__ = [
    "AutoTokenizer",
    "AutoencoderKL",
    "CLIPTextModel",
    "FlowMatchEulerDiscreteScheduler",
    "FluxPipeline",
    "FluxTransformer2DModel",
    "SummaryWriter",
    "T5EncoderModel",
    "bitsandbytes",
    "diffusers",
    "peft",
    "prepare",
    "session",
    "small",
    "train",
    "transformers",
]
