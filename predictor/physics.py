"""Latency as a non-negative sum of work terms, fitted robustly in relative error.

The idea is the roofline's (Williams et al., 2009): time is work over rate. A weak prior with the typical ratios
between the rates keeps the sum sensible where the records say little: with three of them, or for a term that they
hardly vary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import nnls

from predictor.errors import UnknownOpError
from predictor.features import COMMON_TERMS, PLAIN_MOVES, TERMS, FlagArray, FloatArray, depthwise_columns, op_classes_of
from predictor.numbers import read_positive

# Typical cost of a unit of each term, as multiples of one MAC of a 1x1 convolution. Only ratios matter, and only to the
# nearest order: a byte or a MAC costs about the same on CPUs, unblocked MACs more, starting an op thousands.
_PRIOR_BY_QUANTITY = {"macs": 1.0, "read": 1.0, "written": 1.0, "moved": 1.0, "weights": 1.0, "taps": 1.0}
_PRIOR_BY_TERM = {"calls": 2e4, "launches": 2e4, "spilled": 0.3, "grouped_conv.macs": 3.0, "fully_connected.macs": 4.0}
_PRIOR_DEVIATION = 2.0
"""Uncertainty of a prior rate, relative to it."""
_PRIOR_ERROR, _PRIOR_ERROR_COUNT = 0.05, 3
"""The relative error to expect of the sum, and how many records that expectation is worth: a few records are always
fitted better than they should be, and many speak for themselves."""
_LEAST_ERROR = 0.01
"""Errors below 1.5 times this are never outliers."""
_LEAST_RATE = 1e-3
"""No rate falls below this part of its prior, so that work is never free and a prediction never zero."""
_ITERATIONS = 15
_ASSUMED = (*COMMON_TERMS, *(f"{name}.moved" for name in PLAIN_MOVES))
"""Terms that the prior may speak for when no record has them."""
_KERNEL_DOUBT = 80.0
"""How much more than its neighbour an unmeasured depthwise kernel may cost: 7x7 against 5x5 on XNNPACK, x86."""
_MOVE_DOUBT = 5.0
"""How much more than assumed it may cost to move bytes in an op that no record has."""


def robust_deviation(residuals: FloatArray) -> float:
    """Standard deviation around 0 by the median absolute residual, which outliers hardly move."""
    return 1.4826 * float(np.median(np.abs(residuals)))


def huber_weights(residuals: FloatArray) -> FloatArray:
    """Weights that turn least squares into Huber's loss, shape (n,), for residuals that are relative errors."""
    limit = 1.5 * max(robust_deviation(residuals), _LEAST_ERROR)
    return np.minimum(1.0, limit / np.maximum(np.abs(residuals), limit))


def _prior_rates() -> FloatArray:
    def rate(term: str) -> float:
        quantity = term.partition(".")[2]
        return _PRIOR_BY_TERM.get(term) or (3.0 if "macs_k" in quantity else _PRIOR_BY_QUANTITY[quantity])

    return np.array([rate(term) for term in TERMS])


