"""Recorded traces: read a file of hourly carbon intensity, and replay it as a source.

Any CSV, CSV.gz or Parquet file with ``time_utc`` and ``ci_direct`` or ``ci_life`` will do,
whatever other columns it has. Which of the two is read is chosen, never guessed.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, Shaped

from carbon.errors import IntensityError, TraceError
from carbon.intensity.protocol import (
    Accounting,
    Basis,
    IntensityReading,
    Scope,
    as_utc,
    floor_hour,
    make_basis,
    require_horizon,
)
from carbon.intensity.trace import HOUR, Trace, to_datetime
from carbon.quality import newest_doubt

__all__ = ["RecordedSource", "Trace", "load_trace"]

TIME_COLUMN = "time_utc"
ESTIMATED_COLUMN = "estimated"
COLUMN_OF: dict[str, str] = {"direct": "ci_direct", "life": "ci_life"}
HIGHEST_G_PER_KWH = 3000.0
"""No grid comes near: brown coal burnt badly gives about 1,300 g/kWh. Above it, units are wrong."""

DAY_H = 24
WEEK_H = 7 * DAY_H
YEAR_H = 52 * WEEK_H
"""Replay shifts by whole weeks close to a year, which keeps season, weekday and hour."""

Align = Literal["exact", "replay"]


def load_trace(
    path: Path | str,
    basis: Scope = "direct",
    *,
    accounting: Accounting = "unstated",
    zone: str | None = None,
    max_gap_h: int = 3,
) -> Trace:
    """Read a recorded trace.

    Values of shorter periods are averaged to the hour. Empty cells and missing hours, up to
    ``max_gap_h`` in a row, repeat the last value before them and are marked as estimated.

    Args:
        path: ``.csv``, ``.csv.gz`` or ``.parquet`` with ``time_utc`` and the column chosen by
            ``basis``, gCO2e/kWh. Times without an offset are taken as UTC, as the name says.
        basis: ``direct`` reads ``ci_direct``, ``life`` reads ``ci_life`` (life-cycle).
        accounting: whether the figures are production- or consumption-based, where known.
        zone: the grid; the file's name where not given.
        max_gap_h: longest run of missing hours to fill; 0 refuses any.

    Raises:
        TraceError: if the file cannot be read as such; says file, row and column.
    """
    file = Path(path)
    if basis not in COLUMN_OF:
        raise TraceError(f"Unknown basis {basis!r} for a trace. Allowed: direct, life.")
    times, values, estimated = _parse(file, _rows(file, COLUMN_OF[basis]), COLUMN_OF[basis])
    hours, hourly, flags = _to_hours(times, values, estimated)
    hours, hourly, flags = _fill(file, hours, hourly, flags, max_gap_h)
    stem = file.name.split(".")[0]
    return Trace(
        time_utc=hours,
        g_per_kwh=hourly,
        estimated=flags,
        basis=make_basis("average", basis, accounting),
        zone=zone if zone is not None else stem,
        name=stem,
    )


Row = tuple[object, object, object]


def _rows(file: Path, column: str) -> Iterator[Row]:
    suffixes = "".join(file.suffixes[-2:]).lower()
    try:
        if suffixes.endswith(".parquet"):
            yield from _parquet_rows(file, column)
        elif suffixes.endswith((".csv", ".csv.gz")):
            yield from _csv_rows(file, column)
        else:
            raise TraceError(f"{file}: a trace is .csv, .csv.gz or .parquet, not '{suffixes}'.")
    except FileNotFoundError as error:
        raise TraceError(f"No trace at {file}. Check the path.") from error
    except (OSError, EOFError, UnicodeDecodeError, csv.Error, zlib.error) as error:
        raise TraceError(f"{file} cannot be read: {error}") from error


def _csv_rows(file: Path, column: str) -> Iterator[Row]:
    opened = gzip.open if file.suffix.lower() == ".gz" else open
    with opened(file, "rb") as raw, io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as text:
        reader = csv.reader(text)
        header = next(reader, [])
        _require_columns(file, header, column)
        at, value = header.index(TIME_COLUMN), header.index(column)
        flag = header.index(ESTIMATED_COLUMN) if ESTIMATED_COLUMN in header else None
        for number, row in enumerate(reader, start=2):
            if not row:
                continue
            if len(row) != len(header):
                raise TraceError(
                    f"{file}, row {number}: {len(row)} cells under {len(header)} headings."
                )
            yield row[at], row[value], row[flag] if flag is not None else ""


def _parquet_rows(file: Path, column: str) -> Iterator[Row]:
    # pyarrow takes a third of a second to import: only those who read Parquet pay for it.
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        names = pq.read_schema(file).names
        _require_columns(file, names, column)
        wanted = [n for n in (TIME_COLUMN, column, ESTIMATED_COLUMN) if n in names]
        table = pq.read_table(file, columns=wanted)
    except pa.ArrowInvalid as error:
        raise TraceError(f"{file} is not a Parquet file: {error}") from error
    blank: list[object] = [""] * table.num_rows
    flags = table[ESTIMATED_COLUMN].to_pylist() if ESTIMATED_COLUMN in wanted else blank
    yield from zip(table[TIME_COLUMN].to_pylist(), table[column].to_pylist(), flags)


def _require_columns(file: Path, header: Sequence[str], column: str) -> None:
    lacking = [name for name in (TIME_COLUMN, column) if name not in header]
    if lacking:
        other = [c for c in COLUMN_OF.values() if c in header]
        hint = f" It has {other[0]}: choose that basis." if other and column in lacking else ""
        raise TraceError(
            f"{file} lacks the column {lacking[0]!r}; it has {', '.join(header) or 'none'}.{hint}"
        )


Parsed = tuple[Shaped[np.ndarray, " rows"], Float64[np.ndarray, " rows"], Bool[np.ndarray, " rows"]]


def _parse(file: Path, rows: Iterator[Row], column: str) -> Parsed:
    times: list[datetime] = []
    values: list[float] = []
    estimated: list[bool] = []
    for number, (time, value, flag) in enumerate(rows, start=2):
        times.append(_parse_time(time, f"{file}, row {number}, column {TIME_COLUMN}"))
        values.append(_parse_value(value, f"{file}, row {number}, column {column}"))
        estimated.append(str(flag).strip().lower() in {"1", "1.0", "true", "yes"})
        if len(times) > 1 and times[-1] <= times[-2]:
            raise TraceError(
                f"{file}, row {number}: {times[-1].isoformat()} does not come after the row "
                "before it. Sort the file by time_utc and drop repeated times."
            )
    if not times:
        raise TraceError(f"{file} has no rows.")
    stamps = np.array([t.replace(tzinfo=None) for t in times], dtype="datetime64[s]")
    return stamps, np.array(values, dtype=np.float64), np.array(estimated, dtype=bool)


def _parse_time(cell: object, where: str) -> datetime:
    try:
        time = cell if isinstance(cell, datetime) else datetime.fromisoformat(str(cell).strip())
    except ValueError as error:
        raise TraceError(
            f"{where}: {cell!r} is not a time; write ISO 8601, for example 2024-01-31 15:00:00."
        ) from error
    return time.replace(tzinfo=UTC) if time.utcoffset() is None else time.astimezone(UTC)


def _parse_value(cell: object, where: str) -> float:
    text = "" if cell is None else str(cell).strip()
    if text.lower() in {"", "nan", "na", "null"}:
        return float("nan")
    try:
        value = float(text)
    except ValueError as error:
        raise TraceError(f"{where}: {cell!r} is not a number.") from error
    if not 0.0 <= value <= HIGHEST_G_PER_KWH:
        raise TraceError(
            f"{where}: {value:g} gCO2e/kWh is outside 0 to {HIGHEST_G_PER_KWH:g}; check the unit."
        )
    return value


def _to_hours(
    times: Shaped[np.ndarray, " rows"],
    values: Float64[np.ndarray, " rows"],
    estimated: Bool[np.ndarray, " rows"],
) -> tuple[Shaped[np.ndarray, " hours"], Float64[np.ndarray, " hours"], Bool[np.ndarray, " hours"]]:
    hours, row_hour = np.unique(times.astype("datetime64[h]"), return_inverse=True)
    known = np.isfinite(values)
    count = np.bincount(row_hour[known], minlength=len(hours))
    total = np.bincount(row_hour[known], weights=values[known], minlength=len(hours))
    mean = np.full(len(hours), np.nan)
    np.divide(total, count, out=mean, where=count > 0)
    flags = np.bincount(row_hour, weights=estimated, minlength=len(hours)) > 0
    return hours, mean, flags


def _fill(
    file: Path,
    hours: Shaped[np.ndarray, " rows"],
    values: Float64[np.ndarray, " rows"],
    flags: Bool[np.ndarray, " rows"],
    max_gap_h: int,
) -> tuple[Shaped[np.ndarray, " hours"], Float64[np.ndarray, " hours"], Bool[np.ndarray, " hours"]]:
    """Put every hour in its place; carry the last known value over short gaps (causal)."""
    known = np.flatnonzero(np.isfinite(values))
    if not known.size:
        raise TraceError(f"{file}: every intensity is empty.")
    offset = (hours[known] - hours[known[0]]).astype(np.int64)
    gaps = np.diff(offset) - 1
    wide = np.flatnonzero(gaps > max_gap_h)
    if wide.size:
        first = int(wide[0])
        others = f", the first of {wide.size} such gaps" if wide.size > 1 else ""
        raise TraceError(
            f"{file}: {gaps[first]} hours are missing after {hours[known[first]]}:00 UTC{others}; "
            f"at most {max_gap_h} in a row are filled (max_gap_h). Cut the file there, or allow "
            f"more: the longest gap has {gaps.max()}."
        )
    n = int(offset[-1]) + 1
    last_known = np.zeros(n, dtype=np.int64)
    last_known[offset] = np.arange(len(known))
    last_known = np.maximum.accumulate(last_known)
    filled = np.ones(n, dtype=bool)
    filled[offset] = flags[known]
    grid = hours[known[0]] + np.arange(n).astype("timedelta64[h]")
    return grid, values[known][last_known], filled


class RecordedSource:
    """A recorded trace as a source: at its own dates, or replayed onto today's calendar.

    Replayed values keep the recorded time, so their age says how old they really are, and are
    marked as estimated: they show how such a grid behaves, not what it does today. A value that
    looks defective in the light of those before it is given all the same, and its note says so.
    """

    def __init__(self, trace: Trace, *, align: Align = "exact") -> None:
        self.trace = trace
        self.align = align
        self._doubt: tuple[int, str] = (-1, "")

    @property
    def name(self) -> str:
        """``recorded:`` and the trace's name, or ``synthetic:`` where it was generated."""
        return f"{'synthetic' if self.trace.synthetic else 'recorded'}:{self.trace.name}"

    @property
    def basis(self) -> Basis:
        """The trace's basis."""
        return self.trace.basis

    def now(self, at: datetime) -> IntensityReading:
        """The recorded value of the hour of ``at``; see :class:`IntensitySource`."""
        index, note = self._locate(at)
        estimated = bool(note) or self.trace.synthetic or bool(self.trace.estimated[index])
        recorded = to_datetime(self.trace.time_utc[index])
        return IntensityReading(
            g_per_kwh=float(self.trace.g_per_kwh[index]),
            zone=self.trace.zone,
            time=recorded,
            basis=self.basis,
            provider=self.name,
            kind="estimated" if estimated else "measured",
            age_s=max(0.0, (as_utc(at) - recorded).total_seconds()),
            note="; ".join(filter(None, [note or self._origin(index), self._doubtful(index)])),
        )

    def history_time(self, at: datetime) -> datetime:
        """The recorded moment that stands for ``at``: itself, unless the trace is replayed."""
        return to_datetime(self.trace.time_utc[self._locate(at)[0]])

    def forecast(self, at: datetime, hours: int) -> tuple[IntensityReading, ...]:
        """Yesterday's profile, from hours up to ``at`` alone, although the future is on file.

        The uncertainty is the root mean square error of that same forecast on the (up to) seven
        days before ``at``; persistence serves where there is less than a day of history.
        """
        require_horizon(hours)
        index, note = self._locate(at)
        past = self.trace.g_per_kwh[: index + 1]
        lag = DAY_H if len(past) >= DAY_H else 1
        method = "same hour of the day before" if lag == DAY_H else "persistence"
        errors = (past[lag:] - past[:-lag])[-WEEK_H:]
        spread = float(np.sqrt(np.mean(errors**2))) if errors.size else None
        note = f"forecast by {method}" + (f"; {note}" if note else "")
        first = floor_hour(at) + HOUR
        return tuple(
            IntensityReading(
                g_per_kwh=float(past[len(past) - lag + step % lag]),
                zone=self.trace.zone,
                time=first + step * HOUR,
                basis=self.basis,
                provider=self.name,
                kind="forecast",
                age_s=0.0,
                uncertainty_g_per_kwh=spread,
                note=note,
            )
            for step in range(hours)
        )

    def _doubtful(self, index: int) -> str:
        """What is wrong with a row, from the rows up to it; the last answer is kept."""
        known, doubt = self._doubt
        if known != index:
            doubt = newest_doubt(self.trace, index)
            # One assignment: another thread sees the old pair or the new one.
            self._doubt = (index, doubt)
        return doubt

    def _origin(self, index: int) -> str:
        if self.trace.synthetic:
            return "synthetic, no real grid"
        return "estimated in the recording" if self.trace.estimated[index] else ""

    def _locate(self, at: datetime) -> tuple[int, str]:
        if self.align == "exact" or self.trace.start <= as_utc(at) < self.trace.end:
            return self.trace.index_at(at), ""
        length = len(self.trace)
        # The coarsest shift that the trace is long enough for keeps most of the calendar.
        step = next((s for s in (YEAR_H, WEEK_H, DAY_H) if s <= length), None)
        if step is None:
            raise IntensityError(
                f"Trace {self.trace.name} has {length} hours; replaying needs {DAY_H} or more."
            )
        ahead = (floor_hour(at) - self.trace.start) // HOUR
        shift = -(-(ahead - length + 1) // step) if ahead >= length else ahead // step
        index = ahead - shift * step
        recorded = to_datetime(self.trace.time_utc[index])
        return index, f"replayed from {recorded:%Y-%m-%d %H:%M} UTC, not today's grid"
