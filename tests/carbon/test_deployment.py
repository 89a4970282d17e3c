from __future__ import annotations

import importlib.util
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbon.deployment import deployment_over_year
from carbon.errors import AccountError
from carbon.heat import HeatRecovery
from carbon.intensity.recorded import load_trace
from carbon.intensity.trace import Trace

HEAT = HeatRecovery(recovered=0.5, used=1.0, displaced_g_per_kwh_heat=200.0, source="a test")


def trace(g: Any, start: str = "2023-01-01", basis: Any = "average-direct-consumption") -> Trace:
    values = np.asarray(g, dtype=np.float64)
    hours = np.datetime64(start, "h") + np.arange(len(values))
    return Trace(
        time_utc=hours, g_per_kwh=values, estimated=np.zeros(len(values), dtype=np.bool_),
        basis=basis, zone="GB", name="made up",
    )  # fmt: skip


def test_by_hand() -> None:
    found = deployment_over_year(trace([50, 80, 100, 170] * 2190), HEAT)
    assert (found.hours, found.whole_year, found.period) == (8760, True, "2023, 8760 hours")
    assert found.hours_below == 4380  # 100 itself is not below
    assert found.share_below == 0.5
    assert found.mean_g_per_kwh == 100.0
    assert found.net_g_per_kwh == 0.0
    assert not found.negative
    assert found.net_below_g_per_kwh == pytest.approx(65 - 100)
    assert found.needed_recovered == 0.5
    assert "it was 100.0 (each hour alike)" in found.conditions[0]


def test_when_the_work_runs_decides_not_the_share_of_hours() -> None:
    night = [50.0] * 12 + [400.0] * 12
    always = deployment_over_year(trace(night * 365), HEAT)
    nightly = deployment_over_year(
        trace(night * 365), HEAT, kwh_by_hour_of_day=[1.0] * 12 + [0.0] * 12
    )
    assert always.share_below == nightly.share_below == 0.5
    assert not always.negative
    assert nightly.negative
    assert nightly.net_g_per_kwh == pytest.approx(50 - 100)
    assert "hours of the day" in nightly.weighting


def test_a_chosen_year_and_a_part_of_one() -> None:
    two = trace([50.0] * 8784 + [300.0] * 8760, start="2024-01-01")
    assert deployment_over_year(two, HEAT, year=2024).negative
    assert not deployment_over_year(two, HEAT).negative  # the last whole year
    part = deployment_over_year(trace([50.0] * 100), HEAT)
    assert not part.whole_year
    assert part.negative
    with pytest.raises(AccountError, match="no hour of 1999"):
        deployment_over_year(two, HEAT, year=1999)
    with pytest.raises(AccountError, match="24 figures"):
        deployment_over_year(two, HEAT, kwh_by_hour_of_day=[1.0] * 23)


def test_no_fraction_is_enough_on_a_dirty_grid() -> None:
    found = deployment_over_year(trace([500.0] * 8760), HEAT)
    assert found.needed_recovered is None
    assert "no recovered fraction up to 1 is enough" in found.conditions[1]
    assert found.net_below_g_per_kwh is None
    assert found.as_dict()["negative"] is False


def test_scopes_that_would_flatter_are_refused() -> None:
    life = HeatRecovery(
        recovered=0.5, used=1.0, displaced_g_per_kwh_heat=250.0, source="x", scope="life"
    )
    with pytest.raises(AccountError, match="would flatter"):
        deployment_over_year(trace([50.0] * 100), life)
    mixed = deployment_over_year(trace([50.0] * 100, basis="average-life-unstated"), HEAT)
    assert "understated" in mixed.conditions[-1]


@given(
    st.lists(st.floats(0, 1000), min_size=24, max_size=24 * 5),
    st.floats(0, 1), st.floats(0, 1), st.lists(st.floats(0, 10), min_size=24, max_size=24),
)  # fmt: skip
def test_the_sum_over_hours_is_the_weighted_mean(
    g: list[float], r: float, u: float, profile: list[float]
) -> None:
    heat = HeatRecovery(recovered=r, used=u)
    found = deployment_over_year(trace(g), heat, kwh_by_hour_of_day=profile)
    kwh = np.array([profile[i % 24] for i in range(len(g))])
    if kwh.sum() <= 0:
        kwh = np.ones(len(g))
    net = float((kwh * (np.array(g) - heat.break_even_g_per_kwh)).sum() / kwh.sum())
    assert found.net_g_per_kwh == pytest.approx(net, abs=1e-6)
    assert found.negative == (found.net_g_per_kwh < 0)
    needed = found.needed_recovered
    if needed is not None and needed < 0.999:
        more = HeatRecovery(recovered=min(1.0, needed + 1e-3), used=u)
        assert deployment_over_year(trace(g), more, kwh_by_hour_of_day=profile).net_g_per_kwh < 1e-6


@pytest.mark.shared_data
@pytest.mark.parametrize(("name", "share"), [("em_gb", 0.64), ("em_ciso", 0.35)])
def test_hours_below_on_recorded_years(shared_data: Path, name: str, share: float) -> None:
    recorded = load_trace(shared_data / "carbon" / f"{name}.csv.gz", "life")
    heat = HeatRecovery(recovered=0.9, used=1.0)
    found = deployment_over_year(recorded, heat, year=2024)
    assert found.share_below == pytest.approx(share, abs=0.005)
    assert found.hours == 8784
    year = recorded.between(
        datetime.fromisoformat("2024-01-01T00:00Z"), datetime.fromisoformat("2025-01-01T00:00Z")
    )
    assert found.net_g_per_kwh == pytest.approx(float(year.g_per_kwh.mean()) - 182.7)


@pytest.mark.shared_data
def test_the_card_says_what_the_recorded_years_say(shared_data: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    place = root / "benchmarks" / "carbon_deployment.py"
    spec = importlib.util.spec_from_file_location("carbon_deployment", place)
    assert spec is not None
    assert spec.loader is not None
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    table = benchmark.markdown(benchmark.measure(shared_data / "carbon"))
    assert table in (root / "carbon" / "README.md").read_text(encoding="utf-8")
