"""How well a network classifies: accuracies with their intervals, by class, and what is taken for what."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from netlathe.archspace.proportions import wilson_interval
from netlathe.training.compute import Compute
from netlathe.training.evaluation import taken
from netlathe.training.images import ImageSplit
from netlathe.training.stream import chunks


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

    @property
    def balanced_interval(self) -> tuple[float, float]:
        """95 % interval of the balanced accuracy: by the variances of the classes' own shares, each of (right + 1) of
        (images + 2), so that a class without errors has one, too (Agresti and Coull, The American Statistician 52,
        1998)."""
        images = self.confusion.sum(1)
        counted = images > 0
        smoothed = (np.diag(self.confusion)[counted] + 1) / (images[counted] + 2)
        half = 1.96 * math.sqrt(float((smoothed * (1 - smoothed) / (images[counted] + 2)).sum())) / int(counted.sum())
        return max(0.0, self.balanced_accuracy - half), min(1.0, self.balanced_accuracy + half)

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
            "images": self.images, "classes": int((self.confusion.sum(1) > 0).sum()),
            "accuracy": self.accuracy, "interval": list(self.interval),
            "top5_accuracy": self.top5_accuracy, "balanced_accuracy": self.balanced_accuracy,
            "balanced_interval": list(self.balanced_interval),
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
    """The classes that a network of at most `classes` outputs gives to a split's images; computed in float32.

    A module is put into eval mode and left on the device it came on; another callable gets images on the device of
    `compute`. Several processes (`compute.ranks`) look at some of the images each.
    """
    compute = compute or Compute()
    confusion, top5 = torch.zeros(classes * classes, dtype=torch.int64), torch.zeros((), dtype=torch.int64)
    parts = chunks(taken(split, compute.ranks.portion(len(split))), batch_size, workers=compute.workers)
    visit = compute.visiting(network.eval()) if isinstance(network, nn.Module) else nullcontext()
    with visit, closing(parts):
        for images, labels in parts:
            x, _ = compute.put(split.normalization(images), labels)
            scores = network(x).flatten(1)
            likeliest = scores.topk(min(5, scores.shape[1]), dim=1).indices.cpu()
            confusion += torch.bincount(labels * classes + likeliest[:, 0], minlength=classes * classes)
            top5 += (likeliest == labels[:, None]).any(1).sum()
    compute.ranks.add(confusion, top5)
    return Classification(confusion.reshape(classes, classes).numpy(), int(top5))
