"""Images in; trained weights out, on any device, resumable to the bit."""

from netlathe.training.checkpoint import Checkpointer
from netlathe.training.compute import Compute
from netlathe.training.errors import DataError, TrainingError
from netlathe.training.evaluation import evaluate, recalibrate_batch_norm
from netlathe.training.images import ImageData, ImageSplit
from netlathe.training.loop import StepProgress, TrainConfig, train
from netlathe.training.normalization import Normalization
from netlathe.training.norms import restore_batch_norm, with_batch_norm
from netlathe.training.sources import load_images

__all__ = [
    "Checkpointer",
    "Compute",
    "DataError",
    "ImageData",
    "ImageSplit",
    "Normalization",
    "StepProgress",
    "TrainConfig",
    "TrainingError",
    "evaluate",
    "load_images",
    "recalibrate_batch_norm",
    "restore_batch_norm",
    "train",
    "with_batch_norm",
]
