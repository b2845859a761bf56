"""ONNX's element-wise ops -> Graph: functions of one value, and arithmetic of several."""

from __future__ import annotations

import math
from collections.abc import Callable

from onnx import NodeProto

from netlathe.archspace.errors import FormatError
from netlathe.archspace.forms.layouts import arranged, plain
from netlathe.archspace.forms.onnx_constants import DTYPES
from netlathe.archspace.forms.onnx_values import NotReadError, Reader, attributes_of
from netlathe.archspace.ops import (
    ELU,
    Activation,
    ActivationKind,
    Add,
    Cast,
    Clip,
    Div,
    Gelu,
    LeakyReLU,
    Maximum,
    Minimum,
    Mul,
    Op,
    Pow,
    PReLU,
    Softmax,
    Sub,
    Unary,
    UnaryKind,
)

_FUNCTIONS: dict[str, Op] = {
    "Relu": Activation(ActivationKind.RELU),
    "HardSwish": Activation(ActivationKind.HARD_SWISH),
    "Abs": Unary(UnaryKind.ABS),
    "Ceil": Unary(UnaryKind.CEIL),
    "Cos": Unary(UnaryKind.COS),
    "Erf": Unary(UnaryKind.ERF),
    "Exp": Unary(UnaryKind.EXP),
    "Floor": Unary(UnaryKind.FLOOR),
    "Log": Unary(UnaryKind.LOG),
    "Neg": Unary(UnaryKind.NEG),
    "Reciprocal": Unary(UnaryKind.RECIPROCAL),
    "Round": Unary(UnaryKind.ROUND),
    "Sign": Unary(UnaryKind.SIGN),
    "Sin": Unary(UnaryKind.SIN),
    "Softplus": Unary(UnaryKind.SOFTPLUS),
    "Sqrt": Unary(UnaryKind.SQRT),
    "Tanh": Unary(UnaryKind.TANH),
    "FastGelu": Gelu(approximate=True),
}
_ARITHMETIC: dict[str, Op] = {
    "Add": Add(),
    "Div": Div(),
    "Max": Maximum(),
    "Min": Minimum(),
    "Mul": Mul(),
    "Pow": Pow(),
    "Sub": Sub(),
    "Sum": Add(),
}


def unary(reader: Reader, node: NodeProto, op: Op, into: str = "") -> None:
    """Adds a function of the node's first input, in whatever layout that has."""
    value = reader.value(node.input[0])
    reader.add(node, op, value.operand, axes=value.axes, transposed=value.is_transposed, into=into)


def _function(reader: Reader, node: NodeProto) -> None:
    if len(node.input) > 1 and node.input[1]:
        raise NotReadError("it takes a bias")
    unary(reader, node, _FUNCTIONS[node.op_type])


def _gelu(reader: Reader, node: NodeProto) -> None:
    unary(reader, node, Gelu(approximate=attributes_of(node).get("approximate", "none") == "tanh"))


def _clip(reader: Reader, node: NodeProto) -> None:
    low, high = reader.setting(node, "min", 1), reader.setting(node, "max", 2)
    low = None if low is not None and low <= -3e38 else low
    high = None if high is not None and high >= 3e38 else high
    if low is None and high is None:
        reader.bind(node.output[0], reader.value(node.input[0]))
    elif (low, high) in ((0, 6), (0, None)):
        unary(reader, node, Activation(ActivationKind.RELU6 if high else ActivationKind.RELU))
    else:
        unary(reader, node, Clip(low, high))


def _gate(reader: Reader, node: NodeProto) -> None:
    """A (hard) sigmoid, or the (hard) swish that its product with its own input makes."""
    hard = node.op_type == "HardSigmoid"
    alpha, beta = (attributes_of(node).get(name, default) for name, default in (("alpha", 0.2), ("beta", 0.5)))
    plain_slope = not hard or (abs(alpha - 1 / 6) <= 1e-4 and beta == 0.5)
    if hard and not plain_slope:
        if not (math.isfinite(alpha) and math.isfinite(beta)):
            raise FormatError(f"its slope is {alpha} and its offset {beta}")
        if alpha <= 0 or beta != 0.5:
            raise NotReadError(f"its slope is {alpha} and its offset {beta}")
        return unary(reader, node, Activation(ActivationKind.HARD_SIGMOID, slope=round(alpha, 7)))
    operands = {node.input[0], node.output[0]}
    product = reader.absorb_user(node.output[0], "Mul", lambda mul: {*mul.input} == operands)
    gates = ActivationKind.HARD_SIGMOID if hard else ActivationKind.SIGMOID
    swish = ActivationKind.HARD_SWISH if hard else ActivationKind.SWISH
    op = Activation(swish if product else gates)
    return unary(reader, node, op, into=product.output[0] if product else "")


