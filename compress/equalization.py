"""Channels of a network rescaled so that int8 rounds them alike, without a change of what the network computes.

A channel that is multiplied by a factor where it is made, and divided by it where it is read, changes nothing as long
as all in between scales with it: convolutions, fully connected layers, relu, sums of such channels, averages, maxima.
int8 has one scale for all channels of a tensor, and one for all weights that make a channel, so a channel of much
smaller values, or one that small weights read beside large ones, is rounded to a few steps.
Source: Nagel et al., arXiv:1906.04721, section 4.1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from netlathe.archspace.forms.weights import Weights
from netlathe.archspace.graph import Graph, Node
from netlathe.archspace.ops import (
    Activation,
    ActivationKind,
    Add,
    Concat,
    Conv2d,
    FullyConnected,
    GlobalAvgPool,
    LeakyReLU,
    Pad,
    Pool2d,
    PReLU,
    Reshape,
    Resize,
    Shape,
    Split,
)

Channels = NDArray[np.int64]
"""A number for each channel of a tensor, the same for those that scale together."""
SWEEPS, CLOSE = 64, 1e-3
"""Passes over all channels at most, and the largest change of a factor's logarithm in the last one."""
RATE = 0.25
"""Part of the way that a pass goes for one of two ends. Half would do it at once, but for channels that a layer both
reads and makes, as in a residual block: these would swing for ever."""
_MOST = 1e6
"""Most that a channel is multiplied or divided by in one pass: beyond, its weights are next to nothing."""
_HOMOGENEOUS = (GlobalAvgPool, LeakyReLU, Pad, Pool2d, PReLU, Resize)
"""Ops of one tensor whose channels scale with what they take, whatever the positive factor."""


def equalized(graph: Graph, weights: Weights) -> dict[str, dict[str, NDArray[np.float32]]]:
    """Weights of the same function, whose channels are rescaled: the largest weight that makes a channel and the
    largest that reads it become alike (Nagel et al., arXiv:1906.04721, eq. 11), which is repeated over all channels
    until nothing changes.

    Channels that are added to one another share a factor; those of a concatenation keep their own. A channel stays as
    it is where anything but these ops, convolutions and fully connected layers takes it: relu6 cuts at 6 whatever the
    factor (the paper puts relu in its place, which changes the network), sigmoids and products do not scale; and so
    do the network's inputs and outputs. Weights are those of a float32 graph, BatchNorm folded in.
    """
    found = _Factors(graph, weights)
    for _ in range(SWEEPS):
        if max((found.balance(group) for group in found.groups), default=0.0) < CLOSE:
            break
    return found.applied()


@dataclass(frozen=True)
class _Layer:
    """A layer's kernel, and the channels that it takes and gives."""

    name: str
    kernel: NDArray[np.float64]
    """Its largest weights without signs, (out, in / groups)."""
    taken: Channels
    """(out, in / groups): the channel that each of its values is multiplied with."""
    made: Channels


@dataclass(frozen=True)
class _Group:
    """Channels whose factors are found together, as one layer makes them, and the layers that make or read any."""

    channels: Channels
    makers: tuple[_Layer, ...]
    readers: tuple[_Layer, ...]