@dataclass(frozen=True)
class Physics:
    """Rates in ms per unit of each term, 0 where nothing is known, and which terms were fitted. Both (terms,)."""

    rates: FloatArray
    seen: FlagArray
    """False for rates that are borrowed from a neighbour or assumed."""

    @property
    def classes(self) -> set[str]:
        """The op classes that have rates."""
        return op_classes_of(self.rates[None])

    def knows(self, terms: FloatArray) -> FlagArray:
        """Whether each graph has only op classes that have rates. Shape (n,)."""
        return np.array([op_classes_of(row[None]) <= self.classes for row in terms], dtype=bool)

    def predict(self, terms: FloatArray) -> FloatArray:
        """ms for work terms of shape (n, terms). Raises UnknownOpError for an op class without rates."""
        unknown = op_classes_of(terms) - self.classes
        if unknown:
            raise UnknownOpError(
                f"no measured block contains {', '.join(sorted(unknown))}, so its cost on this setup is unknown; "
                "profile a few blocks with it and fit again"
            )
        return np.asarray(terms @ self.rates)

    def doubt(self, terms: FloatArray) -> FloatArray:
        """What log error to allow for work whose rate is not fitted. Shape (n,), 0 for most graphs."""
        excess = np.where(self.seen, 0.0, _MOVE_DOUBT - 1)
        kernels = [column for column in depthwise_columns().values() if not self.seen[column]]
        excess[kernels] = _KERNEL_DOUBT - 1
        total = np.maximum(terms @ self.rates, np.finfo(float).tiny)
        return np.asarray(np.log1p(terms @ (self.rates * excess) / total))

    def to_json(self) -> dict[str, Any]:
        rates = {term: rate for term, rate in zip(TERMS, self.rates.tolist(), strict=True) if rate}
        return {"rates": rates, "seen": [term for term, seen in zip(TERMS, self.seen, strict=True) if seen]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Physics:
        """Raises ValueError, KeyError, TypeError or AttributeError on unknown terms and impossible rates."""
        given, seen = data["rates"], set(data["seen"])
        if not set(TERMS) >= given.keys() >= seen | set(_ASSUMED):
            raise ValueError("the work terms are not those of this version")
        rates = [float(read_positive(given, term)) if term in given else 0.0 for term in TERMS]
        return cls(np.array(rates), np.array([term in seen for term in TERMS]))


def fit_physics(terms: FloatArray, latency_ms: FloatArray) -> Physics:
    """Rates for work terms of shape (n, terms) and latencies of shape (n,), n >= 1: non-negative least squares on
    relative errors with Huber's weights for the records and Cauchy's for the prior, so that neither a few wrong records
    nor a rate that truly is out of the ordinary spoils the rest."""
    seen: FlagArray = np.any(terms > 0, axis=0)
    used = seen | np.isin(TERMS, _ASSUMED)
    prior = _prior_rates()[used]
    scale = np.exp(np.median(np.log(latency_ms / (terms[:, used] @ prior))))
    at_prior = terms[:, used] * (prior * scale)  # ms if every rate were as expected; what is fitted are multiples
    factors, record_weights, prior_weights = np.ones(len(prior)), np.ones(len(terms)), np.ones(len(prior))
    variance = _PRIOR_ERROR**2
    for _ in range(_ITERATIONS):
        rows = np.sqrt(record_weights) / latency_ms
        ties = np.sqrt(variance * prior_weights) / _PRIOR_DEVIATION
        design = np.vstack([at_prior * rows[:, None], np.diag(ties)])
        target = np.concatenate([latency_ms * rows, ties]) - _LEAST_RATE * design.sum(axis=1)
        factors = nnls(design, target, maxiter=100 * len(prior))[0] + _LEAST_RATE
        errors = np.log(at_prior @ factors / latency_ms)
        record_weights = huber_weights(errors)
        known, expected = len(terms), _PRIOR_ERROR_COUNT
        variance = (known * robust_deviation(errors) ** 2 + expected * _PRIOR_ERROR**2) / (known + expected)
        prior_weights = 1 / (1 + ((factors - 1) / 2) ** 2)
    rates = np.zeros(len(TERMS))
    rates[used] = factors * prior * scale
    return Physics(_borrow_depthwise(rates, seen), seen)


def _borrow_depthwise(rates: FloatArray, seen: FlagArray) -> FloatArray:
    """Rates with each unseen depthwise kernel size charged like the nearest seen one; of two, like the larger."""
    columns = depthwise_columns()
    known = [k for k, column in columns.items() if seen[column]]
    result = rates.copy()
    for kernel, column in columns.items():
        if known and not seen[column]:
            result[column] = rates[columns[min(known, key=lambda k: (abs(k - kernel), -k))]]
    return result
