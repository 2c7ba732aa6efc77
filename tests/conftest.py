"""How `make test` deals the tests out to processes: by files, the long ones first, the browser's all to one of them.

A file's tests share what its fixtures made, and two browsers at once would only make each other slow.
"""

from __future__ import annotations

import pytest


@pytest.hookimpl(trylast=True)  # the browser's tests are marked by a conftest of their own
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Group the tests by file for pytest-xdist, and put those first that everything else would wait for."""
    long = {item.path for item in items if item.get_closest_marker("slow") is not None}

    def turn(item: pytest.Item) -> int:
        return 0 if item.get_closest_marker("browser") is not None else 1 if item.path in long else 2

    items.sort(key=turn)
    for item in items:
        item.add_marker(pytest.mark.xdist_group("browser" if turn(item) == 0 else item.path.stem))
