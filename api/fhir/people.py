"""Who and what a case's resources speak of: the patient, the software, the reviewers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from api.fhir.ids import resource_id
from api.fhir.marks import tags
from api.schemas import RESEARCH_USE, CaseView, ModelOfCase

REVIEWER = "urn:greenboard:reviewer"
CALLER = "urn:greenboard:caller"
SOFTWARE, WEIGHTS = "software", "bundle"


@dataclass(frozen=True, kw_only=True)
class Cast:
    """The resources that the others refer to."""

    case: str
    patient: dict[str, Any]
    device: dict[str, Any]
    people: Mapping[str, dict[str, Any]]


def patient_of(case: CaseView) -> dict[str, Any]:
    """The patient, known by the case alone."""
    return {
        "resourceType": "Patient",
        "id": resource_id(case.id, "patient"),
        **tags(case.model.synthetic),
        "identifier": [{"system": "urn:greenboard:case", "value": case.id}],
    }


def device_of(model: ModelOfCase, software: str) -> dict[str, Any]:
    """This software with the weights that it reviewed the case with."""
    return {
        "resourceType": "Device",
        "id": resource_id("device", software, model.bundle_version, model.precision),
        **tags(model.synthetic),
        "status": "active",
        "deviceName": [{"name": "greenboard", "type": "model-name"}],
        "type": {"text": "Clinical decision support software, for research use only"},
        "version": [
            {"type": {"text": SOFTWARE}, "value": software},
            {"type": {"text": WEIGHTS}, "value": model.bundle_version},
        ],
        "note": [{"text": RESEARCH_USE}, {"text": _trained_on(model)}],
    }


def _trained_on(model: ModelOfCase) -> str:
    made_up = " (synthetic: no patient's data; for trying out only)" if model.synthetic else ""
    return f"Weights {model.precision}, trained on cohort {model.cohort}{made_up}."


def practitioner_of(name: str, synthetic: bool) -> dict[str, Any]:
    """A reviewer, as the owner of a key is called."""
    return {
        "resourceType": "Practitioner",
        "id": resource_id("practitioner", name),
        **tags(synthetic),
        "identifier": [{"system": REVIEWER, "value": name}],
    }
