"""What foreign .tflite files hold: each kind of them is run by LiteRT, and read as what LiteRT runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import flexbuffers
from op_examples import EXAMPLES, OpExample
from tflite_files import FileBuilder, assert_runs_as_read, macs_of

from netlathe.archspace.errors import FormatError
from netlathe.archspace.forms.tflite import write_tflite
from netlathe.archspace.forms.tflite_file import pack, unpack
from netlathe.archspace.forms.tflite_reader import read_tflite
from netlathe.archspace.graph import Graph
from netlathe.archspace.kernels import kernels_of
from netlathe.archspace.networks import network
from netlathe.archspace.ops import (
    Activation,
    ActivationKind,
    Add,
    ArgMax,
    Cast,
    Clip,
    Concat,
    Constant,
    Conv2d,
    Dequantize,
    DType,
    FullyConnected,
    Gather,
    GlobalAvgPool,
    MatMul,
    Op,
    Opaque,
    Pad,
    PadAxes,
    Padding,
    PadMode,
    PReLU,
    Quantize,
    Reduce,
    ReduceKind,
    Reshape,
    Resize,
    Slice,
    Softmax,
    Split,
    Sub,
    Tile,
    TransposeConv2d,
    Unary,
    UnaryKind,
)

WRITTEN = [example for example in EXAMPLES if "tflite" not in example.lacks]


def ops_of(graph: Graph) -> list[Op]:
    """The graph's ops without the constants that they take."""
    return [node.op for node in graph.nodes if not isinstance(node.op, Constant)]


@pytest.mark.parametrize("example", WRITTEN, ids=str)
def test_every_op_is_read_without_the_graph_in_the_file(example: OpExample) -> None:
    content = pack(dataclasses.replace(unpack(write_tflite(example.graph)), metadata={}), "foreign")
    read = read_tflite(content)
    assert not read.opaque_nodes
    assert (read.inputs, read.output_shapes) == (example.graph.inputs, example.graph.output_shapes)
    assert read.dtypes[-1] == example.graph.dtypes[-1]
    assert read.macs == example.macs


@pytest.mark.parametrize("dtype", ["float32", "int8"])
@pytest.mark.parametrize("name", ["mobilenet_v2", "mnasnet_b1", "proxyless_cpu"])
def test_macs_are_those_that_the_shapes_in_the_file_come_to(name: str, dtype: str) -> None:
    graph = network(name).graph()
    content = pack(dataclasses.replace(unpack(write_tflite(graph, dtype=dtype)), metadata={}), "foreign")
    read = read_tflite(content)
    assert read.macs == macs_of(content) == graph.macs
    assert len(kernels_of(read)) == len(kernels_of(graph))


def test_float16_weights_behind_a_dequantize_are_weights() -> None:
    file = FileBuilder()
    x = file.input((1, 8, 8, 4))
    kernel = file.op("DEQUANTIZE", [file.weights(6, 3, 3, 4, dtype="float16")], (6, 3, 3, 4))
    bias = file.op("DEQUANTIZE", [file.constant(np.zeros(6), "float16")], (6,))
    y = file.op("CONV_2D", (x, kernel, bias), (1, 8, 8, 6), strideH=1, strideW=1)
    slopes = file.op("DEQUANTIZE", [file.weights(1, 1, 6, dtype="float16")], (1, 1, 6))
    content = file.finish(file.op("PRELU", (y, slopes), (1, 8, 8, 6)))
    read = read_tflite(content)
    assert ops_of(read) == [Conv2d(6, (3, 3), batch_norm=False), PReLU((1, 1, 6))]
    assert read.macs == 8 * 8 * 6 * 9 * 4
    assert len(kernels_of(read)) == 2  # a runtime unpacks weights once, when it loads the file
    assert_runs_as_read(content, read)


