"""kohya's and musubi-tuner's files as ours, alone and together."""

from __future__ import annotations

import copy
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dpnb import importers
from dpnb.errors import ConfigError
from dpnb.importers import Imported
from dpnb.importers.draft import DATASET_FILE
from dpnb.importers.kohya import MODULES
from tests.dpnb.test_importers_ai_toolkit import notes, training, validated

SDXL = """
pretrained_model_name_or_path = "/models/noob_xl.safetensors"
output_dir = "/out"
output_name = "zorbi"
network_module = "networks.lora"
network_dim = 16
network_alpha = 8
network_args = ["conv_dim=8"]
network_dropout = 0.1
unet_lr = 1e-4
text_encoder_lr = [5e-5, 1e-5]
optimizer_type = "Prodigy"
optimizer_args = ["decouple=True", "weight_decay=0.01", "d_coef=2", "betas=0.9,0.99", "slice_p=11"]
learning_rate = 1.0
lr_scheduler = "cosine_with_restarts"
lr_scheduler_num_cycles = 2
lr_warmup_steps = 100
max_train_epochs = 10
train_batch_size = 4
max_grad_norm = 0
mixed_precision = "bf16"
save_precision = "fp16"
save_every_n_epochs = 2
save_last_n_epochs = 8
save_state = true
seed = 42
min_snr_gamma = 5
noise_offset = 0.05
v_parameterization = true
sdpa = true
cache_latents = true
clip_skip = 2
sample_prompts = "prompts.txt"
sample_every_n_epochs = 1
huggingface_token = "not-for-you"
"""
SDXL_DATA = """
[general]
shuffle_caption = true
caption_extension = ".caption"
keep_tokens = 1
enable_bucket = true
caption_prefix = "best,"

[[datasets]]
resolution = 1024
batch_size = 4
min_bucket_reso = 512
[[datasets.subsets]]
image_dir = "/data/a"
num_repeats = 10
class_tokens = "zorbi creature"
flip_aug = true
caption_tag_dropout_rate = 0.1
[[datasets.subsets]]
image_dir = "/data/class"
is_reg = true
resize_interpolation = "area"

[[datasets]]
resolution = "768,512"
batch_size = 2
[[datasets.subsets]]
image_dir = "/data/b"
random_crop = true
conditioning_data_dir = "/data/c"
"""
WAN = """
[model]
dit = "/models/wan2.1_t2v_1.3B_bf16.safetensors"
vae = "/models/wan_2.1_vae.safetensors"
t5 = "/models/umt5.safetensors"
task = "t2v-1.3B"
[training]
dataset_config = "data.toml"
network_module = "networks.lora_wan"
network_dim = 32
network_alpha = 32
learning_rate = 2e-4
optimizer_type = "bitsandbytes.optim.AdamW8bit"
max_train_steps = 500
lr_warmup_steps = 0.1
timestep_sampling = "shift"
discrete_flow_shift = 3.0
min_timestep = 100
mixed_precision = "bf16"
fp8_base = true
fp8_t5 = true
gradient_checkpointing = true
gradient_checkpointing_cpu_offload = true
blocks_to_swap = 20
log_with = "wandb"
wandb_api_key = "0123456789abcdef0123456789abcdef01234567"
"""
WAN_DATA = """
[general]
resolution = [960, 544]
caption_extension = ".txt"
batch_size = 1
enable_bucket = true
[[datasets]]
video_directory = "/data/clips"
cache_directory = "/data/cache"
target_frames = [1, 25, 45]
frame_extraction = "chunk"
source_fps = 30.0
[[datasets]]
image_jsonl_file = "/data/pictures/meta.jsonl"
num_repeats = 2
"""


