"""Names of resources: the same for the same case, whoever asks and however often."""

from __future__ import annotations

from typing import Any
from uuid import NAMESPACE_URL, uuid5

SPACE = uuid5(NAMESPACE_URL, "urn:greenboard:fhir")
URN = "urn:uuid:"


def resource_id(*parts: str) -> str:
    """A UUID made of what a resource is for."""
    return str(uuid5(SPACE, "/".join(parts)))


def reference_to(resource: dict[str, Any]) -> dict[str, str]:
    """A reference that resolves inside the Bundle."""
    return {"reference": URN + resource["id"], "type": resource["resourceType"]}


def entry_of(resource: dict[str, Any]) -> dict[str, Any]:
    """The Bundle's entry of a resource."""
    return {"fullUrl": URN + resource["id"], "resource": resource}
