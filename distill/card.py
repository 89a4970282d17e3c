"""The model card of one bundle, as Markdown, from what is in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distill.parity import card_lines


def _figure(card: Mapping[str, Any]) -> str:
    value, interval = card["value"], card["ci95"]
    if value is None:
        return f"none ({card.get('reason', 'unknown')})"
    return f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}], n = {card['n']}"


def _rows(figures: Mapping[str, Any]) -> list[str]:
    lines = ["| what | AUC | Brier | calibration error |", "|---|---|---|---|"]
    for name, card in figures.items():
        cells = " | ".join(_figure(card[key]) for key in ("auc", "brier", "ece"))
        lines.append(f"| {name} | {cells} |")
    return lines


def model_card(facts: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    """Who it is for, what it was trained on, how well it does, and what it cannot do."""
    negative, positive = facts["label"]["negative"], facts["label"]["positive"]
    source = "SYNTHETIC patients" if facts["synthetic"] else "patients"
    training = metrics["training"]
    student = {"everything a patient has": metrics["full"], "clinical alone": metrics["single"][
        facts["modalities"][0]]}  # fmt: skip
    student |= {f"{m} alone": metrics["single"][m] for m in facts["modalities"][1:]}
    lines = [
        f"# Student of cohort {facts['cohort']}",
        "",
        f"Tells {positive} from {negative}. Research use only: it recommends, a person signs.",
        f"Trained on {facts['n_patients']} {source} of {facts['n_hospitals']} hospitals"
        f"{_labels(facts)}; "
        f"version {facts['version']}, seed {facts['seed']}, "
        f"{facts['student']['parameters']} parameters.",
        "",
        f"Input: {', '.join(facts['modalities'])}. Seen in training only, as teachers: "
        f"{', '.join(facts['privileged']) or 'none'}.",
        "",
        "## Out of fold, hospitals never split",
        "",
        *_rows(student),
        "",
        f"AUC of everything a patient has, whole hospitals redrawn: "
        f"{_figure(metrics['full']['auc_over_hospitals'])}. The other intervals take patients as "
        "independent, which those of one hospital are not, so they are too narrow.",
        "",
        f"Baselines of the same folds (best of those that score everyone: "
        f"{metrics['best_baseline']}):",
        "",
        *_rows(metrics["baselines"]),
        "",
        "Teachers:",
        "",
        *_rows(metrics["teachers"]),
        "",
        *card_lines(metrics["serving"]),
        "## Training",
        "",
        f"{training['seconds']:.0f} s; energy: {_energy(training)}.",
        "",
        "## Limits",
        "",
        "- One cohort, one label; hospitals elsewhere may differ more than these do.",
        "- Bridges bring no new measurement: they say what the source suggests about the target.",
        "- Probabilities are calibrated on this cohort's mix of the two classes.",
        "- A patient with clinical data only is scored, with the little that they tell.",
    ]
    return "\n".join(lines) + "\n"


def _labels(facts: Mapping[str, Any]) -> str:
    used, everyone = facts["n_labels"], facts["n_patients"]
    if used == everyone:
        return ", all of them labelled"
    return (
        f" with {used} labels: the other {everyone - used} were labelled by teachers fitted on "
        "those, and their own labels serve only to score held-out hospitals"
    )


def _energy(training: Mapping[str, Any]) -> str:
    energy = training["energy_kwh"]
    if energy["value"] is None:
        return f"not known ({energy['reason']})"
    carbon = training["g_co2e"]["value"]
    grams = f", {carbon:.2f} gCO2e" if carbon is not None else ""
    return f"{energy['value']:.6f} kWh ({energy['basis']}){grams}"
