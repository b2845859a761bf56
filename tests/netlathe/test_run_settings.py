"""What a run's checkpoints add to the search's: time over all processes, advice, and what tells a run from another."""

from __future__ import annotations

import json
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
from netlathe.runs.chosen import choice_inputs
from netlathe.runs.judges import DeviceAtHand
from netlathe.runs.searched import search_inputs
from netlathe.runs.settings import RunSettings
from netlathe.runs.trained import training_inputs
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
    search = search_inputs(usual)
    assert search == search_inputs(settings()) == search_inputs(local)
    assert search != search_inputs(settings(shade=1))
    assert choice_inputs(usual, search) != choice_inputs(local, search)
    network = tiny(8).architecture([0] * len(tiny(8).searchable))
    assert training_inputs(usual, search, network) == training_inputs(local, search, network)
    assert training_inputs(usual, search, network) != training_inputs(settings(epochs=2), search, network)


def test_a_search_by_an_own_score_is_the_same_search_and_another_choice() -> None:
    own = [settings(score=score) for score in (None, fewest_macs, FewerThan(1), FewerThan(2))]
    assert all(search_inputs(one) == search_inputs(own[0]) for one in own)
    choices = [json.dumps(choice_inputs(one, {})) for one in own]
    assert len(set(choices)) == len(own)
    assert choice_inputs(own[-1], {}) == choice_inputs(settings(score=FewerThan(2)), {})


def fewest_macs(architecture: Architecture) -> float:
    return -architecture.macs


@dataclass(frozen=True)
class FewerThan:
    macs: int

    def __call__(self, architecture: Architecture) -> float:
        return float(architecture.macs < self.macs)
