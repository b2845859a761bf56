"""Graph: primitive ops in the order they run. A block is lowered to one once; everything else walks it."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from netlathe.archspace.errors import GraphError
from netlathe.archspace.grouping import group_parts
from netlathe.archspace.ops import OPS, Activation, ActivationKind, Op, Padding, Shape, check_shape

SCOPE_SEPARATOR = "/"

MOST_NODES = 20_000
"""Of one graph; the largest published convolutional networks have some thousand."""


@dataclass(frozen=True)
class Node:
    """An op and where its inputs come from: indices of tensors (the graph's inputs first, then each node's result)."""

    name: str
    op: Op
    inputs: tuple[int, ...]

    @property
    def scope(self) -> str:
        """The block that the node belongs to in a network: 'b03' of 'b03/expand', '' outside any."""
        return self.name.partition(SCOPE_SEPARATOR)[0] if SCOPE_SEPARATOR in self.name else ""


@dataclass(frozen=True)
class OpCost:
    """What one node costs. Bytes count each input, constant and result once."""

    macs: int
    parameters: int
    bytes_read: int
    bytes_written: int


@dataclass(frozen=True)
class Graph:
    """Ops in execution order; the last tensor is the result. A graph without nodes is the identity.

    Raises GraphError on construction when shapes do not fit, names repeat or a result is never used.
    """

    inputs: tuple[Shape, ...]
    nodes: tuple[Node, ...]

    def __post_init__(self) -> None:
        if not self.inputs:
            raise GraphError("a graph needs input shapes of positive sizes, got none")
        for shape in self.inputs:
            check_shape(shape, "a graph needs input shapes of positive sizes; one")
        if len(self.inputs) > MOST_NODES or len(self.nodes) > MOST_NODES:
            count = max(len(self.inputs), len(self.nodes))
            raise GraphError(f"a graph of {count} nodes or inputs is more than the {MOST_NODES} that netlathe takes")
        names = [node.name for node in self.nodes]
        if len(set(names)) != len(names):
            repeated = Counter(names).most_common(1)[0][0]
            raise GraphError(f"two nodes are called {repeated!r:.80}; names must be unique")
        used = {tensor for node in self.nodes for tensor in node.inputs}
        if not used.issuperset(range(len(self.shapes) - 1)):
            unused = sorted(set(range(len(self.shapes) - 1)) - used)
            raise GraphError(f"tensors {unused[:5]} are computed but never used")

    @cached_property
    def shapes(self) -> tuple[Shape, ...]:
        """The shape of every tensor: inputs first, then one per node."""
        shapes = list(self.inputs)
        for node in self.nodes:
            inputs = node.inputs
            if len(inputs) != node.op.arity or not 0 <= min(inputs) <= max(inputs) < len(shapes):
                raise GraphError(f"node {node.name!r} ({node.op.kind}) has inputs {inputs} that do not exist")
            try:
                shapes.append(node.op.result_shape(*[shapes[t] for t in inputs]))
            except GraphError as error:
                raise GraphError(f"node {node.name!r}: {error}") from None
        return tuple(shapes)

    def steps(self) -> Iterator[tuple[Node, tuple[Shape, ...], Shape]]:
        """Each node with its input shapes and its output shape."""
        shapes, first = self.shapes, len(self.inputs)
        for index, node in enumerate(self.nodes):
            yield node, tuple([shapes[t] for t in node.inputs]), shapes[first + index]

    @property
    def input_shape(self) -> Shape:
        """Shape of the only input. Raises GraphError when there are several."""
        if len(self.inputs) != 1:
            raise GraphError(f"the graph has {len(self.inputs)} inputs where one is expected")
        return self.inputs[0]

    @property
    def output_shape(self) -> Shape:
        return self.shapes[-1]

    def costs(self, itemsize: int = 4) -> list[OpCost]:
        """Cost per node; `itemsize` is the bytes of one value (4 float32, 1 int8)."""
        return [
            OpCost(
                macs=node.op.macs(*ins),
                parameters=node.op.parameters(*ins),
                bytes_read=itemsize * (sum(map(math.prod, ins)) + node.op.constants(*ins)),
                bytes_written=itemsize * math.prod(out),
            )
            for node, ins, out in self.steps()
        ]

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulates of convolutions and fully connected layers, whole batch."""
        return sum(node.op.macs(*ins) for node, ins, _ in self.steps())

    @cached_property
    def parameters(self) -> int:
        """Trainable parameters, BatchNorm's scale and shift included."""
        return sum(node.op.parameters(*ins) for node, ins, _ in self.steps())

    def bytes_read(self, itemsize: int = 4) -> int:
        return sum(cost.bytes_read for cost in self.costs(itemsize))

    def bytes_written(self, itemsize: int = 4) -> int:
        return sum(cost.bytes_written for cost in self.costs(itemsize))

    def peak_activation_bytes(self, itemsize: int = 4) -> int:
        """Most bytes of values alive at once when the nodes run in this order; an activation overwrites an input that
        nobody else needs. A chain's peak is that of its worst block, as one tensor crosses between blocks."""
        last_use = {tensor: index for index, node in enumerate(self.nodes) for tensor in node.inputs}
        sizes = [itemsize * math.prod(shape) for shape in self.shapes]
        live = peak = sum(sizes[: len(self.inputs)])
        for index, node in enumerate(self.nodes):
            freed = sum(sizes[t] for t in set(node.inputs) if last_use[t] == index)
            in_place = isinstance(node.op, Activation) and freed > 0
            peak = max(peak, live if in_place else live + sizes[len(self.inputs) + index])
            live += sizes[len(self.inputs) + index] - freed
        return peak

    @cached_property
    def key(self) -> str:
        """32 hex digits that name the computation: equal for equal ops and shapes, whatever the nodes are called."""
        content = [list(self.inputs), [[_op_json(n.op), n.inputs] for n in self.nodes]]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]

    def subgraph(self, start: int, stop: int) -> Graph:
        """Nodes start..stop-1 as a graph of their own; tensors from outside become its inputs."""
        first, last = len(self.inputs) + start, len(self.inputs) + stop
        nodes = self.nodes[start:stop]
        outside = sorted({t for node in nodes for t in node.inputs if t < first})
        index = {t: i for i, t in enumerate([*outside, *range(first, last)])}
        return Graph(
            tuple(self.shapes[t] for t in outside),
            tuple(dataclasses.replace(n, inputs=tuple(index[t] for t in n.inputs)) for n in nodes),
        )

    @property
    def is_network(self) -> bool:
        """Whether the nodes are grouped into blocks by their scopes; without scopes the graph is one block."""
        return any(node.scope for node in self.nodes)

    def segments(self) -> list[Graph]:
        """The blocks that a network is made of: cut where the scope changes. A graph without scopes is one segment."""
        return self._cut(lambda before, after: before.scope != after.scope)

    def scoped(self) -> Graph:
        """The same graph, grouped into blocks, which are known by their layers (archspace/grouping.py); what is none
        of them, into the smallest segments that a single tensor connects, an activation staying with the op before it:
        how a foreign network, which names no blocks, is made one of blocks."""
        parts = self._cut(lambda before, after: not isinstance(after.op, Activation))
        blocks = [block for block, count in enumerate(group_parts(parts)) for _ in range(count)]
        names = [
            f"b{block:02d}{SCOPE_SEPARATOR}{n.name}"
            for block, part in zip(blocks, parts, strict=True)
            for n in part.nodes
        ]
        nodes = (dataclasses.replace(n, name=name) for n, name in zip(self.nodes, names, strict=True))
        return Graph(self.inputs, tuple(nodes))

    def _cut(self, wanted: Callable[[Node, Node], bool]) -> list[Graph]:
        """Cuts wherever it is wanted between two nodes and a single tensor crosses."""
        places = range(1, len(self.nodes))
        single = self._single_live()
        cuts = [i for i in places if wanted(self.nodes[i - 1], self.nodes[i]) and single[i]]
        return [self.subgraph(a, b) for a, b in itertools.pairwise([0, *cuts, len(self.nodes)]) if a < b]

    def _single_live(self) -> list[bool]:
        """For each node, whether only the result of the node before it is still needed from there on."""
        last_use = {tensor: index for index, node in enumerate(self.nodes) for tensor in node.inputs}
        uses = [last_use.get(tensor, -1) for tensor in range(len(self.shapes))]
        until = max(uses[: len(self.inputs)], default=-1)  # the last node that needs any of the tensors before
        single = [False]
        for index, use in enumerate(uses[len(self.inputs) : -1], start=1):
            single.append(until < index <= use)
            until = max(until, use)
        return single

    def to_json(self) -> dict[str, Any]:
        nodes = [{"name": n.name, **_op_json(n.op), "inputs": list(n.inputs)} for n in self.nodes]
        return {"inputs": [list(shape) for shape in self.inputs], "nodes": nodes}

    @classmethod
    def from_json(cls, data: Any) -> Graph:
        """Raises GraphError on unknown ops, fields or values."""
        try:
            if len(data["nodes"]) > MOST_NODES or len(data["inputs"]) > MOST_NODES:
                raise GraphError(f"a graph of more than {MOST_NODES} nodes or inputs")
            nodes = tuple(_node_from_json(node) for node in data["nodes"])
            return cls(tuple(tuple(shape) for shape in data["inputs"]), nodes)
        except (KeyError, TypeError, AttributeError) as error:
            raise GraphError(f"this is not a graph in netlathe's JSON: {error!r:.200}") from error


