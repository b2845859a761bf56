"""The prior of a device that is yet to be measured: how fast known devices are, and in what they differ.

Each known device is a non-negative sum of work terms of its own, and what that left over on the items it was measured
on. So every graph has a latency on every known device: measured, where it was one of those items, else predicted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.spatial.distance import cdist
from scipy.stats import norm

from netlathe.predictor.blocks.gaussian_process import op_covariance, op_variances
from netlathe.predictor.blocks.physics import Physics, fit_physics, robust_deviation
from netlathe.predictor.blocks.unknown_ops import Assumed, UnknownOps
from netlathe.predictor.errors import PredictorError
from netlathe.predictor.features.inputs import OpShares, op_shares
from netlathe.predictor.features.item_features import Features, Item, features_of
from netlathe.predictor.features.op_work import TERMS
from netlathe.predictor.features.samples import key_of, sample_of
from netlathe.predictor.files import find_file, read_model, write_model
from netlathe.predictor.intervals import USUAL_COVERAGE, expected_scores
from netlathe.predictor.numbers import (
    MOST_LOG,
    FlagArray,
    FloatArray,
    read_array,
    read_logs,
    read_number,
    read_positive,
)
from netlathe.predictor.transfer.robust import NOISE, robust_process

FILE_KIND, FILE_VERSION = "prior", 1
"""Kind and version of a prior's file."""
_SIZE_WEIGHT = 0.2
"""Weight of the log of the whole work as a coordinate, beside the shares that kinds of work have in it."""
_OWN = 0.02
"""Standard deviation, in log latency, of what is peculiar to one graph on one device."""
_USUAL_SURPRISE, _EXPECTED_ITEMS = 2.0, 10
"""Usual ratio of known devices' errors to the expected ones on an item that they were not measured on, and how many
items that expectation is worth."""
_OP_DEVIATIONS, _MOST_TO_TRY_BY = (0.0, 0.05, 0.1, 0.2, 0.4), 300
"""Candidates for op_deviation, with none for items that differ in other ways, and how many items at most decide."""
_FEWEST_TO_CLEAN = 5
"""Fewest devices among which a measurement that no other device explains is taken for a disturbed one."""
_MOST_TO_CLEAN_BY = 200
"""Most items by which disturbed ones are found: the cost is cubic in their number."""
_DISTURBED = 0.12
"""Log error below which a measurement is never taken for a disturbed one."""


class Scatter(NamedTuple):
    """Hyper-parameters of how unlike two devices are: standard deviations in log latency, and a length scale."""

    among_ratio: float = 1.0
    """Deviations of the new device over those of the known devices among themselves."""
    slope_log: float = 0.3
    """Standard deviation of the linear change, per unit of a share of the work."""
    bend_log: float = 0.05
    """Standard deviation of the smooth change beside it."""
    reach_units: float = 1.0
    """Length scale of the smooth change, in usual distances of two items (WorkSpace.unit)."""
    noise_log: float = NOISE
    """Standard deviation between two measurements in different sessions."""


USUAL = Scatter()
"""Scatter of phones as it was seen."""


class OnKnownDevices(NamedTuple):
    """Latencies and coordinates of n items on all D known devices."""

    log_ms: FloatArray
    """Typical log latency over the devices, each relative to its own speed. Shape (n,)."""
    deviations: FloatArray
    """Deviation of each device from that, in log latency, shape (n, D)."""
    coordinates: FloatArray
    """Coordinates of the items in the WorkSpace, shape (n, p)."""
    peculiar: FloatArray
    """Variance of the log latency peculiar to each item, shape (n,); 0 where known devices were measured on it."""
    identity: NDArray[np.int64]
    """Number of each item, equal for equal items, shape (n,)."""

    def take(self, rows: NDArray[np.intp]) -> OnKnownDevices:
        """The items of these rows, indices of shape (m,)."""
        log_ms, deviations, coordinates, peculiar, identity = self
        return OnKnownDevices(log_ms[rows], deviations[rows], coordinates[rows], peculiar[rows], identity[rows])


