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
    expect_positive,
    expect_rank,
    is_integer,
    register,
    told,
)


@register
@dataclass(frozen=True, slots=True)
class Concat(Op):
    """Joins any number of tensors along an axis, by default the channels."""

    kind = "concat"
    arity = None
    axis: int = field(default=-1, metadata=LATER)

    def __post_init__(self) -> None:
        expect_axis(self.axis, "concat")

    def output_shape(self, *inputs: Shape) -> Shape:
        if not inputs:
            raise GraphError("concat joins one tensor or more, got none")
        first = inputs[0]
        axis = axis_of(first, self.axis, "concat")
        before, behind = first[:axis], first[axis + 1 :]
        for other in inputs[1:]:
            if other[:axis] != before or other[axis + 1 :] != behind or len(other) != len(first):
                raise GraphError(f"concat: shapes {first} and {other} differ in more than axis {axis}, the joined one")
        return (*before, sum([shape[axis] for shape in inputs]), *behind)


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
class Slice(Op):
    """Cuts a part out of a tensor: along each axis `sizes` values from `begins` on, each `steps` behind the one before
    (by default 1; negative ones go backwards)."""

    kind = "slice"
    begins: tuple[int, ...]
    sizes: tuple[int, ...]
    steps: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        begins, sizes, steps = self.begins, self.sizes, self.steps
        if not all(isinstance(values, tuple) for values in (begins, sizes, steps)):
            raise GraphError("slice: begins, sizes and steps must be lists of integers")
        if not all(is_integer(n, 0) for n in begins) or not all(is_integer(n, 1) for n in sizes):
            raise GraphError(f"slice: begins must be 0 or more and sizes positive, got {told((begins, sizes))}")
        if not all(isinstance(n, int) and n and is_integer(abs(n), 1) for n in steps):
            raise GraphError(f"slice: steps must be integers other than 0, got {told(steps)}")
        if len(begins) != len(sizes) or len(steps) not in (0, len(sizes)):
            raise GraphError(f"slice: begins, sizes and steps must name the same axes, got {told((begins, sizes))}")

    def output_shape(self, *inputs: Shape) -> Shape:
        (x,) = inputs
        expect_rank(x, len(self.sizes), "slice")
        steps = self.steps or (1,) * len(x)
        for axis, (begin, size, step) in enumerate(zip(self.begins, self.sizes, steps, strict=True)):
            last = begin + (size - 1) * step
            if not (begin < x[axis] and 0 <= last < x[axis]):
                raise GraphError(f"slice: from {begin} to {last} is more than axis {axis} of {x} has")
        return self.sizes


@register
@dataclass(frozen=True, slots=True)
class Transpose(Op):
    """Orders the axes anew: axis i of the result is axis perm[i] of the input."""

    kind = "transpose"
    perm: tuple[int, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.perm, tuple) or not all(type(n) is int for n in self.perm):
            raise GraphError(f"transpose: perm must be a list of integers, got {told(self.perm)}")
        if not 1 <= len(self.perm) <= 8 or sorted(self.perm) != list(range(len(self.perm))):
            raise GraphError(f"transpose: perm must name each axis once, got {told(self.perm)}")

    def output_shape(self, *inputs: Shape) -> Shape:
        (x,) = inputs
        expect_rank(x, len(self.perm), "transpose")
        return tuple([x[axis] for axis in self.perm])


@register
@dataclass(frozen=True, slots=True)
class Gather(Op):
    """Takes the parts of a tensor along an axis that a second one, of integers, names: an embedding, a reordering. The
    axis becomes those of the indices."""

    kind = "gather"
    arity = 2
    has_dtype = True
    axis: int = 0

    def __post_init__(self) -> None:
        expect_axis(self.axis, "gather")

    def output_shape(self, *inputs: Shape) -> Shape:
        x, indices = inputs
        axis = axis_of(x, self.axis, "gather")
        return (*x[:axis], *indices, *x[axis + 1 :])

    def output_dtypes(self, inputs: tuple[DType, ...], results: int) -> tuple[DType, ...]:
        if inputs[1] not in (DType.INT32, DType.INT64):
            raise GraphError(f"gather: its indices must be int32 or int64, got {inputs[1]}")
        return inputs[:1]


@register
@dataclass(frozen=True, slots=True)
class Tile(Op):
    """Repeats a tensor so many times along each axis."""

    kind = "tile"
    multiples: tuple[int, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.multiples, tuple) or not all(is_integer(n, 1) for n in self.multiples):
            raise GraphError(f"tile: multiples must be positive integers, got {told(self.multiples)}")

    def output_shape(self, *inputs: Shape) -> Shape:
        (x,) = inputs
        expect_rank(x, len(self.multiples), "tile")
        return tuple([size * times for size, times in zip(x, self.multiples, strict=True)])


@register
@dataclass(frozen=True, slots=True)
class DepthToSpace(Op):
    """Moves channels into blocks of pixels: (N, H, W, b * b * C) -> (N, b * H, b * W, C). The place in the block is the
    slowest part of a channel's number, or the fastest one (`pixel_shuffle`: torch's order)."""

    kind = "depth_to_space"
    block: int
    pixel_shuffle: bool = False

    def __post_init__(self) -> None:
        expect_positive("depth_to_space", block=self.block)
        expect_bool("depth_to_space", pixel_shuffle=self.pixel_shuffle)

    def output_shape(self, *inputs: Shape) -> Shape:
        (x,) = inputs
        expect_rank(x, 4, "depth_to_space")
        if x[3] % self.block**2:
            raise GraphError(f"depth_to_space: blocks of {self.block} do not divide the {x[3]} channels of {x}")
        return (x[0], x[1] * self.block, x[2] * self.block, x[3] // self.block**2)


@register
@dataclass(frozen=True, slots=True)
class SpaceToDepth(Op):
    """Moves blocks of pixels into channels: (N, H, W, C) -> (N, H / b, W / b, b * b * C), the block's place first."""

    kind = "space_to_depth"
    block: int

    def __post_init__(self) -> None:
        expect_positive("space_to_depth", block=self.block)

    def output_shape(self, *inputs: Shape) -> Shape:
        (x,) = inputs
        expect_rank(x, 4, "space_to_depth")
        if x[1] % self.block or x[2] % self.block:
            raise GraphError(f"space_to_depth: blocks of {self.block} do not divide the image of {x}")
        return (x[0], x[1] // self.block, x[2] // self.block, x[3] * self.block**2)


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
    is all of it; what it is combined with broadcasts it. The values are weights, under the node's name. A constant
    stands right before what takes it, one for each that does, so that no cut between blocks parts them."""

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
