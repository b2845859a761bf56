"""The domain of a model: the distance of a graph from those that it was fitted on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from netlathe.predictor.numbers import CACHED_ENTRIES, FloatArray, read_logs, read_positive

_LEAST_SPREAD = 0.1
"""Least unit of a log feature: one that varies less among the records is measured in this."""
_LEAST_REACH = 0.1
"""Least distance, in standard deviations, that counts as near: records may all but coincide."""
_BEYOND = 2.0
"""Reaches that each standard deviation outside the range of a feature counts for."""
USUAL_GROWTH = 1.0
"""Growth of the error with the distance, where the records do not tell."""
_FARTHEST = 1e6
"""Largest coordinate that a file may hold, far beyond any log size in any unit."""


@dataclass(frozen=True)
class Domain:
    """Standardised log features of the fitted graphs. Shapes: points (n, p), centre and spread (p,)."""

    points: FloatArray
    centre: FloatArray
    spread: FloatArray
    reach: float
    """The distance to the nearest neighbour that nine in ten of the points keep."""
    growth: float = USUAL_GROWTH
    """Growth of the error per unit of `excess`."""

    def standardise(self, features: FloatArray) -> FloatArray:
        """Log features in units of the domain's spread, shape (n, p) as given."""
        return np.asarray((features - self.centre) / self.spread)

    def remoteness(self, features: FloatArray) -> FloatArray:
        """Distance to the nearest fitted graph over `reach`, shape (n,): about 1 or less inside the records' range."""
        # By matrix products: in a dozen dimensions a search tree visits nearly all points, one by one.
        z, squares = self.standardise(features), (self.points**2).sum(axis=1)
        towards, step = -2 * self.points.T, max(1, CACHED_ENTRIES // len(self.points))
        parts = []
        for part in (z[i : i + step] for i in range(0, len(z), step)):
            distances = part @ towards
            distances += squares
            parts.append((part**2).sum(axis=1) + distances.min(axis=1))
        return np.asarray(np.sqrt(np.maximum(np.concatenate([np.zeros(0), *parts]), 0)) / self.reach)

    def proximity(self, features: FloatArray) -> FloatArray:
        """Weight of the records for a graph, shape (n,): 1 among them, towards 0 far away."""
        return np.asarray(1 / (1 + np.maximum(self.remoteness(features) - 1, 0) ** 2))

    def excess(self, features: FloatArray) -> FloatArray:
        """Distance of a graph outside the records, in reaches, shape (n,): 0 among them, what it is farther from the
        nearest than they are from each other, and more outside the range of a feature, where effects wait that no
        record shows."""
        z = self.standardise(features)
        beyond = np.maximum(self.points.min(axis=0) - z, z - self.points.max(axis=0)).max(axis=1, initial=0)
        return np.asarray(np.maximum(self.remoteness(features) - 1, 0) + _BEYOND * beyond)

    def stretch(self, features: FloatArray) -> FloatArray:
        """Factor to widen an interval by, shape (n,): 1 among the records, more the farther away."""
        return np.asarray(1 + self.growth * self.excess(features))

    def to_json(self) -> dict[str, object]:
        arrays = {name: getattr(self, name).tolist() for name in ("points", "centre", "spread")}
        return {**arrays, "reach": self.reach, "growth": self.growth}

    @classmethod
    def from_json(cls, data: Mapping[str, object], width: int) -> Domain:
        """The object that to_json wrote. Raises ValueError, TypeError or KeyError when the arrays are not what `width`
        features need."""
        points = read_logs(data, "points", -1, width, most=_FARTHEST)
        if not len(points):
            raise ValueError("the domain is empty")
        spread = read_positive(data, "spread", width, least=_LEAST_SPREAD / 2, most=_FARTHEST)
        reach, growth = (float(read_positive(data, name, least=1e-3, most=_FARTHEST)) for name in ("reach", "growth"))
        return cls(points, read_logs(data, "centre", width, most=_FARTHEST), spread, reach, growth)


def fit_domain(features: FloatArray) -> Domain:
    """Domain of graphs with log features of shape (n, p), n >= 1."""
    centre, spread = features.mean(axis=0), np.maximum(features.std(axis=0), _LEAST_SPREAD)
    # As precise as distances need it, in half of the space.
    points = np.unique(((features - centre) / spread).astype(np.float32), axis=0).astype(float)
    reach = _LEAST_REACH
    if len(points) > 1:
        from scipy.spatial import cKDTree  # only fits need it

        nearest = cKDTree(points).query(points, k=2)[0][:, 1]
        reach = max(float(np.quantile(nearest, 0.9)), _LEAST_REACH)
    return Domain(points, centre, spread, reach)
