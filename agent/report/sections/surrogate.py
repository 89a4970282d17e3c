"""What the learned policies do, in words."""

from __future__ import annotations

from agent.report.blocks import Absent, Block, Items, Section, Text, drawn
from agent.report.findings import Surrogate
from agent.report.model import ComparisonReport
from agent.report.tree import tree_svg

TITLE = "What a learned policy does, in words"
FAITHFUL = 0.9
"""A tree that agrees less often than this is called a sketch."""


def _share(value: float, low: float, high: float) -> str:
    return f"{value:.0%} [{low:.0%}, {high:.0%}]"


def fidelity_words(found: Surrogate) -> str:
    """How far the words can be trusted."""
    f, c = found.fidelity, found.most_common
    said = (
        f"A tree of at most {found.depth} questions decides as {found.policy} does in "
        f"{_share(f.value, f.low, f.high)} of held-out decisions; always taking the most common "
        f"decision would agree in {_share(c.value, c.low, c.high)}. It was grown on "
        f"{found.n_decisions:,} decisions."
    )
    if f.low <= c.high:
        return f"{said} So these words explain next to nothing of it."
    if f.value < FAITHFUL:
        return f"{said} So these words are a sketch of the policy, not the policy."
    return said


def surrogate(report: ComparisonReport) -> Section | Absent:
    """Sentences, the tree they come from, and its fidelity."""
    if not report.surrogates:
        learned = bool(report.learned)
        return Absent(
            title=TITLE,
            why="no surrogate tree was grown." if learned else "no learned policy took part.",
        )
    blocks: list[Block] = []
    for i, (name, found) in enumerate(report.surrogates.items()):
        blocks += [Text(words=name, kind="heading"), Text(words=fidelity_words(found))]
        blocks.append(Items(items=found.sentences))
        if found.nodes:
            caption = (
                "Yes to the left. In each box the share of decisions that come by; at the ends "
                "also how often the policy did the same."
            )
            svg = tree_svg(f"tree{i}", f"Surrogate tree of {name}", found.nodes)
            blocks.append(drawn(svg, caption))
    return Section(key="surrogate", title=TITLE, blocks=tuple(blocks))
