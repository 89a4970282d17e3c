"""kill -9, a full disk and broken files while people are at a case: it goes on, nothing twice."""

from __future__ import annotations

import json
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from agent.workflow.doubles import row_features
from envs.toy import toy_evidence

SERVER = Path(__file__).with_name("board_server.py")


@dataclass(kw_only=True)
class Board:
    """A server in a process of its own."""

    process: subprocess.Popen[bytes]
    url: str

    def client(self, person: str = "ada") -> httpx.Client:
        headers = {"Authorization": f"Bearer {person}-key"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(15)

    def act(self, person: str, case_id: str, kind: str, **body: Any) -> httpx.Response:
        with self.client(person) as client:
            return client.post(f"/v1/cases/{case_id}/{kind}", json=body)

    def post(self, row: int, until: str, **more: Any) -> str:
        evidence = toy_evidence(n_patients=60, seed=3)
        with self.client() as client:
            body = {"features": row_features(evidence, row), **more}
            case_id = str(client.post("/v1/cases", json=body).json()["id"])
        self.wait_for(case_id, until)
        return case_id

    def case(self, case_id: str) -> dict[str, Any]:
        with self.client() as client:
            found: dict[str, Any] = client.get(f"/v1/cases/{case_id}").json()
        return found

    def wait_for(self, case_id: str, *statuses: str) -> dict[str, Any]:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            case = self.case(case_id)
            if case["status"] in statuses:
                return case
            time.sleep(0.05)
        raise AssertionError(f"{case['status']} is none of {statuses}: {case['failure']}")

    def kinds(self, case_id: str) -> list[str]:
        with self.client() as client:
            text = client.get(f"/v1/cases/{case_id}/events", params={"follow": "false"}).text
        steps = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
        steps = [step for step in steps if "seq" in step]
        assert [step["seq"] for step in steps] == list(range(len(steps)))
        return [step["kind"] for step in steps]


def launch(folder: Path, options: dict[str, Any]) -> subprocess.Popen[bytes]:
    (folder / "port").unlink(missing_ok=True)
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, str(SERVER), str(folder / "state"), str(folder / "port"),
             json.dumps(options)],
            stdout=log, stderr=log,
        )  # fmt: skip


@contextmanager
def running(folder: Path, **options: Any) -> Iterator[Board]:
    process = launch(folder, options)
    port, log = folder / "port", folder / "log"
    try:
        deadline = time.monotonic() + 40
        while not (port.exists() and port.read_text().strip()):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        board = Board(process=process, url=f"http://127.0.0.1:{port.read_text().strip()}")
        with board.client() as client:
            while True:
                assert process.poll() is None, log.read_text()
                with suppress(httpx.TransportError):
                    if client.get("/readyz").status_code == 200:
                        break
                time.sleep(0.02)
        yield board
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(15)


def stored(folder: Path, query: str) -> list[Any]:
    connection = sqlite3.connect(folder / "state" / "cases.sqlite")
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def nothing_is_charged_twice(folder: Path) -> None:
    charged = Counter(stored(folder, "SELECT case_id, stage FROM ledger"))
    assert charged
    assert set(charged.values()) == {1}


def whole_row() -> int:
    return int(np.flatnonzero(toy_evidence(n_patients=60, seed=3).present.all(axis=1))[0])


def test_killed_while_a_case_is_deferred(tmp_path: Path) -> None:
    with running(tmp_path, policy="planner") as board:
        case_id = board.post(whole_row(), "deferred", urgency=0.1)
        plan = board.case(case_id)["plan"]
        board.kill()
    with running(tmp_path, policy="planner", ahead_h=6) as board:
        case = board.wait_for(case_id, "awaiting_clinician")
        assert any(plan["why"] in line for line in case["explanation"]["lines"])
        kinds = board.kinds(case_id)
        assert (kinds.count("deferral"), kinds.count("wake")) == (1, 1)
        assert board.act("ada", case_id, "decision", action="accept").status_code == 201
        assert board.wait_for(case_id, "recorded")["result"]
        with board.client("eve") as client:
            assert client.get("/v1/audit").json()["intact"] is True
    nothing_is_charged_twice(tmp_path)


def test_killed_between_two_opinions(tmp_path: Path) -> None:
    options = {"second_review_above": 0.0}
    with running(tmp_path, **options) as board:
        case_id = board.post(whole_row(), "awaiting_clinician")
        first = board.act("ada", case_id, "decision", action="accept", comment="first of two")
        assert first.status_code == 201
        assert board.wait_for(case_id, "awaiting_second")["result"] is None
        board.kill()
    with running(tmp_path, **options) as board:
        case = board.case(case_id)
        assert (case["status"], case["result"]) == ("awaiting_second", None)
        # One's own opinion again is no second one, whatever the server went through.
        again = board.act("ada", case_id, "decision", action="accept")
        assert again.status_code == 409, again.text
        assert board.case(case_id)["status"] == "awaiting_second"
        second = board.act("ben", case_id, "decision", action="accept")
        assert second.status_code == 201
        case = board.wait_for(case_id, "recorded")
        assert case["result"] == case["suggestion"]
        kinds = board.kinds(case_id)
        assert kinds.count("record") == 1
        assert board.act("ben", case_id, "decision", action="accept").status_code == 409
    actions = stored(tmp_path, "SELECT round, reviewer FROM actions ORDER BY round")
    assert [reviewer for _, reviewer in actions] == ["dr-ada", "dr-ben"]
    nothing_is_charged_twice(tmp_path)


