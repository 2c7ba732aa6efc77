"""The [model] table: the union of all families, and the facts of each by its type.

A family is one file in dpnb/schema/families and one line here. The dry run, the forms and the trainer read `FACTS`; a
test holds the trainer's own registry (trainer/families) to the families whose section is not pending.
"""

from __future__ import annotations

from typing import TypeAlias

from dpnb.schema.base import one_of
from dpnb.schema.families.anima import AnimaModel
from dpnb.schema.families.auraflow import AuraFlowModel
from dpnb.schema.families.base import FamilyFacts, ModelSection
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

MODELS: tuple[type[ModelSection], ...] = (
    FluxModel,
    Flux2Model,
    SdxlModel,
    Sd15Model,
    Sd3Model,
    ChromaModel,
    QwenImageModel,
    ZImageModel,
    HiDreamModel,
    Lumina2Model,
    AuraFlowModel,
    AnimaModel,
    CosmosPredict2Model,
    OmniGen2Model,
    HunyuanImageModel,
    ErnieImageModel,
    Ideogram4Model,
    Krea2Model,
    WanModel,
    HunyuanVideoModel,
    HunyuanVideo15Model,
    LtxVideoModel,
    Ltx2Model,
    CosmosModel,
    MinimaxH3Model,
)
Model: TypeAlias = one_of(*MODELS)  # type: ignore[valid-type]

FACTS: dict[str, FamilyFacts] = {str(model.model_fields["type"].default): model.facts for model in MODELS}
