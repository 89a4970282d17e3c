"""The action-scoring network in torch, as a policy of stable-baselines3 and of sb3-contrib.

One small network scores every transfer from the context and that transfer's own features
(:mod:`agent.policies.features`); finalise, defer and the value read the context and what is pooled
over the transfers that could still be run. The number of transfers is not part of the network, so
its weights fit every cohort. :class:`agent.policies.scoring.ScoringWeights` is the same in NumPy.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import Schedule
from torch import nn

from agent.policies.features import (
    ACTION,
    BUDGET_PER_CASE,
    LEAD_FIELDS,
    LEAST_INTENSITY,
    MOST,
    N_ACTION,
    N_CONTEXT,
    ONE_CASE,
    ONE_WAITING,
    SLOTS_PER_WAITING,
    TO_COME_PER_WAITING,
    FeatureIndex,
    column,
)
from agent.policies.scoring import TENSORS

CLOSED_LOGIT = -1e8
AnyPolicy = ActorCriticPolicy | MaskableActorCriticPolicy


class Advice(nn.Module):
    """What a guide's advice adds to the preferences: for a transfer, for finalise, for defer."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((3,), start))

    def forward(self, advised: torch.Tensor) -> torch.Tensor:
        """Log-odds [batch, actions] from the advice, one column an action."""
        transfers = self.weight[:1].expand(advised.shape[1] - 2)
        return advised * torch.cat((transfers, self.weight[1:]))


