"""From predictions to figures: pooled within a group, averaged over groups, then over seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.predictor.splits import FloatArray
from netlathe.predictor.validation.metrics import measure


class Score(NamedTuple):
    """Shares and MAPE in percent."""

    mape: float
    within_5: float
    within_10: float
    spearman: float
    refused: float = 0.0
    """Share of items without a prediction; they count as misses in the shares within, and in nothing else."""
    coverage: float = math.nan
    """Share of measurements inside their 90 % interval; NaN for a method without intervals."""


class Spread(NamedTuple):
    """Mean over the seeds and standard deviation between them, which is NaN for a single one."""

    mean: Score
    deviation: Score


def score(measured_ms: FloatArray, predicted_ms: FloatArray) -> Score:
    """Score of predictions in ms, shape (n,), NaN where the method refuses, or (3, n) with the ends of intervals."""
    latency_ms, *interval = np.atleast_2d(predicted_ms)
    given = np.isfinite(latency_ms)
    if not given.any():
        return Score(math.nan, 0.0, 0.0, math.nan, 100.0)
    metrics = measure(measured_ms[given], latency_ms[given], *(end[given] for end in interval))
    share = float(given.mean())
    return Score(
        100 * metrics.mape,
        100 * metrics.within_5 * share,
        100 * metrics.within_10 * share,
        metrics.spearman,
        100 * (1 - share),
        math.nan if metrics.coverage is None else 100 * metrics.coverage,
    )


def mean_score(scores: Iterable[Score]) -> Score:
    """The mean of each figure."""
    return Score(*(float(value) for value in np.mean([*scores], axis=0)))


def worst_tenth(seeds: Sequence[Mapping[str, Score]]) -> list[str]:
    """The tenth of the groups, at least one, with the fewest predictions within ±10 % over all seeds."""
    shares = {group: np.mean([one[group].within_10 for one in seeds if group in one]) for one in seeds for group in one}
    return sorted(shares, key=lambda group: shares[group])[: math.ceil(len(shares) / 10)]


def over_seeds(scores: Sequence[Score]) -> Spread:
    """Mean and spread of the seeds' scores."""
    unknown = Score(*[math.nan] * len(Score._fields))
    deviation = Score(*np.std(scores, axis=0, ddof=1).tolist()) if len(scores) > 1 else unknown
    return Spread(mean_score(scores), deviation)
