"""Bundles through HTTP: listed, activated whole or not at all, rolled back, kept over restarts."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import create_engine

from agent.policies.registry import make_policy
from agent.workflow.doubles import replay_kit
from agent.workflow.kit import ReviewKit
from api.settings import Settings
from api.store import bundles as store
from api.store.tables import metadata
from distill.bundle import METRICS, NEEDED, Bundle, seal

FIGURE = {"value": 0.9, "ci95": [0.8, 1.0], "n": 60}


def make_bundle(folder: Path, version: str) -> Path:
    """A folder with everything that a bundle lists, all of it empty but the figures."""
    folder.mkdir(parents=True)
    for name in NEEDED:
        (folder / name).write_text("{}")
    (folder / METRICS).write_text(json.dumps({"full": {"auc": FIGURE, "brier": FIGURE}}))
    facts = {
        "version": version, "cohort": "toy", "synthetic": True,
        "created": "2026-01-01T00:00:00+00:00", "modalities": ["clinical", "genomics"],
    }  # fmt: skip
    seal(folder, facts)
    return folder


@pytest.fixture
def beside(tmp_path: Path, settings: Settings, evidence, serve):
    """A server of the bundle v0, with v1 and v2 beside it."""
    make_bundle(settings.bundle, "v0")
    for version in ("v1", "v2"):
        make_bundle(tmp_path / "bundles" / version, version)

    def load(chosen: Settings) -> ReviewKit:
        version = Bundle.open(chosen.bundle).manifest["version"]
        kit = replay_kit(evidence, make_policy=make_policy, policy=chosen.policy)
        return replace(kit, identity=replace(kit.identity, version=version))

    def start(**changes: Any) -> Any:
        return serve(load=load, bundles=tmp_path / "bundles", **{"policy": "never", **changes})

    return SimpleNamespace(start=start, folder=tmp_path / "bundles")


def activate(client: Any, version: str, **headers: str) -> Any:
    return client.post("/v1/bundles/activations", json={"version": version}, headers=headers)


def test_new_cases_get_the_active_bundle_and_others_keep_theirs(beside, body, until) -> None:
    with beside.start() as running, running.client("admin") as client:
        old = client.post("/v1/cases", json=body(1)).json()
        answer = activate(client, "v1")
        assert answer.status_code == 201, answer.text
        assert answer.json() | {"time": ""} == {
            "seq": 1, "time": "", "actor": "dr-admin", "kind": "activate", "bundle": "v1",
            "name": "v1",
        }  # fmt: skip
        new = client.post("/v1/cases", json=body(2)).json()
        assert new["model"]["bundle_version"] == "v1"
        kept = until(client, old["id"], "awaiting_clinician")
        assert kept["model"]["bundle_version"] == "v0"
        decided = client.post(f"/v1/cases/{old['id']}/decision", json={"action": "accept"})
        assert decided.status_code == 201
        listed = client.get("/v1/bundles").json()
        assert (listed["active"], listed["rolls_back_to"]) == ("v1", "v0")
        assert {b["version"]: b["active"] for b in listed["bundles"]} == {
            "v0": False, "v1": True, "v2": False,
        }  # fmt: skip
        assert listed["bundles"][0]["metrics"]["auc"] == FIGURE
        assert client.get("/v1/audit").json()["intact"]


def test_rolling_back_goes_back_as_far_as_it_went(beside) -> None:
    with beside.start() as running, running.client("admin") as client:
        for version in ("v1", "v2"):
            assert activate(client, version).status_code == 201
        back = [client.post("/v1/bundles/rollback") for _ in range(3)]
        assert [answer.status_code for answer in back] == [201, 201, 409]
        assert [answer.json()["bundle"] for answer in back[:2]] == ["v1", "v0"]
        assert back[2].json()["type"].endswith("nothing-to-roll-back")
        course = client.get("/v1/bundles/activations").json()["activations"]
        assert [(row["kind"], row["bundle"]) for row in reversed(course)] == [
            ("start", "v0"), ("activate", "v1"), ("activate", "v2"),
            ("rollback", "v1"), ("rollback", "v0"),
        ]  # fmt: skip


def test_the_active_bundle_survives_a_restart_until_another_is_configured(
    beside, tmp_path: Path
) -> None:
    with beside.start() as running, running.client("admin") as client:
        activate(client, "v1")
    with beside.start() as running, running.client("admin") as client:
        listed = client.get("/v1/bundles").json()
        assert (listed["active"], listed["rolls_back_to"]) == ("v1", "v0")
        assert client.post("/v1/bundles/rollback").json()["bundle"] == "v0"
        activate(client, "v1")
    with beside.start(bundle=beside.folder / "v2") as running, running.client("admin") as client:
        listed = client.get("/v1/bundles").json()
        assert (listed["active"], listed["rolls_back_to"]) == ("v2", "v1")
    shutil.rmtree(beside.folder / "v1")
    with beside.start() as running, running.client("viewer") as client:
        assert client.get("/v1/bundles").json()["active"] == "v0"


def test_a_damaged_bundle_changes_nothing(beside) -> None:
    (beside.folder / "v1" / METRICS).write_text(json.dumps({"full": {}}))
    (beside.folder / "v2" / "manifest.json").write_text("{")
    with beside.start() as running, running.client("admin") as client:
        answer = activate(client, "v1")
        assert answer.status_code == 422
        assert answer.json()["type"].endswith("invalid-bundle")
        assert str(beside.folder) not in answer.text
        assert activate(client, "v2").status_code == 404
        assert activate(client, "../v1").status_code == 404
        listed = client.get("/v1/bundles").json()
        assert listed["active"] == "v0"
        assert [b["problem"] is None for b in listed["bundles"]] == [True, True, False]
        assert len(client.get("/v1/bundles/activations").json()["activations"]) == 1


def test_only_an_admin_changes_the_bundle_and_a_key_does_it_once(beside) -> None:
    with beside.start() as running:
        with running.client("reviewer") as client:
            assert activate(client, "v1").status_code == 403
            assert client.post("/v1/bundles/rollback").status_code == 403
        with running.client("admin") as client:
            first, again = (activate(client, "v1", **{"Idempotency-Key": "a"}) for _ in range(2))
            assert (first.status_code, again.status_code) == (201, 200)
            assert first.json() == again.json()
            assert activate(client, "v2", **{"Idempotency-Key": "a"}).status_code == 422
            assert activate(client, "v1").status_code == 200  # it is active
            for expected in (201, 200, 200):
                back = client.post("/v1/bundles/rollback", headers={"Idempotency-Key": "b"})
                assert (back.status_code, back.json()["bundle"]) == (expected, "v0")
            assert len(client.get("/v1/bundles/activations").json()["activations"]) == 3


def test_a_folder_that_comes_to_hold_another_bundle_is_one_step(tmp_path: Path) -> None:
    engine = create_engine("sqlite://")
    metadata.create_all(engine)
    now = datetime.now(UTC)
    with engine.connect() as connection:
        for folder, version in (("a", "v0"), ("a", "v0"), ("a", "v1"), ("b", "v2")):
            store.record_start(connection, tmp_path / folder, version, now)
        rows = store.course(connection)
    engine.dispose()
    assert [row.bundle for row in rows] == ["v0", "v1", "v2"]
    assert [one.bundle for one in store.stack(rows)] == ["v1", "v2"]


def test_bundles_share_one_day_of_carbon(beside, body, until) -> None:
    with beside.start(policy="always-everything") as running, running.client("admin") as client:
        case_id = client.post("/v1/cases", json=body(1)).json()["id"]
        until(client, case_id, "awaiting_clinician")
        before = client.get("/v1/carbon/budget").json()
        assert before["spent_g_co2e"]["value"] == pytest.approx(
            before["g_co2e_per_day"] - before["left_g_co2e"]
        )
        assert before["course"][-1]["spent_g_co2e"] == pytest.approx(
            before["spent_g_co2e"]["value"]
        )
        assert activate(client, "v1").status_code == 201
        after = client.get("/v1/carbon/budget").json()
        assert after["spent_g_co2e"] == before["spent_g_co2e"]
