"""Ops that reduce or normalise over axes: reductions, and normalisations that are no convolution's own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from netlathe.archspace.errors import GraphError
from netlathe.archspace.ops.base import (
    Op,
    Shape,
    axis_of,
    expect_axis,
    expect_bool,
    expect_positive,
    expect_rank,
    register,
    told,
)


class ReduceKind(StrEnum):
    """Function of the values along the reduced axes."""

    MEAN = "mean"
    SUM = "sum"
    MAX = "max"
    MIN = "min"
    PROD = "prod"
    L1 = "l1"
    L2 = "l2"


@register
@dataclass(frozen=True, slots=True)
class Reduce(Op):
    """Reduces a tensor over some of its axes. The mean over an image's height and width is GlobalAvgPool."""

    kind = "reduce"
    function: ReduceKind
    axes: tuple[int, ...]
    keep_dims: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.axes, tuple) or not self.axes:
            raise GraphError(f"reduce: axes must be a list of at least one, got {told(self.axes)}")
        for axis in self.axes:
            expect_axis(axis, "reduce")
        expect_bool("reduce", keep_dims=self.keep_dims)

    def output_shape(self, *inputs: Shape) -> Shape:
        (x,) = inputs
        axes = {axis_of(x, axis, "reduce") for axis in self.axes}
        if len(axes) < len(self.axes):
            raise GraphError(f"reduce: axes {self.axes} name one of {x} twice")
        if self.keep_dims:
            return tuple([1 if axis in axes else size for axis, size in enumerate(x)])
        return tuple([size for axis, size in enumerate(x) if axis not in axes]) or (1,)


@register
@dataclass(frozen=True, slots=True)
class BatchNorm(Op):
    """A scale and an offset per channel, behind what is no convolution that takes them in. Folded when deployed."""

    kind = "batch_norm"

    def output_shape(self, *inputs: Shape) -> Shape:
        (x,) = inputs
        return x

    def parameters(self, *inputs: Shape) -> int:
        return 2 * inputs[0][-1]

    def stored_shapes(self, *inputs: Shape) -> Mapping[str, Shape]:
        return {"scale": inputs[0][-1:], "bias": inputs[0][-1:]}


@register
@dataclass(frozen=True, slots=True)
class LayerNorm(Op):
    """Normalises over the last `axes` axes, then scales and moves each place along them where `affine`."""

    kind = "layer_norm"
    axes: int = 1
    affine: bool = True
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        expect_positive("layer_norm", axes=self.axes)
        expect_bool("layer_norm", affine=self.affine)
        _expect_epsilon("layer_norm", self.epsilon)

    def output_shape(self, *inputs: Shape) -> Shape:
        (x,) = inputs
        axis_of(x, -self.axes, "layer_norm")
        return x

    def parameters(self, *inputs: Shape) -> int:
        return 2 * math.prod(inputs[0][-self.axes :]) if self.affine else 0

    def stored_shapes(self, *inputs: Shape) -> Mapping[str, Shape]:
        shape = inputs[0][-self.axes :]
        return {"scale": shape, "bias": shape} if self.affine else {}


@register
@dataclass(frozen=True, slots=True)
class GroupNorm(Op):
    """Normalises each of `groups` groups of channels over all pixels, then scales and moves each channel. InstanceNorm
    has as many groups as channels."""

    kind = "group_norm"
    groups: int
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        expect_positive("group_norm", groups=self.groups)
        _expect_epsilon("group_norm", self.epsilon)

    def output_shape(self, *inputs: Shape) -> Shape:
        (x,) = inputs
        if len(x) < 3 or x[-1] % self.groups:
            raise GraphError(f"group_norm: {self.groups} groups do not divide the channels of {x}")
        return x

    def parameters(self, *inputs: Shape) -> int:
        return 2 * inputs[0][-1]

    def stored_shapes(self, *inputs: Shape) -> Mapping[str, Shape]:
        return {"scale": inputs[0][-1:], "bias": inputs[0][-1:]}


@register
@dataclass(frozen=True, slots=True)
class LocalResponseNorm(Op):
    """Divides by (bias + alpha / size * the sum of squares over `size` neighbouring channels) to the power of beta."""

    kind = "local_response_norm"
    size: int
    alpha: float = 1e-4
    beta: float = 0.75
    bias: float = 1.0

    def __post_init__(self) -> None:
        expect_positive("local_response_norm", size=self.size)
        for value in (self.alpha, self.beta, self.bias):
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise GraphError(f"local_response_norm: alpha, beta and bias must be numbers, got {told(value)}")

    def output_shape(self, *inputs: Shape) -> Shape:
        (x,) = inputs
        expect_rank(x, 4, "local_response_norm")
        return x


def _expect_epsilon(where: str, epsilon: object) -> None:
    if isinstance(epsilon, bool) or not isinstance(epsilon, int | float) or not 0 <= epsilon < math.inf:
        raise GraphError(f"{where}: epsilon must be 0 or more, got {told(epsilon)}")
