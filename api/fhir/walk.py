"""Getting at parts of resources that are plain JSON, with the place of each part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Json = Mapping[str, Any]


def parts(here: Any, path: str, where: str) -> Iterator[tuple[str, Any]]:
    """All that stands at ``a.b.c`` below ``here``, through lists, with its place."""
    if isinstance(here, list):
        for i, item in enumerate(here):
            yield from parts(item, path, f"{where}[{i}]")
    elif not path:
        yield where, here
    elif isinstance(here, Mapping):
        name, _, rest = path.partition(".")
        if name in here:
            yield from parts(here[name], rest, f"{where}.{name}")


def objects(here: Any, where: str) -> Iterator[tuple[str, Json]]:
    """Every object from here down, with its place."""
    if isinstance(here, Mapping):
        yield where, here
        for name, value in here.items():
            if isinstance(value, Mapping | list):
                yield from objects(value, f"{where}.{name}")
    elif isinstance(here, list):
        for i, item in enumerate(here):
            yield from objects(item, f"{where}[{i}]")


def codings(concept: Any) -> Iterator[tuple[str, str]]:
    """System and code of each coding of a CodeableConcept that has both."""
    if not isinstance(concept, Mapping):
        return
    for coding in concept.get("coding") or ():
        system, code = coding.get("system"), coding.get("code")
        if isinstance(system, str) and isinstance(code, str):
            yield system, code


def has_code(concept: Any, system: str, *codes: str) -> bool:
    """Whether one of the concept's codings is one of these."""
    return any(s == system and c in codes for s, c in codings(concept))
