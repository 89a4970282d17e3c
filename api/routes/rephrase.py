"""An explanation in a language model's words, where an endpoint is configured; never stored."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter

from agent.workflow.rephrase import RephraseError
from agent.workflow.state import Explanation
from api.deps import IdempotencyKey, Parts, Reviewer
from api.problems import ProblemError, documented
from api.reviews import case_not_found
from api.routes.cases import COMMON
from api.schemas import RephrasedView
from api.store import cases as store

router = APIRouter(prefix="/v1/cases", tags=["cases"])


@router.post(
    "/{case_id}/rephrase",
    summary="Put a case's explanation in other words",
    responses=documented(*COMMON, "case-not-found", "not-rephrased", "not-ready"),
)
async def rephrase(
    *, server: Parts, caller: Reviewer, case_id: str, idempotency_key: IdempotencyKey = None
) -> RephrasedView:
    """Ask the configured language model once; nothing of it becomes part of the record.

    Sent are sentences of the explanation that name no feature, no person and no case. The answer
    is refused if a number in it does not occur in them. It changes nothing, so that asking again,
    with the same ``Idempotency-Key`` or another, asks the model again.
    """
    rephraser = server.rephraser
    if rephraser is None:
        raise ProblemError(
            "not-rephrased",
            "No language model is configured (GREENBOARD_REPHRASE_URL and _MODEL); the "
            "explanation stands as it is.",
        )
    row = await server.database.read(lambda connection: store.get_case(connection, case_id))
    if row is None:
        raise case_not_found()
    if row.explanation is None:
        raise ProblemError("not-rephrased", "The case has no explanation yet; follow its events.")
    explanation = Explanation.model_validate(row.explanation)
    try:
        found = await asyncio.to_thread(rephraser.rephrase, explanation)
    except RephraseError as error:
        raise ProblemError("not-rephrased", str(error)) from error
    return RephrasedView(mark=found.mark, text=found.text, model=found.model)
