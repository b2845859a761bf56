"""XGBoost's trees as plain arrays.

XGBoost grows them; walking them takes a few lines here. XGBoost's own JSON is not kept, because reading it trusts the
file: one negative index in it ends the process. Without it a saved predictor also works with any version of XGBoost.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from predictor.features import FloatArray
from predictor.numbers import read_array, read_indices

_SETTINGS = {
    "max_depth": 3, "eta": 0.08, "subsample": 0.8, "colsample_bytree": 0.7, "min_child_weight": 2,
    "base_score": 0.0, "nthread": 1,
}  # fmt: skip
_ROUNDS = 250
_CHUNK = 4096


@dataclass(frozen=True)
class BoostedTrees:
    """All nodes of all trees, one after the other; arrays of shape (nodes,). A leaf is its own child on both sides.

    A tree goes on at a constant for ever, so what it says counts less the farther a graph is from the records.
    """

    roots: NDArray[np.intp]
    """Where each tree starts; shape (trees,)."""
    feature: NDArray[np.intp]
    value: FloatArray
    """The threshold below which the left child follows; in a leaf, what the tree adds."""
    left: NDArray[np.intp]
    right: NDArray[np.intp]
    kind: Literal["xgboost"] = "xgboost"

    def predict(self, z: FloatArray, remoteness: FloatArray) -> FloatArray:
        """Log ratios, shape (n,), at standardised features (n, p), `remoteness` (n,) from the records."""
        trust = 1 / (1 + np.maximum(remoteness - 1, 0) ** 2)
        parts = [self._sum(z[i : i + _CHUNK].astype(np.float32)) for i in range(0, len(z), _CHUNK)]
        return np.concatenate([np.zeros(0), *parts]) * trust

    def _sum(self, z: NDArray[np.float32]) -> FloatArray:
        """z is float32 as in XGBoost, so that a value on a threshold goes the way it went in training."""
        rows = np.arange(len(z))[:, None]
        node = np.broadcast_to(self.roots, (len(z), len(self.roots)))
        while True:
            goes_left = z[rows, self.feature[node]] < self.value[node]
            following = np.where(goes_left, self.left[node], self.right[node])
            if np.array_equal(following, node):
                return np.asarray(self.value[node].sum(axis=1))
            node = following

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name).tolist() for name in ("roots", "feature", "value", "left", "right")}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], width: int) -> BoostedTrees:
        """Raises ValueError, KeyError or TypeError on trees that do not end or look at features that do not exist."""
        value = read_array(data, "value", -1)
        nodes = np.arange(len(value))
        roots = read_indices(data, "roots", len(nodes), -1)
        feature = read_indices(data, "feature", width, len(nodes))
        left, right = (read_indices(data, side, len(nodes), len(nodes)) for side in ("left", "right"))
        leaf = (left == nodes) & (right == nodes)
        if not (leaf | (left > nodes) & (right > nodes)).all():
            raise ValueError("a tree goes round in circles")
        return cls(roots, feature, value, left, right)


def fit_boosted_trees(z: FloatArray, log_ratio: FloatArray, seed: int) -> BoostedTrees:
    """Fits log ratios of shape (n,) at standardised features (n, p)."""
    import xgboost  # a second that a predictor without trees, or a loaded one, need not spend

    booster = xgboost.train({**_SETTINGS, "seed": seed}, xgboost.DMatrix(z, log_ratio, nthread=1), _ROUNDS)
    learner = json.loads(booster.save_raw("json"))["learner"]
    trees = learner["gradient_booster"]["model"]["trees"]
    sizes = [len(tree["left_children"]) for tree in trees]
    roots = np.cumsum([0, *sizes[:-1]])
    nodes, start = np.arange(sum(sizes)), np.repeat(roots, sizes)

    def joined(name: str) -> NDArray[Any]:
        return np.concatenate([np.array(tree[name]) for tree in trees])

    left, right = joined("left_children"), joined("right_children")
    is_leaf = left == -1
    return BoostedTrees(
        roots,
        np.where(is_leaf, 0, joined("split_indices")),
        joined("split_conditions").astype(float),
        np.where(is_leaf, nodes, left + start),
        np.where(is_leaf, nodes, right + start),
    )
