"""Features of graphs and of networks in pieces: work terms for the physics, sizes of the whole and of the ops for its
residual. Everything here is read off the Graph."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from netlathe.archspace.graph import Graph
from netlathe.archspace.kernels import BLOCKS, Fusion
from netlathe.archspace.ops import DType, Op, Shape
from netlathe.predictor.errors import PredictorError
from netlathe.predictor.features.op_work import (
    COLUMN,
    LARGEST,
    OP_SIZES,
    SUMMED,
    OpFacts,
    launched,
    macs_of_classes,
    op_columns,
    op_facts,
    op_rows,
    op_sizes,
)
from netlathe.predictor.features.op_work import TERMS as TERMS
from netlathe.predictor.numbers import FloatArray
from netlathe.predictor.sparse_rows import SparseRows

Item = Graph | tuple[Graph, ...]
"""A graph, or a network in pieces whose order is known and whose connections are not."""

LOG_FEATURES: tuple[str, ...] = (
    "macs", "bytes", "weights", "launches", "side", "cin", "cout", "stride", "widest", "kernel",
    "depthwise_share", "gated", "residual", "ragged",
)  # fmt: skip
"""Names of the log features: logarithms of sizes and ratios, and flags."""


def known_macs_share(item: Item, unknown: Collection[str]) -> float:
    """Part of an item's MACs, from 0 to 1, that are of no op class in `unknown`; 1 where there are no MACs."""
    macs = sum(piece.macs for piece in _pieces(item))
    if not macs or not unknown:
        return 1.0
    return 1 - sum(macs_of_classes(piece, unknown) for piece in _pieces(item)) / macs


def weight_megabytes(logs: FloatArray) -> FloatArray:
    """MB of weights and biases per graph, shape (n,), back from its log features (n, features)."""
    return np.asarray(np.expm1(logs[:, LOG_FEATURES.index("weights")]) / 1e6)


class Ops(NamedTuple):
    """The m different ops of some items."""

    classes: NDArray[np.intp]
    """Index of each op's class in OP_CLASSES; shape (m,)."""
    sizes: FloatArray
    """OP_SIZES of each op in octaves, shape (m, len(OP_SIZES))."""
    terms: FloatArray
    """The work terms of one run of the op, shape (m, len(TERMS))."""
    names: tuple[str, ...] = ()
    """Names of the ops in errors: of a foreign op its own name."""


class Features(NamedTuple):
    """Features of n items: work terms (n, terms), log features (n, features), and how often each of the `ops`
    runs in it, a sparse matrix of shape (n, ops)."""

    terms: FloatArray
    logs: FloatArray
    counts: SparseRows
    ops: Ops

    def take(self, indices: NDArray[Any]) -> Features:
        """The features of these items, indices of shape (m,)."""
        return Features(self.terms[indices], self.logs[indices], self.counts.take(indices), self.ops)


class _Steps:
    """Table of all different ops met so far, and the ops of each graph."""

    def __init__(self, fusion: Fusion) -> None:
        self._fusion: Fusion = fusion
        self._block = BLOCKS.get(fusion, 0)
        self._index: dict[tuple[Op, tuple[Shape, ...], tuple[DType, ...]], int] = {}
        self._facts: list[OpFacts] = []
        self._names = [""]
        self._by_graph: dict[int, list[int]] = {}

    def of(self, graph: Graph) -> list[int]:
        """Numbers of a graph's ops. Graphs are known by identity, as hashing one takes longer than walking it: they
        must outlive this object."""
        found = self._by_graph.get(id(graph))
        if found is None:
            found = self._by_graph[id(graph)] = [self._number(*step) for step in launched(graph, self._fusion)]
        return found

    def _number(self, op: Op, inputs: tuple[Shape, ...], results: tuple[Shape, ...], dtypes: tuple[DType, ...]) -> int:
        """Number of an op, from 1: op 0 is no work, so that the identity is not without any."""
        step = (op, inputs, dtypes)
        number = self._index.get(step)
        if number is None:
            self._names.append(op.name)
            self._facts.append(op_facts(op, inputs, results, dtypes, self._block))
            number = self._index[step] = len(self._facts)
        return number

    def tables(self) -> tuple[FloatArray, Ops]:
        """op_rows of each op, op 0 first, and all of the ops."""
        columns = op_columns(self._facts)
        rows = np.concatenate([np.zeros((1, len(SUMMED) + len(LARGEST))), op_rows(columns)])
        classes = np.concatenate([[0], columns.op_class]).astype(np.intp)
        sizes = np.concatenate([np.zeros((1, len(OP_SIZES))), op_sizes(columns)])
        return rows, Ops(classes, sizes, rows[:, : len(TERMS)], tuple(self._names))


