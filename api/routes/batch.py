"""Several cases in one request; each is taken on or refused by itself."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Annotated

from fastapi import APIRouter, Body, Response
from sqlalchemy import Connection

from api.auth import Principal
from api.batch_schemas import BatchItem, BatchRequest, BatchView
from api.deps import IdempotencyKey, Parts, Reviewer, Server
from api.idempotency import Once
from api.problems import ProblemError, documented, problem_of
from api.routes.cases import COMMON, new_case
from api.schemas import CaseRequest
from api.strict_json import StrictRoute
from distill.errors import FeatureError

AT_ONCE = 8
"""Taken on side by side, so that they share the store's commits and leave the loop to others."""
router = APIRouter(prefix="/v1/cases", tags=["cases"], route_class=StrictRoute)


@router.post(
    "/batch",
    status_code=207,
    summary="Post several cases for review",
    response_description="What came of each case; look at every item.",
    responses=documented(*COMMON, "body-too-large", "idempotency-key-reused", "not-ready"),
)
async def create_cases(
    *,
    server: Parts,
    caller: Reviewer,
    body: Annotated[BatchRequest, Body()],
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> BatchView:
    """Take up to 100 cases on, each by itself: a case that is refused keeps no other one back.

    What does not fit the schema refuses the whole request (422) before anything is taken on. A
    full queue refuses the cases that no longer fit, with ``Retry-After``. The same request again
    with the same ``Idempotency-Key`` finds the cases that were taken on and tries the others anew.
    """
    asked = body.model_dump(mode="json")["cases"]
    whole = Once.of(caller, idempotency_key, "batch", asked)
    onces = [
        Once.of(caller, _own_key(idempotency_key, index), "batch-case", case)
        for index, case in enumerate(asked)
    ]

    def claim(connection: Connection) -> list[str | None]:
        whole.begin(connection, resource="batch", now=server.clock())
        return [once.find(connection) for once in onces]

    # What was taken on before is found before the others compete for places in the queue.
    known = await server.database.write(claim)
    gate = asyncio.Semaphore(AT_ONCE)
    seconds: list[int] = []

    async def take(index: int, case: CaseRequest) -> BatchItem:
        found = known[index]
        if found is not None:
            return BatchItem(index=index, status=200, id=found, replayed=True)
        async with gate:
            return await _take(server, caller, (index, case), onces[index], seconds)

    items = await asyncio.gather(*(take(i, case) for i, case in enumerate(body.cases)))
    if seconds:
        response.headers["Retry-After"] = str(max(seconds))
    if all(item.replayed for item in items):
        response.headers["Idempotency-Replayed"] = "true"
    accepted = sum(item.id is not None for item in items)
    return BatchView(accepted=accepted, refused=len(items) - accepted, items=list(items))


async def _take(
    server: Server, caller: Principal, numbered: tuple[int, CaseRequest], once: Once,
    seconds: list[int],
) -> BatchItem:  # fmt: skip
    index, case = numbered
    try:
        case_id, row = await server.reviews.create(new_case(server, case), caller, once)
    except (ProblemError, FeatureError) as error:
        if isinstance(error, ProblemError) and "Retry-After" in error.headers:
            seconds.append(int(error.headers["Retry-After"]))
        problem = problem_of(error, f"/v1/cases/batch#{index}")
        return BatchItem(index=index, status=problem.status, problem=problem)
    replayed = row is None
    return BatchItem(index=index, status=200 if replayed else 202, id=case_id, replayed=replayed)


def _own_key(key: str | None, index: int) -> str | None:
    """The key of one case of the batch; of the length that a key may have."""
    return None if key is None else f"{hashlib.sha256(key.encode()).hexdigest()}/{index}"
