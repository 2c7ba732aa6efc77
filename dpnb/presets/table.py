"""The table of presets: one row for each model, with the sizes at which it is trained on 16, 24, 48 and 80 GB.

Parameter counts, widths and numbers of blocks are those of the models' own papers, cards and configuration files.
Learning rates and ranks are the medians of what people's files for diffusion-pipe say, where there are several, and
what the documentation of trainers recommends elsewhere. Which savings a card needs is not written here but follows
from the estimate in memory.py. All of it is a starting point; nothing of it was measured here but FLUX.1's memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dpnb.presets.memory import Network, Size

MEMORIES_GB = (16, 24, 48, 80)

PICTURES = {16: Size((512,)), 24: Size((768,)), 48: Size((1024,), batch=2), 80: Size((1024,), batch=8)}
SMALL = {16: Size((1024,)), 24: Size((1024,), batch=2), 48: Size((1024,), batch=8)}
_SECONDS, _LONG = (1, 33), (1, 33, 81)
CLIPS = {16: Size((256,), _SECONDS), 24: Size((512,), _SECONDS), 48: Size((512,), _LONG), 80: Size((640,), _LONG)}
SMALL_CLIPS = {16: Size((512,), _SECONDS), 24: Size((512,), _LONG), 48: Size((640,), _LONG)}


@dataclass(frozen=True, slots=True)
class Row:
    """One model. `paths` are the [model] keys that name files, below the model's folder ("" for the folder itself);
    `model` the other keys of [model]. `steps`, `true_cfg`: of sampling. `batch`: examples in one optimizer step."""

    what: str
    source: str
    network: Network
    paths: Mapping[str, str]
    sizes: Mapping[int, Size]
    family: str = ""
    model: Mapping[str, Any] = field(default_factory=dict)
    size_buckets: tuple[tuple[int, int, int], ...] = ()
    rank: int = 16
    lr: float = 1e-4
    epochs: int = 100
    save_every: int = 5
    batch: int = 4
    steps: int = 30
    true_cfg: float = 4.0


_FP8, _E5M2 = "float8", "float8_e5m2"
_DIFFUSERS = {"diffusers_path": ""}
_FLUX2_VAE = "flux2-vae.safetensors"
_WAN_14B = Network(14.3, 5120, 40, 38, frames=4, float8=_FP8)
_WAN: dict[str, Any] = {"family": "wan", "rank": 32, "lr": 2e-5, "epochs": 200, "batch": 1, "true_cfg": 5.0}
_COSMOS_PREDICT2 = {
    "transformer_path": "model.pt",
    "vae_path": "wan_2.1_vae.safetensors",
    "t5_path": "oldt5_xxl_fp16.safetensors",
}
_COSMOS_BUCKETS = tuple((w, h, 1) for w, h in ((1280, 704), (704, 1280), (960, 960), (960, 704), (704, 960)))


def _comfy(model: str, vae: str, encoder: str, kind: str) -> dict[str, str]:
    """Paths of a model in ComfyUI's files; the key of the encoder carries its kind."""
    return {"diffusion_model": model, "vae": vae, f"text_encoders:{kind}": encoder}


