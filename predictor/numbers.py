"""Numbers out of a file that anybody may have written. All raise ValueError, KeyError or TypeError on nonsense."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predictor.features import FloatArray

_MOST = 1e30
"""Larger numbers only serve to overflow."""


def read_array(data: Mapping[str, Any], name: str, *shape: int) -> FloatArray:
    """The array under that name, finite; -1 in `shape` stands for any length."""
    values = np.array(data[name], dtype=float)
    if len(values.shape) != len(shape) or any(n not in (-1, m) for n, m in zip(shape, values.shape, strict=True)):
        raise ValueError(f"{name} has shape {values.shape}, expected {shape}")
    if not (np.abs(values) <= _MOST).all():
        raise ValueError(f"{name} holds a value that is not finite, or beyond anything measured")
    return values


def read_number(data: Mapping[str, Any], name: str) -> float:
    """The finite number under that name."""
    return float(read_array(data, name))


def read_positive(data: Mapping[str, Any], name: str, *shape: int) -> FloatArray:
    """As read_array, and every value is above zero."""
    values = read_array(data, name, *shape)
    if not (values > 0).all():
        raise ValueError(f"{name} holds a value that is not above zero")
    return values


def read_indices(data: Mapping[str, Any], name: str, limit: int, *shape: int) -> NDArray[np.intp]:
    """As read_array, and every value is a whole number from 0 to limit - 1."""
    values = read_array(data, name, *shape)
    if not ((values >= 0) & (values < limit) & (values == np.floor(values))).all():
        raise ValueError(f"{name} holds a value that is no index below {limit}")
    return values.astype(np.intp)
