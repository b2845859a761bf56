"""Names of the published training recipes, apart from their settings, which import torch."""

from __future__ import annotations

from netlathe.archspace.errors import did_you_mean
from netlathe.training.errors import TrainingError

RECIPE_NAMES = ("cifar", "imagenet-short", "imagenet-300", "imagenet-600", "imagenet-adamw")


def check_recipe(name: str) -> None:
    """Raises TrainingError for a name that there is not, with the nearest one."""
    if name not in RECIPE_NAMES:
        known = ", ".join(RECIPE_NAMES)
        raise TrainingError(f"unknown recipe {name!r:.80}{did_you_mean(name, RECIPE_NAMES)}; there are {known}")
