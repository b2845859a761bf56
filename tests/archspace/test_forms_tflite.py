"""The .tflite file: what is written, and what is read back from own, edited, foreign and broken files."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from form_contract import BLOCKS, NETWORK, FormContract, without_batch_norm

from netlathe.archspace.blocks import Block, ConvBlock, LinearHead, MBConv, Skip, Zero
from netlathe.archspace.errors import FormatError
from netlathe.archspace.forms.structure import EMBEDDED_KEY
from netlathe.archspace.forms.tflite import write_tflite
from netlathe.archspace.forms.tflite_file import pack, unpack
from netlathe.archspace.forms.tflite_reader import read_tflite
from netlathe.archspace.graph import Graph, GraphBuilder
from netlathe.archspace.ops import (
    Activation,
    ActivationKind,
    Add,
    Conv2d,
    FullyConnected,
    GlobalAvgPool,
    Pad,
    Reshape,
)


def edited(content: bytes, change: Callable[[Any], None]) -> bytes:
    """The file after a change to its object tree, packed by the schema's own code, as another tool would."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    change(model)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def foreign(graph: Graph) -> bytes:
    """A file as if netlathe had not written it."""
    return pack(dataclasses.replace(unpack(write_tflite(graph)), metadata={}), "foreign")


def kinds(content: bytes) -> list[str]:
    return [operator.kind for operator in unpack(content).operators]


class TestTfliteFile(FormContract):
    ending = ".tflite"
    write = staticmethod(write_tflite)
    read = staticmethod(read_tflite)
    foreign = staticmethod(foreign)


# Writing


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (MBConv(4, 4, 8, 8), ["CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D", "ADD"]),
        (MBConv(4, 4, 8, 8, 2, padding="symmetric"), ["CONV_2D", "PAD", "DEPTHWISE_CONV_2D", "CONV_2D"]),
        (
            MBConv(4, 6, 8, 8, expand=1, se=0.25, activation=ActivationKind.HARD_SWISH),
            ["DEPTHWISE_CONV_2D", "HARD_SWISH", "MEAN", "CONV_2D", "CONV_2D", "MUL", "MUL", "CONV_2D"],
        ),
        (ConvBlock(3, 4, 8, 8, activation=ActivationKind.SWISH), ["CONV_2D", "LOGISTIC", "MUL"]),
        (LinearHead(4, 7, 4, 4), ["MEAN", "FULLY_CONNECTED"]),
        (Skip(4, 4, 8, 8), []),
        (Zero(4, 4, 8, 8), []),
    ],
    ids=str,
)
def test_a_block_has_the_ops_that_the_converters_emit(block: Block, expected: list[str]) -> None:
    assert kinds(write_tflite(block.graph())) == expected


def test_an_activation_with_a_second_user_before_it_is_not_fused() -> None:
    builder = GraphBuilder((1, 4, 4, 2))
    x = builder.add("conv", Conv2d(2), 0)
    y = builder.add("act", Activation(ActivationKind.RELU), x)
    builder.add("sum", Add(), x, y)
    assert kinds(write_tflite(builder.build())) == ["CONV_2D", "RELU", "ADD"]


def test_tensors_are_called_after_the_nodes_whose_results_they_hold() -> None:
    model = unpack(write_tflite(NETWORK))
    computed = [model.tensors[t].name for operator in model.operators for t in operator.outputs]
    nodes = {node.name for node in NETWORK.nodes}
    assert computed[0] == "b00/conv_act"  # relu6 is part of the convolution
    assert computed[-1] == "head/linear"
    assert {name for name in computed if name not in nodes} == {"b01/se_gate.relu6"}


def test_the_file_has_a_serving_signature_and_says_who_wrote_it() -> None:
    content = write_tflite(NETWORK)
    signature = Interpreter(model_content=content).get_signature_list()
    assert signature == {"serving_default": {"inputs": ["input"], "outputs": ["output"]}}
    model = schema.Model.GetRootAs(content, 0)
    assert model.Description() == b"netlathe"
    assert EMBEDDED_KEY in unpack(content).metadata


