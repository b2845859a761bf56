"""Validation loss and accuracy of single networks by the weights of a supernet."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from netlathe.archspace.decisions import Choices
from netlathe.search.final_choice import ValidationLoss
from netlathe.search.strategies.binarized.parameters import plain_gates
from netlathe.search.strategies.binarized.supernet import SuperNet
from netlathe.training.batch_norm import normalising
from netlathe.training.compute import Compute
from netlathe.training.images import ImageSplit
from netlathe.training.losses import cross_entropy
from netlathe.training.sgd import parts_of

BATCH = 256
"""Most images of a part."""


def make_validation_loss(
    supernet: SuperNet,
    split: ImageSplit,
    images: int,
    compute: Compute,
    rng: np.random.Generator,
    *,
    weights: torch.Tensor | None = None,
) -> tuple[ValidationLoss, int]:
    """Cross-entropy by the supernet's weights on parts of at most so many images of the split, drawn once, and how many
    parts these are; `weights` are those of classes. Leaves the supernet as it is. Several processes (`compute.ranks`)
    compute a share of each part, all for the same network."""
    batches, ranks = _batches(split, images, rng), compute.ranks

    @torch.no_grad()
    def validation_loss(path: Choices, part: int) -> float:
        ranks.check_same(torch.tensor([*path, part]), "networks that are compared")
        pixels, labels = batches[part]
        own = ranks.share(len(labels), 1).slices[0]
        synchronised = normalising(supernet, ranks, "synchronised")
        with supernet.statistics_kept(), synchronised, compute.autocast():
            x, wanted = compute.put(split.normalization(pixels[own]), labels[own])
            loss = cross_entropy(supernet(x, plain_gates(path)), wanted, weights=weights)
        return float(ranks.total(loss * len(wanted) / len(labels)))

    return validation_loss, len(batches)


def make_validation_accuracy(
    supernet: SuperNet, split: ImageSplit, images: int, compute: Compute, rng: np.random.Generator
) -> Callable[[Choices], float]:
    """Accuracy, 0..1, of networks by the supernet's weights on at most so many images of the split, drawn once;
    BatchNorm normalizes by each batch of them, as in the loss. Leaves the supernet as it is."""
    batches = _batches(split, images, rng)

    @torch.no_grad()
    def validation_accuracy(path: Choices) -> float:
        gates, right = plain_gates(path), 0
        with supernet.statistics_kept(), compute.autocast():
            for pixels, labels in batches:
                x, wanted = compute.put(split.normalization(pixels), labels)
                right += int((supernet(x, gates).argmax(1) == wanted).sum())
        return right / sum(len(labels) for _, labels in batches)

    return validation_accuracy


def _batches(split: ImageSplit, images: int, rng: np.random.Generator) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """At most so many images of a split, drawn at random, in parts of BATCH."""
    index = torch.from_numpy(rng.permutation(len(split))[:images])
    return list(parts_of(split.load(index), split.labels[index], -(-len(index) // BATCH)))
