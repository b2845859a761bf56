"""What people's own .onnx files hold: idioms of exporters, layouts, constants that fold, integers, what is foreign."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from netlathe.archspace.errors import FormatError
from netlathe.archspace.forms.onnx import read_onnx
from netlathe.archspace.forms.structure import nchw
from netlathe.archspace.graph import Graph
from netlathe.archspace.ops import (
    ELU,
    Activation,
    ActivationKind,
    Add,
    ArgMax,
    BatchNorm,
    Cast,
    Clip,
    Concat,
    Constant,
    Conv2d,
    DepthToSpace,
    Dequantize,
    Div,
    DType,
    FullyConnected,
    Gather,
    Gelu,
    GlobalAvgPool,
    GroupNorm,
    Interpolation,
    L2Norm,
    LayerNorm,
    LeakyReLU,
    LocalResponseNorm,
    MatMul,
    Maximum,
    Minimum,
    Mul,
    Op,
    Opaque,
    Pad,
    PadAxes,
    Padding,
    PadMode,
    Pool2d,
    Pow,
    PReLU,
    Quantize,
    Reduce,
    ReduceKind,
    Reshape,
    Resize,
    Slice,
    Softmax,
    SpaceToDepth,
    Split,
    Sub,
    Tile,
    Transpose,
    TransposeConv2d,
    Unary,
    UnaryKind,
)

IMAGE = (1, 4, 8, 8)
WEIGHTS = np.zeros((6, 4, 3, 3), np.float32)
N = helper.make_node


def arrays_of(**constants: Any) -> list[TensorProto]:
    arrays = {name: np.asarray(value) for name, value in constants.items()}
    return [
        numpy_helper.from_array(a.astype(np.float32) if a.dtype == np.float64 else a, name)
        for name, a in arrays.items()
    ]


def model_of(
    nodes: list[NodeProto], *shapes: tuple[Any, ...], opset: int = 17, dtype: int = TensorProto.FLOAT,
    outputs: tuple[str, ...] = ("y",), **constants: Any,
) -> bytes:  # fmt: skip
    """A model of inputs x (x0, x1, ... where there are several) with constants, float32 unless they are integers."""
    names = ["x"] if len(shapes) == 1 else [f"x{index}" for index in range(len(shapes))]
    inputs = [helper.make_tensor_value_info(n, dtype, shape) for n, shape in zip(names, shapes, strict=True)]
    given = [helper.make_empty_tensor_value_info(name) for name in outputs]
    body = helper.make_graph(nodes, "foreign", inputs, given, arrays_of(**constants))
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return bytes(helper.make_model(body, opset_imports=imports, ir_version=8).SerializeToString())


def run(content: bytes, dtype: Any = np.float32) -> list[tuple[int, ...]]:
    """The shapes that ONNX Runtime gives, which also says that the model is one."""
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    feeds = {value.name: np.ones(value.shape, dtype) for value in session.get_inputs()}
    return [np.shape(found) for found in session.run(None, feeds)]


def read(content: bytes, dtype: Any = np.float32) -> Graph:
    """The graph, whose results have the shapes that ONNX Runtime gives, in the file's order or in the graph's."""
    graph = read_onnx(content)
    for found, shape in zip(run(content, dtype), graph.output_shapes, strict=True):
        same = len(shape) <= 4 and found in (shape, nchw(shape), (shape[0], shape[-1], *shape[1:-1]))
        moved = sorted(n for n in found if n != 1) == sorted(n for n in shape if n != 1)
        assert same or (moved and (len(found) != len(shape) or len(found) > 4)), f"{found} in the file, {shape} here"
    return graph


def ops_of(graph: Graph) -> list[Op]:
    return [node.op for node in graph.nodes]


@pytest.mark.parametrize(
    ("node", "shape", "constants", "expected"),
    [
        (N("Sub", ["x", "c"], ["y"]), IMAGE, {"c": np.ones((4, 1, 1))}, [Constant((4,)), Sub()]),
        (N("Div", ["x", "c"], ["y"]), IMAGE, {"c": 2.0}, [Constant((1,)), Div()]),
        (N("Mul", ["c", "x"], ["y"]), IMAGE, {"c": np.ones((1, 4, 1, 8))}, [Constant((8, 4)), Mul()]),
        (N("Add", ["x", "c"], ["y"]), (1, 4), {"c": np.ones((3, 1, 4))}, [Reshape((1, 4)), Constant((3, 1, 4)), Add()]),
        (N("Max", ["x", "c"], ["y"]), IMAGE, {"c": 0.5}, [Constant((1,)), Maximum()]),
        (N("Min", ["x", "c"], ["y"]), IMAGE, {"c": 0.5}, [Constant((1,)), Minimum()]),
        (N("Pow", ["x", "c"], ["y"]), IMAGE, {"c": 3.0}, [Constant((1,)), Pow()]),
        (N("Pow", ["x", "c"], ["y"]), IMAGE, {"c": 2.0}, [Unary(UnaryKind.SQUARE)]),
        (N("Sum", ["x", "x", "x"], ["y"]), IMAGE, {}, [Add(), Add()]),
        (N("Tanh", ["x"], ["y"]), IMAGE, {}, [Unary(UnaryKind.TANH)]),
        (N("Clip", ["x", "a", "b"], ["y"]), IMAGE, {"a": -1.0, "b": 1.0}, [Clip(-1.0, 1.0)]),
        (N("LeakyRelu", ["x"], ["y"], alpha=0.25), IMAGE, {}, [LeakyReLU(0.25)]),
        (N("Elu", ["x"], ["y"], alpha=0.5), IMAGE, {}, [ELU(0.5)]),
        (N("PRelu", ["x", "s"], ["y"]), IMAGE, {"s": np.ones((4, 1, 1))}, [PReLU((4,))]),
        (N("HardSigmoid", ["x"], ["y"], alpha=0.25), IMAGE, {}, [Activation(ActivationKind.HARD_SIGMOID, 0.25)]),
        (N("BatchNormalization", ["x", *"vvvv"], ["y"]), IMAGE, {"v": np.ones(4)}, [BatchNorm()]),
        (N("BatchNormalization", ["x", *"vvvv"], ["y"]), (2, 4), {"v": np.ones(4)}, [BatchNorm()]),
        (N("InstanceNormalization", ["x", "v", "v"], ["y"]), IMAGE, {"v": np.ones(4)}, [GroupNorm(4)]),
        (N("LayerNormalization", ["x", "v", "v"], ["y"]), (2, 5, 4), {"v": np.ones(4)}, [LayerNorm()]),
        (N("LRN", ["x"], ["y"], size=5), IMAGE, {}, [LocalResponseNorm(5)]),
        (N("LpNormalization", ["x"], ["y"], axis=1), IMAGE, {}, [L2Norm(-1)]),
        (N("Softmax", ["x"], ["y"], axis=1), IMAGE, {}, [Softmax()]),
        (N("Softmax", ["x"], ["y"], axis=2), IMAGE, {}, [Softmax(1)]),
        (N("LogSoftmax", ["x"], ["y"]), (2, 4), {}, [Softmax(), Unary(UnaryKind.LOG)]),
        (
            N("Concat", ["x", "x", "c"], ["y"], axis=2), IMAGE, {"c": np.ones(IMAGE)},
            [Constant((1, 8, 8, 4)), Concat(1)],
        ),
        (
            N("Slice", ["x", "s", "e", "a"], ["y"]), IMAGE, {"s": [1], "e": [3], "a": [1]},
            [Slice((0, 0, 0, 1), (1, 8, 8, 2))],
        ),
        (
            N("Slice", ["x", "s", "e", "a", "t"], ["y"]), IMAGE, {"s": [7], "e": [-9], "a": [2], "t": [-2]},
            [Slice((0, 7, 0, 0), (1, 4, 8, 4), (1, -2, 1, 1))],
        ),
        (N("Gather", ["x", "i"], ["y"], axis=1), IMAGE, {"i": 2}, [Slice((0, 0, 0, 2), (1, 8, 8, 1)), Reshape((8, 8))]),
        (
            N("Gather", ["x", "i"], ["y"], axis=1), IMAGE, {"i": [2, 1, 0]},
            [Slice((0, 0, 0, 2), (1, 8, 8, 3), (1, 1, 1, -1))],
        ),
        (N("Gather", ["x", "i"], ["y"], axis=1), (1, 4), {"i": [[0, 1], [2, 3]]}, [Reshape((2, 2))]),
        (
            N("Gather", ["x", "i"], ["y"]), (6, 5), {"i": [[1], [3], [5]]},
            [Slice((1, 0), (3, 5), (2, 1)), Reshape((1, 5))],
        ),
        (N("Gather", ["x", "i"], ["y"], axis=1), IMAGE, {"i": [2, 0, 1]}, [Constant((3,), DType.INT64), Gather(-1)]),
        (N("Expand", ["x", "s"], ["y"]), (1, 4, 1, 1), {"s": [1, 1, 8, 8]}, [Tile((1, 8, 8, 1))]),
        (N("Tile", ["x", "s"], ["y"]), IMAGE, {"s": [1, 2, 1, 1]}, [Tile((1, 1, 1, 2))]),
        (N("Transpose", ["x"], ["y"], perm=[0, 2, 1]), (2, 3, 5), {}, [Transpose((0, 2, 1))]),
        (N("Transpose", ["x"], ["y"], perm=[0, 1, 3, 2]), IMAGE, {}, [Transpose((0, 3, 2, 1))]),
        (
            N("Pad", ["x", "p"], ["y"]), IMAGE, {"p": [0, 1, 0, 0, 0, 2, 0, 0]},
            [PadAxes(((0, 0), (0, 0), (0, 0), (1, 2)))],
        ),
        (
            N("Pad", ["x", "p"], ["y"], mode="reflect"), IMAGE, {"p": [0, 0, 1, 2, 0, 0, 3, 4]},
            [PadAxes(((0, 0), (1, 3), (2, 4), (0, 0)), PadMode.REFLECT)],
        ),
        (
            N("Pad", ["x", "p"], ["y"]), IMAGE, {"p": [0, 0, -1, 0, 0, 0, 1, 0]},
            [Slice((0, 1, 0, 0), (1, 7, 8, 4)), Pad((0, 1), (0, 0))],
        ),
        (N("ReduceMean", ["x"], ["y"], axes=[1]), IMAGE, {}, [Reduce(ReduceKind.MEAN, (3,), keep_dims=True)]),
        (N("ReduceMax", ["x"], ["y"], axes=[2, 3], keepdims=0), IMAGE, {}, [Reduce(ReduceKind.MAX, (1, 2))]),
        (N("ReduceL2", ["x"], ["y"], axes=[-1]), (2, 4), {}, [Reduce(ReduceKind.L2, (1,), keep_dims=True)]),
        (N("ReduceMean", ["x"], ["y"], keepdims=0), IMAGE, {}, [Reduce(ReduceKind.MEAN, (0, 1, 2, 3))]),
        (N("GlobalMaxPool", ["x"], ["y"]), IMAGE, {}, [Reduce(ReduceKind.MAX, (1, 2), keep_dims=True)]),
        (N("ArgMax", ["x"], ["y"], axis=1), IMAGE, {}, [ArgMax(-1, keep_dims=True)]),
        (N("DepthToSpace", ["x"], ["y"], blocksize=2), IMAGE, {}, [DepthToSpace(2)]),
        (N("DepthToSpace", ["x"], ["y"], blocksize=2, mode="CRD"), IMAGE, {}, [DepthToSpace(2, pixel_shuffle=True)]),
        (N("SpaceToDepth", ["x"], ["y"], blocksize=2), IMAGE, {}, [SpaceToDepth(2)]),
        (
            N("Resize", ["x", "", "s"], ["y"], mode="linear"), IMAGE, {"s": np.float32([1, 1, 2, 3])},
            [Resize((16, 24), Interpolation.BILINEAR, half_pixel=True)],
        ),
        (
            N("Resize", ["x", "", "", "s"], ["y"], coordinate_transformation_mode="asymmetric"), IMAGE,
            {"s": [1, 4, 5, 7]}, [Resize((5, 7), Interpolation.NEAREST)],
        ),
        (
            N("Conv", ["x", "w"], ["y"], dilations=[2, 2], pads=[2, 2, 2, 2]), IMAGE, {"w": WEIGHTS},
            [Conv2d(6, (3, 3), batch_norm=False, dilation=(2, 2))],
        ),
        (
            N("Conv", ["x", "w"], ["y"], auto_pad="SAME_LOWER", strides=[2, 2]), IMAGE, {"w": WEIGHTS},
            [Pad((1, 0), (1, 0)), Conv2d(6, (3, 3), (2, 2), padding=Padding.VALID, batch_norm=False)],
        ),
        (
            N("Conv", ["x", "w"], ["y"], pads=[1, 1]), (1, 4, 9), {"w": np.zeros((6, 4, 3))},
            [Conv2d(6, (1, 3), batch_norm=False)],
        ),
        (
            N("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1]), IMAGE,
            {"w": np.zeros((4, 5, 3, 3))}, [TransposeConv2d(5, (3, 3), (2, 2), height=(1, 0), width=(1, 0))],
        ),
        (
            N("MaxPool", ["x"], ["y"], kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1), IMAGE, {},
            [Pool2d("max", (3, 3), (2, 2))],
        ),
        (
            N("AveragePool", ["x"], ["y"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]), IMAGE, {},
            [Pool2d("avg", (3, 3), (2, 2), Padding.VALID, ((1, 1), (1, 1)))],
        ),
        (
            N("AveragePool", ["x"], ["y"], kernel_shape=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1), IMAGE, {},
            [Pad((1, 1), (1, 1)), Pool2d("avg", (2, 2), padding=Padding.VALID)],
        ),
        (N("MatMul", ["x", "w"], ["y"]), (2, 5, 4), {"w": np.zeros((4, 7))}, [FullyConnected(7)]),
        (N("MatMul", ["x", "w"], ["y"]), (2, 5, 4), {"w": np.zeros((2, 4, 7))}, [Constant((2, 4, 7)), MatMul()]),
        (
            N("Gemm", ["x", "w", "b"], ["y"], alpha=0.5, beta=2.0), (2, 4), {"w": np.zeros((4, 7)), "b": 1.0},
            [FullyConnected(7)],
        ),
        (
            N("Gemm", ["x", "w"], ["y"], transA=1, transB=1), (4, 2), {"w": np.zeros((7, 4))},
            [Transpose((1, 0)), FullyConnected(7)],
        ),
        (N("Reshape", ["x", "s"], ["y"]), IMAGE, {"s": [1, 2, 2, 8, 8]}, [Reshape((8, 8, 2, 2))]),
        (N("Reshape", ["x", "s"], ["y"]), IMAGE, {"s": [0, 0, -1]}, [Reshape((64, 4))]),
        (N("Reshape", ["x", "s"], ["y"]), (2, 6), {"s": [3, 4]}, [Reshape((3, 4), whole=True)]),
        (N("Cast", ["x"], ["y"], to=TensorProto.FLOAT16), IMAGE, {}, [Cast(DType.FLOAT16)]),
    ],
    ids=lambda value: value.op_type if isinstance(value, NodeProto) else "",
)  # fmt: skip
def test_an_op_is_read_in_the_graphs_layout(
    node: NodeProto, shape: tuple[int, ...], constants: dict[str, Any], expected: list[Op]
) -> None:
    assert ops_of(read(model_of([node], shape, **constants))) == expected


@pytest.mark.parametrize(
    ("node", "opset", "expected"),
    [
        (N("Upsample", ["x"], ["y"], scales=[1.0, 1.0, 2.0, 2.0]), 7, [Resize((16, 16), Interpolation.NEAREST)]),
        (N("Slice", ["x"], ["y"], starts=[1], ends=[3], axes=[1]), 9, [Slice((0, 0, 0, 1), (1, 8, 8, 2))]),
        (N("Pad", ["x"], ["y"], pads=[0, 0, 1, 1, 0, 0, 1, 1]), 10, [Pad((1, 1), (1, 1))]),
        (N("Clip", ["x"], ["y"], min=0.0, max=6.0), 7, [Activation(ActivationKind.RELU6)]),
        (N("Unsqueeze", ["x"], ["y"], axes=[0]), 11, [Reshape((1, 8, 8, 4), whole=False)]),
        (N("Softmax", ["x"], ["y"], axis=1), 11, [Reshape((256,)), Softmax(), Reshape((8, 8, 4))]),
        (N("Split", ["x"], ["y", "rest"], axis=1, split=[1, 3]), 11, [Split((1, 3), -1)]),
        (N("Gelu", ["x"], ["y"], approximate="tanh"), 20, [Gelu(approximate=True)]),
        (N("ReduceSum", ["x", "a"], ["y"], keepdims=0), 13, [Reduce(ReduceKind.SUM, (3,))]),
    ],
    ids=lambda value: value.op_type if isinstance(value, NodeProto) else "",
)  # fmt: skip
def test_an_op_of_an_older_or_newer_opset_is_read(node: NodeProto, opset: int, expected: list[Op]) -> None:
    found = read_onnx(model_of([node], IMAGE, opset=opset, a=[1]))
    if node.op_type == "Unsqueeze":
        assert found.output_shape == (1, 1, 8, 8, 4) or found.output_shape == (1, 1, 4, 8, 8)
    else:
        assert ops_of(found) == expected
        run(model_of([node], IMAGE, opset=opset, a=[1]))


def test_weights_may_stand_among_the_inputs() -> None:
    model = onnx.load_from_string(model_of([N("Conv", ["x", "w"], ["y"])], IMAGE, opset=8, w=WEIGHTS))
    model.ir_version = 3
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, WEIGHTS.shape))
    graph = read(model.SerializeToString())
    assert graph.inputs == ((1, 8, 8, 4),)
    assert ops_of(graph) == [Conv2d(6, (3, 3), padding=Padding.VALID, batch_norm=False)]


# Layouts


def test_a_transpose_that_brings_an_nhwc_image_to_a_convolution_leaves_no_trace() -> None:
    nodes = [
        N("Sub", ["x", "mean"], ["s"]),
        N("Div", ["s", "c"], ["d"]),
        N("Transpose", ["d"], ["t"], perm=[0, 3, 1, 2]),
        N("Conv", ["t", "w"], ["v"], pads=[1, 1, 1, 1]),
        N("Transpose", ["v"], ["y"], perm=[0, 2, 3, 1]),
    ]
    graph = read(model_of(nodes, (1, 8, 8, 4), mean=np.ones(4), c=127.5, w=WEIGHTS))
    assert graph.inputs == ((1, 8, 8, 4),)
    assert graph.output_shapes == ((1, 8, 8, 6),)
    assert ops_of(graph) == [Constant((4,)), Sub(), Constant((1,)), Div(), Conv2d(6, (3, 3), batch_norm=False)]


def test_a_layer_norm_over_channels_between_transposes_is_one_op() -> None:
    nodes = [
        N("Conv", ["x", "w"], ["v"]),
        N("Transpose", ["v"], ["a"], perm=[0, 2, 3, 1]),
        N("LayerNormalization", ["a", "s", "s"], ["b"]),
        N("MatMul", ["b", "m"], ["c"]),
        N("Add", ["bias", "c"], ["d"]),
        N("Transpose", ["d"], ["y"], perm=[0, 3, 1, 2]),
    ]
    content = model_of(nodes, IMAGE, w=WEIGHTS, s=np.ones(6), m=np.zeros((6, 12)), bias=np.ones(12))
    graph = read(content)
    assert ops_of(graph)[1:] == [LayerNorm(), FullyConnected(12)]
    assert graph.macs == 6 * 6 * (6 * 36 + 6 * 12)


def test_channel_shuffle_is_a_real_transpose_of_channels() -> None:
    nodes = [
        N("Reshape", ["x", "apart"], ["a"]),
        N("Transpose", ["a"], ["b"], perm=[0, 2, 1, 3, 4]),
        N("Reshape", ["b", "together"], ["c"]),
        N("Conv", ["c", "w"], ["y"]),
    ]
    graph = read(model_of(nodes, IMAGE, apart=[1, 2, 2, 8, 8], together=[1, 4, 8, 8], w=WEIGHTS))
    assert ops_of(graph)[:3] == [Reshape((8, 8, 2, 2)), Transpose((0, 1, 2, 4, 3)), Reshape((8, 8, 4))]


def attention(transpose_keys: tuple[int, ...]) -> list[NodeProto]:
    return [
        *(N("MatMul", ["x", "w"], [f"{name}0"]) for name in "qkv"),
        *(N("Reshape", [f"{name}0", "apart"], [f"{name}1"]) for name in "qkv"),
        *(N("Transpose", [f"{name}1"], [name], perm=[0, 2, 1, 3]) for name in "qv"),
        N("Transpose", ["k1"], ["k"], perm=transpose_keys),
        N("MatMul", ["q", "k"], ["scores"]),
        N("Softmax", ["scores"], ["weights"], axis=-1),
        N("MatMul", ["weights", "v"], ["mixed"]),
        N("Transpose", ["mixed"], ["back"], perm=[0, 2, 1, 3]),
        N("Reshape", ["back", "together"], ["y"]),
    ]


def test_attention_keeps_its_axes_and_counts_both_products() -> None:
    content = model_of(
        attention((0, 2, 3, 1)), (1, 16, 12), w=np.zeros((12, 12)), apart=[1, 16, 3, 4], together=[1, 16, 12]
    )
    graph = read(content)
    kinds = [node.op.kind for node in graph.nodes]
    assert kinds.count("matmul") == 2
    assert kinds.count("transpose") == 4  # queries, keys, values, and back
    assert graph.macs == 3 * 16 * 12 * 12 + 2 * 3 * 16 * 16 * 4
    assert graph.output_shape == (1, 16, 12)


@pytest.mark.parametrize(
    ("equation", "shapes", "macs"),
    [
        ("bhid,bhjd->bhij", ((2, 3, 4, 5), (2, 3, 6, 5)), 2 * 3 * 4 * 6 * 5),
        ("bihd,bjhd->bhij", ((2, 4, 3, 5), (2, 6, 3, 5)), 2 * 3 * 4 * 6 * 5),
        ("nchw,cd->ndhw", ((1, 4, 8, 8), (4, 6)), 64 * 24),
        ("ij,jk->ki", ((3, 4), (4, 5)), 60),
        ("bij,bjkl->bkil", ((2, 3, 4), (2, 4, 5, 6)), 2 * 3 * 4 * 30),
    ],
)
def test_an_einsum_of_two_is_a_matrix_product(equation: str, shapes: tuple[tuple[int, ...], ...], macs: int) -> None:
    graph = read(model_of([N("Einsum", ["x0", "x1"], ["y"], equation=equation)], *shapes))
    assert graph.macs == macs
    assert {node.op.kind for node in graph.nodes} <= {"matmul", "reshape", "transpose"}


def test_an_einsum_that_is_no_matrix_product_is_opaque() -> None:
    graph = read(model_of([N("Einsum", ["x0", "x1"], ["y"], equation="ij,jk->k")], (3, 4), (4, 5)))
    assert [node.op.name for node in graph.nodes] == ["Einsum"]


def test_a_flattened_image_goes_into_a_layer_without_a_transpose() -> None:
    nodes = [N("Flatten", ["x"], ["f"]), N("Gemm", ["f", "w"], ["y"])]
    assert ops_of(read(model_of(nodes, IMAGE, w=np.zeros((256, 3))))) == [Reshape((256,)), FullyConnected(3)]


def test_a_squeezed_mean_is_one_op_whatever_squeezes_it() -> None:
    for last in (N("Flatten", ["m"], ["y"]), N("Squeeze", ["m", "a"], ["y"]), N("Reshape", ["m", "s"], ["y"])):
        for first in (N("GlobalAveragePool", ["x"], ["m"]), N("ReduceMean", ["x"], ["m"], axes=[2, 3])):
            graph = read(model_of([first, last], IMAGE, a=[2, 3], s=[1, -1]))
            assert ops_of(graph) == [GlobalAvgPool()], last.op_type


def test_a_sequence_is_an_image_of_height_one() -> None:
    nodes = [
        N("Conv", ["x", "w"], ["a"], pads=[1, 1]),
        N("BatchNormalization", ["a", *"vvvv"], ["b"]),
        N("Relu", ["b"], ["c"]),
        N("MaxPool", ["c"], ["d"], kernel_shape=[2], strides=[2]),
        N("GlobalAveragePool", ["d"], ["y"]),
    ]
    graph = read(model_of(nodes, (1, 4, 10), w=np.zeros((6, 4, 3)), v=np.ones(6)))
    assert graph.inputs == ((1, 1, 10, 4),)
    assert ops_of(graph) == [
        Conv2d(6, (1, 3)), Activation(ActivationKind.RELU), Pool2d("max", (1, 2), (1, 2)),
        GlobalAvgPool(keep_dims=True),
    ]  # fmt: skip
    assert graph.macs == 10 * 6 * 4 * 3


# Patterns


GELUS = {
    "torch": [
        N("Div", ["x", "root2"], ["a"]), N("Erf", ["a"], ["b"]), N("Add", ["b", "one"], ["c"]),
        N("Mul", ["x", "c"], ["d"]), N("Mul", ["d", "half"], ["y"]),
    ],
    "half first": [
        N("Mul", ["x", "half"], ["h"]), N("Mul", ["x", "rsqrt2"], ["a"]), N("Erf", ["a"], ["b"]),
        N("Add", ["one", "b"], ["c"]), N("Mul", ["h", "c"], ["y"]),
    ],
    "half in between": [
        N("Div", ["x", "root2"], ["a"]), N("Erf", ["a"], ["b"]), N("Add", ["b", "one"], ["c"]),
        N("Mul", ["c", "half"], ["d"]), N("Mul", ["d", "x"], ["y"]),
    ],
}  # fmt: skip


@pytest.mark.parametrize("form", GELUS)
def test_gelu_by_erf_is_one_op(form: str) -> None:
    graph = read(model_of(GELUS[form], IMAGE, root2=math.sqrt(2), rsqrt2=math.sqrt(0.5), one=1.0, half=0.5))
    assert ops_of(graph) == [Gelu()]


def test_gelu_by_tanh_is_one_op() -> None:
    nodes = [
        N("Pow", ["x", "three"], ["a"]), N("Mul", ["a", "cube"], ["b"]), N("Add", ["x", "b"], ["c"]),
        N("Mul", ["c", "scale"], ["d"]), N("Tanh", ["d"], ["e"]), N("Add", ["e", "one"], ["f"]),
        N("Mul", ["x", "half"], ["g"]), N("Mul", ["g", "f"], ["y"]),
    ]  # fmt: skip
    constants = {"three": 3.0, "cube": 0.044715, "scale": math.sqrt(2 / math.pi), "one": 1.0, "half": 0.5}
    assert ops_of(read(model_of(nodes, IMAGE, **constants))) == [Gelu(approximate=True)]


def test_an_erf_that_is_no_gelu_stays_what_it_is() -> None:
    nodes = [
        N("Div", ["x", "c"], ["a"]),
        N("Erf", ["a"], ["b"]),
        N("Add", ["b", "c"], ["d"]),
        N("Mul", ["x", "d"], ["y"]),
    ]
    assert Gelu() not in ops_of(read(model_of(nodes, IMAGE, c=1.0)))


def decomposed_norm(axis: int, last: str = "y") -> list[NodeProto]:
    return [
        N("ReduceMean", ["x"], ["m"], axes=[axis]), N("Sub", ["x", "m"], ["d"]), N("Pow", ["d", "two"], ["s"]),
        N("ReduceMean", ["s"], ["v"], axes=[axis]), N("Add", ["v", "eps"], ["e"]), N("Sqrt", ["e"], ["r"]),
        N("Div", ["d", "r"], ["n"]), N("Mul", ["n", "scale"], ["t"]), N("Add", ["t", "scale"], [last]),
    ]  # fmt: skip


def test_a_decomposed_layer_norm_is_one_op() -> None:
    graph = read(model_of(decomposed_norm(-1), (2, 5, 4), two=2.0, eps=1e-6, scale=np.ones(4)))
    (op,) = ops_of(graph)
    assert isinstance(op, LayerNorm)
    assert op.affine
    assert op.epsilon == pytest.approx(1e-6)


def test_a_normalisation_over_another_axis_is_read_op_by_op() -> None:
    graph = read(model_of(decomposed_norm(1), (2, 5, 4), two=2.0, eps=1e-6, scale=np.ones(4)))
    assert [node.op.kind for node in graph.nodes if not isinstance(node.op, Constant)] == [
        "reduce", "sub", "unary", "reduce", "add", "unary", "div", "mul", "add",
    ]  # fmt: skip


def test_a_pattern_whose_inside_is_used_elsewhere_stays_apart() -> None:
    content = model_of(decomposed_norm(-1), (2, 5, 4), outputs=("y", "r"), two=2.0, eps=1e-6, scale=np.ones(4))
    assert not any(isinstance(op, LayerNorm) for op in ops_of(read(content)))


def test_a_group_norm_by_instance_norm_of_a_reshaped_image_is_one_op() -> None:
    nodes = [
        N("Reshape", ["x", "apart"], ["a"]),
        N("InstanceNormalization", ["a", "s", "z"], ["b"]),
        N("Reshape", ["b", "back"], ["c"]),
        N("Mul", ["c", "v"], ["d"]),
        N("Add", ["d", "v"], ["y"]),
    ]
    constants = {"s": np.ones(2), "z": np.zeros(2), "v": np.ones((4, 1, 1)), "apart": [1, 2, -1], "back": [1, 4, 8, 8]}
    assert ops_of(read(model_of(nodes, IMAGE, **constants))) == [GroupNorm(2)]


def test_a_factor_and_an_offset_per_channel_belong_to_the_convolution_before() -> None:
    nodes = [N("Conv", ["x", "w"], ["a"]), N("Mul", ["a", "c"], ["b"]), N("Add", ["c", "b"], ["y"])]
    graph = read(model_of(nodes, IMAGE, w=WEIGHTS, c=np.ones((1, 6, 1, 1))))
    assert ops_of(graph) == [Conv2d(6, (3, 3), padding=Padding.VALID, batch_norm=False)]


def test_a_gemm_of_computed_matrices_is_a_product_and_a_sum() -> None:
    graph = read(model_of([N("Gemm", ["x0", "x1", "x2"], ["y"], transB=1)], (3, 4), (5, 4), (5,)))
    assert [node.op for node in graph.nodes if node.op.kind != "reshape"] == [MatMul(transpose_b=True), Add()]
    assert graph.macs == 60


def test_a_bias_behind_a_product_belongs_to_the_layer() -> None:
    nodes = [N("MatMul", ["x", "w"], ["a"]), N("Add", ["a", "b"], ["y"])]
    assert ops_of(read(model_of(nodes, (2, 4), w=np.zeros((4, 3)), b=np.ones(3)))) == [FullyConnected(3)]


# Constants


def test_shape_arithmetic_folds() -> None:
    nodes = [
        N("Shape", ["x"], ["s"]),
        N("Gather", ["s", "first"], ["n"]),
        N("Unsqueeze", ["n", "axis"], ["n1"]),
        N("Concat", ["n1", "rest"], ["to"], axis=0),
        N("Reshape", ["x", "to"], ["y"]),
    ]
    assert ops_of(read(model_of(nodes, IMAGE, first=0, axis=[0], rest=[-1]))) == [Reshape((256,))]


def test_a_branch_on_a_constant_is_the_branch_that_runs() -> None:
    branches = {
        name: helper.make_graph([N(kind, ["x"], [name])], name, [], [helper.make_empty_tensor_value_info(name)])
        for name, kind in (("yes", "Relu"), ("no", "Sigmoid"))
    }
    nodes = [N("If", ["c"], ["y"], then_branch=branches["yes"], else_branch=branches["no"])]
    assert ops_of(read(model_of(nodes, IMAGE, c=np.array(False)))) == [Activation(ActivationKind.SIGMOID)]


def test_weights_that_constants_make_are_weights_of_their_shape() -> None:
    nodes = [N("Transpose", ["w"], ["t"], perm=[3, 2, 0, 1]), N("Conv", ["x", "t"], ["y"])]
    graph = read(model_of(nodes, IMAGE, w=np.zeros((3, 3, 4, 256))))
    assert ops_of(graph) == [Conv2d(256, (3, 3), padding=Padding.VALID, batch_norm=False)]


def test_what_no_output_needs_is_left_out() -> None:
    nodes = [N("Relu", ["x0"], ["y"]), N("LSTM", ["x1", "nowhere", "nowhere"], ["z"])]
    graph = read_onnx(model_of(nodes, IMAGE, (1, 2, 3)))
    assert graph.inputs == ((1, 8, 8, 4),)
    assert ops_of(graph) == [Activation(ActivationKind.RELU)]


# Sizes


def test_an_open_batch_is_one() -> None:
    assert read_onnx(model_of([N("Relu", ["x"], ["y"])], ("n", 4, 8, 8))).inputs == ((1, 8, 8, 4),)


def test_open_sizes_are_asked_for_all_at_once_and_may_be_given() -> None:
    content = model_of([N("Add", ["x0", "x1"], ["y"])], (1, 3, "h", "w"), ("n", 3, "h", 7))
    with pytest.raises(FormatError, match=r"'x0' has .*'x1' has .*--shape x0=1x3x224x224 --shape x1=1x3x224x7"):
        read_onnx(content)
    shapes = {"x0": (1, 3, 6, 7), "x1": (1, 3, 6, 7)}
    assert read_onnx(content, shapes=shapes).output_shape == (1, 6, 7, 3)
    with pytest.raises(FormatError, match=r"which .* does not fit"):
        read_onnx(content, shapes={**shapes, "x1": (1, 3, 6, 8)})
    with pytest.raises(FormatError, match=r"given for 'z', but the model's inputs are x0, x1"):
        read_onnx(content, shapes={"z": (1,)})


def test_a_single_inputs_shape_needs_no_name() -> None:
    content = model_of([N("Relu", ["x"], ["y"])], ("n", 3, "h", "w"))
    assert read_onnx(content, shapes={"": (2, 3, 5, 5)}).inputs == ((2, 5, 5, 3),)


# Dtypes


def test_a_float16_model_has_float16_tensors() -> None:
    nodes = [N("Conv", ["x", "w"], ["a"]), N("Relu", ["a"], ["y"])]
    content = model_of(nodes, IMAGE, dtype=TensorProto.FLOAT16, w=np.zeros((6, 4, 3, 3), np.float16))
    graph = read(content, np.float16)
    assert {*graph.dtypes} == {DType.FLOAT16}
    assert graph.macs == 36 * 6 * 36


def quantized(name: str, real: str, scale: str = "s", zero: str = "z") -> list[NodeProto]:
    return [
        N("QuantizeLinear", [real, scale, zero], [f"{name}_q"]),
        N("DequantizeLinear", [f"{name}_q", scale, zero], [name]),
    ]


def test_ops_between_dequantize_and_quantize_run_on_integers() -> None:
    nodes = [
        *quantized("a", "x"),
        N("DequantizeLinear", ["w", "s", "z"], ["wr"]),
        N("Conv", ["a", "wr"], ["b"], pads=[1, 1, 1, 1]),
        N("Relu", ["b"], ["c"]),
        *quantized("d", "c"),
        N("Add", ["d", "a"], ["e"]),
        *quantized("y", "e"),
    ]
    graph = read(model_of(nodes, IMAGE, w=np.zeros((4, 4, 3, 3), np.int8), s=0.1, z=np.int8(0)))
    assert ops_of(graph) == [
        Quantize(DType.INT8), Conv2d(4, (3, 3), batch_norm=False, weights=DType.INT8), Activation(ActivationKind.RELU),
        Add(), Dequantize(),
    ]  # fmt: skip
    assert graph.dtypes == (DType.FLOAT32, *[DType.INT8] * 4, DType.FLOAT32)


def test_a_real_op_between_integers_gets_real_values() -> None:
    nodes = [*quantized("a", "x"), N("Sin", ["a"], ["b"]), *quantized("y", "b")]
    graph = read(model_of(nodes, IMAGE, s=0.1, z=np.uint8(0)))
    assert [op.kind for op in ops_of(graph)] == ["quantize", "dequantize", "unary", "quantize", "dequantize"]


def test_ops_on_integers_are_read_with_their_dtypes() -> None:
    nodes = [
        N("QuantizeLinear", ["x", "s", "z"], ["a"]),
        N("QLinearConv", ["a", "s", "z", "w", "s", "z", "s", "z"], ["b"]),
        N("QLinearAdd", ["b", "s", "z", "b", "s", "z", "s", "z"], ["c"], domain="com.microsoft"),
        N("QLinearGlobalAveragePool", ["c", "s", "z", "s", "z"], ["d"], domain="com.microsoft"),
        N("DequantizeLinear", ["d", "s", "z"], ["y"]),
    ]
    graph = read(model_of(nodes, IMAGE, w=np.zeros((6, 4, 3, 3), np.uint8), s=0.1, z=np.uint8(0)))
    assert ops_of(graph) == [
        Quantize(DType.UINT8), Conv2d(6, (3, 3), padding=Padding.VALID, batch_norm=False, weights=DType.UINT8), Add(),
        GlobalAvgPool(keep_dims=True), Dequantize(),
    ]  # fmt: skip
    assert {*graph.dtypes[1:-1]} == {DType.UINT8}


def test_dynamically_quantized_layers_give_sums() -> None:
    nodes = [
        N("DynamicQuantizeLinear", ["x"], ["a", "scale", "zero"]),
        N("MatMulInteger", ["a", "w", "zero"], ["b"]),
        N("Cast", ["b"], ["c"], to=TensorProto.FLOAT),
        N("Mul", ["c", "scale"], ["y"]),
    ]
    graph = read(model_of(nodes, (2, 4), w=np.zeros((4, 3), np.int8)))
    assert ops_of(graph) == [
        Quantize(DType.UINT8), FullyConnected(3, DType.INT8, gives_sums=True), Cast(DType.FLOAT32), Constant((1,)),
        Mul(),
    ]  # fmt: skip
    assert graph.dtypes[1:3] == (DType.UINT8, DType.INT32)


# What is foreign


def test_an_op_that_netlathe_does_not_have_is_opaque_with_its_shapes() -> None:
    nodes = [N("Conv", ["x", "w"], ["a"]), N("Mish", ["a"], ["b"]), N("Conv", ["b", "v"], ["y"])]
    graph = read(model_of(nodes, IMAGE, opset=18, w=WEIGHTS, v=np.zeros((2, 6, 1, 1))))
    assert ops_of(graph)[1] == Opaque("Mish", ((1, 6, 6, 6),))
    assert graph.output_shape == (1, 6, 6, 2)


def test_an_opaque_op_tells_its_weights_and_dtypes() -> None:
    nodes = [N("LSTM", ["x", "w", "r"], ["a", "b"], hidden_size=5), N("Greater", ["b", "c"], ["y"])]
    graph = read(model_of(nodes, (7, 1, 3), w=np.zeros((1, 20, 3)), r=np.zeros((1, 20, 5)), c=0.0))
    first, second = ops_of(graph)[0], ops_of(graph)[-1]
    assert first == Opaque("LSTM", ((7, 1, 1, 5), (1, 1, 5)), weight_bytes=4 * 160)
    assert isinstance(second, Opaque)
    assert second.dtypes == (DType.BOOL,)


def test_all_that_stands_in_the_way_is_told_at_once_the_most_frequent_first() -> None:
    nodes = [
        N("Foo", ["x"], ["a"], "once", domain="com.example"),
        *(N("NonZero", ["x"], [f"n{i}"], f"zeros{i}") for i in range(3)),
        N("Relu", ["a"], ["b"]),
        *(N("Cast", [f"n{i}"], [f"c{i}"], to=TensorProto.FLOAT) for i in range(3)),
    ]
    content = model_of(nodes, IMAGE, outputs=("b", "c0", "c1", "c2"))
    with pytest.raises(FormatError) as caught:
        read_onnx(content)
    message = str(caught.value)
    assert message.startswith("4 nodes cannot be read: node 1 (NonZero 'zeros0')")
    assert "com.example::Foo 'once'" in message
    assert "Relu" not in message  # what only lacks its input is no blocker of its own


# Files


def with_external_weights(folder: Path) -> Path:
    model = onnx.load_from_string(model_of([N("Conv", ["x", "w"], ["y"])], IMAGE, w=WEIGHTS))
    onnx.save(model, folder / "m.ONNX", save_as_external_data=True, location="m.data", size_threshold=0)
    return folder / "m.ONNX"


def test_weights_in_a_file_beside_the_model_are_known_by_their_shapes(tmp_path: Path) -> None:
    path = with_external_weights(tmp_path)
    assert read_onnx(path).macs == 36 * 6 * 36


def test_a_missing_file_of_weights_is_named(tmp_path: Path) -> None:
    path = with_external_weights(tmp_path)
    (tmp_path / "m.data").unlink()
    with pytest.raises(FormatError, match=r"m\.ONNX: its weights lie in 'm.data', which is missing beside it"):
        read_onnx(path)


def test_sparse_weights_are_known_by_their_shape() -> None:
    model = onnx.load_from_string(model_of([N("Gemm", ["x", "w"], ["y"])], (2, 4)))
    values = numpy_helper.from_array(np.float32([1]), "w")
    indices = numpy_helper.from_array(np.int64([3]), "i")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4, 3]))
    assert ops_of(read(model.SerializeToString())) == [FullyConnected(3)]
