"""Strategies by name."""

from __future__ import annotations

from collections.abc import Callable

from netlathe.search.errors import SearchError
from netlathe.search.strategies.blackbox.by_optuna import nsga2, tpe
from netlathe.search.strategies.blackbox.ego import EGO
from netlathe.search.strategies.blackbox.evolution import Evolution
from netlathe.search.strategies.blackbox.feasible import FeasibleSet
from netlathe.search.strategies.blackbox.local import LocalSearch
from netlathe.search.strategies.blackbox.strategy import RandomDraws, Strategy
from netlathe.search.strategies.blackbox.thompson import Thompson
from netlathe.search.strategies.blackbox.uct import UCT

STRATEGIES: dict[str, Callable[..., Strategy]] = {
    "ego": EGO,
    "uct": UCT,
    "evolution": Evolution,
    "local": LocalSearch,
    "thompson": Thompson,
    "tpe": tpe,
    "nsga2": nsga2,
    "random": RandomDraws,
}
"""Strategies by name; each is called as strategy(feasible, seed=0), with settings of its own by keyword."""


def make_strategy(name: str, feasible: FeasibleSet, *, seed: int = 0) -> Strategy:
    """A strategy by its name. Raises SearchError for one that is unknown."""
    if name not in STRATEGIES:
        raise SearchError(f"unknown strategy {name!r}: known are {', '.join(STRATEGIES)}")
    return STRATEGIES[name](feasible, seed=seed)
