"""Files in and out: every message with its place, several files at once, dump and load, and texts with faults."""

from __future__ import annotations

import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, field_validator

from dpnb.errors import ConfigError, Problem, errors_in
from dpnb.schema import FACTS, Dataset, Section, Training
from dpnb.schema.base import help_of, ui_of
from dpnb.schema.optimizer import NAMED
from dpnb.schema.unions import one_of, tag_of
from dpnb.toml import check, dump, load, load_run, validate
from dpnb.toml.keys import any_of
from tests.dpnb.drawn import sections
from tests.dpnb.model_folder import lay_out

OPTIMIZERS = [tag_of(section) for section in NAMED]
GENERAL = 'output_dir = "runs"\ndataset = "dataset.toml"\nepochs = 1\nsave_every_n_epochs = 1\n'
MODEL = '[model]\ntype = "flux"\ndiffusers_path = "flux"\n'
ADAPTER = '[adapter]\ntype = "lora"\nrank = 4\n'
OPTIMIZER = '[optimizer]\ntype = "adamw"\nlr = 1e-4\n'
GOOD = GENERAL + MODEL + ADAPTER + OPTIMIZER
DATASET = 'resolutions = [64]\n[[directory]]\npath = "pictures"\n'


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A working directory in which the paths of GOOD exist."""
    monkeypatch.chdir(tmp_path)
    lay_out(tmp_path / "flux")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "dataset.toml").write_text(DATASET)
    return tmp_path


def problems(text: str | bytes, cls: type[Section] = Training, **options: Any) -> list[Problem]:
    """What is found in a text, errors and warnings; each of them has a place."""
    Path("x.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
    try:
        found = load("x.toml", cls, **options).warnings
    except ConfigError as error:
        found = error.problems
        assert errors_in(found)
    for problem in found:
        assert problem.file == "x.toml"
        assert problem.line
        assert problem.column
        assert "\n" not in str(problem)
    return list(found)


def said(text: str | bytes, cls: type[Section] = Training, **options: Any) -> list[str]:
    """The same as lines, without the name of the file."""
    return [str(problem).removeprefix("x.toml:") for problem in problems(text, cls, **options)]


def test_a_good_file(folder):
    assert said(GOOD) == []
    assert said(DATASET, Dataset) == []
    document = load("dataset.toml", Dataset)
    assert (document.path, document.text, document.value.resolutions) == (Path("dataset.toml"), DATASET, [64])


# --- one key at the top: kinds of values -----------------------------------------------------------------------------

SEED = "(Meaning: Seed of everything random: adapter weights, order, noise and timesteps.)"
CLIPPING = (
    "(Meaning: A gradient longer than this is cut to this length, so that one bad batch does little harm; 0 turns "
    "that off.)"
)
BATCH = (
    "(Meaning: Examples in one forward pass on one GPU, or [resolution, examples] pairs such as "
    "[[512, 4], [1024, 1]].)"
)
RESUME = "(Meaning: Go on with an earlier run: true for the newest in output_dir, or the name of its folder.)"
PARTITION = (
    "(Meaning: How layers are dealt out to pipeline stages: parameters, uniform, manual, or type:<class name>.)"
)
SPLIT = "(Meaning: First layer of each further stage, one number less than there are stages.)"
BOTH = "It stands here too: remove one of the two."
EVAL_NAME = "(Meaning: Name of the set, without quotes, &, < and >; its curves are called <name>/loss.)"
TABLES = (
    "Tables known here: [[eval_datasets]], [model], [adapter], [optimizer], [loss], [ema], [sample], [monitoring], "
    "[lora]."
)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        # types
        ("seed = true", f"1: error: seed: true is a boolean; expected a whole number. {SEED}"),
        ('seed = "4"', "1: error: seed: '4' is a text; expected a whole number. Write 4 without quotes."),
        ('seed = "x"', f"1: error: seed: 'x' is a text; expected a whole number. {SEED}"),
        ("seed = 4.0", "1: error: seed: 4.0 is a number; expected a whole number. Write 4."),
        ("seed = 4.5", f"1: error: seed: 4.5 is a number; expected a whole number. {SEED}"),
        ("seed = inf", f"1: error: seed: inf is a number; expected a whole number. {SEED}"),
        ("seed = []", f"1: error: seed: [] is a list; expected a whole number. {SEED}"),
        ("seed = {}", f"1: error: seed: {{}} is a table; expected a whole number. {SEED}"),
        ("seed = 07:32:00", f"1: error: seed: 07:32:00 is a time; expected a whole number. {SEED}"),
        (
            "seed = 1979-05-27T07:32:00Z",
            f"1: error: seed: 1979-05-27T07:32:00+00:00 is a date; expected a whole number. {SEED}",
        ),
        ("gradient_clipping = true", f"1: error: gradient_clipping: true is a boolean; expected a number. {CLIPPING}"),
        (
            'gradient_clipping = "1e-3"',
            "1: error: gradient_clipping: '1e-3' is a text; expected a number. Write 1e-3 without quotes.",
        ),
        (
            'x_axis_examples = "true"',
            "1: error: x_axis_examples: 'true' is a text; expected true or false. Write true without quotes.",
        ),
        (
            "x_axis_examples = 1",
            "1: error: x_axis_examples: 1 is a whole number; expected true or false. (Meaning: Count examples instead "
            "of steps on the x axis of the charts.)",
        ),
        (
            "partition_method = 1",
            f"1: error: partition_method: 1 is a whole number; expected a text in quotes. {PARTITION}",
        ),
        (
            "partition_split = 3",
            "1: error: partition_split: 3 is a whole number; expected a list in [ ]. Write [3].",
        ),
        (
            "partition_split = [1, 2.5]",
            f"23: error: partition_split[1]: 2.5 is a number; expected a whole number. {SPLIT}",
        ),
        # unions
        (
            "resume_from_checkpoint = 1",
            "1: error: resume_from_checkpoint: 1 is a whole number; expected true, false or a text in quotes. "
            f"{RESUME}",
        ),
        (
            'micro_batch_size_per_gpu = "1"',
            "1: error: micro_batch_size_per_gpu: '1' is a text; expected a whole number or a list of [number, number] "
            f"pairs. {BATCH}",
        ),
        (
            "micro_batch_size_per_gpu = 0",
            f"1: error: micro_batch_size_per_gpu: 0 is too small: it must be at least 1. {BATCH}",
        ),
        (
            "micro_batch_size_per_gpu = []",
            f"1: error: micro_batch_size_per_gpu: [] holds 0 items; expected at least 1. {BATCH}",
        ),
        (
            "micro_batch_size_per_gpu = [[512, 4], [1024]]",
            f"39: error: micro_batch_size_per_gpu[1]: [1024] holds 1 item; expected at least 2. {BATCH}",
        ),
        (
            "micro_batch_size_per_gpu = [[512, 4.0]]",
            "35: error: micro_batch_size_per_gpu[0][1]: 4.0 is a number; expected a whole number. Write 4.",
        ),
        (
            "micro_batch_size_per_gpu = [512]",
            f"29: error: micro_batch_size_per_gpu[0]: 512 is a whole number; expected a list in [ ]. {BATCH}",
        ),
        # bounds
        ("seed = -1", f"1: error: seed: -1 is too small: it must be at least 0. {SEED}"),
        ("seed = 4294967296", f"1: error: seed: 4294967296 is too large: it must be at most 4294967295. {SEED}"),
        ("gradient_clipping = nan", f"1: error: gradient_clipping: nan is not a finite number. {CLIPPING}"),
        ("gradient_clipping = -inf", f"1: error: gradient_clipping: -inf is not a finite number. {CLIPPING}"),
        (
            "huber_delta = 0",
            "1: error: huber_delta: 0 is too small: it must be above 0. (Meaning: Use the Huber loss with this "
            "threshold instead of the squared error.)",
        ),
        # choices and patterns
        (
            'lr_scheduler = "cosin"',
            "1: error: lr_scheduler: 'cosin' is not one of constant, linear, cosine. Did you mean 'cosine'?",
        ),
        ('lr_scheduler = "wsd"', "1: error: lr_scheduler: 'wsd' is not one of constant, linear, cosine."),
        ("lr_scheduler = 1", "1: error: lr_scheduler: 1 is not one of constant, linear, cosine."),
        (
            'lr_scheduler = {type = "linear", steps = [1]}',
            "1: error: lr_scheduler: {type = 'linear', steps = [1]} is not one of constant, linear, cosine. It is one "
            "word, not a table: write lr_scheduler = 'linear'; its other keys stand at the top of the file.",
        ),
        (
            'save_dtype = "fp16"',
            "1: error: save_dtype: 'fp16' is not one of float32, float16, bfloat16, float8, float8_e4m3fn, "
            "float8_e5m2. Did you mean 'float16'?",
        ),
        (
            'save_dtype = "float9"',
            "1: error: save_dtype: 'float9' is not one of float32, float16, bfloat16, float8, float8_e4m3fn, "
            "float8_e5m2.",
        ),
        ('partition_method = "x"', f"1: error: partition_method: 'x' is not accepted. {PARTITION}"),
        # short forms and lists of tables
        (
            'eval_datasets = "a.toml"',
            "1: error: eval_datasets: 'a.toml' is a text; expected a list in [ ]. Write ['a.toml'].",
        ),
        (
            "eval_datasets = [1]",
            "18: error: eval_datasets[0]: 1 is a whole number; expected a table. (Meaning: Held-out sets on which the "
            "loss is measured.)",
        ),
        (
            'eval_datasets = {name = "a"}',
            "1: error: eval_datasets: {name = 'a'} is a table; expected a list in [ ]. Write [[eval_datasets]], with "
            "two brackets on each side: there may be several.",
        ),
        (
            'eval_datasets = [{name = "a"}]',
            "18: error: eval_datasets[0].config: is missing. (Meaning: Dataset file of the set.)",
        ),
        (
            'eval_datasets = [{name = "a<b", config = "dataset.toml"}]',
            f"19: error: eval_datasets[0].name: 'a<b' is not accepted. {EVAL_NAME}",
        ),
        (
            'eval_datasets = [{name = "", config = "dataset.toml"}]',
            f"19: error: eval_datasets[0].name: must not be empty. {EVAL_NAME}",
        ),
        (
            'eval_datasets = [{name = "a", config = "dataset.toml", epochs = 1}]',
            "56: error: eval_datasets[0].epochs: unknown key. It is a top-level key: move it above the first [table] "
            "header (now it belongs to [[eval_datasets]]).",
        ),
        # unknown keys
        ("epoch = 2", f"1: error: epoch: unknown key. Did you mean 'epochs'? {BOTH}"),
        ("  Max_Steps = 2", "3: error: Max_Steps: unknown key. Did you mean 'max_steps'?"),
        (
            "image_eval_micro_batch_size_per_gpu = 1",
            "1: error: image_eval_micro_batch_size_per_gpu: unknown key. Nothing reads it. It is called "
            "eval_image_micro_batch_size_per_gpu.",
        ),
        ("rank = 3", "1: error: rank: unknown key. It belongs in [adapter] or [optimizer]."),
        ('type = "x"', "1: error: type: unknown key. It belongs in [model], [adapter], [optimizer] or [loss]."),
        ('config = "x"', "1: error: config: unknown key. It belongs in [[eval_datasets]]."),
        ("resolutions = [512]", "1: error: resolutions: unknown key. It belongs in the dataset file."),
        ('path = "x"', "1: error: path: unknown key. It belongs in the dataset file, in [[directory]]."),
        (
            "pseudo_huber_c = 1",
            "1: error: pseudo_huber_c: unknown key. Nothing reads it. huber_delta and smooth_l1_beta serve the same "
            "purpose with another number: choose it anew.",
        ),
        (
            "max_grad_norm = 1",
            "1: error: max_grad_norm: unknown key. 'max_grad_norm' is a name of kohya sd-scripts and others. "
            "Here it is gradient_clipping.",
        ),
        (
            "deepspeed = {a = 1}",
            "1: error: deepspeed: unknown key. 'deepspeed' is a name of kohya sd-scripts. There is no such key here. "
            "Training always runs on DeepSpeed; leave it out.",
        ),
        ("tables = {a = 1}", f"1: error: tables: unknown key. {TABLES}"),
        ("int = 1", "1: error: int: unknown key. There is no such key: remove it."),
        ('"list[x]" = 1', '1: error: "list[x]": unknown key. There is no such key: remove it.'),
        ('"" = 1', '1: error: "": unknown key. There is no such key: remove it.'),
        ('"a\\nb" = 1', '1: error: "a\\nb": unknown key. There is no such key: remove it.'),
    ],
)  # fmt: skip
def test_a_wrong_line_at_the_top(folder, line, message):
    assert said(GENERAL + line + "\n" + MODEL + ADAPTER + OPTIMIZER) == [f"5:{message}"]


# --- tables ----------------------------------------------------------------------------------------------------------

KNOWN_OPTIMIZER = (
    "Known here: type, lr, betas, weight_decay, eps, amsgrad, maximize, foreach, capturable, differentiable, fused, "
    "gradient_release, beta2_half_life."
)
BETAS = "(Meaning: How slowly the running averages of the gradient and of its square forget, as [beta1, beta2].)"


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        (
            GENERAL + "[[model]]\n" + ADAPTER + OPTIMIZER,
            ["5:1: error: model: [{}] is a list; expected a table. Write [model], with one bracket on each side: "
                "there is only one."],
        ),
        (
            GENERAL + 'adapter = "lora"\n' + MODEL + OPTIMIZER,
            ["5:1: error: adapter: 'lora' is a text; expected a table. Add an [adapter] table."],
        ),
        (
            GENERAL + 'optimizer = "adamw"\n' + MODEL + ADAPTER,
            ["5:1: error: optimizer: 'adamw' is a text; expected a table. Add an [optimizer] table."],
        ),
        (
            GENERAL + "optimizer = []\n" + MODEL + ADAPTER,
            ["5:1: error: optimizer: [] is a list; expected a table. Add an [optimizer] table."],
        ),
        (
            GENERAL + MODEL.replace("flux", "fluks", 1) + ADAPTER + OPTIMIZER,
            [f"6:1: error: model.type: 'fluks' is not one of {', '.join(FACTS)}. Did you mean 'flux'?"],
        ),
        (
            GENERAL + MODEL + ADAPTER.replace("lora", "LORA") + OPTIMIZER.replace("adamw", "AdamW"),
            ["9:1: error: adapter.type: 'LORA' is not one of lora, lokr, loha, dora. Did you mean 'lora'?"],
        ),
        (
            GENERAL + MODEL + ADAPTER + "[optimizer]\ntype = ['adamw']\n",
            [
                "12:1: error: optimizer.type: ['adamw'] is a list; expected a text in quotes. It is one of "
                f"{', '.join(OPTIMIZERS)}."
            ],
        ),
        (
            GENERAL + MODEL + ADAPTER + "[optimizer]\nlr = 1e-4\n",
            [f"11:1: error: optimizer.type: is missing. Add type = {any_of([repr(name) for name in OPTIMIZERS])}."],
        ),
        (
            GENERAL + MODEL + "[adapter]\nrank = 4\n" + OPTIMIZER,
            ["8:1: error: adapter.type: is missing. Add type = 'lora', 'lokr', 'loha' or 'dora'."],
        ),
        (
            GENERAL + "[model]\n" + OPTIMIZER,
            [
                f"5:1: error: model.type: is missing. Add type = {any_of([repr(name) for name in FACTS])}.",
            ],
        ),
        (GENERAL + MODEL, ["1:1: error: optimizer: is missing. Add an [optimizer] table."]),
        (GOOD + "momentum = 0.9\n", ["14:1: error: optimizer.momentum: unknown key. Only type = 'sgd' takes it."]),
        (GOOD + "rank = 9\n", ["14:1: error: optimizer.rank: unknown key. Only type = 'genericoptim' takes it."]),
        (GOOD + "foo = 9\n", [f"14:1: error: optimizer.foo: unknown key. {KNOWN_OPTIMIZER}"]),
        (GOOD + "[optimizer.adamw]\n", [f"14:1: error: optimizer.adamw: unknown key. {KNOWN_OPTIMIZER}"]),
        (
            GOOD + "warmup_steps = 9\n",
            ["14:1: error: optimizer.warmup_steps: unknown key. It is a top-level key: move it above the first "
                "[table] header (now it belongs to [optimizer])."],
        ),
        (
            GOOD + "[optimizer.sample]\nprompts = []\n",
            ["14:1: error: optimizer.sample: unknown key. It is a table of its own: write [sample]."],
        ),
        (GOOD + "betas = [0.9]\n",
            [f"14:1: error: optimizer.betas: [0.9] holds 1 item; expected at least 2. {BETAS}"]),
        (
            GOOD + "betas = [0.9, 0.9, 0.9]\n",
            [f"14:1: error: optimizer.betas: [0.9, 0.9, 0.9] holds 3 items; expected at most 2. {BETAS}"],
        ),
        (
            GOOD + "betas = [\n  0.9, # 1\n  1,\n]\n",
            [f"16:3: error: optimizer.betas[1]: 1 is too large: it must be below 1. {BETAS}"],
        ),
        (
            GOOD + "optimizer.betas = [0.9, 0.9]\n",
            ["14:1: error: optimizer.optimizer: unknown key. It is a table of its own: write [optimizer]."],
        ),
        (
            GOOD + '[adapter.x]\n"y z" = 1\n',
            ["14:1: error: adapter.x: unknown key. Known here: type, rank, alpha, dropout, dtype, target_modules, "
                "exclude_modules, init_from_existing, fuse_adapters."],
        ),
        (
            GOOD + '[sample]\nprompts = ["a", 1, {text = "x", hight = 3}]\n',
            [
                "15:17: error: sample.prompts[1]: 1 is a whole number; expected a table. (Meaning: What to draw.)",
                "15:33: error: sample.prompts[2].hight: unknown key. Did you mean 'height'?",
            ],
        ),
        (GOOD + "[sample]\n", ["14:1: error: sample.prompts: is missing. Add a [[sample.prompts]] table."]),
        (
            GOOD + '[[sample.prompts]]\ntext = "a"\n[[sample.prompts]]\nseed = 1\n',
            ["16:1: error: sample.prompts[1].text: is missing. (Meaning: What to draw.)"],
        ),
        (
            GOOD + '[sample.prompts]\ntext = "a"\n',
            ["14:1: error: sample.prompts: {text = 'a'} is a table; expected a list in [ ]. Write [[sample.prompts]], "
                "with two brackets on each side: there may be several."],
        ),
        (
            GOOD.replace("rank = 4", "rank = 4\nexclude_modules = ['a', 1]"),
            ["11:25: error: adapter.exclude_modules[1]: 1 is a whole number; expected a text in quotes. (Meaning: "
                "Names, or ends of names, of modules that get no adapter; a text in place of a list is a regular "
                "expression.)"],
        ),
        (
            GOOD.replace("rank = 4", "rank = 4\ntarget_modules = 'a'"),
            ["11:1: error: adapter.target_modules: 'a' is a text; expected a list in [ ]. Write ['a']."],
        ),
    ],
)  # fmt: skip
def test_tables(folder, text, messages):
    assert said(text) == messages


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ('[directory]\npath = "pictures"\n',
            ["1:1: error: directory: {path = 'pictures'} is a table; expected a list in [ ]. Write [[directory]], "
                "with two brackets on each side: there may be several."]),
        ("resolutions = [64]\n", ["1:1: error: directory: is missing. Add a [[directory]] table."]),
        ("directory = []\n", ["1:1: error: directory: [] holds 0 items; expected at least 1. "
            "(Meaning: The folders to train on.)"]),
        ("epochs = 1\n" + DATASET, ["1:1: error: epochs: unknown key. It belongs in the training file."]),
        (DATASET + "pathh = 1\n", [f"4:1: error: directory[0].pathh: unknown key. Did you mean 'path'? {BOTH}"]),
        (DATASET + "num_repeats = 0\n",
            ["4:1: error: directory[0].num_repeats: 0 is too small: it must be above 0. (Meaning: How often each "
                "example is seen in an epoch; 1.5 shows the first half twice.)"]),
        (DATASET + 'resolutions = [64, "x"]\n',
            ["4:20: error: directory[0].resolutions[1]: 'x' is a text; expected a number. (Meaning: Target areas as "
                "square sides, such as [512, 768]; a pair [1280, 720] means the area of that picture.)"]),
        (DATASET + "resolutions = [[64, 64], [64, 64, 1]]\n",
            ["4:26: error: directory[0].resolutions[1]: [64, 64, 1] holds 3 items; expected at most 2. (Meaning: "
                "Target areas as square sides, such as [512, 768]; a pair [1280, 720] means the area of that "
                "picture.)"]),
        (DATASET + "resolutions = [true]\n",
            ["4:16: error: directory[0].resolutions[0]: true is a boolean and does not fit here; the key takes a list "
                "of numbers or a list of [number, number] pairs. (Meaning: Target areas as square sides, such as "
                "[512, 768]; a pair [1280, 720] means the area of that picture.)"]),
        (DATASET + "resolutions = 512\n",
            ["4:1: error: directory[0].resolutions: 512 is a whole number; expected a list of numbers or a list of "
                "[number, number] pairs. Write [512]."]),
        (DATASET + 'min_ar = "x"\n',
            ["4:1: error: directory[0].min_ar: 'x' is a text; expected a number. (Meaning: Aspect ratio of the "
                "narrowest bucket; 0.5 is twice as high as wide.)"]),
        (DATASET.replace("[64]", "[64]\nenable_ar_bucket = true"),
            ["2:1: error: enable_ar_bucket: needs min_ar and max_ar and num_ar_buckets as well. Add min_ar, max_ar "
                "and num_ar_buckets, such as 0.5, 2.0 and 7, or ar_buckets."]),
        (DATASET + '[[directory]]\npath = "gone"\nresolutions = []\n',
            ["5:1: error: directory[1].path: 'gone' does not exist. Relative paths count from the working directory "
                "({cwd}): correct it, or write the full path.",
             "6:1: error: directory[1].resolutions: is missing. Say the sizes to train at, such as resolutions = "
                "[512]."]),
    ],
)  # fmt: skip
def test_the_dataset_file(folder, text, messages):
    assert said(text, Dataset) == [message.replace("{cwd}", str(folder)) for message in messages]


def test_the_keys_of_an_empty_file(folder):
    assert said("# nothing yet\n") == [
        "1:1: error: output_dir: is missing. (Meaning: Folder in which each run gets a folder of its own, named by "
        "its start time.)",
        "1:1: error: dataset: is missing. (Meaning: Dataset file: which pictures and captions to train on.)",
        "1:1: error: epochs: is missing. (Meaning: Passes over the dataset.)",
        "1:1: error: model: is missing. Add a [model] table.",
        "1:1: error: optimizer: is missing. Add an [optimizer] table.",
    ]


def test_long_values_are_cut(folder):
    (line,) = said(GOOD.replace("epochs = 1", f"epochs = '{'x' * 999}'", 1))
    assert f"epochs: '{'x' * 56}... is a text; expected a whole number." in line


def test_missing_paths_are_named_among_other_problems(folder):
    text = GOOD.replace('"flux"\ndiff', '"flux"\nguidence = 1\ndiff').replace('path = "flux"', 'path = "gone"')
    text = text.replace('"dataset.toml"', '"none.toml"').replace("epochs = 1\n", 'eval_datasets = ["a.toml"]\n', 1)
    where = f"Relative paths count from the working directory ({folder}): correct it, or write the full path."
    assert said(text) == [
        "1:1: error: epochs: is missing. (Meaning: Passes over the dataset.)",
        f"2:1: error: dataset: 'none.toml' does not exist. {where}",
        f"3:18: error: eval_datasets[0].config: 'a.toml' does not exist. {where}",
        "7:1: error: model.guidence: unknown key. Did you mean 'guidance'?",
        f"8:1: error: model.diffusers_path: 'gone' does not exist. {where}",
    ]
    assert [line.split(":")[3].strip() for line in said(text, paths=False)] == ["epochs", "model.guidence"]


def test_a_section_that_no_file_has(folder):
    class Left(Section):
        type: Literal["left"] = "left"
        """Kind."""
        word: Annotated[str, Field(min_length=2)] = "ab"

    class Right(Section):
        type: Literal["right"] = "right"
        """Kind."""

        @field_validator("type")
        @classmethod
        def _refused(cls, value: str) -> str:
            raise ValueError("nobody goes right")

    class Tree(Section):
        both: list[one_of(Left, Right)] = []
        either: bool | Literal["a", "b"] | None = None

    def lines(data: dict[str, Any]) -> list[str]:
        return [str(problem) for problem in validate(data, Tree)[1]]

    assert lines({"both": [{}, {"type": "left", "word": ""}]}) == [
        "error: both[0].type: is missing. Add type = 'left' or 'right'.",
        "error: both[1].word: must not be empty.",
    ]
    assert lines({"both": [{"type": "lef"}]}) == [
        "error: both[0].type: 'lef' is not one of left, right. Did you mean 'left'?"
    ]
    assert lines({"both": [{"type": "right"}]}) == [
        "error: both[0].type: 'right': nobody goes right. (Meaning: Kind.)"
    ]
    assert lines({"either": 3}) == ["error: either: 3 is a whole number; expected true, false, 'a' or 'b'."]
    assert validate({"both": [{"type": "left"}], "either": "a"}, Tree)[1] == []
    assert check(Left()) == []


# --- syntax, encoding, places ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_line_ends_and_byte_order_mark_change_no_place(folder, start, end):
    text = (start + "# a = [ ' # comment\n\t" + GOOD + '\tlrr = 1 # "\n').replace("\n", end)
    assert said(text) == [f"15:2: error: optimizer.lrr: unknown key. Did you mean 'lr'? {BOTH}"]
    Path("dataset.toml").write_bytes((start + DATASET).replace("\n", end).encode())
    assert load("dataset.toml", Dataset).text == (start + DATASET).replace("\n", end)


def test_every_way_to_write_a_key_has_its_place(folder):
    text = (
        'output_dir = """runs"""\ndataset = "dataset.toml"\nepochs = 1\nsave_every_n_epochs = 1\n'
        'model = {type = "flux", diffusers_path = "flux", "guidance" = "[# high"}\n'
        "adapter.type = 'lora'\nadapter.\"rank\" = '''\n4'''\noptimizer.type = 'adamw'\n"
        'optimizer . "betas" = [ # ]\n  0.9,\n  "]",\n]\n\t"se\\u0065d" = -1\n'
    )
    assert [(problem.key, problem.line, problem.column) for problem in problems(text)] == [
        ("model.guidance", 5, 50),
        ("adapter.rank", 7, 1),
        ("optimizer.betas[1]", 12, 3),
        ("seed", 14, 2),
    ]


def test_warnings_do_not_raise(folder):
    Path("x.toml").write_text("eval_every_n_steps = 5\n" + GOOD)
    document = load("x.toml", Training)
    assert [str(problem) for problem in document.warnings] == [
        "x.toml:1:1: warning: eval_every_n_steps: has no effect without eval_datasets. Add eval_datasets, or remove "
        "what stands here."
    ]


# --- several files ---------------------------------------------------------------------------------------------------


def run_lines(text: str, **options: Any) -> list[str]:
    Path("x.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_run("x.toml", **options)
    return str(caught.value).splitlines()


def test_load_run(folder):
    Path("held_out.toml").write_text("min_ar = 0.5\n" + DATASET)
    Path("x.toml").write_text("eval_every_n_steps = 1\neval_datasets = ['held_out.toml', 'dataset.toml']\n" + GOOD)
    config = load_run("x.toml")
    assert config.training.value.epochs == 1
    assert config.dataset.path == Path("dataset.toml")
    assert list(config.eval_datasets) == ["held_out", "dataset"]
    assert [str(problem) for problem in config.warnings] == [
        "held_out.toml:1:1: warning: min_ar: has no effect. Set enable_ar_bucket = true, or remove min_ar."
    ]


def test_the_problems_of_all_files_come_at_once(folder):
    Path("dataset.toml").write_text(DATASET + "trigger = 1\n")
    Path("held_out.toml").write_text("min_ar = 0.5\n" + DATASET.replace("[64]", "64"))
    Path("other.toml").write_text("= 1\n")
    sets = "eval_datasets = ['held_out.toml', {name = 'b', config = 'other.toml'}, {name = 'c'}]\n"
    expected = ["x.toml:5:72", "dataset.toml:4:1", "held_out.toml:2:1", "other.toml:1:1"]
    assert [line.split(": ")[0] for line in run_lines(GENERAL + sets + MODEL + OPTIMIZER)] == expected
    # The same with a training file that is right: its warnings stand among the errors of the others.
    sets = sets.replace(", {name = 'c'}", "") + "partition_split = [3]\n"
    expected = ["x.toml:6:1", *expected[1:]]
    lines = run_lines(GENERAL + sets + MODEL + OPTIMIZER)
    assert [line.split(": ")[0] for line in lines] == expected
    assert lines[0].startswith("x.toml:6:1: warning: partition_split: has no effect.")


def test_one_file_for_training_and_evaluation_is_reported_once(folder):
    Path("dataset.toml").write_text(DATASET + "trigger = 1\n")
    sets = "eval_datasets = [{name = 'a', config = 'dataset.toml'}]\n"
    assert run_lines(GENERAL + sets + MODEL + OPTIMIZER) == [
        "dataset.toml:4:1: error: directory[0].trigger: unknown key. Did you mean 'trigger_word'?"
    ]


def test_a_dataset_file_that_is_missing_is_reported_where_it_is_named(folder):
    for sets, place in (("", "2:1"), ("eval_datasets = ['none.toml']\n", "5:18")):
        text = GENERAL + sets + MODEL + OPTIMIZER
        text = text if sets else text.replace("dataset.toml", "none.toml")
        (line,) = run_lines(text)
        assert line.startswith(f"x.toml:{place}: error: ")
        assert "'none.toml' does not exist." in line
        assert run_lines(text, paths=False) == [
            "none.toml:1:1: error: cannot be read: No such file or directory. Check the path."
        ]


def test_a_training_file_that_is_missing_or_no_toml(folder):
    assert run_lines("= 1") == [
        "x.toml:1:1: error: a line begins with neither a key nor a table. Write key = value, [table], or [[table]] "
        "for one of several."
    ]
    with pytest.raises(ConfigError, match=r"^none\.toml:1:1: error: cannot be read: No such file or directory\."):
        load_run("none.toml")
    assert run_lines("dataset = 3\neval_datasets = [3, {config = 4}]\n" + GOOD.split("\n", 2)[2])[0].startswith(
        "x.toml"
    )


# --- dump ------------------------------------------------------------------------------------------------------------


def test_dump_writes_what_differs_in_the_order_of_the_schema():
    data = tomllib.loads(GOOD + "[sample]\nprompts = ['a', {text = 'b', seed = 3}]\n")
    value, _ = validate(data | {"eval_datasets": ["a.toml"], "seed": 0}, Training)
    assert value is not None
    assert dump(value) == (
        'output_dir = "runs"\ndataset = "dataset.toml"\nepochs = 1\nsave_every_n_epochs = 1\n\n'
        '[[eval_datasets]]\nname = "a"\nconfig = "a.toml"\n\n'
        '[model]\ntype = "flux"\ndiffusers_path = "flux"\ndtype = "bfloat16"\n\n[adapter]\ntype = "lora"\nrank = 4\n\n'
        '[optimizer]\ntype = "adamw"\nlr = 0.0001\n\n[[sample.prompts]]\ntext = "a"\n\n'
        '[[sample.prompts]]\ntext = "b"\nseed = 3\n'
    ), dump(value)


def test_dump_everything_with_comments():
    value, _ = validate(tomllib.loads(DATASET), Dataset)
    assert value is not None
    text = dump(value, everything=True, comments=True)
    assert "# How often each example is seen in an epoch; 1.5 shows the first half twice.\nnum_repeats = 1\n" in text
    for name in Dataset.model_fields:
        assert name == "directory" or (f"{name} = " in text) == (getattr(value, name) is not None)
        assert name == "directory" or (help_of(Dataset, name) in text) == (f"{name} = " in text)


# --- properties ------------------------------------------------------------------------------------------------------


def mixed(value: Any) -> bool:
    """True where a list mixes whole numbers with fractions, or numbers with lists: diffusion-pipe's parser fails."""
    if isinstance(value, dict):
        return any(map(mixed, value.values()))
    return isinstance(value, list) and (len({type(item) for item in value}) > 1 or any(map(mixed, value)))


