"""One search as it was asked for, and what tells it from any other."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from netlathe.archspace.presets import PRESETS, load_space
from netlathe.archspace.spaces import Architecture, SearchSpace
from netlathe.events import Listener
from netlathe.judging import DeviceAtHand
from netlathe.run import CHECKPOINT, FOUND, TRAINING_CHECKPOINT
from netlathe.run_folder import RunFolder
from netlathe.targets import Goal, folder_name

if TYPE_CHECKING:
    from netlathe.checkpoints import RunCheckpointer
    from netlathe.search import SearchConfig, Searcher
    from netlathe.search.costs import Constraint
    from netlathe.training import Compute, ImageData, ImageSplit, TrainConfig
    from netlathe.training.sources import Source

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
    listener: Listener
    update: Literal["gradient", "reinforce"] = "gradient"
    train_from: Literal["scratch", "supernet"] = "scratch"
    device: DeviceAtHand | None = None
    tensorboard: bool = False
    every_s: float = field(default_factory=lambda: EVERY_S)
    is_warm_up: bool = False
    """Whether this is only the beginning that several targets share: it does not depend on the main target's ms."""

    def __post_init__(self) -> None:
        """Leaves only blocks that keep the goal's limit on memory. Raises TargetError where that leaves nothing."""
        object.__setattr__(self, "space", self.goal.narrowed(self.space))

    def at(self, limit_ms: float) -> Job:
        """The same for another limit of the main target, in a folder of its own below this one's."""
        folder = self.folder / folder_name(limit_ms)
        return replace(self, goal=self.goal.at(limit_ms), folder=folder, is_warm_up=False)

    def searcher(self, constraints: list[Constraint]) -> Searcher:
        """At its first step."""
        from netlathe.search import GradientUpdate, Reinforce, Searcher

        rule = Reinforce() if self.update == "reinforce" else GradientUpdate()
        return Searcher(self.space, self.data, constraints, self.search, compute=self.compute, rule=rule)

    def checkpointer(self) -> RunCheckpointer:
        """Of the search."""
        return self._checkpointer(CHECKPOINT, self.description(), f"--restart does that for {self.folder}")

    def found_checkpointer(self) -> RunCheckpointer:
        """Of what the search found, and who judged it."""
        return self._checkpointer(FOUND, self.description(), f"--restart does that for {self.folder}")

    def training_checkpointer(self, architecture: Architecture) -> RunCheckpointer:
        """Of the training; another one of the same network does not cost the search."""
        remedy = f"--restart-training does that for {self.folder}, and keeps the search"
        return self._checkpointer(TRAINING_CHECKPOINT, self.training_description(architecture), remedy)

    def _checkpointer(self, name: str, run: Mapping[str, Any], remedy: str) -> RunCheckpointer:
        from netlathe.checkpoints import RunCheckpointer

        return RunCheckpointer(
            self.folder / name, run, self.every_s, remedy=f"{remedy}; or name another --output", folder=self.held
        )

    @cached_property
    def held(self) -> RunFolder:
        """The folder, watched."""
        return RunFolder(self.folder)

    def judge(self) -> dict[str, Any] | None:
        """Who has the last word on the main target, for JSON; the search itself does not depend on it."""
        if self.device is None:
            return None
        return {"device": self.device.address, "profile": str(self.device.profile) if self.device.profile else None}

    def description(self) -> dict[str, Any]:
        """What the search's outcome depends on, for JSON; but for the judge's last word."""
        goal = self.goal.to_json()
        if self.is_warm_up:
            goal["targets"][0]["ms"] = "several"
        return {
            "config": asdict(self.search),  # first, as the first differences are what a refusal names
            "update": self.update,
            "goal": goal,
            "space": {"name": self.space.name, "blocks": digest(self.space.to_json())},
            "data": self._data,
        }

    def training_description(self, architecture: Architecture) -> dict[str, Any]:
        """What the training's outcome depends on, for JSON."""
        train = {**asdict(self.train), "from": self.train_from}
        return {**self.description(), "architecture": digest(architecture.to_json()), "train": train}

    def run_description(self, architecture: Architecture) -> dict[str, Any]:
        """What the whole run's outcome depends on, as JSON gives it back."""
        whole = {**self.training_description(architecture), "judge": self.judge()}
        return dict(json.loads(json.dumps(whole)))

    @cached_property
    def _data(self) -> dict[str, Any]:
        return _describe_data(self.data)

    def forget(self) -> None:
        """Begins anew: removes the checkpoints of an earlier run in the folder. Its results stay until there are new
        ones."""
        for name in (CHECKPOINT, FOUND, TRAINING_CHECKPOINT):
            self._checkpointer(name, {}, "").forget()

    def forget_training(self) -> None:
        """Lets the found network be trained anew."""
        self._checkpointer(TRAINING_CHECKPOINT, {}, "").forget()


def digest(content: Any) -> str:
    """16 hex digits of something JSON-able."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _describe_data(data: ImageData) -> dict[str, Any]:
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    return {
        "name": data.name,
        "classes": digest(list(data.classes)),
        "images": {name: len(split) for name, split in splits.items()},
        "labels": {name: _digest_bytes(split.labels.numpy().tobytes()) for name, split in splits.items()},
        "pixels": {name: _digest_pixels(split) for name, split in splits.items()},
    }


def _digest_pixels(split: ImageSplit) -> str:
    """Of three images: enough to tell another folder or another way to decode, without reading all."""
    import torch

    few = torch.tensor([0, len(split) // 2, len(split) - 1])
    return _digest_bytes(split.load(few).contiguous().numpy().tobytes())


def _digest_bytes(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def prepare(
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
