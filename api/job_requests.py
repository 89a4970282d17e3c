"""What background jobs are asked for, and what callers read of them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints, model_validator

from api.schemas import RESEARCH_USE, Body, Out
from api.when import When

JobKind = Literal["comparison", "carbon_account", "shadow"]
JobStatus = Literal["queued", "running", "done", "failed", "cancelled"]
MOST_POLICIES = 8
DEFAULT_POLICIES = ("never", "rule", "price", "planner", "always-everything")
PolicyName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9:>._-]{1,100}$")]
Words = Annotated[str, StringConstraints(min_length=1, max_length=300, pattern=r"^[ -~¡-ÿ]+$")]
Figures = Annotated[str, StringConstraints(max_length=100, pattern=r"^[0-9.:eE+-]+$")]
JOB_ID = "0f9d2c5e9b8e4c3a9d7e2f1a0b3c4d5e"


def whole(value: object) -> object:
    """A whole number as JSON knows it: 2.0 is one; true and "2" are none."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("write a whole number")
    return value


class ComparisonRequest(Body):
    """A comparison of policies on the bundle that is active when the job begins."""

    policies: Annotated[list[PolicyName], Field(min_length=1, max_length=MOST_POLICIES)] = Field(
        default=list(DEFAULT_POLICIES),
        description="Names from GET /v1/policies. None is trained here: the command line does.",
    )
    env: Literal[
        "greenboard/CaseReviewOneShot-v1",
        "greenboard/CaseReviewSequential-v1",
        "greenboard/CaseReview-v1",
    ] = Field(default="greenboard/CaseReview-v1", description="Rules of the sessions.")
    preset: Literal["default", "hard", "batched", "swing"] | None = Field(
        default=None, description="Settings of the sessions."
    )
    budget: float | None = Field(
        default=None, gt=0, le=1, description="Share of always processing everything."
    )
    sessions: Annotated[int, Field(ge=2, le=200), BeforeValidator(whole)] = Field(
        default=20, description="More take longer, and tell apart more."
    )
    seed: Annotated[int, Field(ge=0, le=2**31 - 1), BeforeValidator(whole)] = 0

    @model_validator(mode="after")
    def _each_once(self) -> ComparisonRequest:
        if len(set(self.policies)) != len(self.policies):
            raise ValueError("'policies' names one of them twice; name each once")
        return self


class ComparisonReport(ComparisonRequest):
    """The same, asked for as a report."""

    kind: Literal["comparison"]


class AccountReport(Body):
    """The carbon account of this server's reviews, as a page with its plots."""

    kind: Literal["carbon_account"]
    by: Literal["stage", "case", "policy", "unit", "session", "all"] = "stage"
    heat: Figures | None = Field(default=None, description="Recovered heat r:u:h.")
    heat_source: Words | None = Field(default=None, description="Where h comes from.")
    heat_scope: Literal["direct", "life"] = "direct"
    hardware: Figures | None = Field(default=None, description="Embodied carbon KG:HOURS.")
    hardware_source: Words | None = Field(default=None, description="Where the KG come from.")
    since: When | None = Field(default=None, description="With a time zone.")
    until: When | None = Field(default=None, description="With a time zone.")


class ShadowReport(Body):
    """What policies that decided nothing would have done, beside what was done."""

    kind: Literal["shadow"]
    since: When | None = Field(default=None, description="With a time zone.")
    until: When | None = Field(default=None, description="With a time zone.")


ReportRequest = Annotated[
    ComparisonReport | AccountReport | ShadowReport, Field(discriminator="kind")
]
COMPARISON_EXAMPLES: dict[str, Any] = {
    "small": {"value": {"policies": ["never", "rule", "price"], "sessions": 10}},
    "default": {"value": {}},
}
REPORT_EXAMPLES: dict[str, Any] = {
    "comparison": {"value": {"kind": "comparison", "policies": ["rule", "price"], "sessions": 10}},
    "carbon_account": {"value": {"kind": "carbon_account", "by": "policy", "heat": "0.6:0.9:203"}},
    "shadow": {"value": {"kind": "shadow"}},
}


class JobFile(Out):
    """One file that a job wrote."""

    name: str = Field(examples=["report.html"])
    media_type: str
    bytes: int
    sha256: str
    href: str


class JobView(Out):
    """A background job."""

    id: str = Field(examples=[JOB_ID])
    kind: JobKind
    status: JobStatus
    progress: float = Field(ge=0, le=1, description="0 to 1; reaches 1 when it is done.")
    message: str | None = Field(description="What is being done at present.")
    created_at: datetime
    updated_at: datetime
    created_by: str
    request: dict[str, Any] = Field(description="What was asked for, defaults filled in.")
    bundle: str | None = Field(description="The bundle that it worked on, once it began.")
    synthetic: bool | None = Field(description="That bundle is of a synthetic cohort.")
    failure: str | None = Field(description="Why it came to nothing.")
    files: list[JobFile] = Field(description="Results; the oldest jobs' are removed in time.")
    notice: str = RESEARCH_USE
    links: dict[str, str]


class JobPage(Out):
    """A page of jobs, newest first."""

    jobs: list[JobView]
    next_cursor: str | None
