"""Latencies of networks of several precisions, from a predictor of each on the same device."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from netlathe.archspace.graph import Graph
from netlathe.archspace.precisions import BORDERS, Precision, is_mixed, precisions_of
from netlathe.predictor.errors import PredictorError
from netlathe.predictor.intervals import USUAL_COVERAGE, check_coverage
from netlathe.predictor.networks.latency_model import Predicted
from netlathe.predictor.numbers import FloatArray
from netlathe.predictor.predictor import LatencyPredictor


class MixedPredictor:
    """Predicts networks whose parts compute in float32 or int8 (archspace/precisions.py), on one device.

    Float32 parts are priced by the predictor of float32, int8 parts and what converts by that of int8. A network's
    latency is their sum, in which what a network costs beside its blocks counts once: that of each dtype by its share
    of the MACs, so that networks of one dtype are what its predictor says. Raises PredictorError where the predictors
    are of other dtypes, or of setups that differ in more.
    """

    def __init__(self, float32: LatencyPredictor, int8: LatencyPredictor) -> None:
        found = (float32.setup_.dtype, int8.setup_.dtype)
        if found != ("float32", "int8"):
            raise PredictorError(f"a predictor of float32 and one of int8 are needed, got {' and '.join(found)}")
        if dataclasses.replace(int8.setup_, dtype="float32") != float32.setup_:
            raise PredictorError(
                f"the predictors are of different setups: {float32.setup_} and {int8.setup_}; fit both on profiles of "
                "one device, runtime and number of threads"
            )
        self.float32, self.int8 = float32, int8
        self.setup_ = float32.setup_

    def predict(self, graphs: Sequence[Graph]) -> FloatArray:
        """Latencies in ms, shape (n,), of graphs as mixed() makes them. Raises UnknownOpError as LatencyPredictor does,
        and PredictorError for int8 weights beside float32 values, which neither predictor knows."""
        return self.predict_with_interval(graphs).latency_ms

    def predict_with_interval(self, graphs: Sequence[Graph], coverage: float = USUAL_COVERAGE) -> Predicted:
        """Latencies in ms with intervals of that coverage, each of shape (n,). The parts' errors are taken to go
        together, so that the bounds add up. Raises as predict does, and PredictorError for a coverage that is none."""
        check_coverage(coverage)
        found = np.array([self._priced(graph, coverage) for graph in graphs]).reshape(-1, 3)
        return Predicted(*found.T)

    def _priced(self, graph: Graph, coverage: float) -> FloatArray:
        """(latency, low, high) in ms of one graph."""
        wide, narrow = _parts(graph)
        if not narrow or not wide:
            model = self.int8 if narrow else self.float32
            return np.array(model.predict_with_interval([graph], coverage))[:, 0]
        of_wide = np.array(self.float32.predict_with_interval([wide], coverage))[:, 0]
        of_narrow = np.array(self.int8.predict_with_interval([narrow], coverage))[:, 0]
        share = _macs(wide) / max(_macs(wide) + _macs(narrow), 1)
        beside_ms = self.float32.network_offset_ms_ * (share - 1) - self.int8.network_offset_ms_ * share
        latency_ms, low_ms, high_ms = of_wide + of_narrow + beside_ms
        if latency_ms < 0:
            raise PredictorError("these predictors give a latency below zero: fit them again")
        return np.array([latency_ms, max(low_ms, 0.0), high_ms])


def _macs(parts: Sequence[Graph]) -> int:
    return sum(part.macs for part in parts)


def _parts(graph: Graph) -> tuple[tuple[Graph, ...], tuple[Graph, ...]]:
    """The parts of a graph that compute in float32, and those in int8 with what converts; both cut into blocks. Raises
    PredictorError for int8 weights alone."""
    precisions = precisions_of(graph) if is_mixed(graph) or graph.has_dtypes else {}
    weights = next((name for name, found in precisions.items() if found is Precision.INT8_WEIGHTS), None)
    if weights is not None:
        raise PredictorError(
            f"node {weights!r:.80} has int8 weights and float32 values, of which nothing was measured: time the file "
            "itself, or give that part another precision"
        )
    is_narrow = [isinstance(n.op, BORDERS) or precisions.get(n.name) is Precision.INT8 for n in graph.nodes]
    changes = [i for i in range(1, len(is_narrow)) if is_narrow[i] is not is_narrow[i - 1]]
    parts: dict[bool, list[Graph]] = {False: [], True: []}
    for start, stop in itertools.pairwise([0, *changes, len(graph.nodes)]):
        if start < stop:
            parts[is_narrow[start]] += graph.subgraph(start, stop).segments()
    return tuple(parts[False]), tuple(parts[True])
