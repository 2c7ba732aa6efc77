"""Files in and out: every message with its place, several files at once, dump and load, and texts with faults."""

from __future__ import annotations

import random
import time
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, field_validator
from pydantic.fields import FieldInfo

from dpnb.errors import ConfigError, Problem, errors_in
from dpnb.schema import Dataset, Section, Training
from dpnb.schema.base import one_of, ui_of
from dpnb.toml import check, dump, load, load_run, validate
from tests.dpnb.model_folder import lay_out

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
EVAL_NAME = "(Meaning: Name of the set, of letters, digits, spaces, dots, - and _; its curves are called <name>/loss.)"
TABLES = "Tables known here: [[eval_datasets]], [model], [adapter], [optimizer], [sample]."


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
            f"1: error: partition_split: 3 is a whole number; expected a list in [ ]. {SPLIT}",
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
            "1: error: lr_scheduler: {type = 'linear', steps = [1]} is not one of constant, linear, cosine.",
        ),
        (
            'save_dtype = "fp16"',
            "1: error: save_dtype: 'fp16' is not one of float32, float16, bfloat16. Did you mean 'float16'?",
        ),
        ('save_dtype = "float8"', "1: error: save_dtype: 'float8' is not one of float32, float16, bfloat16."),
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
            'eval_datasets = [{name = "a/b", config = "dataset.toml"}]',
            f"19: error: eval_datasets[0].name: 'a/b' is not accepted. {EVAL_NAME}",
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
        ("epoch = 2", "1: error: epoch: unknown key. Did you mean 'epochs'?"),
        ("  Max_Steps = 2", "3: error: Max_Steps: unknown key. Did you mean 'max_steps'?"),
        (
            "image_eval_micro_batch_size_per_gpu = 1",
            "1: error: image_eval_micro_batch_size_per_gpu: unknown key. Did you mean "
            "'eval_image_micro_batch_size_per_gpu'?",
        ),
        ("rank = 3", "1: error: rank: unknown key. It belongs in [adapter]."),
        ('type = "x"', "1: error: type: unknown key. It belongs in [model], [adapter] or [optimizer]."),
        ('config = "x"', "1: error: config: unknown key. It belongs in [[eval_datasets]]."),
        ("resolutions = [512]", "1: error: resolutions: unknown key. It belongs in the dataset file."),
        ('path = "x"', "1: error: path: unknown key. It belongs in the dataset file."),
        ("pseudo_huber_c = 1", "1: error: pseudo_huber_c: unknown key. There is no such key: remove it."),
        ("deepspeed = {a = 1}", f"1: error: deepspeed: unknown key. {TABLES}"),
        ("int = 1", "1: error: int: unknown key. There is no such key: remove it."),
        ('"list[x]" = 1', '1: error: "list[x]": unknown key. There is no such key: remove it.'),
        ('"" = 1', '1: error: "": unknown key. There is no such key: remove it.'),
        ('"a\\nb" = 1', '1: error: "a\\nb": unknown key. There is no such key: remove it.'),
    ],
)  # fmt: skip
def test_a_wrong_line_at_the_top(folder, line, message):
    assert said(GENERAL + line + "\n" + MODEL + ADAPTER + OPTIMIZER) == [f"5:{message}"]


# --- tables ----------------------------------------------------------------------------------------------------------

