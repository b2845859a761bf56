"""A space, images and cost tables in; the architecture that keeps its limits out."""

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
