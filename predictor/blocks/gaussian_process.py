"""A Gaussian process over ops: the deviation of each op from its physics, learned from the sums over blocks.

The log ratio of a block is nearly the mean of its ops' log ratios, each weighing as much as the physics says it takes
of the block's time. If the ops' are a Gaussian process of class and size, the blocks' are one as well, and what was
learned on an op serves every block, kernel and network that contains one like it.

Rasmussen and Williams, Gaussian Processes for Machine Learning (2006): equations 2.23 (mean), 4.17 (Matern 5/2), 5.8
and 5.9 (marginal likelihood and its gradient). Log-normal priors keep the hyper-parameters sensible with a few records.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from netlathe.predictor.features.inputs import Inputs, OpShares, classes_to_json, read_classes
from netlathe.predictor.features.op_work import OP_CLASSES, OP_SIZES
from netlathe.predictor.numbers import (
    CACHED_ENTRIES,
    MOST_LOG,
    FloatArray,
    read_array,
    read_logs,
    read_positive,
    squared_distances,
)

_MOST_RECORDS, _MOST_OPS = 100, 300
"""Most records and ops that the hyper-parameters are searched on, a random part of all: the search is cubic."""
_SEARCH_STEPS = 30
"""Most iterations of that search."""
_TYPICAL_LENGTHS = {"kernel": 1.5, "stride": 1.5, "ragged_in": 0.4, "ragged_out": 0.4}
_TYPICAL_LENGTH = 3.0
"""Prior length scales in octaves of a size, some by name: ops deviate alike that differ by less."""
_LENGTHS = np.array([_TYPICAL_LENGTHS.get(name, _TYPICAL_LENGTH) for name in OP_SIZES])
"""Prior length scale of each of OP_SIZES."""
_VARIANCE_BATCH = 32
"""Items whose pairs of ops are in memory at once where only the variance of each item is wanted."""
_SIGNAL_SHARE, _NOISE_SHARE = 1.5, 0.3
"""Prior standard deviations of the ops' log ratios, which partly cancel, and of the noise, relative to the scatter of
the blocks' log ratios."""


