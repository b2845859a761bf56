"""Which model measurements are fitted with."""

from __future__ import annotations

import numpy as np

from netlathe.predictor.blocks.block_model import Measured, left_out
from netlathe.predictor.blocks.residual import ResidualChoice, Weights
from netlathe.predictor.errors import TooFewRecordsError, UnknownOpError
from netlathe.predictor.features.samples import Sample, key_of
from netlathe.predictor.intervals import LeftOut, shares
from netlathe.predictor.networks.physics_model import Model, assemble
from netlathe.predictor.numbers import FloatArray
from netlathe.predictor.transfer.blended import blend
from netlathe.predictor.transfer.few_shot import adapt
from netlathe.predictor.transfer.prior import Prior

_BENEFIT_OF_DOUBT = 3
"""How many measurements' worth of belief a prior starts with: n different items decide against it where measurements
alone have less than n / (n + 3) of its errors. One that says nothing of this device is off by far more."""
_MANY = 60
"""Below so many, a prior competes with the physics alone, which takes a fraction of the time: regressors on top need
more."""
_WORST = 0.5
"""No log error counts for more: a few disturbed measurements must not decide. An op that nothing else has counts so."""

_FEWEST_TO_MIX = 10
"""Of fewer different items, how the errors of the known devices go with the others is chance: one of both is taken."""
_SINGLE = 0.5
"""What part a mixture must be better than either alone, over the number of different items, for the same reason."""
_SHARES = np.arange(10, -1, -1) / 10
"""Of the known devices in a mixture. Finer ones would fit the noise of the errors that they are judged by."""


def fit_model(
    sample: Sample, prior: Prior | None, residual: ResidualChoice | Weights, seed: int, share: float | None = None
) -> Model:
    """Without a prior, physics and residual. With one, the known devices adapted to this one, the measurements alone,
    or a mixture of both: by how they do on measurements left out, unless the known devices' `share` is given. Raises
    what assemble and adapt raise."""
    if prior is None or not prior.unknown(sample.items).is_negligible.all():
        return assemble(sample, residual, seed)
    adapted, told = adapt(prior, sample)
    different = len({key_of(item) for item in sample.items})
    try:
        alone = assemble(sample, "none" if residual == "auto" and different < _MANY else residual, seed)
    except (UnknownOpError, TooFewRecordsError):  # too few, or networks with ops that no measured block has
        return adapted
    compared = sample.is_network if alone.unit == "network" else ~sample.is_network
    measured = Measured.of(sample.take(compared))
    told, own = LeftOut(*(values[compared] for values in told)), left_out(alone.blocks, alone.errors, measured, seed)
    if share is None:
        share = _share(told.errors, own.errors, shares(measured.configurations) * measured.weights, different)
    if share in (0.0, 1.0):
        return adapted if share else alone
    trusted = [LeftOut(np.where(measured.trusted, one.errors, np.nan), one.half_widths) for one in (told, own)]
    return blend(adapted, alone, share, (trusted[0], trusted[1]), measured.configurations)


def _share(told: FloatArray, own: FloatArray, weights: FloatArray, different: int) -> float:
    """Of the known devices, with the least error of the mixture (stacking: Wolpert, Stacked Generalization, 1992)."""
    filled = np.where(np.isnan(own), told, own)  # as Blended leaves it to the known devices
    mixed = told[:, None] * _SHARES + filled[:, None] * (1 - _SHARES)
    mixed[:, 0], mixed[:, -1] = told, own
    errors = np.minimum(np.nan_to_num(np.abs(mixed), nan=_WORST), _WORST)
    doubt = _SHARES * _BENEFIT_OF_DOUBT / (different + _BENEFIT_OF_DOUBT)
    typical = np.average(errors, axis=0, weights=weights) * (1 - doubt)
    typical[[0, -1]] *= 1 - _SINGLE / different
    if different < _FEWEST_TO_MIX:
        return 1.0 if typical[0] <= typical[-1] else 0.0
    return float(_SHARES[np.argmin(typical)])
