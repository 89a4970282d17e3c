"""What would have changed a choice: the policy is asked again about cases that differ in one thing.

For each named axis (the grid, the budget left, urgency, the deadline, the case's own probability,
the price where the policy has one) a handful of values is tried with everything else as it was. The
case itself is the first row of the same call, so that a policy is asked once. What is open is
worked out anew from each row's budget and carbon; what the operator's limits closed stays closed,
and a wait that was not on offer stays off. The answer is about the tested values, no others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import exp

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64

from agent.policies.price import PricePolicy
from agent.policies.protocol import Policy
from agent.policies.simple import RandomPolicy
from agent.workflow.told import Axis, AxisTried, Flip
from envs.catalogue import ActionCatalogue
from envs.gain import GainModel
from envs.observation import ObservationLayout

GRID_FACTORS = (0.1, 0.25, 0.5, 0.75, 1.25, 1.5, 2.0, 4.0)
BUDGET_SHARES = (0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0)
"""Shares of the whole day's budget."""
URGENCIES = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
DEADLINES_H = (1.0, 2.0, 4.0, 8.0, 16.0, 24.0, 48.0)
LOG_ODDS_SHIFTS = (-3.0, -2.0, -1.0, -0.5, -0.25, 0.25, 0.5, 1.0, 2.0, 3.0)
PRICE_FACTORS = (0.1, 0.25, 0.5, 2.0, 4.0, 10.0)
UNITS: dict[Axis, str] = {
    "grid": "gCO2e/kWh", "budget": "gCO2e", "urgency": "", "deadline": "h", "probability": "",
    "price": "gCO2e per unit of AUC",
}  # fmt: skip
WORDS: dict[Axis, str] = {
    "grid": "the grid now", "budget": "the day's budget left", "urgency": "the urgency",
    "deadline": "the time to the deadline", "probability": "the probability",
    "price": "the price of carbon",
}  # fmt: skip
SAME = 1e-6


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What the observation alone does not say of the case.

    Attributes:
        set_idx: its evidence set, for the predicted gains at other log-odds.
        day_budget_g_co2e: the whole day's budget, g CO2e.
        wait_h: how long the wait on offer takes; None if none is.
    """

    set_idx: int
    day_budget_g_co2e: float
    wait_h: float | None = None


@dataclass(frozen=True, kw_only=True)
class Tried:
    """The policy's action for the case as it is, and what would have changed it."""

    action: int
    axes: tuple[AxisTried, ...]


@dataclass(frozen=True, kw_only=True)
class _Span:
    """Rows of the batch that belong to one axis, with the values that they stand for."""

    axis: Axis
    now: float
    values: Float[np.ndarray, " values"]
    start: int


