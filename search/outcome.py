"""What a search is told, and what it tells: configuration, log lines, result."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from netlathe.archspace.spaces import Architecture, SearchSpace
from netlathe.search.costs import Constraint
from netlathe.search.parameters import Path
from netlathe.search.supernet import SuperNet
from netlathe.training.errors import DataError
from netlathe.training.images import ImageData
from netlathe.training.loop import StepProgress
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
    alpha_learning_rate: float = 0.02
    multiplier_gain: float = 1.0
    """Proportional gain: weight of log(E / limit) in the loss per unit of excess."""
    multiplier_rate: float = 0.03
    """Integral gain per architecture step."""
    prune_below: float = 0.0
    """After each epoch of the third phase, candidates less probable than this are dropped with their weights, as long
    as the limits can still be met without them."""
    looks: int = 128
    """Networks that are compared on validation images at the end, for the last choice; 0: probabilities decide."""
    look_images: int = 1024
    """Most images that each of these is judged by."""

    def out_of_range(self) -> dict[str, bool]:
        return {
            "start_epochs": self.start_epochs < 0,
            "warmup_epochs": self.warmup_epochs < 0,
            "epochs": self.epochs < 0 or self.start_epochs + self.warmup_epochs + self.epochs == 0,
            "alpha_learning_rate": not 0 < self.alpha_learning_rate < math.inf,
            "multiplier_gain": not 0 <= self.multiplier_gain < math.inf,
            "multiplier_rate": not 0 <= self.multiplier_rate < math.inf,
            "prune_below": not 0 <= self.prune_below < 1,
            "looks": self.looks < 0,
            "look_images": self.look_images < 1,
            **super().out_of_range(),
        }


@dataclass(frozen=True)
class Schedule:
    """Which step belongs to which phase; a step is a batch of the training split."""

    config: SearchConfig
    per_epoch: int

    @property
    def start_steps(self) -> int:
        return self.config.start_epochs * self.per_epoch

    @property
    def warm_steps(self) -> int:
        """Before the architecture moves."""
        return self.start_steps + self.config.warmup_epochs * self.per_epoch

    @property
    def steps(self) -> int:
        return self.warm_steps + self.config.epochs * self.per_epoch

    def phase(self, step: int) -> Phase:
        if step < self.start_steps:
            return "start"
        return "warm-up" if step < self.warm_steps else "search"

    def learning_rate(self, step: int) -> float:
        """Of the weights: a cosine over all phases."""
        return 0.5 * self.config.learning_rate * (1 + math.cos(math.pi * step / self.steps))


@dataclass(frozen=True)
class SearchProgress(StepProgress):
    """Where a search stands, after a step."""

    constraints: tuple[Constraint, ...] = ()
    expected: tuple[float, ...] = ()
    """E[cost] under the architecture parameters, one per constraint, in its table's unit."""

    def __str__(self) -> str:
        costs = (f", expected {c.table.show(cost)}" for c, cost in zip(self.constraints, self.expected, strict=True))
        return super().__str__() + next(costs, "")  # the first one alone: a progress bar is short


@dataclass(frozen=True)
class EpochRow:
    """One line of the search's log; a tuple has an entry per constraint."""

    epoch: int
    phase: Phase
    loss: float
    accuracy: float
    """Of the sampled paths on their training batches."""
    expected: tuple[float, ...]
    likeliest: tuple[float, ...]
    """Costs of the most probable network."""
    multipliers: tuple[float, ...]
    entropy: float
    """Mean over positions, in nats; log(candidates) at the start, 0 when decided."""
    candidates: int
    """Left in the supernet, over all searchable positions."""

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> EpochRow:
        """From what `asdict` gave, whose tuples JSON made lists."""
        content: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}
        return cls(**content)


@dataclass(frozen=True)
class SearchResult:
    """What a search found; `supernet` still holds the weights of every candidate that was not dropped."""

    architecture: Architecture
    path: Path
    constraints: tuple[Constraint, ...]
    costs: tuple[float, ...]
    """By the constraints' tables."""
    history: list[EpochRow]
    supernet: SuperNet
    log_probabilities: Tensor
    """(positions, candidates), float64; -inf where there is no candidate."""
    scores: NDArray[np.float64]
    """(positions, candidates): what the chosen path has the largest sum of within the limits, and what to repair by."""
    examined: dict[Path, float]
    """Networks compared for the last choice, with their cross-entropy by the supernet's weights."""

    def summary(self) -> dict[str, object]:
        """All but the weights, for JSON."""
        return {
            "constraints": [{"name": c.table.name, "unit": c.table.unit, "limit": c.limit} for c in self.constraints],
            "costs": list(self.costs),
            "choices": list(self.path),
            "probabilities": [[round(p, 6) for p in row] for row in self.log_probabilities.exp().tolist()],
            "scores": [[s if math.isfinite(s) else None for s in row] for row in self.scores.tolist()],
            "examined": [{"choices": list(p), "cross_entropy": loss} for p, loss in self.examined.items()],
            "history": [asdict(row) for row in self.history],
        }


def check_data(space: SearchSpace, data: ImageData) -> None:
    """Raises DataError when the space leaves no choice or has no head, or when the images are not of its size or have
    more classes than its head."""
    if not space.searchable:
        raise DataError(f"space {space.name!r} has one candidate at every position: there is nothing to search")
    if len(space.positions[-1][0].output_shape) != 1:
        raise DataError(f"space {space.name!r} must end in a linear head, not in {space.positions[-1][0]}")
    if data.input_shape != space.input_shape:
        raise DataError(f"images are {data.input_shape}, space {space.name!r} takes {space.input_shape}")
    for name, split in (("training", data.train), ("validation", data.validation)):
        if len(split) < 2:
            raise DataError(f"{data.name} has {len(split)} {name} image; BatchNorm needs at least two to a batch")
    if len(data.classes) > space.classes:
        raise DataError(
            f"{data.name} has {len(data.classes)} classes, the head of space {space.name!r} {space.classes}"
        )
