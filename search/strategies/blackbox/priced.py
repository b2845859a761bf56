"""The networks that keep limits on costs which add up over nothing, such as a predictor's of networks of any widths:
thousands are estimated, and those that count are priced."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from netlathe.archspace.decisions import Choices, DecisionSpace
from netlathe.search.costs import ROUNDING, Constraint, CostTable
from netlathe.search.errors import TargetError
from netlathe.search.strategies.blackbox.estimates import QuadraticCosts
from netlathe.search.strategies.blackbox.feasible import FeasibleSet, PriceLimit, as_choices
from netlathe.search.successive import solve

MOST_PRICED = 2_000
"""Networks of a space up to which all of them are priced."""
SAMPLES, SAMPLES_PER_DECISION = 200, 10
"""Networks that estimates are fitted on."""
SPREAD = 0.35
"""Standard deviation of these networks' places among the options of a decision."""
HALVINGS = 12
"""Halvings of the way between two networks, on which one at the limits is searched for."""
MOST_PAIRS = 4_000
"""Pairs of changes that are tried for neighbours."""
ROUNDS = 8
"""Rounds of draws, or of repairs, until a network is taken whose way to the floor is priced step by step."""


class PricedSet(FeasibleSet):
    """Networks of a space that keep limits on prices of whole networks, in a space whose options stand in the order of
    what they cost, the reference's the dearest.

    floor: a network within the limits, such as the cheapest. features: (decisions, features), at least zero, what an
    agent is told of each decision. Estimates (`QuadraticCosts`) are fitted once, on networks about the limits, and
    stand for prices wherever many networks are compared: in neighbours, bounded actions and repairs; near a network
    they are scaled to its price. What `contains`, `draws` and `repaired` answer with is priced. Raises TargetError
    where the floor breaks a limit.
    """

    def __init__(
        self,
        space: DecisionSpace,
        prices: Sequence[PriceLimit],
        floor: Choices,
        *,
        features: NDArray[np.float64] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(space, (), prices)
        self.floor, self.features, self.seed = floor, features, seed
        self.limits = np.array([one.limit for one in prices])
        if not self.contains(floor):
            raise TargetError(f"{space.network_name(floor)} does not keep the limits that it is to be the floor of")

    @cached_property
    def listed(self) -> NDArray[np.int64] | None:
        """All networks within the limits, where the space has at most MOST_PRICED."""
        return super().listed if self.size <= MOST_PRICED else None

    @cached_property
    def estimates(self) -> tuple[QuadraticCosts, ...]:
        """Estimates of the prices, one per limit."""
        networks = np.unique(self._samples() if self.size > MOST_PRICED else self.every(), axis=0)
        exact = self.priced(networks)
        known = np.isfinite(exact).all(axis=1)
        return tuple(QuadraticCosts.fit(self.counts, networks[known], costs) for costs in exact[known].T)

    def estimated(self, networks: NDArray[np.int64]) -> NDArray[np.float64]:
        """Estimated prices (networks, limits)."""
        return np.stack([one(networks) for one in self.estimates], axis=1)

    def priced(self, networks: NDArray[np.int64]) -> NDArray[np.float64]:
        """Prices (networks, limits)."""
        rows = [as_choices(row) for row in networks]
        self._price(rows)
        return np.array([self._priced[row] for row in rows]).reshape(len(rows), len(self.prices))

    def draws(self, count: int, rng: np.random.Generator) -> list[Choices]:
        """Random networks within the limits, as `pool` makes them; uniform among all where they are listed."""
        if self.listed is not None:
            return super().draws(count, rng)
        found: list[Choices] = []
        for _ in range(ROUNDS):
            drawn = self.pool(count - len(found), rng)
            self.priced(np.array(drawn))
            found += [one for one in drawn if self.contains(one)]
            if len(found) == count:
                return found
        return found + [self._towards_floor(self._idle(rng, 1)[0]) for _ in range(count - len(found))]

    def pool(self, count: int, rng: np.random.Generator) -> list[Choices]:
        """Random networks that use the limits up by estimates, but for what these are uncertain by: each goes from the
        reference to the floor, every decision at a pace of its own, as far as the limits ask."""
        if self.listed is not None:
            return self.draws(count, rng)
        rows = self._idle(rng, count)
        return [as_choices(row) for row in self._on_the_way(rows, np.exp(rng.standard_normal(rows.shape)))]

    def repaired(self, choices: Choices, rng: np.random.Generator) -> Choices:
        """A network within the limits near this one: the single change that lowers the excess most, by estimates, again
        and again; of those that end it, one of the least. Where estimates mislead, one on the way to the floor; the
        nearest one, of networks that are listed."""
        if self.contains(choices):
            return choices
        if self.listed is not None:
            return _nearest(self.listed, choices, rng)
        lowered = choices
        for _ in range(ROUNDS):
            lowered = self._lowered(lowered, rng)
            if self.contains(lowered):
                return lowered
        return self._towards_floor(np.array(choices))

    def _lowered(self, choices: Choices, rng: np.random.Generator) -> Choices:
        """The network within the limits, by estimates scaled to this one's price, that greedy changes of it lead to."""
        scales = self._scales(choices)
        own = self._excess(np.array([choices]), scales)[0]
        while own > 0:
            changes = self._singles(np.array(choices))
            excesses = self._excess(changes, scales)
            enough = np.flatnonzero(excesses == 0)
            if len(enough):
                return _nearest(changes[enough], choices, rng)
            if excesses.min() >= own:
                return self.floor
            choices, own = as_choices(changes[excesses.argmin()]), excesses.min()
        return choices

    def _excess(self, networks: NDArray[np.int64], scales: NDArray[np.float64]) -> NDArray[np.float64]:
        """By how much networks are above the limits, as a share of each and over all, by scaled estimates."""
        return np.asarray(np.maximum(self.estimated(networks) * scales / self.limits - 1, 0).sum(axis=1))

    def _towards_floor(self, start: NDArray[np.int64]) -> Choices:
        """The network within the limits nearest to this one on the straight way to the floor."""
        low, high = 0.0, 1.0
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            kept = self.contains(as_choices(self._between(start, middle)))
            low, high = (low, middle) if kept else (middle, high)
        return as_choices(self._between(start, high))

    def neighbours(self, choices: Choices) -> list[Choices]:
        """The networks within the limits, by estimates scaled to this one's price, that differ from it in one decision;
        and some of those in two where the first change alone breaks a limit and the second pays for it."""
        if self.listed is not None:
            return super().neighbours(choices)
        singles, scales = self._singles(np.array(choices)), self._scales(choices)
        fits = self._keep(self.estimated(singles) * scales)
        kept, broken = singles[fits], singles[~fits]
        if len(broken):
            rng = np.random.default_rng([self.seed, *choices])
            rows, others = (rng.integers(len(some), size=MOST_PAIRS) for some in (broken, singles))
            first, second = broken[rows], singles[others]
            pairs = np.where(second != np.array(choices), second, first)
            pairs = pairs[(pairs != np.array(choices)).sum(axis=1) == 2]
            kept = np.concatenate([kept, pairs[self._keep(self.estimated(pairs) * scales)]])
        return [one for one in dict.fromkeys(map(as_choices, kept)) if one != choices]

    def open_options(self, chosen: Sequence[int] | NDArray[np.int64], decision: int | None = None) -> list[int]:
        """Options of the next decision, or of this one, that leave the limits within reach by estimates: with what is
        open as in the floor, they are kept (AMC: He et al., ECCV 2018, algorithm 1). The floor's is always among them
        where no other is."""
        decision = len(chosen) if decision is None else decision
        if self.listed is not None:
            taken = np.flatnonzero(self._partial(chosen) >= 0)
            below = (self.listed[:, taken] == self._partial(chosen)[taken]).all(axis=1)
            return [int(option) for option in np.unique(self.listed[below, decision])]
        partial = self._partial(chosen)
        rows = np.tile(np.where(partial >= 0, partial, np.array(self.floor)), (self.counts[decision], 1))
        rows[:, decision] = np.arange(self.counts[decision])
        kept = np.flatnonzero(self._keep(self.estimated(rows)))
        return [int(option) for option in kept] or [self.floor[decision]]

    def best(self, scores: NDArray[np.float64]) -> Choices:
        """The network of the largest sum of scores (decisions, options; -inf where there is no option) within the
        limits by estimates, as integer programs in succession find it."""
        if not self._keep(self.estimated(np.array([self.floor])))[0]:
            return self.floor
        limits = [_EstimatedLimit(*pair) for pair in zip(self.prices, self.estimates, strict=True)]
        return solve(self.space, scores, limits, self.floor).choices

    def _samples(self) -> NDArray[np.int64]:
        """Networks about the limits."""
        rng = np.random.default_rng(self.seed)
        count = SAMPLES + SAMPLES_PER_DECISION * len(self.counts)
        low, high = 0.0, 1.0
        reference = np.array(self.space.reference)
        while high - low > 0.05:
            middle = (low + high) / 2
            low, high = (low, middle) if self.contains(as_choices(self._between(reference, middle))) else (middle, high)
        shares = np.clip(high + SPREAD * rng.uniform(-1, 1, (count, 1)), 0, 1)
        rows = reference + shares * (np.array(self.floor) - reference)
        spread = SPREAD * (np.array(self.counts) - 1) * rng.standard_normal(rows.shape)
        return np.asarray(np.clip(np.rint(rows + spread), 0, np.array(self.counts) - 1), dtype=np.int64)

    def _idle(self, rng: np.random.Generator, count: int) -> NDArray[np.int64]:
        """The reference so many times, but for random options where the floor has its options, too."""
        rows = np.tile(np.array(self.space.reference), (count, 1))
        alike = np.array(self.space.reference) == np.array(self.floor)
        return np.where(alike, rng.integers(self.counts, size=rows.shape), rows)

    def _on_the_way(self, rows: NDArray[np.int64], paces: NDArray[np.float64]) -> NDArray[np.int64]:
        """Networks (n, decisions) as far on their ways to the floor as estimates ask: at a share t of it, a decision is
        at t ** pace of its own way."""
        aims = np.array([1 + one.error for one in self.estimates])
        low, high = np.zeros((len(rows), 1)), np.ones((len(rows), 1))
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            kept = self._keep(self.estimated(self._between(rows, middle**paces)) * aims)[:, None]
            low, high = np.where(kept, low, middle), np.where(kept, middle, high)
        return self._between(rows, high**paces)

    def _between(self, rows: NDArray[np.int64], shares: NDArray[np.float64] | float) -> NDArray[np.int64]:
        return np.asarray(np.rint(rows + shares * (np.array(self.floor) - rows)), dtype=np.int64)

    def _keep(self, costs: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which networks of these costs (networks, limits) keep the limits."""
        return np.asarray((costs <= self.limits * (1 + ROUNDING)).all(axis=1))

    def _scales(self, choices: Choices) -> NDArray[np.float64]:
        """Factors of the estimates near a network (limits,)."""
        networks = np.array([choices])
        scales = self.priced(networks)[0] / np.maximum(self.estimated(networks)[0], 1e-300)
        return np.where(np.isfinite(scales), scales, 1.0)


def _nearest(networks: NDArray[np.int64], choices: Choices, rng: np.random.Generator) -> Choices:
    """A random one of the networks whose options are the least away."""
    distances = np.abs(networks - np.array(choices)).sum(axis=1)
    return as_choices(networks[rng.choice(np.flatnonzero(distances == distances.min()))])


class _EstimatedLimit:
    """A limit on estimates: a `NetworkLimit`."""

    def __init__(self, price: PriceLimit, estimate: QuadraticCosts) -> None:
        self.name, self.unit, self.limit = price.name, price.unit, price.limit
        self.estimate = estimate

    def cost(self, space: DecisionSpace, choices: Choices) -> float:
        return float(self.estimate(np.array([choices]))[0])

    def constraint(self, space: DecisionSpace, origin: Choices, asked: NDArray[np.bool_] | None = None) -> Constraint:
        table = CostTable.about(origin, space, self.estimate, name=self.name, unit=self.unit, asked=asked)
        return Constraint(table, self.limit)
