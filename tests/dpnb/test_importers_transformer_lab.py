"""Transformer Lab's parameters as our two files, and the table of them all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dpnb import importers
from dpnb.errors import ConfigError
from dpnb.importers import Imported
from dpnb.importers.draft import DATASET_FILE
from dpnb.importers.transformer_lab import NAMES, PARAMETERS
from dpnb.schema.dataset import Dataset
from dpnb.schema.training import Training
from tests.dpnb.test_foreign import is_ours
from tests.dpnb.test_importers_ai_toolkit import notes, training, validated
from tests.dpnb.test_importers_source import SCALARS

SDXL: dict[str, Any] = {
    "model_name": "stabilityai/stable-diffusion-xl-base-1.0",
    "model_architecture": "StableDiffusionXLPipeline",
    "dataset_name": "zorbis",
    "adaptor_name": "zorbi",
    "trigger_word": "zorbi",
    "num_train_epochs": "100",
    "train_batch_size": 2,
    "gradient_accumulation_steps": 4,
    "caption_column": "text",
    "image_column": "image",
    "caption_dropout_rate": 0.1,
    "resolution": 1024,
    "center_crop": True,
    "image_interpolation_mode": "bicubic",
    "random_flip": True,
    "color_jitter": True,
    "color_jitter_hue": 0.02,
    "random_rotation": False,
    "rotation_degrees": 5,
    "lora_r": 8,
    "lora_alpha": 16,
    "learning_rate": 1e-4,
    "lr_scheduler": "cosine",
    "lr_warmup_steps": 50,
    "adam_beta1": 0.9,
    "adam_beta2": 0.99,
    "weight_decay": 0.02,
    "epsilon": 1e-7,
    "max_grad_norm": 1,
    "loss_type": "l2",
    "huber_c": 0.1,
    "prediction_type": "v_prediction",
    "snr_gamma": 5,
    "min_snr_gamma": 0,
    "noise_offset": 0.05,
    "mixed_precision": "bf16",
    "enable_xformers_memory_efficient_attention": False,
    "gradient_checkpointing": True,
    "use_ema": True,
    "ema_decay": 0.999,
    "eval_prompt": "a zorbi",
    "eval_steps": 5,
    "eval_num_inference_steps": 30,
    "eval_guidance_scale": 7.5,
    "log_to_wandb": True,
}


def read(folder: Path, parameters: dict[str, Any], **options: Any) -> Imported:
    path = folder / "parameters.json"
    path.write_text(json.dumps(parameters, indent=1), encoding="utf-8")
    return importers.read(path, **options)


def without(*names: str, **changes: Any) -> dict[str, Any]:
    return {key: value for key, value in SDXL.items() if key not in names} | changes


def test_parameters_become_both_files(tmp_path: Path) -> None:
    imported = read(tmp_path, SDXL)
    validated(tmp_path, imported)
    result = training(imported)
    assert (result.output_dir, result.trigger_word, result.epochs) == ("output/zorbi", "zorbi", 100)
    assert (result.micro_batch_size_per_gpu, result.gradient_accumulation_steps) == (2, 4)
    assert (result.model.type, result.model.dtype, result.model.v_pred) == ("sdxl", "bfloat16", True)
    assert (result.model.min_snr_gamma, result.model.text_encoder_1_lr) == (5.0, 0.0)
    assert (result.adapter.rank, result.adapter.alpha) == (8, 16.0)
    assert result.adapter.target_modules == ["to_k", "to_q", "to_v", "to_out.0"]
    assert (result.optimizer.lr, result.optimizer.betas, result.optimizer.eps) == (1e-4, [0.9, 0.99], 1e-7)
    assert (result.lr_scheduler, result.warmup_steps, result.optimizer.weight_decay) == ("cosine", 50, 0.02)
    assert result.ema is not None
    assert result.ema.decay == 0.999
    assert result.loss is not None
    assert result.loss.noise_offset == 0.05
    assert result.sample is not None
    assert (result.sample.every_n_epochs, result.sample.steps, result.sample.guidance) == (5, 30, 7.5)
    assert (result.sample.width, result.sample.before_first_step) == (1024, False)
    assert result.monitoring is not None
    assert (result.monitoring.wandb_tracker_name, result.monitoring.wandb_run_name) == ("transformerlab", "zorbi")


def test_the_folder_is_named_by_the_data_set(tmp_path: Path) -> None:
    dataset = read(tmp_path, SDXL).datasets[DATASET_FILE]
    assert (dataset.directory[0].path, dataset.metadata_file) == ("datasets/zorbis", "datasets/zorbis/metadata.jsonl")
    assert (dataset.resolutions, dataset.crop, dataset.interpolation) == ([1024], "center", "bicubic")
    assert (dataset.caption_dropout, dataset.enable_ar_bucket) == (0.1, False)
    assert dataset.augmentation is not None
    assert (dataset.augmentation.flip, dataset.augmentation.hue, dataset.augmentation.brightness) == (0.5, 0.02, 0.1)
    assert dataset.augmentation.rotation_degrees == 0


def test_what_has_no_equivalent_says_why(tmp_path: Path) -> None:
    imported = read(tmp_path, SDXL)
    assert notes(imported, "rotation_degrees") == ["it is off (random_rotation)."]
    assert notes(imported, "huber_c") == ["the loss is the squared error (loss_type)."]
    assert notes(imported, "enable_xformers_memory_efficient_attention") == ["nothing to do for it here."]  # it is off
    assert notes(imported, "max_grad_norm") == ["It has no effect in Transformer Lab (a fault)."]
    imported = read(tmp_path, without("eval_prompt", lr_scheduler="constant", use_ema=False))
    assert notes(imported, "eval_steps") == ["no samples are drawn: eval_prompt is empty."]
    assert notes(imported, "lr_warmup_steps") == ["Transformer Lab's constant schedule takes no notice of it."]
    assert notes(imported, "ema_decay") == ["the average is off (use_ema)."]
    assert training(imported).warmup_steps == 0
    imported = read(tmp_path, without(model_architecture="FluxPipeline"))
    assert notes(imported, "prediction_type") == ["FLUX.1 learns a velocity in any case."]
    assert notes(imported, ".snr_gamma") + notes(imported, "snr_gamma")[:1] == [
        "the weighting means nothing for a model that learns a flow."
    ]


def test_huber_is_the_smooth_l1_loss_of_the_same_threshold(tmp_path: Path) -> None:
    changes = {"model_architecture": "FluxPipeline", "loss_type": "huber", "huber_c": 0.3}
    assert training(read(tmp_path, without("prediction_type", "snr_gamma", **changes))).smooth_l1_beta == 0.3
    assert training(read(tmp_path, without("huber_c", **(changes | {"huber_c": None})))).smooth_l1_beta == 0.1


def test_defaults_are_transformer_lab_s(tmp_path: Path) -> None:
    least = {"lora_r": 4, "lora_alpha": 4, "train_batch_size": 1, "model_name": "some/sd-v1-5"}
    imported = read(tmp_path, least)
    validated(tmp_path, imported)
    result = training(imported)
    assert (result.epochs, result.optimizer.lr, result.model.dtype) == (100, 1e-4, "float32")
    assert (result.model.type, result.save_every_n_epochs, result.sample) == ("sd15", 100, None)
    assert imported.datasets[DATASET_FILE].crop == "random"
    assert notes(imported, "model_name")[0] == "By the model's name; --model overrules it."


def test_parameters_below_a_table_are_found(tmp_path: Path) -> None:
    imported = read(tmp_path, {"name": "task", "config": SDXL}, name="second")
    assert training(imported).output_dir == "output/second"
    assert imported.entries("dropped")[0].source == "name"


def test_a_family_that_is_not_said_is_asked_for(tmp_path: Path) -> None:
    parameters = without("model_architecture", model_name="someone/own-model")
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, parameters)
    assert "says nowhere which model is trained. Say the family with --model: flux, " in str(caught.value)
    imported = read(tmp_path, parameters, model="qwen_image")
    validated(tmp_path, imported)
    assert training(imported).model.diffusers_path == "models/own-model"


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_has_a_home_or_a_reason(name: str) -> None:
    ours, note = PARAMETERS[name]
    assert ours or note
    assert not ours or is_ours(ours, Training) or is_ours(ours, Dataset)


def test_every_parameter_of_the_sample_is_one_of_the_table() -> None:
    assert set(PARAMETERS) - set(SDXL) == {
        "color_jitter_brightness",
        "color_jitter_contrast",
        "color_jitter_saturation",
        "rotation_prob",
    }


@given(st.sampled_from(sorted(SDXL)), SCALARS | st.lists(SCALARS, max_size=2))
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_one_value_of_anything_is_imported_or_refused(tmp_path: Path, name: str, value: Any) -> None:
    try:
        imported = read(tmp_path, SDXL | {name: value})
    except ConfigError as error:
        assert error.problems  # noqa: PT017
    else:
        validated(tmp_path, imported)
