"""A space, images and a latency table in; the architecture that meets the target out."""

from search.errors import DataError, SearchError, TargetError, TrainingError
from search.images import ImageData, ImageSplit
from search.latency import LatencyModel, LatencyTable, decode
from search.loop import SearchConfig, SearchResult, search
from search.sources import load_images
from search.training import StepProgress, TrainConfig, evaluate, recalibrate_batch_norm, train

__all__ = [
    "DataError",
    "ImageData",
    "ImageSplit",
    "LatencyModel",
    "LatencyTable",
    "SearchConfig",
    "SearchError",
    "SearchResult",
    "StepProgress",
    "TargetError",
    "TrainConfig",
    "TrainingError",
    "decode",
    "evaluate",
    "load_images",
    "recalibrate_batch_norm",
    "search",
    "train",
]
