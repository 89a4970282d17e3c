"""What CDS clients were shown, what they said of it, and which of their tokens were used."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Table, delete, select
from sqlalchemy.dialects import postgresql, sqlite

from api.store import cases as store
from api.store.tables import cases, cds_cards, cds_feedback, cds_tokens


def claim_token(connection: Connection, number: str, *, until: datetime, now: datetime) -> bool:
    """Use a token's number; False if it was used before.

    Args:
        connection: a write transaction.
        number: sum of the issuer and the token's own number.
        until: when the token is out of date.
        now: the present; numbers that are out of date are forgotten now and then.
    """
    if number.endswith("0"):
        connection.execute(delete(cds_tokens).where(cds_tokens.c.expires_at < now))
    return _insert_once(connection, cds_tokens, {"token": number, "expires_at": until})


def latest_of(connection: Connection, subject: str) -> Row[Any] | None:
    """The newest case of a patient, as :func:`api.store.cases.get_case` gives it."""
    found = connection.execute(
        select(cases.c.id)
        .where(cases.c.subject == subject)
        .order_by(cases.c.created_at.desc(), cases.c.id.desc())
        .limit(1)
    ).scalar_one_or_none()
    return None if found is None else store.get_case(connection, found)


def note_card(connection: Connection, card: Mapping[str, Any]) -> None:
    """Remember that a card was shown; showing it again changes nothing."""
    _insert_once(connection, cds_cards, card)


def find_card(connection: Connection, card: str, *, service: str, issuer: str) -> Row[Any] | None:
    """A card that was shown to this issuer by this service."""
    return connection.execute(
        select(cds_cards).where(
            cds_cards.c.card == card,
            cds_cards.c.service == service,
            cds_cards.c.issuer == issuer,
        )
    ).first()


def add_feedback(connection: Connection, row: Mapping[str, Any]) -> bool:
    """Write feedback down; False if the same outcome of the card is there already."""
    return _insert_once(connection, cds_feedback, row)


def feedback_of(connection: Connection, case_id: str) -> list[dict[str, Any]]:
    """Everything that was said of a case's cards, oldest first."""
    rows = connection.execute(
        select(cds_feedback)
        .where(cds_feedback.c.case_id == case_id)
        .order_by(cds_feedback.c.time, cds_feedback.c.card)
    )
    return [dict(row) for row in rows.mappings()]


def _insert_once(connection: Connection, table: Table, row: Mapping[str, Any]) -> bool:
    """Insert a row; False if one with its key is there."""
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    done = connection.execute(insert(table).values(**row).on_conflict_do_nothing())
    return done.rowcount == 1
