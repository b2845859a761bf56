"""A Gaussian process with a length scale per feature, small enough to be saved as numbers.

Rasmussen and Williams, Gaussian Processes for Machine Learning (2006): equations 2.23 (mean), 5.8 and 5.9 (marginal
likelihood and its gradient). Log-normal priors keep the hyper-parameters sensible with a handful of records.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.optimize import minimize

from predictor.features import FloatArray
from predictor.numbers import read_array, read_positive

_MOST_FOR_HYPERPARAMETERS = 250
"""The hyper-parameters of more records are found on a random part of them: the search is cubic in their number."""
_SEARCH_STEPS = 40
_CHUNK = 4096
_TYPICAL_LENGTH = 2.0
"""Prior length scale, in standard deviations of the features, per square root of their number."""
_NOISE_SHARE = 0.3
"""Prior share of the log ratios' scatter that no feature explains."""


@dataclass(frozen=True)
class GaussianProcess:
    """Mean of the process. Shapes: points (m, p) divided by lengths (p,), weights (m,)."""

    points: FloatArray
    weights: FloatArray
    lengths: FloatArray
    signal: float
    """Variance of the log ratios that the features explain."""
    kind: Literal["gp"] = "gp"

    def predict(self, z: FloatArray, remoteness: FloatArray) -> FloatArray:
        """Shape (n,) for z of shape (n, p). Fades to 0 by itself, so `remoteness` is not needed."""
        scaled = z / self.lengths
        parts = [
            _kernel(scaled[i : i + _CHUNK], self.points, self.signal) @ self.weights for i in range(0, len(z), _CHUNK)
        ]
        return np.concatenate([np.zeros(0), *parts])

    def to_json(self) -> dict[str, Any]:
        arrays = {name: getattr(self, name).tolist() for name in ("points", "weights", "lengths")}
        return {**arrays, "signal": self.signal}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], width: int) -> GaussianProcess:
        """Raises ValueError, KeyError or TypeError when the arrays are not those of such a process."""
        points, lengths = read_array(data, "points", -1, width), read_positive(data, "lengths", width)
        return cls(points, read_array(data, "weights", len(points)), lengths, float(read_positive(data, "signal")))


def fit_gaussian_process(z: FloatArray, log_ratio: FloatArray, seed: int) -> GaussianProcess:
    """Fits log ratios of shape (n,) at standardised features (n, p); `seed` picks the part that sets
    the hyper-parameters when there are many."""
    part = np.arange(len(z))
    if len(z) > _MOST_FOR_HYPERPARAMETERS:
        part = np.random.default_rng(seed).choice(len(z), _MOST_FOR_HYPERPARAMETERS, replace=False)
    signal, noise, lengths = _hyperparameters(z[part], log_ratio[part])
    points = z / lengths
    covariance = _kernel(points, points, signal) + noise * np.eye(len(z))
    return GaussianProcess(points, cho_solve(cho_factor(covariance, lower=True), log_ratio), lengths, signal)


def _kernel(a: FloatArray, b: FloatArray, signal: float) -> FloatArray:
    """Squared exponential, shape (len(a), len(b))."""
    squared = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T
    return np.asarray(signal * np.exp(-0.5 * np.maximum(squared, 0)))


def _hyperparameters(z: FloatArray, log_ratio: FloatArray) -> tuple[float, float, FloatArray]:
    """(signal variance, noise variance, length scales (p,)) that are most probable given the log ratios."""
    scatter = float(np.std(log_ratio)) + 1e-3
    width = z.shape[1]
    expected = np.log([scatter, _NOISE_SHARE * scatter, *[_TYPICAL_LENGTH * np.sqrt(width)] * width])
    squares = (z[:, None] - z[None]) ** 2  # (n, n, p)

    def objective(logs: FloatArray) -> tuple[float, FloatArray]:
        value, gradient = _negative_log_likelihood(logs, squares, log_ratio)
        return value + 0.5 * float(((logs - expected) ** 2).sum()), gradient + logs - expected

    bounds = [(x - 4, x + 4) for x in expected]
    found = minimize(
        objective, expected, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": _SEARCH_STEPS}
    )
    logs = np.asarray(found.x)
    return float(np.exp(2 * logs[0])), float(np.exp(2 * logs[1])), np.exp(logs[2:])


def _negative_log_likelihood(logs: FloatArray, squares: FloatArray, y: FloatArray) -> tuple[float, FloatArray]:
    """And its gradient, at the logarithms of (signal deviation, noise deviation, lengths)."""
    signal, noise, lengths = np.exp(2 * logs[0]), np.exp(2 * logs[1]), np.exp(logs[2:])
    covariance = signal * np.exp(-0.5 * squares @ lengths**-2)
    try:
        factor = cho_factor(covariance + noise * np.eye(len(y)), lower=True)
    except LinAlgError:
        return 1e10, np.zeros_like(logs)
    weights = cho_solve(factor, y)
    slope = np.outer(weights, weights) - cho_solve(factor, np.eye(len(y)))
    by_length = np.einsum("ij,ijk->k", slope * covariance, squares) / lengths**2
    gradient = [-(slope * covariance).sum(), -noise * np.trace(slope), *(-0.5 * by_length)]
    return float(0.5 * y @ weights + np.log(np.diag(factor[0])).sum()), np.array(gradient)
