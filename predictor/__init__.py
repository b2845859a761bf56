"""Latency prediction: fitted on latency records, in milliseconds with an interval."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from netlathe.archspace.kernels import kernels_of

if TYPE_CHECKING:
    from netlathe.predictor.catalogue import Card, read_card, shipped_names
    from netlathe.predictor.errors import PredictorError, TooFewRecordsError, UnknownOpError
    from netlathe.predictor.features.kernel_times import KernelTimes, kernel_records
    from netlathe.predictor.mixed import MixedPredictor
    from netlathe.predictor.predictor import LatencyPredictor
    from netlathe.predictor.scikit_learn import NotFittedError
    from netlathe.predictor.transfer.prior import Prior
    from netlathe.predictor.validation.crossval import CrossValidation, cross_validate
    from netlathe.predictor.validation.metrics import Metrics, measure
    from netlathe.predictor.validation.plots import plot_validation

_HOMES = {
    "LatencyPredictor": "predictor",
    "MixedPredictor": "mixed",
    "Prior": "transfer.prior",
    "Card": "catalogue",
    "read_card": "catalogue",
    "shipped_names": "catalogue",
    "CrossValidation": "validation.crossval",
    "cross_validate": "validation.crossval",
    "KernelTimes": "features.kernel_times",
    "kernel_records": "features.kernel_times",
    "Metrics": "validation.metrics",
    "measure": "validation.metrics",
    "plot_validation": "validation.plots",
    "NotFittedError": "scikit_learn",
    "PredictorError": "errors",
    "TooFewRecordsError": "errors",
    "UnknownOpError": "errors",
}

__all__ = [
    "Card",
    "CrossValidation",
    "KernelTimes",
    "LatencyPredictor",
    "Metrics",
    "MixedPredictor",
    "NotFittedError",
    "PredictorError",
    "Prior",
    "TooFewRecordsError",
    "UnknownOpError",
    "cross_validate",
    "kernel_records",
    "kernels_of",
    "measure",
    "plot_validation",
    "read_card",
    "shipped_names",
]


def __getattr__(name: str) -> Any:
    """Imports on first use: scikit-learn, XGBoost and matplotlib take seconds that most commands need not spend."""
    if name not in _HOMES:
        raise AttributeError(f"module 'netlathe.predictor' has no attribute {name!r}")
    return getattr(import_module(f"netlathe.predictor.{_HOMES[name]}"), name)
