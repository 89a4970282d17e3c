from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbon.embodied import HOURS_PER_YEAR, DeclaredHardware
from carbon.errors import AccountError, HeatError, UnitError
from carbon.heat import GAS_BOILER_G_PER_KWH_HEAT, HeatRecovery
from carbon.sci import sci, sci_g_co2e

shares = st.floats(0, 1)
figures = st.floats(0, 1e6)


def test_by_hand() -> None:
    heat = HeatRecovery(recovered=0.9, used=1.0)
    assert heat.break_even_g_per_kwh == pytest.approx(182.7)
    assert heat.avoided_g_co2e(10.0) == pytest.approx(1827.0)
    # (2 kWh x 150 g/kWh + 60 g) / 4 cases
    assert sci(energy_kwh=2.0, g_per_kwh=150.0, embodied_g_co2e=60.0, units=4.0) == pytest.approx(
        90.0
    )
    # 1,000 kg over 4 years, 1 of 4 cores for a day: 1e6 x 24 / 35,064 / 4
    server = DeclaredHardware(
        embodied_kg_co2e=1000.0, lifespan_h=4 * HOURS_PER_YEAR, resources_reserved=1.0,
        resources_total=4.0, source="a maker's data sheet",
    )  # fmt: skip
    assert server.embodied_g_co2e(86_400.0) == pytest.approx(1e6 * 24 / 35_064 / 4)


@given(shares, shares, figures, figures)
def test_net_is_negative_exactly_below_break_even(r: float, u: float, kwh: float, g: float) -> None:
    heat = HeatRecovery(recovered=r, used=u)
    net = kwh * g - heat.avoided_g_co2e(kwh)
    assert net == pytest.approx(kwh * (g - heat.break_even_g_per_kwh), abs=1e-3)
    assert 0 <= heat.break_even_g_per_kwh <= GAS_BOILER_G_PER_KWH_HEAT


@given(st.floats(1.0000001, 1e9))
def test_more_than_all_cannot_be_recovered(r: float) -> None:
    with pytest.raises(HeatError, match=r"above 1: energy cannot be recovered more than once"):
        HeatRecovery(recovered=r, used=0.5)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"recovered": -0.1}, "recovered fraction is -0.1"),
        ({"recovered": math.nan}, "recovered fraction is nan"),
        ({"recovered": math.inf}, "recovered fraction is inf"),
        ({"used": 1.2}, "used fraction is 1.2"),
        ({"displaced_g_per_kwh_heat": -1.0}, "finite and not negative"),
        ({"displaced_g_per_kwh_heat": 300.0}, "say where it is from"),
        ({"displaced_g_per_kwh_heat": 300.0, "source": " "}, "no source"),
    ],
)
def test_senseless_heat_is_refused(changes: dict[str, float], says: str) -> None:
    with pytest.raises(HeatError, match=says):
        HeatRecovery(**{"recovered": 0.5, "used": 0.5} | changes)  # type: ignore[arg-type]


def test_scopes_may_differ_only_against_ourselves() -> None:
    direct = HeatRecovery(recovered=0.5, used=0.5)
    life = HeatRecovery(
        recovered=0.5, used=0.5, displaced_g_per_kwh_heat=240.0, source="a study", scope="life"
    )
    assert direct.remark("average-direct-consumption") == ""
    assert "understated" in direct.remark("average-life-consumption")
    assert direct.fits("average-life-consumption")
    assert "would flatter" in life.remark("average-direct-consumption")
    assert not life.fits("average-direct-consumption")
    assert life.remark("average-life-unstated") == ""


@given(figures, figures, st.floats(1, 1e6))
def test_sci_never_falls_below_zero_and_takes_no_credit(e: float, m: float, units: float) -> None:
    assert sci_g_co2e(operational_g_co2e=e, embodied_g_co2e=m, units=units) >= 0
    for bad in ({"operational_g_co2e": -1.0}, {"embodied_g_co2e": -0.1}, {"units": 0.0}):
        fit = {"operational_g_co2e": e, "embodied_g_co2e": m, "units": units}
        with pytest.raises(AccountError):
            sci_g_co2e(**fit | bad)


@pytest.mark.parametrize(
    "changes",
    [
        {"embodied_kg_co2e": -1.0}, {"embodied_kg_co2e": math.inf}, {"lifespan_h": 0.0},
        {"resources_reserved": 2.0}, {"resources_reserved": 0.0, "resources_total": 0.0},
        {"source": ""},
    ],
)  # fmt: skip
def test_senseless_hardware_is_refused(changes: dict[str, float]) -> None:
    with pytest.raises(AccountError):
        DeclaredHardware(
            **{"embodied_kg_co2e": 1.0, "lifespan_h": 1.0, "source": "x"} | changes  # type: ignore[arg-type]
        )


def test_a_machine_cannot_work_longer_than_it_lasts() -> None:
    server = DeclaredHardware(embodied_kg_co2e=1.0, lifespan_h=1.0, source="x")
    with pytest.raises(AccountError, match="outside 0 to its lifespan"):
        server.embodied_g_co2e(3601.0)
    with pytest.raises(UnitError):
        HeatRecovery(recovered=0.5, used=0.5).avoided_g_co2e(-1.0)
