"""The [monitoring] table: where else the charts go."""

from typing import Annotated, Any

from pydantic import BeforeValidator, SecretStr

from dpnb.schema.base import Section, Ui

_WANDB = ("enable_wandb", (True,))


def _none_if_empty(value: Any) -> Any:  # noqa: ANN401 - anything that a TOML file can hold
    """An empty text is no key. Files hold one where diffusion-pipe's examples leave the key to be filled in."""
    return None if value == "" else value


class Monitoring(Section):  # noqa: PLW1641 - no section has a hash
    """Weights & Biases. The run's own TensorBoard files are written in any case."""

    enable_wandb: bool = False
    """Send losses and learning rates to Weights & Biases as well; needs the package wandb beside the trainer."""
    wandb_tracker_name: Annotated[str | None, Ui(when=_WANDB)] = None
    """Project on Weights & Biases."""
    wandb_run_name: Annotated[str | None, Ui(when=_WANDB)] = None
    """Name of the run there."""
    wandb_api_key: Annotated[SecretStr | None, BeforeValidator(_none_if_empty), Ui(secret=True, when=_WANDB)] = None
    """API key; better left out of the file and given in the environment as WANDB_API_KEY."""

    def __eq__(self, other: object) -> bool:
        """Whether they ask for the same. The key is never written, so two files cannot differ in it."""
        if not isinstance(other, Monitoring):
            return NotImplemented
        return self.model_dump(exclude={"wandb_api_key"}) == other.model_dump(exclude={"wandb_api_key"})
