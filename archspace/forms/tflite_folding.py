"""Values that a .tflite file computes of constants and of shapes alone: weights that are unpacked, sizes of
reshapes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netlathe.archspace.errors import FormatError
from netlathe.archspace.forms.tflite_file import Operator, Tensor
from netlathe.archspace.forms.tflite_values import Reader, real_values
from netlathe.archspace.ops import Shape

Array = NDArray[Any]

_MOST_VALUES = 4096
"""Values of a constant that is computed; of larger ones, only the shape is known."""
_UNPACKING = ("CAST", "DENSIFY", "DEQUANTIZE", "EXPAND_DIMS", "QUANTIZE", "RESHAPE", "SQUEEZE", "TRANSPOSE")
"""Ops that make weights of what the file stores; runtimes do so once, when they load the model."""


def fold(reader: Reader, operator: Operator) -> bool:
    """Whether an op gives a constant, which the reader is then told."""
    if (operator.kind not in _EVALUATED and operator.kind not in _UNPACKING) or len(operator.outputs) != 1:
        return False
    if operator.kind in ("SHAPE", "RANK"):
        shape = reader.shape(operator.inputs[0])
        _define(reader, operator, np.array(shape if operator.kind == "SHAPE" else len(shape)))
        return True
    found = [reader.constant(t) for t in operator.inputs if t >= 0]
    constants = [constant for constant in found if constant is not None]
    if not constants or len(constants) < len(found):
        return False
    values = [c.data for c in constants if c.data is not None and c.data.size <= _MOST_VALUES]
    if len(values) == len(constants) and operator.kind in _EVALUATED and _is_plain(constants):
        with np.errstate(all="ignore"):  # as runtimes do
            _define(reader, operator, _EVALUATED[operator.kind](values, operator.options))
    elif operator.kind in _UNPACKING:
        _unpack(reader, operator, constants[0])
    else:
        return False
    return True


def _is_plain(constants: Sequence[Tensor]) -> bool:
    return all(constant.data is not None and constant.data.shape == constant.shape for constant in constants)


def _define(reader: Reader, operator: Operator, values: Any) -> None:
    (output,) = operator.outputs
    data = np.asarray(values, reader.dtype(output))
    stated = reader.model.tensors[output]
    reader.define(output, dataclasses.replace(stated, shape=data.shape, data=data))


def _unpack(reader: Reader, operator: Operator, constant: Tensor) -> None:
    """Says that the result is a constant of the shape that the file states; its values only where they are few."""
    (output,) = operator.outputs
    stated, data = reader.model.tensors[output], None
    if operator.kind == "DEQUANTIZE" and constant.data is not None and constant.data.size == 1:
        data = real_values(constant).astype(np.float32)
    shape = stated.shape or constant.shape
    reader.define(
        output, dataclasses.replace(stated, shape=shape, data=data), lambda: _unpacked(reader, operator, shape)
    )


def _unpacked(reader: Reader, operator: Operator, shape: Shape) -> Array:
    """The values of the result, however many. Raises FormatError for what is sparse or made integers."""
    if operator.kind in ("DENSIFY", "QUANTIZE"):
        raise FormatError(f"its weights come out of a {operator.kind}; give the model before it was compressed")
    values = reader.values(operator.inputs[0])
    if operator.kind == "TRANSPOSE":
        return values.transpose(reader.values(operator.inputs[1]).tolist())
    if operator.kind in ("CAST", "DEQUANTIZE"):
        return np.asarray(values, reader.dtype(operator.outputs[0]).value)
    return values.reshape(shape)


Index = list[slice | int | None]
"""Part that is taken of each axis, as numpy has it; None for a new one."""


def strided(shape: Shape, numbers: Sequence[Sequence[int]], options: Mapping[str, Any]) -> Index:
    """Part that a STRIDED_SLICE of these begins, ends and strides takes of a tensor of that shape."""
    begins, ends, strides = numbers

    def marked(mask: str, place: int) -> bool:
        return bool(options.get(f"{mask}Mask", 0) >> place & 1)

    index: Index = []
    left = sum(not marked("newAxis", place) for place in range(len(begins)))  # axes that are named from here on
    for place, (begin, end, stride) in enumerate(zip(begins, ends, strides, strict=True)):
        axis = sum(item is not None for item in index)
        if marked("ellipsis", place):
            left -= 1
            index += [slice(None)] * (len(shape) - axis - left)
        elif marked("newAxis", place):
            index.append(None)
        else:
            left -= 1
            last = begin + end if options.get("offset") else end
            first = None if marked("begin", place) else begin
            whole = slice(first, None if marked("end", place) else last, stride)
            index.append(begin if marked("shrinkAxis", place) else whole)
    return index + [slice(None)] * (len(shape) - sum(item is not None for item in index))


def _strided_slice(values: Sequence[Array], options: Mapping[str, Any]) -> Array:
    numbers = [value.reshape(-1).tolist() for value in values[1:4]]
    return np.asarray(values[0][tuple(strided(values[0].shape, numbers, options))])


def _slice(values: Sequence[Array], options: Mapping[str, Any]) -> Array:
    begins, sizes = (value.reshape(-1).tolist() for value in values[1:3])
    parts = (slice(b, None if n < 0 else b + n) for b, n in zip(begins, sizes, strict=True))
    return np.asarray(values[0][tuple(parts)])


def _reduced(function: Callable[..., Any]) -> Callable[[Sequence[Array], Mapping[str, Any]], Array]:
    def apply(values: Sequence[Array], options: Mapping[str, Any]) -> Array:
        axes = tuple({int(axis) for axis in values[1].reshape(-1)})
        return np.asarray(function(values[0], axis=axes, keepdims=bool(options.get("keepDims"))))

    return apply


def _element_wise(function: Callable[..., Any]) -> Callable[[Sequence[Array], Mapping[str, Any]], Array]:
    return lambda values, options: np.asarray(function(*values[:2]))


def _divide(a: Array, b: Array) -> Array:
    """TFLite's quotient of integers is cut off towards zero."""
    quotient = a / b
    return np.asarray(np.trunc(quotient) if a.dtype.kind in "iu" else quotient)


