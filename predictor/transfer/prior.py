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

from netlathe.predictor.blocks.gaussian_process import op_covariance, op_variances
from netlathe.predictor.blocks.physics import Physics
from netlathe.predictor.blocks.unknown_ops import Assumed, UnknownOps
from netlathe.predictor.errors import PredictorError
from netlathe.predictor.features.inputs import OpShares, op_shares
from netlathe.predictor.features.item_features import Features, Item, features_of
from netlathe.predictor.features.op_work import TERMS
from netlathe.predictor.features.samples import key_of, sample_of
from netlathe.predictor.files import find_file, read_model, write_model
from netlathe.predictor.intervals import USUAL_COVERAGE, expected_scores, normal_quantile
from netlathe.predictor.numbers import (
    MOST_LOG,
    FloatArray,
    read_array,
    read_logs,
    read_number,
    read_positive,
)
from netlathe.predictor.transfer.prior_learning import (
    FEWEST_TO_CLEAN,
    choose_op_deviation,
    cleaned,
    device_rates,
    filled,
    steadied,
)
from netlathe.predictor.transfer.work_space import OWN_LOG, WorkSpace, own_precision, work_space

FILE_KIND, FILE_VERSION = "prior", 1
"""Kind and version of a prior's file."""
_USUAL_SURPRISE, _EXPECTED_ITEMS = 2.0, 10
"""Usual ratio of known devices' errors to the expected ones on an item that they were not measured on, and how many
items that expectation is worth."""


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
        rates, seen = device_rates(terms, log_ms, weights)
        space = work_space(terms, rates, seen)
        physics = np.log(terms @ rates.T)
        residuals = steadied(log_ms - physics, errors, space.coordinates(terms), space)
        residuals = filled(residuals, space.coordinates(terms), space)
        if len(devices) >= FEWEST_TO_CLEAN:
            residuals = cleaned(physics + residuals, space.coordinates(terms), space) - physics
        ops = op_shares(features, space.typical.rates)
        op_deviation = choose_op_deviation(residuals, space.coordinates(terms), ops, space)
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
            peculiar[~measured] = self._surprise**2 * (np.maximum(unexplained, 0) + OWN_LOG**2)
        relative = log_ms - self._speeds
        middle = np.median(relative, axis=1)
        identity = np.array([int(key[:12], 16) for key in keys], dtype=np.int64)
        return OnKnownDevices(middle, relative - middle[:, None], coordinates, peculiar, identity)

    @property
    def complete_rates(self) -> FloatArray:
        """Rates of a typical known device, one for every op, (terms,); only their ratios matter."""
        return self._unknown_ops.complete.rates

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
        return own_precision(self.space.covariance(self._coordinates, self._coordinates) + by_op)

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
        return float(np.quantile(together, USUAL_COVERAGE) / normal_quantile((1 + USUAL_COVERAGE) / 2))

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