IMAGE_ROWS: dict[str, Row] = {
    "flux": Row(
        what="FLUX.1 [dev], 12 B",
        source="black-forest-labs/FLUX.1-dev",
        network=Network(11.9, 3072, 38, 34, float8=_FP8, sensitive_billion=3.3),
        paths=_DIFFUSERS,
        sizes=PICTURES,
        model={"flux_shift": True},
        epochs=65,
        steps=28,
        true_cfg=1.0,
    ),
    "flux2": Row(
        what="FLUX.2 [dev], 32 B",
        source="black-forest-labs/FLUX.2-dev, VAE and text encoder in ComfyUI's files",
        network=Network(32.2, 6144, 31, 13, float8=_FP8),
        paths=_comfy("flux2-dev.safetensors", _FLUX2_VAE, "mistral_3_small_flux2_bf16.safetensors", "flux2"),
        sizes={24: Size((512,)), 48: Size((1024,)), 80: Size((1024,))},
        model={"flux_shift": True},
        steps=28,
        true_cfg=1.0,
    ),
    "flux2-klein-9b": Row(
        what="FLUX.2 [klein] base, 9 B",
        source="black-forest-labs/FLUX.2-klein-base-9B, VAE and text encoder in ComfyUI's files",
        network=Network(9.1, 4096, 19, 13, float8=_FP8),
        paths=_comfy("flux-2-klein-base-9b.safetensors", _FLUX2_VAE, "qwen_3_8b.safetensors", "flux2"),
        sizes=PICTURES,
        family="flux2",
        model={"flux_shift": True},
    ),
    "flux2-klein-4b": Row(
        what="FLUX.2 [klein] base, 4 B",
        source="black-forest-labs/FLUX.2-klein-base-4B, VAE and text encoder in ComfyUI's files",
        network=Network(3.9, 3072, 14, 7, float8=_FP8),
        paths=_comfy("flux-2-klein-base-4b.safetensors", _FLUX2_VAE, "qwen_3_4b.safetensors", "flux2"),
        sizes=SMALL,
        family="flux2",
        model={"flux_shift": True},
    ),
    "sdxl": Row(
        what="Stable Diffusion XL, 3.4 B with its text encoders",
        source="stabilityai/stable-diffusion-xl-base-1.0",
        network=Network(3.4, 1280, px=8, text_tokens=77),
        paths={"checkpoint_path": "sd_xl_base_1.0.safetensors"},
        sizes={16: Size((1024,)), 24: Size((1024,), batch=2), 48: Size((1024,), batch=4)},
        model={"text_encoder_1_lr": 2e-5, "text_encoder_2_lr": 2e-5},
        rank=24,
        save_every=10,
        true_cfg=7.0,
    ),
    "sd15": Row(
        what="Stable Diffusion 1.5, 0.9 B",
        source="stable-diffusion-v1-5/stable-diffusion-v1-5",
        network=Network(1.0, 640, px=8, text_tokens=77),
        paths=_DIFFUSERS,
        sizes={16: Size((512,), batch=4), 24: Size((512,), batch=8)},
        save_every=10,
        true_cfg=7.0,
    ),
    "sd3": Row(
        what="Stable Diffusion 3.5 Large, 8 B",
        source="stabilityai/stable-diffusion-3.5-large",
        network=Network(8.1, 2432, float8=_FP8),
        paths=_DIFFUSERS,
        sizes=PICTURES,
    ),
    "sd3-medium": Row(
        what="Stable Diffusion 3.5 Medium, 2.5 B",
        source="stabilityai/stable-diffusion-3.5-medium",
        network=Network(2.5, 1536, float8=_FP8),
        paths=_DIFFUSERS,
        sizes=SMALL,
        family="sd3",
    ),
    "chroma": Row(
        what="Chroma1 HD, 9 B",
        source="lodestones/Chroma1-HD; VAE and text encoder of black-forest-labs/FLUX.1-schnell",
        network=Network(8.9, 3072, 38, 34, float8=_FP8),
        paths={"diffusers_path": "FLUX.1-schnell", "transformer_path": "Chroma1-HD.safetensors"},
        sizes=PICTURES,
        model={"flux_shift": True},
        rank=24,
        lr=2.5e-4,
    ),
    "qwen_image": Row(
        what="Qwen-Image, 20 B",
        source="Qwen/Qwen-Image",
        network=Network(20.4, 3072, 60, 58, float8=_FP8),
        paths=_DIFFUSERS,
        sizes=PICTURES | {24: Size((640,)), 80: Size((1024,), batch=4)},
        rank=32,
        lr=2e-4,
        epochs=80,
    ),
    "z_image": Row(
        what="Z-Image, 6 B",
        source="Comfy-Org/z_image",
        network=Network(6.2, 3840, 30, 28, float8=_FP8),
        paths=_comfy("z_image_bf16.safetensors", "ae.safetensors", "qwen_3_4b.safetensors", "lumina2"),
        sizes=PICTURES,
        rank=32,
        lr=2e-4,
        epochs=80,
        save_every=10,
    ),
    "hidream": Row(
        what="HiDream-I1 Full, 17 B",
        source="HiDream-ai/HiDream-I1-Full and meta-llama/Llama-3.1-8B-Instruct",
        network=Network(17.1, 2560, 32, 28, float8=_FP8, beside_gib=7.0),
        paths={"diffusers_path": "HiDream-I1-Full", "llama3_path": "Llama-3.1-8B-Instruct"},
        sizes={24: Size((1024,)), 48: Size((1024,)), 80: Size((1024,), batch=4)},
        model={"llama3_4bit": True},
    ),
    "lumina_2": Row(
        what="Lumina Image 2.0, 2.6 B",
        source="Comfy-Org/Lumina_Image_2.0_Repackaged",
        network=Network(2.6, 2304),
        paths={
            "transformer_path": "lumina_2_model_bf16.safetensors",
            "llm_path": "gemma_2_2b_fp16.safetensors",
            "vae_path": "ae.safetensors",
        },
        sizes=SMALL,
        model={"lumina_shift": True},
    ),
    "auraflow": Row(
        what="Pony V7 (AuraFlow), 7 B",
        source="purplesmartai/pony-v7-base",
        network=Network(6.8, 3072, 40, 30, text_tokens=768, float8=_FP8),
        paths={
            "transformer_path": "pony-v7-base.safetensors",
            "text_encoder_path": "umt5_auraflow.fp16.safetensors",
            "vae_path": "sdxl_vae.safetensors",
        },
        sizes=PICTURES,
        model={"max_sequence_length": 768},
    ),
    "anima": Row(
        what="Anima, 2 B",
        source="circlestone-labs/Anima",
        network=Network(2.1, 2048, 28, 26),
        paths={
            "transformer_path": "anima-base-v1.0.safetensors",
            "vae_path": "qwen_image_vae.safetensors",
            "llm_path": "qwen_3_06b_base.safetensors",
        },
        sizes=SMALL,
        rank=32,
        lr=2e-5,
        save_every=1,
    ),
    "omnigen2": Row(
        what="OmniGen2, 4 B",
        source="OmniGen2/OmniGen2",
        network=Network(4.0, 2520),
        paths=_DIFFUSERS,
        sizes={16: Size((768,)), 24: Size((1024,)), 48: Size((1024,), batch=4)},
    ),
    "hunyuan_image": Row(
        what="HunyuanImage 2.1, 17 B",
        source="Comfy-Org/HunyuanImage_2.1_ComfyUI",
        network=Network(17.4, 3584, 40, 36, px=32, float8=_FP8),
        paths={
            "transformer_path": "hunyuanimage2.1.safetensors",
            "vae_path": "hunyuan_image_2.1_vae_fp16.safetensors",
            "text_encoder_path": "qwen_2.5_vl_7b.safetensors",
            "byt5_path": "byt5_small_glyphxl_fp16.safetensors",
        },
        sizes={16: Size((512,)), 24: Size((1024,)), 48: Size((1024,), batch=2), 80: Size((1536,), batch=4)},
    ),
    "ernie_image": Row(
        what="ERNIE-Image, 8 B",
        source="Comfy-Org/ERNIE-Image",
        network=Network(8.0, 4096, 36, 34, float8=_FP8),
        paths=_comfy("ernie-image.safetensors", _FLUX2_VAE, "ministral-3-3b.safetensors", "flux2"),
        sizes=PICTURES,
    ),
    "ideogram4": Row(
        what="Ideogram 4, 9 B, released in float8",
        source="ideogram-ai/ideogram-4-fp8, in ComfyUI's files",
        network=Network(9.3, 4608, 34, 32, stored_bytes=1),  # width: after the weights of a block
        paths=_comfy("ideogram4_fp8_scaled.safetensors", _FLUX2_VAE, "qwen3vl_8b_fp8_scaled.safetensors", "ideogram4"),
        sizes=PICTURES,
    ),
    "krea2": Row(
        what="Krea 2 Raw, 13 B",
        source="Comfy-Org/Krea-2",
        network=Network(13.1, 6144, 28, 26, float8=_FP8),
        paths=_comfy(
            "krea2_raw_bf16.safetensors", "qwen_image_vae.safetensors", "qwen3vl_4b_bf16.safetensors", "krea2"
        ),
        sizes=PICTURES | {48: Size((1024,)), 80: Size((1024,), batch=4)},
        model={"flux_shift": True},
        rank=32,
    ),
}

