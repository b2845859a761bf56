"""Latency records in, milliseconds with an interval out."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from predictor.crossval import CrossValidation, cross_validate
    from predictor.errors import NotFittedError, PredictorError, TooFewRecordsError, UnknownOpError
    from predictor.metrics import Metrics, measure
    from predictor.plots import plot_predicted_measured
    from predictor.predictor import LatencyPredictor

_HOMES = {
    "LatencyPredictor": "predictor",
    "CrossValidation": "crossval",
    "cross_validate": "crossval",
    "Metrics": "metrics",
    "measure": "metrics",
    "plot_predicted_measured": "plots",
    "NotFittedError": "errors",
    "PredictorError": "errors",
    "TooFewRecordsError": "errors",
    "UnknownOpError": "errors",
}

__all__ = [
    "CrossValidation",
    "LatencyPredictor",
    "Metrics",
    "NotFittedError",
    "PredictorError",
    "TooFewRecordsError",
    "UnknownOpError",
    "cross_validate",
    "measure",
    "plot_predicted_measured",
]


def __getattr__(name: str) -> Any:
    """Imports on first use: scikit-learn, XGBoost and matplotlib take seconds that most commands need not spend."""
    if name not in _HOMES:
        raise AttributeError(f"module 'predictor' has no attribute {name!r}")
    return getattr(import_module(f"predictor.{_HOMES[name]}"), name)
