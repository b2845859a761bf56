"""Gaussian process regression with Student's t noise, so that a few disturbed measurements do not count."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from netlathe.predictor.numbers import FloatArray

NOISE = 0.03
"""Scale of the noise, in log latency: what two measurements of one graph in different sessions differ by."""
_FREEDOM = 3.0
"""Degrees of freedom of Student's t: measurements far off are rare, but not impossible."""
_ITERATIONS = 8
"""Iterations of the reweighted fit."""


@dataclass(frozen=True)
class RobustProcess:
    """Posterior of a Gaussian process given n measurements."""

    weights: FloatArray
    """Weights of the covariances with the measurements in the mean, shape (n,)."""
    precision: FloatArray
    """Inverse of covariance + noise, shape (n, n)."""
    fitted: FloatArray
    """Mean at the measurements, shape (n,)."""
    noise_divisors: FloatArray
    """Divisor of each measurement's noise variance, shape (n,): small for a disturbed one."""


def robust_process(
    covariance: FloatArray, values: FloatArray, noise: float = NOISE, reliability: FloatArray | None = None
) -> RobustProcess:
    """Posterior given values (n,) of zero prior mean and that covariance (n, n), by iteratively reweighted least
    squares: t noise is Gaussian noise whose variance each residual tells (West, Outlier Models and Prior Distributions
    in Bayesian Linear Regression, 1984). `reliability`, (n,), from 0 to 1, divides the noise variance of values known
    to be disturbed."""
    from scipy.linalg import cho_factor, cho_solve  # only fits need them

    known = np.ones(len(values)) if reliability is None else reliability
    scale = 3 * noise + 1.5 * float(np.median(np.abs(values)))
    divisors = known / (1 + (values / scale) ** 2)
    identity = np.eye(len(values))
    factor, weights, fitted, used = (identity, True), values, values, divisors
    for _ in range(_ITERATIONS):
        factor = cho_factor(covariance + np.diag(noise**2 / divisors), lower=True)
        weights = cho_solve(factor, values)
        fitted, used = covariance @ weights, divisors
        divisors = known * (_FREEDOM + 1) / (_FREEDOM + known * ((values - fitted) / noise) ** 2)
    precision = cho_solve(factor, identity)
    return RobustProcess(np.asarray(weights), np.asarray(precision), np.asarray(fitted), np.asarray(used))
