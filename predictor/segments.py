"""Networks cut into the blocks they are made of, and what the block model says about the sum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from archspace.graph import Graph
from predictor.block_model import BlockModel, Features, features_of
from predictor.features import FlagArray, FloatArray, weight_megabytes
from predictor.intervals import Conformal


class Segments(NamedTuple):
    """The blocks of n graphs; a graph whose nodes have no scopes is one block, one without nodes has none."""

    features: Features
    owner: NDArray[np.intp]
    """Which graph each block belongs to."""
    is_network: FlagArray
    """Per graph: whether its nodes have scopes, so that slope and offset apply."""

    def total(self, values: FloatArray) -> FloatArray:
        """Sum over each graph's blocks, shape (n,), of a value per block."""
        return np.asarray(np.bincount(self.owner, values, len(self.is_network)), dtype=float)


class BlockSums(NamedTuple):
    """What the block model says about n graphs; each of shape (n,)."""

    latency_ms: FloatArray
    """Sum of the blocks' latencies."""
    scale: FloatArray
    """Mean of the blocks' scales (see intervals.py), each block weighing as much as it takes time."""
    doubt: FloatArray
    """Likewise, mean of the log errors to allow for rates that were not fitted."""
    half_width: FloatArray
    """Of the sum, in logarithms, when the blocks' errors are independent."""
    weight_mb: FloatArray
    """MB of weights of all blocks."""
    blocks: FloatArray
    """How many blocks there are."""
    least_ms: FloatArray
    """Latency of the fastest block; infinite where there is none."""

    def take(self, indices: Any) -> BlockSums:
        return BlockSums(*(values[indices] for values in self))


def segments_of(graphs: Sequence[Graph]) -> Segments:
    """Cuts each network where its scopes change."""
    parts = [(g.segments() if g.is_network else [g]) if g.nodes else [] for g in graphs]
    owner = np.repeat(np.arange(len(graphs)), np.array([len(part) for part in parts], dtype=int))
    is_network = np.array([g.is_network for g in graphs], dtype=bool)
    return Segments(features_of([segment for part in parts for segment in part]), owner, is_network)


def block_sums(segments: Segments, model: BlockModel, errors: Conformal, coverage: float) -> BlockSums:
    """Sums with what intervals of that coverage need. `errors` are the model's own in cross-validation."""
    sums = block_totals(segments, model)
    latency_ms = model.predict(segments.features)
    share = latency_ms / sums.latency_ms[segments.owner]
    half_widths = model.half_widths(segments.features, errors, coverage)
    return sums._replace(
        scale=segments.total(share * model.domain.stretch(segments.features.logs)),
        doubt=segments.total(share * model.physics.doubt(segments.features.terms)),
        half_width=np.sqrt(segments.total((share * half_widths) ** 2)),
    )


def block_totals(segments: Segments, model: BlockModel) -> BlockSums:
    """Sums without what intervals need: zeros stand there."""
    latency_ms = model.predict(segments.features)
    nothing, least_ms = np.zeros(len(segments.is_network)), np.full(len(segments.is_network), np.inf)
    np.minimum.at(least_ms, segments.owner, latency_ms)
    return BlockSums(
        segments.total(latency_ms),
        nothing,
        nothing,
        nothing,
        segments.total(weight_megabytes(segments.features.logs)),
        segments.total(np.ones(len(segments.owner))),
        least_ms,
    )
