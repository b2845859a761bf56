"""The latency of single blocks: physics, and a residual on top."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.stats import norm

from netlathe.predictor.domain import USUAL_GROWTH, Domain, fit_domain
from netlathe.predictor.errors import PredictorError
from netlathe.predictor.features import LOG_FEATURES, FlagArray, FloatArray
from netlathe.predictor.features import Features as Features
from netlathe.predictor.features import features_of as features_of
from netlathe.predictor.folds import configuration_folds, near_folds
from netlathe.predictor.inputs import Inputs
from netlathe.predictor.intervals import Conformal, one_for_each, shares
from netlathe.predictor.kernels import fusion_of
from netlathe.predictor.physics import TRUSTED, Physics, fit_physics
from netlathe.predictor.residual import Residual, ResidualKind, fit_residuals, residual_from_json
from netlathe.predictor.samples import Sample, key_of

ResidualChoice = Literal["auto", "none", "gp", "xgboost", "forest"]
_CHOICES: tuple[ResidualKind, ...] = ("none", "gp", "xgboost", "forest")
_MOST_FOR_GP = 2000
"""More records than this, and `auto` leaves the Gaussian process, whose cost is cubic, out."""
_FEWEST_FOR_CHOICE = 15
"""Fewer than this, and `auto` takes the pure physics: there is too little to judge regressors by."""
_SIMPLICITY = 0.98
"""A residual must beat the pure physics by this factor in cross-validation to be chosen."""
_WILD_ERROR = 0.5
"""No error counts for more in that decision, so that a few wrong records do not make it."""
_EXPECTED_SCORES = 0.05 * norm.ppf(1 - np.array([5, 3, 1]) / 12)
"""Those of three records with 5 % of error, evenly over its distribution: the expectation that the physics has too."""
_CALIBRATED = 0.9
_GROWTHS = np.geomspace(0.5, 20, 50)
"""The least is half of the usual: a few records that happen to be right tell nothing of what lies beyond them."""
_SMALLER = 0.5
"""The part of the records, by the side of their input, from which the larger are predicted."""


@dataclass(frozen=True)
class BlockModel:
    """Fitted on the blocks of one setup. Raises UnknownOpError for ops that none of them has."""

    physics: Physics
    residual: Residual
    domain: Domain

    def predict(self, features: Features) -> FloatArray:
        """ms, shape (n,)."""
        base = self.physics.predict(features.terms)
        log_ratio = self.residual.predict(_inputs(features, self.physics, self.domain))
        if not self.residual.fades:
            log_ratio = log_ratio * self.domain.trust(features.logs)
        return np.asarray(base * np.exp(log_ratio))

    def half_widths(self, features: Features, errors: Conformal, coverage: float) -> FloatArray:
        """Of the intervals, in logarithms, shape (n,); `errors` are those of this model in cross-validation."""
        return self.domain.stretch(features.logs) * errors.quantile(coverage) + self.physics.doubt(features.terms)

    def to_json(self) -> dict[str, Any]:
        return {
            "physics": self.physics.to_json(),
            "residual": {"kind": self.residual.kind, **self.residual.to_json()},
            "features": list(LOG_FEATURES),
            "domain": self.domain.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> BlockModel:
        """Raises ValueError, KeyError or TypeError on anything that is not a block model of these features."""
        if data["features"] != list(LOG_FEATURES):
            raise ValueError(f"the features {data['features']} are not the ones of this version")
        residual = residual_from_json(data["residual"]["kind"], data["residual"])
        return cls(Physics.from_json(data["physics"]), residual, Domain.from_json(data["domain"], len(LOG_FEATURES)))


def _inputs(features: Features, physics: Physics, domain: Domain) -> Inputs:
    """What the residual sees: each op's part of the physics' time, and where the whole lies among the records."""
    counts, total = features.counts, np.maximum(features.terms @ physics.rates, np.finfo(float).tiny)
    per_run = features.ops.terms @ physics.rates
    parts = counts.data * per_run[counts.indices] / np.repeat(total, np.diff(counts.indptr))
    shares = csr_array((parts, counts.indices, counts.indptr), shape=counts.shape)
    return Inputs(domain.standardise(features.logs), shares, features.ops)


class Measured(NamedTuple):
    """n measured blocks; arrays of shape (n,)."""

    features: Features
    latency_ms: FloatArray
    configurations: NDArray[np.str_]
    """Equal for equal blocks."""
    weights: FloatArray
    """As of Sample."""

    @classmethod
    def of(cls, sample: Sample) -> Measured:
        """The sample's items taken as blocks. Raises UnknownOpError for an op without work terms."""
        keys = np.array([key_of(item) for item in sample.items], dtype=np.str_)
        return cls(features_of(sample.items, fusion_of(sample.setup)), sample.latency_ms, keys, sample.weights)

    def take(self, rows: NDArray[Any]) -> Measured:
        features, latency_ms, configurations, weights = self
        return Measured(features.take(rows), latency_ms[rows], configurations[rows], weights[rows])

    @property
    def trusted(self) -> FlagArray:
        """Whose latency says more of the block than of the disturbance, shape (n,)."""
        return np.asarray(self.weights >= TRUSTED)

    @property
    def different(self) -> int:
        """How many different blocks there are."""
        return len(np.unique(self.configurations))


