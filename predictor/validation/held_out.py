"""Held-out errors of block models, near the records and far from them, and the intervals calibrated on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from netlathe.predictor.blocks.block_model import (
    BlockModel,
    MeasuredBlocks,
    fit_block_domain,
    fit_block_physics,
    fit_block_residuals,
)
from netlathe.predictor.blocks.domain import USUAL_GROWTH
from netlathe.predictor.blocks.residual import Mixture, ResidualKind
from netlathe.predictor.features.item_features import LOG_FEATURES, Features
from netlathe.predictor.folds import Fold, configuration_folds, near_folds
from netlathe.predictor.intervals import (
    USUAL_COVERAGE,
    Conformal,
    HeldOutErrors,
    expected_scores,
    group_shares,
    one_for_each,
)
from netlathe.predictor.numbers import FlagArray, FloatArray

FEWEST_FOR_FAR = 15
"""The fewest different blocks of which some are held out far from the others: fewer leave too little to fit on."""
_LARGEST_ERROR = 0.5
"""Cap of a log error in the typical one, so that a few wrong records do not decide between models."""
_EXPECTED_SCORES = 0.05 * expected_scores(3)
"""Scores of three records with 5 % of error, the physics' own prior: ten records may agree by chance."""
_GROWTHS = np.geomspace(0.5, 20, 50)
"""Candidates for the intervals' growth with the distance. The least is half of the usual: a few records that happen to
be right tell nothing of what lies beyond them."""
_SMALLER = 0.5
"""The part of the records, by the side of their input, from which the larger are predicted."""


class HeldOut(NamedTuple):
    """Held-out errors of m models on n records; arrays of shape (n,), NaN where they could say nothing. All records of
    a configuration together count as one."""

    errors: FloatArray
    """log(measured / predicted), shape (n, m); (n,) of a single model."""
    doubt: FloatArray
    """Log error to allow for rates that were not fitted."""
    excess: FloatArray
    """Distance from the records that the models had seen."""
    configuration: NDArray[np.intp]
    """Number of each record's configuration."""

    def take(self, indices: NDArray[Any]) -> HeldOut:
        """Held-out errors of these records, indices of shape (k,)."""
        return HeldOut(*(values[indices] for values in self))

    def only(self, rows: FlagArray) -> HeldOut:
        """Held-out errors of these rows, (n,), alone: NaN for the others."""
        return self._replace(errors=np.where(rows[:, None], self.errors, np.nan))

    def mixed(self, weights: FloatArray) -> HeldOut:
        """Errors of the models' mixtures, which in logarithms mix as the models do: of one with weights (m,), of k with
        weights (m, k)."""
        return self._replace(errors=self.errors @ weights)

    @property
    def known(self) -> FlagArray:
        """Whether the models could say something, (n,): all of them or none can."""
        return np.asarray(np.isfinite(self.errors if self.errors.ndim == 1 else self.errors[:, 0]))

    def scores(self, growth: float) -> FloatArray:
        """Conformal's scores of a single model, one for each configuration, ascending, for a domain of that growth."""
        scores = np.maximum(np.abs(self.errors) - self.doubt, 0) / (1 + growth * self.excess)
        return one_for_each(scores, self.configuration)

    @property
    def typical(self) -> FloatArray:
        """Mean absolute log error of each model, (m,)."""
        known = self.known
        errors = np.minimum(np.abs(self.errors[known]), _LARGEST_ERROR)
        return np.asarray(np.average(errors, axis=0, weights=group_shares(self.configuration[known])))


class Trial(NamedTuple):
    """Held-out errors on n records, near the others and in several ways far from them."""

    near: HeldOut
    far: tuple[HeldOut, ...]

    def take(self, indices: NDArray[Any]) -> Trial:
        """Held-out errors of these records, indices of shape (k,)."""
        return Trial(self.near.take(indices), tuple(part.take(indices) for part in self.far))

    def mixed(self, weights: FloatArray) -> Trial:
        """Held-out errors of the models' mixtures, as of HeldOut."""
        return Trial(self.near.mixed(weights), tuple(part.mixed(weights) for part in self.far))

    @property
    def _all_far(self) -> HeldOut:
        """All ways that tell anything as one: a configuration counts in each of them."""
        apart = [
            part._replace(configuration=part.configuration + way * len(part.errors))
            for way, part in enumerate(self.far)
            if part.known.any()
        ]
        return HeldOut(*map(np.concatenate, zip(*apart, strict=True))) if apart else self.near

    @property
    def typical(self) -> FloatArray:
        """Geometric mean of the mean absolute log errors near and far, of each model, (m,)."""
        return np.asarray(np.sqrt(self.near.typical * self._all_far.typical))

    def calibrated(self) -> tuple[float, Conformal]:
        """Growth of the intervals with the distance from the records, and the scores that they then take."""
        measured = [part for part in self.far if part.known.any()]
        growth = max((_growth(self.near, part) for part in measured), default=USUAL_GROWTH)
        return growth, _conformal(self.near, growth)