@dataclass(frozen=True, eq=False)
class WorkSpace:
    """Coordinates of work: the share of each kind of work in a typical device's time, and the log of the whole work."""

    typical: Physics
    """Rates, up to a factor, of a device in the middle of the known ones."""
    centre: FloatArray
    """Origin of the coordinates, shape (terms + 1,)."""
    unit: float
    """Median distance between two known items."""

    def coordinates(self, terms: FloatArray) -> FloatArray:
        """Coordinates, shape (n, terms + 1), of items with work terms (n, terms)."""
        work = terms * self.typical.rates
        total = np.maximum(work.sum(axis=1, keepdims=True), np.finfo(float).tiny)
        return np.asarray(np.hstack([work / total, _SIZE_WEIGHT * np.log(total)]) - self.centre)

    def covariance(self, a: FloatArray, b: FloatArray, scatter: Scatter = USUAL) -> FloatArray:
        """Covariance of the log ratio of two devices at coordinates (n, p) and (m, p), shape (n, m)."""
        bend = np.exp(-0.5 * cdist(a, b, "sqeuclidean") / (scatter.reach_units * self.unit) ** 2)
        return np.asarray(scatter.slope_log**2 * (a @ b.T) + scatter.bend_log**2 * bend)

    def variances(self, coordinates: FloatArray, scatter: Scatter = USUAL) -> FloatArray:
        """Variance of that log ratio at coordinates (n, p), shape (n,): the covariance's diagonal."""
        return np.asarray(scatter.slope_log**2 * (coordinates**2).sum(axis=1) + scatter.bend_log**2)


