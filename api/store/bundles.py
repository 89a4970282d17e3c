"""Which bundle new cases get: an append-only course of starts, activations and rollbacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Connection, Row, func, insert, select

from api.store.tables import activations

START = "start"
ACTIVATE = "activate"
ROLLBACK = "rollback"
Kind = Literal["start", "activate", "rollback"]


@dataclass(frozen=True, kw_only=True)
class Activation:
    """One bundle that became the one for new cases."""

    kind: Kind
    bundle: str
    folder: str


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
        if row.kind == ROLLBACK:
            standing = standing[:-1]
        elif not standing or standing[-1].folder != row.folder:
            standing.append(Activation(kind=row.kind, bundle=row.bundle, folder=row.folder))
    return standing


def folder_at_start(connection: Connection, configured: Path) -> Path:
    """The folder that a starting server opens.

    What was activated last holds across restarts, until the operator configures another folder
    than at the last start: that is a decision of its own, and the later one.
    """
    rows = course(connection)
    starts = [row for row in rows if row.kind == START]
    standing = stack(rows)
    if not standing or not starts or starts[-1].folder != _written(configured):
        return configured
    return Path(standing[-1].folder)


def record_start(connection: Connection, configured: Path, bundle: str, now: datetime) -> None:
    """Write down what the operator configured, if that is news."""
    starts = [row for row in course(connection) if row.kind == START]
    folder = _written(configured)
    if not starts or starts[-1].folder != folder:
        one = Activation(kind="start", bundle=bundle, folder=folder)
        append(connection, one, actor="operator", now=now)


def folders(connection: Connection) -> dict[str, str]:
    """Where each bundle that was ever active lay last, by version."""
    return {row.bundle: row.folder for row in course(connection)}


def _written(folder: Path) -> str:
    return str(folder.resolve())