@dataclass
class _Factors:
    """Logarithms of the channels' factors, by number."""

    graph: Graph
    weights: Weights
    groups: list[_Group] = field(init=False)

    def __post_init__(self) -> None:
        found = _Found(self.graph)
        self._layers = []
        for index, node in enumerate(self.graph.nodes):
            if isinstance(node.op, Conv2d | FullyConnected):
                kernel = np.abs(self.weights[node.name]["kernel"].astype(np.float64))
                taken = _taken(node, kernel.shape, found.channels(node.inputs[0]))
                made = found.channels(self.graph.results[index][0])
                self._layers.append(_Layer(node.name, kernel.reshape(*kernel.shape[:2], -1).max(2), taken, made))
        self._logs = np.zeros(found.count)
        is_free = ~found.fixed()
        together = {channels.tobytes(): channels for one in self._layers for channels in [np.unique(one.made)]}
        self.groups = [self._group(channels[is_free[channels]]) for channels in together.values()]

    def _group(self, channels: Channels) -> _Group:
        makers = tuple(one for one in self._layers if np.isin(one.made, channels).any())
        return _Group(channels, makers, tuple(one for one in self._layers if np.isin(one.taken, channels).any()))

    def balance(self, group: _Group) -> float:
        """Moves the factors of a group's channels towards where the largest weight that makes each is the largest that
        reads it; returns the largest change of a logarithm."""
        made, read = np.zeros(len(self._logs)), np.zeros(len(self._logs))
        for layer in group.makers:
            np.maximum.at(made, layer.made, self._now(layer).max(1))
        for layer in group.readers:
            np.maximum.at(read, layer.taken, self._now(layer))
        known = group.channels[(made[group.channels] > 0) & (read[group.channels] > 0)]
        change = np.clip(RATE * np.log(read[known] / made[known]), -math.log(_MOST), math.log(_MOST))
        self._logs[known] += change
        return float(np.abs(change).max(initial=0))

    def _now(self, layer: _Layer) -> NDArray[np.float64]:
        """A layer's largest weights (out, in / groups), as rescaled so far."""
        return layer.kernel * np.exp(self._logs[layer.made])[:, None] / np.exp(self._logs[layer.taken])

    def applied(self) -> dict[str, dict[str, NDArray[np.float32]]]:
        """The rescaled weights."""
        changed = {name: dict(arrays) for name, arrays in self.weights.items()}
        for layer in self._layers:
            kernel, bias = (self.weights[layer.name][key].astype(np.float64) for key in ("kernel", "bias"))
            gain = np.exp(self._logs[layer.made])
            factors = gain[:, None] / np.exp(self._logs[layer.taken])
            kernel *= factors.reshape(*factors.shape, *(1,) * (kernel.ndim - 2))
            changed[layer.name] |= {"kernel": kernel.astype(np.float32), "bias": (bias * gain).astype(np.float32)}
        return changed


def _taken(node: Node, shape: Shape, channels: Channels) -> Channels:
    """The channel that each of a kernel's values (out, in / groups) is multiplied with."""
    groups = node.op.groups if isinstance(node.op, Conv2d) else 1
    of_group = channels.reshape(groups, shape[1])
    return np.repeat(of_group, shape[0] // groups, 0)


class _Found:
    """Channels of a graph's tensors as numbers: those that scale together have one."""

    def __init__(self, graph: Graph) -> None:
        self.count = 0
        self._parents: list[int] = []
        self._fixed: set[int] = set()
        self._tensors = [self._new(shape) for shape in graph.inputs]
        for channels in self._tensors:
            self._fix(channels)
        for node, shapes, results in graph.steps():
            self._tensors += self._through(node, shapes, results)
        for tensor in graph.outputs:
            self._fix(self._tensors[tensor])

    def channels(self, tensor: int) -> Channels:
        """The channels of a tensor."""
        return np.array([self._root(one) for one in self._tensors[tensor].tolist()], np.int64)

    def fixed(self) -> NDArray[np.bool_]:
        """Whether each channel stays as it is."""
        found = np.zeros(self.count, bool)
        found[[self._root(one) for one in self._fixed]] = True
        return found

    def _through(self, node: Node, shapes: tuple[Shape, ...], results: tuple[Shape, ...]) -> Iterator[Channels]:
        """The channels of a node's results."""
        taken, op = [self._tensors[t] for t in node.inputs], node.op
        if isinstance(op, Conv2d | FullyConnected):
            yield self._new(results[0])
        elif isinstance(op, _HOMOGENEOUS) or (isinstance(op, Activation) and op.function is ActivationKind.RELU):
            yield taken[0]
        elif isinstance(op, Add) and all(shape == shapes[0] for shape in shapes):
            for a, b in zip(*(one.tolist() for one in taken), strict=True):
                self._parents[self._root(a)] = self._root(b)
            yield taken[0]
        elif isinstance(op, Reshape) and results[0][-1] % len(taken[0]) == 0:
            yield np.tile(taken[0], results[0][-1] // len(taken[0]))  # channels are last, and so next to one another
        elif isinstance(op, Split) and op.axis % len(shapes[0]) == len(shapes[0]) - 1:
            yield from np.split(taken[0], np.cumsum(op.sizes)[:-1])
        elif isinstance(op, Concat) and op.axis % len(results[0]) == len(results[0]) - 1:
            yield np.concatenate(taken)
        else:
            for channels in taken:
                self._fix(channels)
            for shape in results:
                fixed = self._new(shape)
                self._fix(fixed)
                yield fixed

    def _new(self, shape: Shape) -> Channels:
        first, size = self.count, shape[-1] if shape else 1
        self.count += size
        self._parents += range(first, self.count)
        return np.arange(first, self.count)

    def _fix(self, channels: Channels) -> None:
        self._fixed.update(channels.tolist())

    def _root(self, channel: int) -> int:
        while self._parents[channel] != channel:
            channel = self._parents[channel]
        return channel
