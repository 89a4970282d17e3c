"""Exports and the audit trail of a case."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

import pytest

from api.record_schemas import CaseExport


@pytest.fixture
def decided(body, until):
    """Post a case and accept what is suggested."""

    def go(client: Any, row: int, **more: Any) -> str:
        case_id = client.post("/v1/cases", json={**body(row), **more}).json()["id"]
        until(client, case_id, "awaiting_clinician")
        answer = client.post(f"/v1/cases/{case_id}/decision", json={"action": "accept"})
        assert answer.status_code == 201
        return str(case_id)

    return go


def test_one_case_with_everything_that_its_record_holds(serve, body, decided) -> None:
    with serve() as running, running.client() as client:
        case_id = decided(client, 1, reference="board-1/7")
        answer = client.get(f"/v1/cases/{case_id}/export")
        assert (
            answer.headers["content-disposition"] == f'attachment; filename="case-{case_id}.json"'
        )
        found = CaseExport.model_validate(answer.json())
        assert found.case.model_dump(mode="json") == client.get(f"/v1/cases/{case_id}").json()
        assert found.features == body(1)["features"]
        assert [step.seq for step in found.steps] == list(range(len(found.steps)))
        assert found.steps[-1].kind == "record"
        assert [one.action["action"] for one in found.actions] == ["accept"]
        total = client.get("/v1/carbon/ledger", params={"by": "case", "case": case_id}).json()
        assert len(found.ledger) == sum(line["entries"] for line in total["totals"])
        assert [row.action for row in found.audit.rows] == [
            "case.created", "case.accept", "case.exported",
        ]  # fmt: skip
        assert found.audit.intact
        assert client.get("/v1/cases/none/export").status_code == 404


def test_many_cases_one_a_line_with_the_filters_of_the_list(serve, decided) -> None:
    with serve(policy="never") as running, running.client() as client:
        ids = [decided(client, row, session=f"S{row % 2}", urgency=row / 100) for row in range(32)]
        answer = client.get("/v1/cases/export.jsonl", params={"sort": "urgency"})
        assert answer.headers["content-type"] == "application/jsonl"
        lines = [CaseExport.model_validate_json(line) for line in answer.text.splitlines()]
        assert [line.case.id for line in lines] == ids[::-1]
        some = client.get("/v1/cases/export.jsonl", params={"session": "S1"}).text.splitlines()
        assert {json.loads(line)["case"]["session"] for line in some} == {"S1"}
        assert len(some) == 16
        assert client.get("/v1/cases/export.jsonl", params={"status": "parked"}).text == ""
        assert client.get("/v1/cases/export.jsonl", params={"limit": 3}).status_code == 422


def test_features_leave_for_reviewers_only_and_the_log_knows(serve, decided) -> None:
    with serve() as running, running.client() as client:
        case_id = decided(client, 1, reference="MRN 4711")
        client.get("/v1/cases/export.jsonl", params={"reference": "MRN 4711"})
        with running.client("viewer") as viewer:
            assert viewer.get(f"/v1/cases/{case_id}/export").status_code == 403
            assert viewer.get("/v1/cases/export.jsonl").status_code == 403
        store = running.settings.state / "cases.sqlite"
        with sqlite3.connect(store) as connection:
            rows = connection.execute("SELECT action, subject, detail FROM audit").fetchall()
        told = [json.loads(row[2]) for row in rows if row[:2] == ("case.exported", "cases")]
        assert told == [{"filters": ["reference"]}]
        assert "4711" not in str(rows)


def test_the_trail_of_a_case_says_which_row_was_changed(serve, decided) -> None:
    with serve() as running, running.client() as client:
        case_id, other = decided(client, 1), decided(client, 2)
        trail = client.get(f"/v1/cases/{case_id}/audit").json()
        assert [row["action"] for row in trail["rows"]] == ["case.created", "case.accept"]
        assert {row["actor"] for row in trail["rows"]} == {"dr-reviewer"}
        assert trail["intact"]
        with sqlite3.connect(running.settings.state / "cases.sqlite") as connection:
            connection.execute("DROP TRIGGER audit_no_update")
            connection.execute(
                "UPDATE audit SET actor = 'mallory' WHERE subject = ? AND action = 'case.accept'",
                (case_id,),
            )
        trail = client.get(f"/v1/cases/{case_id}/audit").json()
        assert [row["intact"] for row in trail["rows"]] == [True, False]
        assert not trail["intact"]
        assert client.get(f"/v1/cases/{other}/audit").json()["intact"]
        assert client.get("/v1/cases/none/audit").status_code == 404
