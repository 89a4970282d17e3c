"""The audit log: who did what to which case, chained so that tampering shows.

Each row holds the SHA-256 of its own content together with the row before it. Changing, removing
or inserting a row breaks the chain from there on. Removing rows from the *end* leaves a shorter
valid chain, so keep the head (``GET /v1/audit`` and the metrics give it) somewhere else as well.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, insert, select

from api.errors import AuditError
from api.store.tables import audit

GENESIS = "0" * 64
LAST = select(audit.c.seq, audit.c.hash).order_by(audit.c.seq.desc()).limit(1)
INSERT = insert(audit)


@dataclass(frozen=True, kw_only=True)
class AuditEntry:
    """One row of the log."""

    seq: int
    time: datetime
    actor: str
    action: str
    subject: str
    detail: Mapping[str, Any]
    previous: str
    hash: str


def entry_hash(
    *,
    seq: int,
    time: datetime,
    actor: str,
    action: str,
    subject: str,
    detail: Mapping[str, Any],
    previous: str,
) -> str:
    """SHA-256 over the row's canonical JSON and the hash of the row before."""
    content = [seq, time.astimezone(UTC).isoformat(), actor, action, subject, detail, previous]
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def append(
    connection: Connection,
    *,
    time: datetime,
    actor: str,
    action: str,
    subject: str,
    detail: Mapping[str, Any],
) -> str:
    """Add a row in the caller's write transaction: act and record stand or fall together.

    ``detail`` must hold no feature value and no patient's id. Returns the row's hash.
    """
    last = connection.execute(LAST).first()
    seq, previous = (last.seq + 1, last.hash) if last else (0, GENESIS)
    row: dict[str, Any] = {
        "seq": seq,
        "time": time,
        "actor": actor,
        "action": action,
        "subject": subject,
        "detail": dict(detail),
        "previous": previous,
    }
    row["hash"] = entry_hash(**row)
    connection.execute(INSERT, row)
    return str(row["hash"])


def read_log(connection: Connection) -> list[AuditEntry]:
    """The whole log in order."""
    rows = connection.execute(select(audit).order_by(audit.c.seq))
    return [AuditEntry(**row) for row in rows.mappings()]


def verify(entries: Iterable[AuditEntry], *, head: str | None = None) -> str:
    """Check the chain; returns its head (the last row's hash).

    Args:
        entries: the log in order.
        head: the head that was noted elsewhere; given, it must be a row of this log.

    Raises:
        AuditError: naming the first row that does not fit.
    """
    previous, hashes = GENESIS, {GENESIS}
    for expected, entry in enumerate(entries):
        content = {k: v for k, v in vars(entry).items() if k != "hash"}
        if entry.seq != expected:
            raise AuditError(f"Audit row {expected} is missing; row {entry.seq} stands there.")
        if entry.previous != previous or entry.hash != entry_hash(**content):
            raise AuditError(f"Audit row {entry.seq} was changed, or a row before it was.")
        previous = entry.hash
        hashes.add(previous)
    if head is not None and head not in hashes:
        raise AuditError("The audit log does not contain the head that was noted: rows are gone.")
    return previous
