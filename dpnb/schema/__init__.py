"""The typed schema: the one place where every key of run.toml and dataset.toml is defined."""

from dpnb.schema.adapter import LoraAdapter
from dpnb.schema.base import Section, Ui
from dpnb.schema.dataset import Dataset, Directory, DirectorySettings, settings_of
from dpnb.schema.model import FACTS, FamilyFacts, FluxModel
from dpnb.schema.optimizer import AdamW, AdamW8bit, Sgd
from dpnb.schema.sample import Prompt, Sampling
from dpnb.schema.training import EvalDataset, Training

__all__ = [
    "FACTS",
    "AdamW",
    "AdamW8bit",
    "Dataset",
    "Directory",
    "DirectorySettings",
    "EvalDataset",
    "FamilyFacts",
    "FluxModel",
    "LoraAdapter",
    "Prompt",
    "Sampling",
    "Section",
    "Sgd",
    "Training",
    "Ui",
    "settings_of",
]
