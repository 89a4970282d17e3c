"""Planning without learning by gradient: predicted gain against shadow prices, looked ahead.

Four policies are this one with more or less of it:

- ``feedback``: gain of the transfer minus its carbon and its slot at the clearing prices;
- ``dp``: plus what is expected to follow it (:mod:`agent.policies.patient_program`);
- ``mpc``: plus waiting, where the forecast's cleaner hours save more than the wait puts at risk;
- ``planner``: plus the queue (a slot goes to the cases that the slots until their deadlines will
  serve) and the run (its start is shared by the cases that are processed in the same hour).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from agent.policies.case_view import CaseView, source_index, view_cases
from agent.policies.facts import action_facts
from agent.policies.forecast_wait import clean_hour, hourly_forecast
from agent.policies.patient_program import PatientProgram
from agent.policies.plan_settings import PlanSettings
from agent.policies.protocol import check_inputs
from agent.policies.shadow import DemandCurves
from envs.catalogue import ActionCatalogue
from envs.observation import ObservationLayout

GRAMS_APART = 1e-9


@dataclass(frozen=True, kw_only=True)
class Appraisal:
    """What a planner makes of each case.

    Attributes:
        per_g: price of carbon, AUC per gCO2e.
        per_slot: price of a slot, AUC.
        now: net value of each transfer if it is run now.
        later: net value of each transfer if it is run at the hour that waiting is for.
        later_g_per_kwh: intensity of that hour; infinite where there is none.
    """

    per_g: Float64[np.ndarray, " batch"]
    per_slot: Float64[np.ndarray, " batch"]
    now: Float64[np.ndarray, "batch transfers"]
    later: Float64[np.ndarray, "batch transfers"]
    later_g_per_kwh: Float64[np.ndarray, " batch"]


@dataclass(frozen=True, kw_only=True)
class PlannedPolicy:
    """Runs the open transfer of the highest net value, waits where that is better, or finalises.

    Without ``demand`` (not calibrated) carbon has the environment's price and a slot none, however
    much of the budget is left; without ``program`` it looks one transfer ahead.

    Attributes:
        layout: names of the observation's fields.
        catalogue: names of the actions.
        settings: what it takes into account, and its constants.
        demand: demand of the training patients by price; None where it was not calibrated.
        program: what is expected to follow a transfer; None to look no further.
        rivals: best first gains of training patients, ascending: whom a new arrival is like.
        name: name in reports.
    """

    layout: ObservationLayout
    catalogue: ActionCatalogue
    settings: PlanSettings
    demand: DemandCurves | None = None
    program: PatientProgram | None = None
    rivals: Float64[np.ndarray, " training"] | None = None
    name: str = "planner"

    def reset(self, num_envs: int, seed: int) -> None:
        """Nothing to forget: every decision is made from what is observed."""

    def act(
        self,
        observation: Float32[np.ndarray, "batch fields"],
        action_mask: Bool[np.ndarray, "batch actions"],
    ) -> Int64[np.ndarray, " batch"]:
        """Run, wait or finalise."""
        check_inputs(observation, action_mask, self.layout, self.catalogue)
        view = view_cases(self.layout, self.catalogue, observation)
        seen = self.appraise(view)
        last = self.catalogue.finalise
        worth = np.where(action_mask[:, :last], self._ranked(view, seen.now), -np.inf)
        best = worth.argmax(axis=1)
        rows = np.arange(len(best))
        chosen = np.where(worth[rows, best] > 0.0, best, last)
        waits = self._waits(view, seen, worth[rows, best]) & action_mask[:, self.catalogue.defer]
        return np.where(waits, self.catalogue.defer, chosen).astype(np.int64)

    def appraise(self, view: CaseView) -> Appraisal:
        """Prices, and the net value of each transfer now and later."""
        settings = self.settings
        path = hourly_forecast(view.intensity, view.uncertainty)
        now_g = view.intensity[:, 0]
        per_g, per_slot = self._prices(view, path)
        shared = np.minimum(view.sharing + 1.0, np.maximum(view.slots_now, 1.0)[:, None])
        alone_kwh = view.kwh - view.setup_kwh
        run_kwh = alone_kwh + view.setup_kwh / (shared if settings.batches else 1.0)
        full = 1.0 + settings.setup_factor / settings.run_size
        later_kwh = (
            np.where(view.fresh, alone_kwh * full, alone_kwh) if settings.batches else view.kwh
        )
        reference = self._clean_hour(view, path) if settings.waits else np.full(len(now_g), np.inf)
        then_g = np.where(np.isfinite(reference), reference, now_g)
        follows = settings.follow_share * self._follows(view, per_g * then_g, per_slot)
        base = np.where(view.could, view.gain - settings.min_gain, -np.inf) + follows
        base -= per_slot[:, None]
        later_g = later_kwh * then_g[:, None]
        possible = np.isfinite(reference)[:, None] & (later_g <= view.budget_g[:, None])
        return Appraisal(
            per_g=per_g,
            per_slot=per_slot,
            now=base - run_kwh * (per_g * now_g)[:, None],
            later=np.where(possible, base - later_g * per_g[:, None], -np.inf),
            later_g_per_kwh=reference,
        )

    def _prices(
        self, view: CaseView, path: Float64[np.ndarray, "batch hours"]
    ) -> tuple[Float64[np.ndarray, " batch"], Float64[np.ndarray, " batch"]]:
        """Price of a gram and of a slot: what clears, and never less than the environment's."""
        settings = self.settings
        floor = np.full(len(path), settings.least_per_g)
        if self.demand is None:
            return floor, np.zeros(len(path))
        # work is done at the cleaner hours, by a policy that waits
        share = max(1, round(settings.clean_share * path.shape[1]))
        typical = np.maximum(np.sort(path, axis=1)[:, :share].mean(axis=1), GRAMS_APART)
        kwh = settings.spend * np.maximum(view.budget_g, 0.0) / typical / view.cases_left
        slots = np.full(len(path), np.inf)
        if settings.slots_bind:
            left = settings.slots_per_hour * np.maximum(view.time_left_h, 0.0)
            slots = settings.slot_yield * np.maximum(left, view.slots_now) / view.cases_left
        per_kwh, per_slot = self.demand.clear(kwh, slots, floor * typical)
        return np.maximum(per_kwh / typical, floor), per_slot * settings.slot_weight

    def _follows(
        self,
        view: CaseView,
        per_kwh: Float64[np.ndarray, " batch"],
        per_slot: Float64[np.ndarray, " batch"],
    ) -> Float64[np.ndarray, "batch transfers"]:
        if self.program is None:
            return np.zeros(view.gain.shape)
        onward = self.program.follow((view.present, view.done), view.logit, per_kwh, per_slot)
        source = source_index(self.layout, self.catalogue)
        by_source = np.concatenate([np.zeros((len(onward), 1)), onward], axis=1)
        return np.where(view.fresh, by_source[:, source], 0.0)

    def _ranked(
        self, view: CaseView, net: Float64[np.ndarray, "batch transfers"]
    ) -> Float64[np.ndarray, "batch transfers"]:
        """Transfers that process nothing new come after any other that is worth it.

        They leave the rest as it is, so they would otherwise always look the better first step.
        """
        new_pays = (view.fresh & (net > 0.0)).any(axis=1, keepdims=True)
        return np.where(new_pays & ~view.fresh, -np.inf, net)

    def _clean_hour(
        self, view: CaseView, path: Float64[np.ndarray, "batch hours"]
    ) -> Float64[np.ndarray, " batch"]:
        """Intensity of the hour that waiting is for: room in the cleanest ones is shared."""
        settings = self.settings
        window = np.floor(np.minimum(view.slack_h - settings.margin_h, view.time_left_h))
        if not settings.any_hour:
            # one revisit, when every other case has had its visit
            at = np.clip(np.round(view.time_left_h), 1, path.shape[1] - 1).astype(np.int64)
            revisit = path[np.arange(len(path)), at]
            return np.asarray(np.where(view.slack_h >= view.time_left_h, revisit, np.inf))
        share = np.minimum(window / np.maximum(view.time_left_h, 1.0), 1.0)
        rivals = view.waiting - 1.0 + settings.crowd * view.to_come * share
        rank = settings.crowding * rivals / settings.slots_per_hour
        return clean_hour(path, window, rank)

    def _waits(
        self, view: CaseView, seen: Appraisal, best_now: Float64[np.ndarray, " batch"]
    ) -> Bool[np.ndarray, " batch"]:
        """Whether to look at the case again in another hour."""
        settings = self.settings
        later = seen.later.max(axis=1, initial=-np.inf)
        full = (view.slots_now < 1.0) & (np.maximum(seen.now.max(axis=1), later) > 0.0)
        if not settings.waits:
            return np.asarray(full)
        now = np.maximum(best_now, 0.0)
        # a slot that a wait leaves unused is gone, so its price counts for running now
        cleaner = later > now + settings.slot_loss * seen.per_slot + settings.wait_gain
        if settings.queues:
            cleaner = cleaner | self._lets_pass(view, later, best_now)
        return np.asarray(cleaner | full)

    def _lets_pass(
        self,
        view: CaseView,
        later: Float64[np.ndarray, " batch"],
        best_now: Float64[np.ndarray, " batch"],
    ) -> Bool[np.ndarray, " batch"]:
        """Whether the slots until this case is due will go to others that gain more."""
        settings = self.settings
        gain = np.where(view.could, view.gain, 0.0).max(axis=1, initial=0.0)
        better = np.full(len(gain), 0.5)
        if self.rivals is not None and len(self.rivals):
            at = np.searchsorted(self.rivals, gain, side="right")
            better = 1.0 - at / len(self.rivals)
        soon = view.slack_h / np.maximum(settings.arrival_share * view.time_left_h, 1.0)
        rank = view.ahead + settings.crowd * view.to_come * better * np.clip(soon, 0.0, 1.0)
        served = rank < settings.served_share * view.slots_left
        others = view.waiting > view.slots_now
        return np.asarray(others & ~served & (np.maximum(best_now, later) > 0.0))

    def reason(self, observation: Float32[np.ndarray, " fields"], action: int) -> str:
        """The net value, the prices in it, and what would change the decision."""
        view = view_cases(self.layout, self.catalogue, observation[None])
        seen = self.appraise(view)
        prices = f"carbon at {1.0 / max(float(seen.per_g[0]), 1e-18):.3g} gCO2e per unit of AUC"
        if seen.per_slot[0] > 0.0:
            prices += f", a slot at {float(seen.per_slot[0]):.2g} AUC"
        facts = action_facts(self.layout, self.catalogue, observation, action)
        if action < self.catalogue.n_transfers:
            return self._why_run(seen, action, prices, facts)
        if action == self.catalogue.defer:
            return self._why_wait(view, seen, prices, facts)
        worth = seen.now[0]
        if not np.isfinite(worth).any():
            return f"{self.name} finalises: no transfer is left to run ({prices}; {facts})."
        best = int(worth.argmax())
        net = float(worth[best])
        return (
            f"{self.name} finalises: of what is left to run, {self.catalogue.names[best]} has the "
            f"highest net value, {net:+.5f} AUC; above 0, and open, it would be run "
            f"({prices}; {facts})."
        )

    def _why_run(self, seen: Appraisal, action: int, prices: str, facts: str) -> str:
        net, later = float(seen.now[0, action]), float(seen.later[0, action])
        change = f"it would not be run if it gained {max(net, 0.0):.5f} less"
        if np.isfinite(later):
            short = max(net + self.settings.wait_gain - later, 0.0)
            change += f", and would wait if the wait were worth {short:.5f} more"
        return (
            f"{self.name} runs {self.catalogue.names[action]}: net value {net:+.5f} AUC with what "
            f"is expected to follow; {change} ({prices}; {facts})."
        )

    def _why_wait(self, view: CaseView, seen: Appraisal, prices: str, facts: str) -> str:
        later = float(seen.later[0].max(initial=-np.inf))
        now = max(float(seen.now[0].max(initial=-np.inf)), 0.0)
        if later > now:
            hour = float(seen.later_g_per_kwh[0])
            return (
                f"{self.name} waits: at an hour of {hour:.0f} gCO2e/kWh the net value would be "
                f"{later:+.5f} AUC, now {now:+.5f} ({prices}; {facts})."
            )
        return (
            f"{self.name} lets others pass: {float(view.ahead[0]):.0f} waiting cases gain more, "
            f"{float(view.slots_left[0]):.0f} slots are left until this one is due "
            f"({prices}; {facts})."
        )
