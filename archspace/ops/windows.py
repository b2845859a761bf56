"""Ops over windows of an image without weights: pools, and the padding around an image."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from netlathe.archspace.errors import GraphError
from netlathe.archspace.ops.base import (
    LATER,
    Op,
    Padding,
    Pair,
    Shape,
    expect_bool,
    expect_positive,
    expect_rank,
    is_integer,
    register,
    told,
    window_out,
)

_NO_BORDERS = ((0, 0), (0, 0))


@register
@dataclass(frozen=True, slots=True)
class Pool2d(Op):
    """Average or maximum over a window. Padding never counts: an average divides by the pixels that exist. With VALID,
    `borders` are pixels (before, after) along height and width that are added so."""

    kind = "pool"
    mode: Literal["avg", "max"]
    kernel: Pair
    stride: Pair = (1, 1)
    padding: Padding = Padding.SAME
    borders: tuple[Pair, Pair] = field(default=_NO_BORDERS, metadata=LATER)

    def __post_init__(self) -> None:
        expect_positive("pool", kernel=self.kernel, stride=self.stride)
        if self.borders != _NO_BORDERS:
            self._check_borders()
        if self.mode not in ("avg", "max"):
            raise GraphError(f"pool: mode must be 'avg' or 'max', got {self.mode!r}")

    def _check_borders(self) -> None:
        _expect_amounts("pool", self.borders)
        if self.padding is not Padding.VALID:
            raise GraphError("pool: only VALID leaves the borders to be given")
        if any(n >= size for pair, size in zip(self.borders, self.kernel, strict=True) for n in pair):
            raise GraphError(f"pool: borders {self.borders} must be smaller than the kernel {self.kernel}")

    def output_shape(self, *inputs: Shape) -> Shape:
        (x,) = inputs
        expect_rank(x, 4, "pool")
        height, width = (
            window_out(
                x[axis + 1] + sum(self.borders[axis]), self.kernel[axis], self.stride[axis], self.padding, "pool"
            )
            for axis in (0, 1)
        )
        return (x[0], height, width, x[3])


@register
@dataclass(frozen=True, slots=True)
class GlobalAvgPool(Op):
    """Mean over height and width: (N, H, W, C) -> (N, 1, 1, C), or (N, C) without kept dimensions."""

    kind = "global_avg_pool"
    keep_dims: bool = False

    def __post_init__(self) -> None:
        expect_bool("global_avg_pool", keep_dims=self.keep_dims)

    def output_shape(self, *inputs: Shape) -> Shape:
        (x,) = inputs
        expect_rank(x, 4, "global_avg_pool")
        return (x[0], 1, 1, x[3]) if self.keep_dims else (x[0], x[3])


@register
@dataclass(frozen=True, slots=True)
class Pad(Op):
    """Zeros around height and width: (before, after) each."""

    kind = "pad"
    height: Pair
    width: Pair

    def __post_init__(self) -> None:
        _expect_amounts("pad", (self.height, self.width))

    def output_shape(self, *inputs: Shape) -> Shape:
        (x,) = inputs
        expect_rank(x, 4, "pad")
        return (x[0], x[1] + sum(self.height), x[2] + sum(self.width), x[3])


def _expect_amounts(where: str, pairs: Any) -> None:
    """Raises GraphError for anything but two pairs of amounts."""
    fits = isinstance(pairs, tuple) and len(pairs) == 2
    if (
        not fits
        or any(not isinstance(pair, tuple) or len(pair) != 2 for pair in pairs)
        or not all(is_integer(amount, 0) for pair in pairs for amount in pair)
    ):
        amounts = told(pairs)
        raise GraphError(f"{where}: amounts (before, after) must not be negative or beyond 2^31, got {amounts}")
