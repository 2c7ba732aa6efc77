"""Where captions come from and what becomes of them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpnb.dataset.captions import (
    TAG_VARIANTS,
    final_captions,
    folder_captions,
    read_captions_json,
    read_text,
    shuffled,
    thinned,
    with_trigger,
)
from dpnb.errors import DatasetError
from dpnb.schema.dataset import DirectorySettings


def test_sidecar_is_stripped_and_keeps_its_lines(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeff  one\ntwo ü \n".encode())
    captions = folder_captions(tmp_path, ["a.jpg", "a.txt"])
    assert captions.of("a.jpg") == ["one\ntwo ü"]
    assert captions.of("b.jpg") == []
    assert captions.unused(["a.jpg"]) == []
    assert captions.unused([]) == ["a.txt"]


def test_suffix_in_capitals_and_names_with_dots(tmp_path):
    (tmp_path / "a.b.TXT").write_text("x")
    (tmp_path / "c.TXT").write_text("capitals")
    (tmp_path / "c.txt").write_text("small")
    captions = folder_captions(tmp_path, [path.name for path in tmp_path.iterdir()])
    assert captions.of("a.b.png") == ["x"]
    assert captions.of("a.png") == []
    assert captions.of("c.png") == ["small"]


def test_captions_json_replaces_the_texts(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "b.txt").write_text("text")
    (tmp_path / "captions.json").write_bytes(b"\xef\xbb\xbf" + json.dumps({"a.png": [" one ", "two"]}).encode())
    captions = folder_captions(tmp_path, [path.name for path in tmp_path.iterdir()])
    assert captions.of("a.png") == ["one", "two"]
    assert captions.of("b.png") == []


def test_half_a_character_in_captions_json(tmp_path):
    (tmp_path / "captions.json").write_text(r'{"a.png": ["x \ud800"]}')
    assert read_captions_json(tmp_path / "captions.json") == {"a.png": ["x ?"]}


def test_unreadable_text(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"ok \xff")
    with pytest.raises(DatasetError, match=r"a\.txt is not UTF-8 text \(byte 3 is 0xff\): save it as UTF-8$"):
        read_text(path)
    with pytest.raises(DatasetError, match=r"gone\.txt cannot be read: No such file or directory$"):
        read_text(tmp_path / "gone.txt")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a.png": ["x"],\n}', r"captions\.json:2:1: is not JSON: "),
        ('["x"]', r'captions\.json holds a list; expected \{"picture\.jpg": \["a caption"\], \.\.\.\}$'),
        (
            '{"a.png": "x"}',
            r'captions\.json: the entry "a\.png" is "x"; expected a list of texts, such as \["a caption"\]$',
        ),
        ('{"a.png": ["x", 3]}', r'the entry "a\.png" is \["x", 3\]; expected a list of texts'),
        ('{"a.png": "' + "x" * 99 + '"}', r'the entry "a\.png" is "x{56}\.\.\.; expected'),
    ],
)
def test_wrong_captions_json(tmp_path, text, message):
    path = tmp_path / "captions.json"
    path.write_text(text)
    with pytest.raises(DatasetError, match=message):
        read_captions_json(path)


@pytest.mark.parametrize(
    ("caption", "trigger", "final"),
    [
        ("a photo of [trigger], [trigger]", "zorbi", "a photo of zorbi, zorbi"),
        ("a photo", "zorbi", "zorbi, a photo"),
        ("a Zorbi in the sun", "zorbi", "a Zorbi in the sun"),
        ("two zorbis", "zorbi", "zorbi, two zorbis"),
        ("by c++", "c++", "by c++"),
        ("", "zorbi", "zorbi"),
        ("a photo of [trigger]", "", "a photo of [trigger]"),
    ],
)
def test_trigger(caption, trigger, final):
    assert with_trigger(caption, trigger) == final


def test_order_is_shuffle_then_trigger_then_prefix():
    settings = DirectorySettings(caption_prefix="art. ", trigger_word="zorbi", cache_shuffle_num=3)
    final = final_captions(["b, a, c"], settings)
    assert len(final) == 3
    assert all(caption.startswith("art. zorbi, ") for caption in final)
    assert {frozenset(c.removeprefix("art. zorbi, ").split(", ")) for c in final} == {frozenset("abc")}


def test_shuffle_tags_is_one_shuffle():
    assert final_captions(["a, b, c"], DirectorySettings(shuffle_tags=True)) == (shuffled("a, b, c", ", ", 0),)
    both = DirectorySettings(shuffle_tags=True, cache_shuffle_num=2, cache_shuffle_delimiter=";")
    assert final_captions(["a;b;c"], both) == (shuffled("a;b;c", ";", 0), shuffled("a;b;c", ";", 1))
    assert shuffled("a, b, c, d, e, f", ", ", 0) == "b, d, f, e, c, a"  # frozen: another order misses the cache


def test_empty_captions():
    assert final_captions([], DirectorySettings()) == ()
    assert final_captions(["", "x"], DirectorySettings()) == ("x",)
    keep = DirectorySettings(skip_empty_caption=False, caption_prefix="p")
    assert final_captions([], keep) == ("p",)
    assert final_captions(["", "x"], keep) == ("p", "px")


@given(st.text(), st.integers(0, 5), st.sampled_from([", ", ";", " "]))
def test_shuffle_keeps_the_tags_and_repeats_itself(caption, variant, delimiter):
    once = shuffled(caption, delimiter, variant)
    assert sorted(once.split(delimiter)) == sorted(caption.split(delimiter))
    assert shuffled(caption, delimiter, variant) == once


def test_first_tags_stay_in_front():
    caption = ", ".join("abcdefgh")
    orders = {shuffled(caption, ", ", variant, 2) for variant in range(5)}
    assert all(order.startswith("a, b, ") for order in orders)
    assert len(orders) == 5
    assert shuffled(caption, ", ", 0, 99) == caption
    assert final_captions([caption], DirectorySettings(cache_shuffle_num=1, keep_first_tags=3))[0][:7] == "a, b, c"


def test_tags_are_left_out_in_a_few_variants():
    caption = ", ".join(f"tag{i}" for i in range(40))
    asked = DirectorySettings(tag_dropout=0.3)
    variants = thinned(caption, asked)
    assert len(set(variants)) == len(variants) == TAG_VARIANTS
    assert variants == thinned(caption, asked), "the same texts again: their embeddings are in the cache"
    for variant in variants:
        kept = variant.split(", ")
        assert kept == [tag for tag in caption.split(", ") if tag in kept], "in their order"
        assert 18 <= len(kept) <= 37
    assert thinned(caption, DirectorySettings()) == (caption,)
    assert thinned("", asked) == ("",)


def test_what_is_never_left_out():
    asked = DirectorySettings(
        tag_dropout=0.95, keep_first_tags=1, caption_prefix="art, ", trigger_word="ohwx", cache_shuffle_delimiter=", "
    )
    caption = final_captions(["first, b, c, an ohwx there, d"], asked)[0]
    assert all(v.startswith("art, first") and "an ohwx there" in v for v in thinned(caption, asked))
    in_front = final_captions(["first, b, c"], asked)[0]
    assert in_front == "art, ohwx, first, b, c"
    assert all(v.startswith("art, ohwx, first") for v in thinned(in_front, asked)), "the word in front does not count"
    everything = DirectorySettings(tag_dropout=0.999)
    assert all(v in ("a", "b", "c") for v in thinned("a, b, c", everything)), "one tag stays"


def test_a_higher_share_leaves_out_more_of_the_same():
    caption = ", ".join(f"tag{i}" for i in range(20))
    for few, many in zip(
        *(thinned(caption, DirectorySettings(tag_dropout=share)) for share in (0.2, 0.6)), strict=True
    ):
        assert set(many.split(", ")) < set(few.split(", "))
