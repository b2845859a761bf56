"""Graph -> ONNX's ops: NCHW, explicit pads. A pad becomes part of the convolution or pool behind it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import singledispatch
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, helper, numpy_helper

from netlathe.archspace import ops
from netlathe.archspace.errors import FormatError
from netlathe.archspace.forms.interface import Interface, Steps, steps_in, steps_out
from netlathe.archspace.forms.structure import (
    BORDER_SCALE,
    EMBEDDED_KEY,
    INTERFACE_KEY,
    embed,
    input_names,
    nchw,
    nchw_axis,
    nchw_perm,
    result_names,
)
from netlathe.archspace.forms.weights import StoredArrays, Weights, transposed, untransposed
from netlathe.archspace.graph import Graph
from netlathe.archspace.kernels import Borders, borders_of, channel_shuffles, padded_layers
from netlathe.archspace.ops import ActivationKind, DType, Interpolation, Padding, PadMode, ReduceKind, Shape, UnaryKind

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
    dtypes: tuple[DType, ...]
    """Shapes of its inputs."""

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
            self.store(name, values.shape, values)
        return name

    def integers(self, name: str, values: Any) -> str:
        """A constant of int64."""
        return self.constant(name, np.array(values, np.int64))

    def number(self, name: str, value: float) -> str:
        """A float32 constant of one value."""
        return self.constant(name, np.array(value, np.float32))

    def plain(self, step: _Step, place: int = 0) -> str:
        """An operand in the graph's order of axes."""
        name = step.inputs[place]
        if len(step.shapes[place]) != 4:
            return name
        return self.node("Transpose", f"{step.name}.nhwc{place or ''}", (name,), perm=(0, 2, 3, 1))

    def from_plain(self, step: _Step, kind: str, inputs: tuple[str, ...], **attributes: Any) -> str:
        """The node's result by an op that gives it in the graph's order of axes."""
        if len(step.shape) != 4:
            return self.node(kind, step.name, inputs, **attributes)
        found = self.node(kind, f"{step.name}.plain", inputs, **attributes)
        return self.node("Transpose", step.name, (found,), perm=(0, 3, 1, 2))

    def stored(self, name: str, shapes: Mapping[str, Shape], dtype: DType = DType.FLOAT32) -> tuple[str, ...]:
        """The names of what a node stores, in its op's order, each of the shape given."""
        arrays = self.weights[name] if self.weights is not None else {}
        for key, shape in shapes.items():
            self.store(f"{name}.{_SUFFIXES.get(key, key)}", shape, arrays.get(key), dtype)
        return tuple(f"{name}.{_SUFFIXES.get(key, key)}" for key in shapes)

    def store(self, name: str, shape: Shape, values: NDArray[Any] | None, dtype: DType = DType.FLOAT32) -> None:
        """Adds a constant, of a shape alone where there are no weights."""
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype.value) if values is None else values.dtype)
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
    model.graph.input.extend(map(_value, names, graph.inputs, graph.dtypes))
    dtypes = [graph.dtypes[t] for t in graph.outputs]
    model.graph.output.extend(map(_value, _lower_nodes(graph, target, names), graph.output_shapes, dtypes))
    clash = target.results & target.constants
    if clash:
        raise FormatError(f"a value and a constant would both be called {min(clash)!r}; rename that node")
    model.metadata_props.add(key=EMBEDDED_KEY, value=embed(graph))
    return model


def with_interface(model: ModelProto, graph: Graph, interface: Interface) -> None:
    """Gives what the graph was lowered to the inputs and outputs of another model, in place. Raises FormatError where
    two of them have one name."""
    body, ports = model.graph, (*interface.inputs, *interface.outputs)
    names = [port.name for port in ports]
    if len({*names}) < len(names):
        raise FormatError("two inputs or outputs of the model have one name, which no .onnx file may have")
    _rename(body, names)
    inputs, outputs = list(body.input), list(body.output)
    nodes = list(body.node)
    del body.node[:], body.input[:], body.output[:]
    for port in interface.inputs:
        own, shape = inputs[port.place], graph.inputs[port.place]
        _add_value(body.input, port.name, own, port.shape(shape))
        _add_steps(body, port.name, own.name, steps_in(port, shape))
    body.node.extend(nodes)
    for port in interface.outputs:
        own, shape = outputs[port.place], graph.output_shapes[port.place]
        _add_steps(body, own.name, port.name, steps_out(port, shape))
        _add_value(body.output, port.name, own, port.shape(shape))
    model.metadata_props.add(key=INTERFACE_KEY, value=json.dumps(interface.to_json(), separators=(",", ":")))