def _filled(values: Sequence[Array], options: Mapping[str, Any]) -> Array:
    _expect_few(math.prod(values[0].tolist()))
    return np.full(values[0].tolist(), values[1])


def _range(values: Sequence[Array], options: Mapping[str, Any]) -> Array:
    start, limit, delta = (value.reshape(-1)[0].item() for value in values)
    _expect_few((limit - start) / delta)
    return np.arange(start, limit, delta)


def _expect_few(count: float) -> None:
    if not 0 <= count <= _MOST_VALUES:
        raise ValueError(f"it makes {count} values")


_EVALUATED: dict[str, Callable[[Sequence[Array], Mapping[str, Any]], Any]] = {
    "ADD": _element_wise(np.add),
    "CAST": lambda values, options: values[0],
    "CONCATENATION": lambda values, options: np.concatenate(values, options["axis"]),
    "DIV": _element_wise(_divide),
    "EXPAND_DIMS": lambda values, options: np.expand_dims(values[0], int(values[1].reshape(-1)[0])),
    "FILL": _filled,
    "FLOOR_DIV": _element_wise(np.floor_divide),
    "GATHER": lambda values, options: np.take(values[0], values[1], options["axis"]),
    "MAXIMUM": _element_wise(np.maximum),
    "MINIMUM": _element_wise(np.minimum),
    "MUL": _element_wise(np.multiply),
    "NEG": lambda values, options: -values[0],
    "PACK": lambda values, options: np.stack(values, options["axis"]),
    "RANGE": _range,
    "RANK": lambda values, options: values[0].ndim,
    "REDUCE_MAX": _reduced(np.max),
    "REDUCE_MIN": _reduced(np.min),
    "REDUCE_PROD": _reduced(np.prod),
    "RESHAPE": lambda values, options: values[0].reshape(values[1].tolist()),
    "SHAPE": lambda values, options: values[0].shape,
    "SLICE": _slice,
    "SQUEEZE": lambda values, options: np.squeeze(values[0], tuple(options["squeezeDims"]) or None),
    "STRIDED_SLICE": _strided_slice,
    "SUB": _element_wise(np.subtract),
    "SUM": _reduced(np.sum),
}
