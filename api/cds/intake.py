"""From what a hook brings along to feature rows, by the way that FHIR bundles take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from api.deps import Server
from api.problems import ProblemError

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
    """One Bundle of everything that was brought, searches unpacked."""
    entries = [
        {"resource": dict(resource)}
        for key in PREFETCH
        for resource in _resources(prefetch.get(key))
    ]
    return {"resourceType": "Bundle", "type": "collection", "entry": entries}


def _resources(brought: Resource | None) -> Iterator[Resource]:
    if brought is None:
        return
    if brought.get("resourceType") != "Bundle":
        yield brought
        return
    entries = brought.get("entry")
    for entry in entries if isinstance(entries, list) else ():
        resource = entry.get("resource") if isinstance(entry, Mapping) else None
        if isinstance(resource, Mapping):
            yield resource


def features_of(
    prefetch: Mapping[str, Resource | None] | None, server: Server
) -> dict[str, Any] | None:
    """Feature rows of what was brought; None if there is nothing to review in it.

    Raises:
        ProblemError: 412 if what is needed was not brought.
    """
    missing = [key for key in NEEDED if key not in (prefetch or {})]
    if missing or prefetch is None:
        raise ProblemError(
            "prefetch-missing",
            f"There is no case of this patient yet, and to start one the call has to bring "
            f"{', '.join(missing)} (prefetch, as discovery says; null where there is none).",
        )
    if prefetch["patient"] is None:
        return None
    # To be joined with the intake of FHIR bundles.
    return None
