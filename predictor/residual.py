"""Regressors for what the physics leaves over: log(measured / physics) from standardised log features.

Each fades to 0, the pure physics, away from the records, and is saved as plain numbers or XGBoost's own JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from scipy.spatial import cKDTree

from predictor.features import FloatArray
from predictor.gaussian_process import GaussianProcess, fit_gaussian_process
from predictor.physics import robust_deviation

if TYPE_CHECKING:
    import xgboost

ResidualKind = Literal["none", "gp", "xgboost"]
_XGBOOST = {
    "max_depth": 3, "eta": 0.08, "subsample": 0.8, "colsample_bytree": 0.7, "min_child_weight": 2,
    "base_score": 0.0, "nthread": 1,
}  # fmt: skip
_XGBOOST_ROUNDS = 250
_NEIGHBOURS = 5
_OUTLIER = 4.0
_LEAST_OUTLIER = 0.02


class Residual(Protocol):
    """A fitted residual. `kind` names it in files."""

    @property
    def kind(self) -> ResidualKind: ...

    def predict(self, z: FloatArray, remoteness: FloatArray) -> FloatArray:
        """log(latency / physics), shape (n,), of standardised features (n, p), `remoteness` (n,) from the records."""
        ...

    def to_json(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class NoResidual:
    """The physics alone."""

    kind: ResidualKind = "none"

    def predict(self, z: FloatArray, remoteness: FloatArray) -> FloatArray:
        return np.zeros(len(z))

    def to_json(self) -> dict[str, Any]:
        return {}


@dataclass(frozen=True)
class BoostedTrees:
    """XGBoost; a tree goes on at a constant for ever, so its word counts less the farther it is from the records."""

    model_json: str = field(repr=False)
    kind: ResidualKind = "xgboost"

    @cached_property
    def _booster(self) -> xgboost.Booster:
        import xgboost  # half a second that a predictor without trees need not spend

        booster = xgboost.Booster({"nthread": 1})
        booster.load_model(bytearray(self.model_json, "utf-8"))
        return booster

    def predict(self, z: FloatArray, remoteness: FloatArray) -> FloatArray:
        if not len(z):
            return np.zeros(0)
        trust = 1 / (1 + np.maximum(remoteness - 1, 0) ** 2)
        return np.asarray(self._booster.inplace_predict(z), dtype=float) * trust

    def to_json(self) -> dict[str, Any]:
        return {"xgboost": self.model_json}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], width: int) -> BoostedTrees:
        """Raises ValueError, KeyError or TypeError on trees that do not end or look at features that do not exist:
        XGBoost follows what the file says."""
        learner = json.loads(data["xgboost"])["learner"]
        if int(learner["learner_model_param"]["num_feature"]) != width:
            raise ValueError("the trees are for other features")
        for tree in learner["gradient_booster"]["model"]["trees"]:
            left, right, split = tree["left_children"], tree["right_children"], tree["split_indices"]
            if not len(left) == len(right) == len(split) == int(tree["tree_param"]["num_nodes"]):
                raise ValueError("a tree's arrays differ in length")
            for node, (a, b, feature) in enumerate(zip(left, right, split, strict=True)):
                if not (a == b == -1 or (node < a < len(left) and node < b < len(left) and 0 <= feature < width)):
                    raise ValueError("a tree is broken")
        trees = cls(data["xgboost"])
        import xgboost

        try:
            trees._booster  # noqa: B018  # now, while the file is being read, rather than at the first prediction
        except xgboost.core.XGBoostError as error:
            raise ValueError(f"XGBoost cannot read its trees: {str(error).strip().splitlines()[0]}") from error
        return trees


def fit_residual(kind: ResidualKind, z: FloatArray, log_ratio: FloatArray, seed: int) -> Residual:
    """Fits log(measured / physics) of shape (n,) on standardised features (n, p); isolated outliers count little."""
    calm = _without_outliers(z, log_ratio)
    return _FITS[kind](z, calm, seed)


def residual_from_json(kind: object, data: Mapping[str, Any], width: int) -> Residual:
    """Raises ValueError, KeyError or TypeError when the data is not such a residual for `width` features."""
    if kind == "none":
        return NoResidual()
    if kind == "gp":
        return GaussianProcess.from_json(data, width)
    if kind == "xgboost":
        return BoostedTrees.from_json(data, width)
    raise ValueError(f"unknown residual {kind!r}")


def _without_outliers(z: FloatArray, log_ratio: FloatArray) -> FloatArray:
    """Pulls in records that stand out from their neighbours. A whole group that stands out is an effect to learn."""
    count = min(_NEIGHBOURS, len(z) - 1)
    if count < 3:
        return log_ratio
    _, nearest = cKDTree(z).query(z, k=count + 1)
    around = np.median(log_ratio[nearest[:, 1:]], axis=1)
    limit = _OUTLIER * robust_deviation(log_ratio - around) + _LEAST_OUTLIER
    return np.clip(log_ratio, around - limit, around + limit)


def _fit_none(z: FloatArray, log_ratio: FloatArray, seed: int) -> Residual:
    return NoResidual()


def _fit_boosted_trees(z: FloatArray, log_ratio: FloatArray, seed: int) -> Residual:
    import xgboost

    data = xgboost.DMatrix(z, log_ratio, nthread=1)
    booster = xgboost.train({**_XGBOOST, "seed": seed}, data, _XGBOOST_ROUNDS)
    return BoostedTrees(booster.save_raw("json").decode())


_FITS: dict[ResidualKind, Callable[[FloatArray, FloatArray, int], Residual]] = {
    "none": _fit_none,
    "gp": fit_gaussian_process,
    "xgboost": _fit_boosted_trees,
}
