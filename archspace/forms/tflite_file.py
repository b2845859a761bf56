"""The .tflite container: a flatbuffer (schema v3, identifier TFL3) as plain Python data and back.

What the ops mean is the business of tflite.py and tflite_reader.py.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from netlathe.archspace.errors import FormatError
from netlathe.archspace.forms.flatbuffer import FlatWriter
from netlathe.archspace.ops import ActivationKind, Padding, Shape

T = TypeVar("T")

OPTIONS: dict[str, str | None] = {
    "ABS": "AbsOptions", "ADD": "AddOptions", "ARG_MAX": "ArgMaxOptions", "ARG_MIN": "ArgMinOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions", "BATCH_MATMUL": "BatchMatMulOptions",
    "BATCH_TO_SPACE_ND": "BatchToSpaceNDOptions", "BROADCAST_TO": "BroadcastToOptions", "CALL": "CallOptions",
    "CAST": "CastOptions",
    "CEIL": None, "CONCATENATION": "ConcatenationOptions", "CONV_2D": "Conv2DOptions", "COS": "CosOptions",
    "DENSIFY": "DensifyOptions", "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "DEPTH_TO_SPACE": "DepthToSpaceOptions", "DEQUANTIZE": "DequantizeOptions", "DIV": "DivOptions", "ELU": None,
    "EXP": "ExpOptions", "EXPAND_DIMS": "ExpandDimsOptions", "FILL": "FillOptions", "FLOOR": None,
    "FLOOR_DIV": "FloorDivOptions", "FULLY_CONNECTED": "FullyConnectedOptions", "GATHER": "GatherOptions",
    "GELU": "GeluOptions", "HARD_SWISH": None, "L2_NORMALIZATION": "L2NormOptions", "LEAKY_RELU": "LeakyReluOptions",
    "LOCAL_RESPONSE_NORMALIZATION": "LocalResponseNormalizationOptions", "LOG": None, "LOGISTIC": None,
    "LOG_SOFTMAX": "LogSoftmaxOptions", "MAXIMUM": "MaximumMinimumOptions", "MAX_POOL_2D": "Pool2DOptions",
    "MEAN": "ReducerOptions", "MINIMUM": "MaximumMinimumOptions", "MIRROR_PAD": "MirrorPadOptions",
    "MUL": "MulOptions", "NEG": "NegOptions", "PACK": "PackOptions", "PAD": "PadOptions", "PADV2": "PadV2Options",
    "POW": "PowOptions", "PRELU": None, "QUANTIZE": "QuantizeOptions", "RANGE": "RangeOptions", "RANK": "RankOptions",
    "REDUCE_MAX": "ReducerOptions", "REDUCE_MIN": "ReducerOptions", "REDUCE_PROD": "ReducerOptions", "RELU": None,
    "RELU6": None, "RELU_0_TO_1": None, "RELU_N1_TO_1": None, "RESHAPE": "ReshapeOptions",
    "RESIZE_BILINEAR": "ResizeBilinearOptions", "RESIZE_NEAREST_NEIGHBOR": "ResizeNearestNeighborOptions",
    "ROUND": None, "RSQRT": None, "SHAPE": "ShapeOptions", "SIGN": "SignOptions", "SIN": None,
    "SLICE": "SliceOptions", "SOFTMAX": "SoftmaxOptions", "SPACE_TO_BATCH_ND": "SpaceToBatchNDOptions",
    "SPACE_TO_DEPTH": "SpaceToDepthOptions", "SPLIT": "SplitOptions", "SPLIT_V": "SplitVOptions", "SQRT": None,
    "SQUARE": "SquareOptions", "SQUARED_DIFFERENCE": "SquaredDifferenceOptions", "SQUEEZE": "SqueezeOptions",
    "STRIDED_SLICE": "StridedSliceOptions", "SUB": "SubOptions", "SUM": "ReducerOptions", "TANH": None,
    "TILE": "TileOptions", "TRANSPOSE": "TransposeOptions", "TRANSPOSE_CONV": "TransposeConvOptions",
    "UNPACK": "UnpackOptions",
}  # fmt: skip
"""The ops that netlathe writes or reads, by builtin name, with the table that holds their options."""

PADDINGS = {Padding.SAME: schema.Padding.SAME, Padding.VALID: schema.Padding.VALID}
ACTIVATIONS = {
    ActivationKind.RELU: "RELU",
    ActivationKind.RELU6: "RELU6",
    ActivationKind.HARD_SWISH: "HARD_SWISH",
    ActivationKind.SIGMOID: "LOGISTIC",
}
"""The activations that are one op of their own."""
POOLS = {"avg": "AVERAGE_POOL_2D", "max": "MAX_POOL_2D"}

_COMPOSITE = "STABLEHLO_COMPOSITE"
_TRANSPOSE_CONV_WITH_BIAS = "Convolution2DTransposeBias"
"""A custom op of MediaPipe's, which LiteRT knows too: TRANSPOSE_CONV of an image, weights and a bias."""
_PARAMS_PADDINGS = {1: Padding.SAME, 2: Padding.VALID}
"""By TfLitePadding."""
_CALLEES = {"CALL": "subgraph", _COMPOSITE: "decompositionSubgraphIndex"}
"""The ops that run another subgraph once, and the option that tells its index."""
_DEEPEST_CALL = 8
_VERSION = 3
_IDENTIFIER = b"TFL3"
_BUFFER_ALIGNMENT = 16  # bytes; the schema demands it of Buffer.data, the library's Python code ignores it
_MAX_CONSTANTS = 2**31 - 2**24  # bytes; offsets in the file are 31 bits wide, and other things need room too
_SIGNATURE = "serving_default"
_CORRUPT = (struct.error, LookupError, ValueError, TypeError, ArithmeticError, AttributeError, MemoryError)
_TABLE_ITEMS = 16
"""Entries that a table counts for: it takes more memory than an entry of a vector."""
_MOST_ITEMS = 4_000_000
"""Entries of all vectors and characters of all names that are read of one file: what stands in it once may be pointed
to any number of times."""


