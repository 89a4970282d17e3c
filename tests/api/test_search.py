"""The list of cases: filters, orders, and cursors that show each case once."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, insert

from api.store.cases import CursorError
from api.store.search import CaseFilter, list_cases
from api.store.tables import cases, metadata

START = datetime(2026, 1, 1, tzinfo=UTC)
ORDERS = ("created", "urgency", "deadline", "uncertainty")


def row(number: int, **values: Any) -> dict[str, Any]:
    at = START + timedelta(minutes=number)
    return {
        "id": f"{number:032x}", "status": "queued", "created_at": at, "updated_at": at,
        "created_by": "dr", "urgency": 0.0, "policy": "rule", "features": {}, "version": 1,
        "deadline": None, "uncertainty": None, **values,
    }  # fmt: skip


@pytest.fixture
def connection():
    engine = create_engine("sqlite://")
    metadata.create_all(engine)
    with engine.connect() as opened:
        yield opened
    engine.dispose()


def pages(connection, chosen=None, *, order="created", limit=2, between=lambda: None):
    cursor, found = None, []
    while True:
        rows, cursor = list_cases(
            connection, chosen or CaseFilter(), limit=limit, cursor=cursor, order=order
        )
        found += [r.id for r in rows]
        if cursor is None:
            return found
        between()


ties = st.sampled_from([0.0, 0.25, 0.5, 1.0])
some = st.fixed_dictionaries(
    {
        "at": st.integers(0, 3), "urgency": ties, "uncertainty": st.none() | ties,
        "hours": st.none() | st.integers(1, 3),
    }
)  # fmt: skip


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    there=st.lists(some, max_size=14), coming=st.lists(some, max_size=6),
    order=st.sampled_from(ORDERS), limit=st.integers(1, 4),
)  # fmt: skip
def test_each_case_is_seen_once_while_others_are_posted(there, coming, order, limit) -> None:
    engine = create_engine("sqlite://")
    metadata.create_all(engine)

    def values(number: int, facts: dict[str, Any]) -> dict[str, Any]:
        hours = facts["hours"]
        return row(
            number, urgency=facts["urgency"], uncertainty=facts["uncertainty"],
            created_at=START + timedelta(minutes=facts["at"]),
            deadline=None if hours is None else START + timedelta(hours=hours),
        )  # fmt: skip

    with engine.connect() as connection:
        for number, facts in enumerate(there):
            connection.execute(insert(cases), values(number, facts))
        later = [values(1000 + number, facts) for number, facts in enumerate(coming)]

        def one_more() -> None:
            if later:
                connection.execute(insert(cases), later.pop())

        found = pages(connection, order=order, limit=limit, between=one_more)
    engine.dispose()
    assert len(found) == len(set(found))
    assert {f"{number:032x}" for number in range(len(there))} <= set(found)


def test_the_orders(connection) -> None:
    connection.execute(
        insert(cases),
        [
            row(0, urgency=0.1, deadline=START + timedelta(days=9), uncertainty=0.2),
            row(1, urgency=0.9),
            row(2, urgency=0.1, deadline=START + timedelta(days=1)),
            row(3, urgency=0.5, uncertainty=0.9),
        ],
    )

    def numbers(order: str) -> list[int]:
        return [int(found, 16) for found in pages(connection, order=order)]

    assert numbers("created") == [3, 2, 1, 0]
    assert numbers("urgency") == [1, 3, 0, 2]
    assert numbers("deadline") == [2, 0, 1, 3]
    assert numbers("uncertainty") == [3, 0, 2, 1]


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (CaseFilter(status=("recorded", "parked")), {1, 2}),
        (CaseFilter(policy="price"), {0}),
        (CaseFilter(reference="board-1/7"), {0}),
        (CaseFilter(unit="thoracic"), {1}),
        (CaseFilter(session="S 12"), {2}),
        (CaseFilter(text="BOARD"), {0}),
        (CaseFilter(text="c"), {1, 3}),
        (CaseFilter(text="%"), {3}),
        (CaseFilter(text="_"), set()),
        (CaseFilter(text="\\"), set()),
        (CaseFilter(text="' OR 1=1 --"), set()),
        (CaseFilter(min_urgency=0.5), {1}),
        (CaseFilter(above_uncertainty=0.4), {2}),
        (CaseFilter(second_review=True), {3}),
        (CaseFilter(second_review=False), {0, 1, 2}),
        (CaseFilter(since=START + timedelta(minutes=2)), {2, 3}),
        (CaseFilter(until=START + timedelta(minutes=2)), {0, 1}),
        (CaseFilter(status=("recorded",), min_urgency=0.9), set()),
    ],
)  # fmt: skip
def test_the_filters(connection, chosen: CaseFilter, expected: set[int]) -> None:
    for values in (
        row(0, policy="price", reference="board-1/7"),
        row(1, status="recorded", unit="thoracic", urgency=0.5),
        row(2, status="parked", session="S 12", uncertainty=0.5, second_review=False),
        row(3, reference="100 % certain", second_review=True, uncertainty=0.4),
    ):
        connection.execute(insert(cases), values)
    assert {int(found, 16) for found in pages(connection, chosen)} == expected


def coded(*parts: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "cursor",
    [
        "x", "", "%%%", coded(), coded("created", None, "yesterday", "a"),
        coded("created", None, "2026-01-01T00:00:00", "a"),
        coded("urgency", 0.5, START.isoformat(), "a"),
        coded("created", None, START.isoformat(), 7), coded([[[]]], 1, 2, 3),
    ],
)  # fmt: skip
def test_a_cursor_of_somebody_else_is_refused(connection, cursor: str) -> None:
    with pytest.raises(CursorError):
        list_cases(connection, CaseFilter(), limit=1, cursor=cursor)


def test_the_list_through_http(shared_client: httpx.Client, body) -> None:
    for number in range(3):
        asked = {**body(number), "session": "S-http", "urgency": number / 10}
        assert shared_client.post("/v1/cases", json=asked).status_code == 202
    query = {"session": "S-http", "sort": "urgency", "limit": 2}
    first = shared_client.get("/v1/cases", params=query).json()
    assert [case["urgency"] for case in first["cases"]] == [0.2, 0.1]
    rest = shared_client.get("/v1/cases", params={**query, "cursor": first["next_cursor"]}).json()
    assert [case["urgency"] for case in rest["cases"]] == [0.0]
    assert rest["next_cursor"] is None
    assert shared_client.get("/v1/cases", params={"q": "s-HTTP"}).json()["cases"]
    wrong = shared_client.get("/v1/cases", params={"cursor": first["next_cursor"]})
    assert wrong.status_code == 400
    for query in ({"created_since": "1700000000"}, {"created_since": "2026-01-01T00:00:00"},
                  {"sort": "size"}, {"unknown": "1"}, {"above_uncertainty": "nan"}):  # fmt: skip
        assert shared_client.get("/v1/cases", params=query).status_code == 422, query
