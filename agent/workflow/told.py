"""What an explanation is made of, as plain checked records: no record names a patient.

They stand apart from the state, so that whoever shows or stores an explanation needs no graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

RESULTS: tuple[str, str] = ("negative", "positive")
"""What a result is called where the classes have no names of their own."""
Axis = Literal["grid", "budget", "urgency", "deadline", "probability", "price"]


class Told(BaseModel):
    """Base: unknown keys and infinite numbers are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Flip(Told):
    """A tested value at which the policy would have chosen another action."""

    at: float
    becomes: str


class AxisTried(Told):
    """One thing about the case that was imagined otherwise, everything else as it was.

    ``flips`` has at most the nearest tested value below and the nearest above ``now`` at which
    the action changes; empty if none of the tested values from ``low`` to ``high`` changes it.
    """

    axis: Axis
    unit: str
    now: float
    low: float
    high: float
    flips: list[Flip] = []


class Share(Told):
    """A share of ``n`` patients with its 95 % interval (Wilson)."""

    value: float = Field(ge=0, le=1)
    ci95: tuple[float, float]
    n: int = Field(ge=1)


class PeerGroup(Told):
    """How patients like this one fared in validation: same evidence, same data, near in score.

    Their scores come from models that had not seen their hospitals. With fewer than
    ``needed`` of them nothing but ``n`` is told. ``hospitals`` is None where the cohort does not
    know them.
    """

    n: int = Field(ge=0)
    needed: int
    evidence_set: str
    modalities: list[str]
    hospitals: int | None = None
    probability_low: float | None = None
    probability_high: float | None = None
    mean_probability: float | None = None
    share_positive: Share | None = None
    suggestion_right: Share | None = None


class DriftRow(Told):
    """What the watch over many cases needs of one: no value of the patient's.

    ``logit`` is of the score with clinical data alone; ``outside`` has by modality the share of
    its numbers that lie outside the training range.
    """

    present: list[str]
    logit: float
    outside: dict[str, float] = {}
    flagged: bool = False


class ShadowData(Told):
    """A silent policy's action beside the acting one's, by what was predicted of both.

    Finalising and waiting gain and emit nothing in themselves. ``by_limit``: a carbon limit, not
    the acting policy, made the case wait.
    """

    acting_action: str
    predicted_auc_gain: float = 0.0
    g_co2e: float = 0.0
    acting_predicted_auc_gain: float = 0.0
    acting_g_co2e: float = 0.0
    by_limit: bool = False


class ShadowEntry(Told):
    """What one silent policy would have done at one decision; shown in no step and no answer."""

    seq: int = Field(ge=0)
    policy: str
    acting: str
    action: str
    data: ShadowData


def class_words(classes: Sequence[str], result: str) -> str:
    """A class by its name, with which of the two it is; ``the positive class`` without a name."""
    name = dict(zip(RESULTS, classes)).get(result, result)
    return f"the {result} class" if name == result else f"{name} ({result})"
