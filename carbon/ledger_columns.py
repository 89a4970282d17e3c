"""Add up many ledger lines at once, in columns.

Accepts only what the line-by-line reader would accept; anything else is left to that reader, which
says what is wrong and where.
"""

from __future__ import annotations

import io
from typing import Any, get_args

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import json as arrow_json

from carbon.entries import ALL, NO_CASE, VERSION, By, LedgerTotal, merge
from carbon.intensity.protocol import Basis, Kind
from carbon.meter import EnergyBasis

_TIME = pa.timestamp("us", tz="UTC")
_INTENSITY = pa.struct(
    [
        ("g_per_kwh", pa.float64()), ("zone", pa.string()), ("time", pa.string()),
        ("basis", pa.string()), ("provider", pa.string()), ("kind", pa.string()),
        ("age_s", pa.float64()), ("uncertainty_g_per_kwh", pa.float64()), ("note", pa.string()),
    ]
)  # fmt: skip
_SCHEMA = pa.schema(
    [
        ("v", pa.int64()), ("time", pa.string()), ("stage", pa.string()), ("case", pa.string()),
        ("energy_kwh", pa.float64()), ("energy_basis", pa.string()),
        ("energy_source", pa.string()), ("energy_reason", pa.string()),
        ("seconds", pa.float64()), ("intensity", _INTENSITY), ("g_co2e", pa.float64()),
        ("note", pa.string()), ("policy", pa.string()), ("unit", pa.string()),
        ("session", pa.string()),
    ]
)  # fmt: skip
_REQUIRED = ("v", "time", "stage", "energy_basis", "energy_source", "note")
_INTENSITY_REQUIRED = ("g_per_kwh", "zone", "time", "basis", "provider", "kind", "age_s", "note")


def count_columns(block: bytes, by: By) -> tuple[LedgerTotal, ...] | None:
    """Sums over whole lines; None if any line is not plainly an entry.

    Args:
        block: lines, each with its end.
        by: one row for each stage or case, or one for all.
    """
    options = arrow_json.ParseOptions(
        explicit_schema=_SCHEMA, unexpected_field_behavior="error", newlines_in_values=False
    )
    try:
        table = arrow_json.read_json(io.BytesIO(block), parse_options=options)
        if table.num_rows != block.count(b"\n") or not _is_sound(table):
            return None
    except pa.ArrowException:
        return None
    return _sums(table, by)


def _is_sound(table: Any) -> bool:
    intensity = table["intensity"].combine_chunks()
    there = intensity.drop_null().flatten()
    parts = dict(zip([field.name for field in _INTENSITY], there))
    # The cast refuses a time without a zone, which the JSON reader would take for UTC.
    for times in (table["time"], parts["time"]):
        times.cast(_TIME)
    required = [table[name] for name in _REQUIRED] + [parts[n] for n in _INTENSITY_REQUIRED]
    names = [table[n] for n in ("stage", "case", "policy", "unit", "session")]
    figures = [table[n] for n in ("energy_kwh", "seconds", "g_co2e")]
    figures += [parts[n] for n in ("g_per_kwh", "age_s", "uncertainty_g_per_kwh")]
    unexplained = pc.and_(pc.is_null(table["energy_kwh"]), pc.is_null(table["energy_reason"]))
    return (
        all(column.null_count == 0 for column in required)
        and pc.unique(table["v"]).to_pylist() == [VERSION]
        and _only(table["energy_basis"], get_args(EnergyBasis))
        and _only(parts["basis"], get_args(Basis))
        and _only(parts["kind"], get_args(Kind))
        and not any("" in _extremes(column) for column in names)
        and all(_not_negative(column) for column in figures)
        and not pc.any(unexplained).as_py()
        and "" not in _extremes(table["energy_reason"])
    )


def _extremes(column: Any) -> tuple[Any, Any]:
    found = pc.min_max(column).as_py()
    return found["min"], found["max"]


def _only(column: Any, allowed: tuple[str, ...]) -> bool:
    return set(pc.unique(column).to_pylist()) <= set(allowed)


def _not_negative(column: Any) -> bool:
    low, high = _extremes(column)
    return low is None or (low >= 0 and high < float("inf"))


def _sums(table: Any, by: By) -> tuple[LedgerTotal, ...]:
    keys = {
        "stage": lambda: table["stage"],
        "case": lambda: pc.fill_null(table["case"], NO_CASE),
        "all": lambda: pa.array([ALL]).take(pa.array([0] * table.num_rows)),
    }[by]()
    basis = pc.struct_field(table["intensity"].combine_chunks(), "basis")
    columns = pa.table(
        {"key": keys, "basis": basis, "how": table["energy_basis"],
         "kwh": table["energy_kwh"], "g": table["g_co2e"]}
    )  # fmt: skip
    summed = columns.group_by(["key", "basis", "how"], use_threads=False).aggregate(
        [("kwh", "sum"), ("g", "sum"), ("kwh", "count"), ("g", "count"), ([], "count_all")]
    )
    return merge(_row(**line) for line in summed.to_pylist())


def _row(
    *, key: str, basis: Basis | None, how: EnergyBasis, kwh_sum: float | None,
    g_sum: float | None, kwh_count: int, g_count: int, count_all: int,
) -> LedgerTotal:  # fmt: skip
    kwh = kwh_sum or 0.0
    return LedgerTotal(
        key=key,
        intensity_basis=basis,
        entries=count_all,
        measured_kwh=kwh if how == "measured" else 0.0,
        modelled_kwh=0.0 if how == "measured" else kwh,
        g_co2e=g_sum or 0.0,
        unmeasured=count_all - kwh_count,
        without_g_co2e=count_all - g_count,
    )
