"""The one protocol that every policy keeps, and the checks of what it is given."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32, Int64

from agent.errors import PolicyError
from envs.catalogue import ActionCatalogue
from envs.observation import ObservationLayout


@runtime_checkable
class Policy(Protocol):
    """Chooses the next action of each case from its observation and its action mask alone."""

    @property
    def name(self) -> str:
        """The name it has in commands, reports and the API."""
        ...

    def reset(self, num_envs: int, seed: int) -> None:
        """Start new sessions: forget everything and seed whatever is random.

        Args:
            num_envs: batch size of the calls that follow.
            seed: the same seed and the same observations give the same actions.
        """
        ...

    def act(
        self,
        observation: Float32[np.ndarray, "batch fields"],
        action_mask: Bool[np.ndarray, "batch actions"],
    ) -> Int64[np.ndarray, " batch"]:
        """The action of each row: an index into the catalogue's names, never a masked one.

        Args:
            observation: scaled fields, laid out by ``ObservationLayout``.
            action_mask: True where the action is open.

        Raises:
            PolicyError: if a row is not finite, has no open action, or has another width.
        """
        ...

    def reason(self, observation: Float32[np.ndarray, " fields"], action: int) -> str:
        """One sentence, with the numbers, on why this action fits this observation."""
        ...


def check_inputs(
    observation: Float32[np.ndarray, "batch fields"],
    action_mask: Bool[np.ndarray, "batch actions"],
    layout: ObservationLayout,
    catalogue: ActionCatalogue,
) -> None:
    """Refuse what no policy can act on.

    Raises:
        PolicyError: naming the row and the field at fault.
    """
    if observation.shape[1] != layout.size or action_mask.shape[1] != catalogue.n:
        raise PolicyError(
            f"{observation.shape[1]} fields and {action_mask.shape[1]} actions do not fit this "
            f"policy's {layout.size} and {catalogue.n}; the observation comes from another bundle."
        )
    if not np.isfinite(observation).all():
        row, column = (int(i) for i in np.argwhere(~np.isfinite(observation))[0])
        raise PolicyError(
            f"Field {layout.names[column]!r} of row {row} is {observation[row, column]}; every "
            "field must be a finite number."
        )
    closed = np.flatnonzero(~action_mask.any(axis=1))
    if closed.size:
        raise PolicyError(
            f"Row {int(closed[0])} has no open action; at least 'finalise' must be open."
        )


def closed_for_want_of_a_slot(
    observation: Float32[np.ndarray, "batch fields"],
    action_mask: Bool[np.ndarray, "batch actions"],
    layout: ObservationLayout,
    catalogue: ActionCatalogue,
) -> Bool[np.ndarray, "batch transfers"]:
    """Transfers that the case could still run, were there room in this hour, and may wait for."""
    present, run = (layout.physical(observation, name) > 0.5 for name in ("present", "run"))
    source = [layout.modalities.index(t.source) for t in catalogue.transfers]
    could = present[:, source] & ~run & (run.sum(axis=1) < catalogue.depth)[:, None]
    waits = (layout.physical(observation, "slots_left_now") < 0.5) & action_mask[:, catalogue.defer]
    return np.asarray(could & waits[:, None])


def open_or_finalise(
    wanted: Int64[np.ndarray, " batch"],
    action_mask: Bool[np.ndarray, "batch actions"],
    catalogue: ActionCatalogue,
) -> Int64[np.ndarray, " batch"]:
    """Keep an open action, finalise instead of a masked one."""
    is_open = action_mask[np.arange(len(wanted)), wanted]
    return np.where(is_open, wanted, catalogue.finalise).astype(np.int64)