@dataclass(frozen=True, kw_only=True)
class WhatIf:
    """Asks policies about cases that differ in one thing.

    Attributes:
        layout: the observation's fields.
        catalogue: the actions.
        gain: predicted gains, read again where the log-odds are imagined otherwise.
        masks_unaffordable: whether what the budget cannot pay is closed.
    """

    layout: ObservationLayout
    catalogue: ActionCatalogue
    gain: GainModel
    masks_unaffordable: bool = True

    def choose(
        self,
        policy: Policy,
        observation: Float32[np.ndarray, "1 fields"],
        mask: Bool[np.ndarray, "1 actions"],
        standing: Standing,
    ) -> Tried:
        """The policy's action for the case, and the nearest tested values that change it.

        A policy that draws lots is asked about the case alone: nothing explains chance.
        """
        if isinstance(policy, RandomPolicy):
            return Tried(action=int(np.asarray(policy.act(observation, mask))[0]), axes=())
        rows, spans = self._rows(policy, observation[0], standing)
        masks = self._masks(rows, mask[0], spans, standing)
        actions = np.asarray(policy.act(rows, masks)).tolist()
        axes = tuple(self._read(span, actions) for span in spans)
        return Tried(action=actions[0], axes=axes)

    @cached_property
    def _at(self) -> dict[str, int]:
        names = (
            "probability", "entropy", "logit", "urgency", "slack_h", "intensity_now",
            "budget_left", "budget_left_g_co2e",
        )  # fmt: skip
        return {name: self.layout.index(name) for name in names}

    @cached_property
    def _groups(self) -> dict[str, slice]:
        return {name: self.layout.group(name) for name in ("run", "gain", "g_co2e")}

    @cached_property
    def _scale(self) -> dict[str, float]:
        return {name: self.layout.fields[i].scale for name, i in self._at.items()}

    @cached_property
    def _source(self) -> Int64[np.ndarray, " transfers"]:
        """Where the observation says whether each transfer's source is there."""
        first = self.layout.group("present").start
        order = [self.layout.modalities.index(t.source) for t in self.catalogue.transfers]
        return np.array([first + j for j in order], dtype=np.int64)

    def _spans(
        self, policy: Policy, row: Float32[np.ndarray, " fields"], standing: Standing
    ) -> list[_Span]:
        at, scale = self._at, self._scale
        day = standing.day_budget_g_co2e
        grid = float(row[at["intensity_now"]]) * scale["intensity_now"]
        budget = float(row[at["budget_left_g_co2e"]]) ** 2 * scale["budget_left_g_co2e"]
        logit = float(row[at["logit"]]) * scale["logit"]
        tried: list[tuple[Axis, float, Float[np.ndarray, " values"]]] = [
            ("grid", grid, grid * np.array(GRID_FACTORS)),
            ("budget", budget, day * np.array(BUDGET_SHARES)),
            ("urgency", float(row[at["urgency"]]), np.array(URGENCIES)),
            ("deadline", float(row[at["slack_h"]]) * scale["slack_h"], np.array(DEADLINES_H)),
            ("probability", logit, np.clip(logit + np.array(LOG_ODDS_SHIFTS), -8.0, 8.0)),
        ]
        if isinstance(policy, PricePolicy):
            price = float(policy.g_per_auc)
            tried.append(("price", price, price * np.array(PRICE_FACTORS)))
        spans, start = [], 1
        for axis, now, values in tried:
            other = values[np.abs(values - now) > SAME * max(abs(now), 1.0)]
            spans.append(_Span(axis=axis, now=now, values=other, start=start))
            start += len(other)
        return spans

    def _rows(
        self, policy: Policy, row: Float32[np.ndarray, " fields"], standing: Standing
    ) -> tuple[Float32[np.ndarray, "rows fields"], list[_Span]]:
        spans = self._spans(policy, row, standing)
        rows = np.repeat(row[None], spans[-1].start + len(spans[-1].values), axis=0)
        for span in spans:
            part = rows[span.start : span.start + len(span.values)]
            if len(part):
                self._imagine(span, part, standing)
        np.clip(rows[1:], self.layout.low, self.layout.high, out=rows[1:])
        return rows, spans

    def _imagine(
        self, span: _Span, part: Float32[np.ndarray, "values fields"], standing: Standing
    ) -> None:
        """Write the span's values into its rows, with whatever goes along with them."""
        at, scale, values = self._at, self._scale, span.values
        if span.axis == "grid":
            part[:, at["intensity_now"]] = values / scale["intensity_now"]
            part[:, self._groups["g_co2e"]] *= np.sqrt(values / span.now)[:, None]
        elif span.axis == "budget":
            part[:, at["budget_left"]] = values / standing.day_budget_g_co2e
            part[:, at["budget_left_g_co2e"]] = np.sqrt(values / scale["budget_left_g_co2e"])
        elif span.axis == "urgency":
            part[:, at["urgency"]] = values
        elif span.axis == "deadline":
            part[:, at["slack_h"]] = values / scale["slack_h"]
        elif span.axis == "price":
            # gain - g / price: dearer carbon is the same as more of it
            part[:, self._groups["g_co2e"]] *= np.sqrt(span.now / values)[:, None]
        else:
            self._other_score(part, values, standing)

    def _other_score(
        self,
        part: Float32[np.ndarray, "values fields"],
        logit: Float[np.ndarray, " values"],
        standing: Standing,
    ) -> None:
        at, gains = self._at, self._groups["gain"]
        p = 1.0 / (1.0 + np.exp(-logit))
        q = 1.0 - p
        part[:, at["logit"]] = logit / self._scale["logit"]
        part[:, at["probability"]] = p
        part[:, at["entropy"]] = -(p * np.log2(p) + q * np.log2(q))
        sets = np.full(len(logit), standing.set_idx, dtype=np.int64)
        predicted = self.gain.predict(sets, logit.astype(np.float32))
        part[:, gains] = predicted / self.layout.fields[gains.start].scale

    def _masks(
        self,
        rows: Float32[np.ndarray, "rows fields"],
        mask: Bool[np.ndarray, " actions"],
        spans: Sequence[_Span],
        standing: Standing,
    ) -> Bool[np.ndarray, "rows actions"]:
        masks = np.repeat(mask[None], len(rows), axis=0)
        n, row = self.catalogue.n_transfers, rows[0]
        grid, budget = spans[0], spans[1]  # in this order, so that they are one stretch of rows
        paid = slice(grid.start, budget.start + len(budget.values))
        if self.masks_unaffordable and paid.stop > paid.start:
            runs = row[self._groups["run"]] > 0.5
            could = (row[self._source] > 0.5) & ~runs
            could &= bool(runs.sum() < self.catalogue.depth)
            # what could run and be paid for, and is closed all the same, is closed by a limit
            closed = could & self._affordable(rows[:1])[0] & ~mask[:n]
            masks[paid, :n] = could & ~closed & self._affordable(rows[paid])
        if standing.wait_h is not None:
            due = next(span for span in spans if span.axis == "deadline")
            mine = slice(due.start, due.start + len(due.values))
            masks[mine, self.catalogue.defer] &= due.values >= standing.wait_h
        return masks

    def _affordable(
        self, rows: Float32[np.ndarray, "rows fields"]
    ) -> Bool[np.ndarray, "rows transfers"]:
        grams, left = self._groups["g_co2e"], self._at["budget_left_g_co2e"]
        ratio = self.layout.fields[grams.start].scale / self._scale["budget_left_g_co2e"]
        budget = rows[:, left, None] ** 2
        return np.asarray(rows[:, grams] ** 2 * ratio <= budget * (1.0 + SAME))

    def _read(self, span: _Span, actions: Sequence[int]) -> AxisTried:
        """The nearest tested value on each side at which the action is another one."""
        # a handful of values: plain numbers are quicker than arrays
        values, taken = span.values.tolist(), actions[0]
        others = [
            (abs(value - span.now), value, action)
            for value, action in zip(values, actions[span.start :])
            if action != taken
        ]
        below = min((o for o in others if o[1] < span.now), default=None)
        above = min((o for o in others if o[1] > span.now), default=None)
        return AxisTried(
            axis=span.axis,
            unit=UNITS[span.axis],
            now=_told(span.axis, span.now),
            low=_told(span.axis, min(span.now, *values)),
            high=_told(span.axis, max(span.now, *values)),
            flips=[
                Flip(at=_told(span.axis, found[1]), becomes=self.catalogue.names[found[2]])
                for found in (below, above)
                if found is not None
            ],
        )


def _told(axis: Axis, value: float) -> float:
    """The value as it is shown: log-odds as a probability."""
    return 1.0 / (1.0 + exp(-value)) if axis == "probability" else value


def change_lines(axes: Sequence[AxisTried]) -> list[str]:
    """Sentences: what would have changed the choice, and what would not have."""
    if not axes:
        return []
    lines = []
    for tried in axes:
        for flip in tried.flips:
            lines.append(
                f"It would have been {flip.becomes} with {WORDS[tried.axis]} at "
                f"{_plain(flip.at)} instead of {_figure(tried, tried.now)}."
            )
    steady = [
        f"{WORDS[tried.axis]} ({_plain(tried.low)} to {_figure(tried, tried.high)})"
        for tried in axes
        if not tried.flips
    ]
    if steady:
        lines.append(f"No tested value of these alone would have changed it: {', '.join(steady)}.")
    return lines


def _plain(value: float) -> str:
    return f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def _figure(tried: AxisTried, value: float) -> str:
    return f"{_plain(value)} {tried.unit}".rstrip()
