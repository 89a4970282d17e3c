"""The four-action rule: three thresholds, two transfers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int64

from agent.policies.facts import action_facts
from agent.policies.protocol import check_inputs, open_or_finalise
from envs.catalogue import ActionCatalogue
from envs.observation import ObservationLayout


@dataclass(frozen=True, kw_only=True)
class RulePolicy:
    """Skips when the budget is low, helps the urgent, then the uncertain.

    In this order: budget below ``budget_floor`` -> skip; urgency above ``urgency_above`` ->
    ``clinical->genomics``; uncertainty above ``uncertainty_above`` -> ``genomics->pathology``;
    else skip. Skip is ``finalise``. When the rule's transfer was run, is masked, or is not in
    the catalogue, it finalises.

    Attributes:
        layout: names of the observation's fields.
        catalogue: names of the actions.
        budget_floor: share of the session's budget that has to be left.
        urgency_above: urgency from 0 to 1.
        uncertainty_above: binary entropy of the probability, bit.
    """

    layout: ObservationLayout
    catalogue: ActionCatalogue
    budget_floor: float = 0.1
    urgency_above: float = 0.8
    uncertainty_above: float = 0.5
    name: str = "rule"

    def _action(self, name: str) -> int:
        names = self.catalogue.names
        return names.index(name) if name in names else self.catalogue.finalise

    def reset(self, num_envs: int, seed: int) -> None:
        """Nothing to forget."""

    def act(
        self,
        observation: Float32[np.ndarray, "batch fields"],
        action_mask: Bool[np.ndarray, "batch actions"],
    ) -> Int64[np.ndarray, " batch"]:
        """The first rule that applies; finalise where its transfer is not open."""
        check_inputs(observation, action_mask, self.layout, self.catalogue)
        seen = {
            name: self.layout.physical(observation, name).astype(np.float32)
            for name in ("budget_left", "urgency", "entropy")
        }
        # compared in the observation's precision, so that 0.8 is not above 0.8
        wanted = np.select(
            [
                seen["budget_left"] < np.float32(self.budget_floor),
                seen["urgency"] > np.float32(self.urgency_above),
                seen["entropy"] > np.float32(self.uncertainty_above),
            ],
            [
                self.catalogue.finalise,
                self._action("clinical->genomics"),
                self._action("genomics->pathology"),
            ],
            default=self.catalogue.finalise,
        )
        return open_or_finalise(wanted.astype(np.int64), action_mask, self.catalogue)

    def reason(self, observation: Float32[np.ndarray, " fields"], action: int) -> str:
        """Name the rule that applied, with the value and the threshold."""
        budget, urgency, entropy = (
            float(self.layout.physical(observation, name))
            for name in ("budget_left", "urgency", "entropy")
        )
        if budget < self.budget_floor:
            why = f"{budget:.2f} of the budget is left, below {self.budget_floor}: skip"
        elif urgency > self.urgency_above:
            why = f"urgency {urgency:.2f} is above {self.urgency_above}: clinical->genomics"
        elif entropy > self.uncertainty_above:
            why = (
                f"uncertainty {entropy:.2f} bit is above {self.uncertainty_above}: "
                "genomics->pathology"
            )
        else:
            why = (
                f"urgency {urgency:.2f} and uncertainty {entropy:.2f} bit are not above "
                f"{self.urgency_above} and {self.uncertainty_above}: skip"
            )
        if action == self.catalogue.finalise and not why.endswith("skip"):
            why += ", which was run or is not open, so finalise"
        facts = action_facts(self.layout, self.catalogue, observation, action)
        return f"The rule: {why} ({facts})."
