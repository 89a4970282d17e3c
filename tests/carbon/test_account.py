from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carbon.account import Account, AccountBy, draw_up
from carbon.embodied import DeclaredHardware
from carbon.entries import LedgerEntry, emissions_g_co2e
from carbon.errors import AccountError
from carbon.heat import HeatRecovery
from carbon.intensity.protocol import Basis, IntensityReading, Kind

AT = datetime(2024, 3, 1, 12, 30, tzinfo=UTC)
HEAT = HeatRecovery(recovered=0.9, used=0.8)
SERVER = DeclaredHardware(
    embodied_kg_co2e=1000.0, lifespan_h=35_064.0, source="declared for a test"
)
GROUPINGS: tuple[AccountBy, ...] = ("stage", "case", "policy", "unit", "session", "all")


def grid(g: float, basis: Basis = "average-direct-consumption", kind: Kind = "measured") -> Any:
    return IntensityReading(
        g_per_kwh=float(g), zone="GB", time=AT, basis=basis, provider="a test", kind=kind, age_s=0.0
    )


def entry(kwh: float | None = 1.0, g: float | None = 100.0, **changes: Any) -> LedgerEntry:
    reading = changes.pop("intensity", None if g is None else grid(g))
    made = LedgerEntry(
        time=AT, stage="train", case=None, energy_kwh=kwh, energy_basis="modelled",
        energy_source="a test", energy_reason="no counter", intensity=reading,
        g_co2e=emissions_g_co2e(kwh, reading),
    )  # fmt: skip
    return replace(made, **changes)


def test_by_hand() -> None:
    account = draw_up(
        [
            entry(2.0, 100, case="a", seconds=3600.0, energy_basis="measured"),
            entry(1.0, 300, case="b", seconds=1800.0, intensity=grid(300, kind="fallback")),
            entry(None, 100, case="b"),
            entry(4.0, None, case="b"),
        ],
        "all",
        heat=HEAT,
        hardware=SERVER,
    )
    nowhere, row = account.rows
    assert nowhere.intensity_basis is None
    assert (nowhere.energy_kwh, nowhere.counted_kwh, nowhere.g_co2e) == (4.0, 0.0, 0.0)
    assert (row.entries, row.cases, row.unmeasured, row.without_g_co2e) == (3, 2, 1, 1)
    assert (row.measured_kwh, row.modelled_kwh) == (2.0, 1.0)
    assert row.g_co2e == pytest.approx(2 * 100 + 1 * 300)
    assert row.mean_g_per_kwh == pytest.approx(500 / 3)
    assert row.avoided_g_co2e == pytest.approx(3 * 0.9 * 0.8 * 203)
    assert row.net_g_co2e == pytest.approx(500 - 3 * 146.16)
    assert row.embodied_g_co2e == pytest.approx(1e6 * 1.5 / 35_064)
    assert row.sci_g_co2e_per_case == pytest.approx((500 + 1e6 * 1.5 / 35_064) / 2)
    assert row.operational_g_co2e_per_case == 250.0
    assert row.intensity_kinds == {"fallback": 1, "measured": 2}
    assert "lower bound: leaves out M of 1 entries" in row.sci_remark


def test_sci_takes_no_credit_for_heat() -> None:
    with_heat = draw_up([entry(case="a", seconds=1.0)], heat=HEAT, hardware=SERVER)
    without = draw_up([entry(case="a", seconds=1.0)], hardware=SERVER)
    assert with_heat.rows[0].net_g_co2e is not None
    assert with_heat.rows[0].net_g_co2e < 0
    assert with_heat.rows[0].sci_g_co2e_per_case == without.rows[0].sci_g_co2e_per_case
    assert without.rows[0].net_g_co2e is None


def test_what_is_missing_is_said_not_guessed() -> None:
    (row,) = draw_up([entry()]).rows
    assert (row.avoided_g_co2e, row.net_g_co2e, row.sci_g_co2e_per_case) == (None, None, None)
    assert row.sci_remark == "no entry names a case, so there is no functional unit"
    (row,) = draw_up([entry(case="a")]).rows
    assert "no hardware was declared" in row.sci_remark
    (row,) = draw_up([entry(case="a", seconds=1.0)], hardware=SERVER).rows
    assert row.sci_remark == ""
    short = replace(SERVER, lifespan_h=0.5)
    with pytest.raises(AccountError, match="outside 0 to its lifespan"):
        draw_up([entry(case="a", seconds=3600.0)], hardware=short)


def test_heat_that_would_flatter_is_not_set_against_direct_figures() -> None:
    life = replace(HEAT, displaced_g_per_kwh_heat=250.0, source="a study", scope="life")
    rows = draw_up(
        [entry(), entry(intensity=grid(150, "average-life-consumption"))], "all", heat=life
    ).rows
    direct, whole = rows
    assert direct.avoided_g_co2e is None
    assert "flatter" in direct.heat_remark
    account = draw_up([entry()], heat=life)
    assert account.hours_below("average-direct-consumption") is None
    assert whole.avoided_g_co2e == pytest.approx(0.9 * 0.8 * 250)


