"""The latency of single blocks: physics, and a residual on top."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from netlathe.archspace.kernels import fusion_of
from netlathe.predictor.blocks.domain import USUAL_GROWTH, Domain, fit_domain
from netlathe.predictor.blocks.physics import TRUSTED, Physics, fit_physics
from netlathe.predictor.blocks.residual import Mixture, Residual, ResidualChoice, ResidualKind, Weights, fit_residuals
from netlathe.predictor.errors import PredictorError
from netlathe.predictor.features.inputs import Inputs, op_shares
from netlathe.predictor.features.item_features import LOG_FEATURES
from netlathe.predictor.features.item_features import Features as Features
from netlathe.predictor.features.item_features import features_of as features_of
from netlathe.predictor.features.samples import Sample, key_of
from netlathe.predictor.folds import configuration_folds, near_folds
from netlathe.predictor.intervals import USUAL_COVERAGE, Conformal, LeftOut, one_for_each, shares
from netlathe.predictor.numbers import FlagArray, FloatArray

_CHOICES: tuple[ResidualKind, ...] = ("none", "gp", "xgboost", "forest")
_MOST_FOR_GP = 2000
"""More records than this, and `auto` leaves the Gaussian process, whose cost is cubic, out."""
_FEWEST_FOR_CHOICE = 15
"""Fewer than this, and `auto` takes the pure physics: there is too little to judge regressors by."""
_SIMPLICITY = 0.98
"""Residuals must beat the pure physics by this factor in cross-validation to be taken."""
_STEPS = 10
"""Weights of residuals are tried in tenths: finer ones would fit the noise of the errors that they are judged by."""
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
    residual: Mixture
    domain: Domain

    def predict(self, features: Features) -> FloatArray:
        """ms, shape (n,)."""
        base = self.physics.predict(features.terms)
        inputs = _inputs(features, self.physics, self.domain)
        log_ratio = self.residual.predict(inputs, lambda: self.domain.trust(features.logs))
        return np.asarray(base * np.exp(log_ratio))

    def half_widths(self, features: Features, errors: Conformal, coverage: float) -> FloatArray:
        """Of the intervals, in logarithms, shape (n,); `errors` are those of this model in cross-validation."""
        return self.domain.stretch(features.logs) * errors.quantile(coverage) + self.physics.doubt(features.terms)

    def to_json(self) -> dict[str, Any]:
        return {
            "physics": self.physics.to_json(),
            "residual": self.residual.to_json(),
            "features": list(LOG_FEATURES),
            "domain": self.domain.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> BlockModel:
        """Raises ValueError, KeyError or TypeError on anything that is not a block model of these features."""
        if data["features"] != list(LOG_FEATURES):
            raise ValueError(f"the features {data['features']} are not the ones of this version")
        residual = Mixture.from_json(data["residual"])
        return cls(Physics.from_json(data["physics"]), residual, Domain.from_json(data["domain"], len(LOG_FEATURES)))


def _inputs(features: Features, physics: Physics, domain: Domain) -> Inputs:
    """What the residual sees: each op's part of the physics' time, and where the whole lies among the records."""
    shares = op_shares(features, physics.rates).shares
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


def fit_block_model(measured: Measured, weights: Weights, seed: int, growth: float = USUAL_GROWTH) -> BlockModel:
    """Fits on n >= 1 blocks. `weights` are those of the residuals, `growth` that of the intervals with the distance."""
    physics, domain = _physics(measured), replace(fit_domain(measured.features.logs), growth=growth)
    return BlockModel(physics, Mixture(weights, _on_top(physics, domain, measured, tuple(weights), seed)), domain)


def _physics(measured: Measured) -> Physics:
    return fit_physics(measured.features.terms, measured.latency_ms, measured.weights)


def _on_top(
    physics: Physics, domain: Domain, measured: Measured, kinds: Sequence[ResidualKind], seed: int
) -> dict[ResidualKind, Residual]:
    """A residual of each kind, learnt from latencies that are to be trusted, if there are any: it would learn
    disturbances."""
    if measured.trusted.any():
        measured = measured.take(np.flatnonzero(measured.trusted))
    log_ratio = np.log(measured.latency_ms / physics.predict(measured.features.terms))
    return fit_residuals(kinds, _inputs(measured.features, physics, domain), log_ratio, seed)


class HeldOut(NamedTuple):
    """What m models said about n records that they had not seen; arrays of shape (n,), NaN where they could say
    nothing. All records of a configuration together count as one."""

    errors: FloatArray
    """log(measured / predicted), shape (n, m); (n,) of a single model."""
    doubt: FloatArray
    excess: FloatArray
    """Distance from the records that the models had seen."""
    configuration: NDArray[np.intp]
    """The number of each record's."""

    def take(self, indices: NDArray[Any]) -> HeldOut:
        return HeldOut(*(values[indices] for values in self))

    def of(self, rows: FlagArray) -> HeldOut:
        """With the errors of these rows alone."""
        return self._replace(errors=np.where(rows[:, None], self.errors, np.nan))

    def mixed(self, weights: FloatArray) -> HeldOut:
        """Of the models' mixtures: in logarithms their errors mix as they do. One of weights (m,), k of (m, k)."""
        return self._replace(errors=self.errors @ weights)

    @property
    def known(self) -> FlagArray:
        """Where the models could say something, (n,): all of them or none can."""
        return np.asarray(np.isfinite(self.errors if self.errors.ndim == 1 else self.errors[:, 0]))

    def scores(self, growth: float) -> FloatArray:
        """What Conformal takes of a single model, one for each configuration, for a domain of that growth."""
        scores = np.maximum(np.abs(self.errors) - self.doubt, 0) / (1 + growth * self.excess)
        return one_for_each(scores, self.configuration)

    @property
    def typical(self) -> FloatArray:
        """Mean absolute error of each model, (m,)."""
        known = self.known
        errors = np.minimum(np.abs(self.errors[known]), _WILD_ERROR)
        return np.asarray(np.average(errors, axis=0, weights=shares(self.configuration[known])))


