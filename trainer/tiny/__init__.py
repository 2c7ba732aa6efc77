"""The embedded default model: a Flux of a few megabytes that trains and samples on any CPU, with no download.

`flux/` is an ordinary diffusers folder, so everything that takes a Flux takes this one. `drawing` holds the world that
it knows and the creature that it does not, and `pretrain` the script that made its weights. Importing this package
costs nothing: it needs the standard library alone.
"""

from __future__ import annotations

from pathlib import Path

TEXT_TOKENS = 32  # the T5 length that the model was trained with: pass it as max_sequence_length, or it draws nothing
SAMPLE_STEPS = 24  # Euler steps that give a clean picture
PROMPTS = (
    "a red circle on a white background",
    "a yellow star on a blue background",
    "a green heart on a pink background",
    "a purple moon on a black background",
)


def model_dir() -> Path:
    """The diffusers folder of the embedded model."""
    return Path(__file__).resolve().parent / "flux"
