"""What the model says of a case and what it rests on, and what the clinician recorded."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any
from urllib.parse import quote

from api.fhir.codes import UCUM
from api.fhir.ids import reference_to, resource_id
from api.fhir.mapping import feature_code
from api.fhir.marks import BY_CLINICIAN, BY_MACHINE, concept, meta
from api.fhir.people import Cast
from api.schemas import RESEARCH_USE, CaseView

CLASS = "urn:greenboard:class:"
METHOD = "urn:greenboard:method"
EVIDENCE, FIGURE = "urn:greenboard:evidence", "urn:greenboard:evidence-figure"
RESULT, REASON = "urn:greenboard:result", "urn:greenboard:reason"
REFERENCE = "urn:greenboard:reference"
CARBON = "urn:greenboard:extension:carbon"
FRACTION = "urn:greenboard:extension:probability-fraction"
WRONG = "wrong_data"
UNSAYABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
CARBON_NOTE = (
    "Gross emissions of this review, at the grid of the time. Energy stands by how it is known, "
    "modelled (Green Algorithms) or measured by a counter; what is not known is listed and in no "
    "sum. Nothing is called avoided."
)


def sayable(text: str) -> str:
    """The text without characters that FHIR strings cannot hold."""
    return UNSAYABLE.sub("\N{REPLACEMENT CHARACTER}", text).strip()


def status_of(case: CaseView) -> str:
    """Where the assessment stands, in ObservationStatus.

    Registered while nothing is scored; preliminary until a clinician has decided; final then. A
    case that was sent back is cancelled, or entered in error where its data were wrong.
    """
    if case.status == "recorded":
        return "final"
    if case.status == "sent_back":
        reason = (case.opinions[-1] if case.opinions else {}).get("reason_code")
        return "entered-in-error" if reason == WRONG else "cancelled"
    return "registered" if case.probability is None else "preliminary"


def class_of(case: CaseView, side: str) -> dict[str, Any]:
    """One of the two classes, by the cohort's name for it."""
    name = case.model.positive if side == "positive" else case.model.negative
    system = CLASS + quote(case.model.cohort, safe="")
    return {**concept(system, feature_code(name)), "text": name}


def evidence_of(case: CaseView, cast: Cast) -> list[dict[str, Any]]:
    """One Observation a processed modality: how much it counted, and how complete it was."""
    weighting = (case.explanation or {}).get("weighting") or {}
    return [
        {
            "resourceType": "Observation",
            "id": resource_id(case.id, "evidence", modality),
            **meta(BY_MACHINE, synthetic=case.model.synthetic),
            "status": status_of(case),
            "code": {**concept(EVIDENCE, feature_code(modality)), "text": f"Evidence: {modality}"},
            "subject": reference_to(cast.patient),
            "effectiveDateTime": case.updated_at.isoformat(),
            "device": reference_to(cast.device),
            "component": [
                {"code": concept(FIGURE, name.replace("_", "-")), "valueQuantity": _plain(value)}
                for name, value in weight.items()
                if value is not None
            ],
        }
        for modality, weight in weighting.items()
    ]


def _plain(value: float, unit: str = "1") -> dict[str, Any]:
    return {"value": value, "unit": unit, "system": UCUM, "code": unit}


