"""Genomics reports: which genes were tested, and which have a variant.

A gene without a variant is 0 only where the report says that it was tested: by a region studied
(53041-0) that names it, or by a variant that is reported absent. Otherwise nothing is known of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from api.fhir.codes import LOINC
from api.fhir.findings import Finding, Findings
from api.fhir.issues import FhirError, error, remark
from api.fhir.mapping import BoundMap, feature_name, feature_system
from api.fhir.reading import Entry
from api.fhir.values import finite
from api.fhir.walk import Json, codings, has_code

VARIANT, REGION = "69548-6", "53041-0"
GENE, GENOMIC, PROTEIN, FREQUENCY, ORIGIN = "48018-6", "81290-9", "48005-3", "81258-6", "48002-0"
PRESENT, ABSENT, NO_CALL, UNDECIDED = "LA9633-4", "LA9634-2", "LA18198-4", "LA11884-6"
GERMLINE = "LA6683-2"
HGNC = ("http://www.genenames.org/geneId", "http://www.genenames.org")
HGNC_ID = re.compile(r"(HGNC:)?\d+")
SILENT = re.compile(r"p\.\(?[A-Z][A-Za-z]{0,2}\d+=\)?$|p\.\(?=\)?$")
FRACTIONS = {"1": 1.0, "%": 0.01}


class Genes:
    """Collects a patient's genomics reports."""

    def __init__(self, bound: BoundMap, findings: Findings) -> None:
        """Nothing is tested yet."""
        self._bound = bound
        self._findings = findings
        self._own = feature_system(bound.gene_modality)
        self._tested: dict[str, str] = {}
        self._mutated: dict[str, str] = {}
        self._others = 0

    def take(self, entry: Entry) -> None:
        """Read a variant or a region studied.

        Raises:
            FhirError: if it cannot be understood.
        """
        if has_code(entry.resource.get("code"), LOINC, REGION):
            self._take_region(entry)
        else:
            self._take_variant(entry)

    def _take_region(self, entry: Entry) -> None:
        genes = [gene for _, c in _components(entry, GENE) for gene in self._named(c, entry.where)]
        if not genes:
            self._findings.note(
                remark(entry.where, "it names no genes (48018-6), so none counts as tested.")
            )
        self._tested |= dict.fromkeys(self._known(genes), entry.where)

    def _take_variant(self, entry: Entry) -> None:
        genes = [gene for _, c in _components(entry, GENE) for gene in self._named(c, entry.where)]
        if not genes:
            raise FhirError(
                [error("required", entry.where, "a variant needs a component 48018-6, its gene.")]
            )
        for where, component in _components(entry, FREQUENCY):
            _check_frequency(component, where)
        state = _state(entry)
        if state == ABSENT:
            self._tested |= dict.fromkeys(self._known(genes), entry.where)
        if state != PRESENT:
            return
        reason = _not_counted(entry)
        if reason:
            self._findings.note(remark(entry.where, reason))
            return
        self._mutated |= dict.fromkeys(self._known(genes), entry.where)

    def _known(self, genes: list[str]) -> list[str]:
        # A gene that nobody asked for may still be one of a group that counts as one.
        groups = {member for members in self._bound.any_of.values() for member in members}
        self._others += sum(g not in self._bound.genes and g not in groups for g in genes)
        return [self._bound.genes.get(gene, gene) for gene in genes]

    def _named(self, component: Json, where: str) -> Iterator[str]:
        """The gene's symbol."""
        concept = component.get("valueCodeableConcept") or {}
        for coding in concept.get("coding") or ():
            system, code = coding.get("system"), str(coding.get("code", ""))
            if system == self._own and code:
                yield feature_name(code)
                return
            if system in HGNC:
                symbol = code if code and not HGNC_ID.fullmatch(code) else coding.get("display")
                if symbol:
                    yield str(symbol)
                    return
        if concept.get("text"):
            yield str(concept["text"])
            return
        raise FhirError(
            [error("required", where, "name the gene: its HGNC symbol as display or as text.")]
        )

    def finish(self) -> None:
        """State what is known of each gene that the bundle looks at."""
        modality, flags = self._bound.gene_modality, set(self._bound.genes.values())
        for gene, where in (self._tested | self._mutated).items():
            if gene in flags:
                value = 1.0 if gene in self._mutated else 0.0
                self._findings.add(Finding(modality=modality, name=gene, value=value, where=where))
        for name, members in self._bound.any_of.items():
            self._add_group(name, [self._bound.genes.get(gene, gene) for gene in members])
        if self._others:
            self._findings.note(
                remark(
                    "Bundle", f"{self._others} mentions of genes that the bundle has no use for."
                )
            )

    def _add_group(self, name: str, members: list[str]) -> None:
        hit = [self._mutated[gene] for gene in members if gene in self._mutated]
        tested = [self._tested[gene] for gene in members if gene in self._tested]
        if hit or (members and len(tested) == len(members)):
            self._findings.add(
                Finding(
                    modality=self._bound.gene_modality,
                    name=name,
                    value=1.0 if hit else 0.0,
                    where=(hit or tested)[0],
                )
            )


