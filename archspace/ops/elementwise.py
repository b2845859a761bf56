"""Ops that compute each value of the result from values at the same place."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum

from netlathe.archspace.errors import GraphError
from netlathe.archspace.ops.base import (
    LATER,
    DType,
    Op,
    Shape,
    axis_of,
    broadcast,
    expect_axis,
    expect_bool,
    register,
    told,
)

HARD_SLOPE = 1 / 6
"""Slope of the hard sigmoid in MobileNetV3; other exporters write 0.2."""


class ActivationKind(StrEnum):
    """Element-wise non-linearities, by the names used in the MobileNet papers."""

    RELU = "relu"
    RELU6 = "relu6"
    HARD_SWISH = "hard_swish"
    HARD_SIGMOID = "hard_sigmoid"
    SIGMOID = "sigmoid"
    SWISH = "swish"


@register
@dataclass(frozen=True, slots=True)
class Activation(Op):
    """Element-wise non-linearity; runtimes fuse relu and relu6 into the op before. `slope` is that of a hard sigmoid,
    clip(slope * x + 0.5, 0, 1)."""

    kind = "activation"
    function: ActivationKind
    slope: float = field(default=HARD_SLOPE, metadata=LATER)

    def __post_init__(self) -> None:
        if self.slope == HARD_SLOPE:
            return
        if isinstance(self.slope, bool) or not isinstance(self.slope, int | float) or not 0 < self.slope < math.inf:
            raise GraphError(f"activation: slope must be a positive number, got {told(self.slope)}")
        if self.function is not ActivationKind.HARD_SIGMOID:
            raise GraphError(f"activation: a {self.function} has no slope of its own")

    def output_shape(self, *inputs: Shape) -> Shape:
        (x,) = inputs
        return x


@register
@dataclass(frozen=True, slots=True)
class Add(Op):
    """Element-wise sum; a dimension of 1 is repeated. A bias or an offset is a sum with a Constant."""

    kind = "add"
    arity = 2

    def output_shape(self, *inputs: Shape) -> Shape:
        return broadcast(inputs[0], inputs[1], "add")


@register
@dataclass(frozen=True, slots=True)
class Mul(Op):
    """Element-wise product; a dimension of 1 is repeated (squeeze-excite scales channels so). A scale is a product with
    a Constant."""

    kind = "mul"
    arity = 2

    def output_shape(self, *inputs: Shape) -> Shape:
        return broadcast(inputs[0], inputs[1], "mul")


@register
@dataclass(frozen=True, slots=True)
class Sub(Op):
    """Element-wise difference; a dimension of 1 is repeated."""

    kind = "sub"
    arity = 2

    def output_shape(self, *inputs: Shape) -> Shape:
        return broadcast(inputs[0], inputs[1], "sub")


@register
@dataclass(frozen=True, slots=True)
class Div(Op):
    """Element-wise quotient; a dimension of 1 is repeated."""

    kind = "div"
    arity = 2

    def output_shape(self, *inputs: Shape) -> Shape:
        return broadcast(inputs[0], inputs[1], "div")


@register
@dataclass(frozen=True, slots=True)
class Minimum(Op):
    """The smaller of two values at each place; a dimension of 1 is repeated."""

    kind = "minimum"
    arity = 2

    def output_shape(self, *inputs: Shape) -> Shape:
        return broadcast(inputs[0], inputs[1], "minimum")


@register
@dataclass(frozen=True, slots=True)
class Maximum(Op):
    """The larger of two values at each place; a dimension of 1 is repeated."""

    kind = "maximum"
    arity = 2

    def output_shape(self, *inputs: Shape) -> Shape:
        return broadcast(inputs[0], inputs[1], "maximum")


@register
@dataclass(frozen=True, slots=True)
class Pow(Op):
    """The first value to the power of the second at each place; a dimension of 1 is repeated."""

    kind = "pow"
    arity = 2

    def output_shape(self, *inputs: Shape) -> Shape:
        return broadcast(inputs[0], inputs[1], "pow")


class UnaryKind(StrEnum):
    """Element-wise functions of one value, by the names that frameworks give them."""

    ABS = "abs"
    CEIL = "ceil"
    COS = "cos"
    ERF = "erf"
    EXP = "exp"
    FLOOR = "floor"
    LOG = "log"
    NEG = "neg"
    RECIPROCAL = "reciprocal"
    ROUND = "round"
    RSQRT = "rsqrt"
    SIGN = "sign"
    SIN = "sin"
    SOFTPLUS = "softplus"
    SQRT = "sqrt"
    SQUARE = "square"
    TANH = "tanh"


@register
@dataclass(frozen=True, slots=True)
class Unary(Op):
    """An element-wise function without settings that is no activation of the MobileNet papers."""

    kind = "unary"
    function: UnaryKind

    def output_shape(self, *inputs: Shape) -> Shape:
        (x,) = inputs
        return x


@register
@dataclass(frozen=True, slots=True)
class Gelu(Op):
    """Gaussian error linear unit, x times the normal distribution up to x; `approximate` computes that by tanh."""

    kind = "gelu"
    approximate: bool = False

    def __post_init__(self) -> None:
        expect_bool("gelu", approximate=self.approximate)

    def output_shape(self, *inputs: Shape) -> Shape:
        (x,) = inputs
        return x


@register
@dataclass(frozen=True, slots=True)
class Clip(Op):
    """Limits values to `low` and `high`; None is no limit. relu and relu6 are activations."""

    kind = "clip"
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        for bound in (self.low, self.high):
            if bound is not None and (isinstance(bound, bool) or not isinstance(bound, int | float)):
                raise GraphError(f"clip: limits must be numbers or null, got {told(bound)}")
            if bound is not None and not math.isfinite(bound):
                raise GraphError(f"clip: limits must be finite, got {told(bound)}")
        if self.low is None and self.high is None:
            raise GraphError("clip: at least one of its limits must be a number")

    def output_shape(self, *inputs: Shape) -> Shape:
        (x,) = inputs
        return x


@register
@dataclass(frozen=True, slots=True)
class Cast(Op):
    """The same values in another dtype."""

    kind = "cast"
    has_dtype = True
    dtype: DType

    def __post_init__(self) -> None:
        if self.dtype not in tuple(DType):
            raise GraphError(f"cast: dtype must be one of {', '.join(DType)}, got {told(self.dtype)}")
        object.__setattr__(self, "dtype", DType(self.dtype))

    def output_shape(self, *inputs: Shape) -> Shape:
        (x,) = inputs
        return x

    def output_dtypes(self, inputs: tuple[DType, ...], results: int) -> tuple[DType, ...]:
        return (self.dtype,)


@register
@dataclass(frozen=True, slots=True)
class Softmax(Op):
    """Softmax over an axis, by default the last one."""

    kind = "softmax"
    axis: int = field(default=-1, metadata=LATER)

    def __post_init__(self) -> None:
        expect_axis(self.axis, "softmax")

    def output_shape(self, *inputs: Shape) -> Shape:
        (x,) = inputs
        axis_of(x, self.axis, "softmax")
        return x
