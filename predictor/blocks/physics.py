"""The physics of latency: a non-negative sum of work terms, fitted robustly in relative error.

A relative error is one in parts of the larger of measurement and prediction: a wrong record that is too fast must not
weigh more than one that is too slow.

The idea is the roofline's (Williams et al., 2009): time is work over rate. A weak prior with the typical ratios
between the rates keeps the sum sensible where the records say little: with three of them, or for a term that they
hardly vary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netlathe.predictor.errors import UnknownOpError
from netlathe.predictor.features.op_work import COMMON_TERMS, PLAIN_MOVES, TERMS, depthwise_columns, op_classes_of
from netlathe.predictor.numbers import FlagArray, FloatArray, read_positive

_COMPUTED = ("aligned", "wide", "half", "streamed", "odd", "windows", "tails", "refetched", "taps", "again", "plain")
"""Quantities of work that are computed rather than moved, beside MACs."""


def _resource(term: str) -> int:
    """The resource that a term's cost goes with, as of RESOURCES."""
    quantity = term.rpartition(".")[2]
    if quantity in ("calls", "launches", "depth", "groups"):
        return 2
    return 0 if quantity.startswith("macs") or quantity in _COMPUTED else 1


# Typical cost of a unit of each term, as multiples of one MAC of a 1x1 convolution. Only ratios matter, and only to the
# nearest order: a byte or a MAC costs about the same on CPUs, unblocked MACs more, starting an op thousands.
_PRIOR_BY_QUANTITY = {
    "macs": 1.0, "read": 1.0, "written": 1.0, "aligned": 0.3, "moved": 1.0, "weights": 1.0, "taps": 1.0, "patches": 1.0,
    "depth": 30.0, "odd": 1.0, "wide": 0.3, "half": 0.3, "streamed": 0.3, "windows": 5.0, "tails": 1.0,
    "refetched": 0.3, "rows": 30.0, "again": 1.0, "outer": 1.0, "far": 1.0, "plain": 0.5,
    "gathered": 30.0, "groups": 2e3,
}  # fmt: skip
_PRIOR_BY_TERM = {"calls": 2e4, "launches": 2e4, "spilled": 0.3, "grouped_conv.macs": 3.0, "fully_connected.macs": 4.0}
_PRIOR_DEVIATION = 2.0
"""Standard deviation of a rate around its prior, relative to it."""
_PRIOR_ERROR, _PRIOR_ERROR_COUNT = 0.05, 3
"""Prior relative error of the sum, and how many records that prior is worth: a few records are always
fitted better than they should be, and many speak for themselves."""
TRUSTED = 0.5
"""Least weight of a record that says what errors are usual."""
_LEAST_ERROR = 0.01
"""Least standard deviation of errors for Huber's weights: errors below 1.5 times this are never outliers."""
_LEAST_RATE = 1e-3
"""Least part of its prior that a rate may fall to, so that work is never free and a prediction never zero."""
_ITERATIONS, _CONVERGED = 15, 1e-4
"""Most iterations of the reweighted fit, and the relative change of a rate below which it ends."""
_ENOUGH_FOR_OWN_RATIOS = 15
"""Fewest records that may say how the costs of computing, moving and starting relate."""
_WIDE_DEVIATION, _RESOURCE_DEVIATION = 5.0, 10.0
"""Relative standard deviations of a rate around those ratios, and of the ratios."""
_BELIEF_POWER = 0.25
"""Exponent with which held-out errors decide between two priors; 0.5 is Bayes' rule for independent Gaussian errors,
and those of neighbours in size are not independent."""
_LARGEST_ERROR, _MOST_LEVERAGE, _TINY = 0.3, 0.999, 1e-9
"""Cap of a held-out log error in that decision; the others keep divisions finite."""
RESOURCES = np.array([_resource(term) for term in TERMS])
"""Resource of each work term, shape (terms,): 0 computing, 1 moving, 2 starting."""
_ASSUMED = (*COMMON_TERMS, *(f"{name}.moved" for name in PLAIN_MOVES))
"""Terms whose rates the prior tells when no record has them."""
_KERNEL_DOUBT, _CLIFF_DOUBT, _CLIFF_KERNEL = 2.0, 80.0, 5
"""Factors by which an unmeasured depthwise kernel may cost more than its neighbour, and one that is larger than all
measured ones and than the size up to which all runtimes have kernels: 7x7 against 5x5 on XNNPACK, x86."""
_MOVE_DOUBT = 5.0
"""Factor by which moving bytes may cost more than assumed in an op that no record has."""


def robust_deviation(residuals: FloatArray) -> float:
    """Robust standard deviation around 0 of residuals (n,), by the median absolute one, which outliers hardly move."""
    return 1.4826 * float(np.median(np.abs(residuals)))


