"""How far a graph is from the ones a model was fitted on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.spatial import cKDTree

from predictor.features import FloatArray
from predictor.numbers import read_array, read_positive

_LEAST_SPREAD = 0.1
"""Features that vary less than this (10 %, in logarithms) among the records are measured in this unit."""
_LEAST_REACH = 0.1
_BEYOND = 2.0
"""Growth of the error per standard deviation outside the range of a feature. Measured: models of MBConv blocks up to
56 pixels err 2.5 times as much on 64 to 128."""


@dataclass(frozen=True)
class Domain:
    """Log features of the fitted graphs, standardised. Shapes: points (n, p), centre and spread (p,)."""

    points: FloatArray
    centre: FloatArray
    spread: FloatArray
    reach: float
    """The distance to the nearest neighbour that nine in ten of the points keep."""

    @cached_property
    def _tree(self) -> cKDTree:
        return cKDTree(self.points)

    def standardise(self, features: FloatArray) -> FloatArray:
        return np.asarray((features - self.centre) / self.spread)

    def remoteness(self, features: FloatArray) -> FloatArray:
        """Distance to the nearest fitted graph over `reach`, shape (n,): about 1 or less inside the records' range."""
        distances, _ = self._tree.query(self.standardise(features))
        return np.asarray(distances, dtype=float) / self.reach

    def stretch(self, features: FloatArray) -> FloatArray:
        """What to widen an interval by, shape (n,): 1 among the records; more between distant ones, and more still
        outside the range of their features, where effects wait that no record shows."""
        z = self.standardise(features)
        beyond = np.maximum(self.points.min(axis=0) - z, z - self.points.max(axis=0)).max(axis=1, initial=0)
        return np.asarray(np.maximum(self.remoteness(features), 1.0) * (1 + _BEYOND * beyond))

    def to_json(self) -> dict[str, object]:
        arrays = {name: getattr(self, name).tolist() for name in ("points", "centre", "spread")}
        return {**arrays, "reach": self.reach}

    @classmethod
    def from_json(cls, data: Mapping[str, object], width: int) -> Domain:
        """Raises ValueError, TypeError or KeyError when the arrays are not what `width` features need."""
        points = read_array(data, "points", -1, width)
        if not len(points):
            raise ValueError("the domain is empty")
        spread, reach = read_positive(data, "spread", width), read_positive(data, "reach")
        return cls(points, read_array(data, "centre", width), spread, float(reach))


def fit_domain(features: FloatArray) -> Domain:
    """The domain of log features of shape (n, p), n >= 1."""
    centre, spread = features.mean(axis=0), np.maximum(features.std(axis=0), _LEAST_SPREAD)
    points = np.unique((features - centre) / spread, axis=0)
    reach = _LEAST_REACH
    if len(points) > 1:
        nearest = cKDTree(points).query(points, k=2)[0][:, 1]
        reach = max(float(np.quantile(nearest, 0.9)), _LEAST_REACH)
    return Domain(points, centre, spread, reach)
