"""Values that an .onnx file computes from constants alone: found by ONNX's own shape inference and reference
operators."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, TypeProto, checker, defs, helper, numpy_helper, shape_inference

from netlathe.archspace.errors import FormatError
from netlathe.archspace.ops import DType, Shape, told

MOST_FOLDED = 1 << 16
"""Values of a constant that is computed rather than known by its shape alone."""
DTYPES = {
    TensorProto.FLOAT: DType.FLOAT32, TensorProto.FLOAT16: DType.FLOAT16, TensorProto.INT8: DType.INT8,
    TensorProto.UINT8: DType.UINT8, TensorProto.INT16: DType.INT16, TensorProto.INT32: DType.INT32,
    TensorProto.INT64: DType.INT64, TensorProto.BOOL: DType.BOOL, TensorProto.DOUBLE: DType.FLOAT64,
    TensorProto.UINT16: DType.UINT16, TensorProto.UINT32: DType.UINT32, TensorProto.UINT64: DType.UINT64,
}  # fmt: skip
FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)

_SHAPED_LIKE = {"DynamicQuantizeLSTM": "LSTM"}
"""Ops that ONNX does not know, and the one of its own whose results have the same shapes."""

REFUSALS = (checker.ValidationError, shape_inference.InferenceError, ValueError, RuntimeError)
"""Errors that ONNX's own inference raises."""


@dataclass(frozen=True)
class Stored:
    """A constant of the file: its shape and dtype (as TensorProto numbers them), and its values where they are at hand.
    `quantized` is the dtype that they are stored in, where another one is computed with; `computed` gives values that
    are computed from other constants, and `folder` is where those lie that are in other files."""

    shape: Shape
    dtype: int
    tensor: TensorProto | None = None
    quantized: DType | None = None
    computed: Callable[[], NDArray[Any]] | None = field(default=None, compare=False)
    folder: Path | None = None

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def is_known(self) -> bool:
        """Whether its values are few and in the file."""
        return self.tensor is not None and self.count <= MOST_FOLDED and not is_external(self.tensor)

    def array(self, what: str) -> NDArray[Any]:
        """Its values. What it says of other files is not followed: it might name any of the user's own. Raises
        FormatError for many values, or ones that are not in the file."""
        if self.tensor is not None and is_external(self.tensor):
            raise FormatError(f"its {what} lies in another file; save the model with its constants inside")
        if self.count > MOST_FOLDED:
            raise FormatError(f"its {what} is a constant of shape {told(self.shape)}, and no list of a few numbers")
        if self.tensor is None:
            raise FormatError(f"its {what} must be a constant; fold what computes it (onnxsim, or a fixed-size export)")
        return np.asarray(numpy_helper.to_array(self.tensor))

    def values(self, name: str) -> NDArray[Any]:
        """All of its values, however many, also those in another file beside the model. Raises FormatError where they
        are not to be had; `name` tells which constant that is."""
        if self.quantized is not None:
            raise FormatError(f"constant {name!r:.80} is {self.quantized}: quantized already; give the float32 model")
        if self.computed is not None:
            return self.computed()
        if self.tensor is None:
            raise FormatError(f"constant {name!r:.80} is sparse or not stored, so that it has no values to be read")
        if is_external(self.tensor) and self.folder is None:
            raise FormatError(f"constant {name!r:.80} lies in another file; read the model by its path")
        try:
            return np.asarray(numpy_helper.to_array(self.tensor, str(self.folder or "")))
        except (checker.ValidationError, OSError, ValueError) as error:
            raise FormatError(f"constant {name!r:.80} cannot be read: {error!s:.200}") from error

    @property
    def type(self) -> TypeProto:
        return type_of(self.dtype, self.shape)

    @classmethod
    def of(cls, tensor: TensorProto, folder: Path | None = None) -> Stored:
        return cls(tuple(tensor.dims), tensor.data_type, tensor, folder=folder)

    @classmethod
    def of_array(cls, values: Any) -> Stored:
        return cls.of(numpy_helper.from_array(np.asarray(values)))


def stored_values(model: ModelProto, folder: Path | None) -> int:
    """Values that a model and the files of weights beside it may hold, a byte each at least."""
    files = {
        entry.value
        for tensor in model.graph.initializer
        if is_external(tensor)
        for entry in tensor.external_data
        if entry.key == "location"
    }
    beside = sum((folder / file).stat().st_size for file in files) if folder is not None else 0
    return int(model.ByteSize()) + beside


def is_external(tensor: TensorProto) -> bool:
    """Whether its values lie in another file."""
    return bool(tensor.data_location == TensorProto.EXTERNAL)


