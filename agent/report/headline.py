"""The first sentences of a report, computed from its figures and from nothing else.

Nothing is called better or worse unless its interval excludes 0 and, where it was tested, its
corrected p-value is below 0.05.
"""

from __future__ import annotations

from typing import Literal

from agent.report.findings import Difference
from agent.report.model import ComparisonReport, PolicyResult
from agent.report.order import quoted, ranked, spotlight
from agent.report.words import interval, listed, p_value, percent
from agent.statistics import Estimate

RULE = "rule"
MOST_WARNINGS = 3
MOST_NAMED = 4
EQUITY_POLICIES = 3
Verdict = Literal["better", "worse", "tie"]


def difference_of(
    report: ComparisonReport, policy: PolicyResult, baseline: str, metric: str
) -> tuple[Estimate | None, Difference | None]:
    """Policy minus baseline, and the test of it where there was one.

    Returns:
        The tested difference where there is one (patients redrawn), otherwise the paired one;
        None where the two were not compared.
    """
    found = report.statistics.get(policy.name)
    by_metric = found.differences.get(baseline, {}) if found is not None else {}
    if metric in by_metric:
        return by_metric[metric].estimate, by_metric[metric]
    return policy.versus.get(baseline, {}).get(metric), None


def relies(estimate: Estimate, test: Difference | None) -> bool:
    """Whether a difference is one to rely on."""
    return estimate.excludes_zero and (test is None or test.significant)


def verdict(report: ComparisonReport, policy: PolicyResult, baseline: str) -> Verdict:
    """How the policy's reward stands against the baseline's."""
    estimate, test = difference_of(report, policy, baseline, "reward")
    if estimate is None or not relies(estimate, test):
        return "tie"
    return "better" if estimate.value > 0 else "worse"


