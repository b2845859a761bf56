"""Ops that only arrange values, or bring stored ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from netlathe.archspace.errors import GraphError
from netlathe.archspace.ops.base import (
    LATER,
    DType,
    Op,
    Shape,
    axis_of,
    check_shape,
    expect_axis,
    expect_bool,
    is_integer,
    register,
    told,
)


@register
@dataclass(frozen=True, slots=True)
class Concat(Op):
    """Joins any number of tensors along the channels."""

    kind = "concat"
    arity = None

    def output_shape(self, *inputs: Shape) -> Shape:
        if not inputs:
            raise GraphError("concat joins one tensor or more, got none")
        first = inputs[0]
        for other in inputs[1:]:
            if other[:-1] != first[:-1]:
                raise GraphError(f"concat: shapes {first} and {other} differ in more than their channels")
        return (*first[:-1], sum([shape[-1] for shape in inputs]))


@register
@dataclass(frozen=True, slots=True)
class Split(Op):
    """Cuts a tensor along an axis into parts of the given sizes, each a result of its own."""

    kind = "split"
    sizes: tuple[int, ...]
    axis: int = -1

    def __post_init__(self) -> None:
        if not isinstance(self.sizes, tuple) or not self.sizes or not all(is_integer(size, 1) for size in self.sizes):
            raise GraphError(f"split: sizes must be positive integers, got {told(self.sizes)}")
        expect_axis(self.axis, "split")

    def output_shape(self, *inputs: Shape) -> Shape:
        return self.output_shapes(*inputs)[0]

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        (x,) = inputs
        axis = axis_of(x, self.axis, "split")
        if sum(self.sizes) != x[axis]:
            raise GraphError(f"split: {told(self.sizes)} do not add up to {x[axis]}, the size along axis {axis} of {x}")
        return tuple([(*x[:axis], size, *x[axis + 1 :]) for size in self.sizes])


@register
@dataclass(frozen=True, slots=True)
class Reshape(Op):
    """To `shape`, which excludes the batch, or is all of the result's where `whole`."""

    kind = "reshape"
    shape: Shape
    whole: bool = field(default=False, metadata=LATER)

    def __post_init__(self) -> None:
        check_shape(self.shape, "reshape: its shape")
        expect_bool("reshape", whole=self.whole)

    def output_shape(self, *inputs: Shape) -> Shape:
        (x,) = inputs
        if self.whole:
            if math.prod(x) != math.prod(self.shape):
                raise GraphError(f"reshape: {x} does not hold as many values as {self.shape}")
            return self.shape
        if math.prod(x[1:]) != math.prod(self.shape):
            raise GraphError(f"reshape: {x[1:]} does not hold as many values as {self.shape}")
        return (x[0], *self.shape)


@register
@dataclass(frozen=True, slots=True)
class Zeros(Op):
    """Zeros of `shape` (batch excluded), whatever the input: the `none` choice of some search spaces."""

    kind = "zeros"
    shape: Shape

    def __post_init__(self) -> None:
        check_shape(self.shape, "zeros: its shape")

    def output_shape(self, *inputs: Shape) -> Shape:
        return (inputs[0][0], *self.shape)


@register
@dataclass(frozen=True, slots=True)
class Constant(Op):
    """Values that the model stores: the other operand of a normalisation or a bias, anchors of boxes, a table. `shape`
    is all of it; what it is combined with broadcasts it. The values are weights, under the node's name."""

    kind = "constant"
    arity = 0
    has_dtype = True
    shape: Shape
    dtype: DType = field(default=DType.FLOAT32, metadata=LATER)

    def __post_init__(self) -> None:
        check_shape(self.shape, "constant: its shape")
        if self.dtype not in tuple(DType):
            raise GraphError(f"constant: dtype must be one of {', '.join(DType)}, got {told(self.dtype)}")
        object.__setattr__(self, "dtype", DType(self.dtype))

    def output_shape(self, *inputs: Shape) -> Shape:
        return self.shape

    def output_dtypes(self, inputs: tuple[DType, ...], results: int) -> tuple[DType, ...]:
        return (self.dtype,)

    def stored_shapes(self, *inputs: Shape) -> Mapping[str, Shape]:
        return {"values": self.shape}

    @property
    def stored_dtype(self) -> DType:
        return self.dtype
