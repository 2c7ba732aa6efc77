"""Texts that are no TOML: each kind of slip has words of its own, at its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from dpnb.errors import ConfigError
from dpnb.schema import Training
from dpnb.toml import load
from dpnb.toml.syntax import LOOK_HERE, parse, read

CLOSE_LIST = (
    "the list that begins here is never closed. Add the missing ], or put a # before this line if nothing in the "
    "list is wanted."
)
TWICE = "twice in the same table. Keep one of the two, at this line or further up."
SLASH = (
    "a \\ in double quotes begins a code such as \\n, and this is none. For a path write / instead of \\, or use "
    "single quotes."
)
BRACES = (
    "the inline table that begins here is broken. A comma stands between each two keys, none behind the last, and a } "
    "at the end."
)
INVISIBLE = (
    "an invisible character, U+{}, stands where TOML wants a plain space or nothing. Delete it, and type a space anew."
)
OPEN_TEXT = "the text that begins here is never closed. End it with the quote that it begins with."
HEADER = "Write key = value, [table], or [[table]] for one of several."
BEHIND = "Put the whole value in quotes, or a # before what is a comment."
CODE = "this is program code, not TOML. Keep the lines of the form key = value alone."
YAML = "this is YAML, not TOML. A key and its value are separated by =, as in epochs = 10."


@pytest.mark.parametrize(
    ("text", "message"),
    [
        # several things on a line
        ("a = 1\nb = 1 c = 2", "2:7: a second key, 'c', stands on the same line. Give each key a line of its own."),
        ("[model] type = 1\n", "1:9: a second key, 'type', stands on the same line. Give each key a line of its own."),
        ("a = 1 two", f"1:7: 'two' stands behind the value. {BEHIND}"),
        ("a = 'it's'", "1:9: 's'' stands behind the value. Around a text that holds a quote, write quotes of the "
            "other kind."),
        ("a = 1,\n", "1:6: a line does not end with ','. Remove the ','."),
        ("a = 1; # x\n", "1:6: a line does not end with ';'. Remove the ';'."),
        ("a = 1 // x", "1:7: comments begin with #. Write # instead of //."),
        # quotes
        ("a = flux", "1:5: flux is a text without quotes. Write 'flux'."),
        ("a = /data/x # y", "1:5: /data/x is a text without quotes. Write '/data/x'."),
        ("a = $HOME/x", "1:5: $HOME/x is a text without quotes. Write '$HOME/x'."),
        ('a = flux"\n', "1:5: flux\" is a text without quotes. Write 'flux'."),
        ("a = 'flux\nb = 1", f"1:5: {OPEN_TEXT}"),
        ('a = 1\nb = "flux # x\n', f"2:5: {OPEN_TEXT}"),
        ('a = """abc', f"1:5: {OPEN_TEXT}"),
        ("a = '''abc\n", f"1:5: {OPEN_TEXT}"),
        ("a = \u201cx\u201d\n", "1:5: these are quotes of a word processor. Use straight quotes: \" or '."),
        ("a = r'x'", "1:5: a letter before a quote is Python. Write 'x'."),
        ('a = "C:\\data"', f"1:10: {SLASH}"),
        ('a = "C:\\Users"', f"1:10: {SLASH}"),
        ('a = "x\x01"', "1:7: a control character stands in a text or a comment. Remove it."),
        # values
        ("a = True", "1:5: True is not a value. Write true."),
        ("a = FALSE # x", "1:5: FALSE is not a value. Write false."),
        ("a = None", "1:5: None is not a value. To leave a key unset, remove its line or put a # before it."),
        ("a = \n", "1:5: 'a' has no value. Give one, or put a # before the line."),
        ("a = # b", "1:5: 'a' has no value. Give one, or put a # before the line."),
        ("a = (1, 2)", "1:5: ( ) is not a list in TOML. A list stands in [ ]."),
        ("a = @", "1:5: this is not a value. Texts stand in quotes, true and false in lower case, and a list ends "
            "with ]. Look at this line and the one before it."),
        # numbers
        ("a = 1,5", "1:6: a comma stands in a number. Fractions are written with a point."),
        ("a = -.5", "1:5: -.5 is not a number in TOML. Write -0.5."),
        ("a = 5.\n", "1:6: a number ends with a point. Remove the point, or write a 0 behind it."),
        ("a = 0123\n", "1:6: '123' does not belong to the number before it. Write the number anew."),
        ("a = 1\n\nb = " + "9" * 5000, f"3:1: a number has too many digits. {LOOK_HERE}"),
        # lists and inline tables
        ("a = [\n", f"1:5: {CLOSE_LIST}"),
        ("b = 1\na = [\n  # {name = 'x'},\nepochs = 5\n", f"2:5: {CLOSE_LIST}"),
        ("a = [\n\n[model]\ntype = 'flux'\n", f"1:5: {CLOSE_LIST}"),
        ("a = [512, 1024\nb = 2\n", f"1:5: {CLOSE_LIST}"),
        ("a = [512 1024]\n", "1:10: a comma is missing between two items of a list. Put one between each two items."),
        ("a = {b = 1\nc = 2}\n", f"1:5: {BRACES}"),
        ("a = {b = 1,\n c = 2}\nd = 3\nd = 4\n", f"4:6: 'd' stands {TWICE}"),
        ("a = {b = 1, }\n", f"1:5: {BRACES}"),
        ("a = " + "[" * 5000, "1:1: lists or tables stand too deep inside one another."),
        # twice
        ("a = 1\nx = 2\na = 2", f"3:6: 'a' stands {TWICE}"),
        ("a={b=1,b=2}", f"1:11: a key stands {TWICE}"),
        ("[a.b]\n[a.b]\n", "2:5: the table [a.b] stands twice. Keep one of the two, at this line or further up."),
        # what cannot be seen
        ("a = 1\nb\u00a0= 2\n", f"2:2: {INVISIBLE.format('00A0')}"),
        ("\u200ba = '\u00a0'\n", f"1:1: {INVISIBLE.format('200B')}"),
        ("a = 1\rb = 2\r", "1:6: a line ends with a carriage return alone. Save it with the line ends of Unix or "
            "Windows."),
        # headers and lines
        ("[model\ntype = 1\n", f"1:7: a table header is never closed. {HEADER}"),
        ("[[a]\nb=1", f"1:4: a table header is never closed. {HEADER}"),
        ("= 1", f"1:1: a line begins with neither a key nor a table. {HEADER}"),
        ("a = 1\n  just words\n", "2:3: 'just words' is no key with a value, no table and no comment. Write key = "
            "value, or put a # before it."),
        ("[]\n", f"1:2: Invalid initial character for a key part. {LOOK_HERE}"),
        # files of another kind
        ("import torch\n", f"1:8: {CODE}"),
        ("#!/usr/bin/env python\nx = y\n", f"2:5: {CODE}"),
        ("def f(x):\n  return 1", f"1:5: {CODE}"),
        ("'''doc'''\nx = 1\n", f"1:3: {CODE}"),
        ("a: 1\n", f"1:2: {YAML}"),
        ("- a: 1", f"1:3: {YAML}"),
        ('\n{"a": 1}', "2:1: this is JSON, not TOML. `dpnb import` reads the JSON files of other trainers."),
        ("<!DOCTYPE html>\n<html>", "1:1: this is a web page, not a TOML file. Download the file itself (the 'raw' "
            "link)."),
    ],
)  # fmt: skip
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_what_is_wrong_with_a_text(text, message, end):
    with pytest.raises(ConfigError) as caught:
        parse(Path("x"), text.replace("\n", end))
    (problem,) = caught.value.problems
    assert (problem.severity, problem.code) == ("error", "syntax")
    words = " ".join(filter(None, (problem.message, problem.suggestion)))
    place = f"{problem.line}:{problem.column}"
    if end == "\r\n":  # an error at a line's end has one more place to stand
        place = message.split(": ")[0] if place.startswith(message.split(":")[0]) else place
    assert f"{place}: {words}" == message


