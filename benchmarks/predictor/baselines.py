"""Baselines: how latency is commonly predicted, each in its plain form.

A baseline is a function (split, seed) -> ms of the split's test items. Where kernels were measured, a network is the
sum of its kernels, as in nn-Meter, times a fitted ratio; where only networks were, their kernels' features are added up
or averaged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from scipy.optimize import nnls
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import RidgeCV

from benchmarks.predictor.splits import FloatArray, Item, Known, Split
from netlathe.archspace.graph import Graph
from netlathe.archspace.ops import OPS, Conv2d, Pool2d

Baseline = Callable[[Split, int], FloatArray]
"""ms of the split's test items, shape (n,), or (3, n): with the ends of their 90 % intervals."""
Model = Callable[[Sequence[Item]], FloatArray]
Fit = Callable[[Sequence[Item], FloatArray], Model]
TREES = 100
_KINDS = ("depthwise", *OPS)
_SIZES = 7
"""Features that are averaged over a network; the rest are added up."""
_ALPHAS = np.logspace(-3, 3, 13)


def nn_meter_features(items: Sequence[Item]) -> FloatArray:
    """nn-Meter's (Zhang et al., 2021) configuration of each kernel, shape (n, features): HW, Cin, Cout, kernel, stride;
    for blocks also expansion and gates; FLOPs, parameters; then which op it is and how many are fused."""
    return np.array([_item_features(item) for item in items])


def _item_features(item: Item) -> FloatArray:
    if isinstance(item, Graph):
        return _graph_features(item)
    pieces = np.array([_graph_features(piece) for piece in item])
    return np.concatenate([pieces[:, :_SIZES].mean(axis=0), pieces[:, _SIZES:].sum(axis=0)])


def _cached_by_key(function: Callable[[Graph], FloatArray]) -> Callable[[Graph], FloatArray]:
    """As lru_cache, but a graph's key is ready at hand, and its hash is not."""
    cache: dict[str, FloatArray] = {}

    def cached(graph: Graph) -> FloatArray:
        if graph.key not in cache:
            cache[graph.key] = function(graph)
        return cache[graph.key]

    return cached


@_cached_by_key
def _graph_features(graph: Graph) -> FloatArray:
    x, y = graph.inputs[0], graph.output_shape
    side, out = math.sqrt(math.prod(x[1:-1])), math.sqrt(math.prod(y[1:-1]))
    kernel = max((max(node.op.kernel) for node in graph.nodes if isinstance(node.op, Conv2d | Pool2d)), default=1)
    widest = max(shape[-1] for shape in graph.shapes)
    gates = sum(node.op.kind == "mul" for node in graph.nodes)
    first = graph.nodes[0].op
    kind = "depthwise" if isinstance(first, Conv2d) and first.is_depthwise(x) else first.kind
    sizes = [side, x[-1], y[-1], kernel, side / out, widest / x[-1], gates]
    return np.array([*sizes, 2 * graph.macs, graph.parameters, len(graph.nodes), *(kind == k for k in _KINDS)])


@_cached_by_key
def _work(graph: Graph) -> FloatArray:
    """MACs by kind of convolution, bytes moved, ops started, and 1."""
    work = dict.fromkeys(("dense", "pointwise", "depthwise", "grouped", "linear"), 0)
    for node, inputs, _ in graph.steps():
        kind = "linear"
        if isinstance(node.op, Conv2d):
            kind = "pointwise" if node.op.kernel == (1, 1) else "dense"
            kind = "grouped" if node.op.groups > 1 else kind
            kind = "depthwise" if node.op.is_depthwise(inputs[0]) else kind
        work[kind] += node.op.macs(*inputs)
    return np.array([*work.values(), graph.bytes_read() + graph.bytes_written(), len(graph.nodes), 1.0])


def work_of(items: Sequence[Item]) -> FloatArray:
    """Work of each item, shape (n, 8); a network is the sum of its pieces."""
    pieces = [(item,) if isinstance(item, Graph) else item for item in items]
    return np.array([sum(_work(piece) for piece in parts) for parts in pieces])


