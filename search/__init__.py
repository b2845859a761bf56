"""A space, images and cost tables in; the architecture that keeps its limits out."""

from netlathe.search.checkpoint import Checkpointer
from netlathe.search.compute import Compute
from netlathe.search.costs import Constraint, CostTable, LatencyModel, decode, limit_memory
from netlathe.search.errors import DataError, SearchError, TargetError, TrainingError
from netlathe.search.images import ImageData, ImageSplit
from netlathe.search.loop import Searcher, search
from netlathe.search.objectives import PIObjective
from netlathe.search.outcome import SearchConfig, SearchResult
from netlathe.search.repair import Repaired, repair
from netlathe.search.sources import load_images
from netlathe.search.training import StepProgress, TrainConfig, evaluate, recalibrate_batch_norm, train
from netlathe.search.updates import GradientUpdate, Reinforce

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
