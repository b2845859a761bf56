"""Gaussian process over decisions: networks are the more alike, the more decisions they share, and the nearer options
that have an order are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular

RATES = np.geomspace(0.02, 2.0, 12)
"""Rates of the kernel exp(-rate * differing decisions) that the evidence chooses among."""
SHARPNESSES = np.geomspace(0.1, 5.0, 10)
"""Factors of the distance between ordered options that the evidence chooses among."""
NOISES = np.geomspace(1e-4, 1.0, 13)
"""Variances of the noise, in units of the kernel's variance, that the evidence chooses among."""

Places = Sequence[Sequence[float]]
"""Places of each decision's options on a line, 0 to 1; none where they have no order."""


def hamming(left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.float32]:
    """Number of decisions in which networks differ: (n, decisions), (m, decisions) -> (n, m), whole numbers."""
    options = np.arange(1 + max(left.max(initial=0), right.max(initial=0)))
    one, other = ((n[:, :, None] == options).reshape(len(n), -1).astype(np.float32) for n in (left, right))
    return np.asarray(left.shape[1] - one @ other.T)  # exact: float32 rounds no such number


@dataclass(frozen=True)
class DecisionKernel:
    """Covariance of networks, 1 for equal ones: exp(-rate * differing decisions) over the decisions without an order,
    times Matérn's of smoothness 5/2 in sharpness * distance over those with one (Rasmussen & Williams 2006, equation
    4.17).

    The first factor is that of all interactions of decisions, each weaker than the one of fewer; it is positive
    definite as the product over decisions of exp(-rate * [differ]). So is the product of both, as mixed spaces have it
    (Ru et al., "Bayesian optimisation over multiple continuous and categorical inputs", ICML 2020).
    """

    rate: float
    sharpness: float = 1.0
    places: Places = field(default=(), repr=False)

    def between(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.float64]:
        """Covariances: (n, decisions), (m, decisions) -> (n, m)."""
        if not len(self._ordered):
            return self._of_unordered(left, right)
        is_unordered = np.ones(left.shape[1], dtype=bool)
        is_unordered[self._ordered] = False
        near = matern(self.sharpness * np.sqrt(self._squares(left, right)))
        return self._of_unordered(left[:, is_unordered], right[:, is_unordered]) * near

    def _of_unordered(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.float64]:
        values = np.exp(-self.rate * np.arange(left.shape[1] + 1))
        return np.asarray(values[hamming(left, right).astype(np.intp)])

    def _squares(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.float64]:
        """Squared distances over the decisions with an order (n, m)."""
        one, other = (self._placed(networks) for networks in (left, right))
        squares = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1) - 2 * one @ other.T
        return np.asarray(np.maximum(squares, 0))

    def _placed(self, networks: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.stack([np.array(self.places[d])[networks[:, d]] for d in self._ordered], axis=1)

    @cached_property
    def _ordered(self) -> NDArray[np.int64]:
        """Decisions with an order."""
        return np.flatnonzero([len(one) > 0 for one in self.places])


def matern(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Matérn's covariance of smoothness 5/2 at distances in units of its length scale."""
    scaled = np.sqrt(5) * distances
    return np.asarray((1 + scaled + scaled**2 / 3) * np.exp(-scaled))


@dataclass(frozen=True)
class DecisionGP:
    """A Gaussian process with a DecisionKernel, a zero mean and white noise (Rasmussen & Williams, "Gaussian processes
    for machine learning", 2006, algorithm 2.1)."""

    networks: NDArray[np.int64]
    """(n, decisions)."""
    kernel: DecisionKernel
    noise: float
    variance: float
    """Variance of the kernel, in squared units of the scores."""
    _inverse: NDArray[np.float64]
    """Inverse of the Cholesky factor of kernel and noise, as a space has many networks to multiply it with."""
    _weights: NDArray[np.float64]

    @classmethod
    def fit(cls, networks: NDArray[np.int64], scores: NDArray[np.float64], places: Places = ()) -> DecisionGP:
        """The process of the highest evidence on a grid of kernels and noises, its variance in closed form.

        networks (n, decisions) and scores (n,) of mean zero, at least one.
        """
        best, chosen = -np.inf, (DecisionKernel(float(RATES[0]), places=places), float(NOISES[-1]))
        for kernel, prior in _kernels(networks.shape[1], places):
            values, vectors = np.linalg.eigh(kernel.between(networks, networks))
            parts = (vectors.T @ scores) ** 2
            spectrum = np.maximum(values, 0)[None, :] + NOISES[:, None]
            variance = np.maximum((parts / spectrum).mean(axis=1), 1e-12)
            # Minus half of: n log variance + log determinant; the weak prior keeps few scores from extreme noises.
            evidence = -0.5 * (len(networks) * np.log(variance) + np.log(spectrum).sum(axis=1))
            evidence -= 0.5 * (np.log(NOISES / 0.02) / 2.0) ** 2 + prior
            at = int(evidence.argmax())
            if evidence[at] > best:
                best, chosen = float(evidence[at]), (kernel, float(NOISES[at]))
        return cls.given(networks, scores, *chosen)

    @classmethod
    def given(
        cls, networks: NDArray[np.int64], scores: NDArray[np.float64], kernel: DecisionKernel, noise: float
    ) -> DecisionGP:
        """The process of this kernel and noise."""
        inverse = _inverse_factor(networks, kernel, noise)
        weights = inverse.T @ (inverse @ scores)
        variance = max(float(scores @ weights) / len(scores), 1e-12)
        return cls(networks, kernel, noise, variance, inverse, weights)

    def believing(self, networks: NDArray[np.int64]) -> DecisionGP:
        """The process that has also seen these networks, with their predicted scores: no mean changes by that."""
        known = np.concatenate([self.networks, networks])
        weights = np.concatenate([self._weights, np.zeros(len(networks))])
        inverse = _inverse_factor(known, self.kernel, self.noise)
        return replace(self, networks=known, _inverse=inverse, _weights=weights)

    def predict(self, networks: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and standard deviation of the scores without noise, (m,) each."""
        kernel = self.kernel.between(networks, self.networks)
        whitened = kernel @ self._inverse.T
        left = np.maximum(1.0 - np.einsum("ij,ij->i", whitened, whitened), 1e-12)
        return kernel @ self._weights, np.sqrt(self.variance * left)


def _kernels(decisions: int, places: Places) -> list[tuple[DecisionKernel, float]]:
    """Kernels to choose among, each with half of its squared distance from what is usual, on a scale of logarithms: two
    networks drawn at random differ by some length scales."""
    ordered = sum(len(one) > 0 for one in places)
    unordered = decisions - ordered
    rates, sharp = [(1.0, 0.0)], [(1.0, 0.0)]
    if unordered:
        rates = [(float(rate), 0.5 * np.log(rate * unordered / 2.0) ** 2) for rate in RATES]
    if ordered:
        sharp = [(float(by), 0.5 * np.log(by * np.sqrt(ordered) / 2.0) ** 2) for by in SHARPNESSES]
    return [(DecisionKernel(rate, by, places), one + other) for rate, one in rates for by, other in sharp]


def _inverse_factor(networks: NDArray[np.int64], kernel: DecisionKernel, noise: float) -> NDArray[np.float64]:
    """Inverse of the lower Cholesky factor of kernel and noise."""
    return inverse_factor(kernel.between(networks, networks) + noise * np.eye(len(networks)))


def inverse_factor(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inverse of the lower Cholesky factor of a covariance."""
    factor = cholesky(covariance, lower=True)
    return np.asarray(solve_triangular(factor, np.eye(len(covariance)), lower=True))
