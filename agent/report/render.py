"""A comparison as a page: one HTML file that needs nothing beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from agent.errors import ComparisonError
from agent.policies.files import write_atomically
from agent.report.blocks import Absent, Section, only_sections
from agent.report.headline import headline, verdicts, warnings
from agent.report.model import ComparisonReport
from agent.report.page import page_environment
from agent.report.sections.bounds import bounds
from agent.report.sections.decisions import decisions
from agent.report.sections.differences import differences
from agent.report.sections.equity import equity
from agent.report.sections.origin import folds, limits, missing, reproduction, traces
from agent.report.sections.overview import overview, redrawn
from agent.report.sections.robustness import robustness
from agent.report.sections.seeds import seeds
from agent.report.sections.surrogate import surrogate
from agent.report.words import listed, percent

HTML_FILE = "report.html"
JSON_FILE = "report.json"
POLICIES = "policies"


def sections_of(report: ComparisonReport) -> tuple[Section, ...]:
    """What the page holds, in order; what is missing is said near the end."""
    found: list[Section | Absent] = [
        overview(report),
        differences(report),
        seeds(report),
        bounds(report),
        robustness(report),
        equity(report),
        decisions(report),
        surrogate(report),
        folds(report),
        traces(report),
    ]
    lacking = missing([s for s in found if isinstance(s, Absent)])
    ends = [lacking] if lacking is not None else []
    return (*only_sections(found), *ends, limits(report), reproduction(report))


def _tags(report: ComparisonReport) -> list[str]:
    tags = ["Research use only"]
    if report.synthetic:
        tags.append("Synthetic patients")
    if report.provenance["trace"]["synthetic"]:
        tags.append("Synthetic grid")
    return tags


def _setting(report: ComparisonReport) -> str:
    """What was simulated, in one paragraph."""
    p = report.provenance
    config = p["session_config"]
    made_up = " (synthetic)" if p["trace"]["synthetic"] else ""
    named = [str(fold) for fold in p["folds"]]
    preset = f", preset {p['preset']}" if p.get("preset") else ""
    rules = f" under {p['environment']}{preset}," if p.get("environment") else ""
    facts = [
        f"{p['sessions']['n_per_fold']} sessions of {config['n_cases']} cases{rules} on the "
        f"held-out patients of fold{'s' if len(named) > 1 else ''} {listed(named)}, the same "
        f"sessions for every policy; grid: {p['trace']['name']}{made_up}, evaluation period.",
    ]
    if "budget_fraction" in config:
        slots = config["slots_per_hour"]
        facts.append(
            f"The carbon budget is {percent(config['budget_fraction'])} of what processing "
            f"everything would take; {slots} slot{'s' if slots != 1 else ''} an hour."
        )
    if config.get("swing", 1.0) != 1.0:
        facts.append(f"Stress: the grid's swing was multiplied by {config['swing']:g}.")
    if config.get("setup_factor"):
        facts.append(
            f"Starting a pipeline's run takes {config['setup_factor']:g} times its energy per case."
        )
    facts.append(f"Intervals are 95 %, {redrawn(report)}.")
    return " ".join(facts)


def page_of(report: ComparisonReport, sections: Sequence[Section]) -> str:
    """The page that holds these sections under the report's verdict."""
    environment = page_environment({})
    return environment.get_template("report.html.j2").render(
        cohort=str(report.provenance["bundle"]["cohort"]),
        tags=_tags(report),
        warnings=warnings(report),
        headline=verdicts(report),
        setting=_setting(report),
        sections=sections,
    )


def render_html(report: ComparisonReport) -> str:
    """The page: verdict, chart, tables, stress, groups, limits, how to make it again."""
    return page_of(report, sections_of(report))


def check_report_folder(out: Path) -> None:
    """Refuse a folder that holds other things than a report; cheap, so ask before long work.

    Raises:
        ComparisonError: if ``out`` is a file, or a folder that is not a report's.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise ComparisonError(f"{out} is a file; --out names a folder.")
    # A comparison that was stopped on the way leaves the policies alone.
    inside = {path.name for path in out.iterdir() if not path.name.startswith(".")}
    if JSON_FILE not in inside and not inside <= {HTML_FILE, POLICIES}:
        raise ComparisonError(f"{out} holds other things than a report; choose another --out.")


def write_report(report: ComparisonReport, out: Path) -> tuple[Path, Path]:
    """Write ``report.html`` and ``report.json`` into a directory; never half of one.

    Returns:
        The two paths, the page first.

    Raises:
        ComparisonError: if the directory holds other things than a report.
    """
    check_report_folder(out)
    out.mkdir(parents=True, exist_ok=True)
    page = out / HTML_FILE
    figures = out / JSON_FILE
    text = json.dumps(report.to_json(headline(report)), indent=2, allow_nan=False) + "\n"
    write_atomically(page, render_html(report).encode())
    write_atomically(figures, text.encode())
    return page, figures
