"""Groups of channels that are cut together, found over a whole graph.

Channels are followed through the graph by the rule of each op (rules.py). What must go together is one unit: a channel
of a layer, those that are added to it, the columns that read it, its slopes; of a grouped convolution a group, or one
channel of each group. Units that lie in the same places are a group, whose width is what there is to decide (DepGraph's
coupled parameters, Fang et al., arXiv:2301.12900, found here on the graph of ops).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from netlathe.archspace.errors import did_you_mean
from netlathe.archspace.graph import Graph
from netlathe.compress.channels import Axes, Labels, UnionFind
from netlathe.compress.errors import CompressError
from netlathe.compress.rules import MOST_ALONG, Place, couple, left_whole

Units = NDArray[np.int64]
"""The unit of each index along an axis, or numbers of units within a group."""

MOST_PLACES = 1 << 25
"""Most channels over all results; the largest published convolutional networks have some hundred thousand."""

FIXED = -1
"""In place of a group: that of units which cannot be cut."""


@dataclass(frozen=True)
class ChannelGroup:
    """Channels whose number is one decision: `units` of them, each of which is kept or cut as a whole.

    `name` is that of the first layer that gives them. `producers` are the layers that give them, `consumers` those that
    read them. A unit is `channels_per_unit` channels of the first producer.
    """

    name: str
    units: int
    channels_per_unit: int
    producers: tuple[str, ...]
    consumers: tuple[str, ...]

    @property
    def width(self) -> int:
        """Channels of the first producer that are in the group."""
        return self.units * self.channels_per_unit


@dataclass(frozen=True)
class FixedChannels:
    """Channels that a layer gives and that cannot be cut, with the reason."""

    layer: str
    channels: int
    reason: str


@dataclass(frozen=True, eq=False)
class NodeUnits:
    """Units along the axes of a node's results and stored arrays, None along an axis that has no channels, and of the
    index ranges whose lengths are settings of its op."""

    results: tuple[Axes, ...]
    stored: Mapping[str, Axes]
    parts: Mapping[str, Units]

    def arrays(self) -> Iterator[Units]:
        """All arrays of units: those along the axes of the results, and the parts."""
        yield from (units for axes in self.results for units in axes if units is not None)
        yield from self.parts.values()


@dataclass(frozen=True, eq=False)
class CoupledChannels:
    """A graph's channels in groups that can be cut alone, as `couple_channels` finds them.

    `fixed` are the layers' channels that are in no group. `nodes` has the units along all that each node gives and
    stores; `group_of` each unit's group (FIXED where it has none), `place_of` its number there. `ignored` are the nodes
    that were to be left as they are.
    """

    graph: Graph
    groups: tuple[ChannelGroup, ...]
    fixed: tuple[FixedChannels, ...]
    nodes: tuple[NodeUnits, ...]
    group_of: Units
    place_of: Units
    ignored: tuple[str, ...] = ()

    def group_index(self, name: str) -> int:
        """The index of the group of that name. Raises CompressError where there is none."""
        names = [group.name for group in self.groups]
        if name not in names:
            raise CompressError(f"there is no group of channels {name!r}{did_you_mean(name, names)}")
        return names.index(name)


def couple_channels(graph: Graph, ignored: Collection[str] = ()) -> CoupledChannels:
    """A graph's channels in groups that can be cut alone.

    The graph's inputs and outputs keep their channels, and so do the results of the nodes named in `ignored`. Raises
    CompressError where there is no node of such a name, and for networks of more than MOST_PLACES channels in all.
    """
    names = [node.name for node in graph.nodes]
    for name in ignored:
        if name not in names:
            raise CompressError(f"there is no layer {name!r} to leave as it is{did_you_mean(name, names)}")
    sets = UnionFind()
    found = _gathered(graph, _followed(graph, ignored, sets), sets)
    return dataclasses.replace(found, ignored=tuple(ignored))


def _followed(graph: Graph, ignored: Collection[str], sets: UnionFind) -> list[NodeUnits]:
    """The labels of all that the nodes give and store, united and fixed as the nodes ask."""
    tensors: list[Axes] = [(None,) * len(shape) for shape in graph.inputs]
    nodes: list[NodeUnits] = []
    places = 0
    for node, shapes, results in graph.steps():
        place = Place(node.name, node.op.name, shapes, results, tuple(tensors[t] for t in node.inputs), sets)
        follows = max(map(max, results)) <= MOST_ALONG
        coupled = couple(node.op, place) if follows else left_whole(place, "gives more than any layer's channels")
        for axes in coupled.results if node.name in ignored else ():
            place.fix(axes, "is to be left as it is")
        tensors += coupled.results
        nodes.append(NodeUnits(coupled.results, coupled.stored, coupled.parts))
        places += sum(map(len, nodes[-1].arrays()))
        if places > MOST_PLACES:
            raise CompressError(f"the network has more than {MOST_PLACES} channels in all, over all of its nodes")
    for labels in (labels for tensor in graph.outputs for labels in tensors[tensor] if labels is not None):
        sets.fix(labels, "the network's output has them")
    return nodes


def _gathered(graph: Graph, labelled: Sequence[NodeUnits], sets: UnionFind) -> CoupledChannels:
    """Labels turned into units, and units gathered in groups."""
    roots, unit_of = np.unique(sets.roots(np.arange(len(sets))), return_inverse=True)
    nodes = _numbered(labelled, unit_of)
    kinds = _kinds(nodes, len(roots))
    reasons = {unit: reason for unit, root in enumerate(roots.tolist()) if (reason := sets.reason(root)) is not None}
    free = np.ones(len(roots), bool)
    free[list(reasons)] = False
    given = _of_kernels(graph, nodes, 0)
    produced = np.zeros(len(roots), bool)
    for units in given.values():
        produced[units] = True
    members = [np.flatnonzero(free & produced & (kinds == kind)) for kind in np.unique(kinds[free & produced])]
    members = sorted((units for units in members if len(units) > 1), key=lambda units: int(units[0]))
    group_of, place_of = np.full(len(roots), FIXED), np.zeros(len(roots), np.int64)
    for index, units in enumerate(members):
        group_of[units], place_of[units] = index, np.arange(len(units))
    groups = _described(given, _of_kernels(graph, nodes, 1), group_of, [len(units) for units in members])
    return CoupledChannels(graph, groups, tuple(_fixed(given, group_of, reasons)), nodes, group_of, place_of)


def _numbered(labelled: Sequence[NodeUnits], unit_of: Units) -> tuple[NodeUnits, ...]:
    """The nodes with units in place of labels; what shared an array still does."""
    cache: dict[int, Units] = {}

    def units(labels: Labels | None) -> Units | None:
        if labels is None:
            return None
        if id(labels) not in cache:
            cache[id(labels)] = unit_of[labels]
        return cache[id(labels)]

    return tuple(
        NodeUnits(
            tuple(tuple(map(units, axes)) for axes in node.results),
            {key: tuple(map(units, axes)) for key, axes in node.stored.items()},
            {key: unit_of[labels] for key, labels in node.parts.items()},
        )
        for node in labelled
    )


def _kinds(nodes: Sequence[NodeUnits], count: int) -> Units:
    """A number for each unit, equal for those that lie along the same axes, equally often."""
    kinds, following = np.zeros(count, np.int64), 1
    for units in {id(units): units for node in nodes for units in node.arrays()}.values():
        present, times = np.unique(units, return_counts=True)
        _, numbers = np.unique(np.stack([kinds[present], times]), axis=1, return_inverse=True)
        kinds[present] = following + numbers.ravel()
        following += len(present)
    return kinds


def _of_kernels(graph: Graph, nodes: Sequence[NodeUnits], axis: int) -> dict[str, Units]:
    """Units along that axis of each layer's kernel: 0 has what it gives, 1 what it reads."""
    kernels = {node.name: units.stored.get("kernel") for node, units in zip(graph.nodes, nodes, strict=True)}
    return {name: units for name, axes in kernels.items() if axes and (units := axes[axis]) is not None}


