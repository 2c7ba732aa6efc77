"""Editing a file: what differs is changed, and every other byte stays where its author put it."""

from __future__ import annotations

import os
import random
import stat
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr, model_validator

from dpnb.errors import ConfigError
from dpnb.plain_toml import loads
from dpnb.schema import (
    Dataset,
    Directory,
    Ema,
    EvalDataset,
    FluxModel,
    Monitoring,
    Prompt,
    Sampling,
    Section,
    Training,
)
from dpnb.schema.families.wan import WanModel
from dpnb.schema.families.z_image import ZImageModel
from dpnb.schema.optimizer import OtherOptimizer
from dpnb.schema.training import LegacyLora
from dpnb.toml import dump, load
from dpnb.toml.edit import edit
from dpnb.toml.places import outline
from dpnb.toml.write import keys_of
from tests.dpnb.drawn import changed, sections, written

RUN = """\
# my run
output_dir = 'runs'   # here
dataset = "d.toml"
epochs = 10
save_every_n_epochs = 2

# two in one
micro_batch_size_per_gpu = [
\t[512, 4],  # small
\t[1024, 1],
]
warmup_steps = 100 # slowly

eval_datasets = ["a.toml", 'b.toml']

[model]
type = 'flux'
# the big one
diffusers_path = '/models/flux'  # 30 GB
dtype = 'bfloat16'
flux_shift = true

[adapter]
type = 'lora'
rank = 32
#alpha = 16

# optimizer
[optimizer]
type = 'adamw'
lr = 2e-5
betas = [0.9, 0.99]
"""
DATA = """\
resolutions = [512]
# all folders

# cats
[[directory]]
path = 'cats' # my own
num_repeats = 5

# dogs
[[directory]]
path = 'dogs'

[[directory]]
path = 'birds'
num_repeats = 2
# the end
"""


def parsed(text: str, cls: type[Section]) -> Any:
    return cls.model_validate(loads(text))


def with_keys(value: Any, **changes: Any) -> Any:
    """A copy in which some keys are different."""
    return type(value)(**({key: item for key, item in keys_of(value).items() if item is not None} | changes))


def edited(text: str, cls: type[Section] = Training, **changes: Any) -> str:
    old = parsed(text, cls)
    new = with_keys(old, **changes)
    out = edit(text, old, new)
    assert parsed(out, cls) == new
    assert edit(out, new, old) == out or parsed(edit(out, new, old), cls) == old
    return out


def part(**changes: Any) -> Any:
    """The model, adapter or optimizer of RUN with other keys: part(adapter={"rank": 8})."""
    old = parsed(RUN, Training)
    return {name: with_keys(getattr(old, name), **values) for name, values in changes.items()}


