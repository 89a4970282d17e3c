"""What the nodes work with, and the observation of one live case.

The observation is laid out by :class:`envs.observation.ObservationLayout`, the same that policies
were trained on. It is built from the student's assessment, the grid, the day's budget and the
queue; nothing in it could name a patient, a hospital or a label.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32

from agent.workflow.budget import DayBudget
from agent.workflow.grid import GridWatch
from agent.workflow.insight import Insight
from agent.workflow.limits import Asked, SpendLimits
from agent.workflow.policybook import PolicyBook
from agent.workflow.protocols import Monitor, Student
from agent.workflow.state import AssessmentRecord, CarbonView, CaseState, Option, Plan
from agent.workflow.waiting import OpenTransfer, WaitTerms, plan_wait
from distill.transfers import BASE_MODALITY, EvidenceSets
from envs.catalogue import DEFER, FINALISE, ActionCatalogue
from envs.config import LEADS_H, SessionConfig
from envs.gain import GainModel
from envs.observation import ObservationLayout


@dataclass(frozen=True, kw_only=True)
class CaseEnergy:
    """What processing and transferring is declared or known to take: kWh, and hours if known."""

    pipeline_kwh: Mapping[str, float]
    transfer_kwh: Mapping[str, float]
    note: str
    pipeline_h: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ReviewServices:
    """Everything that the nodes ask of the world outside the graph.

    Attributes:
        student: the fused model.
        monitor: grid intensity and meter.
        policies: who decides.
        sets: the bundle's evidence sets.
        gain: predicted AUC gain per set, transfer and log-odds.
        energy: energies per modality and transfer.
        budget: the day's carbon.
        config: session settings that the policies were trained with.
        prepared: gives the prepared features of a case by its opaque id, without the modalities
            that are named.
        clock: now, aware, UTC.
        insight: what explains a case and watches it, without an effect on it.
        limits: the operator's limits on emissions.
        second_review_above: uncertainty (entropy, bits) above which two reviewers have to agree;
            None asks for one always.
    """

    student: Student
    monitor: Monitor
    policies: PolicyBook
    sets: EvidenceSets
    layout: ObservationLayout
    catalogue: ActionCatalogue
    gain: GainModel
    energy: CaseEnergy
    budget: DayBudget
    config: SessionConfig
    prepared: Callable[[str, frozenset[str]], Awaitable[Any]]
    clock: Callable[[], datetime]
    insight: Insight
    limits: SpendLimits = field(default_factory=SpendLimits)
    second_review_above: float | None = None

    @cached_property
    def source_of(self) -> Mapping[str, str]:
        """The modality that each transfer starts from."""
        return {transfer.name: transfer.source for transfer in self.sets.transfers}

    @cached_property
    def grid(self) -> GridWatch:
        """The grid, read at most once a minute."""
        return GridWatch(self.monitor, self.config)


@dataclass(frozen=True, kw_only=True)
class Situation:
    """One case at one moment, as the policy and the reader see it.

    Attributes:
        observation: scaled vector, one row.
        mask: open actions, one row.
        options: every action with its predicted gain, energy, carbon and wait.
        plan: when the case would be looked at again if it were deferred; None if it may not be.
    """

    observation: Float32[np.ndarray, "1 fields"]
    mask: Bool[np.ndarray, "1 actions"]
    options: list[Option]
    plan: Plan | None


def slack_h(services: ReviewServices, state: CaseState, at: datetime) -> float:
    """Hours to the deadline; without one, the time that training gave to this urgency."""
    deadline = state.get("deadline")
    if deadline is not None:
        return (datetime.fromisoformat(deadline) - at).total_seconds() / 3600.0
    return services.config.slack_h(state.get("urgency", 0.0))


def _may_wait(state: CaseState) -> bool:
    return not state.get("deferred", False) and "explanation" not in state


def planned_wait(
    services: ReviewServices,
    state: CaseState,
    carbon: CarbonView,
    at: datetime,
    work: Callable[[], Sequence[OpenTransfer]],
) -> Plan | None:
    """When the scheduler would look at the case again; None if waiting brings nothing.

    A case is deferred once at most, as in the environment, not if nothing that it could run has a
    pipeline ahead, and not once a clinician has looked at it.
    """
    if not _may_wait(state) or carbon.forecast_from is None:
        return None
    terms = WaitTerms(
        limit=at + timedelta(hours=slack_h(services, state, at)),
        g_per_auc=services.config.g_per_auc,
        visit_h=1.0 / services.config.slots_per_hour,
    )
    return plan_wait(work(), carbon, at, terms)


def _work_ahead(
    services: ReviewServices, state: CaseState, processed: list[str], gain: np.ndarray
) -> list[OpenTransfer]:
    """Transfers that the case could run and whose source still has to be processed.

    What the budget could not pay at the present intensity it may pay at a lower one.
    """
    nothing = np.zeros(len(services.layout.transfers))
    open_ = _mask(services, state, nothing, None, None)[0]
    work = []
    for i, transfer in enumerate(services.sets.transfers):
        pipeline, bridge = transfer_energy_kwh(services, transfer.name, processed)
        if open_[i] and pipeline > 0.0:
            work.append(
                OpenTransfer(
                    name=transfer.name,
                    predicted_auc_gain=float(gain[i]),
                    energy_kwh=pipeline + bridge,
                    pipeline_h=services.energy.pipeline_h.get(transfer.source),
                )
            )
    return work


def transfer_energy_kwh(
    services: ReviewServices, name: str, processed: list[str]
) -> tuple[float, float]:
    """Energy of a transfer now: the source's pipeline if it has not run yet, and the bridge."""
    source = services.source_of[name]
    pipeline = 0.0 if source in processed else services.energy.pipeline_kwh[source]
    return pipeline, services.energy.transfer_kwh[name]


