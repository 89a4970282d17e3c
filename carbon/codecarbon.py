"""Read and write CodeCarbon's ``emissions.csv``.

| its column | unit there | here |
|---|---|---|
| ``timestamp`` | local time without a zone | ``time``; the zone is asked for, UTC on export |
| ``project_name`` | | ``stage`` |
| ``run_id`` | | ``case`` if asked for, else kept in the note |
| ``experiment_id`` | | ``session`` |
| ``duration`` | s | ``seconds`` |
| ``emissions`` | kg CO2e | ``g_co2e`` / 1000, by moving the decimal point |
| ``emissions_rate`` | kg CO2e/s | emissions / duration; not read |
| ``energy_consumed`` | kWh | ``energy_kwh`` |
| ``country_iso_code`` | | ``intensity.zone`` |
| ``codecarbon_version``, ``pue`` | | provider and note; empty on export |

Other columns are not read, and empty on export: an empty cell is unknown, a 0 would be a claim.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, tzinfo
from decimal import Decimal, InvalidOperation
from pathlib import Path

from carbon.entries import LedgerEntry
from carbon.errors import AccountError, CarbonError
from carbon.intensity.protocol import Basis, IntensityReading

COLUMNS = (
    "timestamp", "project_name", "run_id", "experiment_id", "duration", "emissions",
    "emissions_rate", "cpu_power", "gpu_power", "ram_power", "cpu_energy", "gpu_energy",
    "ram_energy", "energy_consumed", "country_name", "country_iso_code", "region",
    "cloud_provider", "cloud_region", "os", "python_version", "codecarbon_version", "cpu_count",
    "cpu_model", "gpu_count", "gpu_model", "longitude", "latitude", "ram_total_size",
    "tracking_mode", "on_cloud", "pue",
)  # fmt: skip
REQUIRED = ("timestamp", "project_name", "duration", "emissions", "energy_consumed")
REASON = "CodeCarbon does not say which parts it measured and which it modelled"


def export_csv(entries: Iterable[LedgerEntry]) -> Iterator[str]:
    """The lines of an ``emissions.csv``, header first; see the table above."""
    yield _csv_line(COLUMNS)
    for entry in entries:
        cells = _cells(entry)
        yield _csv_line(tuple(cells.get(column, "") for column in COLUMNS))


def import_csv(
    path: Path, *, timezone: tzinfo, basis: Basis, run_id_is_case: bool = False
) -> Iterator[LedgerEntry]:
    """Go through an ``emissions.csv``, one entry at a time.

    Args:
        path: the file.
        timezone: of its timestamps, which do not say.
        basis: of the intensities that CodeCarbon used, which it does not say either.
        run_id_is_case: whether ``run_id`` names the case, as in our own exports.

    Raises:
        AccountError: if it is not such a file; says row and column.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in REQUIRED if name not in (reader.fieldnames or ())]
            if missing:
                raise AccountError(f"{path} lacks the columns {', '.join(missing)}.")
            for number, row in enumerate(reader, start=2):
                try:
                    yield _entry(row, timezone, basis, run_id_is_case)
                except (CarbonError, ValueError, InvalidOperation) as error:
                    raise AccountError(f"{path}, row {number}: {error}") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise AccountError(f"{path} cannot be read: {error}") from error


def _csv_line(cells: tuple[str, ...]) -> str:
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\n").writerow(cells)
    return buffer.getvalue()


def _cells(entry: LedgerEntry) -> dict[str, str]:
    kg = None if entry.g_co2e is None else Decimal(repr(entry.g_co2e)).scaleb(-3)
    rate = kg / Decimal(repr(entry.seconds)) if kg is not None and entry.seconds else None
    moment = entry.time.astimezone(UTC).replace(tzinfo=None)
    return {
        "timestamp": moment.isoformat(),
        "project_name": entry.stage,
        "run_id": entry.case or "",
        "experiment_id": entry.session or "",
        "duration": "" if entry.seconds is None else repr(entry.seconds),
        "emissions": "" if kg is None else str(kg),
        "emissions_rate": "" if rate is None else repr(float(rate)),
        "energy_consumed": "" if entry.energy_kwh is None else repr(entry.energy_kwh),
        "country_iso_code": "" if entry.intensity is None else entry.intensity.zone,
    }


def _figure(row: Mapping[str, str | None], column: str, digits: int = 0) -> float | None:
    """A cell times ten to the ``digits``, exact until the last rounding; None if it is empty."""
    text = (row.get(column) or "").strip()
    if not text:
        return None
    try:
        value = float(Decimal(text).scaleb(digits))
    except InvalidOperation as error:
        raise AccountError(f"{column} is {text!r}, not a number.") from error
    if not 0 <= value < float("inf"):
        raise AccountError(f"{column} is {text}; it must be finite and not negative.")
    return value


def _entry(
    row: Mapping[str, str | None], timezone: tzinfo, basis: Basis, run_id_is_case: bool
) -> LedgerEntry:
    moment = datetime.fromisoformat((row["timestamp"] or "").strip())
    at = (moment if moment.tzinfo is not None else moment.replace(tzinfo=timezone)).astimezone(UTC)
    kwh, g_co2e = _figure(row, "energy_consumed"), _figure(row, "emissions", 3)
    run = (row.get("run_id") or "").strip()
    pue = (row.get("pue") or "").strip()
    note = "; ".join(
        part
        for part in (
            f"CodeCarbon run {run}" if run and not run_id_is_case else "",
            f"PUE {pue} by CodeCarbon" if pue else "",
        )
        if part
    )
    return LedgerEntry(
        time=at,
        stage=(row["project_name"] or "").strip() or "codecarbon",
        case=run if run and run_id_is_case else None,
        energy_kwh=kwh,
        energy_basis="modelled",
        energy_source=f"codecarbon {row.get('codecarbon_version') or ''}".strip(),
        energy_reason=REASON if kwh is not None else "CodeCarbon's file has no figure",
        seconds=_figure(row, "duration"),
        intensity=_implied(row, at, basis, kwh, g_co2e),
        g_co2e=g_co2e,
        note=note,
        session=(row.get("experiment_id") or "").strip() or None,
    )


def _implied(
    row: Mapping[str, str | None],
    at: datetime,
    basis: Basis,
    kwh: float | None,
    g_co2e: float | None,
) -> IntensityReading | None:
    """The intensity that its emissions and energy imply; None where they imply none."""
    if not kwh or g_co2e is None:
        return None
    return IntensityReading(
        g_per_kwh=g_co2e / kwh,
        zone=(row.get("country_iso_code") or "").strip() or "unstated",
        time=at,
        basis=basis,
        provider="codecarbon",
        kind="estimated",
        age_s=0.0,
        note="implied: emissions / energy",
    )
