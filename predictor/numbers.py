"""Types of arrays of numbers, and reading such arrays from a file that anybody may have written.

Whatever reads raises ValueError, KeyError or TypeError on nonsense.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
"""Array of floats of any shape."""
FlagArray = NDArray[np.bool_]
"""Array of truth values of any shape."""
MOST = 1e30
"""Largest number that a file may hold: larger ones only serve to overflow."""
MOST_LOG = 100.0
"""Largest logarithm of a latency or of a ratio of two that a file may hold."""
CACHED_ENTRIES = 1 << 18
"""Most entries of a matrix that is made at once: what stays in the processor's cache."""
_LEAST = 1e-30
"""Least number that counts as above zero."""


def inverse(matrix: FloatArray) -> FloatArray:
    """The inverse of a symmetric, positive definite matrix, shape (n, n), by Cholesky's factor. Raises LinAlgError, a
    ValueError, for any other."""
    factor = np.linalg.solve(np.linalg.cholesky(matrix), np.eye(len(matrix)))
    return np.asarray(factor.T @ factor)


def squared_distances(a: FloatArray, b: FloatArray) -> FloatArray:
    """Squared distances, shape (n, m), between points (n, p) and (m, p)."""
    result = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)  # in place from here on: it is large
    result -= 2 * a @ b.T
    return np.asarray(np.maximum(result, 0, out=result))


def read_array(data: Mapping[str, Any], name: str, *shape: int, least: float = -MOST, most: float = MOST) -> FloatArray:
    """The array under that name, all from `least` to `most`; -1 in `shape` stands for any length."""
    values = np.array(data[name], dtype=float)
    if len(values.shape) != len(shape) or any(n not in (-1, m) for n, m in zip(shape, values.shape, strict=True)):
        raise ValueError(f"{name} has shape {values.shape}, expected {shape}")
    if not ((values >= least) & (values <= most)).all():
        raise ValueError(f"{name} holds a value that is not finite, or not from {least:g} to {most:g}")
    return values


def read_logs(data: Mapping[str, Any], name: str, *shape: int, most: float = MOST_LOG) -> FloatArray:
    """The array of that shape under that name, no value of which is farther than `most` from 0."""
    return read_array(data, name, *shape, least=-most, most=most)


def read_number(data: Mapping[str, Any], name: str, *, least: float = -MOST, most: float = MOST) -> float:
    """The finite number under that name."""
    return float(read_array(data, name, least=least, most=most))


def read_positive(
    data: Mapping[str, Any], name: str, *shape: int, least: float = _LEAST, most: float = MOST
) -> FloatArray:
    """The array of that shape under that name, every value of which is above zero."""
    values = read_array(data, name, *shape, most=most)
    if not (values >= least).all():
        raise ValueError(f"{name} holds a value that is not above zero, or next to nothing")
    return values


def read_indices(data: Mapping[str, Any], name: str, limit: int, *shape: int) -> NDArray[np.intp]:
    """The array of that shape under that name, every value of which is a whole number from 0 to limit - 1."""
    values = read_array(data, name, *shape)
    if not ((values >= 0) & (values < limit) & (values == np.floor(values))).all():
        raise ValueError(f"{name} holds a value that is no index below {limit}")
    return values.astype(np.intp)
