"""Honest cross-validation: a configuration that is predicted was not in the records fitted on, under any name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from archspace.graph import Graph
from archspace.ops import Conv2d
from archspace.records import LatencyRecord, Setup, Status, noise_floor, single_setup
from predictor.block_model import ResidualChoice
from predictor.errors import PredictorError, TooFewRecordsError
from predictor.features import FloatArray
from predictor.folds import configuration_folds
from predictor.intervals import bounds
from predictor.metrics import Metrics, measure
from predictor.network_model import fit_network_model
from predictor.predictor import LatencyPredictor, network_sums

Split = Literal["configuration", "kernel"]


@dataclass(frozen=True)
class Predictions:
    """Records with what was predicted for them before they were seen; all arrays of shape (n,), in ms."""

    names: tuple[str, ...]
    measured_ms: FloatArray
    predicted_ms: FloatArray
    low_ms: FloatArray
    high_ms: FloatArray

    @property
    def metrics(self) -> Metrics:
        return measure(self.measured_ms, self.predicted_ms, self.low_ms, self.high_ms)


@dataclass(frozen=True)
class CrossValidation:
    """What cross_validate found."""

    split: Split
    setup: Setup
    blocks: Predictions
    networks: Predictions | None
    """Each from the blocks and the other networks. None below two networks."""
    not_predicted: tuple[str, ...]
    """Blocks with an op that no block of the other folds has, so that nothing honest can be said."""
    noise_floor: float | None
    """Relative difference between two halves of the measurements themselves."""


def cross_validate(
    records: Sequence[LatencyRecord],
    folds: int = 10,
    *,
    split: Split = "configuration",
    residual: ResidualChoice = "auto",
    coverage: float = 0.9,
    seed: int = 0,
) -> CrossValidation:
    """Predicts every measured block from the others, and every measured network from the blocks and other networks.

    "configuration" deals distinct graphs at random into `folds`; "kernel" leaves out one depthwise kernel size at a
    time, a true extrapolation, and predicts only blocks with a depthwise convolution. Raises RecordError when setups
    mix, TooFewRecordsError when a fold leaves too few blocks, PredictorError when a split is impossible.
    """
    setup = single_setup(records)
    measured = [r for r in records if r.status is Status.OK and r.graph.nodes]
    blocks = [r for r in measured if r.kind == "block"]
    parts, unpredictable = [], []
    for test in _test_folds(blocks, folds, split, seed):
        held_out = set(test.tolist())
        train = [r for i, r in enumerate(blocks) if i not in held_out]
        predictor = LatencyPredictor(residual, seed).fit(train)
        chosen = [blocks[i] for i in test]
        known = predictor.knows([r.graph for r in chosen])
        unpredictable += [r.name for r, ok in zip(chosen, known, strict=True) if not ok]
        parts.append(_predict(predictor, [r for r, ok in zip(chosen, known, strict=True) if ok], coverage))
    together = _joined(parts)
    if not together.names:
        raise PredictorError("no block shares its ops with the blocks of other folds; profile more blocks of each kind")
    networks = [r for r in measured if r.kind == "network"]
    whole = _leave_networks_out(blocks, networks, residual, coverage, seed) if len(networks) > 1 else None
    return CrossValidation(split, setup, together, whole, tuple(unpredictable), noise_floor(measured))


def _test_folds(blocks: Sequence[LatencyRecord], folds: int, split: Split, seed: int) -> list[NDArray[np.intp]]:
    if folds < 2:
        raise PredictorError(f"cross-validation needs at least 2 folds, got {folds}")
    if not blocks:
        raise TooFewRecordsError("there are no measured blocks to validate on; profile some")
    if split == "configuration":
        return configuration_folds([r.graph.key for r in blocks], folds, seed)
    if split != "kernel":
        raise PredictorError(f"split must be configuration or kernel, got {split!r}")
    kernels = np.array([depthwise_kernel(r.graph) for r in blocks])
    sizes = [k for k in np.unique(kernels) if k]
    if len(sizes) < 2:
        raise PredictorError("the blocks have one depthwise kernel size, so none can be left out; use configuration")
    return [np.flatnonzero(kernels == size) for size in sizes]


def depthwise_kernel(graph: Graph) -> int:
    """The largest depthwise kernel in a graph; 0 without any."""
    steps = ((node.op, inputs[0]) for node, inputs, _ in graph.steps())
    return max((max(op.kernel) for op, x in steps if isinstance(op, Conv2d) and op.is_depthwise(x)), default=0)


def _predict(predictor: LatencyPredictor, records: Sequence[LatencyRecord], coverage: float) -> Predictions:
    graphs = [r.graph for r in records]
    low, high = predictor.predict_interval(graphs, coverage)
    measured = np.array([r.latency_ms for r in records])
    return Predictions(tuple(r.name for r in records), measured, predictor.predict(graphs), low, high)


def _joined(parts: Sequence[Predictions]) -> Predictions:
    def column(name: str) -> FloatArray:
        return np.concatenate([getattr(part, name) for part in parts])

    names = tuple(name for part in parts for name in part.names)
    return Predictions(names, *(column(c) for c in ("measured_ms", "predicted_ms", "low_ms", "high_ms")))


def _leave_networks_out(
    blocks: Sequence[LatencyRecord],
    networks: Sequence[LatencyRecord],
    residual: ResidualChoice,
    coverage: float,
    seed: int,
) -> Predictions:
    """The block model never sees a network, so fitting it once is as honest as fitting it for each."""
    predictor = LatencyPredictor(residual, seed).fit(blocks)
    sums = network_sums(networks, predictor.blocks_, predictor.errors_, coverage)
    measured = np.array([r.latency_ms for r in networks])
    predicted, low, high = (np.empty(len(networks)) for _ in range(3))
    for i in range(len(networks)):
        others = np.delete(np.arange(len(networks)), i)
        model, one = fit_network_model(sums.take(others), measured[others]), sums.take([i])
        predicted[i] = model.predict(one)[0]
        ends = bounds(predicted[[i]], model.half_widths(one, coverage))
        low[i], high[i] = ends[0][0], ends[1][0]
    return Predictions(tuple(r.name for r in networks), measured, predicted, low, high)