def _fit_predict(split: Split, fit: Fit) -> FloatArray:
    """ms of the split's test items. Where kernels were measured, networks are sums of them times the median ratio that
    the measured networks show."""
    kernels = [i for i, item in enumerate(split.train) if isinstance(item, Graph)]
    networks = [i for i, item in enumerate(split.train) if not isinstance(item, Graph)]
    if not kernels or not networks:
        return fit(split.train, split.train_ms)(split.test)
    kernel_ms = fit([split.train[i] for i in kernels], split.train_ms[kernels])

    def sums(items: Sequence[Item]) -> FloatArray:
        pieces = [(item,) if isinstance(item, Graph) else item for item in items]
        owner = np.repeat(np.arange(len(items)), [len(parts) for parts in pieces])
        return np.bincount(owner, kernel_ms([piece for parts in pieces for piece in parts])).astype(np.float64)

    ratio = np.median(split.train_ms[networks] / sums([split.train[i] for i in networks]))
    return np.asarray(ratio * sums(split.test))


def forest(split: Split, seed: int) -> FloatArray:
    """A random forest of 100 trees on raw ms, as in nn-Meter."""

    def fit(items: Sequence[Item], latency_ms: FloatArray) -> Model:
        model = RandomForestRegressor(TREES, random_state=seed).fit(nn_meter_features(items), latency_ms)
        return lambda unseen: np.asarray(model.predict(nn_meter_features(unseen)))

    return _fit_predict(split, fit)


def xgboost(split: Split, seed: int) -> FloatArray:
    """XGBoost with its default settings on the forest's features and raw ms."""
    from xgboost import XGBRegressor

    def fit(items: Sequence[Item], latency_ms: FloatArray) -> Model:
        model = XGBRegressor(n_jobs=1, random_state=seed).fit(nn_meter_features(items), latency_ms)
        return lambda unseen: np.asarray(model.predict(nn_meter_features(unseen)), dtype=float)

    return _fit_predict(split, fit)


def roofline(split: Split, seed: int) -> FloatArray:
    """Non-negative least squares of work in relative error: no regressor, no prior, no robustness."""

    def fit(items: Sequence[Item], latency_ms: FloatArray) -> Model:
        design = work_of(items) / latency_ms[:, None]
        scale = np.maximum(np.abs(design).max(axis=0), 1e-300)
        rates = nnls(design / scale, np.ones(len(design)), maxiter=1000)[0] / scale
        return lambda unseen: np.asarray(work_of(unseen) @ rates)

    return _fit_predict(split, fit)


def ridge(split: Split, seed: int) -> FloatArray:
    """Ridge from the log latencies of known devices to the new one's; from one known device alone, ridge on the log
    ratio to it. What the known devices have not measured, forests fitted on what they have fill in."""
    assert split.known is not None
    before, after = (np.log(_known_ms(split.known, items, seed)) for items in (split.train, split.test))
    if before.shape[1] > 1:
        model = RidgeCV(_ALPHAS).fit(before, np.log(split.train_ms))
        return np.asarray(np.exp(model.predict(after)))
    shapes, unseen = (np.log1p(nn_meter_features(items)[:, : _SIZES + 2]) for items in (split.train, split.test))
    mean, deviation = shapes.mean(axis=0), shapes.std(axis=0) + 1e-9
    model = RidgeCV(_ALPHAS).fit((shapes - mean) / deviation, np.log(split.train_ms) - before[:, 0])
    return np.asarray(np.exp(after[:, 0] + model.predict((unseen - mean) / deviation)))


def _known_ms(known: Known, items: Sequence[Item], seed: int) -> FloatArray:
    """Latencies on the known devices, shape (n, devices)."""
    measured = [known.has(item) for item in items]
    latency_ms = np.empty((len(items), known.latency_ms.shape[1]))
    latency_ms[measured] = known.lookup([item for item in items if known.has(item)])
    if not all(measured):
        features = nn_meter_features([item for item in items if not known.has(item)])
        latency_ms[~np.array(measured)] = np.exp(_known_forest(known, seed).predict(features))
    return latency_ms


@lru_cache(maxsize=8)
def _known_forest(known: Known, seed: int) -> RandomForestRegressor:
    model = RandomForestRegressor(TREES, random_state=seed, min_samples_leaf=2)
    return model.fit(nn_meter_features(known.items), np.log(known.latency_ms))


BASELINES: dict[str, Baseline] = {"forest": forest, "XGBoost": xgboost, "roofline": roofline, "ridge": ridge}
