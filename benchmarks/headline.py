"""Searched networks beside MobileNetV2 at several widths, trained alike: latency at equal accuracy, on this machine.

    python -m benchmarks.headline                        # CIFAR-10 at 16 pixels, about 25 minutes on two cores
    python -m benchmarks.headline --resolution 32 --train-images 40000 --device cuda --epochs 60 --jobs 1

Searches the space `tiny` for this host's CPU at some targets, and for the shipped predictors of a Pixel 4's CPU and GPU
at one; a target is a fraction of the way from the space's fastest network to its own MobileNetV2 (3x3, expansion 6
everywhere) on that device. All start from one warm supernet. Trains the host's networks and MobileNetV2 with one recipe
for as many epochs as --minutes allow, times all of them on this machine in the same rounds, and reads off MobileNetV2's
curve (ms over accuracy, logarithm of ms interpolated) how long it takes for the same accuracy. Then prices all networks
on all three devices. Where results are (--output), what is done is not done again.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy and torch: jobs share the cores

import argparse
import time
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.search_common import CIFAR10, Results, host_predictor, profile_of, small_mobilenet_v2
from netlathe.archspace.forms.torch import TorchGraph
from netlathe.archspace.presets import tiny
from netlathe.archspace.spaces import Architecture, SearchSpace
from netlathe.cli.console import Terminal
from netlathe.predictor import LatencyPredictor
from netlathe.predictor.catalogue import predictor_path
from netlathe.pricing import doubts
from netlathe.search import Constraint, CostTable, SearchConfig, Searcher
from netlathe.timing import time_networks
from netlathe.training import Compute, ImageData, TrainConfig, evaluate, load_images, recalibrate_batch_norm, train
from netlathe.training.checkpoint import load_checkpoint, save_checkpoint

HOST, PHONES = "host", ("pixel4-cpu-networks", "pixel4-gpu")


def images_of(options: argparse.Namespace) -> ImageData:
    size = (options.resolution, options.resolution)
    return load_images(options.images, size, seed=options.seed, limit=options.train_images)


def search_config(options: argparse.Namespace) -> SearchConfig:
    return SearchConfig(
        start_epochs=options.start_epochs, warmup_epochs=options.warmup_epochs, epochs=options.search_epochs,
        finalists=options.looks, finalist_images=options.look_images,
        seed=options.seed,
    )  # fmt: skip


def searcher_of(options: argparse.Namespace, constraint: Constraint) -> Searcher:
    size = (options.resolution, options.resolution)
    data = load_images(options.images, size, seed=options.seed, limit=options.search_images)
    space = tiny(options.resolution, classes=len(data.classes))
    return Searcher(space, data, [constraint], search_config(options), compute=Compute(device=options.device))


def search_one(options: argparse.Namespace, constraint: Constraint, warm: Path) -> dict[str, Any]:
    """In a process of its own: from the warm supernet's file to the architecture."""
    torch.set_num_threads(options.threads)
    begun = time.monotonic()
    searcher = searcher_of(options, constraint)
    searcher.load_state_dict(load_checkpoint(warm, {"config": asdict(search_config(options))}))
    result = searcher.run().result()
    return {"choices": list(result.path), "predicted_ms": result.costs[0], "seconds": time.monotonic() - begun}


def train_one(options: argparse.Namespace, architecture: Architecture, epochs: int) -> dict[str, Any]:
    """In a process of its own: a network from scratch to its accuracy on the test images."""
    torch.set_num_threads(options.threads)
    begun = time.monotonic()
    data, compute = images_of(options), Compute(device=options.device)
    network = compute.place(TorchGraph(architecture.graph(), generator=torch.Generator().manual_seed(options.seed)))
    train(network, data, TrainConfig(epochs=epochs, seed=options.seed), compute=compute)
    network.cpu()
    recalibrate_batch_norm(network, data.train)
    return {"accuracy": evaluate(network, data.test), "epochs": epochs, "seconds": time.monotonic() - begun}


def images_per_s(architecture: Architecture, device: str, batch: int = 64) -> float:
    """Speed of a training step."""
    compute = Compute(device=device)
    network = compute.place(TorchGraph(architecture.graph())).train()
    height, width, channels = architecture.input_shape
    x = torch.randn(batch, channels, height, width, device=compute.torch_device)
    x = x.contiguous(memory_format=torch.channels_last)
    times = []
    for _ in range(3):
        begun = time.perf_counter()
        network(x).square().mean().backward()
        times.append(time.perf_counter() - begun)
    return batch / min(times)


