"""SuperNet: every candidate of every position, of which one (or a gated pair) runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from archspace.blocks import MBConv
from archspace.forms.torch import TorchGraph
from archspace.graph import SCOPE_SEPARATOR
from archspace.spaces import SearchSpace, block_scope
from search.errors import TrainingError
from search.parameters import Gate, Path


class SuperNet(nn.Module):
    """A search space with weights. Which candidates run is an argument of forward, never a state of the module."""

    def __init__(self, space: SearchSpace, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.space = space
        self.positions = nn.ModuleList(
            nn.ModuleList(TorchGraph(block.graph(), generator=generator) for block in candidates)
            for candidates in space.positions
        )

    def forward(self, x: Tensor, gates: Sequence[Gate]) -> Tensor:
        """x (N, C, H, W), one gate per searchable position -> logits (N, classes)."""
        if len(gates) != len(self.space.searchable):
            raise TrainingError(f"{len(self.space.searchable)} positions are searchable, but {len(gates)} gates given")
        gate_of = dict(zip(self.space.searchable, gates, strict=True))
        for index, candidates in enumerate(self.positions):
            x = _run(cast(nn.ModuleList, candidates), x, gate_of.get(index, Gate(0)))
        return x

    @torch.no_grad()
    def spread(self, path: Path) -> None:
        """Gives every candidate what it can take over of its position's candidate on `path`: the first channels, the
        middle of the kernel (or zeros around it).

        Candidates then speak the same channels, so that random paths work from the start; from independent weights, a
        layer first has to learn to understand each of its possible predecessors (as in once-for-all's progressive
        shrinking, arXiv:1908.09791).
        """
        for position, choice in zip(self.space.searchable, path, strict=True):
            candidates = cast(nn.ModuleList, self.positions[position])
            source = candidates[choice].state_dict()
            for index, candidate in enumerate(candidates):
                for name, target in candidate.state_dict().items():
                    if index != choice and name in source:
                        target.copy_(_fitted(source[name], target.shape))

    def extract(self, path: Path) -> TorchGraph:
        """The network along a path, with a copy of the supernet's weights."""
        network = TorchGraph(self.space.architecture(path).graph())
        chosen = dict(zip(self.space.searchable, path, strict=True))
        weights = {}
        for index, candidates in enumerate(self.positions):
            block = cast(nn.ModuleList, candidates)[chosen.get(index, 0)]
            for name, value in block.state_dict().items():
                # layers.expand.0.weight of the block is layers.b03/expand.0.weight of the network
                head, _, tail = name.partition(".")
                weights[f"{head}.{block_scope(index)}{SCOPE_SEPARATOR}{tail}"] = value
        network.load_state_dict(weights)
        return network


def main_path(space: SearchSpace) -> Path:
    """Per position the candidate that has most to give to the others: of the MBConvs with the largest expansion the one
    of the middle kernel, else the one with most parameters."""
    path = []
    for position in space.searchable:
        blocks = space.positions[position]
        expand = max((b.expand for b in blocks if isinstance(b, MBConv)), default=None)
        widest = sorted((b.kernel, i) for i, b in enumerate(blocks) if isinstance(b, MBConv) and b.expand == expand)
        if widest:
            path.append(widest[len(widest) // 2][1])
        else:
            path.append(max(range(len(blocks)), key=lambda i: blocks[i].graph().parameters))
    return tuple(path)


def _fitted(source: Tensor, shape: torch.Size) -> Tensor:
    """The first channels, the middle of the kernel; zeros where the source is smaller."""
    value = source
    for axis, size in enumerate(shape):
        have = value.shape[axis]
        before = (size - have) // 2 if axis >= 2 else 0  # negative: crop
        pad = [0, 0] * (value.dim() - axis - 1) + [before, size - have - before]
        value = F.pad(value, pad)
    return value


def _run(candidates: nn.ModuleList, x: Tensor, gate: Gate) -> Tensor:
    """The active candidate with its graph; the inactive one for its output only, which the gate's gradient needs."""
    y: Tensor = candidates[gate.active](x)
    if gate.values is None or gate.inactive is None:
        return y
    with torch.no_grad():
        other: Tensor = candidates[gate.inactive](x)
    return gate.values[0] * y + gate.values[1] * other
