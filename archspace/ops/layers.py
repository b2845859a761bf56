"""Ops with weights that multiply and accumulate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from netlathe.archspace.errors import GraphError
from netlathe.archspace.ops.base import (
    LATER,
    DType,
    Op,
    Padding,
    Pair,
    Shape,
    broadcast,
    expect_bool,
    expect_dtype,
    expect_positive,
    expect_rank,
    register,
    window_out,
)


@register
@dataclass(frozen=True, slots=True)
class Conv2d(Op):
    """2-D convolution, weights (out, in / groups, kh, kw). Followed by BatchNorm when trained (folded when
    deployed), else it carries a bias. `dilation` spreads the kernel's taps; `weights` is the dtype that the kernel is
    stored in. `gives_sums` of integers: the products' sums in int32, rather than integers of its input's dtype."""

    kind = "conv"
    out_channels: int
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    groups: int = 1
    padding: Padding = Padding.SAME
    batch_norm: bool = True
    dilation: Pair = field(default=(1, 1), metadata=LATER)
    weights: DType = field(default=DType.FLOAT32, metadata=LATER)
    gives_sums: bool = field(default=False, metadata=LATER)

    def __post_init__(self) -> None:
        expect_positive(
            "conv", out_channels=self.out_channels, kernel=self.kernel, stride=self.stride, groups=self.groups
        )
        expect_bool("conv", batch_norm=self.batch_norm)
        if self.dilation != (1, 1):
            expect_positive("conv", dilation=self.dilation)
        if self.weights != DType.FLOAT32:
            object.__setattr__(self, "weights", expect_dtype(self.weights, "conv: weights"))
        expect_bool("conv", gives_sums=self.gives_sums)

    def output_dtypes(self, inputs: tuple[DType, ...], results: int) -> tuple[DType, ...]:
        return (DType.INT32,) if self.gives_sums else inputs

    @property
    def span(self) -> Pair:
        """Height and width of the window that the dilated kernel looks at."""
        if self.dilation == (1, 1):
            return self.kernel
        down, across = ((kernel - 1) * by + 1 for kernel, by in zip(self.kernel, self.dilation, strict=True))
        return down, across

    def is_depthwise(self, x: Shape) -> bool:
        return self.groups > 1 and self.groups == x[3]

    def weight_shape(self, x: Shape) -> Shape:
        """(out, in / groups, kh, kw)."""
        return (self.out_channels, x[3] // self.groups, *self.kernel)

    def output_shape(self, *inputs: Shape) -> Shape:
        (x,) = inputs
        expect_rank(x, 4, "conv")
        if x[3] % self.groups or self.out_channels % self.groups:
            raise GraphError(f"conv: {self.groups} groups divide neither {x[3]} -> {self.out_channels} channels evenly")
        (down, across), (by, along) = self.span, self.stride
        height = window_out(x[1], down, by, self.padding, "conv")
        width = window_out(x[2], across, along, self.padding, "conv")
        return (x[0], height, width, self.out_channels)

    def macs_per_value(self, *inputs: Shape) -> int:
        return math.prod(self.weight_shape(inputs[0])[1:])

    def parameters(self, *inputs: Shape) -> int:
        return math.prod(self.weight_shape(inputs[0])) + self.out_channels * (2 if self.batch_norm else 1)

    def stored_shapes(self, *inputs: Shape) -> Mapping[str, Shape]:
        return {"kernel": self.weight_shape(inputs[0]), "bias": (self.out_channels,)}

    def stored_values(self, *inputs: Shape) -> int:  # without the dictionary: asked for each convolution of a graph
        return math.prod(self.weight_shape(inputs[0])) + self.out_channels

    @property
    def stored_dtype(self) -> DType:
        return self.weights


@register
@dataclass(frozen=True, slots=True)
class FullyConnected(Op):
    """(N, ..., in) -> (N, ..., out), weights (out, in) and a bias. `weights` is the dtype that the weights are stored
    in; `gives_sums` of integers: the products' sums in int32, rather than integers of its input's dtype."""

    kind = "fully_connected"
    out_features: int
    weights: DType = field(default=DType.FLOAT32, metadata=LATER)
    gives_sums: bool = field(default=False, metadata=LATER)

    def __post_init__(self) -> None:
        expect_positive("fully_connected", out_features=self.out_features)
        if self.weights != DType.FLOAT32:
            object.__setattr__(self, "weights", expect_dtype(self.weights, "fully_connected: weights"))
        expect_bool("fully_connected", gives_sums=self.gives_sums)

    def output_dtypes(self, inputs: tuple[DType, ...], results: int) -> tuple[DType, ...]:
        return (DType.INT32,) if self.gives_sums else inputs

    def output_shape(self, *inputs: Shape) -> Shape:
        (x,) = inputs
        if len(x) < 2:
            raise GraphError(f"fully_connected takes a batch of features, got shape {x}")
        return (*x[:-1], self.out_features)

    def macs_per_value(self, *inputs: Shape) -> int:
        return inputs[0][-1]

    def parameters(self, *inputs: Shape) -> int:
        return (inputs[0][-1] + 1) * self.out_features

    def stored_shapes(self, *inputs: Shape) -> Mapping[str, Shape]:
        return {"kernel": (self.out_features, inputs[0][-1]), "bias": (self.out_features,)}

    @property
    def stored_dtype(self) -> DType:
        return self.weights


@register
@dataclass(frozen=True, slots=True)
class MatMul(Op):
    """Matrix product over the last two axes of two tensors, (..., m, k) and (..., k, n); the axes before broadcast.
    `transpose_a` and `transpose_b` take an operand with its last axes swapped; `gives_sums` of integers: in int32."""

    kind = "matmul"
    arity = 2
    transpose_a: bool = False
    transpose_b: bool = False
    gives_sums: bool = field(default=False, metadata=LATER)

    def __post_init__(self) -> None:
        expect_bool("matmul", transpose_a=self.transpose_a, transpose_b=self.transpose_b, gives_sums=self.gives_sums)

    def output_dtypes(self, inputs: tuple[DType, ...], results: int) -> tuple[DType, ...]:
        return (DType.INT32,) if self.gives_sums else inputs[:1]

    def output_shape(self, *inputs: Shape) -> Shape:
        a, b = inputs
        if min(len(a), len(b)) < 2:
            raise GraphError(f"matmul multiplies matrices, got shapes {a} and {b}")
        rows, inner = a[:-3:-1] if self.transpose_a else a[-2:]
        of_b, columns = b[:-3:-1] if self.transpose_b else b[-2:]
        if inner != of_b:
            raise GraphError(f"matmul: shapes {a} and {b} do not match: {inner} columns meet {of_b} rows")
        batch = broadcast(a[:-2], b[:-2], "matmul")
        return (*batch, rows, columns)

    def macs_per_value(self, *inputs: Shape) -> int:
        return inputs[0][-2 if self.transpose_a else -1]
