"""notebooks/04-monitor.ipynb runs as it is: a real run of the tiny model is watched, steered and reported."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.dpnb.run_notebook import REPOSITORY, executed, printed


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_monitor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    cells = executed("04-monitor.ipynb", tmp_path, seconds=400, parameters={"steps = 200": "steps = 30"})
    assert "paused at step " in printed(cells["steer"])
    told = printed(cells["end"])
    assert told.startswith("The run is done.\n")
    for kind in ("learning rate - learning rate 0.0005", "paused", "continued", "saved", "sampled"):
        assert kind in told
    assert printed(cells["numbers"]).startswith("30 steps, ")
    assert "0.0005" in printed(cells["numbers"])
    assert (tmp_path / "dpnb-monitor" / "report.html").stat().st_size > 10_000
    assert (tmp_path / "dpnb-monitor" / "contact-sheet.png").exists()
    for name in ("monitor", "gallery"):
        assert "application/vnd.jupyter.widget-view+json" in cells[name].outputs[-1].data
