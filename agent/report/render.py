"""A comparison as a page: one HTML file that needs nothing beside it."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from agent.errors import ComparisonError
from agent.policies.files import write_atomically
from agent.report.headline import headline, interval
from agent.report.model import METRICS, ActionTable, ComparisonReport, PolicyResult
from agent.report.plots import action_groups, actions_svg, pareto_svg

HTML_FILE = "report.html"
JSON_FILE = "report.json"
POLICIES = "policies"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


def _grouped(table: ActionTable) -> list[tuple[str, int, list[float | None]]]:
    """Rows for the page: band, decisions, share of each group of actions."""
    groups = action_groups(table.actions)
    rows: list[tuple[str, int, list[float | None]]] = []
    for band, counts in zip(table.bands, table.counts):
        total = int(counts.sum())
        shares = [
            float(counts[columns].sum()) / total if total else None for columns in groups.values()
        ]
        rows.append((band, total, shares))
    return rows


def _choosing(report: ComparisonReport) -> tuple[PolicyResult, ...]:
    """The policies whose actions depend on the case: the others need no picture."""
    return tuple(
        p for p in report.policies if p.name != "never" and not p.name.startswith("always")
    )


def _dominator(report: ComparisonReport, policy: PolicyResult) -> str:
    """Of those that dominate it, the one that gains most."""
    better = [report.policy(name) for name in policy.dominated_by]
    return max(better, key=lambda p: p.figures["auc_gain"].value).name


def _pictures(report: ComparisonReport) -> dict[str, Markup]:
    """The SVG elements; their text was escaped when they were drawn."""
    pictures = {"pareto": pareto_svg(report)}
    choosing = _choosing(report)
    if choosing:
        urgency = [(p.name, p.by_urgency) for p in choosing]
        uncertainty = [(p.name, p.by_uncertainty) for p in choosing]
        pictures["urgency"] = actions_svg("urgency", "Actions by urgency of the case", urgency)
        pictures["uncertainty"] = actions_svg(
            "uncertainty", "Actions by uncertainty of the prediction", uncertainty
        )
    return {key: Markup(svg) for key, svg in pictures.items()}  # noqa: S704


def render_html(report: ComparisonReport) -> str:
    """The page: headline, Pareto front, tables, actions, limits, how to reproduce it."""
    environment = Environment(
        loader=PackageLoader("agent.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"interval": interval, "percent": _percent}
    choosing = _choosing(report)
    folds = report.policies[0].folds
    return environment.get_template("report.html.j2").render(
        report=report,
        headline=headline(report),
        pictures=_pictures(report),
        metrics=METRICS,
        choosing=choosing,
        groups=list(action_groups(choosing[0].by_urgency.actions)) if choosing else [],
        grouped=_grouped,
        dominator=partial(_dominator, report),
        folds=list(folds) if len(folds) > 1 else [],
        provenance=json.dumps(dict(report.provenance), indent=2),
    )


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
