"""The choice of graphs to measure next: those that, once measured, leave the least uncertainty about all others.

A latency's logarithm is taken as a Gaussian process of two parts: the shares of its work terms times how far each rate
is off, and a residual that is alike for graphs of like sizes. How uncertain such a process is depends on which graphs
are measured, hardly on their latencies, so a whole batch can be chosen at once: given those before it, each pick takes
the most off the mean variance of all predictions (Cohn, Neural network exploration using optimal experiment design,
1996). That favors graphs that speak for many others; picks of the largest variance alone are the odd ones at the edges.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular
from scipy.spatial.distance import cdist

from netlathe.archspace.graph import Graph
from netlathe.predictor.blocks.domain import fit_domain
from netlathe.predictor.blocks.physics import fit_physics, prior_rates
from netlathe.predictor.errors import PredictorError
from netlathe.predictor.features.item_features import Features, Item, features_of, work_terms
from netlathe.predictor.features.op_work import PLAIN_MOVES, op_classes_of
from netlathe.predictor.features.samples import key_of
from netlathe.predictor.numbers import FlagArray, FloatArray
from netlathe.predictor.transfer import few_shot
from netlathe.predictor.transfer.prior import Prior

_RATE_DEVIATION = 1.0
"""Standard deviation of a log rate: by what factor a phone may differ from the typical ratios between the rates."""
_RESIDUAL_DEVIATION, _NOISE_DEVIATION = 0.1, 0.03
"""Standard deviations, in log latency, of what the physics misses, and of a measurement."""
_LENGTH = 2.0
"""Length scale of the residual, in standard deviations of the features, per square root of their number."""
_MOST_REFERENCES = 1000
"""Most graphs that the mean variance is taken over; of more, a random part."""


def choose(
    items: Sequence[Item],
    count: int,
    *,
    measured: Sequence[Item] = (),
    latency_ms: Sequence[float] = (),
    pending: Sequence[Item] = (),
    prior: Prior | None = None,
    seed: int = 0,
) -> list[int]:
    """Indices of up to `count` items to measure next, the most instructive first.

    `measured` items, with their latencies in ms, tell which work takes the time; `pending` ones will be measured in any
    case. Neither is chosen again, nor is an item twice, nor one without ops. As long as there are op classes that no
    measured item will have, an item with one of them comes first, as nothing with such an op could be predicted. With a
    `prior` the choice is for a predictor that adapts it. `seed` draws the part of very many items that stands for all.

    Raises PredictorError for a negative count and for latencies that are missing or not above zero, UnknownOpError for
    an op without work terms or unknown to the prior.
    """
    latencies = np.array(latency_ms, dtype=float)
    _check(count, len(measured), latencies)
    latencies = latencies[[_has_ops(item) for item in measured]]
    known = [item for item in (*measured, *pending) if _has_ops(item)]
    fresh = _distinct(items, {key_of(item) for item in known})
    if not fresh or not count:
        return []
    everything = [*known, *(items[index] for index in fresh)]
    process = _of_prior(prior, everything) if prior else _of_physics(features_of(everything), latencies)
    design = _Design(process, len(known), _references(len(known), len(fresh), seed))
    missing = _Missing([set() if prior else row for row in _classes(everything)], len(known))
    chosen = []
    for _ in range(min(count, len(fresh))):
        place = design.best(missing.candidates)
        design.add(place)
        missing.add(place)
        chosen.append(fresh[place - len(known)])
    return chosen


def _check(count: int, measured: int, latency_ms: FloatArray) -> None:
    if count < 0:
        raise PredictorError(f"how many items to choose must not be negative, got {count}")
    if measured != len(latency_ms):
        raise PredictorError(f"{measured} measured items have {len(latency_ms)} latencies; give one for each")
    if not (latency_ms > 0).all():
        raise PredictorError("a measured latency must be above zero; leave failed measurements out")


def _has_ops(item: Item) -> bool:
    """Whether an item does anything: an identity takes no time."""
    return any(piece.nodes for piece in ((item,) if isinstance(item, Graph) else item))


def _distinct(items: Sequence[Item], known: set[str]) -> list[int]:
    """Indices of the first of equal items that do something and are not known."""
    first: dict[str, int] = {}
    for index, item in enumerate(items):
        if _has_ops(item):
            first.setdefault(key_of(item), index)
    return [index for key, index in first.items() if key not in known]


def _classes(items: Sequence[Item]) -> list[set[str]]:
    """Op classes of each item whose cost nobody can guess."""
    return [op_classes_of(row[None]) - set(PLAIN_MOVES) for row in work_terms(items)]


def _references(known: int, fresh: int, seed: int) -> NDArray[np.intp]:
    """Rows of the graphs whose variance counts, shape (references,)."""
    rows = known + np.arange(fresh)
    return rows if fresh <= _MOST_REFERENCES else np.random.default_rng(seed).choice(rows, _MOST_REFERENCES, False)


def _term_costs(terms: FloatArray, latency_ms: FloatArray) -> FloatArray:
    """Cost of each work term, (terms,): fitted where a record has it, at the typical ratio elsewhere."""
    typical = prior_rates()
    if not len(terms):
        return typical
    rates = fit_physics(terms, latency_ms).rates
    speed = np.exp(np.median(np.log(latency_ms / (terms @ typical))))
    return np.where(rates > 0, rates, typical * speed)


class _Process(NamedTuple):
    """A Gaussian process of log latencies before anything is measured, over n graphs."""

    covariance: Callable[[NDArray[np.intp]], FloatArray]
    """Prior covariance between all graphs and those of m rows, shape (n, m)."""
    variance: FloatArray
    """Prior variance of all graphs, shape (n,)."""


def _of_prior(prior: Prior, items: Sequence[Item]) -> _Process:
    """The process of a new device's deviations from the known ones."""
    known = prior.on_known_devices(items)
    return _Process(
        lambda rows: few_shot.covariance(prior, known, known.take(rows)),
        few_shot.variances(prior, known),
    )


