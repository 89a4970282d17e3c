"""Is this FHIR R4? Structure by the library; code sets, dates and invariants here.

The library (``fhirkit``) knows every element and type of R4 and says where something is wrong. It
takes any code, impossible days such as 30 February and any id: those are looked at here. Some of
its messages repeat what came; none of those is passed on.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any

from api.fhir.codes import BOUND, COMPLETE, WRITTEN
from api.fhir.issues import MAX_ISSUES, FhirError, Issue, error
from api.fhir.walk import Json, objects, parts

NOT_VALID = re.compile(r"is not a (?:valid|FHIR) (\w+)$|outside the .* range of a FHIR (\w+)$")
SAFE = (
    "required element missing",
    "expected ",
    "an empty ",
    "null is not allowed",
    "only one type may be given",
    "a resource needs a resourceType",
)
"""Beginnings of the library's messages that hold names of the specification alone."""
FHIR_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")
DAY = re.compile(r"\d{4}-\d\d-\d\d")
DATES = frozenset(
    {
        "birthDate", "effectiveDateTime", "effectiveInstant", "end", "issued", "lastUpdated",
        "occurrenceDateTime", "onsetDateTime", "recorded", "recordedDate", "start", "time",
        "timestamp", "valueDateTime",
    }
)  # fmt: skip


def parse(data: bytes) -> Json:
    """Read a resource of any type.

    Raises:
        FhirError: if it is no JSON, nested too deeply, or not FHIR R4.
    """
    import fhirkit  # noqa: PLC0415  # a server that never sees FHIR need not load it

    try:
        found = fhirkit.validate(data)
    except fhirkit.ParseError as problem:
        deep = "nested too deeply" in str(problem)
        what = "it is nested too deeply" if deep else "it is not JSON in UTF-8"
        raise FhirError([error("structure", "Resource", f"{what}; send one resource.")]) from None
    issues = [_told(issue.path, issue.message) for issue in found if issue.severity == "error"]
    if issues:
        raise FhirError(issues[:MAX_ISSUES])
    return _plain(data)


def check_structure(resource: Json) -> list[Issue]:
    """What the library finds in a resource that was made here."""
    import fhirkit  # noqa: PLC0415

    return [_told(issue.path, issue.message) for issue in fhirkit.validate(dict(resource))]


def _plain(data: bytes) -> Json:
    def refuse(_: str) -> Any:
        raise ValueError("not a number of JSON")

    try:
        value: Json = json.loads(data, parse_constant=refuse)
    except (ValueError, RecursionError):
        # What the library lets pass: numbers of thousands of digits.
        raise FhirError(
            [error("value", "Resource", "it holds a number that is too long; round it.")]
        ) from None
    return value


def _told(path: str, message: str) -> Issue:
    """The library's remark without anything that came in."""
    if message == "unknown element":
        return error("structure", _above(path), "R4 has no such element; leave it out.")
    if message.startswith("the key appears more than once"):
        return error("structure", _above(path), "an element appears more than once; keep one.")
    kind = NOT_VALID.search(message)
    if kind:
        return error("value", path, f"not a valid {kind[1] or kind[2]}.")
    if message.startswith(SAFE):
        return error("structure", path, message + ".")
    return error("invalid", path, "not valid FHIR R4.")


def _above(path: str) -> str:
    """The place without its last name, which the sender may have made up."""
    return f"{path.rpartition('.')[0] or 'Resource'}.?"


def check_codes(resource: Json, where: str) -> Iterator[Issue]:
    """Required bindings, and codings of systems that are known in full."""
    kind = str(resource.get("resourceType"))
    for path, allowed in BOUND.get(kind, {}).items():
        for place, value in parts(resource, path, where):
            if value not in allowed:
                yield error(
                    "code-invalid", place, f"no code of the value set; one of {_list(allowed)}."
                )
    for place, here in objects(resource, where):
        yield from _check_coding(place, here)
        yield from _check_day(place, here)
        if "resourceType" in here and not _good_id(here.get("id")):
            yield error("value", f"{place}.id", "ids take 1 to 64 of A-Z a-z 0-9 - and '.'.")


