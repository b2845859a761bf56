"""The latency of networks from their blocks: offset + slope * (sum of the blocks) + what a network adds per MB of
weights and per block.

A sum of blocks timed alone counts again and again what the runtime does once per call, and finds in the cache the
weights that in a network have to come from further away each time. Slope, offset and the two rates are fitted on a few
measured networks. Without networks, the slope is 1 and all else 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from netlathe.archspace.records import STABLE_SPREAD
from netlathe.predictor.blocks.physics import robust_deviation
from netlathe.predictor.intervals import Conformal, normal_quantile, one_for_each
from netlathe.predictor.networks.segments import BlockSums
from netlathe.predictor.numbers import FloatArray, read_array, read_number

ENOUGH_NETWORKS = 5
"""Fewest networks whose own errors say how wrong a prediction may be."""
_PRIOR = np.array([1.0, 0.0, 0.0, 0.0])
"""Prior of NetworkModel.coefficients: the plain sum of the blocks."""
_COEFFICIENT_DEVIATION = 0.2
"""Standard deviation of each coefficient around its prior, in parts of a typical network's latency: sums of blocks were
seen 6 % above and 20 % below the whole."""
_NOISE = 0.02
"""Relative error left over when slope and offset are right."""
_LEAST_SHARE = 0.5
"""Least part of slope x its blocks that a network keeps, however much a negative offset, fitted on larger ones, would
take."""
_ITERATIONS = 10
"""Iterations of the reweighted fit."""
_TINY_MS = 1e-12
"""Least latency to divide by."""


@dataclass(frozen=True)
class NetworkModel:
    """Coefficients of design(), their covariance (4, 4), and held-out errors on networks where there are enough."""

    slope: float
    offset_ms: float
    ms_per_weight_mb: float
    ms_per_block: float
    covariance: FloatArray
    errors: Conformal | None = None

    @property
    def coefficients(self) -> FloatArray:
        """The coefficients in the order of design()'s columns, shape (4,)."""
        return np.array([self.slope, self.offset_ms, self.ms_per_weight_mb, self.ms_per_block])

    def predict(self, sums: BlockSums) -> FloatArray:
        """Latencies of networks in ms, shape (n,), from the sums over their blocks."""
        return np.maximum(design(sums) @ self.coefficients, _LEAST_SHARE * self.slope * sums.latency_ms)

    def contributions(self, sums: BlockSums) -> FloatArray:
        """Latencies that single blocks add to a network, in ms, shape (n,): with offset_ms they add up to the
        network."""
        return np.asarray(design(sums) @ self.coefficients - self.offset_ms)

    def half_widths(self, sums: BlockSums, coverage: float) -> FloatArray:
        """Half-widths of the intervals in logarithms, shape (n,): from the errors on other networks where there are
        enough, else from the blocks' own; and in both cases from the uncertainty of the coefficients."""
        if self.errors is not None:
            return np.asarray(self.errors.quantile(coverage) * self.deviations(sums) * sums.scale + sums.doubt)
        z = normal_quantile((1 + coverage) / 2)
        return np.asarray(np.hypot(z * self.deviations(sums), sums.half_width))

    def deviations(self, sums: BlockSums) -> FloatArray:
        """Relative standard deviation, shape (n,), that the coefficients' uncertainty and the least noise leave."""
        rows = design(sums)
        variance = np.maximum(np.einsum("ni,ij,nj->n", rows, self.covariance, rows), 0)
        return np.asarray(np.hypot(np.sqrt(variance) / np.maximum(self.predict(sums), _TINY_MS), _NOISE))

    def to_json(self) -> dict[str, Any]:
        names = ("slope", "offset_ms", "ms_per_weight_mb", "ms_per_block")
        errors = self.errors.to_json() if self.errors else None
        return {
            **{name: getattr(self, name) for name in names},
            "covariance": self.covariance.tolist(),
            "errors": errors,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> NetworkModel:
        """The object that to_json wrote. Raises ValueError, KeyError or TypeError on anything that is not a network
        model."""
        covariance = read_array(data, "covariance", 4, 4)
        tiny = 1e-9 * np.abs(covariance).max()
        if np.abs(covariance - covariance.T).max() > tiny or np.linalg.eigvalsh(covariance).min() < -tiny:
            raise ValueError("the covariance must be symmetric and not negative")
        return cls(
            read_number(data, "slope", least=0.0),
            read_number(data, "offset_ms"),
            read_number(data, "ms_per_weight_mb", least=0.0),
            read_number(data, "ms_per_block", most=0.0),
            covariance,
            None if data["errors"] is None else Conformal.from_json(data["errors"]),
        )


def design(sums: BlockSums) -> FloatArray:
    """Design matrix of the linear model, shape (n, 4): ms of the blocks, 1, MB of weights, number of blocks."""
    return np.stack([sums.latency_ms, np.ones_like(sums.latency_ms), sums.weight_mb, sums.blocks], axis=1)


def fit_network_model(
    sums: BlockSums, latency_ms: FloatArray, keys: Sequence[str], errors: FloatArray | None = None
) -> NetworkModel:
    """A model fitted to n >= 0 measured networks; latency_ms has shape (n,), equal networks have equal keys. `errors`,
    (n,), as of Sample, say how much each counts."""
    errors = np.zeros(len(latency_ms)) if errors is None else errors
    model = _fit(sums, latency_ms, errors)
    numbers = np.unique(np.array(keys, dtype=str), return_inverse=True)[1]
    stable = errors <= STABLE_SPREAD  # how far the others are from a prediction says how wrong they are, not it
    if len(set(numbers[stable].tolist())) < ENOUGH_NETWORKS:
        return model
    scores = np.empty(len(latency_ms))
    for number in set(numbers[stable].tolist()):
        held_out, rest = np.flatnonzero(stable & (numbers == number)), np.flatnonzero(numbers != number)
        other, own = _fit(sums.take(rest), latency_ms[rest], errors[rest]), sums.take(held_out)
        # In units of what the others leave open: the lightest and the heaviest network are far out for them, and being
        # wrong there says little about what lies between.
        expected = own.scale * other.deviations(own)
        scores[held_out] = np.abs(np.log(latency_ms[held_out] / other.predict(own))) / expected
    return replace(model, errors=Conformal(one_for_each(scores[stable], numbers[stable])))


def plain_sum() -> NetworkModel:
    """The prior of networks, before any has been measured: the sum of their blocks."""
    return NetworkModel(1.0, 0.0, 0.0, 0.0, np.diag([_COEFFICIENT_DEVIATION**2, 0.0, 0.0, 0.0]))


def _fit(sums: BlockSums, latency_ms: FloatArray, errors: FloatArray) -> NetworkModel:
    """Bayesian linear regression of relative errors with a Gaussian prior, within bounds. Cauchy's weights once there
    are enough networks to tell which one is off."""
    if not len(latency_ms):
        return plain_sum()
    from scipy.optimize import lsq_linear  # only fits need it

    rows, stable = design(sums), errors <= STABLE_SPREAD
    sure = stable if stable.any() else errors <= np.median(errors)
    # A bad hour disturbs all networks alike, so that together they say no more than one of them.
    errors = np.where(stable, errors, errors * np.sqrt((~stable).sum()))
    deviations, least, most = _beliefs(sums.take(np.flatnonzero(sure)), latency_ms[sure])
    weights, noise = np.ones(len(latency_ms)), np.hypot(_NOISE, errors)
    # From the usual ratio on: a line through a wrong network at either end would take that network's side for good.
    found = _PRIOR * np.median((latency_ms / sums.latency_ms)[sure])
    for _ in range(_ITERATIONS):
        predicted = rows @ found
        larger = np.maximum(latency_ms, predicted)  # so that what is wrong counts alike, whether too fast or too slow
        residuals = (predicted - latency_ms) / larger
        if len(latency_ms) >= ENOUGH_NETWORKS:
            noise = np.hypot(max(_NOISE, robust_deviation(residuals[sure])), errors)
            weights = 1 / (1 + (residuals / (2 * noise)) ** 2)
        scale = np.sqrt(weights) / noise / larger
        system = np.vstack([rows * scale[:, None], np.diag(1 / deviations)])
        target = np.concatenate([latency_ms * scale, _PRIOR / deviations])
        # In units of the prior deviations: otherwise ms and ratios differ by orders of magnitude.
        bounds = (least / deviations, most / deviations)
        found = deviations * lsq_linear(system * deviations, target, bounds=bounds, method="bvls").x
        found = np.clip(found, least, most)  # rounding leaves the bounds by some 1e-20
    relative = rows / larger[:, None]
    precision = relative.T @ (relative * (weights / noise**2)[:, None]) + np.diag(deviations**-2.0)
    slope, offset_ms, ms_per_weight_mb, ms_per_block = (float(value) for value in found)
    covariance = np.asarray(np.linalg.inv(precision), dtype=float)
    return NetworkModel(slope, offset_ms, ms_per_weight_mb, ms_per_block, covariance)


def _beliefs(sums: BlockSums, latency_ms: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Prior standard deviations of the coefficients, and their least and largest values, each (4,)."""
    # A coefficient may be worth that part of a typical network's latency; what no network has stays at its prior.
    deviations = _COEFFICIENT_DEVIATION * np.median(latency_ms) / np.maximum(np.median(design(sums), axis=0), 1e-12)
    deviations[0] = _COEFFICIENT_DEVIATION
    # Weights cost time to fetch. A call that is not made saves time, but less than the fastest block took with it, and
    # no saving leaves less than that share of the smallest network.
    most_saved = (1 - _LEAST_SHARE) * float(sums.latency_ms.min())
    least = np.array([0.0, -most_saved, 0.0, -float(sums.least_ms.min())])
    return deviations, least, np.array([np.inf, np.inf, np.inf, 0.0])
