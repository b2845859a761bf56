"""Metrics of predictions: the figures that latency prediction is compared by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netlathe.predictor.errors import PredictorError
from netlathe.predictor.intervals import USUAL_COVERAGE, bounds

Values = Sequence[float] | NDArray[np.float64]
"""Numbers of shape (n,)."""
LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
"""Nominal coverages at which intervals are checked."""


@dataclass(frozen=True)
class Metrics:
    """Accuracy of n predictions. Errors are relative to the measurement; shares are between 0 and 1."""

    n: int
    mape: float
    """Mean absolute relative error."""
    within_5: float
    """Share of predictions at most 5 % off."""
    within_10: float
    spearman: float
    """Rank correlation; NaN when one side does not vary."""
    coverage: float | None = None
    """Share of measurements inside their interval, where there are intervals."""

    def __str__(self) -> str:
        inside = "" if self.coverage is None else f", {100 * self.coverage:.0f} % inside their intervals"
        return (
            f"n = {self.n}: mean error {100 * self.mape:.1f} %, {100 * self.within_5:.0f} % within ±5 %, "
            f"{100 * self.within_10:.0f} % within ±10 %, Spearman {self.spearman:.3f}{inside}"
        )


def measure(measured: Values, predicted: Values, low: Values | None = None, high: Values | None = None) -> Metrics:
    """Metrics of predictions in ms, and of intervals if given; all of one length n >= 1.

    Raises PredictorError on unequal lengths, on none, or on measurements that are not above zero."""
    y, p = np.asarray(measured, dtype=float), np.asarray(predicted, dtype=float)
    if y.shape != p.shape or y.ndim != 1 or not len(y):
        raise PredictorError(f"{len(y)} measurements and {len(p)} predictions cannot be compared")
    if not (y > 0).all():
        raise PredictorError("a measurement is not above zero, so its relative error means nothing")
    off = np.abs(p / y - 1)
    inside = None
    if low is not None and high is not None:
        inside = float(np.mean((np.asarray(low) <= y) & (y <= np.asarray(high))))
    # A prediction that is 10 % off on paper must not fail for the last bit of a float.
    within_5, within_10 = (float(np.mean(off <= limit + 1e-9)) for limit in (0.05, 0.10))
    return Metrics(len(y), float(off.mean()), within_5, within_10, _spearman(y, p), inside)


def _spearman(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Rank correlation; NaN when one side does not vary."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    from scipy.stats import rankdata  # takes longer to import than to read a card, which needs none of it

    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])


_ARRAYS = ("measured_ms", "predicted_ms", "half_widths")
"""Fields of Predictions that are arrays."""


@dataclass(frozen=True)
class Predictions:
    """Held-out predictions of n measurements. Arrays of shape (n,), half_widths (n, levels)."""

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    """Kind of each item: "mbconv k3", "linear", "network", ..."""
    measured_ms: NDArray[np.float64]
    predicted_ms: NDArray[np.float64]
    half_widths: NDArray[np.float64]
    """Half-widths of the intervals in logarithms, one column per coverage in LEVELS."""

    @property
    def metrics(self) -> Metrics:
        return measure(self.measured_ms, self.predicted_ms, *self.interval_ms())

    def interval_ms(self, level: float = USUAL_COVERAGE) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Intervals (low, high) in ms of one of LEVELS, each of shape (n,)."""
        return bounds(self.predicted_ms, self.half_widths[:, LEVELS.index(level)])

    def coverages(self) -> NDArray[np.float64]:
        """Share of measurements inside their intervals for each of LEVELS, shape (levels,)."""
        off = np.abs(np.log(self.measured_ms / self.predicted_ms))
        return np.asarray((off[:, None] <= self.half_widths).mean(axis=0))

    def take(self, indices: NDArray[Any]) -> Predictions:
        """The predictions of these rows, indices of shape (m,)."""

        def chosen(words: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(words[i] for i in indices)

        arrays = (self.measured_ms[indices], self.predicted_ms[indices], self.half_widths[indices])
        return Predictions(chosen(self.names), chosen(self.kinds), *arrays)

    @classmethod
    def joined(cls, parts: Sequence[Predictions]) -> Predictions:
        """The predictions of all parts, one part after the other."""
        names, kinds = (tuple(word for part in parts for word in getattr(part, name)) for name in ("names", "kinds"))
        arrays = (
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("measured_ms", "predicted_ms", "half_widths")
        )
        return cls(names, kinds, *arrays)

    def to_json(self) -> dict[str, Any]:
        """Content for a file: each kind once, numbers in single precision."""
        kinds = sorted(set(self.kinds))
        arrays = {name: getattr(self, name).astype(np.float32).astype(float) for name in _ARRAYS}
        return {"names": list(self.names), "kinds": kinds, "kind": [kinds.index(one) for one in self.kinds], **arrays}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Predictions:
        """The predictions that to_json was asked of. Raises what Python does for anything else."""
        names, kinds = tuple(map(str, data["names"])), [str(kind) for kind in data["kinds"]]
        arrays = [np.asarray(data[name], dtype=float) for name in _ARRAYS]
        if [one.shape for one in arrays] != [(len(names),), (len(names),), (len(names), len(LEVELS))]:
            raise ValueError("predictions are not as many as their names")
        if not all(np.isfinite(one).all() for one in arrays) or not all((one > 0).all() for one in arrays[:2]):
            raise ValueError("a latency is not above zero")
        return cls(names, tuple(kinds[int(place)] for place in data["kind"]), *arrays)

    def by_kind(self) -> dict[str, Predictions]:
        """Predictions of each kind, in alphabetical order."""
        kinds = np.array(self.kinds)
        return {kind: self.take(np.flatnonzero(kinds == kind)) for kind in sorted(set(self.kinds))}
