"""Graphs of several precisions: conversions where they change, dtypes inside, and the float32 graph back."""

from __future__ import annotations

import json

import pytest

from netlathe.archspace.blocks import ConvBlock, LinearHead, MBConv
from netlathe.archspace.errors import GraphError
from netlathe.archspace.graph import Graph, GraphBuilder, chain
from netlathe.archspace.ops import Activation, ActivationKind, Add, Constant, Conv2d, Dequantize, DType, Quantize
from netlathe.archspace.precisions import Precision, has_borders, is_mixed, mixed, precisions_of, unmixed

NETWORK = chain(
    [
        ("b00", ConvBlock(3, 6, 12, 12, 2).graph()),
        ("b01", MBConv(6, 6, 6, 6, se=0.25, activation=ActivationKind.HARD_SWISH).graph()),
        ("b02", MBConv(6, 8, 6, 6, 2, padding="symmetric").graph()),
        ("head", LinearHead(8, 10, 3, 3).graph()),
    ]
)


def plan(**scopes: str) -> dict[str, str]:
    return {node.name: scopes[node.scope] for node in NETWORK.nodes if node.scope in scopes}


def kinds(graph: Graph) -> list[str]:
    return [node.op.kind for node in graph.nodes]


def residual() -> Graph:
    """A convolution beside its input, summed."""
    builder = GraphBuilder((1, 4, 4, 8))
    first = builder.add("first", Conv2d(8), 0)
    second = builder.add("second", Conv2d(8), first)
    return builder.build(builder.add("sum", Add(), first, second))


def test_a_block_in_int8_stands_between_one_conversion_and_another() -> None:
    graph = mixed(NETWORK, plan(b01="int8"))
    added = [
        (node.name, type(node.op), node.scope) for node in graph.nodes if isinstance(node.op, Quantize | Dequantize)
    ]
    last = [node.name for node in NETWORK.nodes if node.scope == "b01"][-1]
    before = [node.name for node in NETWORK.nodes if node.scope == "b00"][-1]
    assert added == [(f"{before}_int8", Quantize, "b01"), (f"{last}_float32", Dequantize, "b02")]
    assert graph.input_dtypes == ()
    assert [graph.dtypes[t] for t in graph.outputs] == [DType.FLOAT32]
    assert graph.output_shapes == NETWORK.output_shapes
    assert precisions_of(graph) == {
        node.name: Precision.INT8 if node.scope == "b01" else Precision.FLOAT32 for node in NETWORK.nodes
    }
    assert {node.op.weights for node in graph.nodes if isinstance(node.op, Conv2d) and node.scope == "b01"} == {"int8"}


def test_outputs_are_float32_again() -> None:
    graph = mixed(NETWORK, plan(head="int8"))
    assert graph.nodes[-1].op == Dequantize()
    assert [graph.dtypes[t] for t in graph.outputs] == [DType.FLOAT32]


def test_a_tensor_that_two_need_is_converted_once() -> None:
    graph = mixed(residual(), {"second": "int8", "sum": "int8"})
    assert kinds(graph) == ["conv", "quantize", "conv", "add", "dequantize"]
    assert graph.nodes[2].inputs == graph.nodes[3].inputs[:1]


def test_a_sum_in_float32_takes_both_sides_as_such() -> None:
    graph = mixed(residual(), {"second": "int8"})
    assert kinds(graph) == ["conv", "quantize", "conv", "dequantize", "add"]
    first, back = graph.nodes[-1].inputs
    assert (graph.producers[first], graph.producers[back]) == (0, 3)


def test_a_network_in_int8_throughout_converts_nothing() -> None:
    graph = mixed(NETWORK, {node.name: "int8" for node in NETWORK.nodes})
    assert graph.input_dtypes == (DType.INT8,)
    assert {*graph.dtypes} == {DType.INT8}
    assert not has_borders(graph)


def test_a_network_in_float32_throughout_is_the_graph_itself() -> None:
    assert mixed(NETWORK, {}) is NETWORK
    assert not is_mixed(NETWORK)


def test_weights_in_int8_change_no_value() -> None:
    graph = mixed(NETWORK, {node.name: "int8-weights" for node in NETWORK.nodes})
    assert kinds(graph) == kinds(NETWORK)
    assert {*graph.dtypes} == {DType.FLOAT32}
    layers = {node.name for node in NETWORK.nodes if node.op.kind in ("conv", "fully_connected")}
    assert {name for name, precision in precisions_of(graph).items() if precision == "int8-weights"} == layers


def test_stored_values_are_narrow_with_what_takes_them() -> None:
    builder = GraphBuilder((1, 4))
    stored = builder.add("stored", Constant((1, 4)))
    sum_ = builder.add("sum", Add(), 0, stored)
    graph = builder.build(builder.add("act", Activation(ActivationKind.SIGMOID), sum_))
    found = mixed(graph, {"stored": "int8", "sum": "int8"})
    assert kinds(found) == ["constant", "quantize", "add", "dequantize", "activation"]
    assert found.nodes[0].op == Constant((1, 4), DType.INT8)
    assert unmixed(found) == graph


@pytest.mark.parametrize(
    "wanted", [plan(b01="int8"), plan(b00="int8", b02="int8-weights", head="int8"), plan(b01="int8-weights")]
)
def test_the_float32_graph_comes_back(wanted: dict[str, str]) -> None:
    graph = mixed(NETWORK, wanted)
    assert unmixed(graph) == NETWORK
    assert Graph.from_json(json.loads(json.dumps(graph.to_json()))) == graph
    assert is_mixed(graph)


def test_what_cannot_be_is_refused_by_name() -> None:
    with pytest.raises(GraphError, match="no node 'b09/conv', which is to be 'int8'"):
        mixed(NETWORK, {"b09/conv": "int8"})
    with pytest.raises(GraphError, match=r"node 'b00/conv': the precision must be one of float32, .*got 'int7'"):
        mixed(NETWORK, {"b00/conv": "int7"})
    with pytest.raises(GraphError, match=r"node 'b00/conv': int4 is not written: LiteRT 2.3 refuses .*; take float32"):
        mixed(NETWORK, {"b00/conv": "int4"})
    with pytest.raises(
        GraphError, match=r"'b00/conv' applies 'b00/\w+' itself: both must have one precision, got int8"
    ):
        mixed(NETWORK, {"b00/conv": "int8"})
    with pytest.raises(GraphError, match="integers for real values already"):
        mixed(mixed(NETWORK, plan(b01="int8")), plan(b02="int8"))
