"""Graph -> ONNX's ops: NCHW, explicit pads. A pad becomes part of the convolution or pool behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import singledispatch
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, TensorProto, helper

from netlathe.archspace import ops
from netlathe.archspace.errors import FormatError
from netlathe.archspace.forms.structure import EMBEDDED_KEY, embed, input_names, nchw, nchw_axis, result_names
from netlathe.archspace.forms.weights import Weights
from netlathe.archspace.graph import Graph
from netlathe.archspace.kernels import Borders, borders_of, padded_layers
from netlathe.archspace.ops import ActivationKind, Padding, Shape

_OPSET = 17
_IR_VERSION = 8  # the one that came with opset 17; runtimes refuse newer ones than they know
_PRODUCER = "netlathe"
_ACTIVATIONS = {
    ActivationKind.RELU: "Relu",
    ActivationKind.HARD_SWISH: "HardSwish",
    ActivationKind.SIGMOID: "Sigmoid",
}
"""The activations that are one op without settings."""


_SUFFIXES = {"kernel": "weight"}
"""Names of stored arrays in files, where they differ from the ops'."""


@dataclass(frozen=True)
class _Step:
    """One node to lower: its inputs in the file, their shapes and its results' (NHWC), its borders."""

    name: str
    inputs: tuple[str, ...]
    shapes: tuple[Shape, ...]
    results: tuple[Shape, ...]
    borders: Borders

    @property
    def shape(self) -> Shape:
        """Shape of the first result."""
        return self.results[0]

    @property
    def pads(self) -> list[int]:
        """The borders as ONNX writes them: both beginnings, then both ends."""
        (top, bottom), (left, right) = self.borders
        return [top, left, bottom, right]

    @property
    def channel_axis(self) -> int:
        return nchw_axis(-1, len(self.shape))


@dataclass
class _Target:
    """Fills a model's graph. Without weights, layers get constants that have a shape but no data."""

    weights: Weights | None
    body: GraphProto
    results: set[str] = field(default_factory=set)
    constants: set[str] = field(default_factory=set)

    def node(self, kind: str, name: str, inputs: tuple[str, ...], **attributes: Any) -> str:
        """Appends a node; its name and its result's are one, and are returned."""
        return self.nodes(kind, name, inputs, (name,), **attributes)[0]

    def nodes(
        self, kind: str, name: str, inputs: tuple[str, ...], results: tuple[str, ...], **attributes: Any
    ) -> tuple[str, ...]:
        """Appends a node with results of these names, which are returned."""
        self.body.node.append(helper.make_node(kind, inputs, [*map(self.result, results)], name, **attributes))
        return results

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

    def stored(self, name: str, shapes: Mapping[str, Shape]) -> tuple[str, ...]:
        """The names of what a node stores, in its op's order, each of the shape given."""
        arrays = self.weights[name] if self.weights is not None else {}
        for key, shape in shapes.items():
            self._add_constant(f"{name}.{_SUFFIXES.get(key, key)}", shape, arrays.get(key))
        return tuple(f"{name}.{_SUFFIXES.get(key, key)}" for key in shapes)

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
    model.graph.output.extend(map(_value, _lower_nodes(graph, target, names), graph.output_shapes))
    clash = target.results & target.constants
    if clash:
        raise FormatError(f"a value and a constant would both be called {min(clash)!r}; rename that node")
    model.metadata_props.add(key=EMBEDDED_KEY, value=embed(graph))
    return model


def _lower_nodes(graph: Graph, target: _Target, inputs: list[str]) -> list[str]:
    """Adds all nodes, returns the names of the outputs."""
    pads = padded_layers(graph)
    done = set(pads.values())
    values = [target.result(name) for name in inputs]
    for index, (node, shapes, results) in enumerate(graph.steps()):
        taken = tuple(values[t] for t in node.inputs)
        step = _Step(node.name, taken, shapes, results, borders_of(graph, pads.get(index, index)))
        found = taken[0] if index in done else _lower(node.op, target, step)
        values += [found] if isinstance(found, str) else found
    # What is given must be computed, so that inputs and constants pass through an op.
    computed = {name for node in target.body.node for name in node.output}
    return [
        values[t] if values[t] in computed else target.node("Identity", f"output{place or ''}", (values[t],))
        for place, t in enumerate(graph.outputs)
    ]


def _value(name: str, shape: Shape) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, nchw(shape))


@singledispatch
def _lower(op: ops.Op, target: _Target, step: _Step) -> str | tuple[str, ...]:
    """Adds what computes the op to the target; returns the name of the result, or of each of several."""
    raise FormatError(f"node {step.name!r}: the op {op.name!r} cannot be written as .onnx")


@_lower.register
def _conv(op: ops.Conv2d, target: _Target, step: _Step) -> str:
    inputs = (*step.inputs, *target.stored(step.name, op.stored_shapes(*step.shapes)))
    dilated = {"dilations": op.dilation} if op.dilation != (1, 1) else {}
    return target.node(
        "Conv", step.name, inputs, kernel_shape=op.kernel, strides=op.stride, group=op.groups, pads=step.pads, **dilated
    )


