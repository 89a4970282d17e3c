"""A policy with a simple rule is put into its words; one without is not claimed to be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from agent.policies.registry import make_policy
from agent.surrogate import Decisions, decision_names, surrogate, watch
from envs.catalogue import ActionCatalogue
from envs.observation import ObservationLayout
from envs.setup import ReviewSetup, build_setup
from envs.toy import toy_evidence


@dataclass(frozen=True, kw_only=True)
class UrgentOnly:
    """Brings in genomics where the urgency is above 0.3, once; else finalises."""

    layout: ObservationLayout
    catalogue: ActionCatalogue
    name: str = "urgent-only"

    def reset(self, num_envs: int, seed: int) -> None:
        pass

    def act(self, observation: np.ndarray, action_mask: np.ndarray) -> np.ndarray:
        urgency = self.layout.physical(observation, "urgency")
        action = self.catalogue.index("genomics->pathology")
        wants = (urgency > 0.3) & action_mask[:, action]
        return np.where(wants, action, self.catalogue.finalise).astype(np.int64)

    def reason(self, observation: np.ndarray, action: int) -> str:
        return ""


@pytest.fixture(scope="module")
def setup() -> ReviewSetup:
    return build_setup(evidence=toy_evidence(200), n_cases=20, budget_mode="price")


def test_a_simple_rule_is_found_and_said(setup: ReviewSetup) -> None:
    policy = UrgentOnly(layout=setup.layout, catalogue=setup.catalogue)
    grown, asked = (watch(policy, setup, range(s, s + 12)) for s in (0, 100))
    tree = surrogate("urgent-only", setup, grown, asked, rng=np.random.default_rng(0))
    assert tree.fidelity.value >= 0.97
    assert tree.fidelity.value > tree.most_common.high
    said = " ".join(tree.sentences)
    # The deadline follows from the urgency: 21.75 h at 0.3.
    assert "urgency above 0.3" in said or "time to the deadline at most 21.7 h" in said
    assert "bring in genomics" in said
    assert tree.nodes[0].share == 1.0
    assert 1 <= len(tree.sentences) <= 8
    leaves = [node for node in tree.nodes if node.yes is None]
    assert sum(node.share for node in leaves) == pytest.approx(1.0)


def test_chance_has_no_words(setup: ReviewSetup) -> None:
    policy = make_policy("random", setup.layout, setup.catalogue)
    grown, asked = (watch(policy, setup, range(s, s + 6)) for s in (0, 100))
    tree = surrogate("random", setup, grown, asked, rng=np.random.default_rng(0))
    assert tree.fidelity.value < 0.75


def test_transfers_of_one_modality_are_one_decision(setup: ReviewSetup) -> None:
    assert decision_names(setup.catalogue)[-2:] == ("finalise", "defer")
    assert len(decision_names(setup.catalogue)) == len(setup.layout.modalities) + 2


def test_sessions_of_several_policies_stay_apart(setup: ReviewSetup) -> None:
    policy = make_policy("never", setup.layout, setup.catalogue)
    part = watch(policy, setup, range(3))
    both = Decisions.join([part, part])
    assert set(both.session.tolist()) == set(range(6))
    assert len(both.values) == 2 * len(part.values)
