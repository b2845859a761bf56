"""Ops and graphs: shapes and costs in closed form, identity by content, cutting, and refusals."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netlathe.archspace.blocks import ConvBlock, LinearHead, MBConv
from netlathe.archspace.errors import GraphError
from netlathe.archspace.graph import Graph, GraphBuilder, Node, chain
from netlathe.archspace.ops import (
    OPS,
    Activation,
    ActivationKind,
    Add,
    Concat,
    Conv2d,
    FullyConnected,
    GlobalAvgPool,
    Mul,
    Op,
    Pad,
    Padding,
    Pool2d,
    Reshape,
    Shape,
    Softmax,
    Zeros,
    same_padding,
)

X = (2, 7, 9, 6)


@pytest.mark.parametrize(
    ("op", "inputs", "shape", "macs", "parameters"),
    [
        (Conv2d(8, (3, 3), (2, 2)), [X], (2, 4, 5, 8), 2 * 4 * 5 * 8 * 9 * 6, 8 * 9 * 6 + 16),
        (Conv2d(8, (3, 1), padding=Padding.VALID), [X], (2, 5, 9, 8), 2 * 5 * 9 * 8 * 3 * 6, 8 * 3 * 6 + 16),
        (Conv2d(6, (5, 5), groups=6), [X], (2, 7, 9, 6), 2 * 7 * 9 * 6 * 25, 6 * 25 + 12),
        (Conv2d(4, groups=2, batch_norm=False), [X], (2, 7, 9, 4), 2 * 7 * 9 * 4 * 3, 4 * 3 + 4),
        (FullyConnected(5), [(2, 6)], (2, 5), 60, 35),
        (Pool2d("max", (3, 3), (2, 2)), [X], (2, 4, 5, 6), 0, 0),
        (Pool2d("avg", (2, 2), (2, 2), Padding.VALID), [X], (2, 3, 4, 6), 0, 0),
        (GlobalAvgPool(), [X], (2, 6), 0, 0),
        (GlobalAvgPool(keep_dims=True), [X], (2, 1, 1, 6), 0, 0),
        (Pad((1, 2), (0, 3)), [X], (2, 10, 12, 6), 0, 0),
        (Activation(ActivationKind.SWISH), [X], X, 0, 0),
        (Add(), [X, X], X, 0, 0),
        (Mul(), [X, (2, 1, 1, 6)], X, 0, 0),
        (Concat(), [X, (2, 7, 9, 4)], (2, 7, 9, 10), 0, 0),
        (Softmax(), [(2, 6)], (2, 6), 0, 0),
        (Reshape((3, 21, 6)), [X], (2, 3, 21, 6), 0, 0),
        (Zeros((4, 4, 3)), [X], (2, 4, 4, 3), 0, 0),
    ],
)
def test_shapes_and_costs_in_closed_form(op: Op, inputs: list[Shape], shape: Shape, macs: int, parameters: int) -> None:
    assert op.output_shape(*inputs) == shape
    assert op.macs(*inputs) == macs
    assert op.parameters(*inputs) == parameters


def test_every_op_is_covered_above_and_known_by_its_kind() -> None:
    assert len(OPS) == 12
    assert all(OPS[kind].kind == kind for kind in OPS)


@given(st.integers(1, 300), st.integers(1, 11), st.integers(1, 4))
def test_same_padding_gives_ceil_of_size_over_stride(size: int, kernel: int, stride: int) -> None:
    before, after = same_padding(size, kernel, stride)
    assert 0 <= before <= after <= before + 1
    padded = size + before + after
    assert max(padded - kernel, 0) // stride + 1 == math.ceil(size / stride)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "expected"), [(224, 3, 2, (0, 1)), (7, 3, 2, (1, 1)), (8, 5, 1, (2, 2))]
)
def test_same_padding_puts_the_odd_pixel_after(size: int, kernel: int, stride: int, expected: tuple[int, int]) -> None:
    assert same_padding(size, kernel, stride) == expected


def test_bytes_count_each_input_constant_and_result_once() -> None:
    graph = ConvBlock(3, 8, 4, 4, kernel=1, activation=None).graph()
    (cost,) = graph.costs()
    assert cost.bytes_read == 4 * (4 * 4 * 3 + 3 * 8 + 8)
    assert cost.bytes_written == 4 * 4 * 4 * 8
    assert graph.bytes_read(itemsize=1) == cost.bytes_read // 4
    assert graph.bytes_written() == cost.bytes_written


def test_equal_computations_have_equal_keys_whatever_the_nodes_are_called() -> None:
    block = MBConv(8, 8, 4, 4)
    renamed = chain([("b07", block.graph())])
    assert renamed != block.graph()
    assert renamed.key == block.graph().key
    assert MBConv(8, 8, 4, 4, kernel=5).graph().key != block.graph().key


def test_json_gives_the_graph_back() -> None:
    for block in (MBConv(8, 8, 5, 4, se=0.25), ConvBlock(3, 8, 9, 9, 2, padding="symmetric"), LinearHead(8, 3, 2, 2)):
        graph = block.graph(3)
        assert Graph.from_json(json.loads(json.dumps(graph.to_json()))) == graph


def test_a_chain_cuts_back_into_its_segments() -> None:
    parts = [ConvBlock(3, 8, 8, 8).graph(), MBConv(8, 8, 8, 8).graph(), LinearHead(8, 3, 8, 8).graph()]
    network = chain((f"b{i}", part) for i, part in enumerate(parts))
    assert network.is_network
    assert [s.key for s in network.segments()] == [p.key for p in parts]
    assert network.macs == sum(p.macs for p in parts)


def test_a_graph_without_scopes_is_one_segment() -> None:
    graph = MBConv(8, 16, 8, 8).graph()
    assert not graph.is_network
    assert [s.key for s in graph.segments()] == [graph.key]


def test_scoping_a_foreign_graph_cuts_at_single_tensors_and_keeps_activations_with_their_op() -> None:
    builder = GraphBuilder((1, 8, 8, 4))
    a = builder.add("conv0", Conv2d(4), 0)
    b = builder.add("relu0", Activation(ActivationKind.RELU), a)
    c = builder.add("conv1", Conv2d(4), b)
    builder.add("sum", Add(), b, c)
    segments = builder.build().scoped().segments()
    assert [[n.op.kind for n in s.nodes] for s in segments] == [["conv", "activation"], ["conv", "add"]]


def test_a_subgraph_takes_what_comes_from_outside_as_inputs() -> None:
    graph = MBConv(8, 8, 4, 4, expand=2).graph()
    part = graph.subgraph(len(graph.nodes) - 1, len(graph.nodes))  # the residual sum
    assert part.inputs == ((1, 4, 4, 8), (1, 4, 4, 8))
    with pytest.raises(GraphError, match="2 inputs where one is expected"):
        _ = part.input_shape


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Conv2d(0), "out_channels must be a positive integer, got 0"),
        (lambda: Conv2d(8, (3, 0)), r"kernel must be a positive integer, got \(3, 0\)"),
        (lambda: Conv2d(8, groups=4).output_shape(X), "4 groups divide neither 6 -> 8"),
        (lambda: Conv2d(8, (9, 9), padding=Padding.VALID).output_shape(X), "kernel 9 is larger than its input of 7"),
        (lambda: Conv2d(8).output_shape((2, 6)), r"rank 4, got shape \(2, 6\)"),
        (lambda: FullyConnected(3).output_shape(X), "rank 2"),
        (lambda: Pool2d("mean", (2, 2)), "mode must be 'avg' or 'max', got 'mean'"),
        (lambda: Pad((0, -1), (0, 0)), "must not be negative"),
        (lambda: Add().output_shape(X, (2, 7, 8, 6)), "do not match"),
        (lambda: Concat().output_shape(X, (2, 7, 8, 6)), "differ in more than their channels"),
        (lambda: Reshape((5,)).output_shape(X), "does not hold as many values"),
        (lambda: Graph((), ()), "needs input shapes"),
        (lambda: Graph(((1, 0, 4, 3),), ()), "needs input shapes"),
        (lambda: Graph((X,), (Node("a", Softmax(), (1,)),)), "inputs .* that do not exist"),
        (lambda: Graph((X,), (Node("a", Add(), (0,)),)), "inputs .* that do not exist"),
        (lambda: Graph((X,), (Node("a", Softmax(), (0,)), Node("a", Softmax(), (1,)))), "two nodes are called 'a'"),
        (lambda: Graph((X,), (Node("a", Softmax(), (0,)), Node("b", Softmax(), (0,)))), "never used"),
        (lambda: GraphBuilder(X).inline("s", ConvBlock(3, 8, 4, 4).graph(), 0), "s: takes .* is given"),
    ],
)
def test_what_does_not_fit_is_refused(make, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        make()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("nodes"), "not a graph"),
        (lambda d: d["nodes"][0].update(op="warp"), "unknown op 'warp'; known: conv"),
        (lambda d: d["nodes"][0].update(extra=1), "unexpected keyword"),
        (lambda d: d["nodes"][0].update(padding="full"), "full"),
        (lambda d: d["nodes"][0].pop("inputs"), "not a graph"),
        (lambda d: d.update(inputs=3), "not a graph"),
    ],
)
def test_json_that_is_no_graph_is_refused(change, message: str) -> None:
    data = ConvBlock(3, 8, 4, 4).graph().to_json()
    change(data)
    with pytest.raises(GraphError, match=message):
        Graph.from_json(data)
