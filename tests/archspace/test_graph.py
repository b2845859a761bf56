"""Ops and graphs: shapes and costs in closed form, identity by content, cutting, and refusals."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netlathe.archspace.blocks import ConvBlock, LinearHead, MBConv, Zero
from netlathe.archspace.errors import GraphError
from netlathe.archspace.graph import Graph, GraphBuilder, Node, chain
from netlathe.archspace.networks import network
from netlathe.archspace.ops import (
    Activation,
    ActivationKind,
    Add,
    Cast,
    Clip,
    Concat,
    Constant,
    Conv2d,
    DepthToSpace,
    DType,
    FullyConnected,
    Gather,
    GroupNorm,
    LayerNorm,
    LocalResponseNorm,
    MatMul,
    Opaque,
    Pad,
    Padding,
    Pool2d,
    Reduce,
    ReduceKind,
    Reshape,
    Slice,
    Softmax,
    SpaceToDepth,
    Split,
    Tile,
    Transpose,
    register,
    same_padding,
)

X = (2, 7, 9, 6)


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
        (lambda: FullyConnected(3).output_shape((6,)), "takes a batch of features"),
        (lambda: Pool2d("mean", (2, 2)), "mode must be 'avg' or 'max', got 'mean'"),
        (lambda: Pad((0, -1), (0, 0)), "must not be negative"),
        (lambda: Add().output_shape(X, (2, 7, 8, 6)), "do not match"),
        (lambda: Concat().output_shape(X, (2, 7, 8, 6)), "differ in more than axis 3"),
        (lambda: Reshape((5,)).output_shape(X), "does not hold as many values"),
        (lambda: Reshape((5,), whole=True).output_shape(X), "does not hold as many values"),
        (lambda: Slice((0, 1), (2, 2, 2)), "must name the same axes"),
        (lambda: Slice((0,), (4,), (0,)), "steps must be integers other than 0"),
        (lambda: Slice((0, 0, 0, 3), (2, 7, 9, 4)).output_shape(X), "from 3 to 6 is more than axis 3"),
        (lambda: Slice((0, 1, 0, 0), (2, 3, 9, 6), (1, -1, 1, 1)).output_shape(X), "from 1 to -1 is more than axis 1"),
        (lambda: Transpose((0, 0)), "must name each axis once"),
        (lambda: Transpose((0, 1)).output_shape(X), "rank 2"),
        (lambda: Tile((0, 1)), "multiples must be positive integers"),
        (lambda: Gather(4).output_shape(X, (1,)), "there is no axis 4"),
        (lambda: Gather().output_dtypes((DType.FLOAT32, DType.FLOAT32), 1), "indices must be int32 or int64"),
        (lambda: DepthToSpace(4).output_shape(X), "blocks of 4 do not divide the 6 channels"),
        (lambda: SpaceToDepth(2).output_shape(X), "blocks of 2 do not divide the image"),
        (lambda: MatMul().output_shape((2, 3), (4, 5)), "3 columns meet 4 rows"),
        (lambda: MatMul().output_shape((3,), (3, 5)), "multiplies matrices"),
        (lambda: MatMul().output_shape((2, 4, 3), (5, 3, 4)), "do not match"),
        (lambda: Reduce(ReduceKind.MEAN, ()), "a list of at least one"),
        (lambda: Reduce(ReduceKind.MEAN, (1, -3)).output_shape(X), "name one of .* twice"),
        (lambda: GroupNorm(4).output_shape(X), "4 groups do not divide the channels"),
        (lambda: LayerNorm(5).output_shape(X), "there is no axis -5"),
        (lambda: LayerNorm(epsilon=-1.0), "epsilon must be 0 or more"),
        (lambda: LocalResponseNorm(3, alpha=float("nan")), "must be numbers"),
        (lambda: Clip(), "at least one of its limits"),
        (lambda: Clip(float("inf")), "limits must be finite"),
        (lambda: Activation(ActivationKind.RELU, 0.2), "relu has no slope of its own"),
        (lambda: Activation(ActivationKind.HARD_SIGMOID, -1.0), "slope must be a positive number"),
        (lambda: Cast("text"), "dtype must be one of"),
        (lambda: Pool2d("max", (2, 2), borders=((1, 1), (0, 0))), "only VALID leaves the borders"),
        (lambda: Pool2d("max", (2, 2), (1, 1), Padding.VALID, ((2, 0), (0, 0))), "smaller than the kernel"),
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
        (lambda d: d["nodes"][0].update(op="warp"), "unknown op 'warp'; known: .*conv"),
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


@pytest.mark.parametrize(
    ("graph", "key"),
    [
        (MBConv(8, 8, 7, 7, 1, 5, 3, se=0.25).graph(2), "d87a0766e468c72e0fb6a6f35c5d47ee"),
        (ConvBlock(3, 8, 8, 8, 2, padding="symmetric").graph(2), "c6ac488a23d06aa16076ece67edf36aa"),
        (LinearHead(8, 3, 2, 2).graph(2), "3b7bb5fc2f630b477209b06567ccde34"),
        (Zero(4, 6, 7, 8, 2).graph(2), "9b21451c664ed9308e0653188eac6190"),
        (network("mobilenet_v2").graph(), "bfebdebee791583241934273a491c36d"),
    ],
)
def test_keys_that_stored_records_go_by_stay(graph: Graph, key: str) -> None:
    assert graph.key == key


def test_a_field_that_an_op_has_got_later_is_in_no_json_at_its_default() -> None:
    assert Constant((3,)).to_json() == {"op": "constant", "shape": (3,)}
    assert Constant((3,), DType.INT8).to_json() == {"op": "constant", "shape": (3,), "dtype": "int8"}


def test_a_block_and_the_network_of_it_have_one_key_and_two_identities() -> None:
    block = MBConv(8, 8, 4, 4).graph()
    network_of_one, network_of_two = chain([("b00", block)]), chain([("b00", block), ("b01", block)])
    assert network_of_one.key == block.key == block.identity
    assert network_of_one.identity != block.identity
    assert chain([("b07", block)]).identity == network_of_one.identity  # whatever the block is called
    assert network_of_two.identity == network_of_two.key  # no block of a space is that


def split_graph() -> Graph:
    builder = GraphBuilder(X)
    first = builder.add("split", Split((2, 4)), 0)
    left = builder.add("left", Conv2d(4, batch_norm=False), first)
    right = builder.add("right", Activation(ActivationKind.RELU), first + 1)
    return builder.build(right, left)


def test_a_graph_with_several_results_and_outputs_knows_its_tensors() -> None:
    graph = split_graph()
    assert graph.shapes == (X, (2, 7, 9, 2), (2, 7, 9, 4), (2, 7, 9, 4), (2, 7, 9, 4))
    assert graph.results == (range(1, 3), range(3, 4), range(4, 5))
    assert graph.producers == (-1, 0, 0, 1, 2)
    assert graph.outputs == (4, 3)
    assert graph.batch == 2
    assert Graph.from_json(json.loads(json.dumps(graph.to_json()))) == graph
    assert dataclasses.replace(graph, outputs=(3, 4)).key != graph.key


def test_the_default_output_is_the_last_tensor_and_not_in_the_json() -> None:
    graph = ConvBlock(3, 8, 4, 4).graph()
    assert graph.outputs == (len(graph.shapes) - 1,)
    assert graph.to_json().keys() == {"inputs", "nodes"}
    assert dataclasses.replace(graph, outputs=graph.outputs).key == graph.key


def test_a_subgraph_gives_what_is_needed_outside() -> None:
    graph = split_graph()
    parts = graph.subgraph(0, 1), graph.subgraph(1, 3)
    assert parts[0].outputs == (1, 2)
    assert parts[1].inputs == ((2, 7, 9, 2), (2, 7, 9, 4))
    assert parts[1].outputs == (2, 3)


def test_networks_are_cut_where_one_of_several_results_crosses() -> None:
    builder = GraphBuilder(X)
    first = builder.add("a/split", Split((2, 4)), 0, scope="a")
    builder.add("b/relu", Activation(ActivationKind.RELU), first + 1, scope="b")
    segments = builder.build().segments()
    assert [[n.op.kind for n in s.nodes] for s in segments] == [["split"], ["activation"]]
    assert segments[0].outputs == (2,)


def test_bytes_follow_each_tensors_dtype() -> None:
    builder = GraphBuilder((1, 10), (1, 10), dtypes=(DType.INT8, DType.INT8))
    builder.add("sum", Add(), 0, 1)
    graph = builder.build()
    assert graph.dtypes == (DType.INT8,) * 3
    assert (graph.bytes_read(), graph.bytes_written()) == (20, 10)
    assert graph.peak_activation_bytes() == 30
    again = Graph.from_json(json.loads(json.dumps(graph.to_json())))
    assert again == graph
    assert dataclasses.replace(graph, input_dtypes=()).key != graph.key
    assert dataclasses.replace(graph, input_dtypes=("float32", "float32")).input_dtypes == ()


def test_an_opaque_op_counts_bytes_and_no_macs_and_lowers_the_share_that_is_known() -> None:
    builder = GraphBuilder((1, 4, 4, 8))
    conv = builder.add("conv", Conv2d(8, batch_norm=False), 0)
    ids = builder.add("lookup", Opaque("Lookup", ((1, 4, 4, 8), (1, 3)), (DType.INT8, DType.INT64), 4 * 64), conv)
    graph = builder.build(ids, ids + 1)
    assert [node.op.name for node in graph.opaque_nodes] == ["Lookup"]
    assert graph.macs == 4 * 4 * 64
    assert graph.known_macs_share == 0.5  # its 64 weights at each of 16 pixels are as many
    cost = graph.costs()[1]
    assert (cost.macs, cost.bytes_read, cost.bytes_written) == (0, 4 * 128 + 256, 128 + 24)
    assert Graph.from_json(json.loads(json.dumps(graph.to_json()))) == graph
    assert ConvBlock(3, 8, 4, 4).graph().known_macs_share == 1


def test_a_slash_in_a_name_is_no_scope_unless_the_json_of_old_says_nothing_else() -> None:
    graph = Graph((X,), (Node("layer1/0/conv", Softmax(), (0,)),))
    assert not graph.is_network
    assert Graph.from_json(graph.to_json()) == graph
    old = {"inputs": [list(X)], "nodes": [{"name": "b03/expand", "op": "softmax", "inputs": [0]}]}
    assert Graph.from_json(old).nodes[0].scope == "b03"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: dataclasses.replace(split_graph(), outputs=(3, 3)), "outputs must be different ones"),
        (lambda: dataclasses.replace(split_graph(), outputs=(3, 5)), "outputs must be different ones"),
        (lambda: dataclasses.replace(split_graph(), outputs=(3,)), r"tensors \[4\] are computed but never used"),
        (lambda: dataclasses.replace(split_graph(), input_dtypes=("int4",)), "dtypes must be of float32, "),
        (lambda: dataclasses.replace(split_graph(), input_dtypes=("int8", "int8")), "2 dtypes are given for 1 inputs"),
        (lambda: Graph((X, X), (Node("s", Add(), (0, 1)),), (), ("int8", "float32")), "node 's': add takes .* of one"),
        (lambda: Split((2, 0)), "sizes must be positive integers"),
        (lambda: Split((6,), axis="last"), "axis must be an integer"),
        (lambda: Split((2, 3)).output_shapes(X), "do not add up to 6"),
        (lambda: Split((2,), axis=4).output_shapes(X), "there is no axis 4"),
        (lambda: Concat().output_shapes(), "concat joins one tensor or more"),
        (lambda: Constant((0,)), "constant: its shape"),
        (lambda: Constant((1,), "int4"), "dtype must be one of"),
        (lambda: Opaque("", ((1,),)), "operation must be a name"),
        (lambda: Opaque("x", ()), "must name at least one result"),
        (lambda: Opaque("x", ((1,),), ("int8", "int8")), "2 dtypes for 1 results"),
        (lambda: Opaque("x", ((1,),), weight_bytes=-1), "weight_bytes must be 0 or more"),
        (lambda: register(type("Again", (Softmax,), {})), "two ops are of the kind 'softmax'"),
    ],
)
def test_results_outputs_and_dtypes_that_do_not_fit_are_refused(make, message: str) -> None:
    with pytest.raises((GraphError, ValueError), match=message):
        make()
