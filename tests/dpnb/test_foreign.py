"""The table of other trainers' keys: every key of ours that it names exists, and none of its own is a key of ours."""

from __future__ import annotations

import pytest

from dpnb.schema.base import Section
from dpnb.schema.dataset import Dataset
from dpnb.schema.foreign import (
    AI_TOOLKIT,
    DIFFUSERS,
    ERI,
    KOHYA,
    MUSUBI,
    ONETRAINER,
    TRANSFORMER_LAB,
    File,
    Foreign,
    foreign,
    rows,
)
from dpnb.schema.training import Training
from dpnb.schema.unions import sections_below

TRAINERS = (KOHYA, MUSUBI, AI_TOOLKIT, ERI, ONETRAINER, TRANSFORMER_LAB, DIFFUSERS)
FILES: tuple[tuple[File, type[Section]], ...] = (("training", Training), ("dataset", Dataset))
EVERY_ROW = sorted({(file, key, *row) for file, _ in FILES for t in TRAINERS for key, row in rows(t, file).items()})


def sections_at(key: str, root: type[Section]) -> list[type[Section]]:
    """The sections in which the last part of a dotted key would stand."""
    owners = [root]
    for part in key.split(".")[:-1]:
        owners = [
            below
            for owner in owners
            if part in owner.model_fields
            for below in sections_below(owner.model_fields[part].annotation)
        ]
    return owners


def is_ours(key: str, root: type[Section]) -> bool:
    return any(key.rpartition(".")[2] in section.model_fields for section in sections_at(key, root))


def test_the_table_covers_every_trainer_that_people_come_from() -> None:
    assert all(len(rows(trainer, "training")) > 20 for trainer in TRAINERS)
    assert len(EVERY_ROW) > 350


@pytest.mark.parametrize(("file", "key", "ours", "note"), EVERY_ROW, ids=[f"{r[0]}-{r[1]}" for r in EVERY_ROW])
def test_each_row_names_a_key_of_ours_and_is_none(file: File, key: str, ours: str, note: str) -> None:
    here = dict(FILES)[file]
    there = Dataset if here is Training else Training
    assert not is_ours(key, here), f"{key} is a key of ours"
    if not ours:
        assert note, f"{key} has neither a key of ours nor a reason"
        return
    assert is_ours(ours, here) or is_ours(ours, there), f"{ours} is no key of ours"
    other = "dataset" if file == "training" else "training"
    assert (f"It is in the {other} file" in note) == (not is_ours(ours, here)), f"{key}: wrong file named"


@pytest.mark.parametrize("note", sorted({row[3] for row in EVERY_ROW if row[3]}))
def test_notes_are_whole_sentences(note: str) -> None:
    assert note.endswith(".")
    assert not note.startswith(" ")


def test_a_key_of_several_trainers_names_them_all() -> None:
    assert foreign("network_dim", "training") == Foreign(f"{KOHYA} and {MUSUBI}", "adapter.rank", "")
    found = foreign("learning_rate", "training")
    assert found is not None
    assert (found.trainer, found.ours) == (f"{KOHYA}, {MUSUBI}, {TRANSFORMER_LAB} and {DIFFUSERS}", "optimizer.lr")


def test_a_dotted_key_is_looked_up_whole_and_then_by_its_last_part() -> None:
    assert foreign("train.batch_size", "training") == Foreign(
        f"{AI_TOOLKIT} and {ERI}", "micro_batch_size_per_gpu", ""
    )
    assert foreign("adapter.network_dim", "training") == foreign("network_dim", "training")
    assert foreign("directory.folder_path", "dataset") == foreign("folder_path", "dataset")


def test_a_key_of_the_other_file_says_which() -> None:
    found = foreign("caption_dropout_rate", "training")
    assert found is not None
    assert (found.ours, found.note) == ("caption_dropout", "It is in the dataset file.")
    found = foreign("max_train_epochs", "dataset")
    assert found is not None
    assert (found.ours, found.note) == ("epochs", "It is in the training file.")


def test_keys_that_nothing_reads_have_no_trainer() -> None:
    found = foreign("pseudo_huber_c", "training")
    assert found is not None
    assert found.trainer == ""
    assert found.ours == "huber_delta"
    assert found.note == (
        "Nothing reads it. huber_delta and smooth_l1_beta serve the same purpose with another number: choose it anew."
    )
    gpus = foreign("number_of_gpus", "training")
    assert gpus == Foreign("", "", "Nothing reads it. The launcher takes it: `dpnb launch --num-gpus N`.")


@pytest.mark.parametrize(
    ("key", "file", "said"),
    [
        (
            "adapter.full_matrix",
            "training",
            Foreign("", "adapter.rank", "Nothing reads it. A high adapter.rank, such as 1e6, asks for full matrices."),
        ),
        ("adapter.factor", "training", Foreign("", "adapter.decompose_factor", "Nothing reads it.")),
        (
            "only_double_blocks",
            "training",
            Foreign(
                "",
                "adapter.target_modules",
                "Nothing reads it. adapter.target_modules chooses what gets an adapter.",
            ),
        ),
        ("training", "training", Foreign("", "", "The keys of [training] stand at the top of the file.")),
        ("num_steps", "training", Foreign("", "max_steps", "Nothing reads it.")),
        (
            "timestep_end",
            "training",
            Foreign("", "model.max_t", "Nothing reads it. For Wan it is model.max_t."),
        ),
        (
            "upload_hf_from_epoch",
            "training",
            Foreign("", "push_to_hub", "Nothing reads it. push_to_hub uploads every export."),
        ),
        ("directory.tag_dropout_rate", "dataset", Foreign("", "tag_dropout", "")),
        (
            "model.tag_dropout_percent",
            "training",
            Foreign("", "tag_dropout", "It is in the dataset file. tag_dropout is that share, from 0 to 1."),
        ),
        (
            "directory.width_column",
            "dataset",
            Foreign("", "", "Sizes are read from the pictures themselves; leave it out."),
        ),
        (
            "cache_batch_size",
            "dataset",
            Foreign("", "caching_batch_size", "Nothing reads it. It is in the training file: caching_batch_size."),
        ),
    ],
)
def test_keys_of_forks_lead_to_ours(key: str, file: File, said: Foreign) -> None:
    assert foreign(key, file) == said


def test_a_key_that_nobody_knows_is_nobody_s() -> None:
    assert foreign("frobnicate", "training") is None
    assert foreign("directory.frobnicate", "dataset") is None
