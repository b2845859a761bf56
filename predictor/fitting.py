"""Which model measurements are fitted with."""

from __future__ import annotations

import numpy as np

from netlathe.predictor.assembled import Model, assemble
from netlathe.predictor.block_model import Measured, ResidualChoice, cross_validated_errors
from netlathe.predictor.errors import TooFewRecordsError, UnknownOpError
from netlathe.predictor.features import FloatArray
from netlathe.predictor.few_shot import adapt
from netlathe.predictor.intervals import shares
from netlathe.predictor.prior import Prior
from netlathe.predictor.samples import Sample, key_of

_BENEFIT_OF_DOUBT = 3
"""How many measurements' worth of belief a prior starts with: n different items decide against it where measurements
alone have less than n / (n + 3) of its errors. One that says nothing of this device is off by far more."""
_MANY = 60
"""Below so many, a prior competes with the physics alone, which takes a fraction of the time: regressors on top need
more."""
_WORST = 0.5
"""No log error counts for more: a few disturbed measurements must not decide. An op that nothing else has counts so."""


def fit_model(sample: Sample, prior: Prior | None, residual: ResidualChoice, seed: int) -> Model:
    """Without a prior, physics and residual. With one, the known devices adapted to this one; unless it is so unlike
    them that its measurements alone predict each other better. Raises what assemble and adapt raise."""
    if prior is None or not prior.unknown(sample.items).is_negligible.all():
        return assemble(sample, residual, seed)
    adapted, left_out = adapt(prior, sample)
    different = len({key_of(item) for item in sample.items})
    try:
        alone = assemble(sample, "none" if residual == "auto" and different < _MANY else residual, seed)
    except (UnknownOpError, TooFewRecordsError):  # too few, or networks with ops that no measured block has
        return adapted
    compared = sample.is_network if alone.unit == "network" else ~sample.is_network
    measured = Measured.of(sample.take(compared))
    errors_alone = cross_validated_errors(measured, alone.blocks.residual.kind, seed)
    weights = shares(measured.configurations) * measured.weights
    believed = _typical(left_out[compared], weights) * different / (different + _BENEFIT_OF_DOUBT)
    return adapted if believed <= _typical(errors_alone, weights) else alone


def _typical(errors: FloatArray, weights: FloatArray) -> float:
    return float(np.average(np.minimum(np.nan_to_num(np.abs(errors), nan=_WORST), _WORST), weights=weights))
