"""Learning from another network's outputs."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from netlathe.training import Compute, TrainConfig, TrainingError, train
from netlathe.training.distillation import Teacher
from netlathe.training.evaluation import loss_and_accuracy
from netlathe.training.images import ImageData, MemorySplit
from netlathe.training.normalization import SYMMETRIC


class Linear(nn.Module):
    """Class scores from all pixels."""

    def __init__(self, seed: int, classes: int = 3) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layer = nn.Linear(12, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x.flatten(1))  # type: ignore[no-any-return]


def images(classes: int = 3) -> MemorySplit:
    generator = torch.Generator().manual_seed(0)
    return MemorySplit(
        torch.randint(0, 256, (24, 3, 2, 2), generator=generator, dtype=torch.uint8), torch.arange(24) % classes
    )


def data(classes: int = 3) -> ImageData:
    split = images(classes)
    return ImageData("noise", tuple(map(str, range(classes))), split, split, split)


def test_the_loss_is_the_weighted_sum_of_both() -> None:
    x, teacher = torch.randn(5, 3, 2, 2), Linear(1)
    logits, cross_entropy = torch.randn(5, 3), torch.tensor(0.7)
    p = (teacher(x) / 2.0).softmax(1)
    divergence = (p * (p.log() - (logits / 2.0).log_softmax(1))).sum(1).mean()
    found = Teacher(teacher, 0.25, 2.0).loss(x, logits, cross_entropy)
    assert float(found.detach()) == pytest.approx(0.75 * 0.7 + 0.25 * 4 * float(divergence.detach()), rel=1e-5)


def test_equal_outputs_cost_nothing_and_give_no_gradient() -> None:
    x, teacher = torch.randn(5, 3, 2, 2), Linear(1)
    logits = teacher(x).detach().requires_grad_()
    loss = Teacher(teacher, 1.0).loss(x, logits)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0, abs=1e-6)
    assert float(logits.grad.abs().max()) == pytest.approx(0, abs=1e-6)


def test_a_network_comes_near_its_teacher_whatever_the_labels_are_and_the_teacher_stays() -> None:
    network, teacher = Linear(1), Linear(2)
    before = [p.clone() for p in teacher.parameters()]
    config = TrainConfig(epochs=60, batch_size=12, learning_rate=0.2, weight_decay=0.0, label_smoothing=0.0)
    far, _ = loss_and_accuracy(network, images(), teacher=teacher)
    train(network, data(9), config, teacher=Teacher(teacher, 1.0), compute=Compute("cpu"))  # nine classes, three scores
    x = SYMMETRIC(images().images)
    p = teacher(x).softmax(1)
    least = float(-(p * p.log()).sum(1).mean().detach())
    assert loss_and_accuracy(network, images(), teacher=teacher)[0] - least < 0.1 * (far - least)
    assert all(torch.equal(a, b) for a, b in zip(before, teacher.parameters(), strict=True))


def test_loss_and_accuracy_are_those_of_all_images() -> None:
    network, split = Linear(1), images()
    whole = F.cross_entropy(network(SYMMETRIC(split.images)), split.labels)
    right = (network(SYMMETRIC(split.images)).argmax(1) == split.labels).double().mean()
    loss, accuracy = loss_and_accuracy(network, split, batch_size=7)
    assert loss == pytest.approx(float(whole.detach()), rel=1e-5)
    assert accuracy == pytest.approx(float(right))


@pytest.mark.parametrize("settings", [{"weight": 1.5}, {"temperature": 0.0}, {"weight": float("nan")}])
def test_settings_out_of_range_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(TrainingError, match=next(iter(settings))):
        Teacher(Linear(1), **settings)
