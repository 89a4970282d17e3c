"""A report with everything that a comparison may find, and one with the least."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from agent.report.blocks import Section
from agent.report.findings import (
    Difference,
    EquityGroup,
    EquityReport,
    GroupService,
    PolicyStatistics,
    RobustnessScenario,
    Surrogate,
    SurrogateNode,
)
from agent.report.model import METRICS, ActionTable, BoundResult, ComparisonReport, PolicyResult
from agent.report.render import page_of, render_html, sections_of
from agent.statistics import Estimate

ACTIONS = (
    "clinical->genomics", "genomics->pathology", "pathology->clinical", "finalise", "defer",
)  # fmt: skip
FIELD = {
    "never": (0.0, 0.0), "always:pathology->clinical": (0.224, 346.0),
    "always:genomics->pathology": (0.095, 1996.0), "always-everything": (0.154, 2022.0),
    "random": (0.166, 2020.0), "rule": (0.090, 1869.0), "myopic": (0.214, 640.0),
    "price": (0.229, 485.0), "feedback": (0.236, 700.0), "dp": (0.238, 750.0),
    "mpc": (0.240, 742.0), "planner": (0.243, 700.0), "ppo": (0.221, 350.0),
    "maskable-ppo": (0.239, 690.0), "cloned-ppo": (0.2432, 698.0),
}  # fmt: skip
LEARNED = ("ppo", "maskable-ppo", "cloned-ppo")
BASELINES = ("rule", "planner")


def estimate(value: float, half: float = 0.004) -> Estimate:
    return Estimate(value=value, low=value - half, high=value + half, n=500)


def table(bands: tuple[str, ...], seed: int) -> ActionTable:
    counts = np.random.default_rng(seed).integers(0, 400, (len(bands), len(ACTIONS)))
    return ActionTable(bands=bands, actions=ACTIONS, counts=counts)


def reward(name: str) -> float:
    gain, g_co2e = FIELD[name]
    return gain - g_co2e / 500_000


def policy(name: str) -> PolicyResult:
    gain, g_co2e = FIELD[name]
    figures = {metric: estimate(0.5) for metric in METRICS} | {
        "auc_gain": estimate(gain), "reward": estimate(reward(name)),
        "g_co2e": estimate(g_co2e, 60.0), "carbon_share": estimate(g_co2e / 5055, 0.01),
        "lateness_h": estimate(0.4), "expected_gain": estimate(gain - 0.002),
    }  # fmt: skip
    versus = {
        b: {
            "auc_gain": estimate(gain - FIELD[b][0]),
            "g_co2e": estimate(g_co2e - FIELD[b][1], 50.0),
            "reward": estimate(reward(name) - reward(b)),
        }
        for b in BASELINES
    }
    better = [n for n, (g, c) in FIELD.items() if g >= gain and c <= g_co2e and n != name]
    learned = name in LEARNED
    return PolicyResult(
        name=name, learned=learned, training_seeds=10 if learned else 0,
        figures=figures, versus=versus, dominated_by=tuple(better),
        by_urgency=table(("low, to 0.4", "medium, to 0.8", "urgent, above 0.8"), 1),
        by_uncertainty=table(("low, to 0.5 bit", "medium, to 0.8 bit", "high, above 0.8 bit"), 2),
        folds={str(f): figures for f in range(5)}, details={},
        by_hour=table(("hour 0 to 5", "hour 6 to 11", "hour 12 to 23", "hour 24 and later"), 3),
    )  # fmt: skip


def difference(value: float, half: float = 0.004) -> Difference:
    p = 0.0004 if abs(value) > half else 0.6
    return Difference(estimate=estimate(value, half), p_value=p, p_holm=min(1.0, 3 * p))


def statistics(name: str) -> PolicyStatistics:
    gain, g_co2e = FIELD[name]
    redrawn = {
        "auc_gain": estimate(gain, 0.012), "g_co2e": estimate(g_co2e, 90.0),
        "reward": estimate(reward(name), 0.012),
    }  # fmt: skip
    rng = np.random.default_rng(len(name))
    singles = {
        metric: tuple(float(middle + x) for x in rng.normal(0, 0.003, 10))
        for metric, middle in (("auc_gain", gain), ("reward", reward(name)))
    }
    return PolicyStatistics(
        redrawn=redrawn,
        iqm={"auc_gain": estimate(gain + 0.001), "reward": estimate(reward(name) + 0.001)},
        pooled_auc_gain=estimate(gain - 0.01),
        improvement={b: estimate(0.62, 0.05) for b in BASELINES if b != name},
        differences={
            b: {
                "auc_gain": difference(gain - FIELD[b][0]),
                "g_co2e": difference(g_co2e - FIELD[b][1], 55.0),
                "reward": difference(reward(name) - reward(b)),
            }
            for b in BASELINES
        },
        regret=estimate(0.262 - gain),
        esper=estimate(0.7, 0.02),
        traces={
            trace: {"auc_gain": estimate(gain + x), "g_co2e": estimate(g_co2e * (1 - x), 80.0)}
            for trace, x in (("em_gb", 0.01), ("em_ciso", -0.01))
        },
        seeds=singles if name in LEARNED else {},
    )


def scenario(name: str, kind: str, first: str, tau: float) -> RobustnessScenario:
    figures = {
        n: {
            "auc_gain": estimate(g), "g_co2e": estimate(c, 50.0),
            "reward": estimate(reward(n) + (0.02 if n == first else 0.0)),
        }
        for n, (g, c) in FIELD.items()
    }  # fmt: skip
    order = tuple(sorted(FIELD, key=lambda n: -figures[n]["reward"].value))
    return RobustnessScenario(
        name=name, kind=kind, description=f"{name} instead of what the policies were made for",  # type: ignore[arg-type]
        figures=figures, order=order, kendall_tau=estimate(tau, 0.05),
    )  # fmt: skip


def service(i: int, worse: bool) -> GroupService:
    gap = difference(-0.05 if worse else -0.001, 0.02)
    return GroupService(
        gain=estimate(0.22 - 0.05 * worse + 0.002 * i, 0.03), g_co2e=estimate(11.0 + i, 0.8),
        gain_gap=gap, forgone_gap=difference(0.01, 0.02), worse=worse,
    )  # fmt: skip


GROUPS = {
    "sex": ("female", "male"), "age": ("under 60", "60 to 69", "70 and over"),
    "race": ("white", "black or african american"), "stage": ("I", "II", "III"),
}  # fmt: skip


def equity(worse: bool = True) -> EquityReport:
    groups = tuple(
        EquityGroup(
            attribute=attribute, group=group, n_patients=30 + 17 * i,
            policies={
                n: service(i, worse and group == "III" and n == "planner") for n in FIELD
            },
        )
        for attribute, names in GROUPS.items()
        for i, group in enumerate(names)
    )  # fmt: skip
    said = "planner serves patients with stage III worse: gain 0.05 [0.03, 0.07] AUC lower."
    return EquityReport(
        groups=groups, not_shown=("stage: IV (9)",), smallest=20, sentences=(said,) if worse else ()
    )


NODES = (
    SurrogateNode(words="pathology is processed", share=1.0, yes=1, no=2),
    SurrogateNode(words="uncertainty at most 0.8 bit", share=0.55, yes=3, no=4),
    SurrogateNode(words="defer to a cleaner hour", share=0.45, agreement=0.71),
    SurrogateNode(words="finalise", share=0.4, agreement=0.97),
    SurrogateNode(words="genomics->pathology", share=0.15, agreement=0.88),
)


def surrogate(fidelity: float = 0.87) -> Surrogate:
    return Surrogate(
        policy="cloned-ppo", depth=3, fidelity=estimate(fidelity, 0.01),
        most_common=estimate(0.45, 0.01),
        sentences=("If pathology is processed and uncertainty is at most 0.8 bit: finalise.",),
        n_decisions=41_230, nodes=NODES,
    )  # fmt: skip


def _bare() -> ComparisonReport:
    """What a comparison has at the least: no tests, no stress, no groups, no bounds."""
    few = tuple(policy(n) for n in ("rule", "always:pathology->clinical", "planner"))
    few = tuple(
        replace(p, versus={}, folds={"4": p.figures}, by_hour=None, dominated_by=()) for p in few
    )
    return replace(_full(), policies=few, bounds={}, statistics={}, robustness=(), equity=None,
                   surrogates={})  # fmt: skip


def _full() -> ComparisonReport:
    """Everything that a comparison may find."""
    return ComparisonReport(
        policies=tuple(policy(name) for name in FIELD),
        bounds={
            "expected_lp": BoundResult(
                auc_gain=estimate(0.262), expected_gain=estimate(0.26), definition="a bound"
            ),
            "clairvoyant_lp": BoundResult(auc_gain=estimate(0.301), definition="another"),
        },
        everything={"auc_gain": estimate(0.253), "g_co2e": estimate(5055.0, 40.0)},
        best_planner="planner",
        budget_g_co2e=estimate(1011.0, 9.0),
        provenance={
            "bundle": {"cohort": "toy", "synthetic": True},
            "environment": "greenboard/CaseReview-v1",
            "preset": "hard",
            "trace": {"name": "a trace", "synthetic": False},
            "sessions": {"n_per_fold": 100},
            "session_config": {
                "n_cases": 64, "slots_per_hour": 4, "budget_fraction": 0.2, "setup_factor": 0.0,
                "swing": 2.0, "budget_mode": "mask+price", "g_per_auc": 500_000.0,
                "session_h_min": 24, "session_h_max": 72,
            },
            "folds": [0, 1, 2, 3, 4],
            "command": "greenboard compare --bundle b",
        },
        limits=("Research use only.",),
        statistics={name: statistics(name) for name in FIELD},
        robustness=(
            scenario("cc_de", "trace", "planner", 0.93), scenario("em_ciso", "trace", "dp", 0.81),
            scenario("budget 10 %", "budget", "planner", 0.9),
            scenario("budget 40 %", "budget", "cloned-ppo", 0.88),
            scenario("20 points more missing", "missingness", "planner", 0.7),
            scenario("other hospitals", "hospitals", "planner", 0.95),
        ),
        equity=equity(),
        surrogates={"cloned-ppo": surrogate()},
    )  # fmt: skip


@pytest.fixture(scope="session")
def full_report() -> ComparisonReport:
    """Everything that a comparison may find."""
    return _full()


@pytest.fixture(scope="session")
def bare_report() -> ComparisonReport:
    """No tests, no stress, no groups, no bounds, one fold."""
    return _bare()


@pytest.fixture(scope="session")
def full_sections(full_report: ComparisonReport) -> dict[str, Section]:
    """Its sections by key: drawn once."""
    return {section.key: section for section in sections_of(full_report)}


@pytest.fixture(scope="session")
def full_page(full_report: ComparisonReport, full_sections: dict[str, Section]) -> str:
    return page_of(full_report, tuple(full_sections.values()))


@pytest.fixture(scope="session")
def bare_page(bare_report: ComparisonReport) -> str:
    return render_html(bare_report)


@pytest.fixture(scope="session")
def tested() -> Callable[[float, float], Difference]:
    """A difference of this size with this corrected p."""
    return lambda value, p: replace(difference(value), p_value=p, p_holm=p)
