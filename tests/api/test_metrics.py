"""A scrape of a running server, parsed as Prometheus would, and what must not be in it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from agent.workflow.doubles import StillMonitor, StillReading
from carbon.errors import IntensityError


class Troubled(StillMonitor):
    """Answers in time, or late, or not at all, as a test likes it."""

    trouble: str = ""

    def now(self) -> StillReading:
        if Troubled.trouble == "slow":
            time.sleep(1.0)
        if Troubled.trouble == "down":
            raise IntensityError("the line is cut")
        return super().now()


def scrape(client: Any) -> dict[str, dict[tuple[str, ...], float]]:
    answer = client.get("/metrics")
    assert answer.status_code == 200
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


def test_the_grid_and_the_budget_are_there_and_no_case_is(
    serve: Callable[..., Any], body: Callable[[int], dict[str, Any]]
) -> None:
    with serve(monitor=StillMonitor(g_per_kwh=123.0), budget_g_co2e=1e6) as running:
        with running.client() as client:
            case = client.post("/v1/cases", json=body(0)).json()["id"]
            deadline = time.monotonic() + 15
            while client.get(f"/v1/cases/{case}").json()["status"] != "awaiting_clinician":
                assert time.monotonic() < deadline
                time.sleep(0.02)
            found = scrape(client)
            text = client.get("/metrics").text
        (intensity,) = found["greenboard_carbon_intensity_g_co2e_per_kwh"].values()
        assert intensity == 123.0
        assert found["greenboard_carbon_source_up"] == {(): 1.0}
        left = found["greenboard_carbon_budget_left_g_co2e"]["plan", "day"]
        assert 0 < left < found["greenboard_carbon_budget_limit_g_co2e"]["plan", "day"] == 1e6
        spent = sum(found["greenboard_g_co2e_total"].values())
        assert abs(left + spent - 1e6) < 1e-6
        assert sum(found["greenboard_energy_kwh_total"].values()) > 0
        assert case not in text


def test_a_slow_or_dead_provider_neither_delays_nor_breaks_a_scrape(
    serve: Callable[..., Any],
) -> None:
    Troubled.trouble = ""
    with serve(monitor=Troubled(g_per_kwh=50.0)) as running, running.client("viewer") as client:
        scrape(client)
        for trouble in ("slow", "down"):
            Troubled.trouble = trouble
            start_s = time.monotonic()
            found = scrape(client)
            assert time.monotonic() - start_s < 0.9
            assert list(found["greenboard_carbon_intensity_g_co2e_per_kwh"].values()) == [50.0]
            deadline = time.monotonic() + 10
            up = 0.0 if trouble == "down" else 1.0
            while scrape(client)["greenboard_carbon_source_up"][()] != up:
                assert time.monotonic() < deadline
                time.sleep(0.05)


def test_the_operators_limits_are_there_but_no_session(serve: Callable[..., Any]) -> None:
    limits = tuple(f"{period}:50:100" for period in ("session", "day", "month"))
    with serve(limits=limits) as running, running.client("viewer") as client:
        left = scrape(client)["greenboard_carbon_budget_left_g_co2e"]
    assert left["limits", "day"] == left["limits", "month"] == 100.0
    assert {period for _, period in left} == {"day", "month"}
