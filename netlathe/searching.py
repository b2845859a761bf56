"""Searching, training and exporting: a run's folder from a space, a predictor and images."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archspace.presets import PRESETS, load_space
from archspace.spaces import Architecture, SearchSpace
from netlathe.console import Terminal, Update, millions, milliseconds, percent
from netlathe.exporting import export, file_accuracy
from netlathe.pictures import draw_architectures, draw_search
from netlathe.run import HISTORY, NETWORK, forget_network, save_network, save_search, write_csv
from netlathe.stages import doubts, part_latencies_ms

if TYPE_CHECKING:
    from predictor import LatencyPredictor
    from search import ImageData, SearchConfig, SearchResult, StepProgress, TrainConfig


@dataclass(frozen=True)
class Trained:
    """A network at the end of its training, and what it is worth."""

    architecture: Architecture
    predicted_ms: float
    low_ms: float
    high_ms: float
    test_accuracy: float
    """Of the torch module, 0..1."""
    tflite_accuracy: float
    """Of the exported file through LiteRT, on the same images."""
    warnings: tuple[str, ...]
    folder: Path

    def to_json(self) -> dict[str, Any]:
        a = self.architecture
        numbers = {k: v for k, v in asdict(self).items() if k not in ("architecture", "folder")}
        return {"name": a.name, "macs": a.macs, "parameters": a.parameters, **numbers, "folder": str(self.folder)}


def prepare(
    space_name: str, source: str, *, resolution: int | None, width: float | None, limit: int | None, seed: int
) -> tuple[SearchSpace, ImageData]:
    """The space, and the images at its resolution; a preset's head gets as many classes as the images have."""
    from search import load_images
    from search.loop import check_data

    space = load_space(space_name, resolution=resolution, width=width)
    height, wide, channels = space.input_shape
    data = load_images(source, (height, wide), channels=channels, seed=seed, limit=limit)
    if space_name in PRESETS:
        space = load_space(space_name, resolution=resolution, width=width, classes=len(data.classes))
    check_data(space, data)
    return space, data


def search_run(
    space: SearchSpace,
    model: LatencyPredictor,
    data: ImageData,
    target_ms: float,
    folder: Path,
    search_config: SearchConfig,
    train_config: TrainConfig,
    terminal: Terminal,
) -> Trained:
    """Search, training and export: everything that `netlathe search` does."""
    found = find_architecture(space, model, data, target_ms, folder, search_config, terminal).architecture
    terminal.say(f"  Found {found.name}: {millions(found.macs)} MACs")
    trained = train_and_export(found, model, data, folder, train_config, terminal)
    interval = f"{milliseconds(trained.low_ms)} to {milliseconds(trained.high_ms)}"
    terminal.table(
        ("network", "target ms", "predicted ms", "90 % interval", "accuracy", "accuracy of .tflite", "MACs"),
        [
            (
                found.name,
                milliseconds(target_ms),
                milliseconds(trained.predicted_ms),
                interval,
                percent(trained.test_accuracy),
                percent(trained.tflite_accuracy),
                millions(found.macs),
            )
        ],
    )
    terminal.warn(trained.warnings)
    terminal.say(f"  Wrote {', '.join(sorted(p.name for p in folder.iterdir() if p.is_file()))} to {folder}")
    return trained


def find_architecture(
    space: SearchSpace,
    model: LatencyPredictor,
    data: ImageData,
    target_ms: float,
    folder: Path,
    config: SearchConfig,
    terminal: Terminal,
) -> SearchResult:
    """Searches, and leaves search.json, history.csv and pictures in the folder."""
    from search import LatencyTable, search

    table = LatencyTable.tabulate(space, model, batch=model.setup_.batch)
    table.check_target(target_ms)
    folder.mkdir(parents=True, exist_ok=True)  # what cannot be written should show before hours of work
    started = time.monotonic()
    with terminal.progress("searching", "steps") as update:
        result = search(space, data, table, target_ms, config, lambda step: _show(step, update))
    forget_network(folder)
    save_search(
        folder,
        {
            "space": space.to_json(),
            "data": data.name,
            "config": asdict(config),
            "setup": model.setup_.to_json(),
            "architecture": result.architecture.to_json(),
            "seconds": round(time.monotonic() - started, 1),
            **result.summary(),
        },
    )
    write_csv(folder / HISTORY, result.history)
    draw_search(result.history, target_ms, result.predicted_ms, folder / "search.png")
    title = f"{result.architecture.name}: {result.predicted_ms:.3g} ms predicted, target {target_ms:.3g} ms"
    parts = part_latencies_ms(model, result.architecture)
    draw_architectures([(title, result.architecture, parts)], folder / "architecture.png")
    return result


def train_and_export(
    architecture: Architecture,
    model: LatencyPredictor,
    data: ImageData,
    folder: Path,
    config: TrainConfig,
    terminal: Terminal,
) -> Trained:
    """Trains from scratch, sets BatchNorm's statistics, saves the weights, exports network.tflite, and checks that file
    on the test images."""
    import torch

    from archspace.forms.torch import TorchGraph
    from search import evaluate, recalibrate_batch_norm, train

    network = TorchGraph(architecture.graph(), generator=torch.Generator().manual_seed(config.seed))
    with terminal.progress(f"training {architecture.name}", "steps") as update:
        train(network, data, config, lambda step: _show(step, update))
    recalibrate_batch_norm(network, data.train)
    save_network(folder, architecture, network)
    export(network, folder / NETWORK, "tflite")
    graph = architecture.graph(model.setup_.batch)
    low, high = model.predict_interval([graph])
    warnings = doubts(model, architecture.name, graph)
    accuracy, of_file = evaluate(network, data.test), file_accuracy(folder / NETWORK, data.test)
    if abs(accuracy - of_file) > 0.005:
        warnings.append(
            f"{folder / NETWORK} classifies {of_file:.1%} right where PyTorch does {accuracy:.1%}; report this"
        )
    return Trained(
        architecture=architecture,
        predicted_ms=float(model.predict([graph])[0]),
        low_ms=float(low[0]),
        high_ms=float(high[0]),
        test_accuracy=accuracy,
        tflite_accuracy=of_file,
        warnings=tuple(warnings),
        folder=folder,
    )


def _show(step: StepProgress, update: Update) -> None:
    expected = "" if step.expected_ms is None else f", expected {step.expected_ms:.3g} ms"
    update(step.step, step.steps, f"{step.phase}: loss {step.loss:.2f}{expected}")