def fit_block_model(measured: Measured, kind: ResidualKind, seed: int, growth: float = USUAL_GROWTH) -> BlockModel:
    """Fits on n >= 1 blocks. `growth` is that of the intervals with the distance."""
    physics, domain = _physics(measured), replace(fit_domain(measured.features.logs), growth=growth)
    return _on_top(physics, domain, measured, [kind], seed)[kind]


def _physics(measured: Measured) -> Physics:
    return fit_physics(measured.features.terms, measured.latency_ms, measured.weights)


def _on_top(
    physics: Physics, domain: Domain, measured: Measured, kinds: Sequence[ResidualKind], seed: int
) -> dict[ResidualKind, BlockModel]:
    """A model for each kind of residual, which is learnt from latencies that are to be trusted, if there are any: it
    would learn disturbances."""
    if measured.trusted.any():
        measured = measured.take(np.flatnonzero(measured.trusted))
    log_ratio = np.log(measured.latency_ms / physics.predict(measured.features.terms))
    residuals = fit_residuals(kinds, _inputs(measured.features, physics, domain), log_ratio, seed)
    return {kind: BlockModel(physics, residual, domain) for kind, residual in residuals.items()}


class HeldOut(NamedTuple):
    """What models said about records that they had not seen; each of shape (n,), NaN where they could say nothing.
    All records of a configuration together count as one."""

    errors: FloatArray
    """log(measured / predicted)."""
    doubt: FloatArray
    excess: FloatArray
    """Distance from the records that the model had seen."""
    configuration: NDArray[np.intp]
    """The number of each record's."""

    def take(self, indices: NDArray[Any]) -> HeldOut:
        return HeldOut(*(values[indices] for values in self))

    def of(self, rows: FlagArray) -> HeldOut:
        """With the errors of these rows alone."""
        return self._replace(errors=np.where(rows, self.errors, np.nan))

    def scores(self, growth: float) -> FloatArray:
        """What Conformal takes, one for each configuration, for a domain of that growth."""
        scores = np.maximum(np.abs(self.errors) - self.doubt, 0) / (1 + growth * self.excess)
        return one_for_each(scores, self.configuration)

    @property
    def typical(self) -> float:
        """Mean absolute error."""
        known = np.isfinite(self.errors)
        errors = np.minimum(np.abs(self.errors[known]), _WILD_ERROR)
        return float(np.average(errors, weights=shares(self.configuration[known]))) if known.any() else 0.0


def _nothing_known(n: int, configuration: NDArray[np.intp]) -> HeldOut:
    errors, doubt, excess = np.full((3, n), np.nan)
    return HeldOut(errors, doubt, excess, configuration)


_Folds = Sequence[NDArray[np.intp]]


def _held_out(
    measured: Measured, folds: _Folds, kinds: Sequence[ResidualKind], seed: int
) -> dict[ResidualKind, HeldOut]:
    """Per kind of residual, what models say about each fold that were fitted on the rest. NaN for a record in no fold,
    or with an op that no record in the rest has."""
    n = len(measured.latency_ms)
    numbers = np.unique(measured.configurations, return_inverse=True)[1]
    results = {kind: _nothing_known(n, numbers) for kind in kinds}
    for test in folds:
        train = np.setdiff1d(np.arange(n), test)
        if not len(train):
            continue
        seen = measured.take(train)
        physics, domain = _physics(seen), fit_domain(seen.features.logs)
        known = test[physics.knows(measured.features.terms[test])]
        unseen = measured.features.take(known)
        doubt, excess = physics.doubt(unseen.terms), domain.excess(unseen.logs)
        for kind, model in _on_top(physics, domain, seen, kinds, seed).items():
            results[kind].errors[known] = np.log(measured.latency_ms[known] / model.predict(unseen))
            results[kind].doubt[known], results[kind].excess[known] = doubt, excess
    return results


