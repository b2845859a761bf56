"""The latencies of a new device from a handful of measurements and the known devices' prior.

log latency on the new device = its speed + what is typical of the known devices + how it deviates: partly as they do
among themselves (their empirical covariance), partly in rates of its own (linear and smooth in the shares of the kinds
of work). A Gaussian process with Student's t noise: Rasmussen and Williams, Gaussian Processes for Machine Learning
(2006), equations 2.23, 2.24 and 5.12.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from netlathe.predictor.blocks.physics import TRUSTED
from netlathe.predictor.blocks.unknown_ops import Assumed
from netlathe.predictor.errors import TooFewRecordsError
from netlathe.predictor.features.item_features import Item
from netlathe.predictor.features.op_work import TERMS
from netlathe.predictor.features.samples import Sample
from netlathe.predictor.folds import near_folds
from netlathe.predictor.intervals import (
    USUAL_COVERAGE,
    Conformal,
    HeldOutErrors,
    bounds,
    expected_scores,
    normal_quantile,
    one_for_each,
)
from netlathe.predictor.networks.latency_model import Predicted, Work
from netlathe.predictor.numbers import MOST_LOG, FloatArray, inverse, read_array, read_indices, read_logs, read_positive
from netlathe.predictor.transfer.prior import OnKnownDevices, Prior
from netlathe.predictor.transfer.robust import RobustProcess, robust_process
from netlathe.predictor.transfer.work_space import USUAL, Scatter, WorkSpace

_SPEED = 0.15
"""Uncertainty of the speed that the median measurement tells, in log latency."""
_EXPECTED_SCORES = expected_scores(10)
"""Scores of ten measurements whose errors are of the expected size."""
_SCATTER_FREEDOM = np.array([0.7, 1.0, 1.0, 0.5, 0.5])
"""Prior standard deviations of the logarithms of Scatter's numbers around the usual ones."""
_MOST_FOR_SCATTER, _SCATTER_ROUNDS = 200, 2
"""Measurements that the scatter is fitted to, at most, and how often it and the noise's divisors take turns."""
_MOST_FOR_OWN_SCATTER = 60
"""Most different items of which each fold finds its own scatter: that of all of them would flatter a held-out one, as
it was made of it."""
_SCATTER_IN_FILES = ("among", "slope", "bend", "reach", "noise")
"""Names of Scatter's fields in files."""