KNOWN_OPTIMIZER = "Known here: type, lr, betas, weight_decay, eps."
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
            ["6:1: error: model.type: 'fluks' is not known here; the only choice is 'flux'."],
        ),
        (
            GENERAL + MODEL + ADAPTER + OPTIMIZER.replace("adamw", "AdamW"),
            ["12:1: error: optimizer.type: 'AdamW' is not one of adamw, adamw8bit, sgd. Did you mean 'adamw'?"],
        ),
        (
            GENERAL + MODEL + ADAPTER + "[optimizer]\ntype = ['adamw']\n",
            ["12:1: error: optimizer.type: ['adamw'] is not one of adamw, adamw8bit, sgd."],
        ),
        (
            GENERAL + MODEL + ADAPTER + "[optimizer]\nlr = 1e-4\n",
            ["11:1: error: optimizer.type: is missing. Add type = 'adamw', 'adamw8bit' or 'sgd'."],
        ),
        (
            GENERAL + MODEL + "[adapter]\nrank = 4\n" + OPTIMIZER,
            ["8:1: error: adapter.type: is missing. Add type = 'lora'."],
        ),
        (
            GENERAL + "[model]\n" + OPTIMIZER,
            [
                "5:1: error: model.type: is missing. Add type = 'flux'.",
                "5:1: error: model.diffusers_path: is missing. (Meaning: Folder in diffusers format that holds "
                "transformer, VAE, text encoders and tokenizers.)",
            ],
        ),
        (GENERAL + MODEL, ["1:1: error: optimizer: is missing. Add an [optimizer] table."]),
        (GOOD + "momentum = 0.9\n", ["14:1: error: optimizer.momentum: unknown key. Only type = 'sgd' takes it."]),
        (GOOD + "rank = 9\n", ["14:1: error: optimizer.rank: unknown key. It belongs in [adapter]."]),
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
                "exclude_modules, init_from_existing."],
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
        (DATASET + "pathh = 1\n", ["4:1: error: directory[0].pathh: unknown key. Did you mean 'path'?"]),
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
                "[number, number] pairs. (Meaning: Target areas as square sides, such as [512, 768]; a pair "
                "[1280, 720] means the area of that picture.)"]),
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

NOT_TOML = "This is not valid TOML: look at this line and the one before it."
NO_VALUE = (
    "this is not a value. Texts stand in quotes, true and false in lower case, and a list ends with ]. Look at this "
    "line and the one before it."
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = 1\nb = 1 c = 2", f"2:7: error: Expected newline or end of document after a statement. {NOT_TOML}"),
        ("import torch\n", f"1:8: error: Expected '=' after a key in a key/value pair. {NOT_TOML}"),
        ("a = 1\na = 2", "2:1: error: a key stands twice in the same table. Keep one of the two, at this line or "
            "further up."),
        ("[a.b]\n[a.b]\n", "2:6: error: the table [a.b] stands twice. Keep one of the two, at this line or further "
            "up."),
        ("a = True", f"1:5: error: {NO_VALUE}"),
        ("a = flux", f"1:5: error: {NO_VALUE}"),
        ("a = [\n", f"2:1: error: {NO_VALUE}"),
        ('a = "C:\\data"', "1:10: error: Unescaped '\\' in a string. For a path write / instead of \\, or use single "
            "quotes."),
        ('a = "C:\\Users"', "1:10: error: Invalid hex value. For a path write / instead of \\, or use single quotes."),
        ("a = 1\n\nb = " + "9" * 5000, f"3:1: error: a number has too many digits. {NOT_TOML}"),
        ("a = " + "[" * 5000, "1:1: error: lists or tables stand too deep inside one another."),
        (b"a = 1\nb = '\xff'", "2:1: error: is not UTF-8 text (byte 11). Save it as UTF-8 in your editor."),
        ("a = 1".encode("utf-16"), "1:1: error: is not UTF-8 text (byte 0). Save it as UTF-8 in your editor."),
    ],
)  # fmt: skip
def test_texts_that_are_no_toml(folder, text, message):
    found = said(text)
    if "Unescaped" in message or "Invalid hex" in message or "twice" in message:  # the column is the parser's affair
        found, message = [f.split(": ", 1)[1] for f in found], message.split(": ", 1)[1]
        assert found == [message]
    else:
        assert found == [message]


def test_files_that_cannot_be_read(folder):
    for path, reason in (("gone.toml", "No such file or directory"), ("flux", "Is a directory")):
        with pytest.raises(ConfigError) as caught:
            load(path, Training)
        assert str(caught.value) == f"{path}: error: cannot be read: {reason}. Check the path."
    with pytest.raises(ConfigError, match=r"error: cannot be read: embedded null byte\. Check the path\."):
        load("a\0b", Training)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_line_ends_and_byte_order_mark_change_no_place(folder, start, end):
    text = (start + "# a = [ ' # comment\n\t" + GOOD + '\tlrr = 1 # "\n').replace("\n", end)
    assert said(text) == ["15:2: error: optimizer.lrr: unknown key. Did you mean 'lr'?"]
    Path("dataset.toml").write_bytes((start + DATASET).replace("\n", end).encode())
    assert load("dataset.toml", Dataset).text == DATASET.replace("\n", end)


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
        "this key."
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
            "none.toml: error: cannot be read: No such file or directory. Check the path."
        ]


