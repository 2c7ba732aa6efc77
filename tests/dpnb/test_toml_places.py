"""Lines and columns of keys, in every way that TOML has of writing them."""

from __future__ import annotations

import tomllib

import pytest
import tomlkit
from hypothesis import given, settings
from hypothesis import strategies as st

from dpnb.toml.places import nearest_place, outline, places, value_at


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a = 1\n  b = 2", {("a",): (1, 1), ("b",): (2, 3)}),
        ("\ta\t=\t1\n\n\t b=2", {("a",): (1, 2), ("b",): (3, 3)}),
        ("a = 1\r\nb = 2\r\n", {("a",): (1, 1), ("b",): (2, 1)}),
        ("\ufeffa = 1", {("a",): (1, 1)}),
        ("a.b.c = 1\na.d = 2", {("a",): (1, 1), ("a", "b"): (1, 1), ("a", "b", "c"): (1, 1), ("a", "d"): (2, 1)}),
        ("a . \"b.c\" . 'd' = 1", {("a",): (1, 1), ("a", "b.c"): (1, 1), ("a", "b.c", "d"): (1, 1)}),
        ('"a\\u0062" = 1\n"" = 2', {("ab",): (1, 1), ("",): (2, 1)}),
        ("1 = 2\n-_ = 3", {("1",): (1, 1), ("-_",): (2, 1)}),
        (" [ a . b ] # [c]\nd = 1", {("a",): (1, 2), ("a", "b"): (1, 2), ("a", "b", "d"): (2, 1)}),
        ("[a.b]\n[a]\nc = 1", {("a",): (2, 1), ("a", "b"): (1, 1), ("a", "c"): (3, 1)}),
        (
            "[[a]]\nb = 1\n[[a]]\n[a.c]\nd = 1",
            {
                ("a",): (1, 1),
                ("a", 0): (1, 1),
                ("a", 0, "b"): (2, 1),
                ("a", 1): (3, 1),
                ("a", 1, "c"): (4, 1),
                ("a", 1, "c", "d"): (5, 1),
            },
        ),
        (
            "[[a]]\n[[a.b]]\n[[a.b]]\n[[a]]\n[[a.b]]",
            {
                ("a",): (1, 1),
                ("a", 0): (1, 1),
                ("a", 0, "b"): (2, 1),
                ("a", 0, "b", 0): (2, 1),
                ("a", 0, "b", 1): (3, 1),
                ("a", 1): (4, 1),
                ("a", 1, "b"): (5, 1),
                ("a", 1, "b", 0): (5, 1),
            },
        ),
        (
            "a = {b = 1, c = {d = 2}, e.f = 3}",
            {
                ("a",): (1, 1),
                ("a", "b"): (1, 6),
                ("a", "c"): (1, 13),
                ("a", "c", "d"): (1, 18),
                ("a", "e"): (1, 26),
                ("a", "e", "f"): (1, 26),
            },
        ),
        (
            "a = [[1, 2],\n  [3],\n]",
            {
                ("a",): (1, 1),
                ("a", 0): (1, 6),
                ("a", 0, 0): (1, 7),
                ("a", 0, 1): (1, 10),
                ("a", 1): (2, 3),
                ("a", 1, 0): (2, 4),
            },
        ),
        ("a = [ # ], \"x\n 'b]', # '\n]\nc = 1", {("a",): (1, 1), ("a", 0): (2, 2), ("c",): (4, 1)}),
        ('a = "#]}\\"\\\\" # \'\nb = 1', {("a",): (1, 1), ("b",): (2, 1)}),
        ('a = """\nb = 1\n\\""" [c]""""\nd = 1', {("a",): (1, 1), ("d",): (4, 1)}),
        ("a = '''\nb = 1 \\'''''\nd = 1", {("a",): (1, 1), ("d",): (3, 1)}),
        ("a = ''\nb = \"\"\nc = ''''''\nd = 1", {("a",): (1, 1), ("b",): (2, 1), ("c",): (3, 1), ("d",): (4, 1)}),
        ("a = 1979-05-27 07:32:00 # b = 1\nc = inf#\nd = -1e-3", {("a",): (1, 1), ("c",): (2, 1), ("d",): (3, 1)}),
        ("a = []\nb = {}\nc = [{}, {d = 1}]", {("a",): (1, 1), ("b",): (2, 1), ("c",): (3, 1)}),
        ("", {}),
        ("# only words, with [brackets] and a = 1", {}),
    ],
)
def test_places(text, expected):
    tomllib.loads(text.removeprefix("\ufeff"))
    found = places(text)
    assert {loc: found[loc] for loc in expected} == expected
    assert set(found) == locs_in(tomllib.loads(text.removeprefix("\ufeff")))


