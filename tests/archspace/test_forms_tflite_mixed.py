"""Mixed .tflite files: parts in int8 between float32 ones compute nearly the same, and are what was asked for."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from ai_edge_litert.interpreter import OpResolverType
from test_forms_tflite_int8 import (
    BLOCKS,
    GRAPHS,
    LEAST_DB,
    NETWORK,
    XNNPACK,
    decibels,
    run,
    sigmoid_joined_with,
    unseen_inputs,
)

from netlathe.archspace.errors import FormatError
from netlathe.archspace.forms.tflite import write_tflite
from netlathe.archspace.forms.tflite_audit import audit_tflite
from netlathe.archspace.forms.tflite_file import pack, unpack
from netlathe.archspace.forms.tflite_reader import read_precision, read_tflite
from netlathe.archspace.forms.weights import random_weights
from netlathe.archspace.graph import Graph, GraphBuilder
from netlathe.archspace.networks import network
from netlathe.archspace.ops import (
    Activation,
    ActivationKind,
    Add,
    ArgMax,
    Concat,
    Conv2d,
    DType,
    GroupNorm,
    PReLU,
    Softmax,
    TransposeConv2d,
    Unary,
    UnaryKind,
)
from netlathe.archspace.precisions import has_borders, mixed

BUILTIN = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
FIXED = [Activation(ActivationKind.SIGMOID), Softmax(), Unary(UnaryKind.TANH)]


def between(graph: Graph) -> tuple[Graph, dict[str, str]]:
    """The graph in int8 between functions in float32 that keep its values as they are."""
    builder = GraphBuilder(*graph.inputs)
    tensors = [builder.add(f"before_{n}", PReLU((1,)), n) for n in range(len(graph.inputs))]
    for node, results in zip(graph.nodes, graph.results, strict=True):
        first = builder.add(f"in/{node.name}", node.op, *[tensors[t] for t in node.inputs])
        tensors += range(first, first + len(results))
    (output,) = graph.outputs
    whole = builder.build(builder.add("after", PReLU((1,)), tensors[output]))
    return whole, {node.name: "int8" for node in whole.nodes if node.name.startswith("in/")}


def all_in(graph: Graph, precision: str) -> dict[str, str]:
    return {node.name: precision for node in graph.nodes}


def of_scopes(graph: Graph, *scopes: str) -> dict[str, str]:
    return {node.name: "int8" for node in graph.nodes if node.scope in scopes}


@pytest.mark.parametrize(
    "graph",
    [
        *(pytest.param(block.graph(2), id=block.name) for block in BLOCKS if block.graph(2).nodes),
        *(pytest.param(graph, id=name) for name, graph in GRAPHS.items()),
    ],
)
def test_each_op_in_int8_stands_between_float32_ones(graph: Graph) -> None:
    """The contract of all ops that have an int8 form."""
    whole, precisions = between(graph)
    content = write_tflite(whole, precisions=precisions)
    inputs = unseen_inputs(whole)
    expected = run(write_tflite(whole), inputs)
    for kernels in (XNNPACK, BUILTIN):
        assert decibels(expected, run(content, inputs, kernels)) > LEAST_DB
    ops = audit_tflite(content)
    assert {op.precision for op in ops if op.name.startswith("in/") and not op.converts} <= {"int8"}
    assert {op.precision for op in ops if not op.name.startswith("in/") and not op.converts} == {"float32"}
    assert read_tflite(content) == mixed(whole, precisions)
    assert len(unpack(content).operators) == len(unpack(write_tflite(whole)).operators) + sum(op.converts for op in ops)


def test_the_integers_are_those_of_the_int8_file() -> None:
    precisions = of_scopes(NETWORK, "b01", "b02")
    part = {t.name: t for t in unpack(write_tflite(NETWORK, precisions=precisions)).tensors}
    whole = {t.name: t for t in unpack(write_tflite(NETWORK, dtype="int8")).tensors}
    plain = {t.name: t for t in unpack(write_tflite(NETWORK)).tensors}
    inside = [name for name in part if name.startswith(("b01/", "b02/"))]
    assert len(inside) > 20
    for name in inside:
        of = whole if name in whole else part
        assert (part[name].dtype, part[name].quantization) == (of[name].dtype, of[name].quantization), name
        assert part[name].data is None or np.array_equal(part[name].data, of[name].data), name
    for name in ("b00/conv.weight", "head/linear.weight"):
        assert np.array_equal(part[name].data, plain[name].data)


def test_plans_of_one_precision_are_the_plain_files() -> None:
    assert write_tflite(NETWORK, precisions={}) == write_tflite(NETWORK)
    assert write_tflite(NETWORK, precisions=all_in(NETWORK, "float32")) == write_tflite(NETWORK)
    assert write_tflite(NETWORK, precisions=all_in(NETWORK, "int8")) == write_tflite(NETWORK, dtype="int8")


def test_a_mixed_graph_is_written_as_its_plan_is() -> None:
    precisions = of_scopes(NETWORK, "b01")
    content = write_tflite(mixed(NETWORK, precisions))
    assert content == write_tflite(NETWORK, precisions=precisions)
    assert read_precision(content) == "float32"
    model = unpack(content)
    assert [model.tensors[t].dtype for t in (*model.inputs, *model.outputs)] == ["FLOAT32", "FLOAT32"]


def test_a_part_in_int8_errs_less_than_the_whole() -> None:
    graph = network("mobilenet_v2_0.5_96").graph()
    inputs = unseen_inputs(graph)
    expected = run(write_tflite(graph), inputs)
    part = run(write_tflite(graph, precisions=of_scopes(graph, "b05", "b06", "b12")), inputs)
    assert decibels(expected, run(write_tflite(graph, dtype="int8"), inputs)) < decibels(expected, part) < 100


def residual(*, sum_in_int8: bool) -> tuple[Graph, dict[str, str]]:
    builder = GraphBuilder((1, 6, 6, 8))
    first = builder.add("first", Conv2d(8, (3, 3)), 0)
    second = builder.add("second", Conv2d(8, (3, 3)), first)
    graph = builder.build(builder.add("sum", Add(), first, second))
    return graph, {"second": "int8", **({"sum": "int8"} if sum_in_int8 else {})}


@pytest.mark.parametrize("sum_in_int8", [False, True])
def test_a_residual_crosses_the_border(sum_in_int8: bool) -> None:
    graph, precisions = residual(sum_in_int8=sum_in_int8)
    content, inputs = write_tflite(graph, precisions=precisions), unseen_inputs(graph)
    assert decibels(run(write_tflite(graph), inputs), run(content, inputs)) > LEAST_DB
    found = [(op.kind, op.precision) for op in audit_tflite(content)]
    sums, back = ("ADD", "int8" if sum_in_int8 else "float32"), ("DEQUANTIZE", "int8 to float32")
    ends = [sums, back] if sum_in_int8 else [back, sums]
    assert found == [("CONV_2D", "float32"), ("QUANTIZE", "float32 to int8"), ("CONV_2D", "int8"), *ends]


@pytest.mark.parametrize("op", FIXED, ids=lambda op: op.name)
@pytest.mark.parametrize("join_in_int8", [False, True])
def test_parts_of_two_precisions_are_joined(op, join_in_int8: bool) -> None:
    """In int8 the scale of the joined values is that of both; in float32 a function of fixed scale may be one."""
    builder = GraphBuilder((1, 6, 6, 8))
    left = builder.add("left", Conv2d(4), 0)
    right = builder.add("right", Conv2d(4) if join_in_int8 else op, 0)
    graph = builder.build(builder.add("join", Concat(), left, right))
    precisions = {"right": "int8", **({"join": "int8"} if join_in_int8 else {})}
    content, inputs = write_tflite(graph, precisions=precisions), unseen_inputs(graph)
    assert decibels(run(write_tflite(graph), inputs), run(content, inputs)) > LEAST_DB
    by_name = {op.name: op.precision for op in audit_tflite(content)}
    joined = "int8" if join_in_int8 else "float32"
    assert (by_name["left"], by_name["right"], by_name["join"]) == ("float32", "int8", joined)
    if not join_in_int8:
        right_tensor = next(t for t in unpack(content).tensors if t.name == "right")
        assert right_tensor.quantization.scales[0] in (1 / 256, 1 / 128)


def test_what_has_no_int8_form_is_refused_by_name_in_int8_alone() -> None:
    builder = GraphBuilder((1, 6, 6, 8))
    x = builder.add("conv", Conv2d(8), 0)
    graph = builder.build(builder.add("norm", GroupNorm(4), x))
    assert [op.precision for op in audit_tflite(write_tflite(graph, precisions={"conv": "int8"}))][1] == "int8"
    with pytest.raises(FormatError, match=r"node 'norm\.\w+': the op \w+ has no int8 form"):
        write_tflite(graph, precisions={"norm": "int8"})
    joined = sigmoid_joined_with(Conv2d(3))
    with pytest.raises(FormatError, match="'join': the op CONCATENATION has no int8 form where it joins a softmax or"):
        write_tflite(joined, precisions={**all_in(joined, "int8"), "second": "float32"})


def test_indices_stay_integers() -> None:
    builder = GraphBuilder((1, 6, 6, 8))
    x = builder.add("conv", Conv2d(8), 0)
    graph = builder.build(builder.add("best", ArgMax(), x))
    content = write_tflite(graph, precisions={"conv": "int8"})
    assert np.array_equal(run(content, unseen_inputs(graph)).shape, graph.output_shape)


# int8 weights alone


def test_weights_in_int8_quarter_a_file_and_keep_its_values() -> None:
    graph = network("mobilenet_v2_0.5_96").graph()
    inputs, plain = unseen_inputs(graph), write_tflite(graph)
    content = write_tflite(graph, precisions=all_in(graph, "int8-weights"))
    assert len(content) < 0.3 * len(plain)
    assert read_precision(content) == "float32 with int8 weights"
    assert read_tflite(content) == mixed(graph, all_in(graph, "int8-weights"))
    assert {op.precision for op in audit_tflite(content) if op.has_weights} == {"float32 with int8 weights"}
    for kernels in (XNNPACK, BUILTIN):
        assert decibels(run(plain, inputs), run(content, inputs, kernels)) > 25


@pytest.mark.parametrize(
    "op",
    [Conv2d(12, (3, 3)), Conv2d(8, (3, 3), groups=8), Conv2d(12, (3, 3), groups=4)],
    ids=["conv", "depthwise", "grouped"],
)
def test_each_channel_has_its_own_scale(op: Conv2d) -> None:
    builder = GraphBuilder((1, 6, 6, 8))
    builder.add("conv", op, 0)
    graph = builder.build()
    layer = random_weights(graph)["conv"]
    factors = np.float32(10.0) ** -np.arange(op.out_channels, dtype=np.float32)
    kernel = layer["kernel"] * factors[:, None, None, None]
    kernel[-1] = 0
    weights = {"conv": {"kernel": kernel, "bias": layer["bias"]}}
    content = write_tflite(graph, weights, precisions={"conv": "int8-weights"})
    (stored,) = [t for t in unpack(content).tensors if t.name == "conv.weight"]
    assert (stored.dtype, len(stored.quantization.scales)) == ("INT8", op.out_channels)
    inputs = unseen_inputs(graph)
    for kernels in (XNNPACK, BUILTIN):
        assert decibels(run(write_tflite(graph, weights), inputs), run(content, inputs, kernels)) > LEAST_DB


def test_a_transposed_convolution_keeps_its_weights() -> None:
    builder = GraphBuilder((1, 6, 6, 8))
    builder.add("up", TransposeConv2d(4, (2, 2), (2, 2)), 0)
    graph = builder.build()
    assert write_tflite(graph, precisions={"up": "int8-weights"}) == write_tflite(graph)


# What is refused


def test_precisions_beside_a_dtype_are_refused() -> None:
    with pytest.raises(FormatError, match="dtype 'int8' is of a whole file"):
        write_tflite(NETWORK, dtype="int8", precisions=of_scopes(NETWORK, "b01"))
    with pytest.raises(FormatError, match="no node 'b07'"):
        write_tflite(NETWORK, precisions={"b07": "int8"})


def test_samples_and_weights_are_checked_as_for_int8() -> None:
    precisions = of_scopes(NETWORK, "b01")
    with pytest.raises(FormatError, match="there are none"):
        write_tflite(NETWORK, precisions=precisions, samples=[])
    weights = random_weights(NETWORK)
    with pytest.raises(FormatError, match="'b00/conv'"):
        write_tflite(NETWORK, {k: v for k, v in weights.items() if k != "b00/conv"}, precisions=precisions)
    layer = weights["b00/conv"]
    broken = {**weights, "b00/conv": {**layer, "kernel": np.full_like(layer["kernel"], np.nan)}}
    for plan in ({"b00/conv": "int8-weights"}, of_scopes(NETWORK, "b00")):
        with pytest.raises(FormatError, match="not finite"):
            write_tflite(NETWORK, broken, precisions=plan)


def test_a_file_that_another_tool_has_changed_is_read_by_its_ops() -> None:
    """Integers go in where the first part's result was quantized."""
    model = unpack(write_tflite(NETWORK, precisions=of_scopes(NETWORK, "b01")))
    place = [op.kind for op in model.operators].index("QUANTIZE")
    behind, inputs = model.operators[place + 1 :], model.operators[place].outputs
    changed = dataclasses.replace(model, operators=behind, inputs=inputs)
    found = read_tflite(pack(changed, ""))
    assert found.input_dtypes == (DType.INT8,)
    assert found.input_shape == (1, 6, 6, 6)
    assert has_borders(found)
