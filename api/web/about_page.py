"""What the model is, what it is for and how it did: from the bundle's own figures."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from api.deps import Server
from api.web.words import number, percent

METRICS, MANIFEST = "metrics.json", "manifest.json"


@dataclass(frozen=True, kw_only=True)
class AboutPage:
    """The model card's figures; ``rows`` is empty where the bundle has none.

    Attributes:
        rows: what was scored, its AUC, Brier score and calibration error.
        facts: cohort, patients, classes and the like, word by word.
        limits: what one has to know before relying on a figure.
        baselines: AUC of each simpler model on the same folds.
    """

    rows: Sequence[tuple[str, str, str, str]]
    baselines: Sequence[tuple[str, str]]
    facts: Sequence[tuple[str, str]]
    limits: Sequence[str]


async def build_about(server: Server) -> AboutPage:
    """Read the active bundle's figures, once a bundle."""
    loaded = server.kits.active
    key = ("about", loaded.version, str(loaded.folder))
    known: AboutPage | None = server.web.memo.find(key)
    if known is None:
        known = await asyncio.to_thread(_about, loaded.folder)
        server.web.memo.keep(key, known)
    return known


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    return found if isinstance(found, dict) else {}


def _about(folder: Path) -> AboutPage:
    metrics, manifest = _json(folder / METRICS), _json(folder / MANIFEST)
    rows = [_row("everything a patient has", metrics["full"])] if "full" in metrics else []
    rows += [_row(f"{name} alone", each) for name, each in metrics.get("single", {}).items()]
    return AboutPage(
        rows=rows,
        baselines=[
            (name.replace("_", " "), told(each.get("auc")))
            for name, each in metrics.get("baselines", {}).items()
        ],
        facts=_facts(metrics, manifest),
        limits=_limits(metrics),
    )


def _row(name: str, each: Mapping[str, Any]) -> tuple[str, str, str, str]:
    return name, told(each.get("auc")), told(each.get("brier")), told(each.get("ece"))


def told(figure: Mapping[str, Any] | None) -> str:
    """A figure with its interval and count."""
    if not figure:
        return "–"
    ends = figure.get("ci95")
    between = f" ({ends[0]:.3f} to {ends[1]:.3f})" if ends else " (interval unknown)"
    return f"{figure['value']:.3f}{between}, n = {figure['n']}"


def _facts(metrics: Mapping[str, Any], manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    label = manifest.get("label") or {}
    facts = [
        ("Cohort", str(manifest.get("cohort", ""))),
        ("Patients", _whole(manifest.get("n_patients"))),
        ("Hospitals", _whole(manifest.get("n_hospitals"))),
        (
            "Tells apart",
            " from ".join(filter(None, (label.get("positive"), label.get("negative")))),
        ),
        ("Reads at review", ", ".join(manifest.get("modalities", ()))),
        ("Seen in training only", ", ".join(manifest.get("privileged", ()))),
        ("Trained", str(manifest.get("created", ""))[:10]),
        ("Energy of the training", _training(metrics.get("training") or {})),
    ]
    return [(word, value) for word, value in facts if value]


def _whole(value: Any) -> str:
    return "" if value is None else f"{value:,}"


def _training(training: Mapping[str, Any]) -> str:
    energy, grams = training.get("energy_kwh") or {}, training.get("g_co2e") or {}
    if energy.get("value") is None:
        return f"unknown: {energy['reason']}" if energy.get("reason") else ""
    carbon = "" if grams.get("value") is None else f", {number(grams['value'])} gCO2e"
    return f"{number(energy['value'])} kWh {energy.get('basis', '')}{carbon}"


def _limits(metrics: Mapping[str, Any]) -> list[str]:
    full = metrics.get("full") or {}
    limits = [
        "Every figure is out of fold: no patient of a hospital was scored by a model that had "
        "seen that hospital. All are of this one cohort: how the model does on patients of another "
        "place or a later time, they do not say."
    ]
    whole = full.get("auc_over_hospitals")
    if whole:
        limits.append(
            f"AUC with whole hospitals redrawn: {told(whole)}. The other intervals take patients "
            "as independent, which those of one hospital are not, so they are too narrow."
        )
    conformal = full.get("conformal") or {}
    if conformal.get("coverage"):
        limits.append(
            f"The set of classes that cannot be ruled out is to hold the right one for "
            f"{percent(conformal['level'])} of patients; it held {told(conformal['coverage'])}. "
            "That is an average over patients like these, and no promise for one hospital."
        )
    return limits
