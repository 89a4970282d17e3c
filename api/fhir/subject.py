"""Who a Bundle is about to its sender, and that nothing else says so."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from api.fhir.issues import Issue, error
from api.fhir.reading import Entry, Incoming

ADDRESS = re.compile(r"(https?://.+)/Patient/([A-Za-z0-9\-.]{1,64})(?:/_history/[^/]+)?")
USES = ("official", "usual")
MAX_REFERENCE = 200
SHORTEST = 4
"""Identifiers of fewer characters are in anything."""


@dataclass(frozen=True, kw_only=True)
class SubjectParts:
    """The sender's system and the patient's id there; for a keyed sum alone."""

    system: str
    patient: str = field(repr=False)


def subject_of(patient: Entry) -> SubjectParts | None:
    """The parts of the keyed sum by which the patient's cases are found.

    A fullUrl ``BASE/Patient/ID`` names the same patient as a CDS Hooks call with that fhirServer
    and patientId; otherwise an identifier with its system does, the official one first.
    """
    address = ADDRESS.fullmatch(patient.url or "")
    if address is not None:
        return SubjectParts(system=address[1], patient=address[2])
    found = [i for i in _identifiers(patient) if i.get("system") and i.get("value")]
    found.sort(key=lambda i: USES.index(i["use"]) if i.get("use") in USES else len(USES))
    if not found:
        return None
    return SubjectParts(system=found[0]["system"], patient=found[0]["value"])


def _identifiers(patient: Entry) -> list[dict[str, Any]]:
    return list(patient.resource.get("identifier", ()))


def check_reference(incoming: Incoming) -> Iterator[Issue]:
    """That the Bundle's own identifier, which is kept, does not name the patient."""
    reference = (incoming.bundle.get("identifier") or {}).get("value")
    if reference is None:
        return
    where = "Bundle.identifier.value"
    if len(reference) > MAX_REFERENCE or not reference.isprintable():
        yield error("value", where, f"up to {MAX_REFERENCE} printable characters.")
    named = reference.casefold()
    if any(name in named for name in _names(incoming.patient)):
        yield error(
            "security", where, "it holds an identifier or a name of the patient, and it is kept "
            "with the case; choose one that says nothing about the patient.",
        )  # fmt: skip


def _names(patient: Entry) -> list[str]:
    found = [str(i.get("value", "")) for i in _identifiers(patient)]
    found.append(str(patient.resource.get("id", "")))
    for name in patient.resource.get("name", ()):
        found.append(str(name.get("family", "")))
    return [text.casefold() for text in found if len(text) >= SHORTEST]