VIDEO_ROWS: dict[str, Row] = {
    "wan": Row(
        what="Wan 2.1 text to video, 14 B",
        source="Wan-AI/Wan2.1-T2V-14B",
        network=_WAN_14B,
        paths={"ckpt_path": ""},
        sizes=CLIPS,
        **_WAN,
    ),
    "wan-1.3b": Row(
        what="Wan 2.1 text to video, 1.3 B",
        source="Wan-AI/Wan2.1-T2V-1.3B",
        network=Network(1.42, 1536, 30, 28, frames=4, float8=_FP8),
        paths={"ckpt_path": ""},
        sizes=SMALL_CLIPS,
        **_WAN,
    ),
    "wan-2.2-high": Row(
        what="Wan 2.2 A14B text to video, high noise",
        source="Wan-AI/Wan2.2-T2V-A14B",
        network=_WAN_14B,
        paths={"ckpt_path": "", "transformer_path": "high_noise_model"},
        sizes=CLIPS,
        model={"min_t": 0.875},
        **_WAN,
    ),
    "wan-2.2-low": Row(
        what="Wan 2.2 A14B text to video, low noise",
        source="Wan-AI/Wan2.2-T2V-A14B",
        network=_WAN_14B,
        paths={"ckpt_path": "", "transformer_path": "low_noise_model"},
        sizes=CLIPS,
        model={"max_t": 0.875},
        **_WAN,
    ),
    "hunyuan-video": Row(
        what="HunyuanVideo, 13 B",
        source="tencent/HunyuanVideo",
        network=Network(12.8, 3072, 40, 36, frames=4, float8=_FP8),
        paths={"ckpt_path": ""},
        sizes=CLIPS,
        rank=32,
        lr=2e-5,
        epochs=200,
        true_cfg=1.0,
    ),
    "hunyuan_video_15": Row(
        what="HunyuanVideo 1.5 text to video, 8 B",
        source="Comfy-Org/HunyuanVideo_1.5_repackaged",
        network=Network(8.3, 2048, 54, 52, frames=4, float8=_FP8),
        paths=_comfy(
            "hunyuanvideo1.5_720p_t2v_fp16.safetensors",
            "hunyuanvideo15_vae_fp16.safetensors",
            "qwen_2.5_vl_7b.safetensors",
            "hunyuan_video_15",
        ),
        sizes=CLIPS | {80: Size((768,), _LONG, batch=2)},
        rank=32,
        batch=1,
        true_cfg=6.0,
    ),
    "ltx-video": Row(
        what="LTX-Video 0.9, 2 B",
        source="Lightricks/LTX-Video",
        network=Network(1.9, 2048, px=32, frames=8, float8=_FP8),
        paths={"diffusers_path": "", "single_file_path": "ltx-video-2b-v0.9.5.safetensors"},
        sizes={16: Size((512,), _LONG), 24: Size((768,), _LONG), 48: Size((960,), _LONG, batch=4)},
        rank=32,
        batch=1,
        true_cfg=3.0,
    ),
    "ltx-video-13b": Row(
        what="LTX-Video 0.9.8, 13 B",
        source="Lightricks/LTX-Video",
        network=Network(13.0, 4096, px=32, frames=8, float8=_FP8),
        paths={"diffusers_path": "", "single_file_path": "ltxv-13b-0.9.8-dev.safetensors"},
        sizes={24: Size((512,), _SECONDS), 48: Size((640,), _LONG), 80: Size((960,), _LONG, batch=2)},
        family="ltx-video",
        rank=32,
        batch=1,
        true_cfg=3.0,
    ),
    "ltx2": Row(
        what="LTX 2, 19 B with the part for sound",
        source="Lightricks/LTX-2 and Comfy-Org/ltx-2",
        network=Network(18.9, 4096, 48, 46, px=32, frames=8, float8=_FP8),
        paths={"diffusion_model": "ltx-2-19b-dev.safetensors", "text_encoder": "gemma_3_12B_it.safetensors"},
        sizes={24: Size((512,), _SECONDS), 48: Size((640,), _LONG), 80: Size((960,), _LONG, batch=2)},
        rank=32,
        batch=1,
    ),
    "cosmos": Row(
        what="Cosmos 1 text to world, 7 B",
        source="nvidia/Cosmos-1.0-Diffusion-7B-Text2World, VAE and text encoder in ComfyUI's files",
        network=Network(7.2, 4096, frames=8),
        paths={
            "transformer_path": "cosmos-1.0-diffusion-7b-text2world.pt",
            "vae_path": "cosmos_cv8x8x8_1.0.safetensors",
            "text_encoder_path": "oldt5_xxl_fp16.safetensors",
        },
        sizes={24: Size((960,)), 48: Size((960,), batch=4)},
        size_buckets=_COSMOS_BUCKETS,
        batch=4,
        true_cfg=7.0,
    ),
    "cosmos_predict2": Row(
        what="Cosmos-Predict2 text to image, 2 B",
        source="nvidia/Cosmos-Predict2-2B-Text2Image, VAE and text encoder in ComfyUI's files",
        network=Network(2.0, 2048, 28, 26),
        paths=_COSMOS_PREDICT2,
        sizes=SMALL,
    ),
    "cosmos_predict2-14b": Row(
        what="Cosmos-Predict2 text to image, 14 B",
        source="nvidia/Cosmos-Predict2-14B-Text2Image, VAE and text encoder in ComfyUI's files",
        network=Network(14.4, 5120, 36, 34, float8=_E5M2),
        paths=_COSMOS_PREDICT2,
        sizes={24: Size((512,)), 48: Size((1024,)), 80: Size((1024,), batch=4)},
        family="cosmos_predict2",
    ),
    "minimax_h3": Row(
        what="MiniMax H3 pruned, 21 B in 8 bits",
        source="Comfy-Org/MiniMax-H3",
        network=Network(20.6, 6144, 50, 48, px=32, frames=4, stored_bytes=1),  # width and tokens: after others' runs
        paths={
            "diffusion_model": "minimax_h3_fl2va_pruned_int8_convrot.safetensors",
            "vae": "minimax_h3_video_vae_fp16.safetensors",
            "audio_vae": "minimax_h3_audio_vae_fp32.safetensors",
            "text_encoders:minimax": "qwen3vl_32b_minimax_h3_int8_convrot.safetensors",
        },
        sizes={24: Size((512,), (1, 68)), 48: Size((512,), (1, 119)), 80: Size((768,), (1, 119))},
        model={"timestep_sample_method": "uniform", "shift": 8.0, "image_shift": 1.0, "cfg": 4.0},
        rank=32,
        batch=1,
        true_cfg=1.0,
    ),
}

ROWS: dict[str, Row] = IMAGE_ROWS | VIDEO_ROWS
"""Every model by its name, which is that of its family for the model that people mean by it."""