def test_sparse_weights_are_read_by_their_shape() -> None:
    file = FileBuilder()
    x = file.input((1, 4, 4, 8))
    packed = file.tensor((4, 1, 1, 8), "float32")
    tensor = file.graph.tensors[packed]
    tensor.buffer = len(file.model.buffers)
    buffer: Any = schema.BufferT()
    buffer.data = np.ones(3, np.float32).view(np.uint8)  # of 32 values only three are stored
    file.model.buffers.append(buffer)
    tensor.sparsity = schema.SparsityParametersT()
    kernel = file.op("DENSIFY", [packed], (4, 1, 1, 8))
    y = file.op("CONV_2D", (x, kernel, -1), (1, 4, 4, 4), strideH=1, strideW=1)
    assert ops_of(read_tflite(file.finish(y))) == [Conv2d(4, batch_norm=False)]


def test_a_detector_gives_boxes_and_scores_joined_along_the_anchors() -> None:
    file = FileBuilder()
    x = file.input((1, 8, 8, 4))
    wide = file.op("PAD", (x, file.constant([[0, 0], [0, 0], [0, 0], [0, 4]], "int32")), (1, 8, 8, 8))
    small = file.op("MAX_POOL_2D", [wide], (1, 4, 4, 8), filterHeight=2, filterWidth=2, strideH=2, strideW=2, padding=1)
    outputs = []
    for values in (4, 1):
        parts = []
        for source, side in ((wide, 8), (small, 4)):
            y = file.conv(source, (1, side, side, 2 * values), (2 * values, 1, 1, 8))
            shape = (1, side * side * 2, values)
            parts.append(file.op("RESHAPE", [y, file.constant(shape, "int32")], shape, newShape=list(shape)))
        outputs.append(file.op("CONCATENATION", parts, (1, 160, values), axis=1))
    content = file.finish(*outputs)
    read = read_tflite(content)
    assert read.output_shapes == ((1, 160, 4), (1, 160, 1))
    assert read.nodes[0].op == PadAxes(((0, 0), (0, 0), (0, 0), (0, 4)))
    assert [op for op in ops_of(read) if isinstance(op, Concat)] == [Concat(1)] * 2
    assert read.macs == (64 + 16) * 8 * (8 + 2)
    assert_runs_as_read(content, read)


@pytest.mark.parametrize(
    ("fused", "function"),
    [
        (1, Activation(ActivationKind.RELU)),
        (2, Clip(-1.0, 1.0)),
        (3, Activation(ActivationKind.RELU6)),
        (4, Unary(UnaryKind.TANH)),
    ],
)
def test_every_fused_activation_is_read(fused: int, function: Op) -> None:
    file = FileBuilder()
    x = file.input((1, 4, 4, 3))
    read = read_tflite(file.finish(file.conv(x, (1, 4, 4, 5), (5, 1, 1, 3), fusedActivationFunction=fused)))
    assert ops_of(read) == [Conv2d(5, batch_norm=False), function]
    assert len(kernels_of(read)) == (2 if fused == 4 else 1)


@pytest.mark.parametrize("fused", [1, 2, 3])
@pytest.mark.parametrize("kind", ["SUB", "DIV", "AVERAGE_POOL_2D"])
def test_a_clamp_is_part_of_the_kernel_before(kind: str, fused: int) -> None:
    file = FileBuilder()
    x = file.input((1, 4, 4, 3))
    inputs, options = (x, file.constant([2.0, 3.0, 4.0])), {"fusedActivationFunction": fused}
    if kind == "AVERAGE_POOL_2D":
        inputs, options = (x,), {**options, "filterHeight": 2, "filterWidth": 2, "strideH": 1, "strideW": 1}
    content = file.finish(file.op(kind, inputs, (1, 4, 4, 3), **options))
    read = read_tflite(content)
    assert len(kernels_of(read)) == 1
    assert_runs_as_read(content, read)
    assert [o.kind for o in unpack(write_tflite(read)).operators] == [kind]  # and is written so


@pytest.mark.parametrize(("kind", "op"), [("ADD", Add()), ("SUB", Sub())])
@pytest.mark.parametrize("values", [0.5, [1.0, 2.0, 3.0], np.ones((4, 4, 3))])
def test_a_constant_is_an_operand(kind: str, op: Op, values: Any) -> None:
    file = FileBuilder()
    x = file.input((1, 4, 4, 3))
    content = file.finish(file.op(kind, (x, file.constant(values)), (1, 4, 4, 3)))
    read = read_tflite(content)
    assert [node.op for node in read.nodes] == [Constant(np.shape(values) or (1,)), op]
    assert_runs_as_read(content, read)


