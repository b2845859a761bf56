"""Model files of kinds that netlathe does not write: other dtypes, several inputs, open sizes, custom ops, branches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray
from onnx import TensorProto, helper


@dataclass(frozen=True)
class Value:
    """A tensor of a .tflite file."""

    name: str
    dtype: str
    shape: Sequence[int]
    signature: Sequence[int] | None = None
    data: NDArray[Any] | None = None


@dataclass(frozen=True)
class Op:
    """An op of a .tflite file; `options` are a table of the schema's and its fields."""

    kind: str
    inputs: Sequence[int]
    outputs: Sequence[int]
    options: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)
    custom: str = ""


@dataclass(frozen=True)
class Part:
    """A subgraph."""

    values: Sequence[Value]
    ops: Sequence[Op]
    inputs: Sequence[int]
    outputs: Sequence[int]


def tflite(*parts: Part) -> bytes:
    """The file of these subgraphs, written by the schema's own code."""
    model = schema.ModelT(version=3, description="made by a test")
    model.buffers, model.operatorCodes, model.subgraphs = [schema.BufferT()], [], []
    codes: dict[tuple[str, str], int] = {}
    for part in parts:
        graph = schema.SubGraphT(name="main", inputs=list(part.inputs), outputs=list(part.outputs))
        graph.tensors = [_tensor(model, value) for value in part.values]
        graph.operators = [_operator(model, codes, op) for op in part.ops]
        model.subgraphs.append(graph)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _tensor(model: Any, value: Value) -> Any:
    tensor = schema.TensorT(
        name=value.name, type=getattr(schema.TensorType, value.dtype), shape=list(value.shape), hasRank=True
    )
    tensor.shapeSignature = None if value.signature is None else list(value.signature)
    tensor.buffer = 0
    if value.data is not None:
        tensor.buffer = len(model.buffers)
        model.buffers.append(schema.BufferT(data=np.frombuffer(value.data.tobytes(), np.uint8)))
    return tensor


def _operator(model: Any, codes: dict[tuple[str, str], int], op: Op) -> Any:
    key = (op.kind, op.custom)
    if key not in codes:
        codes[key] = len(model.operatorCodes)
        number = getattr(schema.BuiltinOperator, op.kind)
        code = schema.OperatorCodeT(deprecatedBuiltinCode=min(number, 127), builtinCode=number, version=1)
        code.customCode = op.custom or None
        model.operatorCodes.append(code)
    found = schema.OperatorT(opcodeIndex=codes[key], inputs=list(op.inputs), outputs=list(op.outputs))
    if op.options:
        found.builtinOptionsType = getattr(schema.BuiltinOptions, op.options)
        found.builtinOptions = getattr(schema, f"{op.options}T")(**op.fields)
    return found


def doubled(dtype: str, shape: Sequence[int] = (1, 4, 4, 2)) -> bytes:
    """x + x in any number's dtype."""
    values = [Value("x", dtype, shape), Value("y", dtype, shape)]
    return tflite(Part(values, [Op("ADD", (0, 0), (1,), "AddOptions")], (0,), (1,)))


def reshaped(dtype: str) -> bytes:
    """x with its sizes in another order: runs in every dtype."""
    sizes = np.array([8, 4], np.int32)
    values = [Value("x", dtype, (4, 8)), Value("sizes", "INT32", (2,), data=sizes), Value("y", dtype, (8, 4))]
    op = Op("RESHAPE", (0, 1), (2,), "ReshapeOptions", {"newShape": [8, 4]})
    return tflite(Part(values, [op], (0,), (2,)))


def two_and_two() -> bytes:
    """Two inputs, a sum and a product."""
    values = [Value(name, "FLOAT32", (1, 8)) for name in ("left", "right", "sum", "product")]
    ops = [Op("ADD", (0, 1), (2,), "AddOptions"), Op("MUL", (0, 1), (3,), "MulOptions")]
    return tflite(Part(values, ops, (0, 1), (2, 3)))


def open_sizes(batch: int = -1) -> bytes:
    """A 3x3 convolution of images of any size, stored as 1x1, with an ADD of its result to itself."""
    kernel = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    values = [
        Value("image", "FLOAT32", (1, 1, 1, 3), (batch, -1, -1, 3)),
        Value("kernel", "FLOAT32", kernel.shape, data=kernel),
        Value("bias", "FLOAT32", (4,), data=np.zeros(4, np.float32)),
        Value("found", "FLOAT32", (1, 1, 1, 4), (batch, -1, -1, 4)),
        Value("twice", "FLOAT32", (1, 1, 1, 4), (batch, -1, -1, 4)),
    ]
    conv = Op("CONV_2D", (0, 1, 2), (3,), "Conv2DOptions", {"strideW": 1, "strideH": 1})
    return tflite(Part(values, [conv, Op("ADD", (3, 3), (4,), "AddOptions")], (0,), (4,)))


