"""What a case's Bundle says, read back from it: for clients, and to test that nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from api.fhir.mapping import feature_name
from api.fhir.people import REVIEWER, WEIGHTS
from api.fhir.provenance import ACTION
from api.fhir.risk import CARBON, FRACTION, REASON
from api.fhir.walk import Json, codings


@dataclass(frozen=True, kw_only=True)
class Signed:
    """One opinion."""

    action: str
    reviewer: str
    reason_code: str | None
    decided_at: str


@dataclass(frozen=True, kw_only=True)
class CaseFacts:
    """A case as its Bundle has it.

    Attributes:
        case: its id.
        status: of the assessment.
        probabilities: by class; empty before scoring.
        result: the class that was recorded.
        opinions: in order.
        bundle_version: of the weights.
        g_co2e: gross emissions, grams.
        synthetic: whether it is marked as made up.
    """

    case: str
    status: str
    probabilities: Mapping[str, float]
    result: str | None
    opinions: tuple[Signed, ...]
    bundle_version: str
    g_co2e: float | None
    synthetic: bool


def read_case(bundle: Json) -> CaseFacts:
    """Read a Bundle of :func:`api.fhir.output.case_bundle`."""
    by_url = {entry["fullUrl"]: entry["resource"] for entry in bundle["entry"]}
    risk = next(_of(by_url, "RiskAssessment"))
    device = by_url[risk["performer"]["reference"]]
    return CaseFacts(
        case=risk["identifier"][0]["value"],
        status=risk["status"],
        probabilities=dict(_probabilities(risk)),
        result=next(_results(by_url), None),
        opinions=tuple(_opinions(by_url)),
        bundle_version=next(v["value"] for v in device["version"] if v["type"]["text"] == WEIGHTS),
        g_co2e=_gross(risk),
        synthetic=any(tag["code"] == "synthetic" for tag in risk["meta"]["tag"]),
    )


def _of(by_url: Mapping[str, Json], kind: str) -> Iterator[Json]:
    return (resource for resource in by_url.values() if resource["resourceType"] == kind)


def _probabilities(risk: Json) -> Iterator[tuple[str, float]]:
    for prediction in risk.get("prediction", ()):
        (_, code), *_rest = codings(prediction["outcome"])
        share = next(e["valueDecimal"] for e in prediction["extension"] if e["url"] == FRACTION)
        yield feature_name(code), share


def _results(by_url: Mapping[str, Json]) -> Iterator[str]:
    for observation in _of(by_url, "Observation"):
        if "focus" in observation:
            (_, code), *_rest = codings(observation["valueCodeableConcept"])
            yield feature_name(code)


def _opinions(by_url: Mapping[str, Json]) -> Iterator[Signed]:
    for provenance in _of(by_url, "Provenance"):
        action = [code for system, code in codings(provenance["activity"]) if system == ACTION]
        if not action:
            continue
        who = by_url[provenance["agent"][0]["who"]["reference"]]
        name = next(i["value"] for i in who["identifier"] if i["system"] == REVIEWER)
        reasons = [
            code
            for reason in provenance.get("reason", ())
            for system, code in codings(reason)
            if system == REASON
        ]
        yield Signed(
            action=action[0],
            reviewer=name,
            reason_code=next(iter(reasons), None),
            decided_at=provenance["recorded"],
        )


def _gross(risk: Json) -> float | None:
    for extension in risk.get("extension", ()):
        if extension["url"] == CARBON:
            for part in extension["extension"]:
                if part["url"] == "gross-co2e":
                    gross: Any = part["valueQuantity"]["value"]
                    return float(gross)
    return None
