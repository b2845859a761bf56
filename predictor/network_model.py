"""From blocks to networks: a network takes offset + slope * (sum of its blocks).

A sum of blocks timed alone misses what the runtime does between them and counts again and again what it does once per
call; a slope and an offset fitted on a few measured networks correct for both. Without networks they are 1 and 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import lsq_linear
from scipy.stats import norm

from predictor.features import FloatArray
from predictor.intervals import Conformal
from predictor.numbers import read_array, read_number
from predictor.physics import huber_weights, robust_deviation
from predictor.segments import BlockSums

ENOUGH_NETWORKS = 5
"""From this many networks on, their own errors say how wrong a prediction may be."""
_SLOPE_DEVIATION = 0.2
"""Prior uncertainty of the slope around 1: sums of blocks were seen 6 % above and 20 % below the whole."""
_OFFSET_DEVIATION = 0.2
"""Prior uncertainty of the offset around 0, in parts of a typical network's latency."""
_NOISE = 0.02
"""Relative error left over when slope and offset are right."""
_LEAST_SHARE = 0.1
"""A negative offset never takes more than the rest from a network smaller than those it was fitted on."""
_ITERATIONS = 10


@dataclass(frozen=True)
class NetworkModel:
    """Slope and offset, their covariance (2, 2), and the errors on networks that they were not fitted on."""

    slope: float
    offset_ms: float
    covariance: FloatArray
    errors: Conformal | None = None

    def predict(self, sums_ms: FloatArray) -> FloatArray:
        """ms of networks whose blocks sum up to that; both (n,)."""
        scaled = self.slope * sums_ms
        return np.maximum(self.offset_ms + scaled, _LEAST_SHARE * scaled)

    def half_widths(self, sums: BlockSums, coverage: float) -> FloatArray:
        """Of the intervals, in logarithms, shape (n,): from the errors on other networks where there are enough, else
        from the blocks' own; and in both cases from the uncertainty of slope and offset."""
        z = float(norm.ppf((1 + coverage) / 2))
        design = np.stack([sums.latency_ms, np.ones_like(sums.latency_ms)], axis=1)
        variance = np.einsum("ni,ij,nj->n", design, self.covariance, design)
        calibration = z * np.sqrt(variance) / self.predict(sums.latency_ms)
        if self.errors is not None:
            return np.asarray(np.hypot(calibration, self.errors.quantile(coverage) * sums.scale) + sums.doubt)
        return np.asarray(np.hypot(calibration, np.hypot(z * _NOISE, sums.half_width)))

    def to_json(self) -> dict[str, Any]:
        errors = self.errors.to_json() if self.errors else None
        covariance = self.covariance.tolist()
        return {"slope": self.slope, "offset_ms": self.offset_ms, "covariance": covariance, "errors": errors}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> NetworkModel:
        """Raises ValueError, KeyError or TypeError on anything that is not a network model."""
        slope, covariance = read_number(data, "slope"), read_array(data, "covariance", 2, 2)
        if slope < 0 or np.linalg.eigvalsh(covariance).min() < -1e-9 * np.abs(covariance).max():
            raise ValueError("slope and covariance must not be negative")
        errors = None if data["errors"] is None else Conformal.from_json(data["errors"])
        return cls(slope, read_number(data, "offset_ms"), covariance, errors)


def fit_network_model(sums: BlockSums, latency_ms: FloatArray) -> NetworkModel:
    """From n >= 0 measured networks; latency_ms has shape (n,)."""
    model = _fit(sums.latency_ms, latency_ms)
    if len(latency_ms) < ENOUGH_NETWORKS:
        return model
    held_out = leave_one_out(sums, latency_ms)
    predicted = np.array([other.predict(sums.latency_ms[[i]])[0] for i, other in enumerate(held_out)])
    scores = np.abs(np.log(latency_ms / predicted)) / sums.scale
    return NetworkModel(model.slope, model.offset_ms, model.covariance, Conformal(np.sort(scores)))


def leave_one_out(sums: BlockSums, latency_ms: FloatArray) -> list[NetworkModel]:
    """For each network the model that the others give, without errors of its own."""
    everything = np.arange(len(latency_ms))
    rest = [np.delete(everything, i) for i in everything]
    return [_fit(sums.latency_ms[others], latency_ms[others]) for others in rest]


def _fit(sums_ms: FloatArray, latency_ms: FloatArray) -> NetworkModel:
    """Bayesian linear regression of relative errors with a Gaussian prior around (1, 0); slope >= 0. Huber's weights
    once there are enough networks to tell which one is off."""
    typical = float(np.median(latency_ms)) if len(latency_ms) else 0.0
    deviations = np.array([_SLOPE_DEVIATION, max(_OFFSET_DEVIATION * typical, 1e-12)])
    design = np.stack([sums_ms, np.ones_like(sums_ms)], axis=1) / latency_ms[:, None]
    weights, noise, found = np.ones(len(latency_ms)), _NOISE, np.array([1.0, 0.0])
    for _ in range(_ITERATIONS if len(latency_ms) else 0):
        rows = np.sqrt(weights) / noise
        system = np.vstack([design * rows[:, None], np.diag(1 / deviations)])
        target = np.concatenate([rows, [1 / deviations[0], 0.0]])
        # In units of the prior deviations: otherwise ms and ratios differ by orders of magnitude.
        found = deviations * lsq_linear(system * deviations, target, bounds=([0, -np.inf], np.inf)).x
        residuals = design @ found - 1
        if len(latency_ms) >= ENOUGH_NETWORKS:
            weights = huber_weights(residuals)
            noise = max(_NOISE, robust_deviation(residuals))
    precision = design.T @ (design * weights[:, None]) / noise**2 + np.diag(deviations**-2.0)
    return NetworkModel(float(found[0]), float(found[1]), np.asarray(np.linalg.inv(precision), dtype=float))
