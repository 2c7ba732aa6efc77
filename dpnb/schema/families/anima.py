"""Anima, a Cosmos-Predict2 that reads captions with a language model."""

from dataclasses import replace
from typing import ClassVar, Literal

from dpnb.schema.families.base import FamilyFacts
from dpnb.schema.families.cosmos_predict2 import CosmosPredict2Model


class AnimaModel(CosmosPredict2Model):
    """Anima, a Cosmos-Predict2 that reads captions with a language model."""

    facts: ClassVar[FamilyFacts] = replace(CosmosPredict2Model.facts, title="Anima")

    type: Literal["anima"] = "anima"  # type: ignore[assignment]  # the same keys under another name
    """Architecture of the model that is trained."""