def gaps_by_weight(report: ComparisonReport) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Who is served worse: by the policies in the spotlight, and by all others."""
    said = report.equity.sentences if report.equity is not None else ()
    names = [p.name for p in spotlight(report, EQUITY_POLICIES)]
    first = tuple(s for name in names for s in said if s.startswith(f"{name} "))
    return first, tuple(s for s in said if s not in first)


def warnings(report: ComparisonReport) -> tuple[str, ...]:
    """Who is served worse: before everything else, and never more than can be read."""
    first, others = gaps_by_weight(report)
    shown = first[:MOST_WARNINGS]
    rest = len(first) + len(others) - len(shown)
    if not rest:
        return shown
    what = f"{rest} more" if shown else f"{rest}, all under policies further back"
    return (*shown, f"Gaps against groups of patients: {what}; see Equity.")


def _best(report: ComparisonReport) -> str:
    best = report.best
    gain = quoted(report, best, "auc_gain")
    share = best.figures["carbon_share"].value
    everything = report.everything["auc_gain"]
    sentence = (
        f"{best.name} has the highest reward: an AUC gain of {interval(gain)} "
        f"per session for {percent(share)} of the carbon of processing everything for everybody, "
        f"which gains {interval(everything)}."
    )
    if gain.low <= 0:
        return f"{sentence} Its interval includes 0, so no gain is shown."
    if everything.low <= 0:
        return sentence
    return f"{sentence} That is {percent(gain.value / everything.value)} of the gain."


def _runners_up(report: ComparisonReport) -> str | None:
    """Policies without training that the figures cannot tell from the best one."""
    planner = report.best_planner
    if planner is None or report.best.name != planner:
        return None
    near = [
        p.name
        for p in ranked(report)
        if p.name != planner
        and not p.learned
        and planner in p.versus
        and verdict(report, p, planner) == "tie"
    ]
    if not near:
        return None
    named = near[:MOST_NAMED]
    rest = len(near) - len(named)
    more = [f"{rest} others"] if rest > 1 else near[MOST_NAMED:]
    return f"By reward it cannot be told from {listed([*named, *more])}."


def _against_rule(report: ComparisonReport) -> str | None:
    best = report.best
    if best.name == RULE:
        return None
    gain, test = difference_of(report, best, RULE, "auc_gain")
    carbon, _ = difference_of(report, best, RULE, "g_co2e")
    if gain is None or carbon is None:
        return None
    clear = "a difference" if relies(gain, test) else "not a clear difference"
    clear += "" if test is None else f" (Holm's p {p_value(test.p_holm)})"
    return (
        f"Against the four-action rule that is {gain.value:+.3f} AUC [{gain.low:+.3f}, "
        f"{gain.high:+.3f}], {clear}, at {interval(carbon, 0, sign=True)} gCO2e a session."
    )


def _learning(report: ComparisonReport, learned: PolicyResult, planner: str) -> str | None:
    difference, test = difference_of(report, learned, planner, "reward")
    gain, _ = difference_of(report, learned, planner, "auc_gain")
    if difference is None or gain is None:
        return None
    said = {
        "better": f"{learned.name} (learned) is better than {planner}, the best without learning",
        "worse": f"Learning does not win here: {learned.name} falls behind {planner}",
        "tie": f"{learned.name} (learned) and {planner}, the best without learning, are a tie",
    }[verdict(report, learned, planner)]
    seeds = f", {learned.training_seeds} training seed" + "s" * (learned.training_seeds != 1)
    p = "" if test is None else f", Holm's p {p_value(test.p_holm)}"
    return (
        f"{said}: reward {interval(difference, 4, sign=True)}, AUC gain "
        f"{interval(gain, 4, sign=True)} (paired{p}{seeds})."
    )


def _other_learned(report: ComparisonReport, others: list[PolicyResult], planner: str) -> str:
    words = {"better": "better than it", "tie": "a tie with it", "worse": "behind it"}
    parts = []
    for kind, said in words.items():
        names = [p.name for p in others if verdict(report, p, planner) == kind]
        if names:
            parts.append(f"{listed(names)} {'is' if len(names) == 1 else 'are'} {said}")
    return f"Of the other learned policies {listed(parts)}."


def _default(report: ComparisonReport, learned: list[PolicyResult], planner: str) -> str:
    """Which policy these figures support as the default."""
    winners = [p for p in learned if verdict(report, p, planner) == "better"]
    if winners:
        return (
            f"These figures support {winners[0].name} as the default in sessions like these; "
            f"without training it would be {planner}."
        )
    return (
        f"No learned policy beats {planner}, so {planner}, which needs no training, is the default."
    )


def _learned(report: ComparisonReport) -> list[str | None]:
    planner = report.best_planner
    if planner is None:
        return [
            "No policy without training took part, so nothing here says whether learning helps."
        ]
    learned = [p for p in ranked(report) if p.learned and planner in p.versus]
    if not learned:
        return []
    first, *others = learned
    said = [_learning(report, first, planner)]
    if others:
        said.append(_other_learned(report, others, planner))
    return [*said, _default(report, learned, planner)]


def _room(report: ComparisonReport) -> str | None:
    """What is missing to the bound."""
    found = report.statistics.get(report.best.name)
    if found is None:
        return None
    return (
        f"Room left: the most that a policy with the same observations could expect is "
        f"{interval(found.regret)} AUC above {report.best.name}."
    )


def verdicts(report: ComparisonReport) -> tuple[str, ...]:
    """Which policy, how much gain at what share of the carbon, and whether learning helped."""
    sentences = [
        _best(report), _runners_up(report), _against_rule(report), *_learned(report),
        _room(report),
    ]  # fmt: skip
    if report.synthetic:
        sentences.append("The patients are synthetic: these figures say nothing about real ones.")
    return tuple(sentence for sentence in sentences if sentence)


def headline(report: ComparisonReport) -> tuple[str, ...]:
    """Warnings first, then the verdicts: the report in a few sentences."""
    return (*warnings(report), *verdicts(report))
