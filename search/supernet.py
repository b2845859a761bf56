"""SuperNet: every candidate of every position, of which one (or a gated pair) runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from archspace.forms.torch import TorchGraph
from torch import Tensor, nn

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


def _run(candidates: nn.ModuleList, x: Tensor, gate: Gate) -> Tensor:
    """The active candidate with its graph; the inactive one for its output only, which the gate's gradient needs."""
    y: Tensor = candidates[gate.active](x)
    if gate.values is None or gate.inactive is None:
        return y
    with torch.no_grad():
        other: Tensor = candidates[gate.inactive](x)
    return gate.values[0] * y + gate.values[1] * other
