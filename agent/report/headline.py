"""The first sentences of a report, computed from its figures and from nothing else."""

from __future__ import annotations

from agent.report.model import ComparisonReport, PolicyResult
from agent.report.words import interval

RULE = "rule"


def _best(report: ComparisonReport) -> str:
    best = report.best
    share = best.figures["carbon_share"].value
    everything = report.everything["auc_gain"]
    sentence = (
        f"{best.name} has the highest reward: an AUC gain of {interval(best.figures['auc_gain'])} "
        f"per session for {share:.0%} of the carbon of processing everything for everybody, which "
        f"gains {interval(everything)}."
    )
    kept = best.figures["auc_gain"].value / everything.value if everything.value > 0 else None
    return sentence if kept is None else f"{sentence} That is {kept:.0%} of the gain."


def _against_rule(report: ComparisonReport) -> str | None:
    best = report.best
    if best.name == RULE or RULE not in best.versus:
        return None
    gain, carbon = best.versus[RULE]["auc_gain"], best.versus[RULE]["g_co2e"]
    verdict = "a difference" if gain.excludes_zero else "not a clear difference"
    return (
        f"Against the four-action rule that is {gain.value:+.3f} AUC [{gain.low:+.3f}, "
        f"{gain.high:+.3f}], {verdict}, at {carbon.value:+.0f} gCO2e a session."
    )


def _learning(learned: PolicyResult, planner: str) -> str:
    difference = learned.versus[planner]["reward"]
    gain = learned.versus[planner]["auc_gain"]
    if difference.low > 0:
        verdict = f"{learned.name} (learned) is better than {planner}, the best without learning"
    elif difference.high < 0:
        verdict = f"Learning does not win here: {learned.name} falls behind {planner}"
    else:
        verdict = f"{learned.name} (learned) and {planner}, the best without learning, are a tie"
    seeds = f", {learned.training_seeds} training seed" + "s" * (learned.training_seeds != 1)
    return (
        f"{verdict}: reward {difference.value:+.4f} [{difference.low:+.4f}, "
        f"{difference.high:+.4f}], AUC gain {gain.value:+.4f} [{gain.low:+.4f}, "
        f"{gain.high:+.4f}] (paired{seeds})."
    )


def headline(report: ComparisonReport) -> tuple[str, ...]:
    """Which policy, how much gain at what share of the carbon, and whether learning helped."""
    sentences = [_best(report), _against_rule(report)]
    if report.best_planner is not None:
        sentences += [_learning(policy, report.best_planner) for policy in report.learned]
    else:
        sentences.append(
            "No policy without training took part, so nothing here says whether learning helps."
        )
    if report.synthetic:
        sentences.append("The patients are synthetic: these figures say nothing about real ones.")
    return tuple(sentence for sentence in sentences if sentence)
