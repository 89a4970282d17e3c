"""From features to a Bundle that is read back to the same features: examples, tests, migrations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from agent.workflow.protocols import Features, Student
from api.fhir.codes import LOINC, SNOMED, UCUM
from api.fhir.genes import GENE, PRESENT, REGION, VARIANT
from api.fhir.ids import entry_of, reference_to, resource_id
from api.fhir.intake import OMB, RACE
from api.fhir.mapping import (
    FEATURE_SET,
    BoundMap,
    BoundRule,
    Code,
    MapFile,
    bind,
    feature_code,
    feature_system,
)
from api.fhir.marks import coding, concept, tags
from api.fhir.students import columns_of

LUNG_CANCER = (SNOMED, "363358000")
REPORT = (LOINC, "81247-9")


@dataclass(kw_only=True)
class _Writing:
    """The Bundle in the making."""

    seed: str
    bound: BoundMap
    effective: str | None
    patient: dict[str, Any]
    condition: dict[str, Any]
    observations: list[dict[str, Any]] = field(default_factory=list)
    genomic: list[dict[str, Any]] = field(default_factory=list)

    def observation(self, name: str, code: dict[str, Any], **rest: Any) -> dict[str, Any]:
        made = {
            "resourceType": "Observation",
            "id": resource_id(self.seed, "observation", name),
            "status": "final",
            "code": code,
            "subject": reference_to(self.patient),
            **({"effectiveDateTime": self.effective} if self.effective else {}),
            **rest,
        }
        return made


def bundle_from_features(
    features: Features,
    student: Student,
    *,
    feature_map: MapFile | None = None,
    reference: str | None = None,
    at: datetime | None = None,
    synthetic: bool = False,
) -> dict[str, Any]:
    """A Bundle that says what the features say, no more; see :func:`write_bundle`.

    Args:
        features: rows by modality, as the student takes them.
        student: whose features they are.
        feature_map: the deployment's own rules.
        reference: the Bundle's identifier; nothing about the patient.
        at: when the data are from; not said if None.
        synthetic: marks everything as made up.
    """
    bound = bind(columns_of(student), feature_map)
    return write_bundle(features, bound, reference=reference, at=at, synthetic=synthetic)


def write_bundle(
    features: Features,
    bound: BoundMap,
    *,
    reference: str | None = None,
    at: datetime | None = None,
    synthetic: bool = False,
) -> dict[str, Any]:
    """A Bundle that is read back to the same features by the same map.

    Well-known features are written in well-known codes where those say exactly the same, mutated
    genes as variants with the region that was tested, and everything else under this server's own
    codes. A modality that is None or without a feature leaves nothing behind.
    """
    seed = reference or "example"
    patient = {"resourceType": "Patient", "id": resource_id(seed, "patient"), **tags(synthetic)}
    condition = {
        "resourceType": "Condition",
        "id": resource_id(seed, "condition"),
        "code": concept(*LUNG_CANCER, "Malignant tumor of lung"),
        "subject": reference_to(patient),
    }
    writing = _Writing(
        seed=seed,
        bound=bound,
        effective=at.isoformat() if at is not None else None,
        patient=patient,
        condition=condition,
    )
    for modality, row in features.items():
        _write_row(writing, modality, dict(row or {}))
    return _bundle(writing, reference, at, synthetic)


def _bundle(
    writing: _Writing, reference: str | None, at: datetime | None, synthetic: bool
) -> dict[str, Any]:
    resources = [writing.patient]
    if {"stage", "bodySite"} & writing.condition.keys():
        resources.append(writing.condition)
    resources += [*writing.observations, *writing.genomic]
    if writing.genomic:
        report = {
            "resourceType": "DiagnosticReport",
            "id": resource_id(writing.seed, "report"),
            "status": "final",
            "code": concept(*REPORT, "Master HL7 genetic variant reporting panel"),
            "subject": reference_to(writing.patient),
            **({"effectiveDateTime": writing.effective} if writing.effective else {}),
            "result": [reference_to(observation) for observation in writing.genomic],
        }
        resources.append(report)
    named = {"system": "urn:greenboard:reference", "value": reference}
    return {
        "resourceType": "Bundle",
        **tags(synthetic),
        **({"identifier": named} if reference else {}),
        "type": "collection",
        **({"timestamp": at.isoformat()} if at is not None else {}),
        "entry": [entry_of(resource) for resource in resources],
    }


def _write_row(writing: _Writing, modality: str, row: dict[str, Any]) -> None:
    left = {}
    for name, value in row.items():
        rule = writing.bound.of(modality, name)
        if rule is None or value is None or not _write_mapped(writing, rule, value):
            left[name] = value
    if modality == writing.bound.gene_modality:
        left = _write_genes(writing, left)
    if left:
        system = feature_system(modality)
        components = [_component(system, name, value) for name, value in left.items()]
        code = concept(FEATURE_SET, feature_code(modality))
        writing.observations.append(
            writing.observation(f"set/{modality}", code, component=components)
        )


def _component(system: str, name: str, value: Any) -> dict[str, Any]:
    code = concept(system, feature_code(name))
    if value is None:
        absent = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
        return {"code": code, "dataAbsentReason": concept(absent, "unknown")}
    if isinstance(value, str):
        return {"code": code, "valueString": value}
    return {"code": code, "valueQuantity": _quantity(value, "1")}


def _quantity(value: float, unit: str) -> dict[str, Any]:
    return {"value": value, "unit": unit, "system": UCUM, "code": unit}


def _write_mapped(writing: _Writing, rule: BoundRule, value: Any) -> bool:
    """Write it in well-known codes; False where none says exactly this."""
    if rule.table is None:
        return _write_number(writing, rule, value)
    code = rule.table.code_of.get(value) if isinstance(value, str | float | int) else None
    if code is None or rule.table.word_of.get(code) != value:
        return False
    if rule.rule.observation:
        _write_word(writing, rule, code)
    elif rule.rule.condition == "site":
        writing.condition["bodySite"] = [concept(*code)]
    elif rule.rule.patient == "gender":
        writing.patient["gender"] = code[1]
    elif rule.rule.patient == "race":
        part = {"url": OMB, "valueCoding": coding(*code)}
        text = {"url": "text", "valueString": str(value)}
        writing.patient["extension"] = [{"url": RACE, "extension": [part, text]}]
    else:
        return False
    return True


def _write_number(writing: _Writing, rule: BoundRule, value: Any) -> bool:
    unit = next((u for u, factor in rule.rule.units.items() if factor == 1.0), None)
    if unit is None or not rule.rule.observation or isinstance(value, str | bool):
        return False
    code = concept(*rule.rule.observation[0])
    writing.observations.append(
        writing.observation(rule.name, code, valueQuantity=_quantity(value, unit))
    )
    return True


def _write_word(writing: _Writing, rule: BoundRule, code: Code) -> None:
    made = writing.observation(
        rule.name, concept(*rule.rule.observation[0]), valueCodeableConcept=concept(*code)
    )
    writing.observations.append(made)
    if rule.rule.condition == "stage":
        stage = {"summary": concept(*code), "assessment": [reference_to(made)]}
        writing.condition["stage"] = [stage]


def _write_genes(writing: _Writing, row: Mapping[str, Any]) -> dict[str, Any]:
    """Variants and the region that was tested; returns what is neither."""
    genes = {name for name in row if writing.bound.genes.get(name) == name}
    tested = {name: row[name] for name in row if name in genes and row[name] in (0, 1)}
    tested = {name: value for name, value in tested.items() if not isinstance(value, bool)}
    system = feature_system(writing.bound.gene_modality)

    def gene(name: str) -> dict[str, Any]:
        named = {**concept(system, feature_code(name)), "text": name}
        return {"code": concept(LOINC, GENE), "valueCodeableConcept": named}

    for name, value in tested.items():
        if value == 1:
            made = writing.observation(
                f"variant/{name}",
                concept(LOINC, VARIANT, "Genetic variant assessment"),
                valueCodeableConcept=concept(LOINC, PRESENT, "Present"),
                component=[gene(name)],
            )
            writing.genomic.append(made)
    if tested:
        code = concept(LOINC, REGION, "DNA region of interest panel")
        region = writing.observation("region", code, component=[gene(name) for name in tested])
        writing.genomic.append(region)
    return {name: value for name, value in row.items() if name not in tested}
