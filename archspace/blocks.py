"""Block specs: the units that are profiled, predicted and searched. Frozen, hashable, each lowered to one Graph.

A block's name is canonical: equal blocks have equal names, and block_names.parse_block(name) gives the block back.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

from netlathe.archspace.errors import BlockError, GraphError
from netlathe.archspace.graph import Graph, GraphBuilder
from netlathe.archspace.ops import (
    Activation,
    ActivationKind,
    Add,
    Conv2d,
    FullyConnected,
    GlobalAvgPool,
    Mul,
    Pad,
    Padding,
    Pool2d,
    Shape,
    Zeros,
    is_integer,
    told,
)

BlockPadding = Literal["same", "symmetric"]
"""How a window's border is filled: 'same' as TensorFlow does (no extra op), 'symmetric' as PyTorch does
(kernel // 2 on every side; where that differs, an explicit pad op goes before the convolution)."""


@dataclass(frozen=True)
class Block(ABC):
    """What all blocks share: NHWC input of (height, width, cin), output with cout channels."""

    @cached_property
    @abstractmethod
    def name(self) -> str:
        """Canonical one-line name, as parse_block reads it."""

    @abstractmethod
    def _lower(self, builder: GraphBuilder, x: int) -> int:
        """Adds the block's ops behind tensor x; returns the result's tensor."""

    @property
    @abstractmethod
    def input_shape(self) -> Shape:
        """(height, width, channels), without the batch."""

    @cached_property
    def output_shape(self) -> Shape:
        """(height, width, channels), or (features,) after the head; without the batch."""
        return self.graph().output_shape[1:]

    def graph(self, batch: int = 1) -> Graph:
        """The block as primitive ops on an input of (batch, height, width, cin)."""
        builder = GraphBuilder((batch, *self.input_shape))
        try:
            self._lower(builder, 0)
        except GraphError as error:
            raise BlockError(f"{self.name}: {error}") from None
        return builder.build()

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class _Spatial(Block):
    """Fields of every block that maps an image to an image."""

    cin: int
    cout: int
    height: int
    width: int
    stride: int = 1

    def __post_init__(self) -> None:
        for field in ("cin", "cout", "height", "width"):
            _check(type(self), field, getattr(self, field), _is_size, _SIZE)
        _check(type(self), "stride", self.stride, lambda v: v in (1, 2, 3, 4), "1, 2, 3 or 4")

    @property
    def input_shape(self) -> Shape:
        return (self.height, self.width, self.cin)

    def _shape_name(self) -> str:
        return f"s{self.stride}_c{self.cin}-{self.cout}_{self.height}x{self.width}"


@dataclass(frozen=True)
class MBConv(_Spatial):
    """Mobile inverted bottleneck: 1x1 expand, depthwise, (squeeze-excite), 1x1 linear projection, residual
    (MobileNetV2, arXiv:1801.04381; squeeze-excite as in MnasNet and MobileNetV3).

    The middle has round(cin * expand) channels; expand=1 has no expansion layer. Squeeze-excite reduces to
    round(middle * se) channels through ReLU, and gates with a hard sigmoid beside hard swish, else with a sigmoid.
    `residual` is dropped where stride or channels rule it out.
    """

    kernel: int = 3
    expand: float = 6
    activation: ActivationKind = ActivationKind.RELU6
    se: float = 0.0
    residual: bool = True
    padding: BlockPadding = "same"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_window(self)
        _check(MBConv, "expand", self.expand, lambda v: 0 < v <= 64, "in (0, 64]")
        _check(MBConv, "se", self.se, lambda v: 0 <= v <= 4, "in [0, 4] (0: none)")
        for field in ("expand", "se"):  # what the name can say, so that equal names mean equal blocks
            object.__setattr__(self, field, float(f"{getattr(self, field):g}"))
        _check(MBConv, "middle channels", self.middle, lambda v: v >= 1, "at least 1 (raise expand)")
        object.__setattr__(self, "residual", self.residual and self._residual_fits)

    @property
    def middle(self) -> int:
        """Channels of the depthwise layer."""
        return round(self.cin * self.expand)

    @property
    def _residual_fits(self) -> bool:
        return self.stride == 1 and self.cin == self.cout

    @cached_property
    def name(self) -> str:
        se = f"_se{self.se:g}" if self.se else ""
        plain = "_nores" if self._residual_fits and not self.residual else ""
        head = f"mbconv_k{self.kernel}_e{self.expand:g}_{self._shape_name()}"
        return f"{head}_{self.activation}{se}{plain}{_padding_name(self.padding)}"

    def _lower(self, builder: GraphBuilder, x: int) -> int:
        y = x
        if self.expand != 1:
            y = _conv(builder, "expand", y, self.middle, activation=self.activation)
        y = _conv(
            builder, "depthwise", y, self.middle, self.kernel, self.stride,
            groups=self.middle, activation=self.activation, padding=self.padding,
        )  # fmt: skip
        if self.se:
            y = self._squeeze_excite(builder, y)
        y = _conv(builder, "project", y, self.cout)
        return builder.add("residual", Add(), x, y) if self.residual else y

    def _squeeze_excite(self, builder: GraphBuilder, x: int) -> int:
        hard = self.activation is ActivationKind.HARD_SWISH
        gate = ActivationKind.HARD_SIGMOID if hard else ActivationKind.SIGMOID
        reduced = max(1, round(self.middle * self.se))
        y = builder.add("se_pool", GlobalAvgPool(keep_dims=True), x)
        y = builder.add("se_reduce", _convolution(reduced, batch_norm=False), y)
        y = builder.add("se_reduce_act", Activation(ActivationKind.RELU), y)
        y = builder.add("se_expand", _convolution(self.middle, batch_norm=False), y)
        y = builder.add("se_gate", Activation(gate), y)
        return builder.add("se_scale", Mul(), x, y)


@dataclass(frozen=True)
class ConvBlock(_Spatial):
    """Convolution, BatchNorm, activation."""

    kernel: int = 3
    activation: ActivationKind | None = ActivationKind.RELU6
    padding: BlockPadding = "same"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_window(self)

    @cached_property
    def name(self) -> str:
        act = self.activation or "none"
        return f"conv_k{self.kernel}_{self._shape_name()}_{act}{_padding_name(self.padding)}"

    def _lower(self, builder: GraphBuilder, x: int) -> int:
        return _conv(
            builder, "conv", x, self.cout, self.kernel, self.stride, activation=self.activation, padding=self.padding
        )


@dataclass(frozen=True)
class SeparableConv(_Spatial):
    """Depthwise then 1x1 convolution, BatchNorm and activation after both (MobileNetV1, arXiv:1704.04861)."""

    kernel: int = 3
    activation: ActivationKind = ActivationKind.RELU6
    padding: BlockPadding = "same"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_window(self)

    @cached_property
    def name(self) -> str:
        return f"sepconv_k{self.kernel}_{self._shape_name()}_{self.activation}{_padding_name(self.padding)}"

    def _lower(self, builder: GraphBuilder, x: int) -> int:
        y = _conv(
            builder, "depthwise", x, self.cin, self.kernel, self.stride,
            groups=self.cin, activation=self.activation, padding=self.padding,
        )  # fmt: skip
        return _conv(builder, "pointwise", y, self.cout, activation=self.activation)


@dataclass(frozen=True)
class Pool(Block):
    """Average or maximum pooling; channels stay."""

    mode: Literal["avg", "max"]
    channels: int
    height: int
    width: int
    kernel: int = 3
    stride: int = 1

    def __post_init__(self) -> None:
        _check(Pool, "mode", self.mode, lambda v: v in ("avg", "max"), "'avg' or 'max'")
        for field in ("channels", "height", "width"):
            _check(Pool, field, getattr(self, field), _is_size, _SIZE)
        _check(Pool, "kernel", self.kernel, lambda v: v in range(1, 12), "an integer from 1 to 11")
        _check(Pool, "stride", self.stride, lambda v: v in (1, 2, 3, 4), "1, 2, 3 or 4")

    @property
    def input_shape(self) -> Shape:
        return (self.height, self.width, self.channels)

    @cached_property
    def name(self) -> str:
        return f"{self.mode}pool_k{self.kernel}_s{self.stride}_c{self.channels}_{self.height}x{self.width}"

    def _lower(self, builder: GraphBuilder, x: int) -> int:
        op = Pool2d(self.mode, (self.kernel, self.kernel), (self.stride, self.stride), Padding.SAME)
        return builder.add("pool", op, x)


@dataclass(frozen=True)
class LinearHead(Block):
    """Global average pool, then one fully connected layer to `classes` logits."""

    cin: int
    classes: int
    height: int
    width: int

    def __post_init__(self) -> None:
        for field in ("cin", "classes", "height", "width"):
            _check(LinearHead, field, getattr(self, field), _is_size, _SIZE)

    @property
    def input_shape(self) -> Shape:
        return (self.height, self.width, self.cin)

    @cached_property
    def name(self) -> str:
        return f"linear_c{self.cin}-{self.classes}_{self.height}x{self.width}"

    def _lower(self, builder: GraphBuilder, x: int) -> int:
        y = builder.add("pool", GlobalAvgPool(), x)
        return builder.add("linear", FullyConnected(self.classes), y)


@dataclass(frozen=True)
class Skip(_Spatial):
    """The identity; where shapes differ, a 1x1 convolution with that stride and BatchNorm."""

    @cached_property
    def name(self) -> str:
        return f"skip_{self._shape_name()}"

    @property
    def is_identity(self) -> bool:
        return self.stride == 1 and self.cin == self.cout

    def _lower(self, builder: GraphBuilder, x: int) -> int:
        return x if self.is_identity else _conv(builder, "conv", x, self.cout, stride=self.stride)


@dataclass(frozen=True)
class Zero(_Spatial):
    """Zeros of the right shape: the `none` choice of cell-based spaces."""

    @cached_property
    def name(self) -> str:
        return f"zero_{self._shape_name()}"

    def _lower(self, builder: GraphBuilder, x: int) -> int:
        height, width = -(-self.height // self.stride), -(-self.width // self.stride)
        return builder.add("zeros", Zeros((height, width, self.cout)), x)


def _conv(
    builder: GraphBuilder,
    name: str,
    x: int,
    cout: int,
    kernel: int = 1,
    stride: int = 1,
    *,
    groups: int = 1,
    activation: ActivationKind | None = None,
    padding: BlockPadding = "same",
) -> int:
    """(Pad), convolution with BatchNorm, (activation)."""
    mode = Padding.SAME
    if padding == "symmetric" and kernel > 1 and stride > 1:  # at stride 1 SAME already is symmetric
        border = (kernel // 2, kernel // 2)
        x = builder.add(f"{name}_pad", Pad(border, border), x)
        mode = Padding.VALID
    y = builder.add(name, _convolution(cout, kernel, stride, groups, mode), x)
    return builder.add(f"{name}_act", Activation(activation), y) if activation else y


@lru_cache(maxsize=1 << 14, typed=True)
def _convolution(
    cout: int,
    kernel: int = 1,
    stride: int = 1,
    groups: int = 1,
    padding: Padding = Padding.SAME,
    batch_norm: bool = True,
) -> Conv2d:
    """With a square window. Shared, as blocks have few different ones and checking them takes long."""
    return Conv2d(cout, (kernel, kernel), (stride, stride), groups, padding, batch_norm)


_SIZE = "an integer from 1 to 2^31 - 1"


def _is_size(value: object) -> bool:
    return is_integer(value, 1)


def _check(cls: type[Block], field: str, value: object, accepts: Callable[..., bool], wanted: str) -> None:
    try:
        if not isinstance(value, bool) and accepts(value):
            return
    except TypeError:
        pass
    raise BlockError(f"{cls.__name__}: {field} must be {wanted}, got {told(value)}")


def _check_window(block: MBConv | ConvBlock | SeparableConv) -> None:
    _check(type(block), "kernel", block.kernel, lambda v: v in (1, 3, 5, 7, 9, 11), "odd, from 1 to 11")
    _check(type(block), "padding", block.padding, lambda v: v in ("same", "symmetric"), "'same' or 'symmetric'")
    if block.activation is not None:
        known = tuple(ActivationKind)
        _check(type(block), "activation", block.activation, lambda v: v in known, f"one of {', '.join(known)}")
        object.__setattr__(block, "activation", ActivationKind(block.activation))


def _padding_name(padding: BlockPadding) -> str:
    return "_sym" if padding == "symmetric" else ""
