"""The search as a whole, on real images and a space of 27 networks, and the parts of its loop."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from archspace.blocks import ConvBlock, LinearHead, MBConv, Skip
from archspace.forms.torch import TorchGraph
from archspace.graph import Graph
from archspace.spaces import SearchSpace
from search.errors import DataError, TargetError, TrainingError
from search.images import ImageData, to_input
from search.latency import LatencyTable
from search.loop import Multiplier, SearchConfig, SearchResult, search
from search.sources import load_images
from search.supernet import SuperNet, main_path
from search.training import StepProgress, TrainConfig, evaluate, recalibrate_batch_norm, train


def toy_space(classes: int = 10) -> SearchSpace:
    def layer(cin: int, cout: int, size: int, stride: int) -> tuple[MBConv, ...]:
        return tuple(MBConv(cin, cout, size, size, stride, k, e) for k, e in ((3, 2), (5, 2), (3, 6)))

    return SearchSpace(
        "toy",
        (
            (ConvBlock(3, 8, 8, 8),), layer(8, 16, 8, 2), layer(16, 24, 4, 2),
            (*layer(24, 24, 2, 1)[:2], Skip(24, 24, 2, 2)), (LinearHead(24, classes, 2, 2),),
        ),
    )  # fmt: skip


class MacsModel:
    """0.1 ms, plus 1 ms per 100,000 MACs."""

    def predict(self, items: Sequence[Graph], /) -> NDArray[np.float64]:
        return np.array([0.1 + graph.macs / 1e5 for graph in items])


SPACE = toy_space()
TABLE = LatencyTable.tabulate(SPACE, MacsModel())
QUICK = SearchConfig(start_epochs=3, warmup_epochs=3, epochs=6, alpha_learning_rate=0.1, multiplier_gain=5)


@pytest.fixture(scope="module")
def digits() -> ImageData:
    return load_images("digits", (8, 8), limit=800)


@pytest.fixture(scope="module")
def found(digits: ImageData) -> SearchResult:
    return search(SPACE, digits, TABLE, TABLE.base_ms + 0.15 * (TABLE.slowest_ms - TABLE.base_ms), QUICK)


def test_the_found_network_meets_the_target_and_is_priced_as_the_model_prices_it(found: SearchResult) -> None:
    assert found.predicted_ms <= found.target_ms
    assert found.predicted_ms == pytest.approx(MacsModel().predict([found.architecture.graph()])[0])
    assert SPACE.choices(found.architecture) == found.path


def test_the_target_pulls_the_expected_latency_down(found: SearchResult) -> None:
    before = [row.expected_ms for row in found.history if row.phase != "search"]
    assert len(set(before)) == 1
    assert found.history[-1].expected_ms < before[0]


def test_history_has_a_row_per_epoch_in_three_phases(found: SearchResult) -> None:
    assert [row.phase for row in found.history] == ["start"] * 3 + ["warm-up"] * 3 + ["search"] * 6
    assert found.history[0].entropy == pytest.approx(math.log(3))
    assert found.history[-1].entropy < math.log(3)


def test_the_supernet_has_learned_to_classify(found: SearchResult, digits: ImageData) -> None:
    network = found.supernet.extract(found.path)
    recalibrate_batch_norm(network, digits.train)
    assert evaluate(network, digits.test) > 0.5  # chance is 0.1


def test_equal_seeds_give_equal_searches(digits: ImageData) -> None:
    config = replace(QUICK, epochs=1)
    first, second, other = (
        search(SPACE, digits, TABLE, TABLE.slowest_ms, replace(config, seed=seed)).probabilities for seed in (3, 3, 4)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_progress_counts_every_step_once(digits: ImageData) -> None:
    seen: list[StepProgress] = []
    search(SPACE, digits, TABLE, TABLE.slowest_ms, replace(QUICK, epochs=1), seen.append)
    assert [step.step for step in seen] == list(range(1, seen[-1].steps + 1))
    assert seen[0].expected_ms == pytest.approx(float(np.nanmean(TABLE.ms, 1).sum()) + TABLE.base_ms, rel=1e-5)


def test_a_target_below_the_fastest_network_stops_before_any_training(digits: ImageData) -> None:
    seen: list[StepProgress] = []
    with pytest.raises(TargetError, match="the fastest is predicted at"):
        search(SPACE, digits, TABLE, 0.5 * TABLE.base_ms, QUICK, seen.append)
    assert seen == []


def test_images_of_another_size_or_of_too_many_classes_are_refused(digits: ImageData) -> None:
    with pytest.raises(DataError, match=r"images are \(16, 16, 3\), space 'toy' takes \(8, 8, 3\)"):
        search(SPACE, load_images("digits", (16, 16), limit=50), TABLE, 9, QUICK)
    with pytest.raises(DataError, match="digits has 10 classes"):
        search(toy_space(7), digits, TABLE, 9, QUICK)


def test_a_space_without_a_choice_or_a_head_is_refused(digits: ImageData) -> None:
    fixed = SearchSpace("fixed", tuple(candidates[:1] for candidates in SPACE.positions))
    headless = SearchSpace("headless", SPACE.positions[:-1])
    with pytest.raises(DataError, match="nothing to search"):
        search(fixed, digits, TABLE, 9, QUICK)
    with pytest.raises(DataError, match="must end in a linear head, not in mbconv"):
        search(headless, digits, TABLE, 9, QUICK)


def test_a_diverging_search_stops_with_the_step_and_a_remedy(digits: ImageData) -> None:
    with pytest.raises(TrainingError, match=r"step \d+ .*: the loss became .*; lower the learning rate"):
        search(SPACE, digits, TABLE, TABLE.slowest_ms, replace(QUICK, learning_rate=1e20))


def test_spreading_gives_each_candidate_the_main_ones_first_channels_and_middle() -> None:
    supernet = SuperNet(SPACE, generator=torch.Generator().manual_seed(0))
    path = main_path(SPACE)
    assert path == (2, 2, 1)
    supernet.spread(path)
    narrow, wide_kernel, source = (supernet.positions[1][i].state_dict() for i in (0, 1, 2))
    name = "layers.depthwise.conv.weight"
    torch.testing.assert_close(narrow[name], source[name][:16])
    torch.testing.assert_close(wide_kernel[name][:, :, 1:4, 1:4], source[name][:16])
    assert wide_kernel[name][:, :, 0].abs().max() == 0
    name = "layers.project.conv.weight"
    torch.testing.assert_close(narrow[name], source[name][:, :16])


def test_a_main_path_falls_back_to_the_most_parameters() -> None:
    convolutions = SearchSpace("c", ((ConvBlock(3, 8, 8, 8, kernel=1), ConvBlock(3, 8, 8, 8, kernel=5)),))
    assert main_path(convolutions) == (1,)


def test_the_multiplier_is_a_pi_controller_that_stays_at_or_above_zero() -> None:
    multiplier = Multiplier(gain=2.0, rate=0.5)
    assert multiplier.update(0.4) == pytest.approx(0.2 + 0.8)
    assert multiplier.update(0.4) == pytest.approx(0.4 + 0.8)
    assert multiplier.update(-0.1) == pytest.approx(0.35 - 0.2)
    assert multiplier.update(-10) == 0
    assert multiplier.integral == 0
    assert multiplier.update(0.2) == pytest.approx(0.1 + 0.4)


def test_training_learns_the_digits_and_leaves_the_network_ready_for_use(digits: ImageData) -> None:
    network = TorchGraph(
        SPACE.architecture([2, 2, 0]).graph(), generator=torch.Generator().manual_seed(0)
    )  # fmt: skip
    train(network, digits, TrainConfig(epochs=8, batch_size=32))
    recalibrate_batch_norm(network, digits.train)
    assert not network.training
    assert evaluate(network, digits.test) > 0.85


def test_a_diverging_training_stops(digits: ImageData) -> None:
    network = TorchGraph(SPACE.architecture([0, 0, 2]).graph())
    with pytest.raises(TrainingError, match="training step"):
        train(network, digits, TrainConfig(epochs=3, learning_rate=1e20))


def test_evaluation_counts_right_answers(digits: ImageData) -> None:
    def always_three(x: torch.Tensor) -> torch.Tensor:
        return nn.functional.one_hot(torch.full((len(x),), 3), 10).float()

    share = float((digits.test.labels == 3).float().mean())
    assert evaluate(always_three, digits.test) == pytest.approx(share)


def test_recalibration_sets_batch_norm_to_the_mean_over_batches(digits: ImageData) -> None:
    network = TorchGraph(ConvBlock(3, 4, 8, 8, activation=None).graph())
    recalibrate_batch_norm(network, digits.train, batch_size=200)
    norm = network.layers["conv"].bn
    with torch.no_grad():
        outputs = network.layers["conv"].conv(to_input(digits.train.images))
    torch.testing.assert_close(norm.running_mean, outputs.mean((0, 2, 3)), rtol=1e-4, atol=1e-4)
    assert norm.momentum == 0.1
