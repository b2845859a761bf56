"""One graph, three forms: torch, LiteRT and onnxruntime compute the same from the same weights."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Literal

import numpy as np
import onnxruntime
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray
from torch import nn

from netlathe.archspace.blocks import Block, ConvBlock, LinearHead, MBConv, Pool, SeparableConv, Skip, Zero
from netlathe.archspace.forms.onnx import write_onnx
from netlathe.archspace.forms.tflite import write_tflite
from netlathe.archspace.forms.torch import TorchGraph, folded_weights
from netlathe.archspace.graph import Graph, GraphBuilder, chain
from netlathe.archspace.ops import (
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
    Softmax,
    Zeros,
)

Array = NDArray[np.float32]
SIZES = ((8, 8), (7, 7), (12, 9))
TOLERANCE = 1e-4  # of the largest value


def randomized(graph: Graph, seed: int = 0) -> TorchGraph:
    """In eval mode, with BatchNorms that have seen something."""
    generator = torch.Generator().manual_seed(seed)
    module = TorchGraph(graph, generator=generator).eval()
    with torch.no_grad():
        for norm in module.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.running_mean.normal_(0, 0.3, generator=generator)
                norm.running_var.uniform_(0.5, 2, generator=generator)
                norm.weight.uniform_(0.5, 2, generator=generator)
                norm.bias.normal_(0, 0.3, generator=generator)
    return module


def to_nchw(x: Array) -> Array:
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if x.ndim == 4 else x


def to_nhwc(x: Array) -> Array:
    return x.transpose(0, 2, 3, 1) if x.ndim == 4 else x


def run_torch(module: TorchGraph, inputs: list[Array]) -> Array:
    with torch.no_grad():
        return to_nhwc(module(*(torch.from_numpy(to_nchw(x)) for x in inputs)).numpy())


def litert(content: bytes) -> Interpreter:
    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    return interpreter


def run_tflite(content: bytes, inputs: list[Array]) -> Array:
    interpreter = litert(content)
    for detail, x in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(detail["index"], x)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def run_onnx(content: bytes, inputs: list[Array]) -> Array:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return to_nhwc(session.run(None, {n: to_nchw(x) for n, x in zip(names, inputs, strict=True)})[0])


def assert_forms_agree(graph: Graph, what: str = "") -> None:
    module = randomized(graph)
    weights = folded_weights(module)
    rng = np.random.default_rng(1)
    inputs = [rng.standard_normal(shape, dtype=np.float32) for shape in graph.inputs]
    expected = run_torch(module, inputs)
    assert expected.shape == graph.output_shape
    for runtime, run, content in (
        ("LiteRT", run_tflite, write_tflite(graph, weights)),
        ("onnxruntime", run_onnx, write_onnx(graph, weights)),
    ):
        found = run(content, inputs)
        assert found.shape == expected.shape, f"{runtime} {what}"
        error = np.abs(found - expected).max()
        assert error <= TOLERANCE * np.abs(expected).max(), f"{runtime} {what}: off by {error}"


WINDOWED: dict[str, Callable[..., Block]] = {
    "mbconv_residual": lambda h, w, **kw: MBConv(4, 4, h, w, expand=3, **kw),
    "mbconv_plain": lambda h, w, **kw: MBConv(4, 4, h, w, expand=3, residual=False, **kw),
    "mbconv_se_residual": lambda h, w, **kw: MBConv(4, 4, h, w, expand=3, se=0.25, **kw),
    "mbconv_se_wider": lambda h, w, **kw: MBConv(3, 5, h, w, expand=1, se=0.5, **kw),
    "conv": lambda h, w, **kw: ConvBlock(3, 5, h, w, **kw),
    "separable": lambda h, w, **kw: SeparableConv(3, 5, h, w, **kw),
}


SETTINGS = [*itertools.product(ActivationKind, ("same", "symmetric"), SIZES)]
"""Activations, paddings and sizes; every fifth of them has each of these at least once."""


def test_a_fifth_of_the_settings_has_each_of_their_values() -> None:
    for some, every in zip(zip(*SETTINGS[::5], strict=True), zip(*SETTINGS, strict=True), strict=True):
        assert {*some} == {*every}


@pytest.mark.parametrize("apart", [5, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kind", WINDOWED)
def test_all_forms_of_a_convolutional_block_agree(kind: str, stride: int, kernel: int, apart: int) -> None:
    for activation, padding, (height, width) in SETTINGS[::apart]:
        make = WINDOWED[kind]
        block = make(height, width, stride=stride, kernel=kernel, activation=activation, padding=padding)
        assert_forms_agree(block.graph(), block.name)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("mode", ["avg", "max"])
def test_all_forms_of_a_pool_agree(mode: str, stride: int) -> None:
    for kernel, (height, width) in itertools.product((1, 2, 3, 5), SIZES):
        block = Pool(mode, 3, height, width, kernel, stride)
        assert_forms_agree(block.graph(), block.name)


@pytest.mark.parametrize(
    "block",
    [
        LinearHead(4, 7, 3, 5),
        Skip(4, 4, 5, 6),
        Skip(4, 6, 5, 6, 2),
        Skip(4, 6, 8, 8, 1),
        Zero(4, 4, 7, 8),
        Zero(4, 6, 7, 8, 2),
        ConvBlock(3, 4, 7, 8, activation=None),
        ConvBlock(3, 4, 7, 8, 2, kernel=1),
        ConvBlock(1, 4, 7, 8, 3, kernel=5),
    ],
    ids=str,
)
@pytest.mark.parametrize("batch", [1, 2])
def test_all_forms_of_a_small_block_agree(block: Block, batch: int) -> None:
    assert_forms_agree(block.graph(batch))


def single(op: Op, *inputs: tuple[int, ...]) -> Graph:
    builder = GraphBuilder(*inputs)
    builder.add("op", op, *range(len(inputs)))
    return builder.build()


RELU6 = Activation(ActivationKind.RELU6)
IMAGE = (2, 6, 5, 4)


@pytest.mark.parametrize(
    "graph",
    [
        single(Conv2d(6, (3, 3), groups=2), IMAGE),
        single(Conv2d(8, (3, 3), groups=4), IMAGE),  # depthwise with a multiplier of 2
        single(Conv2d(6, (3, 2), (2, 1), padding=Padding.VALID, batch_norm=False), IMAGE),
        single(Conv2d(6, (1, 5), (1, 2)), IMAGE),
        single(FullyConnected(3), (2, 5)),
        single(Pool2d("avg", (3, 2), (2, 1), Padding.VALID), IMAGE),
        single(Pool2d("max", (2, 3), (1, 2)), IMAGE),
        single(GlobalAvgPool(keep_dims=True), IMAGE),
        single(GlobalAvgPool(), IMAGE),
        single(Pad((1, 0), (2, 3)), IMAGE),
        single(Add(), IMAGE, IMAGE),
        single(Add(), IMAGE, (2, 1, 1, 4)),
        single(Mul(), IMAGE, (2, 6, 5, 1)),
        single(Mul(), (2, 5), (2, 5)),
        single(Concat(), IMAGE, (2, 6, 5, 3)),
        single(Concat(), (2, 4), (2, 3)),
        single(Softmax(), IMAGE),
        single(Softmax(), (2, 5)),
        single(Reshape((120,)), IMAGE),
        single(Reshape((5, 6, 4)), IMAGE),
        single(Reshape((3, 2, 4)), (2, 24)),
        single(Reshape((4,)), (2, 1, 1, 4)),
        single(Reshape((1, 1, 4)), (2, 4)),
        single(Zeros((3, 3, 2)), IMAGE),
        single(Zeros((7,)), IMAGE),
        *(single(Activation(function), IMAGE) for function in ActivationKind),
        *(single(Activation(function), (2, 5)) for function in ActivationKind),
    ],
    ids=lambda graph: f"{graph.nodes[0].op}-{graph.inputs}",
)
def test_all_forms_of_an_op_agree(graph: Graph) -> None:
    assert_forms_agree(graph)


@pytest.mark.parametrize("activation", ActivationKind)
def test_an_activation_behind_any_op_gives_the_same_in_all_forms(activation: ActivationKind) -> None:
    builder = GraphBuilder(IMAGE)
    x = builder.add("conv", Conv2d(4), 0)
    x = builder.add("conv_act", Activation(activation), x)
    x = builder.add("add", Add(), 0, x)
    x = builder.add("add_act", Activation(activation), x)
    x = builder.add("mul", Mul(), 0, x)
    x = builder.add("mul_act", Activation(activation), x)
    x = builder.add("avg", Pool2d("avg", (2, 2)), x)
    x = builder.add("avg_act", Activation(activation), x)
    x = builder.add("pool", GlobalAvgPool(), x)
    x = builder.add("linear", FullyConnected(5), x)
    builder.add("linear_act", Activation(activation), x)
    assert_forms_agree(builder.build())


@pytest.mark.parametrize("activation", ActivationKind)
def test_a_result_that_is_used_before_its_activation_too_stays_whole(activation: ActivationKind) -> None:
    builder = GraphBuilder(IMAGE)
    x = builder.add("conv", Conv2d(4), 0)
    y = builder.add("act", Activation(activation), x)
    builder.add("add", Add(), x, y)
    assert_forms_agree(builder.build())


def test_a_pad_that_two_convolutions_use_is_done_once_and_for_both() -> None:
    builder = GraphBuilder(IMAGE)
    x = builder.add("pad", Pad((1, 1), (1, 1)), 0)
    left = builder.add("left", Conv2d(4, (3, 3), padding=Padding.VALID), x)
    right = builder.add("right", Conv2d(4, (3, 3), padding=Padding.VALID), x)
    builder.add("add", Add(), left, right)
    assert_forms_agree(builder.build())


def test_a_pad_before_a_padded_convolution_stays_a_pad_of_its_own() -> None:
    builder = GraphBuilder(IMAGE)
    x = builder.add("pad", Pad((1, 1), (0, 2)), 0)
    builder.add("conv", Conv2d(4, (3, 3), (2, 2)), x)
    assert_forms_agree(builder.build())


# Not max behind hard swish: onnxruntime 1.22 takes the zeros for a border there, whatever pads the file says.
@pytest.mark.parametrize(
    ("mode", "activation"),
    [("max", ActivationKind.RELU), ("avg", ActivationKind.RELU), ("avg", ActivationKind.HARD_SWISH)],
)
@pytest.mark.parametrize("border", [(1, 1), (0, 1), (2, 0)])
def test_a_pad_before_a_pool_gives_the_same_in_all_forms(
    mode: Literal["max", "avg"], activation: ActivationKind, border: tuple[int, int]
) -> None:
    builder = GraphBuilder((1, 9, 8, 4))
    x = builder.add("act", Activation(activation), 0)
    x = builder.add("pad", Pad(border, border), x)
    builder.add("pool", Pool2d(mode, (3, 3), (2, 2), Padding.VALID), x)
    assert_forms_agree(builder.build())


def test_a_flattened_image_meets_the_weights_in_nhwc_order_in_all_forms() -> None:
    builder = GraphBuilder(IMAGE)
    x = builder.add("flat", Reshape((120,)), 0)
    builder.add("linear", FullyConnected(3), x)
    assert_forms_agree(builder.build())


def test_zeros_can_be_added_to_what_a_convolution_gives() -> None:
    builder = GraphBuilder(IMAGE)
    x = builder.add("conv", Conv2d(3), 0)
    zeros = builder.add("none", Zeros((6, 5, 3)), 0)
    builder.add("sum", Add(), x, zeros)
    assert_forms_agree(builder.build())


def small_network() -> Graph:
    blocks: list[Block] = [
        ConvBlock(3, 8, 32, 32, 2, activation=ActivationKind.HARD_SWISH),
        SeparableConv(8, 6, 16, 16),
        MBConv(6, 8, 16, 16, 2, expand=3),
        MBConv(8, 8, 8, 8, kernel=5, expand=3, se=0.25, activation=ActivationKind.SWISH),
        Skip(8, 8, 8, 8),
        MBConv(8, 12, 8, 8, 2, kernel=5, activation=ActivationKind.HARD_SWISH, se=0.25, padding="symmetric"),
        Pool("max", 12, 4, 4),
        MBConv(12, 12, 4, 4, expand=2, activation=ActivationKind.RELU),
        ConvBlock(12, 24, 4, 4, kernel=1),
        LinearHead(24, 10, 4, 4),
    ]
    return chain([(f"b{i:02d}", block.graph()) for i, block in enumerate(blocks)])


def test_all_forms_of_a_whole_network_agree() -> None:
    assert_forms_agree(small_network())


@pytest.mark.parametrize(
    "graph",
    [
        small_network(),
        *(make(8, 8, stride=2, kernel=3).graph() for make in WINDOWED.values()),
        MBConv(4, 4, 8, 8, se=0.25, activation=ActivationKind.HARD_SWISH).graph(),
        MBConv(4, 4, 8, 8, 2, activation=ActivationKind.SWISH, padding="symmetric").graph(),
        single(Conv2d(6, (3, 3), groups=2), IMAGE),
        Pool("avg", 4, 8, 8, 3, 2).graph(),
        Pool("max", 4, 8, 8, 3, 2).graph(),
        LinearHead(4, 10, 4, 4).graph(),
    ],
    ids=lambda graph: graph.nodes[-1].name,
)
def test_xnnpack_takes_every_op_of_a_tflite_file(graph: Graph) -> None:
    interpreter = litert(write_tflite(graph))
    operators = interpreter._get_ops_details()
    delegates = [op for op in operators if op["op_name"] == "DELEGATE"]
    assert len(delegates) == 1
    computed = {int(t) for op in operators if op["op_name"] != "DELEGATE" for t in op["outputs"]}
    assert not computed & {int(t) for t in delegates[0]["inputs"]}  # nothing is computed outside for it
    assert [int(t) for t in delegates[0]["outputs"]] == [d["index"] for d in interpreter.get_output_details()]


def test_random_weights_neither_blow_up_nor_fade_over_twenty_blocks() -> None:
    for activation, se in itertools.product(("relu", "relu6", "hard_swish", "swish"), (0, 0.25)):
        blocks = [
            MBConv(8, 8, 8, 8, activation=ActivationKind(activation), se=se, residual=i % 4 > 0) for i in range(20)
        ]
        graph = chain([(f"b{i:02d}", block.graph()) for i, block in enumerate(blocks)])
        x = np.random.default_rng(0).standard_normal(graph.input_shape, dtype=np.float32)
        spread = float(run_tflite(write_tflite(graph), [x]).std())
        assert 0.02 < spread < 5, f"{activation}, se {se}: {spread}"