# --- single keys -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "before", "after"),
    [
        # another value: the line stays, with its comment and its quotes
        ({"epochs": 20}, "epochs = 10\n", "epochs = 20\n"),
        ({"output_dir": "other"}, "'runs'   # here", "'other'   # here"),
        ({"output_dir": "it's"}, "'runs'   # here", '"it\'s"   # here'),
        ({"dataset": "x.toml"}, '"d.toml"', '"x.toml"'),
        ({"micro_batch_size_per_gpu": 2}, "[\n\t[512, 4],  # small\n\t[1024, 1],\n]", "2"),
        ({"warmup_steps": 0}, "warmup_steps = 100 # slowly", "warmup_steps = 0 # slowly"),
        (part(optimizer={"betas": [0, 0.5]}), "[0.9, 0.99]", "[0.0, 0.5]"),
        (part(adapter={"rank": 8}), "rank = 32", "rank = 8"),
        # unset: the line goes, what stands above it stays
        (part(model={"flux_shift": False, "shift": None}), "flux_shift = true", "flux_shift = false"),
        # new keys stand in the schema's order, top-level keys above the first table
        ({"seed": 3}, "epochs = 10\n", "epochs = 10\nseed = 3\n"),
        ({"max_steps": 9, "seed": 3}, "epochs = 10\n", "epochs = 10\nmax_steps = 9\nseed = 3\n"),
        ({"push_to_hub": "me/x"}, "= 2\n\n#", '= 2\npush_to_hub = "me/x"\n\n#'),
        (part(model={"transformer_dtype": "float16"}), "dtype = 'bfloat16'\n",
            "dtype = 'bfloat16'\ntransformer_dtype = \"float16\"\n"),
        (part(adapter={"alpha": 4.0}), "rank = 32\n", "rank = 32\nalpha = 4.0\n"),
        # lists with a short form
        ({"eval_datasets": []}, "eval_datasets = [\"a.toml\", 'b.toml']\n", ""),
        ({"eval_datasets": [EvalDataset(name="a", config="a.toml")]}, "[\"a.toml\", 'b.toml']", '["a.toml"]'),
        ({"eval_datasets": [EvalDataset(name="b", config="b.toml")]}, "[\"a.toml\", 'b.toml']", "['b.toml']"),
        ({"eval_datasets": [EvalDataset(name=n, config=f"{n}.toml") for n in "ba"]},
            "[\"a.toml\", 'b.toml']", "['b.toml', \"a.toml\"]"),
        ({"eval_datasets": [EvalDataset(name=n, config=f"{n}.toml") for n in "abc"]},
            "[\"a.toml\", 'b.toml']", "[\"a.toml\", 'b.toml', \"c.toml\"]"),
        ({"eval_datasets": [EvalDataset(name=n, config=f"{n}.toml") for n in "cab"]},
            "[\"a.toml\", 'b.toml']", "[\"c.toml\", \"a.toml\", 'b.toml']"),
        ({"eval_datasets": [EvalDataset(name="z", config="a.toml"), EvalDataset(name="b", config="b.toml")]},
            '"a.toml"', '{name = "z", config = "a.toml"}'),
        # whole tables
        ({"adapter": None}, "[adapter]\ntype = 'lora'\nrank = 32\n", ""),
        ({"ema": Ema(decay=0.5)}, "betas = [0.9, 0.99]\n", "betas = [0.9, 0.99]\n\n[ema]\ndecay = 0.5\n"),
        ({"ema": Ema()}, "betas = [0.9, 0.99]\n", "betas = [0.9, 0.99]\n\n[ema]\n"),
        ({"sample": Sampling(prompts=[Prompt(text="a")], steps=4)}, "betas = [0.9, 0.99]\n",
            'betas = [0.9, 0.99]\n\n[sample]\nsteps = 4\n\n[[sample.prompts]]\ntext = "a"\n'),
        ({"model": WanModel(ckpt_path="w", flux_shift=True)},
            "type = 'flux'\n# the big one\ndiffusers_path = '/models/flux'  # 30 GB\n",
            "type = 'wan'\nckpt_path = \"w\"\n# the big one\n"),
        ({"optimizer": OtherOptimizer(type="Prodigy", lr=1.0, betas=[0.9, 0.99], d_coef=2.0)},
            "type = 'adamw'\nlr = 2e-5\nbetas = [0.9, 0.99]\n",
            "type = 'Prodigy'\nlr = 1.0\nbetas = [0.9, 0.99]\nd_coef = 2.0\n"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_changes_of_a_training_file(changes, before, after, end, mark):
    assert RUN.count(before) == 1
    text = mark + RUN.replace("\n", end)
    assert edited(text, **changes) == mark + RUN.replace(before, after).replace("\n", end)


def test_a_key_that_is_unset_for_another():
    lines = RUN.splitlines(keepends=True)
    place = lines.index("eval_datasets = [\"a.toml\", 'b.toml']\n") + 1
    expected = [*lines[:place], "save_every_n_steps = 5\n", *lines[place:]]
    expected.remove("save_every_n_epochs = 2\n")
    assert edited(RUN, save_every_n_epochs=None, save_every_n_steps=5) == "".join(expected)


def test_a_key_whose_default_hangs_on_another():
    class Twins(Section):
        one: int = 0
        two: int = 0

        @model_validator(mode="before")
        @classmethod
        def _alike(cls, data: Any) -> Any:
            return {"two": data["one"]} | data if isinstance(data, dict) and "one" in data else data

    old = Twins(one=1)
    assert edit("one = 1 # x\n", old, Twins(one=2, two=0)) == "one = 2 # x\ntwo = 0\n"


# --- folders ---------------------------------------------------------------------------------------------------------

CATS, DOGS, BIRDS = parsed(DATA, Dataset).directory
CATS_TEXT = "# cats\n[[directory]]\npath = 'cats' # my own\nnum_repeats = 5\n"
DOGS_TEXT = "# dogs\n[[directory]]\npath = 'dogs'\n"
BIRDS_TEXT = "[[directory]]\npath = 'birds'\nnum_repeats = 2\n"
TOP = "resolutions = [512]\n# all folders\n\n"
END = "# the end\n"


@pytest.mark.parametrize(
    ("folders", "text"),
    [
        ([CATS, BIRDS], f"{TOP}{CATS_TEXT}\n# dogs\n\n{BIRDS_TEXT}{END}"),
        ([DOGS, BIRDS], f"{TOP}# cats\n{DOGS_TEXT}\n{BIRDS_TEXT}{END}".replace("# cats\n", "# cats\n\n")),
        ([CATS, DOGS], f"{TOP}{CATS_TEXT}\n{DOGS_TEXT}\n{END}"),
        ([BIRDS, CATS, DOGS], f"{TOP}{BIRDS_TEXT}\n{CATS_TEXT}\n{DOGS_TEXT}{END}"),
        ([CATS, with_keys(DOGS, num_repeats=7), BIRDS],
            f"{TOP}{CATS_TEXT}\n{DOGS_TEXT}num_repeats = 7\n\n{BIRDS_TEXT}{END}"),
        ([CATS, DOGS, Directory(path="x"), BIRDS],
            f'{TOP}{CATS_TEXT}\n{DOGS_TEXT}\n[[directory]]\npath = "x"\n\n{BIRDS_TEXT}{END}'),
        ([Directory(path="x"), CATS, DOGS, BIRDS],
            f'{TOP}[[directory]]\npath = "x"\n\n{CATS_TEXT}\n{DOGS_TEXT}\n{BIRDS_TEXT}{END}'),
        ([CATS, DOGS, BIRDS, Directory(path="x")],
            f'{TOP}{CATS_TEXT}\n{DOGS_TEXT}\n{BIRDS_TEXT}{END}\n[[directory]]\npath = "x"\n'),
        ([with_keys(CATS, path="lions"), DOGS, BIRDS],
            f"{TOP}{CATS_TEXT.replace(chr(39) + 'cats', chr(39) + 'lions')}\n{DOGS_TEXT}\n{BIRDS_TEXT}{END}"),
    ],
)  # fmt: skip
def test_changes_of_folders(folders, text):
    assert edited(DATA, Dataset, directory=folders) == text


# --- ways to write ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "changes", "after"),
    [
        # dotted keys
        ("ema.decay = 0.5\nepochs = 1\n", {"ema": Ema(decay=0.6)}, "ema.decay = 0.6\nepochs = 1\n"),
        ("ema.decay = 0.5\nepochs = 1\n", {"ema": Ema(decay=0.5, every_n_steps=3)},
            "ema.decay = 0.5\nema.every_n_steps = 3\nepochs = 1\n"),
        ("ema.decay = 0.5\nepochs = 1\n", {"ema": None}, "epochs = 1\n"),
        ("ema.decay = 0.5\nepochs = 1\n", {"seed": 1}, "ema.decay = 0.5\nepochs = 1\nseed = 1\n"),
        # inline tables
        ("epochs = 1\nema = { decay = 0.5, sample = true } # x\n", {"ema": Ema(decay=0.6)},
            "epochs = 1\nema = { decay = 0.6, sample = true } # x\n"),
        ("epochs = 1\nema = {decay = 0.5}\n", {"ema": Ema(decay=0.5, sample=False)},
            "epochs = 1\nema = {decay = 0.5, sample = false}\n"),
        ("epochs = 1\nema = {}\n", {"ema": Ema(sample=False)}, "epochs = 1\nema = {sample = false}\n"),
        ("epochs = 1\nlora = {dtype = 'float32'}\n", {"lora": LegacyLora()}, "epochs = 1\nlora = {}\n"),
        # a table without a header of its own
        ("epochs = 1\n# p\n[[sample.prompts]]\ntext = 'a'\n",
            {"sample": Sampling(prompts=[Prompt(text="a")], steps=5)},
            "epochs = 1\n[sample]\nsteps = 5\n\n# p\n[[sample.prompts]]\ntext = 'a'\n"),
        # lists of prompts over several lines
        ("epochs = 1\n[sample]\nprompts = [\n  'a', # one\n  'b', # two\n]\n",
            {"sample": Sampling(prompts=[Prompt(text="b")])},
            "epochs = 1\n[sample]\nprompts = [\n  'b', # two\n]\n"),
        ("epochs = 1\n[sample]\nprompts = [\n  'a', # one\n  'b' # two\n]\n",
            {"sample": Sampling(prompts=[Prompt(text=text) for text in "acb"])},
            "epochs = 1\n[sample]\nprompts = [\n  'a', # one\n  \"c\",\n  'b' # two\n]\n"),
        ("epochs = 1\n[sample]\nprompts = [\n  'a' # one\n]\n",
            {"sample": Sampling(prompts=[Prompt(text=text) for text in "ab"])},
            "epochs = 1\n[sample]\nprompts = [\n  'a', # one\n  \"b\",\n]\n"),
        ("epochs = 1\n[sample]\nprompts = ['a', {text = 'b', seed = 1}]\n",
            {"sample": Sampling(prompts=[Prompt(text="a", steps=3), Prompt(text="b", seed=2)])},
            "epochs = 1\n[sample]\nprompts = [{text = \"a\", steps = 3}, {text = 'b', seed = 2}]\n"),
        # what looks like a comment is the end of a text
        ("output_dir = '''\n# x'''\n[ema]\n", {"seed": 1}, "output_dir = '''\n# x'''\nseed = 1\n[ema]\n"),
        # indentation, and a last line without an end
        ("\toutput_dir = 'x'\n\tepochs = 1", {"seed": 1}, "\toutput_dir = 'x'\n\tepochs = 1\n\tseed = 1\n"),
    ],
)  # fmt: skip
def test_every_way_to_write_a_table(before, changes, after):
    old = construct(before)
    values = dict(old) | changes
    assert edit(before, Loose(**old), Loose(**values)) == after


class Loose(Section):
    """The keys of a training file of which none is required."""

    output_dir: str = ""
    epochs: int = 1
    seed: int = 0
    ema: Ema | None = None
    sample: Sampling | None = None
    lora: LegacyLora | None = None


def construct(text: str) -> dict[str, Any]:
    data = loads(text)
    if "ema" in data:
        data["ema"] = Ema(**data["ema"])
    if "lora" in data:
        data["lora"] = LegacyLora(**data["lora"])
    if "sample" in data:
        data["sample"] = Sampling(**data["sample"])
    return data


def test_text_encoders_in_both_forms():
    head = "[model]\ntype = 'z_image'\ndiffusion_model = 'd'\nvae = 'v'\n"
    tables = head + "[[model.text_encoders]] # one\npath = 't'\ntype = 'lumina2'\n"
    short = head + "text_encoders = [\n  {path = 't', type = 'lumina2'} # one\n]\n"
    for text in (tables, short):
        data = loads(text)["model"]
        old = ZImageModel(**data)
        new = ZImageModel(**(data | {"text_encoders": [{"path": "u", "type": "lumina2"}]}))
        assert edit(text, Model(model=old), Model(model=new)) == text.replace("'t'", "'u'")
        flux = FluxModel(diffusers_path="f")
        out = edit(text, Model(model=old), Model(model=flux))
        assert loads(out) == {"model": {"type": "flux", "diffusers_path": "f"}}


class Model(Section):
    """A file that is a model alone."""

    model: ZImageModel | FluxModel


@pytest.mark.parametrize(
    "table", ["norm_kwargs = {a = 1}\nmomentum = 0.5\n", "momentum = 0.5\n[optimizer.norm_kwargs] # x\na = 1\n"]
)
def test_a_table_that_an_optimizer_takes(table):
    head = "[optimizer]\ntype = 'SCION'\nlr = 1.0\n"
    text = RUN[: RUN.index("[optimizer]")] + head + table
    old = parsed(text, Training)
    other = with_keys(
        old, optimizer=OtherOptimizer(type="SCION", lr=1.0, momentum=0.5, norm_kwargs={"a": 2, "b": [1]})
    )
    out = edit(text, old, other)
    assert parsed(out, Training) == other
    assert out.startswith(RUN[: RUN.index("[optimizer]")] + head)
    plain = with_keys(old, optimizer=OtherOptimizer(type="SCION", lr=1.0, momentum=0.5))
    assert "norm_kwargs" not in edit(text, old, plain)
    assert parsed(edit(text, old, plain), Training) == plain


def test_a_secret_stays_where_it_is_and_is_never_written():
    text = RUN + "\n[monitoring]\nwandb_api_key = 'abc' # mine\nwandb_run_name = 'x'\n"
    old = parsed(text, Training)
    assert old.monitoring == Monitoring(wandb_api_key=SecretStr("abc"), wandb_run_name="x")
    assert edit(text, old, with_keys(old, epochs=3)) == text.replace("epochs = 10", "epochs = 3")
    other = with_keys(old, monitoring=Monitoring(wandb_api_key=SecretStr("other"), wandb_run_name="y"))
    assert edit(text, old, other) == text.replace("wandb_api_key = 'abc' # mine\n", "").replace("'x'\n", "'y'\n")
    assert "other" not in edit(RUN, parsed(RUN, Training), other)
    # A file that was written anew has no key; it asks for the same, and still the old one loses its key.
    without = with_keys(old, monitoring=Monitoring(wandb_run_name="x"))
    assert without == old == parsed(dump(old), Training)
    assert edit(text, old, without) == text.replace("wandb_api_key = 'abc' # mine\n", "")


# --- files -----------------------------------------------------------------------------------------------------------


def test_save_is_whole_keeps_permissions_and_follows_links(tmp_path):
    file, link = tmp_path / "run.toml", tmp_path / "link.toml"
    file.write_bytes(("\ufeff" + RUN).replace("\n", "\r\n").encode())
    file.chmod(0o640)
    link.symlink_to(file)
    document = load(link, Training, paths=False)
    again = document.save(with_keys(document.value, epochs=3))
    assert (
        file.read_bytes() == ("\ufeff" + RUN).replace("epochs = 10\n", "epochs = 3\n").replace("\n", "\r\n").encode()
    )
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert link.is_symlink()
    assert again.value.epochs == 3
    assert load(link, Training, paths=False).text == again.text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.toml", "run.toml"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_save_where_nobody_may_write(tmp_path):
    (tmp_path / "run.toml").write_text(RUN)
    document = load(tmp_path / "run.toml", Training, paths=False)
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match=r"cannot be written: Permission denied\. Check the folder\."):
        document.save(with_keys(document.value, epochs=3))


