"""Latency records in, milliseconds with an interval out."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from netlathe.archspace.kernels import kernels_of

if TYPE_CHECKING:
    from netlathe.predictor.catalogue import Card, read_card, shipped_names
    from netlathe.predictor.crossval import CrossValidation, cross_validate
    from netlathe.predictor.errors import NotFittedError, PredictorError, TooFewRecordsError, UnknownOpError
    from netlathe.predictor.kernel_times import KernelTimes, kernel_records
    from netlathe.predictor.metrics import Metrics, measure
    from netlathe.predictor.plots import plot_validation
    from netlathe.predictor.predictor import LatencyPredictor
    from netlathe.predictor.prior import Prior

_HOMES = {
    "LatencyPredictor": "predictor",
    "Prior": "prior",
    "Card": "catalogue",
    "read_card": "catalogue",
    "shipped_names": "catalogue",
    "CrossValidation": "crossval",
    "cross_validate": "crossval",
    "KernelTimes": "kernel_times",
    "kernel_records": "kernel_times",
    "Metrics": "metrics",
    "measure": "metrics",
    "plot_validation": "plots",
    "NotFittedError": "errors",
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