def situation(services: ReviewServices, state: CaseState, at: datetime) -> Situation:
    """Build the observation, the mask and the list of options of one live case."""
    view = AssessmentRecord.model_validate(state["assessment"])
    carbon = CarbonView.model_validate(state["carbon"])
    names = services.layout.transfers
    energy = np.array([sum(transfer_energy_kwh(services, n, view.processed)) for n in names])
    set_idx = np.array([services.sets.index_of(state["transfers_run"])], dtype=np.int64)
    logit = np.array([view.logit], dtype=np.float32)
    gain = np.asarray(services.gain.predict(set_idx, logit), dtype=np.float64)[0]
    plan = planned_wait(
        services, state, carbon, at, lambda: _work_ahead(services, state, view.processed, gain)
    )
    mask = _mask(services, state, energy * carbon.now.g_per_kwh, plan, at)
    values: dict[str, Any] = {
        **_case_values(services, state, view, at),
        **_grid_values(carbon),
        **_session_values(services, state, at),
        "gain": gain,
        "energy": energy,
        "g_co2e": energy * carbon.now.g_per_kwh,
        "setup": np.zeros(len(names)),
        "sharing": np.zeros(len(names)),
    }
    options = _options(
        services.catalogue,
        mask[0],
        [
            {
                "action": name,
                "predicted_auc_gain": float(gain[i]),
                "energy_kwh": float(energy[i]),
                "g_co2e": float(energy[i] * carbon.now.g_per_kwh),
            }
            for i, name in enumerate(names)
        ],
        plan,
    )
    return Situation(
        observation=services.layout.encode(values), mask=mask, options=options, plan=plan
    )


def asked_of(services: ReviewServices, state: CaseState, seen: Situation, at: datetime) -> Asked:
    """The case as the limits look at it; one that was deferred before cannot wait again."""
    return Asked(
        options=seen.options,
        mask=seen.mask,
        session=state.get("session"),
        slack_h=slack_h(services, state, at) if _may_wait(state) else 0.0,
        carbon=CarbonView.model_validate(state["carbon"]),
        at=at,
        defer=services.catalogue.defer,
    )