def _leaky(reader: Reader, node: NodeProto) -> None:
    unary(reader, node, LeakyReLU(attributes_of(node).get("alpha", 0.01)))


def _elu(reader: Reader, node: NodeProto) -> None:
    unary(reader, node, ELU(attributes_of(node).get("alpha", 1.0)))


def _prelu(reader: Reader, node: NodeProto) -> None:
    slopes = reader.constant(node.input[1])
    if slopes is None:
        raise NotReadError("its slopes are computed")
    value = reader.value(node.input[0])
    shape, rank = reader.aligned(slopes.shape, value), len(reader.graph_shape(value.operand))
    reader.add(
        node, PReLU(shape), value.operand, axes=value.axes, transposed=value.is_transposed,
        stored=lambda: {"slopes": arranged(reader.values(node.input[1]), value.axes, rank).reshape(shape)},
    )  # fmt: skip


def _arithmetic(reader: Reader, node: NodeProto) -> None:
    op, names = _ARITHMETIC[node.op_type], [name for name in node.input if name]
    exponent = reader.constant(names[1]) if node.op_type == "Pow" else None
    if exponent is not None and exponent.count == 1 and exponent.is_known:
        power = float(exponent.array("exponent").reshape(-1)[0])
        functions = {2.0: UnaryKind.SQUARE, 0.5: UnaryKind.SQRT, -1.0: UnaryKind.RECIPROCAL, -0.5: UnaryKind.RSQRT}
        if power in functions:
            return unary(reader, node, Unary(functions[power]))
    if len(names) == 1:
        return reader.bind(node.output[0], reader.value(names[0]))
    return reader.add_broadcast(node, op, names)


def _softmax(reader: Reader, node: NodeProto) -> None:
    value, shape = reader.value(node.input[0]), reader.shape(node.input[0])
    rank = len(shape)
    axis = attributes_of(node).get("axis", -1 if reader.opset >= 13 else 1)
    if not -rank <= axis < rank:
        raise FormatError(f"there is no axis {axis} in a tensor of rank {rank}")
    axis %= rank
    name = node.output[0]
    if reader.opset < 13:  # over all axes from there on
        wide = [n for n in range(axis, rank) if shape[n] != 1]
        if len(wide) > 1:
            rows, columns = 1, 1
            for n, size in enumerate(shape):
                rows, columns = (rows * size, columns) if n < axis else (rows, columns * size)
            flat = reader.reshape(node.input[0], (rows, columns))
            reader.add(node, Softmax(), reader.placed(flat, plain(2), 2), axes=plain(2))
            reader.bind(name, reader.reshape(name, shape))
            return _logarithm(reader, node)
        axis = wide[0] if wide else axis
    graph_axis = value.axes[axis]
    last = graph_axis == len(reader.graph_shape(value.operand)) - 1
    op = Softmax() if last else Softmax(graph_axis)
    reader.add(node, op, value.operand, axes=value.axes, transposed=value.is_transposed)
    return _logarithm(reader, node)


def _logarithm(reader: Reader, node: NodeProto) -> None:
    if node.op_type == "LogSoftmax":
        value = reader.value(node.output[0])
        reader.add(node, Unary(UnaryKind.LOG), value.operand, axes=value.axes, transposed=value.is_transposed)


def _cast(reader: Reader, node: NodeProto) -> None:
    to = attributes_of(node).get("to")
    if node.op_type == "CastLike":
        stored = reader.constant(node.input[1])
        dtype = DTYPES.get(stored.dtype) if stored else reader.dtype(node.input[1])
    else:
        dtype = DTYPES.get(to)
    if dtype is None:
        raise NotReadError("it casts to a dtype that netlathe does not have")
    if reader.dtype(node.input[0]) is dtype:
        reader.bind(node.output[0], reader.value(node.input[0]))
    else:
        unary(reader, node, Cast(dtype))


POINTWISE: dict[str, Callable[[Reader, NodeProto], None]] = {
    **dict.fromkeys(_FUNCTIONS, _function),
    **dict.fromkeys(_ARITHMETIC, _arithmetic),
    "Cast": _cast,
    "CastLike": _cast,
    "Clip": _clip,
    "Elu": _elu,
    "Gelu": _gelu,
    "HardSigmoid": _gate,
    "LeakyRelu": _leaky,
    "LogSoftmax": _softmax,
    "PRelu": _prelu,
    "Sigmoid": _gate,
    "Softmax": _softmax,
}
