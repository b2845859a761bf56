"""Ops that compute each value of the result from values at the same place."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from netlathe.archspace.ops.base import Op, Shape, broadcast, register


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
    """Element-wise non-linearity; runtimes fuse relu and relu6 into the op before."""

    kind = "activation"
    function: ActivationKind

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
class Softmax(Op):
    """Softmax over the last axis."""

    kind = "softmax"

    def output_shape(self, *inputs: Shape) -> Shape:
        (x,) = inputs
        return x
