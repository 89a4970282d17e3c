from __future__ import annotations

import csv
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carbon.codecarbon import COLUMNS, export_csv, import_csv
from carbon.entries import LedgerEntry, emissions_g_co2e
from carbon.errors import AccountError
from carbon.intensity.protocol import Basis, IntensityReading

AT = datetime(2024, 3, 1, 12, tzinfo=UTC)
BASIS: Basis = "average-life-consumption"
HEADER = "timestamp,project_name,run_id,experiment_id,duration,emissions,energy_consumed,"
HEADER += "country_iso_code,codecarbon_version,pue\n"


def entry(kwh: float | None = 0.5, g: float = 200.0, **changes: Any) -> LedgerEntry:
    grid = IntensityReading(
        g_per_kwh=g, zone="GB", time=AT, basis=BASIS, provider="a test", kind="measured", age_s=0.0
    )
    fields: dict[str, Any] = {
        "time": AT, "stage": "train", "case": None, "energy_kwh": kwh, "energy_basis": "measured",
        "energy_source": "rapl", "energy_reason": None if kwh is not None else "no counter",
        "intensity": grid, "g_co2e": emissions_g_co2e(kwh, grid),
    }  # fmt: skip
    return LedgerEntry(**fields | changes)


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_by_hand(tmp_path: Path) -> None:
    path = written(
        tmp_path / "emissions.csv",
        HEADER + "2024-07-01T14:00:00,train,run-1,board,3600.5,0.25,1.25,GBR,3.3.0,1.2\n",
    )
    (got,) = import_csv(path, timezone=ZoneInfo("Europe/London"), basis=BASIS)
    assert got.time == datetime(2024, 7, 1, 13, tzinfo=UTC)
    assert (got.stage, got.case, got.session, got.seconds) == ("train", None, "board", 3600.5)
    assert (got.energy_kwh, got.g_co2e) == (1.25, 250.0)
    assert (got.energy_basis, got.energy_source) == ("modelled", "codecarbon 3.3.0")
    assert got.energy_reason is not None
    assert "does not say which parts" in got.energy_reason
    assert got.intensity is not None
    assert (got.intensity.g_per_kwh, got.intensity.zone, got.intensity.kind) == (
        200.0, "GBR", "estimated",
    )  # fmt: skip
    assert got.note == "CodeCarbon run run-1; PUE 1.2 by CodeCarbon"
    (as_case,) = import_csv(path, timezone=UTC, basis=BASIS, run_id_is_case=True)
    assert as_case.case == "run-1"


def test_empty_cells_stay_unknown(tmp_path: Path) -> None:
    path = written(tmp_path / "e.csv", HEADER + "2024-07-01T14:00:00,,,,,,,,,\n")
    (got,) = import_csv(path, timezone=UTC, basis=BASIS)
    assert (got.energy_kwh, got.g_co2e, got.seconds, got.intensity) == (None, None, None, None)
    assert (got.stage, got.energy_reason) == ("codecarbon", "CodeCarbon's file has no figure")
    line = "".join(export_csv([got])).splitlines()[1].split(",")
    cells = dict(zip(COLUMNS, line, strict=True))
    assert (cells["emissions"], cells["energy_consumed"], cells["cpu_energy"]) == ("", "", "")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("timestamp,duration\n", "lacks the columns project_name, emissions, energy_consumed"),
        (HEADER + "yesterday,t,,,1,1,1,,,\n", "row 2: Invalid isoformat"),
        (HEADER + "2024-07-01T14:00:00,t,,,one,1,1,,,\n", "row 2: duration is 'one'"),
        (HEADER + "2024-07-01T14:00:00,t,,,1,-1,1,,,\n", "row 2: emissions is -1"),
        (HEADER + "2024-07-01T14:00:00,t,,,1,nan,1,,,\n", "row 2: emissions is nan"),
    ],
)
def test_what_is_no_emissions_file_is_refused(tmp_path: Path, text: str, says: str) -> None:
    path = written(tmp_path / "e.csv", text)
    with pytest.raises(AccountError, match=says):
        list(import_csv(path, timezone=UTC, basis=BASIS))


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(AccountError, match="cannot be read"):
        list(import_csv(tmp_path / "none.csv", timezone=UTC, basis=BASIS))


def test_export_has_codecarbons_columns_and_units() -> None:
    lines = list(csv.DictReader(export_csv([entry(seconds=10.0, case="c-1")])))
    (row,) = lines
    assert tuple(row) == COLUMNS
    assert (row["emissions"], row["energy_consumed"], row["duration"]) == ("0.1000", "0.5", "10.0")
    assert float(row["emissions_rate"]) == pytest.approx(0.01)
    assert (row["timestamp"], row["run_id"]) == ("2024-03-01T12:00:00", "c-1")


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zs"]), min_size=1)
figures = st.floats(0.0, 1e6)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 10**9), TEXT, st.none() | TEXT, st.none() | figures,
            st.floats(0.0, 2000.0), st.none() | figures,
        ),
        max_size=5,
    )
)  # fmt: skip
def test_what_is_exported_comes_back(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[int, str, str | None, float | None, float, float | None]],
) -> None:
    entries = [
        entry(
            kwh, g, time=AT + timedelta(microseconds=us * 1000), stage=stage.strip() or "x",
            case=case, session=case, seconds=seconds,
        )
        for us, stage, case, kwh, g, seconds in rows
    ]  # fmt: skip
    path = tmp_path_factory.mktemp("cc") / "emissions.csv"
    path.write_text("".join(export_csv(entries)), encoding="utf-8", newline="")
    back = list(import_csv(path, timezone=UTC, basis=BASIS, run_id_is_case=True))
    for before, after in zip(entries, back, strict=True):
        for name in ("time", "stage", "case", "session", "energy_kwh", "g_co2e", "seconds"):
            assert getattr(after, name) == getattr(before, name)
        assert after.energy_basis == "modelled"
        if before.energy_kwh and before.g_co2e is not None and after.intensity is not None:
            assert after.intensity.basis == BASIS
            implied = before.g_co2e / before.energy_kwh
            assert after.intensity.g_per_kwh == pytest.approx(implied)
    # A second round changes nothing more.
    path.write_text("".join(export_csv(back)), encoding="utf-8", newline="")
    assert list(import_csv(path, timezone=UTC, basis=BASIS, run_id_is_case=True)) == back
