"""Secrets in files: a warning for each, none in any message, none in the text that travels."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from dpnb import toml
from dpnb.errors import ConfigError
from dpnb.schema import Dataset, Training
from dpnb.toml.secrets import without_secrets
from dpnb.toml.write import dump
from tests.dpnb.every_family import training

WANDB = "0123456789abcdef0123456789abcdef01234567"
HF = "hf_abcdefghijklmnopqrstuvwxyz012345"
RUN = dump(training())


def lines(text: str, cls: type[Training] | type[Dataset] = Training) -> list[str]:
    """What is said about a text, without the file's name; the secrets are nowhere in it."""
    Path("x.toml").write_text(text)
    try:
        found = toml.load("x.toml", cls, paths=False).warnings
    except ConfigError as error:
        found = error.problems
    said = [str(problem).removeprefix("x.toml:") for problem in found]
    for secret in (WANDB, HF):
        assert not any(secret[:12] in line for line in said)
    return said


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


STANDS = (
    "a secret stands in the file: whoever gets the file can use it. Remove it, and set {} in the environment instead."
)


@pytest.mark.parametrize(
    ("extra", "key", "variable"),
    [
        (
            f"[monitoring]\nenable_wandb = true\nwandb_api_key = '{WANDB}'\n",
            "monitoring.wandb_api_key",
            "WANDB_API_KEY",
        ),
        ("[monitoring]\nenable_wandb = true\nwandb_api_key = 'short'\n", "monitoring.wandb_api_key", "WANDB_API_KEY"),
        (f"[sample]\nprompts = ['a', '{HF}']\n", "sample.prompts[1]", "HF_TOKEN"),
    ],
)
def test_a_secret_is_a_warning(extra, key, variable):
    found = [line for line in lines(RUN + extra) if "secret" in line]
    assert [line.partition(": ")[2] for line in found] == [f"warning: {key}: {STANDS.format(variable)}"]


def test_secrets_in_comments_and_unknown_keys():
    said = lines(RUN + f"# wandb_api_key = '{WANDB}'\nhub_token = '{HF}'\n")
    assert [line.split(": ", 1)[1] for line in said if "secret" in line] == [
        "warning: a comment holds a secret: whoever gets the file can use it. Remove it, and set WANDB_API_KEY in the "
        "environment instead.",
        f"warning: optimizer.hub_token: {STANDS.format('HF_TOKEN')}",
    ]
    assert any("hub_token: unknown key." in line for line in said)


def test_what_only_looks_like_one_is_none():
    text = RUN + f"[sample]\nprompts = ['the key to {WANDB}', 'hf_short']\n# sha1 {WANDB}\n"
    assert not [line for line in lines(text) if "secret" in line]
    for value in ("", "YOUR_WANDB_KEY", "<key>", "xxxx", "..."):
        assert not [line for line in lines(RUN + f"[monitoring]\nwandb_api_key = '{value}'\n") if "secret" in line]


@pytest.mark.parametrize(
    "extra",
    [
        f"[monitoring]\nwandb_api_key = ['{WANDB}']\n",
        f"[monitoring]\nwandb_api_key = {{a = '{WANDB}'}}\n",
        "[monitoring]\nwandb_api_key = 0x0123456789abcdef\n",
        f"[[monitoring]]\nwandb_api_key = '{WANDB}'\n",
        f"[adapter.x]\nwandb_api_key = '{WANDB}'\n",
        f"[monitoring]\nenable_wandb = '{HF}'\nwandb_api_key = '{WANDB}'\n",
        f"[monitoring]\nwandb_run_name = 1\nwandb_api_key = '{WANDB}'\n",
        f"[monitoring]\nwandb_apikey = '{WANDB}'\n",
    ],
)
def test_no_message_shows_it_whatever_else_is_wrong(extra):
    assert [line for line in lines(RUN + extra) if "error" in line]
    assert not any("81985529216486895" in line for line in lines(RUN + extra))


def test_without_paths_of_a_secret():
    (said,) = [
        line for line in lines(f"resolutions = [64]\n[[directory]]\npath = '{HF}'\n", Dataset) if "secret" in line
    ]
    assert said == f"3:1: warning: directory[0].path: {STANDS.format('HF_TOKEN')}"
    Path("y.toml").write_text(f"resolutions = [64]\n[[directory]]\npath = '{HF}'\n")
    with pytest.raises(ConfigError) as caught:
        toml.load("y.toml", Dataset)
    assert HF not in str(caught.value)
    assert "'***' does not exist." in str(caught.value)


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        (f"a = 1 # x\n  wandb_api_key = '{WANDB}' # mine\nb = 2", "a = 1 # x\nb = 2"),
        (f"[m]\r\nwandb_api_key = '''\r\n{WANDB}'''\r\n\r\nb = 2\r\n", "[m]\r\n\r\nb = 2\r\n"),
        (f"m = {{a = 1, wandb_api_key = '{WANDB}', b = 2}}\n", "m = {a = 1, b = 2}\n"),
        (f"m.wandb_api_key = '{WANDB}'\n[n]\nx = '{HF}'\n", "[n]\n"),
        (f"a = ['b', '{HF}', 'c']\n", "a = ['b', 'c']\n"),
        (f"\ufeff# hf {HF}\na = 1 # {HF}\n#b\n", "\ufeffa = 1\n#b\n"),
        (f"a = 1\r\nb = 2 # api_key: {WANDB}\r\n", "a = 1\r\nb = 2\r\n"),
        ("a = 1\t# nothing  \n\n", "a = 1\t# nothing  \n\n"),
    ],
)
def test_the_text_that_travels(text, rest):
    assert without_secrets(text) == rest
    tomllib.loads(rest.removeprefix("\ufeff"))
