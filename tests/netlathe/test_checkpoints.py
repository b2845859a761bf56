"""What a run's checkpoints add to the search's: time over all processes, advice, and what tells a run from another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from netlathe.archspace.errors import FormatError
from netlathe.archspace.presets import tiny
from netlathe.archspace.spaces import SearchSpace
from netlathe.checkpoints import RunCheckpointer
from netlathe.events import Listener
from netlathe.job import Job
from netlathe.judging import DeviceAtHand
from netlathe.search import SearchConfig
from netlathe.targets import Goal
from netlathe.training import Compute, ImageData, TrainConfig
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

    def narrowed(self, space: SearchSpace) -> SearchSpace:
        return space


def job(shade: int = 0, device: DeviceAtHand | None = None, epochs: int = 1) -> Job:
    images = torch.zeros((6, 3, 8, 8), dtype=torch.uint8)
    images[3] += shade
    split = MemorySplit(images, torch.arange(6) % 2)
    return Job(
        tiny(8), ImageData("d", ("a", "b"), split, split, split), cast(Goal, NoGoal()), Path("run"), SearchConfig(),
        TrainConfig(epochs=epochs), Compute("cpu"), Listener(), device=device,
    )  # fmt: skip


def test_a_search_is_told_apart_by_its_pixels_and_not_by_its_judge() -> None:
    assert job().description() == job().description()
    assert job().description() != job(shade=1).description()
    local = DeviceAtHand("local", Path("p.sqlite"))
    assert job().description() == job(device=local).description()
    network = tiny(8).architecture([0] * len(tiny(8).searchable))
    assert job().training_description(network) == job(device=local).training_description(network)
    assert job().run_description(network) != job(device=local).run_description(network)
    assert job().training_description(network) != job(epochs=2).training_description(network)
