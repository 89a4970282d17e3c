"""The database behind the store: one writer that commits in groups, and a few readers.

A transaction is a plain function of a connection, run in another thread in one go. Hopping to a
thread for each statement would cost more than the statements; and what several callers write at
the same moment shares one commit, so that twenty of them wait for the disk once.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import orjson
from sqlalchemy import Connection, Engine, Insert, Table, create_engine, event, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError

from api.errors import SettingsError
from api.store.migrate import bring_up_to_date
from api.store.private import private_file

DURABLE, REBUILDABLE = "FULL", "NORMAL"
"""SQLite's synchronous modes: wait for the disk at each commit, or at checkpoints only."""
APPEND_ONLY = ("audit", "ledger", "actions", "events", "activations", "shadow")
READERS = 2
GROUP = 64
"""Transactions that share one commit at most."""

T = TypeVar("T")
Work = Callable[[Connection], T]


@dataclass(frozen=True, kw_only=True)
class _Write:
    """One transaction that waits for the writer."""

    work: Work[Any]
    durable: bool
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]


class Database:
    """Engine and transactions.

    There is one writer, since SQLite has a single one anyway and a queue in memory is fairer and
    quicker than polling a busy file. Each group begins IMMEDIATE, so that reading before writing
    inside it cannot fail half way; each transaction in it has a savepoint of its own, so that one
    that fails takes nobody else's with it.
    """

    def __init__(self, url: str) -> None:
        """Prepare the engine; nothing is opened yet.

        Raises:
            SettingsError: if the URL is not one that SQLAlchemy can use here.
        """
        try:
            self.engine: Engine = make_engine(url)
        except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
            raise SettingsError(
                f"The database URL cannot be used ({type(error).__name__}); give one such as "
                "sqlite:///path/cases.sqlite, and install its driver."
            ) from error
        self.is_sqlite = self.engine.dialect.name == "sqlite"
        self._queue: SimpleQueue[_Write | None] = SimpleQueue()
        self._writer: threading.Thread | None = None
        self._writing: Connection | None = None
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="store-read")
        if self.is_sqlite:
            event.listen(self.engine, "connect", _on_connect)
            event.listen(self.engine, "begin", _on_begin)

    async def setup(self) -> None:
        """Create the tables that are not there, and make the append-only ones so.

        Raises:
            SettingsError: if the database cannot be opened, or is none.
        """
        url = self.engine.url
        try:
            if self.is_sqlite and url.database not in (None, "", ":memory:"):
                private_file(Path(str(url.database)))
            await self.write(self._create)
        except (DBAPIError, OSError) as error:
            reason = error.orig if isinstance(error, DBAPIError) else error
            raise SettingsError(
                f"The store {url.render_as_string(hide_password=True)} cannot be used ({reason}); "
                "give another --state or GREENBOARD_DATABASE_URL, or put the file aside."
            ) from error

    def _create(self, connection: Connection) -> None:
        bring_up_to_date(connection)
        if self.is_sqlite:
            for statement in _append_only_triggers():
                connection.execute(text(statement))

    async def close(self) -> None:
        """Let the writer finish what it has, then close every connection."""
        if self._writer is not None:
            self._queue.put(None)
            await asyncio.to_thread(self._writer.join)
            self._writer = None
        self._readers.shutdown()
        self.engine.dispose()

    async def write(self, work: Work[T], *, rebuildable: bool = False) -> T:
        """Run a write transaction; committed when this returns, rolled back on an error.

        Args:
            work: what to do, in another thread: it must not touch the event loop.
            rebuildable: what is written can be worked out again from the checkpoints and the
                other tables, so it need not wait for the disk: the death of the process does not
                touch it, only a power cut could.
        """
        if self._writer is None:
            self._writer = threading.Thread(target=self._write_all, name="store-write", daemon=True)
            self._writer.start()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._queue.put(_Write(work=work, durable=not rebuildable, loop=loop, future=future))
        return await future

    async def read(self, work: Work[T]) -> T:
        """Run a reading transaction: one consistent view."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._readers, self._read, work)

    def _read(self, work: Work[T]) -> T:
        with self.engine.connect() as connection:
            return work(connection)

    async def ping(self) -> None:
        """Ask the database for anything at all."""
        await self.read(lambda connection: connection.execute(text("SELECT 1")))

    def insert_new(
        self, connection: Connection, table: Table, rows: Sequence[dict[str, Any]]
    ) -> None:
        """Insert the rows that are not there yet."""
        if rows:
            connection.execute(_insert_new(table, self.is_sqlite), list(rows))

    def _write_all(self) -> None:
        """The writer: takes what waits, as one group, until it is told to stop."""
        while True:
            first = self._queue.get()
            if first is None:
                self._let_go()
                return
            group, last = [first], False
            while len(group) < GROUP and not last:
                try:
                    following = self._queue.get_nowait()
                except Empty:
                    break
                if following is None:
                    last = True
                else:
                    group.append(following)
            self._write_group(group)
            if last:
                self._let_go()
                return

    def _write_group(self, group: Sequence[_Write]) -> None:
        kind = DURABLE if any(item.durable for item in group) else REBUILDABLE
        outcomes: list[tuple[_Write, Any, BaseException | None]] = []
        try:
            connection = self._held()
            connection.execution_options(greenboard_write=kind)
            with connection.begin():
                outcomes = [_attempt(connection, item) for item in group]
        except (SQLAlchemyError, OSError) as error:
            # Nothing of the group was committed: whatever each of them brought is void.
            outcomes = [(item, None, error) for item in group]
            self._let_go()
        for loop in {item.loop for item in group}:
            mine = [outcome for outcome in outcomes if outcome[0].loop is loop]
            if not loop.is_closed():
                loop.call_soon_threadsafe(_tell, mine)

    def _held(self) -> Connection:
        """The writer's connection, kept open: opening one costs as much as a group."""
        if self._writing is None:
            self._writing = self.engine.connect()
        return self._writing

    def _let_go(self) -> None:
        if self._writing is not None:
            self._writing.close()
            self._writing = None


