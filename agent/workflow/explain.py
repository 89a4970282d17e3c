"""The explanation of a review: deterministic sentences and figures; nothing names a patient.

What each step did is told by :mod:`agent.workflow.steps`, what would have changed a choice by
:mod:`agent.workflow.changes`, patients like this one by :mod:`agent.workflow.peers`, and what makes
the case unlike the training patients by :mod:`agent.workflow.drift`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log2

from agent.workflow.changes import change_lines
from agent.workflow.insight import Insight, Watched
from agent.workflow.peers import peer_lines
from agent.workflow.state import (
    AssessmentRecord,
    CaseState,
    Explanation,
    ModalityWeight,
    Spent,
    Waited,
)
from agent.workflow.steps import request_line
from agent.workflow.told import AxisTried, PeerGroup, class_words
from distill.contributions import by_source

THRESHOLD = 0.5


def explain_case(
    state: CaseState,
    modalities: Sequence[str],
    insight: Insight | None = None,
    outside: Mapping[str, tuple[int, int] | None] | None = None,
) -> Explanation:
    """Explain the state that the agent stopped in.

    The suggestion is the class on the student's side of one half; the clinician decides.

    Args:
        state: the case.
        modalities: of the bundle, clinical first.
        insight: patients like this one and the training cohort; left out, neither is told.
        outside: by modality, numbers outside their training range, of how many known ones.
    """
    known = _known(state, modalities, insight, outside or {})
    view, spent = known.view, known.spent
    return Explanation(
        suggestion="positive" if view.probability >= THRESHOLD else "negative",
        probability=view.probability,
        probability_clinical_only=state["probability_clinical_only"],
        lines=_lines(state, known),
        contributions=dict(view.token_logit),
        missing=known.absent,
        energy_kwh_modelled=spent.energy_kwh_modelled,
        energy_kwh_measured=spent.energy_kwh_measured,
        g_co2e=spent.g_co2e,
        unmeasured=spent.unmeasured,
        cautions=state.get("cautions", []),
        conformal_set=view.conformal_set,
        conformal_level=view.conformal_level,
        weighting=known.weighting,
        uncertainty_bits=uncertainty_bits(view.probability),
        classes=known.classes,
        steps=state.get("told", []),
        changes=known.changes,
        peers=known.peers,
        drift=known.drift,
        unreliable=state.get("unreliable", []),
        requested=known.requested,
        watched=known.watched.row if known.watched else None,
    )


@dataclass(frozen=True, kw_only=True)
class _Known:
    """What an explanation is put together from."""

    view: AssessmentRecord
    spent: Spent
    peers: PeerGroup | None
    watched: Watched | None
    changes: list[AxisTried]
    absent: list[str]
    weighting: dict[str, ModalityWeight]
    requested: list[str]
    classes: list[str]

    @property
    def drift(self) -> list[str]:
        return self.watched.flags if self.watched else []


def _known(
    state: CaseState,
    modalities: Sequence[str],
    insight: Insight | None,
    outside: Mapping[str, tuple[int, int] | None],
) -> _Known:
    view = AssessmentRecord.model_validate(state["assessment"])
    return _Known(
        view=view,
        spent=Spent.model_validate(state["spent"]),
        peers=_peers(state, view, insight),
        watched=_watched(state, view, insight, outside),
        changes=[AxisTried.model_validate(axis) for axis in state.get("changes", [])],
        absent=[m for m in modalities if m not in _sent(state)],
        weighting=_weighting(view, state.get("quality", {})),
        requested=_requested(state),
        classes=list(insight.classes) if insight else [],
    )


def _lines(state: CaseState, known: _Known) -> list[str]:
    return [
        *_probability_lines(state, known),
        *_conformal_lines(known.view),
        *_weight_lines(known.weighting),
        *_evidence_lines(state, known.view, known.absent),
        *known.requested,
        *_waiting_lines(state),
        _spent_line(known.spent),
        f"Stopped by policy {state['choice']['policy']}: {state['choice']['reason']}",
        *_change_lines(state, known.changes),
        *peer_lines(known.peers, known.classes),
        *(f"Unlike the training patients: {flag}" for flag in known.drift),
        *_caution_lines(state),
    ]


def uncertainty_bits(probability: float) -> float:
    """Entropy of a probability, bits: 0 where it is certain, 1 at one half."""
    return -sum(p * log2(p) for p in (probability, 1.0 - probability) if p > 0.0)


def _sent(state: CaseState) -> list[str]:
    """Modalities that came with the case, those left out as unreliable included."""
    return [*state["present"], *state.get("unreliable", [])]


def _peers(state: CaseState, view: AssessmentRecord, insight: Insight | None) -> PeerGroup | None:
    if insight is None:
        return None
    return insight.peers.like(state["transfers_run"], state["present"], view.logit)


def _watched(
    state: CaseState,
    view: AssessmentRecord,
    insight: Insight | None,
    outside: Mapping[str, tuple[int, int] | None],
) -> Watched | None:
    if insight is None:
        return None
    return insight.watched(
        present=_sent(state),
        quality=state.get("quality", {}),
        outside=outside,
        transfers_run=state["transfers_run"],
        logit=view.logit,
        probability_clinical_only=state["probability_clinical_only"],
    )


def _requested(state: CaseState) -> list[str]:
    """What people asked for; a transfer that was refused was not run."""
    lines = []
    for asked in state.get("requests", []):
        refused = asked.get("transfer") and asked["transfer"] not in state["transfers_run"]
        lines.append(request_line(asked) + (" It is not among those run." if refused else ""))
    return lines


def _spent_line(spent: Spent) -> str:
    unknown = f"; without a figure: {'; '.join(spent.unmeasured)}" if spent.unmeasured else ""
    return (
        f"Energy: {spent.energy_kwh_modelled:.4g} kWh modelled, {spent.energy_kwh_measured:.4g} "
        f"kWh measured; together with the grid at the time {spent.g_co2e:.4g} g CO2e{unknown}."
    )


def _change_lines(state: CaseState, changes: Sequence[AxisTried]) -> list[str]:
    told = change_lines(changes)
    return [f"The last choice was {state['choice']['action']}.", *told] if told else []


def _probability_lines(state: CaseState, known: _Known) -> list[str]:
    view, before = known.view, state["probability_clinical_only"]
    return [
        f"Probability of {class_words(known.classes, 'positive')} {view.probability:.3f}; "
        f"{before:.3f} with clinical data alone. Uncertainty "
        f"{uncertainty_bits(view.probability):.2f} bit.",
        f"The tokens disagree by {view.disagreement:.2f} in log-odds (standard deviation).",
        *_token_lines(view.token_logit),
    ]


def _token_lines(token_logit: Mapping[str, float]) -> list[str]:
    if not token_logit:
        return []
    ordered = sorted(token_logit.items(), key=lambda item: (-abs(item[1]), item[0]))
    return ["Each token alone: " + ", ".join(f"{n} {v:+.2f}" for n, v in ordered) + " log-odds."]


def _conformal_lines(view: AssessmentRecord) -> list[str]:
    """Which classes the evidence leaves open; nothing where the model has no thresholds."""
    if view.conformal_level is None:
        return []
    at = f"At the {100 * view.conformal_level:.0f} % level"
    if not view.conformal_set:
        return [f"{at} the case is unlike either class: look at it with particular care."]
    if len(view.conformal_set) == 1:
        return [f"{at} only {view.conformal_set[0]} is left."]
    return [f"{at} the evidence does not decide between {' and '.join(view.conformal_set)}."]


def _weighting(view: AssessmentRecord, quality: Mapping[str, float]) -> dict[str, ModalityWeight]:
    attention = by_source(view.attention)
    ordered = sorted(view.contributions.items(), key=lambda item: (-abs(item[1]), item[0]))
    return {
        name: ModalityWeight(
            contribution_log_odds=value,
            attention=attention.get(name, 0.0),
            quality=quality.get(name),
        )
        for name, value in ordered
    }


def _weight_lines(weighting: Mapping[str, ModalityWeight]) -> list[str]:
    if not weighting:
        return []
    told = []
    for name, weight in weighting.items():
        filled = "" if weight.quality is None else f", {100 * weight.quality:.0f} % filled in"
        told.append(
            f"{name} {weight.contribution_log_odds:+.2f} "
            f"(attention {100 * weight.attention:.0f} %{filled})"
        )
    return [f"What each modality and its bridges add to the log-odds: {'; '.join(told)}."]


def _evidence_lines(state: CaseState, view: AssessmentRecord, absent: list[str]) -> list[str]:
    run = state["transfers_run"]
    lines = [f"Transfers run: {', '.join(run) if run else 'none (clinical data only)'}."]
    spared = [m for m in state["present"] if m not in view.processed]
    if spared:
        lines.append(f"Available but not processed: {', '.join(spared)}.")
    if absent:
        lines.append(f"The case lacks: {', '.join(absent)}.")
    if state.get("unreliable"):
        lines.append(f"Left out as unreliable: {', '.join(state['unreliable'])}.")
    return lines


def _waiting_lines(state: CaseState) -> list[str]:
    """What was expected of the case's waits, and the grid that each then met."""
    lines = []
    for waited in map(Waited.model_validate, state.get("waits", [])):
        plan = waited.plan
        why = (
            "because of a carbon limit."
            if plan.by_limit
            else "for cleaner electricity, by estimate."
        )
        lines.append(f"Waited {why} {plan.why}".rstrip())
        if waited.woken_at is not None and waited.met_g_per_kwh is not None:
            lines.append(
                f"Woken at {waited.woken_at:%Y-%m-%d %H:%M} UTC by {waited.by}: "
                f"{waited.met_g_per_kwh:.4g} g CO2e/kWh ({waited.met_kind}); foreseen were "
                f"{plan.intensity_expected_g_per_kwh:.4g}, and {plan.intensity_now_g_per_kwh:.4g} "
                "when the wait began."
            )
    return lines


def _caution_lines(state: CaseState) -> list[str]:
    lines = [f"Caution: {caution}" for caution in state.get("cautions", [])]
    lines += [f"Carbon limit: {note}" for note in dict.fromkeys(state.get("limit_notes", []))]
    fallback = state.get("policy_fallback")
    if fallback:
        lines.append(f"Not the policy that was asked for: {fallback}.")
    if state.get("seen_in_training"):
        lines.append(
            "The model saw this patient in training: the probability is optimistic and says "
            "nothing about how it does on new patients."
        )
    lines.append("Research use only: this is a recommendation; a clinician decides.")
    return lines
