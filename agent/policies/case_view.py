"""The fields of an observation that planners calculate with, in physical units."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from envs.catalogue import ActionCatalogue
from envs.config import LEADS_H
from envs.observation import ObservationLayout


@dataclass(frozen=True, kw_only=True)
class CaseView:
    """A batch of cases under review.

    Attributes:
        gain: predicted session-AUC gain of each transfer.
        kwh: energy of each transfer now, the start of a run included.
        setup_kwh: the start of a run in it.
        sharing: other waiting cases that the same run would serve.
        could: transfers whose source is there and that were not run yet, affordable or not.
        fresh: transfers whose source would be processed by them.
        present: bits of the modalities that are there, the first (clinical) left out.
        done: bits of those that are processed.
        logit: log-odds.
        intensity: now and 1, 3, 6, 12, 24 h ahead, gCO2e/kWh.
        uncertainty: relative standard deviation of the forecast 24 h ahead.
        slack_h: hours until the case is due.
        time_left_h: hours until the session ends.
        budget_g: what is left to emit, gCO2e.
        cases_left: cases not closed yet, this one included.
        waiting: cases that wait now, this one included.
        to_come: cases still to arrive.
        ahead: waiting cases with a higher predicted gain.
        slots_now: room left in this hour.
        slots_left: room left until this case is due.
    """

    gain: Float64[np.ndarray, "batch transfers"]
    kwh: Float64[np.ndarray, "batch transfers"]
    setup_kwh: Float64[np.ndarray, "batch transfers"]
    sharing: Float64[np.ndarray, "batch transfers"]
    could: Bool[np.ndarray, "batch transfers"]
    fresh: Bool[np.ndarray, "batch transfers"]
    present: Int64[np.ndarray, " batch"]
    done: Int64[np.ndarray, " batch"]
    logit: Float64[np.ndarray, " batch"]
    intensity: Float64[np.ndarray, "batch leads"]
    uncertainty: Float64[np.ndarray, " batch"]
    slack_h: Float64[np.ndarray, " batch"]
    time_left_h: Float64[np.ndarray, " batch"]
    budget_g: Float64[np.ndarray, " batch"]
    cases_left: Float64[np.ndarray, " batch"]
    waiting: Float64[np.ndarray, " batch"]
    to_come: Float64[np.ndarray, " batch"]
    ahead: Float64[np.ndarray, " batch"]
    slots_now: Float64[np.ndarray, " batch"]
    slots_left: Float64[np.ndarray, " batch"]


def view_cases(
    layout: ObservationLayout,
    catalogue: ActionCatalogue,
    observation: Float32[np.ndarray, "batch fields"],
) -> CaseView:
    """Read the fields of each row."""

    def field(name: str) -> np.ndarray:
        return layout.physical(observation, name)

    present, done, run = (field(name) > 0.5 for name in ("present", "processed", "run"))
    source = source_index(layout, catalogue)
    deep = run.sum(axis=1, keepdims=True) >= catalogue.depth
    leads = ["intensity_now", *(f"intensity_lead_{h}h" for h in LEADS_H)]
    return CaseView(
        gain=field("gain"),
        kwh=field("energy"),
        setup_kwh=field("setup"),
        sharing=field("sharing"),
        could=present[:, source] & ~run & ~deep,
        fresh=~done[:, source],
        present=_bits(present),
        done=_bits(done & present),
        logit=field("logit"),
        intensity=np.stack([field(name) for name in leads], axis=1),
        uncertainty=field("intensity_uncertainty"),
        slack_h=field("slack_h"),
        time_left_h=field("time_left"),
        budget_g=field("budget_left_g_co2e"),
        cases_left=np.maximum(field("cases_left"), 1.0),
        waiting=field("waiting"),
        to_come=field("to_come"),
        ahead=field("ahead"),
        slots_now=field("slots_left_now"),
        slots_left=field("slots_left"),
    )


def source_index(
    layout: ObservationLayout, catalogue: ActionCatalogue
) -> Int64[np.ndarray, " transfers"]:
    """Which modality each transfer processes, as an index into the layout's modalities."""
    names = [layout.modalities.index(t.source) for t in catalogue.transfers]
    return np.array(names, dtype=np.int64)


def _bits(flags: Bool[np.ndarray, "batch modalities"]) -> Int64[np.ndarray, " batch"]:
    weight = 1 << np.arange(flags.shape[1] - 1, dtype=np.int64)
    return np.asarray(flags[:, 1:].astype(np.int64) @ weight)
