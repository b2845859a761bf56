"""Ops that turn real values into integers with a scale, and back."""

from __future__ import annotations

from dataclasses import dataclass

from netlathe.archspace.ops.base import DType, Op, Shape, expect_dtype, register


@register
@dataclass(frozen=True, slots=True)
class Quantize(Op):
    """Values as integers of a scale and a zero point, from real ones or from those of another scale or dtype."""

    kind = "quantize"
    has_dtype = True
    dtype: DType = DType.INT8

    def __post_init__(self) -> None:
        object.__setattr__(self, "dtype", expect_dtype(self.dtype, "quantize: dtype"))

    def output_shape(self, *inputs: Shape) -> Shape:
        (x,) = inputs
        return x

    def output_dtypes(self, inputs: tuple[DType, ...], results: int) -> tuple[DType, ...]:
        return (self.dtype,) * results


@register
@dataclass(frozen=True, slots=True)
class Dequantize(Op):
    """Real values from quantized integers or from narrower floats."""

    kind = "dequantize"
    has_dtype = True
    dtype: DType = DType.FLOAT32

    def __post_init__(self) -> None:
        object.__setattr__(self, "dtype", expect_dtype(self.dtype, "dequantize: dtype"))

    def output_shape(self, *inputs: Shape) -> Shape:
        (x,) = inputs
        return x

    def output_dtypes(self, inputs: tuple[DType, ...], results: int) -> tuple[DType, ...]:
        return (self.dtype,) * results
