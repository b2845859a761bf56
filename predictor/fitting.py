"""Which model measurements are fitted with."""

from __future__ import annotations

import numpy as np

from predictor.assembled import Assembled, Model, assemble
from predictor.block_model import ResidualChoice, features_of, fit_block_model
from predictor.errors import TooFewRecordsError, UnknownOpError
from predictor.features import FloatArray
from predictor.few_shot import adapt
from predictor.folds import configuration_folds
from predictor.prior import Prior
from predictor.samples import Sample, key_of

_FEWEST_TO_COMPARE = 8
"""Below so many different items, a prior is trusted: there is too little to judge it by."""
_MANY = 60
"""Below so many, a prior competes with the physics alone, which takes a fraction of the time: regressors on top need
more."""
_FOLDS = 10
_WORST = 0.5
"""No log error counts for more: a few disturbed measurements must not decide. An op that nothing else has counts so."""


def fit_model(sample: Sample, prior: Prior | None, residual: ResidualChoice, seed: int) -> Model:
    """Without a prior, physics and residual. With one, the known devices adapted to this one; unless it is so unlike
    them that its measurements alone predict each other better. Raises what assemble and adapt raise."""
    if prior is None or not prior.knows(sample.items).all():
        return assemble(sample, residual, seed)
    adapted = adapt(prior, sample.items, sample.latency_ms)
    different = len({key_of(item) for item in sample.items})
    if different < _FEWEST_TO_COMPARE:
        return adapted
    try:
        alone = assemble(sample, "none" if residual == "auto" and different < _MANY else residual, seed)
    except (UnknownOpError, TooFewRecordsError):  # networks with ops that no measured block has
        return adapted
    compared = sample.is_network if alone.unit == "network" else ~sample.is_network
    on_top = _typical(adapted.left_out[compared])
    return adapted if on_top <= _typical(_errors(alone, sample.take(compared), seed)) else alone


def _errors(model: Assembled, sample: Sample, seed: int) -> FloatArray:
    """Log errors of such a model on each item, shape (n,), fitted without it. NaN for an op that no other item has."""
    features, kind = features_of(sample.items), model.blocks.residual.kind
    errors = np.full(len(sample.items), np.nan)
    for test in configuration_folds([key_of(item) for item in sample.items], _FOLDS, seed):
        train = np.setdiff1d(np.arange(len(errors)), test)
        without = fit_block_model(features.take(train), sample.latency_ms[train], kind, seed)
        test = test[without.physics.knows(features.terms[test])]
        errors[test] = np.log(sample.latency_ms[test] / without.predict(features.take(test)))
    return errors


def _typical(errors: FloatArray) -> float:
    return float(np.mean(np.minimum(np.nan_to_num(np.abs(errors), nan=_WORST), _WORST)))