def _rename(body: GraphProto, names: Sequence[str]) -> None:
    """Gives values of these names others, that no value has."""
    stored = [value.name for value in (*body.input, *body.initializer)]
    known = {*names, *stored, *(result for node in body.node for result in node.output)}
    new = {}
    for name in names:
        new[name] = next(one for one in (f"{name}.{number}" for number in count()) if one not in known)
        known.add(new[name])
    for node in body.node:
        node.input[:] = [new.get(name, name) for name in node.input]
        node.output[:] = [new.get(name, name) for name in node.output]
    for value in (*body.input, *body.output, *body.initializer):
        value.name = new.get(value.name, value.name)


def _add_value(values: Any, name: str, like: Any, shape: Shape) -> None:
    values.append(helper.make_tensor_value_info(name, like.type.tensor_type.elem_type, shape))


def _add_steps(body: GraphProto, source: str, result: str, steps: Steps) -> None:
    """Nodes that make one value of another."""
    if not steps:
        body.node.append(helper.make_node("Identity", (source,), (result,), f"{result}.turn0"))
    for place, (kind, numbers) in enumerate(steps):
        name = f"{result}.turn{place}"
        target = result if place == len(steps) - 1 else f"{result}.{kind.lower()}"
        if kind == "Reshape":
            body.initializer.append(numpy_helper.from_array(np.array(numbers, np.int64), f"{name}.shape"))
            body.node.append(helper.make_node(kind, (source, f"{name}.shape"), (target,), name))
        else:
            body.node.append(helper.make_node(kind, (source,), (target,), name, perm=numbers))
        source = target


