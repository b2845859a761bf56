"""A user's own block class, score and training recipe, from the search to the report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import netlathe as nl
from netlathe.archspace import ops
from netlathe.archspace.blocks import ConvBlock, LinearHead, MBConv, Skip
from netlathe.archspace.errors import SpaceError
from netlathe.archspace.graph import Graph, GraphBuilder
from netlathe.archspace.spaces import Architecture, SearchSpace
from netlathe.runs.files import load_weights
from netlathe.training import Checkpointer, Compute, ImageData
from netlathe.training.normalization import SYMMETRIC

CHOICES = (MBConv(8, 8, 8, 8, kernel=3, expand=6), MBConv(8, 8, 8, 8, kernel=3, expand=2), Skip(8, 8, 8, 8))
SPACE = SearchSpace("small", ((ConvBlock(3, 8, 8, 8),), CHOICES, CHOICES, (LinearHead(8, 3, 8, 8),)))
EVERY_NETWORK = [SPACE.architecture([one, other]) for one in range(3) for other in range(3)]
CONFIG = nl.SearchConfig(start_epochs=1, warmup_epochs=0, epochs=1, finalists=9, batch_size=16)
TRAINING = nl.TrainConfig(epochs=1, batch_size=16)


class MacsModel:
    """A millisecond per million MACs."""

    def predict(self, graphs: Sequence[Graph]) -> list[float]:
        return [1e-6 * graph.macs + 1e-3 for graph in graphs]


def images(count: int = 90) -> tuple[Any, Any]:
    """Images of three shades, which are their classes."""
    labels = np.arange(count) % 3
    noise = np.random.default_rng(0).integers(-30, 30, (count, 8, 8, 3))
    return ((80 * labels + 40)[:, None, None, None] + noise).astype(np.uint8), labels


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take most of the time; one test draws them."""
    for name in ("draw_search", "draw_architectures"):
        monkeypatch.setattr(f"netlathe.runs.chosen.{name}", lambda *_: None)


def search(output: Path, space: SearchSpace = SPACE, **options: Any) -> Any:
    given = {"target": nl.Target(MacsModel(), 1e3, "mine"), "config": CONFIG, "training": TRAINING, **options}
    return nl.search(space, images(), output=output, **given)


@dataclass(frozen=True)
class Shortcut:
    """A block of no class that netlathe knows: a 1x1 convolution beside a shortcut."""

    channels: int
    size: int
    kernel: int = 1

    @property
    def name(self) -> str:
        return f"my_shortcut_c{self.channels}_{self.size}"

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.size, self.size, self.channels)

    output_shape = input_shape

    def graph(self, batch: int = 1) -> Graph:
        builder = GraphBuilder((batch, *self.input_shape))
        mixed = builder.add(
            "mix", ops.Conv2d(self.channels, (self.kernel, self.kernel), (1, 1), 1, ops.Padding.SAME, True), 0
        )
        builder.add("add", ops.Add(), mixed, 0)
        return builder.build()


def own_space(kernel: int = 1) -> SearchSpace:
    mixed: tuple[Any, ...] = (Shortcut(8, 8, kernel), CHOICES[0])
    return SearchSpace("own", ((ConvBlock(3, 8, 8, 8),), mixed, mixed, (LinearHead(8, 3, 8, 8),)))


def test_a_block_class_of_ones_own_is_searched_trained_exported_and_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # its pictures are drawn
    space = own_space()
    lightest_ms = 1e-6 * space.architecture([0, 0]).macs + 1e-3
    report = search(tmp_path / "run", space, target=nl.Target(MacsModel(), 1.01 * lightest_ms, "mine"))
    assert [type(block) for block in report.architecture.blocks[1:3]] == [Shortcut, Shortcut]
    assert report.predicted_ms == pytest.approx(lightest_ms)
    assert set(report.accuracy) == {"torch", "tflite", "int8", "onnx"}
    assert report.accuracy["tflite"] == pytest.approx(report.accuracy["torch"], abs=1e-9)
    assert all(Path(file).is_file() for file in report.files.values())
    assert {"architecture.png", "search.png"} <= {path.name for path in (tmp_path / "run").iterdir()}
    assert search(tmp_path / "run", space, target=nl.Target(MacsModel(), 1.01 * lightest_ms, "mine")) == report
    with pytest.raises(nl.FormatError, match=r"space\.own: "):  # under the same name
        search(tmp_path / "run", own_space(kernel=3), target=nl.Target(MacsModel(), 1.0, "mine"))
    (tmp_path / "run" / "report.json").unlink()
    assert search(tmp_path / "run", space, target=nl.Target(MacsModel(), 1.01 * lightest_ms, "mine")) == report


def test_a_score_of_ones_own_takes_the_place_of_the_validation_loss(tmp_path: Path) -> None:
    seen: list[str] = []

    def like_skips(architecture: Architecture) -> float:
        seen.append(architecture.name)
        return 100.0 * sum(isinstance(block, Skip) for block in architecture.blocks)

    def like_work(architecture: Architecture) -> float:
        return 1e-3 * architecture.macs

    lightest = search(tmp_path / "run", score=like_skips)
    assert lightest.name == SPACE.architecture([2, 2]).name
    assert sorted(seen) == sorted(network.name for network in EVERY_NETWORK)  # finalists: 9
    examined = json.loads((tmp_path / "run" / "choice.json").read_text())["examined"]
    losses = {tuple(one["choices"]): one["cross_entropy"] for one in examined}
    assert losses[2, 2] == -200.0
    before = (tmp_path / "run" / "checkpoint.npz").stat().st_mtime_ns
    heaviest = search(tmp_path / "run", score=like_work)  # another score only chooses again
    assert heaviest.name == SPACE.architecture([0, 0]).name
    assert (tmp_path / "run" / "checkpoint.npz").stat().st_mtime_ns == before


