"""kill -9 in the middle of cases: after a restart each goes on, nothing is charged twice."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from agent.workflow.doubles import row_features
from envs.toy import toy_evidence

SERVER = Path(__file__).with_name("toy_server.py")
HEADERS = {"Authorization": "Bearer fault-test-key"}


@contextmanager
def server(folder: Path, pause_s: float) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    port_file = folder / "port"
    port_file.unlink(missing_ok=True)
    log = (folder / "log").open("ab")
    process = subprocess.Popen(
        [sys.executable, str(SERVER), str(folder / "state"), str(port_file), str(pause_s)],
        stdout=log, stderr=log,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 40
        while not (port_file.exists() and port_file.read_text().strip()):
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        url = f"http://127.0.0.1:{port_file.read_text().strip()}"
        with httpx.Client(base_url=url, headers=HEADERS, timeout=30) as client:
            while True:
                assert process.poll() is None, (folder / "log").read_text()
                try:
                    if client.get("/readyz").status_code == 200:
                        break
                except httpx.TransportError:
                    time.sleep(0.05)
            yield process, client
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(15)
        log.close()


def wait_for(client: httpx.Client, case_id: str, status: str) -> dict[str, Any]:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        case: dict[str, Any] = client.get(f"/v1/cases/{case_id}").json()
        if case["status"] == status:
            return case
        assert case["status"] != "failed", case["failure"]
        time.sleep(0.05)
    raise AssertionError(f"{case['status']} is not {status}")


def kill(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait(15)


def rows(folder: Path, query: str) -> list[Any]:
    with sqlite3.connect(folder / "state" / "cases.sqlite") as connection:
        return connection.execute(query).fetchall()


def test_killed_in_the_middle_goes_on_after_a_restart(tmp_path: Path) -> None:
    evidence = toy_evidence(n_patients=60, seed=3)
    whole = [int(r) for r in np.flatnonzero(evidence.present.all(axis=1))[:3]]
    with server(tmp_path, pause_s=0.3) as (process, client):
        bodies = [{"features": row_features(evidence, row)} for row in whole]
        ids = [client.post("/v1/cases", json=b).json()["id"] for b in bodies]
        time.sleep(1.0)  # two cases are somewhere in their transfers, the third has not begun
        kill(process)
    with server(tmp_path, pause_s=0.0) as (process, client):
        for case_id, row in zip(ids, whole):
            case = wait_for(client, case_id, "awaiting_clinician")
            k = evidence.sets.index_of(case["transfers_run"])
            assert len(case["transfers_run"]) == len(evidence.transfers)
            logit = float(evidence.logit[row, k])
            assert abs(case["probability"] - 1 / (1 + np.exp(-logit))) < 1e-6
        waiting = ids[0]
        # Killed while it waits for the clinician: it still waits, and the decision counts.
        kill(process)
    with server(tmp_path, pause_s=0.0) as (_, client):
        assert client.get(f"/v1/cases/{waiting}").json()["status"] == "awaiting_clinician"
        decided = client.post(f"/v1/cases/{waiting}/decision", json={"action": "accept"})
        assert decided.status_code == 201
        assert wait_for(client, waiting, "recorded")["decision"]["reviewer"] == "dr-fault"
        assert client.get("/v1/audit").json()["intact"] is True
    charged = Counter(rows(tmp_path, "SELECT case_id, stage FROM ledger"))
    assert set(charged.values()) == {1}
    for case_id in ids:
        stages = [stage for case, stage in charged if case == case_id]
        assert len([s for s in stages if s.startswith("transfer:")]) == len(evidence.transfers)
        assert len([s for s in stages if s.startswith("inference:")]) == len(stages) // 2 + 1
    steps = rows(tmp_path, f"SELECT seq FROM events WHERE case_id = '{waiting}' ORDER BY seq")
    assert [seq for (seq,) in steps] == list(range(len(steps)))


def test_killed_between_decision_and_record_is_carried_out(tmp_path: Path) -> None:
    evidence = toy_evidence(n_patients=60, seed=3)
    with server(tmp_path, pause_s=0.0) as (process, client):
        body = {"features": row_features(evidence, 4)}
        case_id = client.post("/v1/cases", json=body).json()["id"]
        wait_for(client, case_id, "awaiting_clinician")
        kill(process)
    # As a crash right after the decision's transaction leaves it: the row, the case queued.
    with sqlite3.connect(tmp_path / "state" / "cases.sqlite") as connection:
        connection.execute(
            "INSERT INTO actions VALUES (?, 0, ?, 'dr-fault', '2026-03-01 10:00:00')",
            (
                case_id,
                '{"action": "override", "result": "negative", "reason_code": "data_quality", '
                '"comment": "", "reviewer": "dr-fault", "decided_at": "2026-03-01T10:00:00Z", '
                '"round": 0}',
            ),
        )
        connection.execute("UPDATE cases SET status = 'queued' WHERE id = ?", (case_id,))
    with server(tmp_path, pause_s=0.0) as (_, client):
        case = wait_for(client, case_id, "recorded")
        assert case["result"] == "negative"
        again = client.post(f"/v1/cases/{case_id}/decision", json={"action": "accept"})
        assert again.status_code == 409


def test_second_server_on_one_state_is_refused(tmp_path: Path) -> None:
    with server(tmp_path, pause_s=0.0):
        other = subprocess.run(
            [sys.executable, str(SERVER), str(tmp_path / "state"), str(tmp_path / "port2"), "0"],
            capture_output=True, timeout=60, check=False,
        )  # fmt: skip
        assert b"Another server works on" in other.stderr or b"StateLocked" in other.stderr
        assert other.returncode != 0