def _huber_weights(residuals: FloatArray, deviation: float) -> FloatArray:
    """Huber's weights, shape (n,), of residuals that are relative errors: with them, least squares is Huber's loss."""
    limit = 1.5 * max(deviation, _LEAST_ERROR)
    return np.minimum(1.0, limit / np.maximum(np.abs(residuals), limit))


def prior_rates() -> FloatArray:
    """Typical cost of a unit of each work term, in MACs of a 1x1 convolution; shape (terms,)."""

    def rate(term: str) -> float:
        quantity = term.partition(".")[2]
        return _PRIOR_BY_TERM.get(term) or (3.0 if "macs_k" in quantity else _PRIOR_BY_QUANTITY[quantity])

    return np.array([rate(term) for term in TERMS])


@dataclass(frozen=True, eq=False)
class Physics:
    """Rates in ms per unit of each term, 0 where nothing is known, and which terms were fitted. Both (terms,)."""

    rates: FloatArray
    seen: FlagArray
    """Whether each rate is fitted, rather than borrowed from a neighbour or assumed."""

    @property
    def classes(self) -> set[str]:
        """The op classes that have rates."""
        return op_classes_of(self.rates[None])

    def knows(self, terms: FloatArray) -> FlagArray:
        """Whether each graph has only op classes that have rates. Shape (n,)."""
        known = self.classes
        unknown = [column for column, term in enumerate(TERMS) if "." in term and term.split(".")[0] not in known]
        return np.asarray((terms[:, unknown] <= 0).all(axis=1))

    def predict(self, terms: FloatArray) -> FloatArray:
        """Latencies in ms, shape (n,), for work terms of shape (n, terms). Raises UnknownOpError for an op class
        without rates."""
        unknown = op_classes_of(terms) - self.classes
        if unknown:
            raise UnknownOpError(
                f"no measured block contains {', '.join(sorted(unknown))}, so its cost on this setup is unknown; "
                "profile a few blocks with it and fit again"
            )
        return np.asarray(terms @ self.rates)

    def doubt(self, terms: FloatArray) -> FloatArray:
        """Log error to allow for work whose rate is not fitted, shape (n,), 0 for most graphs."""
        excess = np.where(self.seen, 0.0, _MOVE_DOUBT - 1)
        columns = depthwise_columns()
        known = {kernel: float(self.rates[column]) for kernel, column in columns.items() if self.seen[column]}
        for kernel, column in columns.items():
            if not self.seen[column]:
                cliff = kernel > max([*known, _CLIFF_KERNEL])
                smaller, larger = [k for k in known if k < kernel], [k for k in known if k > kernel]
                # Between a usual kernel and one beyond a cliff, nobody knows on which side of the cliff it is.
                ratio = known[min(larger)] / known[max(smaller)] if smaller and larger else 1.0
                excess[column] = max(_CLIFF_DOUBT if cliff else _KERNEL_DOUBT, ratio, 1 / ratio) - 1
        total = np.maximum(terms @ self.rates, np.finfo(float).tiny)
        return np.asarray(np.log1p(terms @ (self.rates * excess) / total))

    def to_json(self) -> dict[str, Any]:
        rates = {term: rate for term, rate in zip(TERMS, self.rates.tolist(), strict=True) if rate}
        return {"rates": rates, "seen": [term for term, seen in zip(TERMS, self.seen, strict=True) if seen]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Physics:
        """The object that to_json wrote. Raises ValueError, KeyError, TypeError or AttributeError on unknown terms and
        impossible rates. A file that was written before a term existed does not name it, and predicts what it did
        then."""
        given, seen = data["rates"], set(data["seen"])
        if not set(TERMS) >= given.keys() >= seen | set(_ASSUMED):
            raise ValueError("the work terms are not those of this version")
        rates = [float(read_positive(given, term)) if term in given else 0.0 for term in TERMS]
        return cls(np.array(rates), np.array([term in seen for term in TERMS]))


def fit_physics(terms: FloatArray, latency_ms: FloatArray, weights: FloatArray | None = None) -> Physics:
    """Rates fitted to work terms of shape (n, terms) and latencies in ms of shape (n,), n >= 1. `weights`, (n,): trust
    in each latency, from 0 to 1.

    A few records are fitted with the typical ratios between the rates as their prior. More of them mix two priors, each
    by its held-out error: that one, and one whose ratios between computing, moving and starting come from these
    records and of which single rates may be far off, as on GPUs, in int8, or on many threads."""
    seen: FlagArray = np.any(terms > 0, axis=0)
    used = seen | np.isin(TERMS, _ASSUMED)
    prior, work = prior_rates()[used], terms[:, used]
    weights = np.ones(len(latency_ms)) if weights is None else weights
    found, errors = _fit_rates(work, latency_ms, weights, prior, _PRIOR_DEVIATION)
    if len(latency_ms) >= _ENOUGH_FOR_OWN_RATIOS:
        own = _own_ratios(work, latency_ms, weights, prior, RESOURCES[used])
        other, other_errors = _fit_rates(work, latency_ms, weights, own, _WIDE_DEVIATION)
        share = _sigmoid(_BELIEF_POWER * len(latency_ms) * math.log(errors / other_errors))
        found = (1 - share) * found + share * other
    rates = np.zeros(len(TERMS))
    rates[used] = found
    return Physics(_borrow_depthwise(rates, seen), seen)


def _sigmoid(x: float) -> float:
    return 0.5 * (1 + math.tanh(x / 2))


def _own_ratios(
    terms: FloatArray, latency_ms: FloatArray, weights: FloatArray, prior: FloatArray, resources: NDArray[np.intp]
) -> FloatArray:
    """The prior (terms,), with the typical costs of computing, moving and starting multiplied by a factor each that
    fits the records."""
    count = int(RESOURCES.max()) + 1
    sums = np.stack([(terms * prior)[:, resources == one].sum(axis=1) for one in range(count)], axis=1)
    factors, _ = _fit_rates(sums, latency_ms, weights, np.ones(count), _RESOURCE_DEVIATION)
    return np.asarray(prior * np.maximum(factors, _LEAST_RATE * factors.max())[resources])


def _fit_rates(
    terms: FloatArray, latency_ms: FloatArray, weights: FloatArray, prior: FloatArray, deviation: float
) -> tuple[FloatArray, float]:
    """Rates (terms,), and their mean held-out log error, by non-negative least squares on relative
    errors with Huber's weights for the records and Cauchy's for the prior, so that neither a few wrong records nor a
    rate that truly is out of the ordinary spoils the rest."""
    from scipy.optimize import nnls  # only fits need it

    trusted = weights >= TRUSTED if (weights >= TRUSTED).any() else weights > 0
    scale = np.exp(np.median(np.log(latency_ms / (terms @ prior))[trusted]))
    at_prior = terms * (prior * scale)  # ms if every rate were as expected; what is fitted are multiples
    factors, record_weights, prior_weights = np.ones(len(prior)), weights, np.ones(len(prior))
    variance, predicted = _PRIOR_ERROR**2, at_prior @ factors
    for _ in range(_ITERATIONS):
        rows = np.sqrt(record_weights) / np.maximum(latency_ms, predicted)
        ties = np.sqrt(variance * prior_weights) / deviation
        design = np.vstack([at_prior * rows[:, None], np.diag(ties)])
        target = np.concatenate([latency_ms * rows, ties]) - _LEAST_RATE * design.sum(axis=1)
        before, factors = factors, nnls(design, target, maxiter=100 * len(prior))[0] + _LEAST_RATE
        predicted = at_prior @ factors
        errors = np.log(predicted / latency_ms)
        usual = robust_deviation(errors[trusted])
        record_weights = weights * _huber_weights(errors, usual)
        known, expected = len(terms), _PRIOR_ERROR_COUNT
        variance = (known * usual**2 + expected * _PRIOR_ERROR**2) / (known + expected)
        prior_weights = 1 / (1 + ((factors - 1) / 2) ** 2)
        if np.abs(factors - before).max() <= _CONVERGED * factors.max():
            break
    leverage = _leverage(design[:, factors > _LEAST_RATE])[: len(terms)]
    left_out = np.abs(errors) / (1 - np.minimum(leverage, _MOST_LEVERAGE))
    return factors * prior * scale, float(np.average(np.minimum(left_out, _LARGEST_ERROR), weights=weights)) + _TINY


def _leverage(design: FloatArray) -> FloatArray:
    """Leverage of each row, the hat matrix's diagonal, shape (rows,): the part of its residual that the row itself
    takes away."""
    orthogonal, _ = np.linalg.qr(design)
    return np.asarray((orthogonal**2).sum(axis=1))


def _borrow_depthwise(rates: FloatArray, seen: FlagArray) -> FloatArray:
    """Rates (terms,) with each unseen depthwise kernel size charged like the nearest seen one; of two, like the
    larger."""
    columns = depthwise_columns()
    known = [k for k, column in columns.items() if seen[column]]
    result = rates.copy()
    for kernel, column in columns.items():
        if known and not seen[column]:
            result[column] = rates[columns[min(known, key=lambda k: (abs(k - kernel), -k))]]
    return result
