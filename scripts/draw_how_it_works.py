"""Draws the pictures of docs/how-it-works.md: docs/how_*.png.

    python -m scripts.draw_how_it_works                 # from the root of the checkout: some minutes
    python -m scripts.draw_how_it_works --only physics  # one of them

how_measuring: a campaign on a simulated device that changes its speed. how_physics and how_intervals: public
measurements of data/latency. how_binarization: a search of the space `tiny` on digits, for a phone by its predictor.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.patches import FancyBboxPatch

from benchmarks.predictor.baselines import forest
from benchmarks.predictor.splits import Split
from netlathe.archspace.blocks import ConvBlock
from netlathe.archspace.presets import load_space
from netlathe.archspace.profile_file import ProfileFile
from netlathe.archspace.spaces import SearchSpace
from netlathe.predictor import LatencyPredictor
from netlathe.profiler import Plan, run_campaign
from netlathe.profiler.campaign import WorkItem
from netlathe.profiler.testing import SimulatedDevice
from netlathe.report.style import BLUE, GREEN, GREY, INK, MUTED, ORANGE, PALE, PAPER, PURPLE, Room, save_png
from netlathe.search import Constraint, CostTable, SearchConfig, Searcher
from netlathe.search.strategies.binarized.outcome import SearchProgress
from netlathe.training import Compute, load_images
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


LAYERS, CANDIDATES = 4, ("3x3", "5x5", "7x7", "skip")
"""Size of the scheme of a supernet."""
ACTIVE = (1, 0, 3, 2)
"""Candidate that the path takes, by layer."""
SECOND = (2, 1, 0, 0)
"""Candidate that competes with it in a step of the architecture."""
SHARE = 0.6
"""Target of the search whose course is drawn, as a share of the reference's latency."""
SETTINGS = SearchConfig(start_epochs=2, warmup_epochs=4, epochs=44, alpha_learning_rate=0.05, finalists=0)
"""Its settings: probabilities move faster than by default, as there are few steps."""


def draw_binarization(figure: FigureBase) -> None:
    """Schemes of two kinds of steps above the course of a real search: probabilities in one layer, and latency."""
    (first, second), (options, cost) = figure.subplots(2, 2, height_ratios=[1, 1.15])
    _draw_supernet(first, ())
    first.set_title("Step of the weights: one path")
    _draw_supernet(second, SECOND)
    second.set_title("Step of the architecture: pairs")
    _draw_course(options, cost)


def _draw_supernet(axes: Axes, second: tuple[int, ...]) -> None:
    """Layers from left to right, candidates from top to bottom: the active one is filled, its rival outlined."""
    axes.set(xlim=(-0.62, LAYERS + 0.12), ylim=(len(CANDIDATES) - 0.35, -0.95))
    axes.set_axis_off()
    for layer in range(LAYERS):
        axes.text(layer + 0.1, -0.6, f"layer {layer + 1}", ha="center", va="center", color=MUTED, fontsize=8)
        for row, name in enumerate(CANDIDATES):
            is_active, competes = row == ACTIVE[layer], bool(second) and row == second[layer]
            face, edge = (BLUE, BLUE) if is_active else (PAPER, ORANGE if competes else GREY)
            box = FancyBboxPatch(
                (layer - 0.24, row - 0.25), 0.68, 0.5, boxstyle="round,pad=0,rounding_size=0.08", facecolor=face,
                edgecolor=edge, linewidth=2 if competes else 1, zorder=3,
            )  # fmt: skip
            axes.add_patch(box)
            colour = PAPER if is_active else ORANGE if competes else GREY
            axes.text(layer + 0.1, row, name, ha="center", va="center", color=colour, fontsize=8.5, zorder=4)
    for rows, colour, style in ((ACTIVE, BLUE, "-"), (second, ORANGE, (0, (3, 2)))):
        for layer, (row, following) in enumerate(zip(rows, (ACTIVE if second else rows)[1:], strict=False)):
            axes.plot([layer + 0.44, layer + 0.76], [row, following], color=colour, linewidth=1.6, linestyle=style)
    axes.plot([-0.55, -0.24], [ACTIVE[0], ACTIVE[0]], color=BLUE, linewidth=1.6)
    if second:
        axes.plot([-0.55, -0.24], [ACTIVE[0], second[0]], color=ORANGE, linewidth=1.6, linestyle=(0, (3, 2)))
        axes.plot([LAYERS - 0.56, LAYERS + 0.02], [second[-1], ACTIVE[-1]], color=ORANGE, linewidth=1.6, ls=(0, (3, 2)))
    axes.plot([LAYERS - 0.56, LAYERS + 0.02], [ACTIVE[-1], ACTIVE[-1]], color=BLUE, linewidth=1.6)