def test_an_average_pool_over_the_whole_image_is_the_global_mean() -> None:
    for padding in (0, 1):
        file = FileBuilder()
        x = file.input((1, 7, 5, 4))
        window = {"filterHeight": 7, "filterWidth": 5, "strideH": 7, "strideW": 5}
        content = file.finish(file.op("AVERAGE_POOL_2D", [x], (1, 1, 1, 4), padding=padding, **window))
        assert ops_of(read_tflite(content)) == [GlobalAvgPool(keep_dims=True)]


@pytest.mark.parametrize(
    ("kind", "axes", "keeps", "shape", "op"),
    [
        ("MEAN", [1, 2], True, (1, 1, 1, 3), GlobalAvgPool(keep_dims=True)),
        ("MEAN", [-1], False, (1, 4, 5), Reduce(ReduceKind.MEAN, (3,))),
        ("SUM", [1], True, (1, 1, 5, 3), Reduce(ReduceKind.SUM, (1,), keep_dims=True)),
        ("REDUCE_MAX", [1, 3], False, (1, 5), Reduce(ReduceKind.MAX, (1, 3))),
        ("MEAN", [0, 1, 2, 3], False, (), Reduce(ReduceKind.MEAN, (0, 1, 2, 3))),
    ],
)
def test_reductions_run_over_any_axes(kind: str, axes: list[int], keeps: bool, shape: tuple[int, ...], op: Op) -> None:
    file = FileBuilder()
    x = file.input((1, 4, 5, 3))
    content = file.finish(file.op(kind, (x, file.constant(axes, "int32")), shape, keepDims=keeps))
    read = read_tflite(content)
    assert ops_of(read) == [op]
    assert_runs_as_read(content, read)


def arranged(build: Callable[[FileBuilder, int], int], *ops: Op) -> Any:
    return pytest.param(build, ops, id="-".join(op.kind for op in ops))


def integers(file: FileBuilder, *values: Any) -> list[int]:
    return [file.constant(value, "int32") for value in values]


