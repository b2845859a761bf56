"""int8 .tflite files: all of it is int8, its numbers are close to float32, and it keeps TFLite's specification."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Callable

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from numpy.typing import NDArray

from netlathe.archspace.blocks import Block, ConvBlock, LinearHead, MBConv, Pool, SeparableConv, Skip, Zero
from netlathe.archspace.errors import FormatError
from netlathe.archspace.forms.tflite import write_tflite
from netlathe.archspace.forms.tflite_file import Model, Operator, Tensor, pack, unpack
from netlathe.archspace.forms.tflite_int8 import quantize, random_samples
from netlathe.archspace.forms.tflite_reader import read_tflite
from netlathe.archspace.forms.weights import Weights, random_weights
from netlathe.archspace.graph import Graph, GraphBuilder, chain
from netlathe.archspace.networks import network
from netlathe.archspace.ops import (
    ELU,
    Activation,
    ActivationKind,
    Add,
    Clip,
    Concat,
    Conv2d,
    DepthToSpace,
    DType,
    FullyConnected,
    Gelu,
    GlobalAvgPool,
    Interpolation,
    L2Norm,
    LeakyReLU,
    MatMul,
    Maximum,
    Mul,
    Op,
    Pad,
    PadAxes,
    Padding,
    PadMode,
    Pool2d,
    PReLU,
    Reduce,
    ReduceKind,
    Reshape,
    Resize,
    Slice,
    Softmax,
    SpaceToDepth,
    Sub,
    Transpose,
    TransposeConv2d,
    Unary,
    UnaryKind,
    Zeros,
)

Array = NDArray[np.float32]
XNNPACK = OpResolverType.AUTO
REFERENCE = OpResolverType.BUILTIN_REF  # slow plain code; checks what the specification asks of scales
LEAST_DB = 20  # signal to quantization noise


def in_a_row(*ops: Op, shape: tuple[int, ...] = (1, 7, 9, 6)) -> Graph:
    builder = GraphBuilder(shape)
    x = 0
    for index, op in enumerate(ops):
        x = builder.add(f"n{index}", op, x)
    return builder.build()


def shuffle_like() -> Graph:
    """Two branches of different convolutions, joined, pooled beside a pooled input, joined again."""
    builder = GraphBuilder((2, 9, 9, 8))
    left = builder.add("left", Conv2d(4), 0)
    right = builder.add("right", Conv2d(8, (3, 3), groups=8), 0)
    right = builder.add("right_act", Activation(ActivationKind.RELU), right)
    both = builder.add("join", Concat(), left, right)
    both = builder.add("pool", Pool2d("max", (3, 3), (2, 2)), both)
    short = builder.add("short", Pool2d("avg", (3, 3), (2, 2)), 0)
    both = builder.add("join_again", Concat(), both, short)
    builder.add("last", Conv2d(5), both)
    return builder.build()


def two_inputs(op: Op, *shapes: tuple[int, ...]) -> Graph:
    builder = GraphBuilder(*shapes)
    builder.add("op", op, 0, 1)
    return builder.build()


def beside_zeros(op: Op) -> Graph:
    builder = GraphBuilder((1, 5, 5, 4))
    builder.add("op", op, 0, builder.add("zeros", Zeros((5, 5, 4)), 0))
    return builder.build()


def sigmoid_joined_with(second: Op) -> Graph:
    builder = GraphBuilder((1, 4, 4, 3))
    first = builder.add("sigmoid", Activation(ActivationKind.SIGMOID), 0)
    builder.add("join", Concat(), builder.add("pool", Pool2d("max", (2, 2)), first), builder.add("second", second, 0))
    return builder.build()


BLOCKS: list[Block] = [
    MBConv(4, 4, 8, 8),
    MBConv(8, 8, 13, 11, kernel=7, se=0.25),
    MBConv(4, 6, 9, 8, 2, kernel=5, se=0.25, activation=ActivationKind.HARD_SWISH, padding="symmetric"),
    MBConv(4, 4, 8, 8, expand=1, se=0.5, activation=ActivationKind.SWISH),
    ConvBlock(3, 5, 8, 8, 2, padding="symmetric"),
    ConvBlock(3, 5, 8, 8, activation=ActivationKind.HARD_SIGMOID),
    ConvBlock(3, 5, 7, 9, 2, kernel=5, activation=None),
    SeparableConv(3, 5, 8, 8, activation=ActivationKind.SIGMOID),
    Pool("avg", 4, 8, 8),
    Pool("max", 4, 9, 8, 2, 2),
    LinearHead(32, 10, 4, 4),
    Skip(4, 4, 6, 6),
    Skip(4, 6, 6, 6, 2),
]
GRAPHS: dict[str, Graph] = {
    **{f"{kind} alone": in_a_row(Activation(kind)) for kind in ActivationKind},
    **{f"pool, {kind}": in_a_row(Pool2d("avg", (2, 2)), Activation(kind)) for kind in ActivationKind},
    "softmax of logits": in_a_row(Softmax(), shape=(3, 10)),
    "softmax of an image": in_a_row(Softmax()),
    "pad": in_a_row(Pad((1, 2), (0, 3))),
    "flat": in_a_row(Reshape((378,)), FullyConnected(5), Softmax(), Reshape((5, 1))),
    "grouped": in_a_row(Conv2d(4, (3, 3), groups=2)),
    "multiplied": in_a_row(Conv2d(12, (3, 3), groups=6)),
    "valid": in_a_row(Conv2d(5, (5, 3), (2, 1), padding=Padding.VALID)),
    "mean": in_a_row(GlobalAvgPool(keep_dims=True)),
    "sum": two_inputs(Add(), (1, 6, 6, 4), (1, 6, 6, 4)),
    "scaled": two_inputs(Mul(), (1, 6, 6, 4), (1, 1, 1, 4)),
    "plus zeros": beside_zeros(Add()),
    "joined with zeros": beside_zeros(Concat()),
    "joined sigmoids": sigmoid_joined_with(Activation(ActivationKind.SIGMOID)),
    "shuffle": shuffle_like(),
    "bilinear": in_a_row(Conv2d(4), Resize((14, 18), half_pixel=True)),
    "nearest": in_a_row(Resize((14, 18), Interpolation.NEAREST)),
    "deconvolution": in_a_row(TransposeConv2d(4, (3, 3), (2, 2), height=(0, 1), width=(0, 1)), Clip(-1.0, 1.0)),
    "deconvolution, same": in_a_row(TransposeConv2d(4, (4, 4), (2, 2), height=(1, 1), width=(1, 1))),
    "slopes": in_a_row(Conv2d(5), PReLU((1, 1, 5)), LeakyReLU(0.2)),
    "gelu": in_a_row(Gelu()),
    "tanh": in_a_row(Unary(UnaryKind.TANH)),
    "exp": in_a_row(Unary(UnaryKind.EXP)),
    "abs": in_a_row(Unary(UnaryKind.ABS)),
    "clips": in_a_row(Clip(-1.0, 1.0), Clip(0.0, 1.0)),
    "bounds": in_a_row(Clip(-0.5, 0.75)),
    "pad of channels": in_a_row(PadAxes(((0, 0), (0, 0), (0, 0), (0, 10)))),
    "pad of a value": in_a_row(PadAxes(((0, 0), (1, 1), (0, 2), (0, 0)), value=-2.0)),
    "mirrored": in_a_row(PadAxes(((0, 0), (1, 1), (0, 2), (0, 0)), PadMode.REFLECT)),
    "blocks": in_a_row(SpaceToDepth(2), DepthToSpace(2), shape=(1, 6, 10, 4)),
    "cut": in_a_row(Slice((0, 1, 2, 3), (1, 5, 4, 2)), Slice((0, 4, 0, 0), (1, 2, 4, 2), (1, -3, 1, 1))),
    "turned": in_a_row(Transpose((0, 3, 1, 2)), Softmax(1)),
    "normal": in_a_row(L2Norm()),
    "largest": in_a_row(Reduce(ReduceKind.MAX, (1,), keep_dims=True)),
    "difference": two_inputs(Sub(), (1, 6, 6, 4), (1, 6, 6, 4)),
    "maximum": two_inputs(Maximum(), (1, 6, 6, 4), (1, 6, 6, 4)),
    "matrices": two_inputs(MatMul(), (1, 6, 6, 4), (1, 6, 4, 3)),
    "rows": in_a_row(FullyConnected(5), shape=(2, 7, 6)),
}
NETWORK = chain(
    [
        ("b00", ConvBlock(3, 6, 12, 12, 2).graph()),
        ("b01", MBConv(6, 6, 6, 6, se=0.25, activation=ActivationKind.HARD_SWISH).graph()),
        ("b02", MBConv(6, 8, 6, 6, 2, padding="symmetric").graph()),
        ("head", LinearHead(8, 10, 3, 3).graph()),
    ]
)
everything = pytest.mark.parametrize(
    "graph",
    [
        *(pytest.param(block.graph(2), id=block.name) for block in BLOCKS),
        *(pytest.param(graph, id=name) for name, graph in GRAPHS.items()),
        pytest.param(NETWORK, id="network"),
    ],
)


def run(content: bytes, inputs: list[Array], kernels: OpResolverType = XNNPACK) -> Array:
    """The real values that the file gives for real values."""
    interpreter = Interpreter(model_content=content, num_threads=1, experimental_op_resolver_type=kernels)
    interpreter.allocate_tensors()
    for detail, x in zip(interpreter.get_input_details(), inputs, strict=True):
        if detail["dtype"] is np.int8:
            scale, zero_point = detail["quantization"]
            x = np.clip(np.rint(x / scale) + zero_point, -128, 127).astype(np.int8)
        interpreter.set_tensor(detail["index"], x)
    interpreter.invoke()
    (detail,) = interpreter.get_output_details()
    result = interpreter.get_tensor(detail["index"])
    if detail["dtype"] is np.int8:
        scale, zero_point = detail["quantization"]
        result = (result.astype(np.float32) - zero_point) * np.float32(scale)
    return result


def unseen_inputs(graph: Graph) -> list[Array]:
    rng = np.random.default_rng(99)
    return [rng.standard_normal(shape, dtype=np.float32) for shape in graph.inputs]


def decibels(expected: Array, found: Array) -> float:
    """Signal to noise."""
    noise = np.square(expected - found, dtype=np.float64).sum()
    return float(10 * np.log10(np.square(expected, dtype=np.float64).sum() / max(noise, 1e-300)))


def quality(graph: Graph, weights: Weights | None = None, kernels: OpResolverType = XNNPACK) -> float:
    inputs = unseen_inputs(graph)
    expected = run(write_tflite(graph, weights), inputs)
    return decibels(expected, run(write_tflite(graph, weights, dtype="int8"), inputs, kernels))


def tensor(model: Model, name: str) -> Tensor:
    return next(t for t in model.tensors if t.name == name)


# Numbers


@everything
@pytest.mark.parametrize("kernels", [XNNPACK, REFERENCE], ids=["xnnpack", "reference"])
def test_int8_computes_nearly_what_float32_does(graph: Graph, kernels: OpResolverType) -> None:
    assert quality(graph, kernels=kernels) > LEAST_DB


WINDOWED: dict[str, Callable[..., Block]] = {
    "mbconv_residual": lambda h, w, **kw: MBConv(4, 4, h, w, expand=3, **kw),
    "mbconv_se_residual": lambda h, w, **kw: MBConv(4, 4, h, w, expand=3, se=0.25, **kw),
    "mbconv_se_wider": lambda h, w, **kw: MBConv(3, 5, h, w, expand=1, se=0.5, **kw),
    "conv": lambda h, w, **kw: ConvBlock(3, 5, h, w, **kw),
    "separable": lambda h, w, **kw: SeparableConv(3, 5, h, w, **kw),
}


SETTINGS = [*itertools.product(ActivationKind, ("same", "symmetric"), ((8, 8), (7, 9)))]
"""Activations, paddings and sizes; every third of them has each of these at least once."""


def test_a_third_of_the_settings_has_each_of_their_values() -> None:
    for some, every in zip(zip(*SETTINGS[::3], strict=True), zip(*SETTINGS, strict=True), strict=True):
        assert {*some} == {*every}


@pytest.mark.parametrize("apart", [3, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kind", WINDOWED)
def test_every_convolutional_block_has_an_int8_form(kind: str, stride: int, kernel: int, apart: int) -> None:
    for activation, padding, (height, width) in SETTINGS[::apart]:
        make = WINDOWED[kind]
        block = make(height, width, stride=stride, kernel=kernel, activation=activation, padding=padding)
        assert quality(block.graph()) > LEAST_DB, block.name


def test_a_whole_network_stays_close_in_int8() -> None:
    assert quality(network("mobilenet_v2_0.5_96").graph()) > 25


def test_zeros_stay_exactly_zero() -> None:
    graph = Zero(4, 6, 6, 6, 2).graph()
    assert not run(write_tflite(graph, dtype="int8"), unseen_inputs(graph)).any()


def test_tiny_dead_and_biased_channels_do_not_spoil_the_others() -> None:
    graph = ConvBlock(4, 8, 9, 9, activation=ActivationKind.RELU).graph()
    whole = random_weights(graph)["conv"]
    kernel, bias = whole["kernel"].copy(), whole["bias"].copy()
    kernel[3], bias[3] = 0, 0.7
    kernel[5], bias[5] = 1e-30, -0.3
    kernel[6], bias[6] = 1e-12, 0.5
    for kernels in (XNNPACK, REFERENCE):
        assert quality(graph, {"conv": {"kernel": kernel, "bias": bias}}, kernels) > 35


def test_a_fully_connected_layer_of_tiny_weights_keeps_its_bias() -> None:
    graph = LinearHead(8, 5, 4, 4).graph()
    layer = random_weights(graph)["linear"]
    assert quality(graph, {"linear": {**layer, "kernel": layer["kernel"] * np.float32(1e-9)}}) > 40


@pytest.mark.parametrize("bias", [-100, 0])
def test_a_relu_that_lets_nothing_pass_gives_zeros(bias: float) -> None:
    graph = ConvBlock(4, 8, 9, 9, activation=ActivationKind.RELU).graph()
    layer = random_weights(graph)["conv"]
    weights = {"conv": {"kernel": layer["kernel"] * np.float32(bias != 0), "bias": np.full_like(layer["bias"], bias)}}
    assert not run(write_tflite(graph, weights, dtype="int8"), unseen_inputs(graph)).any()


def test_an_elu_computes_nearly_what_float32_does() -> None:  # which the reference kernels do not have
    assert quality(in_a_row(ELU())) > LEAST_DB


# What is in the file


@everything
def test_every_tensor_is_int8_but_biases_and_what_steers_an_op(graph: Graph) -> None:
    content = write_tflite(graph, dtype="int8")
    model, plain = unpack(content), unpack(write_tflite(graph))
    assert len(model.operators) == len(plain.operators)  # none to convert
    biases = {o.inputs[2] for o in model.operators if o.kind in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")}
    biases |= {o.inputs[3] for o in model.operators if o.kind == "TRANSPOSE_CONV"}
    for index, found in enumerate(model.tensors):
        steers = plain.tensors[index].dtype == "INT32"
        assert found.dtype == ("INT32" if steers or index in biases else "INT8"), found.name
        assert (found.quantization is None) == steers
    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    assert {d["dtype"] for d in interpreter.get_tensor_details()} <= {np.int8, np.int32}


@everything
def test_scales_are_as_the_specification_restricts_them(graph: Graph) -> None:
    model = unpack(write_tflite(graph, dtype="int8"))
    for operator in model.operators:
        of = [model.tensors[t].quantization for t in (*operator.inputs, *operator.outputs)]
        of = [quantization for quantization in of if quantization]
        assert all(-128 <= quantization.zero_point <= 127 for quantization in of)
        if operator.kind in ("AVERAGE_POOL_2D", "MAX_POOL_2D", "PAD", "RESHAPE", "CONCATENATION"):
            assert len({*of}) == 1
        if operator.kind in ("LOGISTIC", "SOFTMAX"):
            assert (of[-1].scales, of[-1].zero_point) == ((1 / 256,), -128)


def test_weights_have_a_scale_per_output_channel_and_biases_the_products_scale() -> None:
    graph = MBConv(4, 6, 8, 8).graph()
    weights = random_weights(graph)
    model = unpack(write_tflite(graph, dtype="int8"))
    for kind, name, axis in (("CONV_2D", "expand", 0), ("DEPTHWISE_CONV_2D", "depthwise", 3)):
        x = next(model.tensors[o.inputs[0]] for o in model.operators if o.kind == kind)
        kernel, bias = tensor(model, f"{name}.weight"), tensor(model, f"{name}.bias")
        assert kernel.quantization.axis == axis
        assert kernel.quantization.zero_point == bias.quantization.zero_point == 0
        assert len(kernel.quantization.scales) == len(bias.quantization.scales) == kernel.shape[axis] == 24
        largest = np.abs(kernel.data.astype(int)).max(axis=tuple({0, 1, 2, 3} - {axis}))
        assert (largest == 127).all()
        products = np.multiply(kernel.quantization.scales, x.quantization.scales[0])
        np.testing.assert_allclose(bias.quantization.scales, products, rtol=1e-6)
        np.testing.assert_allclose(bias.data * products, weights[name]["bias"], atol=products.max())


def test_a_fully_connected_layer_has_one_scale() -> None:
    model = unpack(write_tflite(LinearHead(8, 5, 4, 4).graph(), dtype="int8"))
    assert len(tensor(model, "linear.weight").quantization.scales) == 1
    assert np.abs(tensor(model, "linear.weight").data.astype(int)).max() == 127


def test_ranges_are_used_in_full() -> None:
    graph = in_a_row(Activation(ActivationKind.RELU))
    sample = np.linspace(-1, 3, 378, dtype=np.float32).reshape(graph.input_shape)
    model = unpack(write_tflite(graph, dtype="int8", samples=[[sample / 2], [sample]]))
    x, y = (t.quantization for t in model.tensors)
    assert (x.scales[0], x.zero_point) == (pytest.approx(4 / 255), -64)
    assert (y.scales[0], y.zero_point) == (pytest.approx(3 / 255), -128)


def test_the_file_aligns_its_zero_points_and_names_its_versions() -> None:
    from ai_edge_litert import schema_py_generated as schema

    content = write_tflite(NETWORK, dtype="int8")
    model = schema.Model.GetRootAs(content, 0)
    tensors = [model.Subgraphs(0).Tensors(i) for i in range(model.Subgraphs(0).TensorsLength())]
    tables = [t.Quantization() for t in tensors if t.Quantization()]
    assert {table._tab.Vector(table._tab.Offset(10)) % 8 for table in tables} == {0}  # int64
    assert all(table.ZeroPointLength() == table.ScaleLength() for table in tables)
    codes = [model.OperatorCodes(i) for i in range(model.OperatorCodesLength())]
    assert {code.Version() for code in codes if code.BuiltinCode() == schema.BuiltinOperator.CONV_2D} == {3}


def test_equal_seeds_write_equal_int8_files() -> None:
    first, second, other = (write_tflite(NETWORK, seed=seed, dtype="int8") for seed in (5, 5, 6))
    assert first == second != other


# What has no int8 form


def test_an_op_without_an_int8_form_is_named() -> None:
    tensors = (Tensor("input", (1, 1, 3)), Tensor("squeezed", (1, 3)))
    model = Model(tensors, (Operator("SQUEEZE", (0,), (1,)),), (0,), (1,))
    with pytest.raises(FormatError, match="'squeezed': the op SQUEEZE has no int8 form"):
        quantize(model, random_samples(model, 0))


@pytest.mark.parametrize("second", [Activation(ActivationKind.RELU), Conv2d(3)], ids=lambda op: op.kind)
def test_a_sigmoid_joined_with_values_of_another_scale_is_refused(second: Op) -> None:
    with pytest.raises(FormatError, match="'join': the op CONCATENATION has no int8 form where it joins a softmax or"):
        write_tflite(sigmoid_joined_with(second), dtype="int8")


def test_another_dtype_is_refused() -> None:
    with pytest.raises(FormatError, match="float32, float16, int8, int8-weights, got dtype 'int7'"):
        write_tflite(NETWORK, dtype="int7")


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_weights_that_compute_no_finite_values_are_refused(value: float) -> None:
    weights = random_weights(NETWORK)
    layer = weights["b01/project"]
    weights["b01/project"] = {**layer, "kernel": np.full_like(layer["kernel"], value)}
    with pytest.raises(FormatError, match=r"not finite.*no int8 form"):
        write_tflite(NETWORK, weights, dtype="int8")


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([], "there are none"),
        ([[np.zeros((1, 12, 12, 4), np.float32)]], r"shapes \[\(1, 12, 12, 3\)\] for the inputs, got"),
        ([[np.zeros((1, 12, 12, 3), np.float64)]], "float64"),
        ([[np.zeros((1, 12, 12, 3), np.float32)] * 2], "for the inputs, got"),
    ],
)
def test_samples_that_do_not_fit_are_refused(samples: list[list[Array]], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        write_tflite(NETWORK, dtype="int8", samples=samples)


def test_weights_that_do_not_fit_are_refused_in_int8_too() -> None:
    with pytest.raises(FormatError, match="'b00/conv'"):
        write_tflite(NETWORK, {}, dtype="int8")


# Reading back


@everything
def test_an_own_int8_file_gives_back_the_very_graph(graph: Graph) -> None:
    assert read_tflite(write_tflite(graph, dtype="int8")) == graph


def test_an_int8_file_whose_ops_were_changed_does_not_pass_for_its_graph() -> None:
    first, second = MBConv(4, 4, 8, 8).graph(), MBConv(4, 4, 8, 8, kernel=5).graph()
    metadata = unpack(write_tflite(first, dtype="int8")).metadata
    claims_first = dataclasses.replace(unpack(write_tflite(second, dtype="int8")), metadata=metadata)
    read = read_tflite(pack(claims_first, "netlathe"))
    assert {*read.dtypes} == {DType.INT8}
    assert read.macs == second.macs != first.macs


def test_a_factor_that_was_changed_shows() -> None:
    model = unpack(write_tflite(in_a_row(Activation(ActivationKind.HARD_SIGMOID)), dtype="int8"))
    sixth = tensor(model, "sixth")
    halved = dataclasses.replace(sixth, data=np.array(0, np.int8))
    changed = dataclasses.replace(model, tensors=tuple(halved if t is sixth else t for t in model.tensors))
    kinds = [node.op.kind for node in read_tflite(pack(changed, "netlathe")).nodes]
    assert kinds == ["constant", "add", "activation", "constant", "mul"]  # a product with 0 is no division by 6


def test_a_foreign_int8_file_has_the_same_ops_in_int8() -> None:
    foreign = dataclasses.replace(unpack(write_tflite(NETWORK, dtype="int8")), metadata={})
    read = read_tflite(pack(foreign, "foreign"))
    assert {*read.dtypes} == {DType.INT8}
    assert [node.op.kind for node in read.nodes] == [node.op.kind for node in NETWORK.nodes]
    assert (read.macs, read.shapes) == (NETWORK.macs, NETWORK.shapes)
    weights = sum(node.op.stored_values(*ins) for node, ins, _ in NETWORK.steps())
    assert sum(node.op.stored_bytes(4, *ins) for node, ins, _ in read.steps()) == weights


def test_a_truncated_int8_file_is_refused() -> None:
    content = write_tflite(NETWORK, dtype="int8")
    for length in range(0, len(content), 97):
        with pytest.raises(FormatError):
            read_tflite(content[:length])


def test_flipped_bytes_in_an_int8_file_give_a_graph_or_a_format_error_and_nothing_else() -> None:
    content = write_tflite(NETWORK, dtype="int8")
    source = random.Random(0)
    refused = 0
    for _ in range(300):
        broken = bytearray(content)
        for _ in range(source.choice((1, 1, 4))):
            broken[source.randrange(len(broken))] = source.randrange(256)
        try:
            read_tflite(bytes(broken))
        except FormatError:
            refused += 1
    assert 0 < refused < 300
