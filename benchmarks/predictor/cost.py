"""Size and speed of a predictor, beside a pickled random forest per kind of kernel, as nn-Meter ships."""

from __future__ import annotations

import pickle
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestRegressor

from benchmarks.predictor.baselines import TREES, nn_meter_features
from benchmarks.predictor.product import PRODUCT
from benchmarks.predictor.splits import FloatArray
from netlathe.archspace.configurations import graphs_of
from netlathe.archspace.graph import Graph
from netlathe.predictor.predictor import LatencyPredictor
from scripts import latency_tables as tables

REPEATS = 7
UNSEEN = 1000
HEADER = ("data", "method", "file kB", "load ms", "first prediction ms", "graphs per second")
WORDS = 2
"""The first columns hold words, the others numbers."""


class Cost(NamedTuple):
    """Times are the processor's, medians over REPEATS."""

    data: str
    method: str
    file_kb: float
    load_ms: float
    first_ms: float
    """One graph that was never seen, alone."""
    per_second: float
    """Graphs that were never seen, all at once, features included."""

    def cells(self) -> list[str]:
        """The columns of HEADER."""
        sizes = [f"{self.file_kb:,.0f}", f"{self.load_ms:.1f}", f"{self.first_ms:.2f}", f"{self.per_second:,.0f}"]
        return [self.data, self.method, *sizes]


class Model(Protocol):
    """Common interface of both predictors."""

    def predict(self, items: Sequence[Graph], /) -> FloatArray: ...


class ForestPerKind:
    """One forest of 100 trees on raw ms for each kind of kernel. Kinds without a forest cannot be predicted."""

    def __init__(self, forests: dict[str, RandomForestRegressor]) -> None:
        self.forests = forests

    @classmethod
    def fit(cls, graphs: Sequence[Graph], latency_ms: FloatArray) -> ForestPerKind:
        kinds, features = np.array([_kind(graph) for graph in graphs]), nn_meter_features(graphs)
        forests = {}
        for kind in np.unique(kinds):
            forest = RandomForestRegressor(TREES, random_state=0)
            forests[str(kind)] = forest.fit(features[kinds == kind], latency_ms[kinds == kind])
        return cls(forests)

    def predict(self, graphs: Sequence[Graph]) -> FloatArray:
        kinds, features = np.array([_kind(g) for g in graphs]), nn_meter_features(graphs)
        result = np.full(len(graphs), np.nan)
        for kind in np.unique(kinds):
            result[kinds == kind] = self.forests[kind].predict(features[kinds == kind])
        return result


def _kind(graph: Graph) -> str:
    return "+".join(node.op.kind for node in graph.nodes)


def measure_costs(folder: Path) -> list[Cost]:
    """On all of blocks_pixel1_pixel4 and of pixel4_gpu_kernels, as far as the folder holds them."""
    costs = []
    if tables.exists(folder, "blocks_pixel1_pixel4"):
        blocks = tables.pixel1_pixel4_blocks(folder)
        costs += _compare("MBConv blocks", blocks.graphs, blocks.frame.pixel4_ms.to_numpy(), _unseen_blocks)
    if tables.exists(folder, "pixel4_gpu_kernels"):
        kernels = tables.pixel4_gpu_kernels(folder)
        costs += _compare("GPU kernels", kernels.graphs, kernels.frame.latency_ms.to_numpy(), _unseen_kernels)
    return costs


def _sizes(seed: int) -> dict[str, NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    low, high = {"height": 4, "cin": 8, "cout": 8}, {"height": 128, "cin": 128, "cout": 128}
    return {name: rng.integers(low[name], high[name], UNSEEN) for name in low}


def _unseen_blocks(seed: int) -> list[Graph]:
    return graphs_of(
        pd.DataFrame({**_sizes(seed), "op": "mbconv", "kernel": 3, "expand": 4, "activation": "hard_swish"})
    )


def _unseen_kernels(seed: int) -> list[Graph]:
    return graphs_of(pd.DataFrame({**_sizes(seed), "op": "conv", "kernel": 3, "fused": "relu"}))


def _compare(
    data: str, graphs: Sequence[Graph], latency_ms: FloatArray, unseen: Callable[[int], list[Graph]]
) -> list[Cost]:
    product = LatencyPredictor().fit(graphs, latency_ms)
    forests = ForestPerKind.fit(graphs, latency_ms)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "predictor.json"
        product.save(path)
        own = _cost(data, PRODUCT, path.stat().st_size, lambda: LatencyPredictor.load(path), unseen)
    stored = pickle.dumps(forests)  # the file that nn-Meter would keep: made and read in memory only
    name = f"{len(forests.forests)} forests, pickled"
    return [own, _cost(data, name, len(stored), lambda: pickle.loads(stored), unseen)]  # noqa: S301


def _cost(data: str, method: str, size: int, load: Callable[[], Model], unseen: Callable[[int], list[Graph]]) -> Cost:
    model = load()
    model.predict(unseen(0))  # imports what it needs
    batches = [unseen(seed) for seed in range(1, REPEATS + 1)]
    load_s = _median_s([load] * REPEATS)
    first_s = _median_s([partial(model.predict, batch[:1]) for batch in batches])
    all_s = _median_s([partial(model.predict, batch[1:]) for batch in batches])
    return Cost(data, method, size / 1e3, 1e3 * load_s, 1e3 * first_s, (UNSEEN - 1) / all_s)


def _median_s(calls: Sequence[Callable[[], object]]) -> float:
    times = []
    for call in calls:
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return statistics.median(times)
