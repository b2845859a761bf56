"""Validation loss of single networks by the weights of a supernet."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from netlathe.archspace.decisions import Choices
from netlathe.search.final_choice import ValidationLoss
from netlathe.search.strategies.binarized.parameters import plain_gates
from netlathe.search.strategies.binarized.supernet import SuperNet
from netlathe.training.compute import Compute
from netlathe.training.images import ImageSplit, to_input
from netlathe.training.sgd import parts_of

BATCH = 256


def make_validation_loss(
    supernet: SuperNet, split: ImageSplit, images: int, compute: Compute, rng: np.random.Generator
) -> ValidationLoss:
    """Cross-entropy by the supernet's weights on at most so many images of the split, drawn once; leaves the supernet
    as it is."""
    index = torch.from_numpy(rng.permutation(len(split))[:images])
    batches = list(parts_of(split.load(index), split.labels[index], -(-len(index) // BATCH)))

    @torch.no_grad()
    def validation_loss(path: Choices) -> float:
        total = 0.0
        with supernet.statistics_kept(), compute.autocast():
            for part, labels in batches:
                x, wanted = compute.put(to_input(part), labels)
                logits = supernet(x, plain_gates(path)).float()
                total += float(F.cross_entropy(logits, wanted, reduction="sum"))
        return total / len(index)

    return validation_loss
