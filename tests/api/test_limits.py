"""Limits on a running server: refused work is on record, and spend survives the process."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from api.errors import SettingsError
from api.settings import read_settings
from distill.evidence import EvidenceTable

Until = Callable[..., dict[str, Any]]
Body = Callable[[int], dict[str, Any]]


@pytest.fixture
def whole(evidence: EvidenceTable, body: Body) -> dict[str, Any]:
    """A case that has every modality."""
    return body(int(np.flatnonzero(evidence.present.all(axis=1))[0]))


def post(client: Any, until: Until, body: dict[str, Any]) -> dict[str, Any]:
    case_id = client.post("/v1/cases", json=body).json()["id"]
    return until(client, case_id, "awaiting_clinician", "deferred")


def limited(case: dict[str, Any]) -> list[str]:
    return [line for line in case["explanation"]["lines"] if line.startswith("Carbon limit:")]


def test_a_hard_limit_refuses_new_transfers(serve: Any, until: Until, whole: Any) -> None:
    with serve(limits=("day:150:200",)) as running, running.client() as client:
        first = post(client, until, whole)
        second = post(client, until, whole)
    # Genomics takes 160 g of the 200; the second case gets what is left of them.
    assert any(name.startswith("genomics->") for name in first["transfers_run"])
    assert not any(name.startswith("genomics->") for name in second["transfers_run"])
    assert any("Hard limit of the day" in line for line in limited(second))
    assert any("is refused" in line for line in limited(second))


def test_spend_survives_a_restart(serve: Any, until: Until, whole: Any) -> None:
    with serve(limits=("day:150:200",)) as running, running.client() as client:
        post(client, until, whole)
    with serve(limits=("day:150:200",)) as running, running.client() as client:
        again = post(client, until, whole)
    assert not any(name.startswith("genomics->") for name in again["transfers_run"])
    assert any("Hard limit of the day" in line for line in limited(again))


def test_sessions_have_limits_of_their_own(serve: Any, until: Until, whole: Any) -> None:
    one, other = whole | {"session": "board-1", "unit": "thoracic"}, whole | {"session": "board-2"}
    with serve(limits=("session:150:200",)) as running, running.client() as client:
        first = post(client, until, one)
        assert (first["session"], first["unit"]) == ("board-1", "thoracic")
        assert any("Hard" in line for line in limited(post(client, until, one)))
        assert not any("Hard" in line for line in limited(post(client, until, other)))
        assert limited(post(client, until, whole)) == []
    with serve(limits=("session:150:200",)) as running, running.client() as client:
        assert any("Hard" in line for line in limited(post(client, until, one)))


def test_a_case_waits_for_the_next_day(serve: Any, until: Until, whole: Any) -> None:
    with serve(limits=("month:1:1:defer:defer",)) as running, running.client() as client:
        urgent = whole | {"urgency": 1.0}
        case = post(client, until, urgent)
        assert case["status"] == "awaiting_clinician"
        assert any("goes on, flagged" in line for line in limited(case))


def test_a_store_of_an_earlier_version_gets_the_new_columns(
    serve: Any, settings: Any, until: Until, whole: Any
) -> None:
    with serve() as running, running.client() as client:
        before = post(client, until, whole)
    path: Path = settings.state / "cases.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("ALTER TABLE cases DROP COLUMN session")
        connection.execute("ALTER TABLE cases DROP COLUMN unit")
    connection.close()
    with serve() as running, running.client() as client:
        case = client.get(f"/v1/cases/{before['id']}").json()
        assert (case["session"], case["unit"]) == (None, None)
        assert post(client, until, whole | {"session": "s"})["session"] == "s"


def test_limits_come_from_options_or_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GREENBOARD_LIMITS", "day:1:2, month:3:4:warn:defer")
    monkeypatch.setenv("GREENBOARD_TIMEZONE", "Europe/London")
    settings = read_settings({"bundle": tmp_path})
    assert [budget.period for budget in settings.budgets] == ["day", "month"]
    assert settings.timezone == "Europe/London"
    assert read_settings({"bundle": tmp_path, "limits": ["session:1:2"]}).limits == ("session:1:2",)


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ({"limits": ["day:2:1"]}, "soft <= hard"),
        ({"limits": ["day:1:2", "day:1:2"]}, "One budget for each kind of period"),
        ({"limits": 5}, "limits"),
        ({"timezone": "Nowhere/At_all"}, "is no time zone"),
    ],
    ids=["order", "twice", "number", "zone"],
)
def test_senseless_limits_stop_the_start(tmp_path: Path, option: Any, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        read_settings({"bundle": tmp_path, **option})
