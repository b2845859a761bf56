"""What every op of the table promises, in every form: shapes, costs, JSON, files, and the same numbers everywhere."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from form_contract import without_batch_norm
from numpy.typing import NDArray
from op_examples import EXAMPLES, POSITIVE, OpExample

from netlathe.archspace.errors import FormatError, GraphError
from netlathe.archspace.forms.onnx import read_onnx, read_onnx_weights, write_onnx
from netlathe.archspace.forms.structure import nchw
from netlathe.archspace.forms.tflite import write_tflite
from netlathe.archspace.forms.tflite_file import pack, unpack
from netlathe.archspace.forms.tflite_reader import read_precision, read_tflite, read_tflite_weights
from netlathe.archspace.forms.torch import TorchGraph, folded_weights, load_weights
from netlathe.archspace.forms.weights import check_weights, random_weights
from netlathe.archspace.graph import Graph, GraphBuilder
from netlathe.archspace.kernels import kernels_of
from netlathe.archspace.ops import (
    BYTES,
    OPS,
    Add,
    Cast,
    Concat,
    Constant,
    Dequantize,
    DType,
    Op,
    Opaque,
    Pow,
    Quantize,
    ReduceKind,
    Split,
    Unary,
    UnaryKind,
    with_canonical_axes,
)

REWRITTEN = {
    "onnx": {
        "add", "arg_max", "batch_norm", "div", "layer_norm", "maximum", "minimum", "mul", "prelu", "reduce", "sub",
        "transpose", "unary",
    },
    "tflite": {
        "activation", "arg_max", "batch_norm", "clip", "depth_to_space", "group_norm", "l2_norm", "layer_norm", "pool",
        "reduce", "softmax", "transpose_conv", "unary",
    },
}  # fmt: skip
"""Ops that a format has none for, at least with some settings, or writes otherwise: other ops stand for them there, and
are what is read."""

WITHOUT_INT8 = {
    "arg_max", "div", "gather", "group_norm", "layer_norm", "local_response_norm", "tile", UnaryKind.CEIL,
    UnaryKind.COS, UnaryKind.FLOOR, UnaryKind.NEG, UnaryKind.ROUND, UnaryKind.SIGN, UnaryKind.SIN, UnaryKind.SOFTPLUS,
    UnaryKind.SQUARE, ReduceKind.SUM, ReduceKind.PROD, ReduceKind.L1, ReduceKind.L2,
}  # fmt: skip
"""Ops and functions that TFLite's kernels do not compute in int8, or that are not written so: refused by name."""

Arrays = list[NDArray[np.float32]]
TOLERANCE = 1e-5  # of the largest value
INT8_TOLERANCE = 0.05