def hold_out(measured: MeasuredBlocks, kinds: Sequence[ResidualKind], seed: int) -> Trial:
    """Errors of models with each kind of residual on latencies that are to be trusted, each predicted by models that
    have not seen its configuration, nor, where there are enough blocks, any like it."""
    near = _held_out(measured, near_folds(measured.configurations.tolist(), seed), kinds, seed)
    ways = _far_folds(measured.features, seed) if measured.different >= FEWEST_FOR_FAR else []
    far = [_held_out(measured, folds, kinds, seed) for folds in ways]
    return Trial(near.only(measured.trusted), tuple(part.only(measured.trusted) for part in far))


def held_out_errors(model: BlockModel, errors: Conformal, measured: MeasuredBlocks, seed: int) -> HeldOutErrors:
    """Errors on each record of models fitted as this one that have not seen its configuration. NaN for a record with
    an op that no other has."""
    weights, folds = model.residual.weights, near_folds(measured.configurations.tolist(), seed)
    found = _held_out(measured, folds, tuple(weights), seed).mixed(np.array([*weights.values()]))
    stretch = 1 + model.domain.growth * found.excess
    return HeldOutErrors(found.errors, stretch * errors.quantile(USUAL_COVERAGE) + found.doubt)


def _held_out(measured: MeasuredBlocks, folds: Sequence[Fold], kinds: Sequence[ResidualKind], seed: int) -> HeldOut:
    """Errors on each fold of models with each kind of residual that were fitted on the rest. NaN for a record in no
    fold, or with an op that no record in the rest has."""
    n = len(measured.latency_ms)
    errors, (doubt, excess) = np.full((n, len(kinds)), np.nan), np.full((2, n), np.nan)
    for test in folds:
        train = np.setdiff1d(np.arange(n), test)
        if not len(train):
            continue
        seen = measured.take(train)
        physics, domain = fit_block_physics(seen), fit_block_domain(seen)
        known = test[physics.knows(measured.features.terms[test])]
        unseen = measured.features.take(known)
        doubt[known], excess[known] = physics.doubt(unseen.terms), domain.excess(unseen.logs)
        for column, residual in enumerate(fit_block_residuals(physics, domain, seen, kinds, seed).values()):
            model = BlockModel(physics, Mixture.alone(residual), domain)
            errors[known, column] = np.log(measured.latency_ms[known] / model.predict(unseen))
    return HeldOut(errors, doubt, excess, np.unique(measured.configurations, return_inverse=True)[1])


def _conformal(near: HeldOut, growth: float) -> Conformal:
    """The scores, and those to expect of any device."""
    scores = near.scores(growth)
    return Conformal(np.sort(np.concatenate([scores, _EXPECTED_SCORES])) if len(scores) else scores)


def _growth(near: HeldOut, far: HeldOut) -> float:
    """The least growth with which intervals made from the near records cover the far ones as well."""
    for growth in _GROWTHS:
        half_width = _conformal(near, growth).quantile(USUAL_COVERAGE)
        if (far.scores(growth) <= half_width).mean() >= USUAL_COVERAGE:
            return float(growth)
    return float(_GROWTHS[-1])


def _far_folds(features: Features, seed: int) -> list[Sequence[Fold]]:
    """All records of the same channels and stride at a time; and the larger ones, from the smaller."""
    side = features.logs[:, LOG_FEATURES.index("side")]
    stages = configuration_folds(_stages(features), 5, seed)
    larger = np.flatnonzero(side > np.quantile(side, _SMALLER))
    return [stages] if not len(larger) else [stages, [larger]]


def _stages(features: Features) -> list[tuple[float, ...]]:
    """Channels in and out and stride of each record."""
    columns = [LOG_FEATURES.index(name) for name in ("cin", "cout", "stride")]
    return [tuple(row) for row in features.logs[:, columns].round(2).tolist()]
