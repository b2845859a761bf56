"""The .onnx file: what is written, and what is read back from own, edited, foreign and broken files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from form_contract import BLOCKS, NETWORK, FormContract, without_batch_norm
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from netlathe.archspace.blocks import Block, ConvBlock, LinearHead, MBConv, Pool, Skip
from netlathe.archspace.errors import FormatError
from netlathe.archspace.forms.onnx import read_onnx, write_onnx
from netlathe.archspace.forms.torch import TorchGraph
from netlathe.archspace.graph import Graph, GraphBuilder, chain
from netlathe.archspace.ops import (
    Activation,
    ActivationKind,
    Concat,
    Conv2d,
    FullyConnected,
    GlobalAvgPool,
    Pad,
    Padding,
    Pool2d,
    Reshape,
    Softmax,
)


def edited(content: bytes, change: Callable[[ModelProto], Any]) -> bytes:
    model = onnx.load_model_from_string(content)
    change(model)
    return bytes(model.SerializeToString())


def foreign(graph: Graph) -> bytes:
    """A file as if netlathe had not written it."""
    return edited(write_onnx(graph), lambda model: model.ClearField("metadata_props"))


def model_of(nodes: list[NodeProto], shape: list[Any], opset: int = 17, **constants: Any) -> bytes:
    """A model from `x` to `y`, with float32 constants unless they are integers."""
    arrays = {k: np.array(v) for k, v in constants.items()}
    initializers = [
        numpy_helper.from_array(a.astype(np.float32) if a.dtype == np.float64 else a, k) for k, a in arrays.items()
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    body = helper.make_graph(nodes, "foreign", [x], [y], initializers)
    return bytes(helper.make_model(body, opset_imports=[helper.make_opsetid("", opset)]).SerializeToString())


def one_node(kind: str, *constants: str, **attributes: Any) -> list[NodeProto]:
    return [helper.make_node(kind, ["x", *constants], ["y"], kind.lower(), **attributes)]


def read_ops(content: bytes) -> list[Any]:
    return [node.op for node in read_onnx(content).nodes]


class TestOnnxFile(FormContract):
    ending = ".onnx"
    write = staticmethod(write_onnx)
    read = staticmethod(read_onnx)
    foreign = staticmethod(foreign)


# Writing


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (MBConv(4, 4, 8, 8), ["Conv", "Clip", "Conv", "Clip", "Conv", "Add"]),
        (MBConv(4, 4, 8, 8, 2, padding="symmetric"), ["Conv", "Clip", "Conv", "Clip", "Conv"]),
        (
            MBConv(4, 6, 8, 8, expand=1, se=0.25, activation=ActivationKind.HARD_SWISH),
            ["Conv", "HardSwish", "GlobalAveragePool", "Conv", "Relu", "Conv", "HardSigmoid", "Mul", "Conv"],
        ),
        (ConvBlock(3, 4, 8, 8, activation=ActivationKind.SWISH), ["Conv", "Sigmoid", "Mul"]),
        (LinearHead(4, 7, 4, 4), ["GlobalAveragePool", "Flatten", "Gemm"]),
        (Skip(4, 4, 8, 8), ["Identity"]),
    ],
    ids=str,
)
def test_a_block_has_no_stray_ops(block: Block, expected: list[str]) -> None:
    model = onnx.load_model_from_string(write_onnx(block.graph()))
    assert [node.op_type for node in model.graph.node] == expected


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_the_file_passes_onnxs_own_check(block: Block) -> None:
    model = onnx.load_model_from_string(write_onnx(block.graph(2)))
    onnx.checker.check_model(model, full_check=True)
    assert model.producer_name == "netlathe"


def test_pads_are_explicit_and_follow_tensorflow() -> None:
    model = onnx.load_model_from_string(write_onnx(ConvBlock(3, 4, 8, 9, 2, kernel=5).graph()))
    (pads,) = (a.ints for a in model.graph.node[0].attribute if a.name == "pads")
    assert list(pads) == [1, 2, 2, 2]  # top, left, bottom, right


def test_values_are_called_after_the_nodes_that_compute_them() -> None:
    graph = onnx.load_model_from_string(write_onnx(NETWORK)).graph
    names = {node.output[0] for node in graph.node}
    assert {node.name for node in NETWORK.nodes if not isinstance(node.op, Pad)} <= names
    assert [value.name for value in graph.input] == ["input"]
    assert [value.name for value in graph.output] == ["head/linear"]


@pytest.mark.parametrize("name", ["input", "conv.weight"])
def test_names_that_would_clash_in_the_file_are_refused(name: str) -> None:
    builder = GraphBuilder((1, 4, 4, 2))
    x = builder.add("conv", Conv2d(2), 0)
    builder.add(name, Activation(ActivationKind.RELU), x)
    with pytest.raises(FormatError, match=f"would .*be called '{name}'"):
        write_onnx(builder.build())


# Reading netlathe's own files


def test_a_file_whose_ops_were_changed_is_read_as_what_it_now_computes() -> None:
    def halve_stride(model: ModelProto) -> None:
        (strides,) = (a for a in model.graph.node[0].attribute if a.name == "strides")
        strides.ints[:] = [1, 1]

    graph = ConvBlock(3, 4, 9, 9, 2).graph()
    assert read_onnx(edited(write_onnx(graph), halve_stride)).output_shape == (1, 9, 9, 4)


# Reading foreign files


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("opset", [11, 13, 17, 18])
@pytest.mark.parametrize("mode", [torch.onnx.TrainingMode.EVAL, torch.onnx.TrainingMode.TRAINING])
def test_what_torch_exports_is_read_as_the_same_network(
    opset: int, mode: torch.onnx.TrainingMode, tmp_path: Path
) -> None:
    """The warnings are of torch's exporter about itself."""
    keeps_batch_norm = mode is torch.onnx.TrainingMode.TRAINING
    blocks = [
        MBConv(3, 4, 8, 8, 2, se=0.5, activation=ActivationKind.HARD_SWISH, padding="symmetric"),
        MBConv(4, 4, 4, 4),
        ConvBlock(4, 4, 4, 4, activation=ActivationKind.SWISH),
        Pool("max", 4, 4, 4),
        Pool("avg", 4, 4, 4, 2, 2),
        LinearHead(4, 5, 2, 2),
    ]
    graph = chain([(f"b{i}", block.graph()) for i, block in enumerate(blocks)])
    file = tmp_path / "network.onnx"
    torch.onnx.export(
        TorchGraph(graph), (torch.zeros(1, 3, 8, 8),), file, dynamo=False, opset_version=opset, training=mode,
        do_constant_folding=not keeps_batch_norm,
    )  # fmt: skip
    read = read_onnx(file)
    assert read.key == (graph if keeps_batch_norm else without_batch_norm(graph)).key
    assert read.macs == graph.macs


