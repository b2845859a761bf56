"""The networks of a decision space that keep all limits: drawn, listed, repaired, and next to one another. Costs are
predicted, so a network beyond a limit costs nothing: it is never asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from netlathe.archspace.decisions import Choices, DecisionSpace
from netlathe.search.costs import ROUNDING, Constraint
from netlathe.search.decode import check_limits, decode
from netlathe.search.errors import SearchError, TargetError

MOST_LISTED = 20_000
"""Networks of a space up to which all of them are listed."""
ROUNDS = 5
"""Rounds of draws until networks within the limits are made by repair rather than waited for."""


@dataclass(frozen=True)
class PriceLimit:
    """Upper limit on a cost that adds up over nothing: of whole networks, by a price of your own.

    price: networks -> a number each, which is remembered. A network without a finite price is beyond the limit.
    """

    name: str
    price: Callable[[Sequence[Choices]], Sequence[float] | NDArray[np.float64]]
    limit: float
    unit: str = ""


class FeasibleSet:
    """Networks of a space that keep every limit, by tables that add up and by prices of whole networks.

    Raises TargetError where a limit is no number above zero, or where no network keeps those of the tables.
    """

    def __init__(
        self, space: DecisionSpace, constraints: Sequence[Constraint] = (), prices: Sequence[PriceLimit] = ()
    ) -> None:
        check_limits(space, constraints)
        for one in prices:
            if not (math.isfinite(one.limit) and one.limit > 0):
                raise TargetError(f"the limit of {one.name} must be a number above zero, got {one.limit}")
        self.space, self.constraints, self.prices = space, tuple(constraints), tuple(prices)
        self.counts = tuple(space.option_counts)
        self._priced: dict[Choices, tuple[float, ...]] = {}
        self._options = np.arange(max(self.counts, default=1)) < np.array(self.counts, dtype=int)[:, None]

    @property
    def size(self) -> int:
        """Number of networks of the space, within the limits or not."""
        return math.prod(self.counts)

    @cached_property
    def listed(self) -> NDArray[np.int64] | None:
        """All networks within the limits, (networks, decisions) in lexicographic order; None in a space of more than
        MOST_LISTED. Raises SearchError where prices of whole networks leave none."""
        if self.size > MOST_LISTED:
            return None
        every = self.every()
        found = every[self._fits(every)]
        if not len(found):
            raise self._nothing_found()
        return found

    def every(self) -> NDArray[np.int64]:
        """All networks of the space, within the limits or not: (networks, decisions) in lexicographic order."""
        return np.indices(self.counts).reshape(len(self.counts), self.size).T

    def listed_without(self, known: Iterable[Choices]) -> NDArray[np.int64] | None:
        """The listed networks but for these."""
        if self.listed is None:
            return None
        taken = np.array(list(known), dtype=np.int64).reshape(-1, len(self.counts))
        return self.listed[~np.isin(self._numbers, np.ravel_multi_index(tuple(taken.T), self.counts))]

    @cached_property
    def _numbers(self) -> NDArray[np.int64]:
        """Numbers of the listed networks in the order of all."""
        assert self.listed is not None
        return np.asarray(np.ravel_multi_index(tuple(self.listed.T), self.counts))

    def contains(self, choices: Choices) -> bool:
        """Whether a network of the space keeps all limits."""
        return bool(self._keeps_tables(np.array([choices]))[0]) and self._keeps_prices([choices])[0]

    def costs(self, choices: Choices) -> tuple[float, ...]:
        """Costs of a network by the tables, one per constraint."""
        return tuple(c.table.cost(choices) for c in self.constraints)

    def draw(self, rng: np.random.Generator) -> Choices:
        """A random network within the limits; see `draws`."""
        return self.draws(1, rng)[0]

    def draws(self, count: int, rng: np.random.Generator) -> list[Choices]:
        """Random networks within the limits: uniform among them where they are listed, or no rare draws, else such
        draws repaired. Raises SearchError where prices of whole networks leave none that can be found."""
        if self.listed is not None:
            return [as_choices(row) for row in self.listed[rng.integers(len(self.listed), size=count)]]
        found: list[Choices] = []
        for _ in range(ROUNDS):
            rows = rng.integers(self.counts, size=(4 * count, len(self.counts)))
            found += [as_choices(row) for row in rows[self._fits(rows)]]
            if len(found) >= count:
                return found[:count]
        while len(found) < count:
            found.append(self.repaired(tuple(rng.integers(self.counts).tolist()), rng))
        return found

    def pool(self, count: int, rng: np.random.Generator) -> list[Choices]:
        """Random networks to choose from: `draws`, some of which may turn out to break a price's limit where prices are
        estimated."""
        return self.draws(count, rng)

    def repaired(self, choices: Choices, rng: np.random.Generator) -> Choices:
        """A network within the limits near this one: the single change that lowers the excess over them most, again
        and again; of those that end it, a random one. With one table no network within the limit is nearer. Raises
        SearchError where that leads nowhere, and the nearest network by the tables (an integer program) does neither.
        """
        may_decode = True
        while not self.contains(choices):
            changes = self._singles(np.array(choices))
            excesses = self._excesses(changes)
            enough = np.flatnonzero(excesses == 0)
            if len(enough):
                return as_choices(changes[rng.choice(enough)])
            if len(changes) and excesses.min() < self._excesses(np.array([choices]))[0]:
                choices = as_choices(changes[excesses.argmin()])
            elif may_decode:
                same = np.arange(self._options.shape[1]) == np.array(choices)[:, None]
                choices = decode(np.where(self._options, same.astype(float), -np.inf), self.constraints)
                may_decode = False
            else:
                raise self._nothing_found()
        return choices

    def _nothing_found(self) -> SearchError:
        told = ", ".join(f"{p.limit:g} {p.unit}".rstrip() + f" of {p.name}" for p in self.prices)
        return SearchError(
            f"no network of space {self.space.name} within {told} was found; raise the limit, or give it as a table "
            "that adds up"
        )

    def neighbours(self, choices: Choices) -> list[Choices]:
        """The networks within the limits that differ from this one in one decision; and in two where the first change
        alone breaks a limit and the second pays for it, as most good networks use their limits up."""
        singles = self._singles(np.array(choices, dtype=np.int64))
        fits = self._fits(singles)
        found = [as_choices(row) for row in singles[fits]]
        for broken in singles[~fits]:
            changed = int(np.flatnonzero(broken != np.array(choices))[0])
            pairs = self._singles(broken, fixed=changed)
            found += [as_choices(row) for row in pairs[self._fits(pairs)]]
        return list(dict.fromkeys(found))

    def _fits(self, networks: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which networks (networks, decisions) keep all limits; prices are asked for where the tables are kept."""
        fits = self._keeps_tables(networks)
        if self.prices:
            fits[fits] = self._keeps_prices([as_choices(row) for row in networks[fits]])
        return fits

    def _singles(self, choices: NDArray[np.int64], fixed: int = -1) -> NDArray[np.int64]:
        """All networks that differ in one decision, not the fixed one: (changes, decisions)."""
        decisions, options = self._changes
        kept = (options != choices[decisions]) & (decisions != fixed)
        found = np.tile(choices, (int(kept.sum()), 1))
        found[np.arange(len(found)), decisions[kept]] = options[kept]
        return found

    @cached_property
    def _changes(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Decision and option of everything that can be chosen."""
        decisions, options = np.nonzero(self._options)
        return decisions, options

    def open_options(self, chosen: Sequence[int] | NDArray[np.int64], decision: int | None = None) -> list[int]:
        """Options of the next decision, or of this one, that leave the limits of all tables within reach: each of them
        can be completed to a network that keeps them all. chosen: options of the first decisions, -1 where one is
        open."""
        partial = self._partial(chosen)
        decision = len(chosen) if decision is None else decision
        taken, options = np.flatnonzero(partial >= 0), np.arange(self.counts[decision])
        kept = np.ones(len(options), dtype=bool)
        for one in self.constraints:
            spent = one.table.base + float(one.table.values[taken, partial[taken]].sum())
            kept &= spent + one.table.values[decision, options] <= one.limit * (1 + ROUNDING)
        found = [int(option) for option in options[kept]]
        if len(self.constraints) < 2:
            return found
        rows = np.tile(partial, (len(found), 1))
        rows[:, decision] = found
        return [option for option, row in zip(found, rows, strict=True) if self.completed(row) is not None]

    def completed(self, chosen: Sequence[int] | NDArray[np.int64]) -> Choices | None:
        """A network within the limits of all tables with these options, -1 where one is open; None where there is none.
        The one that takes the least of what is left of them in sum, or else an integer program's."""
        partial = self._partial(chosen)
        taken, wasted = np.flatnonzero(partial >= 0), np.zeros(self._options.shape)
        for one in self.constraints:
            left = one.limit - one.table.base - float(one.table.values[taken, partial[taken]].sum())
            wasted += np.nan_to_num(one.table.values) / max(left, ROUNDING * one.limit)
        cheapest = np.where(self._options, wasted, np.inf).argmin(axis=1)
        choices = as_choices(np.where(partial >= 0, partial, cheapest))
        if self._keeps_tables(np.array([choices]))[0]:
            return choices
        open_ = self._options.copy()
        open_[taken] = np.arange(open_.shape[1]) == partial[taken, None]
        try:
            return decode(np.where(open_, 0.0, -np.inf), self.constraints)
        except TargetError:
            return None

    def _partial(self, chosen: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
        """An option for each decision, -1 where it is open."""
        partial = np.full(len(self.counts), -1)
        partial[: len(chosen)] = chosen
        return partial

    def best(self, scores: NDArray[np.float64]) -> Choices:
        """The network of the largest sum of scores (decisions, options; -inf where there is no option) within the
        limits of all tables."""
        return decode(scores, self.constraints)

    def walk(self, rng: np.random.Generator, prefix: Choices = ()) -> Iterator[Choices]:
        """Every network within the limits that begins so, once, in random order: depth first."""
        if len(prefix) == len(self.counts):
            if self.contains(prefix):
                yield prefix
            return
        for option in rng.permutation(self.open_options(prefix)):
            yield from self.walk(rng, (*prefix, int(option)))

    def _keeps_tables(self, networks: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(networks, decisions) -> (networks,)."""
        kept = np.ones(len(networks), dtype=bool)
        for one in self.constraints:
            kept &= self._costs(one, networks) <= one.limit * (1 + ROUNDING)
        return kept

    def _costs(self, one: Constraint, networks: NDArray[np.int64]) -> NDArray[np.float64]:
        values = one.table.values[np.arange(networks.shape[1]), networks]
        return np.asarray(one.table.base + values.sum(axis=1))

    def _keeps_prices(self, networks: Sequence[Choices]) -> list[bool]:
        self._price(networks)
        return [
            all(cost <= one.limit * (1 + ROUNDING) for cost, one in zip(self._priced[c], self.prices, strict=True))
            for c in networks
        ]

    def _excesses(self, networks: NDArray[np.int64]) -> NDArray[np.float64]:
        """By how much networks are above the limits, as a share of each and over all: zero within them."""
        total = np.zeros(len(networks))
        for one in self.constraints:
            total += _above(self._costs(one, networks), one.limit)
        if self.prices:
            rows = [as_choices(row) for row in networks]
            self._price(rows)
            for column, limit in enumerate(self.prices):
                total += _above(np.array([self._priced[row][column] for row in rows]), limit.limit)
        return total

    def _price(self, networks: Sequence[Choices]) -> None:
        new = [one for one in dict.fromkeys(networks) if one not in self._priced]
        if not new:
            return
        columns = [np.asarray(one.price(new), dtype=np.float64) for one in self.prices]
        for i, choices in enumerate(new):
            # What has no price keeps no limit.
            self._priced[choices] = tuple(float(c[i]) if math.isfinite(c[i]) else math.inf for c in columns)


def as_choices(row: NDArray[np.int64]) -> Choices:
    """A row of a table of networks as choices."""
    return tuple(row.tolist())


def _above(costs: NDArray[np.float64], limit: float) -> NDArray[np.float64]:
    return np.where(costs > limit * (1 + ROUNDING), costs / limit - 1, 0.0)
