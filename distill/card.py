"""The model card of one bundle, as Markdown, from what is in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distill.carbon_book import aware_line
from distill.parity import card_lines

SHOWN = 6
"""Features of each modality in the card; ``metrics.json`` has more."""


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
        *_trust(metrics),
        *_importance(metrics, positive),
        "## Training",
        "",
        f"{training['seconds']:.0f} s; energy: {_energy(training)}.{aware_line(training)}",
        "",
        objective_line(metrics["objective"]),
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


def _trust(metrics: Mapping[str, Any]) -> list[str]:
    """Calibration error beside what chance makes of it, and coverage of the conformal sets."""
    full = metrics["full"]
    worst = max(metrics["evidence"].values(), key=lambda card: card["ece"]["value"] or 0.0)
    lines = [
        "## Calibration and sets of classes, out of fold",
        "",
        f"Calibration error with everything {_figure(full['ece'])}; a perfectly calibrated model "
        f"with these probabilities would show {_figure(full['ece_if_calibrated'])}. Worst of the "
        f"{len(metrics['evidence'])} evidence sets: {_figure(worst['ece'])} (by chance "
        f"{_figure(worst['ece_if_calibrated'])}).",
        "",
    ]
    if "conformal" not in full:
        return lines
    shown = full["conformal"]
    covered = [card["conformal"]["coverage"]["value"] for card in metrics["evidence"].values()]
    known = [value for value in covered if value is not None]
    lines += [
        f"A set of classes is to hold the patient's own for {100 * shown['level']:.0f} % of the "
        f"patients of each class. Held: {_figure(shown['coverage'])} (interval over hospitals); "
        f"over the evidence sets {min(known):.3f} to {max(known):.3f}. One class is left for "
        f"{_figure(shown['singletons'])} of the patients, both for {_figure(shown['undecided'])}.",
        "",
        _hospitals(shown["over_hospitals"]),
        "",
    ]
    return lines


def _hospitals(spread: Mapping[str, Any]) -> str:
    promise = "The promise is an average over patients like these; it is none for one hospital."
    if not spread["hospitals"]:
        return f"{promise} Their spread is not known: {spread['reason']}."
    return (
        f"{promise} Over the {len(spread['hospitals'])} hospitals with ten patients or more it "
        f"ran from {spread['min']:.2f} to {spread['max']:.2f} (median {spread['median']:.2f}); "
        f"variance between them over that of chance: {_figure(spread['dispersion'])}, where chance "
        "alone stays inside the interval."
    )


def _importance(metrics: Mapping[str, Any], positive: str) -> list[str]:
    if "importance" not in metrics:
        return []
    lines = [
        "## What moved the student most",
        "",
        "Integrated gradients of the served student over the training patients. These are "
        "**associations that the student uses, not causes**; features that go together share or "
        "swap their weight, and another seed may choose another of them. Effect: change of the "
        f"log-odds of {positive} per standard deviation; interval: hospitals redrawn.",
        "",
        "| modality | feature | mean size, log-odds | effect per SD |",
        "|---|---|---|---|",
    ]
    for modality, rows in metrics["importance"].items():
        for row in rows[:SHOWN]:
            value, (low, high) = row["effect_per_sd"]["value"], row["effect_per_sd"]["ci95"]
            lines.append(
                f"| {modality} | {row['feature'].replace('|', '/')} | "
                f"{row['mean_abs_log_odds']:.3f} | {value:+.3f} [{low:+.3f}, {high:+.3f}] |"
            )
    return [*lines, ""]


def objective_line(chosen: Mapping[str, Any]) -> str:
    """Weights of the teachers' terms in the served student, and how they came to be."""
    weights = ", ".join(f"{name} {value:g}" for name, value in chosen["serving"]["weights"].items())
    if not chosen["chosen"]:
        return f"Weights of the teachers' terms, fixed by the settings: {weights}."
    adopted = chosen["serving"]["adopted"]
    folds = sum(bool(choice["adopted"]) for choice in chosen["folds"].values())
    return (
        f"Weights of the teachers' terms: {weights}. Changes adopted because held-out training "
        f"hospitals spoke for them: {', '.join(adopted) or 'none'}; {folds} of the "
        f"{len(chosen['folds'])} students that are scored above had any."
    )


def _energy(training: Mapping[str, Any]) -> str:
    energy = training["energy_kwh"]
    if energy["value"] is None:
        return f"not known ({energy['reason']})"
    carbon = training["g_co2e"]["value"]
    grams = f", {carbon:.2f} gCO2e" if carbon is not None else ""
    return f"{energy['value']:.6f} kWh ({energy['basis']}){grams}"
