"""Equalized channels: the network computes what it did, and the weights that make and read a channel are alike."""

from __future__ import annotations

import numpy as np
import pytest
from networks import RELU, Drawn, run

from benchmarks.mixed_accuracy import unequal
from netlathe.archspace.forms.weights import Weights, random_weights
from netlathe.archspace.graph import Graph, GraphBuilder
from netlathe.archspace.networks import mobilenet_v2
from netlathe.archspace.ops import (
    Activation,
    ActivationKind,
    Add,
    Concat,
    Conv2d,
    FullyConnected,
    GlobalAvgPool,
    Mul,
    Op,
    PReLU,
    Reshape,
    Split,
)
from netlathe.compress.equalization import equalized

RELU6 = Activation(ActivationKind.RELU6)


def in_a_row(*ops: Op, channels: int = 3) -> Graph:
    builder = GraphBuilder((1, 6, 6, channels))
    x = 0
    for index, op in enumerate(ops):
        x = builder.add(f"n{index}", op, x)
    return builder.build(x)


def made_and_read(weights: Weights, maker: str, reader: str) -> tuple[np.ndarray, np.ndarray]:
    """The largest weight that makes each channel, and the largest that reads it."""
    made, read = weights[maker]["kernel"], weights[reader]["kernel"]
    return np.abs(made).max((1, 2, 3)), np.abs(read).max((0, 2, 3))


def alike(graph: Graph, weights: Weights) -> bool:
    """Whether results are those of the equalized weights, to rounding."""
    pairs = zip(run(graph, weights), run(graph, equalized(graph, weights)), strict=True)
    return all(np.allclose(a, b, rtol=1e-4, atol=1e-4 * float(np.abs(a).max())) for a, b in pairs)


def test_a_pair_meets_at_the_geometric_mean_of_both_ends() -> None:
    graph = in_a_row(Conv2d(8, (3, 3)), RELU, Conv2d(5))
    weights = unequal_by_hand(random_weights(graph, 1), "n0", np.geomspace(1e-3, 1e3, 8))
    made, read = made_and_read(weights, "n0", "n2")
    found = equalized(graph, weights)
    after, behind = made_and_read(found, "n0", "n2")
    assert np.allclose(after, np.sqrt(made * read), rtol=0.01)
    assert np.allclose(behind, np.sqrt(made * read), rtol=0.01)
    factors = after / made
    assert np.allclose(found["n0"]["bias"], weights["n0"]["bias"] * factors, rtol=1e-5)
    assert np.array_equal(found["n2"]["bias"], weights["n2"]["bias"])


def unequal_by_hand(weights: Weights, layer: str, factors: np.ndarray) -> Weights:
    """The layer's channels multiplied, and nothing undone behind it."""
    shape = (-1, *(1,) * (weights[layer]["kernel"].ndim - 1))
    kernel = weights[layer]["kernel"] * factors.reshape(shape)
    return {**weights, layer: {**weights[layer], "kernel": kernel.astype(np.float32)}}


@pytest.mark.parametrize("seed", range(12))
def test_a_network_of_any_layers_computes_what_it_did(seed: int) -> None:
    graph = Drawn(seed).graph
    assert alike(graph, random_weights(graph, seed))


def residual() -> Graph:
    builder = GraphBuilder((1, 6, 6, 3))
    x = builder.add("stem", Conv2d(8, (3, 3)), 0)
    inner = builder.add("relu", RELU, builder.add("inner", Conv2d(8, (3, 3)), x))
    both = builder.add("sum", Add(), x, builder.add("outer", Conv2d(8), inner))
    return builder.build(builder.add("last", Conv2d(4), both))


def joined() -> Graph:
    builder = GraphBuilder((1, 6, 6, 3))
    left = builder.add("left_relu", RELU, builder.add("left", Conv2d(8), 0))
    right = builder.add("wide", Conv2d(6, (3, 3), groups=6), builder.add("right", Conv2d(6), 0))
    both = builder.add("join", Concat(), left, right)
    halves = builder.add("halves", Split((5, 9)), both)
    builder.add("first", Conv2d(4), halves)
    return builder.build(builder.add("both", Add(), halves + 2, builder.add("second", Conv2d(4), halves + 1)))


CHAINS = {
    "depthwise": in_a_row(Conv2d(8), RELU, Conv2d(8, (3, 3), groups=8), RELU, Conv2d(4)),
    "multiplied": in_a_row(Conv2d(8), Conv2d(16, (3, 3), groups=8), Conv2d(4)),
    "grouped": in_a_row(Conv2d(8), RELU, Conv2d(6, (3, 3), groups=2), Conv2d(4)),
    "slopes": in_a_row(Conv2d(8), PReLU((1, 1, 8)), Conv2d(4)),
    "pooled": in_a_row(Conv2d(8), RELU, GlobalAvgPool(), FullyConnected(5)),
    "flat": in_a_row(Conv2d(8), RELU, Reshape((6 * 6 * 8,)), FullyConnected(5)),
    "residual": residual(),
    "joined": joined(),
}


READERS = {
    "depthwise": "n2", "multiplied": "n1", "grouped": "n3", "slopes": "n2", "pooled": "n3", "flat": "n3",
    "joined": "wide",
}  # fmt: skip
"""Readers of the channels that are rescaled by hand; those of the others, `unequal` finds."""
MAKERS = {"grouped": "n2", "joined": "right"}


