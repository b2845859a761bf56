"""Steps of gradient descent on cross-entropy: their settings, and one step on a batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from netlathe.training.batch_norm import Statistics
from netlathe.training.compute import Compute
from netlathe.training.distillation import Teacher
from netlathe.training.errors import TrainingError, refuse
from netlathe.training.losses import class_weights, classes_of_labels, cross_entropy
from netlathe.training.ranks import ALONE, Ranks, Share

ClassWeights = Literal["none", "balanced"]
"""none: each image counts alike in a loss. balanced: each class of the training images does (`class_weights`)."""
Optimizer = Literal["sgd", "adamw"]


@dataclass(frozen=True, kw_only=True)
class SgdConfig:
    """Settings that the training of a network and a search share: SGD with Nesterov momentum, label smoothing.

    Raises TrainingError for values that no training can have.
    """

    batch_size: int = 64
    accumulate: int = 1
    """Parts that a batch is computed in: as much less memory, the same gradients except for BatchNorm's statistics."""
    batch_norm: Statistics = "synchronised"
    """Images that BatchNorm's statistics are of, where several processes share a batch."""
    learning_rate: float = 0.1
    """Highest learning rate: a schedule takes it down towards 0."""
    momentum: float = 0.9
    weight_decay: float = 4e-5
    label_smoothing: float = 0.1
    class_weights: ClassWeights = "none"
    seed: int = 0

    def __post_init__(self) -> None:
        refuse(self, self.out_of_range())

    def out_of_range(self) -> dict[str, bool]:
        """Whether a field has a value that it cannot have, by name; subclasses add their own fields."""
        return {
            "batch_size": self.batch_size < 1,
            "accumulate": not (self.accumulate == 1 or 1 < self.accumulate <= self.batch_size // 2),
            "batch_norm": self.batch_norm not in get_args(Statistics),
            "learning_rate": not 0 < self.learning_rate < math.inf,
            "momentum": not 0 <= self.momentum < 1,
            "weight_decay": not 0 <= self.weight_decay < math.inf,
            "label_smoothing": not 0 <= self.label_smoothing < 1,
            "class_weights": self.class_weights not in get_args(ClassWeights),
            "seed": self.seed < 0,
        }

    def weights_of(self, labels: Tensor, classes: int) -> Tensor | None:
        """Weights of classes in losses, of training images with these labels (N,); None where all count alike."""
        return class_weights(labels, classes) if self.class_weights == "balanced" else None

    def share(self, size: int, ranks: Ranks) -> Share:
        """The share of one of several processes in batches of `size` images. Raises TrainingError where it is too
        small."""
        return ranks.share(size, self.accumulate, least=1 if self.batch_norm == "synchronised" else 2)


class WeightStep:
    """An optimizer of a module's weights, and the step that it makes on a batch."""

    def __init__(
        self,
        module: nn.Module,
        config: SgdConfig,
        compute: Compute,
        teacher: Teacher | None = None,
        *,
        weights: Tensor | None = None,
        kind: Optimizer = "sgd",
    ) -> None:
        """`teacher` is on the device of `compute`, in eval mode. `weights`: those of classes in the loss."""
        self.config, self.compute, self.teacher = config, compute, teacher
        self.weights = None if weights is None else weights.to(compute.torch_device)
        self.optimizer = make_optimizer(module, config.learning_rate, config.momentum, config.weight_decay, kind)

    def __call__(
        self,
        batch: tuple[Tensor, Tensor],
        forward: Callable[[Tensor], Tensor],
        learning_rate: float,
        where: str,
        share: Share | None = None,
    ) -> tuple[float, float]:
        """Loss and accuracy (0..1) of the batch before the step, of which this process has the images (n, C, H, W) and
        labels, (n,) or shares of classes (n, classes), of its share; by default, all.

        Weights that `forward` does not use get no gradient at all, so neither momentum nor decay moves them. Raises
        TrainingError, with `where` in its words, for a loss that is no number; no weight has moved then.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.zero_grad(set_to_none=True)
        x, labels = self.compute.put(*batch)
        share = share or ALONE.share(len(labels), self.config.accumulate)
        totals = torch.zeros(2, device=labels.device, dtype=torch.float64)
        for part, wanted, weight in share.parts(x, labels):
            with self.compute.autocast():
                logits = forward(part)
            loss = self._loss(part, logits, wanted) * weight
            loss.backward()  # type: ignore[no-untyped-call]
            right = (logits.detach().argmax(1) == classes_of_labels(wanted)).sum().double() / share.size
            totals += torch.stack([loss.detach().double(), right])
        self.compute.ranks.add(*self._gradients(), totals)
        value, accuracy = totals.tolist()  # the one moment that waits for a GPU
        check_finite(value, where)
        self.optimizer.step()
        return value, accuracy

    def _gradients(self) -> list[Tensor]:
        """The gradients that there are: the same weights' in all processes, as these go the same way through a network.

        torch's DistributedDataParallel expects one of every weight. Of a supernet, a step uses a few in a hundred; told
        so (find_unused_parameters), it looks for them in each graph, and gives all others a gradient of zero, by which
        momentum and decay would move them.
        """
        parameters = (p for group in self.optimizer.param_groups for p in group["params"])
        return [p.grad for p in parameters if p.grad is not None]

    def _loss(self, x: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        smoothing = self.config.label_smoothing
        if self.teacher is None:
            return cross_entropy(logits, labels, weights=self.weights, label_smoothing=smoothing)
        logits = logits.flatten(1)
        if self.teacher.weight == 1:
            return self.teacher.loss(x, logits)
        own = cross_entropy(logits, labels, weights=self.weights, label_smoothing=smoothing)
        return self.teacher.loss(x, logits, own)

    def forget_momentum(self) -> None:
        """Starts over with weights that earlier steps say nothing about."""
        self.optimizer.state.clear()

    def drop(self, parameters: Iterable[nn.Parameter]) -> None:
        """Takes weights that are no longer part of the module out of the optimizer."""
        gone = {id(p) for p in parameters}
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                if id(parameter) in gone:
                    self.optimizer.state.pop(parameter, None)
            group["params"] = [p for p in group["params"] if id(p) not in gone]


def make_optimizer(
    module: nn.Module, learning_rate: float, momentum: float, weight_decay: float, kind: Optimizer = "sgd"
) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum, or AdamW (arXiv:1711.05101; `momentum` is its beta1, 0.999 its beta2), that decays
    weights, but neither biases nor normalizations: nothing of a single axis (arXiv:1812.01187, section 3.1)."""
    decayed = [p for p in module.parameters() if p.ndim > 1]
    plain = [p for p in module.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    if kind == "adamw":
        return torch.optim.AdamW(groups, lr=learning_rate, betas=(momentum, 0.999))
    return torch.optim.SGD(groups, lr=learning_rate, momentum=momentum, nesterov=momentum > 0)


def check_finite(loss: Tensor | float, where: str) -> float:
    """Loss as a number. Raises TrainingError when it is none."""
    value = float(loss.detach()) if isinstance(loss, Tensor) else loss
    if not math.isfinite(value):
        raise TrainingError(f"{where}: the loss became {value}; lower the learning rate")
    return value


def parts_of(x: Tensor, labels: Tensor, count: int) -> Iterable[tuple[Tensor, Tensor]]:
    """A batch in so many parts of nearly equal size: never one of a single image, which BatchNorm cannot normalize."""
    return zip(torch.tensor_split(x, count), torch.tensor_split(labels, count), strict=True)