@dataclass(frozen=True)
class SearchCourse:
    """A search, step of the architecture by step."""

    probabilities: np.ndarray
    """Probability of each candidate, (steps, positions, candidates)."""
    expected_ms: tuple[float, ...]
    limit_ms: float


def record_search(space: SearchSpace) -> SearchCourse:
    """A search of the space on digits, for a Pixel 4 by its predictor."""
    model = LatencyPredictor.load("pixel4-cpu-networks")
    limit_ms = SHARE * float(model.predict([space.architecture(space.reference)])[0])
    constraint = Constraint(CostTable.tabulate(space, model, name="latency"), limit_ms)
    height, width, _ = space.input_shape
    data = load_images("digits", (height, width))
    searcher = Searcher(space, data, [constraint], SETTINGS, compute=Compute(threads=1))
    probabilities, expected_ms = [], []

    def on_step(progress: SearchProgress) -> None:
        if progress.phase == "search":
            probabilities.append(searcher.parameters.probabilities().detach().numpy().copy())
            expected_ms.append(progress.expected[0])

    searcher.run(on_step)
    return SearchCourse(np.array(probabilities), tuple(expected_ms), limit_ms)


def _draw_course(options: Axes, cost: Axes) -> None:
    """Probabilities in the layer whose choice moved most, and the expected latency."""
    space = load_space("tiny", resolution=16)
    found = record_search(space)
    steps, moved = np.arange(1, len(found.expected_ms) + 1), found.probabilities[-1] - found.probabilities[0]
    decision = int(np.argmax(moved.max(axis=1)))
    layer = space.searchable[decision]
    names = [block.name for block in space.positions[layer]]
    course = 100 * found.probabilities[:, decision, : len(names)]
    leading = np.argsort(-course.max(axis=0))[:4].tolist()
    for candidate in set(range(len(names))) - set(leading):
        options.plot(steps, course[:, candidate], color=GREY, linewidth=0.8)
    for candidate, colour in zip(leading, (BLUE, ORANGE, GREEN, PURPLE), strict=True):
        options.plot(steps, course[:, candidate], color=colour, label=_short(names[candidate]))
    options.plot([], [], color=GREY, linewidth=0.8, label=f"{len(names) - len(leading)} others")
    options.set(xlabel="step of the architecture", ylabel="probability, %", ylim=(0, 105))
    options.set_title(f"The candidates of layer {layer + 1} of {len(space.positions)}")
    options.legend(loc="upper left", fontsize=7.5)
    cost.plot(steps, found.expected_ms, color=BLUE, label="expectation over all paths")
    cost.axhline(found.limit_ms, color=INK, linewidth=1, linestyle=(0, (4, 3)), label="target")
    cost.set(xlabel="step of the architecture", ylabel="ms on a Pixel 4", ylim=(0, 1.1 * max(found.expected_ms)))
    cost.set_title("Expected latency")
    cost.legend(loc="lower right")
    print(f"expected {found.expected_ms[0]:.3f} to {found.expected_ms[-1]:.3f} ms, target {found.limit_ms:.3f}")


def _short(name: str) -> str:
    """'mbconv_k5_e6_s1_c16-24_8x8_relu6' -> '5x5, expansion 6'."""
    found = re.match(r"mbconv_k(\d)_e(\d)", name)
    return f"{found[1]}x{found[1]}, expansion {found[2]}" if found else name.partition("_")[0]


PICTURES: dict[str, tuple[Callable[[FigureBase], None], float]] = {
    "measuring": (draw_measuring, 0.5), "physics": (draw_physics, 0.5), "intervals": (draw_intervals, 0.5),
    "binarization": (draw_binarization, 0.8),
}  # fmt: skip
"""Pictures by name, each with its height in its width."""


def main() -> None:
    """Writes docs/how_*.png, and prints what some of them show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PICTURES, help="one picture")
    options = parser.parse_args()
    for name in [options.only] if options.only else PICTURES:
        draw, height = PICTURES[name]
        save_png(partial(_draw, draw), DOCS / f"how_{name}.png", width_in=7, height=height)


def _draw(draw: Callable[[FigureBase], None], figure: FigureBase, room: Room) -> None:
    draw(figure)


if __name__ == "__main__":
    main()
