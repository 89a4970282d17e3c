"""What the action-scoring network reads of an observation: the same for every cohort's layout.

The network sees the context (the case, the grid, the session) and, for each transfer, that
transfer's own features. Nothing is read by its place among one cohort's modalities, so a network
trained on one cohort scores the transfers of another. A few ratios that a small network finds hard
are worked out here; everything is float32 and fixed, nothing is fitted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int64

from envs.config import LEADS_H
from envs.observation import VERSION, ObservationLayout

FEATURES_VERSION = 1
LEAD_FIELDS = tuple(f"intensity_lead_{h}h" for h in LEADS_H)
CONTEXT = (
    "probability", "entropy", "disagreement", "logit", "urgency", "slack_h", "deferred",
    "intensity_now", *LEAD_FIELDS, "intensity_uncertainty",
    "budget_left", "budget_left_g_co2e", "time_left", "cases_left", "waiting", "to_come", "ahead",
    "slots_left_now", "slots_left",
)  # fmt: skip
"""Fields of the context, scaled as the observation has them."""
RATIOS = (
    "budget_per_case", "slots_per_case", "share_ahead",
    *(f"relative_{name}" for name in LEAD_FIELDS),
)  # fmt: skip
"""Ratios added to the context."""
ACTION_GROUPS = ("gain", "energy", "g_co2e", "setup", "sharing", "run")
MODALITY_GROUPS = ("present", "quality", "processed")
ACTION = (
    *ACTION_GROUPS,
    *(f"{group}_source" for group in MODALITY_GROUPS),
    *(f"{group}_target" for group in MODALITY_GROUPS),
)
"""Fields of one transfer; its emissions, in units of 250 g and not as a root, are added."""
N_OTHER = 2
"""Finalise and defer: what is advised of them is part of the context."""
N_CONTEXT = len(CONTEXT) + len(RATIOS) + N_OTHER
N_ACTION = len(ACTION) + 2

BUDGET_PER_CASE = (10_000.0 / 250.0) / 64.0
SLOTS_PER_WAITING = 64.0 / 16.0
TO_COME_PER_WAITING = 64.0 / 16.0
ONE_CASE = 1.0 / 64.0
ONE_WAITING = 1.0 / 16.0
MOST = 8.0
LEAST_INTENSITY = 0.02
"""10 gCO2e/kWh: below it, "half as much" no longer matters."""


def feature_names() -> dict[str, object]:
    """What a stored network was made for, independent of any cohort."""
    return {
        "layout_version": VERSION,
        "features_version": FEATURES_VERSION,
        "context": [*CONTEXT, *RATIOS, "advised_finalise", "advised_defer"],
        "action": [*ACTION, "g_co2e_linear", "advised"],
    }


@dataclass(frozen=True, kw_only=True)
class FeatureIndex:
    """Where one layout keeps the fields that the network reads.

    Attributes:
        context: positions of :data:`CONTEXT`.
        action: positions of :data:`ACTION` for each transfer, transfer after transfer.
        n_transfers: how many transfers the layout has.
        n_fields: length of an observation; a guide's advice, one column an action, follows it.
    """

    context: Int64[np.ndarray, " context"]
    action: Int64[np.ndarray, " transfers_features"]
    n_transfers: int
    n_fields: int

    @classmethod
    def of(cls, layout: ObservationLayout) -> FeatureIndex:
        """Look the fields up, by name.

        Raises:
            LayoutError: if the layout lacks one.
        """
        action: list[int] = []
        for name in layout.transfers:
            source, target = name.split("->")
            wanted = [f"{group}_{name}" for group in ACTION_GROUPS]
            wanted += [f"{group}_{m}" for m in (source, target) for group in MODALITY_GROUPS]
            action += [layout.index(field) for field in wanted]
        return cls(
            context=np.array([layout.index(name) for name in CONTEXT], dtype=np.int64),
            action=np.array(action, dtype=np.int64),
            n_transfers=len(layout.transfers),
            n_fields=layout.size,
        )

    @property
    def n_actions(self) -> int:
        """Transfers, finalise and defer."""
        return self.n_transfers + N_OTHER


def column(name: str) -> int:
    """Position of a field among :data:`CONTEXT`."""
    return CONTEXT.index(name)


def advice_of(
    index: FeatureIndex, observation: Float32[np.ndarray, "batch columns"]
) -> Float32[np.ndarray, "batch actions"]:
    """What the guide would do, one column an action; zeros where there is none."""
    if observation.shape[1] > index.n_fields:
        return observation[:, index.n_fields :]
    return np.zeros((len(observation), index.n_actions), dtype=np.float32)


def context_features(
    index: FeatureIndex, observation: Float32[np.ndarray, "batch columns"]
) -> Float32[np.ndarray, "batch context"]:
    """The context with its ratios."""
    raw = observation[:, index.context]
    budget = raw[:, column("budget_left_g_co2e")]
    cases = np.maximum(raw[:, column("cases_left")], np.float32(ONE_CASE))
    waiting = np.maximum(raw[:, column("waiting")], np.float32(ONE_WAITING))
    open_cases = waiting + raw[:, column("to_come")] * np.float32(TO_COME_PER_WAITING)
    now = np.maximum(raw[:, [column("intensity_now")]], np.float32(LEAST_INTENSITY))
    first = column(LEAD_FIELDS[0])
    ratios = [
        (budget * budget * np.float32(BUDGET_PER_CASE) / cases)[:, None],
        (raw[:, column("slots_left")] * np.float32(SLOTS_PER_WAITING) / open_cases)[:, None],
        (raw[:, column("ahead")] / waiting)[:, None],
        raw[:, first : first + len(LEAD_FIELDS)] / now,
    ]
    advised = advice_of(index, observation)[:, index.n_transfers :]
    return np.hstack([raw, np.minimum(np.hstack(ratios), np.float32(MOST)), advised])


def action_features(
    index: FeatureIndex, observation: Float32[np.ndarray, "batch columns"]
) -> Float32[np.ndarray, "batch transfers features"]:
    """Each transfer's features."""
    raw = observation[:, index.action].reshape(len(observation), index.n_transfers, len(ACTION))
    grams = raw[..., [ACTION.index("g_co2e")]]
    advised = advice_of(index, observation)[:, : index.n_transfers, None]
    return np.concatenate([raw, np.minimum(grams * grams, np.float32(MOST)), advised], axis=2)


def runnable(
    features: Float32[np.ndarray, "batch transfers features"],
) -> Bool[np.ndarray, "batch transfers"]:
    """Which transfers have their source and have not been run: what the network pools over."""
    present = features[..., ACTION.index("present_source")] > 0.5
    return np.asarray(present & (features[..., ACTION.index("run")] < 0.5))
