"""Weights refitted after a cut, where what they must become is known."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
import torch

from netlathe.archspace.forms.torch import TorchGraph, load_weights
from netlathe.archspace.forms.weights import Weights, random_weights
from netlathe.archspace.graph import Graph, GraphBuilder
from netlathe.archspace.ops import Activation, ActivationKind, Add, Conv2d, FullyConnected, GlobalAvgPool
from netlathe.compress import CoupledChannels, couple_channels, pruned, residual_blocks
from netlathe.compress.reconstruction import reconstructed
from netlathe.training.images import MemorySplit

MODULE = importlib.import_module("netlathe.compress.reconstruction")


def classifier(groups: int = 1) -> Graph:
    """A residual block whose inner layers are wide, the second of them depthwise, before a classifier."""
    builder = GraphBuilder((1, 8, 8, 3))
    x = builder.add("stem", Conv2d(8, (3, 3), (2, 2)), 0)
    y = builder.add("relu", Activation(ActivationKind.RELU), builder.add("wide", Conv2d(16, (3, 3), groups=groups), x))
    y = builder.add("depthwise", Conv2d(16, (3, 3), groups=16, dilation=(2, 2)), y)
    z = builder.add("sum", Add(), x, builder.add("narrow", Conv2d(8, (3, 3)), y))
    pooled = builder.add("pool", GlobalAvgPool(), z)
    return builder.build(builder.add("head", FullyConnected(3), pooled))


GRAPH = classifier()
COUPLED = couple_channels(GRAPH)
WEIGHTS = random_weights(GRAPH, 1)


@pytest.fixture(scope="module")
def split() -> MemorySplit:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (64, 3, 8, 8), generator=generator, dtype=torch.uint8)
    return MemorySplit(images, torch.arange(64) % 3)


def results(graph: Graph, weights: Weights, split: MemorySplit) -> torch.Tensor:
    network = TorchGraph(graph).eval()
    load_weights(network, weights)
    with torch.no_grad():
        return network(split.normalization(split.images))  # type: ignore[no-any-return]


def distance(coupled: CoupledChannels, weights: Weights, graph: Graph, left: Weights, split: MemorySplit) -> float:
    """Root mean square of what two networks' results differ by, in parts of the first one's spread."""
    wanted = results(coupled.graph, weights, split)
    return float((results(graph, left, split) - wanted).pow(2).mean().sqrt() / wanted.std())


def twins() -> dict[str, dict[str, Any]]:
    """Weights whose later eight inner channels are what the first eight are."""
    found = {name: {key: array.copy() for key, array in arrays.items()} for name, arrays in WEIGHTS.items()}
    for name in ("wide", "depthwise"):
        for array in found[name].values():
            array[8:] = array[:8]
    return found


def test_what_a_cut_channel_gave_is_taken_from_its_twin(split: MemorySplit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "RIDGE", 1e-9)
    weights, keep = twins(), {"wide": np.arange(8)}
    graph, cut = pruned(COUPLED, weights, keep)
    found = reconstructed(COUPLED, weights, (graph, cut), keep, split)
    both = weights["narrow"]["kernel"][:, :8] + weights["narrow"]["kernel"][:, 8:]
    np.testing.assert_allclose(found["narrow"]["kernel"], both, atol=2e-3)
    assert distance(COUPLED, weights, graph, cut, split) > 0.1
    assert distance(COUPLED, weights, graph, found, split) < 2e-3


def test_nothing_changes_where_nothing_is_cut(split: MemorySplit) -> None:
    found = reconstructed(COUPLED, WEIGHTS, (GRAPH, WEIGHTS), {}, split)
    for name, arrays in WEIGHTS.items():
        for key, array in arrays.items():
            np.testing.assert_allclose(found[name][key], array, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 2])
def test_what_is_left_comes_nearer_to_the_original(split: MemorySplit, groups: int) -> None:
    graph = classifier(groups)
    coupled, weights = couple_channels(graph), random_weights(graph, 1)
    keep = {group.name: np.arange(0, group.units, 2) for group in coupled.groups}
    small, cut = pruned(coupled, weights, keep)
    before = {name: {key: array.copy() for key, array in arrays.items()} for name, arrays in cut.items()}
    found = reconstructed(coupled, weights, (small, cut), keep, split)
    assert distance(coupled, weights, small, found, split) < 0.75 * distance(coupled, weights, small, cut, split)
    again = reconstructed(coupled, weights, (small, cut), keep, split)
    for name, arrays in before.items():
        for key, array in arrays.items():
            assert np.array_equal(cut[name][key], array)  # what was given is only read
            assert np.array_equal(found[name][key], again[name][key])


def test_a_branch_makes_up_for_what_the_other_one_lacks(split: MemorySplit, monkeypatch: pytest.MonkeyPatch) -> None:
    builder = GraphBuilder((1, 8, 8, 3))
    x, y = builder.add("first", Conv2d(8), 0), builder.add("second", Conv2d(8), 0)
    graph = builder.build(builder.add("sum", Add(), x, y))
    coupled, weights = couple_channels(graph), random_weights(graph, 1)
    spoiled = {**weights, "first": {key: np.zeros_like(array) for key, array in weights["first"].items()}}
    refit = MODULE._refit

    def all_but_the_first(layer: Any, *rest: Any) -> None:
        if layer.weight.any():
            refit(layer, *rest)

    monkeypatch.setattr(MODULE, "_refit", all_but_the_first)
    found = reconstructed(coupled, weights, (graph, spoiled), {}, split)
    assert not found["first"]["kernel"].any()
    assert distance(coupled, weights, graph, spoiled, split) > 0.3
    assert distance(coupled, weights, graph, found, split) < 0.01


def test_layers_behind_a_block_that_is_left_out_do_without_it(split: MemorySplit) -> None:
    (block,) = residual_blocks(GRAPH)
    graph, cut = pruned(COUPLED, WEIGHTS, {}, [block])
    found = reconstructed(COUPLED, WEIGHTS, (graph, cut), {}, split)
    assert found.keys() == {"stem", "head"}
    assert distance(COUPLED, WEIGHTS, graph, found, split) < distance(COUPLED, WEIGHTS, graph, cut, split)


def test_layers_too_large_to_solve_stay(split: MemorySplit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "MOST_VALUES", 100)  # narrow's kernel has 144 values per channel, half of it 72
    keep = {"stem": np.arange(0, 8, 2)}
    graph, cut = pruned(COUPLED, WEIGHTS, keep)
    found = reconstructed(COUPLED, WEIGHTS, (graph, cut), keep, split)
    assert np.array_equal(found["narrow"]["kernel"], cut["narrow"]["kernel"])
    assert not np.array_equal(found["wide"]["kernel"], cut["wide"]["kernel"])