@lru_cache(maxsize=32)
def _insert_new(table: Table, is_sqlite: bool) -> Insert:
    insert = sqlite.insert if is_sqlite else postgresql.insert
    return insert(table).on_conflict_do_nothing()


def make_engine(url: str) -> Engine:
    """An engine whose connections may be used by one thread after the other."""
    parsed = make_url(url)
    if parsed.drivername == "sqlite+aiosqlite":
        # What earlier versions took; the same file.
        parsed = parsed.set(drivername="sqlite")
    if parsed.get_backend_name() == "sqlite":
        return create_engine(parsed, connect_args={"check_same_thread": False}, **JSON)
    return create_engine(parsed, **JSON)


def _written(value: Any) -> str:
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        # An integer of more than 64 bits, which JSON allows.
        return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _read(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return json.loads(text)


JSON: dict[str, Any] = {"json_serializer": _written, "json_deserializer": _read}
"""Several times quicker than the standard library's, of which a busy server notices."""


def _attempt(connection: Connection, item: _Write) -> tuple[_Write, Any, BaseException | None]:
    if item.future.cancelled():
        return item, None, None
    connection.exec_driver_sql("SAVEPOINT one")
    try:
        result = item.work(connection)
    except BaseException as error:  # handed to whoever waits for it
        connection.exec_driver_sql("ROLLBACK TO SAVEPOINT one")
        connection.exec_driver_sql("RELEASE SAVEPOINT one")
        return item, None, error
    connection.exec_driver_sql("RELEASE SAVEPOINT one")
    return item, result, None


def _tell(outcomes: Sequence[tuple[_Write, Any, BaseException | None]]) -> None:
    for item, result, error in outcomes:
        if item.future.done():
            continue
        if error is not None:
            item.future.set_exception(error)
        else:
            item.future.set_result(result)


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
