"""The event reader on files that TensorBoard's own writers made, whole, growing, torn, broken and resumed."""

from __future__ import annotations

import os
import random
import struct
import time
import tracemalloc

import numpy as np
import pytest
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from dpnb.runs.event_records import frames, masked_crc
from dpnb.runs.events import Average, Reader, Series, read_all, smoothed


def scalar(tag: str, step: int, value: float) -> Event:
    return Event(
        step=step, wall_time=1000.0 + step, summary=Summary(value=[Summary.Value(tag=tag, simple_value=value)])
    )


def packed(tag: str, step: int, content: bytes, plugin: str = "scalars", dtype: int = 1) -> Event:
    """A summary whose value is a tensor packed as bytes: what TensorFlow 2 and JAX write."""
    value = Summary.Value(tag=tag)
    value.metadata.plugin_data.plugin_name = plugin
    value.tensor.dtype = dtype
    value.tensor.tensor_content = content
    return Event(step=step, summary=Summary(value=[value]))


def write(folder, events, suffix: str = "") -> os.PathLike:
    """One event file made by TensorBoard's own writer; gives its path."""
    before = set(folder.rglob("events.out.*")) if folder.exists() else set()
    writer = EventFileWriter(str(folder), filename_suffix=suffix)
    for event in events:
        writer.add_event(event)
    writer.close()
    return next(iter(set(folder.rglob("events.out.*")) - before))


def test_points_of_every_tag(tmp_path):
    write(tmp_path, [scalar(tag, step, step / 2) for step in range(5) for tag in ("train/loss", "train/lr")])
    found = Reader(tmp_path).poll()
    assert set(found) == {"train/loss", "train/lr"}
    assert found["train/loss"].steps.tolist() == [0, 1, 2, 3, 4]
    assert found["train/loss"].wall_times.tolist() == [1000, 1001, 1002, 1003, 1004]
    assert found["train/loss"].values.tolist() == [0, 0.5, 1, 1.5, 2]
    assert found["train/loss"].steps.dtype == np.int64


def test_torch_writes_what_we_read(tmp_path):
    SummaryWriter = pytest.importorskip("torch.utils.tensorboard").SummaryWriter
    writer = SummaryWriter(tmp_path)
    for step in range(3):
        writer.add_scalar("old", step, step)
        writer.add_scalar("new", step, step, new_style=True)
        writer.add_text("words", "not a number", step)
    writer.add_scalars("many", {"a": 1.0}, 0)
    writer.close()
    found = Reader(tmp_path).poll()
    assert found["old"].values.tolist() == found["new"].values.tolist() == [0, 1, 2]
    assert set(found) == {"old", "new", "many_a/many"}


def test_tensor_scalars_texts_and_nan(tmp_path):
    events = [packed("packed", 1, struct.pack("<f", 2.5)), packed("t", 1, b"four", plugin="text")]
    events += [packed("odd", 1, b"no number")]
    double = Summary.Value(tag="double")
    double.tensor.double_val.append(0.25)
    events += [Event(step=2, summary=Summary(value=[double])), scalar("nan", 3, float("nan"))]
    write(tmp_path, events)
    found = Reader(tmp_path).poll()
    assert set(found) == {"packed", "double", "nan"}
    assert (found["packed"].values[0], found["double"].values[0]) == (2.5, 0.25)
    assert np.isnan(found["nan"].values[0])


def test_a_missing_folder_has_nothing_yet(tmp_path):
    reader = Reader(tmp_path / "later")
    assert reader.poll() == {}
    write(tmp_path / "later", [scalar("a", 1, 1.0)])
    assert reader.poll()["a"].steps.tolist() == [1]


def test_a_file_cut_at_random_bytes_gives_every_event_once(tmp_path):
    whole = write(tmp_path / "whole", [scalar("a", step, step) for step in range(2000)])
    data = whole.read_bytes()
    growing = tmp_path / "run" / "events.out.tfevents.1.x"
    growing.parent.mkdir()
    reader, seen, rng = Reader(growing.parent), [], random.Random(0)
    with growing.open("ab") as file:
        at = 0
        while at < len(data):
            size = rng.choice([1, 3, 13, 200, 4000])
            file.write(data[at : at + size])
            file.flush()
            at += size
            if points := reader.poll().get("a"):
                seen += points.steps.tolist()
    assert seen == list(range(2000))
    assert reader.poll() == {}