def to_nhwc(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return x.transpose(0, 2, 3, 1) if x.ndim == 4 else x


def to_nchw(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if x.ndim == 4 else x


def foreign_onnx(graph: Graph) -> bytes:
    """A file as if netlathe had not written it."""
    model = onnx.load_model_from_string(write_onnx(graph))
    model.ClearField("metadata_props")
    return bytes(model.SerializeToString())


def foreign_tflite(graph: Graph) -> bytes:
    """A file as if netlathe had not written it."""
    return pack(dataclasses.replace(unpack(write_tflite(graph)), metadata={}), "foreign")


def random_inputs(graph: Graph) -> Arrays:
    rng = np.random.default_rng(1)
    return [rng.standard_normal(shape, dtype=np.float32) for shape in graph.inputs]


def run_torch(module: TorchGraph, inputs: Arrays) -> Arrays:
    with torch.no_grad():
        found = module(*(torch.from_numpy(to_nchw(x)) for x in inputs))
    return [to_nhwc(y.numpy()) for y in (found if isinstance(found, tuple) else (found,))]


def run_tflite(content: bytes, inputs: Arrays) -> Arrays:
    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    for detail, x in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(detail["index"], x)
    interpreter.invoke()
    return [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]


def run_int8(content: bytes, inputs: Arrays) -> Arrays:
    """On quantized inputs, the results as real numbers."""
    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    for detail, x in zip(interpreter.get_input_details(), inputs, strict=True):
        scale, zero_point = detail["quantization"]
        interpreter.set_tensor(detail["index"], np.clip(np.rint(x / scale) + zero_point, -128, 127).astype(np.int8))
    interpreter.invoke()
    found = []
    for detail in interpreter.get_output_details():
        scale, zero_point = detail["quantization"]
        found.append((interpreter.get_tensor(detail["index"]).astype(np.float32) - zero_point) * np.float32(scale))
    return found


def run_onnx(content: bytes, inputs: Arrays) -> Arrays:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return [to_nhwc(y) for y in session.run(None, {n: to_nchw(x) for n, x in zip(names, inputs, strict=True)})]


def assert_close(found: Arrays, expected: Arrays, shapes: Sequence[tuple[int, ...]]) -> None:
    assert [y.shape for y in found] == [*shapes]
    for y, wanted in zip(found, expected, strict=True):
        assert np.abs(y - wanted).max() <= TOLERANCE * max(np.abs(wanted).max(), 1e-9)


def ops_of(graph: Graph) -> list[Any]:
    """The ops with what they take, their axes written alike and their factors as accurate as float32."""

    def settings(op: Op) -> dict[str, Any]:
        return {k: float(f"{v:.6g}") if isinstance(v, int | float) else v for k, v in dataclasses.asdict(op).items()}

    return [
        (node.op.kind, settings(with_canonical_axes(node.op, len(inputs[0])) if inputs else node.op), node.inputs)
        for node, inputs, _ in graph.steps()
    ]


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
class TestOpContract:
    def test_shapes_and_costs_have_their_closed_forms(self, example: OpExample) -> None:
        op, inputs = example.op, example.inputs
        assert op.output_shapes(*inputs) == tuple(example.results)
        assert op.output_shape(*inputs) == example.results[0]
        assert op.macs(*inputs) == example.macs
        assert (op.macs(*inputs) > 0) <= op.has_macs
        assert (len(example.results) > 1) <= op.has_several
        assert bool(example.stored) <= op.has_weights
        assert op.parameters(*inputs) == example.parameters
        assert op.stored_shapes(*inputs) == example.stored
        assert op.stored_values(*inputs) == sum(map(math.prod, example.stored.values()))

    def test_json_gives_it_back_with_the_same_key(self, example: OpExample) -> None:
        again = Graph.from_json(json.loads(json.dumps(example.graph.to_json())))
        assert again == example.graph
        assert again.key == example.graph.key

    def test_its_costs_count_every_tensor_once(self, example: OpExample) -> None:
        cost = example.graph.costs()[len(example.constants)]
        assert cost.bytes_read == 4 * sum(map(math.prod, [*example.inputs, *example.stored.values()]))
        values = sum(map(math.prod, example.results))
        assert cost.bytes_written == BYTES[example.graph.dtypes[-1]] * values

    def test_all_forms_give_the_same_numbers(self, example: OpExample) -> None:
        graph = example.graph
        module = TorchGraph(graph, generator=torch.Generator().manual_seed(0)).eval()
        inputs = random_inputs(graph)
        expected = run_torch(module, inputs)
        assert [y.shape for y in expected] == [*graph.output_shapes]
        weights = folded_weights(module)
        if "tflite" not in example.lacks:
            assert_close(run_tflite(write_tflite(graph, weights), inputs), expected, graph.output_shapes)
        if "onnx" not in example.lacks:
            assert_close(run_onnx(write_onnx(graph, weights), inputs), expected, graph.output_shapes)

    def test_its_int8_form_is_near_the_float_one(self, example: OpExample) -> None:
        graph = example.graph
        inputs = random_inputs(graph)
        if "tflite" in example.lacks:
            return
        expected = run_tflite(write_tflite(graph), inputs)
        if example.op.kind in WITHOUT_INT8 or getattr(example.op, "function", None) in WITHOUT_INT8:
            with pytest.raises(FormatError, match="has no int8 form"):
                write_tflite(graph, dtype="int8", samples=[inputs])
            return
        found = run_int8(write_tflite(graph, dtype="int8", samples=[inputs]), inputs)
        assert [y.shape for y in found] == [*graph.output_shapes]
        for y, wanted in zip(found, expected, strict=True):
            assert np.abs(y - wanted).max() <= INT8_TOLERANCE * max(np.abs(wanted).max(), 1e-9)

    def test_files_give_the_graph_back(self, example: OpExample) -> None:
        forms: list[tuple[str, Any, Any]] = [("tflite", write_tflite, read_tflite), ("onnx", write_onnx, read_onnx)]
        for form, write, read in forms:
            if form in example.lacks:
                with pytest.raises(FormatError, match=r"node 'op': .*(TFLite|ONNX)"):
                    write(example.graph)
            else:
                assert read(write(example.graph)) == example.graph

    @pytest.mark.parametrize("form", ["onnx", "tflite"])
    def test_foreign_files_of_it_are_read_or_refused(self, example: OpExample, form: str) -> None:
        if form in example.lacks:
            return
        graph = without_batch_norm(example.graph)
        read, content = (read_onnx, foreign_onnx(graph)) if form == "onnx" else (read_tflite, foreign_tflite(graph))
        if form in example.unread:
            with pytest.raises(FormatError, match=r"none of the model's outputs depends on its inputs"):
                read(content)
            return
        found = read(content)
        assert (found.output_shapes, found.macs) == (graph.output_shapes, graph.macs)
        assert ops_of(found) == ops_of(graph) or example.op.kind in REWRITTEN[form]

    def test_a_foreign_file_of_it_is_written_with_its_own_inputs_and_outputs(self, example: OpExample) -> None:
        if "onnx" in (*example.lacks, *example.unread):
            return
        content, inputs = foreign_onnx(example.graph), random_inputs(example.graph)
        graph, weights, interface = read_onnx_weights(content)
        assert interface is not None
        if DType.INT32 in graph.dtypes:
            return  # read behind a cast to it, in which no graph has an .onnx form
        written = write_onnx(graph, weights, interface=interface)
        given, found = (onnx.load_model_from_string(one).graph for one in (content, written))
        taken = [port.name for port in interface.inputs]
        assert [one for one in given.input if one.name in taken] == [*found.input]
        assert [*given.output] == [*found.output]
        kept = [x for one, x in zip(given.input, inputs, strict=True) if one.name in taken]
        for a, b in zip(run_onnx(written, kept), run_onnx(content, inputs), strict=True):
            assert a.shape == b.shape
            assert np.abs(a.astype(float) - b).max() <= TOLERANCE * max(np.abs(b).max(), 1)
        assert read_onnx_weights(written).interface == interface

    @pytest.mark.parametrize("form", ["onnx", "tflite"])
    def test_files_give_its_weights_back(self, example: OpExample, form: str) -> None:
        """Of netlathe's own files the very arrays; of foreign ones arrays that compute the same."""
        if form in (*example.lacks, *example.unread):
            return
        graph, inputs = example.graph, random_inputs(example.graph)
        write, read, foreign, run = {
            "onnx": (write_onnx, read_onnx_weights, foreign_onnx, run_onnx),
            "tflite": (write_tflite, read_tflite_weights, foreign_tflite, run_tflite),
        }[form]
        own, weights, _ = read(write(graph))
        assert own == graph
        check_weights(own, weights)
        wanted = random_weights(graph)
        assert {n: [*arrays] for n, arrays in weights.items()} == {n: [*arrays] for n, arrays in wanted.items()}
        for name, arrays in wanted.items():
            assert all((weights[name][key] == array).all() for key, array in arrays.items())
        content = foreign(graph)
        found, weights, _ = read(content)
        assert found == (read_onnx if form == "onnx" else read_tflite)(content)
        if any(dtype != DType.FLOAT32 and not example.constants for dtype in found.dtypes):
            return  # indices, which have no torch form behind a reshape
        module = TorchGraph(found)
        load_weights(module, weights)
        expected = run(content, inputs)
        taken = [x if x.shape == shape else to_nchw(x) for x, shape in zip(inputs, found.inputs, strict=True)]
        y = run_torch(module.eval(), taken)  # a file that turns its input at once has it as the graph does
        assert [a.size for a in y] == [b.size for b in expected]
        for a, b in zip(y, expected, strict=True):
            assert np.abs(np.ravel(a) - np.ravel(b)).max() <= TOLERANCE * max(np.abs(b).max(), 1)

    def test_random_weights_are_what_it_stores(self, example: OpExample) -> None:
        stored = random_weights(example.graph).get("op", {})
        assert {key: array.shape for key, array in stored.items()} == example.stored


WITHOUT = {Opaque.kind, Cast.kind, Pow.kind, Quantize.kind, Dequantize.kind}
"""Foreign ones; what is not float32, and what is not for all values: both have tests of their own."""


def test_every_op_has_an_example_but_few() -> None:
    assert {*OPS} - WITHOUT == {example.op.kind for example in EXAMPLES}
    assert all(OPS[kind].kind == kind for kind in OPS)


@pytest.mark.parametrize("op", [Pow(), *map(Unary, POSITIVE)], ids=str)
def test_functions_of_positive_values_agree_in_all_forms(op: Op) -> None:
    builder = GraphBuilder(*[(2, 4, 4, 3)] * (op.arity or 1))
    builder.add("op", op, *range(op.arity or 1))
    graph = builder.build()
    inputs = [np.abs(x) + np.float32(0.1) for x in random_inputs(graph)]
    expected = run_torch(TorchGraph(graph), inputs)
    assert_close(run_tflite(write_tflite(graph), inputs), expected, graph.output_shapes)
    assert_close(run_onnx(write_onnx(graph), inputs), expected, graph.output_shapes)


def test_a_stored_image_meets_a_tensor_of_more_axes_in_all_forms() -> None:
    builder = GraphBuilder((2, 3, 4, 5, 6), (3, 4, 5, 6))
    builder.add("sum", Add(), 0, 1)
    graph = builder.build()
    inputs = random_inputs(graph)
    expected = run_torch(TorchGraph(graph), inputs)
    assert_close(run_tflite(write_tflite(graph), inputs), expected, graph.output_shapes)
    assert_close(run_onnx(write_onnx(graph), inputs), expected, graph.output_shapes)


def test_a_cast_changes_the_dtype_and_has_no_file_yet() -> None:
    builder = GraphBuilder((1, 4))
    builder.add("cast", Cast(DType.FLOAT16), 0)
    graph = builder.build()
    assert graph.dtypes == (DType.FLOAT32, DType.FLOAT16)
    assert Graph.from_json(json.loads(json.dumps(graph.to_json()))) == graph
    assert graph.costs()[0].bytes_written == 8
    for write in (TorchGraph, write_tflite, write_onnx):
        with pytest.raises(FormatError, match="'cast' gives float16, and only float32 graphs have"):
            write(graph)


@pytest.mark.parametrize("dtype", [DType.INT8, DType.UINT8])
def test_integers_at_a_border_are_the_same_in_all_forms(dtype: DType) -> None:
    builder = GraphBuilder((2, 4, 5, 3))
    integers = builder.add("quantize", Quantize(dtype), 0)
    graph = builder.build(integers, builder.add("dequantize", Dequantize(), integers))
    inputs = random_inputs(graph)
    expected = run_torch(TorchGraph(graph), inputs)
    assert expected[0].dtype == dtype
    for found in (run_tflite(write_tflite(graph), inputs), run_onnx(write_onnx(graph), inputs)):
        assert [y.dtype for y in found] == [y.dtype for y in expected]
        assert all(np.array_equal(y, wanted) for y, wanted in zip(found, expected, strict=True))
    assert read_tflite(write_tflite(graph)) == read_onnx(write_onnx(graph)) == graph
    for kernel in kernels_of(graph):  # each alone, from integers or to them
        assert read_tflite(write_tflite(kernel)) == read_onnx(write_onnx(kernel)) == kernel


def opaque() -> Graph:
    builder = GraphBuilder((1, 4, 4, 8))
    first = builder.add("lstm", Opaque("LSTM", ((1, 4, 4, 8), (1, 2)), (DType.FLOAT32, DType.FLOAT32), 400), 0)
    return builder.build(first, first + 1)


@pytest.mark.parametrize(
    ("form", "write"), [("a? ?torch form", TorchGraph), (".tflite", write_tflite), (".onnx", write_onnx)]
)
def test_a_form_that_lacks_an_op_says_so_by_its_name(form: str, write) -> None:
    with pytest.raises((FormatError, GraphError), match=f"op 'LSTM'.*{form}"):
        write(opaque())


def test_a_graph_that_is_not_float32_is_refused_by_all_forms() -> None:
    builder = GraphBuilder((1, 4), dtypes=(DType.INT16,))
    builder.add("sum", Add(), 0, 0)
    for write in (TorchGraph, write_tflite, write_onnx):
        with pytest.raises(FormatError, match="input 0 is int16, and only float32 graphs have"):
            write(builder.build())


def test_a_graph_that_is_int8_has_no_form_but_tflite() -> None:
    builder = GraphBuilder((1, 4), dtypes=(DType.INT8,))
    builder.add("sum", Add(), 0, 0)
    for write in (TorchGraph, write_onnx):
        with pytest.raises(FormatError, match="input 0 is int8, and only float32 graphs have"):
            write(builder.build())
    assert read_precision(write_tflite(builder.build())) == "int8"


def test_parts_of_a_split_are_joined_again_in_all_forms() -> None:
    builder = GraphBuilder((2, 4, 4, 6))
    first = builder.add("split", Split((1, 2, 3)), 0)
    offset = builder.add("offset", Constant((3,)))
    moved = builder.add("moved", Add(), first + 2, offset)
    builder.add("joined", Concat(), moved, first, 0)  # the middle part goes unused
    graph = builder.build()
    module = TorchGraph(graph, generator=torch.Generator().manual_seed(0)).eval()
    inputs, weights = random_inputs(graph), folded_weights(module)
    expected = run_torch(module, inputs)
    assert_close(run_tflite(write_tflite(graph, weights), inputs), expected, graph.output_shapes)
    assert_close(run_onnx(write_onnx(graph, weights), inputs), expected, graph.output_shapes)
    assert nchw(graph.output_shape) == (2, 10, 4, 4)
    int8 = write_tflite(graph, weights, dtype="int8")
    assert read_tflite(int8) == graph