@dataclass(frozen=True)
class TransferModel:
    """A prior adapted to n measurements of a new device. `kind` names it in files."""

    prior: Prior
    measured: OnKnownDevices
    speed: float
    """Log of the device's latency over the known devices' typical one (log_ms of OnKnownDevices)."""
    weights: FloatArray
    """Weights of the measurements, as of RobustProcess, shape (n,)."""
    noise_divisors: FloatArray
    """Divisors of their noise variances, as of RobustProcess, shape (n,)."""
    scatter: Scatter
    errors: Conformal
    """Held-out scores, in standard deviations that the process expects."""
    kind = "adapted"
    offset_ms = 0.0
    adds_up = False
    residual = "few-shot"
    residual_weights = None
    prior_share = 1.0
    has_intervals = True
    networks = None

    @cached_property
    def _precision(self) -> FloatArray:
        """Inverse of covariance + noise of the measurements, shape (n, n)."""
        among = covariance(self.prior, self.measured, self.measured, self.scatter)
        total = among + np.diag(self.scatter.noise_log**2 / self.noise_divisors)
        return inverse(total)

    @property
    def work(self) -> Work:
        """Shares of work as on a typical known device: no peak rate or bandwidth is told of this one."""
        return Work("network", rates=self.prior.complete_rates)

    def predict(self, items: Sequence[Item]) -> FloatArray:
        """Latencies in ms, shape (n,). Raises UnknownOpError."""
        known = self.prior.on_known_devices(items)
        return self._latency_ms(items, known, covariance(self.prior, known, self.measured, self.scatter))

    def _latency_ms(self, items: Sequence[Item], known: OnKnownDevices, towards: FloatArray) -> FloatArray:
        """Latencies in ms, shape (n,); `towards`: covariance of the items with the measurements, shape (n, m)."""
        latency_ms = np.exp(self.speed + known.log_ms + towards @ self.weights)
        return np.where([_is_work(item) for item in items], latency_ms, 0.0)

    def predict_interval(self, items: Sequence[Item], coverage: float) -> Predicted:
        known = self.prior.on_known_devices(items)
        towards = covariance(self.prior, known, self.measured, self.scatter)
        variance = _variance_left(self.prior, known, self.scatter, towards, self._precision)
        # Items that known devices were measured on may be easier than expected; the others need not be, then.
        quantile, usual = self.errors.quantile(coverage), normal_quantile((1 + coverage) / 2)
        peculiar = np.minimum(known.peculiar, variance) * max(usual**2 - quantile**2, 0.0)
        half_widths = np.sqrt(quantile**2 * variance + peculiar) + self.prior.doubt(items)
        latency_ms = self._latency_ms(items, known, towards)
        return Predicted(latency_ms, *bounds(latency_ms, half_widths))

    def added(self, blocks: Sequence[Item], coverage: float) -> Predicted:
        """Latencies of the blocks alone in ms, each (n,): in a network, they are taken to cost the same."""
        return self.predict_interval(blocks, coverage)

    @property
    def unknown_kinds(self) -> tuple[str, ...]:
        return self.prior.unknown_kinds

    def unknown(self, items: Sequence[Item]) -> Assumed:
        return self.prior.unknown(items)

    @property
    def assumes(self) -> bool:
        return self.prior.assumes

    def assuming(self) -> TransferModel:
        return replace(self, prior=replace(self.prior, assumes=True))

    def to_json(self) -> dict[str, Any]:
        return {
            "prior": self.prior.to_json(),
            "log_ms": self.measured.log_ms,
            "deviations": self.measured.deviations,
            "places": self.measured.coordinates[:, self.prior.space.used],
            "peculiar": self.measured.peculiar,
            "identity": self.measured.identity,
            "speed": self.speed,
            "weights": self.weights,
            "trust": self.noise_divisors,
            "scatter": dict(zip(_SCATTER_IN_FILES, self.scatter, strict=True)),
            "errors": self.errors.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TransferModel:
        """The object that to_json wrote. Raises ValueError, KeyError, TypeError or AttributeError on anything that is
        not such a model."""
        prior, weights = Prior.from_json(data["prior"]), read_array(data, "weights", -1)
        n = len(weights)
        measured = OnKnownDevices(
            read_logs(data, "log_ms", n),
            read_logs(data, "deviations", n, len(prior.devices)),
            _read_coordinates(data, n, prior.space),
            read_array(data, "peculiar", n, least=0.0, most=MOST_LOG**2),
            read_indices(data, "identity", 16**12, n),
        )
        scatter = Scatter(
            *(float(read_positive(data["scatter"], name, least=1e-6, most=1e3)) for name in _SCATTER_IN_FILES)
        )
        divisors, errors = read_positive(data, "trust", n, least=1e-12, most=10.0), Conformal.from_json(data["errors"])
        speed = float(read_logs(data, "speed"))
        model = cls(prior, measured, speed, weights, divisors, scatter, errors)
        fitted = covariance(prior, measured, measured, scatter) @ weights
        if not (np.isfinite(model._precision).all() and (np.abs(fitted) <= MOST_LOG).all()):
            raise ValueError("the weights are not those of these measurements")
        return model


def _read_coordinates(data: Mapping[str, Any], count: int, space: WorkSpace) -> FloatArray:
    """Coordinates of `count` items, (count, terms + 1), from a file that holds the columns of the prior's terms, or, as
    the first files do, those of all terms that there were then: terms are added behind the others. Raises ValueError
    for any other."""
    columns = [*map(TERMS.index, data["prior"]["terms"]), -1]
    places = read_logs(data, "places", count, -1)
    width = places.shape[1]
    if width != len(columns):
        if not max(columns) + 1 < width <= len(space.centre):
            raise ValueError(f"places has {width} columns, expected {len(columns)}")
        places = places[:, columns]
    coordinates = np.zeros((count, len(space.centre)))
    coordinates[:, columns] = places
    return coordinates


def adapt(prior: Prior, sample: Sample) -> tuple[TransferModel, HeldOutErrors]:
    """The prior adapted to a sample of n >= 1 measured items, and its held-out errors on them, (n,). Raises
    TooFewRecordsError without any, UnknownOpError for an op that no known device was measured with."""
    if not sample.items:
        raise TooFewRecordsError("nothing is measured on the new device; 3 items are a start, 10 are good")
    known, log_ms, weights = prior.on_known_devices(sample.items), np.log(sample.latency_ms), sample.weights
    speed, scatter, process = _fit(prior, known, log_ms, weights)
    is_one = len(set(known.identity)) > _MOST_FOR_OWN_SCATTER
    errors, expected = _held_out(prior, known, log_ms, weights, scatter if is_one else None)
    scores = one_for_each(np.where(weights >= TRUSTED, np.abs(errors) / expected, np.nan), known.identity)
    conformal = Conformal(np.sort(np.concatenate([scores, _EXPECTED_SCORES])))
    held_out = HeldOutErrors(errors, expected * conformal.quantile(USUAL_COVERAGE))
    model = TransferModel(prior, known, speed, process.weights, process.noise_divisors, scatter, conformal)
    return model, held_out


def _fit(
    prior: Prior, known: OnKnownDevices, log_ms: FloatArray, weights: FloatArray, scatter: Scatter | None = None
) -> tuple[float, Scatter, RobustProcess]:
    """Speed of the new device, its scatter around the known ones (if that is not given), and the process given n >= 1
    measurements, log_ms and weights of shape (n,)."""
    excess = log_ms - known.log_ms
    speed = float(np.median(excess))
    scatter = scatter or _likely_scatter(prior, known, excess - speed, weights)
    total = covariance(prior, known, known, scatter)
    return speed, scatter, robust_process(total, excess - speed, scatter.noise_log, weights)


def _held_out(
    prior: Prior, known: OnKnownDevices, log_ms: FloatArray, weights: FloatArray, scatter: Scatter | None
) -> tuple[FloatArray, FloatArray]:
    """Held-out log errors on each item and their expected size, both (n,), NaN where there are no other items. Without
    a `scatter`, each fold finds its own."""
    errors, expected = np.full((2, len(log_ms)), np.nan)
    for test in near_folds(known.identity.tolist(), seed=0):
        train = np.setdiff1d(np.arange(len(log_ms)), test)
        if not len(train):
            continue
        seen, unseen = known.take(train), known.take(test)
        speed, unlike, process = _fit(prior, seen, log_ms[train], weights[train], scatter)
        towards = covariance(prior, unseen, seen, unlike)
        errors[test] = log_ms[test] - unseen.log_ms - speed - towards @ process.weights
        expected[test] = np.sqrt(_variance_left(prior, unseen, unlike, towards, process.precision))
    return errors, expected


def _variance_left(
    prior: Prior, known: OnKnownDevices, scatter: Scatter, towards: FloatArray, precision: FloatArray
) -> FloatArray:
    """Variance of a measurement of n items, (n,), given those of which `precision` (m, m) is the inverse covariance;
    `towards`: covariance with them, (n, m)."""
    explained = ((towards @ precision) * towards).sum(axis=1)
    return np.asarray(np.maximum(variances(prior, known, scatter) - explained, 0) + scatter.noise_log**2)


def covariance(prior: Prior, a: OnKnownDevices, b: OnKnownDevices, scatter: Scatter = USUAL) -> FloatArray:
    """Prior covariance of the new device's log deviations at n items a and m items b, shape (n, m)."""
    among_known = scatter.among_ratio**2 * (a.deviations @ b.deviations.T) / len(prior.devices)
    peculiar = np.where(a.identity[:, None] == b.identity, np.sqrt(a.peculiar[:, None] * b.peculiar), 0.0)
    return np.asarray(
        among_known + prior.space.covariance(a.coordinates, b.coordinates, scatter) + peculiar + _SPEED**2
    )


def variances(prior: Prior, known: OnKnownDevices, scatter: Scatter = USUAL) -> FloatArray:
    """Prior variance of the new device's log deviations at n items, shape (n,): the covariance's diagonal."""
    among_known = scatter.among_ratio**2 * (known.deviations**2).mean(axis=1)
    return np.asarray(among_known + prior.space.variances(known.coordinates, scatter) + known.peculiar + _SPEED**2)


def _likely_scatter(prior: Prior, known: OnKnownDevices, values: FloatArray, weights: FloatArray) -> Scatter:
    """The most probable scatter given log deviations (n,): close to the usual one for a few, free for many."""
    from scipy.linalg import cho_factor, cho_solve  # only fits need them
    from scipy.optimize import minimize

    n = min(len(values), _MOST_FOR_SCATTER)
    part = np.linspace(0, len(values) - 1, n).astype(int)
    known = known.take(part)
    values, weights = values[part], weights[part]
    scatter = USUAL
    for _ in range(_SCATTER_ROUNDS):
        total = covariance(prior, known, known, scatter)
        divisors = robust_process(total, values, scatter.noise_log, weights).noise_divisors

        def improbability(logs: FloatArray, divisors: FloatArray = divisors) -> float:
            likely = Scatter(*(np.asarray(USUAL) * np.exp(logs)))
            total = covariance(prior, known, known, likely) + np.diag(likely.noise_log**2 / divisors)
            factor = cho_factor(total, lower=True)
            evidence = 0.5 * values @ cho_solve(factor, values) + np.log(np.diag(factor[0])).sum()
            return float(evidence + 0.5 * ((logs / _SCATTER_FREEDOM) ** 2).sum())

        found = minimize(
            improbability,
            np.log(np.asarray(scatter) / np.asarray(USUAL)),
            method="L-BFGS-B",
            bounds=[(-3.0, 3.0)] * len(USUAL),
            options={"maxiter": 20},
        )
        scatter = Scatter(*(float(value) for value in np.asarray(USUAL) * np.exp(found.x)))
    return scatter


def _is_work(item: Item) -> bool:
    """Whether an item does anything: an identity takes no time."""
    return isinstance(item, tuple) or bool(item.nodes)
