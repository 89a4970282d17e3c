"""From a patient's Bundle to the features of a case; nothing is imputed, nothing kept but those."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from agent.workflow.protocols import Student
from api.fhir.ages import OLDEST, completed_years, day_of, report_day
from api.fhir.columns import Columns
from api.fhir.findings import Finding, Findings
from api.fhir.genes import Genes, is_genomic
from api.fhir.issues import FhirError, Issue, error, refuse, remark, warning
from api.fhir.mapping import (
    BoundMap,
    BoundRule,
    MapFile,
    bind,
    feature_name,
    modality_of,
)
from api.fhir.reading import Entry, Incoming, open_bundle
from api.fhir.students import columns_of
from api.fhir.subject import SubjectParts, check_reference, subject_of
from api.fhir.values import NOT_KNOWN, VALUES, coded, of_rule, own, word
from api.fhir.walk import Json, codings

GENDER = "http://hl7.org/fhir/administrative-gender"
RACE = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-race"
OMB = "ombCategory"
PRELIMINARY = "preliminary"
MAX_NAME, HINTS = 200, 5
OTHER = "a condition that the map does not name as the tumour"
PANELS = {"hasMember", "component"}
IN_FORCE = ("final", "amended", "corrected", PRELIMINARY)


@dataclass(frozen=True, kw_only=True)
class Intake:
    """A Bundle as a case.

    Attributes:
        features: rows by modality, only what the Bundle says; None for what it says is unknown.
        subject: who the patient is to the sender; for a keyed sum, then to be forgotten.
        reference: the Bundle's own identifier, as the sender chose it.
        urgency: from the priority of a ServiceRequest, where there is one.
        unmapped: what no feature comes from, by place.
        notes: what was understood in a way that is worth knowing.
    """

    features: Mapping[str, Mapping[str, Any]]
    subject: SubjectParts | None
    reference: str | None
    urgency: float | None
    unmapped: tuple[Issue, ...]
    notes: tuple[Issue, ...]


def features_from_bundle(
    bundle: bytes, student: Student, feature_map: MapFile | None = None
) -> Intake:
    """Read a patient's Bundle for the bundle that is served.

    Args:
        bundle: a FHIR R4 Bundle, JSON in UTF-8.
        student: whose features are asked for.
        feature_map: the deployment's own rules.

    Raises:
        FhirError: with everything that is wrong, by place; no message repeats a value.
    """
    return read_bundle(bundle, bind(columns_of(student), feature_map))


def read_bundle(bundle: bytes, bound: BoundMap) -> Intake:
    """Read a patient's Bundle by a map that is bound to the features that are asked for.

    Raises:
        FhirError: see :func:`features_from_bundle`.
    """
    incoming = open_bundle(bundle)
    findings = Findings(issues=list(incoming.remarks))
    _read_patient(incoming, bound, findings)
    for entry in incoming.of("Condition"):
        _read_condition(entry, bound, findings)
    _read_observations(incoming, bound, findings)
    features = findings.features()
    urgency = _urgency(incoming, bound, findings)
    findings.note(*check_reference(incoming))
    refuse(findings.issues)
    return Intake(
        features=features,
        subject=subject_of(incoming.patient),
        reference=(incoming.bundle.get("identifier") or {}).get("value"),
        urgency=urgency,
        unmapped=tuple(issue for issue in findings.issues if issue.severity == "warning"),
        notes=tuple(issue for issue in findings.issues if issue.severity == "information"),
    )


def _read_patient(incoming: Incoming, bound: BoundMap, findings: Findings) -> None:
    readers = {"age": _age, "gender": _gender, "race": _race}
    for rule in bound.rules:
        if rule.rule.patient is None:
            continue
        try:
            found = readers[rule.rule.patient](incoming, rule, findings)
        except FhirError as problem:
            findings.failed(problem)
            continue
        if found is not None:
            # What an Observation says of the same comes first.
            where, value = found
            rank = len(rule.rule.observation)
            findings.add(_finding(rule, value, where, rank))


Read = tuple[str, Any] | None


def _finding(rule: BoundRule, value: Any, where: str, rank: int, day: Any = None) -> Finding:
    return Finding(
        modality=rule.modality, name=rule.name, value=value, where=where, rank=rank, day=day
    )


def _age(incoming: Incoming, rule: BoundRule, findings: Findings) -> Read:
    where, birth_date = (
        f"{incoming.patient.where}.birthDate",
        incoming.patient.resource.get("birthDate"),
    )
    if birth_date is None:
        return None
    on = report_day(incoming)
    if on is None:
        findings.note(
            remark(where, "no report and no Bundle.timestamp gives a day, so there is no age.")
        )
        return None
    years = completed_years(birth_date, on)
    if years is None:
        findings.note(
            remark(where, "it leaves the age open by a year; give day and month, or an age.")
        )
        return None
    if not 0 <= years <= OLDEST:
        raise FhirError([error("value", where, f"no age of 0 to {OLDEST} years at the report.")])
    return where, float(years)


def _gender(incoming: Incoming, rule: BoundRule, findings: Findings) -> Read:
    gender = incoming.patient.resource.get("gender")
    if gender is None or rule.table is None:
        return None
    where = f"{incoming.patient.where}.gender"
    return where, coded(rule.table, [(GENDER, gender)], where)


def _race(incoming: Incoming, rule: BoundRule, findings: Findings) -> Read:
    for i, extension in enumerate(incoming.patient.resource.get("extension", ())):
        if extension.get("url") != RACE or rule.table is None:
            continue
        where = f"{incoming.patient.where}.extension[{i}]"
        categories = [
            list(codings({"coding": [part.get("valueCoding") or {}]}))
            for part in extension.get("extension", ())
            if part.get("url") == OMB
        ]
        if len(categories) > 1:
            findings.note(remark(where, "more than one category; the feature takes one: left out."))
            return None
        return (where, coded(rule.table, categories[0], where)) if categories else None
    return None


def _read_condition(entry: Entry, bound: BoundMap, findings: Findings) -> None:
    status = {code for _, code in codings(entry.resource.get("verificationStatus"))}
    if status & {"refuted", "entered-in-error"}:
        findings.note(remark(entry.where, "refuted or entered in error: left out."))
        return
    if _is_other(entry, bound):
        findings.note(warning("not-supported", entry.where, f"{OTHER}: left out."))
        return
    for rule in bound.rules:
        if rule.rule.condition is None or rule.table is None:
            continue
        for where, concept in _of_condition(entry, rule.rule.condition):
            try:
                value = word(rule.table, concept, where)
            except FhirError as problem:
                findings.failed(problem)
            else:
                _tell_coarse(rule, concept, where, findings)
                rank = len(rule.rule.observation)
                findings.add(_finding(rule, value, where, rank))


def _is_other(entry: Entry, bound: BoundMap) -> bool:
    """Whether a Condition is by its code none that the case is about."""
    codes = list(codings(entry.resource.get("code")))
    return bool(codes) and not bound.is_tumour(codes)


def _tell_coarse(rule: BoundRule, concept: Any, where: str, findings: Findings) -> None:
    if rule.table is not None and rule.table.coarse & set(codings(concept)):
        findings.note(
            remark(where, f"{rule.name} has no word that says as much; it got a coarser one.")
        )


def _of_condition(entry: Entry, part: str) -> Iterator[tuple[str, Json]]:
    if part == "site":
        for i, site in enumerate(entry.resource.get("bodySite", ())):
            yield f"{entry.where}.bodySite[{i}]", site
        return
    for i, stage in enumerate(entry.resource.get("stage", ())):
        if "summary" in stage:
            yield f"{entry.where}.stage[{i}].summary", stage["summary"]


def _read_observations(incoming: Incoming, bound: BoundMap, findings: Findings) -> None:
    genes = Genes(bound, findings)
    withdrawn = _withdrawn(incoming)
    for entry in incoming.of("Observation"):
        reason = _why_not(entry, incoming, bound, withdrawn)
        if reason:
            findings.note(warning("not-supported", entry.where, f"{reason}: left out."))
            continue
        if entry.resource["status"] == PRELIMINARY:
            findings.note(remark(entry.where, "it is preliminary."))
        try:
            if is_genomic(entry):
                genes.take(entry)
            else:
                _read_observation(entry, bound, findings)
        except FhirError as problem:
            findings.failed(problem)
    genes.finish()


def _why_not(entry: Entry, incoming: Incoming, bound: BoundMap, withdrawn: set[str]) -> str:
    """Why an Observation is not looked at; "" if it is."""
    if entry.resource["status"] not in IN_FORCE or entry.where in withdrawn:
        return "not in force"
    about = [incoming.target(focus) for focus in entry.resource.get("focus", ())]
    if any(t is not None and t.kind == "Condition" and _is_other(t, bound) for t in about):
        return f"it is about {OTHER}"
    return ""


def _withdrawn(incoming: Incoming) -> set[str]:
    """Observations that belong to a report that was taken back."""
    found = set()
    for report in incoming.of("DiagnosticReport"):
        if report.resource.get("status") in ("cancelled", "entered-in-error"):
            for reference in report.resource.get("result", ()):
                target = incoming.target(reference)
                found |= {target.where} if target is not None else set()
    return found


def _read_observation(entry: Entry, bound: BoundMap, findings: Findings) -> None:
    """An Observation, and each component, by its code."""
    bearers = [(entry.where, entry.resource)]
    for i, component in enumerate(entry.resource.get("component", ())):
        bearers.append((f"{entry.where}.component[{i}]", component))
    taken = False
    for where, bearer in bearers:
        try:
            taken |= _read_coded(bearer, where, entry, bound, findings)
        except FhirError as problem:
            findings.failed(problem)
            taken = True
    if not taken and "hasMember" not in entry.resource:
        known = any(code in bound.known_codes for code in codings(entry.resource.get("code")))
        reason = "the bundle has no such feature" if known else "no rule of the map is for its code"
        findings.note(warning("not-supported", entry.where, f"{reason}: left out."))


def _read_coded(
    bearer: Json, where: str, entry: Entry, bound: BoundMap, findings: Findings
) -> bool:
    """Take what the bearer's codes stand for; whether anything was looked for in it."""
    if PANELS & bearer.keys() and not any(name in bearer for name in (*VALUES, NOT_KNOWN)):
        return False  # its members and components say it
    day, taken = day_of(entry.resource), False
    for code in codings(bearer.get("code")):
        for rule in bound.by_code.get(code, ()):
            taken = True
            value = of_rule(rule, bearer, where)
            _tell_coarse(rule, bearer.get("valueCodeableConcept"), where, findings)
            findings.add(_finding(rule, value, where, rule.rank(code), day))
        modality = modality_of(code[0])
        if modality is not None:
            taken = True
            _read_own(bearer, where, (modality, feature_name(code[1])), bound, findings)
    return taken


