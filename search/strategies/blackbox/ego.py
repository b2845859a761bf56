"""Efficient global optimization (Jones, Schonlau & Welch, J. Global Optimization 1998) with a Gaussian process over
decisions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr, ndtri
from scipy.stats import rankdata

from netlathe.archspace.decisions import Choices, option_places
from netlathe.search.strategies.blackbox.budget_gp import BudgetGP, likeliest_kernel
from netlathe.search.strategies.blackbox.decision_gp import DecisionGP
from netlathe.search.strategies.blackbox.feasible import FeasibleSet, as_choices
from netlathe.search.strategies.blackbox.strategy import Strategy

DRAWN = 300
"""Random networks among which the acquisition is maximized first, in spaces that are not listed."""
CLIMBS = 3
"""Networks from which it climbs there, the best ones first."""
LEAST_GAIN = 1.0
"""Logarithm of the evidence ratio from which scores at cheaper budgets are taken to tell of the dear ones."""

Process = DecisionGP | BudgetGP


class EGO(Strategy):
    """Efficient global optimization: the network of the highest expected improvement by a DecisionGP, which knows the
    order of options that have one.

    The process is of the scores' ranks, as normal quantiles: what is hopeless must not set the scale. Pending networks
    count as if they had their predicted score (kriging believer: Ginsbourger, Le Riche & Carraro 2010), so that several
    are asked for at once, or by several workers. Of scores at several budgets, the process is a BudgetGP, which
    takes all options for unordered, and the improvement that at the highest. start: networks drawn at random at first.
    """

    def __init__(self, feasible: FeasibleSet, *, seed: int = 0, start: int = 10) -> None:
        super().__init__(feasible, seed=seed, start=start)

    def propose(self, rng: np.random.Generator) -> Choices | None:
        networks, scores = self.scored()
        if len(networks) < min(2, self.start):
            return None
        process, incumbent = self._process(networks, normal_scores(scores))
        pool = self.feasible.listed_without([*self.told, *self.pending])
        if pool is None:
            pool = self._climbed(process, incumbent, rng)
        if not len(pool):
            return None
        gain = log_expected_improvement(*process.predict(pool), incumbent)
        for index in np.argsort(-gain, kind="stable"):
            choices = as_choices(pool[index])
            if not self.is_known(choices) and self.feasible.contains(choices):
                return choices
        return None

    def _process(self, networks: NDArray[np.int64], scores: NDArray[np.float64]) -> tuple[Process, float]:
        """The fitted process, with pending networks believed, and the best mean among the networks that it is of."""
        waiting = np.array(list(self.pending), dtype=np.int64).reshape(-1, networks.shape[1])
        process = self._fitted(networks, scores)
        networks = np.concatenate([networks, waiting])
        if len(waiting):
            process = process.believing(waiting)
        return process, float(process.predict(networks)[0].max())

    def _fitted(self, networks: NDArray[np.int64], scores: NDArray[np.float64]) -> Process:
        """The process of all budgets, or of these scores alone where the others tell nothing of them."""
        cheaper = [budget for budget in self.cheaper if budget]
        if not cheaper:
            return DecisionGP.fit(networks, scores, option_places(self.feasible.space))
        seen = np.concatenate([*(np.array(list(budget), dtype=np.int64) for budget in cheaper), networks])
        values = np.concatenate([*(normal_scores(np.array(list(budget.values()))) for budget in cheaper), scores])
        budgets = np.repeat(np.arange(len(cheaper) + 1), [*map(len, cheaper), len(networks)])
        is_dear = budgets == len(cheaper)
        kernel, together = likeliest_kernel(seen, budgets, values)
        _, cheap = likeliest_kernel(seen[~is_dear], budgets[~is_dear], values[~is_dear])
        _, dear = likeliest_kernel(networks, np.zeros(len(networks), dtype=np.int64), scores)
        if together < cheap + dear + LEAST_GAIN:
            return DecisionGP.fit(networks, scores, option_places(self.feasible.space))
        return BudgetGP.given(seen, budgets, values, kernel)

    def _climbed(self, process: Process, incumbent: float, rng: np.random.Generator) -> NDArray[np.int64]:
        """Networks of high acquisition in a space too large to list: random ones, and the steepest ascents from the
        best of these and of what was told."""
        drawn = self.feasible.pool(DRAWN, rng) + self.best_first()[:CLIMBS]
        pool = dict.fromkeys(drawn)

        def gains(networks: list[Choices]) -> NDArray[np.float64]:
            return log_expected_improvement(*process.predict(np.array(networks)), incumbent)

        order = np.argsort(-gains(drawn), kind="stable")
        starts = [drawn[i] for i in order[:CLIMBS]]
        for choices in starts:
            height = float(gains([choices])[0])
            while near := self.feasible.neighbours(choices):
                pool.update(dict.fromkeys(near))
                heights = gains(near)
                if heights.max() <= height:
                    break
                choices, height = near[int(heights.argmax())], float(heights.max())
        return np.array(list(pool))


def normal_scores(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores as the normal distribution's quantiles of their ranks, equal ones at their mean rank. Whatever the unit of
    a score, and however far the bad ones are below the good ones, the process is given a normal sample."""
    return np.asarray(ndtri((rankdata(scores) - 0.5) / len(scores)))


def log_expected_improvement(
    mean: NDArray[np.float64], deviation: NDArray[np.float64], incumbent: float
) -> NDArray[np.float64]:
    """Logarithm of the expected improvement over the incumbent, deviation * (z * Phi(z) + phi(z)) with z = (mean -
    incumbent) / deviation, without underflow (Ament et al., NeurIPS 2023, equation 9, by the asymptotic series below
    z = -6)."""
    z = (mean - incumbent) / deviation
    log_phi = -0.5 * z**2 - 0.5 * np.log(2 * np.pi)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.exp(log_ndtr(z) - log_phi)  # Phi / phi, at least -1 / z for z far below zero
        direct = np.log(np.maximum(1 + z * ratio, 0))
        far = -2 * np.log(np.abs(z))  # 1 + z * Phi / phi -> 1 / z^2
    return np.asarray(np.log(deviation) + log_phi + np.where(z < -6, far, direct))
