"""The JSON Schema against what the schema itself accepts, with a validator that knows nothing of ours."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dpnb.schema import Dataset, Section, Training
from dpnb.schema.json_schema import json_schema
from dpnb.toml import dump, validate
from tests.dpnb.drawn import sections
from tests.dpnb.every_family import FAMILIES, training

TRAINING, DATASET = json_schema(Training), json_schema(Dataset)
GOOD = tomllib.loads(dump(training()))


def faults(data: dict[str, Any], schema: dict[str, Any] = TRAINING) -> list[str]:
    found = jsonschema.Draft7Validator(schema).iter_errors(data)
    return ["/".join(map(str, error.absolute_path)) for error in found]


@pytest.mark.parametrize("schema", [TRAINING, DATASET])
def test_it_is_a_schema_without_pythons_marks(schema):
    jsonschema.Draft7Validator.check_schema(schema)
    text = json.dumps(schema)
    for mark in ("null", "discriminator", "$defs", "writeOnly", "FluxModel", "SecretStr", "prefixItems"):
        assert f'"{mark}' not in text, mark


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_files_of_every_family_are_right(family):
    changes = {"diffusers_path": "x"} if family == "sd15" else {}
    for everything in (False, True):
        assert faults(tomllib.loads(dump(training(changes, family=family), everything=everything))) == []


@pytest.mark.parametrize(
    ("extra", "places"),
    [
        ({"eval_datasets": ["a.toml", {"name": "b", "config": "b.toml"}]}, []),
        ({"sample": {"prompts": ["a", {"text": "b", "seed": 3}]}}, []),
        ({"micro_batch_size_per_gpu": [[512, 4]]}, []),
        ({"adapter": {"type": "lora", "rank": 1e6}}, []),
        ({"optimizer": {"type": "Prodigy", "d_coef": 2.0}}, []),
        ({"monitoring": {"wandb_api_key": "x"}}, []),
        ({"epochs": 0}, ["epochs"]),
        ({"epochs": "1"}, ["epochs"]),
        ({"foo": 1}, [""]),
        ({"lr_scheduler": "wsd"}, ["lr_scheduler"]),
        ({"micro_batch_size_per_gpu": [[512]]}, ["micro_batch_size_per_gpu"]),
        ({"adapter": {"type": "lora"}}, ["adapter"]),
        ({"adapter": {"rank": 4}}, ["adapter"]),
        ({"adapter": {"type": "loft", "rank": 4}}, ["adapter"]),
        ({"optimizer": {"type": "adamw", "momentum": 0.9}}, ["optimizer"]),
        ({"model": {"type": "wan", "diffusers_path": "x"}}, ["model"]),
        ({"eval_datasets": [{"name": "a<b", "config": "c"}]}, ["eval_datasets/0"]),
    ],
)
def test_what_a_training_file_may_say(extra, places):
    assert faults(GOOD | extra) == places


def test_a_dataset_file():
    folder = {"path": "x", "num_repeats": 1.5}
    assert faults({"resolutions": [512], "directory": [folder]}, DATASET) == []
    assert faults({"resolutions": [[512, 512]], "directory": [folder]}, DATASET) == []
    assert faults({"resolutions": [512], "directory": []}, DATASET) == ["directory"]
    assert faults({"resolutions": [512], "directory": [{}]}, DATASET) == ["directory/0"]


def test_every_key_has_a_title_and_words_and_its_unit():
    for schema in (TRAINING, DATASET):
        for table in (schema, *schema["definitions"].values()):
            assert table["title"]
            for key, node in table["properties"].items():
                assert node["title"] == key.replace("_", " ").capitalize()
                assert node["description"], key
    assert TRAINING["properties"]["max_steps"]["description"].endswith("Unit: steps.")
    assert TRAINING["properties"]["gradient_clipping"] == {
        "title": "Gradient clipping",
        "description": "A gradient longer than this is cut to this length, so that one bad batch does little harm; 0 "
        "turns that off.",
        "default": 1.0,
        "minimum": 0,
        "type": "number",
    }
    assert TRAINING["definitions"]["model-wan"]["required"] == ["type", "ckpt_path"]


@pytest.mark.parametrize(("cls", "schema"), [(Training, TRAINING), (Dataset, DATASET)])
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_what_the_schema_accepts_is_accepted(cls: type[Section], schema: dict[str, Any], data: Any):
    plain = tomllib.loads(dump(data.draw(sections(cls)), everything=True))
    assert validate(plain, cls)[0] is not None
    assert faults(plain, schema) == []
