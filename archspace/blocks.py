"""Block specs: the units that are profiled, predicted and searched. Frozen, hashable, each lowered to one Graph.

A block's name is canonical: equal blocks have equal names, and block_names.parse_block(name) gives the block back.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, ClassVar, Literal, NamedTuple

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

_N, _R = r"(?P<{}>[0-9]{{1,10}})", r"(?P<{}>[0-9.]{{1,20}})"
"""A field that is a whole or any number in a name's pattern: a name of thousands of digits is none."""
_SHAPE = "_".join((f"s{_N}", f"c{_N}-{_N}", f"{_N}x{_N}")).format("stride", "cin", "cout", "height", "width")
_ACT = r"(?P<activation>[a-z0-9_]{1,20}?)"
_SYM = r"(?P<padding>_sym)?"

BlockPadding = Literal["same", "symmetric"]
"""The filling of a window's border: 'same' as TensorFlow does (no extra op), 'symmetric' as PyTorch does
(kernel // 2 on every side; where that differs, an explicit pad op goes before the convolution)."""


class _Rule(NamedTuple):
    """The values that a block's field may hold, and the words for them."""

    accepts: Callable[[Any], bool]
    wanted: str


def _one_of(wanted: str, *values: object) -> _Rule:
    return _Rule(lambda value: value in values, wanted)


_SIZE = _Rule(lambda value: is_integer(value, 1), "an integer from 1 to 2^31 - 1")
_STRIDE = {"stride": _one_of("1, 2, 3 or 4", 1, 2, 3, 4)}
_IMAGE = dict.fromkeys(("cin", "cout", "height", "width"), _SIZE) | _STRIDE
_WINDOW = _IMAGE | {
    "kernel": _one_of("odd, from 1 to 11", 1, 3, 5, 7, 9, 11),
    "padding": _one_of("'same' or 'symmetric'", "same", "symmetric"),
    "activation": _one_of(f"one of {', '.join(ActivationKind)}", None, *ActivationKind),
}
"""The rules of fields that several blocks have."""


@dataclass(frozen=True)
class Block(ABC):
    """Base of all blocks: NHWC input of (height, width, cin), output with cout channels.

    A class of blocks says in one place what its fields may hold, how its names begin, and the pattern of a whole name,
    whose groups are fields.
    """

    rules: ClassVar[Mapping[str, _Rule]] = {}
    prefixes: ClassVar[tuple[str, ...]] = ()
    pattern: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for field, rule in self.rules.items():
            _check(type(self), field, getattr(self, field), rule)

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

    @property
    def label(self) -> str:
        """The kind in a word or two, for pictures."""
        return self.name.partition("_")[0]

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

    rules = _IMAGE

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

    prefixes = ("mbconv",)
    pattern = (
        f"mbconv_k{_N.format('kernel')}_e{_R.format('expand')}_{_SHAPE}_{_ACT}"
        rf"(?:_se{_R.format('se')})?(?P<residual>_nores)?{_SYM}"
    )
    rules = _WINDOW | {
        "expand": _Rule(lambda value: 0 < value <= 64, "in (0, 64]"),
        "se": _Rule(lambda value: 0 <= value <= 4, "in [0, 4] (0: none)"),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        _name_activation(self)
        for field in ("expand", "se"):  # what the name can say, so that equal names mean equal blocks
            object.__setattr__(self, field, float(f"{getattr(self, field):g}"))
        _check(MBConv, "middle channels", self.middle, _Rule(lambda value: value >= 1, "at least 1 (raise expand)"))
        object.__setattr__(self, "residual", self.residual and self._residual_fits)

    @property
    def label(self) -> str:
        return f"k{self.kernel}\ne{self.expand:g}"

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

    prefixes = ("conv",)
    pattern = f"conv_k{_N.format('kernel')}_{_SHAPE}_{_ACT}{_SYM}"
    rules = _WINDOW

    def __post_init__(self) -> None:
        super().__post_init__()
        _name_activation(self)

    @property
    def label(self) -> str:
        return f"conv\n{self.kernel}×{self.kernel}"

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

    prefixes = ("sepconv",)
    pattern = f"sepconv_k{_N.format('kernel')}_{_SHAPE}_{_ACT}{_SYM}"
    rules = _WINDOW

    def __post_init__(self) -> None:
        super().__post_init__()
        _name_activation(self)

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

    prefixes = ("avgpool", "maxpool")
    pattern = (
        f"(?P<mode>avg|max)pool_k{_N.format('kernel')}_s{_N.format('stride')}_c{_N.format('channels')}"
        f"_{_N.format('height')}x{_N.format('width')}"
    )
    rules = (
        {"mode": _one_of("'avg' or 'max'", "avg", "max")}
        | dict.fromkeys(("channels", "height", "width"), _SIZE)
        | {"kernel": _one_of("an integer from 1 to 11", *range(1, 12))}
        | _STRIDE
    )

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

    prefixes = ("linear",)
    pattern = f"linear_c{_N.format('cin')}-{_N.format('classes')}_{_N.format('height')}x{_N.format('width')}"
    rules = dict.fromkeys(("cin", "classes", "height", "width"), _SIZE)

    @property
    def label(self) -> str:
        return "linear"

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

    prefixes = ("skip",)
    pattern = f"skip_{_SHAPE}"

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

    prefixes = ("zero",)
    pattern = f"zero_{_SHAPE}"

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


def _check(cls: type[Block], field: str, value: object, rule: _Rule) -> None:
    try:
        if not isinstance(value, bool) and rule.accepts(value):
            return
    except TypeError:
        pass
    raise BlockError(f"{cls.__name__}: {field} must be {rule.wanted}, got {told(value)}")


def _name_activation(block: MBConv | ConvBlock | SeparableConv) -> None:
    if block.activation is not None:
        object.__setattr__(block, "activation", ActivationKind(block.activation))


def _padding_name(padding: BlockPadding) -> str:
    return "_sym" if padding == "symmetric" else ""


BLOCKS: tuple[type[Block], ...] = (MBConv, ConvBlock, SeparableConv, Pool, LinearHead, Skip, Zero)
"""The classes whose names can be read (block_names.py)."""
