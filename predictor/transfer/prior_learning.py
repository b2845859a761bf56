"""Steps of learning a prior: rates of each known device, and residuals cleaned of disturbed measurements."""

from __future__ import annotations

import numpy as np

from netlathe.predictor.blocks.gaussian_process import op_covariance
from netlathe.predictor.blocks.physics import fit_physics, robust_deviation
from netlathe.predictor.features.inputs import OpShares
from netlathe.predictor.numbers import FlagArray, FloatArray, inverse
from netlathe.predictor.transfer.robust import robust_process
from netlathe.predictor.transfer.work_space import OWN_LOG, WorkSpace, own_precision

_OP_DEVIATIONS, _MOST_TO_TRY_BY = (0.0, 0.05, 0.1, 0.2, 0.4), 300
"""Candidates for op_deviation, with none for items that differ in other ways, and how many items at most decide."""
FEWEST_TO_CLEAN = 5
"""Fewest devices among which a measurement that no other device explains is taken for a disturbed one."""
_MOST_TO_CLEAN_BY = 200
"""Most items by which disturbed ones are found: the cost is cubic in their number."""
_DISTURBED = 0.12
"""Log error below which a measurement is never taken for a disturbed one."""


def device_rates(terms: FloatArray, log_ms: FloatArray, weights: FloatArray) -> tuple[FloatArray, FlagArray]:
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


def choose_op_deviation(residuals: FloatArray, coordinates: FloatArray, ops: OpShares, space: WorkSpace) -> float:
    """The candidate with which items predict each other's residuals (J, D) best, each left out once."""
    part = np.linspace(0, len(coordinates) - 1, min(len(coordinates), _MOST_TO_TRY_BY)).astype(int)
    relation = space.covariance(coordinates[part], coordinates[part])
    by_op = op_covariance(ops.take(part), ops.take(part))

    def error(op_deviation: float) -> float:
        precision = own_precision(relation + op_deviation**2 * by_op)
        return float(np.abs(precision @ residuals[part] / np.diag(precision)[:, None]).mean())

    return min(_OP_DEVIATIONS, key=error)


def steadied(residuals: FloatArray, errors: FloatArray, coordinates: FloatArray, space: WorkSpace) -> FloatArray:
    """Residuals (J, D), NaN where nothing was measured, each drawn towards what all others say of it, the more the less
    certain its own rounds leave it: `errors` are standard errors, 0 where nothing is known of them."""
    result = residuals.copy()
    for device in np.flatnonzero((errors > 0).any(axis=0)):
        rows = np.flatnonzero(np.isfinite(residuals[:, device]))
        own, doubt = residuals[rows, device], errors[rows, device] ** 2
        relation = space.covariance(coordinates[rows], coordinates[rows]) + np.diag(OWN_LOG**2 + doubt)
        candidates = [_leave_one_out_errors(own, relation)]
        middle, common = _middle(np.delete(residuals, device, axis=1)[rows], np.delete(errors, device, axis=1)[rows])
        if common.all():  # with what the other devices have in common on the same items
            candidates.append(_leave_one_out_errors(own - middle, relation))
        sure = doubt <= np.median(doubt)
        off = min(candidates, key=lambda errors: float(np.median(np.abs(errors[sure]))))
        usual = max(robust_deviation(off[sure]), OWN_LOG)
        result[rows, device] -= off * doubt / (doubt + usual**2)
    return result


def _middle(residuals: FloatArray, errors: FloatArray) -> tuple[FloatArray, FlagArray]:
    """Mean residual of some devices, weighted by how certain each is, (n,), and whether there is one, (n,)."""
    measured = np.isfinite(residuals)
    shares = np.where(measured, 1 / (np.nan_to_num(errors) ** 2 + OWN_LOG**2), 0.0)
    total = shares.sum(axis=1)
    mean = (shares * np.nan_to_num(residuals)).sum(axis=1) / np.maximum(total, np.finfo(float).tiny)
    return np.asarray(mean), np.asarray(total > 0)


def _leave_one_out_errors(values: FloatArray, covariance: FloatArray) -> FloatArray:
    """Errors on each of the values (n,) when all others predict it: Rasmussen and Williams, equation 5.12."""
    precision = inverse(covariance)
    return np.asarray(precision @ values / np.diag(precision))


def filled(residuals: FloatArray, coordinates: FloatArray, space: WorkSpace) -> FloatArray:
    """Residuals (J, D) with every NaN replaced by what the device's other residuals say."""
    result = residuals.copy()
    for column in result.T:
        missing = np.isnan(column)
        if missing.any():
            seen = coordinates[~missing]
            weights = own_precision(space.covariance(seen, seen)) @ column[~missing]
            column[missing] = space.covariance(coordinates[missing], seen) @ weights
    return result


def cleaned(log_ms: FloatArray, coordinates: FloatArray, space: WorkSpace) -> FloatArray:
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
