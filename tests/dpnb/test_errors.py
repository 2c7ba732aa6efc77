"""A problem says where, what and what to do on one line; every error of ours is a DpnbError."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest

from dpnb import errors
from dpnb.errors import ConfigError, DatasetError, DpnbError, LaunchError, PreflightError, Problem, RunError, errors_in


@pytest.mark.parametrize(
    ("loc", "key"),
    [
        ((), ""),
        (("epochs",), "epochs"),
        (("model", "dtype"), "model.dtype"),
        (("directory", 0, "path"), "directory[0].path"),
        (("a", 1, 2), "a[1][2]"),
        (("dataset.x",), '"dataset.x"'),
        (("model", ""), 'model.""'),
        (("a\nb",), '"a\\nb"'),
        (("größe",), '"größe"'),
    ],
)
def test_key_is_what_a_person_would_say(loc, key):
    assert Problem("error", "value", loc, "is wrong.").key == key


@pytest.mark.parametrize(
    ("problem", "line"),
    [
        (Problem("error", "value", ("a",), "is wrong."), "error: a: is wrong."),
        (Problem("warning", "rule", ("a",), "has no effect.", "Remove it."), "warning: a: has no effect. Remove it."),
        (Problem("error", "syntax", (), "is not TOML."), "error: is not TOML."),
        (Problem("error", "path", ("a",), "is wrong.", "", "x.toml"), "x.toml: error: a: is wrong."),
        (Problem("error", "value", ("a",), "is wrong.").at("x.toml", 3, 7), "x.toml:3:7: error: a: is wrong."),
    ],
)
def test_a_problem_is_one_line(problem, line):
    assert str(problem) == line


def test_an_error_carries_all_its_problems():
    problems = [Problem("error", "value", ("a",), "is wrong."), Problem("warning", "rule", ("b",), "has no effect.")]
    for kind in (ConfigError, PreflightError):
        error = kind(problem for problem in problems)
        assert error.problems == tuple(problems)
        assert str(error) == "error: a: is wrong.\nwarning: b: has no effect."
    assert errors_in(problems) == problems[:1]


def test_the_tree_is_the_one_that_is_drawn():
    for kind in (ConfigError, DatasetError, PreflightError, RunError, LaunchError):
        assert issubclass(kind, DpnbError)
        assert kind.__name__ in str(errors.__doc__)
    assert issubclass(ConfigError, ValueError)
    assert issubclass(DatasetError, ValueError)


def test_only_the_standard_library_is_needed():
    script = "import sys, dpnb.errors; print(sorted({m.split('.')[0] for m in sys.modules} - sys.stdlib_module_names))"
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=False)
    if done.returncode:  # not installed, only on the path
        pytest.skip("dpnb is not installed")
    assert not {"pydantic", "tomlkit", "numpy"} & set(eval(done.stdout))  # noqa: S307 - our own output


def test_errors_survive_the_way_to_another_process() -> None:
    error = ConfigError([Problem("error", "value", ("epochs",), "is odd.", "Make it even.", "run.toml", 3, 1)])
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.problems) == (str(error), error.problems)