def test_a_score_that_is_no_number_is_refused_with_its_place(tmp_path: Path) -> None:
    def no_number(architecture: Architecture) -> float:
        return float("nan")

    with pytest.raises(nl.TrainingError, match="comparing networks, choices"):
        search(tmp_path / "run", score=no_number)
    assert not (tmp_path / "run" / "choice.json").exists()


class Opaque:
    """A callable whose settings nobody can see."""

    def __call__(self, *_: Any) -> float:
        return 1.0

    method = __call__


@pytest.mark.parametrize("own", [lambda *_: 1.0, Opaque(), Opaque().method, partial(max, 1.0)])
@pytest.mark.parametrize("option", ["score", "training"])
def test_what_cannot_be_told_from_another_is_refused_before_any_work(tmp_path: Path, own: Any, option: str) -> None:
    with pytest.raises(nl.NetlatheError, match="give a function with a name, or a frozen dataclass"):
        search(tmp_path / "run", **{option: own})
    assert not (tmp_path / "run").exists()


def constant(module: nn.Module, data: ImageData, compute: Compute) -> nn.Module:
    """Weights that say class 1, whatever the image."""
    with torch.no_grad():
        for value in module.parameters():
            value.zero_()
        list(module.parameters())[-1][1] = 1.0
    return module


def test_a_recipe_of_ones_own_trains_the_network(tmp_path: Path) -> None:
    report = search(tmp_path / "run", training=constant)
    assert report.run["train"]["recipe"].endswith("test_own_pieces.constant")
    data = nl.load_images(images(), (8, 8))
    expected = float((data.test.labels == 1).float().mean())
    assert list(report.accuracy.values()) == pytest.approx([expected] * 4)
    network = load_weights(tmp_path / "run", report.architecture)
    assert network(SYMMETRIC(data.test.load(torch.arange(2)))).tolist() == [[0.0, 1.0, 0.0]] * 2
    assert search(tmp_path / "run", training=constant) == report
    with pytest.raises(nl.FormatError, match=r"train\.batch_size: 16 here, absent .*--restart-training"):
        search(tmp_path / "run")


@dataclass(frozen=True)
class Counting:
    """A recipe in rounds, which is cut off after some of them, and goes on from its last checkpoint."""

    rounds: int
    log: Path

    def __call__(self, module: nn.Module, data: ImageData, compute: Compute, checkpointer: Checkpointer) -> nn.Module:
        state = checkpointer.load() or {"round": 0, "weights": module.state_dict()}
        module.load_state_dict(state["weights"])
        for number in range(state["round"], self.rounds):
            with self.log.open("a") as stream:
                stream.write(f"{number}\n")
            with torch.no_grad():
                list(module.parameters())[-1].add_(1.0)
            checkpointer.save({"round": number + 1, "weights": module.state_dict()})
            if number == 1 and self.log.read_text().count("\n") == 2:
                raise KeyboardInterrupt
        return module


def test_a_recipe_that_asks_for_a_checkpointer_goes_on_where_it_was_cut_off(tmp_path: Path) -> None:
    recipe = Counting(3, tmp_path / "log")
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "run", training=recipe)
    report = search(tmp_path / "run", training=recipe)
    assert recipe.log.read_text().split() == ["0", "1", "2"]
    bias = list(load_weights(tmp_path / "run", report.architecture).parameters())[-1]
    assert bias.detach().numpy() == pytest.approx(np.full(3, 3.0), abs=0.5)  # three rounds, on a small beginning
    with pytest.raises(nl.FormatError, match=r"train\.recipe"):
        search(tmp_path / "run", training=Counting(4, tmp_path / "log"))


def without_numbers(module: nn.Module) -> nn.Module:
    with torch.no_grad():
        next(iter(module.parameters())).fill_(float("nan"))
    return module


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda module: None, "returned NoneType; it must return the trained module"),
        (lambda module: nn.Linear(2, 2), "a module of other weights than the one that it was given"),
        (without_numbers, "holds NaN"),
    ],
)
def test_a_recipe_that_returns_something_else_is_refused_and_leaves_no_report(
    tmp_path: Path, result: Any, message: str
) -> None:
    def recipe(module: nn.Module, data: ImageData, compute: Compute) -> Any:
        return result(module)

    with pytest.raises(nl.TrainingError, match=message):
        search(tmp_path / "run", training=recipe)
    assert not {"training.json", "report.json"} & {path.name for path in (tmp_path / "run").iterdir()}


def test_a_space_with_an_own_block_is_not_saved_as_what_cannot_be_loaded(tmp_path: Path) -> None:
    own = SearchSpace("small", (SPACE.positions[0], (*CHOICES, Shortcut(8, 8)), SPACE.positions[-1]))
    with pytest.raises(SpaceError, match=r"my_shortcut_c8_8 is a test_own_pieces\.Shortcut"):
        own.save(tmp_path / "space.json")
    assert not (tmp_path / "space.json").exists()
    SPACE.save(tmp_path / "space.json")
    assert SearchSpace.load(tmp_path / "space.json") == SPACE
