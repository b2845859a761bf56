"""ONNX's ops -> Graph, one node after the other: how files that do not carry their graph are read."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, numpy_helper

from netlathe.archspace import ops
from netlathe.archspace.errors import FormatError, GraphError
from netlathe.archspace.forms.onnx_values import DOMAINS, Reader, attributes_of
from netlathe.archspace.graph import MOST_NODES, Graph
from netlathe.archspace.kernels import Borders, is_symmetric, same_borders
from netlathe.archspace.ops import ActivationKind, Padding, Pair, Shape


def read_structure(model: ModelProto) -> Graph:
    """The graph of a foreign file, grouped by Graph.scoped.

    A flattened image counts as flattened in NHWC order: which value goes where is the weights' affair, which a graph
    does not have. Raises FormatError naming the node that netlathe has no op for or that does not hold together.
    """
    if len(model.graph.node) > MOST_NODES:
        raise FormatError(f"the file has {len(model.graph.node)} nodes, more than the {MOST_NODES} that netlathe takes")
    reader = Reader(model)
    for index, node in enumerate(model.graph.node):
        try:
            _read(reader, node)
        except (FormatError, GraphError) as error:
            raise FormatError(f"{_title(index, node)}: {error}") from error
        except (ValueError, LookupError, TypeError, ArithmeticError, AttributeError) as error:
            raise FormatError(f"{_title(index, node)} is malformed: {error!r:.200}") from error
    return reader.finish()


def _title(index: int, node: NodeProto) -> str:
    kind = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
    return f"node {index} ({kind:.60} {node.name!r:.80})"


def _read(reader: Reader, node: NodeProto) -> None:
    if reader.is_done(node):
        return
    if node.domain not in DOMAINS or node.op_type not in _READERS:
        raise FormatError(f"netlathe has no such op; it reads {', '.join(sorted(_READERS))}")
    _READERS[node.op_type](reader, node)


@dataclass(frozen=True)
class _Window:
    """Stride and borders of a convolution or pool. `padding` is None where the borders are neither SAME's nor none."""

    stride: Pair
    borders: Borders
    padding: Padding | None


def _window(node: NodeProto, x: Shape, kernel: Pair) -> _Window:
    settings = attributes_of(node)
    if {*settings.get("dilations", ())} - {1}:
        raise FormatError(f"its dilations {settings['dilations']} are none that netlathe has")
    height, width = settings.get("strides", (1, 1))
    same = same_borders(x, kernel, (height, width))
    borders = _borders(settings, same)
    none = ((0, 0), (0, 0))
    padding = Padding.SAME if borders == same else Padding.VALID if borders == none else None
    return _Window((height, width), borders, padding)


def _borders(settings: Mapping[str, Any], same: Borders) -> Borders:
    auto = settings.get("auto_pad", "NOTSET")
    if auto == "NOTSET":
        top, left, bottom, right = settings.get("pads", (0, 0, 0, 0))
        return (top, bottom), (left, right)
    if auto == "SAME_UPPER" or (auto == "SAME_LOWER" and is_symmetric(same)):
        return same
    if auto != "VALID":
        raise FormatError(f"its auto_pad {auto!r} cannot be read; export the model with explicit pads")
    return (0, 0), (0, 0)


def _conv(reader: Reader, node: NodeProto) -> None:
    """A convolution, with the BatchNorm that follows it."""
    out, group_in, height, width = reader.kernel(node, rank=4)
    x, groups = reader.operand(node.input[0]), attributes_of(node).get("group", 1)
    if reader.shape(node.input[0])[-1] != group_in * groups:
        raise FormatError(f"its kernel takes {group_in * groups} channels, its input has {reader.shape(node.input[0])}")
    window = _window(node, reader.shape(node.input[0]), (height, width))
    if window.padding is None:
        x = reader.intermediate(node, "_pad", ops.Pad(*window.borders), x)
    (y,) = node.output
    norm = reader.absorb_user(y, "BatchNormalization", lambda norm: norm.input[0] == y)
    padding = window.padding or Padding.VALID
    op = ops.Conv2d(out, (height, width), window.stride, groups, padding, batch_norm=norm is not None)
    reader.alias(norm or node, reader.intermediate(node, "", op, x))


def _batch_norm(reader: Reader, node: NodeProto) -> None:
    raise FormatError("it does not follow a convolution of its own; fold it (onnxsim, or an export in eval mode)")


def _gemm(reader: Reader, node: NodeProto) -> None:
    kernel, settings = reader.kernel(node, rank=2), attributes_of(node)
    out, features = kernel if settings.get("transB", 0) else kernel[::-1]
    if settings.get("transA", 0) or settings.get("alpha", 1) != 1 or settings.get("beta", 1) != 1:
        raise FormatError("it transposes or scales its input; only a plain fully connected layer can be read")
    if reader.shape(node.input[0])[1:] != (features,):
        raise FormatError(f"its weights take {features} features, its input has {reader.shape(node.input[0])}")
    reader.add(node, ops.FullyConnected(out), reader.operand(node.input[0]))