def _described(
    given: Mapping[str, Units], read: Mapping[str, Units], group_of: Units, counts: Sequence[int]
) -> tuple[ChannelGroup, ...]:
    """The groups of so many units each, with the layers that give and read them."""
    producers: list[dict[str, int]] = [{} for _ in counts]
    consumers: list[list[str]] = [[] for _ in counts]
    for name, units in given.items():
        for group, channels in _tally(group_of[units]).items():
            producers[group][name] = channels // counts[group]
    for name, units in read.items():
        for group in _tally(group_of[units]):
            consumers[group].append(name)
    names = _unique_names([next(iter(layers)) for layers in producers])
    return tuple(
        ChannelGroup(name, count, next(iter(layers.values())), tuple(layers), tuple(readers))
        for name, count, layers, readers in zip(names, counts, producers, consumers, strict=True)
    )


def _tally(groups: Units) -> dict[int, int]:
    """How often each group is there, in order, without what is fixed."""
    found, times = np.unique(groups[groups != FIXED], return_counts=True)
    return dict(zip(found.tolist(), times.tolist(), strict=True))


def _unique_names(names: Sequence[str]) -> list[str]:
    """The names with a number behind each further use: a layer's channels may be in several groups."""
    taken = set(names)
    counts: Counter[str] = Counter()
    unique = []
    for name in names:
        counts[name] += 1
        if counts[name] > 1:
            numbered = (f"{name}#{number}" for number in itertools.count(counts[name]))
            name = next(candidate for candidate in numbered if candidate not in taken)
            taken.add(name)
        unique.append(name)
    return unique


def _fixed(given: Mapping[str, Units], group_of: Units, reasons: Mapping[int, str]) -> Iterator[FixedChannels]:
    for name, units in given.items():
        left = Counter(
            reasons.get(unit, "all of them can only be cut together")
            for unit in units[group_of[units] == FIXED].tolist()
        )
        yield from (FixedChannels(name, channels, reason) for reason, channels in left.items())
