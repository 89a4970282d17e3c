"""What looks at reviews without deciding them, through a real server: silent policies, drift."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from typer.testing import CliRunner

from agent.policies.registry import make_policy
from agent.workflow.doubles import replay_kit
from agent.workflow.kit import ReviewKit
from agent.workflow.steps import step_lines
from api.cli.main import app
from api.settings import Settings
from distill.evidence import EvidenceTable

CASES = 24
SILENT = "always:clinical->genomics"


def figure(text: str, name: str) -> float:
    (found,) = re.findall(rf"^{name} (\S+)$", text, flags=re.MULTILINE)
    return float(found)


def test_silent_policies_and_drift_from_post_to_report_and_over_a_restart(
    serve: Callable[..., Any],
    body: Callable[[int], dict[str, Any]],
    until: Callable[..., dict[str, Any]],
    evidence: EvidenceTable,
) -> None:
    def kit(s: Settings) -> ReviewKit:
        return replay_kit(evidence, make_policy=make_policy, policy=s.policy, shadow=(SILENT,))

    with serve(load=kit, policy="rule") as running, running.client("admin") as client:
        posted = [client.post("/v1/cases", json=body(row)).json()["id"] for row in range(CASES)]
        cases = [until(client, case, "awaiting_clinician") for case in posted]
        shown = json.dumps(cases) + client.get(f"/v1/cases/{posted[0]}/events?follow=false").text
        assert SILENT not in shown
        assert "shadow" not in shown
        for case in cases:
            told = case["explanation"]
            assert told["peers"]["n"] >= 0
            assert 0.0 <= told["uncertainty_bits"] <= 1.0
            assert told["steps"]
        metrics = client.get("/metrics").text
        assert figure(metrics, "greenboard_drift_window_cases") == CASES
        state = running.settings.state
        # while the server runs
        report = CliRunner().invoke(app, ["shadow", "--state", str(state), "--json"])
        data = json.loads(report.stdout)
        (pair,) = data["pairs"]
        assert (pair["policy"], pair["acting"], pair["cases"]) == (SILENT, "rule", CASES)
        assert 0.0 <= pair["agreement"]["value"] <= 1.0
    with serve(load=kit, policy="rule") as running, running.client("admin") as client:
        again = client.get("/metrics").text
        names = ("greenboard_drift_window_cases", "greenboard_drift_score_ks")
        assert [figure(again, n) for n in names] == [figure(metrics, n) for n in names]


def test_the_stream_tells_each_step_in_sentences(
    serve: Callable[..., Any], body: Callable[[int], dict[str, Any]], until: Callable[..., Any]
) -> None:
    with serve(policy="price") as running, running.client() as client:
        case = client.post("/v1/cases", json=body(0)).json()["id"]
        until(client, case, "awaiting_clinician")
        stream = client.get(f"/v1/cases/{case}/events?follow=false").text
    lines = (line for line in stream.splitlines() if line.startswith("data: "))
    steps = [json.loads(line.removeprefix("data: ")) for line in lines]
    told = {step["kind"]: step_lines(step) for step in steps if "kind" in step}
    assert {"intake", "carbon", "assessment", "choice", "explanation"} <= set(told)
    assert all(told.values())
