"""Progress, log lines and result of a path-binarized search."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from netlathe.archspace.decisions import Choices
from netlathe.archspace.spaces import Architecture, SearchSpace
from netlathe.search.costs import Constraint
from netlathe.search.strategies.binarized.settings import Phase
from netlathe.search.strategies.binarized.supernet import SuperNet
from netlathe.training.errors import DataError
from netlathe.training.images import ImageData
from netlathe.training.loop import StepProgress


@dataclass(frozen=True)
class SearchProgress(StepProgress):
    """Position of a search after a step."""

    constraints: tuple[Constraint, ...] = ()
    expected: tuple[float, ...] = ()
    """E[cost] under the architecture parameters, one per constraint, in its table's unit."""

    def __str__(self) -> str:
        costs = (f", expected {c.table.show(cost)}" for c, cost in zip(self.constraints, self.expected, strict=True))
        return super().__str__() + next(costs, "")  # the first one alone: a progress bar is short


@dataclass(frozen=True)
class EpochRow:
    """Line of the search's log, per epoch; a tuple has an entry per constraint."""

    epoch: int
    phase: Phase
    loss: float
    accuracy: float
    """Accuracy of the sampled paths on their training batches."""
    expected: tuple[float, ...]
    likeliest: tuple[float, ...]
    """Costs of the most probable network."""
    multipliers: tuple[float, ...]
    entropy: float
    """Mean entropy over positions, in nats; log(candidates) at the start, 0 when decided."""
    candidates: int
    """Candidates left in the supernet, over all searchable positions."""

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> EpochRow:
        """The row that `asdict` was given; JSON made lists of its tuples."""
        content: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}
        return cls(**content)


@dataclass(frozen=True)
class SearchResult:
    """The architecture found, and the evidence; `supernet` still holds the weights of all candidates not dropped."""

    architecture: Architecture
    path: Choices
    constraints: tuple[Constraint, ...]
    costs: tuple[float, ...]
    """Costs of the architecture by the constraints' tables."""
    history: list[EpochRow]
    supernet: SuperNet
    log_probabilities: Tensor
    """Log probabilities (positions, candidates), float64; -inf where there is no candidate."""
    scores: NDArray[np.float64]
    """Additive scores (positions, candidates), of which the chosen path has the largest sum within the limits; a repair
    decodes them again."""
    examined: dict[Choices, float]
    """Networks compared for the final choice, with their cross-entropy by the supernet's weights, or by a loss of the
    caller's own."""

    def summary(self) -> dict[str, object]:
        """The result without its weights, for JSON."""
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
