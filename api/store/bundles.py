"""Which bundle new cases get: an append-only course of starts, activations and rollbacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select

from api.bundle_schemas import Kind
from api.store.tables import activations

START = "start"
ROLLBACK = "rollback"


@dataclass(frozen=True, kw_only=True)
class Activation:
    """One bundle that became the one for new cases."""

    kind: Kind
    bundle: str
    folder: str

    def stands_in(self, rows: Sequence[Any]) -> bool:
        """Whether this bundle is the active one."""
        standing = stack(rows)
        return bool(standing) and (standing[-1].bundle, standing[-1].folder) == (
            self.bundle,
            self.folder,
        )


def append(connection: Connection, one: Activation, *, actor: str, now: datetime) -> int:
    """Write an activation down; returns its number."""
    last = connection.execute(select(func.max(activations.c.seq))).scalar_one()
    seq = 0 if last is None else int(last) + 1
    row = {"seq": seq, "time": now, "actor": actor, **vars(one)}
    connection.execute(insert(activations), row)
    return seq


def course(connection: Connection) -> Sequence[Row[Any]]:
    """Every activation, oldest first."""
    return connection.execute(select(activations).order_by(activations.c.seq)).all()


def stack(rows: Sequence[Any]) -> list[Activation]:
    """What is active (the last), and what rolling back would return to (the one before).

    A rollback takes the last off; a start with another bundle, or an activation, puts one on.
    """
    standing: list[Activation] = []
    for row in rows:
        if row.kind == ROLLBACK or (standing and standing[-1].folder == row.folder):
            # A folder may have come to hold another bundle.
            standing.pop()
        if row.kind != ROLLBACK:
            standing.append(Activation(kind=row.kind, bundle=row.bundle, folder=row.folder))
    return standing


def folder_at_start(connection: Connection, configured: Path) -> Path:
    """The folder that a starting server opens.

    What was activated last holds across restarts, until the operator configures another folder
    than at the last start: that is a decision of its own, and the later one. A folder that is gone
    cannot hold.
    """
    rows = course(connection)
    starts = [row for row in rows if row.kind == START]
    standing = stack(rows)
    if not standing or not starts or starts[-1].folder != _written(configured):
        return configured
    last = Path(standing[-1].folder)
    return last if last.is_dir() else configured


def record_start(connection: Connection, opened: Path, bundle: str, now: datetime) -> None:
    """Write down what a server began with, if that is not what was active last."""
    one = Activation(kind="start", bundle=bundle, folder=_written(opened))
    if not one.stands_in(course(connection)):
        append(connection, one, actor="operator", now=now)


def folders(connection: Connection) -> dict[str, str]:
    """Where each bundle that was ever active lay last, by version."""
    return {row.bundle: row.folder for row in course(connection)}


def _written(folder: Path) -> str:
    return str(folder.resolve())