IMAGE = [1, 4, 8, 8]
CONV = np.zeros((6, 4, 3, 3), np.float32)


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({}, [Conv2d(6, (3, 3), padding=Padding.VALID, batch_norm=False)]),
        ({"pads": [1, 1, 1, 1]}, [Conv2d(6, (3, 3), batch_norm=False)]),
        ({"pads": [0, 0, 1, 1], "strides": [2, 2]}, [Conv2d(6, (3, 3), (2, 2), batch_norm=False)]),
        (
            {"pads": [1, 1, 1, 1], "strides": [2, 2]},
            [Pad((1, 1), (1, 1)), Conv2d(6, (3, 3), (2, 2), padding=Padding.VALID, batch_norm=False)],
        ),
        ({"auto_pad": "SAME_UPPER", "strides": [2, 2]}, [Conv2d(6, (3, 3), (2, 2), batch_norm=False)]),
        ({"auto_pad": "SAME_LOWER"}, [Conv2d(6, (3, 3), batch_norm=False)]),
        ({"auto_pad": "VALID"}, [Conv2d(6, (3, 3), padding=Padding.VALID, batch_norm=False)]),
    ],
)
def test_pads_become_same_or_valid_or_a_pad(attributes: dict[str, Any], expected: list[Any]) -> None:
    assert read_ops(model_of(one_node("Conv", "w", **attributes), IMAGE, w=CONV)) == expected


