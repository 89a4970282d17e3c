from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbon.errors import CarbonError, UnitError
from carbon.units import CarbonIntensity, Emissions, Energy, Power

amounts = st.floats(min_value=0, max_value=1e12)


def test_conversions_are_exact() -> None:
    assert Energy.from_kwh(1.0).joules == 3.6e6
    assert Energy(joules=1.8e6).kwh == 0.5
    assert Power(watts=250.0).over(3600.0).kwh == pytest.approx(0.25)
    assert CarbonIntensity(g_per_kwh=200.0).of(Energy.from_kwh(1.5)) == Emissions(g_co2e=300.0)
    assert CarbonIntensity.from_lbs_per_mwh(1000.0).g_per_kwh == pytest.approx(453.59237)


@given(amounts, amounts)
def test_energy_adds_up(a: float, b: float) -> None:
    assert (Energy(joules=a) + Energy(joules=b)).joules == a + b
    assert (Emissions(g_co2e=a) + Emissions(g_co2e=b)).g_co2e == a + b


@pytest.mark.parametrize("value", [-1e-9, math.nan, math.inf])
def test_what_cannot_be_is_refused(value: float) -> None:
    makers = (
        lambda: Energy(joules=value),
        lambda: Power(watts=value),
        lambda: Emissions(g_co2e=value),
        lambda: CarbonIntensity(g_per_kwh=value),
        lambda: Power(watts=1.0).over(value),
    )
    for make in makers:
        with pytest.raises(UnitError, match="finite and not negative") as caught:
            make()
        assert isinstance(caught.value, CarbonError)
        assert isinstance(caught.value, ValueError)
