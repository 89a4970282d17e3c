"""The whole record of a case as it goes out, and its part of the audit log."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from api.schemas import RESEARCH_USE, CaseView, Out

FORMAT: Literal["greenboard-case/1"] = "greenboard-case/1"


class AuditRow(Out):
    """One row of the audit log."""

    seq: int
    time: datetime
    actor: str
    action: str
    detail: dict[str, Any]
    previous: str = Field(description="Hash of the row before it in the whole log.")
    hash: str = Field(description="SHA-256 of this row and of the hash before.")
    intact: bool = Field(description="Whether the row is as it was written.")


class AuditTrail(Out):
    """Who did what to a case."""

    case: str
    rows: list[AuditRow]
    intact: bool = Field(
        description="Each of these rows is as it was written. That none is missing is checked over "
        "the whole log: GET /v1/audit."
    )


class StepRow(Out):
    """One step of the case."""

    seq: int
    kind: str
    time: datetime
    data: dict[str, Any]


class ActionRow(Out):
    """What a clinician did."""

    round: int
    reviewer: str
    at: datetime
    action: dict[str, Any]


class ChargeRow(Out):
    """Energy and emissions of one stage."""

    stage: str
    kind: str
    time: datetime
    energy_kwh: float | None
    energy_basis: str
    energy_source: str
    reason: str | None
    intensity: dict[str, Any]
    g_co2e: float | None


class ShadowRow(Out):
    """What a policy that decides nothing would have done."""

    seq: int
    policy: str
    acting: str
    action: str
    data: dict[str, Any]


class CaseExport(Out):
    """Everything that the record holds."""

    format: Literal["greenboard-case/1"] = "greenboard-case/1"
    exported_at: datetime
    exported_by: str
    case: CaseView
    features: dict[str, Any] | None = Field(description="As they were posted.")
    steps: list[StepRow]
    actions: list[ActionRow]
    ledger: list[ChargeRow]
    shadow: list[ShadowRow]
    audit: AuditTrail
    notice: str = RESEARCH_USE
