"""Errors between records and predictions.

PredictorError
├── NotFittedError       predict before fit (also sklearn's NotFittedError; in scikit_learn.py)
├── TooFewRecordsError   not enough measured blocks to fit anything honest
└── UnknownOpError       an op that none of the fitted records contains

Files that are not predictors raise netlathe.archspace.errors.FormatError; records of unlike setups, its RecordError.
"""

from __future__ import annotations

from netlathe.archspace.errors import NetlatheError


class PredictorError(NetlatheError):
    """Base of the predictor's failures."""


class TooFewRecordsError(PredictorError):
    """Too few measured blocks to fit on."""


class UnknownOpError(PredictorError):
    """An op whose cost was never measured: there is no honest number for it."""