def _names(enumeration: type) -> dict[int, str]:
    return {value: name for name, value in vars(enumeration).items() if not name.startswith("_")}


_CODE_NAMES = _names(schema.BuiltinOperator)
_TYPE_NAMES = _names(schema.TensorType)
_DTYPES: dict[str, np.dtype[Any]] = {
    "FLOAT32": np.dtype("<f4"), "FLOAT16": np.dtype("<f2"), "FLOAT64": np.dtype("<f8"), "BOOL": np.dtype("?"),
    "INT8": np.dtype("i1"), "INT16": np.dtype("<i2"), "INT32": np.dtype("<i4"), "INT64": np.dtype("<i8"),
    "UINT8": np.dtype("u1"), "UINT16": np.dtype("<u2"), "UINT32": np.dtype("<u4"), "UINT64": np.dtype("<u8"),
    "COMPLEX64": np.dtype("<c8"),
}  # fmt: skip
_OTHER_FILES = (
    (b"PK\x03\x04", "it is a zip archive (a MediaPipe .task bundle?); unpack it and give the .tflite file inside"),
    (b"version https://git-lfs", "it is a pointer of Git LFS; fetch the content with `git lfs pull`"),
    (b"<", "it is a web page; check the download's address"),
)
"""Beginnings of files that are called .tflite when they are something else, and what to do then."""


@dataclass(frozen=True)
class Quantization:
    """The real value is (integer - zero_point) * scale, with one scale or one for each index of `axis`."""

    scales: tuple[float, ...]
    zero_point: int
    axis: int = 0


@dataclass(frozen=True, eq=False)
class Tensor:
    """A value: computed at run time, or a constant that carries its data. `dtype` is a schema name (FLOAT32).

    `shape` is what the file records; `signature` has -1 for each size that is open, and is () where none is. The data
    of sparse tensors and of dtypes below 8 bits are plain bytes. A variable keeps its value from one run to the next.
    An external constant's data are in another file.
    """

    name: str
    shape: Shape
    dtype: str = "FLOAT32"
    data: NDArray[Any] | None = None
    quantization: Quantization | None = None
    signature: Shape = ()
    is_variable: bool = False
    is_external: bool = False


