"""Importance by gradients, against what happens to the loss where units fade."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from netlathe.archspace.forms.torch import TorchGraph, load_weights
from netlathe.archspace.forms.weights import Weights, random_weights
from netlathe.archspace.graph import Graph, GraphBuilder
from netlathe.archspace.ops import Activation, ActivationKind, Add, Conv2d, FullyConnected, GlobalAvgPool
from netlathe.compress import CompressError, CoupledChannels, couple_channels, width_space
from netlathe.compress.gradients import taylor
from netlathe.training.images import MemorySplit
from netlathe.training.normalization import SYMMETRIC


def classifier() -> Graph:
    """A residual block of two convolutions, the first of them depthwise, before a classifier of three classes."""
    builder = GraphBuilder((1, 6, 6, 3))
    x = builder.add("stem", Conv2d(8), 0)
    y = builder.add("relu", Activation(ActivationKind.RELU), builder.add("wide", Conv2d(16), x))
    y = builder.add("depthwise", Conv2d(16, groups=16), y)
    z = builder.add("sum", Add(), x, builder.add("narrow", Conv2d(8), y))
    pooled = builder.add("pool", GlobalAvgPool(), z)
    return builder.build(builder.add("head", FullyConnected(3), pooled))


GRAPH = classifier()
COUPLED = couple_channels(GRAPH)
WEIGHTS = random_weights(GRAPH, 1)


@pytest.fixture(scope="module")
def split() -> MemorySplit:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (12, 3, 6, 6), generator=generator, dtype=torch.uint8)
    return MemorySplit(images, torch.arange(12) % 3)


def loss(weights: Weights, split: MemorySplit) -> float:
    network = TorchGraph(GRAPH).double().eval()
    load_weights(network, weights)
    with torch.no_grad():
        return float(F.cross_entropy(network(SYMMETRIC(split.images).double()), split.labels))


def faded(coupled: CoupledChannels, group: int, unit: int, by: float) -> Weights:
    """The weights, those that read the unit a little smaller."""
    found = {name: {key: array.copy() for key, array in arrays.items()} for name, arrays in WEIGHTS.items()}
    for node, units in zip(GRAPH.nodes, coupled.nodes, strict=True):
        along = units.stored.get("kernel", (None, None))[1]
        if along is not None:
            chosen = (coupled.group_of[along] == group) & (coupled.place_of[along] == unit)
            found[node.name]["kernel"][:, chosen] *= 1 - by
    return found


def test_importance_is_the_square_of_how_the_loss_changes_as_a_unit_fades(split: MemorySplit) -> None:
    found = taylor(COUPLED, WEIGHTS, split, batch_size=12)
    assert {name: len(values) for name, values in found.items()} == {"stem": 8, "wide": 16}
    for index, group in enumerate(COUPLED.groups):
        for unit in range(0, group.units, 3):
            up, down = (loss(faded(COUPLED, index, unit, by), split) for by in (1e-3, -1e-3))
            assert found[group.name][unit] == pytest.approx(((up - down) / 2e-3) ** 2, rel=2e-2, abs=1e-9)


def test_balanced_classes_count_alike_however_many_images_they_have(split: MemorySplit) -> None:
    """Images of the first class twice and thrice change nothing, and do without it."""
    repeated = split.labels.repeat_interleave(torch.where(split.labels == 0, 3, 1))
    images = split.images.repeat_interleave(torch.where(split.labels == 0, 3, 1), 0)
    more = MemorySplit(images, repeated)
    plain = taylor(COUPLED, WEIGHTS, split, batch_size=12)["wide"]
    balanced = taylor(COUPLED, WEIGHTS, more, batch_size=len(more), is_balanced=True)["wide"]
    assert balanced == pytest.approx(plain, rel=1e-4, abs=1e-12)
    assert taylor(COUPLED, WEIGHTS, more, batch_size=len(more))["wide"] != pytest.approx(plain, rel=0.1)
    own = [taylor(COUPLED, WEIGHTS, more, teacher="own", is_balanced=one)["wide"] for one in (True, False)]
    assert np.array_equal(*own)  # there the labels are of other classes


def test_it_is_the_mean_over_batches(split: MemorySplit) -> None:
    whole = taylor(COUPLED, WEIGHTS, split, batch_size=4)["wide"]
    assert (whole >= taylor(COUPLED, WEIGHTS, split, batch_size=12)["wide"] - 1e-9).all()  # Jensen
    again = taylor(COUPLED, WEIGHTS, split, batch_size=4)["wide"]
    assert np.array_equal(whole, again)


def test_what_nothing_reads_counts_for_nothing(split: MemorySplit) -> None:
    weights = {name: {key: array.copy() for key, array in arrays.items()} for name, arrays in WEIGHTS.items()}
    weights["narrow"]["kernel"][:, 5] = 0
    found = taylor(COUPLED, weights, split)["wide"]
    assert found[5] == 0
    assert np.delete(found, 5).min() > 0


def test_images_of_other_classes_teach_by_the_networks_own_outputs(split: MemorySplit) -> None:
    others = MemorySplit(split.images, split.labels + 7)
    found = taylor(COUPLED, WEIGHTS, others, teacher="own", seed=3)
    assert all((values > 0).all() for values in found.values())
    assert np.array_equal(found["stem"], taylor(COUPLED, WEIGHTS, others, teacher="own", seed=3)["stem"])


def test_a_network_without_class_scores_is_refused(split: MemorySplit) -> None:
    builder = GraphBuilder((1, 6, 6, 3))
    x = builder.add("a", Conv2d(8), 0)
    graph = builder.build(builder.add("b", Conv2d(4), x))
    with pytest.raises(CompressError, match="not a score for each class"):
        taylor(couple_channels(graph), random_weights(graph), split)


def test_option_scores_multiply_what_is_kept_weighted_by_the_change_of_the_loss() -> None:
    space = width_space(GRAPH, step=4, least_share=0.5, leave_out=False)
    assert space.widths == ((8, 4), (16, 12, 8))
    scores = {"stem": np.array([1.0, 9, 2, 8, 3, 7, 4, 6]), "wide": np.arange(16.0)}
    table = space.option_scores(scores)
    assert table[0] == pytest.approx([0.0, 40**0.5 * np.log(30 / 40), -np.inf])
    assert table[1] == pytest.approx([0.0, 120**0.5 * np.log((120 - 6) / 120), 120**0.5 * np.log((120 - 28) / 120)])
    kept = space.option_scores(scores, comparable=False)
    squares = scores["stem"] ** 2
    assert kept[0, 1] == pytest.approx(np.log(1 - (1 + 4 + 9 + 16) / squares.sum()))
    dead = space.option_scores({"stem": np.zeros(8), "wide": np.ones(16)})
    assert dead[0].tolist() == [0.0, 0.0, -np.inf]  # nothing is lost
    assert space.alike(0.5) == (1, 2)
    assert space.alike(1.0) == space.reference
    with pytest.raises(CompressError, match="needs a score for each"):
        space.option_scores({"stem": np.ones(8)})
