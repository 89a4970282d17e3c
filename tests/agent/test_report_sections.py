"""Every section of the page, with what it needs and without it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import pytest

from agent.report.blocks import Absent, Section, Table
from agent.report.model import ComparisonReport
from agent.report.order import choosing, numbers, ranked, spotlight, styles
from agent.report.pareto import close_up
from agent.report.render import render_html
from agent.report.sections.bounds import bounds
from agent.report.sections.equity import equity
from agent.report.sections.robustness import order_sentence, robustness
from agent.report.sections.seeds import seeds
from agent.report.sections.surrogate import fidelity_words, surrogate
from agent.report.words import interval, listed, number, p_value
from agent.statistics import Estimate

ALWAYS_THERE = ["policies", "limits", "reproduce"]
ALL = [
    "policies", "differences", "seeds", "bounds", "robustness", "equity", "decisions", "surrogate",
    "folds", "traces", "limits", "reproduce",
]  # fmt: skip
VOID = {"meta", "br", "img", "link", "hr", "input"}
FROM_OUTSIDE = ("script", "link", "iframe", "img", "object", "embed", "base", "form")


class Checked(HTMLParser):
    """Follows the nesting of a page and keeps what the tests ask for."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.headings: list[int] = []
        self.sections: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag == "section":
            self.sections.append(dict(attrs).get("class") or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def checked(page: str) -> Checked:
    parser = Checked()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


def tables(section: Section) -> list[Table]:
    return [block for block in section.blocks if isinstance(block, Table)]


def test_every_section_is_there_in_order(full_page: str) -> None:
    assert checked(full_page).sections == ALL


def test_what_is_missing_is_said(bare_page: str) -> None:
    sections = checked(bare_page).sections
    assert sections == ["policies", "decisions", "missing", "limits", "reproduce"]
    part = bare_page[bare_page.index('id="h-missing"') :]
    for said in (
        "Paired differences: ", "Training seeds: no learned policy took part",
        "How much room was left: no bounds", "robustness was not asked for",
        "nothing says whether a policy serves a group worse", "no learned policy took part",
        "Fold by fold: one held-out fold",
    ):  # fmt: skip
        assert said in part


@pytest.mark.parametrize(
    ("make", "without", "why"),
    [
        (robustness, {"robustness": ()}, "robustness was not asked for"),
        (equity, {"equity": None}, "no attributes of the patients were given"),
        (surrogate, {"surrogates": {}}, "no surrogate tree was grown"),
        (bounds, {"bounds": {}}, "no bounds were computed"),
        (seeds, {"statistics": {}}, "were not kept"),
    ],
)
def test_each_section_says_why_it_is_absent(
    full_report: ComparisonReport,
    make: Callable[[ComparisonReport], Section | Absent],
    without: dict[str, Any],
    why: str,
) -> None:
    found = make(replace(full_report, **without))
    assert isinstance(found, Absent)
    assert why in found.why


def test_groups_too_small_are_no_groups(full_report: ComparisonReport) -> None:
    assert full_report.equity is not None
    found = equity(replace(full_report, equity=replace(full_report.equity, groups=())))
    assert isinstance(found, Absent)
    assert "no group has 20 patients" in found.why


def test_headings_never_skip_a_level(full_page: str, bare_page: str) -> None:
    for page in (full_page, bare_page):
        levels = checked(page).headings
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(after - before <= 1 for before, after in pairwise(levels))


def test_nothing_comes_from_outside(full_page: str) -> None:
    assert not set(FROM_OUTSIDE) & set(checked(full_page).seen)
    assert "@import" not in full_page
    assert not re.search(r"url\((?!#)", full_page)
    addresses = set(re.findall(r"(?:https?:)?//[\w.]+[^\s\"']*", full_page))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_ids_are_unique_and_references_resolve(full_page: str) -> None:
    ids = re.findall(r'\bid="([^"]+)"', full_page)
    assert len(ids) == len(set(ids))
    referred = re.findall(r'(?:href="#|url\(#)([^")]+)', full_page)
    for group in re.findall(r'aria-labelledby="([^"]+)"', full_page):
        referred += group.split()
    assert set(referred) <= set(ids)


def test_every_picture_has_a_title_and_a_description(full_page: str) -> None:
    pictures = re.findall(r"<svg.*?</svg>", full_page, flags=re.DOTALL)
    assert len(pictures) == 10
    for picture in pictures:
        assert 'role="img"' in picture
        title = re.search(r"<title[^>]*>(.*?)</title>", picture)
        words = re.search(r"<desc[^>]*>(.*?)</desc>", picture)
        assert title is not None
        assert words is not None
        assert len(title[1]) > 10
        assert len(words[1]) > 40


def test_the_same_report_gives_the_same_bytes(
    bare_report: ComparisonReport, bare_page: str
) -> None:
    assert render_html(bare_report) == bare_page


def test_rows_have_a_cell_for_every_column(full_sections: dict[str, Section]) -> None:
    found = [table for section in full_sections.values() for table in tables(section)]
    assert len(found) == 14
    for table in found:
        assert {len(row.cells) + 1 for row in table.rows} == {len(table.columns)}


HOSTILE = '<script>alert("x")</script>$x_{1$"><img src=x onerror=y>'


def test_hostile_names_stay_text(full_report: ComparisonReport) -> None:
    planner = replace(full_report.policy("planner"), name=HOSTILE)
    rule = replace(full_report.policy("rule"), dominated_by=(), versus={})
    planner = replace(planner, dominated_by=(), versus={"rule": planner.versus["rule"]})
    stress = full_report.robustness[0]
    figures = {HOSTILE: stress.figures["planner"], "rule": stress.figures["rule"]}
    assert full_report.equity is not None
    group = full_report.equity.groups[0]
    served = replace(group, group=HOSTILE, policies={HOSTILE: group.policies["planner"]})
    page = render_html(
        replace(
            full_report,
            policies=(rule, planner),
            best_planner=HOSTILE,
            statistics={},
            bounds={HOSTILE: full_report.bounds["expected_lp"]},
            robustness=(replace(stress, name=HOSTILE, figures=figures, order=(HOSTILE, "rule")),),
            equity=replace(full_report.equity, groups=(served,), sentences=(HOSTILE,)),
            surrogates={HOSTILE: replace(full_report.surrogates["cloned-ppo"], policy=HOSTILE)},
            limits=(HOSTILE,),
            provenance={
                **full_report.provenance,
                "trace": {"name": HOSTILE, "synthetic": True},
                "command": HOSTILE,
            },
        )
    )
    parsed = checked(page)
    assert not {"script", "img"} & set(parsed.seen)
    assert sum(HOSTILE in text for text in parsed.text) > 10


def test_names_that_matplotlib_would_hide_or_typeset_are_drawn(
    full_report: ComparisonReport,
) -> None:
    rule = replace(full_report.policy("rule"), dominated_by=(), versus={}, name="_$a$")
    page = render_html(replace(full_report, policies=(rule,), best_planner="_$a$", statistics={},
                               robustness=(), equity=None, surrogates={}))  # fmt: skip
    assert "1  _$a$" in page or "1 _$a$" in page


def test_policies_are_ranked_by_reward(full_report: ComparisonReport) -> None:
    names = [p.name for p in ranked(full_report)]
    assert names[:2] == ["cloned-ppo", "planner"]
    assert names[-1] == "never"
    assert numbers(full_report)["planner"] == 2
    shown = {p.name for p in spotlight(full_report)}
    assert {"cloned-ppo", "planner", "rule"} <= shown
    assert not {"never", "always-everything"} & {p.name for p in choosing(full_report)}


def test_no_two_policies_look_the_same(full_report: ComparisonReport) -> None:
    looks = styles(full_report)
    assert len({(s.colour, s.marker) for s in looks.values()}) == len(looks)


def test_the_close_up_is_for_crowds(full_report: ComparisonReport) -> None:
    crowd = {p.name for p in close_up(full_report)}
    assert {"planner", "dp", "cloned-ppo"} <= crowd
    assert not {"never", "rule", "random"} & crowd
    apart = tuple(full_report.policy(n) for n in ("never", "rule", "planner"))
    assert close_up(replace(full_report, policies=apart)) == ()


def test_a_difference_that_is_not_significant_says_so(full_sections: dict[str, Section]) -> None:
    against = next(t for t in tables(full_sections["differences"]) if "minus planner" in t.caption)
    rows = {row.head.text: [cell.text for cell in row.cells] for row in against.rows}
    assert rows["mpc"][1] == "1.000"
    assert rows["rule"][1] == "0.001"


def test_leaders_elsewhere_are_named(full_report: ComparisonReport) -> None:
    said = order_sentence(full_report)
    assert said.startswith("cloned-ppo has the highest mean reward under 1 of 6 changes")
    assert "dp under em_ciso" in said
    assert "its interval lies above that of cloned-ppo" in said
    same = tuple(s for s in full_report.robustness if s.order[0] == "cloned-ppo")
    assert "all 1 changes too" in order_sentence(replace(full_report, robustness=same))


def test_groups_served_worse_are_marked(full_sections: dict[str, Section]) -> None:
    (table,) = tables(full_sections["equity"])
    worse = [row for row in table.rows if row.kind == "worse"]
    assert [(row.head.text, row.cells[0].text) for row in worse] == [("stage: III", "planner")]
    assert all(row.head.small[0].startswith("n=") for row in table.rows)


def test_equal_service_is_not_claimed(full_report: ComparisonReport) -> None:
    assert full_report.equity is not None
    calm = replace(full_report, equity=replace(full_report.equity, sentences=()))
    section = equity(calm)
    assert isinstance(section, Section)
    assert "That is no proof of equal service" in str(section.blocks[0])


@pytest.mark.parametrize(
    ("fidelity", "said"),
    [(0.95, "decisions."), (0.87, "a sketch of the policy"), (0.46, "next to nothing")],
)
def test_words_are_trusted_as_far_as_the_tree(
    full_report: ComparisonReport, fidelity: float, said: str
) -> None:
    found = full_report.surrogates["cloned-ppo"]
    faith = Estimate(value=fidelity, low=fidelity - 0.01, high=fidelity + 0.01, n=9)
    assert said in fidelity_words(replace(found, fidelity=faith))


def test_a_surrogate_without_nodes_keeps_its_sentences(full_report: ComparisonReport) -> None:
    bare = replace(full_report.surrogates["cloned-ppo"], nodes=())
    section = surrogate(replace(full_report, surrogates={"cloned-ppo": bare}))
    assert isinstance(section, Section)
    assert [block.template for block in section.blocks] == ["text", "text", "items"]


def test_figures_read_well() -> None:
    assert number(-0.0004) == "0.000"
    assert number(-0.0004, sign=True) == "0.000"
    assert number(0.5, 1, sign=True) == "+0.5"
    assert number(12345.6, 0) == "12,346"
    assert interval(Estimate(value=0.1, low=-0.2, high=0.4, n=3), 1) == "0.1 [-0.2, 0.4]"
    assert (p_value(None), p_value(0.0002), p_value(0.04)) == ("-", "<0.001", "0.040")
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert listed(("a",)) == "a"
