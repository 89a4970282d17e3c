"""Several cases in one request: each by itself, none twice."""

from __future__ import annotations

import time
from typing import Any

from api.batch_schemas import MOST

KEY = {"Idempotency-Key": "monday"}


def post(client: Any, cases: list[Any], **headers: str) -> Any:
    return client.post("/v1/cases/batch", json={"cases": cases}, headers=headers)


def test_each_case_is_taken_on_or_refused_by_itself(serve, body, until) -> None:
    with serve() as running, running.client() as client:
        wrong = {"features": {"clinical": {"row": 1e9}}}
        answer = post(client, [body(0), wrong, {**body(1), "policy": "nobody"}, body(2)])
        assert answer.status_code == 207, answer.text
        found = answer.json()
        assert (found["accepted"], found["refused"]) == (2, 2)
        assert [item["status"] for item in found["items"]] == [202, 422, 422, 202]
        assert [item["index"] for item in found["items"]] == [0, 1, 2, 3]
        kinds = [item["problem"]["type"].rsplit(":")[-1] for item in found["items"][1:3]]
        assert kinds == ["invalid-features", "unknown-policy"]
        for item in found["items"]:
            if item["id"] is not None:
                until(client, item["id"], "awaiting_clinician")
        assert len(client.get("/v1/cases").json()["cases"]) == 2


def test_the_same_batch_again_makes_no_case_twice(serve, body) -> None:
    with serve() as running, running.client() as client:
        wrong = {"features": {"clinical": {"row": 1e9}}}
        first, again = (post(client, [body(0), wrong, body(1)], **KEY) for _ in range(2))
        assert [item["status"] for item in again.json()["items"]] == [200, 422, 200]
        ids = [[item["id"] for item in answer.json()["items"]] for answer in (first, again)]
        assert ids[0] == ids[1]
        whole = post(client, [body(0), wrong], **KEY)
        assert whole.status_code == 422
        assert whole.json()["type"].endswith("idempotency-key-reused")
        assert len(client.get("/v1/cases").json()["cases"]) == 2
        with running.client("admin") as other:
            assert post(other, [body(0)], **KEY).json()["accepted"] == 1


def test_a_full_queue_refuses_what_no_longer_fits_and_a_retry_takes_it(serve, body) -> None:
    with serve(queue_limit=3, workers=1) as running, running.client() as client:
        cases = [body(number) for number in range(20)]
        first = post(client, cases, **KEY)
        found = first.json()
        assert found["accepted"] >= 3
        refused = [item for item in found["items"] if item["id"] is None]
        assert refused, "the queue of three took twenty at once"
        assert {item["status"] for item in refused} == {429}
        assert int(first.headers["Retry-After"]) >= 1
        taken = {item["index"]: item["id"] for item in found["items"] if item["id"]}
        deadline = time.monotonic() + 20
        while found["refused"]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
            found = post(client, cases, **KEY).json()
            assert taken.items() <= {i["index"]: i["id"] for i in found["items"] if i["id"]}.items()
            taken = {item["index"]: item["id"] for item in found["items"] if item["id"]}
        assert len(set(taken.values())) == 20
        assert len(client.get("/v1/cases", params={"limit": 200}).json()["cases"]) == 20


def test_what_does_not_fit_the_schema_refuses_all_of_it(serve, body) -> None:
    with serve() as running, running.client() as client:
        for cases in ([], [body(0)] * (MOST + 1), [body(0), {**body(1), "urgency": 2}]):
            assert post(client, cases).status_code == 422
        answer = post(client, [body(0), {**body(1), "MRN 4711": 2}])
        assert answer.status_code == 422
        assert "4711" not in answer.text
        assert client.get("/v1/cases").json()["cases"] == []
        with running.client("viewer") as viewer:
            assert post(viewer, [body(0)]).status_code == 403
