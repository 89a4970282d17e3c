"""Small FHIR resources about one patient: for tests and tries. Nobody's."""

from __future__ import annotations

from typing import Any

from api.fhir.codes import LOINC, UCUM
from api.fhir.columns import Columns

Resource = dict[str, Any]
AJCC, HGNC = "http://cancerstaging.org", "http://www.genenames.org/geneId"
ME = {"reference": "urn:uuid:me"}
GENES = frozenset({"TP53", "KRAS", "EGFR", "LPHN3"})
CLINICAL = Columns(
    numbers=frozenset({"age", "bmi", "ecog"}),
    words={
        "sex": ("female", "male"), "stage": ("stage i", "stage iiib", "stage iv"),
        "smoking": ("current", "former", "never"), "race": ("asian", "white"),
        "lobe": ("r-upper", "l-lower"), "T": ("t1", "t2"),
    },
    flags=frozenset(),
)  # fmt: skip
COLUMNS = {"clinical": CLINICAL, "genomics": Columns(numbers=GENES, words={}, flags=GENES)}
"""What a small student would take."""


def cc(system: str, code: str, **rest: str) -> Resource:
    """A CodeableConcept of one coding."""
    return {"coding": [{"system": system, "code": code, **rest}]}


def observation(code: str, **rest: Any) -> Resource:
    """A final Observation of a LOINC code about the Bundle's patient."""
    made = {
        "resourceType": "Observation", "status": "final", "code": cc(LOINC, code), "subject": ME,
    }  # fmt: skip
    return made | rest


def quantity(value: Any, unit: str) -> Resource:
    """A Quantity in a UCUM unit."""
    return {"value": value, "system": UCUM, "code": unit, "unit": unit}


def stage(code: str, value: str, **rest: Any) -> Resource:
    """An Observation of an AJCC stage or category."""
    return observation(code, valueCodeableConcept=cc(AJCC, value), **rest)


def gene(symbol: str) -> Resource:
    """The component that names a gene."""
    named = cc(HGNC, "HGNC:1", display=symbol)
    return {"code": cc(LOINC, "48018-6"), "valueCodeableConcept": named}


def variant(symbol: str, state: str = "LA9633-4", *more: Resource, **rest: Any) -> Resource:
    """A variant of a gene; present unless said otherwise."""
    return observation(
        "69548-6", valueCodeableConcept=cc(LOINC, state), component=[gene(symbol), *more], **rest
    )


def region(*symbols: str) -> Resource:
    """A region studied that names its genes."""
    return observation("53041-0", component=[gene(symbol) for symbol in symbols])


def patient(**rest: Any) -> Resource:
    """The Bundle's patient."""
    return {"resourceType": "Patient", "id": "me"} | rest


def bundle(*resources: Resource, subject: Resource | None = None, **rest: Any) -> Resource:
    """A collection of a patient and these resources, which are called ``urn:uuid:r0`` and so on."""
    entries = [{"fullUrl": "urn:uuid:me", "resource": subject or patient()}]
    entries += [
        {"fullUrl": f"urn:uuid:r{i}", "resource": resource} for i, resource in enumerate(resources)
    ]
    return {"resourceType": "Bundle", "type": "collection", "entry": entries} | rest
