"""The server's carbon ledger: one row a case and stage, and the sums over them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, select
from sqlalchemy import case as when

from agent.workflow.state import Charge
from api.store.database import Database
from api.store.tables import cases, ledger
from carbon.entries import LedgerEntry
from carbon.intensity.protocol import IntensityReading


def charge_row(case_id: str, charge: Charge) -> dict[str, Any]:
    """A charge as a row."""
    return {
        "case_id": case_id,
        "stage": charge.stage,
        "kind": charge.stage.partition(":")[0],
        "time": charge.time,
        "energy_kwh": charge.energy_kwh,
        "energy_basis": charge.energy_basis,
        "energy_source": charge.energy_source,
        "reason": charge.reason,
        "intensity": charge.intensity.model_dump(mode="json"),
        "g_co2e": charge.g_co2e,
    }


def insert_charges(
    database: Database, connection: Connection, case_id: str, charges: Sequence[Charge]
) -> None:
    """Write charges; a stage that was charged before is left as it is."""
    rows = [charge_row(case_id, charge) for charge in charges]
    database.insert_new(connection, ledger, rows)


def charges_since(connection: Connection, since: datetime | None) -> Sequence[Any]:
    """Case, session, stage, time and g CO2e of what was charged since then, or ever."""
    query = select(
        ledger.c.case_id, cases.c.session, ledger.c.stage, ledger.c.time, ledger.c.g_co2e
    ).outerjoin_from(ledger, cases, ledger.c.case_id == cases.c.id)
    if since is not None:
        query = query.where(ledger.c.time >= since)
    return (connection.execute(query)).all()


def times_since(connection: Connection, since: datetime) -> list[tuple[datetime, float | None]]:
    """When what was charged since then, g CO2e; None where that is unknown. Oldest first."""
    query = select(ledger.c.time, ledger.c.g_co2e).where(ledger.c.time >= since)
    return [(row.time, row.g_co2e) for row in connection.execute(query.order_by(ledger.c.time))]


def entries(
    connection: Connection, *, since: datetime | None, until: datetime | None
) -> list[LedgerEntry]:
    """Every charge as an entry of the carbon account, with the case's policy, unit and session."""
    query = (
        select(ledger, cases.c.policy, cases.c.unit, cases.c.session)
        .outerjoin_from(ledger, cases, ledger.c.case_id == cases.c.id)
        .order_by(ledger.c.id)
    )
    if since is not None:
        query = query.where(ledger.c.time >= since)
    if until is not None:
        query = query.where(ledger.c.time < until)
    return [_entry(row) for row in (connection.execute(query)).all()]


def _entry(row: Any) -> LedgerEntry:
    reading = dict(row.intensity)
    reading["time"] = datetime.fromisoformat(reading["time"])
    return LedgerEntry(
        time=row.time,
        stage=row.stage,
        case=row.case_id,
        energy_kwh=row.energy_kwh,
        energy_basis=row.energy_basis,
        energy_source=row.energy_source,
        energy_reason=row.reason,
        intensity=IntensityReading(**reading),
        g_co2e=row.g_co2e,
        policy=row.policy,
        unit=row.unit,
        session=row.session,
    )


def totals(
    connection: Connection, *, by: str, since: datetime | None, case_id: str | None
) -> list[dict[str, Any]]:
    """Energy and emissions summed by ``stage`` or ``case``, apart for measured and modelled.

    ``stage`` sums over the part before the colon: all transfers, all inferences.
    """
    key = (ledger.c.kind if by == "stage" else ledger.c.case_id).label("key")
    unknown = func.sum(when((ledger.c.energy_kwh.is_(None), 1), else_=0))
    query = select(
        key,
        ledger.c.energy_basis,
        func.count().label("entries"),
        func.sum(ledger.c.energy_kwh).label("energy_kwh"),
        func.sum(ledger.c.g_co2e).label("g_co2e"),
        unknown.label("without_figure"),
    ).group_by(key, ledger.c.energy_basis)
    if since is not None:
        query = query.where(ledger.c.time >= since)
    if case_id is not None:
        query = query.where(ledger.c.case_id == case_id)
    rows = connection.execute(query.order_by(key, ledger.c.energy_basis))
    return [dict(row) for row in rows.mappings()]
