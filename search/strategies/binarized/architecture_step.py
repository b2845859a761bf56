"""Steps of the architecture parameters: the task's gradient and the costs' joined into one, and the dual step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from netlathe.search.costs import Constraint
from netlathe.search.strategies.binarized.objectives import Objective
from netlathe.search.strategies.binarized.parameters import ArchitectureParameters
from netlathe.search.strategies.binarized.updates import Run, UpdateRule
from netlathe.training.sgd import check_finite


class ArchitectureStep:
    """An optimizer of architecture parameters under limits, and the step that it makes on a validation batch."""

    def __init__(
        self,
        parameters: ArchitectureParameters,
        constraints: Sequence[Constraint],
        rule: UpdateRule,
        objective: Objective,
        learning_rate: float,
    ) -> None:
        self.parameters, self.constraints, self.rule, self.objective = parameters, constraints, rule, objective
        # Asked once, so that what it cannot join shows before hours of work.
        ones = torch.ones(1 + len(constraints)).unbind()
        objective.loss(ones[0], ones[1:], [1.0] * len(constraints))
        # beta1 = 0: a pair that was not sampled must not move on momentum (ProxylessNAS's setting).
        self.optimizer = torch.optim.Adam(parameters.parameters(), lr=learning_rate, betas=(0.0, 0.999))

    def __call__(self, run: Run, generator: torch.Generator, where: str) -> None:
        """Moves the parameters by the batch that `run` computes the cross-entropy of. Raises TrainingError, with
        `where` in its words, for a loss or a gradient that is no number; nothing has moved then."""
        before = self.parameters.alpha.detach().clone()
        value, slope, gates = self.rule.estimate(self.parameters, run, generator)
        # The loss as a function of the task's value and of alpha: its slopes join the task's with the costs'.
        task = torch.tensor(value, requires_grad=True)
        loss = self.objective.loss(task, self.expected(), [c.limit for c in self.constraints])
        check_finite(loss, where)
        by_task, by_costs = torch.autograd.grad(loss, [task, self.parameters.alpha], allow_unused=True)
        gradient = by_task * slope + (0 if by_costs is None else by_costs)
        check_finite(gradient.abs().max(), where)
        self.parameters.alpha.grad = gradient
        self.optimizer.step()
        self.rule.finish(self.parameters, before, gates)
        # The dual step looks at the network that would be taken, not at the mixture, which can meet the limit alone.
        likeliest = self.parameters.likeliest()
        self.objective.observe([c.excess(likeliest) for c in self.constraints])

    def expected(self) -> list[Tensor]:
        """E[cost] under the parameters, a differentiable scalar per constraint."""
        probabilities = self.parameters.probabilities()
        return [c.table.expected(probabilities) for c in self.constraints]

    @torch.no_grad()
    def standing(self) -> dict[str, Any]:
        """The fields of an EpochRow that tell of the architecture as it is now."""
        p, likeliest = self.parameters.probabilities(), self.parameters.likeliest()
        return {
            "expected": tuple(float(e) for e in self.expected()),
            "likeliest": tuple(c.table.cost(likeliest) for c in self.constraints),
            "multipliers": self.objective.multipliers,
            "entropy": float(-torch.xlogy(p, p).sum(1).mean()),
            "candidates": int(self.parameters.mask.sum()),
        }
