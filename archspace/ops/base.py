"""The row of a primitive operation: shapes, dtypes, MACs, parameters and stored values.

Together with graph.py this package is the only place with shape arithmetic. Every writer, module and feature asks here.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any, ClassVar, TypeVar, get_type_hints

from netlathe.archspace.errors import GraphError

Shape = tuple[int, ...]
"""NHWC, batch first; after the head also (N, C)."""

Pair = tuple[int, int]
"""(height, width)."""

LARGEST = 2**31 - 1
"""Largest size or setting: files and runtimes count in 32 bits."""
MOST_VALUES, MOST_STORED = 2**32 - 1, 2**31 - 1
"""Most values of one tensor (16 GiB of float32), and of one op's weights: what is computed from them stays within 64
bits."""
LATER: Mapping[str, bool] = {"later": True}
"""The metadata of a field that an op has got after graphs of it were stored: at its default it is in no JSON."""
_DEEPEST = 3
"""Lists within lists in an op's JSON."""


class DType(StrEnum):
    """The type of a tensor's values."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INT8 = "int8"
    UINT8 = "uint8"
    INT16 = "int16"
    INT32 = "int32"
    INT64 = "int64"
    BOOL = "bool"
    FLOAT64 = "float64"
    UINT16 = "uint16"
    UINT32 = "uint32"
    UINT64 = "uint64"
    COMPLEX64 = "complex64"


BYTES: dict[DType, int] = {
    DType.FLOAT32: 4, DType.FLOAT16: 2, DType.INT8: 1, DType.UINT8: 1, DType.INT16: 2, DType.INT32: 4, DType.INT64: 8,
    DType.BOOL: 1, DType.FLOAT64: 8, DType.UINT16: 2, DType.UINT32: 4, DType.UINT64: 8, DType.COMPLEX64: 8,
}  # fmt: skip
"""The size of one value."""


class Padding(StrEnum):
    """SAME follows TensorFlow: out = ceil(in / stride), the odd pixel goes after. VALID pads nothing."""

    SAME = "same"
    VALID = "valid"


@dataclass(frozen=True, slots=True)
class Op(ABC):
    """One primitive operation: one row of the table of ops.

    A row is a frozen dataclass under `@register`. `output_shape` is its shape rule (`output_shapes` where it gives
    several results); all else has a default. As in the papers, only what multiplies and accumulates weights or two
    tensors has MACs.
    """

    kind: ClassVar[str]
    """The op's name in JSON and in errors."""
    arity: ClassVar[int | None] = 1
    """Number of tensors it takes; None: any."""
    has_dtype: ClassVar[bool] = False
    """Whether the results have a dtype of their own, by `output_dtypes`, rather than that of what it takes."""
    has_macs: ClassVar[bool] = False
    has_weights: ClassVar[bool] = False
    has_several: ClassVar[bool] = False
    """Whether ops of the class may have multiply-accumulates, stored values, several results: `register` finds out."""

    @property
    def name(self) -> str:
        """The op's name in errors."""
        return self.kind

    @abstractmethod
    def output_shape(self, *inputs: Shape) -> Shape:
        """Shape of the first result, of most ops the only one. Raises GraphError when the inputs do not fit."""

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        """Shapes of all results, in their order."""
        return (self.output_shape(*inputs),)

    def output_dtypes(self, inputs: tuple[DType, ...], results: int) -> tuple[DType, ...]:
        """Dtypes of so many results. Raises GraphError where what it takes differs in its dtype."""
        if len(set(inputs)) != 1:
            raise GraphError(f"{self.kind} takes tensors of one dtype, got {', '.join(inputs) or 'none'}")
        return inputs[:1] * results

    def macs_per_value(self, *inputs: Shape) -> int:
        """Multiply-accumulates for one value of the results."""
        return 0

    def macs(self, *inputs: Shape) -> int:
        """Multiply-accumulates."""
        per_value = self.macs_per_value(*inputs)
        return per_value and per_value * sum(map(math.prod, self.output_shapes(*inputs)))

    def parameters(self, *inputs: Shape) -> int:
        """Trainable values, as the papers count them: BatchNorm adds scale and shift per channel."""
        return 0

    def stored_shapes(self, *inputs: Shape) -> Mapping[str, Shape]:
        """The arrays that the deployed op reads besides its inputs, by name: weights with BatchNorm folded in, bias,
        tables. What writes a file or fills it with random weights goes by them."""
        return {}

    @property
    def stored_dtype(self) -> DType:
        """The dtype of the stored arrays in a float32 model."""
        return DType.FLOAT32

    def stored_values(self, *inputs: Shape) -> int:
        """Number of values in the stored arrays."""
        shapes = self.stored_shapes(*inputs)
        return sum(map(math.prod, shapes.values())) if shapes else 0

    def stored_bytes(self, itemsize: int, *inputs: Shape) -> int:
        """Bytes of the stored arrays, where a float32 takes `itemsize`."""
        return bytes_of(self.stored_dtype, itemsize) * self.stored_values(*inputs)

    def result_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        """output_shapes, and a GraphError too where a result or the weights are larger than any runtime takes."""
        shapes = self.output_shapes(*inputs) if self.has_several else (self.output_shape(*inputs),)
        for shape in shapes:
            values = math.prod(shape)
            if values > LARGEST and (values > MOST_VALUES or max(shape) > LARGEST):
                raise GraphError(
                    f"{self.kind} gives {shape}, more than {MOST_VALUES} values or {LARGEST} along an axis"
                )
        if self.has_weights and (stored := self.stored_values(*inputs)) > MOST_STORED:
            raise GraphError(f"{self.kind} has {stored} weights, more than {MOST_STORED}")
        return shapes

    def to_json(self) -> dict[str, Any]:
        """Kind and fields; fields that came later are left out at their defaults, so that keys of old graphs stay."""
        # No op has a dataclass in a field: dataclasses.asdict would copy each value, which took most of a graph's key.
        data = {"op": self.kind, **{name: getattr(self, name) for name in _names(type(self))}}
        for name, default in _later_fields(type(self)):
            if data[name] == default:
                del data[name]
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Op:
        """Raises TypeError, ValueError or GraphError for fields or values that the op does not have."""
        fields = {name: frozen(value) for name, value in data.items()}
        for name, kind in _enumerations(cls):
            if name in fields:
                fields[name] = kind(fields[name])
        return cls(**fields)


