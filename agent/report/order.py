"""The order, the numbers and the looks of policies: the same in every section of a report."""

from __future__ import annotations

from agent.report.model import ComparisonReport, PolicyResult
from agent.report.palette import Style, styles_of
from agent.statistics import Estimate

SPOTLIGHTS = 4


def ranked(report: ComparisonReport) -> tuple[PolicyResult, ...]:
    """Policies by mean reward, the highest first."""
    return tuple(sorted(report.policies, key=lambda p: -p.figures["reward"].value))


def numbers(report: ComparisonReport) -> dict[str, int]:
    """The policies' numbers in the table and in the chart beside it."""
    return {policy.name: i for i, policy in enumerate(ranked(report), 1)}


def styles(report: ComparisonReport) -> dict[str, Style]:
    """The policies' colours and markers."""
    return styles_of([(p.name, p.learned) for p in report.policies])


def quoted(report: ComparisonReport, policy: PolicyResult, metric: str) -> Estimate:
    """The figure with the most honest interval there is: patients redrawn where they were."""
    found = report.statistics.get(policy.name)
    redrawn = found.redrawn.get(metric) if found is not None else None
    return redrawn if redrawn is not None else policy.figures[metric]


def best_learned(report: ComparisonReport) -> PolicyResult | None:
    """The trained policy with the highest mean reward."""
    return next((p for p in ranked(report) if p.learned), None)


def spotlight(report: ComparisonReport, most: int = SPOTLIGHTS) -> tuple[PolicyResult, ...]:
    """The few policies that a crowded picture shows: best, planner, learned, rule, then by rank."""
    names = [report.best.name]
    learned = best_learned(report)
    names += [n for n in (report.best_planner, learned.name if learned else None, "rule") if n]
    names += [p.name for p in ranked(report) if p.name != "never"]
    chosen = list(dict.fromkeys(names))[:most]
    return tuple(p for p in ranked(report) if p.name in chosen)


def choosing(report: ComparisonReport) -> tuple[PolicyResult, ...]:
    """The policies whose actions depend on the case: the others need no picture."""
    return tuple(p for p in ranked(report) if p.name != "never" and not p.name.startswith("always"))
