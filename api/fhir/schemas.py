"""What the FHIR routes answer in this server's own JSON."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from api.schemas import CaseView, Out


class IssueView(Out):
    """A remark about a resource that came in."""

    severity: Literal["error", "warning", "information"]
    code: str = Field(description="Of the value set issue-type.")
    where: str = Field(description="Place in the Bundle, as in FHIRPath.")
    message: str


class IntakeView(Out):
    """The case that a Bundle became, and what of the Bundle went into it."""

    case: CaseView
    mapped: dict[str, int] = Field(description="Known features by modality.")
    unmapped: list[IssueView] = Field(description="What no feature comes from.")
    notes: list[IssueView] = Field(description="What was understood in a way worth knowing.")
