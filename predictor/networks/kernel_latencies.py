"""The latency of a network kernel by kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from netlathe.archspace.graph import Graph
from netlathe.archspace.kernels import Fusion, named_kernels
from netlathe.predictor.features.item_features import LOG_FEATURES, features_of
from netlathe.predictor.features.op_work import COLUMN
from netlathe.predictor.intervals import USUAL_COVERAGE
from netlathe.predictor.networks.latency_model import LatencyModel, Work
from netlathe.predictor.numbers import FloatArray


class KernelLatencies(NamedTuple):
    """The k kernels of a graph, in the order in which they start, and what each of them adds to its latency."""

    names: tuple[tuple[str, ...], ...]
    """Names of each kernel's nodes in the graph, (k,)."""
    graphs: tuple[Graph, ...]
    """Each kernel as a graph of its own, (k,)."""
    latency_ms: FloatArray
    """Latency that each kernel adds, in ms, shape (k,)."""
    total_ms: float
    """Latency of the graph, which is that of its kernels and of what no kernel takes: the call itself."""
    limits: FloatArray
    """Parts of each kernel's latency that it would take at the fitted peak rate, at the fitted bandwidth, and to be
    launched, shape (k, 3); NaN where the model does not tell."""

    @property
    def rest_ms(self) -> float:
        """Latency of the graph beside its kernels, in ms; below zero where they take less together than alone."""
        return self.total_ms - float(self.latency_ms.sum())


def kernel_latencies(model: LatencyModel, graph: Graph) -> KernelLatencies:
    """The latency that each kernel adds to a graph's, as the model prices it.

    Where the model was fitted on kernels, it prices each. Where on blocks or networks, it prices these, and what each
    takes is shared among its kernels by their work. Raises UnknownOpError.
    """
    work = model.work
    pieces = graph.segments() if work.unit == "block" and graph.is_network else [graph]
    kernels = [named_kernels(piece, work.fusion) for piece in pieces]
    names = tuple(found for piece in kernels for found, _ in piece)
    flat = [kernel for piece in kernels for _, kernel in piece]
    owner = np.repeat(np.arange(len(pieces)), [len(piece) for piece in kernels])
    total_ms = float(model.predict([graph])[0])
    all_priced = model.assuming()  # what may be a small part of a network may be all of one of its kernels
    if not flat:
        latency_ms = np.zeros(0)
    elif work.rates is None or work.unit in ("cpu_kernel", "gpu_kernel"):
        latency_ms = _priced(all_priced, flat, in_network=graph.is_network)
    else:
        piece_ms = _priced(all_priced, pieces, in_network=graph.is_network) if len(pieces) > 1 else np.array([total_ms])
        latency_ms = piece_ms[owner] * _shares(work.rates, flat, work.fusion, owner)
    return KernelLatencies(names, tuple(flat), latency_ms, total_ms, _limits(work, flat, latency_ms))


def _priced(model: LatencyModel, items: Sequence[Graph], *, in_network: bool) -> FloatArray:
    """Latencies in ms, shape (n,), of parts of a network, or of parts of what is none."""
    return model.added(items, USUAL_COVERAGE).latency_ms if in_network else model.predict(items)


def _shares(rates: FloatArray, kernels: Sequence[Graph], fusion: Fusion, owner: NDArray[np.intp]) -> FloatArray:
    """Share of each of k kernels in the work of its piece, shape (k,): of the call itself, as of the rest."""
    terms = features_of(kernels, fusion).terms
    terms[:, COLUMN["calls"]] = 0.0
    work_ms = terms @ rates
    return np.asarray(work_ms / np.maximum(np.bincount(owner, work_ms)[owner], np.finfo(float).tiny))


def _limits(work: Work, kernels: Sequence[Graph], latency_ms: FloatArray) -> FloatArray:
    """KernelLatencies.limits."""
    if work.roofline is None or not kernels:
        return np.full((len(kernels), 3), np.nan)
    logs = np.expm1(features_of(kernels, work.fusion).logs)
    macs, values, weights = (logs[:, LOG_FEATURES.index(name)] for name in ("macs", "bytes", "weights"))
    launch_ms = np.full(len(kernels), np.nan if work.roofline.launch_ms is None else work.roofline.launch_ms)
    limits_ms = [work.roofline.compute_ms(macs), work.roofline.memory_ms(values + weights), launch_ms]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.stack(limits_ms, axis=1) / latency_ms[:, None])