def models_of(space: SearchSpace, options: argparse.Namespace, terminal: Terminal) -> dict[str, LatencyPredictor]:
    """This host's predictor and the shipped ones, by name."""
    found = {HOST: host_predictor(space, options.latency, terminal=terminal)}
    for name in PHONES:
        found[name] = LatencyPredictor.load(predictor_path(name))
        graph = space.graph(space.reference, found[name].setup_.batch)
        terminal.warn(doubts(found[name], f"{name}: {space.name}", graph))
    return found


def run_searches(
    space: SearchSpace, models: dict[str, LatencyPredictor], results: Results, options: argparse.Namespace,
    terminal: Terminal,
) -> None:  # fmt: skip
    """One warm supernet; then a search for each device and target, side by side."""
    tables = {n: CostTable.tabulate(space, m, batch=m.setup_.batch, name=n) for n, m in models.items()}
    todo = {}
    for name, table in tables.items():
        for fraction in options.fractions if name == HOST else [options.special]:
            target_ms = table.base + fraction * (table.cost(space.reference) - table.base)
            if f"search {name} {fraction:g}" not in results:
                todo[f"search {name} {fraction:g}"] = Constraint(table, target_ms)
    if not todo:
        return
    warm = options.output.with_suffix(".warm.npz")
    run = {"config": asdict(search_config(options))}
    terminal.step(f"Searching {space.size:.2g} networks: one supernet, {len(todo)} searches")
    begun = time.monotonic()
    searcher = searcher_of(options, next(iter(todo.values()))).run(until="warm")
    save_checkpoint(warm, searcher.state_dict(), run)
    terminal.say(f"  The supernet is warm after {time.monotonic() - begun:.0f} s")
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        futures = {key: pool.submit(search_one, options, constraint, warm) for key, constraint in todo.items()}
        collect(futures, results, terminal, {key: {"target_ms": c.limit} for key, c in todo.items()})
    warm.unlink()


def collect(
    futures: dict[str, Future[dict[str, Any]]], results: Results, terminal: Terminal, extra: dict[str, Any]
) -> None:
    """Stores each answer as it comes."""
    for key, future in futures.items():
        answer = future.result()
        results.put(key, {**extra.get(key, {}), **answer})
        numbers = ", ".join(f"{k} {v:.4g}" for k, v in answer.items() if isinstance(v, int | float))
        terminal.say(f"  {key}: {numbers}")


def run_trainings(
    networks: dict[str, Architecture], results: Results, options: argparse.Namespace, terminal: Terminal
) -> None:
    todo = {name: a for name, a in networks.items() if f"train {name}" not in results}
    if not todo:
        return
    done = [row["epochs"] for key, row in results.content.items() if key.startswith("train ")]
    epochs = options.epochs or (done[0] if done else epochs_for(list(networks.values()), options))
    terminal.step(f"Training {len(todo)} networks for {epochs} epochs")
    slowest_first = sorted(todo, key=lambda name: -todo[name].macs)
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        futures = {f"train {name}": pool.submit(train_one, options, todo[name], epochs) for name in slowest_first}
        collect(futures, results, terminal, {})


def epochs_for(networks: list[Architecture], options: argparse.Namespace) -> int:
    """Number of epochs that --minutes allow, when `jobs` networks train side by side."""
    torch.set_num_threads(options.threads)
    images = len(images_of(options).train.joined(images_of(options).validation))
    epoch_s = sum(images / images_per_s(a, options.device) for a in networks)
    return max(1, int(60 * options.minutes * options.jobs * 0.85 / epoch_s))


def curve_ms(accuracy: float, points: list[tuple[float, float]]) -> tuple[str, float]:
    """ms that the (accuracy, ms) curve takes for an accuracy, of the points that no other beats: '' and the value, or
    '>' or '<' and the end of the curve beyond which it lies."""
    best = sorted(p for p in points if not any(q[0] >= p[0] and q[1] < p[1] for q in points))
    accuracies, logs = [p[0] for p in best], np.log([p[1] for p in best])
    sign = ">" if accuracy > accuracies[-1] else "<" if accuracy < accuracies[0] else ""
    return sign, float(np.exp(np.interp(accuracy, accuracies, logs)))


