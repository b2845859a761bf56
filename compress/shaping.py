"""A graph and its weights with fewer channels and fewer residual blocks."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netlathe.archspace.forms.weights import Weights, check_weights
from netlathe.archspace.graph import Graph, GraphBuilder
from netlathe.archspace.ops import Op, Shape
from netlathe.archspace.residuals import ResidualBlock
from netlathe.compress.channels import Axes
from netlathe.compress.coupling import FIXED, CoupledChannels, Units
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
    over channels, ECA's convolution along them), which are then those of the channels that are left. Raises
    CompressError for groups or units that there are not, FormatError for weights that are not the graph's.
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
        self._lengths = _Lengths(coupled)
        axes: list[Axes] = [(None,) * len(shape) for shape in self.source.inputs]
        for node in coupled.nodes:
            axes += node.results
        self._plans = [_Plan(coupled, index, axes, self._lengths) for index in range(len(self.source.nodes))]

    def graph(self, kept: Sequence[int], left_out: Collection[ResidualBlock] = ()) -> Graph:
        """The graph whose groups keep so many units each, without those residual blocks."""
        source, lengths = self.source, self._lengths.of(kept)
        skipped = {node for block in left_out for node in block.nodes}
        bypassed = {block.result: block.entry for block in left_out}
        builder = GraphBuilder(*source.inputs, dtypes=source.input_dtypes)
        tensors = list(range(len(source.inputs)))
        for index, (node, results) in enumerate(zip(source.nodes, source.results, strict=True)):
            if index in skipped:
                tensors += [tensors[bypassed[t]] if t in bypassed else -1 for t in results]
                continue
            op = self._plans[index].op(lengths)
            first = builder.add(node.name, op, *[tensors[t] for t in node.inputs], scope=node.scope)
            tensors += range(first, first + len(results))
        return builder.build(*[tensors[t] for t in source.outputs])


class _Lengths:
    """How many indices are left along each axis of a network, as linear functions of the units that groups keep."""

    def __init__(self, coupled: CoupledChannels) -> None:
        self._coupled = coupled
        self._constants: list[int] = []
        self._rows: list[NDArray[np.int64]] = []
        self._known: dict[tuple[int, int], int] = {}

    def number(self, size: int, units: Units | None) -> int:
        """The number of an axis of that many indices, which lie in these units."""
        known = (size, -1 if units is None else id(units))  # the coupled channels keep all of these arrays alive
        if known not in self._known:
            self._known[known] = len(self._rows)
            groups = self._coupled.groups
            of_each = np.zeros(len(groups), np.int64)
            if units is not None:
                found = self._coupled.group_of[units]
                np.add.at(of_each, found[found != FIXED], 1)
            self._constants.append(size - int(of_each.sum()))
            self._rows.append(of_each // np.array([group.units for group in groups], np.int64))
        return self._known[known]

    def depends(self, number: int) -> bool:
        """Whether any group changes the axis."""
        return bool(self._rows[number].any())

    def of(self, kept: Sequence[int]) -> list[int]:
        """The lengths of all axes, by number, where the groups keep so many units."""
        lengths: list[int] = (self._constants + self._matrix @ np.asarray(kept, np.int64)).tolist()
        return lengths

    @cached_property
    def _matrix(self) -> NDArray[np.int64]:
        return np.array(self._rows, np.int64).reshape(len(self._rows), len(self._coupled.groups))


class _Plan:
    """A node's op at all widths; each one is made once."""

    def __init__(self, coupled: CoupledChannels, index: int, axes_of: Sequence[Axes], lengths: _Lengths) -> None:
        """`axes_of` has the units along the axes of every tensor."""
        graph, units, node = coupled.graph, coupled.nodes[index], coupled.graph.nodes[index]
        self._op = node.op
        self._before = tuple(graph.shapes[t] for t in node.inputs), tuple(graph.shapes[t] for t in graph.results[index])

        def numbers(shape: Shape, axes: Axes) -> tuple[int, ...]:
            return tuple(map(lengths.number, shape, axes))

        shapes, results = self._before
        stored = node.op.stored_shapes(*shapes)
        self._shapes = tuple(map(numbers, shapes, [axes_of[t] for t in node.inputs]))
        self._results = tuple(map(numbers, results, units.results))
        self._stored = {key: numbers(stored[key], axes) for key, axes in units.stored.items()}
        self._parts = {key: lengths.number(len(part), part) for key, part in units.parts.items()}
        axes = [*self._shapes, *self._results, *self._stored.values(), tuple(self._parts.values())]
        self._changing = sorted({number for some in axes for number in some if lengths.depends(number)})
        self._made: dict[tuple[int, ...], Op] = {}

    def op(self, lengths: Sequence[int]) -> Op:
        """The op where the axes have these lengths, by number."""
        if not self._changing:
            return self._op
        key = tuple([lengths[number] for number in self._changing])
        if key not in self._made:
            self._made[key] = resized(self._op, self._sizes(lengths))
        return self._made[key]

    def _sizes(self, lengths: Sequence[int]) -> Sizes:
        def shape(numbers: tuple[int, ...]) -> Shape:
            return tuple([lengths[number] for number in numbers])

        return Sizes(
            *self._before, tuple(map(shape, self._shapes)), tuple(map(shape, self._results)),
            {key: shape(numbers) for key, numbers in self._stored.items()},
            {key: lengths[number] for key, number in self._parts.items()},
        )  # fmt: skip
