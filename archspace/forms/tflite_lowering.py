"""Graph -> TFLite's ops in float32, one for one what the converters emit.

relu and relu6 become part of the op before them, and of a hard sigmoid, relu6(x + 3) / 6, what fits there. Every
tensor computed at run time is called after the node whose result it holds. Where nodes compute in int8, all their
tensors of real values are marked so, constants with their real values still: tflite_int8.py finds the integers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import singledispatch
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from netlathe.archspace import ops
from netlathe.archspace.errors import FormatError
from netlathe.archspace.forms.structure import BORDER_SCALE, EMBEDDED_KEY, embed, input_names, result_names
from netlathe.archspace.forms.tflite_arrays import graph_kernel
from netlathe.archspace.forms.tflite_file import (
    ACTIVATIONS,
    PADDINGS,
    POOLS,
    Model,
    Operator,
    Quantization,
    Tensor,
    all_options,
)
from netlathe.archspace.forms.weights import StoredArrays, Weights
from netlathe.archspace.graph import Graph, Node
from netlathe.archspace.kernels import clamped_nodes, gated_layers
from netlathe.archspace.ops import (
    HARD_SLOPE,
    Activation,
    ActivationKind,
    DType,
    Interpolation,
    Padding,
    PadMode,
    ReduceKind,
    Shape,
    UnaryKind,
)
from netlathe.archspace.precisions import Precision, is_mixed, precisions_of

FUSED = {
    None: schema.ActivationFunctionType.NONE,
    ActivationKind.RELU: schema.ActivationFunctionType.RELU,
    ActivationKind.RELU6: schema.ActivationFunctionType.RELU6,
    ops.Clip(-1.0, 1.0): schema.ActivationFunctionType.RELU_N1_TO_1,
}
_GROUPED_VERSION = 6  # of CONV_2D: the first that knows groups


def lower(graph: Graph, weights: Weights) -> Model:
    """The graph in TFLite's ops; the metadata hold the graph itself."""
    return lowered(graph, weights)[0]


def lowered(graph: Graph, weights: Weights) -> tuple[Model, tuple[int, ...]]:
    """The graph in TFLite's ops, and which of the model's tensors each of the graph's is. An op and the activation that
    it applies have one."""
    target = _Target(weights)
    clamped, gated = clamped_nodes(graph), gated_layers(graph)
    clamps, gates = set(clamped.values()), set(gated.values())
    behind = {before: graph.nodes[after] for before, after in (clamped | gated).items()}
    precisions = precisions_of(graph) if is_mixed(graph) else {}
    given = zip(input_names(graph), graph.inputs, graph.dtypes, strict=False)
    values = [target.tensor(name, shape, dtype=dtype.upper()) for name, shape, dtype in given]
    inputs = tuple(values)
    for index, (node, shapes, results) in enumerate(graph.steps()):
        taken = tuple(values[t] for t in node.inputs)
        if index in clamps:  # done by the op before
            values.append(taken[0])
            continue
        step = _Step(node.name, taken, shapes, results, behind.get(index), index in gates)
        target.real_dtype = "INT8" if precisions.get(node.name) is Precision.INT8 else "FLOAT32"
        found = _lower(node.op, target, step)
        values += [found] if isinstance(found, int) else found
    metadata = {EMBEDDED_KEY: embed(graph).encode()}
    outputs = tuple(values[t] for t in graph.outputs)
    return Model(tuple(target.tensors), tuple(target.operators), inputs, outputs, metadata), tuple(values)


def stored_weights(graph: Graph, lowered: Model, model: Model) -> dict[str, StoredArrays]:
    """The weights in a model whose ops are those of `lowered`, which the graph was lowered to."""
    data = {ours.name: theirs.data for ours, theirs in zip(lowered.tensors, model.tensors, strict=True)}
    gated = gated_layers(graph)
    found: dict[str, StoredArrays] = {}
    for index, (node, shapes, _) in enumerate(graph.steps()):
        names = {key: _SUFFIXES.get(key, f".{key}") for key in node.op.stored_shapes(*shapes)}
        arrays = {key: np.asarray(data[f"{node.name}{suffix}"]) for key, suffix in names.items()}
        if "kernel" in arrays:
            kernel = arrays["kernel"].astype(np.float32, copy=False)  # float16 is widened
            arrays["kernel"] = graph_kernel(_layer_kind(node.op, shapes), kernel)
            arrays["bias"] = arrays["bias"] - np.float32(_SHIFT if index in gated else 0)
        if arrays:
            found[node.name] = arrays
    return found


