"""A device whose latency law is known: what the predictor has to find out."""

from __future__ import annotations

import dataclasses

import numpy as np

from netlathe.archspace.blocks import ConvBlock, LinearHead, MBConv
from netlathe.archspace.graph import Graph, chain
from netlathe.archspace.ops import Activation, ActivationKind, Conv2d
from netlathe.archspace.records import LatencyRecord, Measurement, Round, Setup, Status

SETUP = Setup("bench", "soc", "linux", "litert", "2.3.0", "xnnpack")
CALL_MS = 0.01
MS_PER_BYTE = 1.2e-7
CLIFF = 40.0


def ms_per_mac(op: object, channels: int) -> float:
    """Pointwise 20 GMAC/s, dense a little less, depthwise 7; 7x7 depthwise falls off a cliff."""
    if not isinstance(op, Conv2d):
        return 2e-7
    if op.groups == channels:
        return 1.5e-7 * (CLIFF if op.kernel == (7, 7) else 1.0)
    return 5e-8 if op.kernel == (1, 1) else 8e-8


def true_latency_ms(graph: Graph) -> float:
    """a + sum over ops of (MACs * rate of the op + bytes * rate); fused relu6 is free, an empty graph takes nothing."""
    if not graph.nodes:
        return 0.0
    total = CALL_MS
    for (node, inputs, _), cost in zip(graph.steps(), graph.costs(), strict=True):
        if isinstance(node.op, Activation) and node.op.function is ActivationKind.RELU6:
            continue
        total += cost.macs * ms_per_mac(node.op, inputs[0][-1]) + MS_PER_BYTE * (cost.bytes_read + cost.bytes_written)
    return total


def random_mbconv(rng: np.random.Generator, kernels: tuple[int, ...] = (3, 5, 7)) -> MBConv:
    height = int(rng.choice([7, 14, 20, 28, 40, 56, 80]))
    return MBConv(
        cin=int(rng.choice([16, 24, 32, 40, 64, 96])),
        cout=int(rng.choice([16, 24, 32, 40, 64, 96])),
        height=height,
        width=height,
        stride=int(rng.choice([1, 2])),
        kernel=int(rng.choice(kernels)),
        expand=float(rng.choice([1, 3, 6])),
        se=float(rng.choice([0.0, 0.25])),
    )


def random_blocks(n: int, seed: int = 0, kernels: tuple[int, ...] = (3, 5, 7)) -> list[MBConv]:
    """n different blocks."""
    rng, found = np.random.default_rng(seed), {}
    while len(found) < n:
        block = random_mbconv(rng, kernels)
        found[block.name] = block
    return list(found.values())


def record(name: str, graph: Graph, latency_ms: float, kind: str = "block", setup: Setup = SETUP) -> LatencyRecord:
    return LatencyRecord(name, kind, graph, setup, Status.OK, Measurement((Round((latency_ms,)),)))


def block_records(blocks: list[MBConv], noise: float = 0.0, seed: int = 0) -> list[LatencyRecord]:
    rng = np.random.default_rng(seed)
    factors = np.exp(noise * rng.standard_normal(len(blocks)))
    graphs = [block.graph() for block in blocks]
    return [record(b.name, g, true_latency_ms(g) * f) for b, g, f in zip(blocks, graphs, factors.tolist(), strict=True)]


def head_and_stem_records() -> list[LatencyRecord]:
    """A few stems and heads, which every network has and no MBConv."""
    stems = [ConvBlock(3, c, s, s, 2) for c, s in ((16, 96), (24, 96), (32, 112), (16, 128))]
    heads = [LinearHead(c, k, s, s) for c, k, s in ((96, 10, 7), (64, 1000, 7), (128, 100, 4), (320, 1000, 7))]
    return [record(b.name, b.graph(), true_latency_ms(b.graph())) for b in (*stems, *heads)]


def random_network(seed: int) -> Graph:
    """Stem, three to eight blocks, head."""
    rng = np.random.default_rng(seed)
    side, channels = 80, 16
    blocks = [ConvBlock(3, channels, 2 * side, 2 * side, 2)]
    for _ in range(int(rng.integers(3, 9))):
        cout, stride = int(rng.choice([16, 24, 32, 64])), int(rng.choice([1, 2]))
        kernel, expand = int(rng.choice([3, 5])), float(rng.choice([3, 6]))
        blocks.append(MBConv(channels, cout, side, side, stride, kernel=kernel, expand=expand))
        side, channels = -(-side // stride), cout
    blocks.append(LinearHead(channels, 100, side, side))
    return chain((f"b{i:02d}", block.graph()) for i, block in enumerate(blocks))


def unscoped(graph: Graph) -> Graph:
    """The same ops without the names of blocks."""
    nodes = (dataclasses.replace(n, name=n.name.replace("/", "."), scope="") for n in graph.nodes)
    return Graph(graph.inputs, tuple(nodes))


def network_records(seeds: range, slope: float, offset_ms: float, noise: float = 0.0) -> list[LatencyRecord]:
    """Networks that take offset + slope * the sum of their blocks."""
    records = []
    for seed in seeds:
        graph = random_network(seed)
        sum_ms = sum(map(true_latency_ms, graph.segments()))
        factor = float(np.exp(noise * np.random.default_rng(seed).standard_normal()))
        records.append(record(f"net{seed}", graph, (offset_ms + slope * sum_ms) * factor, "network"))
    return records
