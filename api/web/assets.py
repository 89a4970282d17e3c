"""Style sheet, script and icon: read once, named by their content, cached for good."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
NAMES = ("app.css", "app.js", "icon.svg")
SUM_LENGTH = 16


@dataclass(frozen=True, kw_only=True)
class Asset:
    """One file with the name that it is served under."""

    path: str
    etag: str
    media_type: str
    content: bytes


def load_assets() -> Mapping[str, Asset]:
    """Every asset by its plain name."""
    found = {}
    for name in NAMES:
        content = (files("api.web") / "static" / name).read_bytes()
        digest = hashlib.sha256(content).hexdigest()[:SUM_LENGTH]
        stem, dot, ending = name.partition(".")
        found[name] = Asset(
            path=f"{stem}.{digest}{dot}{ending}",
            etag=f'"{digest}"',
            media_type=MEDIA_TYPES[dot + ending],
            content=content,
        )
    return found