_SUFFIXES = {"kernel": ".weight", "values": ""}
"""Ends of the names of stored tensors, behind the node's, where they are not the array's name."""
_HALVES_VERSION = 3
"""First version of DEQUANTIZE that takes float16."""
_SHIFT = 3.0
"""The hard sigmoid's summand, which the bias of the layer before it takes in."""


def kernel_name(node: str) -> str:
    """Name of the tensor with the kernel of a layer, by the node's."""
    return f"{node}{_SUFFIXES['kernel']}"


def _layer_kind(op: ops.Op, shapes: tuple[Shape, ...]) -> str:
    if isinstance(op, ops.Conv2d):
        return "DEPTHWISE_CONV_2D" if op.is_depthwise(shapes[0]) else "CONV_2D"
    return "TRANSPOSE_CONV" if isinstance(op, ops.TransposeConv2d) else "FULLY_CONNECTED"


def _halves(kernel: NDArray[np.float32], name: str) -> NDArray[np.float16]:
    """The kernel in float16. Raises FormatError for values beyond its range."""
    with np.errstate(over="ignore"):
        halves = kernel.astype(np.float16)
    if not np.isfinite(halves).all():
        raise FormatError(f"the weights {name!r} reach beyond 65504, what float16 holds: leave them in float32")
    return halves


@dataclass(frozen=True)
class _Step:
    """One node to lower, and the activation `behind` it that it applies: all of relu and relu6, of a hard sigmoid,
    relu6(x + 3) / 6, all but the division. `is_clamped` says of that sigmoid's own step that this has been done."""

    name: str
    inputs: tuple[int, ...]
    shapes: tuple[Shape, ...]
    results: tuple[Shape, ...]
    behind: Node | None
    is_clamped: bool

    @property
    def shape(self) -> Shape:
        """Shape of the first result."""
        return self.results[0]

    @property
    def function(self) -> ActivationKind | ops.Clip | None:
        """The function of the activation behind, or the clip."""
        op = self.behind.op if self.behind else None
        return op.function if isinstance(op, Activation) else op if isinstance(op, ops.Clip) else None

    @property
    def shifts(self) -> bool:
        """Whether the bias takes the hard sigmoid's 3."""
        return self.function is ActivationKind.HARD_SIGMOID

    @property
    def result_name(self) -> str:
        if self.behind is None:
            return self.name
        return f"{self.behind.name}.relu6" if self.shifts else self.behind.name

    @property
    def fused(self) -> int:
        """The fused activation, as the schema numbers it."""
        return int(FUSED[ActivationKind.RELU6 if self.shifts else self.function])


@dataclass
class _Target:
    """Collects tensors and operators. Methods return the index of the tensor they add."""

    weights: Weights
    tensors: list[Tensor] = field(default_factory=list)
    operators: list[Operator] = field(default_factory=list)
    real_dtype: str = "FLOAT32"
    """Dtype that stands for real values in the node that is being lowered."""
    _shared: dict[tuple[str, str], int] = field(default_factory=dict)

    def tensor(self, name: str, shape: Shape, data: NDArray[Any] | None = None, dtype: str = "FLOAT32") -> int:
        dtype = self.real_dtype if dtype == "FLOAT32" else dtype
        quantization = Quantization((BORDER_SCALE,), 0) if dtype in ("INT8", "UINT8") else None
        self.tensors.append(Tensor(name, shape, dtype, data, quantization))
        return len(self.tensors) - 1

    def constant(self, name: str, values: Any, dtype: str) -> int:
        """A small constant; those of the same name, in nodes of one precision, are one tensor."""
        key = (name, self.real_dtype)
        if key not in self._shared:
            data = np.array(values, {"INT32": np.int32, "FLOAT32": np.float32}[dtype])
            self._shared[key] = self.tensor(name, data.shape, data, dtype)
        return self._shared[key]

    def layer(
        self, step: _Step, kernel: NDArray[np.float32], weights: ops.DType = ops.DType.FLOAT32
    ) -> tuple[int, int]:
        """The kernel, arranged as the op wants it, and the bias of a layer. `weights` of float16 are stored so, and
        widened by an op of their own, which runtimes do once, as they load the file."""
        bias = self.weights[step.name]["bias"] + np.float32(_SHIFT if step.shifts else 0)
        name = kernel_name(step.name)
        if weights is ops.DType.FLOAT16:
            halves = self.tensor(name, kernel.shape, _halves(kernel, name), "FLOAT16")
            first = self.operator("DEQUANTIZE", f"{name}.widened", (halves,), kernel.shape, version=_HALVES_VERSION)
        else:
            first = self.tensor(name, kernel.shape, kernel)
        return first, self.tensor(f"{step.name}.bias", bias.shape, bias)

    def operator(self, kind: str, name: str, inputs: tuple[int, ...], shape: Shape, **options: Any) -> int:
        """Appends an operator; returns the tensor of its result."""
        return self.several(kind, (name,), inputs, (shape,), **options)[0]

    def float(self, name: str, value: float) -> int:
        """A constant of one value."""
        return self.constant(name, value, "FLOAT32")

    def integers(self, name: str, values: Any) -> int:
        """A constant of int32."""
        return self.constant(name, values, "INT32")

    def several(
        self, kind: str, names: tuple[str, ...], inputs: tuple[int, ...], shapes: tuple[Shape, ...], **options: Any
    ) -> tuple[int, ...]:
        """Appends an operator; returns the tensors of its results."""
        version, dtype = options.pop("version", 1), options.pop("dtype", "FLOAT32")
        results = tuple(self.tensor(name, shape, dtype=dtype) for name, shape in zip(names, shapes, strict=True))
        self.operators.append(Operator(kind, inputs, results, all_options(kind, **options), version))
        return results