def _good_id(value: object) -> bool:
    return value is None or (isinstance(value, str) and FHIR_ID.fullmatch(value) is not None)


def _check_coding(where: str, here: Json) -> Iterator[Issue]:
    allowed = COMPLETE.get(str(here.get("system")))
    if allowed is not None and "code" in here and here["code"] not in allowed:
        yield error("code-invalid", f"{where}.code", f"no code of its system: {_list(allowed)}.")


def _check_day(where: str, here: Json) -> Iterator[Issue]:
    for name in DATES & here.keys():
        value = here[name]
        day = DAY.match(value) if isinstance(value, str) else None
        if day is not None:
            try:
                date.fromisoformat(day[0])
            except ValueError:
                yield error("value", f"{where}.{name}", "there is no such day.")


def _list(allowed: frozenset[str]) -> str:
    return ", ".join(sorted(allowed))


def check_bundle(bundle: Json) -> list[Issue]:
    """Everything about a Bundle that leaves this server; empty if nothing is wrong.

    Structure, code sets, that only known codes of large systems are written, that references
    resolve inside the Bundle, that nothing is there twice, and the invariants of the resources.
    """
    issues = check_structure(bundle)
    urls = [entry.get("fullUrl") for entry in bundle.get("entry", ())]
    if len(set(urls)) != len(urls):
        issues.append(error("duplicate", "Bundle.entry", "two entries have one fullUrl (bdl-7)."))
    for i, entry in enumerate(bundle.get("entry", ())):
        where, resource = f"Bundle.entry[{i}].resource", entry["resource"]
        issues += check_codes(resource, where)
        issues += _check_written(resource, where)
        issues += _check_references(resource, where, frozenset(map(str, urls)))
        check = INVARIANTS.get(resource["resourceType"])
        issues += check(resource, where) if check else ()
    return [*check_codes({**bundle, "entry": []}, "Bundle"), *issues]


def _check_written(resource: Json, where: str) -> Iterator[Issue]:
    for place, here in objects(resource, where):
        allowed = WRITTEN.get(str(here.get("system")))
        if allowed is not None and "code" in here and here["code"] not in allowed:
            yield error("code-invalid", f"{place}.code", "no code that this server writes.")


def _check_references(resource: Json, where: str, urls: frozenset[str]) -> Iterator[Issue]:
    for place, here in objects(resource, where):
        target = here.get("reference")
        if isinstance(target, str) and target not in urls:
            yield error("not-found", f"{place}.reference", "nothing in the Bundle has this url.")


def _check_risk(resource: Json, where: str) -> Iterator[Issue]:
    for place, value in parts(resource, "prediction.probabilityDecimal", where):
        if not (isinstance(value, int | float) and math.isfinite(value) and 0 <= value <= 100):
            yield error("invariant", place, "a probability is 0 to 100 (ras-2).")


def _check_observation(resource: Json, where: str) -> Iterator[Issue]:
    bearers: list[tuple[str, Any]] = [(where, resource), *parts(resource, "component", where)]
    for place, here in bearers:
        if "dataAbsentReason" in here and _has_value(here):
            yield error("invariant", place, "a value and a reason why there is none (obs-6).")


def _check_provenance(resource: Json, where: str) -> Iterator[Issue]:
    for place, agent in parts(resource, "agent", where):
        if "who" not in agent:
            yield error("required", f"{place}.who", "an agent is somebody.")


def _has_value(here: Mapping[str, Any]) -> bool:
    return any(name.startswith("value") for name in here)


INVARIANTS = {
    "RiskAssessment": _check_risk,
    "Observation": _check_observation,
    "Provenance": _check_provenance,
}
