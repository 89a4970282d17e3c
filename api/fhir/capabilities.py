"""What this server has of FHIR, as FHIR clients ask for it."""

from __future__ import annotations

from typing import Any

from api.fhir.marks import tags
from api.schemas import RESEARCH_USE

SINCE = "2026-11-23"
DOCUMENTATION = (
    "POST Bundle takes a patient's Bundle on for review and stores no resource of it; "
    "GET /v1/cases/{id}/fhir gives a case as a Bundle. There is no search. " + RESEARCH_USE
)


def capabilities(software: str) -> dict[str, Any]:
    """A CapabilityStatement.

    Args:
        software: this server's version.
    """
    return {
        "resourceType": "CapabilityStatement",
        **tags(synthetic=False),
        "status": "active",
        "date": SINCE,
        "kind": "instance",
        "software": {"name": "greenboard", "version": software},
        "implementation": {"description": "Case review for the molecular tumour board"},
        "fhirVersion": "4.0.1",
        "format": ["json", "application/fhir+json"],
        "rest": [
            {
                "mode": "server",
                "documentation": DOCUMENTATION,
                "security": {"description": "An API key: Authorization: Bearer KEY."},
                "resource": [{"type": "Bundle", "interaction": [{"code": "create"}]}],
            }
        ],
    }
