"""Gaussian process over decisions and budgets: how far cheap scores are to be trusted is learned with the rest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize
from scipy.special import expit

from netlathe.search.strategies.blackbox.decision_gp import hamming, inverse_factor

MEANS = 4.0
"""Variance of a budget's mean, in squared units of its scores, which are about standard normal: of networks that were
chosen for their cheap scores, the mean is not that of all."""


@dataclass(frozen=True)
class BudgetKernel:
    """Covariance of the scores of networks at several budgets, the cheapest first.

    A budget's scores are its mean + its scale * u_b, with u_b = r_b u_(b-1) + sqrt(1 - r_b^2) d_b: what the next
    cheaper one tells of it, and what is its own (the autoregressive model of Kennedy & O'Hagan, Biometrika 2000). Each
    d_b has the kernel exp(-rate_b * differing decisions), so u_b has variance 1. With r_b = 1 a budget is the cheaper
    one again; with 0 it has nothing to do with it.
    """

    rates: tuple[float, ...]
    """Rate of what is each budget's own."""
    scales: tuple[float, ...]
    """Standard deviation at each budget."""
    noises: tuple[float, ...]
    """Variance of each budget's white noise, in units of the squared scale."""
    correlations: tuple[float, ...]
    """Correlation of each budget but the first with the next cheaper one, 0 to 1."""
    means: float = MEANS
    """Variance of each budget's mean."""

    @property
    def shares(self) -> NDArray[np.float64]:
        """Weights of what is each budget's own (columns) in every budget (rows): lower triangular, rows of norm 1."""
        found = np.eye(len(self.rates))
        for budget, r in enumerate(self.correlations, 1):
            found[budget] = r * found[budget - 1]
            found[budget, budget] = np.sqrt(1 - r**2)
        return found

    def between(
        self, distances: NDArray[np.floating], one: NDArray[np.int64], other: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Covariances of scores without noise: distances (n, m) of networks at budgets (n,) and (m,) -> (n, m)."""
        steps, shares = distances.astype(np.intp), self.shares * np.array(self.scales)[:, None]
        found = np.asarray(self.means * (one[:, None] == other), dtype=np.float64)
        for rate, own in zip(self.rates, shares.T, strict=True):
            found = found + np.outer(own[one], own[other]) * decay(rate, steps)
        return found

    def of_looks(self, networks: NDArray[np.int64], budgets: NDArray[np.int64]) -> NDArray[np.float64]:
        """Covariances of looks, with their noise: (n, decisions) at budgets (n,) -> (n, n)."""
        noise = np.array(self.noises) * np.array(self.scales) ** 2
        return self.between(hamming(networks, networks), budgets, budgets) + np.diag(noise[budgets])


def decay(rate: float, steps: NDArray[np.intp]) -> NDArray[np.float64]:
    """exp(-rate * steps) of whole numbers, each computed once."""
    return np.asarray(np.exp(-rate * np.arange(1 + steps.max(initial=0)))[steps])


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
        """The process of the highest evidence.

        networks (n, decisions), their budgets (n,), and scores (n,) of mean zero and variance one at each budget.
        """
        return cls.given(networks, budgets, scores, likeliest_kernel(networks, budgets, scores)[0])

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
        budgets = np.concatenate([self.budgets, np.full(len(networks), len(self.kernel.rates) - 1)])
        inverse = inverse_factor(self.kernel.of_looks(known, budgets))
        return BudgetGP(known, budgets, self.kernel, inverse, np.append(self._weights, np.zeros(len(networks))))

    def predict(self, networks: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and standard deviation of the scores at the highest budget without noise, (m,) each."""
        last = np.full(len(networks), len(self.kernel.rates) - 1)
        cross = self.kernel.between(hamming(networks, self.networks), last, self.budgets)
        whitened = cross @ self._inverse.T
        own = self.kernel.scales[-1] ** 2 + self.kernel.means
        left = np.maximum(own - np.einsum("ij,ij->i", whitened, whitened), 1e-12)
        return cross @ self._weights, np.sqrt(left)


def likeliest_kernel(
    networks: NDArray[np.int64], budgets: NDArray[np.int64], scores: NDArray[np.float64]
) -> tuple[BudgetKernel, float]:
    """The kernel of the highest evidence, by L-BFGS-B from one start, and the logarithm of that evidence."""
    evidence = _Evidence(networks, budgets, scores)
    centre, _, low, high = evidence.prior
    bounds = list(zip(low, high, strict=True))
    found = minimize(evidence, centre, jac=True, bounds=bounds, method="L-BFGS-B", options={"maxiter": 60})
    return kernel_of(found.x), -float(found.fun)


def kernel_of(parameters: NDArray[np.float64]) -> BudgetKernel:
    """The kernel of a vector: logarithms of rates, scales and noises, then logits of correlations."""
    count = (len(parameters) + 1) // 4
    rates, scales, noises = np.exp(parameters[: 3 * count]).reshape(3, count).tolist()
    return BudgetKernel(tuple(rates), tuple(scales), tuple(noises), tuple(expit(parameters[3 * count :]).tolist()))


class _Evidence:
    """Minus the logarithm of the evidence of a kernel's parameters and of a weak prior on them, with its gradient
    (Rasmussen & Williams 2006, equations 5.8 and 5.9)."""

    def __init__(self, networks: NDArray[np.int64], budgets: NDArray[np.int64], scores: NDArray[np.float64]) -> None:
        self.steps = hamming(networks, networks).astype(np.intp)
        self.budgets, self.scores = budgets, scores
        count, rate = 1 + int(budgets.max()), 2.0 / networks.shape[1]
        rows = [
            # centre, standard deviation, least and most; a score may be nothing but noise
            *[(np.log(rate), 1.0, np.log(0.02), np.log(2.0))] * count,
            *[(0.0, 1.0, np.log(0.1), np.log(10.0))] * count,
            *[(np.log(0.02), 2.0, np.log(1e-4), np.log(100.0))] * count,
            *[(0.0, 2.0, -6.0, 6.0)] * (count - 1),
        ]
        self.prior = np.array(rows).T

    def __call__(self, parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        kernel, at = kernel_of(parameters), self.budgets
        count, scales = len(kernel.rates), np.array(kernel.scales)
        shares = kernel.shares[at]  # (n, budgets)
        alike = [decay(rate, self.steps) for rate in kernel.rates]
        scaled = np.outer(scales[at], scales[at])
        parts = [scaled * np.outer(shares[:, b], shares[:, b]) * alike[b] for b in range(count)]
        noise = (np.array(kernel.noises) * scales**2)[at]
        process = sum(parts, np.zeros_like(scaled))
        factor = cho_factor(process + kernel.means * (at[:, None] == at) + np.diag(noise), lower=True)
        weights = cho_solve(factor, self.scores)
        value = -0.5 * self.scores @ weights - np.log(np.diag(factor[0])).sum()
        slope = np.outer(weights, weights) - cho_solve(factor, np.eye(len(at)))  # twice that by the covariance
        by_look, by_noise = (slope * process).sum(axis=1), np.diag(slope) * noise
        gradient = [-0.5 * r * (slope * part * self.steps).sum() for r, part in zip(kernel.rates, parts, strict=True)]
        gradient += [(by_look + by_noise)[at == b].sum() for b in range(count)]
        gradient += [0.5 * by_noise[at == b].sum() for b in range(count)]
        weighted = [slope * scaled * alike[b] @ shares[:, b] for b in range(count)]
        for changed in range(1, count):
            moved = _moved_shares(kernel, changed)[at]
            gradient.append(sum(moved[:, b] @ weighted[b] for b in range(count)))
        centre, width, _, _ = self.prior
        pull = (parameters - centre) / width
        return float(0.5 * pull @ pull - value), np.asarray(pull / width - np.array(gradient))


def _moved_shares(kernel: BudgetKernel, changed: int) -> NDArray[np.float64]:
    """Derivative of the shares by the logit of a budget's correlation."""
    shares, r = kernel.shares, kernel.correlations[changed - 1]
    found = np.zeros_like(shares)
    found[changed] = (1 - r) * r * shares[changed - 1]
    found[changed, changed] = -(r**2) * (1 - r) / np.sqrt(1 - r**2)
    for budget in range(changed + 1, len(shares)):
        found[budget] = kernel.correlations[budget - 1] * found[budget - 1]
    return found