def open_batch() -> bytes:
    """x + x for batches of any size, stored as 1."""
    values = [Value("x", "FLOAT32", (1, 8), (-1, 8)), Value("y", "FLOAT32", (1, 8), (-1, 8))]
    return tflite(Part(values, [Op("ADD", (0, 0), (1,), "AddOptions")], (0,), (1,)))


def embedding(rows: int = 5) -> bytes:
    """Rows of a small table, by tokens."""
    table = np.ones((rows, 4), np.float32)
    values = [
        Value("table", "FLOAT32", table.shape, data=table), Value("tokens", "INT32", (1, 6)),
        Value("found", "FLOAT32", (1, 6, 4)),
    ]  # fmt: skip
    return tflite(Part(values, [Op("GATHER", (0, 1), (2,), "GatherOptions")], (1,), (2,)))


def custom(name: str = "MyOwnOp") -> bytes:
    values = [Value("x", "FLOAT32", (1, 8)), Value("y", "FLOAT32", (1, 8))]
    return tflite(Part(values, [Op("CUSTOM", (0,), (1,), custom=name)], (0,), (1,)))


def branching() -> bytes:
    """x + x, or x * x, as a flag says."""
    values = [Value("flag", "BOOL", (1,)), Value("x", "FLOAT32", (1, 8)), Value("y", "FLOAT32", (1, 8))]
    choice = Op("IF", (0, 1), (2,), "IfOptions", {"thenSubgraphIndex": 1, "elseSubgraphIndex": 2})
    inner = [Value("x", "FLOAT32", (1, 8)), Value("y", "FLOAT32", (1, 8))]
    return tflite(
        Part(values, [choice], (0, 1), (2,)),
        Part(inner, [Op("ADD", (0, 0), (1,), "AddOptions")], (0,), (1,)),
        Part(inner, [Op("MUL", (0, 0), (1,), "MulOptions")], (0,), (1,)),
    )


ONNX_DTYPES = {
    "float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "float64": TensorProto.DOUBLE,
    "int8": TensorProto.INT8, "uint8": TensorProto.UINT8, "int16": TensorProto.INT16, "int32": TensorProto.INT32,
    "int64": TensorProto.INT64, "bool": TensorProto.BOOL, "object": TensorProto.STRING,
}  # fmt: skip


def onnx_model(
    nodes: Sequence[Any],
    inputs: Mapping[str, tuple[str, Sequence[int | str | None]]],
    outputs: Mapping[str, tuple[str, Sequence[int | str | None]]],
    constants: Mapping[str, NDArray[Any]] | None = None,
    domains: Sequence[str] = (),
) -> onnx.ModelProto:
    """A model of these nodes; inputs and outputs are {name: (dtype, sizes)}."""

    def info(values: Mapping[str, tuple[str, Sequence[int | str | None]]]) -> list[Any]:
        return [
            helper.make_tensor_value_info(name, ONNX_DTYPES[dtype], list(sizes))
            for name, (dtype, sizes) in values.items()
        ]

    stored = [onnx.numpy_helper.from_array(value, name) for name, value in (constants or {}).items()]
    graph = helper.make_graph(list(nodes), "made_by_a_test", info(inputs), info(outputs), stored)
    opsets = [helper.make_opsetid("", 17), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def onnx_identity(dtype: str, sizes: Sequence[int | str | None] = (2, 8)) -> onnx.ModelProto:
    return onnx_model([helper.make_node("Identity", ["x"], ["y"])], {"x": (dtype, sizes)}, {"y": (dtype, sizes)})


def onnx_two_and_two() -> onnx.ModelProto:
    """Two inputs of open sizes, a sum and a product."""
    nodes = [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Mul", ["a", "b"], ["product"])]
    sizes = ("n", 8)
    return onnx_model(
        nodes, {"a": ("float32", sizes), "b": ("float32", sizes)},
        {"sum": ("float32", sizes), "product": ("float32", sizes)},
    )  # fmt: skip


def onnx_matmul(rows: int = 64) -> onnx.ModelProto:
    weights = np.random.default_rng(0).normal(size=(rows, rows)).astype(np.float32)
    node = helper.make_node("MatMul", ["x", "weights"], ["y"])
    return onnx_model([node], {"x": ("float32", (4, rows))}, {"y": ("float32", (4, rows))}, {"weights": weights})


def onnx_sorted() -> onnx.ModelProto:
    """The largest values of each row, by an op that graphs have no other name for."""
    node = helper.make_node("TopK", ["x", "k"], ["y", "places"])
    values = {"x": ("float32", (4, 8))}
    return onnx_model(
        [node], values, {"y": ("float32", (4, 3)), "places": ("int64", (4, 3))}, {"k": np.array([3], np.int64)}
    )


def saved(folder: Path, name: str, content: bytes | onnx.ModelProto) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    return path
