"""The demo's machinery: failing steps are said, what was started is stopped, cases are followed."""

from __future__ import annotations

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