def _pieces(item: Item) -> tuple[Graph, ...]:
    pieces = item if isinstance(item, tuple) else (item,)
    if not pieces:
        raise PredictorError("a network in pieces has no pieces; leave it out")
    return pieces


def features_of(items: Sequence[Item], fusion: Fusion = "cpu") -> Features:
    """Features of each item, a graph or a network in pieces, whose work is the sum over the pieces and counts as one
    call; `fusion` says what the runtime starts as one op. Raises UnknownOpError for an op without work terms."""
    steps = _Steps(fusion)
    lists = [[0, *chain.from_iterable(map(steps.of, _pieces(item)))] for item in items]
    rows, ops = steps.tables()
    flat = np.fromiter(chain.from_iterable(lists), dtype=np.intp)
    ends = np.cumsum([0, *map(len, lists)])
    counts = SparseRows(np.ones(len(flat)), flat, ends, len(rows))
    sums = counts @ rows[:, : len(SUMMED)]
    terms = sums[:, : len(TERMS)]
    terms[:, COLUMN["calls"]] = terms[:, COLUMN["launches"]] > 0
    largest = np.maximum.reduceat(rows[flat, len(SUMMED) :], ends[:-1])
    logs = _logs(items, terms[:, COLUMN["launches"]], sums[:, len(TERMS) :], largest)
    return Features(terms, logs, counts, ops)


def _logs(items: Sequence[Item], launches: FloatArray, sums: FloatArray, largest: FloatArray) -> FloatArray:
    """Log features (n, features) from the sums and maxima that op_rows names behind the work terms."""
    shapes = [(pieces[0].inputs[0], pieces[-1].output_shape) for pieces in map(_pieces, items)]
    # log side and channels where it starts and where it ends; (N, C) is an image of one pixel
    sides = np.log([[math.prod(x[1:-1]), math.prod(y[1:-1])] for x, y in shapes]).reshape(-1, 2) / 2
    channels = np.array([[x[-1], y[-1]] for x, y in shapes]).reshape(-1, 2)
    all_macs, all_moved, all_weights, depthwise_macs, aligned_macs = sums.T
    kernel, widest, gated, residual = largest.T
    one_mac = np.maximum(all_macs, 1)
    logs = (
        np.log1p(all_macs), np.log1p(all_moved), np.log1p(all_weights), np.log1p(launches),
        sides[:, 0], *np.log(channels.T), sides[:, 0] - sides[:, 1],
        np.log(np.maximum(widest, channels.max(axis=1)) / channels[:, 0]),
        np.log(np.maximum(kernel, 1)), depthwise_macs / one_mac, gated, residual,
        np.log(np.maximum(aligned_macs, 1) / one_mac),
    )  # fmt: skip
    return np.stack(logs, axis=1)


def work_terms(items: Sequence[Item]) -> FloatArray:
    """Work terms of each graph or network in pieces, shape (n, len(TERMS)), non-negative. A graph without nodes is a
    row of zeros. Raises UnknownOpError for an op without work terms."""
    return features_of(items).terms


def log_features(items: Sequence[Item]) -> FloatArray:
    """Log features of each item for the residual regressors, shape (n, len(LOG_FEATURES)); always finite."""
    return features_of(items).logs
