"""Graph -> ONNX's ops: NCHW, explicit pads. A pad becomes part of the convolution or pool behind it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import singledispatch
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, TensorProto, helper

from netlathe.archspace.errors import FormatError
from netlathe.archspace.forms.structure import EMBEDDED_KEY, Borders, borders_of, embed, input_names, padded_layers
from netlathe.archspace.forms.weights import Weights
from netlathe.archspace.graph import Graph
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
    Shape,
    Softmax,
    Zeros,
)

_OPSET = 17
_IR_VERSION = 8  # the one that came with opset 17; runtimes refuse newer ones than they know
_PRODUCER = "netlathe"
_ACTIVATIONS = {
    ActivationKind.RELU: "Relu",
    ActivationKind.HARD_SWISH: "HardSwish",
    ActivationKind.SIGMOID: "Sigmoid",
}
"""The activations that are one op without settings."""


@dataclass(frozen=True)
class _Step:
    """One node to lower: its inputs in the file, their shapes and its result's (NHWC), its borders."""

    name: str
    inputs: tuple[str, ...]
    shapes: tuple[Shape, ...]
    shape: Shape
    borders: Borders

    @property
    def pads(self) -> list[int]:
        """Its borders as ONNX writes them: both beginnings, then both ends."""
        (top, bottom), (left, right) = self.borders
        return [top, left, bottom, right]

    @property
    def channel_axis(self) -> int:
        return 1 if len(self.shape) == 4 else len(self.shape) - 1


@dataclass
class _Target:
    """Fills a model's graph. Without weights, layers get constants that have a shape but no data."""

    weights: Weights | None
    body: GraphProto
    results: set[str] = field(default_factory=set)
    constants: set[str] = field(default_factory=set)

    def node(self, kind: str, name: str, inputs: tuple[str, ...], **attributes: Any) -> str:
        """Appends a node; its name and its result's are one, and are returned."""
        self.body.node.append(helper.make_node(kind, inputs, [self.result(name)], name, **attributes))
        return name

    def result(self, name: str) -> str:
        if name in self.results:
            raise FormatError(f"two values of the .onnx file would be called {name!r}; rename that node")
        self.results.add(name)
        return name

    def constant(self, name: str, values: NDArray[Any]) -> str:
        """A constant; those of the same name are one."""
        if name not in self.constants:
            self._add_constant(name, values.shape, values)
        return name

    def layer(self, name: str, shape: Shape) -> tuple[str, str]:
        """The names of a layer's kernel, of that shape, and of its bias."""
        kernel, bias = f"{name}.weight", f"{name}.bias"
        layer = self.weights[name] if self.weights is not None else None
        self._add_constant(kernel, shape, layer.kernel if layer else None)
        self._add_constant(bias, shape[:1], layer.bias if layer else None)
        return kernel, bias

    def _add_constant(self, name: str, shape: Shape, values: NDArray[Any] | None) -> None:
        kind = TensorProto.FLOAT if values is None else helper.np_dtype_to_tensor_dtype(values.dtype)
        tensor = self.body.initializer.add(name=name, data_type=kind, dims=shape)
        if values is not None:
            tensor.raw_data = values.tobytes()
        self.constants.add(name)


def lower(graph: Graph, weights: Weights | None) -> ModelProto:
    """The graph in ONNX's ops; without weights, the layers' constants have shapes but no data.

    Raises FormatError when two values would have one name.
    """
    model = ModelProto(ir_version=_IR_VERSION, producer_name=_PRODUCER)
    model.opset_import.append(helper.make_opsetid("", _OPSET))
    model.graph.name = _PRODUCER
    target = _Target(weights, model.graph)  # filled in place: helpers that assemble a model copy all weights
    names = input_names(graph)
    model.graph.input.extend(map(_value, names, graph.inputs))
    model.graph.output.append(_value(_lower_nodes(graph, target, names), graph.output_shape))
    clash = target.results & target.constants
    if clash:
        raise FormatError(f"a value and a constant would both be called {min(clash)!r}; rename that node")
    model.metadata_props.add(key=EMBEDDED_KEY, value=embed(graph))
    return model


def _lower_nodes(graph: Graph, target: _Target, inputs: list[str]) -> str:
    """Adds all nodes, returns the name of the result."""
    pads = padded_layers(graph)
    done = set(pads.values())
    results = [target.result(name) for name in inputs]
    for index, (node, shapes, shape) in enumerate(graph.steps()):
        taken = tuple(results[t] for t in node.inputs)
        step = _Step(node.name, taken, shapes, shape, borders_of(graph, pads.get(index, index)))
        results.append(taken[0] if index in done else _lower(node.op, target, step))
    return results[-1] if graph.nodes else target.node("Identity", "output", (results[0],))


