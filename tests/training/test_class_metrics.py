"""Figures of a classification, in closed form and beside scikit-learn's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, top_k_accuracy_score
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor
from torch.nn import functional as F

from netlathe.archspace.proportions import wilson_interval
from netlathe.training import evaluate
from netlathe.training.images import MemorySplit
from netlathe.training.losses import class_weights
from netlathe.training.metrics import Classification, classify

CLASSES = 7
LABELS = torch.from_numpy(np.random.default_rng(0).choice(CLASSES, 500, p=[0.5, 0.2, 0.1, 0.1, 0.05, 0.03, 0.02]))
IMAGES = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (500, 3, 4, 4), dtype=np.uint8))
WEIGHTS = torch.randn(48, CLASSES, generator=torch.Generator().manual_seed(0))


def network(x: Tensor) -> Tensor:
    return x.flatten(1) @ WEIGHTS


@pytest.fixture(scope="module")
def found() -> Classification:
    return classify(network, MemorySplit(IMAGES, LABELS), CLASSES, batch_size=64)


def test_figures_are_those_of_scikit_learn(found: Classification) -> None:
    outputs = network((IMAGES.float() / 127.5 - 1).contiguous())
    given = outputs.argmax(1)
    assert np.array_equal(found.confusion, confusion_matrix(LABELS, given))
    assert found.balanced_accuracy == pytest.approx(balanced_accuracy_score(LABELS, given))
    assert found.top5_accuracy == pytest.approx(top_k_accuracy_score(LABELS, outputs, k=5))
    assert found.accuracy == evaluate(network, MemorySplit(IMAGES, LABELS))
    assert found.images == 500


def test_errors_come_by_their_number() -> None:
    confusion = np.array([[5, 2, 0], [4, 1, 0], [0, 1, 0]])
    assert Classification(confusion, 13).confused() == [(1, 0, 4), (0, 1, 2), (2, 1, 1)]
    assert Classification(confusion, 13).confused(1) == [(1, 0, 4)]


def test_a_class_without_images_has_no_accuracy_and_no_say() -> None:
    found = Classification(np.array([[3, 1, 0], [0, 0, 0], [0, 1, 1]]), 6)
    assert found.balanced_accuracy == pytest.approx((0.75 + 0.5) / 2)
    assert math.isnan(found.accuracy_by_class[1])


def test_confusions_of_many_classes_are_left_out_of_json(found: Classification) -> None:
    assert found.to_json()["confusion"] == found.confusion.tolist()
    assert "confusion" not in Classification(np.eye(101, dtype=np.int64), 101).to_json()


@pytest.mark.parametrize(
    ("right", "count", "least", "most"),
    [(353, 360, 0.9604, 0.9906), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (1, 2, 0.0945, 0.9055)],
)
def test_intervals_are_wilsons(right: int, count: int, least: float, most: float) -> None:
    assert wilson_interval(right, count) == pytest.approx((least, most), abs=1e-3)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    right = np.random.default_rng(0).binomial(200, 0.9, 2000)
    held = [low <= 0.9 <= high for low, high in (wilson_interval(int(one), 200) for one in right)]
    assert 0.93 < np.mean(held) < 0.97


@pytest.mark.parametrize("wrong", [(3, 2, 0.95), (-1, 2, 0.95), (0, 0, 0.95), (1, 2, 1.0)])
def test_a_share_that_there_is_not_has_no_interval(wrong: tuple[int, int, float]) -> None:
    with pytest.raises(ValueError, match="is no share"):
        wilson_interval(*wrong)


def test_weights_of_classes_are_those_of_scikit_learn_and_leave_the_loss_its_size() -> None:
    weights = class_weights(LABELS, CLASSES + 1)
    wanted = compute_class_weight("balanced", classes=np.arange(CLASSES), y=LABELS.numpy())
    assert weights[:CLASSES].numpy() == pytest.approx(wanted, rel=1e-6)
    assert weights[CLASSES] == 0
    assert float(weights[LABELS].mean()) == pytest.approx(1)
    zeros = torch.zeros(len(LABELS), CLASSES)
    assert float(F.cross_entropy(zeros, LABELS, weight=weights[:CLASSES])) == pytest.approx(math.log(CLASSES), rel=1e-5)