def rescaled(name: str, weights: Weights) -> Weights:
    """Weights of the same function, some of whose channels are up to 500 times as large as others beside them."""
    if name not in READERS:
        return unequal(CHAINS[name], weights, 500.0, 3)
    maker, reader = MAKERS.get(name, "n0"), READERS[name]
    factors = np.geomspace(1, 500, len(weights[maker]["bias"]))
    made, kernel = weights[maker], weights[reader]["kernel"]
    if kernel.shape[1] == 1:
        divided = kernel / np.repeat(factors, len(kernel) // len(factors)).reshape(-1, 1, 1, 1)
    else:
        tiled = np.tile(factors, kernel.shape[1] // len(factors))
        divided = kernel / tiled.reshape(-1, *(1,) * (kernel.ndim - 2))
    wide = made["kernel"] * factors.reshape(-1, 1, 1, 1)
    return {
        **weights,
        maker: {"kernel": wide.astype(np.float32), "bias": (made["bias"] * factors).astype(np.float32)},
        reader: {**weights[reader], "kernel": divided.astype(np.float32)},
    }


@pytest.mark.parametrize("name", CHAINS)
def test_unlike_channels_become_what_they_were(name: str) -> None:
    """Whatever the factors were, the result is the same, as they are all undone."""
    graph = CHAINS[name]
    weights = random_weights(graph, 2)
    start, changed = equalized(graph, weights), rescaled(name, weights)
    assert any(not np.array_equal(changed[node]["kernel"], weights[node]["kernel"]) for node in CONVOLUTIONS[name])
    pairs = zip(run(graph, weights), run(graph, changed), strict=True)
    assert all(np.allclose(a, b, rtol=1e-3, atol=1e-3 * float(np.abs(a).max())) for a, b in pairs)
    assert alike(graph, weights)
    assert alike(graph, changed)
    again = equalized(graph, changed)
    for node in CONVOLUTIONS[name]:
        for key, array in start[node].items():
            assert np.allclose(again[node][key], array, rtol=0.05, atol=1e-6), (node, key)


CONVOLUTIONS = {name: [node.name for node in graph.nodes if node.op.has_macs] for name, graph in CHAINS.items()}


def test_channels_that_a_residual_block_reads_and_makes_settle() -> None:
    """Two channels that a layer hands to one another, where moving each all the way would swing for ever."""
    builder = GraphBuilder((1, 4, 4, 2))
    x = builder.add("stem", Conv2d(2), 0)
    both = builder.add("sum", Add(), x, builder.add("inner", Conv2d(2), x))
    graph = builder.build(builder.add("last", Conv2d(2), both))
    drawn = random_weights(graph).items()
    weights = {name: {key: np.full_like(a, 1e-6) for key, a in kept.items()} for name, kept in drawn}
    weights["inner"]["kernel"][:, :, 0, 0] = [[0, 4], [1, 0]]
    found = equalized(graph, weights)["inner"]["kernel"][:, :, 0, 0]
    assert found[0, 1] == pytest.approx(2, rel=0.01)
    assert found[1, 0] == pytest.approx(2, rel=0.01)


def same(graph: Graph, weights: Weights, nodes: set[str]) -> bool:
    found = equalized(graph, weights)
    return all(np.array_equal(found[node][key], weights[node][key]) for node in nodes for key in ("kernel", "bias"))


def test_channels_that_something_else_takes_stay_as_they_are() -> None:
    """relu6, a product, a sigmoid, an output, and the input."""
    clipped = in_a_row(Conv2d(8), RELU6, Conv2d(4))
    assert same(clipped, random_weights(clipped, 0), {"n0", "n2"})
    gated = in_a_row(Conv2d(8), Activation(ActivationKind.SIGMOID), Conv2d(4))
    assert same(gated, random_weights(gated, 0), {"n0", "n2"})
    builder = GraphBuilder((1, 6, 6, 3))
    x = builder.add("a", Conv2d(8), 0)
    product = builder.add("product", Mul(), x, x)
    multiplied = builder.build(builder.add("b", Conv2d(4), product))
    assert same(multiplied, random_weights(multiplied, 0), {"a", "b"})
    builder = GraphBuilder((1, 6, 6, 3))
    x = builder.add("a", Conv2d(8), 0)
    shown = builder.build(x, builder.add("b", Conv2d(4), x))
    assert same(shown, random_weights(shown, 0), {"a", "b"})


def test_dead_channels_and_those_that_nobody_reads_stay() -> None:
    graph = in_a_row(Conv2d(4), RELU, Conv2d(4))
    weights = {name: {key: a.copy() for key, a in kept.items()} for name, kept in random_weights(graph, 0).items()}
    weights["n0"]["kernel"][1] = 0
    weights["n2"]["kernel"][:, 2] = 0
    found = equalized(graph, weights)
    assert np.array_equal(found["n0"]["kernel"][1:3], weights["n0"]["kernel"][1:3])
    assert np.isfinite(found["n2"]["kernel"]).all()


def test_a_mobile_network_keeps_its_results_and_the_weights_that_it_was_given() -> None:
    """MobileNetV2's bottlenecks are linear; between its relu6 nothing moves."""
    graph = mobilenet_v2(0.35, 32, 10).graph()
    weights = random_weights(graph, 0)
    changed = unequal(graph, weights, 64.0, 0)
    before = {node: arrays["kernel"].copy() for node, arrays in changed.items()}
    found = equalized(graph, changed)
    pairs = zip(run(graph, changed), run(graph, found), strict=True)
    assert all(np.allclose(a, b, rtol=1e-4, atol=1e-4 * float(np.abs(a).max())) for a, b in pairs)
    assert all(np.array_equal(changed[node]["kernel"], kernel) for node, kernel in before.items())
    moved = {node for node, arrays in found.items() if not np.array_equal(arrays["kernel"], before[node])}
    assert len(moved) > len(graph.nodes) // 5
    depthwise = {node.name for node in graph.nodes if isinstance(node.op, Conv2d) and node.op.groups > 1}
    assert depthwise
    assert not moved & depthwise
