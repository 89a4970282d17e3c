"""Any torch optimiser with a learning rate that follows the grid's carbon intensity."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer

from distill.errors import TrainingError

LEAST_SCALE, MOST_SCALE = 0.25, 4.0
"""Bounds of the factor: beyond them a learning rate is another recipe, not a scaled one."""


def intensity_scale(intensity: float, reference: float, strength: float) -> float:
    """Factor on the learning rate: ``(reference / intensity) ** strength``, from 0.25 to 4.

    Args:
        intensity: of the grid at present, gCO2e/kWh; 0 gives the largest factor.
        reference: intensity at which the learning rate is as scheduled, gCO2e/kWh.
        strength: 0 leaves it alone, 1 scales in proportion.

    Raises:
        TrainingError: if one of them is no finite number, negative, or the reference is 0.
    """
    for name, value in (("intensity", intensity), ("reference", reference), ("strength", strength)):
        if not math.isfinite(value) or value < 0 or (name == "reference" and value == 0):
            raise TrainingError(
                f"Learning rate by intensity: {name} is {value}; it must be finite and "
                f"{'above 0' if name == 'reference' else '0 or more'}."
            )
    if strength == 0:
        return 1.0
    if intensity == 0:
        return MOST_SCALE
    factor: float = (reference / intensity) ** strength
    return min(MOST_SCALE, max(LEAST_SCALE, factor))


class CarbonAwareOptimizer(Optimizer):
    """Wraps an optimiser: each step is made with every group's learning rate times a factor.

    Groups, state and defaults *are* those of the wrapped optimiser, so learning-rate schedulers,
    checkpoints and hooks work as with it; between steps the groups hold the scheduled, unscaled
    rates. Weight decay that an optimiser couples to the learning rate (AdamW) is scaled with it.

    Args:
        base: any torch optimiser.
        scale: gives the factor, asked once a step; must be finite and not negative.
    """

    base: Optimizer

    def __init__(self, base: Optimizer, scale: Callable[[], float]) -> None:
        # Not ``super().__init__``: it would make groups and state of its own.
        self.base = base
        self.scale = scale

    def __getattr__(self, name: str) -> Any:
        """Whatever the wrapper does not have is the wrapped optimiser's."""
        if name == "base":
            raise AttributeError(name)
        return getattr(self.base, name)

    def __repr__(self) -> str:
        return f"CarbonAwareOptimizer({self.base!r})"

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of the wrapped optimiser at the scaled rates.

        Raises:
            TrainingError: if the factor is no finite number or negative; nothing is changed then.
        """
        factor = float(self.scale())
        if not math.isfinite(factor) or factor < 0:
            raise TrainingError(
                f"The factor on the learning rate is {factor}; it must be finite and 0 or more."
            )
        scheduled = [group["lr"] for group in self.base.param_groups]
        try:
            for group, rate in zip(self.base.param_groups, scheduled, strict=True):
                group["lr"] = rate * factor
            return self.base.step() if closure is None else self.base.step(closure)
        finally:
            for group, rate in zip(self.base.param_groups, scheduled, strict=True):
                group["lr"] = rate

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As the wrapped optimiser's."""
        self.base.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """The wrapped optimiser's: it can be loaded with or without the wrapper."""
        return self.base.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Into the wrapped optimiser."""
        self.base.load_state_dict(state_dict)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """To the wrapped optimiser."""
        self.base.add_param_group(param_group)
