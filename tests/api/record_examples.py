"""Record ``api/openapi_examples.json`` from a running server over doubles.

``python tests/api/record_examples.py`` does so anew; ``test_openapi.py`` says when that is due.
"""

from __future__ import annotations

import json
import runpy
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).parent))

from conftest import KEYS, serving

from agent.policies.registry import make_policy
from agent.workflow.doubles import StillMonitor, replay_kit, row_features
from agent.workflow.kit import ReviewKit
from api import job_process, openapi
from api.auth import ApiKey, hash_key
from api.settings import Settings
from distill.bundle import METRICS, NEEDED, Bundle, seal
from envs.toy import toy_evidence

TARGET = Path(openapi.__file__).with_name(openapi.EXAMPLES)
LONGEST = 3
LEAVES_FILES = """
for name in ("account.html", "out/report.html"):
    import os
    os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
    open(name, "w").write("<!doctype html>")
open("out/report.json", "w").write("{}"); print("{}")
"""
FIGURE = {"value": 0.93, "ci95": [0.91, 0.95], "n": 600}
TABLE = toy_evidence(n_patients=60, seed=3)


def short(value: Any) -> Any:
    """Long lists down to their first entries: an example shows the form."""
    if isinstance(value, dict):
        return {name: short(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [short(inner) for inner in (value if len(value) <= LONGEST else value[:2])]
    return value


class Recorder:
    """Asks, and keeps what was asked and answered under the operation's name."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client
        self.found: dict[str, Any] = {}

    def ask(
        self, operation: str, *, where: dict[str, str] | None = None, body: Any = None,
        keep: bool = True, **more: Any,
    ) -> Any:  # fmt: skip
        method, path = operation.split(" ")
        answer = self.client.request(method, path.format(**(where or {})), json=body, **more)
        assert answer.is_success, (operation, answer.status_code, answer.text)
        kind = answer.headers.get("content-type", "").partition(";")[0]
        known: dict[str, Any] = {}
        if where:
            known["parameters"] = where
        if body is not None:
            known["request"] = short(body)
        if kind.endswith("json"):
            known["response"] = short(answer.json())
        elif kind:
            known["response"] = "\n".join(answer.text.splitlines()[:4])[:600] + "\n"
        if kind not in ("application/json", ""):
            known["media_type"] = kind
        if keep:
            self.found[operation] = known
        return answer

    def until(self, path: str, *statuses: str) -> None:
        deadline = time.monotonic() + 60
        while self.client.get(path).json()["status"] not in statuses:
            assert time.monotonic() < deadline, self.client.get(path).text
            time.sleep(0.05)


def record(client: httpx.Client, bundle: dict[str, Any]) -> dict[str, Any]:
    """Use every operation once."""
    recorder = Recorder(client)
    case = {"case_id": _a_case(recorder)}
    _look_at(recorder, case)
    _act_on(recorder, case)
    _run_jobs(recorder)
    _change_bundles(recorder)
    _look_at_carbon(recorder, case)
    _other_standards(recorder, bundle)
    return dict(sorted(recorder.found.items()))


def _body(row: int) -> dict[str, Any]:
    return {
        "features": row_features(TABLE, row), "reference": f"board-12/{row}",
        "unit": "thoracic oncology", "session": "board-12", "urgency": 0.3,
    }  # fmt: skip


def _a_case(recorder: Recorder) -> str:
    posted = recorder.ask("POST /v1/cases", body=_body(1))
    recorder.found["POST /v1/cases"].pop("request")
    recorder.ask("POST /v1/cases/batch", body={"cases": [_body(2), {"features": {"clinical": {}}}]})
    case_id = str(posted.json()["id"])
    recorder.until(f"/v1/cases/{case_id}", "awaiting_clinician")
    return case_id


def _look_at(recorder: Recorder, case: dict[str, str]) -> None:
    recorder.ask("GET /v1/cases/{case_id}", where=case)
    recorder.ask("GET /v1/cases")
    recorder.ask("GET /v1/cases/{case_id}/events", where=case, params={"follow": False})
    for operation in ("GET /v1/policies", "GET /v1/audit", "GET /healthz", "GET /readyz"):
        recorder.ask(operation)
    recorder.ask("GET /metrics")


def _act_on(recorder: Recorder, case: dict[str, str]) -> None:
    urgent = {"action": "raise_urgency", "urgency": 0.9}
    recorder.ask("POST /v1/cases/{case_id}/actions", where=case, body=urgent)
    recorder.ask("POST /v1/cases/{case_id}/decision", where=case, body={"action": "accept"})
    waiting = {"case_id": str(_deferred(recorder))}
    recorder.ask("POST /v1/cases/{case_id}/wake", where=waiting)
    for operation in ("actions", "decision"):
        recorder.found[f"POST /v1/cases/{{case_id}}/{operation}"].pop("request")
    for operation in ("audit", "export"):
        recorder.ask(f"GET /v1/cases/{{case_id}}/{operation}", where=case)
    recorder.ask("GET /v1/cases/export.jsonl", params={"reference": "board-12/1"})
    recorder.found["GET /v1/cases/export.jsonl"]["response"] = (
        '{"format": "greenboard-case/1", "exported_at": "2026-01-31T09:00:00Z", ...}\n'
    )
    recorder.found["POST /v1/cases/{case_id}/rephrase"] = {
        "parameters": case,
        "response": {
            "mark": "In a language model's words; not part of the record.",
            "text": "The model suggests the positive class.",
            "model": "a-model",
        },
    }


def _deferred(recorder: Recorder) -> str:
    for row in range(5, 50):
        body = {**_body(row), "policy": "mpc"}
        case_id = str(recorder.client.post("/v1/cases", json=body).json()["id"])
        recorder.until(f"/v1/cases/{case_id}", "awaiting_clinician", "deferred")
        if recorder.client.get(f"/v1/cases/{case_id}").json()["status"] == "deferred":
            return case_id
    raise AssertionError("no case was deferred")


def _run_jobs(recorder: Recorder) -> None:
    asked = {"policies": ["never", "rule"], "sessions": 10}
    for operation, body in (
        ("POST /v1/comparisons", asked),
        ("POST /v1/reports", {"kind": "carbon_account", "by": "policy"}),
    ):
        job = recorder.ask(operation, body=body).json()
        recorder.found[operation].pop("request")
        recorder.until(f"/v1/jobs/{job['id']}", "done", "failed")
    where = {"job_id": job["id"]}
    recorder.ask("GET /v1/jobs/{job_id}", where=where)
    recorder.ask("GET /v1/jobs")
    recorder.ask("GET /v1/jobs/{job_id}/files/{name}", where={**where, "name": "account.html"})
    job_process.CHILD = ("-c", "import time; time.sleep(60)")
    job = recorder.client.post("/v1/comparisons", json=asked).json()
    recorder.ask("POST /v1/jobs/{job_id}/cancel", where={"job_id": job["id"]})


def _change_bundles(recorder: Recorder) -> None:
    recorder.ask("POST /v1/bundles/activations", body={"version": "5a8e0c1d2f3b"})
    recorder.found["POST /v1/bundles/activations"].pop("request")
    recorder.ask("POST /v1/bundles/rollback")
    recorder.ask("GET /v1/bundles")
    recorder.ask("GET /v1/bundles/activations")


def _look_at_carbon(recorder: Recorder, case: dict[str, str]) -> None:
    for name in ("now", "forecast", "budget", "ledger", "limits", "ledger.jsonl"):
        recorder.ask(f"GET /v1/carbon/{name}")
    for name in ("account", "account.csv"):
        recorder.ask(f"GET /v1/carbon/{name}", params={"heat": "0.6:0.9:203"})
    recorder.found["GET /v1/carbon/account.html"] = {
        "response": "<!doctype html>\n<title>Carbon account</title>\n", "media_type": "text/html",
    }  # fmt: skip


def _other_standards(recorder: Recorder, bundle: dict[str, Any]) -> None:
    recorder.ask("GET /cds-services")
    recorder.found["POST /cds-services/greenboard-case-review"] = {"response": {"cards": []}}
    headers = {"Content-Type": "application/fhir+json", "Accept": "application/json"}
    made = recorder.ask("POST /v1/fhir/Bundle", body=bundle, headers=headers).json()
    recorder.found["POST /v1/fhir/Bundle"].pop("request")
    recorder.ask("GET /v1/fhir/metadata")
    where = {"case_id": str(made["case"]["id"])}
    recorder.until(f"/v1/cases/{made['case']['id']}", "awaiting_clinician")
    recorder.ask("GET /v1/cases/{case_id}/fhir", where=where)


def a_bundle(folder: Path, version: str) -> Path:
    """A folder that lists as a bundle; its student is a double."""
    folder.mkdir(parents=True)
    for name in NEEDED:
        (folder / name).write_text("{}")
    (folder / METRICS).write_text(json.dumps({"full": {"auc": FIGURE}}))
    facts = {
        "version": version, "cohort": "toy", "synthetic": True,
        "created": "2026-01-31T09:00:00+00:00", "modalities": list(TABLE.modalities),
    }  # fmt: skip
    seal(folder, facts)
    return folder


def main() -> None:
    """Start the server, use it, write the file."""
    sent = runpy.run_path(str(Path(__file__).parent / "fhir" / "test_http.py"))["sent"]
    job_process.CHILD = ("-S", "-c", LEAVES_FILES)
    keys = tuple(
        ApiKey(name=f"dr-{role}", role=role, sha256=hash_key(key)) for role, key in KEYS.items()
    )

    def load(settings: Settings) -> ReviewKit:
        monitor = StillMonitor(ahead=(250.0, 50.0, 40.0))
        kit = replay_kit(TABLE, make_policy=make_policy, policy=settings.policy, monitor=monitor)
        version = Bundle.open(settings.bundle).manifest["version"]
        return replace(kit, identity=replace(kit.identity, version=version))

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        a_bundle(folder / "bundles" / "next", "5a8e0c1d2f3b")
        settings = Settings(
            bundle=a_bundle(folder / "first", "0c1d2f3b5a8e"), bundles=folder / "bundles",
            state=folder / "state", policy="rule", keys=keys, limits=("day:50000:80000",),
            cds_open=True,
        )  # fmt: skip
        with serving(settings, load) as running, running.client("admin") as client:
            found = record(client, sent(3))
    TARGET.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{TARGET}: {len(found)} operations, {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
