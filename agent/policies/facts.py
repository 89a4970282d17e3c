"""Sentences about an observation: the numbers that a reviewer is shown with a decision."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32

from envs.catalogue import ActionCatalogue
from envs.observation import ObservationLayout


def case_facts(layout: ObservationLayout, observation: Float32[np.ndarray, " fields"]) -> str:
    """The patient in numbers: probability and entropy."""
    probability = float(layout.physical(observation, "probability"))
    entropy = float(layout.physical(observation, "entropy"))
    return f"probability {probability:.2f}, uncertainty {entropy:.2f} bit"


def waits_for_slot(name: str, layout: ObservationLayout, catalogue: ActionCatalogue,
                   observation: Float32[np.ndarray, " fields"]) -> str:  # fmt: skip
    """Why a policy that does not watch the grid puts a case off."""
    slots = float(layout.physical(observation, "slots_left_now"))
    facts = action_facts(layout, catalogue, observation, catalogue.defer)
    return f"{name} puts off what it would run: this hour has {slots:.0f} slots left ({facts})."


def action_facts(
    layout: ObservationLayout,
    catalogue: ActionCatalogue,
    observation: Float32[np.ndarray, " fields"],
    action: int,
) -> str:
    """What the action is predicted to bring and to cost at the grid's intensity now."""
    intensity = float(layout.physical(observation, "intensity_now"))
    if action >= catalogue.n_transfers:
        return f"grid at {intensity:.0f} gCO2e/kWh"
    gain = float(layout.physical(observation, "gain")[action])
    g_co2e = float(layout.physical(observation, "g_co2e")[action])
    return (
        f"predicted gain {gain:+.5f} session AUC for {g_co2e:.3g} gCO2e "
        f"at {intensity:.0f} gCO2e/kWh"
    )
