"""The cost of ops that no record has, by what such work usually costs beside the work that is known.

An op that only moves or maps values, such as a softmax over a classifier's results or a resize of the image, is priced
where even ten times its usual cost would be a modest part. Any other is refused, unless the caller asks for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from netlathe.archspace.ops import Opaque
from netlathe.predictor.blocks.physics import RESOURCES, Physics, prior_rates
from netlathe.predictor.errors import UnknownOpError
from netlathe.predictor.features.item_features import Features
from netlathe.predictor.features.op_work import COLUMN, OP_CLASSES, REFINEMENTS, TERMS, has_macs
from netlathe.predictor.numbers import FlagArray, FloatArray

NEGLIGIBLE = 0.02
"""Largest part of an item's latency that its unknown ops may take together to be next to nothing."""
MODEST = 0.5
"""Largest part of it, over the measured work, that those may take together which only move or map values, to be priced
unasked: in an interval that is wider by so much, and with a warning."""
DOUBT = 10.0
"""Factor over its usual cost that an unknown op may take. In the shipped predictors, with each kind of op told from the
others, 112 of 115 ops cost within that factor of what was expected, and half of them 0.55 to 1.25 times as much."""
_CLASS_OF = np.array([OP_CLASSES.index(term.partition(".")[0]) if "." in term else -1 for term in TERMS])
"""Number of the op class of each work term, -1 for the common ones; shape (terms,)."""
_REFINES = np.array([term.partition(".")[2] in REFINEMENTS for term in TERMS])
"""Whether each work term only refines what others charge; shape (terms,)."""
_COMPUTES = np.array([has_macs(name) for name in OP_CLASSES])
"""Whether ops of each class multiply and accumulate; shape (classes,)."""
_OPAQUE = OP_CLASSES.index(Opaque.kind)
_RESOURCE_COUNT = int(RESOURCES.max()) + 1


class Assumed(NamedTuple):
    """Costs assumed of the unknown ops of n items, in parts of the item's usual latency; per op class, shape (n,
    classes)."""

    usual: FloatArray
    """Usual cost of their work, without that of starting them, which is charged as any other op's."""
    most: FloatArray
    """Largest cost, and of starting them what that may be more than usual."""
    starting: FloatArray
    """Usual cost of starting them."""
    foreign: tuple[tuple[str, ...], ...] = ()
    """For each item the names of its opaque ops; empty where no item has any."""

    @property
    def share(self) -> FloatArray:
        """Usual part of the latency that all of them take, shape (n,)."""
        return np.asarray(self.usual.sum(axis=1))

    @property
    def known_share(self) -> FloatArray:
        """Usual part of the latency that all other ops take, from 0 to 1, shape (n,)."""
        return np.asarray(np.clip(1 - (self.usual + self.starting).sum(axis=1), 0, 1))

    def classes(self, item: int) -> set[str]:
        """The unknown op classes of an item."""
        return {OP_CLASSES[index] for index in np.flatnonzero(self.most[item] > 0)}

    @property
    def doubt(self) -> FloatArray:
        """Log error to allow for them, shape (n,)."""
        return np.asarray(np.log1p((self.most - self.usual).sum(axis=1)))

    @property
    def is_negligible(self) -> FlagArray:
        """Whether they compute nothing, and cannot take more than NEGLIGIBLE; shape (n,)."""
        return np.asarray((self.most.sum(axis=1) <= NEGLIGIBLE) & ~(self.most[:, _COMPUTES] > 0).any(axis=1))

    @property
    def is_priced(self) -> FlagArray:
        """Whether they are priced unasked, shape (n,): they compute nothing and cannot take more than MODEST, foreign
        ops, of which nothing is known but their bytes, no more than NEGLIGIBLE."""
        whole, foreign = self.most.sum(axis=1), self.most[:, _OPAQUE]
        computes = (self.most[:, _COMPUTES] > 0).any(axis=1)
        return np.asarray((whole <= np.where(foreign > 0, NEGLIGIBLE, MODEST)) & ~computes)

    def check(self, *, ask: bool) -> None:
        """A check that all unknown ops are priced unasked; raises UnknownOpError where one is not, unless `ask`."""
        refused = [] if ask else self.names(~self.is_priced)
        if refused:
            raise UnknownOpError(
                f"no measured block contains {', '.join(refused)}, so its cost on this setup is unknown; profile a few "
                "blocks with it and fit again, or have it priced by the bytes that it moves, its MACs and a launch "
                '(--unknown price; in Python, unknown="price")'
            )

    def names(self, rows: FlagArray) -> list[str]:
        """Names of the unknown classes of the items where `rows`, (n,), is true; of opaque ops their own names."""
        classes = {OP_CLASSES[index] for index in np.flatnonzero((self.most[rows] > 0).any(axis=0))}
        foreign = {name for index in np.flatnonzero(rows) if self.foreign for name in self.foreign[index]}
        return sorted((classes - {Opaque.kind}) | foreign)

    def told(self) -> list[Mapping[str, float]]:
        """Largest part of each item's latency that an op class may take, by the class's name; of length n."""
        shares = self.most / (1 - self.share + self.most.sum(axis=1))[:, None]
        return [
            {self._label(item, index): float(row[index]) for index in np.flatnonzero(row > 0).tolist()}
            for item, row in enumerate(shares)
        ]

    def _label(self, item: int, op_class: int) -> str:
        name = OP_CLASSES[op_class]
        return ", ".join(self.foreign[item]) if name == Opaque.kind and self.foreign else name


