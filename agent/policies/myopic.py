"""Gain alone: run what is predicted to help most, whatever it emits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int64

from agent.policies.facts import action_facts, waits_for_slot
from agent.policies.protocol import check_inputs, closed_for_want_of_a_slot
from envs.catalogue import ActionCatalogue
from envs.observation import ObservationLayout

LEAST_GAIN = 1e-4


@dataclass(frozen=True, kw_only=True)
class MyopicPolicy:
    """Takes the open transfer with the highest predicted gain, blind to carbon and to the queue.

    Attributes:
        layout: names of the observation's fields; ``gain_*`` are read.
        catalogue: names of the actions.
        least_gain: AUC that a transfer must be predicted to gain; below it the case is finalised.
    """

    layout: ObservationLayout
    catalogue: ActionCatalogue
    least_gain: float = LEAST_GAIN
    name: str = "myopic"

    def reset(self, num_envs: int, seed: int) -> None:
        """Nothing to forget."""

    def act(
        self,
        observation: Float32[np.ndarray, "batch fields"],
        action_mask: Bool[np.ndarray, "batch actions"],
    ) -> Int64[np.ndarray, " batch"]:
        """The open transfer with the highest gain if it is above the threshold, else finalise.

        In an hour without a slot left it is put off, if a transfer is above the threshold.
        """
        check_inputs(observation, action_mask, self.layout, self.catalogue)
        last = self.catalogue.finalise
        seen = self.layout.physical(observation, "gain")
        gain = np.where(action_mask[:, :last], seen, -np.inf)
        best = gain.argmax(axis=1)
        helps = gain[np.arange(len(gain)), best] > self.least_gain
        full = closed_for_want_of_a_slot(observation, action_mask, self.layout, self.catalogue)
        later = (full & (seen > self.least_gain)).any(axis=1)
        otherwise = np.where(later, self.catalogue.defer, last)
        return np.where(helps, best, otherwise).astype(np.int64)

    def reason(self, observation: Float32[np.ndarray, " fields"], action: int) -> str:
        """The gain and the threshold."""
        if action == self.catalogue.defer:
            return waits_for_slot(self.name, self.layout, self.catalogue, observation)
        facts = action_facts(self.layout, self.catalogue, observation, action)
        if action >= self.catalogue.n_transfers:
            return (
                f"No open transfer is predicted to gain more than {self.least_gain:g} session AUC "
                f"({facts})."
            )
        return (
            f"{self.catalogue.names[action]} has the highest predicted gain of the open "
            f"transfers, whatever it emits ({facts})."
        )