@pytest.mark.parametrize("cls", [Training, Dataset])
@settings(max_examples=80, deadline=None, derandomize=True)
@given(data=st.data(), everything=st.booleans(), comments=st.booleans())
def test_dump_then_load_is_the_identity(cls, data, everything, comments):
    value = data.draw(sections(cls))
    text = dump(value, everything=everything, comments=comments)
    parsed = tomllib.loads(text)
    again, found = validate(parsed, cls)
    assert again == value
    assert found == check(again)
    assert not mixed(parsed)
    assert dump(again, everything=everything, comments=comments) == text


# --- speed -----------------------------------------------------------------------------------------------------------


def least_cpu_seconds(work: Callable[[], object]) -> float:
    """The least that a piece of work takes of ten times: what else the machine does is in the others."""
    taken = []
    for _ in range(10):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return min(taken)


def seconds_to_parse(text: str) -> float:
    """What Python's own parser takes for a text: how fast this machine is now."""
    return least_cpu_seconds(lambda: tomllib.loads(text))


def test_a_file_full_of_mistakes_is_answered_in_a_moment(folder):
    value, _ = validate(tomllib.loads(GOOD), Training)
    assert value is not None
    text = dump(value, everything=True, comments=True).replace('type = "flux"\n', "").replace("epochs", "epohcs")
    text += "foo = 1\nlrr = 2\n"
    Path("x.toml").write_text(text)

    def answer() -> None:
        with pytest.raises(ConfigError):
            load("x.toml", Training)

    assert least_cpu_seconds(answer) < 150 * seconds_to_parse(text)


def test_a_typical_file_loads_in_a_moment(folder):
    text = GOOD + "[sample]\nprompts = ['a', 'b']\n"
    Path("x.toml").write_text(text)
    assert least_cpu_seconds(lambda: load("x.toml", Training)) < 60 * seconds_to_parse(text)


def test_no_secret_is_written():
    """`Ui(secret=True)` keeps a key out of every dump."""
    from dpnb.schema import Ui

    class Service(Section):
        name: str = "x"
        key: Annotated[str, Ui(secret=True)] = ""

    assert ui_of(Service.model_fields["key"]).secret
    assert dump(Service(name="y", key="abc"), everything=True) == 'name = "y"\n'