def test_batch_norm_behind_a_convolution_becomes_part_of_it() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w", "v"], ["c"]),
        helper.make_node("BatchNormalization", ["c", "v", "v", "v", "v"], ["y"]),
    ]
    content = model_of(nodes, IMAGE, w=CONV, v=np.ones(6, np.float32))
    assert read_ops(content) == [Conv2d(6, (3, 3), padding=Padding.VALID)]


@pytest.mark.parametrize(
    ("kind", "shape", "constants", "attributes", "opset", "expected"),
    [
        ("Clip", IMAGE, {}, {"min": 0.0, "max": 6.0}, 10, [Activation(ActivationKind.RELU6)]),
        ("Clip", IMAGE, {"low": 0.0, "high": 6.0}, {}, 17, [Activation(ActivationKind.RELU6)]),
        ("Clip", IMAGE, {"low": 0.0}, {}, 17, [Activation(ActivationKind.RELU)]),
        ("ReduceMean", IMAGE, {}, {"axes": [-1, 2]}, 17, [GlobalAvgPool(keep_dims=True)]),
        ("ReduceMean", IMAGE, {"axes": [2, 3]}, {"keepdims": 0}, 18, [GlobalAvgPool()]),
        ("AveragePool", IMAGE, {}, {"kernel_shape": [2, 2], "strides": [2, 2]}, 17, [Pool2d("avg", (2, 2), (2, 2))]),
        (
            "AveragePool", IMAGE, {}, {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}, 17,
            [Pad((1, 1), (1, 1)), Pool2d("avg", (3, 3), padding=Padding.VALID)],
        ),
        ("Flatten", IMAGE, {}, {}, 17, [Reshape((256,))]),
        ("Reshape", IMAGE, {"to": [1, -1]}, {}, 17, [Reshape((256,))]),
        ("Reshape", [2, 4, 1, 1], {"to": [0, 4]}, {}, 17, [Reshape((4,))]),
        ("Reshape", [2, 4], {"to": [2, 4, 1, 1]}, {}, 17, [Reshape((1, 1, 4))]),
        ("Squeeze", [2, 4, 1, 1], {"axes": [2, 3]}, {}, 17, [Reshape((4,))]),
        ("Gemm", [2, 4], {"w": np.zeros((4, 7))}, {}, 17, [FullyConnected(7)]),
        ("Softmax", [2, 4], {}, {}, 11, [Softmax()]),
        ("Pad", IMAGE, {"amounts": [0, 0, 1, 0, 0, 0, 2, 3]}, {}, 17, [Pad((1, 2), (0, 3))]),
    ],
)  # fmt: skip
def test_an_op_of_another_exporter_is_read(
    kind: str, shape: list[int], constants: dict[str, Any], attributes: dict[str, Any], opset: int, expected: list[Any]
) -> None:
    assert read_ops(model_of(one_node(kind, *constants, **attributes), shape, opset, **constants)) == expected


def test_a_pool_keeps_a_border_that_is_not_sames() -> None:
    pool: dict[str, Any] = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
    for kind, mode in (("MaxPool", "max"), ("AveragePool", "avg")):
        assert read_ops(model_of(one_node(kind, **pool), IMAGE)) == [
            Pool2d(mode, (3, 3), (2, 2), Padding.VALID, ((1, 1), (1, 1)))  # type: ignore[arg-type]
        ]


