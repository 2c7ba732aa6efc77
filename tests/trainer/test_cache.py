"""The store: names, whole entries, sharing; and `fill` with an encoder that counts its calls."""

import errno
import hashlib
import logging
import os
import random
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors import safe_open

from dpnb.dataset import store
from dpnb.dataset.bucket import Plan, Size, plan
from dpnb.dataset.cache_folder import contents_of, default_root, shards
from dpnb.dataset.scan import scan, without
from dpnb.dataset.video import Clip
from dpnb.errors import DatasetError
from dpnb.schema.dataset import Dataset, Directory
from dpnb.schema.model import FACTS
from tests.trainer import small
from trainer.data import cache as module
from trainer.data import cache_keys
from trainer.data.ahead import ahead
from trainer.data.cache import Cache
from trainer.data.cache_keys import Key, latents_key, text_key
from trainer.data.digests import Digests
from trainer.data.fill import Failure, captions_of, fill

KEY = Key("latents", "ab" * 32)


class Counting:
    """Latents are the mean colour; embeds are the length of the caption. Counts what it is given."""

    pixels_identity = "pixels-1"
    text_identity = "text-1"

    def __init__(self) -> None:
        self.pictures: list[tuple[int, ...]] = []
        self.captions: list[list[str]] = []

    def encode_pixels(self, pixels):
        self.pictures.append(tuple(pixels.shape))
        return {"latents": pixels.mean(dim=(3, 4)), "size": torch.full((len(pixels),), 7)}

    def encode_text(self, captions):
        self.captions.append(list(captions))
        lengths = torch.tensor([[float(len(c))] for c in captions])
        return {"embeds": lengths.expand(-1, 4).to(torch.bfloat16)}


def pictures(folder: Path, count: int = 3, size=(64, 64)) -> None:
    folder.mkdir(exist_ok=True)
    for i in range(count):
        Image.new("RGB", size, (i * 20, 0, 0)).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"picture {i}")


def planned(folder: Path, resolutions=(32,), **keys) -> Plan:
    config = Dataset(resolutions=list(resolutions), directory=[Directory(path=str(folder))], **keys)
    return plan(scan(config).rows, config, FACTS["flux"])


@pytest.fixture
def folder(tmp_path):
    pictures(tmp_path / "pictures")
    return tmp_path / "pictures"


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache")


# --- the store -------------------------------------------------------------------------------------------------------


def test_default_root(monkeypatch, tmp_path):
    monkeypatch.setenv("DPNB_CACHE_DIR", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_root() == Cache().root == tmp_path / "own"
    monkeypatch.delenv("DPNB_CACHE_DIR")
    assert default_root() == tmp_path / "xdg" / "dpnb"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_root() == tmp_path / ".cache" / "dpnb"


def test_round_trip(cache):
    strided = torch.arange(12.0).reshape(3, 4).t()[1]
    tensors = {"a": strided, "b": torch.ones(2, dtype=torch.bfloat16), "c": strided}
    assert not cache.has(KEY)
    cache.put(KEY, tensors)
    assert cache.has(KEY)
    cache.flush()
    for reader in (cache, Cache(cache.root)):
        read = reader.get(KEY)
        assert read.keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert torch.equal(read[name], tensor)
            assert read[name].dtype == tensor.dtype
    assert list((cache.root / "tmp").iterdir()) == []


DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]
DTYPES += [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool]


def bytes_of(tensor: torch.Tensor) -> list[int]:
    return tensor.flatten().view(torch.uint8).tolist() if tensor.numel() else []


