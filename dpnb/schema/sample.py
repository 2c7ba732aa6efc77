"""The [sample] table (ours): pictures drawn while training, so that a person sees what is being learned."""

from typing import Annotated, Any, ClassVar

from pydantic import Field, field_validator

from dpnb.schema.base import Section, Ui, texts_as_tables

LARGEST_SEED = 2**63 - 1  # the largest whole number of TOML


class Prompt(Section):
    """One picture to draw at each sampling; what is unset comes from the [sample] table."""

    text: Annotated[str, Ui(multiline=True)]
    """What to draw."""
    negative: Annotated[str | None, Ui(advanced=True)] = None
    """What to steer away from; needs true_cfg above 1."""
    width: Annotated[int | None, Field(ge=16), Ui(unit="px", advanced=True, step=64)] = None
    """Width of this picture."""
    height: Annotated[int | None, Field(ge=16), Ui(unit="px", advanced=True, step=64)] = None
    """Height of this picture."""
    seed: Annotated[int | None, Field(ge=0, le=LARGEST_SEED), Ui(advanced=True)] = None
    """Seed of this picture's noise; unset means the table's seed plus the prompt's position."""
    steps: Annotated[int | None, Field(ge=1), Ui(advanced=True)] = None
    """Denoising steps of this picture."""
    guidance: Annotated[float | None, Field(ge=0), Ui(advanced=True, step=0.1)] = None
    """Guidance of this picture."""

    @classmethod
    def of_text(cls, text: str) -> dict[str, Any]:
        """A bare text is the prompt."""
        return {"text": text}


class Sampling(Section):
    """Pictures drawn during training."""

    ours: ClassVar[bool] = True

    prompts: Annotated[list[Prompt], Field(min_length=1)]
    """What to draw. In TOML either a list of texts or [[sample.prompts]] tables."""
    negative: Annotated[str, Ui(advanced=True)] = ""
    """What to steer away from, for prompts that do not say it themselves; needs true_cfg above 1."""
    every_n_steps: Annotated[int | None, Field(ge=1), Ui(unit="steps")] = None
    """Draw after every this many optimizer steps."""
    every_n_epochs: Annotated[int | None, Field(ge=1), Ui(unit="epochs")] = None
    """Draw after every this many epochs."""
    before_first_step: bool = True
    """Draw once before training starts: what the base model does with the prompts."""
    width: Annotated[int, Field(ge=16), Ui(unit="px", step=64)] = 512
    """Width of the pictures."""
    height: Annotated[int, Field(ge=16), Ui(unit="px", step=64)] = 512
    """Height of the pictures."""
    steps: Annotated[int, Field(ge=1)] = 28
    """Denoising steps."""
    guidance: Annotated[float, Field(ge=0)] = 3.5
    """Guidance (the distilled one for models that have it)."""
    true_cfg: Annotated[float, Field(ge=1), Ui(advanced=True)] = 1.0
    """Classifier-free guidance with a negative prompt: above 1 doubles the time."""
    seed: Annotated[int, Field(ge=0, le=LARGEST_SEED)] = 42
    """Seed of the noise, the same at every step; prompt number i uses seed + i."""
    walk_seed: Annotated[bool, Ui(advanced=True)] = True
    """Give each prompt a seed of its own; off draws all prompts from the same noise."""

    @field_validator("prompts", mode="before")
    @classmethod
    def _texts_are_prompts(cls, value: Any) -> Any:  # noqa: ANN401 - anything that a TOML file can hold
        return texts_as_tables(value, Prompt)
