"""How `make test` deals the tests out to processes: by files, the long ones first, the browser's all to one of them.

A file's tests share what its fixtures made, and two browsers at once would only make each other slow.
"""

from __future__ import annotations

from typing import Any

import pytest

BROWSER = "tests/browser"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put those first that everything else would wait for."""
    long = {item.path for item in items if item.get_closest_marker("slow") is not None}

    def turn(item: pytest.Item) -> int:
        return 0 if item.nodeid.startswith(BROWSER) else 1 if item.path in long else 2

    items.sort(key=turn)


@pytest.hookimpl(optionalhook=True)  # pytest-xdist's own; without it nothing is dealt out
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Deal out whole files, and the folder of the browser's as if it were one."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return BROWSER if nodeid.startswith(BROWSER) else nodeid.partition("::")[0]

    return ByFile(config, log)