def test_any_entries_beside_each_other(cache):
    """Of every kind of number, of odd lengths, of none and without dimensions: nothing lies askew."""
    shapes = [(3,), (), (0, 4), (2, 5), (1, 1, 7)]
    entries = {
        Key("latents", f"{i:064x}"): {
            f"t{n}": torch.randn(shapes[(i + n) % 5]).mul(9).to(dtype) for n, dtype in enumerate(DTYPES[: i + 1])
        }
        for i in range(len(DTYPES))
    }
    for key, tensors in entries.items():
        cache.put(key, tensors)
    cache.flush()
    (shard,) = shards(cache.root, "latents")
    with safe_open(shard, framework="pt") as file:
        whole = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    reader = Cache(cache.root)
    for key, tensors in entries.items():
        read = reader.get(key)
        for name, tensor in tensors.items():
            for found in (read[name], whole[f"{key.name}/{name}"]):
                assert (found.shape, found.dtype) == (tensor.shape, tensor.dtype)
                assert bytes_of(found) == bytes_of(tensor)


@pytest.mark.parametrize("apart", [0, 256])
def test_large_entries_of_one_shape_and_of_others_beside_them(cache, monkeypatch, apart):
    """Those of one shape are cut apart at once, those of several tensors one by one; each is what was put."""
    monkeypatch.setattr("trainer.data.cache._MOST_APART", apart)
    entries = {}
    for number in range(12):
        large = torch.full((4, 64, 64), float(number))
        small = torch.arange(3, dtype=torch.int64) + number
        shapes = ({"latents": large}, {"latents": large, "n": small}, {"latents": large[:, :32].contiguous()})
        key = Key("latents", f"{number:064x}")
        entries[key] = shapes[0 if number < 6 else number % 3]
        cache.put(key, entries[key])
    cache.flush()
    again = Cache(cache.root)
    for _ in range(2):
        for key, tensors in entries.items():
            found = again.get(key)
            assert found.keys() == tensors.keys()
            assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


def test_entries_of_many_layouts_in_one_shard(cache):
    """Each is what was put, whichever was asked for first, and few layouts are cut apart: it takes memory."""
    chance = random.Random(3)
    entries = {}
    for number in range(200):
        shape = chance.choice([(4, 64, 64), (4, 32, 64), (3, 77, 50)])
        entry = {"latents": torch.randn(shape).to(chance.choice([torch.float32, torch.bfloat16, torch.uint8]))}
        if chance.random() < 0.4:
            entry["mask"] = torch.full((chance.choice([1, 3, 64]),), number, dtype=torch.uint8)
        if chance.random() < 0.2:
            entry["pooled"] = torch.randn(768)
        entries[Key("latents", f"{number:064x}")] = entry
        cache.put(Key("latents", f"{number:064x}"), entry)
    cache.flush()
    for _ in range(3):
        again = Cache(cache.root)
        for key in chance.sample(list(entries), len(entries)):
            found = again.get(key)
            assert found.keys() == entries[key].keys()
            assert all(torch.equal(found[name], tensor) for name, tensor in entries[key].items())
        for mapped in again._index._mapped.values():
            assert sum(rows.entries > 0 for rows in mapped._rows.values()) <= 2


def test_threads_read_entries_of_many_layouts(cache):
    entries = {Key("latents", f"{number:064x}"): torch.full((number + 8, 32, 32), number) for number in range(300)}
    for key, latents in entries.items():
        cache.put(key, {"latents": latents})
    cache.flush()
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(8):
            again = Cache(cache.root)
            with ThreadPoolExecutor(8) as pool:
                found = pool.map(again.get, entries)
                assert all(torch.equal(f["latents"], own) for f, own in zip(found, entries.values(), strict=True))
    finally:
        sys.setswitchinterval(before)


def test_others_see_what_is_flushed(cache):
    reader = Cache(cache.root)
    assert not reader.has(KEY)
    cache.put(KEY, {"a": torch.ones(3)})
    assert not reader.has(KEY)
    cache.flush()
    assert reader.get(KEY)["a"].tolist() == [1.0] * 3
    assert reader.has(KEY)


def test_threads_that_ask_while_shards_are_taken_in_wait_for_them(cache):
    keys = [Key("latents", f"{number:064x}") for number in range(100)]
    for key in keys:
        cache.put(key, {"x": torch.zeros(1)})
        cache.flush()
    settled_ns = time.time_ns() - 10**9
    os.utime(cache.root / "latents", ns=(settled_ns, settled_ns))
    for _ in range(5):
        other, together = Cache(cache.root), threading.Barrier(8)

        def ask(_: int, other: Cache = other, together: threading.Barrier = together) -> bool:
            together.wait()
            return all(other.has(key) for key in keys)

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(ask, range(8)))