def test_a_training_file_that_is_missing_or_no_toml(folder):
    assert run_lines("= 1") == [f"x.toml:1:1: error: Invalid statement. {NOT_TOML}"]
    with pytest.raises(ConfigError, match=r"^none\.toml: error: cannot be read: No such file or directory\."):
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
        '[model]\ntype = "flux"\ndiffusers_path = "flux"\n\n[adapter]\ntype = "lora"\nrank = 4\n\n'
        '[optimizer]\ntype = "adamw"\nlr = 0.0001\n\n[[sample.prompts]]\ntext = "a"\n\n'
        '[[sample.prompts]]\ntext = "b"\nseed = 3\n'
    ), dump(value)


def test_dump_everything_with_comments():
    value, _ = validate(tomllib.loads(DATASET), Dataset)
    assert value is not None
    text = dump(value, everything=True, comments=True)
    assert "# How often each example is seen in an epoch; 1.5 shows the first half twice.\nnum_repeats = 1\n" in text
    for name, info in Dataset.model_fields.items():
        assert name == "directory" or (f"{name} = " in text) == (getattr(value, name) is not None)
        assert name == "directory" or (" ".join(str(info.description).split()) in text) == (f"{name} = " in text)


# --- properties ------------------------------------------------------------------------------------------------------


def strategy(annotation: Any, metadata: tuple[Any, ...] = ()) -> st.SearchStrategy[Any]:
    """Values that a field accepts, read off its annotation: a new field is covered as soon as it exists."""
    if get_origin(annotation) is Annotated:
        return strategy(get_args(annotation)[0], (*get_args(annotation)[1:], *metadata))
    bounds = {
        key: value
        for marker in metadata
        for part in (marker.metadata if isinstance(marker, FieldInfo) else [marker])
        for key in ("ge", "gt", "le", "lt", "min_length", "max_length", "pattern")
        if (value := getattr(part, key, None)) is not None
    }
    if get_origin(annotation) is Literal:
        return st.sampled_from(get_args(annotation))
    if get_origin(annotation) is list:
        sizes = {"min_size": bounds.get("min_length", 0), "max_size": bounds.get("max_length", 3)}
        return st.lists(strategy(get_args(annotation)[0]), **sizes)
    if get_args(annotation):
        arms = [arm for arm in get_args(annotation) if arm is not type(None)]
        found = st.one_of([strategy(arm, metadata) for arm in arms])
        return found if len(arms) == len(get_args(annotation)) else st.none() | found
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return sections(annotation)
    return _scalars(annotation, bounds)


def _scalars(kind: type, bounds: dict[str, Any]) -> st.SearchStrategy[Any]:
    if kind is bool:
        return st.booleans()
    if kind is int:
        low = int(bounds["gt"]) + 1 if "gt" in bounds else bounds.get("ge", -(2**31))
        return st.integers(low, bounds.get("le", 2**31))
    if kind is float:
        return st.floats(
            bounds.get("gt", bounds.get("ge")),
            bounds.get("lt", bounds.get("le")),
            exclude_min="gt" in bounds,
            exclude_max="lt" in bounds,
            allow_nan=False,
            allow_infinity=False,
        )
    assert kind is str
    if "pattern" in bounds:
        return st.from_regex(bounds["pattern"], fullmatch=True, alphabet=st.characters(codec="ascii", categories="LN"))
    awkward = st.sampled_from(list("\n\r\"'\\#é\t\x00\x7f\u2028\x85"))
    return st.text(
        st.characters(exclude_categories=["Cs"]) | awkward, min_size=bounds.get("min_length", 0), max_size=9
    )


