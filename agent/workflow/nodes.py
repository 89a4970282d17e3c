"""The nodes of the review: each takes the state, asks the services, and returns a checked output.

No node has an effect outside the graph: energy is put out as charges and steps as events, and
whoever runs the graph stores them, keyed so that a node run twice after a crash counts once.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32
from langgraph.types import interrupt

from agent.policies.protocol import Policy
from agent.workflow.changes import Standing, Tried
from agent.workflow.context import (
    ReviewServices,
    Situation,
    asked_of,
    situation,
    transfer_energy_kwh,
)
from agent.workflow.errors import WorkflowError
from agent.workflow.explain import explain_case
from agent.workflow.limits import Ruling, under_limits
from agent.workflow.outputs import (
    AssessOutput,
    DecideOutput,
    DeferOutput,
    ExplainOutput,
    IntakeOutput,
    RequestOutput,
    SenseOutput,
    TransferOutput,
    WaitOutput,
)
from agent.workflow.people import needs_second
from agent.workflow.requests import requested
from agent.workflow.shadow import shadow_entries
from agent.workflow.state import (
    SCORING,
    AssessmentRecord,
    CarbonView,
    CaseState,
    Charge,
    Choice,
    Event,
    EventKind,
    Option,
    Plan,
    Reading,
    Waited,
    next_seq,
)
from agent.workflow.told import AxisTried
from carbon.meter import EnergyReading, energy_window
from envs.catalogue import DEFER

WAIT = "wait"


def _event(state: CaseState, kind: EventKind, at: datetime, data: dict[str, Any]) -> Event:
    return Event(seq=next_seq(state), kind=kind, time=at, data=data)


async def intake(services: ReviewServices, state: CaseState) -> IntakeOutput:
    """Check the features, note what is there, and settle who decides."""
    at = services.clock()
    prepared = await services.prepared(state["case"], frozenset())
    acting = await services.policies.ready(state.get("policy"))
    present = [m for m in services.layout.modalities if m in prepared.present]
    quality = {m: float(prepared.quality.get(m, 0.0)) for m in present}
    missing = [m for m in services.layout.modalities if m not in present]
    data = {
        "present": present,
        "missing": missing,
        "quality": quality,
        "cautions": list(prepared.cautions),
        "urgency": state.get("urgency", 0.0),
        "deadline": state.get("deadline"),
        "policy": acting.policy.name,
        "policy_fallback": acting.fallback_reason,
        "seen_in_training": state.get("seen_in_training"),
    }
    cautions = {"cautions": list(prepared.cautions)} if prepared.cautions else {}
    return IntakeOutput(
        present=present,
        quality=quality,
        transfers_run=[],
        policy=acting.asked,
        policy_fallback=acting.fallback_reason,
        **cautions,
        events=[_event(state, "intake", at, data)],
    )


async def sense_carbon(services: ReviewServices, state: CaseState) -> SenseOutput:
    """Read the grid now and ahead."""
    carbon, data = await services.grid.look(services.clock)
    event = _event(state, "carbon", services.clock(), data)
    waits = state.get("waits", [])
    if not waits or waits[-1].get("met_g_per_kwh") is not None:
        return SenseOutput(carbon=carbon, events=[event])
    met = {"met_g_per_kwh": carbon.now.g_per_kwh, "met_kind": carbon.now.kind}
    waited = Waited.model_validate(waits[-1] | met)
    return SenseOutput(carbon=carbon, waits=_with_last(state, waited), events=[event])


def _with_last(state: CaseState, waited: Waited) -> list[Waited]:
    return [*map(Waited.model_validate, state.get("waits", [])[:-1]), waited]


async def assess(services: ReviewServices, state: CaseState) -> AssessOutput:
    """Score the case with the evidence gathered so far; meter what that takes."""
    prepared = await services.prepared(state["case"], frozenset(state.get("unreliable", ())))
    stage = f"{SCORING}{state.get('spent', {}).get('assessments', 0)}"
    with energy_window(services.monitor.meter) as window:
        scored = services.student.assess(prepared, state["transfers_run"])
    view = AssessmentRecord(
        probability=float(scored.probability),
        logit=float(scored.logit),
        disagreement=float(scored.disagreement),
        processed=list(scored.processed),
        missing=list(scored.missing),
        token_logit={k: float(v) for k, v in scored.token_logit.items()},
        attention={k: float(v) for k, v in scored.attention.items()},
        conformal_set=list(scored.conformal_set),
        conformal_level=scored.conformal_level,
        contributions={k: float(v) for k, v in scored.contributions.items()},
    )
    at = services.clock()
    carbon = CarbonView.model_validate(state["carbon"])
    charge = _metered(window.reading, stage, at, carbon.now)
    before = state.get("assessment", {}).get("probability")
    services.budget.charge(state["case"], stage, at, charge.g_co2e)
    services.limits.charge(state["case"], stage, at, charge.g_co2e, session=state.get("session"))
    data = {
        **dict(view),
        "probability_before": before,
        "transfers_run": state["transfers_run"],
        "charge": charge,
    }
    return AssessOutput(
        assessment=view,
        probability_clinical_only=state.get("probability_clinical_only", view.probability),
        charges=[charge],
        events=[_event(state, "assessment", at, data)],
    )


def _metered(energy: EnergyReading, stage: str, at: datetime, intensity: Reading) -> Charge:
    kwh = energy.kwh
    return Charge(
        stage=stage,
        time=at,
        energy_kwh=kwh,
        energy_basis=energy.basis,
        energy_source=energy.source,
        reason=energy.reason,
        intensity=intensity,
        g_co2e=None if kwh is None else kwh * intensity.g_per_kwh,
    )


async def decide(services: ReviewServices, state: CaseState) -> DecideOutput:
    """Ask the policy for the next action and keep what it saw and why it chose."""
    at = services.clock()
    seen = situation(services, state, at)
    policy = services.policies.acting(state["policy"]).policy
    ruling, axes = _ruled(services, state, seen, policy, at)
    by_limit = ruling.plan is not None
    why = ruling.plan.why if ruling.plan else policy.reason(seen.observation[0], ruling.action)
    action = services.catalogue.names[ruling.action]
    choice = Choice(action=action, reason=why, policy=policy.name)
    _reserve(services, state, ruling.options[ruling.action], at)
    # what would have moved the policy says nothing of a wait that a limit ordered
    changes = [] if by_limit else list(axes)
    noted = {"limit_notes": [*state.get("limit_notes", []), *ruling.notes]} if ruling.notes else {}
    return DecideOutput(
        choice=choice,
        plan=(ruling.plan or seen.plan) if action == DEFER else None,
        changes=changes,
        **noted,
        events=[
            _event(state, "choice", at, _choice_data(services, state, choice, ruling, changes))
        ],
        shadow=shadow_entries(
            services.insight.shadows,
            services.catalogue,
            seen.observation,
            seq=next_seq(state),
            acting=policy.name,
            action=ruling.action,
            options=ruling.options,
            by_limit=by_limit,
        ),
    )


def _ruled(
    services: ReviewServices, state: CaseState, seen: Situation, policy: Policy, at: datetime
) -> tuple[Ruling, Sequence[AxisTried]]:
    """The policy's choice under the limits, and what would have changed it."""
    standing = Standing(
        set_idx=services.sets.index_of(state["transfers_run"]),
        day_budget_g_co2e=services.budget.g_co2e_per_day,
        wait_h=seen.plan.wait_h if seen.plan else None,
    )
    asked: list[Tried] = []

    def act(mask: Bool[np.ndarray, "1 actions"]) -> int:
        asked.append(_chosen(services, policy, seen.observation, mask, standing))
        return asked[-1].action

    ruling = under_limits(services.limits, asked_of(services, state, seen, at), act)
    return ruling, asked[-1].axes


