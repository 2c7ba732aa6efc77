"""Undo and redo of a form: moments of its draft, the newest hundred.

A moment holds no secrets: what a person takes out of the form is gone from memory, and undo cannot bring it back.
Secrets stay as they are when a form goes back or forth. No widgets here.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

from dpnb.errors import Loc
from dpnb.widgets.draft import Draft, Left

MOMENTS = 100


@dataclass(frozen=True, slots=True)
class Moment:
    """A draft at one time, without its secrets."""

    data: dict[str, Any]
    left: Left
    unread: dict[Loc, str]


def moment_of(draft: Draft) -> Moment:
    """What `restore` needs to come back to now."""
    return Moment(_without_secrets(draft.data), _without_secrets(draft.left), dict(draft.unread))


def restore(draft: Draft, moment: Moment) -> None:
    """Make everything in a draft as it was but the secrets, which stay where their section still is."""
    secrets = list(_secrets(draft))
    draft.data, draft.left = deepcopy(moment.data), deepcopy(moment.left)
    draft.unread = dict(moment.unread)
    for loc, name, secret in secrets:
        here = draft.get(loc)
        table = here if isinstance(here, dict) else draft.left.get((loc, None))
        if table is not None:
            table[name] = secret


def _without_secrets(value: Any) -> Any:  # noqa: ANN401 - anything that a draft holds
    """A deep copy of plain data without its secrets."""
    if isinstance(value, dict):
        return {key: _without_secrets(item) for key, item in value.items() if not isinstance(item, SecretStr)}
    return [_without_secrets(item) for item in value] if isinstance(value, list) else value


def _secrets(draft: Draft) -> Iterator[tuple[Loc, str, SecretStr]]:
    """Every secret of a section at a fixed place; in a list, a place may have meant another item at that time."""
    tables = [(loc, data) for (loc, arm), data in draft.left.items() if arm is None]
    tables += [(loc, data) for loc, _, data in draft.sections()]
    for loc, data in tables:
        for name, value in data.items():
            if isinstance(value, SecretStr) and all(isinstance(part, str) for part in loc):
                yield loc, name, value


class History:
    """What came before and, after an undo, what comes after."""

    def __init__(self) -> None:
        self._before: list[Moment] = []
        self._after: list[Moment] = []

    @property
    def can_undo(self) -> bool:
        """True where there is something to go back to."""
        return bool(self._before)

    @property
    def can_redo(self) -> bool:
        """True after an undo, until the next change."""
        return bool(self._after)

    def changed(self, before: Moment, draft: Draft) -> None:
        """Remember how it was before a change; one that changed nothing, or nothing but a secret, is none."""
        if before != moment_of(draft):
            self._before = [*self._before, before][-MOMENTS:]
            self._after.clear()

    def undo(self, draft: Draft) -> bool:
        """Go back by one change; False where there is none."""
        return self._go(draft, self._before, self._after)

    def redo(self, draft: Draft) -> bool:
        """Make the change again that was undone last; False where there is none."""
        return self._go(draft, self._after, self._before)

    @staticmethod
    def _go(draft: Draft, source: list[Moment], target: list[Moment]) -> bool:
        if not source:
            return False
        target.append(moment_of(draft))
        restore(draft, source.pop())
        return True
