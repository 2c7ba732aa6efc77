"""AI Toolkit's jobs as our two files: what is taken over, what changes, and what is said about the rest."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dpnb import importers, toml
from dpnb.errors import ConfigError, errors_in
from dpnb.importers import Imported, eri
from dpnb.importers.ai_toolkit import ARCHES
from dpnb.importers.draft import DATASET_FILE
from dpnb.schema.training import Training
from tests.dpnb.test_foreign import is_ours
from tests.dpnb.test_importers_source import SCALARS

FLUX_JOB = """
job: extension
config:
  name: zorbi_v1
  process:
    - type: sd_trainer
      training_folder: ${OUT}
      device: cuda:0
      trigger_word: zorbi
      performance_log_every: 1000
      network:
        type: lora
        linear: 32
        linear_alpha: 16
        conv: 16
        network_kwargs: {ignore_if_contains: [transformer.norm_out, proj_out]}
      save:
        dtype: float16
        save_every: 250
        max_step_saves_to_keep: 4
        push_to_hub: true
        hf_repo_id: someone/zorbi
        hf_token: hf_abcdefghijklmnopqrstuvwx
      datasets:
        - folder_path: /data/zorbi
          caption_ext: caption
          caption_dropout_rate: 0.05
          shuffle_tokens: true
          keep_tokens: 1
          cache_latents_to_disk: true
          resolution: [512, 768]
          num_repeats: 2
          mask_path: /data/masks
        - {folder_path: /data/class, is_reg: true, resolution: 512, flip_x: true, control_path: [/data/c1, /data/c2]}
      train:
        batch_size: 1
        steps: 2001
        gradient_accumulation_steps: 2
        train_unet: true
        train_text_encoder: false
        gradient_checkpointing: true
        noise_scheduler: flowmatch
        optimizer: adamw8bit
        optimizer_params: {weight_decay: 1e-4, frobnicate: true}
        timestep_type: shift
        lr: 1e-4
        lr_scheduler: cosine
        dtype: bf16
        skip_first_sample: true
        ema_config: {use_ema: true, ema_decay: 0.99}
        loss_typ: huber
      model:
        name_or_path: black-forest-labs/FLUX.1-dev
        is_flux: true
        quantize: true
        quantize_te: true
        low_vram: true
      sample:
        sampler: flowmatch
        sample_every: 250
        width: 1000
        height: 1024
        prompts:
          - "[trigger] on a hill --w 760 --d 7 --s 12 --l 3.5 --ctrl_img a.png"
          - {prompt: "[name] in a wood", seed: 3, neg: blurry, fps: 16}
        neg: ugly
        seed: 42
        walk_seed: true
        guidance_scale: 4
        sample_steps: 20
      logging: {use_wandb: true}
meta:
  name: "[name]"