@dataclass(frozen=True)
class GaussianProcess:
    """Posterior mean of the process. Shapes: classes (m,), sizes (m, q), weights (m,), lengths (q,)."""

    classes: NDArray[np.intp]
    sizes: FloatArray
    weights: FloatArray
    lengths: FloatArray
    signal: float
    """Variance of the ops' log ratios."""
    kind: Literal["gp"] = "gp"
    fades: ClassVar[bool] = True

    def predict(self, inputs: Inputs) -> FloatArray:
        """Log ratios, shape (n,). Fades to 0 away from the ops fitted on."""
        used = np.unique(inputs.shares.columns)
        wanted, known = inputs.ops.sizes / self.lengths, self.sizes / self.lengths
        ratios = np.zeros(len(wanted))
        for rows, columns in _by_class(inputs.ops.classes[used], self.classes):
            step = max(1, CACHED_ENTRIES // max(1, len(columns)))
            for start in range(0, len(rows), step):
                part = used[rows[start : start + step]]
                ratios[part] = _matern(_distances(wanted[part], known[columns])) @ (self.signal * self.weights[columns])
        return np.asarray(inputs.shares @ ratios)

    def to_json(self) -> dict[str, Any]:
        arrays = {name: getattr(self, name).tolist() for name in ("sizes", "weights", "lengths")}
        return {**arrays, "signal": self.signal, **classes_to_json(self.classes)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> GaussianProcess:
        """The object that to_json wrote. Raises ValueError, KeyError or TypeError when the arrays are not those of such
        a process."""
        sizes = read_logs(data, "sizes", -1, len(OP_SIZES), most=1e3)
        lengths = read_positive(data, "lengths", len(OP_SIZES), least=1e-4, most=1e4)
        classes = read_classes(data, len(sizes))
        return cls(
            classes,
            sizes,
            read_array(data, "weights", len(sizes)),
            lengths,
            float(read_positive(data, "signal", most=MOST_LOG**2)),
        )


def fit_gaussian_process(inputs: Inputs, log_ratio: FloatArray, seed: int) -> GaussianProcess:
    """Process fitted to log ratios of shape (n,); `seed` picks the part that sets the hyper-parameters when there are
    many."""
    from scipy.linalg import cho_factor, cho_solve  # takes longer to import than to predict, which needs none of it

    part = _part(inputs, seed)
    signal, noise, lengths = _hyperparameters(inputs.take(part), log_ratio[part])
    used = np.unique(inputs.shares.columns)
    classes, sizes, shares = inputs.ops.classes[used], inputs.ops.sizes[used], inputs.shares.take_columns(used)
    covariance = noise * np.eye(len(log_ratio))
    for rows, _ in _by_class(classes, classes):
        places, of_class = sizes[rows] / lengths, shares.take_columns(rows)
        covariance += of_class @ (of_class @ (signal * _matern(_distances(places, places)))).T
    weights = shares.transposed_times(cho_solve(cho_factor(covariance, lower=True), log_ratio))
    return GaussianProcess(classes, sizes, weights, lengths, signal)


def op_covariance(a: OpShares, b: OpShares) -> FloatArray:
    """Covariance of the log ratios of two sets of items, shape (n, m), where the ops' have variance 1 and the usual
    lengths."""
    used = np.unique(a.shares.columns)
    by_op = np.zeros((len(used), len(b.shares)))
    wanted, known = a.sizes[used] / _LENGTHS, b.sizes / _LENGTHS
    for rows, columns in _by_class(a.classes[used], b.classes):
        shares, step = b.shares.take_columns(columns), max(1, CACHED_ENTRIES // len(columns))
        for part in (rows[start : start + step] for start in range(0, len(rows), step)):
            by_op[part] = (shares @ _matern(_distances(known[columns], wanted[part]))).T
    return a.shares.take_columns(used) @ by_op


def op_variances(a: OpShares) -> FloatArray:
    """Variance of the log ratio of each item, shape (n,), the diagonal of op_covariance(a, a): over the pairs of ops of
    a class within each item."""
    count, places = len(a.shares), a.sizes / _LENGTHS
    result = np.zeros(count)
    for start in range(0, count, _VARIANCE_BATCH):
        part = a.shares.take(slice(start, start + _VARIANCE_BATCH))
        one, other = _pairs(part.rows * len(OP_CLASSES) + a.classes[part.columns])
        apart = np.sqrt(5 * ((places[part.columns[one]] - places[part.columns[other]]) ** 2).sum(axis=1))
        alike = part.values[one] * part.values[other] * _matern(apart)
        result[start : start + _VARIANCE_BATCH] = np.bincount(part.rows[one], alike, len(part))
    return result


def _pairs(groups: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Indices of the one and the other of all ordered pairs in the same group (m,), each with itself among them."""
    order = np.argsort(groups, kind="stable")
    _, starts, members, sizes = np.unique(groups[order], return_index=True, return_inverse=True, return_counts=True)
    count = sizes[members]
    begin = np.repeat(starts[members] - np.cumsum(count) + count, count)
    return np.repeat(order, count), order[begin + np.arange(count.sum())]


def _part(inputs: Inputs, seed: int) -> NDArray[np.intp]:
    """Records in random order, as many as the search for hyper-parameters takes."""
    order = np.random.default_rng(seed).permutation(len(inputs.shares))[:_MOST_RECORDS]
    if len(np.unique(inputs.shares.columns)) <= _MOST_OPS:
        return np.asarray(order)
    ops: set[int] = set()
    for count, record in enumerate(order):
        ops.update(inputs.shares.take([record]).columns.tolist())
        if len(ops) > _MOST_OPS:
            return np.asarray(order[: max(count, 2)])
    return np.asarray(order)


def _by_class(a: NDArray[np.intp], b: NDArray[np.intp]) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Indices of each class in a and in b; ops of different classes say nothing about each other."""
    for one in np.intersect1d(a, b):
        yield np.flatnonzero(a == one), np.flatnonzero(b == one)


def _distances(a: FloatArray, b: FloatArray) -> FloatArray:
    """Distances times the root of 5, shape (n, m), between points (n, q) and (m, q)."""
    squared = squared_distances(a, b)
    squared *= 5
    return np.asarray(np.sqrt(squared, out=squared))


def _matern(distances: FloatArray) -> FloatArray:
    """Matern correlation of order 5/2 at distances times the root of 5, of any shape."""
    result, decay = distances**2, -distances
    result /= 3
    result += 1 + distances
    result *= np.exp(decay, out=decay)
    return np.asarray(result)


def _hyperparameters(inputs: Inputs, log_ratio: FloatArray) -> tuple[float, float, FloatArray]:
    """The most probable (signal variance, noise variance, length scales (q,)) given log ratios (n,)."""
    from scipy.optimize import minimize

    scatter = float(np.sqrt(np.mean(log_ratio**2))) + 1e-3
    expected = np.log([_SIGNAL_SHARE * scatter, _NOISE_SHARE * scatter, *_LENGTHS])
    used = np.unique(inputs.shares.columns)
    shares = inputs.shares.take_columns(used).dense()
    classes, sizes = inputs.ops.classes[used], inputs.ops.sizes[used]

    def objective(logs: FloatArray) -> tuple[float, FloatArray]:
        value, gradient = _negative_log_likelihood(logs, shares, classes, sizes, log_ratio)
        return value + 0.5 * float(((logs - expected) ** 2).sum()), gradient + logs - expected

    bounds = [(x - 4, x + 4) for x in expected]
    found = minimize(
        objective, expected, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": _SEARCH_STEPS}
    )
    logs = np.asarray(found.x)
    return float(np.exp(2 * logs[0])), float(np.exp(2 * logs[1])), np.exp(logs[2:])


def _negative_log_likelihood(
    logs: FloatArray, shares: FloatArray, classes: NDArray[np.intp], sizes: FloatArray, y: FloatArray
) -> tuple[float, FloatArray]:
    """Negative log likelihood of log ratios y (n,), and its gradient, at the logarithms of (signal deviation, noise
    deviation, lengths (q,))."""
    from scipy.linalg import LinAlgError, cho_factor, cho_solve

    signal, noise, lengths = np.exp(2 * logs[0]), np.exp(2 * logs[1]), np.exp(logs[2:])
    scaled, blocks = sizes / lengths, [rows for rows, _ in _by_class(classes, classes)]
    distances = [_distances(scaled[rows], scaled[rows]) for rows in blocks]
    covariance = np.zeros((len(y), len(y)))
    for rows, apart in zip(blocks, distances, strict=True):
        covariance += signal * (shares[:, rows] @ _matern(apart) @ shares[:, rows].T)
    try:
        factor = cho_factor(covariance + noise * np.eye(len(y)), lower=True)
    except LinAlgError:
        return 1e10, np.zeros_like(logs)
    weights = cho_solve(factor, y)
    slope = np.outer(weights, weights) - cho_solve(factor, np.eye(len(y)))
    # Derivative of the kernel by a log length: 5/3 (1 + r) exp(-r) times the squared distance along that axis, which is
    # summed over all pairs of ops here without ever laying it out.
    by_length = np.zeros(len(lengths))
    for rows, apart in zip(blocks, distances, strict=True):
        pairs = (shares[:, rows].T @ slope @ shares[:, rows]) * (5 / 3 * signal * (1 + apart) * np.exp(-apart))
        by_length += 2 * (pairs.sum(axis=1) @ scaled[rows] ** 2 - ((pairs @ scaled[rows]) * scaled[rows]).sum(axis=0))
    gradient = [-(slope * covariance).sum(), -noise * np.trace(slope), *(-0.5 * by_length)]
    return float(0.5 * y @ weights + np.log(np.diag(factor[0])).sum()), np.array(gradient)
