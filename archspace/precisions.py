"""Precisions of a graph's parts: float32, int8, or float32 with weights of float16 or int8, node by node, with what
converts between them.

A graph of several precisions has its integers written into it: a Quantize before what computes in int8, a Dequantize
behind it, and int8 as the dtype of weights. Scales are no part of a graph; who writes a file finds them from samples.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from enum import StrEnum

from netlathe.archspace.errors import GraphError
from netlathe.archspace.graph import Graph, GraphBuilder, Node
from netlathe.archspace.kernels import clamped_nodes, gated_layers
from netlathe.archspace.ops import (
    Constant,
    Conv2d,
    Dequantize,
    DType,
    FullyConnected,
    Op,
    PReLU,
    Quantize,
    TransposeConv2d,
)


class Precision(StrEnum):
    """Numbers that a part of a network computes with."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    """Weights of convolutions and fully connected layers stored in float16, all values in float32."""
    INT8 = "int8"
    """Weights and values in int8, as static quantization has it."""
    INT8_WEIGHTS = "int8-weights"
    """Weights of convolutions and fully connected layers in int8, all values in float32."""


BORDERS = (Quantize, Dequantize)
"""The ops that convert between precisions."""
_REAL = {DType.FLOAT32, DType.INT8}
"""Dtypes that stand for real values in a mixed graph."""
_WEIGHTED = (Conv2d, FullyConnected, TransposeConv2d, PReLU)
"""Ops that know the dtype of their weights."""
_WEIGHT_ONLY = (Conv2d, FullyConnected)
"""Ops that runtimes compute in float32 with narrower weights."""
_STORED = {DType.INT8: Precision.INT8_WEIGHTS, DType.FLOAT16: Precision.FLOAT16}
"""Precision of a layer whose values are float32, by the dtype of its weights."""
_WEIGHTS = {precision: dtype for dtype, precision in _STORED.items()}


def expect_precision(value: object, where: str) -> Precision:
    """The precision of that name. Raises GraphError where there is none; int4 is told why."""
    if value in tuple(Precision):
        return Precision(str(value))
    known = ", ".join(Precision)
    if isinstance(value, str) and value.startswith("int4"):
        raise GraphError(
            f"{where}: {value:.40} is not written: LiteRT 2.3 refuses depthwise convolutions with weights of 4 bits, "
            f"and runs dense ones slower than in int8; take {known}"
        )
    raise GraphError(f"{where}: the precision must be one of {known}, got {value!r:.40}")


def mixed(graph: Graph, precisions: Mapping[str, str]) -> Graph:
    """The float32 graph with its nodes in those precisions, by their names; a node that is not named stays as it is.

    Values are quantized and dequantized where the precision changes, each tensor once. The graph's inputs and outputs
    stay float32, unless every node computes in int8: then they are int8, and nothing converts. Without int8 the graph
    itself comes back. Raises GraphError for unknown nodes and precisions, for a graph that holds narrower numbers
    already, and where a clamp would have another precision than the op that applies it.
    """
    if is_mixed(graph) or has_borders(graph):
        raise GraphError("the graph has integers for real values already: give the float32 network")
    wanted = _by_node(graph, precisions)
    _expect_clamps_inside(graph, wanted)
    if all(precision is Precision.FLOAT32 for precision in wanted):
        return graph
    ops = [_in_precision(node.op, precision) for node, precision in zip(graph.nodes, wanted, strict=True)]
    if all(precision is Precision.INT8 for precision in wanted):
        nodes = tuple(dataclasses.replace(node, op=op) for node, op in zip(graph.nodes, ops, strict=True))
        dtypes = tuple(_narrowed(dtype) for dtype in graph.dtypes[: len(graph.inputs)])
        return Graph(graph.inputs, nodes, graph.outputs, dtypes)
    return _with_borders(graph, ops, [precision is Precision.INT8 for precision in wanted])


def unmixed(graph: Graph) -> Graph:
    """The float32 graph that a mixed one was made of: without conversions to and from int8, all weights and values in
    float32."""
    dtypes = tuple(_widened(dtype) for dtype in graph.dtypes[: len(graph.inputs)])
    is_plain = all(dtype == DType.FLOAT32 for dtype in dtypes)
    builder = GraphBuilder(*graph.inputs, dtypes=() if is_plain else dtypes)
    tensors = list(range(len(graph.inputs)))
    for node, results in zip(graph.nodes, graph.results, strict=True):
        taken = [tensors[t] for t in node.inputs]
        if isinstance(node.op, BORDERS) and {graph.dtypes[t] for t in (*node.inputs, *results)} <= _REAL:
            tensors += taken
        else:
            first = builder.add(node.name, _with_weights(node.op, DType.FLOAT32), *taken, scope=node.scope)
            tensors += range(first, first + len(results))
    return builder.build(*(tensors[t] for t in graph.outputs))


def precisions_of(graph: Graph) -> dict[str, Precision]:
    """The precision of each node by its name, but for those that convert."""
    found = {}
    for node, dtypes in zip(graph.nodes, _node_dtypes(graph), strict=True):
        if isinstance(node.op, BORDERS):
            continue
        if DType.INT8 in dtypes:
            found[node.name] = Precision.INT8
        else:
            stored = node.op.weights if isinstance(node.op, _WEIGHT_ONLY) else DType.FLOAT32
            found[node.name] = _STORED.get(stored, Precision.FLOAT32)
    return found


def is_mixed(graph: Graph) -> bool:
    """Whether any node computes in int8 or has weights of int8 or float16."""
    if not graph.has_dtypes and not any(isinstance(node.op, _WEIGHTED) for node in graph.nodes):
        return False
    return any(precision is not Precision.FLOAT32 for precision in precisions_of(graph).values())


def has_borders(graph: Graph) -> bool:
    """Whether any node converts between precisions."""
    return any(isinstance(node.op, BORDERS) for node in graph.nodes)


def _by_node(graph: Graph, precisions: Mapping[str, str]) -> list[Precision]:
    """The precision of each node."""
    names = {node.name for node in graph.nodes}
    for name, value in precisions.items():
        if name not in names:
            raise GraphError(f"the graph has no node {name!r:.80}, which is to be {value!r:.40}")
    return [expect_precision(precisions.get(n.name, Precision.FLOAT32), f"node {n.name!r:.80}") for n in graph.nodes]


def _expect_clamps_inside(graph: Graph, wanted: Sequence[Precision]) -> None:
    """Raises GraphError where an op and the activation that it applies itself differ in what they compute with."""
    for before, after in (clamped_nodes(graph) | gated_layers(graph)).items():
        if (wanted[before] is Precision.INT8) is not (wanted[after] is Precision.INT8):
            first, second = graph.nodes[before].name, graph.nodes[after].name
            raise GraphError(
                f"node {first!r:.80} applies {second!r:.80} itself: both must have one precision, got {wanted[before]} "
                f"and {wanted[after]}"
            )


def _with_borders(graph: Graph, ops: Sequence[Op], is_int8: Sequence[bool]) -> Graph:
    """The graph of those ops, with a conversion of each tensor before the first node that needs it in other numbers."""
    builder = GraphBuilder(*graph.inputs, dtypes=graph.input_dtypes)
    names = {node.name for node in graph.nodes}
    tensors = list(range(len(graph.inputs)))
    converted: dict[int, int] = {}

    def taken(tensor: int, narrow: bool, scope: str) -> int:
        """The tensor's values in int8 or float32."""
        maker = graph.producers[tensor]
        if graph.dtypes[tensor] != DType.FLOAT32 or (maker >= 0 and is_int8[maker]) is narrow:
            return tensors[tensor]
        if tensor not in converted:
            op = Quantize() if narrow else Dequantize()
            name = _new_name(f"{_tensor_name(graph, tensor)}_{op.dtype}", names)
            converted[tensor] = builder.add(name, op, tensors[tensor], scope=scope)
        return converted[tensor]

    for node, op, narrow, results in zip(graph.nodes, ops, is_int8, graph.results, strict=True):
        first = builder.add(node.name, op, *[taken(t, narrow, node.scope) for t in node.inputs], scope=node.scope)
        tensors += range(first, first + len(results))
    last = [graph.nodes[graph.producers[t]].scope if graph.producers[t] >= 0 else "" for t in graph.outputs]
    outputs = [taken(t, False, scope) for t, scope in zip(graph.outputs, last, strict=True)]
    return builder.build(*outputs)


