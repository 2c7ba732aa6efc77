"""FLUX.1: the Flux transformer of diffusers, with AutoencoderKL, CLIP (pooled) and T5 (sequence).

Legend: B batch, C latent channels, H W latent size, L image tokens (2x2 latent patches), S text tokens, D width.
Cached for each picture: latents_BCHW. Cached for each caption: text_BSD (T5), pooled_BD (CLIP).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dpnb.schema.families.flux import FluxModel
from dpnb.schema.model import FACTS
from trainer import adapter_files, objective, storage
from trainer.families.base import DTYPES, Denoise, Prepared, SampleRequest, Tensors, controls_of, fingerprint

T5_TOKENS = 512


class FluxInputs(NamedTuple):
    """What the first layer takes."""

    hidden_BLC: Tensor
    text_BSD: Tensor
    pooled_BD: Tensor
    time_B: Tensor  # in (0, 1], float32
    guidance_B: Tensor  # float32; without effect on a model that has no guidance embedding
    grid_BL3: Tensor  # position of each image token as (which control picture or 0, row, column), int32


class FluxWire(NamedTuple):
    """What travels from layer to layer. The grid is whole numbers, so no gradient is sent back for it."""

    hidden_BLD: Tensor
    text_BSD: Tensor
    temb_BD: Tensor
    grid_BL3: Tensor


class FluxEmbed(nn.Module):
    """First layer: tokens, text, time, guidance and pooled text into the width of the network."""

    def __init__(self, transformer: Any, *, with_guidance: bool) -> None:  # noqa: ANN401 - diffusers' network
        super().__init__()
        self.x_embedder: nn.Module = transformer.x_embedder
        self.context_embedder: nn.Module = transformer.context_embedder
        self.time_text_embed: nn.Module = transformer.time_text_embed
        self.with_guidance = with_guidance

    def forward(self, inputs: tuple[Tensor, ...]) -> FluxWire:
        """FluxInputs -> FluxWire."""
        x = FluxInputs(*inputs)
        # The network was trained on time and guidance times 1000. They stay in float32: bfloat16 would round a
        # time to three digits.
        if self.with_guidance:
            temb_BD = self.time_text_embed(x.time_B * 1000, x.guidance_B * 1000, x.pooled_BD)
        else:
            from diffusers.models.embeddings import CombinedTimestepTextProjEmbeddings

            # By its class, for a network that has a guidance embedding and is to be trained without: the other parts
            # are called alike.
            temb_BD = CombinedTimestepTextProjEmbeddings.forward(self.time_text_embed, x.time_B * 1000, x.pooled_BD)
        return FluxWire(self.x_embedder(x.hidden_BLC), self.context_embedder(x.text_BSD), temb_BD, x.grid_BL3)


class FluxBlock(nn.Module):
    """One double or single block; both take and give text and image tokens apart."""

    def __init__(self, block: nn.Module, pos_embed: nn.Module) -> None:
        super().__init__()
        self.block = block
        self.pos_embed = pos_embed  # has no weights

    def forward(self, wire: tuple[Tensor, ...]) -> FluxWire:
        """FluxWire -> FluxWire of the same shapes."""
        x = FluxWire(*wire)
        text_ids = x.grid_BL3.new_zeros(x.text_BSD.shape[1], 3)
        rotary = self.pos_embed(torch.cat([text_ids, x.grid_BL3[0]]))
        text_BSD, hidden_BLD = self.block(
            hidden_states=x.hidden_BLD,
            encoder_hidden_states=x.text_BSD,
            temb=x.temb_BD,
            image_rotary_emb=rotary,
        )
        return x._replace(hidden_BLD=hidden_BLD, text_BSD=text_BSD)


class FluxOutput(nn.Module):
    """Last layer: image tokens back to latent patches."""

    def __init__(self, transformer: Any) -> None:  # noqa: ANN401 - diffusers' network
        super().__init__()
        self.norm_out: nn.Module = transformer.norm_out
        self.proj_out: nn.Module = transformer.proj_out

    def forward(self, wire: tuple[Tensor, ...]) -> Tensor:
        """FluxWire -> predicted velocity (B, L, 4C) of the noised tokens, without those of control pictures."""
        x = FluxWire(*wire)
        noised_L = x.grid_BL3[0, :, 0] == 0
        return self.proj_out(self.norm_out(x.hidden_BLD[:, noised_L], x.temb_BD))


class FluxStandIn(nn.Module):
    """What the diffusers pipeline believes to be its transformer: passes every call on to `denoise`."""

    def __init__(self, config: Any, denoise: Denoise) -> None:  # noqa: ANN401 - diffusers' FrozenDict
        super().__init__()
        self.config = config
        self.denoise = denoise
        self.dtype = torch.float32
        self.device = torch.device("cpu")

    def cache_context(self, _name: str) -> torch.autograd.grad_mode.no_grad:
        """The pipeline marks conditional and unconditional calls for caches that we do not use."""
        return torch.no_grad()

    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        guidance: Tensor | None,
        pooled_projections: Tensor,
        encoder_hidden_states: Tensor,
        img_ids: Tensor,
        **_unused: object,
    ) -> tuple[Tensor]:
        """The call that FluxPipeline makes -> (prediction,)."""
        batch = hidden_states.shape[0]
        inputs = FluxInputs(
            hidden_states,
            encoder_hidden_states,
            pooled_projections,
            timestep.float(),
            torch.ones(batch) if guidance is None else guidance.float(),
            img_ids.to(torch.int32).expand(batch, -1, -1),
        )
        return (self.denoise(inputs),)


class Flux:
    """FLUX.1 behind the Family protocol."""

    adapter_blocks: Sequence[str] = ("FluxTransformerBlock", "FluxSingleTransformerBlock")
    sensitive: Sequence[str] = ("norm",)  # with the modulation, which is a linear layer of AdaLayerNormZero
    most_controls: float = math.inf
    facts = FACTS["flux"]

    def __init__(self, model: FluxModel) -> None:
        self.model = model
        self.root = Path(model.diffusers_path)
        self.dtype = DTYPES[model.dtype]
        self.times = objective.TimestepDistribution(model.timestep_sample_method, model.sigmoid_scale)
        self.encoders: dict[str, Any] = {}
        self.config: Any = None  # the transformer's, known once it is loaded
        self._vae: Any = None  # kept on the CPU between samplings

    # --- cache -------------------------------------------------------------------------------------------------------

    @cached_property
    def pixels_identity(self) -> str:
        """Fingerprint of the VAE."""
        return fingerprint("flux-latents-1", self.model.dtype, self.root / "vae")

    @cached_property
    def text_identity(self) -> str:
        """Fingerprint of both text encoders and tokenizers."""
        parts = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
        return fingerprint("flux-text-1", self.model.dtype, T5_TOKENS, *(self.root / part for part in parts))

    def load_encoders(self, device: torch.device) -> None:
        """VAE, CLIP and T5, frozen, in the model's dtype."""
        from transformers import AutoTokenizer, CLIPTextModel, T5EncoderModel

        kinds = {"text_encoder": CLIPTextModel, "text_encoder_2": T5EncoderModel}
        for part, kind in kinds.items():
            module = kind.from_pretrained(self.root / part, dtype=self.dtype, local_files_only=True)
            self.encoders[part] = module.to(device).eval().requires_grad_(False)
        for part in ("tokenizer", "tokenizer_2"):
            self.encoders[part] = AutoTokenizer.from_pretrained(self.root / part, local_files_only=True)
        self.load_pixels_encoder(device)

    def load_pixels_encoder(self, device: torch.device) -> None:
        """The VAE, from where it was."""
        self.encoders["vae"] = self._load_vae()
        if self.encoders["vae"].device != device:
            self.encoders["vae"].to(device)

    def _load_vae(self) -> Any:  # noqa: ANN401 - diffusers' AutoencoderKL
        from diffusers import AutoencoderKL

        if self._vae is None:
            vae = AutoencoderKL.from_pretrained(self.root / "vae", torch_dtype=self.dtype, local_files_only=True)
            self._vae = vae.eval().requires_grad_(False)
        return self._vae

    def free_encoders(self) -> None:
        """The text encoders go; the VAE, small beside them, waits on the CPU for the samples."""
        self.encoders.clear()
        if self._vae is not None:
            self._vae.to("cpu")

    @torch.no_grad()
    def encode_pixels(self, pixels_BCFHW: Tensor) -> dict[str, Tensor]:
        """{"latents": (B, C, H/f, W/f)} in float32, normalised as the transformer wants them."""
        vae = self.encoders["vae"]
        pixels_BCHW = pixels_BCFHW.squeeze(2).to(vae.device, vae.dtype)
        # The mode, not a draw: the cache must not depend on a generator, and the posterior's spread is tiny.
        latents = vae.encode(pixels_BCHW).latent_dist.mode().float()
        return {"latents": ((latents - vae.config.shift_factor) * vae.config.scaling_factor).cpu()}

    @torch.no_grad()
    def encode_text(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """{"text": (B, S, D) of T5, "pooled": (B, D) of CLIP}, padded to fixed lengths as FluxPipeline does."""
        t5, clip = self.encoders["text_encoder_2"], self.encoders["text_encoder"]
        t5_tokens = min(T5_TOKENS, self.encoders["tokenizer_2"].model_max_length)
        clip_tokens = min(clip.config.max_position_embeddings, self.encoders["tokenizer"].model_max_length)
        text = t5(self._tokens("tokenizer_2", captions, t5_tokens).to(t5.device)).last_hidden_state
        pooled = clip(self._tokens("tokenizer", captions, clip_tokens).to(clip.device)).pooler_output
        return {"text": text.cpu(), "pooled": pooled.cpu()}

    def _tokens(self, tokenizer: str, captions: Sequence[str], length: int) -> Tensor:
        encode = self.encoders[tokenizer]
        options = {"padding": "max_length", "truncation": True, "max_length": length, "return_tensors": "pt"}
        return encode(list(captions), **options).input_ids

    # --- network -----------------------------------------------------------------------------------------------------

    def load_transformer(self) -> nn.Module:
        """FluxTransformer2DModel from the diffusers folder, or from one file when transformer_path is given."""
        from diffusers import FluxTransformer2DModel

        folder = self.root / "transformer"
        options: dict[str, Any] = {"torch_dtype": storage.loading_dtype(self.model), "local_files_only": True}
        if self.model.transformer_path is None:
            transformer = FluxTransformer2DModel.from_pretrained(folder, **options)
        else:
            transformer = FluxTransformer2DModel.from_single_file(
                self.model.transformer_path, config=str(self.root), subfolder="transformer", **options
            )
        self.config = transformer.config
        return transformer.eval().requires_grad_(False)

    def layers(self, transformer: Any) -> list[nn.Module]:  # noqa: ANN401 - diffusers' network
        """FluxEmbed, the double blocks, the single blocks, FluxOutput."""
        with_guidance = transformer.config.guidance_embeds and not self.model.bypass_guidance_embedding
        blocks = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]
        return [
            FluxEmbed(transformer, with_guidance=with_guidance),
            *(FluxBlock(block, transformer.pos_embed) for block in blocks),
            FluxOutput(transformer),
        ]

    # --- training ----------------------------------------------------------------------------------------------------

    def noise_shape(self, batch: Tensors) -> Sequence[int]:
        """The latents' own shape (B, C, H, W)."""
        return batch["latents"].shape

    def prepare(self, batch: Tensors, t_B: Tensor, noise: Tensor) -> Prepared:
        """Rectified flow on packed latents; target (B, L, 4C) in float32."""
        latents = batch["latents"].float()
        height, width = latents.shape[-2] // 2, latents.shape[-1] // 2
        shift = self.model.shift or (objective.flux_shift(height * width) if self.model.flux_shift else None)
        if shift is not None:
            t_B = objective.shift_by(t_B, shift)
        noised, target = objective.flow_match(latents, noise, t_B)
        hidden_BLC, grid_L3 = pack(noised), token_grid(height, width)
        # Clean tokens behind the noised ones, told apart by the first coordinate: 1 in FluxKontextPipeline, and i for
        # the i-th picture in section 3 of the Kontext paper (arXiv 2506.15742); ComfyUI calls that method "index".
        controls = [pack(latents.float()) for latents in controls_of(batch, "latents")]
        hidden_BLC = torch.cat([hidden_BLC, *controls], 1)
        grid_L3 = torch.cat([grid_L3 + grid_L3.new_tensor([i, 0, 0]) for i in range(len(controls) + 1)])
        inputs = FluxInputs(
            hidden_BLC,
            batch["text"].float(),
            batch["pooled"].float(),
            t_B,
            torch.full_like(t_B, self.model.guidance),
            grid_L3.expand(len(t_B), -1, -1),
        )
        return Prepared(inputs, pack(target), t_B)

    def over_target(self, mask_B1HW: Tensor, batch: Tensors) -> Tensor:
        """(B, L, 4C): every channel of a latent has its weight."""
        return pack(mask_B1HW.expand(-1, batch["latents"].shape[1], -1, -1))

    # --- sampling ----------------------------------------------------------------------------------------------------

    def sample(self, denoise: Denoise, request: SampleRequest) -> Tensor:
        """Stock FluxPipeline around `denoise`; the noise is the one that FluxPipeline itself draws from the seed."""
        from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline

        pipeline = FluxPipeline(
            scheduler=FlowMatchEulerDiscreteScheduler.from_pretrained(self.root, subfolder="scheduler"),
            # A pipeline computes where its VAE is, which a run that encodes while training has on the GPU.
            vae=self._load_vae().to("cpu"),
            text_encoder=None,
            tokenizer=None,
            text_encoder_2=None,
            tokenizer_2=None,
            transformer=FluxStandIn(self.config, denoise),
        )
        pipeline.set_progress_bar_config(disable=True)
        prompts = {"prompt_embeds": request.embeds["text"], "pooled_prompt_embeds": request.embeds["pooled"]}
        if request.negative_embeds is not None:
            prompts["negative_prompt_embeds"] = request.negative_embeds["text"]
            prompts["negative_pooled_prompt_embeds"] = request.negative_embeds["pooled"]
        latents = pipeline(
            **{name: value.float() for name, value in prompts.items()},
            width=request.width_px,
            height=request.height_px,
            num_inference_steps=request.steps,
            guidance_scale=request.guidance,
            true_cfg_scale=request.true_cfg,
            generator=torch.Generator().manual_seed(request.seed),
            output_type="latent",
        ).images
        return pipeline._unpack_latents(latents, request.height_px, request.width_px, pipeline.vae_scale_factor)

    @torch.no_grad()
    def decode(self, latents: Tensor, device: torch.device) -> Tensor:
        """Latents (B, C, H, W) -> pixels in [0, 1], (B, 3, 1, H*f, W*f)."""
        vae = self._load_vae().to(device)
        latents = latents.float() / vae.config.scaling_factor + vae.config.shift_factor
        pixels = vae.decode(latents.to(device, vae.dtype), return_dict=False)[0]
        self.free_encoders()
        return (pixels.float().cpu() / 2 + 0.5).clamp(0, 1).unsqueeze(2)

    # --- export ------------------------------------------------------------------------------------------------------

    def save_adapter(self, folder: Path, weights: dict[str, Tensor], config: Any) -> None:  # noqa: ANN401 - peft's
        """adapter_model.safetensors with diffusers' keys ("transformer." prefix).

        LoRA and DoRA load into FluxPipeline; LoRA, LoKr and LoHa into ComfyUI, which looks for peft's names of theirs
        (LyCORIS') behind the same prefix.
        """
        from diffusers import FluxPipeline

        FluxPipeline.save_lora_weights(
            folder, transformer_lora_layers=weights, weight_name="adapter_model.safetensors"
        )
        config.save_pretrained(folder)

    def load_adapter(self, place: Path) -> dict[str, Tensor]:
        """The adapter's weights with the network's own names; see trainer/adapter_files.py."""
        return adapter_files.read(place, "transformer.")

    def save_model(self, folder: Path, weights: dict[str, Tensor]) -> None:
        """A folder that FluxTransformer2DModel.from_pretrained loads."""
        from accelerate import init_empty_weights
        from diffusers import FluxTransformer2DModel

        with init_empty_weights():
            transformer = FluxTransformer2DModel.from_config(self.config)
        transformer.load_state_dict(weights, assign=True)
        transformer.save_pretrained(folder)


def pack(latents_BCHW: Tensor) -> Tensor:
    """2x2 patches as tokens, channels first within a token: (B, C, H, W) -> (B, H/2 * W/2, 4C), as FluxPipeline."""
    B, C, H, W = latents_BCHW.shape
    patches = latents_BCHW.reshape(B, C, H // 2, 2, W // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return patches.reshape(B, H // 2 * (W // 2), 4 * C)


def token_grid(height: int, width: int) -> Tensor:
    """Position of each token, (height * width, 3) int32: (0, row, column)."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([torch.zeros_like(rows), rows, columns], -1).reshape(-1, 3).to(torch.int32)
