"""What all forms ask about a graph: which neighbours become one op, and how a graph travels inside a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from netlathe.archspace.errors import FormatError, GraphError
from netlathe.archspace.files import read_whole
from netlathe.archspace.graph import Graph, Node
from netlathe.archspace.ops import (
    Activation,
    ActivationKind,
    Add,
    Conv2d,
    FullyConnected,
    Mul,
    Op,
    Pad,
    Padding,
    Pair,
    Pool2d,
    Shape,
    same_padding,
)

T = TypeVar("T")

Borders = tuple[Pair, Pair]
"""Pixels (before, after) along height, then along width."""

EMBEDDED_KEY = "netlathe_graph"
"""The metadata entry under which netlathe's own files carry their graph."""

_EMBEDDED_VERSION = 1
_MOST_EMBEDDED = 1 << 24
"""Characters of an embedded graph; the largest have a million."""
_LONGEST_NAME = 200
_MOST_BYTES = (1 << 31) - 1
"""Of a model's file: both formats end there."""
_DAMAGE = (
    ValueError, LookupError, TypeError, ArithmeticError, AttributeError, RecursionError, MemoryError, AssertionError,
    GraphError,
)  # fmt: skip
"""What making sense of any content may raise."""
_CLAMPS = (ActivationKind.RELU, ActivationKind.RELU6)
_NOT_NEGATIVE = (*_CLAMPS, ActivationKind.SIGMOID, ActivationKind.HARD_SIGMOID)
_LAYERS = (Conv2d, FullyConnected)
_CLAMPING_OPS = (*_LAYERS, Add, Mul)


def sole_users(graph: Graph) -> dict[int, int]:
    """Index of each node whose result only one other node uses -> index of that one."""
    users: dict[int, int | None] = dict.fromkeys(range(-len(graph.inputs), 0))  # several, or none that counts: None
    for index, node in enumerate(graph.nodes):
        for tensor in node.inputs:
            result = tensor - len(graph.inputs)
            users[result] = None if result in users else index
    return {index: user for index, user in users.items() if user is not None}


def clamped_nodes(graph: Graph) -> dict[int, int]:
    """Index of each op that can apply the relu or relu6 behind it itself -> index of that activation's node."""
    return _pairs(graph, lambda op, user: _function(user) in _CLAMPS and isinstance(op, _CLAMPING_OPS))


def gated_layers(graph: Graph) -> dict[int, int]:
    """Index of each layer that can do the x + 3 of the hard sigmoid behind it in its bias -> that activation's."""
    hard_sigmoid = ActivationKind.HARD_SIGMOID
    return _pairs(graph, lambda op, user: _function(user) is hard_sigmoid and isinstance(op, _LAYERS))


def padded_convolutions(graph: Graph) -> dict[int, int]:
    """Index of each unpadded convolution that can do the padding before it itself -> index of that pad's node."""

    def fits(op: Op, user: Op) -> bool:
        return isinstance(op, Pad) and isinstance(user, Conv2d) and user.padding is Padding.VALID

    return {conv: pad for pad, conv in _pairs(graph, fits).items()}


def padded_layers(graph: Graph) -> dict[int, int]:
    """The same for ONNX's layers, whose pools can pad, too: an average counts its zeros, a maximum ignores its border,
    which comes to the same where nothing is negative."""

    def fits(op: Op, user: Op) -> bool:
        return isinstance(op, Pad) and isinstance(user, Pool2d) and user.padding is Padding.VALID

    found = {pool: pad for pad, pool in _pairs(graph, fits).items()}
    return padded_convolutions(graph) | {pool: pad for pool, pad in found.items() if _pads_alike(graph, pool, pad)}


def _pads_alike(graph: Graph, pool: int, pad: int) -> bool:
    """Whether the pool's own padding gives what zeros around its input do; ONNX's own is smaller than its window."""
    op = graph.nodes[pool].op
    assert isinstance(op, Pool2d)
    borders = borders_of(graph, pad)
    if any(amount >= size for pair, size in zip(borders, op.kernel, strict=True) for amount in pair):
        return False
    return op.mode == "avg" or is_never_negative(graph.nodes, graph.nodes[pad].inputs[0] - len(graph.inputs))