def put(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def failure(*paths: Path, **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        importers.read(paths, **options)
    return "\n".join(f"{p.key}: {p.message} {p.suggestion}".rstrip() for p in caught.value.problems)


@pytest.fixture
def sdxl(tmp_path: Path) -> Imported:
    put(tmp_path, "prompts.txt", "# a comment\na zorbi --w 1000 --d 1 --s 20 --l 7 --n ugly\n\na dog\n")
    imported = importers.read([put(tmp_path, "data.toml", SDXL_DATA), put(tmp_path, "train.toml", SDXL)])
    validated(tmp_path, imported)
    return imported


def test_a_training_file_of_sd_scripts(sdxl: Imported) -> None:
    result = training(sdxl)
    assert (result.model.type, result.model.checkpoint_path) == ("sdxl", "/models/noob_xl.safetensors")
    assert (result.model.dtype, result.model.v_pred, result.model.min_snr_gamma) == ("bfloat16", True, 5.0)
    assert (result.model.unet_lr, result.model.text_encoder_1_lr, result.model.text_encoder_2_lr) == (1e-4, 5e-5, 1e-5)
    assert (result.adapter.type, result.adapter.rank, result.adapter.alpha) == ("lora", 16, 8.0)
    assert result.adapter.dropout == 0.1
    assert (result.optimizer.type, result.optimizer.lr, result.optimizer.betas) == ("Prodigy", 1.0, [0.9, 0.99])
    assert result.optimizer.model_extra == {"weight_decouple": True, "d_coef": 2}
    assert (result.epochs, result.warmup_steps, result.lr_scheduler) == (10, 100, "cosine")
    assert (result.micro_batch_size_per_gpu, result.gradient_clipping, result.seed) == (4, 0, 42)
    assert (result.save_every_n_epochs, result.keep_last_n_saves, result.save_dtype) == (2, 4, "float16")
    assert result.checkpoint_every_n_epochs == 2
    assert result.sample is not None
    assert [prompt.text for prompt in result.sample.prompts] == ["a zorbi", "a dog"]
    assert (result.sample.prompts[0].width, result.sample.prompts[0].negative) == (992, "ugly")
    assert (result.sample.every_n_epochs, result.sample.before_first_step) == (1, False)


def test_a_dataset_file_of_sd_scripts(sdxl: Imported) -> None:
    dataset = sdxl.datasets[DATASET_FILE]
    assert (dataset.cache_shuffle_num, dataset.keep_first_tags, dataset.caption_prefix) == (10, 1, "best, ")
    assert (dataset.enable_ar_bucket, dataset.min_ar, dataset.max_ar, dataset.num_ar_buckets) == (True, 0.5, 2.0, 7)
    first, regular, second = dataset.directory
    assert (first.path, first.resolutions, first.num_repeats, first.tag_dropout) == ("/data/a", [1024], 10, 0.1)
    assert first.augmentation is not None
    assert first.augmentation.flip == 0.5
    assert (regular.resolutions, regular.loss_weight, regular.interpolation) == ([1024], 1.0, "bicubic")
    assert (second.resolutions, second.crop) == ([[768, 512]], "random")


def test_what_sd_scripts_says_and_we_cannot(sdxl: Imported) -> None:
    assert notes(sdxl, "conditioning_data_dir") == ["Stable Diffusion XL is not trained on pairs of pictures."]
    assert notes(sdxl, "lr_scheduler") == ["It falls once, without restarts."]
    assert notes(sdxl, "conv_dim") == ["adapters cover linear layers alone, none of the convolutions."]
    assert notes(sdxl, "slice_p") == ["Prodigy has no parameter of this name here."]
    assert notes(sdxl, "clip_skip") == ["the model family decides this."]
    assert notes(sdxl, "class_tokens") == [
        "the closest here is caption_prefix. Pictures without a caption are left out here: write captions for them."
    ]
    assert notes(sdxl, "datasets[1].batch_size") == [
        "it holds for all folders here, and micro_batch_size_per_gpu is 4 already."
    ]
    assert notes(sdxl, "caption_extension") == ["captions stand in .txt files: rename the .caption files."]
    assert "not-for-you" not in sdxl.text()


def test_musubi_s_two_files_by_the_name_in_one(tmp_path: Path) -> None:
    put(tmp_path, "data.toml", WAN_DATA)
    imported = importers.read(put(tmp_path, "train.toml", WAN), name="second")
    validated(tmp_path, imported)
    assert imported.origin == "musubi-tuner"
    result = training(imported)
    model = result.model
    assert (model.type, model.ckpt_path) == ("wan", "models/Wan2.1-T2V-1.3B")
    assert (model.transformer_path, model.llm_path) == (
        "/models/wan2.1_t2v_1.3B_bf16.safetensors",
        "/models/umt5.safetensors",
    )
    assert (model.transformer_dtype, model.text_encoder_fp8, model.shift, model.min_t) == ("float8", True, 3.0, 0.1)
    assert (result.optimizer.type, result.activation_checkpointing, result.blocks_to_swap) == (
        "adamw8bit",
        "unsloth",
        20,
    )
    assert (result.max_steps, result.epochs, result.warmup_steps, result.save_every_n_steps) == (500, 500, 50, 500)
    assert (result.output_dir, result.video_clip_mode) == ("output/second", "multiple_overlapping")
    assert result.monitoring is not None
    assert result.monitoring.wandb_api_key is None
    assert "0123456789abcdef" not in imported.text()
    clips, pictures = imported.datasets[DATASET_FILE].directory
    assert (clips.path, clips.frame_buckets) == ("/data/clips", [1, 25, 45])
    assert (pictures.path, pictures.metadata_file, pictures.num_repeats) == (
        "/data/pictures",
        "/data/pictures/meta.jsonl",
        2,
    )
    assert (pictures.image_column, pictures.caption_column) == ("image_path", "caption")


def test_a_dataset_file_alone_gives_no_training(tmp_path: Path) -> None:
    imported = importers.read(put(tmp_path, "data.toml", WAN_DATA))
    assert imported.training is None
    assert imported.datasets[DATASET_FILE].resolutions == [[960, 544]]
    assert "general.batch_size" in [entry.source for entry in imported.entries("dropped")]


def test_folders_of_sd_scripts_say_their_repeats(tmp_path: Path) -> None:
    for name in ("10_zorbi", "3_dog", "notes"):
        (tmp_path / "img" / name).mkdir(parents=True)
    text = SDXL.replace('"prompts.txt"', '"nowhere.txt"')
    text += f'train_data_dir = "{tmp_path}/img"\nresolution = "1024,1024"\nenable_bucket = true\n'
    imported = importers.read(put(tmp_path, "train.toml", text))
    validated(tmp_path, imported)
    directories = imported.datasets[DATASET_FILE].directory
    assert [(Path(each.path).name, each.num_repeats) for each in directories] == [("10_zorbi", 10), ("3_dog", 3)]
    assert imported.datasets[DATASET_FILE].resolutions == [1024]
    assert notes(imported, "sample_prompts") == ["no text file with prompts is there: write them into [sample]."]


@pytest.mark.parametrize("module", sorted(MODULES))
def test_the_module_tells_the_family(tmp_path: Path, module: str) -> None:
    text = f'network_module = "{module}"\nlearning_rate = 1e-4\ntrain_data_dir = "d"\nmixed_precision = "bf16"\n'
    text += "network_dim = 4\nblocks_to_swap = 8\nfp8_base = true\ngradient_checkpointing = true\ntimestep_sampling = "
    text += '"flux_shift"\nguidance_scale = 1.0\ndit = "/m/dit.safetensors"\ntext_encoder = "/m/te.safetensors"\n'
    if "oft" in module:
        assert failure(put(tmp_path, "a.toml", text)) == (
            "network_module: the kind of adapter 'oft' is not trained here. Use one of: lora, locon, lokr, loha, dora."
        )
        return
    imported = importers.read(put(tmp_path, "a.toml", text))
    validated(tmp_path, imported)
    assert training(imported).model.type == MODULES[module]


@pytest.mark.parametrize(
    ("lines", "family", "adapter"),
    [
        (
            'network_module = "networks.lokr"\nclip_l = "c"\nnetwork_args = ["factor=8", "rank_dropout=0.1"]',
            "flux",
            "lokr",
        ),
        ('network_module = "networks.loha"\nclip_l = "c"\nclip_g = "g"', "sd3", "loha"),
        ('network_module = "lycoris.kohya"\nnetwork_args = ["algo=lokr"]\nv2 = true', "sd15", "lokr"),
        ('network_module = "lycoris.kohya"\nnetwork_args = ["dora_wd=True"]\nv2 = true', "sd15", "dora"),
        ('network_module = "lycoris.kohya"\nnetwork_args = ["algo=full"]\nv2 = true', "sd15", None),
        ('network_module = "networks.lora"\ndit = "d.safetensors"', "hunyuan-video", "lora"),
        ('network_module = "networks.lora"\ntask = "t2v-14B"', "wan", "lora"),
        ('pretrained_model_name_or_path = "stabilityai/stable-diffusion-xl-base-1.0"', "sdxl", None),
        ('pretrained_model_name_or_path = "runwayml/stable-diffusion-v1-5"\nlearning_rate = 1e-5', "sd15", None),
    ],
)
def test_the_family_by_other_keys(tmp_path: Path, lines: str, family: str, adapter: str | None) -> None:
    text = f'{lines}\ntrain_data_dir = "d"\nmixed_precision = "bf16"\nsave_precision = "bf16"\n'
    result = training(importers.read(put(tmp_path, "a.toml", text)))
    assert result.model.type == family
    assert (result.adapter and result.adapter.type) == adapter


def test_losses_and_timesteps(tmp_path: Path) -> None:
    text = 'network_module = "networks.lora_flux"\ntrain_data_dir = "d"\nmixed_precision = "bf16"\nmin_snr_gamma = 5\n'
    text += 'loss_type = "huber"\nhuber_c = 0.2\nweighting_scheme = "sigma_sqrt"\ntimestep_sampling = "sigmoid"\n'
    text += (
        "discrete_flow_shift = 3.1\nsigmoid_scale = 1.5\nmax_train_steps = 10\nmax_train_epochs = 2\nunet_lr = 3e-4\n"
    )
    imported = importers.read(put(tmp_path, "a.toml", text))
    result = training(imported)
    assert (result.huber_delta, result.model.sigmoid_scale, result.model.shift) == (0.2, 1.5, None)
    assert (result.epochs, result.max_steps, result.optimizer.lr) == (2, None, 3e-4)
    assert result.loss is not None
    assert result.loss.weighting == "sigma_sqrt"
    assert notes(imported, "discrete_flow_shift") == ["timestep_sampling = sigmoid does not use it."]
    assert notes(imported, "min_snr_gamma") == ["it means nothing for a model that learns a flow."]
    assert notes(imported, "max_train_steps") == ["max_train_epochs takes its place, in kohya's scripts too."]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'network_module = "networks.lora_flux"\nnetwork_dim = 4\ndataset_config = "gone.toml"',
            "dataset_config: 'gone.toml' is no file. Correct the path, or name the dataset file behind the "
            "training file: dpnb import TRAINING DATASET.",
        ),
        (
            'network_module = "networks.lora_wan"\nnetwork_dim = 4\ntrain_data_dir = "d"\nmin_timestep = 900\n'
            "max_timestep = 100",
            "min_timestep: model.min_t of the training file: 0.9 is not below max_t = 0.1. Swap or mend the two.",
        ),
        (
            'network_module = "networks.lora_flux"\nnetwork_dim = 4',
            "train_data_dir: no folder with pictures is named, and no dataset_config. Name the dataset file behind "
            "the training file: dpnb import TRAINING DATASET.",
        ),
        (
            'network_module = "networks.lora_flux"\ntrain_data_dir = "d"\noptimizer_args = ["a"]',
            "optimizer_args: 'a' is not of the form name=value. Write it as name=value.",
        ),
        ("datasets = []\n", "datasets: names no folder. Add a [[datasets]] table with the pictures."),
        (
            "[[datasets]]\nresolution = 512",
            "datasets[0]: names no folder of pictures or clips. Name it as image_dir (sd-scripts), image_directory or "
            "video_directory (musubi-tuner).",
        ),
        (
            "[[datasets]]\nvideo_directory = 'd'\ntarget_frames = ['all']",
            "datasets[0].target_frames: is no list of whole numbers. Write it as [1, 25].",
        ),
        (
            "[[datasets]]\nimage_directory = 'd'\nresolution = [1, 2, 3]",
            "datasets[0].resolution: is neither a side nor a pair of sides. Write 1024 or [960, 544].",
        ),
    ],
)
def test_a_file_that_cannot_be_imported_says_why(tmp_path: Path, text: str, message: str) -> None:
    assert failure(put(tmp_path, "a.toml", text)) == message