def cross_validated_errors(measured: Measured, kind: ResidualKind, seed: int) -> FloatArray:
    """log(measured / predicted) of each record, shape (n,), by models that have not seen its configuration. NaN for a
    record with an op that no other has."""
    return _held_out(measured, near_folds(measured.configurations.tolist(), seed), [kind], seed)[kind].errors


class Trial(NamedTuple):
    """How a kind of residual did on n records held out, near the others and in several ways far from them."""

    near: HeldOut
    far: tuple[HeldOut, ...]

    def take(self, indices: NDArray[Any]) -> Trial:
        """Of some of the records only."""
        return Trial(self.near.take(indices), tuple(part.take(indices) for part in self.far))

    @property
    def _far(self) -> HeldOut:
        """All ways as one: a configuration counts in each of them."""
        apart = [
            part._replace(configuration=part.configuration + way * len(part.errors))
            for way, part in enumerate(self.far)
        ]
        return HeldOut(*map(np.concatenate, zip(*apart, strict=True))) if apart else self.near

    @property
    def typical(self) -> float:
        """Geometric mean of the mean absolute errors near and far."""
        return math.sqrt(self.near.typical * self._far.typical)

    def calibrated(self) -> tuple[float, Conformal]:
        """How fast an interval has to grow with the distance from the records, and the scores that it then takes."""
        measured = [part for part in self.far if np.isfinite(part.errors).any()]
        growth = max((_growth(self.near, part) for part in measured), default=USUAL_GROWTH)
        return growth, _conformal(self.near, growth)


def try_residuals(measured: Measured, choice: ResidualChoice, seed: int) -> tuple[ResidualKind, Trial]:
    """The residual asked for, and how it did on the latencies that are to be trusted. `auto` takes the one with the
    least error in cross-validation, near the records and far from them, as what serves between them may do harm
    elsewhere. Raises PredictorError for an unknown choice."""
    kinds = _candidates(choice, measured.different)
    near = _held_out(measured, near_folds(measured.configurations.tolist(), seed), kinds, seed)
    ways = _far_folds(measured.features, seed) if measured.different >= _FEWEST_FOR_CHOICE else []
    far = [_held_out(measured, folds, kinds, seed) for folds in ways]
    trials = {
        kind: Trial(near[kind].of(measured.trusted), tuple(part[kind].of(measured.trusted) for part in far))
        for kind in kinds
    }
    return min(trials.items(), key=lambda one: one[1].typical * (_SIMPLICITY if one[0] == "none" else 1.0))


def choose_block_model(measured: Measured, choice: ResidualChoice, seed: int) -> tuple[BlockModel, Conformal]:
    """The model with the residual that try_residuals takes, and its errors on records held out, the far ones of which
    say how fast an interval has to grow."""
    kind, trial = try_residuals(measured, choice, seed)
    growth, errors = trial.calibrated()
    return fit_block_model(measured, kind, seed, growth), errors


def _conformal(near: HeldOut, growth: float) -> Conformal:
    """The scores, and what is expected of any device: ten records may agree with each other by chance."""
    scores = near.scores(growth)
    return Conformal(np.sort(np.concatenate([scores, _EXPECTED_SCORES])) if len(scores) else scores)


def _growth(near: HeldOut, far: HeldOut) -> float:
    """The least growth with which intervals made from the near records cover the far ones as well."""
    for growth in _GROWTHS:
        half_width = _conformal(near, growth).quantile(_CALIBRATED)
        if (far.scores(growth) <= half_width).mean() >= _CALIBRATED:
            return float(growth)
    return float(_GROWTHS[-1])


def _far_folds(features: Features, seed: int) -> list[_Folds]:
    """All records of the same channels and stride at a time; and the larger ones, from the smaller."""
    side = features.logs[:, LOG_FEATURES.index("side")]
    stages = configuration_folds(_stages(features), 5, seed)
    larger = np.flatnonzero(side > np.quantile(side, _SMALLER))
    return [stages] if not len(larger) else [stages, [larger]]


def _stages(features: Features) -> list[tuple[float, ...]]:
    """Channels in and out and stride of each record."""
    columns = [LOG_FEATURES.index(name) for name in ("cin", "cout", "stride")]
    return [tuple(row) for row in features.logs[:, columns].round(2).tolist()]


def _candidates(choice: ResidualChoice, configurations: int) -> list[ResidualKind]:
    if choice != "auto":
        if choice not in _CHOICES:
            raise PredictorError(f"residual must be auto, {', '.join(_CHOICES)}, got {choice!r}")
        return [choice]
    if configurations < _FEWEST_FOR_CHOICE:
        return ["none"]
    return [kind for kind in _CHOICES if kind != "gp" or configurations <= _MOST_FOR_GP]
