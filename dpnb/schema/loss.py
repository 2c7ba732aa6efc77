"""The tables [loss] and [ema] (ours): how the error is measured, and the average of the trained weights."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from dpnb.schema.base import Section, Ui


class Loss(Section):
    """What is measured between prediction and target. Huber and smooth L1 stand at the top, as in diffusion-pipe."""

    ours: ClassVar[bool] = True

    type: Literal["mse", "l1"] = "mse"
    """Squared error, or absolute error; huber_delta and smooth_l1_beta at the top of the file take its place."""
    weighting: Literal["none", "sigma_sqrt", "cosmap"] = "none"
    """Weight of each noise level (Esser et al. 2024): none, sigma_sqrt (1 / t^2) or cosmap. Evaluations stay
    unweighted, so that their curves can be compared."""
    noise_offset: Annotated[float, Field(ge=0), Ui(advanced=True, step=0.01)] = 0.0
    """Strength of a random shift of each channel's mean that is added to the noise, for very dark and bright pictures;
    0.05 is usual, for models that predict noise."""


class Ema(Section):
    """Exponential moving average of the trained weights: smoother than the weights of any one step."""

    ours: ClassVar[bool] = True

    decay: Annotated[float, Field(gt=0, lt=1)] = 0.9999
    """How slowly the average forgets: 0.99 looks back over about 100 steps, 0.9999 over 10000."""
    schedule: Annotated[Literal["warmup", "constant"], Ui(advanced=True)] = "warmup"
    """How it begins: warmup with a short memory, min(decay, (1 + step) / (10 + step)), so that early steps are soon
    gone; constant with the whole one."""
    every_n_steps: Annotated[int, Field(ge=1), Ui(unit="steps", advanced=True)] = 1
    """Update the average after every this many steps."""
    sample: bool = True
    """Draw samples, evaluate and export with the average instead of with the weights of the step; the others are saved
    beside it."""
