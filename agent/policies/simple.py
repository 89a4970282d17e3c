"""Policies that look at next to nothing: the yardsticks that the others have to beat."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float32, Int64

from agent.policies.facts import action_facts, case_facts, waits_for_slot
from agent.policies.protocol import check_inputs, closed_for_want_of_a_slot, open_or_finalise
from envs.catalogue import ActionCatalogue
from envs.observation import ObservationLayout


@dataclass(frozen=True, kw_only=True)
class NeverPolicy:
    """Finalises every case on clinical data alone; emits nothing."""

    layout: ObservationLayout
    catalogue: ActionCatalogue
    name: str = "never"

    def reset(self, num_envs: int, seed: int) -> None:
        """Nothing to forget."""

    def act(
        self,
        observation: Float32[np.ndarray, "batch fields"],
        action_mask: Bool[np.ndarray, "batch actions"],
    ) -> Int64[np.ndarray, " batch"]:
        """Finalise, always."""
        check_inputs(observation, action_mask, self.layout, self.catalogue)
        return np.full(len(observation), self.catalogue.finalise, dtype=np.int64)

    def reason(self, observation: Float32[np.ndarray, " fields"], action: int) -> str:
        """Say that this policy never spends."""
        return f"{self.name} runs no transfer ({case_facts(self.layout, observation)})."


@dataclass(frozen=True, kw_only=True)
class AlwaysPolicy:
    """Runs one named transfer for every case that it is open for, then finalises."""

    layout: ObservationLayout
    catalogue: ActionCatalogue
    transfer: str

    @property
    def name(self) -> str:
        """``always:<transfer>``."""
        return f"always:{self.transfer}"

    def reset(self, num_envs: int, seed: int) -> None:
        """Nothing to forget."""

    def act(
        self,
        observation: Float32[np.ndarray, "batch fields"],
        action_mask: Bool[np.ndarray, "batch actions"],
    ) -> Int64[np.ndarray, " batch"]:
        """The transfer where it is open (a mask closes it once it was run), else finalise."""
        check_inputs(observation, action_mask, self.layout, self.catalogue)
        wanted = np.full(len(observation), self.catalogue.index(self.transfer), dtype=np.int64)
        return open_or_finalise(wanted, action_mask, self.catalogue)

    def reason(self, observation: Float32[np.ndarray, " fields"], action: int) -> str:
        """Say whether the transfer was still to be run."""
        facts = action_facts(self.layout, self.catalogue, observation, action)
        if action == self.catalogue.finalise:
            return f"{self.name} finalises: {self.transfer} was run or is not open ({facts})."
        return f"{self.name} runs {self.transfer} whenever it is open: {facts}."


@dataclass(frozen=True, kw_only=True)
class EverythingPolicy:
    """Processes every modality that the case has, then runs every other transfer it may run."""

    layout: ObservationLayout
    catalogue: ActionCatalogue
    name: str = "always-everything"

    def reset(self, num_envs: int, seed: int) -> None:
        """Nothing to forget."""

    def act(
        self,
        observation: Float32[np.ndarray, "batch fields"],
        action_mask: Bool[np.ndarray, "batch actions"],
    ) -> Int64[np.ndarray, " batch"]:
        """The first open transfer whose source is not processed yet, then the first open one.

        In an hour without a slot left the case is put off, if there is more to run.
        """
        check_inputs(observation, action_mask, self.layout, self.catalogue)
        last = self.catalogue.finalise
        # depth is limited, so new modalities come before further bridges of old ones
        source = [self.layout.modalities.index(t.source) for t in self.catalogue.transfers]
        processed = self.layout.physical(observation, "processed")[:, source] > 0.5
        score = action_mask[:, :last] * (1.0 + ~processed)
        best = score.argmax(axis=1)
        spent = ~action_mask[:, :last].any(axis=1)
        full = closed_for_want_of_a_slot(observation, action_mask, self.layout, self.catalogue)
        otherwise = np.where(full.any(axis=1), self.catalogue.defer, last)
        return np.where(spent, otherwise, best).astype(np.int64)

    def reason(self, observation: Float32[np.ndarray, " fields"], action: int) -> str:
        """Say what is run next, or that nothing is left to run."""
        if action == self.catalogue.defer:
            return waits_for_slot(self.name, self.layout, self.catalogue, observation)
        facts = action_facts(self.layout, self.catalogue, observation, action)
        if action == self.catalogue.finalise:
            return f"{self.name} finalises: no transfer is open any more ({facts})."
        return f"{self.name} runs {self.catalogue.names[action]} next: {facts}."


@dataclass(kw_only=True)
class RandomPolicy:
    """Draws uniformly among the open actions."""

    layout: ObservationLayout
    catalogue: ActionCatalogue
    seed: int = 0
    name: str = "random"
    _rng: np.random.Generator = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(self.seed)

    def reset(self, num_envs: int, seed: int) -> None:
        """Start the stream of draws again, from both seeds."""
        self._rng = np.random.default_rng((self.seed, seed))

    def act(
        self,
        observation: Float32[np.ndarray, "batch fields"],
        action_mask: Bool[np.ndarray, "batch actions"],
    ) -> Int64[np.ndarray, " batch"]:
        """One open action a row, each as likely as the others."""
        check_inputs(observation, action_mask, self.layout, self.catalogue)
        lots = np.where(action_mask, self._rng.random(action_mask.shape), -1.0)
        return np.asarray(lots.argmax(axis=1), dtype=np.int64)

    def reason(self, observation: Float32[np.ndarray, " fields"], action: int) -> str:
        """Say that chance decided."""
        name = self.catalogue.names[action]
        facts = action_facts(self.layout, self.catalogue, observation, action)
        return f"{name} was drawn at random among the open actions ({facts})."
