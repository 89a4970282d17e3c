"""RFC 9457 problem details as they go out."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

URN = "urn:problem-type:greenboard:"


class Problem(BaseModel):
    """RFC 9457 problem details."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "type": URN + "already-decided",
                    "title": "The case has a decision",
                    "status": 409,
                    "detail": "A decision was recorded before yours; read the case to see it.",
                    "instance": "/v1/cases/6f1c0c5e9b8e4c3a9d7e2f1a0b3c4d5e/decision",
                }
            ]
        },
    )

    type: str
    title: str
    status: int
    detail: str
    instance: str
    errors: list[dict[str, str]] = Field(default_factory=list)