@pytest.mark.parametrize("cut", [1, 7, 15, 40])
def test_a_file_that_stays_torn_keeps_what_is_whole(tmp_path, cut):
    path = write(tmp_path, [scalar("a", step, 0.0) for step in range(10)])
    path.write_bytes(path.read_bytes()[:-cut])
    reader = Reader(tmp_path)
    assert reader.poll()["a"].steps.tolist()[0] == 0
    assert reader.poll() == {}


def test_noise_ends_its_own_file_only(tmp_path):
    rng = random.Random(1)
    first = write(tmp_path, [scalar("a", step, 0.0) for step in range(5)])
    with first.open("ab") as file:
        file.write(rng.randbytes(5000))
    write(tmp_path, [scalar("b", 7, 0.0)], suffix=".later")
    found = Reader(tmp_path).poll()
    assert found["a"].steps.tolist() == [0, 1, 2, 3, 4]
    assert found["b"].steps.tolist() == [7]


def test_a_length_with_the_right_check_sum_but_broken_data_ends_the_file(tmp_path):
    path = write(tmp_path, [scalar("a", 1, 0.0)])
    data = bytearray(path.read_bytes())
    data[-16:-4] = b"\xff" * 12
    path.write_bytes(data)
    write(tmp_path, [scalar("b", 2, 0.0)], suffix=".later")
    assert set(Reader(tmp_path).poll()) == {"b"}


def test_a_record_larger_than_a_chunk(tmp_path, monkeypatch):
    monkeypatch.setattr("dpnb.runs.events._CHUNK_BYTES", 64)
    write(tmp_path, [scalar("a", 1, 1.0), packed("t", 2, b"x" * 10_000, "text"), scalar("a", 3, 3.0)])
    assert Reader(tmp_path).poll()["a"].steps.tolist() == [1, 3]


def test_pictures_folders_are_not_searched(tmp_path):
    for name in ("samples", "global_step40", "epoch2", "step9"):
        write(tmp_path / name, [scalar("hidden", 1, 1.0)])
    write(tmp_path / "sub", [scalar("a", 1, 1.0)])
    assert set(Reader(tmp_path).poll()) == {"sub/a"}


def test_a_resume_replaces_what_it_repeats(tmp_path):
    for number, (start, stop, value) in enumerate([(0, 10, 1.0), (6, 12, 2.0)]):
        path = write(tmp_path, [scalar("a", step, value) for step in range(start, stop)])
        path.rename(tmp_path / f"events.out.tfevents.{number}.host")
    series = read_all(tmp_path)["a"]
    assert series.steps.tolist() == list(range(12))
    assert series.values.tolist() == [1.0] * 6 + [2.0] * 6


def test_series_says_from_where_it_changed():
    def points(*steps):
        return np.array(steps, np.int64), np.zeros(len(steps)), np.arange(len(steps), dtype=float)

    series = Series()
    assert series.extend(points(1, 2, 3)) == 0
    assert series.extend(points(4, 5)) == 3
    assert series.extend(points()) == 5
    assert series.extend(points(3, 4)) == 2
    assert series.steps.tolist() == [1, 2, 3, 4]
    assert series.extend(points(*range(5, 2000))) == 4
    assert len(series) == 1999
    assert series.extend(points(10, 11, 2, 3)) == 1
    assert series.steps.tolist() == [1, 2, 3]


def test_memory_does_not_grow_with_the_file(tmp_path):
    write(tmp_path, [scalar("a", step, 0.0) for step in range(20_000)])
    reader = Reader(tmp_path)
    reader.poll()
    tracemalloc.start()
    for _ in range(50):
        reader.poll()
    assert tracemalloc.get_traced_memory()[0] < 100_000
    tracemalloc.stop()


def test_smoothing_is_debiased_and_passes_over_nan():
    values = np.array([4.0, 4.0, np.nan, 4.0, np.inf])
    assert smoothed(values, 0.9) == pytest.approx([4.0] * 5)
    assert np.isnan(smoothed(np.array([np.nan, 1.0]))[0])
    plain = smoothed(np.array([1.0, 0.0]), 0.5)
    assert plain == pytest.approx([1.0, 0.25 / 0.75])


def test_an_average_that_grows_is_the_average_of_all():
    rng = np.random.default_rng(0)
    values = rng.normal(size=2000)
    values[[0, 7, 500, 501]] = np.nan
    growing = Average(0.9)
    for stop in (0, 1, 5, 300, 300, 1200, 2000):
        assert growing.extend(values[:stop]).tolist() == pytest.approx(smoothed(values[:stop]).tolist(), nan_ok=True)
    values[1000:] += 1
    grown = growing.extend(values, first_changed=1000)
    assert grown.tolist() == pytest.approx(smoothed(values).tolist(), nan_ok=True)


