"""Regression trees as plain arrays.

XGBoost or scikit-learn grow them; walking them takes a few lines here. Their own files are not kept: one is a pickle,
and reading the other trusts it, so that one negative index ends the process. Without them a saved predictor also works
with any version of either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from netlathe.predictor.features.inputs import Inputs
from netlathe.predictor.features.item_features import LOG_FEATURES
from netlathe.predictor.numbers import FloatArray, read_array, read_indices

_CHUNK = 4096
_ARRAYS = ("roots", "feature", "value", "left", "right")
_MOST_TREES, _DEEPEST = 2000, 64
"""Far more than is ever grown; what a file with more is for is to keep somebody waiting."""


@dataclass(frozen=True)
class Trees:
    """All nodes of all trees, one after the other; arrays of shape (nodes,). A leaf is its own child on both sides.
    What the leaves say adds up.

    A tree goes on at a constant for ever, so its word has to count less the farther an item is from the records.
    """

    kind: Literal["xgboost", "forest"]
    roots: NDArray[np.intp]
    """Where each tree starts; shape (trees,)."""
    feature: NDArray[np.intp]
    value: FloatArray
    """The threshold below which the left child follows; in a leaf, what the tree adds."""
    left: NDArray[np.intp]
    right: NDArray[np.intp]
    fades: ClassVar[bool] = False

    def predict(self, inputs: Inputs) -> FloatArray:
        """Log ratios, shape (n,)."""
        z = inputs.z.astype(np.float32)  # as in training, so that a value on a threshold goes the way it went there
        parts = [self._sum(z[i : i + _CHUNK]) for i in range(0, len(z), _CHUNK)]
        return np.concatenate([np.zeros(0), *parts])

    def _sum(self, z: NDArray[np.float32]) -> FloatArray:
        """Tree by tree, as the columns of a few thousand rows stay in the cache."""
        columns, rows = np.ascontiguousarray(z.T).ravel(), np.arange(len(z))
        first = self.feature * len(z)  # of each node's feature in `columns`
        total = np.zeros(len(z))
        for root in self.roots:
            node = np.full(len(z), root)
            while True:
                goes_left = columns[first[node] + rows] < self.value[node]
                following = np.where(goes_left, self.left[node], self.right[node])
                if np.array_equal(following, node):
                    break
                node = following
            total += self.value[node]
        return total

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name).tolist() for name in _ARRAYS}

    @classmethod
    def from_json(cls, kind: Literal["xgboost", "forest"], data: Mapping[str, Any]) -> Trees:
        """Raises ValueError, KeyError or TypeError on trees that do not end or look at features that do not exist."""
        value = read_array(data, "value", -1)
        nodes = np.arange(len(value))
        roots = read_indices(data, "roots", len(nodes), -1)
        feature = read_indices(data, "feature", len(LOG_FEATURES), len(nodes))
        left, right = (read_indices(data, side, len(nodes), len(nodes)) for side in ("left", "right"))
        leaf = (left == nodes) & (right == nodes)
        if not (leaf | (left > nodes) & (right > nodes)).all():
            raise ValueError("a tree goes round in circles")
        if len(roots) > _MOST_TREES or not _ends_within(_DEEPEST, roots, left, right):
            raise ValueError("these are more trees, or deeper ones, than a predictor has")
        return cls(kind, roots, feature, value, left, right)


def _ends_within(depth: int, roots: NDArray[np.intp], left: NDArray[np.intp], right: NDArray[np.intp]) -> bool:
    """Whether every way from the roots reaches a leaf in so many steps."""
    inner = roots
    for _ in range(depth):
        children = np.unique(np.concatenate([left[inner], right[inner]]))
        inner = children[left[children] != children]
    return not len(inner)


def join_trees(
    kind: Literal["xgboost", "forest"], trees: list[tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]]
) -> Trees:
    """One Trees from (left, right, feature, value) of each, numbered from 0, with -1 for the children of a leaf."""
    sizes = [len(tree[0]) for tree in trees]
    roots = np.cumsum([0, *sizes[:-1]])
    nodes, start = np.arange(sum(sizes)), np.repeat(roots, sizes)
    left, right, feature, value = (np.concatenate(arrays) for arrays in zip(*trees, strict=True))
    is_leaf = left == -1
    return Trees(
        kind,
        roots,
        np.where(is_leaf, 0, feature).astype(np.intp),
        value.astype(float),
        np.where(is_leaf, nodes, left + start),
        np.where(is_leaf, nodes, right + start),
    )