OPS: dict[str, type[Op]] = {}
"""The table of ops, by kind: what JSON files may name, and what forms and predictors are asked for."""

_AnyOp = TypeVar("_AnyOp", bound=type[Op])


def register(op: _AnyOp) -> _AnyOp:
    """Puts an op into the table. Raises ValueError where another one has its kind."""
    if op.kind in OPS:
        raise ValueError(f"two ops are of the kind {op.kind!r}")
    OPS[op.kind] = op
    op.has_macs = op.macs_per_value is not Op.macs_per_value or op.macs is not Op.macs
    op.has_weights = op.stored_shapes is not Op.stored_shapes or op.stored_values is not Op.stored_values
    op.has_several = op.output_shapes is not Op.output_shapes
    return op


@cache
def _names(op: type[Op]) -> tuple[str, ...]:
    return tuple(f.name for f in dataclasses.fields(op))


@cache
def _later_fields(op: type[Op]) -> tuple[tuple[str, Any], ...]:
    return tuple((f.name, f.default) for f in dataclasses.fields(op) if f.metadata.get("later"))


@cache
def _enumerations(op: type[Op]) -> tuple[tuple[str, type[StrEnum]], ...]:
    hints = get_type_hints(op)
    named = ((f.name, hints[f.name]) for f in dataclasses.fields(op))
    return tuple((name, kind) for name, kind in named if isinstance(kind, type) and issubclass(kind, StrEnum))


def frozen(value: Any, depth: int = _DEEPEST) -> Any:
    """A JSON value with tuples for its lists. Raises ValueError for more lists within lists than any op has."""
    if not isinstance(value, list):
        return value
    if not depth:
        raise ValueError("lists within lists within lists are no setting of an op")
    return tuple([frozen(inner, depth - 1) for inner in value])


def bytes_of(dtype: DType, itemsize: int) -> int:
    """Bytes of one value, where a float32 takes `itemsize` (1 in a network that is quantized as a whole)."""
    return itemsize if dtype == DType.FLOAT32 else BYTES[dtype]