@pytest.mark.parametrize(
    ("build", "ops"),
    [
        arranged(
            lambda f, x: f.op("STRIDED_SLICE", [x, *integers(f, [0, 1, -1, 0], [0, 4, -6, 2], [1, 2, -2, 1])],
                              (1, 2, 3, 2), beginMask=1, endMask=1),
            Slice((0, 1, 4, 0), (1, 2, 3, 2), (1, 2, -2, 1)),
        ),
        arranged(
            lambda f, x: f.op("STRIDED_SLICE", [x, *integers(f, [0, 0, 0, 1], [0, 0, 0, 2], [1, 1, 1, 1])],
                              (1, 1, 4, 5), beginMask=1, endMask=1, newAxisMask=2, ellipsisMask=4, shrinkAxisMask=8),
            Slice((0, 0, 0, 1), (1, 4, 5, 1)), Reshape((1, 4, 5)),
        ),
        arranged(
            lambda f, x: f.op("SLICE", [x, *integers(f, [0, 1, 0, 0], [1, 2, -1, 3])], (1, 2, 5, 3)),
            Slice((0, 1, 0, 0), (1, 2, 5, 3)),
        ),
        arranged(lambda f, x: f.op("RESHAPE", [x, *integers(f, [20, 3])], (20, 3)), Reshape((20, 3), whole=True)),
        arranged(lambda f, x: f.op("RESHAPE", [x], (1, 4, 15), newShape=[1, 4, 15]), Reshape((4, 15))),
        arranged(lambda f, x: f.op("EXPAND_DIMS", [x, *integers(f, 1)], (1, 1, 4, 5, 3)), Reshape((1, 4, 5, 3))),
        arranged(lambda f, x: f.op("SQUEEZE", [x], (4, 5, 3), squeezeDims=[0]), Reshape((4, 5, 3), whole=True)),
        arranged(
            lambda f, x: f.op("PACK", [x, x], (1, 2, 4, 5, 3), axis=1, valuesCount=2), Concat(1), Reshape((2, 4, 5, 3))
        ),
        arranged(
            lambda f, x: f.op("PACK", [x, x], (1, 4, 5, 3, 2), axis=-1, valuesCount=2),
            Reshape((4, 5, 3, 1)), Reshape((4, 5, 3, 1)), Concat(),
        ),
        arranged(lambda f, x: f.op("TILE", [x, *integers(f, [1, 2, 1, 1])], (1, 8, 5, 3)), Tile((1, 2, 1, 1))),
        arranged(lambda f, x: f.op("GATHER", [x, *integers(f, [2, 0])], (1, 4, 5, 2), axis=3), Gather(-1)),
        arranged(
            lambda f, x: f.op("MIRROR_PAD", [x, *integers(f, [[0, 0], [1, 2], [0, 1], [0, 0]])], (1, 7, 6, 3), mode=1),
            PadAxes(((0, 0), (1, 2), (0, 1), (0, 0)), PadMode.SYMMETRIC),
        ),
        arranged(
            lambda f, x: f.op("PADV2", [x, *integers(f, [[0, 0], [1, 2], [0, 1], [0, 0]]), f.constant(-np.inf)],
                              (1, 7, 6, 3)),
            PadAxes(((0, 0), (1, 2), (0, 1), (0, 0)), value=-3.4028235e38),
        ),
        arranged(
            lambda f, x: f.op("ARG_MAX", [x, *integers(f, -1)], (1, 4, 5), dtype="int64", outputType=4), ArgMax(-1)
        ),
        arranged(lambda f, x: f.op("CAST", [x], (1, 4, 5, 3), dtype="int32"), Cast(DType.INT32)),
        arranged(lambda f, x: f.op("RESIZE_BILINEAR", [x, *integers(f, [8, 10])], (1, 8, 10, 3), version=3,
                                   halfPixelCenters=True), Resize((8, 10), half_pixel=True)),
        arranged(lambda f, x: f.op("SOFTMAX", [x], (1, 4, 5, 3), beta=1.0), Softmax()),
        arranged(lambda f, x: f.op("LOG_SOFTMAX", [x], (1, 4, 5, 3)), Softmax(), Unary(UnaryKind.LOG)),
        arranged(
            lambda f, x: f.op("FULLY_CONNECTED", [x, f.weights(7, 3), -1], (1, 4, 5, 7), keepNumDims=True, version=5),
            FullyConnected(7),
        ),
        arranged(
            lambda f, x: f.op("FULLY_CONNECTED", [x, f.weights(7, 3), -1], (20, 7)),
            Reshape((20, 3), whole=True), FullyConnected(7),
        ),
        arranged(lambda f, x: f.op("BATCH_MATMUL", [x, f.weights(1, 4, 3, 6)], (1, 4, 5, 6)), MatMul()),
        arranged(lambda f, x: f.op("ADD_N", [x, x, x], (1, 4, 5, 3)), Add(), Add()),
    ],
)  # fmt: skip
def test_what_arranges_values_is_read_and_runs(build: Callable[[FileBuilder, int], int], ops: tuple[Op, ...]) -> None:
    file = FileBuilder()
    content = file.finish(build(file, file.input((1, 4, 5, 3))))
    read = read_tflite(content)
    assert ops_of(read) == [*ops]
    assert_runs_as_read(content, read)


def test_parts_of_an_axis_become_tensors_without_it() -> None:
    file = FileBuilder()
    x = file.input((1, 3, 5, 2))
    first = file.op("UNPACK", [x], *[(1, 5, 2)] * 3, axis=1, num=3)
    content = file.finish(first + 2, first)
    read = read_tflite(content)
    assert ops_of(read) == [Split((1, 1, 1), 1), Reshape((5, 2)), Reshape((5, 2))]  # what is not used is left out
    assert_runs_as_read(content, read)


