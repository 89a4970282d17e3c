"""API keys and roles: who calls, and what that caller may do.

Only SHA-256 sums of keys are kept. Keys are long and random, so a plain sum is enough; comparing
runs in constant time and over every key, so that timing tells nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Role = Literal["viewer", "reviewer", "admin"]
RANK: dict[Role, int] = {"viewer": 0, "reviewer": 1, "admin": 2}
KEY_BYTES = 32


class ApiKey(BaseModel):
    """One key: whose it is, what it may do, and its sum."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=100, pattern=r"^[^:,\s][^:,]*$")
    role: Role
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


@dataclass(frozen=True, kw_only=True)
class Principal:
    """The caller, as the key says."""

    name: str
    role: Role

    def may(self, role: Role) -> bool:
        """Whether the caller's role includes ``role``."""
        return RANK[self.role] >= RANK[role]


def hash_key(key: str) -> str:
    """SHA-256 of a key, hexadecimal: what the settings hold."""
    return hashlib.sha256(key.encode()).hexdigest()


def new_key(name: str, role: Role) -> tuple[str, ApiKey]:
    """Make a random key; returns the key, to be shown once, and what to keep of it."""
    key = secrets.token_urlsafe(KEY_BYTES)
    return key, ApiKey(name=name, role=role, sha256=hash_key(key))


class KeyRing:
    """Finds the owner of a key."""

    def __init__(self, keys: Sequence[ApiKey]) -> None:
        """Keep the sums; without any key nobody is let in."""
        self._keys = tuple(keys)

    def principal(self, key: str) -> Principal | None:
        """Who holds ``key``; None if nobody does."""
        given = hash_key(key).encode()
        found: Principal | None = None
        for entry in self._keys:
            if hmac.compare_digest(given, entry.sha256.encode()):
                found = Principal(name=entry.name, role=entry.role)
        return found
