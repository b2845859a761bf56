"""Draws the pictures of docs/how-it-works.md: docs/how_*.png.

    python -m scripts.draw_how_it_works                 # from the root of the checkout: some minutes
    python -m scripts.draw_how_it_works --only physics  # one of them

how_measuring: a campaign on a simulated device that changes its speed. how_physics and how_intervals: public
measurements of data/latency.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import FigureBase

from benchmarks.predictor.baselines import forest
from benchmarks.predictor.splits import Split
from netlathe.archspace.blocks import ConvBlock
from netlathe.archspace.profile_file import ProfileFile
from netlathe.predictor import LatencyPredictor
from netlathe.profiler import Plan, run_campaign
from netlathe.profiler.campaign import WorkItem
from netlathe.profiler.testing import SimulatedDevice
from netlathe.report.style import BLUE, GREY, ORANGE, PALE, Room, save_png
from scripts.latency_tables import pixel1_pixel4_blocks, pixel4_networks

DOCS = Path(__file__).parents[1] / "docs"
COUNTS = (5, 10, 20, 50, 100, 200)
SEEDS = range(3)


def draw_measuring(figure: FigureBase) -> None:
    """One block round by round, as the clock showed it and over its round's drift."""
    blocks = [ConvBlock(3, width, 32, 32) for width in range(8, 48, 4)]
    items = [WorkItem(block.name, "block", block.graph()) for block in blocks]
    device = SimulatedDevice(slowdown=lambda now: 1.55 if int(now / 1.3) % 2 else 1.0, noise=0.01, outliers=0.02)
    with tempfile.TemporaryDirectory() as folder, ProfileFile(Path(folder) / "p.sqlite", create=True) as profile:
        run_campaign(device, items, profile, Plan(min_rounds=40, max_rounds=40, redo_drift=None), clock=device.clock)
        rounds = profile.rounds(device.setup)[items[4].graph.key]
    axes = figure.subplots()
    numbers = range(1, len(rounds) + 1)
    raw_ms = [one.latency_ms * one.drift for one in rounds]
    axes.plot(numbers, raw_ms, "o", color=ORANGE, markersize=4, label="as the clock showed it")
    axes.plot(
        numbers, [one.latency_ms for one in rounds], "o", color=BLUE, markersize=4, label="over the round's drift"
    )
    axes.set(xlabel="round", ylabel="ms", ylim=(0, 1.5 * max(raw_ms)))
    axes.set_title("One block on a simulated machine that switches between two speeds")
    axes.legend(loc="upper right", ncols=2)


def draw_physics(figure: FigureBase) -> None:
    """Share of a Pixel 4's blocks within 10 % by the number measured: three ways to learn."""
    table = pixel1_pixel4_blocks()
    latency_ms = table.frame.pixel4_ms.to_numpy(float)
    ways: dict[str, tuple[str, Callable[[Split, int], np.ndarray]]] = {
        "physics and a learned residual": (BLUE, lambda split, seed: _fitted(split, "auto", seed)),
        "physics alone": (PALE, lambda split, seed: _fitted(split, "none", seed)),
        "a random forest": (ORANGE, lambda split, seed: np.asarray(forest(split, seed))),
    }
    axes = figure.subplots()
    for name, (colour, predict) in ways.items():
        shares = []
        for count in COUNTS:
            found = []
            for seed in SEEDS:
                order = np.random.default_rng(seed).permutation(len(latency_ms))
                train, test = order[:count], order[count : count + 400]
                graphs = table.graphs
                split = Split(
                    "pixel4",
                    [graphs[i] for i in train], latency_ms[train],
                    [graphs[i] for i in test], latency_ms[test],
                )  # fmt: skip
                found.append(np.mean(np.abs(predict(split, seed) / latency_ms[test] - 1) <= 0.1))
            shares.append(100 * np.mean(found))
        axes.semilogx(COUNTS, shares, "o-", color=colour, label=name)
        print(name, *(f"{count}: {share:.0f} %" for count, share in zip(COUNTS, shares, strict=True)), sep="  ")
    axes.set_xticks(COUNTS, map(str, COUNTS))
    axes.minorticks_off()
    axes.set(xlabel="blocks measured on the phone", ylabel="within ±10 %, in percent", ylim=(0, 100))
    axes.set_title("MBConv blocks of a Pixel 4 that were not measured")
    axes.legend(loc="lower right")


def _fitted(split: Split, residual: str, seed: int) -> np.ndarray:
    model = LatencyPredictor(residual, random_state=seed).fit(split.train, split.train_ms)  # type: ignore[arg-type]
    return np.asarray(model.predict(split.test))


def draw_intervals(figure: FigureBase) -> None:
    """Half of 70 networks of a Pixel 4 predicted from the other half, with their intervals."""
    networks = pixel4_networks()
    items, latency_ms = list(networks.pieces.values()), networks.latency_ms["float 1large"].to_numpy(float)
    order = np.random.default_rng(0).permutation(len(items))
    train, test = order[: len(items) // 2], order[len(items) // 2 :]
    model = LatencyPredictor().fit([items[i] for i in train], latency_ms[train])
    test = test[model.knows([items[i] for i in test])]
    test = test[np.argsort(latency_ms[test])]
    unseen, measured_ms = [items[i] for i in test], latency_ms[test]
    predicted_ms, (low_ms, high_ms) = model.predict(unseen), model.predict_interval(unseen)
    inside = int(np.sum((low_ms <= measured_ms) & (measured_ms <= high_ms)))
    axes = figure.subplots()
    places = np.arange(len(test))
    ends = [100 * (1 - low_ms / predicted_ms), 100 * (high_ms / predicted_ms - 1)]
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.errorbar(places, 0 * predicted_ms, yerr=ends, fmt="none", ecolor=PALE, elinewidth=7, label="90 % interval")
    axes.plot(places, 100 * (measured_ms / predicted_ms - 1), "o", color=ORANGE, markersize=4, label="measured")
    axes.set(ylabel="off the prediction, in percent", xlabel="measured, ms", ylim=(-30, 30))
    axes.set_xticks(places[::4], [f"{ms:.3g}" for ms in measured_ms[::4]])
    axes.set_title(f"{inside} of {len(test)} networks on a Pixel 4's CPU are inside their intervals")
    axes.legend(loc="lower left", ncols=2)
    print(f"{inside} of {len(test)} inside")


PICTURES: dict[str, Callable[[FigureBase], None]] = {
    "measuring": draw_measuring, "physics": draw_physics, "intervals": draw_intervals,
}  # fmt: skip


def main() -> None:
    """Writes docs/how_*.png, and prints what some of them show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PICTURES, help="one picture")
    options = parser.parse_args()
    for name in [options.only] if options.only else PICTURES:
        save_png(partial(_draw, PICTURES[name]), DOCS / f"how_{name}.png", width_in=7, height=0.5)


def _draw(draw: Callable[[FigureBase], None], figure: FigureBase, room: Room) -> None:
    draw(figure)


if __name__ == "__main__":
    main()
