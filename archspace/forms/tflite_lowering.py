"""Graph -> TFLite's ops in float32, one for one what the converters emit.

relu and relu6 become part of the op before them, and of a hard sigmoid, relu6(x + 3) / 6, what fits there. Every
tensor computed at run time is called after the node whose result it holds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import singledispatch
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from netlathe.archspace import ops
from netlathe.archspace.errors import FormatError
from netlathe.archspace.forms.structure import EMBEDDED_KEY, embed, input_names, result_names
from netlathe.archspace.forms.tflite_file import Model, Operator, Tensor, all_options
from netlathe.archspace.forms.weights import Weights
from netlathe.archspace.graph import Graph, Node
from netlathe.archspace.kernels import clamped_nodes, gated_layers
from netlathe.archspace.ops import Activation, ActivationKind, Padding, Shape

PADDINGS = {Padding.SAME: schema.Padding.SAME, Padding.VALID: schema.Padding.VALID}
FUSED = {
    None: schema.ActivationFunctionType.NONE,
    ActivationKind.RELU: schema.ActivationFunctionType.RELU,
    ActivationKind.RELU6: schema.ActivationFunctionType.RELU6,
}
ACTIVATIONS = {
    ActivationKind.RELU: "RELU",
    ActivationKind.RELU6: "RELU6",
    ActivationKind.HARD_SWISH: "HARD_SWISH",
    ActivationKind.SIGMOID: "LOGISTIC",
}
"""The activations that are one op of their own."""

POOLS = {"avg": "AVERAGE_POOL_2D", "max": "MAX_POOL_2D"}
_GROUPED_VERSION = 6  # of CONV_2D: the first that knows groups


def lower(graph: Graph, weights: Weights) -> Model:
    """The graph in TFLite's ops; the metadata hold the graph itself."""
    target = _Target(weights)
    clamped, gated = clamped_nodes(graph), gated_layers(graph)
    clamps, gates = set(clamped.values()), set(gated.values())
    behind = {before: graph.nodes[after] for before, after in (clamped | gated).items()}
    values = [target.tensor(name, shape) for name, shape in zip(input_names(graph), graph.inputs, strict=True)]
    inputs = tuple(values)
    for index, (node, shapes, results) in enumerate(graph.steps()):
        taken = tuple(values[t] for t in node.inputs)
        if index in clamps:  # done by the op before
            values.append(taken[0])
            continue
        step = _Step(node.name, taken, shapes, results, behind.get(index), index in gates)
        found = _lower(node.op, target, step)
        values += [found] if isinstance(found, int) else found
    metadata = {EMBEDDED_KEY: embed(graph).encode()}
    return Model(
        tuple(target.tensors), tuple(target.operators), inputs, tuple(values[t] for t in graph.outputs), metadata
    )


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
    def function(self) -> ActivationKind | None:
        """The function of the activation behind."""
        return self.behind.op.function if self.behind and isinstance(self.behind.op, Activation) else None

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
    _shared: dict[str, int] = field(default_factory=dict)

    def tensor(self, name: str, shape: Shape, data: NDArray[Any] | None = None, dtype: str = "FLOAT32") -> int:
        self.tensors.append(Tensor(name, shape, dtype, data))
        return len(self.tensors) - 1

    def constant(self, name: str, values: Any, dtype: str) -> int:
        """A small constant; those of the same name are one tensor."""
        if name not in self._shared:
            data = np.array(values, {"INT32": np.int32, "FLOAT32": np.float32}[dtype])
            self._shared[name] = self.tensor(name, data.shape, data, dtype)
        return self._shared[name]

    def layer(self, step: _Step, kernel: NDArray[np.float32]) -> tuple[int, int]:
        """The kernel, arranged as the op wants it, and the bias of a layer."""
        bias = self.weights[step.name]["bias"] + np.float32(3 if step.shifts else 0)
        first = self.tensor(f"{step.name}.weight", kernel.shape, kernel)
        return first, self.tensor(f"{step.name}.bias", bias.shape, bias)

    def operator(self, kind: str, name: str, inputs: tuple[int, ...], shape: Shape, **options: Any) -> int:
        """Appends an operator; returns the tensor of its result."""
        return self.several(kind, (name,), inputs, (shape,), **options)[0]

    def several(
        self, kind: str, names: tuple[str, ...], inputs: tuple[int, ...], shapes: tuple[Shape, ...], **options: Any
    ) -> tuple[int, ...]:
        """Appends an operator; returns the tensors of its results."""
        version = options.pop("version", 1)
        results = tuple(map(self.tensor, names, shapes))
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
    inputs = (*step.inputs, *target.layer(step, kernel))
    return target.operator(kind, step.result_name, inputs, step.shape, fusedActivationFunction=step.fused, **window)


@_lower.register
def _fully_connected(op: ops.FullyConnected, target: _Target, step: _Step) -> int:
    inputs = (*step.inputs, *target.layer(step, target.weights[step.name]["kernel"]))
    return target.operator("FULLY_CONNECTED", step.result_name, inputs, step.shape, fusedActivationFunction=step.fused)


@_lower.register
def _pool(op: ops.Pool2d, target: _Target, step: _Step) -> int:
    (filter_height, filter_width), (stride_height, stride_width) = op.kernel, op.stride
    return target.operator(
        POOLS[op.mode], step.name, step.inputs, step.shape, padding=PADDINGS[op.padding],
        filterHeight=filter_height, filterWidth=filter_width, strideH=stride_height, strideW=stride_width,
    )  # fmt: skip


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


@_lower.register
def _concat(op: ops.Concat, target: _Target, step: _Step) -> int:
    return target.operator("CONCATENATION", step.name, step.inputs, step.shape, axis=op.axis % len(step.shape))


@_lower.register
def _softmax(op: ops.Softmax, target: _Target, step: _Step) -> int:
    return target.operator("SOFTMAX", step.name, step.inputs, step.shape, beta=1.0)


@_lower.register
def _reshape(op: ops.Reshape, target: _Target, step: _Step) -> int:
    shape = target.constant(f"{step.name}.shape", step.shape, "INT32")
    return target.operator("RESHAPE", step.name, (*step.inputs, shape), step.shape, newShape=step.shape)


@_lower.register
def _zeros(op: ops.Zeros, target: _Target, step: _Step) -> int:
    return target.tensor(step.name, step.shape, np.broadcast_to(np.float32(0), step.shape))


@_lower.register
def _constant(op: ops.Constant, target: _Target, step: _Step) -> int:
    return target.tensor(step.name, step.shape, target.weights[step.name]["values"])


@_lower.register
def _split(op: ops.Split, target: _Target, step: _Step) -> tuple[int, ...]:
    axis = target.constant(f"{step.name}.axis", op.axis % len(step.shapes[0]), "INT32")
    names, count = result_names(step.name, len(op.sizes)), len(op.sizes)
    if len({*op.sizes}) == 1:
        return target.several("SPLIT", names, (axis, *step.inputs), step.results, numSplits=count)
    sizes = target.constant(f"{step.name}.sizes", op.sizes, "INT32")
    return target.several("SPLIT_V", names, (*step.inputs, sizes, axis), step.results, numSplits=count)
