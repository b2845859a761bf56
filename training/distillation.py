"""Distillation: a network learns from another one's outputs beside the labels (Hinton et al., arXiv:1503.02531)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from netlathe.training.compute import wide
from netlathe.training.errors import refuse


@dataclass(frozen=True, eq=False)
class Teacher:
    """A network whose outputs are learned from, never trained itself.

    The loss becomes (1 - weight) * cross-entropy + weight * temperature^2 * KL(teacher || network), both networks'
    class scores divided by `temperature`, whose square keeps the gradients' size (Hinton et al., section 2.1). Raises
    TrainingError for a weight outside 0..1, or a temperature that is not above 0.
    """

    network: nn.Module
    weight: float = 0.5
    temperature: float = 4.0

    def __post_init__(self) -> None:
        refuse(self, {
            "weight": not 0 <= self.weight <= 1, "temperature": not 0 < self.temperature < math.inf
        })  # fmt: skip

    def loss(self, x: Tensor, logits: Tensor, cross_entropy: Tensor | float = 0.0) -> Tensor:
        """The loss of a batch: images (n, C, H, W), the network's class scores (n, classes) for them, and their mean
        cross-entropy, which labels of other classes have none of where `weight` is 1."""
        with torch.no_grad():
            wanted = (wide(self.network(x).flatten(1)) / self.temperature).log_softmax(1)
        found = (wide(logits) / self.temperature).log_softmax(1)
        distance = F.kl_div(found, wanted, reduction="batchmean", log_target=True)
        return (1 - self.weight) * cross_entropy + self.weight * self.temperature**2 * distance