def stored_weights(graph: Graph, model: ModelProto) -> dict[str, StoredArrays]:
    """The weights in a model that the graph was lowered to."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    found: dict[str, StoredArrays] = {}
    for node, shapes, _ in graph.steps():
        arrays = {
            key: numpy_helper.to_array(tensors[f"{node.name}.{_SUFFIXES.get(key, key)}"])
            for key in node.op.stored_shapes(*shapes)
        }
        if isinstance(node.op, ops.TransposeConv2d):
            arrays["kernel"] = untransposed(arrays["kernel"], node.op.groups)
        if arrays:
            found[node.name] = arrays
    return found


def _lower_nodes(graph: Graph, target: _Target, inputs: list[str]) -> list[str]:
    """Adds all nodes, returns the names of the outputs."""
    pads = padded_layers(graph)
    done = set(pads.values())
    shuffled = {index for first, others in channel_shuffles(graph).items() for index in (first, *others)}
    values = [target.result(name) for name in inputs]
    for index, (node, shapes, results) in enumerate(graph.steps()):
        taken = tuple(values[t] for t in node.inputs)
        dtypes = tuple(graph.dtypes[t] for t in node.inputs) if graph.has_dtypes else ()
        step = _Step(node.name, taken, shapes, results, borders_of(graph, pads.get(index, index)), dtypes)
        if index in shuffled:
            found: str | tuple[str, ...] = _shuffle(node.op, target, step)
        else:
            found = taken[0] if index in done else _lower(node.op, target, step)
        values += [found] if isinstance(found, str) else found
    # What is given must be computed, so that inputs and constants pass through an op.
    computed = {name for node in target.body.node for name in node.output}
    return [
        values[t] if values[t] in computed else target.node("Identity", f"output{place or ''}", (values[t],))
        for place, t in enumerate(graph.outputs)
    ]


def _value(name: str, shape: Shape, dtype: DType = DType.FLOAT32) -> Any:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype.value)), nchw(shape))


def _shuffle(op: ops.Op, target: _Target, step: _Step) -> str:
    """A step of a shuffle of channels, whose axes stay before those of the pixels."""
    if isinstance(op, ops.Transpose):
        return target.node("Transpose", step.name, step.inputs, perm=(0, 2, 1, 3, 4))
    batch, height, width, *channels = step.shape
    shape = target.integers(f"{step.name}.shape", (batch, *channels, height, width))
    return target.node("Reshape", step.name, (step.inputs[0], shape))


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
    kernel, bias = target.stored(step.name, op.stored_shapes(*step.shapes))
    if len(step.shape) == 2:
        return target.node("Gemm", step.name, (*step.inputs, kernel, bias), transB=1)
    turned = target.node("Transpose", f"{step.name}.turned", (kernel,), perm=(1, 0))
    product = target.node("MatMul", f"{step.name}.product", (target.plain(step), turned))
    return target.from_plain(step, "Add", (product, bias))


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
        return target.node("HardSigmoid", step.name, step.inputs, alpha=op.slope, beta=0.5)
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
            if len(shape) == 4:
                x = target.node("Transpose", f"{step.name}.nhwc{place}", (x,), perm=(0, 2, 3, 1))
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


_BINARIES: dict[type[ops.Op], str] = {
    ops.Sub: "Sub", ops.Div: "Div", ops.Minimum: "Min", ops.Maximum: "Max", ops.Pow: "Pow",
}  # fmt: skip


@_lower.register
def _binary(op: ops.Sub | ops.Div | ops.Minimum | ops.Maximum | ops.Pow, target: _Target, step: _Step) -> str:
    return target.node(_BINARIES[type(op)], step.name, _aligned(target, step))


@_lower.register
def _unary(op: ops.Unary, target: _Target, step: _Step) -> str:
    if op.function is UnaryKind.RSQRT:
        root = target.node("Sqrt", f"{step.name}.root", step.inputs)
        return target.node("Reciprocal", step.name, (root,))
    if op.function is UnaryKind.SQUARE:
        return target.node("Mul", step.name, step.inputs * 2)
    return target.node(op.function.capitalize(), step.name, step.inputs)


@_lower.register
def _gelu(op: ops.Gelu, target: _Target, step: _Step) -> str:
    """By erf or tanh, as exporters write it before opset 20; runtimes make one op of it."""
    (x,) = step.inputs
    if op.approximate:
        cube = target.node("Pow", f"{step.name}.cube", (x, target.number("three", 3)))
        scaled = target.node("Mul", f"{step.name}.part", (cube, target.number("constants.cube", 0.044715)))
        whole = target.node("Add", f"{step.name}.whole", (x, scaled))
        scaled = target.node(
            "Mul", f"{step.name}.scaled", (whole, target.number("constants.scale", math.sqrt(2 / math.pi)))
        )
        share = target.node("Tanh", f"{step.name}.tanh", (scaled,))
    else:
        scaled = target.node("Div", f"{step.name}.scaled", (x, target.number("root2", math.sqrt(2))))
        share = target.node("Erf", f"{step.name}.erf", (scaled,))
    share = target.node("Add", f"{step.name}.share", (share, target.number("one", 1)))
    product = target.node("Mul", f"{step.name}.product", (x, share))
    return target.node("Mul", step.name, (product, target.number("half", 0.5)))


@_lower.register
def _clip(op: ops.Clip, target: _Target, step: _Step) -> str:
    bounds = [
        "" if value is None else target.number(f"{step.name}.{name}", value)
        for name, value in (("least", op.low), ("most", op.high))
    ]
    return target.node("Clip", step.name, (*step.inputs, *bounds))


@_lower.register
def _slice(op: ops.Slice, target: _Target, step: _Step) -> str:
    rank = len(step.shape)
    steps = op.steps or (1,) * rank
    ends = [b + size * by for b, size, by in zip(op.begins, op.sizes, steps, strict=True)]
    ends = [end if end >= 0 else -(2**31) for end in ends]  # before the first value, as -1 is the last
    settings = {"begins": op.begins, "ends": ends, "axes": [nchw_axis(a, rank) for a in range(rank)], "steps": steps}
    constants = [target.integers(f"{step.name}.{name}", values) for name, values in settings.items()]
    return target.node("Slice", step.name, (*step.inputs, *constants))


@_lower.register
def _transpose(op: ops.Transpose, target: _Target, step: _Step) -> str:
    return target.node("Transpose", step.name, step.inputs, perm=nchw_perm(op.perm))


@_lower.register
def _gather(op: ops.Gather, target: _Target, step: _Step) -> str:
    axis = op.axis % len(step.shapes[0])
    return target.from_plain(step, "Gather", (target.plain(step), target.plain(step, 1)), axis=axis)


@_lower.register
def _tile(op: ops.Tile, target: _Target, step: _Step) -> str:
    repeats = target.integers(f"{step.name}.repeats", nchw(op.multiples))
    return target.node("Tile", step.name, (*step.inputs, repeats))


@_lower.register
def _depth_to_space(op: ops.DepthToSpace, target: _Target, step: _Step) -> str:
    mode = "CRD" if op.pixel_shuffle else "DCR"
    return target.node("DepthToSpace", step.name, step.inputs, blocksize=op.block, mode=mode)


@_lower.register
def _space_to_depth(op: ops.SpaceToDepth, target: _Target, step: _Step) -> str:
    return target.node("SpaceToDepth", step.name, step.inputs, blocksize=op.block)


@_lower.register
def _matmul(op: ops.MatMul, target: _Target, step: _Step) -> str:
    operands = []
    for place, is_turned in enumerate((op.transpose_a, op.transpose_b)):
        x, rank = target.plain(step, place), len(step.shapes[place])
        if is_turned:
            perm = (*range(rank - 2), rank - 1, rank - 2)
            x = target.node("Transpose", f"{step.name}.turned{place}", (x,), perm=perm)
        operands.append(x)
    return target.from_plain(step, "MatMul", tuple(operands))


@_lower.register
def _reduce(op: ops.Reduce, target: _Target, step: _Step) -> str:
    rank = len(step.shapes[0])
    is_kept = op.keep_dims or rank != 4
    x = step.inputs[0] if is_kept else target.plain(step)
    axes = [nchw_axis(axis, rank) if is_kept else axis % rank for axis in op.axes]
    kind, keeps = f"Reduce{op.function.capitalize()}", int(op.keep_dims)
    if not op.keep_dims and len(op.axes) == rank:  # the graph has no scalars
        x, keeps = target.node("Reshape", f"{step.name}.flat", (x, target.integers(f"{step.name}.all", [-1]))), 1
        axes = [0]
    settings: dict[str, Any] = {"keepdims": keeps}
    inputs: tuple[str, ...] = (x,)
    if op.function is ReduceKind.SUM:
        inputs = (x, target.integers(f"{step.name}.axes", axes))
    else:
        settings["axes"] = axes
    if op.keep_dims:
        return target.node(kind, step.name, inputs, **settings)
    return target.from_plain(step, kind, inputs, **settings)


@_lower.register
def _batch_norm(op: ops.BatchNorm, target: _Target, step: _Step) -> str:
    scale, bias = target.stored(step.name, op.stored_shapes(*step.shapes))
    if len(step.shape) in (2, 4):
        mean, variance = (
            target.constant(f"{step.name}.{name}", np.full(step.shape[-1], value, np.float32))
            for name, value in (("mean", 0), ("variance", 1))
        )
        inputs = (*step.inputs, scale, bias, mean, variance)
        return target.node("BatchNormalization", step.name, inputs, epsilon=0.0)
    scaled = target.node("Mul", f"{step.name}.scaled", (*step.inputs, scale))
    return target.node("Add", step.name, (scaled, bias))


@_lower.register
def _layer_norm(op: ops.LayerNorm, target: _Target, step: _Step) -> str:
    shape = step.shape[-op.axes :]
    if op.affine:
        constants = target.stored(step.name, op.stored_shapes(*step.shapes))
    else:
        constants = (target.constant(f"{step.name}.ones", np.ones(shape, np.float32)),)
    inputs = (target.plain(step), *constants)
    return target.from_plain(step, "LayerNormalization", inputs, axis=-op.axes, epsilon=op.epsilon)


@_lower.register
def _group_norm(op: ops.GroupNorm, target: _Target, step: _Step) -> str:
    """By InstanceNormalization of channels that stand second, of groups reshaped to be channels."""
    batch, *image, channels = step.shape
    first = (0, len(image) + 1, *range(1, len(image) + 1))
    x = (
        step.inputs[0]
        if len(step.shape) == 4
        else target.node("Transpose", f"{step.name}.first", step.inputs, perm=first)
    )
    scale, bias = target.stored(step.name, op.stored_shapes(*step.shapes))
    apart = target.integers(f"{step.name}.apart", (batch, op.groups, -1))
    units = [
        target.constant(f"{step.name}.{n}", np.full(op.groups, n == "ones", np.float32)) for n in ("ones", "zeros")
    ]
    x = target.node("Reshape", f"{step.name}.grouped", (x, apart))
    x = target.node("InstanceNormalization", f"{step.name}.normal", (x, *units), epsilon=op.epsilon)
    x = target.node(
        "Reshape", f"{step.name}.back", (x, target.integers(f"{step.name}.whole", (batch, channels, *image)))
    )
    wide = target.integers(f"{step.name}.wide", (channels, *(1,) * len(image)))
    for name, value in (("scale", scale), ("bias", bias)):
        values = target.node("Reshape", f"{step.name}.wide_{name}", (value, wide))
        is_last = name == "bias" and len(step.shape) == 4
        x = target.node(
            "Mul" if name == "scale" else "Add", step.name if is_last else f"{step.name}.{name}d", (x, values)
        )
    if len(step.shape) == 4:
        return x
    return target.node("Transpose", step.name, (x,), perm=(0, *range(2, len(step.shape)), 1))


@_lower.register
def _local_response_norm(op: ops.LocalResponseNorm, target: _Target, step: _Step) -> str:
    return target.node("LRN", step.name, step.inputs, size=op.size, alpha=op.alpha, beta=op.beta, bias=op.bias)


@_lower.register
def _constant(op: ops.Constant, target: _Target, step: _Step) -> str:
    (name,) = target.stored(step.name, {"values": op.shape}, op.dtype)
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


_PLACES = {(True, False): "align_corners", (False, True): "half_pixel", (False, False): "asymmetric"}
_NEAREST = {"align_corners": "round_prefer_ceil", "half_pixel": "round_prefer_ceil", "asymmetric": "floor"}


@_lower.register
def _resize(op: ops.Resize, target: _Target, step: _Step) -> str:
    places, sizes = _PLACES[op.align_corners, op.half_pixel], target.integers(f"{step.name}.sizes", nchw(step.shape))
    is_nearest = op.mode is Interpolation.NEAREST
    rounding = {"nearest_mode": _NEAREST[places]} if is_nearest else {}
    return target.node(
        "Resize", step.name, (*step.inputs, "", "", sizes), mode="nearest" if is_nearest else "linear",
        coordinate_transformation_mode=places, **rounding,
    )  # fmt: skip


@_lower.register
def _transpose_conv(op: ops.TransposeConv2d, target: _Target, step: _Step) -> str:
    channels, arrays = step.shapes[0][3], target.weights[step.name] if target.weights is not None else {}
    shape = (channels, op.out_channels // op.groups, *op.kernel)  # in, out / groups
    kernel = transposed(arrays["kernel"], op.groups) if "kernel" in arrays else None
    target.store(f"{step.name}.weight", shape, kernel)
    (bias,) = target.stored(step.name, {"bias": (op.out_channels,)})
    (top, bottom), (left, right) = op.height, op.width
    return target.node(
        "ConvTranspose", step.name, (*step.inputs, f"{step.name}.weight", bias), kernel_shape=op.kernel,
        strides=op.stride, group=op.groups, pads=[top, left, max(bottom, 0), max(right, 0)],
        output_padding=[max(-bottom, 0), max(-right, 0)],
    )  # fmt: skip


@_lower.register
def _prelu(op: ops.PReLU, target: _Target, step: _Step) -> str:
    (slopes,) = target.stored(step.name, op.stored_shapes(*step.shapes))
    rank = len(step.shape)
    if rank == 4:
        wide = target.integers(f"{step.name}.wide", (1,) * (rank - len(op.slopes)) + op.slopes)
        slopes = target.node("Reshape", f"{step.name}.slopes4", (slopes, wide))
        slopes = target.node("Transpose", f"{step.name}.slopes_nchw", (slopes,), perm=(0, 3, 1, 2))
    return target.node("PRelu", step.name, (*step.inputs, slopes))


@_lower.register
def _leaky_relu(op: ops.LeakyReLU, target: _Target, step: _Step) -> str:
    return target.node("LeakyRelu", step.name, step.inputs, alpha=op.slope)


@_lower.register
def _elu(op: ops.ELU, target: _Target, step: _Step) -> str:
    return target.node("Elu", step.name, step.inputs, alpha=op.alpha)


@_lower.register
def _pad_axes(op: ops.PadAxes, target: _Target, step: _Step) -> str:
    if op.mode is PadMode.SYMMETRIC:
        raise FormatError(f"node {step.name!r}: ONNX mirrors no edges, so that it cannot be written as .onnx")
    amounts = [list(nchw(side)) for side in zip(*op.amounts, strict=True)]
    inputs = (*step.inputs, target.integers(f"{step.name}.amounts", amounts[0] + amounts[1]))
    if op.mode is not PadMode.CONSTANT:
        return target.node("Pad", step.name, inputs, mode=op.mode.value)
    return target.node("Pad", step.name, (*inputs, target.number(f"{step.name}.value", op.value)))


@_lower.register
def _arg_max(op: ops.ArgMax, target: _Target, step: _Step) -> str:
    rank, kept = len(step.shapes[0]), len(step.shape) == len(step.shapes[0])
    plain = kept or rank != 4
    x, axis = (step.inputs[0], nchw_axis(op.axis, rank)) if plain else (target.plain(step), op.axis % rank)
    if op.dtype is DType.INT64 and (kept or len(step.shape) != 4):
        return target.node(f"Arg{op.mode.capitalize()}", step.name, (x,), axis=axis, keepdims=int(kept))
    y = target.node(f"Arg{op.mode.capitalize()}", f"{step.name}.index", (x,), axis=axis, keepdims=int(kept))
    code = helper.np_dtype_to_tensor_dtype(np.dtype(op.dtype.value))
    return target.from_plain(step, "Cast", (y,), to=code) if not kept else target.node("Cast", step.name, (y,), to=code)


@_lower.register
def _l2_norm(op: ops.L2Norm, target: _Target, step: _Step) -> str:
    return target.node("LpNormalization", step.name, step.inputs, axis=nchw_axis(op.axis, len(step.shape)), p=2)


def _border(target: _Target, dtype: DType) -> tuple[str, str]:
    """The scale and the zero point of integers at a border."""
    zero = target.constant(f"border.zero_{dtype}", np.array(0, dtype.value))
    return target.number("border.scale", BORDER_SCALE), zero


@_lower.register
def _quantize(op: ops.Quantize, target: _Target, step: _Step) -> str:
    return target.node("QuantizeLinear", step.name, (*step.inputs, *_border(target, op.dtype)))


@_lower.register
def _dequantize(op: ops.Dequantize, target: _Target, step: _Step) -> str:
    return target.node("DequantizeLinear", step.name, (*step.inputs, *_border(target, step.dtypes[0])))
