"""The store's engine: groups share a commit, a failure takes nobody else's work with it."""

from __future__ import annotations

import asyncio
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, insert, select, text

from api.store.database import Database
from api.store.tables import actions, cases, idempotency

NOW = datetime(2030, 1, 1, tzinfo=UTC)


async def opened(path: Path) -> Database:
    database = Database(f"sqlite:///{path}")
    await database.setup()
    return database


def key(number: int) -> dict[str, Any]:
    return {
        "principal": "dr", "key": f"k{number}", "operation": "o", "digest": "d",
        "resource": "r", "created_at": NOW,
    }  # fmt: skip


def keys(connection: Connection) -> list[str]:
    return sorted(connection.execute(select(idempotency.c.key)).scalars())


def test_one_failure_in_a_group_undoes_only_itself(tmp_path: Path) -> None:
    async def run() -> tuple[list[Any], list[str]]:
        database = await opened(tmp_path / "a.sqlite")

        def work(number: int, connection: Connection) -> int:
            connection.execute(insert(idempotency), key(number))
            if number % 3 == 0:
                raise KeyError(number)
            return number

        results = await asyncio.gather(
            *(database.write(lambda c, i=i: work(i, c)) for i in range(30)),  # type: ignore[misc]
            return_exceptions=True,
        )
        stored = await database.read(keys)
        await database.close()
        return results, stored

    results, stored = asyncio.run(run())
    assert [isinstance(r, KeyError) for r in results] == [i % 3 == 0 for i in range(30)]
    assert stored == sorted(f"k{i}" for i in range(30) if i % 3)


def test_writes_are_one_after_the_other_and_see_each_other(tmp_path: Path) -> None:
    async def run() -> list[int]:
        database = await opened(tmp_path / "a.sqlite")

        def work(connection: Connection) -> int:
            seen = len(keys(connection))
            connection.execute(insert(idempotency), key(seen))
            return seen

        seen = await asyncio.gather(*(database.write(work) for _ in range(40)))
        await database.close()
        return list(seen)

    assert sorted(asyncio.run(run())) == list(range(40))


def test_what_is_written_is_there_after_closing(tmp_path: Path) -> None:
    async def run() -> None:
        database = await opened(tmp_path / "a.sqlite")
        pending = [
            asyncio.create_task(
                database.write(lambda c, i=i: c.execute(insert(idempotency), key(i)))  # type: ignore[misc]
            )
            for i in range(5)
        ]
        await asyncio.sleep(0)
        await database.close()
        await asyncio.gather(*pending)

    asyncio.run(run())
    connection = sqlite3.connect(tmp_path / "a.sqlite")
    assert connection.execute("SELECT count(*) FROM idempotency").fetchone() == (5,)
    connection.close()


def test_a_lost_database_is_an_error_for_everyone_in_the_group(tmp_path: Path) -> None:
    async def run() -> list[Any]:
        database = await opened(tmp_path / "a.sqlite")
        await database.write(lambda c: c.execute(text("DROP TABLE idempotency")))
        results = await asyncio.gather(
            *(database.write(lambda c: c.execute(text("SELECT 1")).scalar()) for _ in range(2)),
            database.write(keys),
            return_exceptions=True,
        )
        await database.close()
        return list(results)

    first, second, third = asyncio.run(run())
    assert (first, second) == (1, 1)
    assert "idempotency" in str(third)


EARLIER = """
CREATE TABLE cases (id VARCHAR(32) PRIMARY KEY, reference VARCHAR(200), status VARCHAR(20) NOT NULL,
  created_at DATETIME NOT NULL, updated_at DATETIME NOT NULL, created_by VARCHAR(100) NOT NULL,
  urgency FLOAT NOT NULL, deadline DATETIME, policy VARCHAR(500) NOT NULL, features JSON NOT NULL);
CREATE TABLE decisions (case_id VARCHAR(32) PRIMARY KEY, decision JSON NOT NULL,
  reviewer VARCHAR(100) NOT NULL, decided_at DATETIME NOT NULL);
CREATE TABLE idempotency (principal VARCHAR(100), key VARCHAR(200), operation VARCHAR(60) NOT NULL,
  digest VARCHAR(64) NOT NULL, case_id VARCHAR(32) NOT NULL, created_at DATETIME NOT NULL,
  PRIMARY KEY (principal, key));
INSERT INTO cases VALUES ('c1', NULL, 'failed', '2030-01-01', '2030-01-01', 'dr', 0, NULL, 'rule',
  '{}');
INSERT INTO decisions VALUES ('c1', '{"action": "accept", "reviewer": "dr"}', 'dr',
  '2030-01-01 00:00:00.000000');
INSERT INTO idempotency VALUES ('dr', 'k1', 'create', 'd', 'c1', '2030-01-01 00:00:00.000000');
"""


def test_a_store_of_an_earlier_version_keeps_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    connection = sqlite3.connect(path)
    connection.executescript(EARLIER)
    connection.close()

    async def run() -> tuple[Any, Any, Any]:
        for _ in range(2):
            # Twice: what was brought up to date once stays as it is.
            database = await opened(path)
            case = await database.read(
                lambda c: c.execute(select(cases.c.status, cases.c.version)).one()
            )
            action = await database.read(lambda c: c.execute(select(actions)).one())
            once = await database.read(lambda c: c.execute(select(idempotency)).one())
            await database.write(lambda c: c.execute(insert(idempotency), key(7 + len(keys(c)))))
            await database.write(
                lambda c: c.execute(
                    text("DELETE FROM idempotency WHERE key LIKE 'k_' AND key <> 'k1'")
                )
            )
            await database.close()
        return case, action, once

    case, action, once = asyncio.run(run())
    assert tuple(case) == ("parked", 1)
    assert (action.case_id, action.round, action.reviewer) == ("c1", 0, "dr")
    assert action.action["action"] == "accept"
    assert once.resource == "c1"


@pytest.mark.parametrize("table", ["audit", "ledger", "actions", "events", "activations", "shadow"])
def test_what_was_written_down_cannot_be_changed(tmp_path: Path, table: str) -> None:
    async def run() -> None:
        await (await opened(tmp_path / "a.sqlite")).close()

    asyncio.run(run())
    connection = sqlite3.connect(tmp_path / "a.sqlite")
    triggers = connection.execute(
        "SELECT count(*) FROM sqlite_master WHERE type = 'trigger' AND tbl_name = ?", (table,)
    ).fetchone()
    connection.close()
    assert triggers == (2,)
