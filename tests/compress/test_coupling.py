"""Groups of coupled channels over whole networks, and the networks that are left when some are cut."""

from __future__ import annotations

import math

import numpy as np
import pytest
from networks import RELU, Drawn, masked, random_keep, run

from netlathe.archspace.forms.weights import check_weights, random_weights
from netlathe.archspace.graph import Graph, GraphBuilder
from netlathe.archspace.networks import network
from netlathe.archspace.ops import (
    Activation,
    ActivationKind,
    Add,
    Concat,
    Constant,
    Conv2d,
    FullyConnected,
    GlobalAvgPool,
    MatMul,
    Mul,
    Pool2d,
    PReLU,
    Reduce,
    ReduceKind,
    Reshape,
    Slice,
    Softmax,
    Split,
    Transpose,
)
from netlathe.compress import CompressError, CoupledChannels, couple_channels, coupling, pruned


def groups(coupled: CoupledChannels) -> list[tuple[str, int, tuple[str, ...], tuple[str, ...]]]:
    return [(g.name, g.width, g.producers, g.consumers) for g in coupled.groups]


def test_a_sum_couples_what_it_adds_and_a_depthwise_convolution_passes_it_on() -> None:
    builder = GraphBuilder((1, 8, 8, 3))
    x = builder.add("stem", Conv2d(16), 0)
    y = builder.add("depthwise", Conv2d(24, (3, 3), groups=24), builder.add("expand", Conv2d(24), x))
    y = builder.add("sum", Add(), x, builder.add("project", Conv2d(16), y))
    coupled = couple_channels(builder.build(builder.add("head", FullyConnected(10), y)))
    assert groups(coupled) == [
        ("stem", 16, ("stem", "project"), ("expand", "head")),
        ("expand", 24, ("expand", "depthwise"), ("project",)),
    ]
    (fixed,) = coupled.fixed
    assert (fixed.layer, fixed.channels, fixed.reason) == ("head", 10, "the network's output has them")


def test_joined_and_split_channels_keep_their_ranges() -> None:
    builder = GraphBuilder((1, 8, 8, 3))
    x = builder.add("a", Conv2d(8), 0)
    joined = builder.add("join", Concat(), x, builder.add("b", Conv2d(12), x))
    first = builder.add("split", Split((4, 16)), joined)
    y = builder.add("c", Conv2d(4), first + 1)
    z = builder.add("sum", Add(), y, first)
    graph = builder.build(builder.add("head", Conv2d(2), z))
    coupled = couple_channels(graph)
    assert groups(coupled) == [
        ("a", 4, ("a", "c"), ("b", "head")),
        ("a#2", 4, ("a",), ("b", "c")),
        ("b", 12, ("b",), ("c",)),
    ]
    cut, _ = pruned(coupled, random_weights(graph), {"a": [1, 2], "a#2": [0], "b": [3, 4, 5]})
    assert [node.op for node in cut.nodes if isinstance(node.op, Split)] == [Split((2, 4))]


def test_groups_have_names_of_their_own() -> None:
    builder = GraphBuilder((1, 8, 8, 3))
    x = builder.add("a#2", Conv2d(6), builder.add("a", Conv2d(8), 0))
    parts = builder.add("split", Split((4, 4)), builder.add("relu", RELU, 1))
    y = builder.add("b", Conv2d(5), builder.add("join", Concat(), parts + 1, x, parts))
    assert [group.name for group in couple_channels(builder.build(y)).groups] == ["a", "a#3", "a#2"]


def test_squeeze_excite_follows_the_channels_that_it_scales() -> None:
    builder = GraphBuilder((1, 8, 8, 3))
    x = builder.add("stem", Conv2d(16), 0)
    y = builder.add("squeeze", FullyConnected(4), builder.add("mean", GlobalAvgPool(keep_dims=True), x))
    y = builder.add("gate", Activation(ActivationKind.SIGMOID), builder.add("excite", FullyConnected(16), y))
    graph = builder.build(builder.add("head", Conv2d(5), builder.add("scale", Mul(), x, y)))
    assert groups(couple_channels(graph)) == [
        ("stem", 16, ("stem", "excite"), ("squeeze", "head")),
        ("squeeze", 4, ("squeeze",), ("excite",)),
    ]


