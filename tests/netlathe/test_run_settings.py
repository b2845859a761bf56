"""What a run's checkpoints add to the search's: time over all processes, advice, and what tells a run from another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from netlathe.archspace.errors import FormatError
from netlathe.archspace.presets import tiny
from netlathe.archspace.spaces import Architecture
from netlathe.runs.checkpoints import RunCheckpointer
from netlathe.runs.judges import DeviceAtHand
from netlathe.runs.settings import RunSettings
from netlathe.search import SearchConfig
from netlathe.targets import Goal
from netlathe.training import ImageData, TrainConfig
from netlathe.training.checkpoint import ForeignCheckpointError
from netlathe.training.images import MemorySplit


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def checkpointer(path: Path, clock: Callable[[], float], seed: int = 0) -> RunCheckpointer:
    return RunCheckpointer(path / "c.npz", {"config": {"seed": seed}}, clock=clock, remedy="--restart does that")


def test_seconds_add_up_over_processes_but_not_over_the_time_between(tmp_path: Path) -> None:
    clock = Clock()
    first = checkpointer(tmp_path, clock)
    clock.now += 5
    first.begin()
    clock.now += 30
    first.save({"step": 1})
    clock.now += 1000
    second = checkpointer(tmp_path, clock)
    assert second.load() == {"step": 1}
    clock.now += 12
    assert second.seconds() == 42
    second.save({"step": 2})
    third = checkpointer(tmp_path, clock)
    third.load()
    assert third.seconds() == 42


def test_a_refusal_says_what_to_do_and_what_differs(tmp_path: Path) -> None:
    checkpointer(tmp_path, Clock()).save({"step": 1})
    with pytest.raises(ForeignCheckpointError, match="--restart does that") as caught:
        checkpointer(tmp_path, Clock(), seed=1).load()
    assert caught.value.differences == ("config.seed",)
    mine = checkpointer(tmp_path, Clock())

    def load(state: Any) -> None:
        raise KeyError("alpha")

    with pytest.raises(FormatError, match=r"does not fit this run .*alpha.*--restart does that"):
        mine.resume(load, {})
    (tmp_path / "c.npz").write_bytes(b"PK")
    with pytest.raises(FormatError, match=r"not a whole checkpoint.*--restart does that"):
        mine.load()


class NoGoal:
    """A goal that needs no predictor."""

    def to_json(self) -> dict[str, Any]:
        return {}


def settings(shade: int = 0, device: DeviceAtHand | None = None, epochs: int = 1, **more: Any) -> RunSettings:
    images = torch.zeros((6, 3, 8, 8), dtype=torch.uint8)
    images[3] += shade
    split = MemorySplit(images, torch.arange(6) % 2)
    data = ImageData("d", ("a", "b"), split, split, split)
    return RunSettings(
        tiny(8), data, cast(Goal, NoGoal()), SearchConfig(), TrainConfig(epochs=epochs), device=device, **more
    )


def test_a_search_is_told_apart_by_its_pixels_and_not_by_its_judge() -> None:
    usual, local = settings(), settings(device=DeviceAtHand("local", Path("p.sqlite")))
    assert usual.of_search() == settings().of_search()
    assert usual.of_search() != settings(shade=1).of_search()
    assert usual.of_search() == local.of_search()
    network = tiny(8).architecture([0] * len(tiny(8).searchable))
    assert usual.of_training(network) == local.of_training(network)
    assert usual.of_choice() != local.of_choice()
    assert usual.of_run(network) != local.of_run(network)
    assert usual.of_training(network) != settings(epochs=2).of_training(network)


def test_a_search_by_an_own_score_is_the_same_search_and_another_choice() -> None:
    usual, own = settings(), settings(score=fewest_macs)
    assert usual.of_search() == own.of_search()
    assert usual.of_choice() != own.of_choice() != settings(score=FewerThan(1)).of_choice()
    assert settings(score=FewerThan(1)).of_choice() == settings(score=FewerThan(1)).of_choice()
    assert settings(score=FewerThan(1)).of_choice() != settings(score=FewerThan(2)).of_choice()


def fewest_macs(architecture: Architecture) -> float:
    return -architecture.macs


@dataclass(frozen=True)
class FewerThan:
    macs: int

    def __call__(self, architecture: Architecture) -> float:
        return float(architecture.macs < self.macs)
