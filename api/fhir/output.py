"""From a case to a Bundle: risk assessment, evidence, result, provenance and audit events.

A collection, not a transaction: it says what the review says, and asks nobody to store it. Every
reference resolves inside it; ids are made of the case's id, so that the same case gives the same
resources again. The patient is known to this server by no name: the Patient here bears the case's
id alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from api.audit import AuditEntry
from api.fhir.ids import entry_of, resource_id
from api.fhir.marks import tags
from api.fhir.people import Cast, device_of, patient_of, practitioner_of
from api.fhir.provenance import audit_event, machine_provenance, opinion_provenance
from api.fhir.risk import evidence_of, result_of, risk_of
from api.schemas import CaseView

CASE = "urn:greenboard:case"


def case_bundle(
    case: CaseView, trail: Sequence[AuditEntry] = (), *, software: str
) -> dict[str, Any]:
    """The case as FHIR has it.

    Args:
        case: what callers of the API read.
        trail: its rows of the audit log.
        software: this server's version.
    """
    resources = _resources(case, trail, software)
    return {
        "resourceType": "Bundle",
        "id": resource_id(case.id, "bundle"),
        "meta": {
            "versionId": str(case.version),
            "lastUpdated": case.updated_at.isoformat(),
            **tags(case.model.synthetic)["meta"],
        },
        "identifier": {"system": CASE, "value": case.id},
        "type": "collection",
        "timestamp": case.updated_at.isoformat(),
        "entry": [entry_of(resource) for resource in resources],
    }


def _resources(case: CaseView, trail: Sequence[AuditEntry], software: str) -> list[dict[str, Any]]:
    cast = Cast(
        case=case.id,
        patient=patient_of(case),
        device=device_of(case.model, software),
        people={
            name: practitioner_of(name, case.model.synthetic)
            for name in sorted({str(opinion["reviewer"]) for opinion in case.opinions})
        },
    )
    evidence = evidence_of(case, cast)
    risk = risk_of(case, cast, evidence)
    result = result_of(case, cast, risk)
    said = [risk, *evidence]
    resources = [cast.patient, cast.device, *cast.people.values(), *said]
    resources += [result] if result is not None else []
    resources.append(machine_provenance(case, cast, said))
    resources += [opinion_provenance(opinion, cast, risk, result) for opinion in case.opinions]
    resources += [audit_event(entry, cast, risk) for entry in trail]
    return resources
