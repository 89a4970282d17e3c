"""What the graph remembers of a case: plain JSON values, validated where each node puts them out.

The state is a TypedDict of JSON-able values, so that a checkpoint holds no Python object. LangGraph
validates a typed state at node *inputs* only; here every node returns one of the records in
:mod:`agent.workflow.outputs`, and constructing that is the validation. Feature values of the
patient are not part of the state: the nodes ask for them, so that no checkpoint and no event can
leak one.

A checkpoint is written at every step, so the state stays small: ``events``, ``charges`` and
``shadow`` hold only what the last step added (``next_event`` counts the events), and what the
explanation needs of earlier steps is kept in ``spent`` and ``waits``. Whoever runs the graph keeps
the rest; after a crash :func:`agent.workflow.run.recover` reads it from the checkpoints.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, TypedDict

from pydantic import BaseModel, ConfigDict, Field

from agent.workflow.told import AxisTried, DriftRow, PeerGroup

EventKind = Literal[
    "intake", "carbon", "assessment", "choice", "transfer",
    "deferral", "wake", "explanation", "opinion", "request", "unreliable", "urgency", "parked",
    "decision", "record",
]  # fmt: skip
EnergyBasis = Literal["measured", "modelled"]
IntensityKind = Literal["measured", "forecast", "estimated", "fallback"]
DecisionAction = Literal["accept", "override", "send_back"]
ReasonCode = Literal[
    "clinical_judgement", "new_information", "data_quality", "outside_scope",
    "missing_data", "wrong_data", "other",
]  # fmt: skip
RESULTS = ("negative", "positive")
OF_ONE_STEP = ("events", "charges", "shadow")
"""Channels that hold only what the last step added."""


class Record(BaseModel):
    """Base of everything in the state: unknown keys and infinite numbers are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Reading(Record):
    """A grid carbon intensity with its provenance, g CO2e per kWh."""

    g_per_kwh: float = Field(ge=0)
    zone: str
    time: datetime
    basis: str
    provider: str
    kind: IntensityKind
    age_s: float
    uncertainty_g_per_kwh: float | None = None
    note: str = ""


class CarbonView(Record):
    """What was known of the grid when the case was looked at.

    ``forecast_g_per_kwh`` has one value a clock hour from ``forecast_from`` on; it is empty, with
    the reason in ``forecast_note``, where no source has a forecast. ``forecast_se_g_per_kwh`` has
    their standard errors and ``forecast_methods`` how they came about, in the sources' words.
    ``relative_uncertainty`` is one standard error of the furthest forecast over its value, and
    ``uncertainty_note`` says whether a source gave it or it was assumed as in training.
    """

    now: Reading
    forecast_from: datetime | None = None
    forecast_g_per_kwh: tuple[float, ...] = ()
    forecast_se_g_per_kwh: tuple[float | None, ...] = ()
    forecast_methods: tuple[str, ...] = ()
    forecast_note: str = ""
    relative_uncertainty: float = Field(ge=0)
    uncertainty_note: str = ""


class AssessmentRecord(Record):
    """The student's view of the case with the evidence gathered so far.

    ``conformal_set`` names the classes that cannot be ruled out at ``conformal_level``, and
    ``contributions`` what leaving a modality out would take off the log-odds. Cases of earlier
    versions lack all three; a level of None means that nothing is ruled out.
    """

    probability: float = Field(ge=0, le=1)
    logit: float
    disagreement: float = Field(ge=0)
    processed: list[str]
    missing: list[str]
    token_logit: dict[str, float] = {}
    attention: dict[str, float] = {}
    conformal_set: list[str] = []
    conformal_level: float | None = None
    contributions: dict[str, float] = {}


class Option(Record):
    """One action that was open, or not, with what it was expected to bring and to cost."""

    action: str
    allowed: bool
    predicted_auc_gain: float | None = None
    energy_kwh: float | None = None
    g_co2e: float | None = None
    wait_h: float | None = None


