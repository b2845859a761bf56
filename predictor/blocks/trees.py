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
"""Rows that walk the trees together: their columns stay in the cache."""
_ARRAYS = ("roots", "feature", "value", "left", "right")
"""Arrays of Trees in files."""
_MOST_TREES, _DEEPEST = 2000, 64
"""Bounds of a file's trees, far more than are ever grown: a file with more would only keep somebody waiting."""


@dataclass(frozen=True)
class Trees:
    """The nodes of all trees, one after the other; arrays of shape (nodes,). A leaf is its own child on both sides.
    Values of the leaves add up.

    A tree is constant beyond the records, so it has to count less the farther an item is from them.
    """

    kind: Literal["xgboost", "forest"]
    roots: NDArray[np.intp]
    """Index of the node that each tree starts at; shape (trees,)."""
    feature: NDArray[np.intp]
    value: FloatArray
    """Threshold below which the left child follows; in a leaf, the value that the tree adds."""
    left: NDArray[np.intp]
    right: NDArray[np.intp]
    fades: ClassVar[bool] = False

    def predict(self, inputs: Inputs) -> FloatArray:
        """Log ratios, shape (n,)."""
        z = inputs.z.astype(np.float32)  # as in training, so that a value on a threshold goes the way it went there
        parts = [self._sum(z[i : i + _CHUNK]) for i in range(0, len(z), _CHUNK)]
        return np.concatenate([np.zeros(0), *parts])

    def _sum(self, z: NDArray[np.float32]) -> FloatArray:
        """Log ratios of some rows, shape (n,), tree by tree."""
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
        """The object that to_json wrote. Raises ValueError, KeyError or TypeError on trees that do not end or look at
        features that do not exist."""
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
    """Whether every path from the roots reaches a leaf in so many steps."""
    inner = roots
    for _ in range(depth):
        children = np.unique(np.concatenate([left[inner], right[inner]]))
        inner = children[left[children] != children]
    return not len(inner)


def join_trees(
    kind: Literal["xgboost", "forest"], trees: list[tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]]
) -> Trees:
    """Trees joined from (left, right, feature, value) of each, each (nodes,), numbered from 0, with -1 for the children
    of a leaf."""
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
