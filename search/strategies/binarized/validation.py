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
"""Most images of a part."""


def make_validation_loss(
    supernet: SuperNet, split: ImageSplit, images: int, compute: Compute, rng: np.random.Generator
) -> tuple[ValidationLoss, int]:
    """Cross-entropy by the supernet's weights on parts of at most so many images of the split, drawn once, and how many
    parts these are; leaves the supernet as it is."""
    index = torch.from_numpy(rng.permutation(len(split))[:images])
    batches = list(parts_of(split.load(index), split.labels[index], -(-len(index) // BATCH)))

    @torch.no_grad()
    def validation_loss(path: Choices, part: int) -> float:
        pixels, labels = batches[part]
        with supernet.statistics_kept(), compute.autocast():
            x, wanted = compute.put(to_input(pixels), labels)
            return float(F.cross_entropy(supernet(x, plain_gates(path)).float(), wanted))

    return validation_loss, len(batches)
