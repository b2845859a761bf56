"""Regressors for what the physics leaves over: log(measured / physics) from standardised log features.

Each fades to 0, the pure physics, away from the records, and is saved as plain numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from scipy.spatial import cKDTree

from predictor.boosted_trees import BoostedTrees, fit_boosted_trees
from predictor.features import FloatArray
from predictor.gaussian_process import GaussianProcess, fit_gaussian_process
from predictor.physics import robust_deviation

ResidualKind = Literal["none", "gp", "xgboost"]
_NEIGHBOURS = 5
_OUTLIER = 4.0
_LEAST_OUTLIER = 0.02


class Residual(Protocol):
    """A fitted residual. `kind` names it in files."""

    @property
    def kind(self) -> ResidualKind: ...

    def predict(self, z: FloatArray, remoteness: FloatArray) -> FloatArray:
        """log(latency / physics), shape (n,), of standardised features (n, p), `remoteness` (n,) from the records."""
        ...

    def to_json(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class NoResidual:
    """The physics alone."""

    kind: ResidualKind = "none"

    def predict(self, z: FloatArray, remoteness: FloatArray) -> FloatArray:
        return np.zeros(len(z))

    def to_json(self) -> dict[str, Any]:
        return {}


def fit_residual(kind: ResidualKind, z: FloatArray, log_ratio: FloatArray, seed: int) -> Residual:
    """Fits log(measured / physics) of shape (n,) on standardised features (n, p); isolated outliers count little."""
    calm = _without_outliers(z, log_ratio)
    return _FITS[kind](z, calm, seed)


def residual_from_json(kind: object, data: Mapping[str, Any], width: int) -> Residual:
    """Raises ValueError, KeyError or TypeError when the data is not such a residual for `width` features."""
    if kind == "none":
        return NoResidual()
    if kind == "gp":
        return GaussianProcess.from_json(data, width)
    if kind == "xgboost":
        return BoostedTrees.from_json(data, width)
    raise ValueError(f"unknown residual {kind!r}")


def _without_outliers(z: FloatArray, log_ratio: FloatArray) -> FloatArray:
    """Pulls in records that stand out from their neighbours. A whole group that stands out is an effect to learn."""
    count = min(_NEIGHBOURS, len(z) - 1)
    if count < 3:
        return log_ratio
    _, nearest = cKDTree(z).query(z, k=count + 1)
    around = np.median(log_ratio[nearest[:, 1:]], axis=1)
    limit = _OUTLIER * robust_deviation(log_ratio - around) + _LEAST_OUTLIER
    return np.clip(log_ratio, around - limit, around + limit)


def _fit_none(z: FloatArray, log_ratio: FloatArray, seed: int) -> Residual:
    return NoResidual()


_FITS: dict[ResidualKind, Callable[[FloatArray, FloatArray, int], Residual]] = {
    "none": _fit_none,
    "gp": fit_gaussian_process,
    "xgboost": fit_boosted_trees,
}
