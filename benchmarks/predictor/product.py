"""The predictor that is judged, as a user would call it: fit, then predict."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from benchmarks.predictor.splits import FloatArray, Known, Split
from netlathe.predictor.predictor import LatencyPredictor
from netlathe.predictor.transfer.prior import Prior

PRODUCT = "netlathe"


def fit_product(split: Split, seed: int) -> FloatArray:
    """ms of the split's test items and the ends of their 90 % intervals, shape (3, n); NaN for those with an op that no
    training item has. Where other devices are known, they are the prior."""
    prior = prior_of(split.known) if split.known else None
    predictor = LatencyPredictor(random_state=seed, prior=prior).fit(split.train, split.train_ms)
    known = predictor.knows(split.test)
    items = [split.test[i] for i in np.flatnonzero(known).tolist()]
    result = np.full((3, len(split.test)), np.nan)
    result[:, known] = [predictor.predict(items), *predictor.predict_interval(items, 0.9)]
    return result


@lru_cache(maxsize=32)
def prior_of(known: Known) -> Prior:
    """Prior of all known devices; the same for every seed and every new device."""
    columns = zip(known.devices, known.latency_ms.T, strict=True)
    return Prior.learn({device: (known.items, latency_ms) for device, latency_ms in columns})
