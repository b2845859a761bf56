"""The latency of single blocks: physics, and a residual on top."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from archspace.graph import Graph
from predictor.domain import Domain, fit_domain
from predictor.errors import PredictorError
from predictor.features import LOG_FEATURES, FloatArray, log_features, work_terms
from predictor.folds import configuration_folds
from predictor.intervals import Conformal
from predictor.physics import Physics, fit_physics
from predictor.residual import Residual, ResidualKind, fit_residual, residual_from_json

ResidualChoice = Literal["auto", "none", "gp", "xgboost"]
_MOST_FOR_GP = 500
"""More records than this, and `auto` leaves the Gaussian process, whose cost is cubic, out."""
_FEWEST_FOR_CHOICE = 15
"""Fewer than this, and `auto` takes the pure physics: there is too little to judge regressors by."""
_SIMPLICITY = 0.98
"""A residual must beat the pure physics by this factor in cross-validation to be chosen."""


class Features(NamedTuple):
    """Work terms (n, terms) and log features (n, features) of the same graphs."""

    terms: FloatArray
    logs: FloatArray

    def take(self, indices: NDArray[Any]) -> Features:
        return Features(self.terms[indices], self.logs[indices])


def features_of(graphs: Sequence[Graph]) -> Features:
    """Both kinds of features of each graph."""
    return Features(work_terms(graphs), log_features(graphs))


@dataclass(frozen=True)
class BlockModel:
    """Fitted on the blocks of one setup. Raises UnknownOpError for ops that none of them has."""

    physics: Physics
    residual: Residual
    domain: Domain

    def predict(self, features: Features) -> FloatArray:
        """ms, shape (n,)."""
        z = self.domain.standardise(features.logs)
        base = self.physics.predict(features.terms)
        return base * np.exp(self.residual.predict(z, self.domain.remoteness(features.logs)))

    def half_widths(self, features: Features, errors: Conformal, coverage: float) -> FloatArray:
        """Of the intervals, in logarithms, shape (n,); `errors` are those of this model in cross-validation."""
        return self.domain.stretch(features.logs) * errors.quantile(coverage) + self.physics.doubt(features.terms)

    def to_json(self) -> dict[str, Any]:
        return {
            "physics": self.physics.to_json(),
            "residual": {"kind": self.residual.kind, **self.residual.to_json()},
            "features": list(LOG_FEATURES),
            "domain": self.domain.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> BlockModel:
        """Raises ValueError, KeyError or TypeError on anything that is not a block model of these features."""
        if data["features"] != list(LOG_FEATURES):
            raise ValueError(f"the features {data['features']} are not the ones of this version")
        residual = residual_from_json(data["residual"]["kind"], data["residual"], len(LOG_FEATURES))
        return cls(Physics.from_json(data["physics"]), residual, Domain.from_json(data["domain"], len(LOG_FEATURES)))


def fit_block_model(features: Features, latency_ms: FloatArray, kind: ResidualKind, seed: int) -> BlockModel:
    """Fits on n records, n >= 1; latency_ms has shape (n,)."""
    physics, domain = fit_physics(features.terms, latency_ms), fit_domain(features.logs)
    log_ratio = np.log(latency_ms / physics.predict(features.terms))
    return BlockModel(physics, fit_residual(kind, domain.standardise(features.logs), log_ratio, seed), domain)


def cross_validated_errors(
    features: Features, latency_ms: FloatArray, configurations: Sequence[str], kind: ResidualKind, seed: int
) -> tuple[FloatArray, FloatArray]:
    """(log errors, scores) of each record, both (n,), from models that have not seen its configuration: the error is
    log(measured / predicted), the score what Conformal takes. NaN for a record with an op that no other has."""
    folds = 10 if len(set(configurations)) <= 200 else 5
    errors, scores = np.full(len(latency_ms), np.nan), np.full(len(latency_ms), np.nan)
    for test in configuration_folds(configurations, folds, seed):
        train = np.setdiff1d(np.arange(len(latency_ms)), test)
        model = fit_block_model(features.take(train), latency_ms[train], kind, seed)
        test = test[model.physics.knows(features.terms[test])]
        unseen = features.take(test)
        errors[test] = np.log(latency_ms[test] / model.predict(unseen))
        surprise = np.maximum(np.abs(errors[test]) - model.physics.doubt(unseen.terms), 0)
        scores[test] = surprise / model.domain.stretch(unseen.logs)
    return errors, scores


def choose_block_model(
    features: Features, latency_ms: FloatArray, configurations: Sequence[str], choice: ResidualChoice, seed: int
) -> tuple[BlockModel, Conformal]:
    """The model with the residual asked for, `auto`: the one with the least error in cross-validation; and its errors
    there. Raises PredictorError for an unknown choice."""
    kinds = _candidates(choice, len(set(configurations)))
    results = {kind: cross_validated_errors(features, latency_ms, configurations, kind, seed) for kind in kinds}

    def badness(kind: ResidualKind) -> float:
        errors = np.abs(results[kind][0])
        # A few wrong records must not decide, so no error counts for more than 50 %.
        typical = float(np.nanmean(np.minimum(errors, 0.5))) if np.isfinite(errors).any() else 0.0
        return typical * (_SIMPLICITY if kind == "none" else 1.0)

    best = min(kinds, key=badness)
    scores = results[best][1]
    return fit_block_model(features, latency_ms, best, seed), Conformal(np.sort(scores[np.isfinite(scores)]))


def _candidates(choice: ResidualChoice, configurations: int) -> list[ResidualKind]:
    if choice in ("none", "gp", "xgboost"):
        return [choice]
    if choice != "auto":
        raise PredictorError(f"residual must be auto, none, gp or xgboost, got {choice!r}")
    if configurations < _FEWEST_FOR_CHOICE:
        return ["none"]
    return ["none", "gp", "xgboost"] if configurations <= _MOST_FOR_GP else ["none", "xgboost"]
