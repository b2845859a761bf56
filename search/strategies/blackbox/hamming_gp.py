"""Gaussian process over decisions: networks are the more alike, the more decisions they share."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular

RATES = np.geomspace(0.02, 2.0, 12)
"""Rates of the kernel exp(-rate * differing decisions) that the evidence chooses among."""
NOISES = np.geomspace(1e-4, 1.0, 13)
"""Variances of the noise, in units of the kernel's variance, that the evidence chooses among."""


def hamming(left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.float32]:
    """Number of decisions in which networks differ: (n, decisions), (m, decisions) -> (n, m), whole numbers."""
    options = np.arange(1 + max(left.max(initial=0), right.max(initial=0)))
    one, other = ((n[:, :, None] == options).reshape(len(n), -1).astype(np.float32) for n in (left, right))
    return np.asarray(left.shape[1] - one @ other.T)  # exact: float32 rounds no such number


@dataclass(frozen=True)
class HammingGP:
    """A Gaussian process with the kernel exp(-rate * differing decisions), a zero mean and white noise (Rasmussen &
    Williams, "Gaussian processes for machine learning", 2006, algorithm 2.1).

    The kernel is that of all interactions of decisions, each weaker than the one of fewer; it is positive definite as
    the product over decisions of exp(-rate * [differ]).
    """

    networks: NDArray[np.int64]
    """(n, decisions)."""
    rate: float
    noise: float
    variance: float
    """Variance of the kernel, in squared units of the scores."""
    _inverse: NDArray[np.float64]
    """Inverse of the Cholesky factor of kernel and noise, as a space has many networks to multiply it with."""
    _weights: NDArray[np.float64]

    @classmethod
    def fit(cls, networks: NDArray[np.int64], scores: NDArray[np.float64]) -> HammingGP:
        """The process of the highest evidence on a grid of rates and noises, its variance in closed form.

        networks (n, decisions) and scores (n,) of mean zero, at least one.
        """
        distances, count = hamming(networks, networks).astype(np.float64), len(networks)
        best, chosen = -np.inf, (RATES[0], NOISES[-1])
        for rate in RATES:
            values, vectors = np.linalg.eigh(np.exp(-rate * distances))
            parts = (vectors.T @ scores) ** 2
            spectrum = np.maximum(values, 0)[None, :] + NOISES[:, None]
            variance = np.maximum((parts / spectrum).mean(axis=1), 1e-12)
            # Minus half of: n log variance + log determinant; the weak prior keeps few scores from extreme noises.
            evidence = -0.5 * (count * np.log(variance) + np.log(spectrum).sum(axis=1))
            evidence -= 0.5 * (np.log(NOISES / 0.02) / 2.0) ** 2 + 0.5 * np.log(rate * networks.shape[1] / 2.0) ** 2
            at = int(evidence.argmax())
            if evidence[at] > best:
                best, chosen = float(evidence[at]), (rate, NOISES[at])
        return cls.given(networks, scores, float(chosen[0]), float(chosen[1]))

    @classmethod
    def given(cls, networks: NDArray[np.int64], scores: NDArray[np.float64], rate: float, noise: float) -> HammingGP:
        """The process of this rate and noise."""
        inverse = _inverse_factor(networks, rate, noise)
        weights = inverse.T @ (inverse @ scores)
        variance = max(float(scores @ weights) / len(scores), 1e-12)
        return cls(networks, rate, noise, variance, inverse, weights)

    def believing(self, networks: NDArray[np.int64]) -> HammingGP:
        """The process that has also seen these networks, with their predicted scores: no mean changes by that."""
        known = np.concatenate([self.networks, networks])
        weights = np.concatenate([self._weights, np.zeros(len(networks))])
        return replace(self, networks=known, _inverse=_inverse_factor(known, self.rate, self.noise), _weights=weights)

    def predict(self, networks: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and standard deviation of the scores without noise, (m,) each."""
        values = np.exp(-self.rate * np.arange(self.networks.shape[1] + 1))
        kernel = values[hamming(networks, self.networks).astype(np.intp)]
        whitened = kernel @ self._inverse.T
        left = np.maximum(1.0 - np.einsum("ij,ij->i", whitened, whitened), 1e-12)
        return kernel @ self._weights, np.sqrt(self.variance * left)


def _inverse_factor(networks: NDArray[np.int64], rate: float, noise: float) -> NDArray[np.float64]:
    """Inverse of the lower Cholesky factor of kernel and noise."""
    kernel = np.exp(-rate * hamming(networks, networks).astype(np.float64))
    return inverse_factor(kernel + noise * np.eye(len(networks)))


def inverse_factor(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inverse of the lower Cholesky factor of a covariance."""
    factor = cholesky(covariance, lower=True)
    return np.asarray(solve_triangular(factor, np.eye(len(covariance)), lower=True))
