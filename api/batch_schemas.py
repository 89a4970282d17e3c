"""Several cases in one request, and what came of each."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from api.problem_schema import Problem
from api.schemas import Body, CaseRequest, Out

MOST = 100


class BatchRequest(Body):
    """Cases to review."""

    cases: Annotated[list[CaseRequest], Field(min_length=1, max_length=MOST)] = Field(
        description="Each as in POST /v1/cases; 100 at most, within the limit of a body's size."
    )


class BatchItem(Out):
    """What came of one case."""

    index: int = Field(ge=0, description="Its place in the request.")
    status: int = Field(description="As POST /v1/cases would have answered: 202, 200, 422, 429.")
    id: str | None = Field(default=None, description="The case; null if it was refused.")
    replayed: bool = Field(default=False, description="An earlier request took it on.")
    problem: Problem | None = Field(default=None, description="Why it was refused.")


class BatchView(Out):
    """What came of each case, in the order of the request."""

    accepted: int = Field(description="Taken on, now or by an earlier request with this key.")
    refused: int
    items: list[BatchItem]
