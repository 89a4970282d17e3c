"""Background jobs through HTTP: run apart, one at a time, stopped, found again after a restart."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import create_engine, insert

from api import job_plans, job_process
from api.job_plans import share_done
from api.job_process import JobProcess, Step, read_step
from api.job_requests import ComparisonRequest
from api.store import jobs as store
from api.store.tables import jobs, metadata
from distill.bundle import EVIDENCE, NEEDED, seal
from envs.toy import toy_evidence

ACCOUNT = {"kind": "carbon_account", "by": "policy"}
SLOW = """
import json, sys, threading, time
from api import job_child
job_child._hold_back()
threading.Thread(target=job_child._end_with_server, daemon=True).start()
for finished in (1, 2):
    step = {"stage": "fold 4: sessions", "finished": finished, "total": 4}
    print(json.dumps(step), file=sys.stderr, flush=True)
time.sleep(60)
"""


def over(client: Any, address: str, *, seconds: float = 60) -> dict[str, Any]:
    """Wait until a job is over."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        job: dict[str, Any] = client.get(address).json()
        if job["status"] in store.OVER:
            return job
        time.sleep(0.05)
    raise AssertionError(f"job is still {job['status']}")


def running_at(client: Any, address: str, progress: float) -> dict[str, Any]:
    """Wait until a job has come this far."""
    deadline = time.monotonic() + 30
    while (job := client.get(address).json())["progress"] < progress:
        assert time.monotonic() < deadline
        assert job["status"] in ("queued", "running"), job
        time.sleep(0.05)
    found: dict[str, Any] = job
    return found