def test_a_flattened_image_has_a_column_of_each_pixel_for_a_channel() -> None:
    builder = GraphBuilder((1, 3, 2, 3))
    x = builder.add("slopes", PReLU((4,)), builder.add("stem", Conv2d(4), 0))
    graph = builder.build(builder.add("head", FullyConnected(5), builder.add("flat", Reshape((24,)), x)))
    weights = random_weights(graph)
    cut, left = pruned(couple_channels(graph), weights, {"stem": [1, 3]})
    columns = weights["head"]["kernel"].reshape(5, 3, 2, 4)[..., [1, 3]].reshape(5, 12)
    np.testing.assert_array_equal(left["head"]["kernel"], columns)
    np.testing.assert_array_equal(left["slopes"]["slopes"], weights["slopes"]["slopes"][[1, 3]])
    assert cut.shapes[3] == (1, 12)


def test_few_groups_lose_the_same_channels_each_and_many_are_lost_whole() -> None:
    few, many = (grouped(groups) for groups in (2, 8))
    assert [(g.units, g.channels_per_unit, g.producers) for g in few.groups] == [(8, 2, ("a",)), (16, 2, ("b",))]
    assert [(g.units, g.channels_per_unit, g.producers) for g in many.groups] == [(8, 2, ("a", "b"))]
    cut, left = pruned(few, random_weights(few.graph), {"a": [0, 3, 5]})
    assert cut.nodes[1].op == Conv2d(32, groups=2)
    assert left["b"]["kernel"].shape == (32, 3, 1, 1)
    cut, left = pruned(many, random_weights(many.graph), {"a": [2, 7]})
    assert (cut.nodes[0].op, cut.nodes[1].op) == (Conv2d(4), Conv2d(8, groups=2))
    assert left["b"]["kernel"].shape == (8, 2, 1, 1)


def grouped(groups: int) -> CoupledChannels:
    builder = GraphBuilder((1, 8, 8, 3))
    x = builder.add("b", Conv2d(32, groups=groups), builder.add("a", Conv2d(16), 0))
    return couple_channels(builder.build(builder.add("head", Conv2d(5), x)))


def test_shuffled_channels_are_found_where_they_went() -> None:
    builder = GraphBuilder((1, 8, 8, 3))
    x = builder.add("apart", Reshape((8, 8, 2, 6)), builder.add("a", Conv2d(12), 0))
    x = builder.add("together", Reshape((8, 8, 12)), builder.add("swap", Transpose((0, 1, 2, 4, 3)), x))
    graph = builder.build(builder.add("head", Conv2d(5), x))
    coupled = couple_channels(graph)
    assert [(g.name, g.units, g.channels_per_unit) for g in coupled.groups] == [("a", 6, 2)]
    weights, keep = random_weights(graph), {"a": [0, 2, 5]}
    cut, left = pruned(coupled, weights, keep)
    np.testing.assert_array_equal(left["a"]["bias"], weights["a"]["bias"][[0, 2, 5, 6, 8, 11]])
    np.testing.assert_array_equal(left["head"]["kernel"], weights["head"]["kernel"][:, [0, 1, 4, 5, 10, 11]])
    np.testing.assert_allclose(run(cut, left)[0], run(graph, masked(coupled, weights, keep))[0], atol=1e-5)


