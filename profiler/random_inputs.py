"""Values to run a model on: random, as zeros or denormals would not take the usual time, and always the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_INDEX = 1
"""Integers of 32 bits and more are tokens or indices as a rule, into tables of an unknown length."""


def random_values(shape: Sequence[int], dtype: Any) -> NDArray[Any]:
    """Random values of that shape and NumPy dtype: floats of a standard normal distribution, integers up to 16 bits
    over all that they hold, larger ones 0 or 1. Raises ValueError for a dtype that is no number."""
    generator = np.random.default_rng(0)
    try:
        kind = np.dtype(dtype)
    except TypeError:
        kind = np.dtype(object)
    if kind.kind == "f":
        return generator.standard_normal(shape, np.float32).astype(kind)
    if kind.kind in "iu" and kind.itemsize <= 2:
        limits = np.iinfo(kind)
        return generator.integers(limits.min, limits.max, shape, kind.type, endpoint=True)
    if kind.kind in "iub":
        return generator.integers(0, MOST_INDEX, shape, endpoint=True).astype(kind)
    if kind.kind == "c":
        return (generator.standard_normal(shape) + 1j * generator.standard_normal(shape)).astype(kind)
    raise ValueError(f"there are no random values of dtype {dtype}")
