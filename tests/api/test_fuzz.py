"""Whatever body comes: an answer that is no 5xx, and a problem where it is refused."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.problems import MEDIA_TYPE

# The server runs in a thread of this process, and LangGraph draws its checkpoint ids from `random`
# while Hypothesis draws a body: not the strategies' doing.
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module")

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20),
    st.sampled_from(["NaN", "\x00", "\ud800", "9" * 400, "2026-01-01T00:00:00Z", "rule"]),
)  # fmt: skip
names = st.one_of(
    st.sampled_from(["clinical", "genomics", "pathology", "row", ""]), st.text(max_size=8)
)
rows = st.dictionaries(names, scalars, max_size=4)
features = st.one_of(st.dictionaries(names, st.one_of(st.none(), rows), max_size=4), scalars)
junk = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
known = st.fixed_dictionaries(
    {},
    optional={
        "features": features, "case_id": scalars, "reference": scalars, "urgency": scalars,
        "deadline": scalars, "policy": scalars,
    },
)  # fmt: skip
good = st.fixed_dictionaries(
    {"features": st.just({"clinical": {"row": 1}})},
    optional={"reference": st.text(max_size=20), "urgency": st.floats(0, 1), "deadline": scalars},
)
quiet = settings(
    max_examples=150, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip


def send(client: httpx.Client, method: str, path: str, body: Any, **headers: str) -> httpx.Response:
    # Python's own encoder, so that NaN, infinities and lone surrogates go out as well.
    content = json.dumps(body).encode("utf-8", "surrogatepass")
    return client.request(
        method, path, content=content, headers={"content-type": "application/json", **headers}
    )


def fine(answer: httpx.Response) -> None:
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        assert answer.headers["content-type"].startswith(MEDIA_TYPE)
        assert set(answer.json()) >= {"type", "title", "status", "detail", "instance"}


@quiet
@given(body=st.one_of(known, good, junk))
def test_post_case_never_breaks(shared_client: httpx.Client, body: Any) -> None:
    answer = send(shared_client, "POST", "/v1/cases", body)
    while answer.status_code == 429:
        answer = send(shared_client, "POST", "/v1/cases", body)
    fine(answer)


@quiet
@given(body=st.one_of(junk, st.fixed_dictionaries({"action": scalars}, optional={
    "result": scalars, "reason_code": scalars, "comment": scalars})))  # fmt: skip
def test_decision_never_breaks(shared_client: httpx.Client, body: Any) -> None:
    fine(send(shared_client, "POST", "/v1/cases/nobody/decision", body))


@quiet
@given(
    path=st.sampled_from(["/v1/cases", "/v1/carbon/forecast", "/v1/carbon/ledger"]),
    query=st.dictionaries(
        st.sampled_from(["status", "limit", "cursor", "hours", "by", "since", "case", "policy"]),
        st.text(st.characters(codec="utf-8"), max_size=20),
        max_size=3,
    ),
)
def test_queries_never_break(shared_client: httpx.Client, path: str, query: dict[str, str]) -> None:
    fine(shared_client.get(path, params=query))