"""


def job(text: str = FLUX_JOB) -> dict[str, Any]:
    """The job as plain tables, to be changed."""
    tree: dict[str, Any] = yaml.safe_load(text.replace("${OUT}", "output").replace("1e-4", "0.0001"))
    return tree


def process(tree: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = tree["config"]["process"][0]
    return found


def small(**process_keys: Any) -> dict[str, Any]:
    """A job that says as little as a job can."""
    keys = {"type": "sd_trainer", "datasets": [{"folder_path": "d"}], "model": {"name_or_path": "m", "arch": "flux"}}
    return {"job": "extension", "config": {"name": "n", "process": [keys | {"network": {"linear": 8}} | process_keys]}}


def read(folder: Path, tree: dict[str, Any], **options: Any) -> Imported:
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return importers.read(path, **options)


def training(imported: Imported) -> Training:
    assert imported.training is not None
    return imported.training


def failure(folder: Path, tree: dict[str, Any], **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        read(folder, tree, **options)
    return "\n".join(
        f"{problem.key}: {problem.message} {problem.suggestion}".rstrip() for problem in caught.value.problems
    )


def notes(imported: Imported, source: str) -> list[str]:
    """What the report says of a key, by the end of its name."""
    return [entry.note for entry in imported.report if entry.source.endswith(source)]


def validated(folder: Path, imported: Imported) -> None:
    """What was imported, written and read again, has no errors (paths aside) and is the same."""
    result = training(imported)
    result.dataset = str(folder / DATASET_FILE)
    (folder / "run.toml").write_text(toml.dump(result), encoding="utf-8")
    (folder / DATASET_FILE).write_text(toml.dump(imported.datasets[DATASET_FILE]), encoding="utf-8")
    again = toml.load_run(folder / "run.toml", paths=False)
    assert again.training.value == result
    assert again.dataset.value == imported.datasets[DATASET_FILE]


def test_a_job_for_flux_becomes_both_files(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(FLUX_JOB, encoding="utf-8")
    imported = importers.read(path, environment={"OUT": "/out/"})
    validated(tmp_path, imported)
    result = training(imported)
    assert (result.output_dir, result.trigger_word) == ("/out/zorbi_v1", "zorbi")
    assert (result.max_steps, result.epochs, result.gradient_accumulation_steps) == (1001, 1001, 2)
    assert (result.model.type, result.model.diffusers_path) == ("flux", "models/FLUX.1-dev")
    assert (result.model.dtype, result.model.transformer_dtype) == ("bfloat16", "float8")
    assert (result.model.timestep_sample_method, result.model.flux_shift) == ("uniform", True)
    assert (result.adapter.type, result.adapter.rank, result.adapter.alpha) == ("lora", 32, None)
    assert result.adapter.exclude_modules == r"(?:norm_out|.*proj_out).*"
    assert (result.optimizer.type, result.optimizer.lr) == ("adamw8bit", 1e-4)
    assert result.optimizer.weight_decay == 1e-4
    assert (result.lr_scheduler, result.activation_checkpointing) == ("cosine", True)
    assert (result.save_every_n_steps, result.save_dtype, result.keep_last_n_saves) == (125, "float16", 4)
    assert result.push_to_hub == "someone/zorbi"
    assert result.ema is not None
    assert (result.ema.decay, result.ema.schedule) == (0.99, "constant")
    assert result.monitoring is not None
    assert (result.monitoring.wandb_tracker_name, result.monitoring.wandb_run_name) == ("ai-toolkit", "zorbi_v1")


def test_samples_of_a_job_keep_their_flags(tmp_path: Path) -> None:
    sample = training(read(tmp_path, job())).sample
    assert sample is not None
    assert (sample.every_n_steps, sample.before_first_step) == (125, False)
    assert (sample.width, sample.height, sample.seed, sample.walk_seed) == (992, 1024, 42, True)
    assert (sample.guidance, sample.steps, sample.negative) == (4.0, 20, "ugly")
    first, second = sample.prompts
    assert (first.text, first.width, first.seed, first.steps, first.guidance) == (
        "[trigger] on a hill",
        768,
        7,
        12,
        3.5,
    )
    assert (second.text, second.seed, second.negative) == ("zorbi_v1 in a wood", 3, "blurry")


def test_folders_of_a_job_become_directories(tmp_path: Path) -> None:
    dataset = read(tmp_path, job()).datasets[DATASET_FILE]
    assert (dataset.enable_ar_bucket, dataset.skip_empty_caption) == (True, False)
    first, second = dataset.directory
    assert (first.path, first.resolutions, first.num_repeats) == ("/data/zorbi", [512, 768], 2)
    assert (first.caption_dropout, first.cache_shuffle_num, first.keep_first_tags) == (0.05, 10, 1)
    assert first.mask_path == "/data/masks"
    assert (second.resolutions, second.loss_weight, second.control_path) == ([512], 1.0, ["/data/c1", "/data/c2"])
    assert second.augmentation is not None
    assert second.augmentation.flip == 0.5


def test_the_report_accounts_for_every_key(tmp_path: Path) -> None:
    imported = read(tmp_path, job())
    said = {entry.source for entry in imported.report}

    def leaves(value: Any, name: str) -> list[str]:
        if isinstance(value, dict):
            return [leaf for key, item in value.items() for leaf in leaves(item, f"{name}.{key}" if name else key)]
        if isinstance(value, list) and any(isinstance(item, dict) for item in value) and "prompts" not in name:
            return [leaf for i, item in enumerate(value) for leaf in leaves(item, f"{name}[{i}]")]
        return [name]

    assert [name for name in leaves(job(), "") if name not in said and not name.startswith("meta.")] == []
    assert "meta" in said


def test_what_has_no_equivalent_says_why(tmp_path: Path) -> None:
    imported = read(tmp_path, job())
    assert notes(imported, "linear_alpha") == ["AI Toolkit sets alpha to the rank for FLUX.1, as happens here."]
    assert notes(imported, "network.conv") == ["adapters cover linear layers alone, none of the convolutions."]
    assert notes(imported, "frobnicate") == ["adamw8bit has no parameter of this name here."]
    assert notes(imported, "loss_typ") == ["not a key that dpnb knows of."]
    assert notes(imported, "low_vram") == [
        "the closest here is blocks_to_swap. It is the number of blocks that wait in host memory."
    ]
    assert notes(imported, "quantize_te") == ["text encoders are unloaded once captions are cached."]
    assert notes(imported, "datasets[0].caption_ext") == [
        "captions stand in .txt files or in captions.json: rename the .caption files."
    ]
    assert "--ctrl_img a.png in prompt 1 means nothing here." in notes(imported, "sample.prompts")
    assert notes(imported, "model.name_or_path") == [
        "Download it with `hf download black-forest-labs/FLUX.1-dev --local-dir models/FLUX.1-dev`, or name the "
        "folder where it lies."
    ]


@pytest.mark.parametrize(
    ("keys", "key", "reason"),
    [
        ({"slider": {"targets": []}}, "process[0].slider", "only adapters and whole models are trained here."),
        ({"log_dir": "logs"}, "log_dir", "losses and times of a run are always written into its folder."),
        ({"train": {"dtype": "bf16"}, "model": {"name_or_path": "m", "arch": "flux", "dtype": "fp16"}}, "model.dtype",
            "train.dtype takes its place, in AI Toolkit too."),
        ({"network": {"type": "fullrank", "linear": 4}, "train": {"dtype": "bf16"}}, "network.linear",
            "the whole model is trained: there is no [adapter]."),
        ({"train": {"gradient_accumulation_steps": -1}}, "gradient_accumulation_steps",
            "the length of an epoch is not known: give a number."),
        ({"train": {"train_text_encoder": True}}, "train_text_encoder",
            "only the text encoders of sdxl and sd15 can be trained."),
        ({"train": {"train_unet": False}}, "train_unet", "the network is always trained."),
        ({"save": {"hf_repo_id": "a/b"}}, "hf_repo_id", "push_to_hub is off."),
        ({"train": {"disable_sampling": True}}, "disable_sampling", "there is no [sample]: nothing is drawn."),
        ({"sample": {"width": 64}}, "sample.width", "no samples are drawn."),
        ({"sample": {"prompts": ["a"], "num_frames": 33}}, "num_frames", "samples are pictures."),
        ({"model": {"name_or_path": "/m/sd3.safetensors", "arch": "sd3"}}, "name_or_path",
            "Stable Diffusion 3 is loaded from a folder here, not from a single file."),
        ({"model": {"name_or_path": "/m/z", "arch": "zimage"}}, "name_or_path",
            "Z-Image is loaded from single files here, not from a folder."),
        ({"save": {"dtype": True}}, "save.dtype", "it names no number format."),
    ],
)  # fmt: skip
def test_each_reason_to_leave_a_key_out(tmp_path: Path, keys: dict[str, Any], key: str, reason: str) -> None:
    assert reason in notes(read(tmp_path, small(**keys)), key)


def test_what_belongs_to_no_other_file_is_not_put_there(tmp_path: Path) -> None:
    folder = {"folder_path": "d", "augments": [{"method": "ColorJitter"}], "caption_dropout_rate": 0.1, "fps": 24}
    imported = read(tmp_path, small(datasets=[folder], logging={"log_every": 7}))
    assert notes(imported, "augments") == ["the closest here is augmentation."]
    assert notes(imported, "fps") == ["clips are re-timed to the model's frame rate."]
    assert training(imported).steps_per_print == 7


def test_secrets_are_neither_taken_over_nor_shown(tmp_path: Path) -> None:
    tree = job()
    process(tree)["sample"]["prompts"] = ["a cat hf_aaaaaaaaaaaaaaaaaaaaaaaa", "a dog"]
    process(tree)["train"]["notes"] = {"api_key": "very-secret"}
    imported = read(tmp_path, tree)
    result = training(imported)
    everything = imported.text() + toml.dump(result) + toml.dump(imported.datasets[DATASET_FILE])
    assert "hf_a" not in everything
    assert "very-secret" not in everything
    assert notes(imported, "hf_token") == [
        "a secret does not belong into a file; set it in the environment, such as HF_TOKEN or WANDB_API_KEY."
    ]


def test_a_list_of_secrets_leaves_nothing(tmp_path: Path) -> None:
    tree = job()
    process(tree)["sample"]["prompts"] = ["hf_aaaaaaaaaaaaaaaaaaaaaaaa"]
    assert failure(tmp_path, tree) == (
        ": sample.prompts of the training file: is missing. Add a [[sample.prompts]] table."
    )


def test_name_replaces_the_job_s_own_everywhere(tmp_path: Path) -> None:
    result = training(read(tmp_path, job(), name="second"))
    assert result.output_dir == "output/second"
    assert result.sample is not None
    assert result.sample.prompts[1].text == "second in a wood"


def test_defaults_of_ai_toolkit_are_written_out(tmp_path: Path) -> None:
    imported = read(tmp_path, small())
    validated(tmp_path, imported)
    result = training(imported)
    assert (result.max_steps, result.save_every_n_steps, result.save_dtype) == (1000, 1000, "float16")
    assert (result.optimizer.type, result.optimizer.lr, result.model.dtype) == ("adamw", 1e-6, "float32")
    assert (result.keep_last_n_saves, result.activation_checkpointing, result.sample) == (5, True, None)
    assert imported.datasets[DATASET_FILE].directory[0].resolutions == [512]
    assert any(entry.target == "optimizer.lr" and entry.note == "AI Toolkit's default." for entry in imported.report)


@pytest.mark.parametrize("arch", sorted(ARCHES))
def test_every_architecture_becomes_files_without_errors(tmp_path: Path, arch: str) -> None:
    for weights in (
        "some-one/Some.Model-Diffusers",
        "/models/folder",
        "/models/file.safetensors",
        "a/b/c.safetensors",
    ):
        tree = small(
            model={"arch": f"{arch}:tag", "name_or_path": weights, "quantize": True, "qtype": "uint4|a/b"},
            train={"dtype": "bf16", "timestep_type": "weighted", "cfg_scale": 2},
            sample={"prompts": ["a cat"]},
        )
        imported = read(tmp_path, tree)
        validated(tmp_path, imported)
        assert training(imported).model.type == ARCHES[arch]


def test_wan_is_loaded_from_the_official_release(tmp_path: Path) -> None:
    model = {"arch": "wan22_14b:t2v", "name_or_path": "ai-toolkit/Wan2.2-T2V-A14B-Diffusers"}
    imported = read(tmp_path, small(model=model, datasets=[{"folder_path": "d", "num_frames": 41}]))
    result = training(imported).model
    assert result.ckpt_path == "models/Wan2.2-T2V-A14B"
    assert result.transformer_path == "models/Wan2.2-T2V-A14B/low_noise_model"
    assert result.max_t == 0.875
    assert imported.datasets[DATASET_FILE].directory[0].frame_buckets == [1, 41]


def test_sdxl_keeps_alpha_and_leaves_its_text_encoders_alone(tmp_path: Path) -> None:
    model = {"is_xl": True, "name_or_path": "/m/xl.safetensors", "is_v_pred": True}
    train = {"min_snr_gamma": 5, "noise_offset": 0.05, "optimizer": "adam", "dtype": "fp16"}
    result = training(read(tmp_path, small(model=model, train=train, network={"linear": 8, "linear_alpha": 4})))
    assert (result.model.type, result.model.checkpoint_path) == ("sdxl", "/m/xl.safetensors")
    assert (result.adapter.rank, result.adapter.alpha) == (8, 4.0)
    assert (result.model.text_encoder_1_lr, result.model.text_encoder_2_lr) == (0.0, 0.0)
    assert (result.model.v_pred, result.model.min_snr_gamma, result.model.dtype) == (True, 5.0, "float16")
    assert result.loss is not None
    assert (result.loss.type, result.loss.noise_offset) == ("mse", 0.05)


def test_kinds_of_loss(tmp_path: Path) -> None:
    loss = training(read(tmp_path, small(train={"loss_type": "mae"}))).loss
    assert loss is not None
    assert loss.type == "l1"
    imported = read(tmp_path, small(train={"loss_type": "wavelet"}))
    assert notes(imported, "loss_type") == ["'wavelet' is not there; the squared error is used."]


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        ({"type": "lokr"}, ("lokr", 1_000_000)),
        ({"type": "lokr", "lokr_full_rank": False, "linear": 8, "lokr_factor": 4}, ("lokr", 8)),
        ({"type": "dora", "rank": 4, "linear": 16}, ("dora", 4)),
        ({"type": "locon", "linear": 8, "conv": 4}, ("lora", 8)),
        ({"type": "lora"}, ("lora", 4)),
    ],
)
def test_kinds_of_adapters(tmp_path: Path, network: dict[str, Any], expected: tuple[str, int]) -> None:
    adapter = training(read(tmp_path, small(network=network))).adapter
    assert (adapter.type, adapter.rank) == expected


def test_without_a_network_the_whole_model_is_trained(tmp_path: Path) -> None:
    for network in ({}, {"type": "fullrank", "linear": 4}):
        assert training(read(tmp_path, small(network=network))).adapter is None


def test_parts_of_names_become_one_expression(tmp_path: Path) -> None:
    kwargs = {"only_if_contains": ["transformer.blocks.1."], "ignore_if_contains": ["attn"]}
    adapter = training(read(tmp_path, small(network={"linear": 4, "network_kwargs": kwargs}))).adapter
    assert adapter.exclude_modules == r"(?!blocks\.1\.).*|(?:.*attn).*"


def test_a_schedule_that_is_not_there_becomes_the_nearest(tmp_path: Path) -> None:
    imported = read(tmp_path, small(train={"lr_scheduler": "linear", "optimizer": "Frobnicator"}))
    assert training(imported).lr_scheduler == "constant"
    assert notes(imported, "lr_scheduler") == [
        "AI Toolkit's linear is a rise from a third of lr at the beginning, without a fall at the end."
    ]
    assert notes(imported, "train.optimizer") == [
        "'Frobnicator' is not known here; AdamW takes its place: choose the learning rate anew."
    ]
    imported = read(tmp_path, small(train={"lr_scheduler": "step", "lr_scheduler_params": {"num_warmup_steps": 9}}))
    assert notes(imported, "train.lr_scheduler") == ["'step' is not there: constant, linear or cosine."]
    assert training(imported).warmup_steps == 9


def _without(tree: dict[str, Any], *way: str) -> dict[str, Any]:
    table: Any = tree
    for part in way[:-1]:
        table = table[int(part)] if part.isdigit() else table[part]
    del table[way[-1]]
    return tree


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (_without(small(), "config", "name"), "config.name: is missing. Give the job a name, there or with --name."),
        (
            small(type="to_folder"),
            "config.process: no process trains a model (there is: to_folder). Import a training job.",
        ),
        (
            {"config": {"name": "n", "process": [{"type": "sd_trainer"}, {"type": "sd_trainer"}]}},
            "config.process: 2 processes train one after the other, and a run trains once. Split the job into files "
            "with one process each.",
        ),
        (
            small(datasets=[]),
            "config.process[0].datasets: is missing. Name the folders to train on under datasets.",
        ),
        (
            small(datasets=[{"resolution": 512}]),
            "config.process[0].datasets[0].folder_path: is missing. Name the folder with the pictures.",
        ),
        (
            small(datasets=[{"folder_path": "d", "resolution": "large"}]),
            "config.process[0].datasets[0].resolution: is neither a number nor a list of numbers. Write [512, 768].",
        ),
        (
            small(network={"type": "lorm"}),
            "config.process[0].network.type: 'lorm' is not trained here. Use one of: lora, lokr, dora, locon.",
        ),
        (
            small(train={"dtype": "int8"}),
            "config.process[0].train.dtype: 'int8' is no number format that is known here. Write one of: bf16, "
            "bfloat16, fp16, float16, half, float, fp32, float32, no.",
        ),
        (
            small(sample={"prompts": "a cat"}),
            "config.process[0].sample.prompts: is not a list. Write a list of prompts.",
        ),
        (
            small(sample={"prompts": [1]}),
            "config.process[0].sample.prompts[0]: is no prompt. Write a text, or a table with a prompt.",
        ),
        (
            small(train={"lr": -1}),
            "config.process[0].train.lr: optimizer.lr of the training file: -1 is too small: it must be at least 0.",
        ),
    ],
)
def test_a_job_that_cannot_be_trained_says_why(tmp_path: Path, tree: dict[str, Any], message: str) -> None:
    assert failure(tmp_path, tree).startswith(message)


def test_an_unknown_architecture_asks_for_the_family(tmp_path: Path) -> None:
    tree = small(model={"arch": "ace_step", "name_or_path": "a/b"})
    said = failure(tmp_path, tree)
    assert said.startswith(
        "config.process[0].model.arch: 'ace_step' is not trained here. Name a family with --model: flux,"
    )
    assert training(read(tmp_path, tree, model="sd3")).model.type == "sd3"


def test_an_error_stands_at_its_line(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(FLUX_JOB.replace("steps: 2001", "steps: many").replace("${OUT}", "o"), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        importers.read(path)
    assert str(caught.value) == (
        f"{path}:37:9: error: config.process[0].train.steps: 'many' is not a number. Write a number."
    )


def test_other_processes_of_a_job_are_left_out(tmp_path: Path) -> None:
    tree = small()
    tree["config"]["process"].append({"type": "super_tagger"})
    imported = read(tmp_path, tree)
    assert notes(imported, "process[1].type") == ["this process trains nothing."]


@pytest.mark.parametrize("name", eri.PARAMETERS)
def test_every_key_of_eridiffusion_has_a_home_or_a_reason(name: str) -> None:
    ours, note = eri.PARAMETERS[name]
    assert note or ours
    if ours:
        from dpnb.schema.dataset import Dataset

        assert is_ours(ours, Training) or is_ours(ours, Dataset)


JOB = job()


def _keys(table: dict[str, Any], way: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    for part in way:
        table = table[part]
    return [(*way, key) for key in table]


TABLES = ((), ("network",), ("save",), ("train",), ("model",), ("sample",), ("datasets", 0), ("train", "ema_config"))
PLACES = [place for way in TABLES for place in _keys(process(JOB), way)]


@given(
    st.sampled_from(PLACES), SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(st.text(max_size=3), SCALARS)
)
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_job_with_one_value_of_anything_is_imported_or_refused(tmp_path: Path, place: Any, value: Any) -> None:
    tree = copy.deepcopy(JOB)
    table: Any = process(tree)
    for part in place[:-1]:
        table = table[part]
    table[place[-1]] = value
    try:
        imported = read(tmp_path, tree, environment={})
    except ConfigError as error:
        found = list(error.problems)
    else:
        found = []
        validated(tmp_path, imported)
    assert all(problem.line is not None for problem in errors_in(found)), found