@dataclass(frozen=True)
class UnknownOps:
    """Prices of the op classes that a physics has no rates for."""

    known: Physics
    of_kernels: bool = False
    """Whether each op is a call of its own."""

    @cached_property
    def classes(self) -> FlagArray:
        """Whether each of OP_CLASSES has no rates, shape (classes,). One opaque op tells nothing of another."""
        return np.array([name not in self.known.classes or name == Opaque.kind for name in OP_CLASSES])

    @property
    def kinds(self) -> tuple[str, ...]:
        """Names of the classes without rates; opaque ops have names of their own."""
        named = zip(OP_CLASSES, self.classes.tolist(), strict=True)
        return tuple(name for name, is_unknown in named if is_unknown and name != Opaque.kind)

    @cached_property
    def complete(self) -> Physics:
        """The physics with a rate for everything."""
        columns = self._columns
        rates = np.where(columns, prior_rates() * self._scales[RESOURCES], self.known.rates)
        return Physics(rates, self.known.seen | columns)

    def of(self, features: Features, owner: NDArray[np.intp], count: int) -> Assumed:
        """Costs assumed of `count` items; `owner`, shape (m,), is the item that each of the m features belongs to."""
        usual, most, starting = np.zeros((3, count, len(OP_CLASSES)))
        present = np.flatnonzero(self.classes & ~(features.terms[:, self._columns] <= 0).all())
        if not len(present):
            return Assumed(usual, most, starting)
        total_ms = np.bincount(owner, features.terms @ self.complete.rates, count)
        total_ms = np.maximum(total_ms, np.finfo(float).tiny)
        for index in present.tolist():
            columns = index == _CLASS_OF
            work_ms = np.bincount(owner, features.terms[:, columns] @ self.complete.rates[columns], count)
            starts = np.bincount(owner, _op_counts(features, index), count)
            usual[:, index] = work_ms / total_ms
            starting[:, index] = starts * self._charged_start_ms / total_ms
            most[:, index] = (DOUBT * work_ms + (DOUBT - 1) * starts * self._start_ms) / total_ms
        return Assumed(usual, most, starting, _foreign(features, owner, count) if _OPAQUE in present else ())

    @cached_property
    def _start_ms(self) -> float:
        """Time to start an op in ms, which the records may not tell apart from its work."""
        return float(max(self._scales[0] * prior_rates()[COLUMN["launches"]], self._charged_start_ms))

    @cached_property
    def _charged_start_ms(self) -> float:
        """Time to start an op in ms that the records tell."""
        launch, call = self.known.rates[[COLUMN["launches"], COLUMN["calls"]]]
        return float(launch + call if self.of_kernels else launch)

    @cached_property
    def _columns(self) -> FlagArray:
        """Whether each work term is charged for an unknown class, shape (terms,): without refinements, whose typical
        costs are not beside those of the others, but in their place."""
        return np.asarray((_CLASS_OF >= 0) & self.classes[_CLASS_OF] & ~_REFINES)

    @cached_property
    def _scales(self) -> FloatArray:
        """Costs of computing, moving and starting here, in units of the prior: the median over the known classes, each
        taken as a whole, as its terms share its cost by chance. Shape (resources,)."""
        prior = prior_rates()
        ratios: list[list[float]] = [[] for _ in range(_RESOURCE_COUNT)]
        for index in range(len(OP_CLASSES)):
            for resource, found in enumerate(ratios):
                columns = (index == _CLASS_OF) & (resource == RESOURCES) & self.known.seen
                if columns.any():
                    found.append(float(self.known.rates[columns].sum() / prior[columns].sum()))
        launches = COLUMN["launches"]
        together = [ratio for found in ratios for ratio in found]
        everything = float(np.median(together or [self.known.rates[launches] / prior[launches]]))
        return np.array([np.median(found) if found else everything for found in ratios])


def _op_counts(features: Features, op_class: int) -> FloatArray:
    """Number of ops of that class in each of m items, shape (m,). Op 0 of features is none."""
    of_class = (features.ops.classes == op_class) & (np.arange(len(features.ops.classes)) > 0)
    return np.asarray(features.counts @ of_class.astype(float))


def _foreign(features: Features, owner: NDArray[np.intp], count: int) -> tuple[tuple[str, ...], ...]:
    """The names of the opaque ops of `count` items, of which each feature belongs to one."""
    names: list[set[str]] = [set() for _ in range(count)]
    columns = np.flatnonzero((features.ops.classes == _OPAQUE) & (np.arange(len(features.ops.classes)) > 0))
    for column in columns.tolist():
        for row in np.unique(features.counts.rows[features.counts.columns == column]).tolist():
            names[owner[row]].add(features.ops.names[column])
    return tuple(tuple(sorted(found)) for found in names)
