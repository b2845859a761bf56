"""Splits that keep every configuration on one side."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray


def configuration_folds(configurations: Sequence[Hashable], folds: int, seed: int) -> list[NDArray[np.intp]]:
    """Indices of each test fold: distinct configurations are dealt at random into `folds` parts of nearly equal size,
    and all records of a configuration go with it. Fewer configurations than folds make fewer folds."""
    distinct = list(dict.fromkeys(configurations))
    order = np.random.default_rng(seed).permutation(len(distinct))
    fold_of = {distinct[index]: position % folds for position, index in enumerate(order)}
    membership = np.array([fold_of[c] for c in configurations])
    return [np.flatnonzero(membership == fold) for fold in range(min(folds, len(distinct)))]
