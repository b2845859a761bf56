"""Element-wise non-linearities with settings or weights of their own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from netlathe.archspace.errors import GraphError
from netlathe.archspace.ops.base import LATER, DType, Op, Shape, broadcast, check_shape, expect_dtype, register, told


def _expect_number(where: str, **values: object) -> None:
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise GraphError(f"{where}: {name} must be a finite number, got {told(value)}")


@register
@dataclass(frozen=True, slots=True)
class PReLU(Op):
    """Values, and where they are negative their products with stored slopes, of a shape that the input's broadcasts."""

    kind = "prelu"
    slopes: Shape
    weights: DType = field(default=DType.FLOAT32, metadata=LATER)

    def __post_init__(self) -> None:
        check_shape(self.slopes, "prelu: the shape of its slopes")
        object.__setattr__(self, "weights", expect_dtype(self.weights, "prelu: weights"))

    def output_shape(self, *inputs: Shape) -> Shape:
        (x,) = inputs
        if broadcast(x, self.slopes, "prelu") != x:
            raise GraphError(f"prelu: slopes of shape {self.slopes} do not fit values of shape {x}")
        return x

    def parameters(self, *inputs: Shape) -> int:
        return math.prod(self.slopes)

    def stored_shapes(self, *inputs: Shape) -> Mapping[str, Shape]:
        return {"slopes": self.slopes}

    @property
    def stored_dtype(self) -> DType:
        return self.weights


@register
@dataclass(frozen=True, slots=True)
class LeakyReLU(Op):
    """Values, and where they are negative their products with `slope`."""

    kind = "leaky_relu"
    slope: float = 0.01

    def __post_init__(self) -> None:
        _expect_number("leaky_relu", slope=self.slope)

    def output_shape(self, *inputs: Shape) -> Shape:
        (x,) = inputs
        return x


@register
@dataclass(frozen=True, slots=True)
class ELU(Op):
    """Values, and where they are negative exp(x) - 1 times `alpha`."""

    kind = "elu"
    alpha: float = 1.0

    def __post_init__(self) -> None:
        _expect_number("elu", alpha=self.alpha)

    def output_shape(self, *inputs: Shape) -> Shape:
        (x,) = inputs
        return x
