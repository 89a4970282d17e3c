"""The explanation of a review: deterministic sentences and figures; nothing names a patient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agent.workflow.state import (
    AssessmentRecord,
    CaseState,
    Explanation,
    ModalityWeight,
    Spent,
    Waited,
)
from distill.contributions import by_source

THRESHOLD = 0.5


def explain_case(state: CaseState, modalities: Sequence[str]) -> Explanation:
    """Explain the state that the agent stopped in.

    The suggestion is the class on the student's side of one half; the clinician decides.
    """
    view = AssessmentRecord.model_validate(state["assessment"])
    spent = Spent.model_validate(state["spent"])
    suggestion = "positive" if view.probability >= THRESHOLD else "negative"
    measured, modelled = spent.energy_kwh_measured, spent.energy_kwh_modelled
    g_co2e, unmeasured = spent.g_co2e, spent.unmeasured
    absent = [m for m in modalities if m not in state["present"]]
    weighting = _weighting(view, state.get("quality", {}))
    lines = [
        *_probability_lines(state, view),
        *_conformal_lines(view),
        *_weight_lines(weighting),
        *_evidence_lines(state, view, absent),
        *_waiting_lines(state),
        f"Energy: {modelled:.4g} kWh modelled, {measured:.4g} kWh measured; together with the "
        f"grid at the time {g_co2e:.4g} g CO2e"
        + (f"; without a figure: {'; '.join(unmeasured)}." if unmeasured else "."),
        f"Stopped by policy {state['choice']['policy']}: {state['choice']['reason']}",
        *_caution_lines(state),
    ]
    return Explanation(
        suggestion=suggestion,
        probability=view.probability,
        probability_clinical_only=state["probability_clinical_only"],
        lines=lines,
        contributions=dict(view.token_logit),
        missing=absent,
        energy_kwh_modelled=modelled,
        energy_kwh_measured=measured,
        g_co2e=g_co2e,
        unmeasured=unmeasured,
        cautions=state.get("cautions", []),
        conformal_set=view.conformal_set,
        conformal_level=view.conformal_level,
        weighting=weighting,
    )


def _probability_lines(state: CaseState, view: AssessmentRecord) -> list[str]:
    before = state["probability_clinical_only"]
    return [
        f"Probability of the positive class {view.probability:.3f}; {before:.3f} with clinical "
        "data alone.",
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
    return lines


def _waiting_lines(state: CaseState) -> list[str]:
    """What was expected of the case's waits, and the grid that each then met."""
    lines = []
    for waited in map(Waited.model_validate, state["waits"]):
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
