"""The first screen: the chart of gain against carbon, and the table of policies."""

from __future__ import annotations

from agent.report.blocks import (
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
    number_cell,
)
from agent.report.findings import PolicyStatistics
from agent.report.model import ComparisonReport, PolicyResult
from agent.report.order import numbers, quoted, ranked, styles
from agent.report.pareto import BOUND_WORDS, pareto_svg
from agent.report.words import interval, percent


def _name(report: ComparisonReport, policy: PolicyResult) -> Cell:
    small = []
    if policy.learned:
        n = policy.training_seeds
        small.append(f"learned, {n} training seed{'s' if n != 1 else ''}")
    if policy.dominated_by:
        better = [report.policy(name) for name in policy.dominated_by]
        best = max(better, key=lambda p: p.figures["auc_gain"].value)
        small.append(f"dominated by {best.name}")
    number = numbers(report)[policy.name]
    return Cell(text=f"{number}  {policy.name}", small=tuple(small))


def _improvement(report: ComparisonReport, found: PolicyStatistics | None, name: str) -> Cell:
    if name == report.best_planner:
        return Cell(text="itself")
    chance = found.improvement.get(report.best_planner or "") if found is not None else None
    if chance is None:
        return Cell(text="-")
    return Cell(
        text=percent(chance.value), small=(f"{percent(chance.low)} to {percent(chance.high)}",)
    )


def _regret(report: ComparisonReport, policy: PolicyResult) -> Cell:
    found = report.statistics.get(policy.name)
    if found is not None:
        return figure_cell(found.regret)
    bound = report.bounds.get("expected_lp")
    if bound is None or bound.expected_gain is None:
        return Cell(text="-")
    return number_cell(bound.expected_gain.value - policy.figures["expected_gain"].value, 3)


def _row(report: ComparisonReport, policy: PolicyResult) -> TableRow:
    found = report.statistics.get(policy.name)
    figures = policy.figures
    kind = "best" if policy.name == report.best.name else ""
    return TableRow(
        head=_name(report, policy),
        cells=cells(
            figure_cell(quoted(report, policy, "auc_gain")),
            figure_cell(found.iqm.get("auc_gain") if found is not None else None),
            figure_cell(quoted(report, policy, "g_co2e"), 0),
            percent(figures["carbon_share"].value),
            figure_cell(quoted(report, policy, "reward")),
            number_cell(figures["lateness_h"].value, 1),
            _regret(report, policy),
            _improvement(report, found, policy.name),
        ),
        kind=kind or ("dominated" if policy.dominated_by else ""),
    )


def _references(report: ComparisonReport) -> list[TableRow]:
    dash = Cell(text="-")
    rows = [
        TableRow(
            head=Cell(text="everything for everybody", small=("no budget, but the same slots",)),
            cells=cells(
                figure_cell(report.everything["auc_gain"]), dash,
                figure_cell(report.everything["g_co2e"], 0), "100%", dash, dash, dash, dash,
            ),
            kind="reference",
        )
    ]  # fmt: skip
    rows += [
        TableRow(
            head=Cell(text=BOUND_WORDS.get(name, name), small=(name,)),
            cells=cells(
                figure_cell(bound.auc_gain), *[dash] * 3, figure_cell(bound.reward), *[dash] * 3
            ),
            kind="reference",
        )
        for name, bound in report.bounds.items()
    ]
    return rows


def redrawn(report: ComparisonReport) -> str:
    """What the intervals of gain, carbon and reward redraw."""
    if report.statistics:
        seeds = ", sessions and training seeds" if report.learned else " and sessions"
        return f"over redrawn folds, patients{seeds}"
    return "over redrawn sessions" + (" and training seeds" if report.learned else "")


def policies_table(report: ComparisonReport) -> Table:
    """Every policy with its figures, the highest reward first; below it what to compare with."""
    alone = ""
    if report.statistics:
        alone = "; of interquartile means, regret and the grey rows over redrawn sessions alone"
    planner = f"against {report.best_planner}" if report.best_planner else "no planner took part"
    return Table(
        caption="Means over sessions with 95 % intervals in small type, "
        f"{redrawn(report)}{alone}. The highest reward is shaded; bold: on the Pareto front; "
        "plain: dominated.",
        columns=(
            *columns(
                "policy", ("AUC gain", "mean"), ("AUC gain", "interquartile mean"),
                ("carbon", "gCO2e a session"), ("share of everything's", "% of gCO2e"),
                ("reward", "AUC, carbon priced"), ("late", "hours a session"),
                ("regret to the bound", "AUC"), ("probability of improvement", planner),
            ),
        ),
        rows=(*(_row(report, p) for p in ranked(report)), *_references(report)),
    )  # fmt: skip


def details_table(report: ComparisonReport) -> Table:
    """What the policies did with a case, and figures for the specialist."""
    rows = []
    for policy in ranked(report):
        found = report.statistics.get(policy.name)
        f = policy.figures
        rows.append(
            TableRow(
                head=Cell(text=policy.name),
                cells=cells(
                    number_cell(f["transfers_per_case"].value),
                    number_cell(f["deferrals_per_case"].value),
                    percent(f["finalised_at_once"].value),
                    number_cell(f["invalid"].value, 1),
                    figure_cell(f["expected_gain"]),
                    figure_cell(found.pooled_auc_gain if found is not None else None),
                    figure_cell(found.esper if found is not None else None),
                ),
            )
        )
    return Table(
        caption="What was done with a case, and further figures.",
        columns=(
            Column(title="policy"),
            *columns(
                ("transfers", "a case"), ("deferrals", "a case"),
                ("finalised at once", "% of cases"),
                ("forbidden actions", "a session"), ("AUC gain", "labels averaged out"),
                ("AUC gain", "all sessions' cases pooled"), ("ESPer", "score"),
            ),
        ),
        rows=tuple(rows),
        folded="What they did with a case, and further figures",
    )  # fmt: skip


CAPTION = (
    "Up is better discrimination, left is less carbon. Hollow markers are dominated: another "
    "policy gains at least as much for no more carbon, going by the means. Bars "
    "are 95 % intervals; black lines are bounds that no policy can be expected "
    "to pass. The numbers are those of the table."
)


def overview(report: ComparisonReport) -> Section:
    """Chart and table."""
    policies = policies_table(report)
    after = (
        f"The carbon budget of a session is {interval(report.budget_g_co2e, 0)} gCO2e on average. "
        f"Everything for everybody, without a budget, takes "
        f"{interval(report.everything['g_co2e'], 0)} gCO2e and gains "
        f"{interval(report.everything['auc_gain'])} AUC."
    )
    return Section(
        key="policies",
        title="Gain against carbon",
        blocks=(
            drawn(pareto_svg(report, numbers(report), styles(report)), CAPTION),
            policies,
            Text(words=after, kind="note"),
            details_table(report),
        ),
    )
