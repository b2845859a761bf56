"""The latency of single blocks: physics, and a residual on top."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from netlathe.archspace.kernels import fusion_of
from netlathe.predictor.blocks.domain import USUAL_GROWTH, Domain, fit_domain
from netlathe.predictor.blocks.physics import TRUSTED, Physics, fit_physics
from netlathe.predictor.blocks.residual import Mixture, Residual, ResidualKind, Weights, fit_residuals
from netlathe.predictor.features.inputs import Inputs, op_shares
from netlathe.predictor.features.item_features import LOG_FEATURES, Features, features_of
from netlathe.predictor.features.samples import Sample, key_of
from netlathe.predictor.intervals import Conformal
from netlathe.predictor.numbers import FlagArray, FloatArray


@dataclass(frozen=True)
class BlockModel:
    """Physics times exp(residual), fitted on the blocks of one setup. Raises UnknownOpError for ops that none of them
    has."""

    physics: Physics
    residual: Mixture
    domain: Domain

    def predict(self, features: Features) -> FloatArray:
        """Latencies in ms, shape (n,)."""
        base = self.physics.predict(features.terms)
        inputs = _inputs(features, self.physics, self.domain)
        log_ratio = self.residual.predict(inputs, lambda: self.domain.proximity(features.logs))
        return np.asarray(base * np.exp(log_ratio))

    def half_widths(self, features: Features, errors: Conformal, coverage: float) -> FloatArray:
        """Half-widths of the intervals in logarithms, shape (n,); `errors` are this model's in cross-validation."""
        return self.domain.stretch(features.logs) * errors.quantile(coverage) + self.physics.doubt(features.terms)

    def to_json(self) -> dict[str, Any]:
        return {
            "physics": self.physics.to_json(),
            "residual": self.residual.to_json(),
            "features": list(LOG_FEATURES),
            "domain": self.domain.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> BlockModel:
        """The object that to_json wrote. Raises ValueError, KeyError or TypeError on anything that is not a block model
        of these features."""
        if data["features"] != list(LOG_FEATURES):
            raise ValueError(f"the features {data['features']} are not the ones of this version")
        residual = Mixture.from_json(data["residual"])
        return cls(Physics.from_json(data["physics"]), residual, Domain.from_json(data["domain"], len(LOG_FEATURES)))


def _inputs(features: Features, physics: Physics, domain: Domain) -> Inputs:
    """The residual's inputs: each op's share of the physics' time, and log features standardised by the records."""
    shares = op_shares(features, physics.rates).shares
    return Inputs(domain.standardise(features.logs), shares, features.ops)


class MeasuredBlocks(NamedTuple):
    """n measured blocks; arrays of shape (n,)."""

    features: Features
    latency_ms: FloatArray
    configurations: NDArray[np.str_]
    """Names of the blocks, equal for equal blocks."""
    weights: FloatArray
    """Trust in each latency, as of Sample."""

    @classmethod
    def of(cls, sample: Sample) -> MeasuredBlocks:
        """The sample's items taken as blocks. Raises UnknownOpError for an op without work terms."""
        keys = np.array([key_of(item) for item in sample.items], dtype=np.str_)
        return cls(features_of(sample.items, fusion_of(sample.setup)), sample.latency_ms, keys, sample.weights)

    def take(self, rows: NDArray[Any]) -> MeasuredBlocks:
        """The blocks of these rows, indices or flags of shape (m,)."""
        features, latency_ms, configurations, weights = self
        return MeasuredBlocks(features.take(rows), latency_ms[rows], configurations[rows], weights[rows])

    @property
    def trusted(self) -> FlagArray:
        """Whether each latency says more of the block than of a disturbance, shape (n,)."""
        return np.asarray(self.weights >= TRUSTED)

    @property
    def different(self) -> int:
        """The number of different blocks."""
        return len(np.unique(self.configurations))


def fit_block_model(measured: MeasuredBlocks, weights: Weights, seed: int, growth: float = USUAL_GROWTH) -> BlockModel:
    """A model fitted on n >= 1 blocks, with those weights of the residuals and that growth of the intervals with the
    distance."""
    physics, domain = fit_block_physics(measured), replace(fit_block_domain(measured), growth=growth)
    residuals = fit_block_residuals(physics, domain, measured, tuple(weights), seed)
    return BlockModel(physics, Mixture(weights, residuals), domain)


def fit_block_physics(measured: MeasuredBlocks) -> Physics:
    """Rates of the work of n >= 1 blocks."""
    return fit_physics(measured.features.terms, measured.latency_ms, measured.weights)


def fit_block_domain(measured: MeasuredBlocks) -> Domain:
    """Domain of the blocks whose latencies are to be trusted, if there are any: nothing was learned from the others, so
    near them intervals must be as wide as far from everything."""
    logs = measured.features.logs
    return fit_domain(logs[measured.trusted] if measured.trusted.any() else logs)


def fit_block_residuals(
    physics: Physics, domain: Domain, measured: MeasuredBlocks, kinds: Sequence[ResidualKind], seed: int
) -> dict[ResidualKind, Residual]:
    """A residual of each kind, fitted to the latencies that are to be trusted, if there are any: it would learn
    disturbances."""
    if measured.trusted.any():
        measured = measured.take(np.flatnonzero(measured.trusted))
    log_ratio = np.log(measured.latency_ms / physics.predict(measured.features.terms))
    return fit_residuals(kinds, _inputs(measured.features, physics, domain), log_ratio, seed)
