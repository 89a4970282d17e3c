"""Idempotency-Key: the same request again changes nothing and finds what the first one made."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select

from api.auth import Principal
from api.problems import ProblemError
from api.store.tables import idempotency

INSERT = insert(idempotency)
FIND = select(idempotency.c.operation, idempotency.c.digest, idempotency.c.resource).where(
    idempotency.c.principal == bindparam("a_principal"),
    idempotency.c.key == bindparam("a_key"),
)


@dataclass(frozen=True, kw_only=True)
class Once:
    """One request under one caller's key; without a key every request is its own."""

    caller: Principal
    key: str | None
    operation: str
    digest: str

    @classmethod
    def of(cls, caller: Principal, key: str | None, operation: str, body: Any) -> Once:
        """Bind a key to what was asked, which is kept as a sum only."""
        text = json.dumps(body, sort_keys=True, separators=(",", ":"))
        digest = hashlib.sha256(text.encode()).hexdigest()
        return cls(caller=caller, key=key, operation=operation, digest=digest)

    def begin(self, connection: Connection, *, resource: str, now: datetime) -> str | None:
        """Claim the key inside the caller's transaction; returns what the earlier request made.

        Args:
            connection: of the transaction that also writes what is asked for.
            resource: what this request makes, should the key be new.
            now: the present.

        Raises:
            ProblemError: if the key was used for another request.
        """
        before = self.find(connection)
        if before is None and self.key is not None:
            row = {
                "principal": self.caller.name, "key": self.key, "operation": self.operation,
                "digest": self.digest, "resource": resource, "created_at": now,
            }  # fmt: skip
            connection.execute(INSERT, row)
        return before

    def find(self, connection: Connection) -> str | None:
        """What an earlier request with this key made; None if there was none. Claims nothing.

        Raises:
            ProblemError: if the key was used for another request.
        """
        if self.key is None:
            return None
        mine = {"a_principal": self.caller.name, "a_key": self.key}
        before = connection.execute(FIND, mine).first()
        if before is None:
            return None
        if (before.operation, before.digest) != (self.operation, self.digest):
            raise ProblemError(
                "idempotency-key-reused",
                "This Idempotency-Key was used for another request; use a new one for each.",
            )
        return str(before.resource)
