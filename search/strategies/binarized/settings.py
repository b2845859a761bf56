"""Settings of a path-binarized search, and the schedule that follows from them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from netlathe.training.sgd import SgdConfig

Phase = Literal["start", "warm-up", "search"]


@dataclass(frozen=True, kw_only=True)
class SearchConfig(SgdConfig):
    """Settings of a path-binarized search in three phases: the widest network alone, whose weights the other candidates
    then start from; weights along random paths; and weights and architecture in turn, the one on a sampled path, the
    other from the validation split.

    Raises TrainingError for values that no search can have.
    """

    start_epochs: int = 4
    """Epochs of the first phase."""
    warmup_epochs: int = 6
    """Epochs of the second phase."""
    epochs: int = 20
    """Epochs of the third phase."""
    batch_size: int = 32
    learning_rate: float = 0.05
    """Highest learning rate of the weights."""
    architecture_every: int = 1
    """Steps of the weights per step of the architecture in the third phase."""
    alpha_learning_rate: float = 0.02
    multiplier_gain: float = 1.0
    """Proportional gain: weight of log(E / limit) in the loss per unit of excess."""
    multiplier_rate: float = 0.03
    """Integral gain per architecture step."""
    prune_below: float = 0.0
    """After each epoch of the third phase, candidates less probable than this are dropped with their weights, as long
    as the limits can still be met without them."""
    finalists: int = 128
    """Networks that are compared on validation images at the end, for the final choice; 0: probabilities decide."""
    finalist_images: int = 1024
    """Most images that a finalist is judged by: all are seen on the first of them, the best on all."""

    def out_of_range(self) -> dict[str, bool]:
        return {
            "start_epochs": self.start_epochs < 0,
            "warmup_epochs": self.warmup_epochs < 0,
            "epochs": self.epochs < 0 or self.start_epochs + self.warmup_epochs + self.epochs == 0,
            "architecture_every": self.architecture_every < 1,
            "alpha_learning_rate": not 0 < self.alpha_learning_rate < math.inf,
            "multiplier_gain": not 0 <= self.multiplier_gain < math.inf,
            "multiplier_rate": not 0 <= self.multiplier_rate < math.inf,
            "prune_below": not 0 <= self.prune_below < 1,
            "finalists": self.finalists < 0,
            "finalist_images": self.finalist_images < 1,
            **super().out_of_range(),
        }


@dataclass(frozen=True)
class Schedule:
    """Phases of the steps of a search; a step is a batch of the training split."""

    config: SearchConfig
    per_epoch: int

    @property
    def start_steps(self) -> int:
        return self.config.start_epochs * self.per_epoch

    @property
    def warm_steps(self) -> int:
        """Steps before the architecture moves."""
        return self.start_steps + self.config.warmup_epochs * self.per_epoch

    @property
    def steps(self) -> int:
        return self.warm_steps + self.config.epochs * self.per_epoch

    def moves_architecture(self, step: int) -> bool:
        """Whether this step is one of the architecture, too."""
        searched = step - self.warm_steps
        return searched >= 0 and searched % self.config.architecture_every == 0

    def architecture_steps(self, step: int) -> int:
        """Steps of the architecture before this one."""
        return -(-max(0, step - self.warm_steps) // self.config.architecture_every)

    def phase(self, step: int) -> Phase:
        if step < self.start_steps:
            return "start"
        return "warm-up" if step < self.warm_steps else "search"

    def learning_rate(self, step: int) -> float:
        """Learning rate of the weights: a cosine over all phases."""
        return 0.5 * self.config.learning_rate * (1 + math.cos(math.pi * step / self.steps))
