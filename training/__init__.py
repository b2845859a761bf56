"""Images in; trained weights out, on any device, resumable to the bit."""

from netlathe.archspace.proportions import wilson_interval
from netlathe.training.augmentation import Augmentation
from netlathe.training.checkpoint import Checkpointer
from netlathe.training.compute import Compute
from netlathe.training.errors import DataError, TrainingError
from netlathe.training.evaluation import evaluate, recalibrate_batch_norm
from netlathe.training.images import ImageData, ImageSplit
from netlathe.training.loop import StepProgress, TrainConfig, train
from netlathe.training.losses import class_weights
from netlathe.training.metrics import Classification, classify
from netlathe.training.normalization import Normalization
from netlathe.training.norms import restore_batch_norm, with_batch_norm
from netlathe.training.recipes import RECIPES, training_recipe
from netlathe.training.sources import load_images

__all__ = [
    "RECIPES",
    "Augmentation",
    "Checkpointer",
    "Classification",
    "Compute",
    "DataError",
    "ImageData",
    "ImageSplit",
    "Normalization",
    "StepProgress",
    "TrainConfig",
    "TrainingError",
    "class_weights",
    "classify",
    "evaluate",
    "load_images",
    "recalibrate_batch_norm",
    "restore_batch_norm",
    "train",
    "training_recipe",
    "wilson_interval",
    "with_batch_norm",
]
