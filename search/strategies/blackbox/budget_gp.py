"""Gaussian process over decisions and budgets: what cheap looks say of dear ones is learned from networks seen by both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize
from scipy.special import expit

from netlathe.search.strategies.blackbox.hamming_gp import hamming, inverse_factor

RATES, SCALES, NOISES, LOGITS = (0.02, 2.0), (0.1, 10.0), (1e-4, 100.0), (-6.0, 6.0)
"""Bounds of what the evidence chooses: rates, scales, noises (a score may be nothing else), logits of correlations."""
MEANS = 4.0
"""Variance of a budget's mean, in squared units of its scores, which are about standard normal: of networks that were
chosen for their cheap scores, the mean is not that of all."""


@dataclass(frozen=True)
class BudgetKernel:
    """The kernel s_b s_c r_bc exp(-rate * differing decisions) of networks at budgets b and c, with a mean of its own and
    white noise at each budget.

    r_bc is the product of the correlations between one budget and the next from b to c: what a budget does not tell of
    a dearer one, no cheaper one does (Kennedy & O'Hagan, Biometrika 2000). The matrix over budgets makes it an intrinsic
    model of coregionalization (Bonilla, Chai & Williams, NeurIPS 2007).
    """

    rate: float
    scales: tuple[float, ...]
    """Standard deviation at each budget, the cheapest first."""
    correlations: tuple[float, ...]
    """Correlation of each budget with the next one, 0 to 1."""
    noises: tuple[float, ...]
    """Variances of the noise, in units of the kernel's own at each budget."""
    means: float = MEANS
    """Variance of each budget's mean."""

    @property
    def budgets(self) -> NDArray[np.float64]:
        """Covariances of a network's scores at all budgets: (budgets, budgets)."""
        scales = np.array(self.scales)
        return np.asarray(np.outer(scales, scales) * self._correlation())

    def _correlation(self) -> NDArray[np.float64]:
        count = len(self.scales)
        found = np.eye(count)
        for low in range(count):
            found[low, low + 1 :] = found[low + 1 :, low] = np.cumprod(self.correlations[low:])
        return found

    def between(
        self, distances: NDArray[np.floating], one: NDArray[np.int64], other: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Covariances of scores without noise: distances (n, m) of networks at budgets (n,) and (m,) -> (n, m)."""
        alike = np.exp(-self.rate * np.arange(1 + int(distances.max(initial=0))))[distances.astype(np.intp)]
        return np.asarray(self.budgets[np.ix_(one, other)] * alike + self.means * (one[:, None] == other))

    def of_looks(self, networks: NDArray[np.int64], budgets: NDArray[np.int64]) -> NDArray[np.float64]:
        """Covariances of looks, with their noise: (n, decisions) at budgets (n,) -> (n, n)."""
        return self.between(hamming(networks, networks), budgets, budgets) + np.diag(self.noise_at(budgets))

    def noise_at(self, budgets: NDArray[np.int64]) -> NDArray[np.float64]:
        """Variances of the noise of looks at these budgets."""
        return np.asarray((np.array(self.noises) * np.array(self.scales) ** 2)[budgets])


@dataclass(frozen=True)
class BudgetGP:
    """A Gaussian process of scores at several budgets, which predicts those at the highest."""

    networks: NDArray[np.int64]
    """(n, decisions)."""
    budgets: NDArray[np.int64]
    """Number of each look's budget, 0 for the cheapest: (n,)."""
    kernel: BudgetKernel
    _inverse: NDArray[np.float64]
    """Inverse of the Cholesky factor of kernel and noise."""
    _weights: NDArray[np.float64]

    @classmethod
    def fit(cls, networks: NDArray[np.int64], budgets: NDArray[np.int64], scores: NDArray[np.float64]) -> BudgetGP:
        """The process of the highest evidence, its kernel found by L-BFGS-B from one start.

        networks (n, decisions), their budgets (n,), of which the highest was looked at, and scores (n,) of mean zero and
        variance one at each budget.
        """
        count = 1 + int(budgets.max())
        evidence = _Evidence(hamming(networks, networks).astype(np.float64), budgets, scores, networks.shape[1])
        first = np.concatenate([[np.log(2.0 / networks.shape[1])], np.zeros(count), np.zeros(count - 1),
                                np.full(count, np.log(0.02))])  # fmt: skip
        bounds = [
            tuple(np.log(RATES)), *[tuple(np.log(SCALES))] * count, *[LOGITS] * (count - 1),
            *[tuple(np.log(NOISES))] * count,
        ]  # fmt: skip
        found = minimize(evidence, np.clip(first, *zip(*bounds, strict=True)), jac=True, bounds=bounds, method="L-BFGS-B",
                         options={"maxiter": 60})  # fmt: skip
        return cls.given(networks, budgets, scores, kernel_of(found.x, count))

    @classmethod
    def given(
        cls, networks: NDArray[np.int64], budgets: NDArray[np.int64], scores: NDArray[np.float64], kernel: BudgetKernel
    ) -> BudgetGP:
        """The process with this kernel."""
        inverse = inverse_factor(kernel.of_looks(networks, budgets))
        return cls(networks, budgets, kernel, inverse, inverse.T @ (inverse @ scores))

    def believing(self, networks: NDArray[np.int64]) -> BudgetGP:
        """The process that has also seen these networks at the highest budget, with their predicted scores: no mean
        changes by that."""
        known = np.concatenate([self.networks, networks])
        budgets = np.concatenate([self.budgets, np.full(len(networks), self.budgets.max())])
        inverse = inverse_factor(self.kernel.of_looks(known, budgets))
        return BudgetGP(known, budgets, self.kernel, inverse, np.append(self._weights, np.zeros(len(networks))))

    def predict(self, networks: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and standard deviation of the scores at the highest budget without noise, (m,) each."""
        last = np.full(len(networks), len(self.kernel.scales) - 1)
        cross = self.kernel.between(hamming(networks, self.networks), last, self.budgets)
        whitened = cross @ self._inverse.T
        own = self.kernel.scales[-1] ** 2 + self.kernel.means
        left = np.maximum(own - np.einsum("ij,ij->i", whitened, whitened), 1e-12)
        return cross @ self._weights, np.sqrt(left)


def kernel_of(parameters: Sequence[float] | NDArray[np.float64], count: int) -> BudgetKernel:
    """The kernel of a vector: logarithm of the rate, logarithms of the scales, logits of the correlations, logarithms of
    the noises."""
    rate, scales, logits, noises = np.split(np.asarray(parameters), np.cumsum([1, count, count - 1]))
    return BudgetKernel(
        float(np.exp(rate[0])), tuple(np.exp(scales).tolist()), tuple(expit(logits).tolist()), tuple(np.exp(noises).tolist())
    )  # fmt: skip


@dataclass(frozen=True)
class _Evidence:
    """Minus the logarithm of the evidence of a kernel's parameters, with its gradient (Rasmussen & Williams 2006,
    equations 5.8 and 5.9), and of a weak prior, which keeps few scores from extremes."""

    distances: NDArray[np.float64]
    budgets: NDArray[np.int64]
    scores: NDArray[np.float64]
    decisions: int

    def __call__(self, parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        count = 1 + int(self.budgets.max())
        kernel, at = kernel_of(parameters, count), self.budgets
        means = kernel.means * (at[:, None] == at)
        process, noise = kernel.between(self.distances, at, at) - means, kernel.noise_at(at)
        factor, _ = cho_factor(process + means + np.diag(noise), lower=True)
        weights = cho_solve((factor, True), self.scores)
        slope = np.outer(weights, weights) - cho_solve((factor, True), np.eye(len(at)))  # twice that by the covariance
        value = -0.5 * self.scores @ weights - np.log(np.diag(factor)).sum()
        by_network, own = slope * process, np.diag(slope) * noise
        gradient = [-0.5 * kernel.rate * (by_network * self.distances).sum()]
        gradient += [by_network[at == b].sum() + own[at == b].sum() for b in range(count)]
        for low, correlation in enumerate(kernel.correlations):
            across = by_network[np.ix_(at <= low, at > low)].sum()  # twice, as the matrix is symmetric
            gradient.append((1 - correlation) * across)
        gradient += [0.5 * own[at == b].sum() for b in range(count)]
        centre, width = self._prior(count)
        pull = (parameters - centre) / width
        return float(-value + 0.5 * pull @ pull), np.asarray(-np.array(gradient) + pull / width)

    def _prior(self, count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Means and standard deviations of the parameters: of rate and noise as in HammingGP."""
        parts = [(np.log(2.0 / self.decisions), 1.0, 1), (0.0, 1.0, count), (0.0, 2.0, count - 1),
                 (np.log(0.02), 2.0, count)]  # fmt: skip
        centre, width = (np.concatenate([np.full(n, part[i]) for *part, n in parts]) for i in (0, 1))
        return centre, width
