"""How wrong a prediction may be: quantiles of honest residuals.

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
from scipy.stats import t

from netlathe.predictor.errors import PredictorError
from netlathe.predictor.numbers import FloatArray, read_array

USUAL_COVERAGE = 0.9
WIDEST = math.log(100.0)
"""No half-width goes beyond a factor of 100: that already says that nothing is known."""


@dataclass(frozen=True)
class Conformal:
    """Scores |log(measured / predicted)| / scale of graphs that the model had not seen, ascending. Shape (n,)."""

    scores: FloatArray

    def quantile(self, coverage: float) -> float:
        """What a new score stays below with probability `coverage`.

        With too few scores for that quantile (8 for 0.9), from Student's t as if residuals were Gaussian; without any,
        WIDEST.
        """
        n = len(self.scores)
        rank = math.ceil((n + 1) * coverage)
        if n == 0:
            return WIDEST
        if rank <= n:
            return float(self.scores[rank - 1])
        deviation = math.sqrt(float(np.mean(self.scores**2)) * (1 + 1 / n))
        return float(t.ppf((1 + coverage) / 2, n)) * deviation

    def to_json(self) -> dict[str, Any]:
        return {"scores": self.scores.tolist()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Conformal:
        scores = read_array(data, "scores", -1)
        if (scores < 0).any() or (np.diff(scores) < 0).any():
            raise ValueError("scores must be ascending and not negative")
        return cls(scores)


class LeftOut(NamedTuple):
    """What a model said of n measurements that it had not seen; both (n,), NaN where it could say nothing."""

    errors: FloatArray
    """log(measured / predicted)."""
    half_widths: FloatArray
    """Of its intervals of USUAL_COVERAGE there, in logarithms."""


def one_for_each(scores: FloatArray, groups: Sequence[Any] | NDArray[Any]) -> FloatArray:
    """As many scores as there are groups, ascending: those of all rows, each row weighing one in its group's number.
    Repeated measurements of one thing are no independent witnesses. Both (n,); rows whose score is NaN are left out."""
    known = np.isfinite(scores)
    values = scores[known]
    order = np.argsort(values, kind="stable")
    weight = np.cumsum(shares(np.asarray(groups)[known])[order])
    places = np.searchsorted(weight, np.arange(round(float(weight[-1]))) + 0.5) if len(weight) else order
    return np.asarray(values[order][places])


def shares(groups: Sequence[Any] | NDArray[Any]) -> FloatArray:
    """The part that each row is of its group, (n,): one over the number of rows in it."""
    _, members, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    return np.asarray(1 / sizes[members])


def check_coverage(coverage: float) -> None:
    """Raises PredictorError unless it is a probability strictly between 0 and 1."""
    if not 0 < coverage < 1:
        raise PredictorError(f"coverage must be between 0 and 1, got {coverage!r}; 0.9 is usual")


def bounds(latency_ms: FloatArray, half_widths: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(low, high) in ms from half-widths in logarithms; all (n,)."""
    factor = np.exp(np.minimum(half_widths, WIDEST))
    return latency_ms / factor, latency_ms * factor
