"""Charts of parts of a whole: stages of a network, time of a run, classes, devices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from netlathe.report.style import (
    BLUE,
    GREY,
    MUTED,
    ORANGE,
    PALE,
    PURPLE,
    SERIES,
    Room,
    legend_below,
    shortened,
    tip,
)
from netlathe.words import milliseconds, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

BOUND_COLOURS = {"compute": BLUE, "memory": ORANGE, "launch": PURPLE, "": PALE}
"""Colours of what bounds a kernel; none near is pale."""


@dataclass(frozen=True)
class Bar:
    """A stage of a network on a device."""

    name: str
    """Name of its block where it has one, else its scope."""
    ms: float
    bound: str
    """'compute', 'memory', 'launch', or '' where nothing comes near."""
    scope: str
    note: str = ""
    before_ms: float | None = None


def draw_stages(figure: FigureBase, room: Room, bars: Sequence[Bar]) -> None:
    """Milliseconds of each stage of a network, first to last, by what bounds it; behind it what it took before."""
    axes = figure.subplots()
    total = sum(bar.ms for bar in bars) or 1.0
    places = range(len(bars))
    if any(bar.before_ms is not None for bar in bars):
        axes.barh(places, [bar.before_ms or 0.0 for bar in bars], color=GREY, alpha=0.35, height=0.86, label="before")
    for place, bar in zip(places, bars, strict=True):
        (patch,) = axes.barh(place, bar.ms, color=BOUND_COLOURS[bar.bound], height=0.62)
        tip(
            patch,
            f"{bar.name}: {milliseconds(bar.ms)} ms, {percent(bar.ms / total)} of all{bar.note and ', ' + bar.note}",
        )
    for bound in dict.fromkeys(bar.bound for bar in bars):
        axes.barh([0], [0], color=BOUND_COLOURS[bound], label=f"bound by {bound}" if bound else "no limit comes near")
    reach = max(max(bar.ms, bar.before_ms or 0.0) for bar in bars) or 1.0
    for place, bar in zip(places, bars, strict=True):
        end = max(bar.ms, bar.before_ms or 0.0)
        _label(axes, f"{milliseconds(bar.ms)} ms  {percent(bar.ms / total)}", end, place, size=8)
    axes.set_xlim(0, reach * (1.6 if room.is_narrow else 1.2))
    names = [shortened(bar.scope if room.is_narrow else _whole_name(bar), 18 if room.is_narrow else 48) for bar in bars]
    axes.set_yticks(list(places), names, fontsize=8)
    axes.set_ylim(len(bars) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("ms")
    legend_below(figure, axes, room, most=5)


def _label(axes: Axes, text: str, end: float, place: float, *, size: float) -> None:
    """Words behind a bar that ends there."""
    axes.annotate(text, (end, place), (4, 0), textcoords="offset points", va="center", fontsize=size, color=MUTED)


def _whole_name(bar: Bar) -> str:
    return bar.name if bar.name == bar.scope else f"{bar.scope} {bar.name}"


def draw_shares(figure: FigureBase, room: Room, parts: Sequence[tuple[str, float]], unit: str) -> None:
    """A bar for each part of a whole."""
    axes = figure.subplots()
    total = sum(value for _, value in parts) or 1.0
    for place, (name, value) in enumerate(parts):
        (patch,) = axes.barh(place, value, color=BLUE, height=0.6)
        tip(patch, f"{name}: {value:.4g} {unit}, {percent(value / total)}")
        _label(axes, f"{value:.3g} {unit}  {percent(value / total)}", value, place, size=8.5)
    axes.set_yticks(range(len(parts)), [name for name, _ in parts])
    axes.set_ylim(len(parts) - 0.4, -0.6)
    axes.set_xlim(0, max(value for _, value in parts) * (1.6 if room.is_narrow else 1.25) or 1.0)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(unit)


def draw_classes(figure: FigureBase, room: Room, classes: Sequence[tuple[str, float, tuple[float, float]]]) -> None:
    """(class, accuracy, its 95 % interval) each, the worst first."""
    axes = figure.subplots()
    for place, (name, share, (low, high)) in enumerate(classes):
        axes.plot([100 * low, 100 * high], [place, place], color=PALE, linewidth=4, solid_capstyle="butt")
        (dot,) = axes.plot(100 * share, place, "o", color=BLUE, ms=6)
        tip(dot, f"{name}: {percent(share)} right, 95 % interval {percent(low)} to {percent(high)}")
    axes.set_yticks(range(len(classes)), [shortened(name, 14 if room.is_narrow else 30) for name, _, _ in classes])
    axes.set_ylim(len(classes) - 0.4, -0.6)
    axes.set_xlabel("right, % (bar: 95 % interval)")


def draw_compared(
    figure: FigureBase, room: Room, rows: Sequence[tuple[str, Sequence[float]]], names: Sequence[str]
) -> None:
    """A group of bars for each row (device, ms of each network)."""
    axes = figure.subplots()
    height = 0.8 / len(names)
    for index, name in enumerate(names):
        places = [place - 0.4 + height * (index + 0.5) for place in range(len(rows))]
        bars = axes.barh(
            places,
            [values[index] for _, values in rows],
            height=0.9 * height,
            color=SERIES[index % len(SERIES)],
            label=shortened(name, 40),
        )
        for patch, (device, values) in zip(bars, rows, strict=True):
            tip(patch, f"{name} on {device}: {milliseconds(values[index])} ms")
    axes.set_yticks(range(len(rows)), [device for device, _ in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(left=0)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("ms")
    legend_below(figure, axes, room, most=3)