class GraphBuilder:
    """Collects nodes; tensors are plain indices. `build` checks and freezes."""

    def __init__(self, *inputs: Shape) -> None:
        self.inputs = inputs
        self.nodes: list[Node] = []
        self._shapes: list[Shape] = list(inputs)

    def add(self, name: str, op: Op, *inputs: int) -> int:
        """Appends a node, returns its tensor."""
        try:
            self._shapes.append(op.result_shape(*[self._shapes[t] for t in inputs]))
        except GraphError as error:
            raise GraphError(f"node {name!r}: {error}") from None
        self.nodes.append(Node(name, op, inputs))
        return len(self._shapes) - 1

    def inline(self, scope: str, graph: Graph, x: int) -> int:
        """Appends all nodes of a one-input graph, fed by tensor x; names become scope/name."""
        if self._shapes[x] != graph.input_shape:
            raise GraphError(f"{scope}: takes {graph.input_shape}, is given {self._shapes[x]}")
        tensors = [x]
        for node in graph.nodes:
            name = f"{scope}{SCOPE_SEPARATOR}{node.name}"
            tensors.append(self.add(name, node.op, *(tensors[t] for t in node.inputs)))
        return tensors[-1]

    def shape(self, tensor: int) -> Shape:
        return self._shapes[tensor]

    def build(self) -> Graph:
        graph = object.__new__(Graph)
        # With the shapes that are known by now: finding them again takes a third of the time to lower a block.
        graph.__dict__.update(inputs=self.inputs, nodes=tuple(self.nodes), shapes=tuple(self._shapes))
        graph.__post_init__()
        return graph