def test_identities_and_dropouts_leave_no_trace() -> None:
    nodes = [
        helper.make_node("Identity", ["x"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Dropout", ["b"], ["y", "mask"]),
    ]
    assert read_ops(model_of(nodes, IMAGE)) == [Activation(ActivationKind.RELU)]


def test_a_concat_of_many_is_one_op() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Sigmoid", ["x"], ["b"]),
        helper.make_node("Concat", ["x", "a", "b"], ["y"], axis=1),
    ]
    graph = read_onnx(model_of(nodes, IMAGE))
    assert [node.op for node in graph.nodes][2:] == [Concat()]
    assert graph.output_shape == (1, 8, 8, 12)


@pytest.mark.parametrize(
    ("nodes", "constants", "message"),
    [
        (
            one_node("Relu", domain="com.example"),
            {},
            r"node 0 \(com.example::Relu 'relu'\): netlathe has no such op, and",
        ),
        (one_node("Add", "nowhere"), {}, "something not computed before, 'nowhere'"),
        (one_node("Conv", "w"), {"w": CONV[:, :3]}, "kernel takes 3 channels"),
        (one_node("Conv", "w", pads=[1, 1]), {"w": CONV}, r"pads \(1, 1\) are not of as many axes"),
        (one_node("Conv", "w", auto_pad="SOME"), {"w": CONV}, "auto_pad 'SOME' is none of ONNX's"),
        (one_node("MaxPool"), {}, r"node 0 \(MaxPool 'maxpool'\): it is malformed: KeyError\('kernel_shape'\)"),
        (one_node("Pad", "p"), {"p": [0, 1]}, "not as many axes"),
        (one_node("Pad", "p"), {"p": [0, 0, -9, 0, 0, 0, 0, 0]}, "nothing is left"),
        (one_node("Reshape", "s"), {"s": [1, 2, 2, 8, 9]}, "another number of values"),
        (one_node("Reshape", "nowhere"), {}, "something not computed before, 'nowhere'"),
        (
            one_node("Squeeze", axes=[1]),
            {},
            r"squeezes axes \[1\]",
        ),
        (one_node("Gemm", "w"), {"w": np.zeros((4, 7))}, "which is no matrix"),
        (one_node("Transpose", perm=[0, 0, 1, 2]), {}, "does not name each of 4 axes once"),
        (one_node("Slice", "n", "n", "a"), {"n": [3], "a": [1]}, "nothing is left"),
        (one_node("Softmax", axis=4), {}, "no axis 4"),
        (one_node("HardSigmoid", alpha=float("nan")), {}, "slope is nan"),
    ],
)
def test_what_cannot_be_read_is_named(nodes: list[NodeProto], constants: dict[str, Any], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        read_onnx(model_of(nodes, IMAGE, 11 if nodes[0].op_type == "Squeeze" else 17, **constants))


@pytest.mark.parametrize(
    ("shape", "example"),
    [
        (["batch", 4, 8, "width"], "1x4x8x224"),
        ([1, 4, None, None], "1x4x224x224"),
        ([2, "batch_size", 64], "2x1x64"),  # the state of a recurrent network
    ],
)
def test_a_dynamic_shape_is_refused_with_an_example(shape: list[Any], example: str) -> None:
    with pytest.raises(FormatError, match=rf"input 'x' has the dynamic shape .*--shape x={example}[; ]"):
        read_onnx(model_of(one_node("Relu"), shape))


def test_all_outputs_of_a_foreign_model_are_read() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Sigmoid", ["y"], ["b"])]
    model = onnx.load_from_string(model_of(nodes, IMAGE))
    model.graph.output.insert(0, helper.make_tensor_value_info("b", TensorProto.FLOAT, None))
    assert read_onnx(model.SerializeToString()).outputs == (2, 1)


def test_a_model_without_outputs_is_refused() -> None:
    with pytest.raises(FormatError, match="has no outputs"):
        read_onnx(edited(foreign(NETWORK), lambda model: model.graph.output.pop()))


# Broken files


def test_a_file_truncated_before_its_metadata_is_refused() -> None:
    content = write_onnx(NETWORK)
    end = content.rindex(b"netlathe_graph") - 8
    for length in range(0, end, 61):
        with pytest.raises(FormatError):
            read_onnx(content[:length])