class ScoringNetwork(nn.Module):
    """Logits of every action and the value, from scaled observations.

    Args:
        index: where the layout keeps the features; used in training only, not stored.
        hidden: widths of the two layers that score a transfer.
        advice_weight: what a guide's advice is worth at first, in log-odds; None without a guide.
    """

    def __init__(
        self,
        index: FeatureIndex,
        hidden: tuple[int, int] = (64, 64),
        advice_weight: float | None = None,
    ) -> None:
        super().__init__()
        self.n_transfers, self.n_fields = index.n_transfers, index.n_fields
        self.guided = advice_weight is not None
        self.advice = Advice(advice_weight or 0.0)
        first, second = hidden
        self.register_buffer("context_at", torch.as_tensor(index.context), persistent=False)
        self.register_buffer("action_at", torch.as_tensor(index.action), persistent=False)
        self.context_in = nn.Linear(N_CONTEXT, first)
        self.action_in = nn.Linear(N_ACTION, first, bias=False)
        self.action_mid = nn.Linear(first, second)
        self.action_out = nn.Linear(second, 1, bias=False)
        self.other_in = nn.Linear(N_CONTEXT + second, first)
        self.other_out = nn.Linear(first, 2)
        self.value_in = nn.Linear(N_CONTEXT + 2 * N_ACTION, first)
        self.value_mid = nn.Linear(first, second)
        self.value_out = nn.Linear(second, 1)
        self._start()

    def _start(self) -> None:
        """Orthogonal weights; near-equal preferences at first, as PPO wants them."""
        heads = {self.action_out: 0.01, self.other_out: 0.01, self.value_out: 1.0}
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.orthogonal_(module.weight, gain=heads.get(module, 2.0**0.5))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def context(self, observation: torch.Tensor) -> torch.Tensor:
        """As :func:`agent.policies.features.context_features`."""
        raw = observation.index_select(1, self.context_at)  # type: ignore[arg-type]

        def field(name: str) -> torch.Tensor:
            return raw[:, column(name)].unsqueeze(1)

        budget, waiting = field("budget_left_g_co2e"), field("waiting").clamp_min(ONE_WAITING)
        cases = field("cases_left").clamp_min(ONE_CASE)
        open_cases = waiting + field("to_come") * TO_COME_PER_WAITING
        first = column(LEAD_FIELDS[0])
        ratios = (
            budget * budget * BUDGET_PER_CASE / cases,
            field("slots_left") * SLOTS_PER_WAITING / open_cases,
            field("ahead") / waiting,
            raw[:, first : first + len(LEAD_FIELDS)]
            / field("intensity_now").clamp_min(LEAST_INTENSITY),
        )
        advised = self.advised(observation)[:, self.n_transfers :]
        return torch.cat((raw, torch.cat(ratios, dim=1).clamp_max(MOST), advised), dim=1)

    def advised(self, observation: torch.Tensor) -> torch.Tensor:
        """As :func:`agent.policies.features.advice_of`."""
        if self.guided:
            return observation[:, self.n_fields :]
        return observation.new_zeros((len(observation), self.n_transfers + 2))

    def actions(self, observation: torch.Tensor) -> torch.Tensor:
        """As :func:`agent.policies.features.action_features`."""
        flat = observation.index_select(1, self.action_at)  # type: ignore[arg-type]
        raw = flat.view(len(observation), self.n_transfers, len(ACTION))
        at = ACTION.index("g_co2e")
        grams = raw[..., at : at + 1]
        advised = self.advised(observation)[:, : self.n_transfers].unsqueeze(2)
        return torch.cat((raw, (grams * grams).clamp_max(MOST), advised), dim=2)

    def forward(self, observation: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits [batch, actions] before masking, and values [batch, 1]."""
        context, actions = self.context(observation), self.actions(observation)
        present = actions[..., ACTION.index("present_source")] > 0.5
        runnable = (present & (actions[..., ACTION.index("run")] < 0.5)).unsqueeze(2).float()
        hidden = torch.relu(self.context_in(context).unsqueeze(1) + self.action_in(actions))
        hidden = torch.relu(self.action_mid(hidden))
        pooled = (hidden * runnable).amax(dim=1)
        other = torch.relu(self.other_in(torch.cat((context, pooled), dim=1)))
        logits = torch.cat((self.action_out(hidden).squeeze(2), self.other_out(other)), dim=1)
        if self.guided:
            logits = logits + self.advice(self.advised(observation))
        return logits, self.value(context, actions, runnable)

    def value(
        self, context: torch.Tensor, actions: torch.Tensor, runnable: torch.Tensor
    ) -> torch.Tensor:
        """What is expected from here on; of its own layers, so that it pulls at no preference."""
        open_actions = actions * runnable
        summary = torch.cat((context, open_actions.sum(dim=1), open_actions.amax(dim=1)), dim=1)
        hidden = torch.relu(self.value_mid(torch.relu(self.value_in(summary))))
        return torch.as_tensor(self.value_out(hidden))


class ScoringExtractor(BaseFeaturesExtractor):
    """The network as SB3's features extractor: its features are the logits and the value."""

    def __init__(
        self,
        observation_space: spaces.Box,
        index: FeatureIndex,
        hidden: tuple[int, int],
        advice_weight: float | None = None,
    ) -> None:
        super().__init__(observation_space, index.n_actions + 1)
        self.network = ScoringNetwork(index, hidden, advice_weight)

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """Logits and value side by side."""
        return torch.cat(self.network(observations), dim=1)


class SplitFeatures(nn.Module):
    """Takes the extractor's features apart again, where SB3 expects its two towers."""

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits, and the value."""
        return self.forward_actor(features), self.forward_critic(features)

    def forward_actor(self, features: torch.Tensor) -> torch.Tensor:
        """The logits."""
        return features[:, :-1]

    def forward_critic(self, features: torch.Tensor) -> torch.Tensor:
        """The value."""
        return features[:, -1:]


def _build_scoring(policy: AnyPolicy, lr_schedule: Schedule) -> None:
    policy.mlp_extractor = SplitFeatures()  # type: ignore[assignment]
    policy.action_net = nn.Identity()
    policy.value_net = nn.Identity()  # type: ignore[assignment]
    policy.optimizer = policy.optimizer_class(
        policy.parameters(),
        lr=lr_schedule(1),  # type: ignore[call-arg]
        **policy.optimizer_kwargs,
    )


def _sample(log_prob: torch.Tensor, deterministic: bool) -> torch.Tensor:
    """The best action, or one drawn by adding Gumbel noise, which needs no normalised weights."""
    if deterministic:
        return log_prob.argmax(dim=1)
    return (log_prob - torch.empty_like(log_prob).exponential_().log()).argmax(dim=1)


class ScoringPolicy(ActorCriticPolicy):
    """For SB3's PPO: masked actions are not known to it and are counted no-ops."""

    def _build(self, lr_schedule: Schedule) -> None:
        _build_scoring(self, lr_schedule)


class MaskableScoringPolicy(MaskableActorCriticPolicy):
    """For sb3-contrib's MaskablePPO, without the objects that it makes for every step."""

    def _build(self, lr_schedule: Schedule) -> None:
        _build_scoring(self, lr_schedule)

    def _log_probs(
        self, obs: torch.Tensor, action_masks: np.ndarray | torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.extract_features(obs)
        logits, value = self.mlp_extractor(features)
        if action_masks is not None:
            is_open = torch.as_tensor(action_masks, dtype=torch.bool).view(logits.shape)
            logits = logits.masked_fill(~is_open, CLOSED_LOGIT)
        return torch.log_softmax(logits, dim=1), value

    def forward(
        self,
        obs: torch.Tensor,
        deterministic: bool = False,
        action_masks: np.ndarray | torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Actions, values and log-probabilities, as the base class gives them."""
        log_probs, value = self._log_probs(obs, action_masks)
        actions = _sample(log_probs, deterministic)
        return actions, value, log_probs.gather(1, actions.unsqueeze(1)).squeeze(1)

    def evaluate_actions(
        self,
        obs: torch.Tensor,
        actions: torch.Tensor,
        action_masks: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Values, log-probabilities of these actions, and entropies over the open ones."""
        log_probs, value = self._log_probs(obs, action_masks)
        entropy = -(log_probs.exp() * log_probs).sum(dim=1)  # exp(-1e8) is 0: closed ones add none
        return value, log_probs.gather(1, actions.long().view(-1, 1)).squeeze(1), entropy


def policy_settings(
    index: FeatureIndex, hidden: tuple[int, int], advice_weight: float | None = None
) -> dict[str, Any]:
    """SB3's ``policy_kwargs`` for either policy."""
    return {
        "features_extractor_class": ScoringExtractor,
        "features_extractor_kwargs": {
            "index": index,
            "hidden": hidden,
            "advice_weight": advice_weight,
        },
        "net_arch": [],
        "ortho_init": False,
    }


def network_of(policy: AnyPolicy) -> ScoringNetwork:
    """The network inside an SB3 policy.

    Raises:
        TypeError: if the policy is not one of this module's.
    """
    extractor = policy.features_extractor
    if not isinstance(extractor, ScoringExtractor):
        raise TypeError(f"{type(policy).__name__} has no action-scoring network.")
    return extractor.network


def network_tensors(network: ScoringNetwork) -> dict[str, np.ndarray]:
    """The weights under the names that the NumPy twin reads."""
    state = network.state_dict()
    return {name: state[name].detach().numpy().astype(np.float32) for name in TENSORS}