def _pool(reader: Reader, node: NodeProto) -> None:
    settings, x = attributes_of(node), reader.operand(node.input[0])
    height, width = settings["kernel_shape"]
    window = _window(node, reader.shape(node.input[0]), (height, width))
    padding, is_max = window.padding, node.op_type == "MaxPool"
    if settings.get("ceil_mode", 0) and padding is not Padding.SAME:
        raise FormatError("its ceil_mode cannot be read; export the model without")
    counted = settings.get("count_include_pad", 0) and any(map(any, window.borders))
    if counted or (is_max and padding is None and reader.never_negative(node.input[0])):  # where zeros are right
        x, padding = reader.intermediate(node, "_pad", ops.Pad(*window.borders), x), Padding.VALID
    if padding is None:
        raise FormatError(f"its pads {window.borders} are neither TensorFlow's SAME nor none, nor can zeros stand in")
    reader.add(node, ops.Pool2d("max" if is_max else "avg", (height, width), window.stride, padding), x)


def _global_average_pool(reader: Reader, node: NodeProto) -> None:
    """The mean over the image, without kept dimensions where a Flatten follows."""
    flat = reader.absorb_user(node.output[0], "Flatten", lambda f: attributes_of(f).get("axis", 1) == 1)
    op = ops.GlobalAvgPool(keep_dims=flat is None)
    reader.alias(flat or node, reader.intermediate(node, "", op, reader.operand(node.input[0])))


def _reduce_mean(reader: Reader, node: NodeProto) -> None:
    rank = len(reader.shape(node.input[0]))
    axes = sorted(axis % rank for axis in reader.setting(node, "axes", 1, default=()))
    if (rank, axes) != (4, [2, 3]):
        raise FormatError(f"it averages over axes {axes} of {rank}; only height and width (2, 3) can be read")
    keep_dims = bool(attributes_of(node).get("keepdims", 1))
    reader.add(node, ops.GlobalAvgPool(keep_dims), reader.operand(node.input[0]))


def _activation(reader: Reader, node: NodeProto) -> None:
    functions = {"Relu": ActivationKind.RELU, "HardSwish": ActivationKind.HARD_SWISH}
    reader.add(node, ops.Activation(functions[node.op_type]), reader.operand(node.input[0]))


def _clip(reader: Reader, node: NodeProto) -> None:
    bounds = reader.setting(node, "min", 1), reader.setting(node, "max", 2)
    functions = {(0, 6): ActivationKind.RELU6, (0, None): ActivationKind.RELU}
    if bounds not in functions:
        raise FormatError(f"it clips to {bounds}; only relu6 (0, 6) and relu (0, None) can be read")
    reader.add(node, ops.Activation(functions[bounds]), reader.operand(node.input[0]))


def _gate(reader: Reader, node: NodeProto) -> None:
    """A (hard) sigmoid, or the (hard) swish that its product with its own input makes."""
    hard = node.op_type == "HardSigmoid"
    alpha, beta = (attributes_of(node).get(name, default) for name, default in (("alpha", 0.2), ("beta", 0.5)))
    if hard and not (abs(alpha - 1 / 6) <= 1e-4 and beta == 0.5):  # so that a NaN is refused
        raise FormatError(f"its slope is {alpha} and its offset {beta}; only 1/6 and 0.5 can be read")
    operands = {node.input[0], node.output[0]}
    product = reader.absorb_user(node.output[0], "Mul", lambda mul: {*mul.input} == operands)
    gates = ActivationKind.HARD_SIGMOID if hard else ActivationKind.SIGMOID
    swish = ActivationKind.HARD_SWISH if hard else ActivationKind.SWISH
    op = ops.Activation(swish if product else gates)
    reader.alias(product or node, reader.intermediate(node, "", op, reader.operand(node.input[0])))


def _add(reader: Reader, node: NodeProto) -> None:
    reader.add(node, ops.Add(), *map(reader.operand, node.input))


def _mul(reader: Reader, node: NodeProto) -> None:
    reader.add(node, ops.Mul(), *map(reader.operand, node.input))


def _concat(reader: Reader, node: NodeProto) -> None:
    rank, axis = len(reader.shape(node.input[0])), attributes_of(node)["axis"]
    if axis % rank != (1 if rank == 4 else rank - 1):
        raise FormatError(f"it joins along axis {axis} of {rank}; only channels can be joined")
    reader.add(node, ops.Concat(), *map(reader.operand, node.input))


