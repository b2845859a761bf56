"""Networks of random blocks, as different as real ones: they tell what a network costs beyond its kernels."""

from __future__ import annotations

import random

from netlathe.archspace.blocks import Block, ConvBlock, LinearHead, MBConv, Pool, SeparableConv
from netlathe.archspace.ops import ActivationKind
from netlathe.archspace.presets import make_divisible
from netlathe.archspace.spaces import Architecture

_RESOLUTIONS = (128, 160, 192, 224, 224)
_MOST_MACS = 1_000_000_000
_MOBILE = (ActivationKind.RELU6, ActivationKind.RELU, ActivationKind.HARD_SWISH, ActivationKind.SWISH)


def sample_networks(count: int, seed: int = 0) -> list[Architecture]:
    """So many different networks of inverted bottlenecks, separable and plain convolutions, each of them of one sort
    mostly; equal arguments give equal networks."""
    rng = random.Random(seed)
    found: dict[str, Architecture] = {}
    while len(found) < count:
        network = _draw(rng, f"sampled_{seed}_{len(found)}")
        if network.macs <= _MOST_MACS:
            found.setdefault(network.graph().key, network)
    return list(found.values())


def _draw(rng: random.Random, name: str) -> Architecture:
    sort = rng.choice(("mobile", "mobile", "separable", "plain"))
    width = rng.choice((0.5, 0.75, 1.0, 1.0, 1.4))
    resolution = rng.choice(_RESOLUTIONS)
    activation = ActivationKind.RELU if sort == "plain" else rng.choice(_MOBILE)
    first = make_divisible(32 * width)
    blocks: list[Block] = [ConvBlock(3, first, resolution, resolution, 2, activation=activation)]
    if sort == "plain":
        size, _, cin = blocks[-1].output_shape
        blocks.append(Pool("max", cin, size, size, 3, 2))
    for cout in (24, 40, 96, 192):
        for layer in range(rng.randint(1, 4)):
            blocks.append(_block(rng, sort, blocks[-1], make_divisible(cout * width), 1 if layer else 2, activation))
    size, _, cin = blocks[-1].output_shape
    head = make_divisible(rng.choice((512, 960, 1280)) * width)
    blocks += [ConvBlock(cin, head, size, size, kernel=1, activation=activation), LinearHead(head, 1000, size, size)]
    return Architecture(name, tuple(blocks))


def _block(rng: random.Random, sort: str, before: Block, cout: int, stride: int, activation: ActivationKind) -> Block:
    size, _, cin = before.output_shape
    kernel = rng.choice((3, 3, 5))
    if sort == "plain":
        return ConvBlock(cin, cout, size, size, stride, kernel=rng.choice((1, 3, 3)), activation=activation)
    if sort == "separable":
        return SeparableConv(cin, cout, size, size, stride, kernel, activation)
    expand, se = rng.choice((3, 4, 6)), rng.choice((0, 0, 0.25))
    return MBConv(cin, cout, size, size, stride, kernel, expand, activation, se)
