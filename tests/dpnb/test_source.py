"""form.code(): Python that, run in a cell, builds the same object."""

from __future__ import annotations

import random

import pytest
from pydantic import SecretStr

from dpnb import schema
from dpnb.errors import ConfigError
from dpnb.schema import Dataset, Directory, Monitoring, OtherOptimizer, Training
from dpnb.schema.base import Section
from dpnb.widgets.fields import every_field
from dpnb.widgets.form import Form, TrainingForm
from dpnb.widgets.source import source_of
from tests.dpnb.every_family import training
from tests.dpnb.random_section import random_section


def built(source: str, name: str) -> Section:
    """What a cell with that source holds under a name."""
    cell: dict[str, object] = {}
    exec(source, cell)  # noqa: S102 - that is what the text is for
    found = cell[name]
    assert isinstance(found, Section)
    return found


def open_secrets_gone(section: Section) -> Section:
    if isinstance(section, Training) and section.monitoring is not None:
        section.monitoring.wandb_api_key = None
    return section


@pytest.mark.parametrize("seed", range(150))
def test_running_the_code_gives_an_equal_object(seed: int) -> None:
    rng = random.Random(seed)
    cls = rng.choice((Training, Dataset))
    section = random_section(cls, rng)
    source = source_of(section)
    assert built(source, cls.__name__.lower()) == open_secrets_gone(section)
    assert "hunter2" not in source


def test_every_class_that_code_may_need_is_public() -> None:
    for owner in {spec.owner for spec in every_field(Training, Dataset)}:
        assert getattr(schema, owner.__name__, None) is owner, owner
        assert owner.__name__ in schema.__all__


def test_only_what_differs_is_written_in_public_names() -> None:
    form = TrainingForm(training(optimizer=OtherOptimizer(type="Prodigy", lr=1.0, d_coef=0.5)))
    assert form.code() == (
        "import dpnb\n"
        "from dpnb.schema import FluxModel, LoraAdapter, OtherOptimizer\n"
        "\n"
        "training = dpnb.Training(\n"
        '    output_dir="out",\n'
        '    dataset="dataset.toml",\n'
        "    epochs=1,\n"
        "    save_every_n_epochs=1,\n"
        '    model=FluxModel(diffusers_path="weights/diffusers_path"),\n'
        "    adapter=LoraAdapter(rank=4),\n"
        '    optimizer=OtherOptimizer(type="Prodigy", lr=1.0, d_coef=0.5),\n'
        ")\n"
    )
    form.close()


def test_a_secret_is_left_out_and_said_to_be() -> None:
    source = source_of(training(monitoring=Monitoring(wandb_api_key=SecretStr("hunter2"))))
    assert "hunter2" not in source
    assert "# wandb_api_key is left out: it is a secret" in source
    assert built(source, "training").monitoring == Monitoring()  # type: ignore[attr-defined]


def test_a_class_of_somebody_else_is_imported_from_its_module() -> None:
    source = source_of(ToySize(side=3))
    assert f"from {__name__} import ToySize\n" in source
    assert built(source, "toy_size") == ToySize(side=3)


class ToySize(Section):
    """Of no module of ours."""

    side: int = 1


def test_many_folders_stand_one_a_line() -> None:
    source = source_of(Dataset(resolutions=[512], directory=[Directory(path=f"photos/{i}") for i in range(9)]))
    assert source.count('\n        Directory(path="photos/') == 9
    assert "import dpnb\nfrom dpnb.schema import Directory\n" in source


def test_a_form_of_a_class_gives_code_once_it_is_valid() -> None:
    form = Form(ToySize)
    assert "toy_size = ToySize()" in form.code()
    form.set("side", "x")
    with pytest.raises(ConfigError, match="side"):
        form.code()
    form.close()
