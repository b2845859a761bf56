"""Thompson sampling by Bayesian linear regression: each option of each decision adds its part to the score."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import BayesianRidge

from netlathe.archspace.decisions import Choices
from netlathe.search.strategies.blackbox.feasible import FeasibleSet, as_choices
from netlathe.search.strategies.blackbox.strategy import Strategy

REDRAWS = 8
"""Draws of the weights until a network is taken that is not the best of any."""


class Thompson(Strategy):
    """Thompson sampling: the best network by weights that are drawn from their posterior (Bayesian ridge regression on
    one-hot decisions, its precisions by evidence: MacKay 1992), decoded exactly under the limits.

    start: networks drawn at random at first.
    """

    def __init__(self, feasible: FeasibleSet, *, seed: int = 0, start: int = 10) -> None:
        super().__init__(feasible, seed=seed, start=start)

    def propose(self, rng: np.random.Generator) -> Choices | None:
        networks, scores = self.scored()
        if len(networks) < min(2, self.start):
            return None
        options = max(self.feasible.counts)
        spread = float(scores.std()) or 1.0
        model = BayesianRidge().fit(one_hot(networks, options), (scores - scores.mean()) / spread)
        for _ in range(REDRAWS):
            weights = rng.multivariate_normal(model.coef_, model.sigma_, method="eigh")
            choices = self._best(weights.reshape(-1, options))
            if choices is not None and not self.is_known(choices):
                return choices
        return None

    def _best(self, weights: NDArray[np.float64]) -> Choices | None:
        listed = self.feasible.listed
        rows = np.arange(len(weights))
        if listed is None:
            open_ = np.arange(weights.shape[1]) < np.array(self.feasible.counts)[:, None]
            return self.feasible.best(np.where(open_, weights, -np.inf))
        for index in np.argsort(-weights[rows, listed].sum(axis=1), kind="stable"):
            choices = as_choices(listed[index])
            if not self.is_known(choices) and self.feasible.contains(choices):
                return choices
        return None


def one_hot(networks: NDArray[np.int64], options: int) -> NDArray[np.float64]:
    """(networks, decisions) -> (networks, decisions * options)."""
    return np.asarray((networks[:, :, None] == np.arange(options)).reshape(len(networks), -1), dtype=np.float64)