def test_what_another_thread_takes_in_between_two_looks_is_found(cache, monkeypatch):
    entry = Key("latents", "7" * 64)
    cache.put(entry, {"latents": torch.zeros(2)})
    cache.flush()
    settled_ns = time.time_ns() - 60 * 10**9
    os.utime(cache.root / "latents", ns=(settled_ns, settled_ns))
    reader = Cache(cache.root)
    has_changed = type(reader._index)._has_changed

    def after_another_thread(index, kind):
        index._list(kind)  # which it ends here, after the first look of this one
        return has_changed(index, kind)

    monkeypatch.setattr(type(reader._index), "_has_changed", after_another_thread)
    assert reader.has(entry)


def test_what_is_encoded_slowly_is_written_at_once_and_the_rest_in_shards(cache, monkeypatch):
    for i in range(5):
        cache.put(Key("text", f"{i:064x}"), {"a": torch.ones(3)})
    assert shards(cache.root, "text") == []
    monkeypatch.setattr(module, "_SHARD_SECONDS", 0.0)
    cache.put(Key("text", f"{5:064x}"), {"a": torch.ones(3)})
    assert len(shards(cache.root, "text")) == 1
    cache.put(Key("text", f"{6:064x}"), {"a": torch.ones(3)})
    assert len(shards(cache.root, "text")) == 2
    monkeypatch.setattr(module, "_SHARD_SECONDS", 3600.0)
    monkeypatch.setattr(module, "_SHARD_BYTES", 4000)
    for i in range(7, 11):
        cache.put(Key("text", f"{i:064x}"), {"a": torch.ones(300)})
    assert len(shards(cache.root, "text")) == 3
    assert len(contents_of(max(shards(cache.root, "text"), key=lambda p: p.stat().st_size)).entries) == 6 - 2


def test_more_shards_than_may_be_mapped(cache, monkeypatch):
    monkeypatch.setattr(module, "_MOST_MAPPED", 3)
    monkeypatch.setattr(module, "_SHARD_SECONDS", 0.0)
    keys = [Key("text", f"{i:064x}") for i in range(9)]
    for i, key in enumerate(keys):
        cache.put(key, {"a": torch.full((3,), float(i))})
    reader = Cache(cache.root)
    kept = [reader.get(key)["a"] for _ in range(2) for key in keys]
    assert [float(tensor[0]) for tensor in kept] == [*map(float, range(9))] * 2


def test_nothing_is_made_before_the_first_entry(cache):
    assert not cache.has(KEY)
    assert not cache.root.exists()


def test_keys_depend_on_everything():
    base = latents_key("f" * 64, Size(64, 64), "vae")
    others = [
        latents_key("e" * 64, Size(64, 64), "vae"),
        latents_key("f" * 64, Size(64, 32), "vae"),
        latents_key("f" * 64, Size(64, 64, 5), "vae"),
        latents_key("f" * 64, Size(64, 64), "vae2"),
        latents_key("f" * 64, Size(64, 64), "vae", clip=Clip(0, 16.0)),
        latents_key("f" * 64, Size(64, 64), "vae", clip=Clip(1, 16.0)),
        latents_key("f" * 64, Size(64, 64), "vae", clip=Clip(0, 24.0)),
        latents_key("f" * 64, Size(64, 64), "vae", clip=Clip(0, None)),
        text_key("f" * 64, "vae"),
        text_key("", "vae"),
        text_key("a", "clip"),
    ]
    assert len({base, *others}) == 12
    assert base == latents_key("f" * 64, Size(64, 64), "vae")
    # frozen: another name for the same thing would encode every data set of every user again
    assert base.name.startswith("93724003909b")
    assert text_key("a", "clip").name.startswith("9f1ed7c77f63")


