"""Parts of the estimator that are scikit-learn's: imported only where it asks, or is to catch an error.

Its import takes longer than all else that a prediction needs.
"""

from __future__ import annotations

from typing import Any

import sklearn.exceptions
from sklearn.base import BaseEstimator, RegressorMixin

from netlathe.predictor.errors import PredictorError


class NotFittedError(PredictorError, sklearn.exceptions.NotFittedError):  # type: ignore[misc]  # has no types
    """A prediction asked of a predictor that has seen no records."""


class _Regressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]  # has no types
    """A regressor like any other."""


def regressor_tags() -> Any:
    """The tags (sklearn.utils.Tags) of a regressor without peculiarities, new ones in each call."""
    return _Regressor().__sklearn_tags__()
