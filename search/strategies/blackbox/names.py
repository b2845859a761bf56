"""Strategies by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from netlathe.archspace.errors import did_you_mean
from netlathe.search.errors import SearchError

if TYPE_CHECKING:
    from netlathe.search.strategies.blackbox.feasible import FeasibleSet
    from netlathe.search.strategies.blackbox.strategy import Strategy


def _made(home: str, own: str, feasible: FeasibleSet, **settings: Any) -> Strategy:
    """A strategy of netlathe's, whose module is imported now: they take seconds, which a list of names need not."""
    make: Callable[..., Strategy] = getattr(import_module(f"netlathe.search.strategies.blackbox.{home}"), own)
    return make(feasible, **settings)


def actor_critic(feasible: FeasibleSet, *, seed: int = 0, **settings: Any) -> Strategy:
    """Advantage actor-critic, with the settings of `ActorCritic`. Raises SearchError where Stable-Baselines3, its
    library, is not installed."""
    check_packages("actor-critic")
    return _made("actor_critic", "ActorCritic", feasible, seed=seed, **settings)


STRATEGIES: dict[str, Callable[..., Strategy]] = {
    "ego": partial(_made, "ego", "EGO"),
    "uct": partial(_made, "uct", "UCT"),
    "evolution": partial(_made, "evolution", "Evolution"),
    "local": partial(_made, "local", "LocalSearch"),
    "thompson": partial(_made, "thompson", "Thompson"),
    "actor-critic": actor_critic,
    "tpe": partial(_made, "by_optuna", "tpe"),
    "nsga2": partial(_made, "by_optuna", "nsga2"),
    "random": partial(_made, "strategy", "RandomDraws"),
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