def attention(heads: int, size: int) -> Graph:
    builder = GraphBuilder((1, 6, 3))
    x = builder.add("stem", FullyConnected(24), 0)
    width = heads * size
    parts = []
    for name, perm in (("query", (0, 2, 1, 3)), ("key", (0, 2, 3, 1)), ("value", (0, 2, 1, 3))):
        apart = builder.add(f"{name} heads", Reshape((6, heads, size)), builder.add(name, FullyConnected(width), x))
        parts.append(builder.add(f"{name} moved", Transpose(perm), apart))
    scores = builder.add("softmax", Softmax(), builder.add("scores", MatMul(), *parts[:2]))
    y = builder.add("mixed", MatMul(), scores, parts[2])
    y = builder.add("joined", Reshape((6, width)), builder.add("back", Transpose((0, 2, 1, 3)), y))
    y = builder.add("sum", Add(), x, builder.add("project", FullyConnected(24), y))
    return builder.build(builder.add("head", FullyConnected(5), y))


def test_attention_is_cut_within_its_heads() -> None:
    graph = attention(heads=3, size=8)
    coupled = couple_channels(graph)
    assert [(g.name, g.units, g.channels_per_unit, g.producers) for g in coupled.groups] == [
        ("stem", 24, 1, ("stem", "project")), ("query", 8, 3, ("query", "key")), ("value", 8, 3, ("value",))
    ]  # fmt: skip
    weights, keep = random_weights(graph), {"stem": [3, 4, 11], "query": [1, 6], "value": [0, 2, 3]}
    cut, left = pruned(coupled, weights, keep)
    np.testing.assert_allclose(run(cut, left)[0], run(graph, masked(coupled, weights, keep))[0], atol=1e-5)


def test_the_number_of_heads_stays() -> None:
    coupled = couple_channels(attention(heads=8, size=3))
    assert [group.name for group in coupled.groups] == ["stem"]
    reasons = {fixed.layer: fixed.reason for fixed in coupled.fixed}
    assert reasons["query"] == "matmul 'scores' has them as numbers of matrices, such as an attention's heads"


def test_a_slice_from_the_middle_begins_where_its_channels_do() -> None:
    builder = GraphBuilder((1, 8, 8, 3))
    x = builder.add("a", Conv2d(12), 0)
    y = builder.add("pool", Pool2d("max", (3, 3)), builder.add("slice", Slice((0, 0, 0, 4), (1, 8, 8, 3)), x))
    graph = builder.build(builder.add("head", Conv2d(5), builder.add("join", Concat(), x, y)))
    coupled = couple_channels(graph)
    assert [(g.name, g.units) for g in coupled.groups] == [("a", 4), ("a#2", 3), ("a#3", 5)]
    weights, keep = random_weights(graph), {"a": [1], "a#2": [0, 2], "a#3": [2]}
    cut, left = pruned(coupled, weights, keep)
    assert cut.nodes[1].op == Slice((0, 0, 0, 1), (1, 8, 8, 2))
    np.testing.assert_allclose(run(cut, left)[0], run(graph, masked(coupled, weights, keep))[0], atol=1e-5)


def test_what_meets_the_networks_input_or_is_ignored_is_fixed() -> None:
    builder = GraphBuilder((1, 8, 8, 4))
    x = builder.add("sum", Add(), 0, builder.add("a", Conv2d(4), 0))
    x = builder.add("c", Conv2d(8), builder.add("b", Conv2d(8), x))
    coupled = couple_channels(builder.build(builder.add("head", Conv2d(5), x)), ignored=["b"])
    assert [group.name for group in coupled.groups] == ["c"]
    assert {fixed.layer: fixed.reason for fixed in coupled.fixed} == {
        "a": "add 'sum' combines them with channels that cannot be cut",
        "b": "conv 'b' is to be left as it is",
        "head": "the network's output has them",
    }