def is_genomic(entry: Entry) -> bool:
    """Whether an Observation is a variant or a region studied."""
    return has_code(entry.resource.get("code"), LOINC, VARIANT, REGION)


def _components(entry: Entry, code: str) -> Iterator[tuple[str, Json]]:
    for i, component in enumerate(entry.resource.get("component", ())):
        if has_code(component.get("code"), LOINC, code):
            yield f"{entry.where}.component[{i}]", component


def _state(entry: Entry) -> str | None:
    """Whether the variant is there; None where that was not found out.

    Raises:
        FhirError: if it does not say.
    """
    if "dataAbsentReason" in entry.resource:
        return None
    concept = entry.resource.get("valueCodeableConcept")
    said = [code for system, code in codings(concept) if system == LOINC]
    for state in (PRESENT, ABSENT, NO_CALL, UNDECIDED):
        if state in said:
            return None if state in (NO_CALL, UNDECIDED) else state
    raise FhirError(
        [
            error(
                "required",
                f"{entry.where}.valueCodeableConcept",
                f"say whether the variant is present ({PRESENT}), absent ({ABSENT}), not called "
                f"({NO_CALL}) or undecided ({UNDECIDED}), as LOINC has it.",
            )
        ]
    )


def _not_counted(entry: Entry) -> str:
    """Why a variant that is there does not count as a mutation of the tumour; "" if it does."""
    for _, component in _components(entry, ORIGIN):
        if has_code(component.get("valueCodeableConcept"), LOINC, GERMLINE):
            return "a germline variant; it does not count as a mutation of the tumour."
    for _, component in _components(entry, PROTEIN):
        if any(SILENT.search(text) for text in _texts(component.get("valueCodeableConcept"))):
            return "a silent variant; it does not count as a mutation."
    return ""


def _texts(concept: Any) -> list[str]:
    codes = [code for _, code in codings(concept)]
    return [*codes, str((concept or {}).get("text", ""))]


def _check_frequency(component: Json, where: str) -> None:
    """An allele frequency is a fraction or a percentage; it is checked and not used.

    Raises:
        FhirError: if it is neither, or beyond one.
    """
    quantity = component.get("valueQuantity") or {}
    place = f"{where}.valueQuantity"
    factor = FRACTIONS.get(str(quantity.get("code", quantity.get("unit", "1"))))
    if factor is None or "value" not in quantity:
        raise FhirError([error("value", place, "a fraction (unit 1) or a percentage (%).")])
    if not 0 <= finite(quantity["value"], f"{place}.value") * factor <= 1:
        raise FhirError([error("value", f"{place}.value", "beyond 0 to 1 (0 to 100 %).")])