def dilated(pads: list[list[int]], crops: list[list[int]], side: int) -> bytes:
    """A convolution dilated by 2 in the way of converters of before 2021: over parts of the image."""
    file = FileBuilder()
    x = file.input((1, 10, 10, 4))
    block, amounts, back = file.constant([2, 2], "int32"), file.constant(pads, "int32"), file.constant(crops, "int32")
    inner = (10 + sum(pads[0])) // 2
    y = file.op("SPACE_TO_BATCH_ND", [x, block, amounts], (4, inner, inner, 4))
    kernel, bias = file.weights(1, 3, 3, 4), file.constant(np.zeros(4))
    options = {"strideH": 1, "strideW": 1, "padding": 1, "depthMultiplier": 1, "fusedActivationFunction": 1}
    y = file.op("DEPTHWISE_CONV_2D", [y, kernel, bias], (4, inner - 2, inner - 2, 4), **options)
    return file.finish(file.op("BATCH_TO_SPACE_ND", [y, block, back], (1, side, side, 4)))


def test_a_convolution_over_parts_of_the_image_is_a_dilated_one() -> None:
    relu, shared = Activation(ActivationKind.RELU), {"groups": 4, "batch_norm": False, "dilation": (2, 2)}
    same, valid = dilated([[2, 2]] * 2, [[0, 0]] * 2, 10), dilated([[0, 0]] * 2, [[0, 0]] * 2, 6)
    odd = dilated([[1, 3]] * 2, [[0, 1]] * 2, 9)
    assert ops_of(read_tflite(same)) == [Conv2d(4, (3, 3), **shared), relu]
    assert ops_of(read_tflite(valid)) == [Conv2d(4, (3, 3), padding=Padding.VALID, **shared), relu]
    assert ops_of(read_tflite(odd)) == [Pad((1, 2), (1, 2)), Conv2d(4, (3, 3), padding=Padding.VALID, **shared), relu]
    for content in (same, valid, odd):
        assert_runs_as_read(content, read_tflite(content))


@pytest.mark.parametrize(
    ("padding", "size", "op"),
    [
        (0, 8, TransposeConv2d(6, (3, 3), (2, 2), height=(0, 1), width=(0, 1))),
        (0, 7, TransposeConv2d(6, (3, 3), (2, 2), height=(1, 1), width=(1, 1))),
        (1, 9, TransposeConv2d(6, (3, 3), (2, 2))),
    ],
)
def test_a_transposed_convolution_is_read_by_the_size_that_it_gives(padding: int, size: int, op: Op) -> None:
    file = FileBuilder()
    x = file.input((1, 4, 4, 2))
    inputs = [file.constant([1, size, size, 6], "int32"), file.weights(6, 3, 3, 2), x]
    content = file.finish(file.op("TRANSPOSE_CONV", inputs, (1, size, size, 6), strideH=2, strideW=2, padding=padding))
    read = read_tflite(content)
    assert ops_of(read) == [op]
    assert read.macs == 16 * 9 * 2 * 6
    assert_runs_as_read(content, read)


# Custom ops, control flow, what is foreign


def test_foreign_ops_stay_by_their_names_with_the_shapes_of_the_file() -> None:
    file = FileBuilder()
    x = file.input((1, 4, 4, 3))
    y = file.conv(x, (1, 4, 4, 8), (8, 1, 1, 3))
    boxes = file.custom("TFLite_Detection_PostProcess", [y, file.constant(np.ones((10, 4)))], (1, 10, 4), (1, 10))
    tables = file.op("CUMSUM", [boxes, file.constant(1, "int32")], (1, 10, 4))
    read = read_tflite(file.finish(tables, boxes + 1))
    assert [node.op for node in read.opaque_nodes] == [
        Opaque("TFLite_Detection_PostProcess", ((1, 10, 4), (1, 10)), (DType.FLOAT32,) * 2, 160),
        Opaque("CUMSUM", ((1, 10, 4),), (DType.FLOAT32,), 4),
    ]
    assert read.output_shapes == ((1, 10, 4), (1, 10))
    assert read.macs == 16 * 8 * 3


def test_a_custom_op_is_foreign_even_under_the_name_of_a_builtin_one() -> None:
    file = FileBuilder()
    x = file.input((1, 4))
    (node,) = read_tflite(file.finish(file.custom("RELU", [x], (1, 4)))).nodes
    assert node.op == Opaque("RELU", ((1, 4),), (DType.FLOAT32,))


def test_a_softmax_of_another_temperature_is_foreign() -> None:
    file = FileBuilder()
    (node,) = read_tflite(file.finish(file.op("SOFTMAX", [file.input((1, 4))], (1, 4), beta=2.0))).nodes
    assert isinstance(node.op, Opaque)


