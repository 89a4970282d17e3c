"""What is wrong with a FHIR resource, and where; never what stood there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from api.errors import ApiError

MAX_ISSUES = 20
Severity = Literal["error", "warning", "information"]


@dataclass(frozen=True, kw_only=True)
class Issue:
    """One remark about a resource.

    Attributes:
        severity: an error refuses the whole resource, a warning says what was left out.
        code: of the value set issue-type.
        where: the place, as in FHIRPath, by names of the specification alone.
        message: what is the matter and what to do; repeats nothing that came in.
    """

    severity: Severity
    code: str
    where: str
    message: str


def error(code: str, where: str, message: str) -> Issue:
    """Something that refuses the resource."""
    return Issue(severity="error", code=code, where=where, message=message)


def warning(code: str, where: str, message: str) -> Issue:
    """Something that was left out."""
    return Issue(severity="warning", code=code, where=where, message=message)


def remark(where: str, message: str) -> Issue:
    """Something worth knowing."""
    return Issue(severity="information", code="informational", where=where, message=message)


class FhirError(ApiError, ValueError):
    """A resource that cannot be taken, or a map of features that cannot be used."""

    def __init__(self, issues: Sequence[Issue]) -> None:
        """Keep the issues; the first one is the message."""
        self.issues = tuple(issues)
        first = self.issues[0]
        more = len(self.issues) - 1
        rest = f" (and {more} more)" if more else ""
        super().__init__(f"{first.where}: {first.message}{rest}")


def refuse(issues: Iterable[Issue]) -> None:
    """Stop at errors.

    Raises:
        FhirError: with all of them, if there is one.
    """
    errors = [issue for issue in issues if issue.severity == "error"]
    if errors:
        raise FhirError(errors)


def operation_outcome(issues: Sequence[Issue]) -> dict[str, Any]:
    """The issues as FHIR has them; one that says that all went well if there is none."""
    shown = list(issues[:MAX_ISSUES]) or [remark("Bundle", "Everything was taken.")]
    if len(issues) > MAX_ISSUES:
        shown.append(remark("Bundle", f"There are {len(issues) - MAX_ISSUES} more."))
    return {
        "resourceType": "OperationOutcome",
        "issue": [
            {
                "severity": issue.severity,
                "code": issue.code,
                "diagnostics": issue.message,
                "expression": [issue.where],
            }
            for issue in shown
        ],
    }
