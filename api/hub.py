"""What the cases under way have come to, for those who watch: nothing here has to survive a crash.

Watching a case reads memory, not the store: twenty watchers of twenty steps each would otherwise
keep the store busier than the reviews do.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary

KEEP = 512
CHANGES = 4096
"""Changes that a list which lost its connection can still catch up with."""


@dataclass(kw_only=True)
class Live:
    """Steps of a case since this server first worked on it; ``status`` is None while it runs."""

    steps: list[dict[str, Any]] = field(default_factory=list)
    status: str | None = None

    def covers(self, after: int) -> bool:
        """Whether no step above ``after`` is older than what is kept here."""
        return bool(self.steps) and int(self.steps[0]["seq"]) <= after + 1


class Hub:
    """Keeps the latest cases' steps and wakes watchers.

    Attributes:
        run: names this run of the server.
        changed: how many changes of cases there have been in it.
        closing: whether the server is going down.
    """

    def __init__(self) -> None:
        """Nobody watches and nothing runs."""
        self._live: OrderedDict[str, Live] = OrderedDict()
        # A bell is there as long as somebody listens to it.
        self._bells: WeakValueDictionary[str, asyncio.Event] = WeakValueDictionary()
        self._changes: deque[str] = deque(maxlen=CHANGES)
        self._any = asyncio.Event()
        self.run = secrets.token_hex(4)
        self.changed = 0
        self.closing = False

    def close(self) -> None:
        """The server is going down: let those who watch cases go, so that it need not wait."""
        self.closing = True
        for bell in list(self._bells.values()):
            bell.set()
        self._any.set()

    def listen(self, case_id: str) -> asyncio.Event:
        """An event that is set at the next change; take it *before* looking at the case."""
        return self._bells.setdefault(case_id, asyncio.Event())

    def live(self, case_id: str) -> Live | None:
        """What is known here of a case; None if this server has not worked on it lately."""
        return self._live.get(case_id)

    def publish(self, case_id: str, steps: Sequence[dict[str, Any]]) -> None:
        """Add steps of a running case."""
        live = self._live.setdefault(case_id, Live())
        self._live.move_to_end(case_id)
        known = live.steps[-1]["seq"] if live.steps else -1
        live.steps.extend(step for step in steps if step["seq"] > known)
        live.status = None
        while len(self._live) > KEEP:
            self._live.popitem(last=False)
        self._ring(case_id)

    def rest(self, case_id: str, status: str) -> None:
        """The case rests, and its steps are in the store."""
        live = self._live.get(case_id)
        if live is not None:
            live.status = status
        self._ring(case_id)

    def _ring(self, case_id: str) -> None:
        bell = self._bells.pop(case_id, None)
        if bell is not None:
            bell.set()
        self._changes.append(case_id)
        self.changed += 1
        self._any.set()
        self._any = asyncio.Event()

    def listen_all(self) -> asyncio.Event:
        """An event that is set at the next change of any case; take it *before* looking."""
        return self._any

    def changes(self, after: int) -> list[str] | None:
        """Cases that changed since number ``after``, each once; None if that is too long ago.

        The numbers count the changes of this run of the server, which ``run`` names.
        """
        behind = self.changed - after
        if not 0 <= behind <= len(self._changes):
            return None
        kept = list(self._changes)
        return list(dict.fromkeys(kept[len(kept) - behind :]))
