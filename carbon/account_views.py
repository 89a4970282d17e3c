"""An account as JSON and as CSV: plain values, every sum with its count, units in the keys."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from carbon.account import Account, AccountRow
from carbon.embodied import DeclaredHardware
from carbon.heat import HeatRecovery
from carbon.intensity.protocol import Basis

CSV_COLUMNS = (
    "key", "intensity_basis", "entries", "cases", "measured_kwh", "modelled_kwh", "energy_kwh",
    "gross_g_co2e", "mean_g_co2e_per_kwh", "avoided_g_co2e", "net_g_co2e", "embodied_g_co2e",
    "sci_g_co2e_per_case", "sci_remark", "heat_remark", "unmeasured", "without_g_co2e", "untimed",
    "intensities_measured", "intensities_forecast", "intensities_estimated",
    "intensities_fallback",
)  # fmt: skip


def figure(value: float | None, n: int) -> dict[str, Any]:
    """A booked figure: there is no sampling error to give, ``n`` says how many were summed."""
    return {"value": value, "ci95": None, "n": n}


def row_json(row: AccountRow) -> dict[str, Any]:
    """One row; None where a figure is unknown, with the remark that says why."""
    counted = row.entries - row.without_g_co2e
    return {
        "key": row.key,
        "intensity_basis": row.intensity_basis,
        "entries": row.entries,
        "cases": row.cases,
        "energy_kwh": figure(row.known_kwh, row.entries - row.unmeasured),
        "measured_kwh": row.measured_kwh,
        "modelled_kwh": row.modelled_kwh,
        "gross_g_co2e": figure(row.gross_g_co2e, counted),
        "mean_g_co2e_per_kwh": figure(row.mean_g_per_kwh, counted),
        "avoided_g_co2e": figure(row.avoided_g_co2e, counted),
        "net_g_co2e": figure(row.net_g_co2e, counted),
        "heat_remark": row.heat_remark,
        "embodied_g_co2e": figure(row.embodied_g_co2e, row.entries - row.untimed),
        "operational_g_co2e_per_case": figure(row.operational_g_co2e_per_case, row.cases),
        "sci_g_co2e_per_case": figure(row.sci_g_co2e_per_case, row.cases),
        "sci_remark": row.sci_remark,
        "unmeasured": row.unmeasured,
        "without_g_co2e": row.without_g_co2e,
        "untimed": row.untimed,
        "intensity_kinds": dict(row.intensity_kinds),
    }


def account_json(account: Account) -> dict[str, Any]:
    """The whole account."""
    return {
        "by": account.by,
        "from": None if account.first is None else _iso(account.first),
        "to": None if account.last is None else _iso(account.last),
        "zones": list(account.zones),
        "rows": [row_json(row) for row in account.rows],
        "totals": [row_json(row) for row in account.totals],
        "heat": None if account.heat is None else heat_json(account.heat),
        "hardware": None if account.hardware is None else hardware_json(account.hardware),
        "hours_worked_below_break_even": [
            _below_json(account, row.intensity_basis)
            for row in account.totals
            if account.heat is not None and row.intensity_basis is not None
        ],
    }


def heat_json(heat: HeatRecovery) -> dict[str, Any]:
    """The declared heat recovery with its break-even intensity."""
    return {
        "recovered_fraction": heat.recovered,
        "used_fraction": heat.used,
        "displaced_g_co2e_per_kwh_heat": heat.displaced_g_per_kwh_heat,
        "source": heat.source,
        "scope": heat.scope,
        "break_even_g_co2e_per_kwh": heat.break_even_g_per_kwh,
    }


def hardware_json(hardware: DeclaredHardware) -> dict[str, Any]:
    """The declared hardware."""
    return asdict(hardware)


def _below_json(account: Account, basis: Basis | None) -> dict[str, Any]:
    found = account.hours_below(basis)
    if found is None:
        return {"intensity_basis": basis, "hours": figure(None, 0), "kwh": figure(None, 0)}
    return {
        "intensity_basis": basis,
        "hours": figure(float(found.below), found.hours),
        "share_of_hours": figure(found.below / found.hours if found.hours else None, found.hours),
        "kwh": figure(found.kwh_below, found.hours),
        "share_of_kwh": figure(found.kwh_below / found.kwh if found.kwh else None, found.hours),
    }


def _iso(moment: Any) -> str:
    return str(moment.isoformat()).replace("+00:00", "Z")


def account_csv(rows: Iterable[AccountRow]) -> str:
    """The rows with units in the headings; an empty cell is unknown, never 0."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for row in rows:
        kinds = row.intensity_kinds
        cells: list[Any] = [
            _plain(row.key), row.intensity_basis, row.entries, row.cases, row.measured_kwh,
            row.modelled_kwh, row.known_kwh, row.gross_g_co2e, row.mean_g_per_kwh,
            row.avoided_g_co2e, row.net_g_co2e, row.embodied_g_co2e, row.sci_g_co2e_per_case,
            row.sci_remark, row.heat_remark, row.unmeasured, row.without_g_co2e, row.untimed,
            kinds.get("measured", 0), kinds.get("forecast", 0), kinds.get("estimated", 0),
            kinds.get("fallback", 0),
        ]  # fmt: skip
        writer.writerow(["" if cell is None else cell for cell in cells])
    return buffer.getvalue()


def _plain(key: str) -> str:
    # A spreadsheet would run a name that begins like a formula.
    return f"'{key}" if key[:1] in ("=", "+", "-", "@", "\t", "\r") else key
