"""Costs of networks as a quadratic function of their options, fitted on exact ones: what thousands cost, at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import RidgeCV

PENALTIES = np.geomspace(1e-4, 1.0, 5)
"""Penalties of the coefficients that leaving one network out chooses among."""
COVERED = 0.75
"""Share of networks whose error is within `error`."""


@dataclass(frozen=True)
class QuadraticCosts:
    """Costs as a quadratic function of options: what two layers add to each other's cost, as neighbours' widths do, is
    a product, and what options stand in order for, as widths do, is nearly linear.

    Options count as places from 0, the first of a decision, to 1, its last.
    """

    counts: tuple[int, ...]
    base: float
    linear: NDArray[np.float64]
    """(decisions,)."""
    products: NDArray[np.float64]
    """(decisions, decisions), the upper triangle."""
    error: float
    """Relative error that COVERED of the networks stay within, each left out of the fit."""

    @classmethod
    def fit(cls, counts: tuple[int, ...], networks: NDArray[np.int64], costs: NDArray[np.float64]) -> QuadraticCosts:
        """The function of least squared error with a penalty (ridge regression), on networks (n, decisions) and their
        costs (n,), which are above zero."""
        places, unit = _places(counts, networks), float(costs.mean())
        upper = np.triu_indices(len(counts))
        features = np.concatenate([places, places[:, upper[0]] * places[:, upper[1]]], axis=1)
        model = RidgeCV(PENALTIES, store_cv_results=True).fit(features, costs / unit)
        squares = model.cv_results_[:, list(PENALTIES).index(model.alpha_)]
        error = float(np.quantile(np.sqrt(squares) * unit / costs, COVERED))
        products = np.zeros((len(counts), len(counts)))
        products[upper] = model.coef_[len(counts) :] * unit
        return cls(counts, float(model.intercept_) * unit, model.coef_[: len(counts)] * unit, products, error)

    def __call__(self, networks: NDArray[np.int64]) -> NDArray[np.float64]:
        """Costs (networks,) of networks (networks, decisions)."""
        places = _places(self.counts, networks)
        return np.asarray(self.base + places @ self.linear + ((places @ self.products) * places).sum(axis=1))


def _places(counts: tuple[int, ...], networks: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.asarray(networks / np.maximum(np.array(counts) - 1, 1))
