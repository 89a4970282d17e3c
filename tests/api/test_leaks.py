"""No label, patient id, hospital, feature value or key where it does not belong."""

from __future__ import annotations

import json
import sqlite3

from agent.workflow.doubles import ROW


def test_nothing_leaks_into_events_logs_metrics_or_audit(
    serve, body, until, evidence, capfd
) -> None:
    reference = "MRN-99887766"
    with serve() as running, running.client() as client, running.client("admin") as admin:
        row = 17
        posted = client.post("/v1/cases", json={**body(row), "reference": reference})
        case_id = posted.json()["id"]
        until(client, case_id, "awaiting_clinician")
        client.post(f"/v1/cases/{case_id}/decision", json={"action": "accept"})
        case = until(client, case_id, "recorded")
        stream = client.get(f"/v1/cases/{case_id}/events", params={"follow": "false"}).text
        metrics = client.get("/metrics").text
        assert admin.get("/v1/audit").json()["intact"] is True
        state = running.settings.state
    logs = "".join(capfd.readouterr())
    with sqlite3.connect(state / "cases.sqlite") as connection:
        audit = str(connection.execute("SELECT * FROM audit").fetchall())
    with sqlite3.connect(state / "graph.sqlite") as connection:
        blobs = connection.execute("SELECT checkpoint, metadata FROM checkpoints").fetchall()
        blobs += connection.execute("SELECT value, channel FROM writes").fetchall()
    checkpoints = b"".join(b for pair in blobs for b in pair if isinstance(b, bytes))
    assert case["reference"] == reference
    secrets = [reference, evidence.case_id[row], evidence.group[row], "reviewer-key"]
    for secret in secrets:
        for name, text in {
            "stream": stream, "metrics": metrics, "logs": logs, "audit": audit,
            "explanation": json.dumps(case["explanation"]),
        }.items():  # fmt: skip
            assert secret not in text, f"{secret!r} in {name}"
        assert secret.encode() not in checkpoints
    for word in ("label", "hospital", f'"{ROW}"'):
        assert word not in stream
    assert case_id not in metrics


def test_observation_has_no_label_and_does_not_depend_on_it(evidence) -> None:
    import asyncio
    from dataclasses import replace
    from datetime import UTC, datetime

    import numpy as np

    from agent.policies.registry import make_policy
    from agent.workflow.context import situation
    from agent.workflow.doubles import replay_kit, row_features
    from agent.workflow.nodes import assess, intake, sense_carbon
    from agent.workflow.state import new_case

    now = datetime(2026, 3, 1, 12, tzinfo=UTC)

    def observe(row: int, table):
        made = replay_kit(table, make_policy=make_policy)
        made = replace(made, gain=replay_kit(evidence, make_policy=make_policy).gain)

        async def prepared(case: str, without: frozenset[str]):
            return made.student.prepare(row_features(table, row))

        services = made.services(prepared=prepared, clock=lambda: now)

        async def build():
            state = dict(new_case("c", policy="rule"))
            for node in (intake, sense_carbon, assess):
                state |= (await node(services, state)).model_dump(mode="json", exclude_unset=True)
            return situation(services, state, now)

        return services, asyncio.run(build())

    flipped = replace(
        evidence,
        label=1 - evidence.label,
        group=tuple("other" for _ in evidence.group),
        case_id=tuple(f"other-{i}" for i in range(evidence.n_patients)),
    )
    services, seen = observe(5, evidence)
    _, other = observe(5, flipped)
    assert np.array_equal(seen.observation, other.observation)
    assert not [n for n in services.layout.names if "label" in n or "group" in n or "case_id" in n]