@singledispatch
def _lower(op: ops.Op, target: _Target, step: _Step) -> int | tuple[int, ...]:
    """Adds what computes the op to the target; returns the tensor of the result, or of each of several."""
    raise FormatError(f"node {step.name!r}: the op {op.name!r} cannot be written as .tflite")


@_lower.register
def _conv(op: ops.Conv2d, target: _Target, step: _Step) -> int:
    kernel = target.weights[step.name]["kernel"]
    window = {
        "padding": PADDINGS[op.padding], "strideH": op.stride[0], "strideW": op.stride[1],
        "dilationHFactor": op.dilation[0], "dilationWFactor": op.dilation[1],
    }  # fmt: skip
    if op.is_depthwise(step.shapes[0]):
        kernel = kernel.transpose(1, 2, 3, 0)  # OIHW, I = 1 -> 1HWO
        kind, window["depthMultiplier"] = "DEPTHWISE_CONV_2D", op.out_channels // op.groups
    else:
        kernel = kernel.transpose(0, 2, 3, 1)  # OIHW -> OHWI
        kind, window["version"] = "CONV_2D", _GROUPED_VERSION if op.groups > 1 else 1
    inputs = (*step.inputs, *target.layer(step, kernel, op.weights))
    return target.operator(kind, step.result_name, inputs, step.shape, fusedActivationFunction=step.fused, **window)


@_lower.register
def _fully_connected(op: ops.FullyConnected, target: _Target, step: _Step) -> int:
    inputs = (*step.inputs, *target.layer(step, target.weights[step.name]["kernel"], op.weights))
    return target.operator(
        "FULLY_CONNECTED", step.result_name, inputs, step.shape,
        fusedActivationFunction=step.fused, keepNumDims=len(step.shape) > 2, version=5 if len(step.shape) > 2 else 1,
    )  # fmt: skip


@_lower.register
def _pool(op: ops.Pool2d, target: _Target, step: _Step) -> int:
    (filter_height, filter_width), (stride_height, stride_width) = op.kernel, op.stride
    has_border = any(map(any, op.borders))
    is_corrected = has_border and op.mode == "avg"
    x = target.operator(
        POOLS[op.mode], f"{step.name}.pooled" if is_corrected else step.result_name,
        (_bordered(op, target, step),) if has_border else step.inputs, step.shape, padding=PADDINGS[op.padding],
        filterHeight=filter_height, filterWidth=filter_width, strideH=stride_height, strideW=stride_width,
        fusedActivationFunction=0 if is_corrected else step.fused,
    )  # fmt: skip
    if not is_corrected:
        return x
    factor = _border_factors(op, step)  # the border's zeros are no pixels that count
    operands = (x, target.constant(f"{step.name}.factor", factor, "FLOAT32"))
    return target.operator("MUL", step.result_name, operands, step.shape, fusedActivationFunction=step.fused)


