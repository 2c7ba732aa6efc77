"""How sound the exports of a run are, from the health.json that the trainer writes into each."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from dpnb.runs.rundir import RunDir, read_json

HEALTH_FILE = "health.json"
BROKEN = ".broken"  # the ending of an export that is not finite; the good one before it keeps its name


class Health(NamedTuple):
    """One export: what is wrong with it (nothing, where it is as it should be), and what is to be said of it."""

    folder: Path
    wrong: list[str]
    facts: list[str]


def health_of(run: RunDir) -> list[Health]:
    """The newest export, and every broken one."""
    folders = [folder for folder in run.exports() if not folder.name.endswith(BROKEN)][-1:]
    found = []
    for folder in [*folders, *sorted(run.path.glob(f"*{BROKEN}"))]:
        if (health := read_json(folder / HEALTH_FILE)) is not None:
            found.append(Health(folder, unhealthy(health), _facts(health)))
    return found


def unhealthy(health: dict[str, Any]) -> list[str]:
    """What is wrong with an export, from its health.json; nothing where it is as it should be."""
    found = []
    if health.get("finite") is False:
        found.append("it holds numbers that are not finite")
    nonzero, total = health.get("b_nonzero"), health.get("b_total")
    if isinstance(nonzero, int) and isinstance(total, int) and nonzero < total:
        found.append(f"{total - nonzero} of {total} trained matrices are still zero")
    if not health.get("tensors", 1):
        found.append("it holds no weights")
    for key, words in (("missing", "its file lacks"), ("unexpected", "its file holds what nobody asked for:")):
        if isinstance(names := health.get(key), list) and names:
            found.append(f"{words} {', '.join(map(str, names))}")
    if health.get("change") == 0:
        found.append(f"nothing has changed since {health.get('since')}")
    return found


def _facts(health: dict[str, Any]) -> list[str]:
    found = [f"{health.get('tensors', '?')} tensors"] + ["all finite"] * (health.get("finite") is True)
    if isinstance(norm := health.get("norm"), int | float):
        found.append(f"norm {norm:.4g}")
    if isinstance(norms := health.get("norms"), dict) and len(norms) > 1:
        largest = max(norms, key=lambda block: float(norms[block]))
        found.append(f"largest in {largest} ({norms[largest]:.3g})")
    if isinstance(change := health.get("change"), int | float):
        found.append(f"changed by {100 * change:.3g} % since {health.get('since')}")
    return found
