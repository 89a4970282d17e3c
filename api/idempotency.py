"""Idempotency-Key: the same request again changes nothing and finds the same case."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from api.auth import Principal
from api.problems import ProblemError
from api.store.tables import idempotency


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

    async def begin(
        self, connection: AsyncConnection, *, case_id: str, now: datetime
    ) -> str | None:
        """Claim the key inside the caller's transaction; returns the earlier request's case.

        Raises:
            ProblemError: if the key was used for another request.
        """
        if self.key is None:
            return None
        table = idempotency.c
        found = await connection.execute(
            select(table.operation, table.digest, table.case_id).where(
                table.principal == self.caller.name, table.key == self.key
            )
        )
        before = found.first()
        if before is None:
            await connection.execute(
                insert(idempotency).values(
                    principal=self.caller.name,
                    key=self.key,
                    operation=self.operation,
                    digest=self.digest,
                    case_id=case_id,
                    created_at=now,
                )
            )
            return None
        if (before.operation, before.digest) != (self.operation, self.digest):
            raise ProblemError(
                "idempotency-key-reused",
                "This Idempotency-Key was used for another request; use a new one for each.",
            )
        return str(before.case_id)
