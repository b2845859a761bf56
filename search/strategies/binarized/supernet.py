"""Supernet: every candidate of every position, of which one (or a gated pair) runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from netlathe.archspace.decisions import Choices
from netlathe.archspace.forms.torch import TorchGraph
from netlathe.archspace.graph import SCOPE_SEPARATOR
from netlathe.archspace.spaces import SearchSpace, block_scope
from netlathe.search.strategies.binarized.parameters import Gate
from netlathe.training.errors import TrainingError


class SuperNet(nn.Module):
    """Weights of a search space of blocks. Which candidates run is an argument of forward, never a state."""

    def __init__(self, space: SearchSpace, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.space = space
        self.positions = nn.ModuleList(
            nn.ModuleDict({str(k): TorchGraph(b.graph(), generator=generator) for k, b in enumerate(candidates)})
            for candidates in space.positions
        )

    def forward(self, x: Tensor, gates: Sequence[Gate]) -> Tensor:
        """x (N, C, H, W), one gate per searchable position -> logits (N, classes)."""
        if len(gates) != len(self.space.searchable):
            raise TrainingError(f"{len(self.space.searchable)} positions are searchable, but {len(gates)} gates given")
        gate_of = dict(zip(self.space.searchable, gates, strict=True))
        for index, candidates in enumerate(self.positions):
            x = _run(cast(nn.ModuleDict, candidates), x, gate_of.get(index, Gate(0)))
        return x

    def candidate(self, position: int, choice: int) -> nn.Module:
        """A candidate of the position `space.positions[position]`. Raises TrainingError when it was dropped."""
        candidates = cast(nn.ModuleDict, self.positions[position])
        if str(choice) not in candidates:
            raise TrainingError(f"candidate {choice} of position {position} was dropped from the supernet")
        return candidates[str(choice)]

    def drop(self, position: int, choice: int) -> list[nn.Parameter]:
        """Removes a candidate with its weights, and returns these for an optimizer to forget."""
        gone = list(self.candidate(position, choice).parameters())
        del cast(nn.ModuleDict, self.positions[position])[str(choice)]
        return gone

    @torch.no_grad()
    def share_weights(self, path: Choices) -> None:
        """Copies to every candidate the weights that it can take over from its position's candidate on `path`: the
        first channels, the middle of the kernel (or zeros around it).

        Candidates then speak the same channels, so that random paths work from the start; from independent weights, a
        layer first has to learn to understand each of its possible predecessors (as in once-for-all's progressive
        shrinking, arXiv:1908.09791).
        """
        for position, choice in zip(self.space.searchable, path, strict=True):
            source = self.candidate(position, choice).state_dict()
            for index, candidate in cast(nn.ModuleDict, self.positions[position]).items():
                for name, target in candidate.state_dict().items():
                    if index != str(choice) and name in source:
                        target.copy_(_fitted(source[name], target.shape))

    @contextmanager
    def statistics_kept(self) -> Iterator[None]:
        """Context in which BatchNorm normalizes by the batch, as in training, but learns nothing from it."""
        norms = [m for m in self.modules() if isinstance(m, nn.BatchNorm2d)]
        for norm in norms:
            norm.track_running_stats = False
        try:
            yield
        finally:
            for norm in norms:
                norm.track_running_stats = True

    def extract(self, path: Choices) -> TorchGraph:
        """The network along a path, with a copy of the supernet's weights."""
        network = TorchGraph(self.space.architecture(path).graph())
        chosen = dict(zip(self.space.searchable, path, strict=True))
        weights = {}
        for index in range(len(self.positions)):
            for name, value in self.candidate(index, chosen.get(index, 0)).state_dict().items():
                # layers.expand.0.weight of the block is layers.b03/expand.0.weight of the network
                head, _, tail = name.partition(".")
                weights[f"{head}.{block_scope(index)}{SCOPE_SEPARATOR}{tail}"] = value
        network.load_state_dict(weights)
        return network


def _fitted(source: Tensor, shape: torch.Size) -> Tensor:
    """The first channels, the middle of the kernel; zeros where the source is smaller."""
    value = source
    for axis, size in enumerate(shape):
        have = value.shape[axis]
        before = (size - have) // 2 if axis >= 2 else 0  # negative: crop
        pad = [0, 0] * (value.dim() - axis - 1) + [before, size - have - before]
        value = F.pad(value, pad)
    return value


def _run(candidates: nn.ModuleDict, x: Tensor, gate: Gate) -> Tensor:
    """The active candidate with its graph; inactive ones for their output only, which the gate's gradient needs."""
    y: Tensor = candidates[str(gate.active)](x)
    if gate.values is None:
        return y
    values = gate.values.to(y.device)
    inactive = [candidates[str(k)] for k in gate.inactive]
    if gate.recompute:
        return cast(Tensor, _Recompute.apply(y, values, x, inactive))  # type: ignore[no-untyped-call]
    mixed = values[0] * y
    for index, candidate in enumerate(inactive, 1):
        with torch.no_grad():
            other: Tensor = candidate(x)
        mixed = mixed + values[index] * other
    return mixed


class _Recompute(torch.autograd.Function):
    """y, whose gates' gradients <dL/dy, o_k> are found in the backward pass by running each inactive candidate again:
    no output of theirs is kept, nor ever two at a time."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, values: Tensor, x: Tensor, inactive: list[nn.Module]) -> Tensor:
        ctx.save_for_backward(y, x)
        ctx.inactive = inactive
        ctx.autocast = torch.get_autocast_dtype(y.device.type) if torch.is_autocast_enabled(y.device.type) else None
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor, None, None]:
        y, x = ctx.saved_tensors
        inner = [(slope * y).sum(dtype=torch.promote_types(slope.dtype, torch.float32))]
        with torch.no_grad(), torch.autocast(y.device.type, ctx.autocast, enabled=ctx.autocast is not None):
            for candidate in ctx.inactive:
                inner.append((slope * candidate(x)).sum(dtype=inner[0].dtype))
        return slope, torch.stack(inner), None, None