def test_preprocessing_version_is_in_the_key(monkeypatch):
    before = latents_key("f" * 64, Size(64, 64), "vae")
    monkeypatch.setattr(cache_keys, "PREPROCESSING_VERSION", 999)
    assert latents_key("f" * 64, Size(64, 64), "vae") != before


def sharded(cache: Cache, entries: int = 4) -> Path:
    """A shard of so many entries of 400 bytes."""
    for i in range(entries):
        cache.put(Key("latents", f"{i:064x}"), {"a": torch.full((100,), float(i))})
    cache.flush()
    (shard,) = shards(cache.root, "latents")
    return shard


@pytest.mark.parametrize(("cut", "kept"), [(1, 3), (400, 3), (401, 2), (1599, 0)])
def test_a_torn_tail_is_dropped_and_the_rest_kept(cache, caplog, cut, kept):
    shard = sharded(cache)
    shard.write_bytes(shard.read_bytes()[:-cut])
    reader = Cache(cache.root)
    keys = [Key("latents", f"{i:064x}") for i in range(4)]
    with caplog.at_level(logging.WARNING):
        assert [reader.has(key) for key in keys] == [i < kept for i in range(4)]
    assert f"cache shard {shard} is cut off: {4 - kept} of its entries are encoded again" in caplog.text
    assert all(reader.get(key)["a"].tolist() == [float(i)] * 100 for i, key in enumerate(keys[:kept]))
    with pytest.raises(DatasetError, match=r"is missing or unreadable in .*no shard has it"):
        reader.get(keys[3])
    reader.put(keys[3], {"a": torch.zeros(1)})
    reader.flush()
    assert Cache(cache.root).has(keys[3])


@pytest.mark.parametrize("data", [b"", b"short", bytes(60), b"\xff" * 60, (9).to_bytes(8, "little") + b'{"a/b":1}'])
def test_a_file_that_is_no_shard(cache, caplog, data):
    shard = sharded(cache)
    other = shard.with_name(f"{'0' * 32}.safetensors")
    other.write_bytes(data)
    reader = Cache(cache.root)
    with caplog.at_level(logging.WARNING):
        assert reader.get(Key("latents", f"{2:064x}"))["a"].tolist() == [2.0] * 100
    assert f"cache shard {other} is unreadable" in caplog.text
    assert "what it held is encoded again" in caplog.text


def test_a_shard_that_goes_or_is_cut_off_under_a_run(cache):
    shard = sharded(cache)
    first, second = Cache(cache.root), Cache(cache.root)
    key = Key("latents", f"{3:064x}")
    assert first.has(key)
    assert second.has(key)
    data = shard.read_bytes()
    shard.write_bytes(data[:-100])
    with pytest.raises(DatasetError, match=r"^the cache entry 0{16} is missing or unreadable in .*something removed"):
        first.get(key)
    shard.unlink()
    with pytest.raises(DatasetError, match=r"Start again, and it is encoded anew$"):
        second.get(key)


def test_missing_entry(cache):
    with pytest.raises(DatasetError, match=r"is missing or unreadable .*Start again, and it is encoded anew$"):
        cache.get(KEY)


def test_full_disk(cache, monkeypatch):
    kept = sharded(cache)

    def full(fd):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    pattern = (
        rf"^the cache folder '{cache.root}' is full \(\d+\.\d GiB free\): make room, or set cache_dir to a folder on"
    )
    cache.put(KEY, {"a": torch.zeros(1)})
    with pytest.raises(DatasetError, match=pattern):
        cache.flush()
    assert not Cache(cache.root).has(KEY)
    assert shards(cache.root, "latents") == [kept]
    assert list((cache.root / "tmp").iterdir()) == []


def test_a_file_that_may_not_grow_as_on_a_full_disk(cache):
    """The real thing: the kernel refuses the bytes in the middle of a shard."""
    kept = sharded(cache)
    with small.small_files():
        cache.put(KEY, {"a": torch.zeros(50_000)})
        with pytest.raises(DatasetError, match=r"cannot be written: File too large"):
            cache.flush()
    assert shards(cache.root, "latents") == [kept]
    assert list((cache.root / "tmp").iterdir()) == []
    cache.flush()
    assert Cache(cache.root).has(KEY), "what was put is not forgotten"


