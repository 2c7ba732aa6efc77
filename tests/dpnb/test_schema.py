"""The mechanism under every table: strictness, help, markers, unions, short forms, inheritance."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field, ValidationError

from dpnb import schema
from dpnb.schema import (
    AdamW,
    Dataset,
    Directory,
    DirectorySettings,
    Monitoring,
    Prompt,
    Section,
    Sgd,
    Training,
    Ui,
    families,
    settings_of,
)
from dpnb.schema.base import InputFile, help_of, texts_as_tables, ui_of, walk
from dpnb.schema.model import FACTS, FAMILIES, model_of
from dpnb.schema.training import EvalDataset, batch_size_for
from dpnb.schema.unions import one_of, one_of_files, section_types, sections_below, tag_of
from dpnb.toml.secrets import is_secret
from dpnb.toml.words import _meaning
from tests.dpnb.every_family import training


def all_sections() -> list[type[Section]]:
    """Every section that a file can hold."""
    found: list[type[Section]] = [Training, Dataset]
    for section in found:
        for info in section.model_fields.values():
            found += [below for below in sections_below(info.annotation) if below not in found]
    return found


FIELDS = [(section, name) for section in all_sections() for name in section.model_fields]
NAMES = [f"{section.__name__}.{name}" for section, name in FIELDS]


class One(Section):
    type: Literal["one"] = "one"
    file: Annotated[InputFile | None, Ui(advanced=True)] = None


class Two(Section):
    type: Literal["two"] = "two"
    number: Annotated[float, Field(ge=0)] = 0.5


class Whole(Section):
    part: one_of(One, Two)
    parts: list[one_of(One, Two)] = []
    single: One | None = None
    size: Annotated[int, Ui(unit="px", group="a"), Ui(unit="m")] = 1


# --- the schema itself -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("section", "name"), FIELDS, ids=NAMES)
def test_every_key_has_help_that_reads_well_alone(section, name):
    text, meaning = help_of(section, name), _meaning(section, (name,))
    assert text, "a key without help"
    assert text[0].isupper()
    assert text.endswith(".")
    for words in (text, meaning):
        for left, right in ("()", "[]", "<>"):
            if "->" not in words:
                assert words.count(left) == words.count(right), f"cut badly: {words}"
    assert meaning.startswith("(Meaning: ")
    assert meaning.endswith(".)")
    assert not text.startswith("The same"), "refers to another key's help"


@pytest.mark.parametrize(("section", "name"), FIELDS, ids=NAMES)
def test_a_marker_names_a_sibling_and_values_it_can_have(section, name):
    when = ui_of(section.model_fields[name]).when
    if when is not None:
        sibling, allowed = when
        assert sibling in section.model_fields
        assert allowed


def test_tags_are_unique_and_every_family_has_facts():
    assert [tag_of(model_of(family)) for family in FAMILIES] == list(FACTS)
    with pytest.raises(KeyError, match=r"^'fluks'$"):
        FACTS["fluks"]
    files = {file.stem for file in Path(families.__file__).parent.glob("*.py")}
    assert files - {"__init__", "base"} == {family.replace("-", "_") for family in FAMILIES}
    for section in all_sections():
        for info in section.model_fields.values():
            tags = [tag_of(kind) for kind in section_types(info.annotation) if tag_of(kind)]
            assert len(set(tags)) == len(tags)


def test_the_name_of_a_key_for_a_secret_speaks_of_it():
    secret = [name for section in all_sections() for name, info in section.model_fields.items() if ui_of(info).secret]
    assert secret == ["wandb_api_key"]
    assert all(is_secret((name,), "x") for name in secret)


def test_the_families_can_be_had_from_the_package():
    for model in map(model_of, FAMILIES):
        assert getattr(schema, model.__name__) is model
    assert "FluxModel" in dir(schema)
    with pytest.raises(AttributeError, match=r"^module 'dpnb.schema' has no attribute 'FluksModel'$"):
        schema.FluksModel  # noqa: B018


def test_a_folder_may_say_every_general_key_for_itself():
    own = {"path", "mask_path", "default_mask_file", "control_path", "loss_weight"}
    assert set(Directory.model_fields) == own | set(DirectorySettings.model_fields)
    folder = Directory(path="x")
    assert all(getattr(folder, name) is None for name in DirectorySettings.model_fields)
    for name, info in DirectorySettings.model_fields.items():
        assert help_of(Directory, name) == help_of(DirectorySettings, name) != ""
        assert ui_of(Directory.model_fields[name]).when == ui_of(info).when


def test_settings_of_a_folder_are_its_own_then_the_files():
    dataset = Dataset(
        resolutions=[512],
        num_repeats=2,
        skip_empty_caption=True,
        directory=[Directory(path="a"), Directory(path="b", resolutions=[64], skip_empty_caption=False)],
    )
    first, second = (settings_of(dataset, folder) for folder in dataset.directory)
    assert (first.resolutions, first.num_repeats, first.skip_empty_caption) == ([512], 2, True)
    assert (second.resolutions, second.num_repeats, second.skip_empty_caption) == ([64], 2, False)


# --- strictness ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cls", "values"),
    [
        (AdamW, {"lr": True}),
        (AdamW, {"lr": "1"}),
        (AdamW, {"lr": float("inf")}),
        (AdamW, {"lr": float("nan")}),
        (AdamW, {"betas": (0.9, 0.99)}),
        (AdamW, {"lrr": 1.0}),
        (AdamW, {"type": "sgd"}),
        (Prompt, {"text": 1}),
        (Prompt, {"text": "x", "seed": 1.0}),
        (Prompt, {"text": "x", "seed": True}),
        (Prompt, {"text": "x", "seed": 2**63}),
        (Directory, {"path": "x", "num_repeats": float("inf")}),
        (Directory, {"path": "x", "num_repeats": True}),
        (Directory, {"path": "x", "enable_ar_bucket": 1}),
    ],
)
def test_nothing_is_guessed(cls, values):
    with pytest.raises(ValidationError):
        cls(**values)


def test_a_whole_number_is_a_number_and_assignment_is_checked():
    optimizer = AdamW(lr=1)
    assert optimizer.lr == 1.0
    with pytest.raises(ValidationError):
        optimizer.lr = "high"
    assert optimizer.lr == 1.0


def test_defaults_are_not_shared():
    first, second = AdamW(), AdamW()
    first.betas.append(0.5)
    assert second.betas == [0.9, 0.999]


def test_every_training_seed_fits_what_the_trainer_makes_of_it():
    largest = next(m.le for m in Training.model_fields["seed"].metadata if hasattr(m, "le"))
    # trainer/checkpoint.py, seed_step: torch takes 64 bits.
    assert (largest * 1_000_003 + 10**9) * 4099 + 4098 < 2**64


# --- the mechanism ---------------------------------------------------------------------------------------------------


def test_sections_of_an_annotation():
    fields = Whole.model_fields
    assert section_types(fields["part"].annotation) == [One, Two]
    assert section_types(fields["parts"].annotation) == []
    assert sections_below(fields["parts"].annotation) == [One, Two]
    assert sections_below(fields["single"].annotation) == [One]
    assert sections_below(fields["size"].annotation) == []
    assert (tag_of(One), tag_of(Whole)) == ("one", None)
    assert one_of(One) is One


def test_a_section_of_a_file_of_its_own_is_found_when_its_type_is_named():
    found = []

    def find(tag):
        found.append(tag)
        return {"one": One, "two": Two}[tag]

    class Late(Section):
        part: one_of_files(("one", "two"), find)

    assert sections_below(Late.model_fields["part"].annotation).names == ("one", "two")
    assert found == []
    assert Late(part={"type": "two", "number": 2.0}).part == Two(number=2.0)
    assert set(found) == {"two"}
    assert section_types(Late.model_fields["part"].annotation) == [One, Two]


def test_markers_merge_and_the_outer_one_wins():
    assert ui_of(One.model_fields["file"]) == Ui(path="file", advanced=True)
    assert ui_of(Whole.model_fields["size"]) == Ui(unit="m", group="a")


def test_walk_visits_every_leaf():
    whole = Whole(part=Two(), parts=[One(file="x"), Two(number=3)])
    assert [(loc, value) for loc, _, value in walk(whole)] == [
        (("part", "type"), "two"),
        (("part", "number"), 0.5),
        (("parts", 0, "type"), "one"),
        (("parts", 0, "file"), "x"),
        (("parts", 1, "type"), "two"),
        (("parts", 1, "number"), 3.0),
        (("single",), None),
        (("size",), 1),
    ]


def test_short_forms():
    assert texts_as_tables(["a", {"text": "b"}, 1], Prompt) == [{"text": "a"}, {"text": "b"}, 1]
    assert texts_as_tables(["a"], Sgd) == ["a"]
    assert texts_as_tables("a", Prompt) == "a"
    assert EvalDataset.of_text("data/my set (2).toml") == {"name": "my set _2_", "config": "data/my set (2).toml"}
    assert EvalDataset.of_text("C:\\data\\x.toml") == {"name": "x", "config": "C:\\data\\x.toml"}
    for text in ("", "/", ".toml", "\n"):
        EvalDataset(**EvalDataset.of_text(text))


@pytest.mark.parametrize(
    ("setting", "width", "height", "expected"),
    [
        (3, 512, 512, 3),
        ([[512, 4], [1024, 1]], 512, 600, 4),
        ([[512, 4], [1024, 1]], 1024, 768, 1),
        ([[512, 4]], 9, 9, 4),
    ],
)
def test_batch_size_of_a_bucket(setting, width, height, expected):
    assert batch_size_for(setting, width, height) == expected


def test_an_empty_key_is_none():
    """diffusion-pipe's examples leave the key to be filled in: such a file means what one without the key means."""
    empty = Monitoring.model_validate({"wandb_api_key": "", "enable_wandb": True})
    assert empty == Monitoring(enable_wandb=True)
    full = Monitoring.model_validate({"wandb_api_key": "abc"})
    assert full.wandb_api_key is not None
    assert full.wandb_api_key.get_secret_value() == "abc"


@pytest.mark.parametrize("key", ["epochs", "max_steps", "warmup_steps", "save_every_n_steps", "eval_every_n_steps"])
def test_a_number_of_times_may_be_written_as_a_fraction(key):
    assert getattr(training(**{key: 1e3}), key) == 1000
    assert isinstance(getattr(training(**{key: 1e3}), key), int)
    with pytest.raises(ValidationError):
        training(**{key: 1.5})


@pytest.mark.parametrize("name", ["eval/cats", "held out (2)", "a+b, c: 1"])
def test_names_of_held_out_sets(name):
    assert EvalDataset(name=name, config="x").name == name
