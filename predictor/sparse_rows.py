"""Rows of numbers most of which are 0, as numpy arrays: what a loaded predictor needs of a sparse matrix.

scipy.sparse would do, but it takes longer to import than a network takes to be predicted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netlathe.predictor.numbers import CACHED_ENTRIES, FloatArray


@dataclass(frozen=True, eq=False)
class SparseRows:
    """A matrix of shape (n, width) by its entries, row after row; entries of one place add up."""

    values: FloatArray
    """Value of each of the e entries, shape (e,)."""
    columns: NDArray[np.intp]
    """Column of each entry, shape (e,)."""
    ends: NDArray[np.intp]
    """Index of each row's first entry, and behind the last row the number of entries; shape (n + 1,)."""
    width: int

    @classmethod
    def of(cls, dense: FloatArray) -> SparseRows:
        """The matrix of a dense one, shape (n, width)."""
        rows, columns = np.nonzero(dense)
        return cls(dense[rows, columns], columns, _ends(np.bincount(rows, minlength=len(dense))), dense.shape[1])

    def __len__(self) -> int:
        return len(self.ends) - 1

    @property
    def lengths(self) -> NDArray[np.intp]:
        """The number of entries in each row, shape (n,)."""
        return np.diff(self.ends)

    @property
    def rows(self) -> NDArray[np.intp]:
        """Row of each entry, shape (e,)."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def __matmul__(self, dense: FloatArray) -> FloatArray:
        """The product with a vector (width,) or a matrix (width, k): of shape (n,) or (n, k)."""
        result = np.zeros((len(self), *dense.shape[1:]))
        filled = np.flatnonzero(self.lengths)
        if not len(filled):
            return result
        starts = self.ends[filled]
        values = self.values.reshape(-1, *[1] * (dense.ndim - 1))
        # In parts that stay in the cache: every entry takes a row of `dense` along, in three arrays.
        most = max(1, CACHED_ENTRIES // (4 * max(1, dense[:1].size)))
        cuts = np.unique(np.searchsorted(starts, np.arange(0, starts[-1] + 1, most)))
        for first, last in zip(cuts, [*cuts[1:], len(filled)], strict=True):
            begin, end = starts[first], self.ends[filled[last - 1] + 1]
            products = values[begin:end] * dense[self.columns[begin:end]]
            result[filled[first:last]] = np.add.reduceat(products, starts[first:last] - begin, axis=0)
        return result

    def transposed_times(self, vector: FloatArray) -> FloatArray:
        """The transpose's product with a vector (n,), of shape (width,)."""
        return np.asarray(np.bincount(self.columns, self.values * np.repeat(vector, self.lengths), self.width), float)

    def scaled(self, by_entry: FloatArray) -> SparseRows:
        """The matrix with each entry multiplied by a factor, shape (e,)."""
        return SparseRows(self.values * by_entry, self.columns, self.ends, self.width)

    def take(self, rows: Any) -> SparseRows:
        """The rows of these indices, or where these flags are true; shape (m,)."""
        chosen = np.arange(len(self))[rows]
        lengths = self.lengths[chosen]
        ends = _ends(lengths)
        entries = np.arange(ends[-1]) + np.repeat(self.ends[chosen] - ends[:-1], lengths)
        return SparseRows(self.values[entries], self.columns[entries], ends, self.width)

    def take_columns(self, columns: NDArray[np.intp]) -> SparseRows:
        """The columns of these different indices, shape (m,), in their order."""
        places = np.full(self.width, -1)
        places[columns] = np.arange(len(columns))
        found = places[self.columns]
        kept = found >= 0
        ends = _ends(np.bincount(self.rows[kept], minlength=len(self)))
        return SparseRows(self.values[kept], found[kept], ends, len(columns))

    def dense(self) -> FloatArray:
        """The matrix itself, shape (n, width)."""
        result = np.zeros((len(self), self.width))
        np.add.at(result, (self.rows, self.columns), self.values)
        return result


def _ends(lengths: NDArray[np.intp]) -> NDArray[np.intp]:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.intp)