class Choice(Record):
    """The action that the policy took and why."""

    action: str
    reason: str
    policy: str


class Figure(Record):
    """A number with its 95 % interval, None where its error is not known."""

    value: float
    ci95: tuple[float, float] | None
    n: int = 1


class Plan(Record):
    """When a deferred case is to be looked at again, and what the wait is expected to bring.

    What follows the intensities is missing (None or empty) in plans of earlier versions only.
    ``limit`` is the moment by which the work has to be over, ``latest_start`` is that less the
    work's duration, or where the forecast ends. ``by_limit``: a carbon limit makes the case wait,
    not the hope for a cleaner hour.
    """

    wake_at: datetime
    wait_h: float = Field(gt=0)
    intensity_now_g_per_kwh: float
    intensity_expected_g_per_kwh: float
    transfer: str | None = None
    duration_h: float | None = None
    duration_assumed: bool = False
    energy_kwh: float | None = None
    latest_start: datetime | None = None
    limit: datetime | None = None
    now_g_co2e: Figure | None = None
    planned_g_co2e: Figure | None = None
    saved_g_co2e: Figure | None = None
    forecast: list[str] = []
    why: str = ""
    by_limit: bool = False


class Charge(Record):
    """Energy spent on the case and the carbon that it stands for; unmeasured is None with reason.

    ``stage`` is unique within a case, so that a node run twice after a crash is charged once.
    """

    stage: str
    time: datetime
    energy_kwh: float | None
    energy_basis: EnergyBasis
    energy_source: str
    reason: str | None = None
    intensity: Reading
    g_co2e: float | None


SCORING = "inference:"
"""Stages that score the case begin so; those that run a pipeline for it name the transfer."""


class Spent(Record):
    """What the case has taken so far; ``unmeasured`` has the stages without a figure and why.

    ``assessments`` numbers the times that it was scored.
    """

    assessments: int = 0
    energy_kwh_modelled: float = 0.0
    energy_kwh_measured: float = 0.0
    g_co2e: float = 0.0
    unmeasured: list[str] = []

    def plus(self, charge: Charge) -> Spent:
        """With one more charge."""
        kwh, modelled = charge.energy_kwh or 0.0, charge.energy_basis == "modelled"
        missing = [] if charge.energy_kwh is not None else [f"{charge.stage}: {charge.reason}"]
        return Spent(
            assessments=self.assessments + charge.stage.startswith(SCORING),
            energy_kwh_modelled=self.energy_kwh_modelled + (kwh if modelled else 0.0),
            energy_kwh_measured=self.energy_kwh_measured + (0.0 if modelled else kwh),
            g_co2e=self.g_co2e + (charge.g_co2e or 0.0),
            unmeasured=[*self.unmeasured, *missing],
        )


class Waited(Record):
    """One wait of the case: what was planned, who ended it, and the grid that it then met."""

    plan: Plan
    woken_at: datetime | None = None
    by: str | None = None
    met_g_per_kwh: float | None = None
    met_kind: IntensityKind | None = None


class ModalityWeight(Record):
    """How much one processed modality counted for this patient, and how complete it was.

    ``contribution_log_odds`` is exact: the change that leaving the modality and its bridges out
    would undo. ``attention`` is where the student looked, which need not be what moved it.
    """

    contribution_log_odds: float
    attention: float
    quality: float | None


