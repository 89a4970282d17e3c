"""Bundles: which there are, which one new cases get, and back to the one before."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Body, Response
from sqlalchemy import Connection

from api import audit
from api.account_schemas import FigureView
from api.auth import Principal
from api.bundle_list import Listed, list_bundles
from api.bundle_schemas import (
    ActivationRequest,
    ActivationsView,
    ActivationView,
    BundlesView,
    BundleView,
    Kind,
)
from api.deps import Admin, IdempotencyKey, Parts, Server, Viewer
from api.idempotency import Once
from api.kits import Loaded
from api.problems import ProblemError, documented
from api.store import bundles as store
from distill.bundle import Bundle
from distill.errors import DistillError

COMMON = ("malformed-request", "unauthorized", "forbidden", "invalid-request", "internal-error")
CHANGES = (*COMMON, "invalid-bundle", "idempotency-key-reused", "not-ready")
router = APIRouter(prefix="/v1/bundles", tags=["bundles"])


ACTIVATION_EXAMPLES: dict[str, Any] = {"version": {"value": {"version": "5a8e0c1d2f3b"}}}
REPLAYED: dict[int | str, dict[str, Any]] = {
    200: {"model": ActivationView, "description": "It was active, or was made so before."}
}


def activation_view(row: Any) -> ActivationView:
    """A row as callers see it: not where on the server it lies."""
    return ActivationView(
        seq=row.seq, time=row.time, actor=row.actor, kind=row.kind, bundle=row.bundle,
        name=Path(row.folder).name,
    )  # fmt: skip


def _view(server: Server, listed: Listed) -> BundleView:
    active = server.kits.active
    same = listed.folder.resolve() == active.folder.resolve()
    identity = active.kit.identity
    return BundleView(
        version=identity.version if same else listed.version,
        name=listed.folder.name,
        active=same,
        cohort=identity.cohort if same else listed.cohort,
        synthetic=identity.synthetic if same else listed.synthetic,
        created=listed.created,
        modalities=list(active.kit.layout.modalities if same else listed.modalities),
        metrics={
            name: FigureView(value=f["value"], ci95=f["ci95"], n=f["n"])
            for name, f in listed.metrics.items()
        },
        problem=listed.problem,
    )


@router.get("", summary="List bundles", responses=documented(*COMMON, "not-ready"))
async def list_all(server: Parts, caller: Viewer) -> BundlesView:
    """Those of the operator's folder of bundles and those that were active, with their figures.

    Figures are the bundle's own, as its training measured them; a bundle is checked when it is
    activated.
    """
    rows = await server.database.read(store.course)
    listed = await asyncio.to_thread(lambda: list_bundles(_folders(server, rows)))
    standing = store.stack(rows)
    return BundlesView(
        active=server.kits.active.version,
        rolls_back_to=standing[-2].bundle if len(standing) > 1 else None,
        bundles=[_view(server, one) for one in listed],
    )


def _folders(server: Server, rows: Sequence[Any]) -> list[Path]:
    before = (Path(row.folder) for row in reversed(rows))
    return [
        server.kits.active.folder,
        *server.kits.candidates(),
        *(p for p in before if p.is_dir()),
    ]


@router.get(
    "/activations",
    summary="Which bundle was active when",
    responses=documented(*COMMON, "not-ready"),
)
async def list_activations(server: Parts, caller: Viewer) -> ActivationsView:
    """Every start, activation and rollback, with who asked for it."""
    rows = await server.database.read(store.course)
    return ActivationsView(activations=[activation_view(row) for row in reversed(rows)])


@router.post(
    "/activations",
    status_code=201,
    summary="Activate a bundle",
    responses={**REPLAYED, **documented(*CHANGES, "bundle-not-found")},
)
async def activate(
    *,
    server: Parts,
    caller: Admin,
    body: Annotated[ActivationRequest, Body(openapi_examples=ACTIVATION_EXAMPLES)],
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> ActivationView:
    """New cases get this bundle from now on; those under review keep theirs.

    Every file's sum is checked first. The bundle that is active now stays so unless this one
    could be loaded. Holds across restarts, until the operator configures another bundle.
    """
    once = Once.of(caller, idempotency_key, "activate", body.model_dump(mode="json"))
    async with server.changing_bundle:
        rows = await server.database.read(store.course)
        folder = await asyncio.to_thread(_find, _folders(server, rows), body.version)
        return await _become(server, caller, ("activate", folder), once, response)


def _find(folders: list[Path], version: str) -> Path:
    for one in list_bundles(folders):
        if one.version == version:
            return one.folder
    raise ProblemError(
        "bundle-not-found", "No bundle has this version; GET /v1/bundles lists those there are."
    )


@router.post(
    "/rollback",
    status_code=201,
    summary="Return to the bundle before",
    responses={**REPLAYED, **documented(*CHANGES, "nothing-to-roll-back")},
)
async def roll_back(
    server: Parts, caller: Admin, response: Response, idempotency_key: IdempotencyKey = None
) -> ActivationView:
    """New cases get the bundle that was active before the present one; again, the one before that.

    Nothing is undone: the rollback stands in the course of activations like everything else.
    """
    once = Once.of(caller, idempotency_key, "rollback", {})
    async with server.changing_bundle:
        standing = store.stack(await server.database.read(store.course))
        folder = Path(standing[-2].folder) if len(standing) > 1 else None
        return await _become(server, caller, ("rollback", folder), once, response)


async def _become(
    server: Server, caller: Principal, change: tuple[Kind, Path | None], once: Once,
    response: Response,
) -> ActivationView:  # fmt: skip
    """Load, write down, then switch: what is written was loaded, and what is active is written."""
    kind, folder = change
    loaded = None if folder is None else await _load(server, folder)
    now = server.clock()

    def write(connection: Connection) -> tuple[Any, bool]:
        rows = store.course(connection)
        number = len(rows)
        before = once.begin(connection, resource=str(number), now=now)
        if before is not None:
            return next(row for row in rows if str(row.seq) == before), False
        if loaded is None:
            raise ProblemError("nothing-to-roll-back", "The active bundle is the first one.")
        one = store.Activation(
            kind=kind, bundle=loaded.version, folder=str(loaded.folder.resolve())
        )
        if kind == "activate" and one.stands_in(rows):
            return rows[-1], False
        store.append(connection, one, actor=caller.name, now=now)
        audit.append(
            connection, time=now, actor=caller.name, action=f"bundle.{kind}",
            subject=loaded.version, detail={"activation": number},
        )  # fmt: skip
        return store.course(connection)[-1], True

    row, changed = await server.database.write(write)
    if changed and loaded is not None:
        server.kits.switch(loaded)
    else:
        response.status_code = 200
        response.headers["Idempotency-Replayed"] = "true"
    return activation_view(row)


async def _load(server: Server, folder: Path) -> Loaded:
    """Open it in a thread, sums first.

    Raises:
        ProblemError: if it is incomplete, altered, or cannot be reviewed with.
    """
    try:
        await asyncio.to_thread(Bundle.open, folder)
        return await server.kits.load(folder)
    except (DistillError, OSError) as error:
        raise ProblemError(
            "invalid-bundle",
            f"The bundle {folder.name} cannot be used ({type(error).__name__}); restore it from a "
            "copy, or train it again.",
        ) from error
