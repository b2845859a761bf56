"""Kernels to profile: drawn over the ranges that convolutional networks have, or cut out of given networks.

A draw begins with a place in a network: an image of a usual size, halved once per stage, with as many channels as
networks have there. Each class of kernels has one sampler below, with the share of a profile that it gets.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from netlathe.archspace.graph import Graph, GraphBuilder
from netlathe.archspace.kernels import BLOCKS, Fusion, kernel_label, kernels_of
from netlathe.archspace.ops import (
    ELU,
    Activation,
    ActivationKind,
    Add,
    ArgMax,
    BatchNorm,
    Cast,
    Clip,
    Concat,
    Constant,
    Conv2d,
    DepthToSpace,
    Dequantize,
    Div,
    DType,
    FullyConnected,
    Gelu,
    GlobalAvgPool,
    GroupNorm,
    Interpolation,
    L2Norm,
    LayerNorm,
    LeakyReLU,
    LocalResponseNorm,
    MatMul,
    Maximum,
    Minimum,
    Mul,
    Op,
    Pad,
    PadAxes,
    Padding,
    Pair,
    Pool2d,
    Pow,
    PReLU,
    Quantize,
    Reduce,
    ReduceKind,
    Reshape,
    Resize,
    Shape,
    Slice,
    Softmax,
    SpaceToDepth,
    Split,
    Sub,
    Tile,
    Transpose,
    TransposeConv2d,
    Unary,
    UnaryKind,
)

_T = TypeVar("_T")
KERNELS = "kernels"
"""The space's name."""
MOST_MACS, MOST_BYTES = 400_000_000, 72 << 20
"""Work of one kernel at most, so that a profile of some hundred takes minutes: beyond it, work grows in proportion."""
_IMAGES = (96, 128, 160, 192, 224, 224, 224, 224, 256, 299, 320, 384, 512)
_CHANNELS = ((3, 48), (8, 96), (16, 256), (24, 512), (40, 1024), (64, 2048))
"""Fewest and most channels behind so many halvings of the image."""
_ROUND = (8, 8, 8, 8, 8, 16, 16, 32, 4, 2, 1)
_CLAMPS = (None, ActivationKind.RELU, ActivationKind.RELU6)
_NEED_POSITIVE = (UnaryKind.LOG, UnaryKind.SQRT, UnaryKind.RSQRT)
"""Functions that take NaNs' time on the random inputs of a profile."""
_TRIES = 1000
"""Draws of a group beyond the kernels wanted, before it counts as exhausted."""


@dataclass(frozen=True)
class KernelGroup:
    """Kernels of one class: what they are called, the part of a profile that they get, relative to the others', and
    how one is drawn."""

    name: str
    share: float
    draw: Callable[[_Draw], Graph]
    is_border: bool = False
    """Whether they convert between int8 and real values, and so are of int8 profiles alone."""


GROUPS: dict[str, KernelGroup] = {}
"""All classes of kernels, by name."""


def _group(
    name: str, share: float, *, is_border: bool = False
) -> Callable[[Callable[[_Draw], Graph]], Callable[[_Draw], Graph]]:
    """Registers a sampler. Raises ValueError where the group has one."""

    def register(draw: Callable[[_Draw], Graph]) -> Callable[[_Draw], Graph]:
        if name in GROUPS:
            raise ValueError(f"two samplers are of the group {name!r}")
        GROUPS[name] = KernelGroup(name, share, draw, is_border)
        return draw

    return register


@dataclass(frozen=True)
class Kernel:
    """A kernel to measure: one op, with what is fused into it."""

    name: str
    group: str
    graph: Graph


def sample_kernels(
    count: int, *, batch: int = 1, fusion: Fusion = "cpu", seed: int = 0, dtype: str = "float32"
) -> list[Kernel]:
    """About `count` different kernels, each group by its share, but three of each at least; equal arguments give equal
    kernels. `fusion` is what the runtime starts as one; for the dtype int8 there are those that convert, too, which
    networks of several precisions have, but for GPUs, which have no such op."""
    groups = [group for group in GROUPS.values() if not group.is_border or (dtype == "int8" and fusion != "gpu")]
    total = sum(group.share for group in groups)
    found = []
    for group in groups:
        draw = _Draw(random.Random(f"{seed} {group.name}"), batch, fusion)
        wanted = max(3, round(count * group.share / total))
        graphs: dict[str, Graph] = {}
        for _ in range(_TRIES + wanted):
            if len(graphs) == wanted:
                break
            graph = group.draw(draw)
            if is_moderate(graph):
                graphs.setdefault(graph.key, graph)
        found += [Kernel(kernel_name(graph), group.name, graph) for graph in graphs.values()]
    return found


