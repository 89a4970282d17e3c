"""Small parts of resources: codings, and the marks that say what a resource is."""

from __future__ import annotations

from typing import Any

from api.fhir.codes import ACT_REASON, OBSERVATION_VALUE

MARKS = "urn:greenboard:mark"
RESEARCH = {"system": MARKS, "code": "research-use-only", "display": "Research use only"}
SYNTHETIC = {"system": MARKS, "code": "synthetic", "display": "Synthetic: no patient's"}
TEST_DATA = {"system": ACT_REASON, "code": "HTEST", "display": "test health data"}
BY_MACHINE = {
    "system": OBSERVATION_VALUE, "code": "AIAST", "display": "Artificial Intelligence asserted",
}  # fmt: skip
BY_CLINICIAN = {"system": OBSERVATION_VALUE, "code": "CLINAST", "display": "clinician asserted"}


def coding(system: str, code: str, display: str | None = None) -> dict[str, str]:
    """A Coding."""
    return {"system": system, "code": code, **({"display": display} if display else {})}


def concept(system: str, code: str, display: str | None = None) -> dict[str, Any]:
    """A CodeableConcept of one coding."""
    return {"coding": [coding(system, code, display)]}


def tags(synthetic: bool) -> dict[str, Any]:
    """``meta`` of what is nobody's assertion."""
    return {"meta": {"tag": [RESEARCH, *([SYNTHETIC, TEST_DATA] if synthetic else [])]}}


def meta(*security: dict[str, str], synthetic: bool) -> dict[str, Any]:
    """``meta`` with who asserts it, and what it is."""
    return {"meta": {**tags(synthetic)["meta"], "security": list(security)}}