def _bordered(op: ops.Pool2d, target: _Target, step: _Step) -> int:
    """The pool's input with its border: the lowest value for a maximum, zeros for an average."""
    batch, height, width, channels = step.shapes[0]
    shape = (batch, height + sum(op.borders[0]), width + sum(op.borders[1]), channels)
    amounts = target.integers(f"{step.name}.amounts", ((0, 0), *op.borders, (0, 0)))
    if op.mode == "avg":
        return target.operator("PAD", f"{step.name}.padded", (*step.inputs, amounts), shape)
    lowest = target.float("lowest", float(np.finfo(np.float32).min))
    return target.operator("PADV2", f"{step.name}.padded", (*step.inputs, amounts, lowest), shape)


def _border_factors(op: ops.Pool2d, step: _Step) -> NDArray[np.float32]:
    """For each pixel of the result, all pixels of the window over those that exist."""
    shares = []
    for axis in (0, 1):
        size, starts = step.shapes[0][axis + 1], np.arange(step.shape[axis + 1]) * op.stride[axis] - op.borders[axis][0]
        existing = np.minimum(starts + op.kernel[axis], size) - np.maximum(starts, 0)
        shares.append(op.kernel[axis] / existing)
    return np.asarray(shares[0][:, None, None] * shares[1][:, None], np.float32)


@_lower.register
def _global_avg_pool(op: ops.GlobalAvgPool, target: _Target, step: _Step) -> int:
    axes = target.constant("spatial_axes", (1, 2), "INT32")
    return target.operator("MEAN", step.name, (*step.inputs, axes), step.shape, keepDims=op.keep_dims)


@_lower.register
def _pad(op: ops.Pad, target: _Target, step: _Step) -> int:
    amounts = target.constant(f"{step.name}.amounts", ((0, 0), op.height, op.width, (0, 0)), "INT32")
    return target.operator("PAD", step.name, (*step.inputs, amounts), step.shape)


@_lower.register
def _activation(op: ops.Activation, target: _Target, step: _Step) -> int:
    (x,) = step.inputs
    if op.slope != HARD_SLOPE:
        x = target.operator("MUL", f"{step.name}.scaled", (x, target.float(f"{step.name}.slope", op.slope)), step.shape)
        x = target.operator("ADD", f"{step.name}.moved", (x, target.float("half", 0.5)), step.shape)
        return target.operator("RELU_0_TO_1", step.name, (x,), step.shape)
    if op.function is ActivationKind.HARD_SIGMOID:  # relu6(x + 3) / 6
        if not step.is_clamped:
            operands = (x, target.constant("three", 3, "FLOAT32"))
            relu6 = FUSED[ActivationKind.RELU6]
            x = target.operator("ADD", f"{step.name}.relu6", operands, step.shape, fusedActivationFunction=relu6)
        return target.operator("MUL", step.name, (x, target.constant("sixth", 1 / 6, "FLOAT32")), step.shape)
    if op.function is ActivationKind.SWISH:
        y = target.operator("LOGISTIC", f"{step.name}.sigmoid", (x,), step.shape)
        return target.operator("MUL", step.name, (x, y), step.shape)
    return target.operator(ACTIVATIONS[op.function], step.name, (x,), step.shape)


@_lower.register
def _add(op: ops.Add, target: _Target, step: _Step) -> int:
    return target.operator("ADD", step.result_name, step.inputs, step.shape, fusedActivationFunction=step.fused)


@_lower.register
def _mul(op: ops.Mul, target: _Target, step: _Step) -> int:
    return target.operator("MUL", step.result_name, step.inputs, step.shape, fusedActivationFunction=step.fused)


_BINARIES: dict[type[ops.Op], str] = {
    ops.Sub: "SUB", ops.Div: "DIV", ops.Minimum: "MINIMUM", ops.Maximum: "MAXIMUM", ops.Pow: "POW",
}  # fmt: skip


@_lower.register
def _binary(op: ops.Sub | ops.Div | ops.Minimum | ops.Maximum | ops.Pow, target: _Target, step: _Step) -> int:
    fused = {"fusedActivationFunction": step.fused} if isinstance(op, ops.Sub | ops.Div) else {}
    return target.operator(_BINARIES[type(op)], step.result_name, step.inputs, step.shape, **fused)


@_lower.register
def _unary(op: ops.Unary, target: _Target, step: _Step) -> int:
    (x,) = step.inputs
    if op.function is UnaryKind.ERF:
        raise FormatError(f"node {step.name!r}: TFLite has no erf, so that it cannot be written as .tflite")
    if op.function is UnaryKind.RECIPROCAL:
        return target.operator("DIV", step.name, (target.float("one", 1), x), step.shape)
    if op.function is UnaryKind.SOFTPLUS:
        y = target.operator("EXP", f"{step.name}.exp", (x,), step.shape)
        y = target.operator("ADD", f"{step.name}.sum", (y, target.float("one", 1)), step.shape)
        return target.operator("LOG", step.name, (y,), step.shape)
    return target.operator(op.function.upper(), step.name, (x,), step.shape)


