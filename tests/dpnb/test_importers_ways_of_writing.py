"""Rules of the importers that files which people wrote made necessary; each in the smallest file that needs it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from dpnb import importers
from dpnb.errors import ConfigError
from dpnb.importers import Imported
from dpnb.importers.draft import DATASET_FILE
from dpnb.schema.dataset import Dataset
from tests.dpnb.test_importers_ai_toolkit import failure as job_failure
from tests.dpnb.test_importers_ai_toolkit import notes, read, small, training, validated

SDXL = """
pretrained_model_name_or_path = "/m/xl.safetensors"
network_module = "networks.lora"
network_dim = 8
max_train_epochs = 2
"""
FLUX = """
pretrained_model_name_or_path = "/m/flux1-dev.safetensors"
network_module = "networks.lora_flux"
network_dim = 8
max_train_epochs = 2
train_data_dir = "/data"
"""
FOLDER = """
[[datasets]]
resolution = 768
[[datasets.subsets]]
image_dir = "/data"
"""
CLIPS = """
[[datasets]]
video_directory = "/clips"
"""
SAMPLE = {"prompts": ["a cat"]}
FLOW = {"name_or_path": "m", "arch": "flux"}


def kohya(folder: Path, text: str, data: str | None = None, **options: Any) -> Imported:
    paths = [folder / "train.toml"]
    paths[0].write_text(text, encoding="utf-8")
    if data is not None:
        paths.append(folder / "data.toml")
        paths[1].write_text(data, encoding="utf-8")
    imported = importers.read(paths, **options)
    validated(folder, imported)
    return imported


def dataset(imported: Imported) -> Dataset:
    return imported.datasets[DATASET_FILE]


def outcome(imported: Imported, key: str) -> list[str]:
    return [entry.outcome for entry in imported.report if entry.source.endswith(key)]


def failure(path: Path, text: str, **options: Any) -> str:
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        importers.read(path, **options)
    return "\n".join(f"{p.key}: {p.message} {p.suggestion}".rstrip() for p in caught.value.problems)


# --- what holds for all of them --------------------------------------------------------------------------------------


def test_a_switch_that_is_off_is_no_loss(tmp_path: Path) -> None:
    train = {"diff_output_preservation": False, "random_list": [], "unconditional_prompt": ""}
    imported = read(tmp_path, small(train=train))
    for key in train:
        assert notes(imported, key) == ["nothing to do for it here."], key
    imported = read(tmp_path, small(network={"linear": 8, "transformer_only": False}))
    assert outcome(imported, "transformer_only") == ["dropped"]  # it is on unless a job says so


def test_a_key_of_the_model_that_the_family_has_not_is_told(tmp_path: Path) -> None:
    imported = kohya(tmp_path, FLUX + "cache_text_encoder_outputs = true\n")
    assert notes(imported, "cache_text_encoder_outputs") == ["FLUX.1 has no cache_text_embeddings."]


def test_what_is_set_already_is_not_replaced(tmp_path: Path) -> None:
    imported = kohya(tmp_path, SDXL + 'train_data_dir = "/d"\nlog_prefix = "a"\nwandb_run_name = "b"\n')
    assert training(imported).monitoring.wandb_run_name == "a"
    assert notes(imported, "wandb_run_name") == ["monitoring.wandb_run_name is 'a' already."]


# --- AI Toolkit ------------------------------------------------------------------------------------------------------


def test_the_first_sample_is_drawn_unless_it_is_skipped(tmp_path: Path) -> None:
    for skip, force in ((False, False), (False, True), (True, False)):
        train = {"skip_first_sample": skip, "force_first_sample": force}
        imported = read(tmp_path, small(sample=SAMPLE, train=train))
        assert training(imported).sample.before_first_step is not skip
    imported = read(tmp_path, small(sample=SAMPLE, train={"force_first_sample": True}))
    assert notes(imported, "force_first_sample") == ["a run that goes on draws none before its first step."]


def test_0_is_never_and_not_at_each_step(tmp_path: Path) -> None:
    imported = read(tmp_path, small(sample=SAMPLE | {"sample_every": 0}, save={"save_every": 0}, train={"steps": 70}))
    validated(tmp_path, imported)
    assert training(imported).sample.every_n_steps is None
    assert notes(imported, "sample_every") == ["0 draws none on the way, as does leaving it out."]
    assert training(imported).save_every_n_steps == 70
    assert notes(imported, "save_every") == ["It saves at the end alone."]


def test_a_name_with_its_network_is_a_name_from_its_beginning(tmp_path: Path) -> None:
    only = ["transformer.transformer_blocks.1.", "ff"]
    imported = read(tmp_path, small(network={"linear": 4, "network_kwargs": {"only_if_contains": only}}))
    excluded = re.compile(training(imported).adapter.exclude_modules)
    trained = ("transformer_blocks.1.attn", "single_transformer_blocks.7.ff")
    others = ("single_transformer_blocks.1.attn", "transformer_blocks.11.attn")
    assert [name for name in (*trained, *others) if not excluded.fullmatch(name)] == list(trained)


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ({"name_or_path": "stabilityai/stable-diffusion-xl-base-1.0"}, "sdxl"),
        ({"name_or_path": "stabilityai/stable-diffusion-xl-base-1.0", "is_flux": False}, "sdxl"),
        ({"name_or_path": "/m/base.safetensors", "is_sdxl": True}, "sdxl"),
        ({"name_or_path": "/m/base.safetensors"}, "sd15"),
    ],
)
def test_the_family_is_known_by_flags_and_names(tmp_path: Path, model: dict[str, Any], family: str) -> None:
    imported = read(tmp_path, small(model=model))
    validated(tmp_path, imported)
    assert training(imported).model.type == family


def test_other_names_count_where_ai_toolkits_own_are_missing(tmp_path: Path) -> None:
    train = {"learning_rate": 5e-5, "max_train_steps": 40, "optimizer": "adamw", "optimizer_args": {"eps": 1e-6}}
    result = training(read(tmp_path, small(train=train | {"lr_warmup_steps": 9, "lr_scheduler": "cosine"})))
    assert (result.optimizer.lr, result.max_steps, result.optimizer.eps, result.warmup_steps) == (5e-5, 40, 1e-6, 9)
    assert training(read(tmp_path, small(train=train | {"lr": 1e-4}))).optimizer.lr == 1e-4


@pytest.mark.parametrize(
    ("train", "warmup"),
    [
        ({"lr_scheduler": "constant_with_warmup"}, 1000),
        ({"lr_scheduler": "constant_with_warmup", "lr_scheduler_params": {"num_warmup_steps": 5}}, 5),
        ({"lr_scheduler": "cosine_with_restarts", "lr_scheduler_params": {"warmup_steps": 7, "T_mult": 2}}, 7),
        ({"lr_scheduler": "cosine"}, 0),
    ],
)
def test_the_warm_up_of_a_job(tmp_path: Path, train: dict[str, Any], warmup: int) -> None:
    imported = read(tmp_path, small(train=train))
    assert training(imported).warmup_steps == warmup
    why = "a schedule is constant, linear or cosine here, without settings of its own."
    assert notes(imported, "T_mult") == [why] * ("T_mult" in str(train))


def test_a_whole_model_keeps_its_weights_in_full(tmp_path: Path) -> None:
    model = FLOW | {"quantize": True, "only_if_contains": ["transformer."]}
    imported = read(tmp_path, small(network=None, model=model))
    validated(tmp_path, imported)
    assert notes(imported, "quantize") == ["the whole model is trained, which needs its weights in full."]
    assert notes(imported, "only_if_contains") == [
        "it chooses parts of a whole model to train, and here all of them are trained."
    ]


def test_a_job_that_trains_something_else_is_refused(tmp_path: Path) -> None:
    assert job_failure(tmp_path, small(network=None, adapter={"type": "redux"})) == (
        "config.process[0].adapter: is what this job trains, and only adapters such as LoRA and whole models are "
        "trained here. Import a job with a network table, or one without this table."
    )


@pytest.mark.parametrize(
    ("kwargs", "half", "bound"),
    [
        ({}, "low_noise_model", (None, 0.875)),
        ({"train_high_noise": True, "train_low_noise": True}, "low_noise_model", (None, 0.875)),
        ({"train_high_noise": True, "train_low_noise": False}, "high_noise_model", (0.875, None)),
    ],
)
def test_the_half_of_wan_that_a_job_trains(
    tmp_path: Path, kwargs: dict[str, Any], half: str, bound: tuple[float | None, float | None]
) -> None:
    name = "ai-toolkit/Wan2.2-T2V-A14B-Diffusers-bf16"
    imported = read(tmp_path, small(model={"name_or_path": name, "arch": "wan22_14b", "model_kwargs": kwargs}))
    validated(tmp_path, imported)
    model = training(imported).model
    assert (model.ckpt_path, model.transformer_path) == ("models/Wan2.2-T2V-A14B", f"models/Wan2.2-T2V-A14B/{half}")
    assert (model.min_t or None, model.max_t if bound[1] else None) == bound
    assert "hf download Wan-AI/Wan2.2-T2V-A14B " in notes(imported, "name_or_path")[0]


def test_what_no_folder_and_no_repository_is_named_for(tmp_path: Path) -> None:
    hidream = {"name_or_path": "HiDream-ai/HiDream-I1-Full", "extras_name_or_path": "HiDream-ai/HiDream-I1-Full"}
    hidream |= {"arch": "hidream", "model_kwargs": {"llama_model_path": "unsloth/Llama"}}  # type: ignore[dict-item]
    imported = read(tmp_path, small(model=hidream, save={"push_to_hub": True}))
    model = training(imported).model
    assert (model.diffusers_path, model.llama3_path) == ("models/HiDream-I1-Full", "models/Llama")
    assert notes(imported, "push_to_hub") == [
        "the repository is not named (hf_repo_id): write push_to_hub = 'owner/name'."
    ]


def test_a_single_file_tells_the_size_of_the_folder(tmp_path: Path) -> None:
    imported = read(tmp_path, small(model={"name_or_path": "/m/sd3.5_large.safetensors", "is_v3": True}))
    assert training(imported).model.diffusers_path == "models/stable-diffusion-3.5-large"


def test_the_small_print_of_a_job(tmp_path: Path) -> None:
    model = FLOW | {"quantize": True, "qtype": "uint3|someone/recovery.safetensors", "lora_path": "/l.safetensors"}
    folder = {"folder_path": "d", "caption_ext": "json", "num_frames": 33}
    train = {"content_or_style": "style", "timestep_type": "flux_shift"}
    sample = SAMPLE | {"sample_start_step": 5}
    imported = read(tmp_path, small(model=model, datasets=[folder], train=train, sample=sample))
    assert notes(imported, "qtype") == ["weights in float8 need no adapter that recovers their accuracy."]
    assert [entry.path for entry in training(imported).adapter.fuse_adapters] == ["/l.safetensors"]
    assert notes(imported, "caption_ext") == [
        "captions stand in .txt files or in captions.json: rename the .json files."
    ]
    assert notes(imported, "num_frames")[0].startswith("AI Toolkit spreads so many frames over the whole of a clip;")
    assert notes(imported, "content_or_style")[0].startswith("more noise is content, less is style:")
    assert training(imported).model.flux_shift is True
    assert notes(imported, "sample_start_step") == ["samples are drawn from the beginning."]
    alone = read(tmp_path, small(model=model, network=None))
    assert notes(alone, "lora_path") == ["there is no [adapter] that they could be merged beside."]


def test_prompts_in_tables_are_told_once(tmp_path: Path) -> None:
    items = [{"prompt": "a", "width": 512, "network_multiplier": 0.5}]
    imported = read(tmp_path, small(sample={"samples": items}))
    assert [entry.source for entry in imported.report if ".samples" in entry.source] == [
        "config.process[0].sample.samples[0].network_multiplier",
        "config.process[0].sample.samples",
    ]


# --- kohya and musubi-tuner ------------------------------------------------------------------------------------------


def test_the_dataset_file_has_the_last_word_and_the_training_file_the_first(tmp_path: Path) -> None:
    text = SDXL + 'train_batch_size = 1\nkeep_tokens = 2\nshuffle_caption = true\nresolution = "512,512"\n'
    data = "[general]\nkeep_tokens = 3\nbatch_size = 4\n" + FOLDER
    imported = kohya(tmp_path, text, data)
    assert training(imported).micro_batch_size_per_gpu == 4
    assert (dataset(imported).keep_first_tags, dataset(imported).cache_shuffle_num) == (3, 10)
    assert dataset(imported).directory[0].resolutions == [768]
    assert "batch_size of the dataset file takes its place, in kohya's scripts too." in notes(imported, "batch_size")
    assert "the dataset file says it too, and takes precedence in kohya's scripts as well." in [
        entry.note for entry in imported.report if entry.source == "keep_tokens"
    ]


def test_a_dataset_file_from_another_machine_is_looked_for_beside(tmp_path: Path) -> None:
    (tmp_path / "data.toml").write_text(FOLDER, encoding="utf-8")
    for named in ("/container/data.toml", "C:\\\\files\\\\data.toml"):
        imported = kohya(tmp_path, SDXL + f'dataset_config = "{named}"\n')
        assert dataset(imported).directory[0].path == "/data"
        assert notes(imported, "dataset_config") == [f"Read from {tmp_path / 'data.toml'}."]


@pytest.mark.parametrize(
    ("text", "family"),
    [
        ('sdxl = true\nnetwork_module = "networks.lora"\n', "sdxl"),
        ('model_train_type = "sdxl-lora"\nnetwork_module = "lycoris.kohya"\n', "sdxl"),
        ('model_version = "klein-4b"\nnetwork_module = "musubi_tuner.networks.lora"\n', "flux2"),
        ('network_module = "musubi_tuner.networks.lora_zimage"\n', "z_image"),
        ('model_type = "chroma"\nnetwork_module = "networks.lora_flux"\n', "chroma"),
    ],
)
def test_more_that_tells_the_family(tmp_path: Path, text: str, family: str) -> None:
    text += 'pretrained_model_name_or_path = "/m/base.safetensors"\ntrain_data_dir = "/d"\nnetwork_dim = 4\n'
    assert training(kohya(tmp_path, text)).model.type == family


def test_what_a_module_leaves_open_is_asked_for(tmp_path: Path) -> None:
    text = 'pretrained_model_name_or_path = "/m/base.safetensors"\nnetwork_module = "networks.lora"\n'
    assert failure(tmp_path / "train.toml", text) == (
        "network_module: does not tell which family is trained (networks.lora). "
        "Say the family with --model: sdxl, sd15."
    )


def test_rates_of_text_encoders_that_are_not_trained_here(tmp_path: Path) -> None:
    imported = kohya(tmp_path, FLUX + "text_encoder_lr = [1e-4, 1e-4]\nnetwork_train_unet_only = true\n")
    assert notes(imported, "text_encoder_lr") == ["only the text encoders of sdxl and sd15 can be trained."]
    assert notes(imported, "network_train_unet_only") == ["nothing to do for it here."]
    imported = kohya(tmp_path, FLUX + "noise_offset = 0.1\n")
    assert notes(imported, "noise_offset") == ["kohya's scripts do not use it for a model that learns a flow."]
    imported = kohya(
        tmp_path, SDXL + 'train_data_dir = "/d"\nnetwork_train_text_encoder_only = true\nunet_lr = 1e-4\n'
    )
    assert training(imported).model.unet_lr == 0


def test_switches_are_no_numbers_of_blocks_and_scales_no_thresholds(tmp_path: Path) -> None:
    imported = kohya(tmp_path, FLUX + "split_mode = true\nhuber_scale = 1\nmax_grad_value = 3\nvae_batch_size = 0\n")
    result = training(imported)
    assert (result.blocks_to_swap, result.huber_delta, result.gradient_clipping) == (0, None, 1.0)
    assert training(kohya(tmp_path, FLUX + "vae_batch_size = 4\n")).caching_batch_size == 4


def test_adapters_that_are_merged_before(tmp_path: Path) -> None:
    imported = kohya(tmp_path, FLUX + 'base_weights = ["a", "b"]\nbase_weights_multiplier = 0.5\n')
    assert [(entry.path, entry.weight) for entry in training(imported).adapter.fuse_adapters] == [("a", 0.5), ("b", 1)]


def test_dora_of_musubi_and_the_width_of_a_distribution_that_is_not_drawn(tmp_path: Path) -> None:
    text = FLUX + 'network_args = ["use_dora=True"]\ntimestep_sampling = "shift"\nlogit_std = 2.0\n'
    imported = kohya(tmp_path, text)
    assert (training(imported).adapter.type, training(imported).model.sigmoid_scale) == ("dora", 1.0)
    assert notes(imported, "logit_std") == ["timestep_sampling = shift does not use it."]


def test_a_vae_beside_a_checkpoint(tmp_path: Path) -> None:
    imported = kohya(tmp_path, SDXL + 'train_data_dir = "/d"\nvae = "/v.safetensors"\n')
    assert notes(imported, "vae") == ["Stable Diffusion XL finds it in its checkpoint."]


@pytest.mark.parametrize(("written", "ours"), [("prodigyopt", "Prodigy"), ("RAdamScheduleFree", "ScheduleFreeRAdam")])
def test_optimizers_by_their_other_names(tmp_path: Path, written: str, ours: str) -> None:
    imported = kohya(tmp_path, FLUX + f'optimizer_type = "{written}"\n')
    assert training(imported).optimizer.type == ours


@pytest.mark.parametrize(
    ("text", "lengths"),
    [
        ('frame_extraction = "full"\nmax_frames = 40\n', [1, 17, 33, 40]),
        ('frame_extraction = "full"\nmax_frames = 17\ntarget_frames = [1, 5]\n', [1, 17]),
        ('frame_extraction = "head"\ntarget_frames = [1, 5]\n', [1, 5]),
    ],
)
def test_lengths_of_clips(tmp_path: Path, text: str, lengths: list[int]) -> None:
    path = tmp_path / "data.toml"
    path.write_text(CLIPS + text, encoding="utf-8")
    imported = importers.read(path)
    assert dataset(imported).directory[0].frame_buckets == lengths
    assert dataset(imported).resolutions == [[960, 544]]  # musubi-tuner's own


def test_masks_and_captions_of_kohya(tmp_path: Path) -> None:
    data = FOLDER + 'conditioning_data_dir = "/masks"\nmetadata_file = "meta.json"\n'
    imported = kohya(tmp_path, SDXL + "masked_loss = true\n", data)
    assert dataset(imported).directory[0].mask_path == "/masks"
    assert notes(imported, "metadata_file") == [
        "captions stand in .txt files, in captions.json or in a table: write those of kohya's JSON there."
    ]
    path = tmp_path / "musubi.toml"
    path.write_text('[[datasets]]\nimage_directory = "/d"\nmask_directory = "/m"\n', encoding="utf-8")
    assert dataset(importers.read(path)).directory[0].mask_path == "/m"


# --- Transformer Lab, and files of nobody that is imported -----------------------------------------------------------


def test_parameters_in_a_recipe(tmp_path: Path) -> None:
    parameters = {"adaptor_name": "z", "lora_r": 4, "lora_alpha": 8, "model_name": "x/stable-diffusion-xl-base"}
    task = {"plugin": "diffusion_trainer", "config_json": json.dumps(parameters)}
    for name, tree in (("recipe", {"id": "r", "tasks": ["?", {"config_json": "{"}, task]}), ("task", task)):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(tree), encoding="utf-8")
        assert training(importers.read(path)).adapter.rank == 4
    bad = {"tasks": [{"config_json": json.dumps(parameters | {"lora_r": "many"})}]}
    assert failure(tmp_path / "bad.json", json.dumps(bad)) == "lora_r: 'many' is not a number. Write a number."


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", '{"LoRA_type": "Standard", "learning_rate": 1, "mixed_precision": "bf16", "max_grad_norm": 1}',
            "LoRA_type: is a key of kohya's GUI, whose files are not imported. Import the .toml that the GUI writes "
            "into the output folder when a training starts."),
        ("a.toml", 'dit_path = "x"\nlearning_rate = "2e-4"\nnetwork_dim = 4\n',
            "dit_path: is a key of a GUI for musubi-tuner, whose files are not imported. Begin with `dpnb new`."),
        ("a.json", '{"model_family": "flux", "lora_alpha": 16, "num_train_epochs": 0, "train_batch_size": 4}',
            "model_family: is a key of SimpleTuner, whose files are not imported. Begin with `dpnb new`."),
        ("a.yaml", "model_kind: sd3\nlr: 1e-4\n",
            "model_kind: is a key of EriDiffusion's templates, whose files are not imported. Begin with `dpnb new`."),
        ("a.yaml", "model: {type: kontext}\ntraining: {learning_rate: 1e-4}\ndataset: {path: d}\n",
            "training: is a table of EriDiffusion's trainers of one model, whose files are not imported. Its files "
            "with `config.process` are; or begin with `dpnb new`."),
    ],
)  # fmt: skip
def test_files_of_other_programs_are_known_by_name(tmp_path: Path, name: str, text: str, message: str) -> None:
    assert failure(tmp_path / name, text) == message


def test_every_folder_of_control_pictures_of_a_folder_is_named(tmp_path: Path) -> None:
    folder = {"folder_path": "d", "control_path_1": "/c1", "control_path_2": "/c2", "control_path_3": "/c3"}
    model = {"name_or_path": "Qwen/Qwen-Image-Edit-2509", "arch": "qwen_image_edit_plus"}
    imported = read(tmp_path, small(datasets=[folder], model=model))
    assert dataset(imported).directory[0].control_path == ["/c1", "/c2", "/c3"]
    one = {"folder_path": "d", "control_path": "/c1", "control_path_2": None}
    assert dataset(read(tmp_path, small(datasets=[one], model=model))).directory[0].control_path == "/c1"
