"""Foreign .tflite files, put together from the schema's own tables as converters do it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from numpy.typing import NDArray

from netlathe.archspace.forms.tflite_file import OPTIONS
from netlathe.archspace.graph import Graph

_TYPES = {"float64": "FLOAT64", "bool": "BOOL"}


class FileBuilder:
    """Collects tensors and ops of one file; all methods that add a tensor return its index."""

    def __init__(self) -> None:
        self.model: Any = schema.ModelT()
        self.model.version = 3
        self.model.operatorCodes, self.model.subgraphs = [], []
        self.model.buffers = [schema.BufferT()]
        self.add_subgraph("main")

    def add_subgraph(self, name: str) -> None:
        """Begins a subgraph, to which all tensors and ops are added from now on."""
        graph: Any = schema.SubGraphT()
        graph.tensors, graph.operators, graph.inputs, graph.outputs, graph.name = [], [], [], [], name
        self.model.subgraphs.append(graph)

    @property
    def graph(self) -> Any:
        return self.model.subgraphs[-1]

    def tensor(
        self,
        shape: Sequence[int],
        dtype: str = "float32",
        *,
        scales: Sequence[float] = (),
        axis: int = 0,
        signature: Sequence[int] | None = None,
        name: str = "",
    ) -> int:
        tensor: Any = schema.TensorT()
        tensor.shape, tensor.type, tensor.buffer = list(shape), getattr(schema.TensorType, dtype.upper()), 0
        tensor.name, tensor.hasRank = name or f"t{len(self.graph.tensors)}", True
        tensor.shapeSignature = None if signature is None else list(signature)
        if scales:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale, tensor.quantization.quantizedDimension = list(scales), axis
            tensor.quantization.zeroPoint = [0] * len(scales)
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def input(self, shape: Sequence[int], dtype: str = "float32", **settings: Any) -> int:
        index = self.tensor(shape, dtype, **settings)
        self.graph.inputs.append(index)
        return index

    def constant(self, values: Any, dtype: str = "float32", **settings: Any) -> int:
        array = np.array(values, dtype)
        index = self.tensor(array.shape, dtype, **settings)
        self.graph.tensors[index].buffer = len(self.model.buffers)
        buffer: Any = schema.BufferT()
        buffer.data = array.reshape(-1).view(np.uint8)
        self.model.buffers.append(buffer)
        return index

    def weights(self, *shape: int, dtype: str = "float32", **settings: Any) -> int:
        return self.constant(np.random.default_rng(0).uniform(-1, 1, shape), dtype, **settings)

    def op(
        self, kind: str, inputs: Sequence[int], *shapes: Sequence[int], dtype: str = "float32", version: int = 1,
        result: Mapping[str, Any] | None = None, **options: Any,
    ) -> int:  # fmt: skip
        """A builtin op; returns its first result, whose others follow by number. `result` are the tensors' settings."""
        table = OPTIONS.get(kind)
        operator = self._operator(getattr(schema.BuiltinOperator, kind), None, version, inputs)
        if table:
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, table)
            operator.builtinOptions = getattr(schema, f"{table}T")(**options)
        return self._results(operator, shapes, dtype, result or {})

    def custom(
        self, name: str, inputs: Sequence[int], *shapes: Sequence[int], dtype: str = "float32", options: bytes = b""
    ) -> int:
        operator = self._operator(schema.BuiltinOperator.CUSTOM, name, 1, inputs)
        operator.customOptions = list(options)
        return self._results(operator, shapes, dtype, {})

    def _operator(self, code: int, custom: str | None, version: int, inputs: Sequence[int]) -> Any:
        entry: Any = schema.OperatorCodeT()
        entry.builtinCode, entry.deprecatedBuiltinCode, entry.version = code, min(code, 127), version
        entry.customCode = custom
        self.model.operatorCodes.append(entry)
        operator: Any = schema.OperatorT()
        operator.opcodeIndex, operator.inputs = len(self.model.operatorCodes) - 1, list(inputs)
        self.graph.operators.append(operator)
        return operator

    def _results(self, operator: Any, shapes: Sequence[Any], dtype: str, settings: Mapping[str, Any]) -> int:
        results = [self.tensor(shape, dtype, **settings) for shape in shapes]
        operator.outputs = results
        return results[0]

    def conv(self, x: int, shape: Sequence[int], kernel: Sequence[int], **options: Any) -> int:
        """A CONV_2D with weights (out, kh, kw, in)."""
        kernel_index, bias = self.weights(*kernel), self.constant(np.zeros(kernel[0]))
        return self.op("CONV_2D", (x, kernel_index, bias), shape, **{"strideH": 1, "strideW": 1, **options})

    def finish(self, *outputs: int) -> bytes:
        """The file that gives these tensors."""
        self.graph.outputs = list(outputs)
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def macs_of(content: bytes) -> int:
    """Multiply-accumulates counted by the shapes that the file states for its tensors."""
    model: Any = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    (graph,) = model.subgraphs
    total = 0
    for operator in graph.operators:
        kind = names[model.operatorCodes[operator.opcodeIndex].builtinCode]
        sizes = [[*map(int, graph.tensors[t].shape)] for t in (*operator.inputs[:3], operator.outputs[0])]
        if kind in ("CONV_2D", "FULLY_CONNECTED"):  # for each value of the result: a filter, or a row
            total += math.prod(sizes[-1]) * math.prod(sizes[1][1:])
        elif kind == "DEPTHWISE_CONV_2D":
            total += math.prod(sizes[-1]) * math.prod(sizes[1][1:3])
        elif kind == "TRANSPOSE_CONV":  # for each pixel that goes in: all filters
            total += math.prod(sizes[2][:3]) * math.prod(sizes[1])
    return total


def assert_runs_as_read(content: bytes, graph: Graph, shapes: Mapping[int, Sequence[int]] | None = None) -> None:
    """LiteRT runs the file and gives what the graph says: as many results, of these shapes and dtypes. `shapes` are
    those that inputs are resized to, by their place."""
    interpreter = Interpreter(
        model_content=content, num_threads=1,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )  # fmt: skip
    for place, shape in (shapes or {}).items():
        interpreter.resize_tensor_input(interpreter.get_input_details()[place]["index"], list(shape))
    interpreter.allocate_tensors()
    for detail in interpreter.get_input_details():
        interpreter.set_tensor(detail["index"], np.ones(detail["shape"], detail["dtype"]))
    interpreter.invoke()
    found: list[NDArray[Any]] = [interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details()]
    assert [y.shape or (1,) for y in found] == [*graph.output_shapes]
    assert [str(y.dtype) for y in found] == [str(graph.dtypes[t]) for t in graph.outputs]
