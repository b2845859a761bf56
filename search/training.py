"""Training one network, judging it, and setting its BatchNorm statistics."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from search.errors import TrainingError
from search.images import ImageData, ImageSplit, augment, batches, to_input


@dataclass(frozen=True)
class StepProgress:
    """Where a training or search stands."""

    phase: str
    step: int
    steps: int
    loss: float
    accuracy: float
    """Of the batch just seen."""
    expected_ms: float | None = None
    """E[latency] under the architecture parameters, during a search."""


OnStep = Callable[[StepProgress], None]


@dataclass(frozen=True)
class TrainConfig:
    """SGD with Nesterov momentum, cosine schedule, label smoothing: the recipe of mobile networks."""

    epochs: int = 30
    batch_size: int = 64
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 4e-5
    label_smoothing: float = 0.1
    seed: int = 0


def make_optimizer(module: nn.Module, learning_rate: float, momentum: float, weight_decay: float) -> torch.optim.SGD:
    """SGD that decays weights, but neither biases nor BatchNorm."""
    decayed = [p for p in module.parameters() if p.ndim > 1]
    plain = [p for p in module.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, lr=learning_rate, momentum=momentum, nesterov=momentum > 0)


def check_finite(loss: Tensor, where: str) -> float:
    """The loss as a number. Raises TrainingError when it is none."""
    value = float(loss.detach())
    if not math.isfinite(value):
        raise TrainingError(f"{where}: the loss became {value}; lower the learning rate")
    return value


def batch_accuracy(logits: Tensor, labels: Tensor) -> float:
    """Share of a batch's images classified right."""
    return float((logits.detach().argmax(1) == labels).float().mean())


def train(network: nn.Module, data: ImageData, config: TrainConfig, on_step: OnStep | None = None) -> None:
    """Trains in place on the train and validation splits together. Raises TrainingError when the loss diverges."""
    split = data.train.joined(data.validation)
    generator = torch.Generator().manual_seed(config.seed)
    optimizer = make_optimizer(network, config.learning_rate, config.momentum, config.weight_decay)
    steps = config.epochs * max(1, len(split) // config.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps))
    network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    step = 0
    for _ in range(config.epochs):
        for x, labels in batches(split, config.batch_size, generator):
            logits = network(augment(x, generator, mirror=data.mirror))
            loss = F.cross_entropy(logits, labels, label_smoothing=config.label_smoothing)
            value = check_finite(loss, f"training step {step}")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            step += 1
            if on_step:
                on_step(StepProgress("train", step, steps, value, batch_accuracy(logits, labels)))
    network.eval()


@torch.no_grad()
def recalibrate_batch_norm(
    network: nn.Module, split: ImageSplit, *, batch_size: int = 256, batch_limit: int = 32
) -> None:
    """Sets BatchNorm's running statistics to those of clean (not augmented) images, averaged over batches."""
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's word for a cumulative average
    network.train()
    for index, (x, _) in enumerate(batches(split, batch_size, torch.Generator().manual_seed(0))):
        if index == batch_limit:
            break
        network(x)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()


@torch.no_grad()
def evaluate(network: Callable[[Tensor], Tensor], split: ImageSplit, *, batch_size: int = 256) -> float:
    """Share of images classified right, in 0..1."""
    if isinstance(network, nn.Module):
        network.eval()
    right = 0
    parts = zip(torch.split(split.images, batch_size), torch.split(split.labels, batch_size), strict=True)
    for images, labels in parts:
        right += int((network(to_input(images)).argmax(1) == labels).sum())
    return right / len(split)