def _read_own(
    bearer: Json, where: str, feature: tuple[str, str], bound: BoundMap, findings: Findings
) -> None:
    """A value under this server's own code."""
    modality, name = feature
    columns = bound.columns.get(modality)
    if columns is None:
        takes = ", ".join(bound.columns)
        findings.note(warning("not-supported", where, f"not a modality of the bundle: {takes}."))
        return
    if name not in columns:
        what = f"{modality} has no feature of this code.{_hint(name, columns, findings)}"
        raise FhirError([error("code-invalid", f"{where}.code", what)])
    value = own(name in columns.words, bearer, where)
    findings.add(Finding(modality=modality, name=name, value=value, where=where))


def _hint(name: str, columns: Columns, findings: Findings) -> str:
    """The nearest name, for the first few that are wrong: looking takes a while."""
    if len(name) > MAX_NAME or len(findings.issues) >= HINTS:
        return ""
    near = get_close_matches(name, [*columns.numbers, *columns.words], n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def _urgency(incoming: Incoming, bound: BoundMap, findings: Findings) -> float | None:
    """The highest priority of a request that is in force."""
    given = [
        request.resource["priority"]
        for request in incoming.of("ServiceRequest")
        if request.resource.get("status") in ("active", "on-hold")
        and "priority" in request.resource
    ]
    values = [bound.urgency[priority] for priority in given if priority in bound.urgency]
    if values:
        findings.note(remark("Bundle", "the urgency comes from a ServiceRequest's priority."))
    return max(values, default=None)
