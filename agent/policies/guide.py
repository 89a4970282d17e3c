"""A planner whose advice is one of a network's inputs: opened beside the network, here or there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Int64
from pydantic import ValidationError

from agent.errors import PolicyError
from agent.policies.files import POLICY_FILE, PolicyFile, read_policy
from agent.policies.plan_files import open_plan
from agent.policies.plan_settings import PlanSettings
from agent.policies.planner import PlannedPolicy
from agent.policies.price import PricePolicy
from agent.policies.protocol import Policy
from envs.catalogue import ActionCatalogue
from envs.errors import LayoutError
from envs.observation import ObservationLayout

GUIDE = "guide"
"""Folder of the planner inside the network's."""


def open_guide(
    directory: Path, layout: ObservationLayout, catalogue: ActionCatalogue, *, elsewhere: bool
) -> Policy:
    """Open the planner in a network's folder.

    Args:
        directory: the network's folder.
        layout: the observation's fields.
        catalogue: the actions.
        elsewhere: whether this is another cohort's layout. A planner's tables speak of one
            cohort's modalities, so there it goes by its settings alone.

    Raises:
        PolicyError: if it is missing, changed, or no planner.
    """
    folder = directory / GUIDE
    if not elsewhere:
        stored = read_policy(folder, layout, catalogue)
        if stored.kind == "price":
            return _price(stored, layout, catalogue)
        return open_plan(folder, stored, layout, catalogue)
    try:
        stored = PolicyFile.model_validate_json((folder / POLICY_FILE).read_bytes())
        if stored.kind == "price":
            return _price(stored, layout, catalogue)
        settings = PlanSettings.model_validate(stored.settings)
    except (OSError, ValidationError, LayoutError) as error:
        raise PolicyError(
            f"{folder} cannot be read as the planner that guides the network: {error}. Copy the "
            "whole policy folder again."
        ) from error
    return PlannedPolicy(layout=layout, catalogue=catalogue, settings=settings, name=stored.name)


def _price(stored: PolicyFile, layout: ObservationLayout, catalogue: ActionCatalogue) -> Policy:
    if stored.g_per_auc is None:
        raise PolicyError("The price policy that guides the network has no price. Train it again.")
    return PricePolicy(layout=layout, catalogue=catalogue, g_per_auc=stored.g_per_auc)


def with_advice(
    observation: Float32[np.ndarray, "batch fields"],
    advised: Int64[np.ndarray, " batch"],
    n_actions: int,
) -> Float32[np.ndarray, "batch columns"]:
    """The observation with the advised action beside it, one column an action."""
    wide = np.zeros((len(observation), observation.shape[1] + n_actions), dtype=np.float32)
    wide[:, : observation.shape[1]] = observation
    wide[np.arange(len(wide)), observation.shape[1] + advised] = 1.0
    return wide


def advised_observation(
    guide: Policy | None,
    observation: Float32[np.ndarray, "batch fields"],
    action_mask: Bool[np.ndarray, "batch actions"],
) -> Float32[np.ndarray, "batch columns"]:
    """What a network reads: the observation, and its guide's advice where it has one."""
    if guide is None:
        return observation
    return with_advice(observation, guide.act(observation, action_mask), action_mask.shape[1])
