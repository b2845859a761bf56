"""How well a network classifies: accuracies with their intervals, by class, and what is taken for what."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from netlathe.training.compute import Compute
from netlathe.training.images import ImageSplit
from netlathe.training.stream import chunks

LEVEL = 0.95
"""Level of intervals of accuracies."""


@dataclass(frozen=True, eq=False)
class Classification:
    """Images of each class by the class that a network gave them.

    confusion: int64 (classes, classes), images by their class (row) and the network's (column); top5: images whose
    class is among the five likeliest.
    """

    confusion: NDArray[np.int64]
    top5: int

    @property
    def images(self) -> int:
        """Number of images."""
        return int(self.confusion.sum())

    @property
    def accuracy(self) -> float:
        """Share of images classified right, in 0..1."""
        return int(np.trace(self.confusion)) / self.images

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the accuracy over all images such as these."""
        return wilson_interval(int(np.trace(self.confusion)), self.images)

    @property
    def top5_accuracy(self) -> float:
        """Share of images whose class is among the five likeliest; 1 where there are no more than five."""
        return self.top5 / self.images

    @property
    def accuracy_by_class(self) -> NDArray[np.float64]:
        """Share of the images of each class classified right, (classes,); NaN for a class without images."""
        right, images = np.diag(self.confusion), self.confusion.sum(1)
        shares: NDArray[np.float64] = np.where(images > 0, right / np.maximum(images, 1), math.nan)
        return shares

    @property
    def balanced_accuracy(self) -> float:
        """Mean over the classes that have images of the share of theirs classified right: a network that always gives
        the most frequent of C classes has 1 / C."""
        return float(np.nanmean(self.accuracy_by_class))

    def confused(self, most: int = 10) -> list[tuple[int, int, int]]:
        """The most frequent errors: (class, class given, images), the most frequent first."""
        errors = self.confusion * (1 - np.eye(len(self.confusion), dtype=np.int64))
        order = np.argsort(errors, axis=None, kind="stable")[::-1][:most]
        rows, columns = np.unravel_index(order, errors.shape)
        found = zip(rows.tolist(), columns.tolist(), errors[rows, columns].tolist(), strict=True)
        return [(row, column, count) for row, column, count in found if count]

    def to_json(self) -> dict[str, Any]:
        """The figures, for JSON; without the confusions where there are more than a hundred classes."""
        small = len(self.confusion) <= 100
        return {
            "images": self.images, "accuracy": self.accuracy, "interval": list(self.interval),
            "top5_accuracy": self.top5_accuracy, "balanced_accuracy": self.balanced_accuracy,
            **({"confusion": self.confusion.tolist()} if small else {}),
        }  # fmt: skip


@torch.no_grad()
def classify(
    network: Callable[[Tensor], Tensor],
    split: ImageSplit,
    classes: int,
    *,
    batch_size: int = 256,
    compute: Compute | None = None,
) -> Classification:
    """The classes that a network of `classes` outputs gives to a split's images; computed in float32. A module is put
    into eval mode and left on the device it came on; another callable gets images on the device of `compute`."""
    compute = compute or Compute()
    confusion, top5 = torch.zeros(classes * classes, dtype=torch.int64), 0
    parts = chunks(split, batch_size, workers=compute.workers)
    visit = compute.visiting(network.eval()) if isinstance(network, nn.Module) else nullcontext()
    with visit, closing(parts):
        for images, labels in parts:
            x, _ = compute.put(split.normalization(images), labels)
            likeliest = network(x).flatten(1).topk(min(5, classes), dim=1).indices.cpu()
            confusion += torch.bincount(labels * classes + likeliest[:, 0], minlength=classes * classes)
            top5 += int((likeliest == labels[:, None]).any(1).sum())
    return Classification(confusion.reshape(classes, classes).numpy(), top5)


def wilson_interval(right: int, count: int, level: float = LEVEL) -> tuple[float, float]:
    """Interval of a share of which `right` of `count` were seen, at a level in 0..1 (E. B. Wilson, JASA 22, 1927): of
    360 test images with 98.1 % right, 96.0 to 99.1 %. Raises ValueError for a share that there is not."""
    if not (0 <= right <= count and count > 0 and 0 < level < 1):
        raise ValueError(f"{right} of {count} at a level of {level} is no share that has an interval")
    z = NormalDist().inv_cdf((1 + level) / 2)
    share, square = right / count, z * z / count
    middle = (share + square / 2) / (1 + square)
    half = z * math.sqrt(share * (1 - share) / count + square / (4 * count)) / (1 + square)
    return max(0.0, middle - half), min(1.0, middle + half)


def class_weights(labels: Tensor, classes: int) -> Tensor:
    """Weights of classes in a loss, float32 (classes,), with which all have the same say: images / (classes with images
    x images of the class), so that an image's is 1 on average (King and Zeng, Political Analysis 9, 2001); 0 for a
    class without images.

    labels: int64 (N,).
    """
    counts = torch.bincount(labels, minlength=classes).double()
    weights = torch.where(counts > 0, len(labels) / ((counts > 0).sum() * counts.clamp(min=1)), 0)
    return weights.float()