@_lower.register
def _gelu(op: ops.Gelu, target: _Target, step: _Step) -> int:
    return target.operator("GELU", step.name, step.inputs, step.shape, approximate=op.approximate)


@_lower.register
def _clip(op: ops.Clip, target: _Target, step: _Step) -> int:
    (x,) = step.inputs
    if (op.low, op.high) in ((0, 1), (-1, 1)):
        return target.operator("RELU_0_TO_1" if op.low == 0 else "RELU_N1_TO_1", step.name, (x,), step.shape)
    if op.low is not None:
        name = step.name if op.high is None else f"{step.name}.low"
        x = target.operator("MAXIMUM", name, (x, target.float(f"{step.name}.least", op.low)), step.shape)
    if op.high is not None:
        x = target.operator("MINIMUM", step.name, (x, target.float(f"{step.name}.most", op.high)), step.shape)
    return x


@_lower.register
def _slice(op: ops.Slice, target: _Target, step: _Step) -> int:
    begins = target.integers(f"{step.name}.begins", op.begins)
    if not op.steps:
        sizes = target.integers(f"{step.name}.sizes", op.sizes)
        return target.operator("SLICE", step.name, (*step.inputs, begins, sizes), step.shape)
    spans = zip(op.begins, op.sizes, op.steps, strict=True)
    ends = [begin + size * by for begin, size, by in spans]
    open_ends = sum(1 << axis for axis, end in enumerate(ends) if end < 0)
    operands = (begins, target.integers(f"{step.name}.ends", ends), target.integers(f"{step.name}.steps", op.steps))
    return target.operator("STRIDED_SLICE", step.name, (*step.inputs, *operands), step.shape, endMask=open_ends)


def _transposed(target: _Target, name: str, x: int, shape: Shape, perm: tuple[int, ...]) -> int:
    """A transpose of a tensor of that shape."""
    after = tuple(shape[axis] for axis in perm)
    return target.operator("TRANSPOSE", name, (x, target.integers(f"{name}.perm", perm)), after)


@_lower.register
def _transpose(op: ops.Transpose, target: _Target, step: _Step) -> int:
    return _transposed(target, step.name, step.inputs[0], step.shapes[0], op.perm)


@_lower.register
def _gather(op: ops.Gather, target: _Target, step: _Step) -> int:
    return target.operator("GATHER", step.name, step.inputs, step.shape, axis=op.axis % len(step.shapes[0]))


@_lower.register
def _tile(op: ops.Tile, target: _Target, step: _Step) -> int:
    multiples = target.integers(f"{step.name}.multiples", op.multiples)
    return target.operator("TILE", step.name, (*step.inputs, multiples), step.shape)


@_lower.register
def _depth_to_space(op: ops.DepthToSpace, target: _Target, step: _Step) -> int:
    (x,) = step.inputs
    if not op.pixel_shuffle or step.shape[3] == 1:
        return target.operator("DEPTH_TO_SPACE", step.name, (x,), step.shape, blockSize=op.block)
    batch, height, width, _ = step.shapes[0]
    apart = (batch, height, width, step.shape[3], op.block, op.block)
    x = _reshaped(target, f"{step.name}.apart", x, apart)
    x = _transposed(target, f"{step.name}.transposed", x, apart, (0, 1, 4, 2, 5, 3))
    return _reshaped(target, step.name, x, step.shape)


def _reshaped(target: _Target, name: str, x: int, shape: Shape, dtype: str = "FLOAT32") -> int:
    operands = (x, target.integers(f"{name}.shape", shape))
    return target.operator("RESHAPE", name, operands, shape, newShape=shape, dtype=dtype)


@_lower.register
def _space_to_depth(op: ops.SpaceToDepth, target: _Target, step: _Step) -> int:
    return target.operator("SPACE_TO_DEPTH", step.name, step.inputs, step.shape, blockSize=op.block)


@_lower.register
def _matmul(op: ops.MatMul, target: _Target, step: _Step) -> int:
    return target.operator("BATCH_MATMUL", step.name, step.inputs, step.shape, adjX=op.transpose_a, adjY=op.transpose_b)


