"""A Bundle that came in: checked, and its entries by type, url and reference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from api.fhir.issues import FhirError, Issue, error, refuse, remark
from api.fhir.validate import check_codes, parse
from api.fhir.walk import Json, objects

MAX_ENTRIES = 2000
MAX_OBJECTS = 60_000
ACCEPTED = ("collection", "document", "searchset", "transaction", "batch")
ORDERS = ("transaction", "batch")
SENT = ("POST", "PUT")
"""Orders that bring a resource along; nothing is deleted or looked up here."""
READ = ("Patient", "Condition", "Observation", "DiagnosticReport", "ServiceRequest")
"""Types that features come from; entries of others are counted and left."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One resource of the Bundle, and where it stands."""

    where: str
    url: str | None
    resource: Json

    @property
    def kind(self) -> str:
        """Its type."""
        return str(self.resource["resourceType"])

    @property
    def names(self) -> tuple[str, ...]:
        """What references call it."""
        ident = self.resource.get("id")
        local = (f"{self.kind}/{ident}",) if ident else ()
        return (self.url, *local) if self.url else local


@dataclass(frozen=True, kw_only=True)
class Incoming:
    """The Bundle's resources that are read, every reference looked up."""

    bundle: Json
    patient: Entry
    entries: tuple[Entry, ...]
    remarks: tuple[Issue, ...]

    def of(self, kind: str) -> tuple[Entry, ...]:
        """Entries of a type, in order."""
        return tuple(entry for entry in self.entries if entry.kind == kind)

    @cached_property
    def _by_name(self) -> dict[str, Entry]:
        return {name: entry for entry in self.entries for name in entry.names}

    def target(self, reference: Any) -> Entry | None:
        """What a reference points to; None if that is not in the Bundle."""
        name = reference.get("reference") if isinstance(reference, dict) else None
        # There is one version of anything here.
        return self._by_name.get(name.partition("/_history/")[0]) if isinstance(name, str) else None


def open_bundle(data: bytes) -> Incoming:
    """Read and check a Bundle.

    Raises:
        FhirError: with everything that is wrong with it.
    """
    bundle = parse(data)
    refuse(_check_kind(bundle))
    entries = list(_entries(bundle))
    refuse(_check_size(bundle, entries))
    refuse([issue for entry in entries for issue in _check_entry(entry)])
    refuse([*check_codes({**bundle, "entry": []}, "Bundle"), *_check_unique(entries)])
    patients = [entry for entry in entries if entry.kind == "Patient"]
    if len(patients) != 1:
        many = f"{len(patients)} Patients; a Bundle is about exactly one."
        raise FhirError([error("business-rule", "Bundle.entry", many)])
    left = Counter(entry.kind for entry in entries if entry.kind not in READ)
    told = ", ".join(f"{n} {kind}" for kind, n in sorted(left.items()))
    remarks = [remark("Bundle.entry", f"Types that are not read: {told}.")] if left else []
    if bundle["type"] in ORDERS:
        remarks.append(remark("Bundle.type", "it is read; its resources are not stored here."))
    incoming = Incoming(
        bundle=bundle,
        patient=patients[0],
        entries=tuple(entry for entry in entries if entry.kind in READ),
        remarks=tuple(remarks),
    )
    refuse([issue for entry in incoming.entries for issue in _check_links(incoming, entry)])
    return incoming


def _check_kind(bundle: Json) -> Iterator[Issue]:
    if bundle.get("resourceType") != "Bundle":
        yield error("structure", "Resource", "send a Bundle.")
        return
    if bundle.get("type") not in ACCEPTED:
        yield error("not-supported", "Bundle.type", f"take one of {', '.join(ACCEPTED)}.")
    count = len(bundle.get("entry", ()))
    if not 1 <= count <= MAX_ENTRIES:
        yield error("too-long", "Bundle.entry", f"{count} entries; 1 to {MAX_ENTRIES} are taken.")


def _entries(bundle: Json) -> Iterator[Entry]:
    for i, entry in enumerate(bundle["entry"]):
        where = f"Bundle.entry[{i}]"
        if "resource" not in entry:
            raise FhirError([error("required", f"{where}.resource", "an entry needs a resource.")])
        method = entry.get("request", {}).get("method", SENT[0])
        if bundle["type"] in ORDERS and method not in SENT:
            place = f"{where}.request.method"
            raise FhirError([error("not-supported", place, f"one of {', '.join(SENT)} is read.")])
        yield Entry(where=f"{where}.resource", url=entry.get("fullUrl"), resource=entry["resource"])


def _check_size(bundle: Json, entries: list[Entry]) -> Iterator[Issue]:
    if sum(1 for _ in objects(bundle, "Bundle")) > MAX_OBJECTS:
        yield error("too-costly", "Bundle", f"more than {MAX_OBJECTS} elements; send fewer.")
    for entry in entries:
        if entry.kind == "Bundle":
            yield error(
                "not-supported", entry.where, "a Bundle inside a Bundle; send it by itself."
            )


def _check_entry(entry: Entry) -> Iterator[Issue]:
    if entry.kind not in READ:
        return
    yield from check_codes(entry.resource, entry.where)
    if "contained" in entry.resource:
        where = f"{entry.where}.contained"
        yield error("not-supported", where, "make contained resources entries of the Bundle.")
    if "implicitRules" in entry.resource:
        yield error(
            "not-supported", f"{entry.where}.implicitRules", "the rules are not known here."
        )
    for where, here in objects(entry.resource, entry.where):
        if "modifierExtension" in here:
            # Who does not understand one must not use what it modifies (FHIR R4, 2.4.0.1).
            yield error("extension", f"{where}.modifierExtension", "it is not understood here.")


def _check_unique(entries: list[Entry]) -> Iterator[Issue]:
    seen: set[str] = set()
    for entry in entries:
        for name in entry.names:
            if name in seen:
                yield error("duplicate", entry.where, "its fullUrl or its type and id come twice.")
            seen.add(name)


def _check_links(incoming: Incoming, entry: Entry) -> Iterator[Issue]:
    """That a resource is about the Bundle's patient and leans on nothing outside."""
    if entry.kind == "Patient":
        return
    where = f"{entry.where}.subject"
    if "subject" not in entry.resource:
        yield error("required", where, "say that it is about the Bundle's Patient.")
    elif incoming.target(entry.resource["subject"]) is not incoming.patient:
        yield error("not-found", where, "it is not the Bundle's Patient; nothing else is followed.")
    inside = [("result", entry.resource.get("result", []))]
    for i, stage in enumerate(entry.resource.get("stage", ())):
        inside.append((f"stage[{i}].assessment", stage.get("assessment", [])))
    for path, references in inside:
        for i, reference in enumerate(references):
            if incoming.target(reference) is None:
                yield error(
                    "not-found", f"{entry.where}.{path}[{i}]",
                    "it is not in the Bundle; references to outside are not followed.",
                )  # fmt: skip
