"""Inputs of residual regressors: standardised features, and the ops of each item."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from netlathe.predictor.features.item_features import Features, Ops
from netlathe.predictor.features.op_work import FIRST_CLASSES, OP_CLASSES, OP_SIZES
from netlathe.predictor.numbers import FloatArray, read_array, read_indices, read_logs
from netlathe.predictor.sparse_rows import SparseRows


class Inputs(NamedTuple):
    """Inputs of n items: standardised log features z (n, p), and the shares (n, m) that the `ops` have in their time by
    the physics, a sparse matrix."""

    z: FloatArray
    shares: SparseRows
    ops: Ops

    def take(self, indices: NDArray[Any]) -> Inputs:
        """The inputs of these items, indices of shape (m,)."""
        return Inputs(self.z[indices], self.shares.take(indices), self.ops)


class OpShares(NamedTuple):
    """Ops of n items: the shares (n, m) that m different ops have in their time, a sparse matrix, and each
    op's class (m,) and size (m, len(OP_SIZES))."""

    shares: SparseRows
    classes: NDArray[np.intp]
    sizes: FloatArray

    def take(self, indices: NDArray[Any]) -> Self:
        """The ops of these items, indices of shape (m,)."""
        return self._replace(shares=self.shares.take(indices))

    def to_json(self) -> dict[str, Any]:
        """Ops and shares, without ops that no item has."""
        used, columns = np.unique(self.shares.columns, return_inverse=True)
        return {
            **classes_to_json(self.classes[used]),
            "sizes": self.sizes[used],
            "counts": self.shares.lengths,
            "columns": columns,
            "shares": self.shares.values,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], count: int) -> Self:
        """The object that to_json wrote. Raises ValueError, KeyError or TypeError on anything that is not what `count`
        items are made of."""
        sizes = read_logs(data, "sizes", -1, len(OP_SIZES), most=1e3)
        shares = read_array(data, "shares", -1, least=0.0, most=1.0)
        columns = read_indices(data, "columns", len(sizes), len(shares))
        ends = np.cumsum([0, *read_indices(data, "counts", len(shares) + 1, count)])
        if ends[-1] != len(shares):
            raise ValueError("there are more or fewer shares than the items have")
        return cls(SparseRows(shares, columns, ends, len(sizes)), read_classes(data, len(sizes)), sizes)

    @classmethod
    def unknown(cls, count: int) -> Self:
        """No ops of `count` items, where nobody wrote them down."""
        return cls(SparseRows.of(np.zeros((count, 0))), np.zeros(0, dtype=np.intp), np.zeros((0, len(OP_SIZES))))


def classes_to_json(classes: NDArray[np.intp]) -> dict[str, Any]:
    """Numbers of op classes as files hold them: those that came after the first ones, in an order that they name."""
    later = {"op_classes": list(OP_CLASSES)} if classes.max(initial=0) >= FIRST_CLASSES else {}
    return {"classes": classes.tolist(), **later}


def read_classes(data: Mapping[str, Any], count: int) -> NDArray[np.intp]:
    """The numbers of `count` op classes in OP_CLASSES, from a file that may have another order of them."""
    names = data.get("op_classes", OP_CLASSES[:FIRST_CLASSES])
    numbers = np.array([OP_CLASSES.index(name) for name in names], dtype=np.intp)
    return np.asarray(numbers[read_indices(data, "classes", len(numbers), count)])


def op_shares(features: Features, rates: FloatArray) -> OpShares:
    """Share of each op in the time of each of n items at rates (terms,)."""
    counts, total = features.counts, np.maximum(features.terms @ rates, np.finfo(float).tiny)
    per_run = features.ops.terms @ rates
    shares = counts.scaled(per_run[counts.columns] / np.repeat(total, counts.lengths))
    return OpShares(shares, features.ops.classes, features.ops.sizes)