def test_every_buffer_is_aligned_to_16_bytes() -> None:
    for block in BLOCKS:
        content = write_tflite(block.graph())
        model = schema.Model.GetRootAs(content, 0)
        buffers = [model.Buffers(i) for i in range(model.BuffersLength())]
        starts = [b._tab.Vector(b._tab.Offset(4)) for b in buffers if b.DataLength()]
        assert starts
        assert {start % 16 for start in starts} == {0}


def test_a_tflite_file_is_written_and_read_without_torch_and_onnx() -> None:
    code = "import sys, netlathe.archspace.forms.tflite_reader; print({'torch', 'onnx'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# Reading netlathe's own files


def test_a_file_whose_ops_were_changed_is_read_as_what_it_now_computes() -> None:
    first, second = MBConv(4, 4, 8, 8).graph(), MBConv(4, 4, 8, 8, kernel=5).graph()
    claims_first = dataclasses.replace(
        unpack(write_tflite(second)), metadata=dict(unpack(write_tflite(first)).metadata)
    )
    assert read_tflite(pack(claims_first, "netlathe")).key == without_batch_norm(second).key


def test_a_pad_that_was_changed_shows() -> None:
    graph = ConvBlock(3, 4, 8, 8, 2, padding="symmetric").graph()

    def shift(model: Any) -> None:
        tensor = next(t for t in model.subgraphs[0].tensors if t.name == b"conv_pad.amounts")
        amounts = np.array([[0, 0], [2, 0], [0, 2], [0, 0]], np.int32)
        model.buffers[tensor.buffer].data = amounts.reshape(-1).view(np.uint8)

    read = read_tflite(edited(write_tflite(graph), shift))
    assert read.nodes[0].op == Pad((2, 0), (0, 2))


def test_a_graph_of_a_newer_version_is_read_by_its_ops() -> None:
    model = unpack(write_tflite(NETWORK))
    text = model.metadata[EMBEDDED_KEY].replace(b'"version":1', b'"version":2')
    assert read_tflite(pack(dataclasses.replace(model, metadata={EMBEDDED_KEY: text}), "")) == read_tflite(
        foreign(NETWORK)
    )


# Reading foreign files


def test_the_schemas_own_packing_is_read_as_well() -> None:
    assert read_tflite(edited(write_tflite(NETWORK), lambda model: None)) == NETWORK


def test_a_fully_connected_layer_on_an_image_flattens_it_first() -> None:
    builder = GraphBuilder((1, 4, 4, 3))
    x = builder.add("pool", GlobalAvgPool(keep_dims=True), 0)
    x = builder.add("flat", Reshape((3,)), x)
    builder.add("linear", FullyConnected(5), x)
    expected = builder.build()

    def drop_reshape(model: Any) -> None:
        mean, _, linear = model.subgraphs[0].operators
        linear.inputs = [mean.outputs[0], *linear.inputs[1:]]
        model.subgraphs[0].operators = [mean, linear]

    assert read_tflite(edited(foreign(expected), drop_reshape)).key == expected.key


def test_shape_arithmetic_of_an_open_batch_is_passed_over() -> None:
    builder = GraphBuilder((1, 2, 2, 3))
    builder.add("flat", Reshape((12,)), 0)
    graph = builder.build()

    def open_batch(model: Any) -> None:
        (main,) = model.subgraphs
        main.tensors[0].shapeSignature = np.array([-1, 2, 2, 3], np.int32)
        main.tensors.append(schema.TensorT(shape=[2], type=schema.TensorType.INT32, name="shape"))
        model.operatorCodes.append(schema.OperatorCodeT(deprecatedBuiltinCode=77, builtinCode=77))  # SHAPE
        shape = len(main.tensors) - 1
        main.operators[0].inputs = [0, shape]
        operator = schema.OperatorT(len(model.operatorCodes) - 1, inputs=[0], outputs=[shape])
        main.operators.insert(0, operator)

    assert read_tflite(edited(foreign(graph), open_batch)).key == graph.key


