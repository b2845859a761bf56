"""A space, images and cost tables in; the architecture that keeps its limits out."""

from search.checkpoint import Checkpointer
from search.compute import Compute
from search.costs import Constraint, CostTable, LatencyModel, decode, limit_memory
from search.errors import DataError, SearchError, TargetError, TrainingError
from search.images import ImageData, ImageSplit
from search.loop import Searcher, search
from search.objectives import PIObjective
from search.outcome import SearchConfig, SearchResult
from search.repair import Repaired, repair
from search.sources import load_images
from search.training import StepProgress, TrainConfig, evaluate, recalibrate_batch_norm, train
from search.updates import GradientUpdate, Reinforce

__all__ = [
    "Checkpointer",
    "Compute",
    "Constraint",
    "CostTable",
    "DataError",
    "GradientUpdate",
    "ImageData",
    "ImageSplit",
    "LatencyModel",
    "PIObjective",
    "Reinforce",
    "Repaired",
    "SearchConfig",
    "SearchError",
    "SearchResult",
    "Searcher",
    "StepProgress",
    "TargetError",
    "TrainConfig",
    "TrainingError",
    "decode",
    "evaluate",
    "limit_memory",
    "load_images",
    "recalibrate_batch_norm",
    "repair",
    "search",
    "train",
]