def risk_of(case: CaseView, cast: Cast, evidence: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The model's assessment."""
    named = [{"system": "urn:greenboard:case", "value": case.id}]
    if case.reference:
        named.append({"system": REFERENCE, "value": sayable(case.reference)})
    carbon = _carbon(case)
    predictions = list(_predictions(case))
    return {
        "resourceType": "RiskAssessment",
        "id": resource_id(case.id, "risk"),
        **meta(BY_MACHINE, synthetic=case.model.synthetic),
        **({"extension": [carbon]} if carbon else {}),
        "identifier": named,
        "status": status_of(case),
        "method": {
            **concept(METHOD, case.model.bundle_version),
            "text": "Distilled student over the modalities that were processed; calibrated "
            "probability, research use only",
        },
        "code": {"text": f"{case.model.positive} against {case.model.negative}"},
        "subject": reference_to(cast.patient),
        "occurrenceDateTime": case.updated_at.isoformat(),
        "performer": reference_to(cast.device),
        **({"basis": [reference_to(item) for item in evidence]} if evidence else {}),
        **({"prediction": predictions} if predictions else {}),
        "mitigation": _mitigation(case),
        "note": list(_notes(case, cast)),
    }


def _predictions(case: CaseView) -> Iterator[dict[str, Any]]:
    """Both classes with their probabilities in per cent, as R4 has it, and as fractions."""
    if case.probability is None:
        return
    for side, share in (("positive", case.probability), ("negative", 1.0 - case.probability)):
        made = {
            "extension": [{"url": FRACTION, "valueDecimal": share}],
            "outcome": class_of(case, side),
            "probabilityDecimal": float(Decimal(repr(share)).scaleb(2)),
        }
        rationale = _rationale(case) if side == "positive" else ""
        yield {**made, **({"rationale": rationale} if rationale else {})}


def _rationale(case: CaseView) -> str:
    """What spoke for it, in figures."""
    known = case.explanation or {}
    weights = ", ".join(
        f"{modality} {weight['contribution_log_odds']:+.2f}"
        for modality, weight in (known.get("weighting") or {}).items()
    )
    parts = [f"Contributions to the log-odds: {weights}."] if weights else []
    if known.get("conformal_level") is not None:
        left = ", ".join(known.get("conformal_set") or ()) or "neither class"
        parts.append(f"At level {known['conformal_level']:g} not ruled out: {left}.")
    for title, names in (("Missing", "missing"), ("Left out as unreliable", "unreliable")):
        if known.get(names):
            parts.append(f"{title}: {', '.join(known[names])}.")
    return " ".join(parts)


def _mitigation(case: CaseView) -> str:
    stands = {
        "recorded": "A clinician has reviewed it and recorded a result.",
        "sent_back": "It was sent back without a result.",
    }.get(case.status, "No clinician has decided on it yet.")
    return f"{RESEARCH_USE} {stands} Nothing follows from it by itself."


def _notes(case: CaseView, cast: Cast) -> Iterator[dict[str, Any]]:
    yield {"text": RESEARCH_USE}
    explanation = case.explanation or {}
    told = [*case.caution, *explanation.get("lines", ()), *case.flags]
    for text in dict.fromkeys(sayable(str(line)) for line in told):
        if text:
            yield {"text": text}
    if case.status == "parked" and case.failure:
        yield {"text": f"Set aside, a person has to look at it: {sayable(case.failure)}"}
    if case.status == "deferred" and case.wake_at is not None:
        yield {"text": f"Put off to {case.wake_at.isoformat()}, for cleaner electricity."}
    for opinion in case.opinions:
        comment = sayable(str(opinion.get("comment") or ""))
        if comment:
            yield {
                "authorReference": reference_to(cast.people[str(opinion["reviewer"])]),
                "time": str(opinion["decided_at"]),
                "text": comment,
            }


def _carbon(case: CaseView) -> dict[str, Any] | None:
    """What the review cost, with how each figure came about."""
    known = case.explanation
    if known is None:
        return None
    parts: list[dict[str, Any]] = [
        {"url": "gross-co2e", "valueQuantity": _plain(known["g_co2e"], "g")},
        {"url": "note", "valueString": CARBON_NOTE},
    ]
    for basis in ("modelled", "measured"):
        energy_kwh = known[f"energy_kwh_{basis}"]
        # A sum of nothing is no measurement of nought.
        if energy_kwh > 0:
            parts.append({"url": f"energy-{basis}", "valueQuantity": _plain(energy_kwh, "kW.h")})
    unmeasured = [sayable(str(line)) for line in known.get("unmeasured") or ()]
    parts += [{"url": "unmeasured", "valueString": line} for line in unmeasured if line]
    return {"url": CARBON, "extension": parts}


def result_of(case: CaseView, cast: Cast, risk: dict[str, Any]) -> dict[str, Any] | None:
    """What the clinician recorded; None until then."""
    if case.status != "recorded" or case.result is None or not case.opinions:
        return None
    last = case.opinions[-1]
    agreed = [o for o in case.opinions if held(case, o) == case.result]
    names = dict.fromkeys(str(opinion["reviewer"]) for opinion in agreed or [last])
    return {
        "resourceType": "Observation",
        "id": resource_id(case.id, "result"),
        **meta(BY_CLINICIAN, synthetic=case.model.synthetic),
        "status": "final",
        "code": {**concept(RESULT, "reviewed-class"), "text": "Result recorded by a clinician"},
        "subject": reference_to(cast.patient),
        "focus": [reference_to(risk)],
        "effectiveDateTime": str(last["decided_at"]),
        "performer": [reference_to(cast.people[name]) for name in names],
        "valueCodeableConcept": class_of(case, case.result),
        "note": [{"text": RESEARCH_USE}],
    }


def held(case: CaseView, opinion: dict[str, Any]) -> str | None:
    """The result that an opinion stands for."""
    if opinion["action"] == "accept":
        return opinion.get("result") or case.suggestion
    return opinion.get("result")