def sections(cls: type[Section]) -> st.SearchStrategy[Any]:
    """Valid sections with a random choice of their keys set."""
    required = {n: strategy(i.annotation, tuple(i.metadata)) for n, i in cls.model_fields.items() if i.is_required()}
    optional = {n: strategy(i.annotation, tuple(i.metadata)) for n, i in cls.model_fields.items() if n not in required}
    return st.fixed_dictionaries(required, optional=optional).map(lambda values: cls(**values))


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
    assert found == check(value)
    assert not mixed(parsed)
    assert dump(again, everything=everything, comments=comments) == text


def mutated(text: str, chance: random.Random) -> str:
    """A text with one to three faults as people make them: in characters, lines and values."""
    odd = ["", "true", "inf", "-nan", "[]", "{}", '""', "0", "-1", "1e400", "9" * 25, "1979-05-27", "[[1, 2.5], 'a']"]
    odd += [
        "{ type = 1 }",
        "[{}]",
        "'type'",
        "07:32:00",
        "[1, [2]]",
        '"\\u0000"',
        "[true]",
        "-0",
        "0x1F",
        "'''\n\n'''",
    ]
    for _ in range(chance.randint(1, 3)):
        lines = text.split("\n")
        at, line = chance.randrange(len(text) + 1), chance.randrange(len(lines))
        match chance.randrange(8):
            case 0:
                text = text[:at] + text[at + chance.randint(1, 5) :]
            case 1:
                text = text[:at] + chance.choice("[]{}=.,\"'#\n\\ \t\x000aé") + text[at:]
            case 2:
                text = text[:at] + chance.choice("[]{}=.,\"'#\n\\ 0a") + text[at + 1 :]
            case 3:
                text = "\n".join(lines[:line] + lines[line + 1 :])
            case 4:
                text = "\n".join([*lines[:line], chance.choice(lines), *lines[line:]])
            case 5:
                text = "\n".join(
                    [*lines[:line], f"{lines[line].split('=')[0]}= {chance.choice(odd)}", *lines[line + 1 :]]
                )
            case 6:
                text = "\n".join(
                    [*lines[:line], lines[line].replace("[[", "[").replace("]]", "]"), *lines[line + 1 :]]
                )
            case 7:
                key = chance.choice(["x", "type", "sample", "a.b", "model", "int", "'list[int]'", "directory", "seed"])
                text = "\n".join([*lines[:line], f"{key} = {chance.choice(odd) or 1}", *lines[line:]])
    return text


@pytest.mark.parametrize(("cls", "seed"), [(Training, 1), (Dataset, 2)])
def test_any_text_loads_or_says_why_not(folder, cls, seed):
    chance = random.Random(seed)
    full = {
        Training: GENERAL + "micro_batch_size_per_gpu = [[512, 4], [1024, 1]]\n"
        "eval_datasets = ['dataset.toml', {name = 'b', config = 'dataset.toml'}]\n" + MODEL + ADAPTER + OPTIMIZER
        + "betas = [0.9, 0.99]\n[sample]\nwidth = 64\n[[sample.prompts]]\ntext = '''a\nb'''\n[[sample.prompts]]\n"
        "text = \"c # [d]\"\n",
        Dataset: "resolutions = [[64, 32], [32, 64]]\nenable_ar_bucket = true\nar_buckets = [0.5, 1]\n" + DATASET[19:]
        + "num_repeats = 1.5\n[[directory]]\npath = 'pictures'\nsize_buckets = [[64, 64, 1]]\n",
    }[cls]  # fmt: skip
    assert said(full, cls) == []
    broken = sum(bool(problems(mutated(full, chance), cls)) for _ in range(1000))
    assert broken > 700


# --- speed -----------------------------------------------------------------------------------------------------------


def test_a_typical_file_loads_in_a_moment(folder):
    Path("x.toml").write_text(GOOD + "[sample]\nprompts = ['a', 'b']\n")
    seconds = []
    for _ in range(10):
        start = time.perf_counter()
        load("x.toml", Training)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.02


def test_no_secret_is_written():
    """`Ui(secret=True)` keeps a key out of every dump."""
    from dpnb.schema import Ui

    class Service(Section):
        name: str = "x"
        key: Annotated[str, Ui(secret=True)] = ""

    assert ui_of(Service.model_fields["key"]).secret
    assert dump(Service(name="y", key="abc"), everything=True) == 'name = "y"\n'
