"""A random forest: scikit-learn's, small enough to be saved as numbers."""

from __future__ import annotations

import numpy as np

from netlathe.predictor.blocks.trees import Trees, join_trees
from netlathe.predictor.features.inputs import Inputs
from netlathe.predictor.numbers import FloatArray

_TREES, _MOST_LEAVES, _FEATURES = 60, 64, 0.5
"""Trees of a forest, most leaves of each, and the part of the features that a split chooses from."""


def fit_random_forest(inputs: Inputs, log_ratio: FloatArray, seed: int) -> Trees:
    """Trees fitted to log ratios of shape (n,)."""
    from sklearn.ensemble import RandomForestRegressor  # a second that a predictor without trees need not spend

    forest = RandomForestRegressor(
        _TREES, max_leaf_nodes=_MOST_LEAVES, max_features=_FEATURES, random_state=seed, n_jobs=1
    ).fit(inputs.z, log_ratio)
    trees = []
    for grown in (estimator.tree_ for estimator in forest.estimators_):
        is_leaf = grown.children_left == -1
        # scikit-learn goes left at float32 values up to the threshold, Trees below it.
        threshold = np.nextafter(_round_down(grown.threshold), np.float32(np.inf))
        value = np.where(is_leaf, grown.value[:, 0, 0] / _TREES, threshold.astype(float))
        trees.append((grown.children_left, grown.children_right, grown.feature, value))
    return join_trees("forest", trees)


def _round_down(values: FloatArray) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """Largest float32 that is not above each value, of the same shape."""
    near = values.astype(np.float32)
    return np.where(near > values, np.nextafter(near, np.float32(-np.inf)), near)
