"""The average of the weights: its arithmetic, what it shows and where, and that a resume goes on exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from dpnb.runs.rundir import RunDir
from dpnb.schema.loss import Ema
from tests.trainer import small
from tests.trainer.two_stages import micro_batches
from trainer import checkpoint, export
from trainer.callbacks import Progress
from trainer.ema import Average, decay_at, shown
from trainer.engine import StageEngine

Built = tuple[StageEngine, Any, Any]
PLACE = {"epoch": 0, "batch": 0}


def one(value: float, dtype: torch.dtype = torch.float32) -> nn.Parameter:
    return nn.Parameter(torch.tensor([value], dtype=dtype))


def averaged(values: list[float], **asked: Any) -> float:
    """The average after the steps that gave these values, the first of them before any step."""
    parameter = one(values[0])
    average = Average(Ema(**asked), [parameter])
    for step, value in enumerate(values[1:], 1):
        with torch.no_grad():
            parameter.fill_(value)
        average.update(step)
    return float(average.means[0])


def test_the_memory_grows_until_it_is_as_long_as_asked() -> None:
    warmup = [decay_at(Ema(decay=0.9), step) for step in (1, 2, 10, 80, 81, 1000)]
    assert warmup == pytest.approx([2 / 11, 3 / 12, 11 / 20, 81 / 90, 0.9, 0.9])
    assert decay_at(Ema(decay=0.9, schedule="constant"), 1) == 0.9


def test_averages_by_hand() -> None:
    assert averaged([0.0, 1.0, 2.0], decay=0.75, schedule="constant") == pytest.approx(0.75 * 0.25 + 0.25 * 2)
    assert averaged([0.0, 1.0], decay=0.999) == pytest.approx(9 / 11)
    assert averaged([0.0, 1.0, 2.0, 3.0], decay=0.5, schedule="constant", every_n_steps=2) == pytest.approx(1.0)


def test_the_average_is_finer_than_the_weights() -> None:
    parameter = one(1.0, torch.bfloat16)
    average = Average(Ema(decay=0.999, schedule="constant"), [parameter])
    with torch.no_grad():
        parameter.fill_(1.0078125)  # the next number that bfloat16 has
    average.update(1)
    assert average.means[0].dtype == torch.float32
    assert 1 < float(average.means[0]) < 1.0001


@pytest.mark.parametrize(
    ("sample", "beside", "first", "second"), [(True, "raw", 0.5, 1.0), (False, "average", 1.0, 0.5)]
)
def test_what_is_shown_and_what_lies_beside_it(sample: bool, beside: str, first: float, second: float) -> None:
    parameter = one(0.0)
    average = Average(Ema(decay=0.5, schedule="constant", sample=sample), [parameter])
    with torch.no_grad():
        parameter.fill_(1.0)
    average.update(1)
    assert average.beside == beside
    with average.shown():
        assert float(parameter) == first
    with average.hidden():
        assert float(parameter) == second
    with pytest.raises(KeyError), average.shown():
        raise KeyError
    assert float(parameter) == 1.0, "the weights come back whatever happens"
    with shown(None):
        assert float(parameter) == 1.0


@pytest.fixture(scope="module")
def built() -> Built:
    small.alone()
    return small.lora_engine(small.training(gradient_accumulation_steps=2))


def average_of(built: Built, **asked: Any) -> Average:
    return Average(Ema(**({"decay": 0.9} | asked)), list(small.trained_names(built[1])))


def exporter(built: Built, path: Path, average: Average) -> export.Exporter:
    _, network, config = built
    names = small.trained_names(network)
    return export.Exporter(small.family(), small.training(), RunDir(path), small.alone(), names, config, average)


def test_a_resume_goes_on_exactly(built: Built, tmp_path: Path) -> None:
    own = built[0]
    average = average_of(built)

    def steps(first: int) -> list[torch.Tensor]:
        for step in range(first, first + 3):
            own.train_step(micro_batches())
            average.update(step)
        return [mean.clone() for mean in average.means]

    steps(1)
    folder = checkpoint.save(own, RunDir(tmp_path), small.alone(), Progress(3), PLACE, average)
    expected = steps(4)
    other = average = average_of(built)
    checkpoint.load(own, folder, small.training(), other)
    assert all(torch.equal(a, b) for a, b in zip(steps(4), expected, strict=True))


def test_an_average_that_a_checkpoint_lacks_begins_with_its_weights(built: Built, tmp_path: Path) -> None:
    own = built[0]
    average = average_of(built)
    folder = checkpoint.save(own, RunDir(tmp_path), small.alone(), Progress(3), PLACE)
    own.train_step(micro_batches())
    checkpoint.load(own, folder, small.training(), average)
    assert all(torch.equal(mean, p) for mean, p in zip(average.means, average.parameters, strict=True))


@pytest.mark.parametrize("sample", [True, False])
def test_an_export_holds_what_is_shown_and_the_other_beside_it(built: Built, sample: bool, tmp_path: Path) -> None:
    own, network, _ = built
    average = average_of(built, sample=sample)
    own.train_step(micro_batches())
    average.update(1)
    weights = [p.detach().clone() for p in average.parameters]
    exporter(built, tmp_path, average).save(own, "epoch1")
    assert all(torch.equal(p, w) for p, w in zip(average.parameters, weights, strict=True)), "training is left alone"
    folders = {True: tmp_path / "epoch1", False: tmp_path / "epoch1" / average.beside}
    for is_average in (True, False):
        folder = folders[is_average == sample]
        found = load_file(folder / "adapter_model.safetensors")
        assert (folder / "adapter_model.safetensors").stat().st_mode & 0o444 == 0o444
        assert (folder / "adapter_config.json").is_file()
        values = average.means if is_average else weights
        for (parameter, name), value in zip(small.trained_names(network).items(), values, strict=True):
            assert parameter.shape == value.shape
            assert torch.equal(found["transformer." + export.adapters.export_name(name)], value)
    assert [path.name for path in RunDir(tmp_path).exports()] == ["epoch1"]
