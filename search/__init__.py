"""A space, images and cost tables in; the architecture that keeps its limits out."""

from netlathe.search.costs import Constraint, CostTable, LatencyModel, decode, limit_memory
from netlathe.search.errors import SearchError, TargetError
from netlathe.search.loop import Searcher, search
from netlathe.search.objectives import PIObjective
from netlathe.search.outcome import SearchConfig, SearchResult
from netlathe.search.repair import Repaired, repair
from netlathe.search.updates import GradientUpdate, Reinforce

__all__ = [
    "Constraint",
    "CostTable",
    "GradientUpdate",
    "LatencyModel",
    "PIObjective",
    "Reinforce",
    "Repaired",
    "SearchConfig",
    "SearchError",
    "SearchResult",
    "Searcher",
    "TargetError",
    "decode",
    "limit_memory",
    "repair",
    "search",
]