@dataclass(frozen=True)
class Operator:
    """An op by its schema name or, where it is a custom one, by its own; the tensors it takes (-1: none) and gives, its
    options by schema names."""

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    version: int = 1
    is_custom: bool = False

    @property
    def fused(self) -> int:
        """The activation that the op applies to its result, as the schema numbers it."""
        return int(self.options.get("fusedActivationFunction", 0))


@dataclass(frozen=True)
class Model:
    """One subgraph. `inputs` and `outputs` are indices of tensors."""

    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    metadata: Mapping[str, bytes] = field(default_factory=dict)


def all_options(kind: str, **given: Any) -> dict[str, Any]:
    """An op's options by schema name: the given ones, and the schema's default for every other."""
    name = OPTIONS[kind]
    return vars(getattr(schema, f"{name}T")(**given)) if name else {}


def pack(model: Model, description: str) -> bytes:
    """The model as the bytes of a .tflite file, every buffer aligned to 16 bytes. Raises FormatError beyond 2 GB."""
    if sum(t.data.nbytes for t in model.tensors if t.data is not None) > _MAX_CONSTANTS:
        raise FormatError("the weights exceed 2 GB, the limit of a .tflite file; write a smaller network")
    writer = FlatWriter()
    return writer.finish(_pack_model(writer, model, description), _IDENTIFIER)


def _pack_model(writer: FlatWriter, model: Model, description: str) -> int:
    buffers = [_table(writer, "Buffer")]  # by convention the first is empty: tensors without data point there
    metadata = []
    for name, content in model.metadata.items():
        metadata.append(_table(writer, "Metadata", Name=writer.string(name), Buffer=len(buffers)))
        buffers.append(_pack_buffer(writer, np.frombuffer(content, np.uint8)))
    tensors = []
    for tensor in model.tensors:
        tensors.append(_pack_tensor(writer, tensor, 0 if tensor.data is None else len(buffers)))
        if tensor.data is not None:
            buffers.append(_pack_buffer(writer, tensor.data))
    codes = sorted({(op.kind, op.version) for op in model.operators})
    operators = [_pack_operator(writer, op, codes.index((op.kind, op.version))) for op in model.operators]
    subgraph = _table(
        writer, "SubGraph", Name=writer.string("main"), Tensors=writer.offsets(tensors),
        Operators=writer.offsets(operators), Inputs=writer.integers(model.inputs),
        Outputs=writer.integers(model.outputs),
    )  # fmt: skip
    return _table(
        writer, "Model", Version=_VERSION, Description=writer.string(description), Metadata=writer.offsets(metadata),
        OperatorCodes=writer.offsets([_pack_code(writer, *code) for code in codes]),
        Subgraphs=writer.offsets([subgraph]), SignatureDefs=writer.offsets([_pack_signature(writer, model)]),
        Buffers=writer.offsets(buffers),
    )  # fmt: skip


def _table(writer: FlatWriter, table: str, /, **fields: int) -> int:
    """A table of the schema's, from its fields as the generated code spells them."""
    getattr(schema, f"{table}Start")(writer)
    for key, value in fields.items():
        getattr(schema, f"{table}Add{key}")(writer, value)
    return int(getattr(schema, f"{table}End")(writer))


def _pack_buffer(writer: FlatWriter, data: NDArray[Any]) -> int:
    content = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    return _table(writer, "Buffer", Data=writer.vector(content.data, content.size, _BUFFER_ALIGNMENT))


def _pack_tensor(writer: FlatWriter, tensor: Tensor, buffer: int) -> int:
    name, shape = writer.string(tensor.name), writer.integers(tensor.shape)
    fields = {"Type": getattr(schema.TensorType, tensor.dtype), "Buffer": buffer}
    if tensor.quantization:
        fields["Quantization"] = _pack_quantization(writer, tensor.quantization)
    return _table(writer, "Tensor", Name=name, Shape=shape, HasRank=True, **fields)