def report(networks: dict[str, Architecture], results: Results, host_ms: dict[str, float], terminal: Terminal) -> None:
    """Latency at equal accuracy."""
    rows = {name: results.content[f"train {name}"] for name in networks}
    points = [(row["accuracy"], host_ms[name]) for name, row in rows.items() if name.startswith("MobileNetV2")]
    table = []
    for name, row in rows.items():
        if name.startswith("MobileNetV2"):
            target, equal, ratio = "-", "-", "-"
        else:
            sign, value = curve_ms(row["accuracy"], points)
            target = f"{results.content[f'search {name}']['target_ms']:.3f}"
            equal, ratio = f"{sign}{value:.3f}", f"{sign}{value / host_ms[name]:.2f}x"
        macs = f"{networks[name].macs / 1e6:.1f} M"
        table.append((name, macs, target, f"{host_ms[name]:.3f}", f"{row['accuracy']:.2%}", equal, ratio))
    columns = ("network", "MACs", "target ms", "measured ms", "accuracy", "MobileNetV2 of that accuracy, ms", "faster")
    terminal.table(columns, table)


def report_devices(
    found: dict[str, Architecture], models: dict[str, LatencyPredictor], space: SearchSpace, host_ms: dict[str, float],
    terminal: Terminal,
) -> None:  # fmt: skip
    """Every network priced on every device."""
    table = []
    for name, architecture in {"space's MobileNetV2": space.architecture(space.reference, "baseline"), **found}.items():
        priced = [float(m.predict([architecture.graph(m.setup_.batch)])[0]) for m in models.values()]
        cells = [f"{ms:.3f}" for ms in priced]
        table.append((f"for {name}" if name in models else name, *cells, f"{host_ms[name]:.3f}", architecture.name))
    terminal.table(("network", *(f"{name} ms" for name in models), "host, measured", "choices"), table, numbers=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    fractions = partial(str.split, sep=",")
    parser.add_argument("--images", default=CIFAR10)
    parser.add_argument("--resolution", type=int, default=16)
    parser.add_argument("--fractions", type=fractions, default=["0.3", "0.5", "0.8"], help="targets for this host")
    parser.add_argument("--special", type=float, default=0.5, help="the fraction for each device; one of the above")
    parser.add_argument("--widths", type=fractions, default=["0.25", "0.35", "0.5", "0.75"])
    parser.add_argument("--train-images", type=int, default=10_000, help="at most so many of each split")
    parser.add_argument("--search-images", type=int, default=10_000, help="the same, for the search")
    parser.add_argument("--start-epochs", type=int, default=2)
    parser.add_argument("--warmup-epochs", type=int, default=4)
    parser.add_argument("--search-epochs", type=int, default=2)
    parser.add_argument("--looks", type=int, default=64, help="networks judged on validation images, per search")
    parser.add_argument("--look-images", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=0, help="of each training; 0: what --minutes allow")
    parser.add_argument("--minutes", type=float, default=14, help="for all trainings")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", type=int, default=2, help="searches or trainings side by side")
    parser.add_argument("--threads", type=int, default=1, help="of each of them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--latency", type=Path, default=None, help="this host's predictor of the space")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks/headline.json"))
    options = parser.parse_args()
    options.latency = options.latency or Path(f"runs/benchmarks/tiny-{options.resolution}.json")
    options.fractions, options.widths = (sorted(map(float, v)) for v in (options.fractions, options.widths))
    run(options, Terminal())


def run(options: argparse.Namespace, terminal: Terminal) -> None:
    space = tiny(options.resolution)
    unchanged = {"jobs", "threads", "output", "latency", "minutes", "epochs", "images"}
    settings = {k: v for k, v in vars(options).items() if k not in unchanged}
    results = Results(options.output, "headline", settings)
    models = models_of(space, options, terminal)
    run_searches(space, models, results, options, terminal)
    searched = {
        key.removeprefix("search "): space.architecture(row["choices"])
        for key, row in results.content.items() if key.startswith("search ")
    }  # fmt: skip
    for_host = {name: a for name, a in searched.items() if name.startswith(f"{HOST} ")}
    networks = {a.name: a for w in options.widths for a in [small_mobilenet_v2(w, options.resolution, space.classes)]}
    networks |= for_host
    run_trainings(networks, results, options, terminal)
    special = {name: searched[f"{name} {options.special:g}"] for name in models}
    graphs = {name: a.graph() for name, a in {**networks, **special}.items()}
    graphs["space's MobileNetV2"] = space.graph(space.reference)
    timed = time_networks(graphs, {}, profile_of(options.latency), seed=options.seed, listener=terminal)
    host_ms = {name: one.latency_ms for name, one in timed.items()}
    results.put("measured_ms", host_ms)
    report(networks, results, host_ms, terminal)
    terminal.say(f"Targets {options.special:.0%} of the way to the space's MobileNetV2 on each device:")
    report_devices(special, models, space, host_ms, terminal)


if __name__ == "__main__":
    main()
