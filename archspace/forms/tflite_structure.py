"""TFLite's ops -> Graph, one op after the other: how files that do not carry their graph are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from netlathe.archspace import ops
from netlathe.archspace.errors import FormatError, GraphError
from netlathe.archspace.forms.tflite_file import Model, Operator
from netlathe.archspace.forms.tflite_lowering import ACTIVATIONS, PADDINGS, POOLS
from netlathe.archspace.forms.tflite_values import FUSED_KINDS, Reader
from netlathe.archspace.graph import Graph
from netlathe.archspace.ops import ActivationKind, Op

_PADDINGS = {number: padding for padding, number in PADDINGS.items()}
_SEVERAL = ("SPLIT", "SPLIT_V")
"""The ops that may give several results."""
_SHAPE_ARITHMETIC = ("PACK", "SHAPE", "STRIDED_SLICE")
"""Ops that compute a RESHAPE's sizes from an open batch. The sizes that the file states stand for it."""


def read_structure(model: Model) -> Graph:
    """The graph of a foreign file, without BatchNorm, grouped by Graph.scoped.

    Raises FormatError naming the op that netlathe does not have or that does not hold together.
    """
    reader = Reader(model)
    for index, operator in enumerate(model.operators):
        try:
            _read(reader, index, operator)
        except (FormatError, GraphError) as error:
            raise FormatError(f"op {index} ({operator.kind:.60}): {error}") from error
        except (ValueError, LookupError, TypeError, ArithmeticError, AttributeError) as error:
            raise FormatError(f"op {index} ({operator.kind:.60}) is malformed: {error!r:.200}") from error
    return reader.finish()


def _read(reader: Reader, index: int, operator: Operator) -> None:
    shape_arithmetic = operator.kind in _SHAPE_ARITHMETIC and all(map(reader.is_integer, operator.outputs))
    if reader.is_done(index) or shape_arithmetic:
        return
    if operator.kind not in _READERS:
        raise FormatError(f"netlathe has no such op; it reads {', '.join(sorted(_READERS))}")
    if len(operator.outputs) != 1 and operator.kind not in _SEVERAL:
        raise FormatError(f"it gives {len(operator.outputs)} results where one is expected")
    _READERS[operator.kind](reader, operator)


def _window(options: Mapping[str, Any]) -> dict[str, Any]:
    if options["padding"] not in _PADDINGS or {options.get(f"dilation{a}Factor", 1) for a in "HW"} != {1}:
        raise FormatError("its padding or dilation is none that netlathe has")
    return {"stride": (options["strideH"], options["strideW"]), "padding": _PADDINGS[options["padding"]]}