class Explanation(Record):
    """Deterministic text and figures for the person who decides.

    ``contributions`` is what each token says alone, ``weighting`` what each modality counted for.
    ``changes`` says what would have changed the last choice, ``steps`` what was done, in order,
    ``drift`` how the case is unlike the training patients, ``requested`` who asked for what,
    ``watched`` what the watch over many cases keeps of this one, ``classes`` the names of the
    negative and the positive class where they have names.
    """

    suggestion: Literal["negative", "positive"]
    probability: float
    probability_clinical_only: float
    lines: list[str]
    contributions: dict[str, float]
    missing: list[str]
    energy_kwh_modelled: float
    energy_kwh_measured: float
    g_co2e: float
    unmeasured: list[str] = []
    cautions: list[str] = []
    conformal_set: list[str] = []
    conformal_level: float | None = None
    weighting: dict[str, ModalityWeight] = {}
    second_review: bool = False
    uncertainty_bits: float | None = None
    classes: list[str] = []
    steps: list[str] = []
    changes: list[AxisTried] = []
    peers: PeerGroup | None = None
    drift: list[str] = []
    unreliable: list[str] = []
    requested: list[str] = []
    watched: DriftRow | None = None


class Decision(Record):
    """What the clinician decided; ``reviewer`` comes from the key that was used."""

    action: DecisionAction
    result: Literal["negative", "positive"] | None = None
    reason_code: ReasonCode | None = None
    comment: str = ""
    reviewer: str
    decided_at: datetime
    round: int = 0


class Opinion(Record):
    """What one reviewer holds of a case that takes two; ``result`` is None without a suggestion."""

    reviewer: str
    decided_at: datetime
    action: Literal["accept", "override"]
    result: Literal["negative", "positive"] | None
    reason_code: ReasonCode | None = None
    comment: str = ""
    round: int = 0


class Failure(Record):
    """Why a case is parked; ``reason`` never quotes a value of the patient's data."""

    node: str
    error: str
    reason: str


class Outcome(Record):
    """How the review ended, and the opinions of a case that took two reviewers."""

    status: Literal["recorded", "sent_back"]
    result: Literal["negative", "positive"] | None
    decision: Decision
    opinions: list[Opinion] = []


class Event(Record):
    """One step of the case, in order; ``data`` depends on ``kind``."""

    seq: int = Field(ge=0)
    kind: EventKind
    time: datetime
    data: dict[str, Any]


NOTHING_SPENT = Spent().model_dump(mode="json")


class CaseState(TypedDict, total=False):
    """The graph's channels; every value is what ``model_dump(mode="json")`` gives."""

    case: str
    urgency: float
    deadline: str | None
    policy: str
    policy_fallback: str | None
    seen_in_training: bool | None
    session: str | None
    limit_notes: list[str]
    present: list[str]
    quality: dict[str, float]
    cautions: list[str]
    transfers_run: list[str]
    deferred: bool
    carbon: dict[str, Any]
    assessment: dict[str, Any]
    probability_clinical_only: float
    choice: dict[str, Any]
    plan: dict[str, Any] | None
    explanation: dict[str, Any]
    decision: dict[str, Any]
    outcome: dict[str, Any]
    onward: str
    answered: int
    asked: dict[str, Any] | None
    opinions: list[dict[str, Any]]
    failure: dict[str, Any] | None
    next_event: int
    spent: dict[str, Any]
    waits: list[dict[str, Any]]
    told: list[str]
    changes: list[dict[str, Any]]
    requests: list[dict[str, Any]]
    unreliable: list[str]
    charges: list[dict[str, Any]]
    events: list[dict[str, Any]]
    shadow: list[dict[str, Any]]


def new_case(
    case: str,
    *,
    policy: str,
    urgency: float = 0.0,
    deadline: datetime | None = None,
    seen_in_training: bool | None = None,
    session: str | None = None,
) -> CaseState:
    """The state that a review starts from; ``case`` is an opaque id, never a patient's.

    ``session`` names the board's session, whose limits the case counts towards.
    """
    known = {
        "deadline": deadline.isoformat() if deadline else None,
        "seen_in_training": seen_in_training,
        "session": session,
    }
    state = CaseState(case=case, urgency=urgency, policy=policy, spent=NOTHING_SPENT)
    state.update({k: v for k, v in known.items() if v is not None})  # type: ignore[typeddict-item]
    return state


def next_seq(state: CaseState) -> int:
    """The number of the event that comes next."""
    return state.get("next_event", 0)