def chain(graphs: Iterable[tuple[str, Graph]]) -> Graph:
    """One graph after the other, each under its own scope."""
    graphs = list(graphs)
    builder = GraphBuilder(graphs[0][1].input_shape)
    x = 0
    for scope, graph in graphs:
        x = builder.inline(scope, graph, x)
    return builder.build()


def _op_json(op: Op) -> dict[str, Any]:
    return {"op": op.kind, **dataclasses.asdict(op)}


def _node_from_json(data: dict[str, Any]) -> Node:
    attributes: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
    name, kind, inputs = attributes.pop("name"), attributes.pop("op"), attributes.pop("inputs")
    if not isinstance(name, str) or not isinstance(inputs, tuple) or not all(type(tensor) is int for tensor in inputs):
        raise GraphError(f"a node's name must be text, and its inputs integers, got {name!r:.60} and {inputs!r:.60}")
    if kind not in OPS:
        raise GraphError(f"node {name!r:.60} has the unknown op {kind!r:.60}; known: {', '.join(OPS)}")
    try:
        if "padding" in attributes:
            attributes["padding"] = Padding(attributes["padding"])
        if "function" in attributes:
            attributes["function"] = ActivationKind(attributes["function"])
        return Node(name, OPS[kind](**attributes), inputs)
    except (TypeError, ValueError) as error:
        raise GraphError(f"node {name!r:.60} ({kind}): {error}") from error
