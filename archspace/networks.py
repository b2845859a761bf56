"""Published networks as architectures, to compare with: MobileNetV2, MnasNet-B1, ProxylessNAS mobile / cpu / gpu."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from netlathe.archspace.blocks import Block, ConvBlock, LinearHead, MBConv
from netlathe.archspace.errors import SpaceError, did_you_mean
from netlathe.archspace.ops import ActivationKind
from netlathe.archspace.presets import make_divisible
from netlathe.archspace.spaces import Architecture

Layer = tuple[int, float, int, int]
"""Kernel, expansion, stride, output channels."""


def _mobile_chain(
    name: str,
    stem: int,
    layers: Iterable[Layer],
    head: int,
    *,
    resolution: int,
    classes: int,
    activation: ActivationKind = ActivationKind.RELU6,
) -> Architecture:
    """3x3 stem of stride 2, MBConv layers, 1x1 convolution to `head` channels, linear classifier."""
    blocks: list[Block] = [ConvBlock(3, stem, resolution, resolution, 2, activation=activation)]
    for kernel, expand, stride, cout in layers:
        size, _, cin = blocks[-1].output_shape
        blocks.append(MBConv(cin, cout, size, size, stride, kernel, expand, activation))
    size, _, cin = blocks[-1].output_shape
    blocks.append(ConvBlock(cin, head, size, size, kernel=1, activation=activation))
    blocks.append(LinearHead(head, classes, size, size))
    return Architecture(name, tuple(blocks))


def _repeat(kernel: int, expand: float, stride: int, cout: int, times: int) -> list[Layer]:
    """A stage: only its first layer has the stride."""
    return [(kernel, expand, stride if i == 0 else 1, cout) for i in range(times)]


def mobilenet_v2(width: float = 1.0, resolution: int = 224, classes: int = 1000) -> Architecture:
    """MobileNetV2 (arXiv:1801.04381, table 2). At 1.0 and 224: 300.8 M MACs, 3.50 M parameters."""
    plan = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    layers: list[Layer] = []
    for expand, channels, times, stride in plan:
        layers += _repeat(3, expand, stride, make_divisible(channels * width), times)
    stem, head = make_divisible(32 * width), make_divisible(1280 * max(1.0, width))
    name = "mobilenet_v2"
    if (width, resolution) != (1.0, 224):
        name += f"_{width:g}" + (f"_{resolution}" if resolution != 224 else "")
    return _mobile_chain(name, stem, layers, head, resolution=resolution, classes=classes)


def mnasnet_b1() -> Architecture:
    """MnasNet-B1 (arXiv:1807.11626, without squeeze-excite): 314.4 M MACs, 4.38 M parameters."""
    layers = _repeat(3, 1, 1, 16, 1) + _repeat(3, 3, 2, 24, 3) + _repeat(5, 3, 2, 40, 3) + _repeat(5, 6, 2, 80, 3)
    layers += _repeat(3, 6, 1, 96, 2) + _repeat(5, 6, 2, 192, 4) + _repeat(3, 6, 1, 320, 1)
    return _mobile_chain(
        "mnasnet_b1", 32, layers, 1280, resolution=224, classes=1000, activation=ActivationKind.RELU
    )  # fmt: skip


# The released configurations of ProxylessNAS (arXiv:1812.00332), one word a layer.
_PROXYLESS = {
    "mobile": (
        32,
        "k3e1s1c16 k5e3s2c32 k3e3s1c32 k7e3s2c40 k3e3s1c40 k5e3s1c40 k5e3s1c40 k7e6s2c80 k5e3s1c80 k5e3s1c80 k5e3s1c80 "
        "k5e6s1c96 k5e3s1c96 k5e3s1c96 k5e3s1c96 k7e6s2c192 k7e6s1c192 k7e3s1c192 k7e3s1c192 k7e6s1c320",
        1280,
    ),
    "cpu": (
        40,
        "k3e1s1c24 k3e6s2c32 k3e3s1c32 k3e3s1c32 k3e3s1c32 k3e6s2c48 k3e3s1c48 k3e3s1c48 k5e3s1c48 k3e6s2c88 k3e3s1c88 "
        "k5e6s1c104 k3e3s1c104 k3e3s1c104 k3e3s1c104 k5e6s2c216 k5e3s1c216 k5e3s1c216 k3e3s1c216 k5e6s1c360",
        1432,
    ),
    "gpu": (
        40,
        "k3e1s1c24 k5e3s2c32 k7e3s2c56 k3e3s1c56 k7e6s2c112 k5e3s1c112 k5e6s1c128 k3e3s1c128 k5e3s1c128 k7e6s2c256 "
        "k7e6s1c256 k7e6s1c256 k5e6s1c256 k7e6s1c432",
        1728,
    ),
}


def proxyless_network(target: str) -> Architecture:
    """The network that ProxylessNAS found for 'mobile' (Pixel 1), 'cpu' or 'gpu'."""
    stem, words, head = _PROXYLESS[target]
    parsed = (re.findall(r"\d+", word) for word in words.split())
    layers = [(int(k), float(e), int(s), int(c)) for k, e, s, c in parsed]
    return _mobile_chain(f"proxyless_{target}", stem, layers, head, resolution=224, classes=1000)


NETWORKS: dict[str, Callable[[], Architecture]] = {
    "mobilenet_v2": lambda: mobilenet_v2(),
    "mnasnet_b1": mnasnet_b1,
    "proxyless_mobile": lambda: proxyless_network("mobile"),
    "proxyless_cpu": lambda: proxyless_network("cpu"),
    "proxyless_gpu": lambda: proxyless_network("gpu"),
}


def network(name: str) -> Architecture:
    """A published network by name; mobilenet_v2 takes a width and a resolution: mobilenet_v2_0.5_160.

    Raises SpaceError for an unknown name.
    """
    if name in NETWORKS:
        return NETWORKS[name]()
    match = re.fullmatch(r"mobilenet_v2_(\d+(?:\.\d+)?)(?:_(\d+))?", name)
    if match:
        width, resolution = float(match[1]), int(match[2] or 224)
        if 0.05 <= width <= 8 and 32 <= resolution <= 4096:
            return mobilenet_v2(width, resolution)
        raise SpaceError(f"{name!r}: the width must lie in 0.05..8 and the resolution in 32..4096 pixels")
    known = ", ".join([*NETWORKS, "mobilenet_v2_WIDTH", "mobilenet_v2_WIDTH_RESOLUTION"])
    raise SpaceError(f"unknown network {name!r}{did_you_mean(name, NETWORKS)}; known: {known}")
