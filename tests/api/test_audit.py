"""The audit log: chained, append-only, and tampering shows."""

from __future__ import annotations

import asyncio
import sqlite3
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from api import audit
from api.errors import AuditError
from api.store.database import Database

NOW = datetime(2026, 3, 1, tzinfo=UTC)


async def filled(path: Path, n: int = 4) -> list[audit.AuditEntry]:
    database = Database(f"sqlite:///{path}")
    await database.setup()
    for i in range(n):
        row = {"subject": f"c{i}", "detail": {"urgency": 0.1 * i}}
        await database.write(
            partial(audit.append, time=NOW, actor="dr", action="case.created", **row)
        )
    log = await database.read(audit.read_log)
    await database.close()
    return log


def test_chain_holds_and_its_head_is_the_last_row(tmp_path: Path) -> None:
    log = asyncio.run(filled(tmp_path / "a.sqlite"))
    assert audit.verify(log) == log[-1].hash
    assert audit.verify(log, head=log[1].hash) == log[-1].hash
    assert audit.verify([]) == audit.GENESIS


@pytest.mark.parametrize("column", ["actor", "action", "subject", "detail", "time"])
def test_a_changed_row_shows(tmp_path: Path, column: str) -> None:
    from dataclasses import replace

    log = asyncio.run(filled(tmp_path / "a.sqlite"))
    other = {"detail": {"urgency": 0.9}, "time": NOW.replace(year=2027)}.get(column, "x")
    log[1] = replace(log[1], **{column: other})
    with pytest.raises(AuditError, match="row 1 was changed"):
        audit.verify(log)


def test_removed_rows_show(tmp_path: Path) -> None:
    log = asyncio.run(filled(tmp_path / "a.sqlite"))
    with pytest.raises(AuditError, match="row 1 is missing"):
        audit.verify([log[0], *log[2:]])
    assert audit.verify(log[:2]) == log[1].hash  # a shorter chain is still a chain ...
    with pytest.raises(AuditError, match="rows are gone"):
        audit.verify(log[:2], head=log[-1].hash)  # ... which the noted head gives away


def test_database_refuses_to_change_or_delete(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    asyncio.run(filled(path))
    connection = sqlite3.connect(path)
    for statement in ("UPDATE audit SET actor = 'x'", "DELETE FROM audit WHERE seq = 3"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            connection.execute(statement)
    connection.close()


def test_simultaneous_writers_keep_one_chain(tmp_path: Path) -> None:
    async def crowd() -> list[audit.AuditEntry]:
        database = Database(f"sqlite:///{tmp_path / 'a.sqlite'}")
        await database.setup()

        async def write(i: int) -> None:
            row = {"actor": f"dr-{i}", "action": "a", "subject": "s", "detail": {}}
            await database.write(partial(audit.append, time=NOW, **row))

        await asyncio.gather(*(write(i) for i in range(20)))
        log = await database.read(audit.read_log)
        await database.close()
        return log

    log = asyncio.run(crowd())
    assert len(log) == 20
    audit.verify(log)
