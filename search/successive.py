"""Successive integer programs: the best choices under limits on costs that do not add up over decisions.

A convolution's time depends on the channels that it reads and on those that it gives, so a table of what single
options cost is right around one network alone. Costs are tabulated around a network, the integer program is solved
within a reach of it, and costs are tabulated around the answer: sequential linear programming with a trust region
(Nocedal and Wright, Numerical Optimization, chapter 18), whose steps are exact (decode).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from netlathe.archspace.decisions import Choices, DecisionSpace
from netlathe.search.correction import Correction
from netlathe.search.costs import ROUNDING, Constraint, CostTable, LatencyModel, show_cost
from netlathe.search.decode import decode
from netlathe.search.errors import TargetError

REACHES = (1.0, 0.5, 0.25, 0.125, 0.0625, 0.0, 0.0)
"""How far the options of a round may be from those of the network that costs are tabulated around, in parts of their
number; at least one option away."""
EXTRA = 4
"""Rounds more, at most, where the last one is not the best yet."""
AIMED = 0.25
"""Reach from which on what a table leaves out is alike from round to round, and can be aimed against."""
GAP = 1e-4
"""Distance from the best sum of scores at which a round's integer program may end, in parts of it: tables are less
exact."""


class NetworkLimit(Protocol):
    """Upper limit on a cost of whole networks, which can be tabulated around one."""

    @property
    def name(self) -> str:
        """Name of the cost in errors and reports."""
        ...

    @property
    def unit(self) -> str:
        """Unit, as "ms"; empty for counts."""
        ...

    @property
    def limit(self) -> float:
        """Most that is allowed, in `unit`."""
        ...

    def cost(self, space: DecisionSpace, choices: Choices) -> float:
        """A network's cost."""
        ...

    def constraint(self, space: DecisionSpace, origin: Choices, asked: NDArray[np.bool_] | None = None) -> Constraint:
        """The limit on a table around a network, of the options `asked`."""
        ...


@dataclass(frozen=True)
class CostLimit:
    """Upper limit on any cost of a network's graph."""

    name: str
    """Name of the cost in errors and reports, as "latency on pixel4-cpu"."""
    unit: str
    model: LatencyModel
    """predict(graphs) gives the costs, in `unit`."""
    limit: float
    batch: int = 1
    correction: Correction | None = None
    """Lessons on the model from judges of whole networks."""

    def cost(self, space: DecisionSpace, choices: Choices) -> float:
        """The network's cost."""
        return float(self.costs(space, [choices])[0])

    def costs(self, space: DecisionSpace, networks: Sequence[Choices]) -> NDArray[np.float64]:
        """Costs of several networks, in less time than one by one."""
        found = np.asarray(self.model.predict([space.graph(choices, self.batch) for choices in networks]), float)
        if self.correction is None:
            return found
        return np.array([self.correction.cost(one, cost) for one, cost in zip(networks, found.tolist(), strict=True)])

    def constraint(self, space: DecisionSpace, origin: Choices, asked: NDArray[np.bool_] | None = None) -> Constraint:
        """The limit on a table around a network, of the options `asked`. Raises TargetError where the model has no
        number above zero."""
        table = CostTable.around(
            origin, space, self.model, batch=self.batch, name=self.name, unit=self.unit, asked=asked
        )
        return Constraint(self.correction.table(table) if self.correction else table, self.limit)

    def show(self, value: float) -> str:
        """A cost in an error's words."""
        return show_cost(value, self.unit)


@dataclass(frozen=True)
class Solved:
    """A network within its limits."""

    choices: Choices
    costs: tuple[float, ...]
    """Costs of the network itself, one per limit."""
    rounds: int
    """Integer programs that led to it; 0 for the start itself."""