def _choice_data(
    services: ReviewServices,
    state: CaseState,
    choice: Choice,
    ruling: Ruling,
    changes: list[AxisTried],
) -> dict[str, Any]:
    return {
        **dict(choice),
        "policy_fallback": state.get("policy_fallback"),
        "options": list(ruling.options),
        "budget_left_g_co2e": services.budget.left_g_co2e(services.clock()),
        "price_g_co2e_per_auc": services.config.g_per_auc,
        "limits": ruling.statuses,
        "limit_notes": ruling.notes,
        "changes": changes,
    }


def _chosen(
    services: ReviewServices,
    policy: Policy,
    observation: Float32[np.ndarray, "1 fields"],
    mask: Bool[np.ndarray, "1 actions"],
    standing: Standing,
) -> Tried:
    tried = services.insight.what_if.choose(policy, observation, mask, standing)
    if not 0 <= tried.action < services.catalogue.n or not mask[0, tried.action]:
        raise WorkflowError(
            f"Policy {policy.name!r} chose action {tried.action}, which is not open here."
        )
    return tried


def _reserve(services: ReviewServices, state: CaseState, option: Option, at: datetime) -> None:
    """Take a transfer's carbon off the limits as soon as it is decided.

    Other cases decide before it is charged; the charge has the same name, so that it counts once.
    """
    if option.g_co2e is None:
        return
    carbon = CarbonView.model_validate(state["carbon"])
    processed = state["assessment"]["processed"]
    pipeline_kwh, _ = transfer_energy_kwh(services, option.action, processed)
    g_co2e = pipeline_kwh * carbon.now.g_per_kwh
    stage, session = f"transfer:{option.action}", state.get("session")
    services.limits.charge(state["case"], stage, at, g_co2e, session=session)


