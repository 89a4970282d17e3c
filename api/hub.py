"""Steps of the cases under way, for those who watch: nothing here is needed to survive a crash."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any


class Hub:
    """Keeps the new steps of each running case until they are stored, and wakes watchers."""

    def __init__(self) -> None:
        """Nobody watches and nothing runs."""
        self._fresh: dict[str, list[dict[str, Any]]] = {}
        self._bells: dict[str, asyncio.Event] = {}

    def listen(self, case_id: str) -> asyncio.Event:
        """An event that is set at the next change; take it *before* looking at the case."""
        return self._bells.setdefault(case_id, asyncio.Event())

    def publish(self, case_id: str, steps: Sequence[dict[str, Any]]) -> None:
        """Add steps of a running case."""
        if steps:
            self._fresh.setdefault(case_id, []).extend(steps)
            self.ring(case_id)

    def fresh(self, case_id: str, after: int) -> list[dict[str, Any]]:
        """Steps above ``after`` that may not be stored yet."""
        return [step for step in self._fresh.get(case_id, ()) if step["seq"] > after]

    def stored(self, case_id: str) -> None:
        """The case rests and its steps are in the store."""
        self._fresh.pop(case_id, None)
        self.ring(case_id)

    def ring(self, case_id: str) -> None:
        """Wake whoever watches the case."""
        bell = self._bells.pop(case_id, None)
        if bell is not None:
            bell.set()
