"""The page: self-contained, escaped, true to the figures."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from agent.errors import ComparisonError
from agent.report.headline import headline
from agent.report.model import (
    METRICS,
    ActionTable,
    BoundResult,
    ComparisonReport,
    PolicyResult,
)
from agent.report.order import numbers, styles
from agent.report.pareto import pareto_svg
from agent.report.render import render_html, write_report
from agent.statistics import Estimate

ACTIONS = ("genomics->pathology", "clinical->genomics", "finalise", "defer")


def estimate(value: float, half: float = 0.01) -> Estimate:
    return Estimate(value=value, low=value - half, high=value + half, n=50)


def table() -> ActionTable:
    counts = np.array([[1, 0, 3, 0], [0, 2, 2, 0], [0, 0, 0, 0]])
    return ActionTable(bands=("low", "medium", "high"), actions=ACTIONS, counts=counts)


def policy(name: str, gain: float, *, reward: float, diff: float = 0.0) -> PolicyResult:
    learned = name == "ppo"
    figures = {metric: estimate(0.5) for metric in METRICS}
    figures |= {"auc_gain": estimate(gain), "reward": estimate(reward), "g_co2e": estimate(1e3, 9)}
    versus = {
        baseline: {m: estimate(diff) for m in ("auc_gain", "g_co2e", "reward")}
        for baseline in ("rule", "price")
    }
    return PolicyResult(
        name=name, learned=learned, training_seeds=2 if learned else 0, figures=figures,
        versus=versus, dominated_by=("price",) if name == "rule" else (), by_urgency=table(),
        by_uncertainty=table(), folds={"4": figures}, details={},
    )  # fmt: skip


def report(*, synthetic: bool = True, ppo: float = 0.0, cohort: str = "toy") -> ComparisonReport:
    policies = (
        policy("rule", 0.09, reward=0.05),
        policy("price", 0.19, reward=0.15, diff=0.1),
        policy("ppo", 0.18, reward=0.15 + ppo - 1e-6, diff=ppo),
    )
    return ComparisonReport(
        policies=policies,
        bounds={"expected_lp": BoundResult(auc_gain=estimate(0.3), definition="a bound")},
        everything={"auc_gain": estimate(0.2), "g_co2e": estimate(4e3)},
        best_planner="price",
        budget_g_co2e=estimate(1600.0),
        provenance={
            "bundle": {"cohort": cohort, "synthetic": synthetic},
            "trace": {"name": "a trace", "synthetic": False},
            "sessions": {"n_per_fold": 50},
            "session_config": {"n_cases": 64},
            "folds": [4],
            "command": "greenboard compare --bundle b",
        },
        limits=("Research use only.",),
    )


class Outside(HTMLParser):
    """Collects whatever would be fetched or run."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "link", "iframe", "img", "object"):
            self.found.append(tag)
        for key, value in attrs:
            fetched = key in ("src", "href", "xlink:href", "data", "action")
            if fetched and not (value or "").startswith(("#", "data:")):
                self.found.append(f"{tag} {key}={value}")


def test_the_page_needs_nothing_beside_it() -> None:
    page = render_html(report())
    outside = Outside()
    outside.feed(page)
    assert outside.found == []
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)


def test_ids_in_the_page_are_unique_and_references_resolve() -> None:
    page = render_html(report())
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    referred = re.findall(r'(?:xlink:href="#|url\(#)([^")]+)', page)
    assert set(referred) <= set(ids)


def test_every_picture_has_words() -> None:
    page = render_html(report())
    pictures = re.findall(r"<svg[^>]*>.{0,200}", page, flags=re.DOTALL)
    assert len(pictures) == 5
    for picture in pictures:
        assert 'role="img"' in picture
        assert "<title" in picture


def test_names_are_escaped() -> None:
    page = render_html(report(cohort="<script>alert(1)</script>"))
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_the_same_report_gives_the_same_picture() -> None:
    one, other = report(), report()
    first, second = (pareto_svg(r, numbers(r), styles(r)) for r in (one, other))
    assert first == second


def test_synthetic_patients_are_labelled_at_the_top() -> None:
    assert "Synthetic patients</li>" in render_html(report())
    assert "Synthetic patients" not in render_html(report(synthetic=False))


@pytest.mark.parametrize(
    ("ppo", "sentence"),
    [
        (0.05, "ppo (learned) is better than price"),
        (-0.05, "Learning does not win here: ppo falls behind price"),
        (0.0, "are a tie"),
    ],
)
def test_the_headline_says_whether_learning_won(ppo: float, sentence: str) -> None:
    assert any(sentence in line for line in headline(report(ppo=ppo)))


def test_learned_policies_alone_are_compared_with_no_planner() -> None:
    alone = replace(
        report(), policies=(policy("ppo", 0.18, reward=0.1),), best_planner=None, limits=()
    )
    lines = headline(alone)
    assert not any("are a tie" in line or "best without learning" in line for line in lines)
    assert any(line.startswith("No policy without training took part") for line in lines)
    assert alone.to_json(lines)["reference"]["best_planner"] is None
    assert "No policy without training" in render_html(alone)


def test_the_rule_is_not_compared_with_itself() -> None:
    alone = replace(report(), policies=(policy("rule", 0.09, reward=0.05),), best_planner="rule")
    assert not any("four-action rule" in line for line in headline(alone))
    assert any("four-action rule" in line for line in headline(report()))


@pytest.mark.parametrize("name", ["notes.txt", "bundle"])
def test_a_foreign_folder_is_refused_and_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    (tmp_path / "policies").mkdir()
    with pytest.raises(ComparisonError, match="holds other things than a report"):
        write_report(report(), tmp_path)
    with pytest.raises(ComparisonError, match="is a file"):
        write_report(report(), tmp_path / name)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([name, "policies"])


def test_an_own_folder_is_written_again(tmp_path: Path) -> None:
    (tmp_path / "policies").mkdir()
    write_report(report(), tmp_path)
    (tmp_path / "notes.txt").write_text("beside a report anything may lie")
    write_report(report(ppo=0.05), tmp_path)
    assert "is better than" in (tmp_path / "report.html").read_text()


def test_the_headline_compares_with_everything() -> None:
    first = headline(report())[0]
    assert first.startswith("price has the highest reward: an AUC gain of 0.190 [0.180, 0.200]")
    assert "That is 95% of the gain." in first


def test_the_json_has_the_keys_that_others_read(tmp_path: Path) -> None:
    page, figures = write_report(report(), tmp_path / "out")
    data = json.loads(figures.read_text())
    for name in ("rule", "price", "ppo"):
        for metric in ("auc_gain", "g_co2e", "reward"):
            assert set(data["policies"][name][metric]) == {"value", "ci95", "n"}
    assert data["bounds"]["expected_lp"]["auc_gain"]["value"] == 0.3
    assert data["policies"]["rule"]["pareto"] == {"on_front": False, "dominated_by": ["price"]}
    share = data["policies"]["rule"]["actions"]["by_urgency"]
    assert share["low"] == {
        "n": 4,
        "share": {"genomics->pathology": 0.25, "clinical->genomics": 0.0, "finalise": 0.75,
                  "defer": 0.0},
    }  # fmt: skip
    assert share["high"]["share"]["finalise"] is None
    assert [p.name for p in sorted((tmp_path / "out").iterdir())] == ["report.html", "report.json"]
    assert page.read_text().startswith("<!DOCTYPE html>")
