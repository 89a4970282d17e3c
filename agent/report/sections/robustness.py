"""Who leads where something has changed since the policies were prepared."""

from __future__ import annotations

from collections.abc import Mapping

from agent.report.blocks import (
    Absent,
    Block,
    Cell,
    Column,
    Section,
    Table,
    TableRow,
    Text,
    cells,
    columns,
    drawn,
    figure_cell,
)
from agent.report.dots import Mark, Panel, Row, dots_svg
from agent.report.findings import RobustnessScenario
from agent.report.model import ComparisonReport
from agent.report.order import quoted, ranked, styles
from agent.report.words import interval, listed
from agent.statistics import Estimate

TITLE = "Does the order hold elsewhere?"
CONTENDERS = 6
KINDS = {
    "trace": "Other grids", "budget": "Other budgets", "missingness": "More missing modalities",
    "hospitals": "Other hospitals",
}  # fmt: skip
AS_PREPARED = "as prepared"


def leader(scenario: RobustnessScenario) -> str:
    """The policy with the highest mean reward in this scenario."""
    return scenario.order[0]


def clearly_ahead(scenario: RobustnessScenario, home: str) -> bool:
    """Whether the intervals of the scenario's leader and of the leader at home are apart."""
    there = scenario.figures
    if home not in there:
        return False
    return there[leader(scenario)]["reward"].low > there[home]["reward"].high


def _contenders(report: ComparisonReport) -> list[str]:
    """The best few at home and whoever leads anywhere, in the order at home."""
    leaders = {leader(s) for s in report.robustness}
    by_rank = [p.name for p in ranked(report)]
    best = [n for n in by_rank if n != "never"][:CONTENDERS]
    return [n for n in by_rank if n in best or n in leaders]


def _panel(
    title: str, figures: Mapping[str, Mapping[str, Estimate]], names: list[str], first: str
) -> Panel:
    rows = []
    for name in names:
        if name not in figures:
            continue
        mark = Mark(series=name, estimate=figures[name]["reward"], hollow=name != first)
        rows.append(Row(label=name, marks=(mark,)))
    return Panel(title=title, rows=tuple(rows), unit="reward")


def _panels(report: ComparisonReport) -> list[Panel]:
    names = _contenders(report)
    home = {p.name: {"reward": quoted(report, p, "reward")} for p in report.policies}
    panels = [_panel(AS_PREPARED, home, names, report.best.name)]
    return panels + [_panel(s.name, s.figures, names, leader(s)) for s in report.robustness]


def _verdict(scenario: RobustnessScenario, home: str) -> str:
    first = leader(scenario)
    if first == home:
        return "the same leader"
    clear = clearly_ahead(scenario, home)
    return first if clear else f"{first}, intervals overlap"


def _row(scenario: RobustnessScenario, home: str) -> TableRow:
    first = scenario.figures[leader(scenario)]
    tau = scenario.kendall_tau
    return TableRow(
        head=Cell(text=scenario.name, small=(KINDS[scenario.kind],)),
        cells=cells(
            scenario.description,
            _verdict(scenario, home),
            figure_cell(first["auc_gain"]),
            figure_cell(first["g_co2e"], 0),
            figure_cell(first["reward"]),
            figure_cell(tau, 2),
        ),
    )


def _all_rewards(report: ComparisonReport) -> Table:
    scenarios = report.robustness
    rows = []
    for policy in ranked(report):
        there = [s.figures.get(policy.name, {}).get("reward") for s in scenarios]
        rows.append(
            TableRow(
                head=Cell(text=policy.name),
                cells=cells(
                    figure_cell(quoted(report, policy, "reward")), *map(figure_cell, there)
                ),
            )
        )
    return Table(
        caption="Reward of every policy under every change.",
        columns=columns("policy", AS_PREPARED, *(s.name for s in scenarios)),
        rows=tuple(rows),
        folded="Every policy under every change",
    )


def order_sentence(report: ComparisonReport) -> str:
    """Under how many changes the leader at home leads, and who leads under the others."""
    home = report.best.name
    others = [s for s in report.robustness if leader(s) != home]
    n = len(report.robustness)
    if not others:
        return f"{home} has the highest mean reward under all {n} changes too."
    under: dict[str, list[str]] = {}
    for s in others:
        under.setdefault(leader(s), []).append(s.name)
    named = "; ".join(f"{name} under {listed(where)}" for name, where in under.items())
    clear = [s.name for s in others if clearly_ahead(s, home)]
    apart = (
        f"Under {listed(clear)} its interval lies above that of {home}."
        if clear
        else f"Nowhere does its interval lie above that of {home}."
    )
    return (
        f"{home} has the highest mean reward under {n - len(others)} of {n} changes; another "
        f"policy has it in the rest: {named}. {apart}"
    )


def _leaders(report: ComparisonReport) -> Table:
    return Table(
        caption="Who leads under each change, and how far the order of all policies agrees with "
        "the order as prepared.",
        columns=(
            Column(title="change"),
            Column(title="what was changed", text=True),
            Column(title="highest reward", text=True),
            *columns(
                ("AUC gain", "leader's, AUC"), ("carbon", "leader's, gCO2e"),
                ("reward", "leader's"), ("same order", "Kendall's tau"),
            ),
        ),
        rows=tuple(_row(s, report.best.name) for s in report.robustness),
    )  # fmt: skip


def robustness(report: ComparisonReport) -> Section | Absent:
    """Small multiples of rewards, and the order of policies in each scenario."""
    if not report.robustness:
        return Absent(
            title=TITLE,
            why="robustness was not asked for, so nothing says whether the order holds on another "
            "grid, under another budget, with more missing modalities or in other hospitals.",
        )
    weakest = min(report.robustness, key=lambda s: s.kendall_tau.value)
    intro = (
        f"{order_sentence(report)} The order of all policies agrees least under {weakest.name}: "
        f"Kendall's tau {interval(weakest.kendall_tau, 2)} (1 is the same order, 0 none)."
    )
    svg = dots_svg(
        "robustness", "Rewards where something has changed", _panels(report), styles(report),
        columns=4,
    )  # fmt: skip
    blocks: tuple[Block, ...] = (
        Text(words=intro),
        drawn(
            svg,
            "Reward with 95 % intervals, the policies in the same order in every panel; the filled "
            "marker leads. Each panel has its own scale. Nothing was prepared anew.",
        ),
        _leaders(report),
        _all_rewards(report),
    )
    return Section(key="robustness", title=TITLE, blocks=blocks)