@pytest.mark.parametrize("moment_s", [0.02, 0.3])
def test_killed_in_the_middle_of_a_transfer_that_was_asked_for(
    tmp_path: Path, moment_s: float
) -> None:
    wanted = "pathology->clinical"
    with running(tmp_path, pause_s=0.6) as board:
        case_id = board.post(whole_row(), "awaiting_clinician")
        before = board.case(case_id)["transfers_run"]
        assert wanted not in before

        def ask() -> None:
            with suppress(httpx.TransportError):
                body = {"transfer": wanted, "reason_code": "clinical_judgement"}
                board.act("ada", case_id, "actions", action="request_transfer", **body)

        asking = threading.Thread(target=ask)
        asking.start()
        while not stored(tmp_path, "SELECT 1 FROM actions"):
            time.sleep(0.01)
        time.sleep(moment_s)
        board.kill()
        asking.join(20)
    with running(tmp_path) as board:
        deadline = time.monotonic() + 20
        while wanted not in board.case(case_id)["transfers_run"]:
            assert time.monotonic() < deadline, board.case(case_id)
            time.sleep(0.05)
        case = board.wait_for(case_id, "awaiting_clinician")
        assert case["transfers_run"] == [*before, wanted]
        kinds = board.kinds(case_id)
        assert (kinds.count("request"), kinds.count("explanation")) == (1, 2)
        assert board.act("ben", case_id, "decision", action="accept").status_code == 201
        board.wait_for(case_id, "recorded")
    nothing_is_charged_twice(tmp_path)


def limit_files(process: subprocess.Popen[bytes], n_bytes: int) -> None:
    _, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (n_bytes, hard))


def test_a_full_disk_is_told_and_survived(tmp_path: Path) -> None:
    evidence = toy_evidence(n_patients=60, seed=3)
    body, once = {"features": row_features(evidence, 1)}, {"Idempotency-Key": "full-disk"}
    with running(tmp_path, pause_s=0.3) as board, board.client() as client:
        waiting = board.post(whole_row(), "awaiting_clinician")
        under_way = client.post("/v1/cases", json=body).json()["id"]
        # No file may grow any more: what a full disk does to a database, for this process alone.
        limit_files(board.process, 1)
        refused = client.post("/v1/cases", json=body, headers=once)
        assert refused.status_code in (500, 503, 507), refused.text
        assert refused.headers["content-type"].startswith("application/problem+json")
        decided = client.post(f"/v1/cases/{waiting}/decision", json={"action": "accept"})
        assert decided.status_code >= 500
        time.sleep(0.8)
        assert client.get("/healthz").status_code == 200
        assert client.get(f"/v1/cases/{waiting}").json()["status"] == "awaiting_clinician"
        limit_files(board.process, resource.RLIM_INFINITY)
        taken = client.post("/v1/cases", json=body, headers=once)
        assert taken.status_code == 202, taken.text
        board.wait_for(taken.json()["id"], "awaiting_clinician")
        assert board.act("ada", waiting, "decision", action="accept").status_code == 201
        board.wait_for(waiting, "recorded")
        if board.wait_for(under_way, "awaiting_clinician", "parked")["status"] == "parked":
            assert board.act("ada", under_way, "actions", action="retry").status_code < 300
            board.wait_for(under_way, "awaiting_clinician")
        for case_id in (waiting, under_way):
            kinds = board.kinds(case_id)
            assert (kinds.count("intake"), kinds.count("explanation")) == (1, 1)
        assert len(client.get("/v1/cases").json()["cases"]) == 3
    nothing_is_charged_twice(tmp_path)


@pytest.mark.parametrize("file", ["graph.sqlite", "cases.sqlite"])
def test_a_broken_file_stops_the_start_and_is_named(tmp_path: Path, file: str) -> None:
    with running(tmp_path) as board:
        board.post(whole_row(), "awaiting_clinician")
        board.kill()
    path = tmp_path / "state" / file
    for name in (f"{file}-wal", f"{file}-shm"):
        (tmp_path / "state" / name).unlink(missing_ok=True)
    path.write_bytes(b"this is no database" * 200)
    process = launch(tmp_path, {})
    assert process.wait(40) != 0
    said = (tmp_path / "log").read_text()
    assert file in said
    assert "put the file aside" in said
    assert path.read_bytes().startswith(b"this is no database"), "it is left as it was"


def test_lost_checkpoints_cost_a_new_review_and_touch_no_record(tmp_path: Path) -> None:
    with running(tmp_path) as board:
        recorded = board.post(2, "awaiting_clinician")
        board.act("ada", recorded, "decision", action="accept")
        board.wait_for(recorded, "recorded")
        waiting = board.post(whole_row(), "awaiting_clinician")
        before = board.kinds(waiting)
        board.kill()
    for path in (tmp_path / "state").glob("graph.sqlite*"):
        path.unlink()
    with running(tmp_path) as board:
        assert board.case(recorded)["status"] == "recorded"
        # What the reviewer saw is gone, so nothing is recorded on it: it is reviewed anew.
        answer = board.act("ben", waiting, "decision", action="accept")
        assert answer.json()["result"] is None
        board.wait_for(waiting, "awaiting_clinician")
        assert board.kinds(waiting) == before * 2
        board.kill()
    with running(tmp_path) as board:
        assert board.case(waiting)["status"] == "awaiting_clinician"
        assert board.act("ada", waiting, "decision", action="accept").status_code == 201
        assert board.wait_for(waiting, "recorded")["decision"]["reviewer"] == "dr-ada"
        assert board.kinds(waiting)[-1] == "record"
        with board.client("eve") as client:
            assert client.get("/v1/audit").json()["intact"] is True
    nothing_is_charged_twice(tmp_path)