def test_a_byte_order_mark_moves_nothing():
    assert parse(Path("x"), "\ufeffa = 1") == {"a": 1}
    with pytest.raises(ConfigError, match=r"^x:1:5: error: True is not a value"):
        parse(Path("x"), "\ufeffa = True")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"a = 1\nb = '\xff'", "x.toml:2:1: error: is not UTF-8 text (byte 11). Save it as UTF-8 in your editor."),
        ("a".encode("utf-16"), "x.toml:1:1: error: is not UTF-8 text (byte 0). Save it as UTF-8 in your editor."),
    ],
)
def test_texts_in_another_encoding(tmp_path, monkeypatch, raw, message):
    monkeypatch.chdir(tmp_path)
    Path("x.toml").write_bytes(raw)
    with pytest.raises(ConfigError) as caught:
        load("x.toml", Training)
    assert str(caught.value) == message
    assert caught.value.problems[0].code == "syntax"


@pytest.mark.parametrize(
    ("path", "reason"),
    [("gone.toml", "No such file or directory"), (".", "Is a directory"), ("a\0b", "embedded null byte")],
)
def test_files_that_cannot_be_read(tmp_path, monkeypatch, path, reason):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        read(Path(path))
    assert str(caught.value) == f"{path}:1:1: error: cannot be read: {reason}. Check the path."
    assert caught.value.problems[0].code == "path"


@pytest.mark.parametrize(
    "line",
    [
        "wandb_api_key = {}\n",
        "monitoring.wandb_api_key = {}\n",
        "wandb_api_key = '{}' x\n",
        "wandb_api_key = '{}\n",
        "wandb_api_key {}\n",
        "hub_token = {}\n",
    ],
)
@pytest.mark.parametrize("secret", ["0123456789abcdef0123456789abcdef01234567", "hf_abcdefghijklmnopqrstuvwxyz012345"])
def test_no_message_shows_a_secret(line, secret):
    with pytest.raises(ConfigError) as caught:
        parse(Path("x"), line.format(secret))
    assert secret not in str(caught.value)
    assert secret[:20] not in str(caught.value)
