"""Charts of parts of a whole: stages of a network, time of a run, classes, devices."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from matplotlib.patches import Patch

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
        axes.barh([0], [0], color=BOUND_COLOURS[bound], label=f"bound by {bound}" if bound else "bound by neither")
    reach = max(max(bar.ms, bar.before_ms or 0.0) for bar in bars) or 1.0
    for place, bar in zip(places, bars, strict=True):
        end = max(bar.ms, bar.before_ms or 0.0)
        _label(axes, f"{milliseconds(bar.ms)} ms  {percent(bar.ms / total)}  {bar.bound}".strip(), end, place, size=8)
    axes.set_xlim(0, reach * (2.1 if room.is_narrow else 1.3))
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


ROW_IN = 0.24
"""Height of a row of a picture with a row for each layer, in inches: what a line of small text needs."""
_TITLE_LETTERS = 44
"""Letters of a bold title in a line above a chart of a picture that is 6.4 inches wide."""
_LABEL_LETTERS = 38


@dataclass(frozen=True)
class BlockRow:
    """A block of a network: what it is, in words, its predicted milliseconds, and its kind, as the legend has it."""

    name: str
    ms: float
    kind: str


def wrapped(title: str) -> str:
    """A title in as many lines as it needs."""
    return "\n".join(textwrap.wrap(title, _TITLE_LETTERS, break_long_words=True))


def height_of_rows(titles: Sequence[str], rows: int) -> float:
    """Height in inches of a picture with these titles and so many rows in all."""
    lines = sum(wrapped(title).count("\n") + 1 for title in titles)
    return 0.6 + 0.2 * lines + len(titles) * 0.55 + ROW_IN * rows


def draw_blocks(
    figure: FigureBase,
    room: Room,
    networks: Sequence[tuple[str, Sequence[BlockRow]]],
    colours: Mapping[str, str],
) -> None:
    """(title, blocks) of each network: a bar for each block, first to last, on one scale for all; `colours` by kind."""
    panels = figure.subplots(
        len(networks), 1, squeeze=False, sharex=True, height_ratios=[max(1, len(rows)) for _, rows in networks]
    )[:, 0]
    longest = max((row.ms for _, rows in networks for row in rows), default=0.0) or 1.0
    for axes, (title, rows) in zip(panels, networks, strict=True):
        axes.set_title(wrapped(title))
        total = sum(row.ms for row in rows) or 1.0
        shown = [max(row.ms, 0.0) for row in rows]
        axes.barh(range(len(rows)), shown, color=[colours[row.kind] for row in rows], height=0.66)
        for place, row in enumerate(rows):
            _label(axes, f"{milliseconds(row.ms)} ms  {percent(row.ms / total, 0)}", max(row.ms, 0.0), place, size=8)
        _dress_rows(axes, [row.name for row in rows], 1.35 * longest)
        axes.tick_params(labelbottom=True)
    panels[-1].set_xlabel("predicted ms")
    kinds = [kind for kind in colours if any(row.kind == kind for _, rows in networks for row in rows)]
    handles = [Patch(color=colours[kind], label=kind) for kind in kinds]
    figure.legend(handles=handles, loc="outside lower left", ncols=4)


@dataclass(frozen=True)
class ChannelRow:
    """Channels of a layer before and after, 0 where it was left out, and the precision that it has then."""

    name: str
    before: int
    after: int
    precision: str

    def words(self, *, with_precision: bool) -> str:
        """Words behind its bar, which say all that its colour says."""
        if not self.after:
            return f"{self.before}, left out"
        count = f"{self.after}" if self.after == self.before else f"{self.after} of {self.before}"
        return f"{count}, {self.precision}" if with_precision else count


def draw_channels(
    figure: FigureBase, room: Room, title: str, rows: Sequence[ChannelRow], colours: Mapping[str, str]
) -> None:
    """A bar of the channels that each layer keeps, in one of those that it had, first to last; `colours` by
    precision."""
    axes = figure.subplots()
    axes.set_title(wrapped(title))
    found = [one for one in colours if any(row.after and row.precision == one for row in rows)]
    several = len(found) > 1 or found != ["float32"]
    places, precisions = range(len(rows)), [colours.get(row.precision, MUTED) for row in rows]
    axes.barh(places, [row.before for row in rows], color=GREY, alpha=0.4, height=0.78)
    axes.barh(places, [row.after for row in rows], color=precisions, height=0.5)
    for place, row in enumerate(rows):
        _label(axes, row.words(with_precision=several), row.before, place, size=8)
    room_right = 1.45 if several else 1.25
    _dress_rows(axes, [row.name for row in rows], room_right * max((row.before for row in rows), default=1))
    axes.set_xlabel("channels")
    handles = [Patch(color=GREY, alpha=0.4, label="before")]
    handles += [Patch(color=colours[one], label=f"after, {one}" if several else "after") for one in found]
    figure.legend(handles=handles, loc="outside lower left", ncols=3)


def _dress_rows(axes: Axes, names: Sequence[str], reach: float) -> None:
    """Names of rows, first to last; of a long one its end, which tells layers apart."""
    told = [name if len(name) <= _LABEL_LETTERS else f"…{name[1 - _LABEL_LETTERS :]}" for name in names]
    axes.set_yticks(range(len(names)), told, fontsize=8)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(0, reach)
    axes.grid(axis="y", visible=False)