def type_of(dtype: int, shape: Shape) -> TypeProto:
    """A tensor's type as ONNX writes it."""
    return helper.make_tensor_type_proto(dtype, shape)


def fixed_shape(kind: TypeProto) -> tuple[int, Shape] | None:
    """Dtype and shape of a type whose sizes are all fixed; None for any other."""
    if not kind.HasField("tensor_type") or not kind.tensor_type.HasField("shape"):
        return None
    dims = kind.tensor_type.shape.dim
    if not all(dim.HasField("dim_value") and dim.dim_value >= 0 for dim in dims):
        return None
    return kind.tensor_type.elem_type, tuple([dim.dim_value for dim in dims])


class Inference:
    """Shapes and values of single nodes, by the rules of ONNX at the versions that a model names."""

    def __init__(self, opsets: Mapping[str, int], ir_version: int, most_computed: int = MOST_FOLDED) -> None:
        """`most_computed` are the values of a constant that is computed as a weight."""
        self._most_computed = most_computed
        self._opsets = dict(opsets)
        self._imports = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
        self._ir_version = ir_version

    def types(self, node: NodeProto, types: Mapping[str, TypeProto], values: Mapping[str, Stored]) -> dict[str, Any]:
        """The types of a node's results as far as ONNX can tell them; none for ops that it does not know."""
        if node.op_type in _SHAPED_LIKE:
            like = NodeProto(op_type=_SHAPED_LIKE[node.op_type], input=[node.input[0]] * 3, output=node.output)
            like.attribute.extend(a for a in node.attribute if a.name in ("hidden_size", "direction"))
            node = like
        try:
            schema = defs.get_schema(node.op_type, self._opsets.get(node.domain, 1), node.domain)
            data = {name: stored.tensor for name, stored in values.items() if stored.is_known}
            return dict(
                shape_inference.infer_node_outputs(
                    schema, node, dict(types), data, opset_imports=self._imports, ir_version=self._ir_version
                )
            )
        except (*REFUSALS, defs.SchemaError, KeyError, TypeError):
            return {}

    def fold(self, node: NodeProto, inputs: Mapping[str, Stored]) -> dict[str, Stored]:
        """A node's results, all of whose inputs are constants. Raises FormatError where ONNX cannot tell them."""
        types = self.types(node, {name: stored.type for name, stored in inputs.items()}, inputs)
        found = {name: fixed_shape(types[name]) for name in node.output if name and name in types}
        if len(found) < sum(map(bool, node.output)) or not all(found.values()):
            raise FormatError(f"its result cannot be computed from the constants {', '.join(inputs):.100}")
        shapes = {
            name: Stored(known[1], known[0], computed=partial(self._computed, node, inputs, name))
            for name, known in found.items()
            if known
        }
        few = all(stored.count <= MOST_FOLDED for stored in shapes.values())
        if not few or not all(s.is_known for s in inputs.values()):
            return shapes
        results = self._run(node, inputs, {name: stored.array("value") for name, stored in inputs.items()})
        return {name: Stored.of_array(value) for name, value in results.items()}

    def _computed(self, node: NodeProto, inputs: Mapping[str, Stored], wanted: str) -> NDArray[Any]:
        """The values of one result. Raises FormatError for more than weights of the file can be."""
        results = (
            fixed_shape(kind) for kind in self.types(node, {n: s.type for n, s in inputs.items()}, inputs).values()
        )
        count = sum(math.prod(known[1]) for known in results if known)
        if count > max(MOST_FOLDED, self._most_computed):
            raise FormatError(
                f"it computes {count} values of constants, more than the file stores; fold them beforehand"
            )
        feeds = {name: stored.values(name) for name, stored in inputs.items()}
        return self._run(node, inputs, feeds)[wanted]

    def _run(
        self, node: NodeProto, inputs: Mapping[str, Stored], feeds: Mapping[str, NDArray[Any]]
    ) -> dict[str, NDArray[Any]]:
        from onnx.reference import ReferenceEvaluator

        taken = [helper.make_value_info(name, stored.type) for name, stored in inputs.items()]
        given = [helper.make_empty_tensor_value_info(name) for name in node.output if name]
        graph = helper.make_graph([node], "folded", taken, given)
        model = helper.make_model(graph, opset_imports=self._imports, ir_version=max(self._ir_version, 4))
        with np.errstate(all="ignore"):
            results = ReferenceEvaluator(model).run(None, dict(feeds))
        return {name: np.asarray(value) for name, value in zip(filter(None, node.output), results, strict=True)}