def _mask(
    services: ReviewServices,
    state: CaseState,
    g_co2e: np.ndarray,
    plan: Plan | None,
    at: datetime | None,
) -> Bool[np.ndarray, "1 actions"]:
    """Which actions are open; without a time, whatever the budget may say."""
    modalities = services.layout.modalities
    present = np.array([[m in state["present"] for m in modalities]], dtype=np.bool_)
    run = np.array([[n in state["transfers_run"] for n in services.layout.transfers]])
    affordable = None
    if services.config.masks_unaffordable and at is not None:
        affordable = (g_co2e <= max(services.budget.left_g_co2e(at), 0.0))[None, :]
    return services.catalogue.action_mask(
        available=services.catalogue.available(modalities, present),
        run=run.astype(np.bool_),
        may_defer=np.array([plan is not None]),
        affordable=affordable,
    )


def _entropy_bit(probability: float) -> float:
    p = np.clip(probability, 1e-12, 1 - 1e-12)
    return float(-(p * np.log2(p) + (1 - p) * np.log2(1 - p)))


def _case_values(
    services: ReviewServices, state: CaseState, view: AssessmentRecord, at: datetime
) -> dict[str, Any]:
    modalities = services.layout.modalities
    return {
        "probability": view.probability,
        "entropy": _entropy_bit(view.probability),
        "disagreement": view.disagreement,
        "logit": view.logit,
        "present": np.array([m in state["present"] for m in modalities]),
        "quality": np.array([state["quality"].get(m, 0.0) for m in modalities]),
        "processed": np.array([m in view.processed or m == BASE_MODALITY for m in modalities]),
        "run": np.array([n in state["transfers_run"] for n in services.layout.transfers]),
        "urgency": state.get("urgency", 0.0),
        "slack_h": slack_h(services, state, at),
        "deferred": float(state.get("deferred", False)),
    }


def _grid_values(carbon: CarbonView) -> dict[str, float]:
    """Intensity now and ahead; where the forecast ends sooner, its last value, else now."""
    ahead = carbon.forecast_g_per_kwh or (carbon.now.g_per_kwh,)
    leads = {f"intensity_lead_{h}h": ahead[min(h, len(ahead)) - 1] for h in LEADS_H}
    return {
        "intensity_now": carbon.now.g_per_kwh,
        **leads,
        "intensity_uncertainty": carbon.relative_uncertainty,
    }


def _session_values(services: ReviewServices, state: CaseState, at: datetime) -> dict[str, float]:
    """The day as a session: the cases that the budget still has to serve, at training's pace.

    What the live system does not know is said as such: nobody else is known to wait, the day's
    other cases count as still to come, and nothing limits the transfers of an hour but training's
    number of slots.
    """
    visits = float(services.budget.cases_left(at))
    per_hour = float(services.config.slots_per_hour)
    hours = max(slack_h(services, state, at), 0.0)
    return {
        "budget_left": services.budget.left_fraction(at),
        "budget_left_g_co2e": max(services.budget.left_g_co2e(at), 0.0),
        # the case itself may be kept until its deadline, however few the budget has left to serve
        "time_left": max(visits / per_hour, hours),
        "cases_left": visits,
        "waiting": 1.0,
        "to_come": visits - 1.0,
        "ahead": 0.0,
        "slots_left_now": per_hour,
        "slots_left": per_hour * (1.0 + math.floor(hours)),
    }


def _options(
    catalogue: ActionCatalogue,
    mask: Bool[np.ndarray, " actions"],
    transfers: list[dict[str, Any]],
    plan: Plan | None,
) -> list[Option]:
    options = [Option(allowed=bool(mask[i]), **known) for i, known in enumerate(transfers)]
    options.append(Option(action=FINALISE, allowed=bool(mask[catalogue.finalise])))
    wait = plan.wait_h if plan else None
    options.append(Option(action=DEFER, allowed=bool(mask[catalogue.defer]), wait_h=wait))
    return options
