"""notebooks/05-sweep.ipynb runs as it is: two real runs one after the other, compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.dpnb.run_notebook import REPOSITORY, executed, printed


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    parameters = {"5e-4, 2e-3, 8e-3": "5e-4, 8e-3", "steps = 8": "steps = 3"}
    cells = executed("05-sweep.ipynb", tmp_path, seconds=500, parameters=parameters)
    numbers = [line.split()[0] for line in printed(cells["change"]).splitlines()]
    assert numbers.index("3") < numbers.index("2"), "the last one was not moved forward"
    assert sorted(printed(cells["wait"]).splitlines()) == ["1 done", "2 done", "3 cancelled"]
    told = printed(cells["keep"]).splitlines()
    assert [line.split(",")[0] for line in told] == ["0.0005: done after 3 steps", "0.008: done after 3 steps"]
    assert (tmp_path / "dpnb-sweep" / "sweep.png").exists()
    assert "application/vnd.jupyter.widget-view+json" in cells["compare"].outputs[-1].data