def test_results_of_foreign_ops_are_not_guessed_at_other_sizes() -> None:
    file = FileBuilder()
    x = file.input((1, 4), signature=(-1, 4), name="x")
    content = file.finish(file.custom("Mine", [x], (1, 4)))
    assert read_tflite(content).output_shape == (1, 4)
    with pytest.raises(FormatError, match=r"op 0 \(Mine\): .*only at the file's own sizes"):
        read_tflite(content, shapes={"x": (2, 4)})


def test_sizes_that_only_a_run_tells_count_as_1() -> None:
    file = FileBuilder()
    x = file.input((1, 8))
    found = file.op("WHERE", [x], (0, 2), dtype="int64", result={"signature": (-1, 2)})
    read = read_tflite(file.finish(file.op("CAST", [found], (0, 2), result={"signature": (-1, 2)})))
    assert [op.kind for op in ops_of(read)] == ["opaque", "cast"]
    assert read.output_shape == (1, 2)


# Dtypes


def test_an_int8_file_is_read_with_its_dtypes() -> None:
    file = FileBuilder()
    x = file.input((1, 8, 8, 3))
    scale = {"scales": [0.1]}
    q = file.op("QUANTIZE", [x], (1, 8, 8, 3), dtype="int8", result=scale)
    kernel = file.constant(np.ones((6, 3, 3, 3)), "int8", scales=[0.1] * 6)
    bias = file.constant(np.zeros(6), "int32", scales=[0.01] * 6)
    y = file.op("CONV_2D", [q, kernel, bias], (1, 8, 8, 6), dtype="int8", version=3, strideH=1, strideW=1, result=scale)
    y = file.op(
        "ADD", [y, file.constant(np.ones(6), "int8", **scale)], (1, 8, 8, 6), dtype="int8", version=2, result=scale
    )
    content = file.finish(file.op("DEQUANTIZE", [y], (1, 8, 8, 6), version=2))
    read = read_tflite(content)
    assert ops_of(read) == [
        Quantize(DType.INT8), Conv2d(6, (3, 3), batch_norm=False, weights=DType.INT8), Add(), Dequantize()
    ]  # fmt: skip
    assert [*read.dtypes] == [DType.FLOAT32, DType.INT8, DType.INT8, DType.INT8, DType.INT8, DType.FLOAT32]
    assert read.macs == 64 * 6 * 27
    assert len(kernels_of(read)) == 4  # those at the borders are kernels of their own
    assert read.costs()[1].bytes_read == 64 * 3 + 6 * 27 + 6
    assert_runs_as_read(content, read)


def test_weights_of_a_dynamic_range_file_are_int8() -> None:
    file = FileBuilder()
    x = file.input((1, 16))
    kernel = file.constant(np.ones((8, 16)), "int8", scales=[0.1])
    content = file.finish(file.op("FULLY_CONNECTED", [x, kernel, -1], (1, 8), version=3))
    read = read_tflite(content)
    assert ops_of(read) == [FullyConnected(8, DType.INT8)]
    assert read.dtypes == (DType.FLOAT32,) * 2
    assert_runs_as_read(content, read)


def test_int16_activations_are_read() -> None:
    file = FileBuilder()
    scale = {"scales": [0.1]}
    x = file.input((1, 4, 4, 3), "int16", **scale)
    kernel = file.constant(np.ones((6, 1, 1, 3)), "int8", scales=[0.1] * 6)
    bias = file.constant(np.zeros(6), "int64", scales=[0.01] * 6)
    content = file.finish(
        file.op(
            "CONV_2D", [x, kernel, bias], (1, 4, 4, 6), dtype="int16", version=4, strideH=1, strideW=1, result=scale
        )
    )
    read = read_tflite(content)
    assert read.dtypes == (DType.INT16,) * 2
    assert_runs_as_read(content, read)


def test_a_dtype_that_an_op_does_not_give_makes_it_foreign() -> None:
    file = FileBuilder()
    x = file.input((1, 4))
    (node,) = read_tflite(file.finish(file.op("ABS", [x], (1, 4), dtype="int32"))).nodes
    assert node.op == Opaque("ABS", ((1, 4),), (DType.INT32,))


