"""How cross-entropy and expected costs become one loss: our controlled multipliers, and the forms they are compared
with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from netlathe.search.errors import SearchError


class Objective(Protocol):
    """Joins the task's loss with what networks cost."""

    name: str

    @property
    def multipliers(self) -> tuple[float, ...]:
        """The present price of each constraint, for the log."""
        ...

    def loss(self, cross_entropy: Tensor, expected: Sequence[Tensor], limits: Sequence[float]) -> Tensor:
        """Scalar, differentiable in cross_entropy and in each expected cost (scalars)."""
        ...

    def observe(self, excesses: Sequence[float]) -> None:
        """log(cost / limit) of the network that would be taken now, after an architecture step."""
        ...

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class Multiplier:
    """The price of one constraint: a PI controller on h = log(cost / limit), never below zero.

    The integral part is dual ascent on the constraint h <= 0; the proportional part damps it (Stooke et al.,
    arXiv:2007.03964).
    """

    def __init__(self, gain: float, rate: float) -> None:
        self.gain = gain
        self.rate = rate
        self.integral = 0.0
        self.value = 0.0

    def update(self, h: float) -> float:
        """Of one architecture step."""
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


class FixedObjective:
    """Base of the reference forms: one constraint, a weight that does not learn."""

    name: str

    def __init__(self, weight: float) -> None:
        self.weight = weight

    @property
    def multipliers(self) -> tuple[float, ...]:
        return (self.weight,)

    def loss(self, cross_entropy: Tensor, expected: Sequence[Tensor], limits: Sequence[float]) -> Tensor:
        if len(expected) != 1:
            raise SearchError(f"{self.name} knows one constraint, got {len(expected)}; use the controlled multiplier")
        return self.joined(cross_entropy, expected[0], limits[0])

    def joined(self, cross_entropy: Tensor, cost: Tensor, limit: float) -> Tensor:
        raise NotImplementedError

    def observe(self, excesses: Sequence[float]) -> None:
        """A fixed weight learns nothing."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """There is nothing to remember."""


class MulLog(FixedObjective):
    """alpha * cross-entropy * (log E / log T)^beta, the form of ProxylessNAS's released search. It depends on the
    unit: below one (ms, say) the logarithms change sign, and below T = 1 the form has no meaning."""

    name = "mul#log"

    def __init__(self, alpha: float = 0.2, beta: float = 0.3) -> None:
        super().__init__(beta)
        self.alpha = alpha

    def joined(self, cross_entropy: Tensor, cost: Tensor, limit: float) -> Tensor:
        ratio: Tensor = torch.log(cost) / torch.log(torch.tensor(limit))
        return self.alpha * cross_entropy * ratio**self.weight


class AddLinear(FixedObjective):
    """cross-entropy + lambda * (E - T) / T, the other form of ProxylessNAS's released search."""

    name = "add#linear"

    def __init__(self, weight: float = 0.1) -> None:
        super().__init__(weight)

    def joined(self, cross_entropy: Tensor, cost: Tensor, limit: float) -> Tensor:
        return cross_entropy + self.weight * (cost - limit) / limit


class AbsoluteReward(FixedObjective):
    """cross-entropy + beta * |E / T - 1| (TuNAS, arXiv:2008.06120, as a loss)."""

    name = "absolute value"

    def __init__(self, weight: float = 0.1) -> None:
        super().__init__(weight)

    def joined(self, cross_entropy: Tensor, cost: Tensor, limit: float) -> Tensor:
        return cross_entropy + self.weight * (cost / limit - 1).abs()


class SoftPenalty(FixedObjective):
    """cross-entropy + beta * max(0, log(E / T)): pays above the limit only."""

    name = "soft penalty"

    def __init__(self, weight: float = 0.1) -> None:
        super().__init__(weight)

    def joined(self, cross_entropy: Tensor, cost: Tensor, limit: float) -> Tensor:
        return cross_entropy + self.weight * torch.log(cost / limit).clamp(min=0)