@dataclass(frozen=True, eq=False)
class Prior:
    """Latencies of J items on D known devices. Made by learn, read by load."""

    devices: tuple[str, ...]
    rates: FloatArray
    """Rates in ms per unit of each work term, shape (D, terms)."""
    space: WorkSpace
    keys: tuple[str, ...]
    """key_of each of the known items, (J,)."""
    terms: FloatArray
    """Work of the known items, shape (J, terms)."""
    residuals: FloatArray
    """log(measured / sum of work), shape (J, D); smoothed from a device's other residuals where it was not measured."""
    ops: OpShares
    """Ops of the known items."""
    op_deviation: float
    """Standard deviation, in log latency, of what single ops add to the residuals."""
    assumes: bool = False
    """Whether ops that no record has are priced, as of LatencyModel."""

    @classmethod
    def learn(cls, devices: Mapping[str, tuple[Any, Any]]) -> Prior:
        """A prior learned from each device's measurements: (X, y) as LatencyPredictor.fit takes them, y in ms, or
        (records, None). Raises PredictorError without any, and as fit does."""
        samples = {name: sample_of(given, latency_ms, None) for name, (given, latency_ms) in devices.items()}
        if not samples or any(not sample.items for sample in samples.values()):
            raise PredictorError("a prior is learned from at least one device, and a measured item on each")
        items = {key_of(item): item for sample in samples.values() for item in sample.items}
        rows = {key: row for row, key in enumerate(items)}
        features = features_of(list(items.values()))
        terms = features.terms
        log_ms, weights, errors = (np.full((len(items), len(devices)), np.nan) for _ in range(3))
        for column, sample in enumerate(samples.values()):
            repeated: dict[int, list[int]] = {}
            for index, item in enumerate(sample.items):
                repeated.setdefault(rows[key_of(item)], []).append(index)
            for row, same in repeated.items():
                log_ms[row, column] = np.log(np.median(sample.latency_ms[same]))
                weights[row, column] = np.median(sample.weights[same])
                errors[row, column] = np.median(sample.errors[same])
        rates, seen = _rates(terms, log_ms, weights)
        space = _space(terms, rates, seen)
        physics = np.log(terms @ rates.T)
        residuals = _steadied(log_ms - physics, errors, space.coordinates(terms), space)
        residuals = _filled(residuals, space.coordinates(terms), space)
        if len(devices) >= _FEWEST_TO_CLEAN:
            residuals = _cleaned(physics + residuals, space.coordinates(terms), space) - physics
        ops = op_shares(features, space.typical.rates)
        op_deviation = _op_deviation(residuals, space.coordinates(terms), ops, space)
        if not op_deviation:
            ops = OpShares.unknown(len(items))
        return cls(tuple(devices), rates, space, tuple(items), terms, residuals, ops, op_deviation)

    def on_known_devices(self, items: Sequence[Item]) -> OnKnownDevices:
        """Latencies of n items on the known devices. Raises UnknownOpError for an op that none of them was measured
        with."""
        features = features_of(items)
        assumed = self._assumed(features)
        assumed.check(ask=self.assumes)
        terms = np.where(self.space.typical.rates > 0, features.terms, 0.0)
        coordinates = self.space.coordinates(terms)
        log_ms = np.log(np.maximum(terms @ self.rates.T, np.finfo(float).tiny))
        log_ms -= np.log1p(-assumed.share)[:, None]  # there is more than that: a call, at the least
        keys = [key_of(item) for item in items]
        rows = np.array([self._row.get(key, -1) for key in keys], dtype=int)
        measured, peculiar = rows >= 0, np.zeros(len(items))
        log_ms[measured] += self.residuals[rows[measured]]
        if not measured.all():
            near = self.space.covariance(coordinates[~measured], self._coordinates)
            variances = self.space.variances(coordinates[~measured])
            if self.op_deviation:
                new = op_shares(features.take(~measured), self.space.typical.rates)
                near += self.op_deviation**2 * op_covariance(new, self.ops)
                variances += self.op_deviation**2 * op_variances(new)
            log_ms[~measured] += near @ self._weights
            unexplained = variances - ((near @ self._precision) * near).sum(axis=1)
            peculiar[~measured] = self._surprise**2 * (np.maximum(unexplained, 0) + _OWN**2)
        relative = log_ms - self._speeds
        middle = np.median(relative, axis=1)
        identity = np.array([int(key[:12], 16) for key in keys], dtype=np.int64)
        return OnKnownDevices(middle, relative - middle[:, None], coordinates, peculiar, identity)

    @property
    def unknown_kinds(self) -> tuple[str, ...]:
        """Kinds of op that no known device was measured with."""
        return self._unknown_ops.kinds

    def unknown(self, items: Sequence[Item]) -> Assumed:
        """Costs assumed of the ops that no known device was measured with."""
        return self._assumed(features_of(items))

    def doubt(self, items: Sequence[Item]) -> FloatArray:
        """Log error to allow for work that no known device was measured with, shape (n,)."""
        features = features_of(items)
        return np.asarray(self.space.typical.doubt(features.terms) + self._assumed(features).doubt)

    def _assumed(self, features: Features) -> Assumed:
        return self._unknown_ops.of(features, np.arange(len(features.terms)), len(features.terms))

    @cached_property
    def _unknown_ops(self) -> UnknownOps:
        return UnknownOps(self.space.typical)

    @cached_property
    def _row(self) -> dict[str, int]:
        return {key: row for row, key in enumerate(self.keys)}

    @cached_property
    def _coordinates(self) -> FloatArray:
        return self.space.coordinates(self.terms)

    @cached_property
    def _precision(self) -> FloatArray:
        """Inverse of the covariance of the known items' residuals, shape (J, J)."""
        by_op = self.op_deviation**2 * op_covariance(self.ops, self.ops)
        return _precision(self.space.covariance(self._coordinates, self._coordinates) + by_op)

    @cached_property
    def _weights(self) -> FloatArray:
        """Weights with which other items' covariances carry the residuals over to them, shape (J, D)."""
        return np.asarray(self._precision @ self.residuals)

    @cached_property
    def _surprise(self) -> float:
        """Ratio of errors on items that no device was measured on to what the smoothing expects: by the held-out errors
        on each known item, at the quantile that intervals are usually made for."""
        expected = np.sqrt(np.diag(self._precision))  # one over it; the errors are weights over its square
        scores = np.sort(np.abs(self._weights / expected[:, None]).ravel())
        usual = expected_scores(_EXPECTED_ITEMS) * _USUAL_SURPRISE
        together = np.concatenate([scores, np.repeat(usual, len(self.devices))])
        return float(np.quantile(together, USUAL_COVERAGE) / norm.ppf((1 + USUAL_COVERAGE) / 2))

    @cached_property
    def _speeds(self) -> FloatArray:
        """Median log latency in ms of each device over the known items, shape (D,)."""
        return np.asarray(np.median(np.log(self.terms @ self.rates.T) + self.residuals, axis=0))

    def save(self, path: str | Path, card: Mapping[str, Any] | None = None) -> None:
        """Writes one JSON file with a checksum."""
        write_model(path, FILE_KIND, FILE_VERSION, self.to_json(), card)

    @classmethod
    def load(cls, path: str | Path) -> Prior:
        """The prior that save wrote, or a shipped one by name, such as "phones49". Raises FormatError for a file that
        is missing, damaged, changed, of another kind or version."""
        return read_model(find_file(path, "priors"), FILE_KIND, FILE_VERSION, lambda file: cls.from_json(file.content))

    def to_json(self) -> dict[str, Any]:
        used = np.flatnonzero(self.space.typical.rates > 0)
        return {
            "devices": list(self.devices),
            "terms": [TERMS[column] for column in used],
            "typical": self.space.typical.to_json(),
            "centre": self.space.centre[[*used, -1]],
            "unit": self.space.unit,
            "rates": self.rates[:, used],
            "keys": list(self.keys),
            "work": self.terms[:, used],
            "residuals": self.residuals,
            "ops": self.ops.to_json() if self.op_deviation else None,
            "op_deviation": self.op_deviation,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Prior:
        """The object that to_json wrote. Raises ValueError, KeyError, TypeError or AttributeError on anything that is
        not a prior."""
        devices, keys = (tuple(str(name) for name in data[name_of]) for name_of in ("devices", "keys"))
        columns = [TERMS.index(term) for term in data["terms"]]
        if not devices or not keys or len(set(columns)) < len(columns) or len(set(keys)) < len(keys):
            raise ValueError("a prior needs devices and items, each once")
        rates, terms = np.zeros((len(devices), len(TERMS))), np.zeros((len(keys), len(TERMS)))
        rates[:, columns] = read_positive(data, "rates", len(devices), len(columns))
        terms[:, columns] = read_array(data, "work", len(keys), len(columns), least=0.0)
        if not (terms > 0).any(axis=1).all():
            raise ValueError("work must be above zero")
        typical = Physics.from_json(data["typical"])
        if not np.array_equal(np.flatnonzero(typical.rates > 0), np.sort(columns)):
            raise ValueError("the typical rates are not those of the devices")
        centre = np.zeros(len(TERMS) + 1)
        centre[[*columns, -1]] = read_logs(data, "centre", len(columns) + 1)
        space = WorkSpace(typical, centre, float(read_positive(data, "unit", least=1e-4, most=MOST_LOG)))
        residuals = read_logs(data, "residuals", len(keys), len(devices))
        if data.get("ops") is None:  # of no use, or written before ops counted
            return cls(devices, rates, space, keys, terms, residuals, OpShares.unknown(len(keys)), 0.0)
        ops = OpShares.from_json(data["ops"], len(keys))
        op_deviation = read_number(data, "op_deviation", least=0.0, most=MOST_LOG)
        return cls(devices, rates, space, keys, terms, residuals, ops, op_deviation)


def find_prior(prior: Prior | str | Path) -> Prior:
    """The prior itself, or the one of that name or file."""
    return prior if isinstance(prior, Prior) else Prior.load(prior)


def _rates(terms: FloatArray, log_ms: FloatArray, weights: FloatArray) -> tuple[FloatArray, FlagArray]:
    """Rates (D, terms) of each device, and which terms (terms,) any of them was measured with, from log latencies and
    weights (J, D). Work that a device was not measured with costs in proportion to its cost on the others."""
    fitted = []
    for column, of_device in zip(log_ms.T, weights.T, strict=True):
        measured = np.isfinite(column)
        fitted.append(fit_physics(terms[measured], np.exp(column[measured]), of_device[measured]))
    rates, seen = np.array([physics.rates for physics in fitted]), np.array([physics.seen for physics in fitted])
    speeds = np.nanmedian(log_ms - np.log(terms @ _typical(rates, seen)[:, None]), axis=0)
    typical = _typical(rates / np.exp(speeds)[:, None], seen)
    rates = np.asarray(np.where(rates > 0, rates, typical * np.exp(speeds)[:, None]), dtype=float)
    measured_with: FlagArray = np.any(seen, axis=0)
    return rates, measured_with


def _typical(rates: FloatArray, seen: FlagArray) -> FloatArray:
    """Median rate of each term, (terms,), over the devices that have one, preferring those measured with such work."""
    result = np.zeros(rates.shape[1])
    for column in np.flatnonzero((rates > 0).any(axis=0)):
        chosen = seen[:, column] if seen[:, column].any() else rates[:, column] > 0
        result[column] = np.median(rates[chosen, column])
    return result


def _space(terms: FloatArray, rates: FloatArray, seen: FlagArray) -> WorkSpace:
    """Space of the known items' work terms (J, terms), at rates (D, terms)."""
    relative = rates / np.exp(np.median(np.log(terms @ rates.T), axis=0))[:, None]
    typical = Physics(np.median(relative, axis=0), seen)
    coordinates = WorkSpace(typical, np.zeros(len(TERMS) + 1), 1.0).coordinates(terms)
    unit = float(np.median(cdist(coordinates, coordinates))) if len(coordinates) > 1 else 1.0
    return WorkSpace(typical, coordinates.mean(axis=0), max(unit, 1e-3))


def _precision(covariance: FloatArray) -> FloatArray:
    """Inverse of the covariance (n, n) of residuals, each of which has something of its own."""
    identity = np.eye(len(covariance))
    return np.asarray(cho_solve(cho_factor(covariance + _OWN**2 * identity, lower=True), identity))


def _op_deviation(residuals: FloatArray, coordinates: FloatArray, ops: OpShares, space: WorkSpace) -> float:
    """The candidate with which items predict each other's residuals (J, D) best, each left out once."""
    part = np.linspace(0, len(coordinates) - 1, min(len(coordinates), _MOST_TO_TRY_BY)).astype(int)
    relation, by_op = (
        space.covariance(coordinates[part], coordinates[part]),
        op_covariance(ops.take(part), ops.take(part)),
    )

    def error(op_deviation: float) -> float:
        precision = _precision(relation + op_deviation**2 * by_op)
        return float(np.abs(precision @ residuals[part] / np.diag(precision)[:, None]).mean())

    return min(_OP_DEVIATIONS, key=error)


def _steadied(residuals: FloatArray, errors: FloatArray, coordinates: FloatArray, space: WorkSpace) -> FloatArray:
    """Residuals (J, D), NaN where nothing was measured, each drawn towards what all others say of it, the more the less
    certain its own rounds leave it: `errors` are standard errors, 0 where nothing is known of them."""
    result = residuals.copy()
    for device in np.flatnonzero((errors > 0).any(axis=0)):
        rows = np.flatnonzero(np.isfinite(residuals[:, device]))
        own, doubt = residuals[rows, device], errors[rows, device] ** 2
        relation = space.covariance(coordinates[rows], coordinates[rows]) + np.diag(_OWN**2 + doubt)
        candidates = [_leave_one_out_errors(own, relation)]
        middle, common = _middle(np.delete(residuals, device, axis=1)[rows], np.delete(errors, device, axis=1)[rows])
        if common.all():  # with what the other devices have in common on the same items
            candidates.append(_leave_one_out_errors(own - middle, relation))
        sure = doubt <= np.median(doubt)
        off = min(candidates, key=lambda errors: float(np.median(np.abs(errors[sure]))))
        usual = max(robust_deviation(off[sure]), _OWN)
        result[rows, device] -= off * doubt / (doubt + usual**2)
    return result


def _middle(residuals: FloatArray, errors: FloatArray) -> tuple[FloatArray, FlagArray]:
    """Mean residual of some devices, weighted by how certain each is, (n,), and whether there is one, (n,)."""
    measured = np.isfinite(residuals)
    shares = np.where(measured, 1 / (np.nan_to_num(errors) ** 2 + _OWN**2), 0.0)
    total = shares.sum(axis=1)
    mean = (shares * np.nan_to_num(residuals)).sum(axis=1) / np.maximum(total, np.finfo(float).tiny)
    return np.asarray(mean), np.asarray(total > 0)


def _leave_one_out_errors(values: FloatArray, covariance: FloatArray) -> FloatArray:
    """Errors on each of the values (n,) when all others predict it: Rasmussen and Williams, equation 5.12."""
    precision = cho_solve(cho_factor(covariance, lower=True), np.eye(len(values)))
    return np.asarray(precision @ values / np.diag(precision))


def _filled(residuals: FloatArray, coordinates: FloatArray, space: WorkSpace) -> FloatArray:
    """Residuals (J, D) with every NaN replaced by what the device's other residuals say."""
    result = residuals.copy()
    for column in result.T:
        missing = np.isnan(column)
        if missing.any():
            seen = coordinates[~missing]
            weights = _precision(space.covariance(seen, seen)) @ column[~missing]
            column[missing] = space.covariance(coordinates[missing], seen) @ weights
    return result


def _cleaned(log_ms: FloatArray, coordinates: FloatArray, space: WorkSpace) -> FloatArray:
    """Log latencies (J, D) with the disturbed ones replaced by what the device's others say: a phone whose work is
    moved to its little cores, or that is hot, takes several times as long for a while."""
    result = log_ms.copy()
    relation = space.covariance(coordinates, coordinates)
    part = np.linspace(0, len(coordinates) - 1, min(len(coordinates), _MOST_TO_CLEAN_BY)).astype(int)
    for _ in range(3):
        relative = result - np.median(result, axis=0)
        middle = np.median(relative, axis=1, keepdims=True)
        deviations = relative - middle
        spread = 1.4826 * np.median(np.abs(deviations), axis=0)
        usual = np.clip(deviations, -3 * spread, 3 * spread)
        for device in range(log_ms.shape[1]):
            others = np.delete(usual, device, axis=1)
            covariance = others @ others.T / others.shape[1] + relation
            process = robust_process(covariance[np.ix_(part, part)], deviations[part, device])
            errors = deviations[:, device] - covariance[:, part] @ process.weights
            limit = max(4 * 1.4826 * float(np.median(np.abs(errors))), _DISTURBED)
            disturbed = np.abs(errors) > limit
            result[disturbed, device] -= errors[disturbed]
    return result
