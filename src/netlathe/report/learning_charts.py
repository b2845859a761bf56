"""Charts of a search, a training and looks, epoch by epoch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import MaxNLocator

from netlathe.report.style import (
    BAND,
    BLUE,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    PURPLE,
    RED,
    Room,
    above,
    legend_below,
    tip,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase


@dataclass(frozen=True)
class CostLine:
    """A limited cost of a search, epoch by epoch."""

    name: str
    unit: str
    limit: float
    expected: tuple[float, ...]
    likeliest: tuple[float, ...]
    """Cost of the most probable network."""
    multiplier: tuple[float, ...]
    chosen: float | None = None


@dataclass(frozen=True)
class Epoch:
    """An epoch of a search."""

    epoch: int
    """From 0."""
    phase: str
    """'start', 'warm-up' or 'search'."""
    loss: float
    accuracy: float
    """Accuracy of sampled paths."""
    entropy: float
    """Mean over decisions, in nats."""


def draw_expectations(figure: FigureBase, room: Room, lines: Sequence[CostLine], warm: int) -> None:
    """Each limited cost by epoch against its limit, with its multiplier below. The first `warm` epochs trained weights
    alone."""
    axes = figure.subplots(2 * len(lines), 1, sharex=True, squeeze=False, height_ratios=[3, 1.4] * len(lines))[:, 0]
    for index, line in enumerate(lines):
        scale, unit = scaled(line.limit, line.unit)
        upper, lower = axes[2 * index], axes[2 * index + 1]
        epochs = range(1, len(line.expected) + 1)
        upper.plot(epochs, [value / scale for value in line.likeliest], color=ORANGE, label="most probable network")
        upper.plot(epochs, [value / scale for value in line.expected], color=BLUE, label="expectation")
        upper.axhline(line.limit / scale, color=INK, linewidth=1, linestyle=(0, (4, 3)), label="limit")
        if line.chosen is not None:
            (dot,) = upper.plot(epochs[-1], line.chosen / scale, "o", color=RED, ms=8, label="chosen network", zorder=4)
            tip(dot, f"chosen: {line.chosen / scale:.4g} {unit}")
        upper.set(title=line.name, ylabel=unit)
        upper.set_ylim(bottom=0)
        lower.plot(epochs, line.multiplier, color=PURPLE)
        lower.set(ylabel="multiplier λ")
    _dress_epochs(axes, len(lines[0].expected), warm)
    legend_below(figure, axes[0], room)


def draw_decisions(figure: FigureBase, room: Room, history: Sequence[Epoch], warm: int) -> None:
    """Accuracy of sampled paths, loss, and entropy of the architecture by epoch, each on an axis of its own."""
    axes = figure.subplots(3, 1, sharex=True)
    epochs = [row.epoch + 1 for row in history]
    series = (
        ("accuracy of sampled paths, %", [100 * row.accuracy for row in history], GREEN),
        ("loss, nats", [row.loss for row in history], ORANGE),
        ("entropy per decision, nats", [row.entropy for row in history], PURPLE),
    )
    for axis, (title, values, colour) in zip(axes, series, strict=True):
        axis.plot(epochs, values, color=colour)
        above(axis, title)
        axis.set_ylim(bottom=0)
    _dress_epochs(axes, len(history), warm)


def _dress_epochs(axes: Iterable[Axes], epochs: int, warm: int) -> None:
    first, *others = axes
    for axis in (first, *others):
        if warm:
            axis.axvspan(0.5, warm + 0.5, color=BAND, zorder=0, linewidth=0)
        axis.set_xlim(0.5, epochs + 0.5)
        axis.yaxis.set_major_locator(MaxNLocator(4))
    if warm and warm >= 0.15 * epochs:
        first.annotate("weights alone", (0.7, 0.03), xycoords=("data", "axes fraction"), color=MUTED, fontsize=8)
    (others or [first])[-1].set_xlabel("epoch")
    (others or [first])[-1].xaxis.set_major_locator(MaxNLocator(integer=True))


def scaled(limit: float, unit: str) -> tuple[float, str]:
    """Counts in millions or thousands."""
    if unit:
        return 1.0, unit
    return (1e6, "M") if limit >= 1e6 else (1e3, "K") if limit >= 1e4 else (1.0, "")


def draw_training(figure: FigureBase, room: Room, rows: Sequence[tuple[float, float, float]]) -> None:
    """(epoch, loss, accuracy) of a training, by epoch, each on an axis of its own."""
    axes = figure.subplots(2, 1, sharex=True)
    epochs = [row[0] for row in rows]
    for axis, title, values, colour in (
        (axes[0], "accuracy on the batches trained on, %", [100 * row[2] for row in rows], GREEN),
        (axes[1], "loss, nats", [row[1] for row in rows], ORANGE),
    ):
        axis.plot(epochs, values, color=colour, marker="o" if len(rows) < 3 else "")
        above(axis, title)
    axes[1].set_ylim(bottom=0)
    _dress_epochs(axes, int(max(epochs)), 0)


def draw_looks(figure: FigureBase, room: Room, scores: Sequence[float], label: str) -> None:
    """Scores of the networks that a search looked at, in their order, and the best so far."""
    axes = figure.subplots()
    numbers = range(1, len(scores) + 1)
    axes.plot(numbers, scores, "o", color=BLUE, ms=4, alpha=0.6, mew=0, label="networks looked at")
    axes.step(numbers, np.maximum.accumulate(scores), color=RED, where="post", label="best so far")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="look", ylabel=label)
    legend_below(figure, axes, room)


def draw_numbers(figure: FigureBase, room: Room, curves: Sequence[tuple[str, tuple[tuple[float, float], ...]]]) -> None:
    """(name, points of (step, value)) of numbers that a run tells while it goes on, each on axes of its own."""
    across = 1 if room.is_narrow or len(curves) == 1 else 2
    down = -(-len(curves) // across)
    axes = figure.subplots(down, across, squeeze=False).ravel()
    for axis, (name, points) in zip(axes, curves, strict=False):
        steps, values = zip(*points, strict=True)
        axis.plot(steps, values, color=BLUE, marker="o" if len(points) < 12 else "", ms=4)
        above(axis, name)
        axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axis.yaxis.set_major_locator(MaxNLocator(4))
        axis.set_xlabel("step")
    for axis in axes[len(curves) :]:
        axis.set_axis_off()
