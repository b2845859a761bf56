"""Settings of a run: all that its outcome depends on, and how they are written down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from netlathe.archspace.files import digest
from netlathe.archspace.presets import PRESETS, load_space
from netlathe.archspace.spaces import Architecture, SearchSpace
from netlathe.runs.judges import DeviceAtHand
from netlathe.runs.phase import json_digest
from netlathe.runs.recipes import Recipe, describe_recipe, name_of
from netlathe.targets import Goal

if TYPE_CHECKING:
    from netlathe.search import SearchConfig
    from netlathe.training import ImageData, ImageSplit, TrainConfig
    from netlathe.training.sources import Source

Score = Callable[[Architecture], float]
"""How good a network is, the higher the better; a user's own, in place of the validation accuracy."""


@dataclass(frozen=True)
class RunSettings:
    """Everything that a run's outcome depends on."""

    space: SearchSpace
    data: ImageData
    goal: Goal
    search: SearchConfig
    training: TrainConfig | Recipe
    update: Literal["gradient", "reinforce"] = "gradient"
    train_from: Literal["scratch", "supernet"] = "scratch"
    device: DeviceAtHand | None = None
    score: Score | None = None

    def at(self, limit_ms: float) -> RunSettings:
        """The same with another limit of the main target."""
        return replace(self, goal=self.goal.at(limit_ms))

    def of_search(self, *, is_shared: bool = False) -> dict[str, Any]:
        """What the search depends on, for JSON. `is_shared`: up to where the architecture begins to move, which several
        limits of the main target share."""
        goal = self.goal.to_json()
        if is_shared:
            goal["targets"][0]["ms"] = "several"
        return {
            "config": asdict(self.search),  # first, as the first differences are what a refusal names
            "update": self.update,
            "goal": goal,
            "space": {"name": self.space.name, "blocks": json_digest(self.space.to_json())},
            "data": self._data,
        }

    def of_choice(self) -> dict[str, Any]:
        """What the choice of the network depends on, for JSON: the search, the judge, and an own score."""
        own = {"score": name_of(self.score)} if self.score else {}
        return {**self.of_search(), "judge": self.device.to_json() if self.device else None, **own}

    def of_training(self, architecture: Architecture) -> dict[str, Any]:
        """What the training depends on, for JSON; not on who chose the network."""
        train = {**describe_recipe(self.training), "from": self.train_from}
        return {**self.of_search(), "architecture": json_digest(architecture.to_json()), "train": train}

    def of_run(self, architecture: Architecture) -> dict[str, Any]:
        """What the whole run depends on, for JSON."""
        return {**self.of_training(architecture), **self.of_choice()}

    @cached_property
    def _data(self) -> dict[str, Any]:
        splits = {"train": self.data.train, "validation": self.data.validation, "test": self.data.test}
        return {
            "name": self.data.name,
            "classes": json_digest(list(self.data.classes)),
            "images": {name: len(split) for name, split in splits.items()},
            "labels": {name: digest(split.labels.numpy().tobytes()) for name, split in splits.items()},
            "pixels": {name: _digest_of_pixels(split) for name, split in splits.items()},
        }


def _digest_of_pixels(split: ImageSplit) -> str:
    """Digest of three images: enough to tell another folder or another way to decode, without reading all."""
    import torch

    few = torch.tensor([0, len(split) // 2, len(split) - 1])
    return digest(split.load(few).contiguous().numpy().tobytes())


def load_inputs(
    given: str | Path | SearchSpace,
    source: Source | ImageData,
    *,
    resolution: int | None,
    width: float | None,
    limit: int | None,
    seed: int,
) -> tuple[SearchSpace, ImageData]:
    """The space, and the images at its resolution; a preset's head gets as many classes as the images have."""
    from netlathe.search.strategies.binarized.outcome import check_data
    from netlathe.training import ImageData, load_images

    is_preset = isinstance(given, str) and given in PRESETS
    space = given if isinstance(given, SearchSpace) else load_space(str(given), resolution=resolution, width=width)
    height, wide, channels = space.input_shape
    data = source
    if not isinstance(data, ImageData):
        data = load_images(data, (height, wide), channels=channels, seed=seed, limit=limit)
    if is_preset:
        space = load_space(str(given), resolution=resolution, width=width, classes=len(data.classes))
    check_data(space, data)
    return space, data
