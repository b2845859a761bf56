"""The space of work that items have coordinates in, and the prior covariance of two devices' difference over it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from netlathe.predictor.blocks.physics import Physics
from netlathe.predictor.features.op_work import TERMS
from netlathe.predictor.numbers import FlagArray, FloatArray, inverse, squared_distances
from netlathe.predictor.transfer.robust import NOISE

_SIZE_WEIGHT = 0.2
"""Weight of the log of the whole work as a coordinate, beside the shares that kinds of work have in it."""
OWN_LOG = 0.02
"""Standard deviation, in log latency, of what is peculiar to one graph on one device."""


class Scatter(NamedTuple):
    """Hyper-parameters of how unlike two devices are: standard deviations in log latency, and a length scale."""

    among_ratio: float = 1.0
    """Deviations of the new device over those of the known devices among themselves."""
    slope_log: float = 0.3
    """Standard deviation of the linear change, per unit of a share of the work."""
    bend_log: float = 0.05
    """Standard deviation of the smooth change beside it."""
    reach_units: float = 1.0
    """Length scale of the smooth change, in usual distances of two items (WorkSpace.unit)."""
    noise_log: float = NOISE
    """Standard deviation between two measurements in different sessions."""


USUAL = Scatter()
"""Scatter of phones as it was seen."""


@dataclass(frozen=True, eq=False)
class WorkSpace:
    """Coordinates of work: the share of each kind of work in a typical device's time, and the log of the whole work."""

    typical: Physics
    """Rates, up to a factor, of a device in the middle of the known ones."""
    centre: FloatArray
    """Origin of the coordinates, shape (terms + 1,)."""
    unit: float
    """Median distance between two known items."""

    @property
    def used(self) -> list[int]:
        """Columns of the coordinates that may differ from 0: of terms with a rate, and of the whole work, the last."""
        return [*np.flatnonzero(self.typical.rates > 0).tolist(), len(self.typical.rates)]

    def coordinates(self, terms: FloatArray) -> FloatArray:
        """Coordinates, shape (n, terms + 1), of items with work terms (n, terms)."""
        work = terms * self.typical.rates
        total = np.maximum(work.sum(axis=1, keepdims=True), np.finfo(float).tiny)
        return np.asarray(np.hstack([work / total, _SIZE_WEIGHT * np.log(total)]) - self.centre)

    def covariance(self, a: FloatArray, b: FloatArray, scatter: Scatter = USUAL) -> FloatArray:
        """Covariance of the log ratio of two devices at coordinates (n, p) and (m, p), shape (n, m)."""
        bend = np.exp(-0.5 * squared_distances(a, b) / (scatter.reach_units * self.unit) ** 2)
        return np.asarray(scatter.slope_log**2 * (a @ b.T) + scatter.bend_log**2 * bend)

    def variances(self, coordinates: FloatArray, scatter: Scatter = USUAL) -> FloatArray:
        """Variance of that log ratio at coordinates (n, p), shape (n,): the covariance's diagonal."""
        return np.asarray(scatter.slope_log**2 * (coordinates**2).sum(axis=1) + scatter.bend_log**2)


def work_space(terms: FloatArray, rates: FloatArray, seen: FlagArray) -> WorkSpace:
    """Space of the known items' work terms (J, terms), at rates (D, terms)."""
    relative = rates / np.exp(np.median(np.log(terms @ rates.T), axis=0))[:, None]
    typical = Physics(np.median(relative, axis=0), seen)
    coordinates = WorkSpace(typical, np.zeros(len(TERMS) + 1), 1.0).coordinates(terms)
    unit = float(np.median(np.sqrt(squared_distances(coordinates, coordinates)))) if len(coordinates) > 1 else 1.0
    return WorkSpace(typical, coordinates.mean(axis=0), max(unit, 1e-3))


def own_precision(covariance: FloatArray) -> FloatArray:
    """Inverse of the covariance (n, n) of residuals, each of which has something of its own."""
    return inverse(covariance + OWN_LOG**2 * np.eye(len(covariance)))