_Folds = Sequence[NDArray[np.intp]]


def _held_out(measured: Measured, folds: _Folds, kinds: Sequence[ResidualKind], seed: int) -> HeldOut:
    """What models with each kind of residual say about each fold that were fitted on the rest. NaN for a record in no
    fold, or with an op that no record in the rest has."""
    n = len(measured.latency_ms)
    errors, (doubt, excess) = np.full((n, len(kinds)), np.nan), np.full((2, n), np.nan)
    for test in folds:
        train = np.setdiff1d(np.arange(n), test)
        if not len(train):
            continue
        seen = measured.take(train)
        physics, domain = _physics(seen), fit_domain(seen.features.logs)
        known = test[physics.knows(measured.features.terms[test])]
        unseen = measured.features.take(known)
        doubt[known], excess[known] = physics.doubt(unseen.terms), domain.excess(unseen.logs)
        for column, residual in enumerate(_on_top(physics, domain, seen, kinds, seed).values()):
            model = BlockModel(physics, Mixture.alone(residual), domain)
            errors[known, column] = np.log(measured.latency_ms[known] / model.predict(unseen))
    return HeldOut(errors, doubt, excess, np.unique(measured.configurations, return_inverse=True)[1])


def left_out(model: BlockModel, errors: Conformal, measured: Measured, seed: int) -> LeftOut:
    """What models fitted as this one say of each record, that have not seen its configuration. NaN for a record with an
    op that no other has."""
    weights, folds = model.residual.weights, near_folds(measured.configurations.tolist(), seed)
    found = _held_out(measured, folds, tuple(weights), seed).mixed(np.array([*weights.values()]))
    stretch = 1 + model.domain.growth * found.excess
    return LeftOut(found.errors, stretch * errors.quantile(USUAL_COVERAGE) + found.doubt)