def _pack_quantization(writer: FlatWriter, quantization: Quantization) -> int:
    count = len(quantization.scales)
    scales = writer.vector(np.array(quantization.scales, "<f4").tobytes(), count)
    zero_points = writer.vector(np.full(count, quantization.zero_point, "<i8").tobytes(), count, alignment=8)
    axis = quantization.axis
    return _table(writer, "QuantizationParameters", Scale=scales, ZeroPoint=zero_points, QuantizedDimension=axis)


def _pack_operator(writer: FlatWriter, operator: Operator, code: int) -> int:
    fields = {"Inputs": writer.integers(operator.inputs), "Outputs": writer.integers(operator.outputs)}
    options = OPTIONS[operator.kind]
    if options:
        lists = {key: np.array(v, np.int32) for key, v in operator.options.items() if isinstance(v, tuple)}
        fields["BuiltinOptions"] = getattr(schema, f"{options}T")(**{**operator.options, **lists}).Pack(writer)
        fields["BuiltinOptionsType"] = getattr(schema.BuiltinOptions, options)
    return _table(writer, "Operator", OpcodeIndex=code, **fields)


def _pack_code(writer: FlatWriter, kind: str, version: int) -> int:
    code = getattr(schema.BuiltinOperator, kind)
    return _table(writer, "OperatorCode", DeprecatedBuiltinCode=min(code, 127), BuiltinCode=code, Version=version)


def _pack_signature(writer: FlatWriter, model: Model) -> int:
    def named(name: str, tensor: int) -> int:
        return _table(writer, "TensorMap", Name=writer.string(name), TensorIndex=tensor)

    inputs = writer.offsets([named(model.tensors[t].name, t) for t in model.inputs])
    outputs = writer.offsets([named("output", t) for t in model.outputs])
    return _table(writer, "SignatureDef", SignatureKey=writer.string(_SIGNATURE), Inputs=inputs, Outputs=outputs)


def unpack(data: bytes, subgraph: str | None = None) -> Model:
    """One subgraph of a .tflite file, the first or that of a name or signature. Constants are views into `data`.

    Raises FormatError for anything that is not a whole .tflite file, and for a subgraph that it does not have.
    """
    if data[4:8] != _IDENTIFIER:
        why = next((why for begin, why in _OTHER_FILES if data.lstrip().startswith(begin)), "")
        why = why or "its identifier TFL3 is missing; check the path and the download, and decrypt the file first"
        raise FormatError(f"not a .tflite file: {why}")
    try:
        return _Unpacker(data).model(schema.Model.GetRootAs(data, 0), subgraph)
    except _CORRUPT as error:
        raise FormatError(f"the .tflite file is truncated or corrupt ({error!r}); write or fetch it again") from error


