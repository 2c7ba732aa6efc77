"""Every rule across keys of the training file, with its words."""

from __future__ import annotations

from typing import Any

import pytest

from dpnb.schema import (
    AdamW,
    Ema,
    EvalDataset,
    LokrAdapter,
    LoraAdapter,
    Loss,
    Monitoring,
    Prompt,
    Sampling,
    rules,
)
from dpnb.schema.families.base import FamilyFacts, TextEncoder
from dpnb.schema.optimizer import GenericOptim
from dpnb.schema.rules import check_training
from dpnb.schema.training import LegacyLora
from tests.dpnb.every_family import FAMILIES, complete_model, training


def sampling(*prompts: Prompt, **values) -> Sampling:
    return Sampling(**({"prompts": list(prompts) or [Prompt(text="x")], "every_n_steps": 1} | values))


EVAL = EvalDataset(name="a", config="a.toml")


def test_a_good_file_has_no_problems():
    assert check_training(training()) == []
    assert check_training(training(adapter=None, sample=sampling(), eval_datasets=[EVAL])) == []
    assert check_training(training(pipeline_stages=3, partition_method="manual", partition_split=[2, 5])) == []
    assert check_training(training(activation_checkpointing=True, reentrant_activation_checkpointing=True)) == []
    # Names that are there but empty leave the choice to W&B.
    empty = Monitoring(enable_wandb=True, wandb_tracker_name="", wandb_run_name="")
    assert check_training(training(monitoring=empty)) == []


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"save_every_n_epochs": None},
            "error: save_every_n_epochs: none of save_every_n_epochs, save_every_n_steps and save_every_n_examples is "
            "set. Add one of them, such as save_every_n_epochs = 1.",
        ),
        (
            {"adapter": LoraAdapter(rank=4, fuse_adapters=[{"path": "x"}]), "family": "z_image"},
            "warning: adapter.fuse_adapters: has no effect: it is not read for Z-Image. Name the files in "
            "model.merge_adapters.",
        ),
        (
            {"adapter": LoraAdapter(rank=4, fuse_adapters=[{"path": "x"}]), "family": "wan"},
            "warning: adapter.fuse_adapters: has no effect: it is not read for Wan. Remove it.",
        ),
        (
            {"blocks_to_swap": 39, "family": "wan"},
            "error: blocks_to_swap: 39 blocks are more than Wan can swap. Use 38 at most.",
        ),
        (
            {"partition_method": "manual", "pipeline_stages": 2},
            "error: partition_method: 0 layer numbers in partition_split do not fit pipeline_stages = 2. Give the "
            "first layer of each further stage, 1 in all.",
        ),
        (
            {"partition_method": "manual", "partition_split": [3]},
            "error: partition_split: 1 layer numbers in partition_split do not fit pipeline_stages = 1. Give the "
            "first layer of each further stage, 0 in all.",
        ),
        (
            {"partition_method": "manual", "partition_split": [3, 3], "pipeline_stages": 3},
            "error: partition_split: [3, 3] does not rise. Sort the layer numbers, without repeats.",
        ),
        (
            {"partition_split": [3]},
            "warning: partition_split: has no effect. Set partition_method = 'manual', or remove partition_split.",
        ),
        (
            {"reentrant_activation_checkpointing": True},
            "warning: reentrant_activation_checkpointing: has no effect. Set activation_checkpointing = true or "
            "'unsloth', or remove reentrant_activation_checkpointing.",
        ),
        (
            {"model": {"timestep_sample_method": "uniform", "sigmoid_scale": 2.0}},
            "warning: model.sigmoid_scale: has no effect. Set timestep_sample_method = 'logit_normal', or remove "
            "sigmoid_scale.",
        ),
        (
            {"eval_every_n_steps": 1},
            "warning: eval_every_n_steps: has no effect without eval_datasets. Add eval_datasets, or remove what "
            "stands here.",
        ),
        (
            {"eval_before_first_step": True, "eval_micro_batch_size_per_gpu": 1},
            "warning: eval_before_first_step: has no effect without eval_datasets, nor eval_micro_batch_size_per_gpu. "
            "Add eval_datasets, or remove what stands here.",
        ),
        (
            {"keep_best": True},
            "error: keep_best: needs eval_datasets to measure on. Add eval_datasets, or remove keep_best.",
        ),
        (
            {"early_stopping_patience": 2},
            "error: early_stopping_patience: needs eval_datasets to measure on. Add eval_datasets, or remove "
            "early_stopping_patience.",
        ),
        (
            {"checkpoint_every_n_epochs": 1, "checkpoint_every_n_minutes": 5.0},
            "warning: checkpoint_every_n_minutes: is set together with checkpoint_every_n_epochs: checkpoints are "
            "written by either. Keep one of the two, unless that is what you want.",
        ),
        (
            {"disable_block_swap_for_eval": True},
            "warning: disable_block_swap_for_eval: has no effect. Set blocks_to_swap as well, or remove it.",
        ),
        (
            {"family": "sdxl", "blocks_to_swap": 2},
            "error: blocks_to_swap: Stable Diffusion XL cannot swap blocks. Remove blocks_to_swap.",
        ),
        (
            {"blocks_to_swap": 35},
            "error: blocks_to_swap: 35 blocks are more than FLUX.1 can swap. Use 34 at most.",
        ),
        (
            {"blocks_to_swap": 2, "pipeline_stages": 2, "adapter": None},
            "error: blocks_to_swap: does not go together with pipeline_stages = 2. Set pipeline_stages = 1, or remove "
            "blocks_to_swap.\n"
            "error: blocks_to_swap: needs an adapter: in a full fine-tune all weights are at work. Add an [adapter] "
            "table, or remove it.",
        ),
        (
            {"family": "qwen_image", "model": {"diffusers_path": None, "vae_path": "v"}},
            "error: model: Qwen-Image needs diffusers_path, or transformer_path, text_encoder_path and vae_path. Add "
            "diffusers_path.",
        ),
        (
            {
                "family": "qwen_image",
                "model": {"diffusers_path": None, "transformer_path": "t", "vae_path": "v", "text_encoder_path": None},
            },
            "error: model: Qwen-Image needs diffusers_path, or transformer_path, text_encoder_path and vae_path. Add "
            "diffusers_path.",
        ),
        (
            {"family": "z_image", "model": {"text_encoders": [TextEncoder(type="lumina2")]}},
            "error: model.text_encoders[0]: names no file. Add path, or paths where one encoder is made of several "
            "files.",
        ),
        (
            {"family": "z_image", "model": {"text_encoders": [TextEncoder(type="x", path="a", paths=["b"])]}},
            "warning: model.text_encoders[0].path: has no effect because paths is set. Remove one of the two.",
        ),
        (
            {"family": "wan", "model": {"min_t": 0.9, "max_t": 0.5}},
            "error: model.min_t: 0.9 is not below max_t = 0.5. Swap or mend the two.",
        ),
        (
            {"family": "wan", "model": {"ckpt_path": "w", "transformer_path": "A14B/low_noise_model"}},
            "warning: model.ckpt_path: seems to be Wan 2.2 A14B, which has one network for noisy and one for clean "
            "timesteps. Set max_t = 0.875 (image to video: 0.9), unless the low-noise network is to draw on its own.",
        ),
        (
            {"family": "wan", "model": {"ckpt_path": "Wan2.2-A14B", "transformer_path": "wan_high_noise.safetensors"}},
            "warning: model.ckpt_path: seems to be Wan 2.2 A14B, which has one network for noisy and one for clean "
            "timesteps. Set min_t = 0.875 (image to video: 0.9).",
        ),
        (
            {"family": "wan", "model": {"ckpt_path": "Wan2.2-T2V-A14B"}},
            "warning: model.ckpt_path: seems to be Wan 2.2 A14B, which has one network for noisy and one for clean "
            "timesteps. Set min_t = 0.875 (image to video: 0.9) for the high-noise network, or max_t for the "
            "low-noise one.",
        ),
        (
            {"family": "minimax_h3", "model": {"cfg": 2.0}, "pipeline_stages": 2},
            "error: model.cfg: above 1 does not go together with pipeline_stages = 2. Set pipeline_stages = 1, or "
            "remove cfg.",
        ),
        (
            {"family": "anima", "model": {"t5_path": "t", "text_encoder_fp8": True, "text_encoder_nf4": True}},
            "warning: model.llm_path: has no effect because t5_path is set. Remove one of the two.\n"
            "warning: model.text_encoder_fp8: has no effect because text_encoder_nf4 is set. Remove one of the two.",
        ),
        (
            {"family": "anima", "model": {"text_encoder_fp8": True}},
            "warning: model.text_encoder_fp8: has no effect without t5_path. Remove text_encoder_fp8.",
        ),
        (
            {"family": "sdxl", "huber_delta": 1.0},
            "warning: huber_delta: has no effect: Stable Diffusion XL has a loss of its own. Remove huber_delta.",
        ),
        (
            {"smooth_l1_beta": 1.0, "loss": Loss(type="l1")},
            "warning: loss.type: has no effect because smooth_l1_beta is set. Remove one of the two.",
        ),
        (
            {"family": "lumina_2", "model": {"shift": 3.0, "lumina_shift": True}},
            "warning: model.lumina_shift: has no effect because shift is set. Remove one of the two.",
        ),
        (
            {"regenerate_cache": True, "lora": LegacyLora()},
            "warning: regenerate_cache: has no effect, in diffusion-pipe neither: there it is an option of the "
            "command line. Remove it.\n"
            "warning: lora: is the old name of the [adapter] table; nothing but its dtype is read. Write [adapter].",
        ),
        (
            {"video_clip_mode": "single_middle"},
            "warning: video_clip_mode: has no effect: FLUX.1 is trained on pictures. Remove video_clip_mode.",
        ),
        (
            {"monitoring": Monitoring(enable_wandb=True, wandb_tracker_name="x")},
            "error: monitoring.wandb_run_name: is missing, and enable_wandb = true needs it. Add it, or turn W&B off.",
        ),
        (
            {"monitoring": Monitoring(wandb_tracker_name="x", wandb_run_name="", wandb_api_key="")},
            "warning: monitoring.wandb_tracker_name: has no effect. Set enable_wandb = true, or remove "
            "wandb_tracker_name.",
        ),
        (
            {"family": "z_image", "adapter": None, "model": {"diffusion_model_dtype": "float8"}},
            "error: model.diffusion_model_dtype: 'float8' weights cannot be trained as a whole. Use 'bfloat16' or "
            "'float32'.",
        ),
        (
            {"family": "omnigen2", "adapter": None},
            "error: adapter: OmniGen2 cannot be fine-tuned as a whole. Add an [adapter] table.",
        ),
        (
            {"optimizer": GenericOptim(muon=True, normuon=True, rank=4)},
            "error: optimizer.normuon: does not go together with muon. Keep one of the two.\n"
            "error: optimizer.rank: needs update_proj_gap as well. Add update_proj_gap, or remove rank.",
        ),
        (
            {"optimizer": GenericOptim(update_proj_gap=4, momentum_type="sm")},
            "error: optimizer.update_proj_gap: needs rank as well. Add rank, or remove update_proj_gap.\n"
            "error: optimizer.momentum_type: 'sm' needs a rank to project to. Add rank and update_proj_gap.",
        ),
        (
            {"save_dtype": "float8"},
            "warning: save_dtype: 'float8' has nothing between 0 and 0.001, where many numbers of an adapter are. Use "
            "'bfloat16'.",
        ),
        (
            {"sample": sampling(negative="bad")},
            "warning: sample.negative: has no effect. Set sample.true_cfg above 1, such as 3.0.",
        ),
        (
            {"eval_datasets": [EVAL], "eval_before_first_step": False},
            "warning: eval_datasets: is never used. Set eval_every_n_epochs or eval_every_n_steps.",
        ),
        (
            {"eval_datasets": [EVAL, EVAL]},
            "error: eval_datasets[1].name: 'a' stands twice. Give each set a name of its own.",
        ),
        (
            {"huber_delta": 1.0, "smooth_l1_beta": 1.0},
            "warning: smooth_l1_beta: has no effect because huber_delta is set. Remove one of the two.",
        ),
        (
            {"save_every_n_examples": 1, "save_every_n_steps": 1},
            "warning: save_every_n_steps: has no effect because save_every_n_examples is set. Remove one of the two.",
        ),
        (
            {"eval_datasets": [EVAL], "eval_every_n_examples": 1, "eval_every_n_steps": 1},
            "warning: eval_every_n_steps: has no effect because eval_every_n_examples is set. Remove one of the two.",
        ),
        (
            {"force_constant_lr": 1.0, "warmup_steps": 1, "lr_scheduler": "cosine"},
            "warning: warmup_steps: has no effect because force_constant_lr is set. Remove one of the two.\n"
            "warning: lr_scheduler: has no effect because force_constant_lr is set. Remove one of the two.",
        ),
        (
            {"model": {"shift": 3.0, "flux_shift": True}},
            "warning: model.flux_shift: has no effect because shift is set. Remove one of the two.",
        ),
        (
            {"model": {"dtype": "float32", "transformer_dtype": "bfloat16"}},
            "error: model.transformer_dtype: weights in 'bfloat16' do not go together with dtype = 'float32'. Set "
            "dtype to the same, or remove transformer_dtype.",
        ),
        (
            {"adapter": None, "model": {"dtype": "float16"}},
            "warning: model.dtype: 'float16' weights that are trained as a whole lose small steps, and overflow. Use "
            "'bfloat16' or 'float32'.",
        ),
        (
            {"adapter": None, "model": {"transformer_dtype": "float16"}},
            "warning: model.transformer_dtype: 'float16' weights that are trained as a whole lose small steps, and "
            "overflow. Use 'bfloat16' or 'float32'.",
        ),
        (
            {"sample": sampling(every_n_steps=None, before_first_step=False)},
            "warning: sample: draws pictures only at the end of the run. Set every_n_steps or every_n_epochs.",
        ),
        (
            {"sample": sampling(width=500)},
            "error: sample.width: 500 px is not a multiple of 16, which FLUX.1 needs. Use 496.",
        ),
        (
            {"sample": sampling(Prompt(text="x"), Prompt(text="y", height=17))},
            "error: sample.prompts[1].height: 17 px is not a multiple of 16, which FLUX.1 needs. Use 16.",
        ),
        (
            {"sample": sampling(Prompt(text="x", negative="bad"))},
            "warning: sample.prompts[0].negative: has no effect. Set sample.true_cfg above 1, such as 3.0.",
        ),
    ],
)
def test_rules_of_the_training_file(values, said):
    assert "\n".join(map(str, check_training(training(**values)))) == said


