"""Networks cut into their blocks, and sums of the block model over these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from netlathe.archspace.graph import Graph
from netlathe.archspace.kernels import Fusion, is_kernel, kernels_of
from netlathe.predictor.blocks.block_model import BlockModel
from netlathe.predictor.features.item_features import Features, Item, features_of, weight_megabytes
from netlathe.predictor.features.samples import is_network
from netlathe.predictor.intervals import Conformal
from netlathe.predictor.numbers import FlagArray, FloatArray

Unit = Literal["block", "cpu_kernel", "gpu_kernel", "network"]
"""Unit that a model was fitted on, and so what a network is cut into before it is predicted: its blocks; its kernels,
into which blocks are cut as well; or nothing."""
_FUSIONS: dict[Unit, Fusion] = {"cpu_kernel": "cpu", "gpu_kernel": "gpu"}
"""Rule by which a block is known to be a kernel of each unit."""


class Segments(NamedTuple):
    """The blocks of n items; a graph whose nodes have no scopes is one block, one without nodes has none."""

    features: Features
    owner: NDArray[np.intp]
    """Index of the item that each block belongs to, shape (blocks,)."""
    is_network: FlagArray
    """Whether each item was cut, so that slope and offset apply, shape (n,)."""

    def total(self, values: FloatArray) -> FloatArray:
        """Sum over each item's blocks, shape (n,), of a value per block."""
        return np.asarray(np.bincount(self.owner, values, len(self.is_network)), dtype=float)


class BlockSums(NamedTuple):
    """Sums of the block model over the blocks of n items; each of shape (n,)."""

    latency_ms: FloatArray
    """Sum of the blocks' latencies in ms."""
    scale: FloatArray
    """Mean of the blocks' scales (see intervals.py), each block weighing as much as it takes time."""
    doubt: FloatArray
    """Mean of the log errors to allow for rates that were not fitted, weighed likewise."""
    half_width: FloatArray
    """Half-width of the sum's interval in logarithms, when the blocks' errors are independent."""
    weight_mb: FloatArray
    """MB of weights of all blocks."""
    blocks: FloatArray
    """Number of blocks."""
    least_ms: FloatArray
    """Latency of the fastest block in ms; infinite where there is none."""

    def take(self, indices: Any) -> BlockSums:
        return BlockSums(*(values[indices] for values in self))


def segments_of(items: Sequence[Item], unit: Unit = "block", fusion: Fusion = "cpu") -> Segments:
    """Blocks of each item, cut into what the unit says; `fusion` is the rule of the runtime."""
    cut = [unit != "network" and is_network(item) for item in items]
    parts = [_cut(item, unit, fusion, is_cut) for item, is_cut in zip(items, cut, strict=True)]
    parts = [[piece for piece in part if isinstance(piece, tuple) or piece.nodes] for part in parts]
    owner = np.repeat(np.arange(len(items)), np.array([len(part) for part in parts], dtype=int))
    features = features_of([piece for part in parts for piece in part], fusion)
    return Segments(features, owner, np.array(cut, dtype=bool))


def _cut(item: Item, unit: Unit, fusion: Fusion, is_cut: bool) -> Sequence[Item]:
    if unit in _FUSIONS:
        pieces = item if isinstance(item, tuple) else (item,)
        return [kernel for piece in pieces for kernel in kernels_of(piece, fusion_in(unit, fusion))]
    if not is_cut:
        return [item]
    return item if isinstance(item, tuple) else item.segments()


def fusion_in(unit: Unit, fusion: Fusion) -> Fusion:
    """The rule by which a model of that unit cuts kernels, on a runtime of that `fusion`."""
    own = _FUSIONS.get(unit, fusion)
    return own if "gpu" in (fusion, own) else fusion


def unit_of_blocks(blocks: Sequence[Item], delegate: str = "none") -> Unit:
    """Unit of measured blocks: kernels, where each of them is a single one by the rule of what ran them; else
    blocks."""
    on_gpu = "gpu" in delegate.lower()
    for unit, fusion in sorted(_FUSIONS.items(), key=lambda rule: (rule[1] == "gpu") != on_gpu):
        if all(isinstance(block, Graph) and is_kernel(block, fusion) for block in blocks):
            return unit
    return "block"


def block_sums(segments: Segments, model: BlockModel, errors: Conformal, coverage: float) -> BlockSums:
    """Sums over the blocks of n items, with what intervals of that coverage need. `errors` are the model's held-out
    ones."""
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
    """Sums over the blocks of n items, with zeros in place of what intervals need."""
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