def _split(reader: Reader, node: NodeProto) -> None:
    x = reader.shape(node.input[0])
    axis, parts = attributes_of(node).get("axis", 0) % len(x), len(node.output)
    axis = (0, 3, 1, 2)[axis] if len(x) == 4 else axis
    part = -(-x[axis] // parts)
    even = (part,) * (parts - 1) + (x[axis] - part * (parts - 1),)
    sizes = reader.setting(node, "split", 1, default=even)
    reader.add_several(node, ops.Split(tuple(sizes), ops.canonical_axis(axis, len(x))), reader.operand(node.input[0]))


def _softmax(reader: Reader, node: NodeProto) -> None:
    rank = len(reader.shape(node.input[0]))
    axis = attributes_of(node).get("axis", -1 if reader.opset >= 13 else 1) % rank
    if axis != 1 or (rank == 4 and reader.opset < 13):  # before opset 13 it ran over all axes from there on
        raise FormatError(f"it runs over axis {axis} of {rank} (opset {reader.opset}); only channels can be read")
    reader.add(node, ops.Softmax(), reader.operand(node.input[0]))


def _pad(reader: Reader, node: NodeProto) -> None:
    amounts = reader.setting(node, "pads", 1)
    mode, value = attributes_of(node).get("mode", "constant"), reader.setting(node, "value", 2, default=0)
    if mode != "constant" or value != 0 or len(amounts) != 8 or any(amounts[i] for i in (0, 1, 4, 5)):
        raise FormatError(f"it pads by {amounts} ({mode}, {value}); only zeros around an image can be read")
    op = ops.Pad((amounts[2], amounts[6]), (amounts[3], amounts[7]))
    reader.add(node, op, reader.operand(node.input[0]))


def _flatten(reader: Reader, node: NodeProto) -> None:
    if attributes_of(node).get("axis", 1) != 1:
        raise FormatError("only a flattening that keeps the batch can be read")
    _add_reshape(reader, node, (reader.shape(node.input[0])[0], -1))


def _reshape(reader: Reader, node: NodeProto) -> None:
    _add_reshape(reader, node, reader.setting(node, "shape", 1))


def _squeeze(reader: Reader, node: NodeProto) -> None:
    batch, *image, channels = reader.shape(node.input[0])
    axes = sorted(axis % 4 for axis in reader.setting(node, "axes", 1, default=()))
    if axes != [2, 3] or image != [1, 1]:
        raise FormatError(f"it squeezes axes {axes}; only height and width of a single pixel can be read")
    _add_reshape(reader, node, (batch, channels))


def _add_reshape(reader: Reader, node: NodeProto, wanted: Sequence[int]) -> None:
    """To (N, features), or to (N, channels, 1, 1); other shapes would depend on where the channels stand."""
    x = reader.shape(node.input[0])
    nchw = (x[0], x[-1], *x[1:-1])
    sizes = [nchw[axis] if size == 0 else size for axis, size in enumerate(wanted)]
    if -1 in sizes:
        sizes[sizes.index(-1)] = math.prod(x) // -math.prod(sizes)
    batch, channels, *pixel = sizes
    if batch != x[0] or pixel not in ([], [1, 1]):
        raise FormatError(f"it makes {nchw} into {sizes}; only a flattening that keeps the batch can be read")
    shape = (*pixel, channels)
    x_operand = reader.operand(node.input[0])
    if x[1:] == shape:
        reader.alias(node, x_operand)
    else:
        reader.add(node, ops.Reshape(shape), x_operand)


def _identity(reader: Reader, node: NodeProto) -> None:
    if not reader.rename_constant(node):
        reader.alias(node, reader.operand(node.input[0]))


def _cast(reader: Reader, node: NodeProto) -> None:
    if not reader.rename_constant(node):
        raise FormatError("only constants may be cast; only float32 models can be read so far")


def _constant(reader: Reader, node: NodeProto) -> None:
    ((kind, value),) = attributes_of(node).items()
    if kind == "sparse_value":
        raise FormatError("it is a sparse constant, which cannot be read")
    tensor = value if kind == "value" else numpy_helper.from_array(np.array(value))
    reader.define(node.output[0], tensor)


_READERS: dict[str, Callable[[Reader, NodeProto], None]] = {
    "Add": _add,
    "AveragePool": _pool,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _concat,
    "Constant": _constant,
    "Conv": _conv,
    "Dropout": _identity,
    "Flatten": _flatten,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_average_pool,
    "HardSigmoid": _gate,
    "HardSwish": _activation,
    "Identity": _identity,
    "MaxPool": _pool,
    "Mul": _mul,
    "Pad": _pad,
    "ReduceMean": _reduce_mean,
    "Relu": _activation,
    "Reshape": _reshape,
    "Sigmoid": _gate,
    "Softmax": _softmax,
    "Split": _split,
    "Squeeze": _squeeze,
}
