"""The account and the limits over HTTP: the same figures as the package gives, or a problem."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.problems import MEDIA_TYPE
from carbon.account import draw_up
from carbon.ledger import read_ledger
from distill.evidence import EvidenceTable

pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module")
BY = ("stage", "case", "policy", "unit", "session", "all")


@pytest.fixture
def reviewed(
    serve: Any, evidence: EvidenceTable, body: Any, until: Callable[..., Any]
) -> Iterator[httpx.Client]:
    """A server that has reviewed four cases of two units in two sessions."""
    rows = np.flatnonzero(evidence.present.all(axis=1))[:4]
    with serve(limits=("day:50:1e6", "session:1:1e6")) as running, running.client() as client:
        for i, row in enumerate(rows):
            request = body(int(row)) | {"unit": ("lung", "skin")[i % 2], "session": f"b-{i // 2}"}
            case_id = client.post("/v1/cases", json=request).json()["id"]
            until(client, case_id, "awaiting_clinician")
        yield client


def test_the_account_adds_up_however_it_is_asked(reviewed: httpx.Client) -> None:
    lines = reviewed.get("/v1/carbon/ledger").json()["totals"]
    gross = sum(line["g_co2e"] for line in lines)
    for by in BY:
        answer = reviewed.get("/v1/carbon/account", params={"by": by, "heat": "0.9:1:203"})
        assert answer.status_code == 200, answer.text
        account = answer.json()
        (total,) = account["totals"]
        assert total["gross_g_co2e"]["value"] == pytest.approx(gross)
        assert total["cases"] == 4
        rows = account["rows"]
        for name in ("gross_g_co2e", "avoided_g_co2e", "net_g_co2e", "energy_kwh"):
            value = sum(row[name]["value"] for row in rows)
            assert value == pytest.approx(total[name]["value"])
        for row in rows:
            difference = row["gross_g_co2e"]["value"] - row["avoided_g_co2e"]["value"]
            assert row["net_g_co2e"]["value"] == pytest.approx(difference)
    units = reviewed.get("/v1/carbon/account?by=unit").json()["rows"]
    assert [row["key"] for row in units] == ["lung", "skin"]
    policies = reviewed.get("/v1/carbon/account?by=policy").json()["rows"]
    assert [row["key"] for row in policies] == ["always-everything"]


def test_csv_has_the_rows_of_the_json(reviewed: httpx.Client) -> None:
    asked = {"by": "session", "heat": "0.5:0.5"}
    answer = reviewed.get("/v1/carbon/account.csv", params=asked)
    assert answer.headers["content-type"].startswith("text/csv")
    lines = list(csv.DictReader(io.StringIO(answer.text)))
    rows = reviewed.get("/v1/carbon/account", params=asked).json()["rows"]
    assert [line["key"] for line in lines] == [row["key"] for row in rows] == ["b-0", "b-1"]
    for line, row in zip(lines, rows):
        assert float(line["net_g_co2e"]) == row["net_g_co2e"]["value"]
        assert line["sci_g_co2e_per_case"] == ""


def test_the_exported_ledger_gives_the_same_account(reviewed: httpx.Client, tmp_path: Path) -> None:
    answer = reviewed.get("/v1/carbon/ledger.jsonl")
    assert answer.headers["content-type"] == "application/jsonl"
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(answer.content)
    account = draw_up(read_ledger(path), "unit")
    rows = reviewed.get("/v1/carbon/account?by=unit").json()["rows"]
    assert [row.key for row in account.rows] == [row["key"] for row in rows]
    for mine, row in zip(account.rows, rows):
        assert mine.g_co2e == row["gross_g_co2e"]["value"]
    times = [entry.time for entry in read_ledger(path)]
    middle = sorted(times)[len(times) // 2].isoformat()
    halves = [
        reviewed.get("/v1/carbon/ledger.jsonl", params={edge: middle}).content
        for edge in ("until", "since")
    ]
    assert sorted(b"".join(halves).splitlines()) == sorted(answer.content.splitlines())
    assert reviewed.get("/v1/carbon/ledger.jsonl?since=2026-01-01T00:00:00").status_code == 422


def test_the_page_has_the_limits_and_what_ran(reviewed: httpx.Client) -> None:
    answer = reviewed.get("/v1/carbon/account.html", params={"by": "unit", "heat": "0.9:1"})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    page = answer.text
    assert page.startswith("<!DOCTYPE html>")
    for words in ("Carbon account of server", "By unit", "lung", "What ran when", "soft limit"):
        assert words in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_a_span_and_hardware(reviewed: httpx.Client) -> None:
    later = {"since": "2100-01-01T00:00:00Z"}
    assert reviewed.get("/v1/carbon/account", params=later).json()["rows"] == []
    asked = {"hardware": "1300:35064:8:64", "hardware_source": "a sheet", "by": "all"}
    (row,) = reviewed.get("/v1/carbon/account", params=asked).json()["rows"]
    assert row["sci_g_co2e_per_case"]["value"] >= row["operational_g_co2e_per_case"]["value"]


def test_where_the_limits_stand(reviewed: httpx.Client) -> None:
    (day,) = reviewed.get("/v1/carbon/limits").json()["limits"]
    lines = reviewed.get("/v1/carbon/ledger").json()["totals"]
    assert day["spent_g_co2e"]["value"] == pytest.approx(sum(line["g_co2e"] for line in lines))
    assert (day["level"], day["action"]) == ("soft", "warn")
    found = reviewed.get("/v1/carbon/limits", params={"session": "b-0"}).json()["limits"]
    assert [limit["period"] for limit in found] == ["day", "session"]
    assert 0 < found[1]["spent_g_co2e"]["value"] < day["spent_g_co2e"]["value"]


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"heat": "1.4:0.9:203"}, "above 1: energy cannot be recovered more than once"),
        ({"heat": "0.5:0.9:300"}, "say where it is from"),
        ({"heat": "steam"}, "write r:u:h"),
        ({"hardware": "1:2"}, "no source"),
        ({"by": "colour"}, "'stage'"),
        ({"since": "2026-01-01T00:00:00"}, "timezone"),
        ({"colour": "red"}, "Extra inputs"),
    ],
)
@pytest.mark.parametrize("path", ["account", "account.csv", "account.html"])
def test_what_makes_no_sense_is_a_problem(
    shared_server: Any, path: str, asked: dict[str, str], says: str
) -> None:
    with shared_server.client() as client:
        answer = client.get(f"/v1/carbon/{path}", params=asked)
    assert answer.status_code == 422
    assert answer.headers["content-type"].startswith(MEDIA_TYPE)
    assert says in answer.text


def test_keys_are_needed(shared_server: Any) -> None:
    with shared_server.client(role=None) as client:
        for path in ("account", "account.csv", "account.html", "limits"):
            assert client.get(f"/v1/carbon/{path}").status_code == 401


odd = st.text(max_size=12) | st.sampled_from(
    ["0.5:0.5", "1.01:1:203", "nan:1:1", "inf:0:0", "0:0:0", "1:1:1e400", "-1:0", "1:1", ":", "::",
     "2024-01-01T00:00:00Z", "1300:35064:8:64", "0:0:0:0", "all", "life", "\x00", "9" * 90]
)  # fmt: skip
params = st.dictionaries(
    st.sampled_from(
        ["by", "heat", "heat_source", "heat_scope", "hardware", "hardware_source", "since", "until",
         "year", "session", "odd"]
    ),
    odd, max_size=5,
)  # fmt: skip


@settings(
    max_examples=150, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(path=st.sampled_from(["account", "account.csv", "limits"]), asked=params)
def test_whatever_is_asked_is_answered_or_a_problem(
    shared_server: Any, path: str, asked: dict[str, str]
) -> None:
    with shared_server.client() as client:
        answer = client.get(f"/v1/carbon/{path}", params=asked)
    assert answer.status_code in (200, 422), answer.text
    if answer.status_code == 422:
        assert answer.headers["content-type"].startswith(MEDIA_TYPE)


@settings(max_examples=40, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(r=st.floats(0, 1), u=st.floats(0, 1), h=st.floats(0, 1000), by=st.sampled_from(BY))
def test_break_even_is_the_product(
    shared_server: Any, r: float, u: float, h: float, by: str
) -> None:
    asked = {"heat": f"{r!r}:{u!r}:{h!r}", "heat_source": "a test", "by": by}
    with shared_server.client() as client:
        heat = client.get("/v1/carbon/account", params=asked).json()["heat"]
    assert heat["break_even_g_co2e_per_kwh"] == pytest.approx(r * u * h)


def test_it_is_described_with_examples(shared_server: Any) -> None:
    with shared_server.client() as client:
        schema = client.get("/openapi.json").json()
    found = schema["paths"]["/v1/carbon/account"]["get"]
    names = {parameter["name"]: parameter for parameter in found["parameters"]}
    assert names["heat"]["schema"]["examples"] == ["0.6:0.9:203"]
    assert set(names) >= {"by", "heat", "heat_source", "heat_scope", "hardware", "since", "year"}
    assert found["responses"]["422"]["content"][MEDIA_TYPE]
    answer = found["responses"]["200"]["content"]["application/json"]
    assert answer.get("examples") or answer.get("example")


def test_a_recorded_trace_gives_the_deployment(
    serve: Any, tmp_path: Path, body: Any, evidence: EvidenceTable, until: Callable[..., Any]
) -> None:
    hours = np.datetime64("2023-01-01", "h") + np.arange(8760)
    lines = [
        f"{hour}:00Z,{100 + i % 100}"
        for i, hour in enumerate(hours.astype("datetime64[m]").astype(str))
    ]
    trace = tmp_path / "grid.csv"
    trace.write_text("time_utc,ci_direct\n" + "\n".join(lines) + "\n")
    with serve(trace=trace) as running, running.client() as client:
        row = int(np.flatnonzero(evidence.present.all(axis=1))[0])
        until(client, client.post("/v1/cases", json=body(row)).json()["id"], "awaiting_clinician")
        found = client.get("/v1/carbon/account", params={"heat": "0.9:1:203"}).json()
        year = found["carbon_negative_deployment"]
        assert year["hours_below"] == {"value": 87 * 83 + 60, "ci95": None, "n": 8760}
        assert year["negative"] is True
        nowhere = client.get("/v1/carbon/account", params={"heat": "0.9:1:203", "year": 1999})
        assert found["warnings"] == []
        assert nowhere.status_code == 422
        assert "no hour of 1999" in nowhere.text
    # The same store with a life-cycle trace: the bases differ, so the year is left out, and said.
    trace.write_text("time_utc,ci_life\n" + "\n".join(lines) + "\n")
    with serve(trace=trace, basis="life") as running, running.client() as client:
        found = client.get("/v1/carbon/account", params={"heat": "0.9:1:203"}).json()
        assert found["carbon_negative_deployment"] is None
        assert "read the trace on the ledger's basis" in found["warnings"][0]
        assert found["totals"][0]["net_g_co2e"]["value"] is not None
