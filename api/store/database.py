"""The database behind the store: one engine, short reads, one writer at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, event, inspect, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from api.errors import SettingsError
from api.store.private import private_file
from api.store.tables import metadata

DURABLE, REBUILDABLE = "FULL", "NORMAL"
"""SQLite's synchronous modes: wait for the disk at each commit, or at checkpoints only."""
APPEND_ONLY = ("audit", "ledger", "decisions", "events")


class Database:
    """Engine and transactions.

    Writers queue on one lock: SQLite has a single writer anyway, and a queue in memory is fairer
    and quicker than polling a busy file. Each write transaction begins IMMEDIATE, so that reading
    before writing inside it cannot fail half way.
    """

    def __init__(self, url: str) -> None:
        """Prepare the engine; nothing is opened yet.

        Raises:
            SettingsError: if the URL is not one that SQLAlchemy can use here.
        """
        try:
            self.engine: AsyncEngine = create_async_engine(url)
        except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
            raise SettingsError(
                f"The database URL cannot be used ({type(error).__name__}); give one such as "
                "sqlite+aiosqlite:///path/cases.sqlite, and install its driver."
            ) from error
        self.is_sqlite = self.engine.dialect.name == "sqlite"
        self._writer = asyncio.Lock()
        if self.is_sqlite:
            event.listen(self.engine.sync_engine, "connect", _on_connect)
            event.listen(self.engine.sync_engine, "begin", _on_begin)

    async def setup(self) -> None:
        """Create the tables that are not there, and make the append-only ones so.

        Raises:
            SettingsError: if the database cannot be opened, or is none.
        """
        url = self.engine.url
        try:
            if self.is_sqlite and url.database not in (None, "", ":memory:"):
                private_file(Path(str(url.database)))
            await self._create()
        except (DBAPIError, OSError) as error:
            reason = error.orig if isinstance(error, DBAPIError) else error
            raise SettingsError(
                f"The store {url.render_as_string(hide_password=True)} cannot be used ({reason}); "
                "give another --state or GREENBOARD_DATABASE_URL, or put the file aside."
            ) from error

    async def _create(self) -> None:
        async with self.write() as connection:
            await connection.run_sync(metadata.create_all)
            await connection.run_sync(_add_columns)
            if self.is_sqlite:
                for statement in _append_only_triggers():
                    await connection.execute(text(statement))

    async def close(self) -> None:
        """Close every connection."""
        await self.engine.dispose()

    @asynccontextmanager
    async def write(self, *, rebuildable: bool = False) -> AsyncIterator[AsyncConnection]:
        """One write transaction; committed at the end, rolled back on an error.

        Args:
            rebuildable: what is written can be worked out again from the checkpoints and the
                other tables, so it need not wait for the disk: the death of the process does not
                touch it, only a power cut could.
        """
        kind = REBUILDABLE if rebuildable else DURABLE
        async with self._writer, self.engine.connect() as plain:
            connection = await plain.execution_options(greenboard_write=kind)
            async with connection.begin():
                yield connection

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """One consistent view for reading."""
        async with self.engine.connect() as connection:
            yield connection

    async def ping(self) -> None:
        """Ask the database for anything at all."""
        async with self.read() as connection:
            await connection.execute(text("SELECT 1"))

    async def insert_new(
        self, connection: AsyncConnection, table: Table, rows: Sequence[dict[str, Any]]
    ) -> None:
        """Insert the rows that are not there yet."""
        if rows:
            insert = sqlite.insert if self.is_sqlite else postgresql.insert
            await connection.execute(insert(table).on_conflict_do_nothing(), list(rows))


def _add_columns(connection: Connection) -> None:
    """Give a store of an earlier version the columns that came later; they may be empty."""
    for table in metadata.sorted_tables:
        there = {column["name"] for column in inspect(connection).get_columns(table.name)}
        for column in table.columns:
            if column.name not in there:
                kind = column.type.compile(connection.dialect)
                connection.execute(
                    text(f"ALTER TABLE {table.name} ADD COLUMN {column.name} {kind}")
                )


def _on_connect(dbapi_connection: Any, record: object) -> None:
    # The driver would begin transactions by itself, and not before the first write.
    dbapi_connection.isolation_level = None
    cursor = dbapi_connection.cursor()
    for pragma in ("journal_mode=WAL", "busy_timeout=5000", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _on_begin(connection: Connection) -> None:
    kind = connection.get_execution_options().get("greenboard_write")
    if kind is None:
        connection.exec_driver_sql("BEGIN")
        return
    connection.exec_driver_sql(f"PRAGMA synchronous={kind}")
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _append_only_triggers() -> list[str]:
    """Triggers that refuse to change or delete a row that was written."""
    return [
        f"CREATE TRIGGER IF NOT EXISTS {table}_no_{verb} BEFORE {verb} ON {table} "
        f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
        for table in APPEND_ONLY
        for verb in ("update", "delete")
    ]