def kernels_in(networks: Iterable[Graph], *, fusion: Fusion = "cpu") -> list[Kernel]:
    """The different kernels of these networks, each group named after its first op's kind."""
    found = {kernel.key: kernel for graph in networks for kernel in kernels_of(graph, fusion)}
    return [Kernel(kernel_name(kernel), kernel_group(kernel), kernel) for kernel in found.values()]


def kernel_group(kernel: Graph) -> str:
    """The group of a kernel: of a convolution its sort, else the kind of the op that does the work."""
    ops = [(node.op, ins) for node, ins, _ in kernel.steps() if not isinstance(node.op, Constant)]
    op, inputs = next((step for step in ops if not isinstance(step[0], Pad)), ops[0])
    if isinstance(op, Activation):
        return "smooth_activation" if op.function in (ActivationKind.SIGMOID, ActivationKind.SWISH) else op.kind
    if not isinstance(op, Conv2d):
        return op.kind
    if op.is_depthwise(inputs[0]) and op.out_channels == op.groups:
        return "depthwise"
    if op.groups > 1:
        return "grouped_conv"
    if op.kernel == (1, 1):
        return "squeezed_conv" if inputs[0][1:3] == (1, 1) else "pointwise"
    return "conv"


def kernel_name(kernel: Graph) -> str:
    """Name of a kernel, such as "conv k3x3 s2x2+activation relu 56x56x24 -> 28x28x144"."""
    words = "+".join(" ".join([n.op.name, *settings_of(n.op)]) for n in kernel.nodes if not isinstance(n.op, Constant))
    return f"{words} {kernel_label(kernel).partition(' ')[2]}"


def settings_of(op: Op) -> list[str]:
    """Settings that tell ops of one kind apart beside their shapes, in short."""
    words = []
    for field, short in (("kernel", "k"), ("stride", "s"), ("dilation", "d"), ("groups", "g")):
        value = getattr(op, field, None)
        if isinstance(value, tuple) and value not in ((1, 1), ()):
            words.append(f"{short}{'x'.join(map(str, value))}")
        elif isinstance(value, int) and value != 1:
            words.append(f"{short}{value}")
    return words + [str(getattr(op, field)) for field in ("function", "mode") if hasattr(op, field)]


def is_moderate(graph: Graph) -> bool:
    """Whether a run of it is short enough for a profile of many."""
    moved = graph.bytes_read() + graph.bytes_written()
    return graph.macs <= MOST_MACS and moved <= MOST_BYTES and max(graph.tensor_bytes()) <= MOST_BYTES // 4


