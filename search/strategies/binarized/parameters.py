"""Architecture parameters: one masked tensor (positions, candidates), and the paths and gates drawn from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from netlathe.archspace.decisions import Choices
from netlathe.training.ranks import Ranks

TINY = 1e-20


@dataclass(frozen=True)
class Gate:
    """Execution of one position: `active` alone; or, with `values`, also `inactive`, all through gate values
    (1 + inactive,) = [1, 0, ...] that carry the gradient."""

    active: int
    inactive: tuple[int, ...] = ()
    values: Tensor | None = None
    recompute: bool = False
    """Run the inactive ones only when gradients are taken, one at a time: saves their outputs."""


def plain_gates(path: Sequence[int]) -> list[Gate]:
    """The path and nothing else: for weight steps, and for running one network of the supernet."""
    return [Gate(choice) for choice in path]


def of_all_ranks(gates: Sequence[Gate], ranks: Ranks) -> list[Gate]:
    """The same gates, whose values' gradients are sums over all processes, which thus move alike."""
    valued = [gate for gate in gates if gate.values is not None]
    values = iter(ranks.of_all([gate.values for gate in valued if gate.values is not None]))
    return [gate if gate.values is None else replace(gate, values=next(values)) for gate in gates]


class ArchitectureParameters(nn.Module):
    """alpha (positions, candidates); entries beyond a position's candidates, and dropped ones, are masked out."""

    mask: Tensor

    def __init__(self, candidates: Sequence[int]) -> None:
        super().__init__()
        width = max(candidates, default=1)
        self.alpha = nn.Parameter(torch.zeros(len(candidates), width))
        self.register_buffer("mask", torch.arange(width) < torch.tensor(candidates)[:, None])

    def log_probabilities(self) -> Tensor:
        """Log probabilities (positions, candidates); -inf where there is no candidate."""
        return self.alpha.masked_fill(~self.mask, -torch.inf).log_softmax(1)

    def probabilities(self) -> Tensor:
        """softmax(alpha) over each position's candidates; 0 where there is none."""
        return self.log_probabilities().exp()

    def likeliest(self) -> Choices:
        return tuple(self.log_probabilities().argmax(1).tolist())

    def sample_path(self, generator: torch.Generator) -> Choices:
        """One path, each position by its probabilities."""
        with torch.no_grad():
            drawn = torch.multinomial(self.probabilities(), 1, generator=generator)
        return tuple(drawn[:, 0].tolist())

    def uniform_path(self, generator: torch.Generator) -> Choices:
        """One path, every candidate alike: for the warm-up of the weights."""
        drawn = torch.multinomial(self.mask.float(), 1, generator=generator)
        return tuple(drawn[:, 0].tolist())

    def sample_pairs(self, generator: torch.Generator) -> list[Gate]:
        """Two candidates per position by their probabilities, one of them active (ProxylessNAS, section 3.2.1); one
        alone where only one is left.

        The gate values are binary going forward; going backward they pass the gradient to the pair's softmax.
        """
        with torch.no_grad():
            # A probability may underflow to zero; a pair still needs two candidates that exist.
            likely = (self.probabilities() + TINY) * self.mask
            single = self.mask.sum(1) == 1
            likely[single] += TINY  # a draw of two needs two; the second is not used
            pairs = torch.multinomial(likely, 2, generator=generator)
        p = self.alpha.gather(1, pairs).softmax(1)
        active = torch.multinomial(p.detach(), 1, generator=generator)
        values = _straight_through(p, active)
        gates = []
        for row, (pair, first) in enumerate(zip(pairs.tolist(), active[:, 0].tolist(), strict=True)):
            if single[row]:
                gates.append(Gate(int(self.mask[row].float().argmax())))
            else:
                gates.append(Gate(pair[first], (pair[1 - first],), values[row, [first, 1 - first]]))
        return gates

    def sample_all(self, generator: torch.Generator, *, recompute: bool = False) -> list[Gate]:
        """One active candidate per position by its probabilities, with all others for the gradient (ibid., section
        3.2)."""
        p = self.probabilities()
        active = torch.multinomial(p.detach(), 1, generator=generator)
        values = _straight_through(p, active)
        gates = []
        for row, first in enumerate(active[:, 0].tolist()):
            others = [k for k in self.mask[row].nonzero()[:, 0].tolist() if k != first]
            if others:
                gates.append(Gate(first, tuple(others), values[row, [first, *others]], recompute))
            else:
                gates.append(Gate(first))
        return gates

    @torch.no_grad()
    def drop(self, position: int, candidate: int) -> None:
        """Masks a candidate out for good; the others keep their proportions."""
        self.mask[position, candidate] = False


def _straight_through(p: Tensor, active: Tensor) -> Tensor:
    """One-hot going forward, p going backward."""
    return torch.zeros_like(p).scatter(1, active, 1.0) + p - p.detach()


@torch.no_grad()
def rescale_pairs(parameters: ArchitectureParameters, before: Tensor, gates: Sequence[Gate]) -> None:
    """Shifts pairs after a step on them, each so that its unnormalised mass is what it was in `before` (alpha before
    the step), so that the task's gradient only trades within the pairs that were sampled (ibid.)."""
    paired = [(row, gate) for row, gate in enumerate(gates) if gate.inactive]
    if not paired:
        return
    after = parameters.alpha
    rows = torch.tensor([row for row, _ in paired])[:, None]
    pairs = torch.tensor([[g.active, *g.inactive] for _, g in paired])
    old, new = before[rows, pairs], after[rows, pairs]
    after[rows, pairs] = new + torch.logsumexp(old, 1, keepdim=True) - torch.logsumexp(new, 1, keepdim=True)