def is_never_negative(nodes: Sequence[Node], index: int) -> bool:
    """Whether the result of the node at that index comes straight from an activation that gives no negative numbers."""
    op = nodes[index].op if index >= 0 else None
    return isinstance(op, Activation) and op.function in _NOT_NEGATIVE


def _pairs(graph: Graph, fits: Callable[[Op, Op], bool]) -> dict[int, int]:
    nodes = graph.nodes
    return {index: user for index, user in sole_users(graph).items() if fits(nodes[index].op, nodes[user].op)}


def _function(op: Op) -> ActivationKind | None:
    return op.function if isinstance(op, Activation) else None


def input_names(graph: Graph) -> list[str]:
    """What the files call the graph's inputs."""
    return ["input"] if len(graph.inputs) == 1 else [f"input_{index}" for index in range(len(graph.inputs))]


def borders_of(graph: Graph, index: int) -> Borders:
    """What the node at that index adds around its input."""
    op = graph.nodes[index].op
    if isinstance(op, Pad):
        return op.height, op.width
    if isinstance(op, Conv2d | Pool2d) and op.padding is Padding.SAME:
        return same_borders(graph.shapes[graph.nodes[index].inputs[0]], op.kernel, op.stride)
    return (0, 0), (0, 0)


def same_borders(x: Shape, kernel: Pair, stride: Pair) -> Borders:
    """What SAME adds around an image of shape (N, H, W, C)."""
    height, width = (same_padding(x[axis + 1], kernel[axis], stride[axis]) for axis in (0, 1))
    return height, width


def is_symmetric(borders: Borders) -> bool:
    """Whether as much is added before as after, along both axes."""
    return all(before == after for before, after in borders)


def embed(graph: Graph) -> str:
    """The graph as the text that netlathe's own files carry."""
    return json.dumps({"version": _EMBEDDED_VERSION, **graph.to_json()}, separators=(",", ":"))


def embedded_graph(text: str | bytes) -> Graph | None:
    """The graph in that text; None where it cannot be read (edited by another tool, or newer)."""
    if len(text) > _MOST_EMBEDDED:
        return None
    try:
        data = json.loads(text)
        return Graph.from_json(data) if data["version"] == _EMBEDDED_VERSION else None
    # ValueError: no JSON, or no UTF-8.
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError, GraphError):
        return None


class NodeNames:
    """Turns names found in foreign files into names that are unique and that torch accepts as module names."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._counts: dict[str, int] = {}

    def take(self, wanted: str, fallback: str) -> str:
        base = wanted[:_LONGEST_NAME].replace(".", "_").strip("/ ") or fallback
        name, count = base, self._counts.get(base, 1)
        while name in self._taken:
            count += 1
            name = f"{base}_{count}"
        self._counts[base] = count
        self._taken.add(name)
        return name


def finish_foreign(inputs: tuple[tuple[int, ...], ...], nodes: list[Node]) -> Graph:
    """The graph of a foreign file, grouped into blocks; a single one is a block and no network, as it would be without
    a file. Raises FormatError where the parts do not fit."""
    try:
        graph = Graph(inputs, tuple(nodes))
        grouped = graph.scoped()
        return graph if len(grouped.segments()) == 1 else grouped
    except GraphError as error:
        raise FormatError(f"the file does not hold together: {error}") from error


def precision_of(values: str, weights: str) -> str:
    """What a layer computes in, in words."""
    return values if weights in (values, "") or values.startswith("int") else f"{values} with {weights} weights"


def read_source(data: bytes | Path, parse: Callable[[bytes], T]) -> T:
    """What `parse` finds in those bytes, or in that file; errors then begin with its path. Raises FormatError
    for anything that is amiss with them."""
    if isinstance(data, bytes):
        return _parsed(data, parse)
    try:
        content = read_whole(data, _MOST_BYTES)
    except OSError as error:
        raise FormatError(f"cannot read {data}: {error.strerror}") from error
    try:
        return _parsed(content, parse)
    except FormatError as error:
        raise FormatError(f"{data}: {error}") from error


def _parsed(content: bytes, parse: Callable[[bytes], T]) -> T:
    try:
        return parse(content)
    except _DAMAGE as error:
        raise FormatError(f"the file does not hold together ({error!r:.200}); write or fetch it again") from error