def test_long_work_is_spread_over_its_hours() -> None:
    account = draw_up([entry(3.0, 100, seconds=2.5 * 3600, time=AT)], heat=HEAT)
    # 10:00 to 12:30
    assert [c.hour.hour for c in account.hours] == [10, 11, 12]
    assert [c.energy_kwh for c in account.hours] == pytest.approx([1.2, 1.2, 0.6])
    below = account.hours_below("average-direct-consumption")
    assert below is not None
    assert (below.below, below.hours) == (3, 3)
    assert below.kwh_below == pytest.approx(3.0)
    assert draw_up([entry()]).hours_below("average-direct-consumption") is None


def test_hours_below_counts_hours_by_their_mean_intensity() -> None:
    account = draw_up(
        [entry(1.0, 100), entry(1.0, 300), entry(2.0, 100, time=AT + timedelta(hours=1))], heat=HEAT
    )
    below = account.hours_below("average-direct-consumption")
    assert below is not None
    # (100 + 300) / 2 is above 146.16; the next hour's 100 is below.
    assert (below.below, below.hours, below.kwh_below, below.kwh) == (1, 2, 2.0, 4.0)


bases = st.sampled_from([None, "average-direct-consumption", "average-life-consumption"])
kinds = st.sampled_from(["measured", "forecast", "estimated", "fallback"])
names = st.none() | st.sampled_from(["a", "b", "c"])
small = st.floats(0, 1e4)


@st.composite
def entries(draw: Any) -> LedgerEntry:
    basis = draw(bases)
    reading = None if basis is None else grid(draw(small), basis, draw(kinds))
    return entry(
        draw(st.none() | small), None, intensity=reading,
        time=AT + timedelta(seconds=draw(st.integers(-10**7, 10**7))),
        stage=draw(st.sampled_from(["train", "assess"])), case=draw(names), policy=draw(names),
        unit=draw(names), session=draw(names), seconds=draw(st.none() | st.floats(0, 1e6)),
        energy_basis=draw(st.sampled_from(["measured", "modelled"])),
    )  # fmt: skip


def _sum(account: Account, name: str, basis: Any) -> float:
    return sum(getattr(r, name) or 0.0 for r in account.rows if r.intensity_basis == basis)


@settings(deadline=None, max_examples=40)
@given(st.lists(entries(), max_size=25))
def test_every_entry_is_counted_once_however_it_is_grouped(rows: list[LedgerEntry]) -> None:
    expected: dict[Any, float] = {}
    for row in rows:
        expected[row.intensity_basis] = expected.get(row.intensity_basis, 0.0) + (row.g_co2e or 0.0)
    for by in GROUPINGS:
        account = draw_up(rows, by, heat=HEAT, hardware=SERVER)
        assert sum(r.entries for r in account.rows) == len(rows)
        assert {r.intensity_basis for r in account.rows} == set(expected)
        for total in account.totals:
            basis = total.intensity_basis
            assert total.g_co2e == pytest.approx(expected[basis])
            for name in (
                "entries", "measured_kwh", "modelled_kwh", "counted_kwh", "g_co2e",
                "avoided_g_co2e", "embodied_g_co2e", "unmeasured", "without_g_co2e", "untimed",
            ):  # fmt: skip
                assert _sum(account, name, basis) == pytest.approx(getattr(total, name) or 0.0)
            hours = [c for c in account.hours if c.intensity_basis == basis]
            assert sum(c.energy_kwh for c in hours) == pytest.approx(total.energy_kwh)
            assert sum(c.g_co2e for c in hours) == pytest.approx(total.g_co2e)
        for r in account.rows:
            if r.entries == r.without_g_co2e:
                assert (r.gross_g_co2e, r.avoided_g_co2e, r.net_g_co2e) == (None, None, None)
                assert r.sci_g_co2e_per_case is None
                continue
            assert r.net_g_co2e is not None
            assert r.avoided_g_co2e is not None
            assert r.net_g_co2e == pytest.approx(r.g_co2e - r.avoided_g_co2e)
            assert r.sci_g_co2e_per_case is None or r.sci_g_co2e_per_case >= 0


def test_unknown_is_not_zero() -> None:
    nothing = [entry(None, 100, case="a", seconds=1.0), entry(2.0, None, case="a", seconds=1.0)]
    nowhere, unmeasured = draw_up(nothing, "case", heat=HEAT, hardware=SERVER).rows
    assert (nowhere.known_kwh, nowhere.gross_g_co2e, nowhere.avoided_g_co2e) == (2.0, None, None)
    assert (unmeasured.known_kwh, unmeasured.gross_g_co2e) == (None, None)
    assert (nowhere.sci_g_co2e_per_case, nowhere.operational_g_co2e_per_case) == (None, None)
    assert nowhere.sci_remark == "no entry has emissions, so E x I is unknown"
    (zero,) = draw_up([entry(0.0, 100)]).rows
    assert (zero.known_kwh, zero.gross_g_co2e) == (0.0, 0.0)


def test_planted_bases_stay_apart() -> None:
    planted = [entry(1.0, intensity=grid(100, "average-life-consumption")) for _ in range(3)]
    planted += [entry(1.0, intensity=grid(50)) for _ in range(2)]
    account = draw_up(planted, "stage", heat=HEAT)
    assert [(r.intensity_basis, r.g_co2e) for r in account.rows] == [
        ("average-direct-consumption", 100.0), ("average-life-consumption", 300.0),
    ]  # fmt: skip
    assert account.rows[0].heat_remark == ""
    assert "understated" in account.rows[1].heat_remark