def test_save_into_a_folder_that_is_gone(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "run.toml").write_text(RUN)
    document = load(tmp_path / "a" / "run.toml", Training, paths=False)
    (tmp_path / "a" / "run.toml").unlink()
    (tmp_path / "a").rmdir()
    with pytest.raises(
        ConfigError, match=r"run\.toml:1:1: error: cannot be written: No such file or directory\. Check the folder\."
    ):
        document.save(with_keys(document.value, epochs=3))


# --- properties ------------------------------------------------------------------------------------------------------


def differences(old: Any, new: Any, loc: tuple[Any, ...] = ()) -> set[tuple[Any, ...]]:
    """The places whose text may change: keys that differ, and lists and kinds of tables as a whole."""
    if isinstance(old, Section) and isinstance(new, Section) and type(old) is type(new):
        mine, other = keys_of(old), keys_of(new)
        keys = dict.fromkeys([*mine, *other])
        return {d for key in keys for d in differences(mine.get(key), other.get(key), (*loc, key))}
    return set() if old == new else {loc}


def untouched(text: str, places: set[tuple[Any, ...]]) -> Counter[str]:
    """The lines that stand neither in a changed statement nor between two of them."""
    mine = [any(span.loc[: len(p)] == p or p[: len(span.loc)] == span.loc for p in places)
            for span in outline(text).lines]  # fmt: skip
    kept, at, begun = [], 0, False
    for span, is_changed in zip(outline(text).lines, mine, strict=True):
        start = text.rfind("\n", 0, span.start) + 1
        end = text.find("\n", span.end) + 1 or len(text)
        if not (is_changed and begun):
            kept += text[at:start].splitlines()
        if not is_changed:
            kept += text[start:end].splitlines()
        at, begun = end, is_changed
    return Counter(line for line in [*kept, *text[at:].splitlines()] if line.strip())


@pytest.mark.parametrize("cls", [Dataset, Training])
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data(), seed=st.integers(0, 2**32))
def test_any_change_of_any_text(cls, data, seed):
    old, other = data.draw(sections(cls)), data.draw(sections(cls))
    chance = random.Random(seed)
    text = written(old, chance)
    assert parsed(text, cls) == old
    assert edit(text, old, old) == text
    new = changed(old, other, chance)
    out = edit(text, old, new)
    assert parsed(out, cls) == new
    lost = untouched(text.removeprefix("\ufeff"), differences(old, new)) - Counter(
        out.removeprefix("\ufeff").splitlines()
    )
    assert not lost
    assert out.startswith("\ufeff") == text.startswith("\ufeff")
    if "\r\n" in text:
        assert "\n" not in out.replace("\r\n", "")
