"""The tables of the case store. Uniqueness here is what makes repeating any step harmless."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    DateTime,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator


class UtcDateTime(TypeDecorator[datetime]):
    """An aware time, kept in UTC; SQLite itself would drop the zone."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Aware to UTC without a zone."""
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """UTC without a zone to aware."""
        return None if value is None else value.replace(tzinfo=UTC)


metadata = MetaData()

cases = Table(
    "cases",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("reference", String(200)),
    Column("status", String(20), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("created_by", String(100), nullable=False),
    Column("urgency", Float, nullable=False),
    Column("deadline", UtcDateTime),
    Column("policy", String(500), nullable=False),
    Column("policy_fallback", Text),
    Column("seen_in_training", Boolean),
    Column("features", JSON, nullable=False),
    Column("probability", Float),
    Column("transfers_run", JSON),
    Column("explanation", JSON),
    Column("plan", JSON),
    Column("wake_at", UtcDateTime),
    Column("result", String(20)),
    Column("failure", Text),
    Column("unit", String(200)),
    Column("session", String(200)),
    # The ETag: one more at every change that a reader could notice.
    Column("version", Integer, nullable=False, server_default="1"),
    # The bundle that reviews the case, to its end.
    Column("bundle", String(200)),
    Column("uncertainty", Float),
    Column("g_co2e", Float),
    Column("suggestion", String(20)),
    Column("second_review", Boolean),
    Column("flags", JSON),
    # A salted sum of who the patient is to the caller's system; never an identifier.
    Column("subject", String(64)),
    Column("lease_owner", String(64)),
    Column("lease_until", UtcDateTime),
    Index("cases_by_age", "created_at", "id"),
    Index("cases_by_status", "status", "wake_at"),
    Index("cases_by_subject", "subject", "created_at"),
)

events = Table(
    "events",
    metadata,
    Column("case_id", String(32), primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("kind", String(20), nullable=False),
    Column("time", UtcDateTime, nullable=False),
    Column("data", JSON, nullable=False),
)

actions = Table(
    "actions",
    metadata,
    # One row a case and round, whoever is first: the second of two simultaneous answers to one
    # question is refused here.
    Column("case_id", String(32), primary_key=True),
    Column("round", Integer, primary_key=True, autoincrement=False),
    Column("action", JSON, nullable=False),
    Column("reviewer", String(100), nullable=False),
    Column("at", UtcDateTime, nullable=False),
)

shadow = Table(
    "shadow",
    metadata,
    # What policies that decide nothing would have done; in no step and no answer.
    Column("case_id", String(32), primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("policy", String(500), primary_key=True),
    Column("acting", String(500), nullable=False),
    Column("action", String(200), nullable=False),
    Column("data", JSON, nullable=False),
)

ledger = Table(
    "ledger",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("case_id", String(32), nullable=False),
    Column("stage", String(200), nullable=False),
    Column("kind", String(20), nullable=False),
    Column("time", UtcDateTime, nullable=False, index=True),
    Column("energy_kwh", Float),
    Column("energy_basis", String(20), nullable=False),
    Column("energy_source", Text, nullable=False),
    Column("reason", Text),
    Column("intensity", JSON, nullable=False),
    Column("g_co2e", Float),
    UniqueConstraint("case_id", "stage", name="one_charge_a_stage"),
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("principal", String(100), primary_key=True),
    Column("key", String(200), primary_key=True),
    Column("operation", String(100), nullable=False),
    Column("digest", String(64), nullable=False),
    # What the first request made: a case, a job, a card.
    Column("resource", String(200), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)

audit = Table(
    "audit",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("time", UtcDateTime, nullable=False),
    Column("actor", String(100), nullable=False),
    Column("action", String(60), nullable=False),
    Column("subject", String(100), nullable=False),
    Column("detail", JSON, nullable=False),
    Column("previous", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
    Index("audit_by_subject", "subject", "seq"),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("kind", String(40), nullable=False),
    Column("request", JSON, nullable=False),
    Column("status", String(20), nullable=False),
    Column("progress", Float, nullable=False),
    Column("message", Text),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("created_by", String(100), nullable=False),
    Column("result", JSON),
    Column("failure", Text),
    Index("jobs_by_age", "created_at", "id"),
)

activations = Table(
    "activations",
    metadata,
    # The last row is the bundle that new cases get.
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("time", UtcDateTime, nullable=False),
    Column("actor", String(100), nullable=False),
    # start (the operator's own), activate, or rollback (takes the one before off).
    Column("kind", String(20), nullable=False),
    Column("bundle", String(200), nullable=False),
    Column("folder", Text, nullable=False),
)

cds_feedback = Table(
    "cds_feedback",
    metadata,
    Column("service", String(100), primary_key=True),
    Column("card", String(64), primary_key=True),
    Column("outcome", String(20), primary_key=True),
    Column("case_id", String(32), nullable=False),
    Column("issuer", String(300), nullable=False),
    Column("data", JSON, nullable=False),
    Column("time", UtcDateTime, nullable=False),
)

cds_cards = Table(
    "cds_cards",
    metadata,
    # What was shown to whom: feedback is taken from the same system only.
    Column("card", String(36), primary_key=True),
    Column("service", String(100), nullable=False),
    Column("case_id", String(32), nullable=False),
    Column("version", Integer, nullable=False),
    Column("issuer", String(300), nullable=False),
    Column("time", UtcDateTime, nullable=False),
)

cds_tokens = Table(
    "cds_tokens",
    metadata,
    # Sums of the tokens' issuers and numbers, kept as long as a token could be used again.
    Column("token", String(64), primary_key=True),
    Column("expires_at", UtcDateTime, nullable=False, index=True),
)
