"""Ops that change the size of an image or of any tensor: resampling, transposed convolution, padding."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from netlathe.archspace.errors import GraphError
from netlathe.archspace.ops.base import (
    LATER,
    DType,
    Op,
    Pair,
    Shape,
    expect_bool,
    expect_dtype,
    expect_positive,
    expect_rank,
    is_integer,
    register,
    told,
)


class Interpolation(StrEnum):
    """How an image of another size is sampled."""

    NEAREST = "nearest"
    BILINEAR = "bilinear"


@register
@dataclass(frozen=True, slots=True)
class Resize(Op):
    """An image resampled to `size` (height, width).

    `half_pixel` places the centres of pixels over one another, `align_corners` those of the four corners; with neither,
    the upper left corners of pixels. Nearest takes the pixel that the place lies in, or with `align_corners` the one
    whose place is nearest.
    """

    kind = "resize"
    size: Pair
    mode: Interpolation = Interpolation.BILINEAR
    align_corners: bool = False
    half_pixel: bool = False

    def __post_init__(self) -> None:
        expect_positive("resize", size=self.size)
        expect_bool("resize", align_corners=self.align_corners, half_pixel=self.half_pixel)
        if self.mode not in tuple(Interpolation):
            raise GraphError(f"resize: mode must be one of {', '.join(Interpolation)}, got {told(self.mode)}")
        if self.align_corners and self.half_pixel:
            raise GraphError("resize: align_corners and half_pixel exclude each other")
        object.__setattr__(self, "mode", Interpolation(self.mode))

    def output_shape(self, *inputs: Shape) -> Shape:
        (x,) = inputs
        expect_rank(x, 4, "resize")
        return (x[0], *self.size, x[3])


@register
@dataclass(frozen=True, slots=True)
class TransposeConv2d(Op):
    """Transposed 2-D convolution with a bias: each pixel adds its multiple of the kernel to the result, `stride` pixels
    on. Weights (out, in / groups, kh, kw).

    `height` and `width` are the pixels that are cut off the full result, before and after; a negative number after adds
    some that hold the bias alone.
    """

    kind = "transpose_conv"
    out_channels: int
    kernel: Pair
    stride: Pair = (1, 1)
    groups: int = 1
    height: Pair = (0, 0)
    width: Pair = (0, 0)
    weights: DType = field(default=DType.FLOAT32, metadata=LATER)

    def __post_init__(self) -> None:
        expect_positive(
            "transpose_conv",
            out_channels=self.out_channels, kernel=self.kernel, stride=self.stride, groups=self.groups,
        )  # fmt: skip
        pairs = (self.height, self.width)
        if any(not isinstance(pair, tuple) or len(pair) != 2 for pair in pairs) or not all(
            is_integer(before, 0) and is_integer(-after if isinstance(after, int) and after < 0 else after, 0)
            for before, after in pairs
        ):
            raise GraphError(
                f"transpose_conv: what is cut off must be (before, after) along each axis, got {told(pairs)}"
            )
        object.__setattr__(self, "weights", expect_dtype(self.weights, "transpose_conv: weights"))

    def weight_shape(self, x: Shape) -> Shape:
        """(out, in / groups, kh, kw)."""
        return (self.out_channels, x[3] // self.groups, *self.kernel)

    def output_shape(self, *inputs: Shape) -> Shape:
        (x,) = inputs
        expect_rank(x, 4, "transpose_conv")
        if x[3] % self.groups or self.out_channels % self.groups:
            raise GraphError(
                f"transpose_conv: {self.groups} groups do not divide {x[3]} -> {self.out_channels} channels"
            )
        size = [
            (pixels - 1) * stride + kernel - sum(cut)
            for pixels, stride, kernel, cut in zip(
                x[1:3], self.stride, self.kernel, (self.height, self.width), strict=True
            )
        ]
        if min(size) < 1:
            raise GraphError(f"transpose_conv: nothing is left of {x} when {self.height}, {self.width} are cut off")
        return (x[0], *size, self.out_channels)

    def macs_per_value(self, *inputs: Shape) -> int:
        """MACs of a value that all of its kernel's places reach; those at a border, and what is cut off, make the
        difference to `macs`."""
        (down, across), (by, along) = self.kernel, self.stride
        return inputs[0][3] // self.groups * -(-down // by) * -(-across // along)

    def macs(self, *inputs: Shape) -> int:
        """Each value that goes in meets the kernel of each channel of its group."""
        return math.prod(inputs[0]) * math.prod(self.kernel) * (self.out_channels // self.groups)

    def parameters(self, *inputs: Shape) -> int:
        return math.prod(self.weight_shape(inputs[0])) + self.out_channels

    def stored_shapes(self, *inputs: Shape) -> Mapping[str, Shape]:
        return {"kernel": self.weight_shape(inputs[0]), "bias": (self.out_channels,)}

    @property
    def stored_dtype(self) -> DType:
        return self.weights


class PadMode(StrEnum):
    """Content of the border: one value, the values mirrored at the edge without it (reflect) or with it
    (symmetric), or those at the edge."""

    CONSTANT = "constant"
    REFLECT = "reflect"
    SYMMETRIC = "symmetric"
    EDGE = "edge"


@register
@dataclass(frozen=True, slots=True)
class PadAxes(Op):
    """A border along any axes, (before, after) for each of them, the batch included. Zeros around an image alone are a
    Pad, which convolutions take in."""

    kind = "pad_axes"
    amounts: tuple[Pair, ...]
    mode: PadMode = PadMode.CONSTANT
    value: float = 0.0

    def __post_init__(self) -> None:
        amounts = self.amounts
        if not isinstance(amounts, tuple) or not all(
            isinstance(pair, tuple) and len(pair) == 2 and all(is_integer(n, 0) for n in pair) for pair in amounts
        ):
            raise GraphError(f"pad_axes: amounts must be (before, after) of each axis, got {told(amounts)}")
        if self.mode not in tuple(PadMode):
            raise GraphError(f"pad_axes: mode must be one of {', '.join(PadMode)}, got {told(self.mode)}")
        if isinstance(self.value, bool) or not isinstance(self.value, int | float):
            raise GraphError(f"pad_axes: value must be a number, got {told(self.value)}")
        object.__setattr__(self, "mode", PadMode(self.mode))

    def output_shape(self, *inputs: Shape) -> Shape:
        (x,) = inputs
        expect_rank(x, len(self.amounts), "pad_axes")
        least = {PadMode.REFLECT: 1, PadMode.SYMMETRIC: 0}.get(self.mode)
        if least is not None and any(max(pair) > size - least for pair, size in zip(self.amounts, x, strict=True)):
            raise GraphError(f"pad_axes: {self.amounts} is more than there is to mirror in {x}")
        return tuple(size + sum(pair) for size, pair in zip(x, self.amounts, strict=True))