class _Unpacker:
    """Reads a file's tables, as long as they ask for no more than _MOST_ITEMS together."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._left = _MOST_ITEMS

    def _spend(self, count: int) -> int:
        """Raises ValueError where the file asks for more than it can need."""
        self._left -= count
        if count < 0 or self._left < 0:
            raise ValueError("it asks for more than any network needs")
        return count

    def model(self, root: Any, subgraph: str | None) -> Model:
        if root.Version() != _VERSION or not root.SubgraphsLength():
            found = f"version {root.Version()} with {root.SubgraphsLength()} subgraphs"
            raise FormatError(f"only .tflite files of schema version 3 with a subgraph can be read, got {found}")
        self._buffers = list(self._each(root.BuffersLength, root.Buffers))
        self._codes = [self._code(code) for code in self._each(root.OperatorCodesLength, root.OperatorCodes)]
        model = self._inlined(root, 0 if subgraph is None else self._place(root, subgraph))
        return replace(model, metadata=self._metadata(root))

    def _subgraph(self, graph: Any) -> Model:
        tensors = tuple(self._tensor(tensor) for tensor in self._each(graph.TensorsLength, graph.Tensors))
        operators = tuple(self._operator(op) for op in self._each(graph.OperatorsLength, graph.Operators))
        inputs, outputs = self._integers(graph.InputsAsNumpy()), self._integers(graph.OutputsAsNumpy())
        used = {t for op in operators for t in (*op.inputs, *op.outputs)} | {*inputs, *outputs}
        if used and not -1 <= min(used) <= max(used) < len(tensors):
            raise FormatError("the .tflite file is corrupt: an op names a tensor that does not exist")
        return Model(tensors, operators, inputs, outputs)

    def _inlined(self, root: Any, index: int, depth: int = 0) -> Model:
        """A subgraph with those that it calls in the place of the calls."""
        model = self._subgraph(root.Subgraphs(index))
        tensors, operators = list(model.tensors), list[Operator]()
        for operator in model.operators:
            place = operator.options.get(_CALLEES.get(operator.kind, ""), 0)
            known = 0 < place < root.SubgraphsLength() and depth < _DEEPEST_CALL
            callee = self._inlined(root, place, depth + 1) if known else None
            operators += [operator] if callee is None else _called(callee, operator, tensors)
        return replace(model, tensors=tuple(tensors), operators=tuple(operators))

    def _place(self, root: Any, name: str) -> int:
        """The index of the subgraph of that name or signature."""
        graphs = [self._text(g.Name()) for g in self._each(root.SubgraphsLength, root.Subgraphs)]
        signatures = self._each(root.SignatureDefsLength, root.SignatureDefs)
        places = {self._text(s.SignatureKey()): int(s.SubgraphIndex()) for s in signatures}
        places |= {found: index for index, found in reversed([*enumerate(graphs)])}
        if name not in places:
            raise FormatError(f"there is no subgraph or signature {name!r:.80}; there are {', '.join(places)}")
        return places[name]

    def _metadata(self, root: Any) -> dict[str, bytes]:
        found = {self._text(m.Name()): m.Buffer() for m in self._each(root.MetadataLength, root.Metadata)}
        contents = {}
        for name, index in found.items():
            self._spend(self._buffers[index].DataLength() // _TABLE_ITEMS)
            contents[name] = bytes(self._buffers[index].DataAsNumpy())
        return contents

    def _each(self, length: Callable[[], int], item: Callable[[int], T]) -> Iterator[T]:
        return (item(index) for index in range(self._spend(_TABLE_ITEMS * length()) // _TABLE_ITEMS))

    def _integers(self, vector: Any) -> tuple[int, ...]:
        """An integer vector; an absent one, which flatbuffers reads as the number 0, is empty."""
        return tuple(vector[: self._spend(len(vector))].tolist()) if isinstance(vector, np.ndarray) else ()

    def _text(self, name: bytes | None) -> str:
        text = name or b""
        return text[: self._spend(len(text))].decode(errors="replace")

    def _code(self, code: Any) -> tuple[str, bool]:
        """An op's name, and whether it is a custom one."""
        number = max(code.DeprecatedBuiltinCode(), code.BuiltinCode())  # files from before 2020 have only the former
        name = _CODE_NAMES.get(number, f"builtin op {number}")
        is_custom = name == "CUSTOM"
        return self._text(code.CustomCode()) or name if is_custom else name, is_custom

    def _tensor(self, tensor: Any) -> Tensor:
        name, dtype = self._text(tensor.Name()), _TYPE_NAMES[tensor.Type()]
        shape = self._integers(tensor.ShapeAsNumpy())
        signature = self._integers(tensor.ShapeSignatureAsNumpy())
        raw = self._content(self._buffers[tensor.Buffer()])
        if raw is not None and dtype in _DTYPES and tensor.Sparsity() is None:
            raw = raw.view(_DTYPES[dtype]).reshape(shape)
        quantization = self._quantization(tensor.Quantization())
        return Tensor(
            name, shape, dtype, raw, quantization, signature if -1 in signature else (), bool(tensor.IsVariable()),
            bool(tensor.ExternalBuffer()),
        )  # fmt: skip

    def _content(self, buffer: Any) -> NDArray[Any] | None:
        """A buffer's bytes, which large files keep behind the flatbuffer; None where there are none."""
        if buffer.DataLength():
            data: NDArray[Any] = buffer.DataAsNumpy()
            return data
        if buffer.Offset() <= 1 or not buffer.Size():
            return None
        if buffer.Offset() + buffer.Size() > len(self._data):
            raise ValueError("a tensor's data end behind the file")
        return np.frombuffer(self._data, np.uint8, buffer.Size(), buffer.Offset())

    def _quantization(self, table: Any) -> Quantization | None:
        if table is None or not table.ScaleLength():
            return None
        self._spend(table.ScaleLength())
        zero_point = table.ZeroPoint(0) if table.ZeroPointLength() else 0
        return Quantization(tuple(table.ScaleAsNumpy().tolist()), zero_point, table.QuantizedDimension())

    def _operator(self, operator: Any) -> Operator:
        kind, is_custom = self._codes[operator.OpcodeIndex()]
        inputs, outputs = self._integers(operator.InputsAsNumpy()), self._integers(operator.OutputsAsNumpy())
        if is_custom and kind == _TRANSPOSE_CONV_WITH_BIAS and len(inputs) == 3:
            known = self._transpose_conv_options(operator)
            if known is not None:
                image, weights, bias = inputs
                return Operator("TRANSPOSE_CONV", (-1, weights, image, bias), outputs, known, version=3)
        if kind == _COMPOSITE and not is_custom:
            options = self._composite_options(operator)
        else:
            options = {} if is_custom else self._options(operator, kind)
        return Operator(kind, inputs, outputs, options, is_custom=is_custom)

    def _transpose_conv_options(self, operator: Any) -> dict[str, Any] | None:
        """Options of the builtin op, of LiteRT's TfLiteTransposeConvParams: a padding and two strides; None where they
        are none."""
        given = operator.CustomOptionsAsNumpy()
        if not isinstance(given, np.ndarray) or len(given) < 12:
            return None
        padding, width, height = struct.unpack_from("<3i", given[:12].tobytes())
        if padding not in _PARAMS_PADDINGS or min(width, height) < 1:
            return None
        kind = PADDINGS[_PARAMS_PADDINGS[padding]]
        return {"padding": kind, "strideW": width, "strideH": height, "fusedActivationFunction": 0}

    def _options(self, operator: Any, kind: str) -> dict[str, Any]:
        """Every option of an op that can be read; what the file leaves out has the schema's default."""
        name = OPTIONS.get(kind)
        if not name:
            return {}
        found = operator.BuiltinOptionsType()
        if found not in (0, getattr(schema.BuiltinOptions, name)):
            raise ValueError(f"{kind} has options of another op")
        options = getattr(schema, f"{name}T")()
        if found:
            table = operator.BuiltinOptions()
            options = type(options).InitFromBuf(table.Bytes, table.Pos)
        return {key: self._integers(v) if isinstance(v, np.ndarray) else v for key, v in vars(options).items()}

    def _composite_options(self, operator: Any) -> dict[str, Any]:
        """The name of a composite op, and the subgraph that computes it where a runtime does not know it."""
        if operator.BuiltinOptions2Type() != schema.BuiltinOptions2.StableHLOCompositeOptions:
            return {}
        table, options = operator.BuiltinOptions2(), schema.StableHLOCompositeOptions()
        options.Init(table.Bytes, table.Pos)
        return {"name": self._text(options.Name()), _CALLEES[_COMPOSITE]: options.DecompositionSubgraphIndex()}


def _called(callee: Model, operator: Operator, tensors: list[Tensor]) -> list[Operator]:
    """The ops of a called subgraph on the caller's tensors, to which its own are added. The call itself where it does
    not fit the subgraph."""
    fits = (len(callee.inputs), len(callee.outputs)) == (len(operator.inputs), len(operator.outputs))
    given = {t for inner in callee.operators for t in inner.outputs}
    if not fits or not given.issuperset(callee.outputs) or len({*callee.outputs}) < len(callee.outputs):
        return [operator]
    places = {-1: -1, **dict(zip(callee.inputs, operator.inputs, strict=True))}
    places |= zip(callee.outputs, operator.outputs, strict=True)
    for index, tensor in enumerate(callee.tensors):
        if index not in places:
            places[index] = len(tensors)
            tensors.append(tensor)
    return [
        replace(inner, inputs=tuple(places[t] for t in inner.inputs), outputs=tuple(places[t] for t in inner.outputs))
        for inner in callee.operators
    ]
