"""What routes are given: the server's parts, and the caller.

All of these are coroutines though none of them waits: plain functions would each be run in a
thread, at several times their cost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated

from fastapi import Depends, Header, Request
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from agent.workflow.kit import ReviewKit
from agent.workflow.rephrase import ChatRephraser
from api.auth import KeyRing, Principal, Role
from api.cds.desk import Desk
from api.hub import Hub
from api.jobs import Jobs
from api.kits import Kits
from api.metrics import Metrics
from api.problems import ProblemError
from api.reviews import Reviews
from api.settings import Settings
from api.store.database import Database
from api.web.state import Web
from api.worker import Workers
from distill.cohort import Cohort

BEARER = HTTPBearer(auto_error=False, description="An API key.")
HEADER = APIKeyHeader(name="X-API-Key", auto_error=False, description="An API key.")


@dataclass(frozen=True, kw_only=True)
class Server:
    """Everything that the routes work with; made when the app starts.

    ``drawing`` is held while a page's pictures are drawn: matplotlib's settings are the process's.
    ``watchers`` has a place for each event stream that may be open.
    ``changing_bundle`` is held while another bundle is made the active one.
    """

    settings: Settings
    kits: Kits
    database: Database
    reviews: Reviews
    jobs: Jobs
    workers: Workers
    hub: Hub
    metrics: Metrics
    keys: KeyRing
    cohort: Cohort | None
    clock: Callable[[], datetime]
    cds: Desk
    watchers: asyncio.Semaphore
    rephraser: ChatRephraser | None = None
    drawing: asyncio.Lock = field(default_factory=asyncio.Lock)
    changing_bundle: asyncio.Lock = field(default_factory=asyncio.Lock)
    web: Web = field(default_factory=Web)

    @property
    def kit(self) -> ReviewKit:
        """What new cases are reviewed with."""
        return self.kits.active.kit


async def server_of(request: Request) -> Server:
    """The server's parts.

    Raises:
        ProblemError: while the app is not started.
    """
    server = getattr(request.app.state, "server", None)
    if not isinstance(server, Server):
        raise ProblemError("not-ready", "The server is starting; try again in a second.")
    return server


async def caller_of(
    request: Request,
    server: Annotated[Server, Depends(server_of)],
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)],
    header: Annotated[str | None, Depends(HEADER)],
) -> Principal:
    """Who calls.

    Raises:
        ProblemError: 401 without a valid key.
    """
    key = bearer.credentials if bearer is not None else header
    caller = server.keys.principal(key) if key else None
    if caller is None:
        raise ProblemError(
            "unauthorized",
            ("This key is not known" if key else "No key came with the request")
            + "; send 'Authorization: Bearer KEY' or 'X-API-Key: KEY'.",
            headers={"WWW-Authenticate": 'Bearer realm="greenboard"'},
        )
    request.state.caller = caller.name
    return caller


def _require(caller: Principal, role: Role) -> Principal:
    if not caller.may(role):
        raise ProblemError(
            "forbidden", f"This takes the role {role!r}; the key's role is {caller.role!r}."
        )
    return caller


async def viewer(caller: Annotated[Principal, Depends(caller_of)]) -> Principal:
    """A caller who may look."""
    return _require(caller, "viewer")


async def reviewer(caller: Annotated[Principal, Depends(caller_of)]) -> Principal:
    """A caller who may post cases and decide.

    Raises:
        ProblemError: 403 otherwise.
    """
    return _require(caller, "reviewer")


async def admin(caller: Annotated[Principal, Depends(caller_of)]) -> Principal:
    """A caller who may see the audit log.

    Raises:
        ProblemError: 403 otherwise.
    """
    return _require(caller, "admin")


Parts = Annotated[Server, Depends(server_of)]
Viewer = Annotated[Principal, Depends(viewer)]
Reviewer = Annotated[Principal, Depends(reviewer)]
Admin = Annotated[Principal, Depends(admin)]
IfMatch = Annotated[
    str | None,
    Header(
        alias="If-Match",
        max_length=40,
        description="The case's ETag as it was read: refused with 412 if it has changed since.",
        examples=['"3"'],
    ),
]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        pattern=r"^[!-~]+$",
        description="The same key with the same request again changes nothing.",
    ),
]