def test_a_stored_scale_is_cut_with_its_channels() -> None:
    builder = GraphBuilder((1, 8, 8, 3))
    x = builder.add("a", Conv2d(6), 0)
    x = builder.add("scale", Mul(), x, builder.add("factors", Constant((6,))))
    graph = builder.build(builder.add("head", Conv2d(5), x))
    weights = random_weights(graph)
    cut, left = pruned(couple_channels(graph), weights, {"a": [2, 4]})
    assert cut.nodes[1].op == Constant((2,))
    np.testing.assert_array_equal(left["factors"]["values"], weights["factors"]["values"][[2, 4]])


def test_what_there_is_not_is_refused() -> None:
    graph = Drawn(0).graph
    coupled = couple_channels(graph)
    name = coupled.groups[0].name
    with pytest.raises(CompressError, match=rf"no layer '{name}x' to leave as it is \(did you mean '{name}'"):
        couple_channels(graph, ignored=[f"{name}x"])
    weights = random_weights(graph)
    with pytest.raises(CompressError, match=f"no group of channels '{name}x'"):
        pruned(coupled, weights, {f"{name}x": [0]})
    for keep in ([], [-1], [0, 0], [1, 0], [10_000], [0.5], [[0]]):
        with pytest.raises(CompressError, match="one or more different numbers from 0 to"):
            pruned(coupled, weights, {name: keep})


def test_enormous_axes_are_left_whole() -> None:
    builder = GraphBuilder((1, 1, 1, 3))
    x = builder.add("many", Conv2d(2**29, groups=2), builder.add("a", Conv2d(2), 0))
    graph = builder.build(builder.add("mean", Reduce(ReduceKind.MEAN, (3,)), x))
    coupled = couple_channels(graph)
    assert coupled.groups == ()
    assert [(fixed.layer, fixed.reason) for fixed in coupled.fixed] == [
        ("a", "conv 'many' gives more than any layer's channels")
    ]


def test_more_channels_than_memory_is_for_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coupling, "MOST_PLACES", 50)
    with pytest.raises(CompressError, match="more than 50 channels in all"):
        couple_channels(Drawn(0).graph)


@pytest.mark.parametrize("seed", range(12))
def test_a_network_of_any_layers_without_channels_is_the_one_that_reads_zeros(seed: int) -> None:
    graph = Drawn(seed).graph
    coupled = couple_channels(graph)
    weights, keep = random_weights(graph, seed), random_keep(coupled, seed)
    cut, left = pruned(coupled, weights, keep)
    check_weights(cut, left)
    assert cut.macs == macs_of_kernels(cut, left)
    whole = run(graph, masked(coupled, weights, keep))[0]
    np.testing.assert_allclose(run(cut, left)[0], whole, rtol=1e-4, atol=1e-4 * np.abs(whole).max())


def macs_of_kernels(graph: Graph, weights: dict[str, dict[str, np.ndarray]]) -> int:
    """Every value of a kernel meets every pixel of its result once."""
    shapes = {node.name: results[0] for node, _, results in graph.steps()}
    return sum(
        arrays["kernel"].size * math.prod(shapes[name][:-1]) for name, arrays in weights.items() if "kernel" in arrays
    )


@pytest.mark.parametrize("name", ["mobilenet_v2", "mnasnet_b1"])
def test_half_of_every_group_leaves_the_macs_of_half_the_widths(name: str) -> None:
    graph = network(name).graph()
    coupled = couple_channels(graph)
    keep = {group.name: range(group.units // 2) for group in coupled.groups}
    cut, _ = pruned(coupled, random_weights(graph), keep)
    halved = 0
    for node, shapes, results in graph.steps():
        if isinstance(node.op, Conv2d | FullyConnected):
            takes, gives = shapes[0][-1] // 2, results[0][-1] // 2
            takes = 3 if shapes[0][-1] == 3 else 1 if getattr(node.op, "groups", 1) > 1 else takes
            gives = gives if gives != 500 else 1000
            halved += math.prod(results[0][:-1]) * math.prod(getattr(node.op, "kernel", ())) * takes * gives
    assert cut.macs == halved
