"""A trained network from its start to its accuracy, on a network of blocks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from netlathe.archspace.blocks import ConvBlock, LinearHead, MBConv
from netlathe.archspace.forms.torch import TorchGraph
from netlathe.archspace.spaces import Architecture
from netlathe.training.errors import TrainingError
from netlathe.training.evaluation import evaluate, recalibrate_batch_norm
from netlathe.training.images import ImageData
from netlathe.training.loop import TrainConfig, train
from netlathe.training.normalization import SYMMETRIC
from netlathe.training.sources import load_images

NETWORK = Architecture(
    "small",
    (
        ConvBlock(3, 8, 8, 8), MBConv(8, 16, 8, 8, 2, 3, 6), MBConv(16, 24, 4, 4, 2, 3, 6),
        MBConv(24, 24, 2, 2, 1, 3, 2), LinearHead(24, 10, 2, 2),
    ),
).graph()  # fmt: skip


@pytest.fixture(scope="module")
def digits() -> ImageData:
    return load_images("digits", (8, 8), limit=800)


def test_training_learns_the_digits_and_leaves_the_network_ready_for_use(digits: ImageData) -> None:
    network = TorchGraph(NETWORK, generator=torch.Generator().manual_seed(0))
    train(network, digits, TrainConfig(epochs=8, batch_size=32))
    recalibrate_batch_norm(network, digits.train)
    assert not network.training
    assert evaluate(network, digits.test) > 0.85


def test_a_diverging_training_stops(digits: ImageData) -> None:
    network = TorchGraph(NETWORK)
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
        outputs = network.layers["conv"].conv(SYMMETRIC(digits.train.images))
    torch.testing.assert_close(norm.running_mean, outputs.mean((0, 2, 3)), rtol=1e-4, atol=1e-4)
    assert norm.momentum == 0.1