def test_a_family_that_is_not_trained_here(tmp_path: Path) -> None:
    said = failure(put(tmp_path, "a.toml", 'network_module = "networks.lora_framepack"\nnetwork_dim = 4'))
    assert said.startswith(
        "network_module: 'networks.lora_framepack' is for a family that is not trained here. Say the family with "
    )


def test_a_file_that_does_not_tell_its_family_asks_for_it(tmp_path: Path) -> None:
    text = (
        'network_module = "networks.lora"\ntrain_data_dir = "d"\npretrained_model_name_or_path = "/m/x.safetensors"\n'
    )
    path = put(tmp_path, "a.toml", text + 'mixed_precision = "fp16"')
    said = failure(path)
    assert said.startswith(
        "network_module: does not tell which family is trained (networks.lora). Say the family with --model: "
    )
    assert training(importers.read(path, model="sd15")).model.checkpoint_path == "/m/x.safetensors"


TREES = (tomllib.loads(SDXL), tomllib.loads(WAN)["training"], tomllib.loads(SDXL_DATA), tomllib.loads(WAN_DATA))
VALUES = (
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.lists(st.integers(-2, 2) | st.text(max_size=3), max_size=3)
    | st.dictionaries(st.text(max_size=3), st.integers(-2, 2), max_size=2)
)