STEPS = (0, 1, 127, 128, 16383, 16384, 2**21, 2**31, 2**40, -1)


def test_every_form_of_record_gives_what_protobuf_reads(tmp_path):
    """Plain scalars are read without protobuf; what only looks like one must not be taken for one."""
    rng = random.Random(2)
    tags = ["a", "b/c", "train/loss", "x" * 90, "y" * 130, "é/ü", ""]
    events, expected = [], {}
    for number in range(3000):
        tag, step, value = rng.choice(tags), rng.choice(STEPS), struct.unpack("<f", struct.pack("<f", rng.random()))[0]
        summary = [Summary.Value(tag=tag, simple_value=value)]
        if number % 7 == 0:
            summary += [Summary.Value(tag="second", simple_value=value)]
        if number % 11 == 0:
            summary[0].node_name = "n"
        if number % 13 == 0:
            summary = [Summary.Value(tag="\x15" * 8, simple_value=value)]
        events.append(Event(step=step, wall_time=rng.random() * (number % 5 > 0), summary=Summary(value=summary)))
        for item in summary:
            expected.setdefault(item.tag, []).append((step, events[-1].wall_time, value))
    write(tmp_path, [*events, Event(file_version="later"), Event(step=3)])
    found = Reader(tmp_path).poll()
    columns = {tag: [column.tolist() for column in points] for tag, points in found.items()}
    assert {tag: list(zip(*lists, strict=True)) for tag, lists in columns.items()} == expected


@pytest.mark.parametrize("seed", range(4))
def test_records_are_found_whether_their_lengths_repeat_or_not(seed):
    """Long rows of one pattern, broken by others and by chance, cut anywhere: as a plain walk from one to the next."""
    draw = random.Random(seed)
    lengths = []
    for _ in range(30):
        pattern = [draw.choice((20, 33, 47, 300)) for _ in range(draw.randint(1, 80))]
        lengths += pattern * draw.randint(1, 60)
        lengths += [draw.randint(0, 5000) for _ in range(draw.randint(0, 5))]
    data = b"".join(struct.pack("<QI", length, 0) + b"\xff" * length + b"crc." for length in lengths)
    for end in (len(data), draw.randrange(len(data)), 11, 0):
        starts, found, after = frames(data[:end])
        at, whole = 0, []
        while at + 12 <= end and at + 16 + (length := struct.unpack_from("<Q", data, at)[0]) <= end:
            whole.append((at + 12, length))
            at += 16 + length
        assert list(zip(starts.tolist(), found.tolist(), strict=True)) == whole
        assert after == at


def test_the_check_sum_is_tensorboards():
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    for data in (b"", b"\0" * 8, struct.pack("<Q", 4711), bytes(range(9))):
        assert masked_crc(data) == masked_crc32c(data)


def test_diffusion_pipe_s_own_tags(tmp_path):
    """Its epochs go up in train/epoch_loss, its evaluations begin at 0; train/automagic_lrs is a histogram."""
    histogram = Summary.Value(tag="train/automagic_lrs")
    histogram.histo.num = 3
    events = [
        scalar("held/loss_quantile_0.10", 0, 1.0),
        scalar("held/loss", 0, 1.0),
        scalar("eval/eval_time_sec", 0, 2),
    ]
    events += [scalar("train/loss", step, 0.5) for step in range(1, 9)]
    events += [scalar("train/epoch_loss", 1, 0.4), Event(step=3, summary=Summary(value=[histogram]))]
    write(tmp_path, events)
    found = Reader(tmp_path).poll()
    assert {tag: len(points.steps) for tag, points in found.items()} == {
        "held/loss_quantile_0.10": 1,
        "held/loss": 1,
        "eval/eval_time_sec": 1,
        "train/loss": 8,
        "train/epoch_loss": 1,
    }


def test_it_is_five_times_as_fast_as_tensorboards_own(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write(tmp_path, [scalar(tag, step, 0.5) for step in range(10_000) for tag in ("a", "b", "c", "d")])

    def seconds(read) -> float:
        start = time.perf_counter()
        read()
        return time.perf_counter() - start

    Reader(tmp_path).poll()  # what is imported is imported now
    ours = min(seconds(Reader(tmp_path).poll) for _ in range(3))
    theirs = seconds(EventAccumulator(str(tmp_path), size_guidance={"scalars": 0}).Reload)
    assert theirs > 5 * ours