def _of_physics(features: Features, latency_ms: FloatArray) -> _Process:
    """The process of shares of the work times how far each rate is off, and a Matern process of order 3/2 for the
    residual (Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, equation 4.17): rougher than the
    one that is fitted later, so that picks keep their distance."""
    work = features.terms * _term_costs(features.terms[: len(latency_ms)], latency_ms)
    shares = _RATE_DEVIATION * work / work.sum(axis=1, keepdims=True)
    length = _LENGTH * np.sqrt(features.logs.shape[1])
    points = fit_domain(features.logs).standardise(features.logs) / length

    def covariance(rows: NDArray[np.intp]) -> FloatArray:
        distance = np.sqrt(3) * cdist(points, points[rows])
        residual = (1 + distance) * np.exp(-distance)
        return np.asarray(shares @ shares[rows].T + _RESIDUAL_DEVIATION**2 * residual)

    return _Process(covariance, np.asarray((shares**2).sum(axis=1) + _RESIDUAL_DEVIATION**2))


class _Design:
    """The process given the graphs measured or chosen. Shapes: `explained` (n, m), a column for each of those m graphs,
    so that covariances fall by explained @ explained.T; `shared` (n, references), covariances with the references."""

    def __init__(self, process: _Process, known: int, references: NDArray[np.intp]) -> None:
        self.process, self.references = process, references
        self.variance, self.shared = process.variance.copy(), process.covariance(references)
        self.explained = np.zeros((len(self.variance), 0))
        if known:
            with_known = process.covariance(np.arange(known))
            factor = cholesky(with_known[:known] + _NOISE_DEVIATION**2 * np.eye(known), lower=True)
            self._explain(solve_triangular(factor, with_known.T, lower=True).T)

    def best(self, candidates: FlagArray) -> int:
        """The candidate that takes the most off the references' variance; of equal ones, the first."""
        gain = (self.shared**2).sum(axis=1) / (np.maximum(self.variance, 0) + _NOISE_DEVIATION**2)
        return int(np.argmax(np.where(candidates, gain, -1.0)))

    def add(self, place: int) -> None:
        """Takes the graph of that row as measured."""
        with_place = self.process.covariance(np.array([place]))[:, 0] - self.explained @ self.explained[place]
        noisy = max(with_place[place], 0.0) + _NOISE_DEVIATION**2
        self._explain((with_place / np.sqrt(noisy))[:, None])

    def _explain(self, columns: FloatArray) -> None:
        self.variance = self.variance - (columns**2).sum(axis=1)
        self.shared -= columns @ columns[self.references].T
        self.explained = np.hstack([self.explained, columns])


class _Missing:
    """The candidates among n graphs: those with an op class that no known or chosen one has, while there are any."""

    def __init__(self, classes: Sequence[set[str]], known: int) -> None:
        self.classes = classes
        self.open: FlagArray = np.arange(len(classes)) >= known
        self.covered: set[str] = set().union(*classes[:known])

    def add(self, place: int) -> None:
        self.covered |= self.classes[place]
        self.open[place] = False

    @property
    def candidates(self) -> FlagArray:
        """Whether each graph may be chosen, shape (n,)."""
        uncovered = self.open & np.array([not classes <= self.covered for classes in self.classes], dtype=bool)
        return uncovered if uncovered.any() else self.open