@given(st.data(), VALUES)
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_with_one_value_of_anything_is_imported_or_refused(tmp_path: Path, data: Any, value: Any) -> None:
    tree = copy.deepcopy(data.draw(st.sampled_from(TREES)))
    if "datasets" in tree:
        tables = [tree["general"], *tree["datasets"], *[s for d in tree["datasets"] for s in d.get("subsets", [])]]
    else:
        tables = [tree]
        tree.pop("dataset_config", None)
        tree["train_data_dir"] = "d"
    table = data.draw(st.sampled_from(tables))
    table[data.draw(st.sampled_from(sorted(table)))] = value
    path = put(tmp_path, "a.toml", tomlkit.dumps(tree))
    try:
        imported = importers.read(path)
    except ConfigError as error:
        assert all(problem.line is not None for problem in error.problems), error  # noqa: PT017
    else:
        assert imported.datasets


FLUX_LORA = 'network_module = "networks.lora_flux"\n'
SDXL_LORA = 'network_module = "networks.lora"\npretrained_model_name_or_path = "/m/sdxl.safetensors"\n'


@pytest.mark.parametrize(
    ("text", "key", "reason"),
    [
        (FLUX_LORA + 'network_args = ["rank_dropout=0.1"]', "rank_dropout",
            "lokr and loha alone have it; adapter.dropout is the closest here."),
        (FLUX_LORA + "network_alpha = 0", "network_alpha", "0 stands for the rank, as does leaving it out."),
        ('network_module = "lycoris.kohya"\nnetwork_args = ["algo=full"]\nv2 = true', "network_module",
            "the whole model is trained: there is no [adapter]."),
        (FLUX_LORA + 'ae = "/m/ae.safetensors"', "ae", "FLUX.1 finds it in the folder of the whole model."),
        (FLUX_LORA + 'timestep_sampling = "uniform"\nsigmoid_scale = 2.0', "sigmoid_scale",
            "timesteps are drawn uniform."),
        (FLUX_LORA + 'weighting_scheme = "mode"', "weighting_scheme",
            "'mode' is not there: none, sigma_sqrt or cosmap."),
        (FLUX_LORA + "unet_lr = 1e-4\nlearning_rate = 1e-5", "learning_rate", "unet_lr takes its place."),
        (FLUX_LORA + 'output_name = "x"', "output_name",
            "exports lie in the folder of the run, which is named by its start time."),
        (FLUX_LORA + "max_train_epochs = 3\nlr_warmup_steps = 0.1", "lr_warmup_steps",
            "it is a share of steps whose number is not known; warmup_steps is a number."),
        (FLUX_LORA + "sample_every_n_steps = 5", "sample_every_n_steps", "without prompts no samples are drawn."),
        (FLUX_LORA + 'mixed_precision = "no"\nfp8_base = true', "fp8_base",
            "frozen weights are not stored in 8 bits with float32 weights."),
        (SDXL_LORA + "fp8_base = true", "fp8_base", "frozen weights are not stored in 8 bits for this family."),
    ],
)  # fmt: skip
def test_each_reason_to_leave_a_key_out(tmp_path: Path, text: str, key: str, reason: str) -> None:
    text += '\ntrain_data_dir = "d"\n' + ("" if "mixed_precision" in text else 'mixed_precision = "bf16"\n')
    assert reason in notes(importers.read(put(tmp_path, "a.toml", text)), key)