def test_what_a_family_takes(monkeypatch):
    toy = FamilyFacts("Toy", adapters=("lokr",), full_finetune=False)
    monkeypatch.setattr(rules, "FACTS", {**rules.FACTS, "flux": toy})
    assert [str(p) for p in check_training(training())] == [
        "error: adapter.type: Toy does not take lora. Use one of: lokr."
    ]
    assert [str(p) for p in check_training(training(adapter=None))] == [
        "error: adapter: Toy cannot be fine-tuned as a whole. Add an [adapter] table."
    ]


def test_every_rule_is_pinned_above():
    """A new rule is a new row: count them."""
    assert len(rules.TRAINING_RULES) == 23


@pytest.mark.parametrize("family", FAMILIES)
def test_a_complete_file_of_every_family_has_no_problems(family: str) -> None:
    assert check_training(training(family=family)) == []
    assert check_training(training(family=family, adapter=LokrAdapter(rank=1_000_000), ema=Ema())) == []


@pytest.mark.parametrize("family", ["sdxl", "cosmos_predict2", "flux"])
def test_gradient_release_is_for_some_families(family: str) -> None:
    found = check_training(training(family=family, optimizer=AdamW(gradient_release=True)))
    words = (
        "warning: optimizer.gradient_release: works in diffusion-pipe for sdxl, cosmos_predict2, anima alone. "
        "Remove it."
    )
    assert [str(p) for p in found] == ([words] if family == "flux" else [])


@pytest.mark.parametrize(("family", "keys"), [(f, keys) for f in FAMILIES for keys in FAMILIES[f].facts.needs])
def test_every_alternative_is_enough(family: str, keys: tuple[str, ...]) -> None:
    others = {key: None for other in FAMILIES[family].facts.needs for key in other if key not in keys}
    optional = {k: v for k, v in others.items() if not FAMILIES[family].model_fields[k].is_required()}
    made: dict[str, Any] = {
        key: f"weights/{key}" for key in keys if key not in ("text_encoders", "max_sequence_length")
    }
    assert check_training(training(family=family, model=optional | made)) == []
    assert complete_model(family).type == family