# Sizes


def open_sizes() -> bytes:
    """A network for images of any size, whose last reshape is computed from what the convolution gives."""
    file = FileBuilder()
    x = file.input((1, 1, 1, 3), signature=(-1, -1, -1, 3), name="serving_default_image:0")
    y = file.conv(x, (1, 1, 1, 4), (4, 3, 3, 3), strideH=2, strideW=2)
    file.graph.tensors[y].shapeSignature = [-1, -1, -1, 4]
    shape = file.op("SHAPE", [y], (4,), dtype="int32", outType=2)
    numbers = [file.constant(values, "int32") for values in ([0], [1], [1])]
    batch = file.op("STRIDED_SLICE", [shape, *numbers], (), dtype="int32", shrinkAxisMask=1)
    rest = file.constant(-1, "int32")
    wanted = file.op("PACK", [batch, rest], (2,), dtype="int32", valuesCount=2, axis=0)
    flat = file.op("RESHAPE", [y, wanted], (1, 4), result={"signature": (-1, -1)})
    return file.finish(flat)


@pytest.mark.parametrize("name", ["image", "serving_default_image:0", ""])
def test_open_sizes_are_given_by_name(name: str) -> None:
    read = read_tflite(open_sizes(), shapes={name: (2, 10, 12, 3)})
    assert read.inputs == ((2, 10, 12, 3),)
    assert read.output_shape == (2, 5 * 6 * 4)
    assert read.macs == 2 * 30 * 4 * 27
    assert_runs_as_read(open_sizes(), read, {0: (2, 10, 12, 3)})


def test_open_sizes_that_are_not_given_are_an_error_with_the_remedy() -> None:
    with pytest.raises(FormatError, match=r"'image' has the open shape .*; give its sizes.* image=1x224x224x3"):
        read_tflite(open_sizes())
    with pytest.raises(FormatError, match=r"shapes are given for 'other'; the inputs are image"):
        read_tflite(open_sizes(), shapes={"other": (1, 8, 8, 3)})
    with pytest.raises(FormatError, match=r"has 4 axes, and is given the shape \(1, 8\)"):
        read_tflite(open_sizes(), shapes={"": (1, 8)})


def test_an_open_batch_alone_is_1() -> None:
    file = FileBuilder()
    x = file.input((1, 4, 4, 3), signature=(-1, 4, 4, 3))
    y = file.conv(x, (1, 4, 4, 5), (5, 1, 1, 3))
    assert read_tflite(file.finish(y)).batch == 1


def test_a_fixed_batch_is_kept() -> None:
    file = FileBuilder()
    y = file.conv(file.input((4, 4, 4, 3)), (4, 4, 4, 5), (5, 1, 1, 3))
    assert (read_tflite(file.finish(y)).batch, read_tflite(file.finish(y)).macs) == (4, 4 * 16 * 15)


# Inputs, outputs, subgraphs


def test_inputs_that_nothing_uses_are_left_out() -> None:
    file = FileBuilder()
    a, _, c = file.input((1, 4)), file.input((1, 7)), file.input((1, 4))
    dead = file.op("MUL", (a, c), (1, 4))
    read = read_tflite(file.finish(file.op("SUB", (a, c), (1, 4))))
    assert dead
    assert (read.inputs, ops_of(read)) == (((1, 4), (1, 4)), [Sub()])


def several_subgraphs() -> bytes:
    file = FileBuilder()
    file.finish(file.op("RELU", [file.input((1, 4))], (1, 4)))
    file.add_subgraph("decode")
    signature: Any = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex, signature.inputs, signature.outputs = "run", 1, [], []
    file.model.signatureDefs = [signature]
    return file.finish(file.op("TANH", [file.input((1, 6))], (1, 6)))


@pytest.mark.parametrize(("name", "shape"), [(None, (1, 4)), ("main", (1, 4)), ("decode", (1, 6)), ("run", (1, 6))])
def test_a_subgraph_is_chosen_by_its_name_or_signature(name: str | None, shape: tuple[int, ...]) -> None:
    assert read_tflite(several_subgraphs(), subgraph=name).output_shape == shape


