"""Images in; trained weights out, on any device, resumable to the bit."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from netlathe.archspace.proportions import wilson_interval

if TYPE_CHECKING:
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

_HOMES = {
    "Augmentation": "augmentation",
    "Checkpointer": "checkpoint",
    "Compute": "compute",
    "DataError": "errors",
    "TrainingError": "errors",
    "evaluate": "evaluation",
    "recalibrate_batch_norm": "evaluation",
    "ImageData": "images",
    "ImageSplit": "images",
    "StepProgress": "loop",
    "TrainConfig": "loop",
    "train": "loop",
    "class_weights": "losses",
    "Classification": "metrics",
    "classify": "metrics",
    "Normalization": "normalization",
    "restore_batch_norm": "norms",
    "with_batch_norm": "norms",
    "RECIPES": "recipes",
    "training_recipe": "recipes",
    "load_images": "sources",
}

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


def __getattr__(name: str) -> Any:
    """Imports on first use: torch takes seconds, which what only refuses arguments need not spend."""
    if name not in _HOMES:
        raise AttributeError(f"module 'netlathe.training' has no attribute {name!r}")
    return getattr(import_module(f"netlathe.training.{_HOMES[name]}"), name)
