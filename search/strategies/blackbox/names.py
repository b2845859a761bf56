"""Strategies by name."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from netlathe.archspace.errors import did_you_mean
from netlathe.search.errors import SearchError
from netlathe.search.strategies.blackbox.by_optuna import nsga2, tpe
from netlathe.search.strategies.blackbox.ego import EGO
from netlathe.search.strategies.blackbox.evolution import Evolution
from netlathe.search.strategies.blackbox.feasible import FeasibleSet
from netlathe.search.strategies.blackbox.local import LocalSearch
from netlathe.search.strategies.blackbox.strategy import RandomDraws, Strategy
from netlathe.search.strategies.blackbox.thompson import Thompson
from netlathe.search.strategies.blackbox.uct import UCT


def actor_critic(feasible: FeasibleSet, *, seed: int = 0, **settings: Any) -> Strategy:
    """Advantage actor-critic, with the settings of `ActorCritic`. Raises SearchError where Stable-Baselines3, its
    library, is not installed."""
    check_packages("actor-critic")
    from netlathe.search.strategies.blackbox.actor_critic import ActorCritic  # takes seconds

    return ActorCritic(feasible, seed=seed, **settings)


STRATEGIES: dict[str, Callable[..., Strategy]] = {
    "ego": EGO,
    "uct": UCT,
    "evolution": Evolution,
    "local": LocalSearch,
    "thompson": Thompson,
    "actor-critic": actor_critic,
    "tpe": tpe,
    "nsga2": nsga2,
    "random": RandomDraws,
}
"""Strategies by name; each is called as strategy(feasible, seed=0), with settings of its own by keyword."""


def check_packages(name: str) -> None:
    """Raises SearchError where a package that a strategy needs, and netlathe itself does not, is not installed."""
    if name == "actor-critic" and not all(map(find_spec, ("stable_baselines3", "gymnasium"))):
        raise SearchError(
            'strategy actor-critic needs the package stable-baselines3; pip install "netlathe[rl]", or name another '
            "strategy"
        )


def make_strategy(name: str, feasible: FeasibleSet, *, seed: int = 0) -> Strategy:
    """A strategy by its name. Raises SearchError for one that is unknown, or whose packages are not installed."""
    if name not in STRATEGIES:
        meant = did_you_mean(name, STRATEGIES)
        raise SearchError(f"unknown strategy {name!r}{meant}: known are {', '.join(STRATEGIES)}")
    return STRATEGIES[name](feasible, seed=seed)
