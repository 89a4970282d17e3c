"""Carbon, policies and about: every figure is there, and says where it comes from."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html import unescape
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest
from markupsafe import Markup

from agent.workflow.doubles import StillMonitor
from api.web import words
from api.web.about_page import _about
from api.web.carbon_charts import Hour, burn_chart, forecast_chart
from api.web.case_charts import Look, contribution_chart, evidence_chart
from api.web.case_steps import looks_of, timeline
from api.web.forms import fill
from api.web.policies_page import _apart, comparison_chart, comparison_of
from api.web.svg import tag, ticks
from api.web.templating import arrow

NOW = datetime(2026, 11, 23, 20, 30, tzinfo=UTC)
LONDON = ZoneInfo("Europe/London")
CLASSES = {"negative": "LUAD", "positive": "LUSC"}


def hidden(page: str, name: str, form: str = "") -> str:
    if form:
        page = page[page.index(f'id="{form}"') :]
    found = re.search(rf'name="{name}" value="([^"]*)"', page)
    assert found is not None
    return unescape(found[1])


def words_of(page: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", page)).split())


@pytest.fixture
def page(shared_server: Any) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=shared_server.url, timeout=20) as client:
        form = client.get("/login")
        client.post("/login", data={"key": "reviewer-key", "csrf": hidden(form.text, "csrf")})
        yield client


def test_carbon_tells_the_grid_the_budget_and_where_figures_come_from(
    page: httpx.Client, shared_client: httpx.Client, body: Any
) -> None:
    posted = shared_client.post("/v1/cases", json={**body(0), "policy": "always-everything"})
    for _ in range(200):
        if shared_client.get(f"/v1/cases/{posted.json()['id']}").json()["probability"] is not None:
            break
    text = page.get("/carbon").text
    seen = words_of(text)
    assert 'id="chart-forecast"' in text
    assert 'id="chart-burndown"' in text
    assert "200 gCO 2 e/kWh" in seen
    assert "estimated" in seen
    for what in ("Gross", "Avoided", "Net", "SCI", "none declared", "No limit is set"):
        assert what in seen
    budget = shared_client.get("/v1/carbon/ledger").json()["budget"]
    assert f"of {words.number(budget['g_co2e_per_day'])} g" in seen


def test_the_account_takes_heat_and_refuses_more_than_all_of_it(page: httpx.Client) -> None:
    fine = page.get("/carbon", params={"heat": "0.6:0.9:203", "by": "policy"})
    assert fine.status_code == 200
    assert "none declared" not in words_of(fine.text)
    for heat in ("1.5:0.9:203", "nonsense", "0.6"):
        wrong = page.get("/carbon", params={"heat": heat}).text
        assert 'id="heat-error"' in wrong, heat
        assert 'aria-invalid="true"' in wrong
    assert 'id="by-error"' in page.get("/carbon", params={"by": "x"}).text


def test_limits_and_a_grid_that_is_not_known_are_told(serve: Any) -> None:
    with (
        serve(monitor=StillMonitor(), limits=("day:500:800",)) as running,
        httpx.Client(base_url=running.url, timeout=20) as client,
    ):
        form = client.get("/login")
        client.post("/login", data={"key": "viewer-key", "csrf": hidden(form.text, "csrf")})
        seen = words_of(client.get("/carbon").text)
    assert "500" in seen
    assert "800" in seen
    assert "There is no forecast." in seen


def test_policies_tell_who_decides_and_a_comparison_can_be_started(
    page: httpx.Client, shared_server: Any
) -> None:
    text = page.get("/policies").text
    assert "never" in words_of(text)
    empty = {"csrf": hidden(text, "csrf"), "sessions": "1", "seed": "x"}
    wrong = page.post("/policies/comparisons", data=empty)
    assert wrong.status_code == 422
    for field in ("policies", "sessions", "seed"):
        assert f'id="{field}-error"' in wrong.text
    asked = {
        "csrf": hidden(text, "csrf"),
        "nonce": hidden(text, "nonce", "form-comparison"),
        "policy:never": "1", "policy:rule": "1", "sessions": "2", "seed": "0",
    }  # fmt: skip
    for _ in range(2):
        answer = page.post("/policies/comparisons", data=asked)
        assert answer.headers["location"] == "/policies#jobs"
    after = page.get("/policies").text
    jobs = re.findall(r'<tr id="job-([0-9a-f]{32})"', after)
    assert len(jobs) == 1
    assert page.get(f"/policies/jobs/{jobs[0]}/../../secret").status_code == 404
    assert page.get(f"/policies/jobs/{jobs[0]}/report.html").status_code == 404
    assert page.get("/policies/jobs/nobody/report.html").status_code == 404
    if f'action="/policies/jobs/{jobs[0]}/cancel"' in after:
        csrf = hidden(after, "csrf")
        assert page.post(f"/policies/jobs/{jobs[0]}/cancel", data={"csrf": csrf}).status_code in (
            303,
            409,
        )


def test_about_tells_the_validation_with_its_intervals(tmp_path: Path) -> None:
    figure = {"value": 0.934, "ci95": [0.918, 0.95], "n": 821}
    full = {"auc": figure, "brier": figure, "ece": figure, "auc_over_hospitals": figure}
    metrics = {"full": full, "single": {"clinical": {"auc": figure}}, "baselines": {}}
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    (tmp_path / "manifest.json").write_text(
        json.dumps({"cohort": "c", "n_patients": 821, "label": CLASSES})
    )
    about = _about(tmp_path)
    assert about.rows[0][1] == "0.934 (0.918 to 0.950), n = 821"
    assert ("Patients", "821") in about.facts
    assert any("whole hospitals" in limit for limit in about.limits)
    assert _about(tmp_path / "nothing").rows == []


def test_about_is_served_without_figures_too(page: httpx.Client) -> None:
    seen = words_of(page.get("/about").text)
    assert "Research use only" in seen
    assert "no figures of its validation" in seen


def test_numbers_and_times_in_words() -> None:
    assert words.chance(0.9999) == ">0.99"
    assert words.chance(0.001) == "<0.01"
    assert words.chance(1.0) == "1.00"
    assert words.chance(None) == "–"
    assert words.number(None) == "unknown"
    assert words.number(12345.6) == "12,346"
    assert words.number(-0.0123) == "−0.0123"
    assert words.small(0.0) == "0"
    assert words.small(1e-9) == "<0.001"
    assert words.small(None) == "unknown"
    assert words.due(NOW - timedelta(minutes=90), NOW) == "1 h 30 min overdue"
    assert words.ago(NOW + timedelta(days=2, hours=3), NOW) == "in 2 d 3 h"
    assert words.ago(NOW, NOW) == "now"
    assert words.clock_time(NOW, LONDON, NOW) == "20:30 GMT"
    assert words.clock_time("2026-07-01T08:00:00+00:00", LONDON, NOW) == "1 Jul, 09:00 BST"
    assert words.urgency_word(0.8) == "Urgent"
    assert words.reason_word(None) == ""


def test_drawings_escape_what_they_are_given() -> None:
    assert tag("text", "<b>", title='"x"') == '<text title="&#34;x&#34;">&lt;b&gt;</text>'
    assert "<script>" not in arrow("<script>->b")
    chart = evidence_chart([Look(name="<i>", probability=0.4, g_co2e=None, left=("a",))], "<b>&")
    assert "<i>" not in chart.svg
    assert "<b>" not in chart.svg
    assert isinstance(chart.svg, Markup)
    assert 'role="img"' in chart.svg
    assert chart.table[0][-1] == "unknown"


def test_charts_say_in_a_table_what_they_draw() -> None:
    weighting = {
        "pathology": {"contribution_log_odds": -2.5, "attention": 0.26, "quality": None},
        "clinical": {"contribution_log_odds": 0.4, "attention": 0.5, "quality": 0.7},
    }
    chart = contribution_chart(weighting, "LUAD", "LUSC")
    assert chart is not None
    assert chart.table == (
        ("pathology", "−2.50", "26 %", "–"),
        ("clinical", "+0.40", "50 %", "70 %"),
    )
    assert contribution_chart({}, "LUAD", "LUSC") is None
    hours = [
        Hour(time=NOW + i * timedelta(hours=1), g_per_kwh=200.0 - i, low=180.0 if i else None,
             high=220.0 if i else None, kind="forecast" if i else "measured")
        for i in range(5)
    ]  # fmt: skip
    drawn = forecast_chart(hours, [(NOW + timedelta(hours=2), "<x>")], LONDON)
    assert len(drawn.table) == 5
    assert drawn.table[0][2:] == ("unknown", "measured")
    assert "<x>" not in drawn.svg
    burn = burn_chart([(NOW - timedelta(hours=1), 30.0)], 100.0, NOW, LONDON)
    assert burn.table == (("19:00", "30", "70"),)
    assert burn_chart([], 0.0, NOW, LONDON).table


def test_labels_do_not_lie_on_each_other() -> None:
    placed = _apart([30.0, 31.0, 32.0, 262.0])
    assert all(b - a >= 17.0 - 1e-9 for a, b in pairwise(placed))
    assert max(placed) <= 262.0
    figure = {"value": 1.0, "ci95": [0.5, 1.5], "n": 3}
    report = {"policies": {"<p>": {"g_co2e": figure, "auc_gain": figure}}}
    assert "<p>" not in comparison_chart(report).svg
    assert ticks(0.0, 1.0) == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert ticks(1.0, 1.0) == [1.0]


def test_a_timeline_of_any_age_is_told() -> None:
    charge = {"energy_kwh": None, "energy_basis": "modelled", "reason": "no counter"}
    events = [
        {"seq": 0, "kind": "assessment", "time": NOW.isoformat(),
         "data": {"probability": 0.4, "charge": charge}},
        {"seq": 1, "kind": "unreliable", "time": NOW.isoformat(),
         "data": {"action": "mark_unreliable", "modality": "pathology", "reviewer": "dr",
                  "reason_code": "data_quality", "comment": "blurred"}},
        {"seq": 2, "kind": "parked", "time": NOW.isoformat(),
         "data": {"node": "assess", "reason": "gone"}},
        {"seq": 3, "kind": "something-new", "time": NOW.isoformat(), "data": {}},
    ]  # fmt: skip
    steps = timeline(events, CLASSES)
    assert steps[0].cost == "energy unknown"
    assert "no counter" in " ".join(steps[0].lines)
    assert steps[1].look == "person"
    assert steps[1].quote == "blurred"
    assert "At assess: gone" in steps[2].lines
    assert steps[3].title
    assert [look.name for look in looks_of(events)] == ["clinical alone"]


def test_forms_become_requests_or_say_what_is_missing() -> None:
    full = {"action": "override", "result": "positive", "reason_code": "other", "comment": " x ",
            "version": "7", "seq": "3", "nonce": "n", "confirm": "yes"}  # fmt: skip
    filled = fill(full, 0.0)
    assert filled.given == {
        "action": "override", "result": "positive", "reason_code": "other", "comment": "x",
    }  # fmt: skip
    assert (filled.version, filled.seq, filled.confirmed, filled.decides) == (7, 3, True, True)
    assert fill({"action": "raise_urgency", "urgency": "0.9"}, 0.5).given["urgency"] == 0.9
    assert fill({"action": "raise_urgency", "urgency": "0.5"}, 0.5).errors
    assert fill({"action": "accept", "comment": "y" * 3000}, 0.5).errors
    assert fill({"action": "accept", "version": "x", "seq": "-"}, 0.5).version is None
    assert fill({"action": "nonsense"}, 0.5).action == ""
    request, errors = comparison_of({"policy:rule": "1", "sessions": "5"}, ["rule", "price"])
    assert (request["policies"], request["sessions"], errors) == (["rule"], 5, {})
    assert SimpleNamespace(**comparison_of({"sessions": "5"}, ["rule"])[1]).policies