_REDUCTIONS = {
    ReduceKind.MEAN: "MEAN", ReduceKind.SUM: "SUM", ReduceKind.MAX: "REDUCE_MAX", ReduceKind.MIN: "REDUCE_MIN",
    ReduceKind.PROD: "REDUCE_PROD", ReduceKind.L1: "SUM", ReduceKind.L2: "SUM",
}  # fmt: skip


@_lower.register
def _reduce(op: ops.Reduce, target: _Target, step: _Step) -> int:
    (x,) = step.inputs
    before = {ReduceKind.L1: "ABS", ReduceKind.L2: "SQUARE"}.get(op.function)
    if before:
        x = target.operator(before, f"{step.name}.{before.lower()}", (x,), step.shapes[0])
    is_root = op.function is ReduceKind.L2
    axes = target.integers(f"{step.name}.axes", tuple(axis % len(step.shapes[0]) for axis in op.axes))
    is_scalar = len(op.axes) == len(step.shapes[0]) and not op.keep_dims  # which the graph does not have
    name, kind = f"{step.name}.reduced" if is_root or is_scalar else step.name, _REDUCTIONS[op.function]
    shape = (1,) * len(op.axes) if is_scalar else step.shape
    y = target.operator(kind, name, (x, axes), shape, keepDims=op.keep_dims or is_scalar)
    if is_root:
        y = target.operator("SQRT", f"{step.name}.root" if is_scalar else step.name, (y,), shape)
    return _reshaped(target, step.name, y, step.shape) if is_scalar else y


@_lower.register
def _batch_norm(op: ops.BatchNorm, target: _Target, step: _Step) -> int:
    return _scaled(target, step, step.inputs[0], step.shape)


def _scaled(target: _Target, step: _Step, x: int, shape: Shape) -> int:
    """Times the node's scale, plus its bias."""
    stored = target.weights[step.name]
    scale, bias = (target.tensor(f"{step.name}.{key}", stored[key].shape, stored[key]) for key in ("scale", "bias"))
    x = target.operator("MUL", f"{step.name}.scaled", (x, scale), shape)
    return target.operator("ADD", step.name, (x, bias), shape)


@_lower.register
def _layer_norm(op: ops.LayerNorm, target: _Target, step: _Step) -> int:
    rank = len(step.shape)
    name = f"{step.name}.normal" if op.affine else step.name
    x = _normalised(target, step, name, step.inputs[0], step.shape, tuple(range(rank - op.axes, rank)), op.epsilon)
    return _scaled(target, step, x, step.shape) if op.affine else x


