"""A graph and its weights with fewer channels and fewer residual blocks."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netlathe.archspace.forms.weights import Weights, check_weights
from netlathe.archspace.graph import Graph, GraphBuilder
from netlathe.archspace.ops import Op, Shape
from netlathe.compress.channels import Axes
from netlathe.compress.coupling import FIXED, CoupledChannels, Units
from netlathe.compress.depth import ResidualBlock
from netlathe.compress.errors import CompressError
from netlathe.compress.rules import Sizes, resized


def pruned(
    coupled: CoupledChannels,
    weights: Weights,
    keep: Mapping[str, Sequence[int] | Units],
    left_out: Collection[ResidualBlock] = (),
) -> tuple[Graph, Weights]:
    """The graph, and its weights, with the kept channels alone.

    `keep` has the numbers of the units to keep, in order, by the names of groups; others stay whole. The result equals
    the network whose layers read zeros in place of what was cut, except for statistics over channels (LayerNorm, a mean
    over channels), which are then those of the channels that are left. Raises CompressError for groups or units that
    there are not, FormatError for weights that are not the graph's.
    """
    check_weights(coupled.graph, weights)
    kept = _checked(coupled, keep)
    graph = Shaper(coupled).graph([len(units) for units in kept], left_out)
    is_kept = coupled.group_of == FIXED
    for group, units in enumerate(kept):
        is_kept |= (coupled.group_of == group) & np.isin(coupled.place_of, units)
    left = {node.name for node in graph.nodes}
    return graph, {
        node.name: {key: _cut(weights[node.name][key], axes, is_kept) for key, axes in units.stored.items()}
        for node, units in zip(coupled.graph.nodes, coupled.nodes, strict=True)
        if units.stored and node.name in left
    }


def _checked(coupled: CoupledChannels, keep: Mapping[str, Sequence[int] | Units]) -> list[Units]:
    """The kept units of every group."""
    kept = [np.arange(group.units) for group in coupled.groups]
    for name, chosen in keep.items():
        index = coupled.group_index(name)
        units, most = np.asarray(chosen), coupled.groups[index].units - 1
        numbers = units.ndim == 1 and len(units) > 0 and np.issubdtype(units.dtype, np.integer)
        if not numbers or (np.diff(units) <= 0).any() or units[0] < 0 or units[-1] > most:
            raise CompressError(
                f"group {name!r}: what it keeps must be one or more different numbers from 0 to {most} in order, "
                f"got {chosen!s:.80}"
            )
        kept[index] = units.astype(np.int64)
    return kept


def _cut(array: NDArray[Any], axes: Axes, is_kept: NDArray[np.bool_]) -> NDArray[Any]:
    for axis, units in enumerate(axes):
        if units is not None and not (left := is_kept[units]).all():
            array = np.compress(left, array, axis)
    return array


class Shaper:
    """Graphs of one network at any widths: structure alone, made fast, as a search asks for thousands."""

    def __init__(self, coupled: CoupledChannels) -> None:
        self.source = coupled.graph
        axes: list[Axes] = [(None,) * len(shape) for shape in self.source.inputs]
        for node in coupled.nodes:
            axes += node.results
        self._plans = [_plan(coupled, index, axes) for index in range(len(self.source.nodes))]

    def graph(self, kept: Sequence[int], left_out: Collection[ResidualBlock] = ()) -> Graph:
        """The graph whose groups keep so many units each, without those residual blocks."""
        source = self.source
        skipped = {node for block in left_out for node in block.nodes}
        bypassed = {block.result: block.entry for block in left_out}
        builder = GraphBuilder(*source.inputs, dtypes=source.input_dtypes)
        tensors = list(range(len(source.inputs)))
        for index, (node, results) in enumerate(zip(source.nodes, source.results, strict=True)):
            if index in skipped:
                tensors += [tensors[bypassed[t]] if t in bypassed else -1 for t in results]
                continue
            op = self._plans[index].op(kept)
            first = builder.add(node.name, op, *[tensors[t] for t in node.inputs], scope=node.scope)
            tensors += range(first, first + len(results))
        return builder.build(*[tensors[t] for t in source.outputs])


@dataclass(frozen=True)
class _Length:
    """Indices that are left along an axis, by how many units each group keeps."""

    fixed: int
    terms: tuple[tuple[int, int], ...] = ()
    """(group, indices of each of its units)."""

    def of(self, kept: Sequence[int]) -> int:
        return self.fixed + sum([kept[group] * times for group, times in self.terms])


_Lengths = tuple[_Length, ...]


class _Plan:
    """A node's op at all widths; each one is made once."""

    def __init__(
        self,
        op: Op,
        shapes: tuple[tuple[Shape, ...], tuple[Shape, ...]],
        inputs: tuple[_Lengths, ...],
        results: tuple[_Lengths, ...],
        stored: Mapping[str, _Lengths],
        parts: Mapping[str, _Length],
    ) -> None:
        self._op, self._shapes = op, shapes
        self._inputs, self._results, self._stored, self._parts = inputs, results, stored, parts
        lengths = [*inputs, *results, *stored.values(), tuple(parts.values())]
        self._groups = sorted({group for axes in lengths for length in axes for group, _ in length.terms})
        self._made: dict[tuple[int, ...], Op] = {}

    def op(self, kept: Sequence[int]) -> Op:
        """The op where the groups keep so many units."""
        if not self._groups:
            return self._op
        key = tuple([kept[group] for group in self._groups])
        if key not in self._made:
            self._made[key] = resized(self._op, self._sizes(kept))
        return self._made[key]

    def _sizes(self, kept: Sequence[int]) -> Sizes:
        def left(axes: Iterable[_Length]) -> Shape:
            return tuple(length.of(kept) for length in axes)

        return Sizes(
            *self._shapes, tuple(map(left, self._inputs)), tuple(map(left, self._results)),
            {key: left(axes) for key, axes in self._stored.items()},
            {key: length.of(kept) for key, length in self._parts.items()},
        )  # fmt: skip


def _plan(coupled: CoupledChannels, index: int, axes_of: Sequence[Axes]) -> _Plan:
    """The plan of a node, given the units along the axes of all tensors."""
    graph, units, node = coupled.graph, coupled.nodes[index], coupled.graph.nodes[index]
    inputs = tuple(graph.shapes[t] for t in node.inputs)
    results = tuple(graph.shapes[t] for t in graph.results[index])
    stored = node.op.stored_shapes(*inputs)

    def lengths(shape: Shape, axes: Axes) -> _Lengths:
        return tuple(_length(coupled, size, found) for size, found in zip(shape, axes, strict=True))

    return _Plan(
        node.op, (inputs, results),
        tuple(lengths(shape, axes_of[t]) for shape, t in zip(inputs, node.inputs, strict=True)),
        tuple(map(lengths, results, units.results)),
        {key: lengths(stored[key], axes) for key, axes in units.stored.items()},
        {key: _length(coupled, len(part), part) for key, part in units.parts.items()},
    )  # fmt: skip


def _length(coupled: CoupledChannels, size: int, units: Units | None) -> _Length:
    if units is None:
        return _Length(size)
    groups, times = np.unique(coupled.group_of[units], return_counts=True)
    found = dict(zip(groups.tolist(), times.tolist(), strict=True))
    fixed = found.pop(FIXED, 0)
    return _Length(fixed, tuple((group, count // coupled.groups[group].units) for group, count in found.items()))
