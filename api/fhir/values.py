"""One value of an Observation as a feature has it; what is not understood is a problem."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from api.fhir.codes import UCUM
from api.fhir.issues import FhirError, error
from api.fhir.mapping import BoundRule, Code, Table, Value
from api.fhir.walk import Json, codings

VALUES = (
    "valueQuantity", "valueCodeableConcept", "valueString", "valueBoolean", "valueInteger",
    "valueRange", "valueRatio", "valueSampledData", "valueTime", "valueDateTime", "valuePeriod",
)  # fmt: skip
NOT_KNOWN = "dataAbsentReason"
ONE = "1"
PLAIN: Mapping[str, float] = {ONE: 1.0}


def held(bearer: Json, where: str) -> tuple[str, Any] | None:
    """The kind of value and the value; None where a reason stands instead.

    Raises:
        FhirError: if there is neither.
    """
    for name in VALUES:
        if name in bearer:
            return name, bearer[name]
    if NOT_KNOWN in bearer:
        return None
    raise FhirError([error("required", where, "give a value, or a dataAbsentReason.")])


def of_rule(bound: BoundRule, bearer: Json, where: str) -> Value | None:
    """What an Observation says for a feature of the map; None if it is not known.

    Raises:
        FhirError: if its unit, code or kind of value is not in the map.
    """
    found = held(bearer, where)
    if found is None:
        return None
    kind, value = found
    if bound.table is None:
        return number(kind, value, bound.rule.units, where)
    if kind != "valueCodeableConcept":
        raise FhirError([error("value", where, "give it as valueCodeableConcept with a coding.")])
    return word(bound.table, value, f"{where}.{kind}")


def number(kind: str, value: Any, units: Mapping[str, float], where: str) -> float:
    """A quantity in the feature's unit.

    Raises:
        FhirError: if it is no number, not exact, or of an unknown unit.
    """
    if kind == "valueInteger" and ONE in units:
        return finite(value, f"{where}.{kind}") * units[ONE]
    if kind != "valueQuantity" or "value" not in value:
        raise FhirError([error("value", where, "give it as valueQuantity with a value.")])
    place = f"{where}.{kind}"
    if "comparator" in value:
        raise FhirError(
            [error("value", f"{place}.comparator", "a limit is no value; give a number.")]
        )
    unit = str(value.get("code", value.get("unit", ONE)))
    if unit not in units or value.get("system", UCUM) != UCUM:
        allowed = ", ".join(sorted(units))
        raise FhirError(
            [error("code-invalid", f"{place}.code", f"the unit is not taken; one of: {allowed}.")]
        )
    given = finite(value["value"], f"{place}.value")
    # Times one would do no harm, but the number is to come out as it went in.
    return given if units[unit] == 1.0 else given * units[unit]


def finite(value: Any, where: str) -> float:
    """A number that is one.

    Raises:
        FhirError: if it is not.
    """
    try:
        if isinstance(value, int | float) and math.isfinite(value):
            return value
    except OverflowError:
        pass
    raise FhirError([error("value", where, "no number that can be worked with.")])


def word(table: Table, concept: Json, where: str) -> Value | None:
    """The word for a concept; None if its code says that nothing is known.

    Raises:
        FhirError: if no coding is in the map, or two say different things.
    """
    return coded(table, list(codings(concept)), where)


def coded(table: Table, codes: list[Code], where: str) -> Value | None:
    """The word for these codes of one thing.

    Raises:
        FhirError: if none is in the map, or two say different things.
    """
    known = [code for code in codes if code in table.word_of]
    if not known:
        systems = ", ".join(sorted({system for system, _ in table.word_of}))
        raise FhirError(
            [error("code-invalid", where, f"no coding that is in the map; systems: {systems}.")]
        )
    meant = {table.word_of[code] for code in known}
    if len(meant) > 1:
        raise FhirError([error("conflict", where, "its codings say different things.")])
    return meant.pop()


def own(is_word: bool, bearer: Json, where: str) -> Value | None:
    """A value under one of this server's own codes, as the cohort has it, without a unit.

    Raises:
        FhirError: if it is of the wrong kind or has a unit.
    """
    found = held(bearer, where)
    if found is None:
        return None
    kind, value = found
    if is_word:
        if kind != "valueString":
            raise FhirError([error("value", where, "the feature is a word; give valueString.")])
        return str(value)
    return number(kind, value, PLAIN, where)
