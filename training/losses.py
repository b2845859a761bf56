"""Cross-entropy of class scores, with weights of classes and smoothed labels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from netlathe.training.compute import wide


def cross_entropy(
    logits: Tensor, labels: Tensor, *, weights: Tensor | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """Mean cross-entropy in nats of class scores (n, classes), in float32 or what is wider.

    labels: int64 (n,), or shares of the classes (n, classes). weights: (classes,), what a label of each class counts,
    1 on average over the images of a training: so the mean is over images, not over weights, and those over parts of a
    batch add up to the batch's. label_smoothing: share of a label that is spread over all classes (Szegedy et al.,
    arXiv:1512.00567).
    """
    logits = wide(logits)
    if weights is None:
        return F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    weights = weights.to(logits)
    if labels.is_floating_point():
        labels = labels.to(logits.dtype)
    total = F.cross_entropy(logits, labels, weights, label_smoothing=label_smoothing, reduction="sum")
    return total / len(labels)


def classes_of_labels(labels: Tensor) -> Tensor:
    """int64 (n,): labels as they are, or of shares (n, classes) the class with the largest."""
    return labels.argmax(1) if labels.is_floating_point() else labels


def class_weights(labels: Tensor, classes: int) -> Tensor:
    """Weights of classes in a loss, float32 (classes,), with which all have the same say: images / (classes with images
    x images of the class), so that an image's is 1 on average (King and Zeng, Political Analysis 9, 2001); 0 for a
    class without images.

    labels: int64 (N,).
    """
    counts = torch.bincount(labels, minlength=classes).double()
    weights = torch.where(counts > 0, len(labels) / ((counts > 0).sum() * counts.clamp(min=1)), 0)
    return weights.float()
