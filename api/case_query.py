"""What a list or an export of cases is asked for with."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from api.schemas import Body, Status
from api.store.cases import QUEUED, RUNNING
from api.store.search import CaseFilter, Order
from api.when import When

Exact = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class CaseChoice(Body):
    """Which cases, and in which order."""

    status: Annotated[list[Status], Field(max_length=8)] = Field(
        default=[], description="Any of these.", examples=[["awaiting_clinician"]]
    )
    policy: Exact | None = Field(default=None, description="That was asked for.")
    reference: Exact | None = Field(default=None, description="The caller's own, exactly.")
    unit: Exact | None = Field(default=None, description="Hospital unit, exactly.")
    session: Exact | None = Field(default=None, description="Board session, exactly.")
    q: Exact | None = Field(
        default=None, description="Somewhere in reference, unit or session; A to Z as a to z."
    )
    min_urgency: float = Field(default=0.0, ge=0, le=1, description="At least.")
    above_uncertainty: float | None = Field(
        default=None, ge=0, le=1, description="Entropy of the probability, bits; more than this."
    )
    second_review: bool | None = Field(
        default=None, description="Whether two reviewers have to agree."
    )
    created_since: When | None = Field(default=None, description="Then or later.")
    created_until: When | None = Field(default=None, description="Before.")
    sort: Order = Field(
        default="created",
        description="created: newest first; urgency: most urgent first; deadline: nearest first; "
        "uncertainty: most uncertain first. Cases without the value come last.",
    )

    def chosen(self) -> CaseFilter:
        """As the store takes it."""
        wanted: list[str] = list(self.status)
        if RUNNING in wanted:
            # A case that runs is stored as queued until it rests.
            wanted.append(QUEUED)
        return CaseFilter(
            status=wanted,
            policy=self.policy,
            reference=self.reference,
            unit=self.unit,
            session=self.session,
            text=self.q,
            min_urgency=self.min_urgency,
            above_uncertainty=self.above_uncertainty,
            second_review=self.second_review,
            since=self.created_since,
            until=self.created_until,
        )


class CaseQuery(CaseChoice):
    """A page of cases."""

    limit: int = Field(default=50, ge=1, le=200, description="Cases on a page.")
    cursor: Annotated[str, StringConstraints(min_length=1, max_length=300)] | None = Field(
        default=None, description="``next_cursor`` of the page before."
    )
