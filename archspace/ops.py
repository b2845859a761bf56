"""Primitive operations: what each computes on NHWC shapes, and what that costs.

Together with graph.py this is the only place with shape arithmetic. Every writer, module and feature asks here.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Literal

from netlathe.archspace.errors import GraphError

Shape = tuple[int, ...]
"""NHWC, batch first; after the head also (N, C)."""

Pair = tuple[int, int]
"""(height, width)."""

LARGEST = 2**31 - 1
"""Of any size or setting: files and runtimes count in 32 bits."""
MOST_VALUES, MOST_CONSTANTS = 2**32 - 1, 2**31 - 1
"""Of one tensor (16 GiB of float32), and of one op's weights: what is computed from them stays within 64 bits."""


class Padding(StrEnum):
    """SAME follows TensorFlow: out = ceil(in / stride), the odd pixel goes after. VALID pads nothing."""

    SAME = "same"
    VALID = "valid"


class ActivationKind(StrEnum):
    """Element-wise non-linearities, by the names used in the MobileNet papers."""

    RELU = "relu"
    RELU6 = "relu6"
    HARD_SWISH = "hard_swish"
    HARD_SIGMOID = "hard_sigmoid"
    SIGMOID = "sigmoid"
    SWISH = "swish"


def same_padding(size: int, kernel: int, stride: int) -> Pair:
    """Pixels (before, after) that SAME adds along one axis: TensorFlow's rule, the odd one after."""
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _window_out(size: int, kernel: int, stride: int, padding: Padding, where: str) -> int:
    if padding is Padding.SAME:
        return -(-size // stride)
    if kernel > size:
        raise GraphError(f"{where}: kernel {kernel} is larger than its input of {size} pixels; pad or shrink it")
    return (size - kernel) // stride + 1


def _expect_rank(shape: Shape, rank: int, where: str) -> None:
    if len(shape) != rank:
        raise GraphError(f"{where} takes a tensor of rank {rank}, got shape {shape}")


def _expect_positive(where: str, **values: int | Pair) -> None:
    for field, value in values.items():
        for n in value if isinstance(value, tuple) else (value,):
            if not is_integer(n, 1):
                raise GraphError(f"{where}: {field} must be a positive integer, got {told(value)}{_bound(n)}")
        if isinstance(value, tuple) and len(value) != 2:
            raise GraphError(f"{where}: {field} must be (height, width), got {len(value)} numbers")


def is_integer(value: object, least: int) -> bool:
    """Whether it is an integer between `least` and LARGEST."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= LARGEST


def _bound(value: object) -> str:
    return f"; sizes end at {LARGEST}" if isinstance(value, int) and value > LARGEST else ""


def told(value: object) -> str:
    """A value in an error's words; Python refuses to spell out integers of thousands of digits."""
    try:
        return f"{value!r:.60}"
    except ValueError:
        return "an enormous number"


def check_shape(shape: object, where: str) -> None:
    """Raises GraphError for anything but one to eight positive integers with a product of at most MOST_VALUES."""
    if not isinstance(shape, tuple) or not 1 <= len(shape) <= 8 or not all(is_integer(n, 1) for n in shape):
        raise GraphError(f"{where} must be one to eight positive integers up to {LARGEST}, got {told(shape)}")
    if math.prod(shape) > MOST_VALUES:
        raise GraphError(f"{where} {shape} holds more than {MOST_VALUES} values")


def _expect_bool(where: str, **values: object) -> None:
    for field, value in values.items():
        if not isinstance(value, bool):
            raise GraphError(f"{where}: {field} must be true or false, got {told(value)}")


@dataclass(frozen=True, slots=True)
class Op(ABC):
    """One primitive operation. As in the papers, only convolutions and fully connected layers have MACs."""

    kind: ClassVar[str]
    arity: ClassVar[int] = 1

    @abstractmethod
    def output_shape(self, *inputs: Shape) -> Shape:
        """Shape of the result. Raises GraphError when the inputs do not fit."""

    def macs_per_value(self, *inputs: Shape) -> int:
        """Multiply-accumulates for one value of the result."""
        return 0

    def macs(self, *inputs: Shape) -> int:
        """Multiply-accumulates."""
        return math.prod(self.output_shape(*inputs)) * self.macs_per_value(*inputs)

    def parameters(self, *inputs: Shape) -> int:
        """Trainable values, as the papers count them: BatchNorm adds scale and shift per channel."""
        return 0

    def constants(self, *inputs: Shape) -> int:
        """Values that the deployed op reads besides its inputs: weights with BatchNorm folded in, and bias."""
        return 0

    def result_shape(self, *inputs: Shape) -> Shape:
        """output_shape, and a GraphError too where the result or the weights are larger than any runtime takes."""
        shape = self.output_shape(*inputs)
        values = math.prod(shape)
        if values > LARGEST and (values > MOST_VALUES or max(shape) > LARGEST):
            raise GraphError(f"{self.kind} gives {shape}, more than {MOST_VALUES} values or {LARGEST} along an axis")
        constants = self.constants(*inputs)
        if constants > MOST_CONSTANTS:
            raise GraphError(f"{self.kind} has {constants} weights, more than {MOST_CONSTANTS}")
        return shape


@dataclass(frozen=True, slots=True)
class Conv2d(Op):
    """2-D convolution, weights (out, in / groups, kh, kw). Followed by BatchNorm when trained (folded when
    deployed), else it carries a bias."""

    kind = "conv"
    out_channels: int
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    groups: int = 1
    padding: Padding = Padding.SAME
    batch_norm: bool = True

    def __post_init__(self) -> None:
        _expect_positive(
            "conv", out_channels=self.out_channels, kernel=self.kernel, stride=self.stride, groups=self.groups
        )
        _expect_bool("conv", batch_norm=self.batch_norm)

    def is_depthwise(self, x: Shape) -> bool:
        return self.groups > 1 and self.groups == x[3]

    def weight_shape(self, x: Shape) -> Shape:
        """(out, in / groups, kh, kw)."""
        return (self.out_channels, x[3] // self.groups, *self.kernel)

    def output_shape(self, *inputs: Shape) -> Shape:
        (x,) = inputs
        _expect_rank(x, 4, "conv")
        if x[3] % self.groups or self.out_channels % self.groups:
            raise GraphError(f"conv: {self.groups} groups divide neither {x[3]} -> {self.out_channels} channels evenly")
        (down, across), (by, along) = self.kernel, self.stride
        height = _window_out(x[1], down, by, self.padding, "conv")
        width = _window_out(x[2], across, along, self.padding, "conv")
        return (x[0], height, width, self.out_channels)

    def macs_per_value(self, *inputs: Shape) -> int:
        return math.prod(self.weight_shape(inputs[0])[1:])

    def parameters(self, *inputs: Shape) -> int:
        return math.prod(self.weight_shape(inputs[0])) + self.out_channels * (2 if self.batch_norm else 1)

    def constants(self, *inputs: Shape) -> int:
        return math.prod(self.weight_shape(inputs[0])) + self.out_channels


@dataclass(frozen=True, slots=True)
class FullyConnected(Op):
    """(N, in) -> (N, out), weights (out, in) and a bias."""

    kind = "fully_connected"
    out_features: int

    def __post_init__(self) -> None:
        _expect_positive("fully_connected", out_features=self.out_features)

    def output_shape(self, *inputs: Shape) -> Shape:
        (x,) = inputs
        _expect_rank(x, 2, "fully_connected")
        return (x[0], self.out_features)

    def macs_per_value(self, *inputs: Shape) -> int:
        return inputs[0][1]

    def parameters(self, *inputs: Shape) -> int:
        return (inputs[0][1] + 1) * self.out_features

    def constants(self, *inputs: Shape) -> int:
        return self.parameters(*inputs)


@dataclass(frozen=True, slots=True)
class Pool2d(Op):
    """Average or maximum over a window. Padding never counts: an average divides by the pixels that exist."""

    kind = "pool"
    mode: Literal["avg", "max"]
    kernel: Pair
    stride: Pair = (1, 1)
    padding: Padding = Padding.SAME

    def __post_init__(self) -> None:
        _expect_positive("pool", kernel=self.kernel, stride=self.stride)
        if self.mode not in ("avg", "max"):
            raise GraphError(f"pool: mode must be 'avg' or 'max', got {self.mode!r}")

    def output_shape(self, *inputs: Shape) -> Shape:
        (x,) = inputs
        _expect_rank(x, 4, "pool")
        height, width = (
            _window_out(x[axis + 1], self.kernel[axis], self.stride[axis], self.padding, "pool") for axis in (0, 1)
        )
        return (x[0], height, width, x[3])


@dataclass(frozen=True, slots=True)
class GlobalAvgPool(Op):
    """Mean over height and width: (N, H, W, C) -> (N, 1, 1, C), or (N, C) without kept dimensions."""

    kind = "global_avg_pool"
    keep_dims: bool = False

    def __post_init__(self) -> None:
        _expect_bool("global_avg_pool", keep_dims=self.keep_dims)

    def output_shape(self, *inputs: Shape) -> Shape:
        (x,) = inputs
        _expect_rank(x, 4, "global_avg_pool")
        return (x[0], 1, 1, x[3]) if self.keep_dims else (x[0], x[3])


@dataclass(frozen=True, slots=True)
class Pad(Op):
    """Zeros around height and width: (before, after) each."""

    kind = "pad"
    height: Pair
    width: Pair

    def __post_init__(self) -> None:
        pairs = (self.height, self.width)
        if any(not isinstance(pair, tuple) or len(pair) != 2 for pair in pairs) or not all(
            is_integer(amount, 0) for pair in pairs for amount in pair
        ):
            amounts = told(pairs)
            raise GraphError(f"pad: amounts (before, after) must not be negative or beyond 2^31, got {amounts}")

    def output_shape(self, *inputs: Shape) -> Shape:
        (x,) = inputs
        _expect_rank(x, 4, "pad")
        return (x[0], x[1] + sum(self.height), x[2] + sum(self.width), x[3])


@dataclass(frozen=True, slots=True)
class Activation(Op):
    """Element-wise non-linearity; runtimes fuse relu and relu6 into the op before."""

    kind = "activation"
    function: ActivationKind

    def output_shape(self, *inputs: Shape) -> Shape:
        (x,) = inputs
        return x


def _broadcast(a: Shape, b: Shape, where: str) -> Shape:
    if a == b:
        return a
    if len(a) != len(b) or any(m != n and 1 not in (m, n) for m, n in zip(a, b, strict=True)):
        raise GraphError(f"{where}: shapes {a} and {b} do not match")
    return tuple(max(m, n) for m, n in zip(a, b, strict=True))


@dataclass(frozen=True, slots=True)
class Add(Op):
    """Element-wise sum; a dimension of 1 is repeated."""

    kind = "add"
    arity = 2

    def output_shape(self, *inputs: Shape) -> Shape:
        return _broadcast(inputs[0], inputs[1], "add")


@dataclass(frozen=True, slots=True)
class Mul(Op):
    """Element-wise product; a dimension of 1 is repeated (squeeze-excite scales channels so)."""

    kind = "mul"
    arity = 2

    def output_shape(self, *inputs: Shape) -> Shape:
        return _broadcast(inputs[0], inputs[1], "mul")


@dataclass(frozen=True, slots=True)
class Concat(Op):
    """Joins two tensors along the channels; chain it for more."""

    kind = "concat"
    arity = 2

    def output_shape(self, *inputs: Shape) -> Shape:
        a, b = inputs
        if a[:-1] != b[:-1]:
            raise GraphError(f"concat: shapes {a} and {b} differ in more than their channels")
        return (*a[:-1], a[-1] + b[-1])


@dataclass(frozen=True, slots=True)
class Softmax(Op):
    """Softmax over the last axis."""

    kind = "softmax"

    def output_shape(self, *inputs: Shape) -> Shape:
        (x,) = inputs
        return x


@dataclass(frozen=True, slots=True)
class Reshape(Op):
    """To `shape`, which excludes the batch."""

    kind = "reshape"
    shape: Shape

    def __post_init__(self) -> None:
        check_shape(self.shape, "reshape: its shape")

    def output_shape(self, *inputs: Shape) -> Shape:
        (x,) = inputs
        if math.prod(x[1:]) != math.prod(self.shape):
            raise GraphError(f"reshape: {x[1:]} does not hold as many values as {self.shape}")
        return (x[0], *self.shape)


@dataclass(frozen=True, slots=True)
class Zeros(Op):
    """Zeros of `shape` (batch excluded), whatever the input: the `none` choice of some search spaces."""

    kind = "zeros"
    shape: Shape

    def __post_init__(self) -> None:
        check_shape(self.shape, "zeros: its shape")

    def output_shape(self, *inputs: Shape) -> Shape:
        return (inputs[0][0], *self.shape)


OPS: dict[str, type[Op]] = {
    op.kind: op
    for op in (
        Conv2d, FullyConnected, Pool2d, GlobalAvgPool, Pad, Activation, Add, Mul, Concat, Softmax, Reshape, Zeros,
    )
}  # fmt: skip
"""Every op by its kind: what JSON files may name."""
