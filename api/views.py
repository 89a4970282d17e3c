"""From stored rows to what callers read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agent.workflow.kit import BundleIdentity
from agent.workflow.policybook import PolicyBook
from api.deps import Server
from api.schemas import CaseSummary, CaseView, ModelOfCase, PolicyOfCase
from api.store import actions as actions_of
from api.store import cases as store

NOT_OPEN = "(of a bundle that is not open now)"
OPTIMISTIC = (
    "The model saw this patient in training: the probability is optimistic and says nothing "
    "about new patients."
)


def model_view(identity: BundleIdentity) -> ModelOfCase:
    """The model behind the probability."""
    return ModelOfCase(
        bundle_version=identity.version,
        cohort=identity.cohort,
        synthetic=identity.synthetic,
        negative=identity.negative,
        positive=identity.positive,
        precision=identity.precision,
    )


def model_of(server: Server, row: Any) -> ModelOfCase:
    """The model that reviews the case, which need not be the one that is active now."""
    loaded = server.kits.at_hand(row.bundle)
    if loaded is not None:
        return model_view(loaded.kit.identity)
    known = model_view(server.kit.identity)
    return known.model_copy(update={"bundle_version": row.bundle, "cohort": NOT_OPEN})


def policy_view(policies: PolicyBook, asked: str | None = None) -> PolicyOfCase:
    """Who decides for ``asked`` now."""
    acting = policies.acting(asked)
    return PolicyOfCase(
        asked=acting.asked,
        acting=acting.policy.name,
        fallback_reason=acting.fallback_reason,
    )


def summary(server: Server, row: Any) -> CaseSummary:
    """A row of the list."""
    return CaseSummary(**_summary_fields(server, row))


def _summary_fields(server: Server, row: Any) -> dict[str, Any]:
    status = row.status
    if status in store.OPEN and server.workers.is_running(row.id):
        status = store.RUNNING
    return {
        "id": row.id,
        "status": status,
        "reference": row.reference,
        "unit": row.unit,
        "session": row.session,
        "urgency": row.urgency,
        "deadline": row.deadline,
        "created_at": row.created_at,
        "updated_at": row.updated_at,
        "created_by": row.created_by,
        "policy": policy_view(server.kit.policies, row.policy),
        "seen_in_training": row.seen_in_training,
        "probability": row.probability,
        "transfers_run": row.transfers_run or [],
        "wake_at": row.wake_at,
        "result": row.result,
        "version": row.version,
        "uncertainty": row.uncertainty,
        "g_co2e": row.g_co2e,
        "suggestion": row.suggestion,
        "second_review": row.second_review,
        "flags": row.flags or [],
    }


def case_view(server: Server, row: Any, actions: Sequence[Any] = ()) -> CaseView:
    """A case in full, with what clinicians did to it."""
    opinions = actions_of.opinions(actions)
    decided = bool(opinions) and row.status in (*store.FINAL, *store.OPEN)
    base = f"/v1/cases/{row.id}"
    caution = list((row.explanation or {}).get("cautions", []))
    if row.seen_in_training:
        caution.append(OPTIMISTIC)
    if row.policy_fallback:
        caution.append(row.policy_fallback)
    model = model_of(server, row)
    if model.synthetic:
        caution.append("The model was trained on a synthetic cohort: for trying out only.")
    return CaseView(
        **_summary_fields(server, row),
        model=model,
        explanation=row.explanation,
        plan=row.plan,
        decision=opinions[-1] if decided else None,
        opinions=opinions,
        failure=row.failure,
        caution=caution,
        links={
            "self": base,
            "events": f"{base}/events",
            "decision": f"{base}/decision",
            "actions": f"{base}/actions",
        },
    )
