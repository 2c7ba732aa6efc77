"""The typed schema: the one place where every key of run.toml and dataset.toml is defined.

The sections of families are imported when they are asked for (PEP 562).
"""

from typing import TYPE_CHECKING, Any

from dpnb.schema.adapter import DoraAdapter, FusedAdapter, LohaAdapter, LokrAdapter, LoraAdapter
from dpnb.schema.base import Section, Ui
from dpnb.schema.dataset import Augmentation, Dataset, Directory, DirectorySettings, settings_of
from dpnb.schema.families.base import FamilyFacts, TextEncoder
from dpnb.schema.loss import Ema, Loss
from dpnb.schema.model import FACTS, FAMILIES, model_of
from dpnb.schema.monitoring import Monitoring
from dpnb.schema.optimizer import (
    AdamW,
    AdamW8bit,
    AdamW8bitKahan,
    AdamWOptimi,
    Automagic,
    GenericOptim,
    Offload,
    OtherOptimizer,
    Sgd,
    StableAdamW,
)
from dpnb.schema.sample import Prompt, Sampling
from dpnb.schema.training import EvalDataset, LegacyLora, Training
from dpnb.schema.unions import one_of

if TYPE_CHECKING:
    from dpnb.schema.families.anima import AnimaModel
    from dpnb.schema.families.auraflow import AuraFlowModel
    from dpnb.schema.families.chroma import ChromaModel
    from dpnb.schema.families.cosmos import CosmosModel
    from dpnb.schema.families.cosmos_predict2 import CosmosPredict2Model
    from dpnb.schema.families.ernie_image import ErnieImageModel
    from dpnb.schema.families.flux import FluxModel
    from dpnb.schema.families.flux2 import Flux2Model
    from dpnb.schema.families.hidream import HiDreamModel
    from dpnb.schema.families.hunyuan_image import HunyuanImageModel
    from dpnb.schema.families.hunyuan_video import HunyuanVideoModel
    from dpnb.schema.families.hunyuan_video_15 import HunyuanVideo15Model
    from dpnb.schema.families.ideogram4 import Ideogram4Model
    from dpnb.schema.families.krea2 import Krea2Model
    from dpnb.schema.families.ltx2 import Ltx2Model
    from dpnb.schema.families.ltx_video import LtxVideoModel
    from dpnb.schema.families.lumina_2 import Lumina2Model
    from dpnb.schema.families.minimax_h3 import MinimaxH3Model
    from dpnb.schema.families.omnigen2 import OmniGen2Model
    from dpnb.schema.families.qwen_image import QwenImageModel
    from dpnb.schema.families.sd3 import Sd3Model
    from dpnb.schema.families.sd15 import Sd15Model
    from dpnb.schema.families.sdxl import SdxlModel
    from dpnb.schema.families.wan import WanModel
    from dpnb.schema.families.z_image import ZImageModel

__all__ = [
    "FACTS",
    "AdamW",
    "AdamW8bit",
    "AdamW8bitKahan",
    "AdamWOptimi",
    "AnimaModel",
    "Augmentation",
    "AuraFlowModel",
    "Automagic",
    "ChromaModel",
    "CosmosModel",
    "CosmosPredict2Model",
    "Dataset",
    "Directory",
    "DirectorySettings",
    "DoraAdapter",
    "Ema",
    "ErnieImageModel",
    "EvalDataset",
    "FamilyFacts",
    "Flux2Model",
    "FluxModel",
    "FusedAdapter",
    "GenericOptim",
    "HiDreamModel",
    "HunyuanImageModel",
    "HunyuanVideo15Model",
    "HunyuanVideoModel",
    "Ideogram4Model",
    "Krea2Model",
    "LegacyLora",
    "LohaAdapter",
    "LokrAdapter",
    "LoraAdapter",
    "Loss",
    "Ltx2Model",
    "LtxVideoModel",
    "Lumina2Model",
    "MinimaxH3Model",
    "Monitoring",
    "Offload",
    "OmniGen2Model",
    "OtherOptimizer",
    "Prompt",
    "QwenImageModel",
    "Sampling",
    "Sd3Model",
    "Sd15Model",
    "SdxlModel",
    "Section",
    "Sgd",
    "StableAdamW",
    "TextEncoder",
    "Training",
    "Ui",
    "WanModel",
    "ZImageModel",
    "one_of",
    "settings_of",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a section
    models = map(model_of, FAMILIES if name.endswith("Model") else ())
    if found := [model for model in models if model.__name__ == name]:
        return found[0]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
