"""Every rule across keys, with its words; rules of folders, which inherit; paths."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from dpnb.presets import flux_lora
from dpnb.schema import (
    AdamW,
    Dataset,
    Directory,
    EvalDataset,
    FluxModel,
    LoraAdapter,
    Prompt,
    Sampling,
    Training,
    rules,
)
from dpnb.schema.model import FamilyFacts
from dpnb.schema.rules import check_dataset, check_model_folder, check_path, check_paths, check_training, kind_of_path
from tests.dpnb.model_folder import lay_out


def training(model=None, **values) -> Training:
    """A training file without a fault, but for what is given."""
    base = {
        "output_dir": "out",
        "dataset": "dataset.toml",
        "epochs": 1,
        "save_every_n_epochs": 1,
        "model": FluxModel(diffusers_path="flux", **(model or {})),
        "adapter": LoraAdapter(rank=4),
        "optimizer": AdamW(),
    }
    return Training(**(base | values))


def sampling(*prompts: Prompt, **values) -> Sampling:
    return Sampling(**({"prompts": list(prompts) or [Prompt(text="x")], "every_n_steps": 1} | values))


EVAL = EvalDataset(name="a", config="a.toml")


def test_a_good_file_has_no_problems():
    assert check_training(training()) == []
    assert check_training(training(adapter=None, sample=sampling(), eval_datasets=[EVAL])) == []
    assert check_training(training(pipeline_stages=3, partition_method="manual", partition_split=[2, 5])) == []
    assert check_training(training(activation_checkpointing=True, reentrant_activation_checkpointing=True)) == []


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"save_every_n_epochs": None},
            "error: save_every_n_epochs: none of save_every_n_epochs, save_every_n_steps and save_every_n_examples is "
            "set. Add one of them, such as save_every_n_epochs = 1.",
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
            "warning: reentrant_activation_checkpointing: has no effect. Set activation_checkpointing = true, or "
            "remove reentrant_activation_checkpointing.",
        ),
        (
            {"model": {"timestep_sample_method": "uniform", "sigmoid_scale": 2.0}},
            "warning: model.sigmoid_scale: has no effect. Set timestep_sample_method = 'logit_normal', or remove "
            "sigmoid_scale.",
        ),
        (
            {"eval_every_n_steps": 1},
            "warning: eval_every_n_steps: has no effect without eval_datasets. Add eval_datasets, or remove this key.",
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
            "error: model.dtype: 'float16' weights cannot be trained as a whole. Use 'bfloat16' or 'float32'.",
        ),
        (
            {"adapter": None, "model": {"transformer_dtype": "float16"}},
            "error: model.transformer_dtype: 'float16' weights cannot be trained as a whole. Use 'bfloat16' or "
            "'float32'.",
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
    monkeypatch.setitem(rules.FACTS, "flux", FamilyFacts("Toy", 16, adapters=("lokr",), full_finetune=False))
    assert [str(p) for p in check_training(training())] == [
        "error: adapter.type: Toy does not take lora. Use one of: lokr."
    ]
    assert [str(p) for p in check_training(training(adapter=None))] == [
        "error: adapter: Toy cannot be fine-tuned as a whole. Add an [adapter] table."
    ]


def test_every_rule_is_pinned_above():
    """A new rule is a new row: count them."""
    assert len(rules.TRAINING_RULES) == 9
    assert len(rules.DATASET_RULES) == 3


# --- dataset ---------------------------------------------------------------------------------------------------------

NEEDS_SIZES = "is missing. Say the sizes to train at, such as resolutions = [512]."
ADD_RATIOS = "Add min_ar, max_ar and num_ar_buckets, such as 0.5, 2.0 and 7, or ar_buckets."
RATIOS = {"enable_ar_bucket": True, "min_ar": 0.5, "max_ar": 2.0, "num_ar_buckets": 7}
SIZES = {"resolutions": [512]}
BUCKETS = {"size_buckets": [[64, 64, 1]]}


@pytest.mark.parametrize(
    ("top", "folders", "said"),
    [
        (SIZES, [{}], []),
        (SIZES | RATIOS, [{}, {}], []),
        ({}, [SIZES, BUCKETS], []),
        ({}, [{}, {}], [f"error: resolutions: {NEEDS_SIZES}"]),
        ({}, [SIZES, {}], [f"error: resolutions: {NEEDS_SIZES}"]),
        ({"resolutions": []}, [{}], [f"error: resolutions: {NEEDS_SIZES}"]),
        (SIZES, [{"resolutions": []}], [f"error: directory[0].resolutions: {NEEDS_SIZES}"]),
        (
            SIZES | BUCKETS,
            [{}, {}],
            ["warning: resolutions: has no effect because size_buckets is set. Remove one of the two."],
        ),
        (SIZES, [{}, BUCKETS], []),
        (SIZES, [BUCKETS, BUCKETS], []),
        (
            BUCKETS,
            [SIZES],
            ["warning: directory[0].resolutions: has no effect because size_buckets is set. Remove one of the two."],
        ),
        (
            SIZES | {"enable_ar_bucket": True, "min_ar": 0.5},
            [{}],
            [f"error: enable_ar_bucket: needs max_ar and num_ar_buckets as well. {ADD_RATIOS}"],
        ),
        (
            SIZES,
            [{}, {"enable_ar_bucket": True}],
            [
                f"error: directory[1].enable_ar_bucket: needs min_ar and max_ar and num_ar_buckets as well. "
                f"{ADD_RATIOS}"
            ],
        ),
        (SIZES | {"enable_ar_bucket": True}, [{"ar_buckets": [1.0]}, {"enable_ar_bucket": False}], []),
        (SIZES | RATIOS, [{}, {"ar_buckets": [1.0, 2.0]}], []),
        (
            SIZES | RATIOS | {"ar_buckets": [1.0]},
            [{}],
            [
                f"warning: {key}: has no effect because ar_buckets is set. Remove one of the two."
                for key in ("min_ar", "max_ar", "num_ar_buckets")
            ],
        ),
        (SIZES | RATIOS | {"min_ar": 3.0}, [{}], ["error: min_ar: 3.0 is above max_ar 2.0. Swap the two."]),
        (
            SIZES | RATIOS,
            [{}, {"max_ar": 0.1}],
            ["error: directory[1].min_ar: 0.5 is above max_ar 0.1. Swap the two."],
        ),
        (SIZES | RATIOS | {"enable_ar_bucket": False}, [{"enable_ar_bucket": True}, {}], []),
        (
            SIZES | {"min_ar": 0.5},
            [{}],
            ["warning: min_ar: has no effect. Set enable_ar_bucket = true, or remove min_ar."],
        ),
        (
            SIZES,
            [{"min_ar": 0.5}],
            ["warning: directory[0].min_ar: has no effect. Set enable_ar_bucket = true, or remove min_ar."],
        ),
    ],
)
def test_rules_of_folders_and_what_they_inherit(top, folders, said):
    dataset = Dataset(**top, directory=[Directory(path=str(i), **own) for i, own in enumerate(folders)])
    assert [str(problem) for problem in check_dataset(dataset)] == said


# --- paths -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("value", "kind", "said"),
    [
        ("folder", "dir", None),
        ("file", "file", None),
        ("folder", "output_dir", None),
        ("folder/new/newer", "output_dir", None),
        ("", "dir", "must not be empty. Name a folder."),
        ("", "output_dir", "must not be empty. Name a folder."),
        ("", "file", "must not be empty. Name a file."),
        ("file", "dir", "'file' is not a folder. Name a folder."),
        ("folder", "file", "'folder' is not a file. Name a file."),
        ("none", "file", "'none' does not exist. Relative paths count from the working directory ({cwd}): correct "
            "it, or write the full path."),
        ("file/x", "dir", "'file/x' does not exist. Relative paths count from the working directory ({cwd}): correct "
            "it, or write the full path."),
        ("/no/such", "dir", "'/no/such' does not exist. Correct the path."),
        ("/no/a\nb", "dir", "'/no/a\\nb' does not exist. Correct the path."),
        ("$A/x", "dir", "'$A/x' does not exist. Variables are not expanded in a TOML file: write the full path."),
        ("file", "output_dir", "'file' cannot be created: 'file' is a file. Name another folder."),
        ("file/x", "output_dir", "'file/x' cannot be created: 'file' is a file. Name another folder."),
        ("/no/\0", "file", "'/no/\\x00' cannot be read: it holds a zero byte. Correct the path."),
        ("a\0", "output_dir", "'a\\x00' cannot be created: it holds a zero byte. Name another folder."),
    ],
)  # fmt: skip
def test_paths(folder, value, kind, said):
    found = check_path(("key",), value, kind)
    expected = [] if said is None else [f"error: key: {said.replace('{cwd}', str(folder))}"]
    assert [str(problem) for problem in found] == expected


def test_a_tilde_is_written_out(folder, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    (problem,) = check_path(("key",), "~/flux", "dir")
    assert problem.suggestion == "'~' is not expanded in a TOML file: write the full path, such as '/home/me/flux'."


@pytest.mark.skipif(os.sep != "/", reason="there a backslash is right")
def test_a_path_of_windows(folder):
    (problem,) = check_path(("key",), "C:\\flux", "dir")
    assert str(problem) == (
        "error: key: 'C:\\flux' does not exist. Folders are separated by / here: write the path with / instead of \\ "
        "(under WSL, C: is /mnt/c)."
    )


@pytest.mark.skipif(sys.platform == "win32", reason="another limit there")
def test_a_name_that_is_too_long(folder):
    name = "a" * 300
    (read,), (made,) = check_path(("key",), name, "dir"), check_path(("key",), name, "output_dir")
    assert read.message == f"'{name}' cannot be read: File name too long."
    assert made.message == f"'{name}' cannot be created: File name too long."


def test_links_in_a_circle(folder):
    Path("loop").symlink_to("loop")
    assert kind_of_path("loop") == "Too many levels of symbolic links"


def test_check_paths_looks_at_every_path_of_an_object(folder):
    found = check_paths(training(cache_dir="file", eval_datasets=[EVAL]))
    assert [problem.key for problem in found] == [
        "dataset",
        "cache_dir",
        "eval_datasets[0].config",
        "model.diffusers_path",
    ]


# --- the model's folder ----------------------------------------------------------------------------------------------


def said_of(folder: Path, **changes: object) -> list[str]:
    model = FluxModel(diffusers_path=str(folder), **changes)
    base = flux_lora(model_dir=folder)[0]
    return [str(p).replace(str(folder), "M") for p in check_model_folder(base.model_copy(update={"model": model}))]


def test_a_whole_model_folder_and_one_that_is_missing_are_no_problem_here(tmp_path: Path) -> None:
    assert said_of(lay_out(tmp_path / "model")) == []
    assert said_of(tmp_path / "gone") == []  # check_paths says it


def test_a_model_folder_that_is_none_or_not_whole(tmp_path: Path) -> None:
    where = "error: model.diffusers_path: "
    assert said_of(tmp_path) == [
        f"{where}'M' has no readable model_index.json. "
        "Name a folder in diffusers format, as `huggingface-cli download REPOSITORY` makes it."
    ]
    model = lay_out(tmp_path / "model")
    (model / "vae").rmdir()
    (model / "tokenizer").rmdir()
    (model / "transformer" / "model.safetensors").unlink()
    assert said_of(model) == [
        f"{where}'M' lacks vae, tokenizer. Download the model again, whole.",
        f"{where}'M/transformer' holds no .safetensors file. Download the model again, whole.",
    ]
    (model / "model_index.json").write_text('{"transformer": ["diffusers", "QwenImageTransformer2DModel"]}')
    assert said_of(model, transformer_path="other.safetensors")[1:] == [
        f"{where}'M' holds a QwenImageTransformer2DModel; FLUX.1 is a FluxTransformer2DModel. "
        "Change model.type or the folder."
    ]