class Trial(NamedTuple):
    """How models did on n records held out, near the others and in several ways far from them."""

    near: HeldOut
    far: tuple[HeldOut, ...]

    def take(self, indices: NDArray[Any]) -> Trial:
        """Of some of the records only."""
        return Trial(self.near.take(indices), tuple(part.take(indices) for part in self.far))

    def mixed(self, weights: FloatArray) -> Trial:
        """As of HeldOut."""
        return Trial(self.near.mixed(weights), tuple(part.mixed(weights) for part in self.far))

    @property
    def _far(self) -> HeldOut:
        """All ways that tell anything as one: a configuration counts in each of them."""
        apart = [
            part._replace(configuration=part.configuration + way * len(part.errors))
            for way, part in enumerate(self.far)
            if part.known.any()
        ]
        return HeldOut(*map(np.concatenate, zip(*apart, strict=True))) if apart else self.near

    @property
    def typical(self) -> FloatArray:
        """Geometric mean of the mean absolute errors near and far, of each model."""
        return np.asarray(np.sqrt(self.near.typical * self._far.typical))

    def calibrated(self) -> tuple[float, Conformal]:
        """How fast an interval has to grow with the distance from the records, and the scores that it then takes."""
        measured = [part for part in self.far if part.known.any()]
        growth = max((_growth(self.near, part) for part in measured), default=USUAL_GROWTH)
        return growth, _conformal(self.near, growth)


def try_residuals(measured: Measured, choice: ResidualChoice | Weights, seed: int) -> tuple[Weights, Trial]:
    """The residuals asked for, or those that `auto` takes, with their weights, and how their mixture did on the
    latencies that are to be trusted. Raises PredictorError for an unknown choice."""
    kinds = _candidates(choice, measured.different)
    near = _held_out(measured, near_folds(measured.configurations.tolist(), seed), kinds, seed)
    ways = _far_folds(measured.features, seed) if measured.different >= _FEWEST_FOR_CHOICE else []
    far = [_held_out(measured, folds, kinds, seed) for folds in ways]
    trial = Trial(near.of(measured.trusted), tuple(part.of(measured.trusted) for part in far))
    weights = _stacked(trial, kinds) if isinstance(choice, str) else choice
    return weights, trial.mixed(np.array([weights.get(kind, 0.0) for kind in kinds]))


def _stacked(trial: Trial, kinds: Sequence[ResidualKind]) -> Weights:
    """The mixture with the least error in cross-validation (stacking: Wolpert, Stacked Generalization, 1992), near the
    records and far from them, as what serves between them may do harm elsewhere."""
    if len(kinds) == 1 or not trial.near.known.any():
        return {kinds[0]: 1.0}
    grid = np.array([w for w in itertools.product(range(_STEPS, -1, -1), repeat=len(kinds)) if sum(w) == _STEPS])
    errors = trial.mixed(grid.T / _STEPS).typical
    errors[grid[:, kinds.index("none")] == _STEPS] *= _SIMPLICITY
    best = grid[np.argmin(errors)] / _STEPS
    return {kind: float(weight) for kind, weight in zip(kinds, best, strict=True) if weight}


def choose_block_model(measured: Measured, choice: ResidualChoice | Weights, seed: int) -> tuple[BlockModel, Conformal]:
    """The model with the residuals that try_residuals takes, and its errors on records held out, the far ones of which
    say how fast an interval has to grow."""
    weights, trial = try_residuals(measured, choice, seed)
    growth, errors = trial.calibrated()
    return fit_block_model(measured, weights, seed, growth), errors


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


def _candidates(choice: ResidualChoice | Weights, configurations: int) -> list[ResidualKind]:
    if not isinstance(choice, str):
        if (
            not set(choice) <= set(_CHOICES)
            or any(weight < 0 for weight in choice.values())
            or abs(sum(choice.values()) - 1) > 1e-6
        ):
            raise PredictorError(f"weights of {', '.join(_CHOICES)} must sum up to 1, got {dict(choice)}")
        return list(choice)
    if choice != "auto":
        if choice not in _CHOICES:
            raise PredictorError(f"residual must be auto, {', '.join(_CHOICES)}, got {choice!r}")
        return [choice]
    if configurations < _FEWEST_FOR_CHOICE:
        return ["none"]
    return [kind for kind in _CHOICES if kind != "gp" or configurations <= _MOST_FOR_GP]