class _Draw:
    """Random choices of a kernel's settings."""

    def __init__(self, rng: random.Random, batch: int, fusion: Fusion) -> None:
        self.rng, self.batch, self.fusion = rng, batch, fusion

    def one_of(self, options: Sequence[_T]) -> _T:
        return self.rng.choice(options)

    def stage(self, least: int = 0, most: int = 5) -> int:
        return self.rng.randint(least, most)

    def channels(self, stage: int) -> int:
        """Log-uniform, mostly a multiple of 8."""
        fewest, most = _CHANNELS[stage]
        value = math.exp(self.rng.uniform(math.log(fewest), math.log(most)))
        step = self.one_of(_ROUND)
        return max(fewest, step * int(value / step + 0.5))

    def side(self, stage: int) -> int:
        return -(-self.one_of(_IMAGES) >> stage)

    def image(self, least: int = 0, most: int = 5) -> Shape:
        stage = self.stage(least, most)
        side = self.side(stage)
        return (self.batch, side, side, self.channels(stage))

    def one(self, op: Op, *inputs: Shape) -> Graph:
        """The op alone."""
        builder = GraphBuilder(*inputs)
        first = builder.add(op.kind, op, *range(len(inputs)))
        return builder.build(*range(first, len(inputs) + len(op.output_shapes(*inputs))))

    def gate(self) -> Shape:
        """A value per channel, as of squeeze-excite."""
        return (self.batch, 1, 1, self.channels(self.stage(1)))

    def tokens(self) -> Shape:
        """An image as a transformer takes it."""
        return (self.batch, self.one_of((49, 64, 196, 197, 256, 784)), self.one_of((64, 96, 128, 192, 256, 384)))

    def heads_and_tokens(self) -> Pair:
        return self.one_of((1, 2, 3, 4, 6, 8)), self.one_of((16, 49, 64, 196, 197, 256))

    def layer(self, op: Op, *inputs: Shape, pad: Pair | None = None) -> Graph:
        """A layer with a relu, a relu6 or nothing behind it; with torch's padding before it where the runtime takes
        that in."""
        builder = GraphBuilder(*inputs)
        taken = list(range(len(inputs)))
        if pad and self.fusion not in ("gpu", "tflite"):
            taken = [builder.add("pad", Pad(pad, pad), 0)]
        y = builder.add(op.kind, op, *taken)
        clamps = _CLAMPS[:2] if self.fusion in BLOCKS and isinstance(op, FullyConnected) else _CLAMPS
        if function := self.one_of(clamps):
            y = builder.add("activation", Activation(function), y)
        return builder.build(y)


@_group("conv", 5)
def _conv(draw: _Draw) -> Graph:
    stage = draw.stage()
    kernel = draw.one_of(((3, 3),) * 8 + ((5, 5), (7, 7), (2, 2), (4, 4), (1, 7), (7, 1), (1, 3), (3, 1)))
    stride = draw.one_of((1, 1, 2)) if kernel[0] == kernel[1] else 1
    stride = kernel[0] if kernel in ((2, 2), (4, 4)) else stride  # patches
    cin = 3 if stage == 0 else draw.channels(stage)
    side, cout = draw.side(stage), draw.channels(min(stage + 1, 5))
    if draw.rng.random() < 0.15 and kernel == (3, 3):
        op = Conv2d(cout, kernel, (1, 1), dilation=(2, 2))
        return draw.layer(op, (draw.batch, side, side, cin))
    if kernel in ((3, 3), (7, 7)) and stride == 2 and draw.rng.random() < 0.5:
        op = Conv2d(cout, kernel, (2, 2), padding=Padding.VALID)
        around = kernel[0] // 2
        return draw.layer(op, (draw.batch, side, side, cin), pad=(around, around))
    return draw.layer(Conv2d(cout, kernel, (stride, stride)), (draw.batch, side, side, cin))


@_group("pointwise", 6)
def _pointwise(draw: _Draw) -> Graph:
    stage = draw.stage(1)
    side = draw.side(stage)
    stride = 2 if draw.rng.random() < 0.1 else 1
    x = (draw.batch, side, side, draw.channels(stage))
    return draw.layer(Conv2d(draw.channels(stage), (1, 1), (stride, stride)), x)


@_group("depthwise", 5)
def _depthwise(draw: _Draw) -> Graph:
    x = draw.image(1)
    size, stride = draw.one_of((3, 3, 3, 5, 5, 7, 9)), draw.one_of((1, 1, 2))
    return draw.layer(Conv2d(x[3], (size, size), (stride, stride), groups=x[3]), x)


