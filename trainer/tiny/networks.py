"""The parts of the embedded model, untrained: tokenizers, text encoders, autoencoder, transformer, scheduler.

All of them are the stock classes of transformers and diffusers with small numbers, so `FluxPipeline` loads the result
as it loads any Flux. `save` writes the folder file by file, each one whole at any time.
"""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast, T5Config, T5EncoderModel

from trainer.tiny import TEXT_TOKENS
from trainer.tiny.drawing import random_scene

CLIP_TOKENS = 77  # as every CLIP has it; its attention is causal, so what follows the end token does not count
T5_WIDTH, CLIP_WIDTH = 96, 64
LATENT_CHANNELS = 8
SAMPLER_SHIFT = 3.0  # more of the sampler's steps near t = 1, where the layout of so small a picture is decided
VOCABULARY = 448  # 256 bytes, the specials, and merges enough for every word of the world to be one token


@dataclass
class Parts:
    """The trained modules and the two tokenizers that belong to them."""

    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    text_encoder_2: T5EncoderModel
    tokenizer: PreTrainedTokenizerFast
    tokenizer_2: PreTrainedTokenizerFast
    transformer: FluxTransformer2DModel

    def pipeline(self) -> FluxPipeline:
        """The stock pipeline over these very modules: no copy."""
        return FluxPipeline(scheduler=FlowMatchEulerDiscreteScheduler(shift=SAMPLER_SHIFT), **vars(self))

    def learners(self) -> torch.nn.ModuleDict:
        """What the flow stage trains together: the transformer and both text encoders."""
        return torch.nn.ModuleDict(
            {"transformer": self.transformer, "clip": self.text_encoder, "t5": self.text_encoder_2}
        )


def _byte_bpe(specials: list[str], template: str, seed: int = 0) -> Tokenizer:
    """A byte-level BPE that knows the words of the world; it spells out any other word, so nothing is unknown."""
    rng = random.Random(seed)
    captions = [random_scene(rng).caption() for _ in range(4000)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(captions, trainer)
    ids = [(token, tokenizer.token_to_id(token)) for token in specials if token in template.split()]
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=ids)
    return tokenizer


def t5_tokenizer() -> PreTrainedTokenizerFast:
    """Ends a text with </s> and pads on the right, as T5's own."""
    return PreTrainedTokenizerFast(
        tokenizer_object=_byte_bpe(["<pad>", "</s>", "<unk>"], "$A </s>"),
        eos_token="</s>",  # noqa: S106
        pad_token="<pad>",  # noqa: S106
        unk_token="<unk>",  # noqa: S106
        model_max_length=TEXT_TOKENS,
        padding_side="right",
    )


def clip_tokenizer() -> PreTrainedTokenizerFast:
    """Puts a text between a begin and an end token, and pads with the end token, as CLIP's own."""
    bos, eos = "<|startoftext|>", "<|endoftext|>"
    return PreTrainedTokenizerFast(
        tokenizer_object=_byte_bpe([bos, eos], f"{bos} $A {eos}"),
        bos_token=bos,
        eos_token=eos,
        pad_token=eos,
        unk_token=eos,
        model_max_length=CLIP_TOKENS,
        padding_side="right",
    )


def clip_encoder(tokenizer: PreTrainedTokenizerFast) -> CLIPTextModel:
    """A CLIP text encoder; its pooled output is the state at the first end token."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=CLIP_WIDTH,
            intermediate_size=4 * CLIP_WIDTH,
            projection_dim=CLIP_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=CLIP_TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            # any id but 2: that one selects the old rule "the largest id ends the text"
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def t5_encoder(tokenizer: PreTrainedTokenizerFast) -> T5EncoderModel:
    """A T5 encoder of two layers."""
    return T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=T5_WIDTH,
            d_kv=24,
            d_ff=256,
            num_layers=2,
            num_heads=4,
            dropout_rate=0.0,
            relative_attention_num_buckets=16,
            relative_attention_max_distance=32,
            feed_forward_proj="gated-gelu",
            is_encoder_decoder=False,
            use_cache=False,
            tie_word_embeddings=False,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def autoencoder() -> AutoencoderKL:
    """An autoencoder that divides width and height by 4; its scale and shift are set once it is trained."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 48),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=64,
        scaling_factor=1.0,
        shift_factor=0.0,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
    )


def transformer() -> FluxTransformer2DModel:
    """A Flux transformer of width 128: two double-stream and four single-stream blocks."""
    return FluxTransformer2DModel(
        in_channels=4 * LATENT_CHANNELS,
        num_layers=2,
        num_single_layers=4,
        attention_head_dim=32,
        num_attention_heads=4,
        joint_attention_dim=T5_WIDTH,
        pooled_projection_dim=CLIP_WIDTH,
        guidance_embeds=True,
        axes_dims_rope=(4, 14, 14),
    )


def build(seed: int = 0) -> Parts:
    """All parts with random weights; the global random state stays as it was."""
    clip_tok, t5_tok = clip_tokenizer(), t5_tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Parts(
            vae=autoencoder(),
            text_encoder=clip_encoder(clip_tok),
            text_encoder_2=t5_encoder(t5_tok),
            tokenizer=clip_tok,
            tokenizer_2=t5_tok,
            transformer=transformer(),
        )


def save(parts: Parts, folder: Path) -> int:
    """Write the diffusers folder with bfloat16 weights and give back its size in bytes; `parts` stays as it was.

    The folder is written beside its place and then moved in file by file, so a reader never meets half a file.
    """
    draft = folder.with_name(f".{folder.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    stored = build()
    for name in ("vae", "text_encoder", "text_encoder_2", "transformer"):
        source, target = getattr(parts, name), getattr(stored, name)
        target.load_state_dict(source.state_dict())
        target.to(torch.bfloat16)
    stored.vae.register_to_config(
        scaling_factor=parts.vae.config.scaling_factor, shift_factor=parts.vae.config.shift_factor
    )
    stored.pipeline().save_pretrained(draft, safe_serialization=True)
    # transformers goes by the stored type, diffusers by float32: have both load float32 unless asked otherwise
    for name in ("text_encoder", "text_encoder_2"):
        _change_json(draft / name / "config.json", dtype="float32")
    for name in ("tokenizer", "tokenizer_2"):
        _change_json(draft / name / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    # the name by which every version of transformers knows the class
    library_class = ["transformers", "PreTrainedTokenizerFast"]
    _change_json(draft / "model_index.json", tokenizer=library_class, tokenizer_2=library_class)
    size = 0
    for file in sorted(path for path in draft.rglob("*") if path.is_file()):
        place = folder / file.relative_to(draft)
        place.parent.mkdir(parents=True, exist_ok=True)
        size += file.stat().st_size
        file.replace(place)
    shutil.rmtree(draft)
    return size


def _change_json(file: Path, **changes: object) -> None:
    """Replace top-level values of a JSON file."""
    content = json.loads(file.read_text(encoding="utf-8")) | changes
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
