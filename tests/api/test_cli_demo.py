"""The demo's machinery: failing steps are said, what was started is stopped, cases are followed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from api.cli.demo_steps import DemoPlan, DemoRun
from api.cli.local_server import ReviewClient, greenboard_process
from api.errors import CommandError

KEY = "reviewer-key"


def test_a_failing_command_says_why_and_where_the_rest_is(tmp_path: Path) -> None:
    said: list[str] = []
    run = DemoRun(DemoPlan.quick(tmp_path, 0), tell=said.append)
    with pytest.raises(CommandError, match=r"ended with 2: error: .*cohort check.log"):
        run.step("cohort check", lambda: run.command("cohort", "check", str(tmp_path / "none")))
    assert said == ["cohort check ..."]


def test_what_was_started_is_stopped_even_on_an_error(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        with (
            pytest.raises(RuntimeError),
            greenboard_process(("serve", "--bundle", "none", "--port", "0"), log) as process,
        ):
            raise RuntimeError
        assert process.poll() is not None


def test_client_follows_a_case_to_its_record(shared_server, body) -> None:
    client = ReviewClient(shared_server.url, KEY)
    case_id = client.post("/v1/cases", body(0))["id"]
    steps = client.follow(case_id, until="awaiting_clinician")
    assert [step["seq"] for step in steps] == list(range(len(steps)))
    client.post(f"/v1/cases/{case_id}/decision", {"action": "accept"})
    steps = client.follow(case_id, until="recorded")
    assert steps[-1]["kind"] == "record"
    with pytest.raises(CommandError, match="The server refused"):
        client.post(f"/v1/cases/{case_id}/decision", {"action": "accept"})
    with pytest.raises(CommandError, match="did not become"):
        client.follow(case_id, until="deferred")


def test_the_facts_repeat_the_case_and_invent_nothing(tmp_path: Path) -> None:
    run = DemoRun(DemoPlan.quick(tmp_path, 0), tell=print)
    auc = {"value": 0.8, "ci95": [0.7, 0.9], "n": 9}
    metrics = {"full": {"auc": auc}, "baselines": {"late_fusion": {"auc": auc}}}
    truth = {"evidence": {"full": {"auc_here": auc}}}
    for path, data in ((run.plan.bundle / "metrics.json", metrics),
                       (run.plan.cohort / "truth.json", truth)):  # fmt: skip
        path.parent.mkdir()
        path.write_text(json.dumps(data))
    said = ("energy_kwh_modelled", "energy_kwh_measured", "g_co2e", "unmeasured")
    for seen in (None, True, False):
        case = {key: key for key in ("status", "result", "probability", "transfers_run", "policy")}
        explanation = {key: key for key in said}
        run.reviewed = {"case": {**case, "seen_in_training": seen, "explanation": explanation}}
        facts = run.facts()["case"]
        assert facts["seen_in_training"] is seen
        assert facts.pop("from").startswith(str(run.plan.held_out))
        assert all(facts[key] == key for key in (*case, *said))
