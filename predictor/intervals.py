"""Prediction intervals: quantiles of held-out errors.

Split-conformal prediction with normalised scores (Lei et al., Distribution-Free Predictive Inference for Regression,
2018): the interval's half-width, in logarithms, is a quantile of |residual| / scale over records that the model had not
seen, times the scale of the new graph. The scale grows with the distance from the records.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from netlathe.predictor.errors import PredictorError
from netlathe.predictor.numbers import FloatArray, read_array

USUAL_COVERAGE = 0.9
"""Probability with which an interval holds the measurement, where nothing else is asked for."""
WIDEST = math.log(100.0)
"""Largest half-width, a factor of 100: that already says that nothing is known."""


def normal_quantile(probability: float) -> float:
    """The value that a standard normal variable stays below with that probability, between 0 and 1."""
    from statistics import NormalDist  # few predictions need it, and it takes some milliseconds

    return NormalDist().inv_cdf(probability)


def student_quantile(probability: float, freedom: int) -> float:
    """The value that Student's t stays below with that probability, from 0.5 to 1 (1 not included), for a whole number
    of degrees of freedom, by bisection of its distribution (Abramowitz and Stegun, Handbook of Mathematical Functions,
    1964, equations 26.7.3 and 26.7.4)."""
    inside = 2 * probability - 1
    low, high = 0.0, math.pi / 2  # the angle whose tangent is t over the root of the freedom
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if _student_share(middle, freedom) < inside else (low, middle)
    return math.tan(low) * math.sqrt(freedom)


def _student_share(angle: float, freedom: int) -> float:
    """Probability that |t| stays below the root of the freedom times the angle's tangent."""
    cosine = math.cos(angle)
    odd = freedom % 2
    term, total = (cosine, 0.0) if odd else (1.0, 0.0)
    for power in range(1 + odd, freedom, 2):
        total += term
        term *= cosine * cosine * power / (power + 1)
    total *= math.sin(angle)
    return (angle + total) * 2 / math.pi if odd else total


@dataclass(frozen=True)
class Conformal:
    """Conformal quantiles of held-out scores |log(measured / predicted)| / scale, ascending, shape (n,)."""

    scores: FloatArray

    def quantile(self, coverage: float) -> float:
        """The bound that a new score stays below with probability `coverage`.

        With too few scores for that quantile (8 for 0.9), from Student's t as if residuals were Gaussian, but no less
        than the largest score, which a new one exceeds with probability 1 / (n + 1); without any, WIDEST.
        """
        n = len(self.scores)
        rank = math.ceil((n + 1) * coverage)
        if n == 0:
            return WIDEST
        if rank <= n:
            return float(self.scores[rank - 1])
        deviation = math.sqrt(float(np.mean(self.scores**2)) * (1 + 1 / n))
        return max(student_quantile((1 + coverage) / 2, n) * deviation, float(self.scores[-1]))

    def to_json(self) -> dict[str, Any]:
        return {"scores": self.scores.tolist()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Conformal:
        scores = read_array(data, "scores", -1)
        if (scores < 0).any() or (np.diff(scores) < 0).any():
            raise ValueError("scores must be ascending and not negative")
        return cls(scores)


class HeldOutErrors(NamedTuple):
    """A model's errors on n measurements that it had not seen; both (n,), NaN where it could say nothing."""

    errors: FloatArray
    """log(measured / predicted)."""
    half_widths: FloatArray
    """Half-widths of its intervals of USUAL_COVERAGE there, in logarithms."""


def expected_scores(count: int) -> FloatArray:
    """Absolute errors of `count` measurements evenly over a standard normal distribution, ascending, shape (count,): a
    prior for Conformal's scores, as a few measurements may agree with a model by chance."""
    return np.array([normal_quantile(1 - place / (4 * count)) for place in range(2 * count - 1, 0, -2)])


def one_for_each(scores: FloatArray, groups: Sequence[Any] | NDArray[Any]) -> FloatArray:
    """Quantiles of the scores (n,) in which each group counts once, ascending, as many as there are groups (n,):
    repeated measurements of one thing are no independent witnesses. Rows whose score is NaN are left out."""
    known = np.isfinite(scores)
    values = scores[known]
    order = np.argsort(values, kind="stable")
    weight = np.cumsum(group_shares(np.asarray(groups)[known])[order])
    places = np.searchsorted(weight, np.arange(round(float(weight[-1]))) + 0.5) if len(weight) else order
    return np.asarray(values[order][places])


def group_shares(groups: Sequence[Any] | NDArray[Any]) -> FloatArray:
    """One over the number of rows in each row's group, shape (n,) as the groups."""
    _, members, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    return np.asarray(1 / sizes[members])


def check_coverage(coverage: float) -> None:
    """A check that coverage is strictly between 0 and 1; raises PredictorError where it is not."""
    if not 0 < coverage < 1:
        raise PredictorError(f"coverage must be between 0 and 1, got {coverage!r}; 0.9 is usual")


def bounds(latency_ms: FloatArray, half_widths: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(low, high) of intervals in ms from half-widths in logarithms; all of shape (n,)."""
    factor = np.exp(np.minimum(half_widths, WIDEST))
    return latency_ms / factor, latency_ms * factor