def test_nearest_place_goes_outwards():
    found = places("x = 1\n[a]\nb = 1")
    assert nearest_place(found, ("a", "b")) == (3, 1)
    assert nearest_place(found, ("a", "missing", 0)) == (2, 1)
    assert nearest_place(found, ("missing",)) == (1, 1)
    assert nearest_place(found, ()) == (1, 1)


def test_outline_knows_what_each_span_holds():
    text = "a = 1 # x\n[[b]] # y\nc.d = [1,\n  {e = '}'}, ]\n"
    found = outline(text)
    assert [(s.kind, s.loc, s.table, text[s.start : s.end], text[s.value : s.end]) for s in found.lines] == [
        ("pair", ("a",), (), "a = 1", "1"),
        ("headers", ("b", 0), ("b", 0), "[[b]]", "[[b]]"),
        ("pair", ("b", 0, "c", "d"), ("b", 0), "c.d = [1,\n  {e = '}'}, ]", "[1,\n  {e = '}'}, ]"),
    ]
    array = ("b", 0, "c", "d")
    assert {loc: [(s.kind, s.loc, text[s.value : s.end]) for s in spans] for loc, spans in found.inside.items()} == {
        array: [("item", (*array, 0), "1"), ("item", (*array, 1), "{e = '}'}")],
        (*array, 1): [("pair", (*array, 1, "e"), "'}'")],
    }


def test_value_at():
    data = {"a": [{"b": 1}], "c": "text"}
    assert value_at(data, ("a", 0, "b")) == 1
    assert value_at(data, ()) == data
    for loc in [("x",), ("a", 1), ("a", "b"), ("c", "d"), ("a", 0, "b", "c")]:
        assert value_at(data, loc) is None


# --- against tomllib -------------------------------------------------------------------------------------------------


def locs_in(data, loc=()):
    """Every key and list position of plain data."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return {found for key, item in items for found in ({(*loc, key)} | locs_in(item, (*loc, key)))}


words = st.text("ab.#[]{}=,'\"\\\n\té ", max_size=6)
scalars = st.one_of(st.integers(), st.booleans(), st.floats(allow_nan=False), words, st.datetimes(), st.dates())
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.dictionaries(words, values, max_size=5))
def test_knows_the_keys_that_tomllib_knows_in_tables(data):
    text = tomlkit.dumps(data)
    assert set(places(text)) == locs_in(tomllib.loads(text))


def written(value) -> str:
    """A value in the shortest form: inline tables and arrays."""
    return tomlkit.item(value).as_string() if not isinstance(value, dict | list) else _nested(value)


def _nested(value) -> str:
    if isinstance(value, list):
        return "[ " + " , # ]\n".join(written(item) for item in value) + "\n]"
    return "{" + ", ".join(f"{tomlkit.item(key).as_string()} = {written(item)}" for key, item in value.items()) + "}"


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.dictionaries(st.text("ab.#[]'é ", max_size=4), values, max_size=4))
def test_knows_the_keys_that_tomllib_knows_inline(data):
    text = "".join(f"{tomlkit.item(key).as_string()} = {written(item)} # [x]\n" for key, item in data.items())
    try:
        parsed = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return  # before TOML 1.1 an inline table stands on one line
    assert set(places(text)) == locs_in(parsed)
    for key, (line, column) in ((loc[0], place) for loc, place in places(text).items() if len(loc) == 1):
        assert text.split("\n")[line - 1][column - 1 :].startswith(tomlkit.item(key).as_string())