@_lower.register
def _group_norm(op: ops.GroupNorm, target: _Target, step: _Step) -> int:
    batch, *image, channels = step.shape
    apart = (batch, math.prod(image), op.groups, channels // op.groups)
    x = _reshaped(target, f"{step.name}.apart", step.inputs[0], apart)
    x = _normalised(target, step, f"{step.name}.normal", x, apart, (1, 3), op.epsilon)
    return _scaled(target, step, _reshaped(target, f"{step.name}.together", x, step.shape), step.shape)


def _normalised(
    target: _Target, step: _Step, name: str, x: int, shape: Shape, axes: tuple[int, ...], epsilon: float
) -> int:
    """Values of mean 0 and variance 1 over these axes."""
    over = target.integers(f"{step.name}.axes", axes)
    means = tuple(1 if axis in axes else size for axis, size in enumerate(shape))
    mean = target.operator("MEAN", f"{step.name}.mean", (x, over), means, keepDims=True)
    square = target.operator("SQUARED_DIFFERENCE", f"{step.name}.square", (x, mean), shape)
    variance = target.operator("MEAN", f"{step.name}.variance", (square, over), means, keepDims=True)
    variance = target.operator(
        "ADD", f"{step.name}.moved", (variance, target.float(f"{step.name}.epsilon", epsilon)), means
    )
    factor = target.operator("RSQRT", f"{step.name}.rsqrt", (variance,), means)
    centred = target.operator("SUB", f"{step.name}.centred", (x, mean), shape)
    return target.operator("MUL", name, (centred, factor), shape)


@_lower.register
def _local_response_norm(op: ops.LocalResponseNorm, target: _Target, step: _Step) -> int:
    if op.size % 2 == 0:
        raise FormatError(f"node {step.name!r}: TFLite's LRN takes an odd number of channels, not {op.size}")
    numbers = {"alpha": op.alpha / op.size, "beta": op.beta, "bias": op.bias}
    settings = {name: float(np.float32(value)) for name, value in numbers.items()}  # as the file holds them
    kind = "LOCAL_RESPONSE_NORMALIZATION"
    return target.operator(kind, step.name, step.inputs, step.shape, radius=op.size // 2, **settings)


@_lower.register
def _concat(op: ops.Concat, target: _Target, step: _Step) -> int:
    return target.operator("CONCATENATION", step.name, step.inputs, step.shape, axis=op.axis % len(step.shape))


@_lower.register
def _softmax(op: ops.Softmax, target: _Target, step: _Step) -> int:
    axis, rank = op.axis % len(step.shape), len(step.shape)
    if axis == rank - 1:
        return target.operator("SOFTMAX", step.name, step.inputs, step.shape, beta=1.0)
    return _with_axis_last(target, step, axis, "SOFTMAX", beta=1.0)


def _with_axis_last(target: _Target, step: _Step, axis: int, kind: str, **options: Any) -> int:
    """An op that knows the last axis alone, between two transposes."""
    rank = len(step.shape)
    perm = tuple(rank - 1 if n == axis else axis if n == rank - 1 else n for n in range(rank))
    x = _transposed(target, f"{step.name}.transposed", step.inputs[0], step.shape, perm)
    shape = tuple(step.shape[n] for n in perm)
    x = target.operator(kind, f"{step.name}.last", (x,), shape, **options)
    return _transposed(target, step.name, x, shape, perm)


@_lower.register
def _reshape(op: ops.Reshape, target: _Target, step: _Step) -> int:
    shape = target.constant(f"{step.name}.shape", step.shape, "INT32")
    return target.operator("RESHAPE", step.name, (*step.inputs, shape), step.shape, newShape=step.shape)


@_lower.register
def _zeros(op: ops.Zeros, target: _Target, step: _Step) -> int:
    return target.tensor(step.name, step.shape, np.broadcast_to(np.float32(0), step.shape))


@_lower.register
def _constant(op: ops.Constant, target: _Target, step: _Step) -> int:
    return target.tensor(step.name, step.shape, target.weights[step.name]["values"], op.dtype.upper())


@_lower.register
def _split(op: ops.Split, target: _Target, step: _Step) -> tuple[int, ...]:
    axis = target.constant(f"{step.name}.axis", op.axis % len(step.shapes[0]), "INT32")
    names, count = result_names(step.name, len(op.sizes)), len(op.sizes)
    if len({*op.sizes}) == 1:
        return target.several("SPLIT", names, (axis, *step.inputs), step.results, numSplits=count)
    sizes = target.constant(f"{step.name}.sizes", op.sizes, "INT32")
    return target.several("SPLIT_V", names, (*step.inputs, sizes, axis), step.results, numSplits=count)


_RESIZES = {Interpolation.BILINEAR: ("RESIZE_BILINEAR", 3), Interpolation.NEAREST: ("RESIZE_NEAREST_NEIGHBOR", 3)}
"""With the first version that knows half pixels."""


@_lower.register
def _resize(op: ops.Resize, target: _Target, step: _Step) -> int:
    (kind, version), size = _RESIZES[op.mode], target.integers(f"{step.name}.size", op.size)
    return target.operator(
        kind, step.name, (*step.inputs, size), step.shape, alignCorners=op.align_corners,
        halfPixelCenters=op.half_pixel, version=version if op.half_pixel else 1,
    )  # fmt: skip


@_lower.register
def _transpose_conv(op: ops.TransposeConv2d, target: _Target, step: _Step) -> int:
    """Border that TFLite's SAME or VALID does not cut off as the graph does, a slice cuts off."""
    if op.groups > 1:
        raise FormatError(f"node {step.name!r}: TFLite's transposed convolution has no groups")
    kernel = target.weights[step.name]["kernel"].transpose(0, 2, 3, 1)  # OIHW -> OHWI
    padding, (batch, height, width, channels) = _transpose_padding(op, step), step.shape
    (top, bottom), (left, right) = op.height, op.width
    whole = step.shape if padding else (batch, height + top + max(bottom, 0), width + left + max(right, 0), channels)
    weights, bias = target.layer(step, kernel)
    y = target.operator(
        "TRANSPOSE_CONV", step.result_name if padding else f"{step.name}.whole",
        (target.integers(f"{step.name}.size", whole), weights, *step.inputs, bias), whole,
        padding=PADDINGS[padding or Padding.VALID], strideH=op.stride[0], strideW=op.stride[1],
        fusedActivationFunction=step.fused, version=4 if step.fused else 3,
    )  # fmt: skip
    if padding:
        return y
    begins = target.integers(f"{step.name}.begins", (0, top, left, 0))
    operands = (y, begins, target.integers(f"{step.name}.sizes", step.shape))
    return target.operator("SLICE", step.result_name, operands, step.shape)


def _transpose_padding(op: ops.TransposeConv2d, step: _Step) -> Padding | None:
    """The padding of a convolution in the other direction that cuts off as much, if there is one."""
    cuts, sizes = (op.height, op.width), list(zip(step.shapes[0][1:3], step.shape[1:3], strict=True))
    is_same = all(before == -(-after // by) for (before, after), by in zip(sizes, op.stride, strict=True))
    halves = tuple(max(sum(cut), 0) // 2 for cut in cuts)
    if is_same and halves == (op.height[0], op.width[0]):
        return Padding.SAME
    is_whole = all(cut[0] == 0 and -by < cut[1] <= 0 for cut, by in zip(cuts, op.stride, strict=True))
    return Padding.VALID if is_whole else None


@_lower.register
def _prelu(op: ops.PReLU, target: _Target, step: _Step) -> int:
    slopes = target.tensor(f"{step.name}.slopes", op.slopes, target.weights[step.name]["slopes"])
    return target.operator("PRELU", step.name, (*step.inputs, slopes), step.shape)


@_lower.register
def _leaky_relu(op: ops.LeakyReLU, target: _Target, step: _Step) -> int:
    return target.operator("LEAKY_RELU", step.name, step.inputs, step.shape, alpha=float(np.float32(op.slope)))


@_lower.register
def _elu(op: ops.ELU, target: _Target, step: _Step) -> int:
    if op.alpha != 1:
        raise FormatError(f"node {step.name!r}: TFLite's ELU has the alpha 1, not {op.alpha}")
    return target.operator("ELU", step.name, step.inputs, step.shape)


@_lower.register
def _pad_axes(op: ops.PadAxes, target: _Target, step: _Step) -> int:
    operands = (*step.inputs, target.integers(f"{step.name}.amounts", op.amounts))
    if op.mode is PadMode.EDGE:
        raise FormatError(f"node {step.name!r}: TFLite repeats no edges, so that it cannot be written as .tflite")
    if op.mode is not PadMode.CONSTANT:
        return target.operator("MIRROR_PAD", step.name, operands, step.shape, mode=int(op.mode is PadMode.SYMMETRIC))
    if op.value == 0:
        return target.operator("PAD", step.name, operands, step.shape)
    return target.operator("PADV2", step.name, (*operands, target.float(f"{step.name}.value", op.value)), step.shape)


@_lower.register
def _arg_max(op: ops.ArgMax, target: _Target, step: _Step) -> int:
    """TFLite's drops the axis, so that a reshape brings it back."""
    if op.dtype not in (DType.INT32, DType.INT64):
        raise FormatError(f"node {step.name!r}: TFLite gives indices in int32 or int64, not {op.dtype}")
    axis = op.axis % len(step.shapes[0])
    dropped = tuple(size for place, size in enumerate(step.shapes[0]) if place != axis)
    operands, dtype = (*step.inputs, target.integers(f"{step.name}.axis", axis)), op.dtype.upper()
    name = step.name if dropped == step.shape else f"{step.name}.dropped"
    kind, code = f"ARG_{op.mode.upper()}", getattr(schema.TensorType, dtype)
    y = target.operator(kind, name, operands, dropped, outputType=code, dtype=dtype)
    return y if dropped == step.shape else _reshaped(target, step.name, y, step.shape, dtype)


@_lower.register
def _l2_norm(op: ops.L2Norm, target: _Target, step: _Step) -> int:
    axis, rank = op.axis % len(step.shape), len(step.shape)
    if axis == rank - 1:
        return target.operator("L2_NORMALIZATION", step.name, step.inputs, step.shape)
    return _with_axis_last(target, step, axis, "L2_NORMALIZATION")


@_lower.register
def _quantize(op: ops.Quantize, target: _Target, step: _Step) -> int:
    return target.operator("QUANTIZE", step.name, step.inputs, step.shape, dtype=op.dtype.upper())


@_lower.register
def _dequantize(op: ops.Dequantize, target: _Target, step: _Step) -> int:
    return target.operator("DEQUANTIZE", step.name, step.inputs, step.shape, version=2)