def test_a_subgraph_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(FormatError, match="no subgraph or signature 'encode'; there are run, decode, main"):
        read_tflite(several_subgraphs(), subgraph="encode")


def calling(composite: str | None) -> bytes:
    """A network that calls a subgraph twice, as an op of its own or as a composite op."""
    file = FileBuilder()
    x = file.input((1, 4))
    for _ in range(2):
        if composite is None:
            x = file.op("CALL", [x], (1, 4), subgraph=1)
            continue
        x = file.op("STABLEHLO_COMPOSITE", [x], (1, 4))
        options: Any = schema.StableHLOCompositeOptionsT()
        options.name, options.decompositionSubgraphIndex = composite, 1
        options.compositeAttributes = [*flexbuffers.Dumps({})]
        file.graph.operators[-1].builtinOptions2Type = schema.BuiltinOptions2.StableHLOCompositeOptions
        file.graph.operators[-1].builtinOptions2 = options
    file.finish(x)
    file.add_subgraph("inner")
    y = file.op("FULLY_CONNECTED", [file.input((1, 4)), file.weights(4, 4), -1], (1, 4))
    return file.finish(file.op("TANH", [y], (1, 4)))


@pytest.mark.parametrize("composite", [None, "my.layer"])
def test_a_called_subgraph_stands_in_the_place_of_the_call(composite: str | None) -> None:
    read = read_tflite(calling(composite))
    assert ops_of(read) == [FullyConnected(4), Unary(UnaryKind.TANH)] * 2
    if composite:
        assert_runs_as_read(calling(composite), read)


def test_a_composite_op_without_a_subgraph_has_its_own_name() -> None:
    file = FileBuilder()
    x = file.op("STABLEHLO_COMPOSITE", [file.input((1, 4))], (1, 4))
    options: Any = schema.StableHLOCompositeOptionsT()
    options.name, options.decompositionSubgraphIndex = "my.layer", 7
    file.graph.operators[-1].builtinOptions2Type = schema.BuiltinOptions2.StableHLOCompositeOptions
    file.graph.operators[-1].builtinOptions2 = options
    (node,) = read_tflite(file.finish(x)).opaque_nodes
    assert node.op.operation == "my.layer"


def test_a_subgraph_that_calls_itself_is_left_as_it_is() -> None:
    file = FileBuilder()
    file.finish(file.op("CALL", [file.input((1, 4))], (1, 4), subgraph=1))
    file.add_subgraph("inner")
    read = read_tflite(file.finish(file.op("CALL", [file.input((1, 4))], (1, 4), subgraph=1)))
    assert [node.op.operation for node in read.opaque_nodes] == ["CALL"]


def test_large_files_keep_their_weights_behind_the_flatbuffer() -> None:
    file = FileBuilder()
    y = file.conv(file.input((1, 4, 4, 3)), (1, 4, 4, 5), (5, 1, 1, 3))
    kernel = file.model.buffers[1]
    kernel.data, kernel.offset, kernel.size = None, 4096, 60
    content = file.finish(y)
    content += bytes(4096 - len(content)) + np.ones(15, np.float32).tobytes()
    read = read_tflite(content)
    assert ops_of(read) == [Conv2d(5, batch_norm=False)]
    with pytest.raises(FormatError, match="truncated or corrupt"):
        read_tflite(content[:-1])


# Errors


def test_all_contradictions_of_a_file_are_told_at_once_the_most_frequent_first() -> None:
    file = FileBuilder()
    x = file.input((1, 8, 8, 3))
    y = file.op("RELU", [x], (1, 8, 9, 3))
    for side in (9, 10):
        y = file.conv(y, (1, side, side, 3), (3, 1, 1, 3))
    with pytest.raises(FormatError, match=r"^op 1 \(CONV_2D\): it computes .*1 more of its kind.*; op 0 \(RELU\): "):
        read_tflite(file.finish(y))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04" + bytes(60), "zip archive"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "web page"),
        (bytes(range(100)), "identifier TFL3 is missing.*decrypt"),
    ],
)
def test_other_files_under_the_name_are_told_apart(content: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=rf"not a \.tflite file: .*{message}"):
        read_tflite(content)
