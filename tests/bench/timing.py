"""Median wall-clock times, and a table with the ratio to the first row. Machines are noisy: read the ratios."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable


def median_seconds(work: Callable[[], object], *, repeats: int = 5) -> float:
    """Median of several runs, after one that does not count."""
    work()
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def show(title: str, rows: dict[str, float], unit: str = "ms", scale: float = 1000.0) -> None:
    """Print one line a row: its figure, and how many times the first row's it is."""
    print(f"\n{title}")
    first = next(iter(rows.values()))
    for name, seconds in rows.items():
        print(f"  {name:<44}{seconds * scale:>12.2f} {unit}{seconds / first:>9.2f} x")
