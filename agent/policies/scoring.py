"""The action-scoring network in NumPy, for serving: no torch, and no cohort's layout inside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Float32

from agent.errors import PolicyError
from agent.policies.features import (
    N_ACTION,
    N_CONTEXT,
    FeatureIndex,
    action_features,
    advice_of,
    context_features,
    runnable,
)

TENSORS = (
    "context_in.weight", "context_in.bias", "action_in.weight", "action_mid.weight",
    "action_mid.bias", "action_out.weight", "other_in.weight", "other_in.bias",
    "other_out.weight", "other_out.bias", "value_in.weight", "value_in.bias", "value_mid.weight",
    "value_mid.bias", "value_out.weight", "value_out.bias", "advice.weight",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ScoringWeights:
    """The network's weights; a weight is [outputs, inputs].

    Attributes:
        context_in_weight: context into the first layer of the score.
        context_in_bias: its bias.
        action_in_weight: a transfer's features into the same layer.
        action_mid_weight: second layer of the score.
        action_mid_bias: its bias.
        action_out_weight: the score, one output.
        other_in_weight: context and pooled transfers, for finalise and defer.
        other_in_bias: its bias.
        other_out_weight: finalise, then defer.
        other_out_bias: its bias.
        value_in_weight: context, sum and maximum of the open transfers' features.
        value_in_bias: its bias.
        value_mid_weight: second layer of the value.
        value_mid_bias: its bias.
        value_out_weight: the value, one output.
        value_out_bias: its bias.
        advice_weight: what a guide's advice adds to the preference for a transfer, for finalise
            and for defer; counts where there is a guide.
    """

    context_in_weight: Float32[np.ndarray, "first context"]
    context_in_bias: Float32[np.ndarray, " first"]
    action_in_weight: Float32[np.ndarray, "first features"]
    action_mid_weight: Float32[np.ndarray, "second first"]
    action_mid_bias: Float32[np.ndarray, " second"]
    action_out_weight: Float32[np.ndarray, "1 second"]
    other_in_weight: Float32[np.ndarray, "first pooled"]
    other_in_bias: Float32[np.ndarray, " first"]
    other_out_weight: Float32[np.ndarray, "2 first"]
    other_out_bias: Float32[np.ndarray, " 2"]
    value_in_weight: Float32[np.ndarray, "first summary"]
    value_in_bias: Float32[np.ndarray, " first"]
    value_mid_weight: Float32[np.ndarray, "second first"]
    value_mid_bias: Float32[np.ndarray, " second"]
    value_out_weight: Float32[np.ndarray, "1 second"]
    value_out_bias: Float32[np.ndarray, " 1"]
    advice_weight: Float32[np.ndarray, " 3"]

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, np.ndarray], where: str) -> ScoringWeights:
        """Take stored tensors, checking names, types and shapes.

        Args:
            tensors: by the names of :data:`TENSORS`.
            where: the file, for the message.

        Raises:
            PolicyError: if they are not such a network's.
        """
        if set(tensors) != set(TENSORS):
            raise PolicyError(
                f"{where}: the weights are not an action-scoring network's; it has the tensors "
                f"{', '.join(sorted(tensors)[:4])} ... Train the policy again."
            )
        middle = tensors["action_mid.weight"]
        expected = tensor_shapes(*middle.shape[::-1]) if middle.ndim == 2 else tensor_shapes(64, 64)
        for name, shape in expected.items():
            tensor = tensors[name]
            if tensor.shape != shape or tensor.dtype != np.float32:
                raise PolicyError(
                    f"{where}: {name} is {tensor.dtype} {tensor.shape}; the features of this "
                    f"version need float32 {shape}. Train the policy again."
                )
            if not np.isfinite(tensor).all():
                raise PolicyError(f"{where}: {name} holds values that are not finite.")
        return cls(**{name.replace(".", "_"): tensors[name] for name in TENSORS})

    def to_tensors(self) -> dict[str, np.ndarray]:
        """The weights by the names of :data:`TENSORS`."""
        return {name: getattr(self, f.name) for name, f in zip(TENSORS, fields(self))}

    def logits(
        self, index: FeatureIndex, observation: Float32[np.ndarray, "batch columns"]
    ) -> Float32[np.ndarray, "batch actions"]:
        """The preference for every action, before masking."""
        context, actions = context_features(index, observation), action_features(index, observation)
        first = context @ self.context_in_weight.T + self.context_in_bias
        hidden = np.maximum(first[:, None] + actions @ self.action_in_weight.T, 0)
        hidden = np.maximum(hidden @ self.action_mid_weight.T + self.action_mid_bias, 0)
        pooled = (hidden * runnable(actions)[..., None]).max(axis=1)
        joined = np.hstack([context, pooled]) @ self.other_in_weight.T + self.other_in_bias
        other = np.maximum(joined, 0) @ self.other_out_weight.T + self.other_out_bias
        score = (hidden @ self.action_out_weight.T)[..., 0]
        weight = np.append(
            np.repeat(self.advice_weight[0], index.n_transfers), self.advice_weight[1:]
        )
        logits = np.hstack([score, other]) + advice_of(index, observation) * weight
        return np.asarray(logits, dtype=np.float32)

    def value(
        self, index: FeatureIndex, observation: Float32[np.ndarray, "batch columns"]
    ) -> Float32[np.ndarray, " batch"]:
        """Scaled reward expected from here on, in training's sessions."""
        actions = action_features(index, observation)
        of_open = actions * runnable(actions)[..., None]
        summary = [context_features(index, observation), of_open.sum(axis=1), of_open.max(axis=1)]
        hidden = np.hstack(summary) @ self.value_in_weight.T + self.value_in_bias
        hidden = np.maximum(hidden, 0) @ self.value_mid_weight.T + self.value_mid_bias
        value = np.maximum(hidden, 0) @ self.value_out_weight.T + self.value_out_bias
        return np.asarray(value[:, 0], dtype=np.float32)


def tensor_shapes(first: int, second: int) -> dict[str, tuple[int, ...]]:
    """Shape of each of :data:`TENSORS` at these widths of the two layers."""
    return {
        "context_in.weight": (first, N_CONTEXT), "context_in.bias": (first,),
        "action_in.weight": (first, N_ACTION),
        "action_mid.weight": (second, first), "action_mid.bias": (second,),
        "action_out.weight": (1, second),
        "other_in.weight": (first, N_CONTEXT + second), "other_in.bias": (first,),
        "other_out.weight": (2, first), "other_out.bias": (2,),
        "value_in.weight": (first, N_CONTEXT + 2 * N_ACTION), "value_in.bias": (first,),
        "value_mid.weight": (second, first), "value_mid.bias": (second,),
        "value_out.weight": (1, second), "value_out.bias": (1,), "advice.weight": (3,),
    }  # fmt: skip
