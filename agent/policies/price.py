"""Gain predictor plus price: run what is predicted to be worth its carbon, best first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from agent.policies.facts import action_facts, waits_for_slot
from agent.policies.protocol import check_inputs, closed_for_want_of_a_slot
from envs.catalogue import ActionCatalogue
from envs.observation import ObservationLayout


@dataclass(frozen=True, kw_only=True)
class PricePolicy:
    """Takes the open transfer with the highest ``gain - gCO2e / price`` while that is positive.

    Looks one transfer ahead: the predictor's gain is what that transfer alone is expected to add.

    Attributes:
        layout: names of the observation's fields; ``gain_*`` and ``g_co2e_*`` are read.
        catalogue: names of the actions.
        g_per_auc: price, gCO2e that one whole unit of session AUC is worth. A lower price
            spends less: see :func:`agent.calibration.calibrate_price`.
    """

    layout: ObservationLayout
    catalogue: ActionCatalogue
    g_per_auc: float
    name: str = "price"

    def reset(self, num_envs: int, seed: int) -> None:
        """Nothing to forget."""

    def net_gain(
        self, observation: Float32[np.ndarray, "*batch fields"]
    ) -> Float64[np.ndarray, "*batch transfers"]:
        """Predicted session-AUC gain of each transfer minus its carbon at this price."""
        gain = self.layout.physical(observation, "gain")
        worth = self.layout.physical(observation, "g_co2e") / self.g_per_auc
        return np.asarray(gain - worth)

    def act(
        self,
        observation: Float32[np.ndarray, "batch fields"],
        action_mask: Bool[np.ndarray, "batch actions"],
    ) -> Int64[np.ndarray, " batch"]:
        """The open transfer with the best net gain if it is positive, else finalise.

        In an hour without a slot left it is put off, if a transfer is worth it.
        """
        check_inputs(observation, action_mask, self.layout, self.catalogue)
        last = self.catalogue.finalise
        worth = self.net_gain(observation)
        net = np.where(action_mask[:, :last], worth, -np.inf)
        best = net.argmax(axis=1)
        pays = net[np.arange(len(net)), best] > 0
        full = closed_for_want_of_a_slot(observation, action_mask, self.layout, self.catalogue)
        later = (full & (worth > 0)).any(axis=1)
        otherwise = np.where(later, self.catalogue.defer, last)
        return np.where(pays, best, otherwise).astype(np.int64)

    def reason(self, observation: Float32[np.ndarray, " fields"], action: int) -> str:
        """The gain, the carbon, and what that carbon is worth at the price."""
        if action == self.catalogue.defer:
            return waits_for_slot(self.name, self.layout, self.catalogue, observation)
        net = self.net_gain(observation)
        price = f"at {self.g_per_auc:.0f} gCO2e per unit of AUC"
        if action >= self.catalogue.n_transfers:
            best = int(net.argmax())
            name = self.catalogue.names[best]
            facts = action_facts(self.layout, self.catalogue, observation, best)
            return (
                f"No open transfer is worth its carbon {price}; the highest net gain of all, run "
                f"or closed ones included, is {net[best]:+.5f} for {name} ({facts})."
            )
        facts = action_facts(self.layout, self.catalogue, observation, action)
        return (
            f"{self.catalogue.names[action]} has the best net gain of the open transfers, "
            f"{net[action]:+.5f} session AUC {price} ({facts})."
        )
