"""What the first sentences claim, and what they must not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from agent.report.findings import Difference
from agent.report.headline import headline, verdict, verdicts, warnings
from agent.report.model import ComparisonReport
from agent.statistics import Estimate

Tested = Callable[[float, float], Difference]


def with_rewards(
    report: ComparisonReport, tested: Tested, found: Mapping[str, tuple[float, float]]
) -> ComparisonReport:
    """The report where policies differ so much from the planner, with such a corrected p."""
    statistics = dict(report.statistics)
    for name, (value, p) in found.items():
        old = statistics[name]
        against = {**old.differences["planner"], "reward": tested(value, p)}
        statistics[name] = replace(old, differences={**old.differences, "planner": against})
    return replace(report, statistics=statistics)


@pytest.mark.parametrize(
    ("value", "p", "said"),
    [
        (0.010, 0.001, "better"),
        (-0.010, 0.001, "worse"),
        (0.001, 0.9, "tie"),
        (0.010, 0.2, "tie"),  # the interval excludes 0, but not after correction
        (0.001, 0.001, "tie"),  # the test says so, but not the interval
    ],
)
def test_a_verdict_needs_interval_and_test(
    full_report: ComparisonReport, tested: Tested, value: float, p: float, said: str
) -> None:
    report = with_rewards(full_report, tested, {"cloned-ppo": (value, p)})
    assert verdict(report, report.policy("cloned-ppo"), "planner") == said


@pytest.mark.parametrize(
    ("found", "default", "others"),
    [
        (
            {"cloned-ppo": (0.01, 0.001), "maskable-ppo": (0.0, 1.0), "ppo": (-0.02, 0.001)},
            "These figures support cloned-ppo as the default",
            "maskable-ppo is a tie with it and ppo is behind it",
        ),
        (
            {"cloned-ppo": (0.0, 1.0), "maskable-ppo": (-0.02, 0.001), "ppo": (-0.02, 0.001)},
            "No learned policy beats planner, so planner, which needs no training, is the default",
            "maskable-ppo and ppo are behind it",
        ),
        (
            {"cloned-ppo": (-0.01, 0.001), "maskable-ppo": (0.01, 0.04), "ppo": (0.0, 1.0)},
            "These figures support maskable-ppo as the default",
            "maskable-ppo is better than it and ppo is a tie with it",
        ),
    ],
)
def test_the_default_is_what_the_figures_support(
    full_report: ComparisonReport,
    tested: Tested,
    found: Mapping[str, tuple[float, float]],
    default: str,
    others: str,
) -> None:
    said = " ".join(verdicts(with_rewards(full_report, tested, found)))
    assert default in said
    assert others in said


def test_groups_served_worse_come_first(full_report: ComparisonReport) -> None:
    assert full_report.equity is not None
    lines = headline(full_report)
    assert lines[: len(warnings(full_report))] == full_report.equity.sentences
    assert lines[1].startswith("cloned-ppo has the highest reward")


def test_many_warnings_are_counted_not_hidden(full_report: ComparisonReport) -> None:
    assert full_report.equity is not None
    lines = ("never serves a worse.", "rule serves b worse.", "planner serves c worse.")
    many = replace(full_report.equity, sentences=(*lines, *(f"random: {i}." for i in range(7))))
    said = warnings(replace(full_report, equity=many))
    assert said[:2] == ("planner serves c worse.", "rule serves b worse.")
    assert said[2:] == ("Gaps against groups of patients: 8 more; see Equity.",)
    back = warnings(replace(full_report, equity=replace(many, sentences=lines[:1])))
    assert back == (
        "Gaps against groups of patients: 1, all under policies further back; see Equity.",
    )


def test_a_gain_whose_interval_includes_zero_is_not_claimed(full_report: ComparisonReport) -> None:
    unsure = Estimate(value=0.02, low=-0.01, high=0.05, n=9)
    found = full_report.statistics["cloned-ppo"]
    doubtful = replace(found, redrawn={**found.redrawn, "auc_gain": unsure})
    report = replace(full_report, statistics={**full_report.statistics, "cloned-ppo": doubtful})
    first = verdicts(report)[0]
    assert "0.020 [-0.010, 0.050]" in first
    assert "Its interval includes 0, so no gain is shown." in first
    assert "of the gain." not in first.replace("no gain is shown", "")


def test_planners_that_cannot_be_told_apart_are_named(full_report: ComparisonReport) -> None:
    alone = tuple(p for p in full_report.policies if not p.learned)
    said = verdicts(replace(full_report, policies=alone))
    assert said[0].startswith("planner has the highest reward")
    assert said[1] == "By reward it cannot be told from mpc."
    assert not any("learned" in line for line in said)


def test_the_room_that_is_left_has_its_interval(full_report: ComparisonReport) -> None:
    assert any(line.startswith("Room left: ") and "[" in line for line in verdicts(full_report))