FAST = "open('account.html', 'w').write('page'); print('{}')"


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every job leaves an account's files at once."""
    monkeypatch.setattr(job_process, "CHILD", ("-S", "-c", FAST))


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every job says twice how far it is, then sleeps."""
    monkeypatch.setattr(job_process, "CHILD", ("-P", "-c", SLOW))


def test_a_comparison_from_the_request_to_its_page(serve, settings) -> None:
    settings.bundle.mkdir()
    for name in NEEDED:
        (settings.bundle / name).write_text("{}")
    toy_evidence(200).save(settings.bundle / EVIDENCE)
    seal(settings.bundle, {"cohort": "toy", "synthetic": True})
    with serve() as running, running.client() as client:
        asked = {
            "policies": ["never", "rule"], "sessions": 2, "env": "greenboard/CaseReviewOneShot-v1",
        }  # fmt: skip
        started = client.post("/v1/comparisons", json=asked)
        assert started.status_code == 202, started.text
        assert started.json()["status"] == "queued"
        job = over(client, started.headers["Location"])
        assert (job["status"], job["progress"], job["failure"]) == ("done", 1.0, None)
        assert (job["bundle"], job["synthetic"]) == ("replay", True)
        page, figures = (client.get(file["href"]) for file in job["files"])
        assert set(figures.json()["policies"]) == {"never", "rule"}
        assert "sandbox" in page.headers["content-security-policy"]
        for file, answer in zip(job["files"], (page, figures)):
            assert hashlib.sha256(answer.content).hexdigest() == file["sha256"]
            # The server's own places are nobody's business.
            assert str(settings.bundle.parent) not in answer.text
            known = {"If-None-Match": answer.headers["etag"]}
            assert client.get(file["href"], headers=known).status_code == 304


def test_an_account_of_what_was_reviewed(serve, body, until) -> None:
    with serve(limits=("day:1e5:2e5",)) as running, running.client() as client:
        case_id = client.post("/v1/cases", json={**body(1), "unit": "--help"}).json()["id"]
        until(client, case_id, "awaiting_clinician")
        asked = {"kind": "carbon_account", "by": "unit", "heat": "0.6:0.9:203",
                 "heat_source": "--page=/tmp/elsewhere"}  # fmt: skip
        job = over(client, client.post("/v1/reports", json=asked).headers["Location"])
        assert job["status"] == "done", job["failure"]
        files = {file["name"]: file["href"] for file in job["files"]}
        assert set(files) == {"account.html", "account.json", "ledger.jsonl"}
        account = client.get(files["account.json"]).json()
        assert [row["key"] for row in account["rows"]] == ["--help"]
        assert account["heat"]["source"] == "--page=/tmp/elsewhere"
        assert not Path("/tmp/elsewhere").exists()


def test_the_shadows_of_nobody_are_a_report_too(serve) -> None:
    with serve() as running, running.client() as client:
        started = client.post("/v1/reports", json={"kind": "shadow"})
        job = over(client, started.headers["Location"])
        assert job["status"] == "done", job["failure"]
        page, figures = (client.get(file["href"]) for file in job["files"])
        assert figures.json()["steps"] == 0
        assert "esearch use only" in page.text


def test_words_of_a_comparison_are_names_and_links(tmp_path: Path) -> None:
    policy, trace = tmp_path / "mine" / "ppo", tmp_path / "em_gb.csv.gz"
    book = SimpleNamespace(configured="folder:ppo", names=("folder:ppo", "rule"))
    active = SimpleNamespace(folder=tmp_path / "bundle", kit=SimpleNamespace(policies=book))
    sources: Any = SimpleNamespace(
        kits=SimpleNamespace(active=active),
        settings=SimpleNamespace(policy=str(policy), trace=trace),
    )
    folder = tmp_path / "job"
    folder.mkdir()
    asked = ComparisonRequest(policies=["rule", "folder:ppo"], budget=0.2).model_dump(mode="json")
    plan = asyncio.run(job_plans.comparison(sources, asked, folder))
    assert "--policies=rule,./folder-ppo" in plan.words
    assert {"--budget=0.2", "--trace=em_gb.csv.gz", "--bundle=bundle"} <= set(plan.words)
    assert str(tmp_path) not in " ".join(plan.words)
    assert {p.name: str(p.readlink()) for p in folder.iterdir()} == {
        "bundle": str(tmp_path / "bundle"), "em_gb.csv.gz": str(trace), "folder-ppo": str(policy),
    }  # fmt: skip


def test_a_job_says_how_far_it_is_and_is_cancelled_with_its_process(serve, slow) -> None:
    with serve() as running, running.client() as client:
        first, second = (client.post("/v1/reports", json=ACCOUNT).headers["Location"] for _ in "ab")
        job = running_at(client, first, 0.1)
        assert job["status"] == "running"
        assert client.get(second).json()["status"] == "queued"  # one at a time
        process = running.app.state.server.jobs._current.process._process
        if hasattr(os, "getpriority"):
            assert os.getpriority(os.PRIO_PROCESS, process.pid) >= 10
        # What waits is taken out of the queue; what runs is ended.
        for address in (second, first):
            answer = client.post(f"{address}/cancel")
            assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
            assert answer.json()["failure"] == "Cancelled by dr-reviewer."
        assert process.wait(10) == -signal.SIGKILL
        assert client.post(f"{first}/cancel").json()["type"].endswith("job-over")
        actions = sqlite3.connect(running.settings.state / "cases.sqlite").execute(
            "SELECT action FROM audit ORDER BY seq"
        )
        assert [row[0] for row in actions] == ["job.created"] * 2 + ["job.cancelled"] * 2


def test_the_queue_is_bounded_and_a_key_makes_one_job(serve, slow) -> None:
    with serve(jobs_queue=1) as running, running.client() as client:
        first = client.post("/v1/reports", json=ACCOUNT, headers={"Idempotency-Key": "a"})
        running_at(client, first.headers["Location"], 0.1)
        assert client.post("/v1/reports", json=ACCOUNT).status_code == 202
        refused = client.post("/v1/reports", json=ACCOUNT)
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "60")
        again = client.post("/v1/reports", json=ACCOUNT, headers={"Idempotency-Key": "a"})
        assert (again.status_code, again.json()["id"]) == (200, first.json()["id"])
        other = client.post("/v1/reports", json={**ACCOUNT, "by": "all"},
                            headers={"Idempotency-Key": "a"})  # fmt: skip
        assert other.status_code == 422
        page = client.get("/v1/jobs", params={"limit": 1}).json()
        rest = client.get("/v1/jobs", params={"cursor": page["next_cursor"]}).json()
        assert [job["status"] for job in (*page["jobs"], *rest["jobs"])] == ["queued", "running"]
        assert client.get("/v1/jobs", params={"kind": "shadow"}).json()["jobs"] == []
        assert client.get("/v1/jobs", params={"cursor": "0" * 32}).status_code == 400
        with running.client("viewer") as viewer:
            assert viewer.get("/v1/jobs").status_code == 200
            assert viewer.post("/v1/reports", json=ACCOUNT).status_code == 403


def test_what_a_stopped_server_was_running_is_not_called_running(serve, slow, monkeypatch) -> None:
    with serve() as running, running.client() as client:
        first, second = (client.post("/v1/reports", json=ACCOUNT).headers["Location"] for _ in "ab")
        running_at(client, first, 0.1)
        process = running.app.state.server.jobs._current.process._process
    assert process.poll() == -signal.SIGKILL
    monkeypatch.setattr(job_process, "CHILD", ("-S", "-c", FAST))
    with serve() as running, running.client() as client:
        job = client.get(first).json()
        assert (job["status"], job["files"]) == ("failed", [])
        assert "stopped" in job["failure"]
        assert over(client, second)["status"] == "done"


def test_a_job_that_takes_too_long_is_ended(serve, slow) -> None:
    with serve(job_limit_s=0.5) as running, running.client() as client:
        job = over(client, client.post("/v1/reports", json=ACCOUNT).headers["Location"])
        assert (job["status"], job["progress"] < 1) == ("failed", True)
        assert "longer than 0.5 s" in job["failure"]


def test_a_command_that_refuses_says_why(serve) -> None:
    with serve() as running, running.client() as client:
        asked = {**ACCOUNT, "heat": "1.6:0.9:203"}
        job = over(client, client.post("/v1/reports", json=asked).headers["Location"])
        assert job["status"] == "failed"
        assert "1.6" in job["failure"]


def test_only_files_that_the_job_lists_are_given_out(serve, fast) -> None:
    with serve() as running, running.client() as client:
        address = client.post("/v1/reports", json=ACCOUNT).headers["Location"]
        assert over(client, address)["status"] == "done"
        assert client.get(f"{address}/files/account.html").text == "page"
        for name in (
            "../serve.lock", "..%2Fserve.lock", "%2e%2e/%2e%2e/cases.sqlite", "out", "",
            "/etc/passwd", "account.html%00.json", ".matplotlib", "Account.html",
            "account.html/../../../cases.sqlite", "..", ".",
        ):  # fmt: skip
            answer = client.get(f"{address}/files/{name}")
            assert answer.status_code == 404 or answer.url.path == address, name


def test_files_of_old_jobs_are_removed_and_said_to_be(serve, fast) -> None:
    with serve(jobs_kept=1) as running, running.client() as client:
        done = [
            over(client, client.post("/v1/reports", json=ACCOUNT).headers["Location"])
            for _ in range(2)
        ]
        hrefs = [job["files"][0]["href"] for job in done]
        deadline = time.monotonic() + 10
        while client.get(hrefs[0]).status_code == 200:
            assert time.monotonic() < deadline
        assert client.get(hrefs[0]).json()["type"].endswith("job-file-not-found")
        assert client.get(hrefs[1]).status_code == 200


@pytest.mark.parametrize(
    "asked",
    [
        {"policies": []}, {"policies": ["rule", "rule"]}, {"policies": ["../../etc"]},
        {"policies": ["nobody"]}, {"policies": ["rule"] * 9}, {"sessions": 201}, {"sessions": 1},
        {"env": "other"}, {"budget": 0}, {"bundle": "/etc"}, {"seed": -1},
        {"policies": ["--out=/"]},
    ],
)  # fmt: skip
def test_a_comparison_takes_little(shared_client, asked: dict[str, Any]) -> None:
    assert shared_client.post("/v1/comparisons", json=asked).status_code == 422


@pytest.mark.parametrize(
    "asked",
    [{"heat": "$(id)"}, {"heat_source": "a\x00b"}, {"heat_source": "a\nb"}, {"since": "yesterday"}],
)
def test_an_account_takes_little(shared_client, asked: dict[str, Any]) -> None:
    answer = shared_client.post("/v1/reports", json={**ACCOUNT, **asked})
    assert answer.status_code == 422


def test_a_job_ends_when_its_server_is_killed(tmp_path: Path) -> None:
    starter = (
        "import sys, time; from api import job_process; from pathlib import Path\n"
        f"job_process.CHILD = ('-P', '-c', {SLOW!r})\n"
        f"job = job_process.JobProcess([], folder=Path({str(tmp_path)!r}), output=None)\n"
        "print(job._process.pid, flush=True); job.follow(lambda step: None)\n"
    )
    root = str(Path(job_process.__file__).parents[1])
    server = subprocess.Popen(
        [sys.executable, "-c", starter], stdout=subprocess.PIPE, env={"PYTHONPATH": root}
    )
    with server:
        assert server.stdout is not None
        pid = int(server.stdout.readline())
        server.kill()
    deadline = time.monotonic() + 15
    while alive(pid):
        assert time.monotonic() < deadline, "the job outlived its server"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat")
        return not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_no_setting_and_no_key_reaches_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GREENBOARD_KEYS", "a:admin:" + "0" * 64)
    code = "import os, json; print(json.dumps(dict(os.environ)))"
    monkeypatch.setattr(job_process, "CHILD", ("-c", code))
    ended = JobProcess([], folder=tmp_path, output="out").follow(lambda step: None)
    assert ended.failure is None
    known = json.loads((tmp_path / "out").read_text())
    assert not [name for name in known if name.startswith("GREENBOARD")]


def test_progress_is_read_from_lines_and_nothing_else() -> None:
    line = '{"stage": "fold 4: bounds", "finished": 5, "total": 10}'
    step = read_step(line)
    assert step == Step(stage="fold 4: bounds", finished=5.0, total=10.0)
    assert share_done(step) == pytest.approx(0.675)
    assert share_done(Step(stage="robustness: budget", finished=1, total=2)) == 0.0
    assert share_done(Step(stage="fold 0: train ppo, seed 1", finished=9, total=0)) == 0.02
    for other in ("", "error: no", "{", "{}", "[1]", '{"stage": "a", "finished": "x", "total": 1}'):
        assert read_step(other) is None


def test_what_ran_when_the_server_died_is_marked_and_what_waited_waits() -> None:
    engine = create_engine("sqlite://")
    metadata.create_all(engine)
    now = datetime(2026, 1, 1, tzinfo=UTC)
    row = {"kind": "shadow", "request": {}, "progress": 0.0, "created_at": now, "updated_at": now,
           "created_by": "dr"}  # fmt: skip
    with engine.connect() as connection:
        for number, status in enumerate(("done", "running", "queued", "queued")):
            connection.execute(insert(jobs), {**row, "id": str(number), "status": status})
        store.fail_running(connection, reason="it died", now=now)
        found = {
            one.id: (one.status, one.failure) for one in store.list_jobs(connection, limit=9)[0]
        }
        assert found == {
            "0": ("done", None), "1": ("failed", "it died"), "2": ("queued", None),
            "3": ("queued", None),
        }  # fmt: skip
        assert store.take_next(connection, now).id == "2"
        assert store.newest(connection, 1) == {"1", "2", "3"}
        assert not store.update_job(connection, "1", {"status": "running"})
    engine.dispose()
