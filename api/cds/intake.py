"""From what a hook brings along to feature rows, by the way that FHIR bundles take."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from typing import Any

from api.cds.schemas import HookRequest
from api.deps import Server
from api.fhir.issues import FhirError
from api.problems import ProblemError
from api.routes.fhir import read_for
from distill.transfers import BASE_MODALITY

PREFETCH = {
    "patient": "Patient/{{context.patientId}}",
    "conditions": "Condition?patient={{context.patientId}}",
    "observations": "Observation?patient={{context.patientId}}",
    "reports": "DiagnosticReport?patient={{context.patientId}}",
}
"""What discovery asks clients to send along."""
NEEDED = ("patient", "conditions", "observations")
"""A client that has none of a kind says so with null; one that did not look leaves the key out."""

Resource = Mapping[str, Any]


def bundle_of(prefetch: Mapping[str, Resource | None]) -> dict[str, Any]:
    """One Bundle of everything that was brought, searches unpacked, each resource once."""
    entries: dict[object, dict[str, Any]] = {}
    for key in PREFETCH:
        for resource in _resources(prefetch.get(key)):
            name = (resource.get("resourceType"), resource.get("id") or len(entries))
            entries.setdefault(name, {"resource": dict(resource)})
    return {"resourceType": "Bundle", "type": "collection", "entry": list(entries.values())}


def _resources(brought: Resource | None) -> Iterator[Resource]:
    if brought is None:
        return
    if brought.get("resourceType") != "Bundle":
        yield brought
        return
    entries = brought.get("entry")
    for entry in entries if isinstance(entries, list) else ():
        resource = entry.get("resource") if isinstance(entry, Mapping) else None
        # What a search says of itself is no data.
        if isinstance(resource, Mapping) and resource.get("resourceType") != "OperationOutcome":
            yield resource


async def features_of(hook: HookRequest, server: Server) -> dict[str, Any] | None:
    """Feature rows of what was brought; None if there is nothing to review in it.

    A chart with clinical data alone starts no case: there would be nothing to decide about.

    Raises:
        ProblemError: 412 if what is needed was not brought, 422 if it is another patient's.
    """
    prefetch = hook.prefetch or {}
    missing = [key for key in NEEDED if key not in prefetch]
    if missing:
        raise ProblemError(
            "prefetch-missing",
            f"There is no case of this patient yet, and to start one the call has to bring "
            f"{', '.join(missing)} (prefetch, as discovery says; null where there is none).",
        )
    patient = prefetch["patient"]
    if patient is None:
        return None
    if patient.get("id") != hook.context.patient_id:
        raise ProblemError(
            "invalid-request", "body/prefetch/patient: it is not the patient of the context."
        )
    data = json.dumps(bundle_of(prefetch)).encode()
    try:
        intake = await asyncio.to_thread(read_for, server, data)
    except FhirError:
        # Not what the served bundle can take; the chart of most patients is not.
        return None
    return _worth(intake.features)


def _worth(features: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    known = {
        modality: {name: value for name, value in row.items() if value is not None}
        for modality, row in features.items()
    }
    more = any(row for modality, row in known.items() if modality != BASE_MODALITY)
    if not more or not known.get(BASE_MODALITY):
        return None
    return {modality: dict(row) for modality, row in features.items()}
