"""Update rules of architecture parameters: by binary gates (ProxylessNAS), or by REINFORCE."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from netlathe.search.strategies.binarized.parameters import ArchitectureParameters, Gate, plain_gates, rescale_pairs

Run = Callable[[Sequence[Gate]], Iterator[Tensor]]
"""Cross-entropy of a validation batch through these gates, in pieces that sum up to the batch's mean; each piece must
be used before the next is asked for, so that one piece's activations exist at a time."""

Form = Literal["pair", "full", "recompute"]


class UpdateRule(Protocol):
    """Estimates how the expected cross-entropy changes with alpha."""

    name: str

    def estimate(
        self, parameters: ArchitectureParameters, run: Run, generator: torch.Generator
    ) -> tuple[float, Tensor, list[Gate]]:
        """Cross-entropy, its gradient (positions, candidates) with respect to alpha, and the gates that ran."""
        ...

    def finish(self, parameters: ArchitectureParameters, before: Tensor, gates: Sequence[Gate]) -> None:
        """Corrects alpha (positions, candidates) after the optimizer's step; `before` is alpha ahead of it."""
        ...

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class GradientUpdate:
    """Gradient straight through binary gates (ProxylessNAS, arXiv:1812.00332, section 3.2).

    pair: two candidates per position, and only these compete; two outputs per position in memory. full: all candidates'
    outputs in memory, none of their inner activations. recompute: the same gradient, inactive candidates run in the
    backward pass, one output at a time: slowest, least memory.
    """

    def __init__(self, form: Form = "pair") -> None:
        self.form = form
        self.name = f"gradient ({form})"

    def gates(self, parameters: ArchitectureParameters, generator: torch.Generator) -> list[Gate]:
        if self.form == "pair":
            return parameters.sample_pairs(generator)
        return parameters.sample_all(generator, recompute=self.form == "recompute")

    def estimate(
        self, parameters: ArchitectureParameters, run: Run, generator: torch.Generator
    ) -> tuple[float, Tensor, list[Gate]]:
        gates = self.gates(parameters, generator)
        values = [gate.values for gate in gates if gate.values is not None]
        if not values:
            return sum(float(piece.detach()) for piece in run(gates)), torch.zeros_like(parameters.alpha), gates
        total, slopes = 0.0, [torch.zeros_like(value) for value in values]
        for piece in run(gates):
            # Asking for the gates' gradients alone spares all weight gradients.
            for slope, part in zip(slopes, torch.autograd.grad(piece, values), strict=True):
                slope += part
            total += float(piece.detach())
        (gradient,) = torch.autograd.grad(values, parameters.alpha, slopes)
        return total, gradient, gates

    def finish(self, parameters: ArchitectureParameters, before: Tensor, gates: Sequence[Gate]) -> None:
        if self.form == "pair":
            rescale_pairs(parameters, before, gates)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """There is nothing to remember."""


class Reinforce:
    """Estimate (cross-entropy - baseline) * d log p(path) / d alpha, unbiased as the baseline is a moving average of
    earlier batches only, which does not depend on the path that it judges (Williams, 1992). Only forward passes."""

    name = "reinforce"

    def __init__(self, decay: float = 0.95) -> None:
        self.decay = decay
        self.baseline: float | None = None

    def estimate(
        self, parameters: ArchitectureParameters, run: Run, generator: torch.Generator
    ) -> tuple[float, Tensor, list[Gate]]:
        path = parameters.sample_path(generator)
        gates = plain_gates(path)
        with torch.no_grad():
            loss = sum(float(piece) for piece in run(gates))
            score = -parameters.probabilities() * parameters.mask
            score[torch.arange(len(path)), list(path)] += 1.0
        # The first batch only sets the baseline.
        advantage = 0.0 if self.baseline is None else loss - self.baseline
        self.baseline = loss if self.baseline is None else self.decay * self.baseline + (1 - self.decay) * loss
        return loss, advantage * score, gates

    def finish(self, parameters: ArchitectureParameters, before: Tensor, gates: Sequence[Gate]) -> None:
        """Corrects nothing: all candidates compete in every step."""

    def state_dict(self) -> dict[str, Any]:
        return {"baseline": self.baseline}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.baseline = state["baseline"]