def _conv(reader: Reader, operator: Operator) -> None:
    out, height, width, group_in = reader.kernel(operator, rank=4)
    channels = reader.shape(operator.inputs[0])[-1]
    if channels % group_in:
        raise FormatError(f"its kernel for {group_in} channels does not divide an input of {channels}")
    op = ops.Conv2d(out, (height, width), groups=channels // group_in, batch_norm=False, **_window(operator.options))
    _add_layer(reader, operator, op, reader.operand(operator.inputs[0]))


def _depthwise(reader: Reader, operator: Operator) -> None:
    _, height, width, out = reader.kernel(operator, rank=4)
    channels = reader.shape(operator.inputs[0])[-1]
    op = ops.Conv2d(out, (height, width), groups=channels, batch_norm=False, **_window(operator.options))
    _add_layer(reader, operator, op, reader.operand(operator.inputs[0]))


def _fully_connected(reader: Reader, operator: Operator) -> None:
    out, features = reader.kernel(operator, rank=2)
    x = reader.operand(operator.inputs[0])
    if len(reader.shape(operator.inputs[0])) != 2:
        x = reader.intermediate(f"{reader.name(operator.outputs[0])}_flat", ops.Reshape((features,)), x)
    _add_layer(reader, operator, ops.FullyConnected(out), x)


def _add_layer(reader: Reader, operator: Operator, op: Op, x: int) -> None:
    """A layer; a relu6 and a division by 6 behind it are a hard sigmoid whose 3 is folded into the bias."""
    (y,) = operator.outputs
    gate = _absorb_division_by_6(reader, operator)
    if gate:
        result = reader.intermediate(reader.name(y), op, x)
        reader.add(ops.Activation(ActivationKind.HARD_SIGMOID), (result,), gate.outputs[0])
    else:
        reader.add(op, (x,), y, operator.fused)


def _pool(reader: Reader, operator: Operator) -> None:
    options = operator.options
    kernel = options["filterHeight"], options["filterWidth"]
    mode: Any = {kind: mode for mode, kind in POOLS.items()}[operator.kind]
    op = ops.Pool2d(mode, kernel, **_window(options))
    reader.add(op, reader.operands(operator, 1), operator.outputs[0], operator.fused)


def _mean(reader: Reader, operator: Operator) -> None:
    axes = {axis % 4 for axis in np.ravel(reader.integers(operator)).tolist()}
    if axes != {1, 2}:
        raise FormatError(f"it averages over axes {sorted(axes)}; only height and width (1, 2) can be read")
    op = ops.GlobalAvgPool(keep_dims=operator.options["keepDims"])
    reader.add(op, (reader.operand(operator.inputs[0]),), operator.outputs[0])


def _pad(reader: Reader, operator: Operator) -> None:
    amounts = reader.integers(operator)
    if np.shape(amounts) != (4, 2) or amounts[0] != [0, 0] or amounts[3] != [0, 0]:
        raise FormatError(f"it pads by {amounts}; only height and width of an image can be padded")
    op = ops.Pad((amounts[1][0], amounts[1][1]), (amounts[2][0], amounts[2][1]))
    reader.add(op, (reader.operand(operator.inputs[0]),), operator.outputs[0])


def _activation(reader: Reader, operator: Operator) -> None:
    function = next(f for f, kind in ACTIVATIONS.items() if kind == operator.kind)
    reader.add(ops.Activation(function), reader.operands(operator, 1), operator.outputs[0])


def _logistic(reader: Reader, operator: Operator) -> None:
    """A sigmoid, or the swish that x * sigmoid(x) makes."""
    (x,), (y,) = operator.inputs, operator.outputs
    swish = reader.absorb_user(y, "MUL", lambda mul: {*mul.inputs} == {x, y} and not mul.fused)
    if swish:
        reader.add(ops.Activation(ActivationKind.SWISH), (reader.operand(x),), swish.outputs[0])
    else:
        _activation(reader, operator)


def _add(reader: Reader, operator: Operator) -> None:
    """A sum, or the hard sigmoid that relu6(x + 3) / 6 makes."""
    xs = [t for t in operator.inputs if reader.scalar(t) != 3]
    gate = _absorb_division_by_6(reader, operator) if len(xs) == 1 else None
    if gate:
        reader.add(ops.Activation(ActivationKind.HARD_SIGMOID), (reader.operand(xs[0]),), gate.outputs[0])
    else:
        reader.add(ops.Add(), reader.operands(operator, 2), operator.outputs[0], operator.fused)


def _absorb_division_by_6(reader: Reader, operator: Operator) -> Operator | None:
    """The product with 1/6 that follows an op with a fused relu6, if one does."""

    def divides(mul: Operator) -> bool:
        factors = [value for t in mul.inputs if (value := reader.scalar(t)) is not None]
        return len(factors) == 1 and abs(factors[0] - 1 / 6) < 1e-5 and not mul.fused

    clamps = FUSED_KINDS.get(operator.fused) is ActivationKind.RELU6
    return reader.absorb_user(operator.outputs[0], "MUL", divides) if clamps else None


def _mul(reader: Reader, operator: Operator) -> None:
    reader.add(ops.Mul(), reader.operands(operator, 2), operator.outputs[0], operator.fused)


def _concat(reader: Reader, operator: Operator) -> None:
    (output,) = operator.outputs
    axis, rank = operator.options["axis"], len(reader.shape(output))
    if axis % rank != rank - 1 or len(operator.inputs) < 2:
        raise FormatError(f"it joins {len(operator.inputs)} tensors along axis {axis}; only channels can be joined")
    reader.add(ops.Concat(), reader.operands(operator, len(operator.inputs)), output, operator.fused)


def _split(reader: Reader, operator: Operator) -> None:
    """Parts of one size (SPLIT: axis, tensor), or of any (SPLIT_V: tensor, sizes, axis)."""
    x, axis = operator.inputs[::-1] if operator.kind == "SPLIT" else operator.inputs[::2]
    where = reader.scalar(axis)
    if where is None:
        raise FormatError("its axis must be a constant")
    axis = ops.canonical_axis(int(where), len(reader.shape(x)))
    sizes = tuple(reader.shape(output)[axis] for output in operator.outputs)
    reader.add_several(ops.Split(sizes, axis), (reader.operand(x),), operator.outputs)


def _softmax(reader: Reader, operator: Operator) -> None:
    if operator.options["beta"] != 1:
        raise FormatError(f"its beta is {operator.options['beta']}; only 1 can be read")
    reader.add(ops.Softmax(), reader.operands(operator, 1), operator.outputs[0])


def _reshape(reader: Reader, operator: Operator) -> None:
    (output,) = operator.outputs
    reader.add(ops.Reshape(reader.shape(output)[1:]), (reader.operand(operator.inputs[0]),), output)


_READERS: dict[str, Callable[[Reader, Operator], None]] = {
    "ADD": _add,
    "AVERAGE_POOL_2D": _pool,
    "CONCATENATION": _concat,
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _depthwise,
    "FULLY_CONNECTED": _fully_connected,
    "HARD_SWISH": _activation,
    "LOGISTIC": _logistic,
    "MAX_POOL_2D": _pool,
    "MEAN": _mean,
    "MUL": _mul,
    "PAD": _pad,
    "RELU": _activation,
    "RELU6": _activation,
    "RESHAPE": _reshape,
    "SOFTMAX": _softmax,
    "SPLIT": _split,
    "SPLIT_V": _split,
    "SQUEEZE": _reshape,
}