@_lower.register
def _fully_connected(op: ops.FullyConnected, target: _Target, step: _Step) -> str:
    inputs = (*step.inputs, *target.stored(step.name, op.stored_shapes(*step.shapes)))
    return target.node("Gemm", step.name, inputs, transB=1)


@_lower.register
def _pool(op: ops.Pool2d, target: _Target, step: _Step) -> str:
    window = {"kernel_shape": op.kernel, "strides": op.stride, "pads": step.pads}
    if op.mode == "max":
        return target.node("MaxPool", step.name, step.inputs, **window)
    is_pad = op.padding is Padding.VALID and step.borders != op.borders
    counted = int(is_pad and any(step.pads))  # a pad's zeros are values, a pool's own border is none
    return target.node("AveragePool", step.name, step.inputs, count_include_pad=counted, **window)


@_lower.register
def _global_avg_pool(op: ops.GlobalAvgPool, target: _Target, step: _Step) -> str:
    if op.keep_dims:
        return target.node("GlobalAveragePool", step.name, step.inputs)
    kept = target.node("GlobalAveragePool", f"{step.name}.kept", step.inputs)
    return target.node("Flatten", step.name, (kept,))


@_lower.register
def _pad(op: ops.Pad, target: _Target, step: _Step) -> str:
    top, left, bottom, right = step.pads
    amounts = np.array([0, 0, top, left, 0, 0, bottom, right], np.int64)
    return target.node("Pad", step.name, (*step.inputs, target.constant(f"{step.name}.amounts", amounts)))


@_lower.register
def _activation(op: ops.Activation, target: _Target, step: _Step) -> str:
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
def _add(op: ops.Add, target: _Target, step: _Step) -> str:
    return target.node("Add", step.name, _aligned(target, step))


@_lower.register
def _mul(op: ops.Mul, target: _Target, step: _Step) -> str:
    return target.node("Mul", step.name, _aligned(target, step))


def _aligned(target: _Target, step: _Step) -> tuple[str, ...]:
    """The operands of an element-wise op, of as many axes as its result: those that are missing stand in front, which
    in NCHW is in between."""
    rank = len(step.shape)
    operands = []
    for place, (x, shape) in enumerate(zip(step.inputs, step.shapes, strict=True)):
        if len(shape) < rank:
            wanted = np.array((1,) * (rank - len(shape)) + shape, np.int64)
            sizes = target.constant(f"{step.name}.shape{place}", wanted)
            x = target.node("Reshape", f"{step.name}.wide{place}", (x, sizes))
            if rank == 4:
                x = target.node("Transpose", f"{step.name}.nchw{place}", (x,), perm=(0, 3, 1, 2))
        operands.append(x)
    return tuple(operands)


@_lower.register
def _split(op: ops.Split, target: _Target, step: _Step) -> tuple[str, ...]:
    sizes = target.constant(f"{step.name}.sizes", np.array(op.sizes, np.int64))
    axis = nchw_axis(op.axis, len(step.shapes[0]))
    names = result_names(step.name, len(op.sizes))
    return target.nodes("Split", step.name, (*step.inputs, sizes), names, axis=axis)


@_lower.register
def _constant(op: ops.Constant, target: _Target, step: _Step) -> str:
    (name,) = target.stored(step.name, {"values": op.shape})
    if len(op.shape) != 4:
        return name
    return target.node("Transpose", step.name, (name,), perm=(0, 3, 1, 2))


@_lower.register
def _concat(op: ops.Concat, target: _Target, step: _Step) -> str:
    return target.node("Concat", step.name, step.inputs, axis=nchw_axis(op.axis, len(step.shape)))


@_lower.register
def _softmax(op: ops.Softmax, target: _Target, step: _Step) -> str:
    return target.node("Softmax", step.name, step.inputs, axis=nchw_axis(op.axis, len(step.shape)))


@_lower.register
def _reshape(op: ops.Reshape, target: _Target, step: _Step) -> str:
    """Values keep their NHWC order, which is what the graph means; a single pixel needs no transposing for it."""
    before, after = _is_image(step.shapes[0]), _is_image(step.shape)
    x = target.node("Transpose", f"{step.name}.nhwc", step.inputs, perm=(0, 2, 3, 1)) if before else step.inputs[0]
    wanted = step.shape if after else nchw(step.shape)
    shape = target.constant(f"{step.name}.shape", np.array(wanted, np.int64))
    reshaped = target.node("Reshape", f"{step.name}.reshaped" if after else step.name, (x, shape))
    return target.node("Transpose", step.name, (reshaped,), perm=(0, 3, 1, 2)) if after else reshaped


def _is_image(shape: Shape) -> bool:
    return len(shape) == 4 and shape[1:3] != (1, 1)


@_lower.register
def _zeros(op: ops.Zeros, target: _Target, step: _Step) -> str:
    shape = target.constant(f"{step.name}.shape", np.array(nchw(step.shape), np.int64))
    return target.node("ConstantOfShape", step.name, (shape,))
