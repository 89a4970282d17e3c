"""What a Bundle says of features, from everywhere in it; one value each, or a problem."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from api.fhir.issues import FhirError, Issue, error, remark
from api.fhir.mapping import Value

LONG_AGO = date.min


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One statement about one feature.

    Attributes:
        value: None where it was said that it is not known.
        rank: the lower it is, the more it counts (a pathological stage before a clinical one).
        day: when it is from, if it says.
    """

    modality: str
    name: str
    value: Value | None
    where: str
    rank: int = 0
    day: date | None = None


@dataclass(kw_only=True)
class Findings:
    """Gathers statements, problems and remarks while a Bundle is read."""

    said: dict[tuple[str, str], list[Finding]] = field(default_factory=dict)
    issues: list[Issue] = field(default_factory=list)

    def add(self, finding: Finding) -> None:
        """Note a statement."""
        self.said.setdefault((finding.modality, finding.name), []).append(finding)

    def note(self, *issues: Issue) -> None:
        """Note problems or remarks."""
        self.issues += issues

    def failed(self, problem: FhirError) -> None:
        """Note why a value could not be read; the rest is read on."""
        self.issues += problem.issues

    def features(self) -> dict[str, dict[str, Any]]:
        """One value a feature; contradictions become problems."""
        rows: dict[str, dict[str, Any]] = {}
        for (modality, name), found in self.said.items():
            rows.setdefault(modality, {})[name] = self._agreed(found)
        return rows

    def _agreed(self, found: Iterable[Finding]) -> Value | None:
        known = [finding for finding in found if finding.value is not None]
        if not known:
            return None
        best = min(finding.rank for finding in known)
        ranked = [finding for finding in known if finding.rank == best]
        newest = max(finding.day or LONG_AGO for finding in ranked)
        last = [finding for finding in ranked if (finding.day or LONG_AGO) == newest]
        if any(finding.value != last[0].value for finding in last):
            self.note(
                error("conflict", last[-1].where, f"it contradicts {last[0].where}; keep one.")
            )
        elif any(finding.value != last[0].value for finding in known):
            self.note(remark(last[0].where, "it was taken; older or less decisive ones differ."))
        return last[0].value