def _nchw(shape: Shape) -> Shape:
    return (shape[0], shape[3], shape[1], shape[2]) if len(shape) == 4 else shape


def _value(name: str, shape: Shape) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, _nchw(shape))


@singledispatch
def _lower(op: Op, target: _Target, step: _Step) -> str:
    """Adds what computes the op to the target; returns the name of the result."""
    raise FormatError(f"node {step.name!r}: the op {op.kind!r} cannot be written as .onnx")


@_lower.register
def _conv(op: Conv2d, target: _Target, step: _Step) -> str:
    inputs = (*step.inputs, *target.layer(step.name, op.weight_shape(step.shapes[0])))
    return target.node(
        "Conv", step.name, inputs, kernel_shape=op.kernel, strides=op.stride, group=op.groups, pads=step.pads
    )


@_lower.register
def _fully_connected(op: FullyConnected, target: _Target, step: _Step) -> str:
    inputs = (*step.inputs, *target.layer(step.name, (op.out_features, step.shapes[0][1])))
    return target.node("Gemm", step.name, inputs, transB=1)


@_lower.register
def _pool(op: Pool2d, target: _Target, step: _Step) -> str:
    window = {"kernel_shape": op.kernel, "strides": op.stride, "pads": step.pads}
    if op.mode == "max":
        return target.node("MaxPool", step.name, step.inputs, **window)
    counted = int(op.padding is Padding.VALID and any(step.pads))  # a pad's zeros are values, SAME's border is none
    return target.node("AveragePool", step.name, step.inputs, count_include_pad=counted, **window)


@_lower.register
def _global_avg_pool(op: GlobalAvgPool, target: _Target, step: _Step) -> str:
    if op.keep_dims:
        return target.node("GlobalAveragePool", step.name, step.inputs)
    kept = target.node("GlobalAveragePool", f"{step.name}.kept", step.inputs)
    return target.node("Flatten", step.name, (kept,))


@_lower.register
def _pad(op: Pad, target: _Target, step: _Step) -> str:
    top, left, bottom, right = step.pads
    amounts = np.array([0, 0, top, left, 0, 0, bottom, right], np.int64)
    return target.node("Pad", step.name, (*step.inputs, target.constant(f"{step.name}.amounts", amounts)))


@_lower.register
def _activation(op: Activation, target: _Target, step: _Step) -> str:
    if op.function is ActivationKind.RELU6:
        bounds = [target.constant(name, np.array(value, np.float32)) for name, value in (("zero", 0), ("six", 6))]
        return target.node("Clip", step.name, (*step.inputs, *bounds))
    if op.function is ActivationKind.HARD_SIGMOID:
        return target.node("HardSigmoid", step.name, step.inputs, alpha=1 / 6, beta=0.5)
    if op.function is ActivationKind.SWISH:
        gate = target.node("Sigmoid", f"{step.name}.sigmoid", step.inputs)
        return target.node("Mul", step.name, (*step.inputs, gate))
    return target.node(_ACTIVATIONS[op.function], step.name, step.inputs)


@_lower.register
def _add(op: Add, target: _Target, step: _Step) -> str:
    return target.node("Add", step.name, step.inputs)


@_lower.register
def _mul(op: Mul, target: _Target, step: _Step) -> str:
    return target.node("Mul", step.name, step.inputs)


@_lower.register
def _concat(op: Concat, target: _Target, step: _Step) -> str:
    return target.node("Concat", step.name, step.inputs, axis=step.channel_axis)


@_lower.register
def _softmax(op: Softmax, target: _Target, step: _Step) -> str:
    return target.node("Softmax", step.name, step.inputs, axis=step.channel_axis)


@_lower.register
def _reshape(op: Reshape, target: _Target, step: _Step) -> str:
    """Values keep their NHWC order, which is what the graph means; a single pixel needs no transposing for it."""
    before, after = _is_image(step.shapes[0]), _is_image(step.shape)
    x = target.node("Transpose", f"{step.name}.nhwc", step.inputs, perm=(0, 2, 3, 1)) if before else step.inputs[0]
    wanted = step.shape if after else _nchw(step.shape)
    shape = target.constant(f"{step.name}.shape", np.array(wanted, np.int64))
    reshaped = target.node("Reshape", f"{step.name}.reshaped" if after else step.name, (x, shape))
    return target.node("Transpose", step.name, (reshaped,), perm=(0, 3, 1, 2)) if after else reshaped


def _is_image(shape: Shape) -> bool:
    return len(shape) == 4 and shape[1:3] != (1, 1)


@_lower.register
def _zeros(op: Zeros, target: _Target, step: _Step) -> str:
    shape = target.constant(f"{step.name}.shape", np.array(_nchw(step.shape), np.int64))
    return target.node("ConstantOfShape", step.name, (shape,))
