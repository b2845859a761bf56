"""Reference forms of a loss with a cost, which the controlled multiplier is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from netlathe.search.errors import SearchError


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
