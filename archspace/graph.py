"""Graph: primitive ops in the order they run. A block is lowered to one once; everything else walks it."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from netlathe.archspace.errors import GraphError
from netlathe.archspace.files import digest
from netlathe.archspace.grouping import group_parts
from netlathe.archspace.ops import OPS, Activation, DType, Op, Opaque, Shape, bytes_of, check_shape, told

SCOPE_SEPARATOR = "/"

MOST_NODES = 20_000
"""Most nodes of one graph; the largest published convolutional networks have some thousand."""


@dataclass(frozen=True)
class Node:
    """An op and where its inputs come from: indices of tensors (the graph's inputs first, then each node's results).

    `scope` is the block that the node belongs to in a network ('b03'), '' outside any. Names are unique in a graph.
    """

    name: str
    op: Op
    inputs: tuple[int, ...]
    scope: str = ""


@dataclass(frozen=True)
class OpCost:
    """Cost of one node. Bytes count each input, constant and result once."""

    macs: int
    parameters: int
    bytes_read: int
    bytes_written: int


@dataclass(frozen=True)
class Graph:
    """Ops in execution order. A graph without nodes is the identity.

    `outputs` are the tensors that it gives, by default the last one. `input_dtypes` are those of the inputs, by default
    float32 each. Raises GraphError on construction when shapes or dtypes do not fit, names repeat, or an input or all
    of a node's results are never used.
    """

    inputs: tuple[Shape, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[int, ...] = ()
    input_dtypes: tuple[DType, ...] = ()

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
        if not self.outputs:
            object.__setattr__(self, "outputs", (len(self.shapes) - 1,))
        self._check_uses()
        if self.has_dtypes:
            self._check_dtypes()

    def _check_uses(self) -> None:
        outputs, count = self.outputs, len(self.shapes)
        if outputs != (count - 1,) and (
            len(set(outputs)) != len(outputs) or not all(type(t) is int and 0 <= t < count for t in outputs)
        ):
            raise GraphError(f"outputs must be different ones of the graph's {count} tensors, got {told(outputs)}")
        used = {tensor for node in self.nodes for tensor in node.inputs}
        used.update(outputs)
        if len(used) == count:
            return
        of_others = {  # one result of a node may go unused beside its others
            t for results in self.results if len(results) > 1 and not used.isdisjoint(results) for t in results
        }
        unused = [t for t in range(count) if t not in used and t not in of_others]
        if unused:
            raise GraphError(f"tensors {unused[:5]} are computed but never used")

    def _check_dtypes(self) -> None:
        known = tuple(DType)
        if self.input_dtypes and len(self.input_dtypes) != len(self.inputs):
            raise GraphError(f"{len(self.input_dtypes)} dtypes are given for {len(self.inputs)} inputs")
        if not all(dtype in known for dtype in self.input_dtypes):
            raise GraphError(f"the inputs' dtypes must be of {', '.join(known)}, got {told(self.input_dtypes)}")
        plain = all(dtype == DType.FLOAT32 for dtype in self.input_dtypes)
        object.__setattr__(self, "input_dtypes", () if plain else tuple(map(DType, self.input_dtypes)))
        _ = self.dtypes

    @cached_property
    def _by_node(self) -> tuple[tuple[Shape, ...], ...]:
        """The shapes of each node's results."""
        shapes, by_node = list(self.inputs), []
        for node in self.nodes:
            inputs, arity = node.inputs, node.op.arity
            fits = arity is None or len(inputs) == arity
            if not fits or not all(0 <= t < len(shapes) for t in inputs):
                raise GraphError(f"node {node.name!r} ({node.op.kind}) has inputs {told(inputs)} that do not exist")
            try:
                results = node.op.result_shapes(*[shapes[t] for t in inputs])
            except GraphError as error:
                raise GraphError(f"node {node.name!r}: {error}") from None
            by_node.append(results)
            shapes += results
        return tuple(by_node)

    @cached_property
    def shapes(self) -> tuple[Shape, ...]:
        """The shape of every tensor: inputs first, then each node's results."""
        return (*self.inputs, *itertools.chain.from_iterable(self._by_node))

    @cached_property
    def results(self) -> tuple[range, ...]:
        """The tensors that each node gives."""
        ends = itertools.accumulate(map(len, self._by_node), initial=len(self.inputs))
        return tuple(itertools.starmap(range, itertools.pairwise(ends)))

    @cached_property
    def producers(self) -> tuple[int, ...]:
        """The index of the node that gives each tensor, -1 for the graph's inputs."""
        return (*[-1] * len(self.inputs), *[index for index, found in enumerate(self.results) for _ in found])

    @cached_property
    def dtypes(self) -> tuple[DType, ...]:
        """The dtype of every tensor."""
        if not self.has_dtypes:
            return (DType.FLOAT32,) * len(self.shapes)
        dtypes = list(self.input_dtypes or (DType.FLOAT32,) * len(self.inputs))
        for node, shapes in zip(self.nodes, self._by_node, strict=True):
            try:
                dtypes += node.op.output_dtypes(tuple([dtypes[t] for t in node.inputs]), len(shapes))
            except GraphError as error:
                raise GraphError(f"node {node.name!r}: {error}") from None
        return tuple(dtypes)

    def steps(self) -> Iterator[tuple[Node, tuple[Shape, ...], tuple[Shape, ...]]]:
        """Each node with the shapes of its inputs and of its results."""
        shapes = self.shapes
        for node, results in zip(self.nodes, self._by_node, strict=True):
            yield node, tuple([shapes[t] for t in node.inputs]), results

    @property
    def batch(self) -> int:
        """Number of images in the first input."""
        return self.inputs[0][0]

    @property
    def input_shape(self) -> Shape:
        """Shape of the only input. Raises GraphError when there are several."""
        if len(self.inputs) != 1:
            raise GraphError(f"the graph has {len(self.inputs)} inputs where one is expected")
        return self.inputs[0]

    @property
    def output_shape(self) -> Shape:
        """Shape of the first output."""
        return self.shapes[self.outputs[0]]

    @property
    def output_shapes(self) -> tuple[Shape, ...]:
        """Shapes of all outputs."""
        return tuple(self.shapes[t] for t in self.outputs)

    def tensor_bytes(self, itemsize: int = 4) -> list[int]:
        """Bytes of every tensor; `itemsize` is what a float32 takes (4; 1 where the network runs in int8)."""
        return [
            math.prod(shape) * bytes_of(dtype, itemsize) for shape, dtype in zip(self.shapes, self.dtypes, strict=True)
        ]

    def costs(self, itemsize: int = 4) -> list[OpCost]:
        """Cost per node; `itemsize` is the bytes of what is float32 (4; 1 where the network runs in int8)."""
        sizes = self.tensor_bytes(itemsize)
        return [
            OpCost(
                macs=node.op.macs(*ins),
                parameters=node.op.parameters(*ins),
                bytes_read=sum([sizes[t] for t in node.inputs]) + node.op.stored_bytes(itemsize, *ins),
                bytes_written=sum([sizes[t] for t in results]),
            )
            for (node, ins, _), results in zip(self.steps(), self.results, strict=True)
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

    @property
    def opaque_nodes(self) -> tuple[Node, ...]:
        """The nodes whose op netlathe does not know."""
        return tuple(node for node in self.nodes if isinstance(node.op, Opaque))

    @cached_property
    def known_macs_share(self) -> float:
        """The part of all multiply-accumulates that `macs` counts, 1 without opaque nodes. Those count as layers whose
        weights meet each pixel of their first result once; without weights, as none."""
        unknown = sum(
            node.op.stored_values(*ins) * math.prod(outs[0][:-1])
            for node, ins, outs in self.steps()
            if isinstance(node.op, Opaque)
        )
        return self.macs / (self.macs + unknown) if unknown else 1.0

    @cached_property
    def sole_users(self) -> dict[int, tuple[int, int]]:
        """Index of each node whose only result one other node alone takes, and which is no output -> (index of that
        other one, how many times it takes it)."""
        takers: dict[int, tuple[int, int] | None] = dict.fromkeys(self.outputs)
        for index, node in enumerate(self.nodes):
            for tensor in node.inputs:
                if tensor not in takers:
                    takers[tensor] = (index, 1)
                elif (found := takers[tensor]) is not None:
                    takers[tensor] = (index, found[1] + 1) if found[0] == index else None
        if len(self.shapes) == len(self.inputs) + len(self.nodes):  # one result each
            first = len(self.inputs)
            return {tensor - first: found for tensor, found in takers.items() if found and tensor >= first}
        alone = {tensors[0]: index for index, tensors in enumerate(self.results) if len(tensors) == 1}
        return {alone[tensor]: found for tensor, found in takers.items() if found and tensor in alone}

    @cached_property
    def _last_uses(self) -> tuple[int, ...]:
        """For each tensor the index of the last node that takes it, -1 where none does."""
        last_use = [-1] * len(self.shapes)
        for index, node in enumerate(self.nodes):
            for tensor in node.inputs:
                last_use[tensor] = index
        return tuple(last_use)

    def peak_activation_bytes(self, itemsize: int = 4) -> int:
        """Most bytes of values alive at once when the nodes run in this order; an activation overwrites an input that
        nobody else needs. A chain's peak is that of its worst block, as one tensor crosses between blocks."""
        last_use = list(self._last_uses)
        for tensor in self.outputs:
            last_use[tensor] = len(self.nodes)
        sizes = self.tensor_bytes(itemsize)
        live = peak = sum(sizes[: len(self.inputs)])
        for index, (node, results) in enumerate(zip(self.nodes, self.results, strict=True)):
            freed = sum(sizes[t] for t in set(node.inputs) if last_use[t] == index)
            given = sum(sizes[t] for t in results)
            in_place = isinstance(node.op, Activation) and freed > 0
            peak = max(peak, live if in_place else live + given)
            live += given - freed - sum(sizes[t] for t in results if last_use[t] < 0)
        return peak

    @cached_property
    def key(self) -> str:
        """32 hex digits that name the computation: equal for equal ops and shapes, whatever the nodes are called. What
        is measured goes by it."""
        content: list[Any] = [list(self.inputs), [[n.op.to_json(), n.inputs] for n in self.nodes]]
        if self._extras:
            content.append(self._extras)
        return digest(json.dumps(content, sort_keys=True), 32)

    @property
    def identity(self) -> str:
        """32 hex digits that tell apart what is predicted differently: the key, except that a network of a single
        block, to whose time a network's share is added, is not that block."""
        if not self.is_network or len({node.scope for node in self.nodes}) > 1:
            return self.key
        return digest(f"network of {self.key}", 32)

    @property
    def _extras(self) -> dict[str, Any]:
        """Outputs and dtypes, where they are not the default: most graphs' JSON and key do without."""
        extras: dict[str, Any] = {}
        if self.outputs != (len(self.shapes) - 1,):
            extras["outputs"] = list(self.outputs)
        if self.input_dtypes:
            extras["input_dtypes"] = [str(dtype) for dtype in self.input_dtypes]
        return extras

    def subgraph(self, start: int, stop: int) -> Graph:
        """Nodes start..stop-1 as a graph of their own; tensors from outside become its inputs, tensors that are needed
        outside its outputs."""
        nodes = self.nodes[start:stop]
        inside = range(self.results[start].start, self.results[stop - 1].stop)
        outside = sorted({t for node in nodes for t in node.inputs if t < inside.start})
        index = {t: i for i, t in enumerate([*outside, *inside])}
        uses, given = self._last_uses, self._output_set
        return Graph(
            tuple(self.shapes[t] for t in outside),
            tuple(dataclasses.replace(n, inputs=tuple(index[t] for t in n.inputs)) for n in nodes),
            tuple(index[t] for t in inside if uses[t] >= stop or t in given),
            tuple(self.dtypes[t] for t in outside) if self.has_dtypes else (),
        )

    @cached_property
    def _output_set(self) -> frozenset[int]:
        return frozenset(self.outputs)

    @cached_property
    def has_dtypes(self) -> bool:
        """Whether any tensor may be other than float32."""
        return bool(self.input_dtypes) or any(node.op.has_dtype for node in self.nodes)

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
        scopes = [f"b{block:02d}" for block, part in zip(blocks, parts, strict=True) for _ in part.nodes]
        nodes = (
            dataclasses.replace(n, name=f"{scope}{SCOPE_SEPARATOR}{n.name}", scope=scope)
            for n, scope in zip(self.nodes, scopes, strict=True)
        )
        return dataclasses.replace(self, nodes=tuple(nodes))

    def _cut(self, wanted: Callable[[Node, Node], bool]) -> list[Graph]:
        """Cuts wherever it is wanted between two nodes and a single tensor crosses."""
        places = range(1, len(self.nodes))
        single = self._single_live()
        cuts = [i for i in places if wanted(self.nodes[i - 1], self.nodes[i]) and single[i]]
        return [self.subgraph(a, b) for a, b in itertools.pairwise([0, *cuts, len(self.nodes)]) if a < b]

    def _single_live(self) -> list[bool]:
        """For each node, whether only a result of the node before it is still needed from there on."""
        uses = self._last_uses
        until = max(uses[: len(self.inputs)], default=-1)  # the last node that needs any of the tensors before
        single = [False]
        for index, results in enumerate(self.results[:-1], start=1):
            needed = [use for t in results if (use := uses[t]) >= index]
            single.append(until < index and len(needed) == 1)
            until = max(until, *needed, -1)
        return single

    def to_json(self) -> dict[str, Any]:
        nodes = [_node_to_json(node) for node in self.nodes]
        return {"inputs": [list(shape) for shape in self.inputs], "nodes": nodes, **self._extras}

    @classmethod
    def from_json(cls, data: Any) -> Graph:
        """Raises GraphError on unknown ops, fields or values."""
        try:
            if len(data["nodes"]) > MOST_NODES or len(data["inputs"]) > MOST_NODES:
                raise GraphError(f"a graph of more than {MOST_NODES} nodes or inputs")
            nodes = tuple(_node_from_json(node) for node in data["nodes"])
            outputs, dtypes = tuple(data.get("outputs", ())), tuple(data.get("input_dtypes", ()))
            return cls(tuple(tuple(shape) for shape in data["inputs"]), nodes, outputs, dtypes)
        except (KeyError, TypeError, AttributeError) as error:
            raise GraphError(f"this is not a graph in netlathe's JSON: {error!r:.200}") from error


class GraphBuilder:
    """Collects nodes; tensors are plain indices. `build` checks and freezes."""

    def __init__(self, *inputs: Shape, dtypes: tuple[DType, ...] = ()) -> None:
        self.inputs = inputs
        self.nodes: list[Node] = []
        self._dtypes = dtypes
        self._shapes: list[Shape] = list(inputs)
        self._by_node: list[tuple[Shape, ...]] = []
        self._firsts: list[int] = []
        self._has_dtypes = bool(dtypes)

    def add(self, name: str, op: Op, *inputs: int, scope: str = "") -> int:
        """Appends a node, returns the tensor of its first result; its others follow by number."""
        try:
            results = op.result_shapes(*[self._shapes[t] for t in inputs])
        except GraphError as error:
            raise GraphError(f"node {name!r}: {error}") from None
        node = object.__new__(Node)
        node.__dict__.update(name=name, op=op, inputs=inputs, scope=scope)  # in half the time that Node() takes
        first = len(self._shapes)
        self._shapes += results
        self._by_node.append(results)
        if op.has_dtype:
            self._has_dtypes = True
        self.nodes.append(node)
        return first

    def inline(self, scope: str, graph: Graph, x: int) -> int:
        """Appends all nodes of a graph of one input and output, fed by tensor x; names become scope/name. Without a
        scope, nodes keep their names and are none of a network's blocks."""
        if self._shapes[x] != graph.input_shape:
            raise GraphError(f"{scope}: takes {graph.input_shape}, is given {self._shapes[x]}")
        if len(graph.outputs) != 1:
            raise GraphError(f"{scope}: gives {len(graph.outputs)} tensors where one is expected")
        tensors = [x]
        for node, results in zip(graph.nodes, graph.results, strict=True):
            name = f"{scope}{SCOPE_SEPARATOR}{node.name}" if scope else node.name
            first = self.add(name, node.op, *[tensors[t] for t in node.inputs], scope=scope)
            tensors += range(first, first + len(results))
        return tensors[graph.outputs[0]]

    def shape(self, tensor: int) -> Shape:
        return self._shapes[tensor]

    @property
    def results(self) -> list[tuple[Shape, ...]]:
        """The shapes of each node's results."""
        return self._by_node

    def producer(self, tensor: int) -> int:
        """The index of the node that gives a tensor, -1 for an input."""
        while len(self._firsts) < len(self.nodes):
            before = self._by_node[len(self._firsts) - 1] if self._firsts else self.inputs
            self._firsts.append((self._firsts[-1] if self._firsts else 0) + len(before))
        return bisect_right(self._firsts, tensor) - 1

    def build(self, *outputs: int) -> Graph:
        """The graph that gives these tensors, by default the last one."""
        graph = object.__new__(Graph)
        # With the shapes that are known by now: finding them again takes a third of the time to lower a block.
        graph.__dict__.update(
            inputs=self.inputs, nodes=tuple(self.nodes), outputs=outputs, input_dtypes=self._dtypes,
            shapes=tuple(self._shapes), _by_node=tuple(self._by_node), has_dtypes=self._has_dtypes,
        )  # fmt: skip
        graph.__post_init__()
        return graph


def chain(graphs: Iterable[tuple[str, Graph]]) -> Graph:
    """One graph after the other, each under its own scope."""
    graphs = list(graphs)
    builder = GraphBuilder(graphs[0][1].input_shape)
    x = 0
    for scope, graph in graphs:
        x = builder.inline(scope, graph, x)
    return builder.build(x)


def _scope_in(name: str) -> str:
    """The scope of a node whose JSON names none: 'b03' of 'b03/expand'."""
    return name.partition(SCOPE_SEPARATOR)[0] if SCOPE_SEPARATOR in name else ""


def _node_to_json(node: Node) -> dict[str, Any]:
    data = {"name": node.name, **node.op.to_json(), "inputs": list(node.inputs)}
    if node.scope != _scope_in(node.name):
        data["scope"] = node.scope
    return data


def _node_from_json(data: dict[str, Any]) -> Node:
    settings = dict(data)
    name, kind, inputs = settings.pop("name"), settings.pop("op"), settings.pop("inputs")
    if not isinstance(name, str) or not isinstance(inputs, list) or not all(type(tensor) is int for tensor in inputs):
        raise GraphError(f"a node's name must be text, and its inputs integers, got {name!r:.60} and {inputs!r:.60}")
    scope = settings.pop("scope", _scope_in(name))
    if not isinstance(scope, str):
        raise GraphError(f"node {name!r:.60}: its scope must be text, got {scope!r:.60}")
    if kind not in OPS:
        raise GraphError(f"node {name!r:.60} has the unknown op {kind!r:.60}; known: {', '.join(OPS)}")
    try:
        return Node(name, OPS[kind].from_json(settings), tuple(inputs), scope)
    except (TypeError, ValueError) as error:
        raise GraphError(f"node {name!r:.60} ({kind}): {error}") from error
