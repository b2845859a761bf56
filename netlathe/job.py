"""One search as it was asked for, and what tells it from any other."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from archspace.presets import PRESETS, load_space
from archspace.spaces import SearchSpace
from netlathe.console import Terminal
from netlathe.judging import DeviceAtHand
from netlathe.targets import Goal

if TYPE_CHECKING:
    from search import Checkpointer, Compute, ImageData, SearchConfig, Searcher, TrainConfig
    from search.costs import Constraint

CHECKPOINT, TRAINING_CHECKPOINT = "checkpoint.npz", "training.npz"
EVERY_S = 60.0
"""Between checkpoints: what a power cut may cost."""


@dataclass(frozen=True)
class Job:
    """Everything that a search, the training of what it finds, and its report depend on."""

    space: SearchSpace
    data: ImageData
    goal: Goal
    folder: Path
    search: SearchConfig
    train: TrainConfig
    compute: Compute
    terminal: Terminal
    update: Literal["gradient", "reinforce"] = "gradient"
    train_from: Literal["scratch", "supernet"] = "scratch"
    device: DeviceAtHand | None = None
    tensorboard: bool = False
    every_s: float = field(default_factory=lambda: EVERY_S)
    is_warm_up: bool = False
    """Whether this is only the beginning that several targets share: it does not depend on the main target's ms."""

    def at(self, limit_ms: float) -> Job:
        """The same for another limit of the main target, in a folder of its own below this one's."""
        folder = self.folder / f"{limit_ms:g}ms"
        return replace(self, goal=self.goal.at(limit_ms), folder=folder, is_warm_up=False)

    def searcher(self, constraints: list[Constraint]) -> Searcher:
        """At its first step."""
        from search import GradientUpdate, Reinforce, Searcher

        rule = Reinforce() if self.update == "reinforce" else GradientUpdate()
        return Searcher(self.space, self.data, constraints, self.search, compute=self.compute, rule=rule)

    def checkpointer(self) -> Checkpointer:
        """Of the search."""
        from search import Checkpointer

        return Checkpointer(self.folder / CHECKPOINT, self.description(), self.every_s)

    def training_checkpointer(self) -> Checkpointer:
        """Of the training; another training of the same search is another run."""
        from search import Checkpointer

        train = {**asdict(self.train), "from": self.train_from}
        return Checkpointer(self.folder / TRAINING_CHECKPOINT, {**self.description(), "train": train}, self.every_s)

    def description(self) -> dict[str, Any]:
        """What the search's outcome depends on, for JSON."""
        goal = self.goal.to_json()
        if self.is_warm_up:
            goal["targets"][0]["ms"] = "several"
        return {
            "space": {"name": self.space.name, "blocks": digest(self.space.to_json())},
            "data": _describe_data(self.data),
            "goal": goal,
            "update": self.update,
            "judge": None if self.device is None else self.device.address,
            "config": asdict(self.search),
        }

    def forget(self) -> None:
        """Begins anew: removes the checkpoints of an earlier run in the folder. Its results stay until there are new
        ones."""
        for checkpointer in (self.checkpointer(), self.training_checkpointer()):
            checkpointer.forget()


def digest(content: Any) -> str:
    """16 hex digits of something JSON-able."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _describe_data(data: ImageData) -> dict[str, Any]:
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    return {
        "name": data.name,
        "classes": digest(list(data.classes)),
        "images": {name: len(split) for name, split in splits.items()},
        "labels": {name: digest(split.labels.tolist()) for name, split in splits.items()},
    }


def prepare(
    space_name: str, source: str, *, resolution: int | None, width: float | None, limit: int | None, seed: int
) -> tuple[SearchSpace, ImageData]:
    """The space, and the images at its resolution; a preset's head gets as many classes as the images have."""
    from search import load_images
    from search.outcome import check_data

    space = load_space(space_name, resolution=resolution, width=width)
    height, wide, channels = space.input_shape
    data = load_images(source, (height, wide), channels=channels, seed=seed, limit=limit)
    if space_name in PRESETS:
        space = load_space(space_name, resolution=resolution, width=width, classes=len(data.classes))
    check_data(space, data)
    return space, data
