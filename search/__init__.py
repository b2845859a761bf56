"""A space, images and cost tables in; the architecture that keeps its limits out."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from netlathe.search.candidates import Evaluated
    from netlathe.search.costs import Constraint, CostTable, LatencyModel, limit_memory
    from netlathe.search.decode import decode
    from netlathe.search.errors import SearchError, TargetError
    from netlathe.search.repair import Repaired, repair
    from netlathe.search.strategies.binarized.loop import Searcher, search
    from netlathe.search.strategies.binarized.objectives import PIObjective
    from netlathe.search.strategies.binarized.outcome import SearchResult
    from netlathe.search.strategies.binarized.settings import SearchConfig
    from netlathe.search.strategies.binarized.updates import GradientUpdate, Reinforce
    from netlathe.search.strategies.blackbox.feasible import FeasibleSet, PriceLimit
    from netlathe.search.strategies.blackbox.names import STRATEGIES, make_strategy
    from netlathe.search.strategies.blackbox.strategy import Strategy
    from netlathe.search.strategies.blackbox.study import Study

_HOMES = {
    "Evaluated": "candidates",
    "Constraint": "costs",
    "CostTable": "costs",
    "LatencyModel": "costs",
    "limit_memory": "costs",
    "decode": "decode",
    "SearchError": "errors",
    "TargetError": "errors",
    "Repaired": "repair",
    "repair": "repair",
    "Searcher": "strategies.binarized.loop",
    "search": "strategies.binarized.loop",
    "PIObjective": "strategies.binarized.objectives",
    "SearchResult": "strategies.binarized.outcome",
    "SearchConfig": "strategies.binarized.settings",
    "GradientUpdate": "strategies.binarized.updates",
    "Reinforce": "strategies.binarized.updates",
    "FeasibleSet": "strategies.blackbox.feasible",
    "PriceLimit": "strategies.blackbox.feasible",
    "STRATEGIES": "strategies.blackbox.names",
    "make_strategy": "strategies.blackbox.names",
    "Strategy": "strategies.blackbox.strategy",
    "Study": "strategies.blackbox.study",
}

__all__ = [
    "STRATEGIES",
    "Constraint",
    "CostTable",
    "Evaluated",
    "FeasibleSet",
    "GradientUpdate",
    "LatencyModel",
    "PIObjective",
    "PriceLimit",
    "Reinforce",
    "Repaired",
    "SearchConfig",
    "SearchError",
    "SearchResult",
    "Searcher",
    "Strategy",
    "Study",
    "TargetError",
    "decode",
    "limit_memory",
    "make_strategy",
    "repair",
    "search",
]


class _Package(ModuleType):
    """Python binds a submodule to its name once it is imported; the functions called like their modules keep theirs."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


def __getattr__(name: str) -> Any:
    """Imports on first use: torch takes seconds, which what only refuses arguments need not spend."""
    if name not in _HOMES:
        raise AttributeError(f"module 'netlathe.search' has no attribute {name!r}")
    return getattr(import_module(f"netlathe.search.{_HOMES[name]}"), name)


sys.modules[__name__].__class__ = _Package
