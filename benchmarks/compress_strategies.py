"""Strategies of `netlathe compress` beside one another: one trained network, the same looks, the same training after.

    python -m benchmarks.compress_strategies [--share 0.45] [--looks 60] [--seeds 3] [--output runs/compress_strategies]
    python -m benchmarks.compress_strategies --model FILE.onnx --data FILE.parquet --strategies uniform netadapt ego

By default the network is a residual one of fifteen layers on scikit-learn's digits, trained once. The target is a share
of its predicted ms, and the judge the upper end of the interval. The predictor is fitted on 60 networks of other
widths, as --predictor prices them, so that it knows such networks. `loss` is the validation loss of what a strategy has
found, before any training; accuracies are of the test images in %, before and after --epochs of training with
distillation. CPU seconds are those of the choice alone. Mean over the seeds and, behind ±, half of the range; images
and network are the same for all seeds. What is finished in --output stays.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import netlathe as nl
from netlathe.archspace.files import write_whole
from netlathe.archspace.forms.onnx import write_onnx
from netlathe.archspace.records import Setup
from netlathe.cli.console import Terminal
from netlathe.compress import width_space
from netlathe.events import Listener, Update
from netlathe.predictor import LatencyPredictor
from netlathe.runs.compression.strategies import INTEGER_PROGRAM, NETADAPT, UNIFORM
from netlathe.search.strategies.blackbox.names import STRATEGIES
from netlathe.targets import make_goal
from netlathe.training import ImageData, TrainConfig, load_images, train

FITTED = 60
EVERY = (INTEGER_PROGRAM, UNIFORM, NETADAPT, *STRATEGIES)
COLUMNS = ("loss", "untrained", "trained", "high / target", "CPU s")


class Residual(nn.Module):
    """Basic blocks (He et al., arXiv:1512.03385) for images of one channel, two of each width."""

    def __init__(self, widths: Sequence[int] = (8, 16, 32), classes: int = 10) -> None:
        super().__init__()
        self.stem, before = _conv(1, widths[0], 3, 1), widths[0]
        self.first, self.second, self.short = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for width in (width for width in widths for _ in range(2)):
            stride = 1 + (width != before)
            self.first.append(nn.Sequential(_conv(before, width, 3, stride), nn.ReLU()))
            self.second.append(_conv(width, width, 3, 1))
            self.short.append(_conv(before, width, 1, stride) if stride > 1 else nn.Identity())
            before = width
        self.head = nn.Linear(before, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        for first, second, short in zip(self.first, self.second, self.short, strict=True):
            x = torch.relu(second(first(x)) + short(x))
        return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]


def _conv(before: int, after: int, kernel: int, stride: int) -> nn.Module:
    conv = nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(after))


class Clock(Listener):
    """CPU seconds of the choice: from the end of the importance of channels to the beginning of the training."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = self.choice_s = 0.0

    @contextmanager
    def working(self, label: str) -> Iterator[None]:
        yield
        if label == "finding the importance of channels":
            self.begun = time.process_time()

    @contextmanager
    def progress(self, label: str, unit: str = "") -> Iterator[Update]:
        if label.startswith("training"):
            self.choice_s = time.process_time() - self.begun
        yield lambda done, total, note: None


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compress_strategies", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--model", type=Path, help="a trained .onnx or .tflite file; a network of digits by default")
    parser.add_argument("--data", default="digits", help="images of its task")
    parser.add_argument("--predictor", default="sd855-cpu-kernels")
    parser.add_argument("--share", type=float, default=0.45, help="target, in parts of the original's predicted ms")
    parser.add_argument("--step", type=int, default=2, help="channels from one width to the next")
    parser.add_argument("--looks", type=int, default=60)
    parser.add_argument("--epochs", type=int, default=5, help="epochs of training after the choice")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--strategies", nargs="+", default=EVERY, choices=EVERY)
    parser.add_argument("--output", type=Path, default=Path("runs/compress_strategies"))
    options = parser.parse_args(arguments)
    terminal = Terminal()
    options.output.mkdir(parents=True, exist_ok=True)
    model, data = _task(options)
    predictor = _predictor(model, options)
    found: dict[str, list[dict[str, float]]] = {strategy: [] for strategy in options.strategies}
    for seed in range(options.seeds):
        for strategy, outcomes in found.items():
            outcomes.append(_outcome(strategy, seed, model, data, options, predictor))
            terminal.log(f"{strategy}, seed {seed}: {outcomes[-1]}")
    terminal.table(("strategy", *COLUMNS), [(name, *_cells(rows)) for name, rows in found.items()])


