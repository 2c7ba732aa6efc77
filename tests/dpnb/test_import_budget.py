"""`import dpnb` is nearly free, the public names are all there, and nothing drags in what it must not."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

import dpnb
from dpnb.toml import dump
from tests.dpnb.every_family import training

HEAVY = ("torch", "deepspeed", "diffusers", "transformers", "trainer", "ipywidgets", "bqplot", "numpy")


def loaded_after(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after a statement."""
    code = f"{statement}\nimport sys\nprint(' '.join({{name.split('.')[0] for name in sys.modules}}))"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def seconds(code: str) -> float:
    """The best of some starts: other work on the machine only ever adds."""
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        best = min(best, time.perf_counter() - start)
    return best


def test_import_takes_under_a_tenth_of_a_second_over_bare_python():
    assert seconds("import dpnb") - seconds("pass") < 0.1


@pytest.mark.parametrize(
    ("statement", "banned"),
    [
        ("import dpnb", (*HEAVY, "pydantic", "tomlkit", "psutil")),
        (
            "import dpnb.cli; dpnb.cli._parser(['tag', 'x']).parse_args(['tag', 'x'])",
            (*HEAVY, "pydantic", "tomlkit", "psutil"),
        ),
        ("import dpnb.runs.rundir, dpnb.errors", (*HEAVY, "pydantic", "tomlkit", "psutil")),
        ("import dpnb.runs.supervisor", (*HEAVY, "pydantic", "tomlkit")),
        ("import dpnb; dpnb.runs; dpnb.Run", (*HEAVY, "pydantic", "tomlkit")),
        ("import dpnb; dpnb.launch; dpnb.load", ("torch", "deepspeed", "trainer", "ipywidgets", "bqplot")),
    ],
)
def test_what_is_not_loaded(statement, banned):
    assert not loaded_after(statement) & set(banned)


def test_a_file_is_checked_without_the_families_that_it_does_not_name(tmp_path):
    (tmp_path / "run.toml").write_text(dump(training(family="sdxl")))
    argv = ["validate", "--no-paths", str(tmp_path / "run.toml")]
    code = f"import dpnb.cli, sys; assert dpnb.cli.main({argv}) == 0; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    families = {name for name in loaded if name.startswith("dpnb.schema.families.")}
    assert families == {"dpnb.schema.families.base", "dpnb.schema.families.sdxl"}


def test_public_names_are_sorted_and_listed():
    assert sorted(dpnb.__all__) == dpnb.__all__
    assert set(dpnb.__all__) <= set(dir(dpnb))


@pytest.mark.parametrize("name", [name for name in dpnb.__all__ if not name.endswith(("Form", "Monitor", "Gallery"))])
def test_each_name_can_be_had(name):
    assert getattr(dpnb, name) is not None


@pytest.mark.parametrize("name", ["TrainingForm", "DatasetForm", "Monitor", "Gallery"])
def test_each_widget_can_be_had(name):
    assert getattr(dpnb, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'dpnb' has no attribute 'lunch'"):
        _ = dpnb.lunch


def test_runs_is_both_the_package_and_the_table(tmp_path):
    import dpnb.runs.process

    assert dpnb.runs.process.runs(tmp_path).rows == ()
    assert str(dpnb.runs(tmp_path)) == "no runs"
