"""The field of an API key: out of the widget at once, in the memory of the kernel, passed on by an environment."""

from __future__ import annotations

import os
from typing import Any

import ipywidgets as w
from pydantic import SecretStr

from dpnb.schema.training import Training
from dpnb.widgets.cells import answer_while_busy
from dpnb.widgets.look import Look, set_class

VARIABLE = "WANDB_API_KEY"


class ApiKey:
    """The key of W&B. Seen only where a training asks for W&B."""

    def __init__(self, look: Look) -> None:
        self.secret: SecretStr | None = None
        self.field = look.make(w.Password, description="W&B API key", continuous_update=False)
        self.field.observe(self._typed, "value")
        self.widget = look.box((self.field,), "dpnb-cell", "dpnb-hidden")
        self._show()

    def _typed(self, change: dict[str, Any]) -> None:
        # The state of a widget can be saved with the notebook: what was typed must not stay in it.
        if change["new"]:
            self.secret = SecretStr(change["new"])
            self.field.value = ""
            self._show()

    def _show(self) -> None:
        there = "set (hidden)" if self.secret is not None else "not set"
        # `launch` leaves alone what the environment has already.
        self.field.placeholder = f"taken from {VARIABLE}" if os.environ.get(VARIABLE) else there
        answer_while_busy(self.field)

    def offer(self, training: Training) -> None:
        """Show the field where a training asks for W&B and does not hold the key itself."""
        monitoring = training.monitoring
        asks = monitoring is not None and monitoring.enable_wandb and monitoring.wandb_api_key is None
        set_class(self.widget, "dpnb-hidden", on=not asks)

    def put_into(self, training: Training) -> Training:
        """The training with the key, which `launch` gives to the environment of the run and writes nowhere."""
        if self.secret is None or training.monitoring is None:
            return training
        monitoring = training.monitoring.model_copy(update={"wandb_api_key": self.secret})
        return training.model_copy(update={"monitoring": monitoring})
