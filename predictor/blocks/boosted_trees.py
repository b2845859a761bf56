"""Gradient-boosted trees: XGBoost's, saved as numbers."""

from __future__ import annotations

import json

import numpy as np

from netlathe.predictor.blocks.trees import Trees, join_trees
from netlathe.predictor.features.inputs import Inputs
from netlathe.predictor.numbers import FloatArray

_SETTINGS = {
    "max_depth": 3, "eta": 0.08, "subsample": 0.8, "colsample_bytree": 0.7, "min_child_weight": 2,
    "base_score": 0.0, "nthread": 1,
}  # fmt: skip
"""XGBoost's parameters: shallow trees, as records are few."""
_ROUNDS = 250
"""Trees of a fit."""


def fit_boosted_trees(inputs: Inputs, log_ratio: FloatArray, seed: int) -> Trees:
    """Trees fitted to log ratios of shape (n,)."""
    import xgboost  # a second that a predictor without trees, or a loaded one, need not spend

    booster = xgboost.train({**_SETTINGS, "seed": seed}, xgboost.DMatrix(inputs.z, log_ratio, nthread=1), _ROUNDS)
    learner = json.loads(booster.save_raw("json"))["learner"]
    names = ("left_children", "right_children", "split_indices", "split_conditions")
    trees = learner["gradient_booster"]["model"]["trees"]
    return join_trees("xgboost", [tuple(np.array(tree[name]) for name in names) for tree in trees])  # type: ignore[misc]
