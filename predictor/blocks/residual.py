"""Regressors of the physics' log residual, log(measured / physics), on standardised log features and ops.

Away from the records each is made to fade to 0, the pure physics. Each is saved as plain numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, Self

import numpy as np

from netlathe.predictor.blocks.boosted_trees import fit_boosted_trees
from netlathe.predictor.blocks.gaussian_process import GaussianProcess, fit_gaussian_process
from netlathe.predictor.blocks.physics import robust_deviation
from netlathe.predictor.blocks.random_forest import fit_random_forest
from netlathe.predictor.blocks.trees import Trees
from netlathe.predictor.features.inputs import Inputs
from netlathe.predictor.numbers import FloatArray, read_number

ResidualKind = Literal["none", "gp", "xgboost", "forest"]
"""Kinds of residual, as files name them."""
ResidualChoice = Literal["auto", "none", "gp", "xgboost", "forest"]
"""A kind of residual, or the choice by held-out error."""
Weights = Mapping[ResidualKind, float]
"""Weight of each kind of residual; the sum is 1."""
_NEIGHBOURS = 5
"""Nearest records that say whether one stands out."""
_OUTLIER = 4.0
"""Robust standard deviations from its neighbours from which on a record is an outlier."""
_LEAST_OUTLIER = 0.02
"""Log error below which no record is one."""


class Residual(Protocol):
    """A fitted regressor of the log residual. `kind` names it in files."""

    @property
    def kind(self) -> ResidualKind: ...

    @property
    def fades(self) -> bool:
        """Whether predictions go to 0 by themselves away from the records; if not, the caller has to see to it."""
        ...

    def predict(self, inputs: Inputs) -> FloatArray:
        """Log residuals, log(latency / physics), shape (n,)."""
        ...

    def to_json(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class NoResidual:
    """No residual: the physics alone."""

    kind: ResidualKind = "none"
    fades: ClassVar[bool] = True

    def predict(self, inputs: Inputs) -> FloatArray:
        """Log residuals of 0, shape (n,)."""
        return np.zeros(len(inputs.z))

    def to_json(self) -> dict[str, Any]:
        return {}


@dataclass(frozen=True)
class Mixture:
    """The weighted mean of one or several residuals, each of another kind."""

    weights: Weights
    residuals: Mapping[ResidualKind, Residual]

    @property
    def name(self) -> str:
        """Name of the mixture, such as "gp", or "0.7 gp + 0.3 forest"."""
        if len(self.weights) == 1:
            return next(iter(self.weights))
        return " + ".join(f"{weight:.3g} {kind}" for kind, weight in self.weights.items())

    def predict(self, inputs: Inputs, proximity: Callable[[], FloatArray]) -> FloatArray:
        """Log residuals, log(latency / physics), shape (n,). `proximity` gives the weight of the records for each item,
        (n,), by which a residual that does not fade by itself is multiplied."""
        fading, lasting = np.zeros((2, len(inputs.z)))
        for kind, residual in self.residuals.items():
            said = self.weights[kind] * residual.predict(inputs)
            if residual.fades:
                fading += said
            else:
                lasting += said
        if all(residual.fades for residual in self.residuals.values()):
            return fading
        return np.asarray(fading + lasting * proximity())

    def to_json(self) -> dict[str, Any]:
        """Parts with their weights; a single residual is written as itself."""
        parts = [{"kind": kind, **residual.to_json()} for kind, residual in self.residuals.items()]
        if len(parts) == 1:
            return parts[0]
        return {"kind": "mixture", "weights": list(self.weights.values()), "parts": parts}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The object that to_json wrote. Raises ValueError, KeyError or TypeError when the data is not such a
        mixture."""
        if data["kind"] != "mixture":
            return cls.alone(residual_from_json(data["kind"], data))
        residuals = {part.kind: part for part in (residual_from_json(one["kind"], one) for one in data["parts"])}
        shares = [read_number({"weight": weight}, "weight", least=0.0, most=1.0) for weight in data["weights"]]
        if not len(residuals) == len(data["parts"]) == len(shares) or abs(sum(shares) - 1) > 1e-6:
            raise ValueError("the weights are not those of different residuals, or their sum is not 1")
        return cls(dict(zip(residuals, shares, strict=True)), residuals)

    @classmethod
    def alone(cls, residual: Residual) -> Self:
        return cls({residual.kind: 1.0}, {residual.kind: residual})


def fit_residuals(
    kinds: Sequence[ResidualKind], inputs: Inputs, log_ratio: FloatArray, seed: int
) -> dict[ResidualKind, Residual]:
    """A residual of each kind, fitted to log(measured / physics) of shape (n,); isolated outliers count little."""
    cleaned = log_ratio if set(kinds) <= {"none"} else _without_outliers(inputs.z, log_ratio)
    return {kind: _FITS[kind](inputs, cleaned, seed) for kind in kinds}


def residual_from_json(kind: object, data: Mapping[str, Any]) -> Residual:
    """The residual that was written. Raises ValueError, KeyError or TypeError when the data is not one of that kind."""
    if kind == "none":
        return NoResidual()
    if kind == "gp":
        return GaussianProcess.from_json(data)
    if kind == "xgboost" or kind == "forest":
        return Trees.from_json(kind, data)
    raise ValueError(f"unknown residual {kind!r}")


def _without_outliers(z: FloatArray, log_ratio: FloatArray) -> FloatArray:
    """Log ratios (n,) with records pulled in that stand out from their neighbours. A whole group that stands out is an
    effect to learn."""
    count = min(_NEIGHBOURS, len(z) - 1)
    if count < 3:
        return log_ratio
    from scipy.spatial import cKDTree  # takes longer to import than to predict, which needs none of it

    _, nearest = cKDTree(z).query(z, k=count + 1)
    around = np.median(log_ratio[nearest[:, 1:]], axis=1)
    limit = _OUTLIER * robust_deviation(log_ratio - around) + _LEAST_OUTLIER
    return np.clip(log_ratio, around - limit, around + limit)


def _fit_none(inputs: Inputs, log_ratio: FloatArray, seed: int) -> Residual:
    return NoResidual()


_FITS: dict[ResidualKind, Callable[[Inputs, FloatArray, int], Residual]] = {
    "none": _fit_none,
    "gp": fit_gaussian_process,
    "xgboost": fit_boosted_trees,
    "forest": fit_random_forest,
}
