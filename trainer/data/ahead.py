"""Work done in threads a little ahead of whoever needs it, and no further: so memory is bounded.

Threads are enough for pictures: Pillow and PyAV release the interpreter while they decode and resize, and what of a
change of colours does not takes milliseconds (tests/bench/bench_cache.py has threads beside processes). Processes
would each hold the trainer's libraries in memory once more, and hand over every pixel.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

DECODED_BYTES = 512 * 2**20
"""Of pixels that wait for an encoder; one file may have more."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    workers: int,
    cost: Callable[[Item], int] = lambda _: 0,
) -> Iterator[tuple[Item, Result]]:
    """(item, function(item)) in order, computed in threads a little ahead: at most two for each worker, and together
    no more than `DECODED_BYTES` by their cost. Raises what the function raises, in its turn."""
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    taken = 0
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                while waiting and (len(waiting) >= 2 * workers + 1 or taken + cost(item) > DECODED_BYTES):
                    first, future = waiting.popleft()
                    yield first, future.result()
                    taken -= cost(first)
                waiting.append((item, pool.submit(function, item)))
                taken += cost(item)
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            for _, future in waiting:
                future.cancel()
