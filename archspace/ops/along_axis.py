"""Ops whose result depends on all values along one axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from netlathe.archspace.errors import GraphError
from netlathe.archspace.ops.base import (
    DType,
    Op,
    Shape,
    axis_of,
    expect_axis,
    expect_bool,
    expect_dtype,
    register,
    told,
)


@register
@dataclass(frozen=True, slots=True)
class ArgMax(Op):
    """The index of the largest (or least) value along an axis, as an integer."""

    kind = "arg_max"
    has_dtype = True
    axis: int = -1
    keep_dims: bool = False
    mode: Literal["max", "min"] = "max"
    dtype: DType = DType.INT64

    def __post_init__(self) -> None:
        expect_axis(self.axis, "arg_max")
        expect_bool("arg_max", keep_dims=self.keep_dims)
        if self.mode not in ("max", "min"):
            raise GraphError(f"arg_max: mode must be 'max' or 'min', got {told(self.mode)}")
        object.__setattr__(self, "dtype", expect_dtype(self.dtype, "arg_max: dtype"))

    def output_shape(self, *inputs: Shape) -> Shape:
        (x,) = inputs
        axis = axis_of(x, self.axis, "arg_max")
        return (*x[:axis], *((1,) if self.keep_dims or len(x) == 1 else ()), *x[axis + 1 :])

    def output_dtypes(self, inputs: tuple[DType, ...], results: int) -> tuple[DType, ...]:
        return (self.dtype,) * results


@register
@dataclass(frozen=True, slots=True)
class L2Norm(Op):
    """Values over the root of the sum of their squares along an axis."""

    kind = "l2_norm"
    axis: int = -1

    def __post_init__(self) -> None:
        expect_axis(self.axis, "l2_norm")

    def output_shape(self, *inputs: Shape) -> Shape:
        (x,) = inputs
        axis_of(x, self.axis, "l2_norm")
        return x
