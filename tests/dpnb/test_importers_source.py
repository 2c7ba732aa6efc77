"""Files of other trainers as trees: every fault is one error with file and line, never a traceback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dpnb import importers
from dpnb.errors import ConfigError, errors_in
from dpnb.importers.source import DEEPEST, Node, Source, as_number, read_source
from dpnb.toml import check

TRAINING_KEYS = ["network_module", "network_dim", "max_train_epochs", "learning_rate", "optimizer_args", "resolution"]


def failure(path: Path, **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        importers.read(path, **options)
    return str(caught.value).replace(f"{path}", "FILE")


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "job.txt",
            "",
            "FILE: error: '.txt' is not an ending of a file that can be imported. AI Toolkit's files end in .yaml, "
            ".yml or .json, kohya's in .toml, Transformer Lab's in .json.",
        ),
        (
            "job.json",
            '{"a": 1,}',
            "FILE:1:9: error: Expecting property name enclosed in double quotes. This is not valid JSON: look at this "
            "line and the one before it. JSON has no comments.",
        ),
        ("job.json", '{"a": ' + "9" * 5000 + "}", "FILE:1:1: error: a number has too many digits. Shorten it."),
        (
            "job.json",
            "[" * 100_000,
            "FILE:1:1: error: holds more than 100000 values, or tables more than 50 deep. This is no configuration "
            "of a training.",
        ),
        (
            "job.yaml",
            "a: " + "[" * 5000,
            "FILE:1:1: error: holds more than 100000 values, or tables more than 50 deep. This is no configuration "
            "of a training.",
        ),
        (
            "job.yaml",
            "a: 1\n b: 2\n",
            "FILE:2:3: error: mapping values are not allowed here. This is not valid YAML: look at this line and the "
            "one before it, at spaces above all.",
        ),
        (
            "job.yaml",
            "a: 2024-13-45\n",
            "FILE:1:1: error: a value does not fit its type, such as a date that no calendar has. Put it in quotes.",
        ),
        ("job.yaml", "", "FILE: error: holds nothing. Name the configuration of a training."),
        ("job.yaml", "- 1\n", "FILE: error: holds no table but [1]. Name the configuration of a training."),
        (
            "job.yaml",
            "config:\n  name: ${NO_SUCH_VARIABLE}\n",
            "FILE:2:9: error: the environment variable 'NO_SUCH_VARIABLE' is not set. Set it, or write the value in "
            "place of ${...}; AI Toolkit replaces it in comments too.",
        ),
        (
            "run.toml",
            'output_dir = "o"\n[model]\ntype = "flux"\n',
            "FILE:1:1: error: is in the format of dpnb and diffusion-pipe already. Check it with `dpnb validate`.",
        ),
        (
            "one.json",
            '{"__version": 6, "training_method": "LORA"}',
            "FILE:1:18: error: training_method: is a key of OneTrainer, whose files are not imported. Begin with "
            "`dpnb new`: `dpnb validate` says what a key of OneTrainer is called here.",
        ),
        (
            "other.json",
            '{"name": "x"}',
            "FILE:1:1: error: is not recognised as the file of another trainer. It has no `config.process` (AI "
            "Toolkit), no `datasets` or `network_module` (kohya) and no `lora_r` or `num_train_epochs` "
            "(Transformer Lab).",
        ),
        (
            "typed.yaml",
            "model:\n  type: [flux]\n",
            "FILE:1:1: error: is not recognised as the file of another trainer. It has no `config.process` (AI "
            "Toolkit), no `datasets` or `network_module` (kohya) and no `lora_r` or `num_train_epochs` "
            "(Transformer Lab).",
        ),
    ],
)
def test_a_file_that_cannot_be_read_says_where_and_why(tmp_path: Path, name: str, text: str, message: str) -> None:
    assert failure(written(tmp_path, name, text)) == message


def test_aliases_that_stand_for_billions_of_values_are_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    said = failure(written(tmp_path, "bomb.yaml", "\n".join(lines)))
    assert said.startswith("FILE:1:1: error: holds more than 100000 values")
    assert failure(written(tmp_path, "loop.yaml", "a: &a [*a]")).startswith("FILE:1:1: error: holds more than")


def test_a_missing_file_and_a_family_that_is_none(tmp_path: Path) -> None:
    said = failure(tmp_path / "none.yaml")
    assert said == "FILE:1:1: error: cannot be read: No such file or directory. Check the path."
    path = written(tmp_path, "a.yaml", "config: {process: []}")
    assert failure(path, model="fluxx").startswith("error: --model fluxx is no family. Use one of: flux, flux2, ")


def test_only_kohya_s_files_go_together(tmp_path: Path) -> None:
    job = written(tmp_path, "job.yaml", "config: {name: a, process: []}")
    folders = written(tmp_path, "data.toml", "[[datasets]]\nimage_directory = 'x'\n")
    with pytest.raises(ConfigError) as caught:
        importers.read([job, folders])
    assert str(caught.value) == (
        f"error: {job} (AI Toolkit job) and {folders} (kohya dataset) do not belong together. Import one file at a "
        "time; only kohya's training and dataset file go together."
    )


def test_variables_and_numbers_are_read_as_ai_toolkit_reads_them(tmp_path: Path) -> None:
    path = written(tmp_path, "a.yaml", "# ${HOME_OF_MODELS}\nlr: 1e-4\nplain: 12\nfolder: ${HOME_OF_MODELS}/flux\n")
    source = read_source(path, {"HOME_OF_MODELS": "/models"})
    assert source.root == {"lr": 1e-4, "plain": 12, "folder": "/models/flux"}
    assert source.places[("folder",)] == (4, 1)


def test_json_with_a_byte_order_mark_has_places_too(tmp_path: Path) -> None:
    source = read_source(written(tmp_path, "a.json", '\ufeff{"a":\n {"b": 1}}'), {})
    assert source.root == {"a": {"b": 1}}
    assert source.places[("a", "b")] == (2, 3)


@pytest.mark.parametrize(
    ("getter", "value", "said"),
    [
        ("text", 1, "1 is not a text. Write a text."),
        ("flag", "maybe", "'maybe' is not true or false. Write true or false."),
        ("number", "much", "'much' is not a number. Write a number."),
        ("number", True, "true is not a number. Write a number."),
        ("number", float("nan"), "nan is not a number. Write a number."),
        ("whole", 1.5, "1.5 is not a whole number. Write a whole number."),
        ("texts", [1], "[1] is not a list of texts. Write a list of texts."),
        ("table", 1, "1 is not a table. Write a table."),
        ("tables", [1], "[1] is not a list of tables. Write a list of tables."),
    ],
)
def test_a_value_of_the_wrong_type_is_an_error_at_its_key(getter: str, value: Any, said: str) -> None:
    source = Source(Path("a.yaml"), {"key": value}, {("key",): (3, 5)})
    with pytest.raises(ConfigError) as caught:
        getattr(Node(source, source.root), getter)("key")
    assert str(caught.value) == f"a.yaml:3:5: error: key: {said}"


def test_values_that_spell_what_they_mean_are_taken() -> None:
    source = Source(Path("a.yaml"), {"n": "1e-4", "w": "3", "x": 4.0, "f": "yes", "t": "one", "none": None}, {})
    node = Node(source, source.root)
    assert (node.number("n"), node.whole("w"), node.whole("x"), node.flag("f")) == (1e-4, 3, 4, True)
    assert node.texts("t") == ["one"]
    assert [key for _, key, _ in node.rest()] == []
    assert [as_number(value) for value in ("inf", "", "0x1", None, 7)] == [None, None, None, None, 7]


# --- junk ------------------------------------------------------------------------------------------------------------

SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=12)
KEYS = st.sampled_from(
    [
        *["config", "process", "name", "type", "network", "train", "model", "sample", "save", "datasets", "linear"],
        *[
            "lr",
            "steps",
            "optimizer",
            "optimizer_params",
            "dtype",
            "name_or_path",
            "is_flux",
            "arch",
            "prompts",
            "neg",
        ],
        *["folder_path", "resolution", "subsets", "general", "image_dir", "network_args", "lora_r", "ema_config"],
        *[
            "num_train_epochs",
            "train_batch_size",
            "eval_prompt",
            "network_kwargs",
            "only_if_contains",
            "width",
            "seed",
        ],
        *TRAINING_KEYS,
    ]
)
TREES = st.recursive(
    SCALARS,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(KEYS | st.text(max_size=4), below, max_size=5),
    max_leaves=20,
)
SHAPES = st.one_of(
    st.dictionaries(KEYS, TREES, max_size=8),
    st.builds(
        lambda process: {"job": "extension", "config": {"name": "n", "process": [{"type": "sd_trainer", **process}]}},
        st.dictionaries(KEYS, TREES, max_size=8),
    ),
    st.builds(
        lambda more: {"network_module": "networks.lora_flux", "network_dim": 4, "train_data_dir": "x", **more},
        st.dictionaries(KEYS, TREES, max_size=8),
    ),
    st.builds(
        lambda more: {"lora_r": 4, "num_train_epochs": 1, "train_batch_size": 1, "model_name": "sd-xl", **more},
        st.dictionaries(KEYS, TREES, max_size=8),
    ),
    st.builds(lambda more: {"datasets": [more]}, st.dictionaries(KEYS, TREES, max_size=6)),
)
MANY = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def survives(path: Path) -> None:
    """An import gives schema objects without errors, or raises an error that names the file."""
    try:
        imported = importers.read(path, environment={})
    except ConfigError as error:
        refused: ConfigError | None = error
    else:
        refused = None
    if refused is not None:
        assert refused.problems
        assert all(problem.message for problem in refused.problems)
        return
    values = [imported.training, *imported.datasets.values()]
    assert not errors_in([problem for value in values if value is not None for problem in check(value)])
    assert imported.text()


@given(SHAPES)
@MANY
def test_a_tree_of_anything_is_imported_or_refused(tmp_path: Path, tree: Any) -> None:
    survives(written(tmp_path, "a.yaml", yaml.safe_dump(tree, allow_unicode=True)))
    survives(written(tmp_path, "a.json", json.dumps(tree)))


@given(st.text(max_size=200))
@MANY
def test_a_text_of_anything_is_refused_with_its_file(tmp_path: Path, text: str) -> None:
    for name in ("a.yaml", "a.json", "a.toml"):
        path = tmp_path / name
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        survives(path)


@given(
    st.sampled_from(["!!int", "!!float", "!!bool", "!!timestamp", "!!binary", "!!set", "!!omap", "!!pairs"]), SCALARS
)
@MANY
def test_a_tag_that_its_value_does_not_fit_is_refused(tmp_path: Path, tag: str, value: Any) -> None:
    survives(written(tmp_path, "a.yaml", f"config: {tag} {json.dumps(str(value))}\n"))


def test_nesting_up_to_the_bound_is_read(tmp_path: Path) -> None:
    text = "{" * 0 + "".join(f"{'  ' * i}a{i}:\n" for i in range(DEEPEST - 2)) + "  " * (DEEPEST - 2) + "b: 1\n"
    assert failure(written(tmp_path, "deep.yaml", text)).startswith("FILE:1:1: error: is not recognised")
