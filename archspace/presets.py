"""The search spaces that come with netlathe: proxyless, nas-bench-macro and tiny."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from netlathe.archspace.blocks import Block, ConvBlock, LinearHead, MBConv, Skip
from netlathe.archspace.errors import SpaceError, did_you_mean
from netlathe.archspace.ops import ActivationKind
from netlathe.archspace.spaces import SearchSpace

Stage = tuple[int, int, int]
"""Output channels, layers, stride of the first layer."""


def make_divisible(channels: float, divisor: int = 8) -> int:
    """The multiple of `divisor` nearest to `channels`, but not more than 10 % below it (MobileNetV2's rule)."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def _mbconvs(block: MBConv, kernels: Iterable[int], expands: Iterable[float]) -> tuple[MBConv, ...]:
    """The block in every combination of kernel and expansion."""
    kernels = tuple(kernels)
    return tuple(
        MBConv(block.cin, block.cout, block.height, block.width, block.stride, k, e, block.activation)
        for e in expands
        for k in kernels
    )


def _stages(
    stages: Iterable[Stage], cin: int, size: int, kernels: tuple[int, ...], expands: tuple[float, ...]
) -> tuple[list[tuple[Block, ...]], int, int]:
    """Searchable positions of all stages, then the channels and size behind them. A layer that keeps its shape may
    also be skipped."""
    positions: list[tuple[Block, ...]] = []
    for cout, layers, first_stride in stages:
        for layer in range(layers):
            stride = first_stride if layer == 0 else 1
            candidates: tuple[Block, ...] = _mbconvs(MBConv(cin, cout, size, size, stride), kernels, expands)
            if stride == 1 and cin == cout:
                candidates = (*candidates, Skip(cin, cout, size, size))
            positions.append(candidates)
            size, _, cin = candidates[0].output_shape
    return positions, cin, size


def proxyless(resolution: int = 224, width: float = 1.0, classes: int = 1000) -> SearchSpace:
    """ProxylessNAS (arXiv:1812.00332): 21 searchable layers, {3,5,7} x {e3,e6}, or skip where the shape stays."""
    stem, first = make_divisible(32 * width), make_divisible(16 * width)
    plan = ((24, 4, 2), (40, 4, 2), (80, 4, 2), (96, 4, 1), (192, 4, 2), (320, 1, 1))
    stages = [(make_divisible(cout * width), layers, stride) for cout, layers, stride in plan]
    stem_block = ConvBlock(3, stem, resolution, resolution, 2)
    size = stem_block.output_shape[0]
    searchable, cin, last = _stages(stages, first, size, (3, 5, 7), (3, 6))
    head = make_divisible(1280 * max(1.0, width))
    name = "proxyless" if width == 1 else f"proxyless_w{width:g}"
    return SearchSpace(
        name,
        (
            (stem_block,),
            (MBConv(stem, first, size, size, kernel=3, expand=1),),
            *searchable,
            (ConvBlock(cin, head, last, last, kernel=1),),
            (LinearHead(head, classes, last, last),),
        ),
    )


def nas_bench_macro(resolution: int = 32, width: float = 1.0, classes: int = 10) -> SearchSpace:
    """NAS-Bench-Macro (arXiv:2103.11922): 8 layers of {identity, MBConv k3 e3, MBConv k5 e6}, in this order, so that
    the choices are the benchmark's own digits."""
    relu = ActivationKind.RELU
    cin, size = make_divisible(32 * width), resolution
    positions: list[tuple[Block, ...]] = [(ConvBlock(3, cin, size, size, activation=relu),)]
    for layers in (2, 3, 3):
        cout = 2 * cin
        for layer in range(layers):
            stride = 2 if layer == 0 else 1
            mbconv3 = MBConv(cin, cout, size, size, stride, kernel=3, expand=3, activation=relu)
            mbconv5 = MBConv(cin, cout, size, size, stride, kernel=5, expand=6, activation=relu)
            positions.append((Skip(cin, cout, size, size, stride), mbconv3, mbconv5))
            size, _, cin = mbconv3.output_shape
    positions.append((ConvBlock(cin, 1280, size, size, kernel=1, activation=relu),))
    positions.append((LinearHead(1280, classes, size, size),))
    return SearchSpace("nas-bench-macro", tuple(positions))


def tiny(resolution: int = 32, width: float = 1.0, classes: int = 10) -> SearchSpace:
    """For images of 8 to 32 pixels: 10 searchable layers of {3,5,7} x {e2,e4,e6} or skip, 93 distinct blocks."""
    plan = ((24, 2, 2), (40, 2, 2), (64, 2, 1), (96, 2, 2), (128, 2, 1))
    stages = [(make_divisible(cout * width), layers, stride) for cout, layers, stride in plan]
    stem = make_divisible(16 * width)
    searchable, cin, last = _stages(stages, stem, resolution, (3, 5, 7), (2, 4, 6))
    head = make_divisible(256 * width)
    return SearchSpace(
        "tiny",
        (
            (ConvBlock(3, stem, resolution, resolution),),
            *searchable,
            (ConvBlock(cin, head, last, last, kernel=1),),
            (LinearHead(head, classes, last, last),),
        ),
    )


PRESETS: dict[str, Callable[..., SearchSpace]] = {
    "proxyless": proxyless,
    "nas-bench-macro": nas_bench_macro,
    "tiny": tiny,
}


def load_space(
    name: str, *, resolution: int | None = None, width: float | None = None, classes: int | None = None
) -> SearchSpace:
    """A preset by name, or a space's JSON file by path. Raises SpaceError for an unknown name and FormatError for a
    bad file; the options are the presets' and do not apply to a file."""
    options = {"resolution": resolution, "width": width, "classes": classes}
    given = {key: value for key, value in options.items() if value is not None}
    if width is not None and not 0 < width <= 16:
        raise SpaceError(f"the width multiplier must be above 0 and at most 16, got {width}")
    for key in ("resolution", "classes"):
        if key in given and not 1 <= given[key] <= 1 << 16:
            raise SpaceError(f"{key} must lie between 1 and 65536, got {given[key]}")
    if name in PRESETS:
        return PRESETS[name](**given)
    if Path(name).is_file():
        if given:
            raise SpaceError(f"{name}: {', '.join(given)} cannot be changed in a space read from a file")
        return SearchSpace.load(name)
    raise SpaceError(
        f"unknown space {name!r}{did_you_mean(name, PRESETS)}: neither a preset ({', '.join(PRESETS)}) nor a space's "
        "JSON file"
    )