def _task(options: argparse.Namespace) -> tuple[Path, ImageData]:
    """The trained model's file, and the images."""
    if options.model:
        (_, *size), *_ = nl.read(options.model).inputs
        return options.model, load_images(options.data, (size[0], size[1]), channels=size[2])
    path, data = options.output / "digits.onnx", load_images("digits", (8, 8), channels=1)
    if not path.exists():
        torch.manual_seed(0)
        network = Residual()
        train(network, data, TrainConfig(epochs=12, batch_size=32, learning_rate=0.1))
        write_whole(path, write_onnx(*nl.read_weights(network.eval(), torch.zeros(1, 1, 8, 8))))
    return path, data


def _predictor(model: Path, options: argparse.Namespace) -> LatencyPredictor:
    """A predictor of networks of other widths, fitted on prices of another one's."""
    space, rng = width_space(nl.read(model), step=options.step, leave_out=False), np.random.default_rng(0)
    graphs = [space.graph(rng.integers(space.option_counts).tolist()) for _ in range(FITTED)]
    known = make_goal([nl.Target(options.predictor, 1.0)], unknown="price").main.model
    setup = Setup("bench", "cpu", "os", known.setup_.runtime, "1")
    return LatencyPredictor("none").fit(graphs, known.predict(graphs).tolist(), setup=setup)


def _outcome(
    strategy: str, seed: int, model: Path, data: ImageData, options: argparse.Namespace, predictor: LatencyPredictor
) -> dict[str, float]:
    """A compression's numbers, from the file that they were kept in or anew."""
    name = f"{model.stem}_{options.share:g}_{options.step}_{options.looks}_{strategy}_{seed}"
    kept = options.output / f"{name}.json"
    if not kept.exists():
        write_whole(kept, json.dumps(_compressed(strategy, seed, model, data, options, predictor, name)).encode())
    return dict(json.loads(kept.read_text()))


def _compressed(
    strategy: str,
    seed: int,
    model: Path,
    data: ImageData,
    options: argparse.Namespace,
    predictor: LatencyPredictor,
    name: str,
) -> dict[str, Any]:
    clock, now_ms = Clock(), float(predictor.predict([nl.read(model)])[0])
    report = nl.compress(
        model, target=nl.Target(predictor, options.share * now_ms, "bench"), data=data, strategy=strategy,
        looks=options.looks, step=options.step, output=options.output / name, seed=seed,
        training=TrainConfig(epochs=options.epochs, batch_size=32, learning_rate=0.02, seed=seed), progress=clock,
    )  # fmt: skip
    target = report.targets[0]
    return {
        "loss": next(one.loss for one in report.finalists if one.choices == report.stages[-1].choices),
        "untrained": report.untrained_accuracy, "trained": report.accuracy["torch"],
        "high / target": target.high_ms / target.target_ms, "CPU s": clock.choice_s,
    }  # fmt: skip


def _cells(rows: Sequence[dict[str, float]]) -> list[str]:
    """Mean and half of the range of each column."""
    cells = []
    for column in COLUMNS:
        values = np.array([row[column] for row in rows]) * (100 if column in ("untrained", "trained") else 1)
        half = f" ± {np.ptp(values) / 2:.2g}" if len(values) > 1 else ""
        cells.append(f"{values.mean():.4g}{half}")
    return cells


if __name__ == "__main__":
    main()
