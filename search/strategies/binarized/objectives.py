"""Objectives: how cross-entropy and expected costs become one loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from netlathe.search.errors import SearchError


class Objective(Protocol):
    """Loss that joins cross-entropy with expected costs."""

    name: str

    @property
    def multipliers(self) -> tuple[float, ...]:
        """The present price of each constraint, for the log."""
        ...

    def loss(self, cross_entropy: Tensor, expected: Sequence[Tensor], limits: Sequence[float]) -> Tensor:
        """Joined loss, a scalar differentiable in cross_entropy and in each expected cost (scalars)."""
        ...

    def observe(self, excesses: Sequence[float]) -> None:
        """log(cost / limit) of the network that would be taken now, after an architecture step."""
        ...

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class Multiplier:
    """Price of one constraint: a PI controller on h = log(cost / limit), never below zero.

    The integral part is dual ascent on the constraint h <= 0; the proportional part damps it (Stooke et al.,
    arXiv:2007.03964).
    """

    def __init__(self, gain: float, rate: float) -> None:
        self.gain = gain
        self.rate = rate
        self.integral = 0.0
        self.value = 0.0

    def update(self, h: float) -> float:
        """Learns from h after an architecture step, and returns the new price."""
        self.integral = max(0.0, self.integral + self.rate * h)
        self.value = max(0.0, self.integral + self.gain * h)
        return self.value


class PIObjective:
    """cross-entropy + sum of multiplier * log(E[cost] / limit), one controlled multiplier per constraint.

    The multiplier follows the network that would be taken, not the mixture, which can meet a limit alone.
    """

    name = "controlled multiplier"

    def __init__(self, constraints: int, gain: float = 1.0, rate: float = 0.03) -> None:
        self.controllers = [Multiplier(gain, rate) for _ in range(constraints)]

    @property
    def multipliers(self) -> tuple[float, ...]:
        return tuple(c.value for c in self.controllers)

    def loss(self, cross_entropy: Tensor, expected: Sequence[Tensor], limits: Sequence[float]) -> Tensor:
        if len(expected) != len(self.controllers):
            raise SearchError(f"{self.name} was made for {len(self.controllers)} constraints, got {len(expected)}")
        total = cross_entropy
        for value, cost, limit in zip(self.multipliers, expected, limits, strict=True):
            total = total + value * torch.log(cost / limit)
        return total

    def observe(self, excesses: Sequence[float]) -> None:
        for controller, excess in zip(self.controllers, excesses, strict=True):
            controller.update(excess)

    def state_dict(self) -> dict[str, Any]:
        return {"controllers": [[c.integral, c.value] for c in self.controllers]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for controller, (integral, value) in zip(self.controllers, state["controllers"], strict=True):
            controller.integral, controller.value = integral, value