def same_padding(size: int, kernel: int, stride: int) -> Pair:
    """Pixels (before, after) that SAME adds along one axis: TensorFlow's rule, the odd one after."""
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def window_out(size: int, kernel: int, stride: int, padding: Padding, where: str) -> int:
    """Pixels that a window of that size gives along one axis."""
    if padding is Padding.SAME:
        return -(-size // stride)
    if kernel > size:
        raise GraphError(f"{where}: kernel {kernel} is larger than its input of {size} pixels; pad or shrink it")
    return (size - kernel) // stride + 1


def expect_rank(shape: Shape, rank: int, where: str) -> None:
    """Raises GraphError for a shape of another rank."""
    if len(shape) != rank:
        raise GraphError(f"{where} takes a tensor of rank {rank}, got shape {shape}")


def expect_positive(where: str, **values: int | Pair) -> None:
    """Raises GraphError for anything but a positive integer or a pair of them."""
    for field, value in values.items():
        for n in value if isinstance(value, tuple) else (value,):
            if not is_integer(n, 1):
                raise GraphError(f"{where}: {field} must be a positive integer, got {told(value)}{_bound(n)}")
        if isinstance(value, tuple) and len(value) != 2:
            raise GraphError(f"{where}: {field} must be (height, width), got {len(value)} numbers")


def expect_axis(axis: object, where: str) -> None:
    """Raises GraphError for what can be no axis, counted from the end where it is negative."""
    if isinstance(axis, bool) or not isinstance(axis, int) or not -8 <= axis < 8:
        raise GraphError(f"{where}: axis must be an integer from -8 to 7, got {told(axis)}")


def axis_of(shape: Shape, axis: int, where: str) -> int:
    """The axis counted from the front. Raises GraphError where the shape does not have it."""
    if not -len(shape) <= axis < len(shape):
        raise GraphError(f"{where}: there is no axis {axis} in the shape {shape}")
    return axis % len(shape)


def canonical_axis(axis: int, rank: int) -> int:
    """The last axis as -1, any other counted from the front: how readers write axes, so that equal ops are equal."""
    axis %= rank
    return -1 if axis == rank - 1 else axis


def with_canonical_axes(op: Op, rank: int) -> Op:
    """The op with its axis as canonical_axis writes it, and several from the front, in order; `rank` is that of its
    first input."""
    changes: dict[str, Any] = {}
    if isinstance(axis := getattr(op, "axis", None), int):
        changes["axis"] = canonical_axis(axis, rank)
    if isinstance(axes := getattr(op, "axes", None), tuple):
        changes["axes"] = tuple(sorted(one % rank for one in axes))
    return dataclasses.replace(op, **changes) if changes else op


def is_integer(value: object, least: int) -> bool:
    """Whether it is an integer between `least` and LARGEST."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= LARGEST


def _bound(value: object) -> str:
    return f"; sizes end at {LARGEST}" if isinstance(value, int) and value > LARGEST else ""


def told(value: object) -> str:
    """A value in an error's words; Python refuses to spell out integers of thousands of digits."""
    try:
        return f"{value!r:.60}"
    except ValueError:
        return "an enormous number"


def check_shape(shape: object, where: str) -> None:
    """Raises GraphError for anything but one to eight positive integers with a product of at most MOST_VALUES."""
    if not isinstance(shape, tuple) or not 1 <= len(shape) <= 8 or not all(is_integer(n, 1) for n in shape):
        raise GraphError(f"{where} must be one to eight positive integers up to {LARGEST}, got {told(shape)}")
    if math.prod(shape) > MOST_VALUES:
        raise GraphError(f"{where} {shape} holds more than {MOST_VALUES} values")


def expect_bool(where: str, **values: object) -> None:
    """Raises GraphError for anything but true and false."""
    for field, value in values.items():
        if not isinstance(value, bool):
            raise GraphError(f"{where}: {field} must be true or false, got {told(value)}")


def expect_dtype(dtype: object, where: str) -> DType:
    """The dtype of that name. Raises GraphError where there is none."""
    if dtype not in tuple(DType):
        raise GraphError(f"{where} must be one of {', '.join(DType)}, got {told(dtype)}")
    return DType(str(dtype))


def broadcast(a: Shape, b: Shape, where: str) -> Shape:
    """The shape of an element-wise op's result: axes are counted from the end, and one of 1 (or none) is repeated."""
    if a == b:
        return a
    rank = max(len(a), len(b))
    wide_a, wide_b = (1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b
    if any(m != n and 1 not in (m, n) for m, n in zip(wide_a, wide_b, strict=True)):
        raise GraphError(f"{where}: shapes {a} and {b} do not match")
    return tuple(map(max, wide_a, wide_b))
