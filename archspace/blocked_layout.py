"""ONNX Runtime's layout of images in blocks of channels: what runs in it, what is fused there, and where it begins and
ends.

On x86, convolutions take and give images whose channels lie in blocks, as many as a vector register holds. What else
knows the layout keeps it; anything else is given the plain image, by a pass over its values
(onnxruntime/core/optimizer/nchwc_transformer.cc; conv_activation_fusion.cc and conv_add_act_fusion.cc, before and after
it). The rules here are those that ONNX Runtime 1.31 was seen to follow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from netlathe.archspace.graph import Graph, Node
from netlathe.archspace.ops import (
    Activation,
    ActivationKind,
    Add,
    BatchNorm,
    Clip,
    Concat,
    Constant,
    Conv2d,
    FullyConnected,
    Gelu,
    GlobalAvgPool,
    LeakyReLU,
    Mul,
    Op,
    Pool2d,
    Resize,
    Shape,
    Unary,
    UnaryKind,
)

QUARTER = 4
"""Channels that a convolution with a block or more of them must have a multiple of."""
_CLAMPS = (ActivationKind.RELU, ActivationKind.RELU6)
_SOFT = (ActivationKind.SIGMOID, ActivationKind.HARD_SIGMOID)
_ELEMENTWISE = (*_SOFT, ActivationKind.RELU, ActivationKind.SWISH, ActivationKind.HARD_SWISH)
_KEPT = (UnaryKind.TANH, UnaryKind.SQUARE)
Rule = Callable[[Op], bool]
"""Whether an op becomes part of the kernel before it."""


class BlockedRun(NamedTuple):
    """How a graph runs."""

    starts: list[int]
    """For each node the index of the node whose kernel it belongs to."""
    reordered: list[int]
    """Tensors that are brought into blocks, or out of them, in order."""


def blocked_run(graph: Graph, block: int, pads: Mapping[int, int]) -> BlockedRun:
    """Kernels and changes of layout of a graph whose images are in blocks of so many channels; `pads`: index of each
    layer that does the padding before it itself -> index of that pad."""
    run = _Run(graph, block)
    for layer, pad in pads.items():
        run.starts[pad] = layer
        run.source[graph.results[pad][0]] = graph.nodes[pad].inputs[0]
    for index, node in enumerate(graph.nodes):
        if run.starts[index] == index:  # what is fused has been done with the op before it
            run.step(index, node)
    for tensor in graph.outputs:
        run.leave(tensor)
    return BlockedRun(run.starts, run.reordered)


class _Run:
    """The layout of each tensor so far."""

    def __init__(self, graph: Graph, block: int) -> None:
        self.graph, self.block = graph, block
        self.starts = list(range(len(graph.nodes)))
        self.reordered: list[int] = []
        self.source: dict[int, int] = {}
        """Padded tensor -> what is padded, where the layer behind does it."""
        self._inside: set[int] = set()
        """Tensors that are computed in blocks."""
        self._both: set[int] = set()
        """Those that were brought into the other layout, too."""
        self._open: dict[int, int] = {}
        """Result of each convolution that may take in a sum -> its node."""
        self._users = graph.sole_users

    def step(self, index: int, node: Node) -> None:
        """Decides on a node whose inputs are done."""
        op, inputs = node.op, [self.source.get(t, t) for t in node.inputs]
        if isinstance(op, Constant):
            return
        if isinstance(op, Conv2d):
            self._convolution(index, op, inputs[0])
        elif isinstance(op, Add):
            self._sum(index, inputs)
        elif isinstance(op, Pool2d | GlobalAvgPool):
            self._pool(index, op, inputs[0])
        elif self._keeps(op, inputs):
            is_scaled = isinstance(op, BatchNorm)  # by a convolution
            self._inside.add(self._fused(index, _follows_blocked) if is_scaled else self.graph.results[index][0])
        else:
            for tensor in inputs:
                self.leave(tensor)
            if isinstance(op, FullyConnected) and len(self.graph.shapes[inputs[0]]) == 2:
                self._fuse_behind(index, index, _follows_product)

    def leave(self, tensor: int) -> None:
        """Asks for the plain image."""
        if tensor in self._inside:
            self._reorder(tensor)

    def _enter(self, tensor: int) -> None:
        """Asks for the image in blocks."""
        if tensor not in self._inside:
            self._reorder(tensor)

    def _reorder(self, tensor: int) -> None:
        if tensor not in self._both:
            self._both.add(tensor)
            self.reordered.append(tensor)

    def _convolution(self, index: int, op: Conv2d, x: int) -> None:
        shape = self.graph.shapes[x]
        is_blocked = is_in_blocks(op, shape, self.block)
        # the few channels of a photograph are taken as they are
        takes = is_blocked and (op.groups > 1 or shape[3] >= self.block)
        (self._enter if takes else self.leave)(x)
        rules = (_follows_any_convolution, _follows_blocked) if is_blocked else (_follows_any_convolution,)
        result = self._fused(index, *rules)
        if is_blocked:
            self._inside.add(result)

    def _fused(self, index: int, *rules: Rule) -> int:
        """The result of a convolution with the activation behind it by the first rule that fits; without one, a sum
        may be taken in."""
        for rule in rules:
            result = self._fuse_behind(index, index, rule)
            if result is not None:
                return result
        result = self.graph.results[index][0]
        if self._users.get(index, (-1, 0))[1] == 1:
            self._open[result] = index
        return result

    def _sum(self, index: int, inputs: list[int]) -> None:
        result = self.graph.results[index][0]
        alike = len(inputs) == 2 and self.graph.shapes[inputs[0]] == self.graph.shapes[inputs[1]]
        inside = alike and all(t in self._inside for t in inputs)
        convolution = next((self._open[t] for t in inputs if t in self._open and (t in self._inside) == inside), None)
        if not inside:
            for tensor in inputs:
                self.leave(tensor)
        if alike and convolution is not None:
            self.starts[index] = convolution
            follows = _follows_blocked if inside else _follows_sum
            behind = self._fuse_behind(index, convolution, follows)
            result = result if behind is None else behind
        if inside:
            self._inside.add(result)

    def _pool(self, index: int, op: Pool2d | GlobalAvgPool, x: int) -> None:
        stays_plain = isinstance(op, GlobalAvgPool) and x not in self._inside  # which reads each value once
        if stays_plain or self.graph.shapes[x][3] % self.block:
            self.leave(x)
            return
        self._enter(x)
        (result,) = self.graph.results[index]
        self._inside.add(result)
        if isinstance(op, GlobalAvgPool) and not op.keep_dims:
            self.leave(result)
            self._inside.remove(result)

    def _keeps(self, op: Op, inputs: list[int]) -> bool:
        """Whether the op computes on blocks because its inputs are in them."""
        if not inputs or not all(t in self._inside for t in inputs):
            return False
        shapes = [self.graph.shapes[t] for t in inputs]
        if isinstance(op, Concat):
            return op.axis in (-1, 3) and all(shape[3] % self.block == 0 for shape in shapes)
        if isinstance(op, Activation):
            return op.function in _ELEMENTWISE
        if isinstance(op, Unary):
            return op.function in _KEPT
        if isinstance(op, Gelu):
            return not op.approximate
        if isinstance(op, Resize):
            return not any(size % side for size, side in zip(op.size, shapes[0][1:3], strict=True))
        return isinstance(op, BatchNorm) or (isinstance(op, Mul) and len(set(shapes)) == 1)

    def _fuse_behind(self, index: int, kernel: int, fits: Rule) -> int | None:
        """The result of the only user of a node's result, taken into that kernel where it fits."""
        user, times = self._users.get(index, (-1, 0))
        if times != 1 or not fits(self.graph.nodes[user].op):
            return None
        self.starts[user] = kernel
        return self.graph.results[user][0]