def solve(
    space: DecisionSpace,
    scores: NDArray[np.float64],
    limits: Sequence[NetworkLimit],
    start: Choices,
    *,
    reaches: Sequence[float] = REACHES,
    on_round: Callable[[int, int], None] | None = None,
) -> Solved:
    """The network of the largest sum of scores that keeps all limits by its own costs, not those of a table.

    scores (decisions, options), -inf where there is no option; options stand in an order in which near ones cost alike.
    `start` is where the first round looks. Each round tabulates the costs around a network and decodes near it,
    nearer from round to round (`reaches`), so that what the table leaves out shrinks; where a network was above a
    limit, the following rounds aim as much lower. Of all networks seen that keep the limits, `start` among them, the
    best is returned. Raises TargetError where none of them keeps them.
    """
    costs = tuple(limit.cost(space, start) for limit in limits)
    best = Solved(start, costs, 0) if _keeps(costs, limits) else None
    origin, aims = start, [1.0] * len(limits)
    for index, reach in enumerate([*reaches, *[reaches[-1]] * EXTRA]):
        if index >= len(reaches) and best is not None and best.rounds != index:
            break
        if on_round:
            on_round(min(index, len(reaches)), len(reaches))
        origin = _nearby(space, scores, limits, aims, origin, reach)
        costs = tuple(limit.cost(space, origin) for limit in limits)
        if _keeps(costs, limits) and (best is None or _score(scores, origin) > _score(scores, best.choices)):
            best = Solved(origin, costs, index + 1)
        if reach <= AIMED:
            aims = [min(1.0, aim * one.limit / cost) for aim, one, cost in zip(aims, limits, costs, strict=True)]
    if best is None:
        told = ", ".join(f"{show_cost(c, one.unit)} of {one.name}" for c, one in zip(costs, limits, strict=True))
        raise TargetError(f"no network near {space.network_name(start)} keeps the limits; the last one has {told}")
    return best


def _nearby(
    space: DecisionSpace,
    scores: NDArray[np.float64],
    limits: Sequence[NetworkLimit],
    aims: Sequence[float],
    origin: Choices,
    reach: float,
) -> Choices:
    """The best network near one by tables around it, within `aims` parts of the limits; the least costly near it, where
    none keeps these."""
    asked = within(scores, origin, reach)
    pairs = zip(limits, aims, strict=True)
    constraints = [replace(one.constraint(space, origin, asked), limit=aim * one.limit) for one, aim in pairs]
    near = np.where(asked, scores, -np.inf)
    try:
        return decode(near, constraints, gap=GAP)
    except TargetError:
        alive = np.isfinite(near)
        shares = sum(np.where(alive, c.table.values / c.limit, np.inf) for c in constraints)
        return tuple(np.argmin(shares, axis=1).tolist())


def within(scores: NDArray[np.float64], origin: Choices, reach: float) -> NDArray[np.bool_]:
    """Which options (decisions, options) are near those of a network."""
    counts = np.isfinite(scores).sum(axis=1)
    distances = np.abs(np.arange(scores.shape[1]) - np.array(origin)[:, None])
    near: NDArray[np.bool_] = np.isfinite(scores) & (distances <= np.maximum(1, np.floor(reach * counts))[:, None])
    return near


def variants(
    space: DecisionSpace,
    draws: Sequence[NDArray[np.float64]],
    limits: Sequence[NetworkLimit],
    found: Choices,
    *,
    reach: float = 0.25,
    attempts: int = 4,
) -> list[Choices]:
    """Other networks within the limits near one that `solve` has found, the best by other scores than it had: one at
    most for each draw of scores (decisions, options), by one table of costs; those that do not keep the limits by their
    own costs after `attempts` lower aims are left out."""
    others: dict[Choices, None] = {}
    if not draws:
        return []
    asked = within(draws[0], found, reach)
    tables = [limit.constraint(space, found, asked) for limit in limits]
    for scores in draws:
        near, aims = np.where(asked, scores, -np.inf), [1.0] * len(limits)
        for _ in range(attempts):
            try:
                choices = decode(
                    near, [replace(c, limit=c.limit * a) for c, a in zip(tables, aims, strict=True)], gap=GAP
                )
            except TargetError:
                break
            costs = tuple(limit.cost(space, choices) for limit in limits)
            if _keeps(costs, limits):
                others[choices] = None
                break
            aims = [min(1.0, a * one.limit / cost) for a, one, cost in zip(aims, limits, costs, strict=True)]
    others.pop(found, None)
    return list(others)


def widened(
    space: DecisionSpace,
    scores: NDArray[np.float64],
    limits: Sequence[NetworkLimit],
    found: Choices,
    *,
    rounds: int = 1,
) -> Choices:
    """A network with what it leaves of the limits given to single decisions: in each round, options beside its own of
    higher scores (decisions, options), the best together that the limits allow."""
    for _ in range(rounds):
        own = scores[np.arange(len(found)), list(found)]
        better = np.where(scores >= own[:, None], scores, -np.inf)
        others = variants(space, [better], limits, found, reach=0.0)
        if not others:
            break
        found = others[0]
    return found


def _keeps(costs: Sequence[float], limits: Sequence[NetworkLimit]) -> bool:
    return all(cost <= limit.limit * (1 + ROUNDING) for cost, limit in zip(costs, limits, strict=True))


def _score(scores: NDArray[np.float64], choices: Choices) -> float:
    return float(scores[np.arange(len(choices)), list(choices)].sum())