@_group("grouped_conv", 2)
def _grouped_conv(draw: _Draw) -> Graph:
    stage, kernel = draw.stage(1), draw.one_of((1, 3, 3, 3))
    width, times = draw.one_of(((1, 2), (2, 1), (4, 1), (8, 1), (16, 1), (16, 1), (24, 1), (32, 1), (64, 1)))
    groups = max(2, draw.channels(stage) // width)
    side, stride = draw.side(stage), draw.one_of((1, 1, 2)) if kernel > 1 else 1
    op = Conv2d(groups * width * times, (kernel, kernel), (stride, stride), groups=groups)
    return draw.layer(op, (draw.batch, side, side, groups * width))


@_group("fully_connected", 2)
def _fully_connected(draw: _Draw) -> Graph:
    features = draw.one_of((64, 128, 256, 512, 768, 1024, 1280, 1280, 2048, 4096, 4096))
    if draw.rng.random() < 0.6:
        results = draw.one_of((2, 10, 100, 256, 512, 1000, 1000, 1000, 4096))
        return draw.layer(FullyConnected(results), (draw.batch, features))
    tokens = draw.one_of((49, 64, 197, 196, 256, 784))
    width = draw.one_of((64, 96, 128, 192, 256, 384))
    return draw.one(FullyConnected(width * draw.one_of((1, 2, 3, 4))), (draw.batch, tokens, width))


@_group("squeezed_conv", 1.5)
def _squeezed_conv(draw: _Draw) -> Graph:
    """Convolution of a single pixel, as in squeeze-excite."""
    wide = draw.channels(draw.stage(2))
    narrow = max(4, wide // draw.one_of((4, 8, 16, 24)))
    cin, cout = draw.one_of(((wide, narrow), (narrow, wide)))
    return draw.layer(Conv2d(cout, batch_norm=False), (draw.batch, 1, 1, cin))


@_group("transpose_conv", 1)
def _transpose_conv(draw: _Draw) -> Graph:
    stage = draw.stage(1, 4)
    side, kernel = draw.side(stage), draw.one_of((2, 3, 4))
    cut = {2: (0, 0), 3: (0, 1), 4: (1, 1)}[kernel]
    op = TransposeConv2d(draw.channels(stage - 1), (kernel, kernel), (2, 2), height=cut, width=cut)
    return draw.one(op, (draw.batch, side, side, draw.channels(stage)))


@_group("pool", 2)
def _pool(draw: _Draw) -> Graph:
    if draw.rng.random() < 0.1:  # an image's mean as files write it
        return draw.one(Pool2d("avg", (7, 7), (1, 1), Padding.VALID), (draw.batch, 7, 7, draw.channels(5)))
    size, stride = draw.one_of(((2, 2), (3, 2), (3, 2), (3, 1), (5, 1)))
    x = draw.image(1)
    padding = Padding.SAME if size > x[1] else draw.one_of((Padding.SAME, Padding.VALID))
    return draw.one(Pool2d(draw.one_of(("avg", "max")), (size, size), (stride, stride), padding), x)


@_group("global_avg_pool", 1.5)
def _global_avg_pool(draw: _Draw) -> Graph:
    return draw.one(GlobalAvgPool(keep_dims=draw.one_of((True, False))), draw.image(1))


@_group("add", 1.5)
def _add(draw: _Draw) -> Graph:
    return _binary(draw, Add())


@_group("mul", 1.5)
def _mul(draw: _Draw) -> Graph:
    return _binary(draw, Mul())


def _binary(draw: _Draw, op: Op) -> Graph:
    """Inputs of two equal tensors, or one and a value for each of its channels."""
    x = draw.image()
    if draw.rng.random() < 0.4:
        return draw.one(op, x, (draw.batch, 1, 1, x[3]))
    is_clamped = isinstance(op, Add | Mul) and draw.fusion not in BLOCKS
    return draw.layer(op, x, x) if is_clamped else draw.one(op, x, x)


@_group("sub", 0.3)
def _sub(draw: _Draw) -> Graph:
    return _binary(draw, Sub())


@_group("div", 0.3)
def _div(draw: _Draw) -> Graph:
    return _binary(draw, Div())


@_group("minimum", 0.2)
def _minimum(draw: _Draw) -> Graph:
    return _binary(draw, Minimum())


@_group("maximum", 0.2)
def _maximum(draw: _Draw) -> Graph:
    return _binary(draw, Maximum())


@_group("pow", 0.2)
def _pow(draw: _Draw) -> Graph:
    return _binary(draw, Pow())


@_group("activation", 1.5)
def _activation(draw: _Draw) -> Graph:
    kinds = (ActivationKind.RELU, ActivationKind.RELU6, ActivationKind.HARD_SWISH, ActivationKind.HARD_SWISH)
    if draw.rng.random() < 0.25:
        return draw.one(Activation(ActivationKind.HARD_SIGMOID), draw.one_of((draw.gate, draw.image))())
    return draw.one(Activation(draw.one_of(kinds)), draw.image())


@_group("smooth_activation", 1.5)
def _smooth_activation(draw: _Draw) -> Graph:
    if draw.rng.random() < 0.4:
        return draw.one(Activation(ActivationKind.SIGMOID), draw.one_of((draw.gate, draw.image))())
    return draw.one(Activation(ActivationKind.SWISH), draw.image())


@_group("gelu", 0.5)
def _gelu(draw: _Draw) -> Graph:
    x = draw.one_of((draw.image, draw.tokens))()
    return draw.one(Gelu(approximate=draw.one_of((False, True))), x)


@_group("unary", 0.7)
def _unary(draw: _Draw) -> Graph:
    kinds = [kind for kind in UnaryKind if kind not in _NEED_POSITIVE]
    return draw.one(Unary(draw.one_of(kinds)), draw.image())


@_group("clip", 0.3)
def _clip(draw: _Draw) -> Graph:
    return draw.one(Clip(-1.0, 1.0), draw.image())


@_group("leaky_relu", 0.3)
def _leaky_relu(draw: _Draw) -> Graph:
    return draw.one(LeakyReLU(0.1), draw.image())


@_group("prelu", 0.4)
def _prelu(draw: _Draw) -> Graph:
    x = draw.image()
    return draw.one(PReLU((x[3],)), x)


@_group("elu", 0.2)
def _elu(draw: _Draw) -> Graph:
    return draw.one(ELU(), draw.image())


@_group("softmax", 0.6)
def _softmax(draw: _Draw) -> Graph:
    """Softmax over classes, or of attention."""
    if draw.rng.random() < 0.5:
        return draw.one(Softmax(), (draw.batch, draw.one_of((2, 10, 100, 1000, 1001))))
    heads, tokens = draw.heads_and_tokens()
    return draw.one(Softmax(), (draw.batch, heads * tokens, tokens))  # of rank 4 it might be an image, channels first


@_group("matmul", 0.6)
def _matmul(draw: _Draw) -> Graph:
    """Products of attention: queries with keys, or weights with values."""
    (heads, tokens), width = draw.heads_and_tokens(), draw.one_of((16, 32, 64))
    queries, weights = (draw.batch, heads, tokens, width), (draw.batch, heads, tokens, tokens)
    if draw.rng.random() < 0.5:
        return draw.one(MatMul(transpose_b=True), queries, queries)
    return draw.one(MatMul(), weights, queries)


@_group("layer_norm", 0.4)
def _layer_norm(draw: _Draw) -> Graph:
    return draw.one(LayerNorm(), draw.one_of((draw.image, draw.tokens))())


@_group("group_norm", 0.3)
def _group_norm(draw: _Draw) -> Graph:
    batch, side, _, channels = draw.image(1)
    channels = max(8, channels // 8 * 8)
    return draw.one(GroupNorm(draw.one_of((1, 4, 8, channels))), (batch, side, side, channels))


@_group("batch_norm", 0.6)
def _batch_norm(draw: _Draw) -> Graph:
    return draw.one(BatchNorm(), draw.image())


@_group("local_response_norm", 0.2)
def _local_response_norm(draw: _Draw) -> Graph:
    return draw.one(LocalResponseNorm(5), draw.image(2))


@_group("l2_norm", 0.2)
def _l2_norm(draw: _Draw) -> Graph:
    return draw.one(L2Norm(), (draw.batch, draw.one_of((64, 128, 256, 512, 1024, 2048))))


@_group("reduce", 0.4)
def _reduce(draw: _Draw) -> Graph:
    axes = draw.one_of(((1, 2), (1, 2), (3,)))
    kinds = (ReduceKind.MEAN, ReduceKind.SUM, ReduceKind.MAX)
    return draw.one(Reduce(draw.one_of(kinds), axes, keep_dims=True), draw.image(1))


@_group("arg_max", 0.2)
def _arg_max(draw: _Draw) -> Graph:
    return draw.one(ArgMax(), draw.one_of(((draw.batch, 1000), draw.image(1, 3))))


@_group("concat", 1)
def _concat(draw: _Draw) -> Graph:
    stage, count = draw.stage(1), draw.one_of((2, 2, 2, 3, 4))
    side = draw.side(stage)
    parts = [(draw.batch, side, side, draw.channels(stage)) for _ in range(count)]
    return draw.one(Concat(), *parts)


@_group("split", 0.4)
def _split(draw: _Draw) -> Graph:
    batch, side, _, channels = draw.image(1)
    parts = draw.one_of((2, 2, 3, 4))
    size = max(1, channels // parts)
    return draw.one(Split((size,) * parts), (batch, side, side, size * parts))


@_group("slice", 0.4)
def _slice(draw: _Draw) -> Graph:
    batch, side, _, channels = draw.image(1)
    kept = max(1, channels // 2)
    return draw.one(Slice((0, 0, 0, channels - kept), (batch, side, side, kept)), (batch, side, side, channels))


@_group("transpose", 0.6)
def _transpose(draw: _Draw) -> Graph:
    """Transposes of an image's layout, of attention's heads, or within a channel shuffle."""
    how = draw.rng.random()
    if how < 0.4:
        return draw.one(Transpose(draw.one_of(((0, 3, 1, 2), (0, 2, 3, 1)))), draw.image(1))
    if how < 0.7:
        heads, tokens = draw.heads_and_tokens()
        return draw.one(Transpose((0, 2, 1, 3)), (draw.batch, tokens, heads, draw.one_of((16, 32, 64))))
    batch, side, _, channels = draw.image(1)
    return draw.one(Transpose((0, 1, 3, 2)), (batch, side * side, 2, max(1, channels // 2)))


@_group("reshape", 0.3)
def _reshape(draw: _Draw) -> Graph:
    batch, side, _, channels = draw.image(1)
    return draw.one(Reshape((side * side, channels)), (batch, side, side, channels))


@_group("tile", 0.2)
def _tile(draw: _Draw) -> Graph:
    side, channels = draw.side(2), draw.channels(2)
    return draw.one(Tile((1, side, side, 1)), (draw.batch, 1, 1, channels))


@_group("depth_to_space", 0.3)
def _depth_to_space(draw: _Draw) -> Graph:
    batch, side, _, channels = draw.image(1, 4)
    return draw.one(DepthToSpace(2), (batch, side, side, 4 * channels))


@_group("space_to_depth", 0.3)
def _space_to_depth(draw: _Draw) -> Graph:
    batch, side, _, channels = draw.image(0, 4)
    return draw.one(SpaceToDepth(2), (batch, 2 * side, 2 * side, channels))


@_group("resize", 0.8)
def _resize(draw: _Draw) -> Graph:
    batch, side, _, channels = draw.image(2)
    times, mode = draw.one_of((2, 2, 2, 4)), draw.one_of(tuple(Interpolation))
    return draw.one(Resize((side * times, side * times), mode, half_pixel=True), (batch, side, side, channels))


@_group("pad", 0.5)
def _pad(draw: _Draw) -> Graph:
    amount = draw.one_of(((0, 1), (1, 1), (1, 1), (2, 2), (3, 3)))
    return draw.one(Pad(amount, amount), draw.image())


@_group("pad_axes", 0.3)
def _pad_axes(draw: _Draw) -> Graph:
    """More channels, as for a residual beside a convolution that adds some."""
    x = draw.image(1)
    return draw.one(PadAxes(((0, 0), (0, 0), (0, 0), (0, draw.channels(1)))), x)


@_group("cast", 0.2)
def _cast(draw: _Draw) -> Graph:
    return draw.one(Cast(DType.INT32), draw.image(1))


@_group("quantize", 1, is_border=True)
def _quantize(draw: _Draw) -> Graph:
    return draw.one(Quantize(), draw.image())


@_group("dequantize", 1, is_border=True)
def _dequantize(draw: _Draw) -> Graph:
    builder = GraphBuilder(draw.image(), dtypes=(DType.INT8,))
    return builder.build(builder.add("dequantize", Dequantize(), 0))


def kernel_shares(names: Iterable[str]) -> dict[str, float]:
    """Part of a profile that each of these groups gets, adding up to 1."""
    shares = {name: GROUPS[name].share if name in GROUPS else 0.3 for name in dict.fromkeys(names)}
    total = sum(shares.values())
    return {name: share / total for name, share in shares.items()}