def is_in_blocks(op: Conv2d, x: Shape, block: int) -> bool:
    """Whether a convolution of an image of shape x gives one in blocks of so many channels."""
    if op.groups == 1:
        return x[3] < block or x[3] % QUARTER == 0
    if op.is_depthwise(x) and op.out_channels == op.groups:
        return x[3] % QUARTER == 0
    return x[3] // op.groups % block == 0 and op.out_channels // op.groups % block == 0


def _follows_any_convolution(op: Op) -> bool:
    is_function = isinstance(op, Activation) and op.function in (*_CLAMPS, *_SOFT)
    return is_function or isinstance(op, Clip | LeakyReLU) or _is_tanh(op)


def _follows_blocked(op: Op) -> bool:
    functions = (*_SOFT, ActivationKind.RELU, ActivationKind.HARD_SWISH)
    return (isinstance(op, Activation) and op.function in functions) or _is_tanh(op)


def _follows_sum(op: Op) -> bool:
    return isinstance(op, Activation) and op.function is ActivationKind.RELU


def _follows_product(op: Op) -> bool:
    functions = (ActivationKind.RELU, ActivationKind.SIGMOID)
    return (isinstance(op, Activation) and op.function in functions) or isinstance(op, LeakyReLU) or _is_tanh(op)


def _is_tanh(op: Op) -> bool:
    return isinstance(op, Unary) and op.function is UnaryKind.TANH
