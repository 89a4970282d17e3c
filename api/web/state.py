"""What the page keeps between requests: sessions, failed sign-ins, templates, assets, charts."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from jinja2 import Environment

from api.web.assets import Asset, load_assets
from api.web.session import Attempts, Sessions
from api.web.templating import page_environment

KEEP = 256


class Memo:
    """Keeps the last results of what is dear to make; used on the event loop only."""

    def __init__(self, most: int = KEEP) -> None:
        """Remember nothing yet."""
        self._most = most
        self._kept: OrderedDict[Hashable, Any] = OrderedDict()

    def find(self, key: Hashable) -> Any:
        """What is kept under this key; None if nothing is."""
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def keep(self, key: Hashable, made: Any) -> None:
        """Keep it, and let go of what was not asked for the longest."""
        self._kept[key] = made
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)


@dataclass(kw_only=True)
class Web:
    """The page's own state; nothing here outlives the server.

    Attributes:
        sessions: who is signed in.
        attempts: failed sign-ins.
        secret: signs the sign-in form.
        memo: charts that need not be drawn again.
    """

    sessions: Sessions = field(default_factory=Sessions)
    attempts: Attempts = field(default_factory=Attempts)
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)
    memo: Memo = field(default_factory=Memo)

    @cached_property
    def assets(self) -> Mapping[str, Asset]:
        """Style sheet, script and icon."""
        return load_assets()

    @cached_property
    def templates(self) -> Environment:
        """The page's templates."""
        return page_environment(self.assets)