def _tensor_name(graph: Graph, tensor: int) -> str:
    maker = graph.producers[tensor]
    if maker < 0:
        return f"input_{tensor}"
    results = graph.results[maker]
    number = f"_{tensor - results.start}" if len(results) > 1 else ""
    return f"{graph.nodes[maker].name}{number}"


def _new_name(wanted: str, taken: set[str]) -> str:
    while wanted in taken:
        wanted += "_"
    taken.add(wanted)
    return wanted


def _in_precision(op: Op, precision: Precision) -> Op:
    if precision is Precision.INT8:
        return _with_weights(op, DType.INT8)
    return _with_weights(op, _WEIGHTS[precision]) if precision in _WEIGHTS and isinstance(op, _WEIGHT_ONLY) else op


def _with_weights(op: Op, dtype: DType) -> Op:
    """The op with its stored real values in that dtype."""
    if isinstance(op, _WEIGHTED):
        return dataclasses.replace(op, weights=dtype)
    is_real = isinstance(op, Constant) and op.dtype in _REAL
    return dataclasses.replace(op, dtype=dtype) if is_real else op  # type: ignore[call-arg]  # a Constant


def _node_dtypes(graph: Graph) -> list[tuple[DType, ...]]:
    """The dtypes of each node's inputs and results."""
    pairs: list[tuple[Node, range]] = list(zip(graph.nodes, graph.results, strict=True))
    return [tuple(graph.dtypes[t] for t in (*node.inputs, *results)) for node, results in pairs]


def _narrowed(dtype: DType) -> DType:
    return DType.INT8 if dtype == DType.FLOAT32 else dtype


def _widened(dtype: DType) -> DType:
    return DType.FLOAT32 if dtype == DType.INT8 else dtype