def test_names_of_foreign_tensors_become_unique_node_names() -> None:
    def rename(model: Any) -> None:
        for tensor in model.subgraphs[0].tensors:
            tensor.name = "model.net/same;fused"

    names = [node.name for node in read_tflite(edited(foreign(NETWORK), rename)).nodes]
    assert len({*names}) == len(names)
    assert names[0] == "b00/model_net/same"
    assert not any("." in name or ";" in name for name in names)


def change_operator(index: int, **fields: Any) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        for name, value in fields.items():
            setattr(model.subgraphs[0].operators[index], name, value)

    return change


def change_options(index: int, **fields: Any) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        for name, value in fields.items():
            setattr(model.subgraphs[0].operators[index].builtinOptions, name, value)

    return change


def change_tensor(name: bytes, **fields: Any) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        tensor = next(t for t in model.subgraphs[0].tensors if t.name == name)
        for field, value in fields.items():
            setattr(tensor, field, value)

    return change


def second_output(model: Any) -> None:
    model.subgraphs[0].outputs = np.append(model.subgraphs[0].outputs, model.subgraphs[0].operators[1].outputs)


def no_output(model: Any) -> None:
    model.subgraphs[0].outputs = model.subgraphs[0].outputs[:0]


def test_all_outputs_of_a_foreign_model_are_read() -> None:
    read = read_tflite(edited(foreign(NETWORK), second_output))
    assert len(read.outputs) == 2
    assert read.outputs[0] == len(read.shapes) - 1
    assert read.nodes == read_tflite(foreign(NETWORK)).nodes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (no_output, "no outputs"),
        (change_tensor(b"b00/conv.weight", type=schema.TensorType.UINT8), "truncated or corrupt"),
        (change_tensor(b"input", shape=[1, 0, 12, 3]), r"'input' has the open shape \(1, 0, 12, 3\); give its sizes"),
        (change_tensor(b"b00/conv_act", shape=[1, 6, 7, 6]), r"computes \(1, 6, 6, 6\) where the file says"),
        (change_tensor(b"b00/conv.weight", buffer=0), r"op 0 .*its weights must be a constant of rank 4"),
        (change_tensor(b"b00/conv.weight", buffer=10_000), "truncated or corrupt"),
        (change_options(0, padding=7), "its padding 7 is none"),
        (change_options(0, strideW=0), "stride must be a positive integer"),
        (change_operator(0, inputs=[]), r"op 0 \(CONV_2D\)"),
        (change_operator(0, inputs=[10_000, 1, 2]), "names a tensor that does not exist"),
        (change_operator(0, outputs=[]), r"op 0 \(CONV_2D\) is malformed"),
        (change_operator(1, inputs=[-1, 1, 2]), "one of its tensors is missing"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named(change: Callable[[Any], None], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        read_tflite(edited(foreign(NETWORK), change))


# Broken files


@pytest.mark.parametrize("content", [b"", b"TFL3", b"\x89PNG\r\n\x1a\n" + bytes(100), bytes(8) + b"TFL3" + bytes(64)])
def test_what_is_no_tflite_file_is_refused(content: bytes) -> None:
    with pytest.raises(FormatError, match=r"not a \.tflite file"):
        read_tflite(content)


def test_an_empty_flatbuffer_is_refused() -> None:
    with pytest.raises(FormatError):
        read_tflite(b"\x00\x00\x00\x00TFL3" + bytes(64))


def test_a_file_truncated_anywhere_is_refused() -> None:
    content = write_tflite(NETWORK)
    for length in range(0, len(content), 61):
        with pytest.raises(FormatError):
            read_tflite(content[:length])
