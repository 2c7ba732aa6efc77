"""Mistakes that stand in people's own files, each with the words that lead out of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dpnb.errors import ConfigError
from dpnb.schema import FACTS, Dataset, Section, Training
from dpnb.toml import dump, load
from tests.dpnb.every_family import training

TOP = "output_dir = 'o'\ndataset = 'd'\nepochs = 1\nsave_every_n_epochs = 1\n"
WAN = "[model]\ntype = 'wan'\nckpt_path = 'w'\ndtype = 'bfloat16'\n"
ADAPTER = "[adapter]\ntype = 'lora'\nrank = 32\ndtype = 'bfloat16'\n"
OPTIMIZER = "[optimizer]\ntype = 'adamw_optimi'\nlr = 2e-5\n"
DATA = "resolutions = [512]\n[[directory]]\npath = 'x'\n"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


def said(text: str, cls: type[Section] = Training, *, paths: bool = False) -> list[str]:
    Path("x.toml").write_text(text)
    try:
        found = load("x.toml", cls, paths=paths).warnings
    except ConfigError as error:
        found = error.problems
    return [str(problem).removeprefix("x.toml:") for problem in found]


def test_the_file_that_the_others_are_made_of_is_right():
    assert not [line for line in said(TOP + WAN + ADAPTER + OPTIMIZER) if "error" in line]
    assert not said(DATA, Dataset)


MOVE = "It is a top-level key: move it above the first [table] header (now it belongs to {})."


@pytest.mark.parametrize("key", ["micro_batch_size_per_gpu", "caching_batch_size", "blocks_to_swap", "seed"])
@pytest.mark.parametrize("table", ["[adapter]", "[monitoring]", "[ema]", "[[sample.prompts]]", "[[eval_datasets]]"])
def test_a_top_level_key_that_slipped_below_a_table(key, table):
    if key == "seed" and table == "[[sample.prompts]]":
        return  # its own
    text = TOP + WAN + OPTIMIZER + {
        "[adapter]": ADAPTER,
        "[monitoring]": "[monitoring]\nenable_wandb = false\n",
        "[ema]": "[ema]\ndecay = 0.5\n",
        "[[sample.prompts]]": "[[sample.prompts]]\ntext = 'a'\n",
        "[[eval_datasets]]": "[[eval_datasets]]\nname = 'a'\nconfig = 'd'\n",
    }[table]  # fmt: skip
    (line,) = [line for line in said(f"{text}{key} = 1\n") if "error" in line]
    assert line.endswith(f".{key}: unknown key. {MOVE.format(table)}")
    assert line.startswith(f"{text.count(chr(10)) + 1}:1: ")


def test_a_table_whose_kind_is_not_known_is_checked_all_the_same():
    text = TOP + WAN.replace("type = 'wan'\n", "") + "transformer_dtype = 8\nepochs = 2\nfoo = 1\n"
    text += "[adapter]\ntype = 'loora'\nrank = 'x'\nalpha = 0\nlr = 1\n"
    text += "[optimizer]\nlr = -1\nblocks_to_swap = 4\nd_coef = 1\n"
    assert [line.split(". ")[0] for line in said(text)] == [
        "5:1: error: model.type: is missing",
        "8:1: error: model.transformer_dtype: 8 is not one of float32, float16, bfloat16, float8, float8_e4m3fn, "
        "float8_e5m2.",
        "9:1: error: model.epochs: unknown key",
        "10:1: error: model.foo: unknown key",
        "12:1: error: adapter.type: 'loora' is not one of lora, lokr, loha, dora",
        "13:1: error: adapter.rank: 'x' is a text; expected a whole number",
        "14:1: error: adapter.alpha: 0 is too small: it must be above 0",
        "15:1: error: adapter.lr: unknown key",
        "16:1: error: optimizer.type: is missing",
        "17:1: error: optimizer.lr: -1 is too small: it must be at least 0",
        "18:1: error: optimizer.blocks_to_swap: unknown key",
    ]


def test_rules_across_keys_are_told_beside_keys_that_do_not_exist():
    text = TOP + "lr_scheduler = 'linear'\nforce_constant_lr = 1e-4\nfoo = 1\n" + WAN + "min_t = 0.9\nmax_t = 0.5\n"
    text += ADAPTER + "bar = 1\nbar_2 = {a = 1}\n" + OPTIMIZER
    assert [line.split(". ")[0] for line in said(text)] == [
        "5:1: warning: lr_scheduler: has no effect because force_constant_lr is set",
        "7:1: error: foo: unknown key",
        "12:1: error: model.min_t: 0.9 is not below max_t = 0.5",
        "18:1: error: adapter.bar: unknown key",
        "19:1: error: adapter.bar_2: unknown key",
    ]


def test_no_rule_speaks_of_a_key_that_slipped_below_a_table():
    top = TOP.replace("save_every_n_epochs = 1\n", "") + "eval_every_n_epochs = 2\n"
    rest = "save_every_n_epochs = 1\n[[more]]\neval_datasets = ['e']\n"
    assert [line.split(". ")[0] for line in said(top + WAN + ADAPTER + OPTIMIZER + rest)] == [
        "16:1: error: optimizer.save_every_n_epochs: unknown key",
        "17:1: error: more: unknown key",
    ]


def test_no_rule_misses_a_key_that_is_misspelled():
    top = TOP.replace("save_every_n_epochs", "save_every_n_epoch")
    assert said(top + WAN + ADAPTER + OPTIMIZER) == [
        "4:1: error: save_every_n_epoch: unknown key. Did you mean 'save_every_n_epochs'?"
    ]


def test_rules_wait_until_every_key_has_a_value_of_its_kind():
    text = TOP + "lr_scheduler = 'linear'\nforce_constant_lr = 1e-4\nfoo = 1\n" + WAN + OPTIMIZER + "eps = 'x'\n"
    assert [line.split(". ")[0] for line in said(text)] == [
        "7:1: error: foo: unknown key",
        "15:1: error: optimizer.eps: 'x' is a text; expected a number",
    ]


def test_a_missing_type_is_guessed_where_one_kind_alone_fits():
    text = TOP + "[model]\nckpt_path = 'w'\nmin_t = 0.1\n" + ADAPTER + OPTIMIZER
    assert "5:1: error: model.type: is missing. Add type = 'wan'." in said(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        # what upstream refuses or ignores
        (TOP + WAN + ADAPTER + OPTIMIZER + "[lr_scheduler]\ntype = 'cosine'\n",
            "16:1: error: lr_scheduler: {type = 'cosine'} is not one of constant, linear, cosine. It is one word, not "
            "a table: write lr_scheduler = 'cosine'."),
        (TOP.replace("save_every_n_epochs", "save-every-n-epochs") + WAN + ADAPTER + OPTIMIZER,
            "4:1: error: save-every-n-epochs: unknown key. Did you mean 'save_every_n_epochs'?"),
        # names that share letters, and no more
        (TOP + "[training_methods]\na = 1\n" + WAN + OPTIMIZER,
            "5:1: error: training_methods: unknown key. Tables known here: "),
        (TOP + WAN + ADAPTER + "lora_dtype = 'x'\n" + OPTIMIZER,
            "13:1: error: adapter.lora_dtype: unknown key. Did you mean 'dtype'? It stands here too: remove one of "
            "the two."),
        (TOP + "[model]\ntype = 'new'\nfancy = 1\n" + OPTIMIZER,
            "7:1: error: model.fancy: unknown key. No type knows such a key: remove it."),
        (TOP + WAN + ADAPTER.replace("lora", "oft") + OPTIMIZER,
            "10:1: error: adapter.type: 'oft' is not one of lora, lokr, loha, dora."),
        (TOP + WAN.replace("'wan'", "'wan2.2'") + ADAPTER + OPTIMIZER,
            f"6:1: error: model.type: 'wan2.2' is not one of {', '.join(FACTS)}. Did you mean 'wan'?"),
        (TOP + WAN.replace("'wan'", "'wan_clips'") + ADAPTER + OPTIMIZER,
            f"6:1: error: model.type: 'wan_clips' is not one of {', '.join(FACTS)}. Did you mean 'wan'?"),
        (TOP + WAN.replace("'wan'", "'qwen25'") + ADAPTER + OPTIMIZER,
            f"6:1: error: model.type: 'qwen25' is not one of {', '.join(FACTS)}. Did you mean 'qwen_image'?"),
        (TOP + WAN.replace("'wan'", "'hunyuan_fast'") + ADAPTER + OPTIMIZER,
            f"6:1: error: model.type: 'hunyuan_fast' is not one of {', '.join(FACTS)}. Did you mean 'hunyuan_image' "
            "or 'hunyuan-video'?"),
        (TOP + WAN.replace("'wan'", "'mine'") + ADAPTER + OPTIMIZER,
            f"6:1: error: model.type: 'mine' is not one of {', '.join(FACTS)}. diffusion-pipe knows no such model "
            "either; a fork of it may."),
        (TOP + WAN.replace("'wan'", "'nima'") + ADAPTER + OPTIMIZER,
            f"6:1: error: model.type: 'nima' is not one of {', '.join(FACTS)}. Did you mean 'anima'?"),
        (TOP + WAN.replace("'wan'", "'lima'") + ADAPTER + OPTIMIZER,
            f"6:1: error: model.type: 'lima' is not one of {', '.join(FACTS)}. diffusion-pipe knows"),
        (TOP + WAN.replace("'wan'", "''") + ADAPTER + OPTIMIZER,
            f"6:1: error: model.type: '' is not one of {', '.join(FACTS)}. Name one of them."),
        (TOP + "lr_scheduler = 'cosine_with_restarts'\n" + WAN + ADAPTER + OPTIMIZER,
            "5:1: error: lr_scheduler: 'cosine_with_restarts' is not one of constant, linear, cosine. Did you mean "
            "'cosine'?"),
        # tables that a file has none of
        (TOP + WAN + ADAPTER + OPTIMIZER + "[evaluation]\neval_every_n_epochs = 1\neval_before_first_step = true\n"
            "speed = 1\n",
            "16:1: error: evaluation: unknown key. Its keys stand at the top of the file: move eval_every_n_epochs "
            "and eval_before_first_step above the first [table] header."),
        (TOP + WAN + ADAPTER + OPTIMIZER + "[rest]\nseed = 1\nmodel = 'x'\n",
            "16:1: error: rest: unknown key. Tables known here: "),
        (TOP + WAN + ADAPTER + OPTIMIZER + "[[stage]]\nepochs = 1\n",
            "16:1: error: stage: unknown key. Tables known here: "),
        (TOP + WAN + OPTIMIZER + "[lora]\ntype = 'lora'\n",
            "13:1: error: lora.type: unknown key. [lora] is the old name of the [adapter] table, and nothing but its "
            "dtype is read: write [adapter]."),
        (TOP + WAN + ADAPTER + OPTIMIZER + "[scheduler]\ntype = 'x'\n",
            "16:1: error: scheduler: unknown key. Nothing reads it. lr_scheduler is one word at the top, and "
            "warmup_steps stands there too."),
        (TOP.replace("dataset = 'd'\n", "") + WAN + ADAPTER + OPTIMIZER + "[dataset]\npath = 'd.toml'\n",
            "15:1: error: dataset: {path = 'd.toml'} is a table; expected a text in quotes. It is one text, not a "
            "table: write dataset = 'd.toml'."),
        (TOP.replace("dataset = 'd'\n", "") + WAN + ADAPTER + OPTIMIZER + "[dataset]\nconfig = 'd'\nepochs = 1\n",
            "15:1: error: dataset: {config = 'd', epochs = 1} is a table; expected a text in quotes. It is one text, "
            "not a table: write dataset = 'd'; its other keys stand at the top of the file."),
        (TOP.replace("dataset = 'd'\n", "") + WAN + ADAPTER + OPTIMIZER + "[dataset]\nname = 'd'\n",
            "15:1: error: dataset: {name = 'd'} is a table; expected a text in quotes. (Meaning: Dataset file: "),
        # another kind of the same table
        (TOP + WAN + ADAPTER.replace("'lora'", "'lokr'") + "dropout = 0.1\n" + OPTIMIZER,
            "13:1: error: adapter.dropout: unknown key. Only type = 'lora' or 'dora' takes it. Did you mean "
            "'rank_dropout'?"),
        (TOP + WAN + "transformer_dtype = 'nf4'\n" + ADAPTER + OPTIMIZER,
            "9:1: error: model.transformer_dtype: 'nf4' is not one of float32, float16, bfloat16, float8, "
            "float8_e4m3fn, float8_e5m2. Did you mean 'float8'?"),
        (TOP + WAN.replace("ckpt", "chpt") + ADAPTER + OPTIMIZER,
            "7:1: error: model.chpt_path: unknown key. Nothing reads it. It is called model.ckpt_path."),
        (TOP + WAN + "vae_path = 'v'\n" + ADAPTER + OPTIMIZER,
            "9:1: error: model.vae_path: unknown key. type = 'wan' does not read it: its files are named by "
            "ckpt_path."),
        (TOP + WAN + "t5_path = 'v'\n" + ADAPTER + OPTIMIZER,
            "9:1: error: model.t5_path: unknown key. type = 'wan' has llm_path in its place."),
        (TOP + "[model]\ntype = 'z_image'\ndiffusion_model = 'm'\nvae = 'v'\n[[model.text_encoders]]\npath = 't'\n"
            "type = 'lumina2'\ndtype = 'bfloat16'\n" + ADAPTER + OPTIMIZER,
            "12:1: error: model.text_encoders[0].dtype: unknown key. It belongs to [model]: move it above "
            "[[model.text_encoders]]."),
        (TOP + WAN + ADAPTER + OPTIMIZER + "[sample]\n[[sample.prompts]]\ntext = 'a'\nevery_n_steps = 5\n",
            "19:1: error: sample.prompts[0].every_n_steps: unknown key. It belongs to [sample]: move it above "
            "[[sample.prompts]]."),
        (TOP + WAN + "lumina_shift = true\n" + ADAPTER + OPTIMIZER,
            "9:1: error: model.lumina_shift: unknown key. Only type = 'lumina_2' takes it."),
        (TOP + "[model]\ntype = 'ltx-video'\nshift = 3\n" + ADAPTER + OPTIMIZER,
            "7:1: error: model.shift: unknown key. type = 'ltx-video' does not take it: remove it."),
        (TOP + WAN.replace("'bfloat16'", "'fp8'") + ADAPTER + OPTIMIZER,
            "8:1: error: model.dtype: 'fp8' is not one of float32, float16, bfloat16."),
        (TOP + WAN + "transformer_dtype = 'fp8'\n" + ADAPTER + OPTIMIZER,
            "9:1: error: model.transformer_dtype: 'fp8' is not one of float32, float16, bfloat16, float8, "
            "float8_e4m3fn, float8_e5m2. Did you mean 'float8'?"),
        (TOP + "activation_checkpointing = 'True'\n" + WAN + ADAPTER + OPTIMIZER,
            "5:1: error: activation_checkpointing: 'True' is not known here; expected true, false or 'unsloth'. Write "
            "true without quotes."),
        (TOP + "cache_only = true\n" + WAN + ADAPTER + OPTIMIZER,
            "5:1: error: cache_only: unknown key. It is an option of diffusion-pipe's command line, not a key: leave "
            "it out."),
        (TOP + WAN + ADAPTER + "network_dim = 4\n" + OPTIMIZER,
            "13:1: error: adapter.network_dim: unknown key. 'network_dim' is a name of kohya sd-scripts and "
            "musubi-tuner. Here it is adapter.rank."),
        (TOP.replace("epochs = 1\n", "", 1) + WAN + ADAPTER + OPTIMIZER, "1:1: error: epochs: is missing."),
        (TOP + "number_of_gpus = 2\n" + WAN + ADAPTER + OPTIMIZER, "5:1: error: number_of_gpus: unknown key."),
        (TOP + "only_double_blocks = true\n" + WAN + ADAPTER + OPTIMIZER,
            "5:1: error: only_double_blocks: unknown key."),
        (TOP + WAN + "qwen_path = 'x'\n" + ADAPTER + OPTIMIZER, "9:1: error: model.qwen_path: unknown key."),
        # syntax
        (TOP + "warmup_steps = 1 lr_scheduler = 'linear'\n" + WAN,
            "5:18: error: a second key, 'lr_scheduler', stands on the same line. Give each key a line of its own."),
        (TOP.replace("'o'", "/data/o"), "1:14: error: /data/o is a text without quotes. Write '/data/o'."),
        (TOP + "eval_datasets = [\n#  {name = 'a', config = 'b'}\n" + WAN,
            "5:17: error: the list that begins here is never closed."),
        ("import os\n" + TOP, "1:8: error: this is program code, not TOML."),
        (TOP.replace("'o'", '"D:\\models"'), "1:19: error: a \\ in double quotes begins a code such as \\n, and this "
            "is none. For a path write / instead of \\, or use single quotes."),
    ],
)  # fmt: skip
def test_training_files(text, message):
    assert any(line.startswith(message) for line in said(text)), said(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("video_clip_mode = 'single_middle'\n" + DATA,
            "1:1: error: video_clip_mode: unknown key. It belongs in the training file."),
        (DATA + "rank = 4\n", "4:1: error: directory[0].rank: unknown key. It belongs in the training file, in "
            "[adapter] or [optimizer]."),
        (DATA + "subsample_ratio = 0.5\n", f"4:1: error: directory[0].subsample_ratio: unknown key. "
            f"{MOVE.format('[[directory]]')}"),
        (DATA + "dataset = 'somebody/pictures'\n",
            "4:1: error: directory[0].dataset: unknown key. Pictures are read from folders and .tar files of this "
            "machine: download them, and name their folder as path."),
        ("dataset = 'x'\n" + DATA, "1:1: error: dataset: unknown key. It belongs in the training file."),
        (DATA + "control_paths = ['x', 'y']\n",
            "4:1: error: directory[0].control_paths: unknown key. Nothing reads it. directory.control_path takes a "
            "list of folders too (dpnb's own trainer alone)."),
        (DATA + "caption_path = 'x'\n",
            "4:1: error: directory[0].caption_path: unknown key. There is no such key: remove it."),
        (DATA + "type = 'x'\n", "4:1: error: directory[0].type: unknown key. There is no such key: remove it."),
        ("[general]\nresolution = 512\n",
            "1:1: error: general: unknown key. 'general' is a name of kohya sd-scripts and musubi-tuner. There is no "
            "such key here. The keys of [general] stand at the top of the file. `dpnb import` makes files of ours of "
            "the whole."),
        ("image_dir = 'x'\n" + DATA, "1:1: error: image_dir: unknown key. 'image_dir' is a name of kohya sd-scripts"),
    ],
)  # fmt: skip
def test_dataset_files(text, message):
    assert any(line.startswith(message) for line in said(text, Dataset)), said(text, Dataset)


@pytest.mark.parametrize("key", ["resolutions = [512]", "min_ar = 0.5", "num_repeats = 2", "caption_prefix = 'x'"])
def test_general_keys_below_a_folder_are_its_own(key):
    text = "resolutions = [64]\nenable_ar_bucket = true\nmin_ar = 0.5\nmax_ar = 2\nnum_ar_buckets = 3\n"
    assert said(f"{text}[[directory]]\npath = 'x'\n{key}\n", Dataset) == []


@pytest.mark.parametrize(
    ("path", "advice"),
    [
        ("'D:\\models\\wan'", "Folders are separated by / here: write the path with / instead of \\ (under WSL, C: is "
            "/mnt/c)."),
        ("'$HOME/wan'", "Variables are not expanded in a TOML file: write the full path."),
        ("'~/wan'", "'~' is not expanded in a TOML file: write the full path, such as '"),
        ("'/data/your_model_here'", "Correct the path."),
    ],
)  # fmt: skip
def test_paths(path, advice):
    lines = said(TOP + WAN.replace("'w'", path) + ADAPTER + OPTIMIZER, paths=True)
    (line,) = [line for line in lines if "ckpt_path" in line]
    assert line.startswith(f"7:1: error: model.ckpt_path: {path} does not exist. {advice}")


@pytest.mark.parametrize("family", sorted(FACTS))
def test_what_we_write_is_read_without_a_word(family):
    value = training({"diffusers_path": "x"} if family == "sd15" else {}, family=family)
    assert not [line for line in said(dump(value, everything=True, comments=True)) if "error" in line]