async def transfer(services: ReviewServices, state: CaseState) -> TransferOutput:
    """Bring in one more modality's knowledge; charge its declared pipeline."""
    at = services.clock()
    asked = state.get("asked")
    name = asked["transfer"] if asked else state["choice"]["action"]
    processed = state["assessment"]["processed"]
    pipeline_kwh, _ = transfer_energy_kwh(services, name, processed)
    intensity = CarbonView.model_validate(state["carbon"]).now
    charge = Charge(
        stage=f"transfer:{name}",
        time=at,
        energy_kwh=pipeline_kwh,
        energy_basis="modelled",
        energy_source=services.energy.note,
        intensity=intensity,
        g_co2e=pipeline_kwh * intensity.g_per_kwh,
    )
    services.budget.charge(state["case"], charge.stage, at, charge.g_co2e)
    services.limits.charge(
        state["case"], charge.stage, at, charge.g_co2e, session=state.get("session")
    )
    data = {"transfer": name, "charge": charge, "asked_by": asked["reviewer"] if asked else None}
    return TransferOutput(
        transfers_run=[*state["transfers_run"], name],
        charges=[charge],
        events=[_event(state, "transfer", at, data)],
    )


async def defer(services: ReviewServices, state: CaseState) -> DeferOutput:
    """Use the case's one deferral and make the plan known."""
    plan = Plan.model_validate(state["plan"])
    event = _event(state, "deferral", services.clock(), dict(plan))
    waits = [*map(Waited.model_validate, state.get("waits", [])), Waited(plan=plan)]
    return DeferOutput(deferred=True, waits=waits, events=[event])


async def wait(services: ReviewServices, state: CaseState) -> WaitOutput:
    """Wait, durably, until someone or the clock wakes the case."""
    # Nothing may come before the interrupt: a resumed node starts again from its top.
    woken = interrupt({"kind": WAIT, "plan": state["plan"]})
    at, before = services.clock(), state.get("urgency", 0.0)
    planned = datetime.fromisoformat(str((state["plan"] or {})["wake_at"]))
    data = {"by": str(woken["by"]), "early": at < planned - timedelta(seconds=1)}
    events = [_event(state, "wake", at, data)]
    urgency = max(before, float(woken.get("urgency", before)))
    if urgency > before:
        raised = {"action": "raise_urgency", "reviewer": data["by"], "before": before}
        raised |= {"urgency": urgency, "comment": ""}
        events.append(Event(seq=next_seq(state) + 1, kind="urgency", time=at, data=raised))
    waited = Waited.model_validate(state.get("waits", [])[-1] | {"woken_at": at, "by": data["by"]})
    answered = max(state.get("answered", 0), int(woken.get("round", -1)) + 1)
    return WaitOutput(
        plan=None,
        waits=_with_last(state, waited),
        urgency=urgency,
        answered=answered,
        events=events,
    )


async def request(services: ReviewServices, state: CaseState) -> RequestOutput:
    """Let a requested transfer run unless it cannot or a hard limit forbids it."""
    at, asked = services.clock(), state["asked"] or {}
    ruling = requested(services, state, asked["transfer"], at)
    data = {
        **asked,
        "energy_kwh": ruling.energy_kwh,
        "g_co2e": ruling.g_co2e,
        "refused": ruling.refused,
        "note": ruling.note,
    }
    event = _event(state, "request", at, data)
    if ruling.refused is not None:
        return RequestOutput(asked=None, events=[event])
    stage = f"transfer:{asked['transfer']}"
    session = state.get("session")
    services.limits.charge(state["case"], stage, at, ruling.pipeline_g_co2e, session=session)
    if ruling.note is None:
        return RequestOutput(asked=asked, events=[event])
    notes = [*state.get("limit_notes", []), ruling.note]
    return RequestOutput(asked=asked, limit_notes=notes, events=[event])


async def explain(services: ReviewServices, state: CaseState) -> ExplainOutput:
    """Put together what the clinician reads."""
    prepared = await services.prepared(state["case"], frozenset(state.get("unreliable", ())))
    outside = getattr(prepared, "outside", None)  # a replayed case knows no ranges
    explanation = explain_case(state, services.layout.modalities, services.insight, outside)
    second = needs_second(explanation.probability, services.second_review_above)
    explanation = explanation.model_copy(update={"second_review": second})
    event = _event(state, "explanation", services.clock(), dict(explanation))
    # what was opined of an earlier explanation does not count for this one
    forgotten: dict[str, Any] = {"opinions": []} if state.get("opinions") else {}
    return ExplainOutput(explanation=explanation, asked=None, events=[event], **forgotten)
