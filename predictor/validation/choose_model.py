"""The choice of the model that measurements are fitted with, by held-out error."""

from __future__ import annotations

import numpy as np

from netlathe.archspace.kernels import fusion_of
from netlathe.predictor.blocks.block_model import MeasuredBlocks
from netlathe.predictor.blocks.residual import ResidualChoice, Weights
from netlathe.predictor.errors import TooFewRecordsError, UnknownOpError
from netlathe.predictor.features.samples import Sample, key_of
from netlathe.predictor.intervals import HeldOutErrors, group_shares
from netlathe.predictor.networks.latency_model import LatencyModel
from netlathe.predictor.networks.network_model import plain_sum
from netlathe.predictor.networks.physics_model import PhysicsModel, unit_of
from netlathe.predictor.numbers import FloatArray
from netlathe.predictor.transfer.blended import blend
from netlathe.predictor.transfer.few_shot import adapt
from netlathe.predictor.transfer.prior import Prior
from netlathe.predictor.validation.choose_residual import choose_block_model
from netlathe.predictor.validation.held_out import held_out_errors

_BENEFIT_OF_DOUBT = 3
"""Measurements that a prior's head start is worth: n different items decide against it where measurements
alone have less than n / (n + 3) of its errors. One that says nothing of this device is off by far more."""
_ENOUGH_FOR_REGRESSORS = 60
"""Below so many different items, a prior competes with the physics alone, which takes a fraction of the time:
regressors on top need more."""
_LARGEST_ERROR = 0.5
"""Cap of a log error in the choice, as a few disturbed measurements must not decide. An op that nothing else has counts
so."""
_FEWEST_TO_MIX = 10
"""Fewest different items that a mixture is fitted to: of fewer, how the errors of both go together is chance, and one
of them is taken."""
_SINGLE = 0.5
"""Part by which a mixture must be better than either alone, over the number of different items, for the same reason."""
_SHARES = np.arange(10, -1, -1) / 10
"""Candidates for the known devices' share in a mixture. Finer ones would fit the noise of the errors that they are
judged by."""


def fit_model(
    sample: Sample, prior: Prior | None, residual: ResidualChoice | Weights, seed: int, share: float | None = None
) -> LatencyModel:
    """Physics and residual without a prior. With one, the known devices adapted to this one, the measurements alone,
    or a mixture of both: by their held-out errors, unless the known devices' `share` is given. Raises what
    fit_physics_model and adapt raise."""
    if prior is None or not prior.unknown(sample.items).is_negligible.all():
        return fit_physics_model(sample, residual, seed)
    adapted, prior_errors = adapt(prior, sample)
    different = len({key_of(item) for item in sample.items})
    is_small = residual == "auto" and different < _ENOUGH_FOR_REGRESSORS
    try:
        alone = fit_physics_model(sample, "none" if is_small else residual, seed)
    except (UnknownOpError, TooFewRecordsError):  # too few, or networks with ops that no measured block has
        return adapted
    compared = sample.is_network if alone.unit == "network" else ~sample.is_network
    measured = MeasuredBlocks.of(sample.take(compared))
    prior_errors = HeldOutErrors(*(values[compared] for values in prior_errors))
    own_errors = held_out_errors(alone.blocks, alone.errors, measured, seed)
    if share is None:
        weights = group_shares(measured.configurations) * measured.weights
        share = _share(prior_errors.errors, own_errors.errors, weights, different)
    if share in (0.0, 1.0):
        return adapted if share else alone
    prior_trusted, own_trusted = (
        HeldOutErrors(np.where(measured.trusted, one.errors, np.nan), one.half_widths)
        for one in (prior_errors, own_errors)
    )
    return blend(adapted, alone, share, (prior_trusted, own_trusted), measured.configurations)


def fit_physics_model(sample: Sample, residual: ResidualChoice | Weights, seed: int) -> PhysicsModel:
    """Block model of the blocks, and slope and offset of the networks on top; where there are no blocks, networks take
    their place. Raises TooFewRecordsError below 3 different ones, UnknownOpError when a network holds an op that no
    block has."""
    unit, networks = unit_of(sample)
    fusion = fusion_of(sample.setup)
    model, errors = choose_block_model(MeasuredBlocks.of(sample.take(~networks)), residual, seed)
    whole = sample.take(networks)
    blocks_alone = PhysicsModel(model, errors, plain_sum(), unit, fusion)
    return blocks_alone.with_networks(whole.items, whole.latency_ms, whole.errors)


def _share(prior_errors: FloatArray, own_errors: FloatArray, weights: FloatArray, different: int) -> float:
    """The known devices' share with the least error of the mixture (stacking: Wolpert, Stacked Generalization, 1992);
    log errors and weights of shape (n,), of so many different items."""
    filled = np.where(np.isnan(own_errors), prior_errors, own_errors)  # as Blended leaves it to the known devices
    mixed = prior_errors[:, None] * _SHARES + filled[:, None] * (1 - _SHARES)
    mixed[:, 0], mixed[:, -1] = prior_errors, own_errors
    errors = np.minimum(np.nan_to_num(np.abs(mixed), nan=_LARGEST_ERROR), _LARGEST_ERROR)
    doubt = _SHARES * _BENEFIT_OF_DOUBT / (different + _BENEFIT_OF_DOUBT)
    typical = np.average(errors, axis=0, weights=weights) * (1 - doubt)
    typical[[0, -1]] *= 1 - _SINGLE / different
    if different < _FEWEST_TO_MIX:
        return 1.0 if typical[0] <= typical[-1] else 0.0
    return float(_SHARES[np.argmin(typical)])