def test_full_disk_before_anything_is_there(cache, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    cache.put(KEY, {"a": torch.zeros(1)})
    with pytest.raises(DatasetError, match=r"is full \(\d+\.\d GiB free\)"):
        cache.flush()


def test_root_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    cache = Cache(tmp_path / "file" / "cache")
    cache.put(KEY, {"a": torch.zeros(1)})
    with pytest.raises(DatasetError, match=r"cannot be written: Not a directory\. Set cache_dir to another folder$"):
        cache.flush()


def test_leftovers_are_swept_but_not_those_of_a_live_run(cache):
    cache.put(KEY, {"a": torch.zeros(1)})
    cache.flush()
    old, new = cache.root / "tmp" / "old", cache.root / "tmp" / "new"
    for path in (old, new):
        path.write_text("half")
    os.utime(old, (time.time() - 7200,) * 2)
    assert Cache(cache.root).has(KEY)
    assert (old.exists(), new.exists()) == (False, True)


def test_digest_reads_a_file_once(cache, tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    assert cache.digest(path).startswith("ba7816bf")
    path.write_bytes(b"changed")
    assert cache.digest(path).startswith("ba7816bf")
    with pytest.raises(DatasetError, match=r"gone: cannot be read: No such file or directory$"):
        cache.digest(tmp_path / "gone")


def test_two_processes_write_the_same_entries(tmp_path):
    code = """
import sys, torch
from trainer.data.cache import Cache
from trainer.data.cache_keys import Key
cache = Cache(sys.argv[1])
for i in range(40):
    cache.put(Key("latents", f"{i:064x}"), {"a": torch.full((500,), float(i))})
    if i % 5 == 4:
        cache.flush()
"""
    runs = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(2)]
    assert [run.wait() for run in runs] == [0, 0]
    cache = Cache(tmp_path)
    for i in range(40):
        assert torch.equal(cache.get(Key("latents", f"{i:064x}"))["a"], torch.full((500,), float(i)))


# --- fill ------------------------------------------------------------------------------------------------------------


def test_fill_encodes_each_thing_once(cache, folder):
    made, family = planned(folder, (32, 48)), Counting()
    told = []
    filled = fill(cache, made, family, batch_size=2, progress=lambda *args: told.append(args))
    assert (filled.hits, filled.misses, filled.failures) == (0, 9, [])
    assert sorted(family.pictures) == sorted([(b, 3, 1, s, s) for s in (32, 48) for b in (2, 1)])
    assert family.captions == [["picture 0", "picture 1"], ["picture 2"]]
    assert told[-1] == (3, 3, "encoding captions")
    assert (3, 3, "encoding pictures") in told
    entry = cache.get(latents_key(cache.digest(folder / "2.png"), Size(32, 32), "pixels-1"))
    torch.testing.assert_close(entry["latents"], torch.tensor([[40 / 127.5 - 1], [-1.0], [-1.0]]))
    again = Counting()
    filled = fill(Cache(cache.root), made, again)
    assert (filled.hits, filled.misses, again.pictures, again.captions) == (9, 0, [], [])


def test_only_what_changed_is_encoded_again(cache, folder):
    fill(cache, planned(folder), Counting())
    Image.new("RGB", (64, 64), "green").save(folder / "1.png")
    (folder / "2.txt").write_text("another caption")
    family = Counting()
    fill(Cache(cache.root), planned(folder), family)
    assert len(family.pictures) == 1
    assert family.captions == [["another caption"]]
    family = Counting()
    family.text_identity = "text-2"
    fill(Cache(cache.root), planned(folder), family)
    assert (len(family.pictures), len(family.captions)) == (0, 3)


def test_prompts_and_the_empty_caption(cache, folder):
    family = Counting()
    fill(cache, planned(folder), family, prompts=["a prompt", "picture 1"], uncond_fraction=0.1, batch_size=99)
    assert family.captions == [["", "a prompt", "picture 0", "picture 1", "picture 2"]]
    assert cache.get(text_key("a prompt", "text-1"))["embeds"].tolist() == [8.0] * 4


def test_copies_of_a_picture_share_an_entry(cache, folder):
    (folder / "copy.png").write_bytes((folder / "0.png").read_bytes())
    (folder / "copy.txt").write_text("picture 0")
    family = Counting()
    fill(cache, planned(folder), family)
    assert (len(family.pictures), len(family.captions)) == (3, 3)


def test_vanished_buckets_are_not_encoded(cache, folder):
    Image.new("RGB", (128, 64)).save(folder / "wide.png")
    (folder / "wide.txt").write_text("wide")
    keys = {"enable_ar_bucket": True, "ar_buckets": [1.0, 2.0]}
    config = Dataset(resolutions=[32], directory=[Directory(path=str(folder))], **keys)
    made = plan(scan(config).rows, config, FACTS["flux"], micro_batch=3)
    assert captions_of(made) == {"picture 0", "picture 1", "picture 2"}
    family = Counting()
    fill(cache, made, family)
    assert (len(family.pictures), len(family.captions)) == (3, 3)


@pytest.mark.parametrize("copies", [False, True])
def test_truncated_picture_is_dropped_by_name(cache, folder, caplog, copies):
    noise = Image.effect_noise((64, 64), 90)
    names = ["bad.jpg", "copy.jpg"] if copies else ["bad.jpg"]
    noise.save(folder / "bad.jpg")
    data = (folder / "bad.jpg").read_bytes()[:-400]
    for name in names:
        (folder / name).write_bytes(data)
        (folder / name).with_suffix(".txt").write_text("bad")
    made, family = planned(folder), Counting()
    assert made.steps_per_epoch == 3 + len(names)
    filled = fill(cache, made, family)
    assert [f.path for f in filled.failures] == [folder / name for name in names]
    assert all(f.reason.startswith("corrupt: image file is truncated") for f in filled.failures)
    assert f"{folder / 'bad.jpg'} is left out: corrupt: image file is truncated" in caplog.text
    config = Dataset(resolutions=[32], directory=[Directory(path=str(folder))])
    rebuilt = plan(without(made.rows, dict(filled.failures)), config, FACTS["flux"])
    assert rebuilt.steps_per_epoch == 3


def test_pictures_that_vanish_or_change(cache, folder, monkeypatch):
    made = planned(folder)
    (folder / "0.png").unlink()
    digest = cache.digest(folder / "1.png")
    (folder / "1.png").write_bytes((folder / "2.png").read_bytes())
    failures = fill(cache, made, Counting()).failures
    assert failures == [
        Failure(folder / "0.png", "cannot be read: No such file or directory"),
        Failure(folder / "1.png", "changed while it was being cached: start again when it is at rest"),
    ]
    assert not cache.has(latents_key(digest, Size(32, 32), "pixels-1"))
    (folder / "1.png").unlink()
    assert fill(cache, made, Counting()).failures[1].reason == "cannot be read: No such file or directory"


def test_error_of_an_encoder_comes_through(cache, folder):
    family = Counting()
    family.encode_pixels = lambda pixels: (_ for _ in ()).throw(RuntimeError("out of memory"))
    with pytest.raises(RuntimeError, match=r"^out of memory$"):
        fill(cache, planned(folder), family)
    assert fill(cache, planned(folder), Counting()).misses == 6


def test_interrupted_fill_goes_on(cache, folder):
    made = planned(folder)
    calls = []

    class Stops(Counting):
        def encode_pixels(self, pixels):
            calls.append(1)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return super().encode_pixels(pixels)

    with pytest.raises(KeyboardInterrupt):
        fill(cache, made, Stops())
    filled = fill(Cache(cache.root), made, Counting())
    assert (filled.hits, filled.misses) == (1, 5)


@settings(max_examples=15, deadline=None)
@given(world=st.integers(1, 5), late=st.booleans())
def test_ranks_share_the_work(tmp_path_factory, world, late):
    folder = tmp_path_factory.mktemp("ranks")
    pictures(folder / "p", 7)
    made, family = planned(folder / "p", (16, 32)), Counting()
    # A rank that starts late finds the entries of the others and must still do all of its own.
    ranks = reversed(range(world)) if late else range(world)
    filled = [fill(Cache(folder / "c"), made, family, rank=rank, world=world, workers=2) for rank in ranks]
    assert sum(f.misses for f in filled) == len(family.pictures) + len(family.captions) == 21
    everything = fill(Cache(folder / "c"), made, Counting())
    assert (everything.hits, everything.misses) == (21, 0)


def test_bounded_look_ahead():
    started = []

    def work(item):
        started.append(item)
        return item * 2

    stream = ahead(work, range(1000), 2)
    assert next(stream) == (0, 0)
    time.sleep(0.05)
    assert len(started) <= 6
    stream.close()
    assert len(started) <= 6
    assert list(ahead(work, [], 2)) == []


def test_shards_are_plain_safetensors(cache, folder):
    fill(cache, planned(folder), Counting())
    assert [len(shards(cache.root, kind)) for kind in ("latents", "text")] == [1, 1]
    with safe_open(shards(cache.root, "text")[0], framework="pt") as file:
        assert sorted(file.get_tensor(name).shape for name in file.keys()) == [(4,)] * 3  # noqa: SIM118


def test_a_killed_run_leaves_whole_entries_alone(tmp_path):
    code = """
import sys, torch
from trainer.data.cache import Cache
from trainer.data.cache_keys import Key
cache, i = Cache(sys.argv[1]), 0
print("begins", flush=True)
while True:
    cache.put(Key("latents", f"{i:064x}"), {"a": torch.full((50_000,), float(i))})
    i += 1
"""
    run = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert run.stdout is not None
    run.stdout.readline()
    while len(shards(tmp_path, "latents")) < 5:
        time.sleep(0.01)
    run.kill()
    run.wait()
    cache = Cache(tmp_path)
    names = sorted(name for shard in shards(tmp_path, "latents") for name, _, _ in contents_of(shard).entries)
    assert len(names) >= 25
    assert [int(name, 16) for name in names] == list(range(len(names))), "all that was put before, and nothing else"
    for number, name in enumerate(names):
        assert cache.get(Key("latents", name))["a"].tolist() == [float(number)] * 50_000
    assert not cache.has(Key("latents", f"{len(names):064x}"))


def test_what_a_run_asks_for_is_marked_as_used(cache, folder):
    made = planned(folder)
    fill(cache, made, Counting())
    files = list(cache.root.rglob("*.safetensors"))
    for path in files:
        os.utime(path, (1.0, 1.0))
    fill(Cache(cache.root), made, Counting())
    assert all(time.time() - path.stat().st_mtime < 60 for path in files)


def test_no_file_is_hashed_twice_while_it_stays_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("DPNB_CACHE_DIR", str(tmp_path / "store"))
    paths = [tmp_path / f"{i}.bin" for i in range(3)]
    for path in paths:
        path.write_bytes(path.name.encode())
        os.utime(path, (1.0, 1.0))
    monkeypatch.setattr(store, "_SETTLED_NS", -(10**12))  # these files are new, and yet at rest
    first = Digests()
    found = [first.of(path) for path in paths]
    first.keep()
    paths[1].write_bytes(b"another")
    paths[2].unlink()
    read = []
    monkeypatch.setattr(hashlib, "file_digest", lambda file, _: read.append(file.name) or hashlib.sha256(b"read"))
    second = Digests()
    second.recall(paths)
    assert second.of(paths[0]) == found[0]
    assert read == []
    assert second.of(paths[1]) == hashlib.sha256(b"read").hexdigest()
    assert read == [str(paths[1])]
    with pytest.raises(DatasetError, match=r"2\.bin: cannot be read: No such file or directory$"):
        second.of(paths[2])
    third = Digests()
    third.add(second.known())
    assert third.of(paths[0]) == found[0]
