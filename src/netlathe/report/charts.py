"""Charts that pages and pictures share: each takes plain numbers, and draws into a figure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from matplotlib.ticker import FuncFormatter, MaxNLocator

from netlathe.report.style import (
    BAND,
    BLUE,
    GREEN,
    GREY,
    INK,
    MUTED,
    ORANGE,
    PALE,
    PURPLE,
    RED,
    SERIES,
    Room,
    label_points,
    limits_around,
    plain_logarithms,
    tip,
)
from netlathe.words import milliseconds, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

Role = Literal["chosen", "front", "other", "baseline", "original"]
_ROLES: dict[Role, tuple[str, str, float, str]] = {
    "chosen": ("o", RED, 9, "this network"),
    "front": ("o", BLUE, 8, "on the front"),
    "other": ("o", GREY, 6, "beaten by another"),
    "baseline": ("s", ORANGE, 7, "baseline"),
    "original": ("D", PURPLE, 7.5, "the original"),
}
"""Marker, colour, size and word of each role."""


@dataclass(frozen=True)
class Mark:
    """A trained network between latency and accuracy."""

    name: str
    ms: float
    """Latency by which it stands: measured where it was, else predicted."""
    accuracy: float
    role: Role
    is_measured: bool = False
    interval_ms: tuple[float, float] | None = None
    """90 % interval of the latency."""
    interval: tuple[float, float] | None = None
    """95 % interval of the accuracy."""
    predicted_ms: float | None = None
    """The prediction, where the latency was measured."""

    @property
    def words(self) -> str:
        """Name and numbers."""
        how = "measured" if self.is_measured else "predicted"
        return f"{self.name}: {milliseconds(self.ms)} ms {how}, {percent(self.accuracy)} accurate"


def draw_marks(figure: FigureBase, room: Room, marks: Sequence[Mark], target_ms: float | None = None) -> None:
    """Latency against accuracy of trained networks, with intervals either way; filled where the latency was measured.
    Baselines are joined by a line, and so is the front."""
    axes = figure.subplots()
    reach = [ms for one in marks for ms in (one.ms, *(one.interval_ms or ()), *_known(one.predicted_ms))]
    plain_logarithms(axes.xaxis, *limits_around([*reach, *_known(target_ms)], 0.2))
    heights = [share for one in marks for share in (one.accuracy, *(one.interval or ()))]
    low, high = min(heights), max(heights)
    room_above = max(0.15 * (high - low), 0.006)
    axes.set_ylim(100 * (low - room_above), 100 * (high + 1.6 * room_above))
    for role in ("front", "baseline"):
        joined = sorted(
            (one for one in marks if one.role == role or (role, one.role) == ("front", "chosen")),
            key=lambda one: one.ms,
        )
        if len(joined) > 1:
            places = [one.ms for one in joined], [100 * one.accuracy for one in joined]
            axes.plot(*places, color=_ROLES[role][1], linewidth=1, alpha=0.6, zorder=1)
    if target_ms is not None:
        _draw_target(axes, target_ms, across=False)
    for one in marks:
        _draw_mark(axes, one)
    order: list[Role] = ["chosen", "original", "baseline", "front", "other"]
    named = sorted(marks, key=lambda one: order.index(one.role))
    label_points(axes, [(one.name, one.ms, 100 * one.accuracy) for one in named])
    axes.set(xlabel="latency, ms (log scale)", ylabel="accuracy on the test images, %")
    _explain_marks(figure, axes, marks, room, has_target=target_ms is not None)


def _known(value: float | None) -> list[float]:
    return [] if value is None else [value]


def _draw_mark(axes: Axes, one: Mark) -> None:
    marker, colour, size, _ = _ROLES[one.role]
    height = 100 * one.accuracy
    if one.interval_ms:
        axes.plot(one.interval_ms, [height, height], color=colour, linewidth=1.1, solid_capstyle="butt", zorder=2)
    if one.interval:
        ends = [100 * share for share in one.interval]
        axes.plot([one.ms, one.ms], ends, color=colour, linewidth=1.1, alpha=0.7, solid_capstyle="butt", zorder=2)
    if one.predicted_ms is not None:
        axes.plot([one.predicted_ms, one.ms], [height, height], color=colour, linewidth=0.8, alpha=0.5, zorder=1)
        (ring,) = axes.plot(one.predicted_ms, height, marker, mfc="none", mec=colour, ms=size - 2, mew=1, zorder=2)
        tip(ring, f"{one.name}: {milliseconds(one.predicted_ms)} ms predicted")
    (dot,) = axes.plot(
        one.ms, height, marker, color=colour, mfc=colour if one.is_measured else "none", ms=size, mew=1.6, zorder=4
    )
    tip(dot, one.words)


def _explain_marks(figure: FigureBase, axes: Axes, marks: Sequence[Mark], room: Room, *, has_target: bool) -> None:
    """The legend below: roles, and what filled and open markers are."""
    for role, (marker, colour, size, word) in _ROLES.items():
        if any(one.role == role for one in marks):
            axes.plot([], [], marker, color=colour, ms=size, label=word)
    if any(one.is_measured for one in marks):
        axes.plot([], [], "o", color=MUTED, ms=6, label="measured")
    if any(not one.is_measured or one.predicted_ms for one in marks):
        axes.plot([], [], "o", color=MUTED, mfc="none", ms=6, label="predicted")
    legend_below(figure, axes, room)


def above(axes: Axes, text: str) -> None:
    """Writes what the vertical axis shows above it, where long words have room."""
    axes.set_title(text, fontweight="normal", color=MUTED, fontsize=9)


def legend_below(figure: FigureBase, axes: Axes, room: Room, *, most: int = 6) -> None:
    """The legend of the axes, below the figure."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        columns = min(len(handles), 2 if room.is_narrow else most)
        figure.legend(handles, labels, loc="outside lower left", ncols=columns, handlelength=1.6, columnspacing=1.4)


def _draw_target(axes: Axes, target_ms: float, *, across: bool) -> None:
    line = (axes.axhline if across else axes.axvline)(target_ms, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    line.set_label(f"target {milliseconds(target_ms)} ms")


@dataclass(frozen=True)
class Candidate:
    """A network that a search compared: its predicted latency and what it was compared by."""

    name: str
    ms: float
    score: float
    is_chosen: bool = False


def draw_candidates(
    figure: FigureBase,
    room: Room,
    found: Sequence[Candidate],
    target_ms: float,
    label: str,
    *,
    lower_is_better: bool,
    chosen: tuple[str, float] | None = None,
) -> None:
    """Predicted latency against score of all networks that a search compared, the better the higher. `chosen` is the
    network that was taken, (name, ms), where it is none of these: a judge may ask for what is between them."""
    axes = figure.subplots()
    ms = [one.ms for one in found]
    plain_logarithms(axes.xaxis, *limits_around([*ms, target_ms], 0.06))
    _draw_target(axes, target_ms, across=False)
    for one in sorted(found, key=lambda one: one.is_chosen):
        colour, size = (RED, 9) if one.is_chosen else (BLUE, 5)
        (dot,) = axes.plot(one.ms, one.score, "o", color=colour, ms=size, alpha=1 if one.is_chosen else 0.55, mew=0)
        tip(dot, f"{one.name}: {milliseconds(one.ms)} ms predicted, {label} {one.score:.4g}")
    taken = [one for one in found if one.is_chosen]
    axes.plot([], [], "o", color=BLUE, ms=5, alpha=0.55, label=f"{len(found)} networks compared")
    if taken:
        axes.plot([], [], "o", color=RED, ms=9, label="the one that was chosen")
    elif chosen:
        tip(axes.axvline(chosen[1], color=RED, linewidth=1.4, label="chosen by its judge"), chosen[0])
    axes.margins(y=0.12)
    if lower_is_better:
        axes.invert_yaxis()
    axes.set_xlabel("predicted latency, ms (log scale)")
    above(axes, f"{label}{' (better upwards)' if lower_is_better else ''}")
    label_points(axes, [(one.name, one.ms, one.score) for one in taken], [(one.ms, one.score) for one in found])
    legend_below(figure, axes, room)


def draw_judged(
    figure: FigureBase,
    room: Room,
    judged: Sequence[tuple[str, float, float]],
    target_ms: float,
    band: tuple[float, float] | None,
) -> None:
    """Predicted against measured: (name, predicted ms, measured ms) of the networks that were timed, the last being the
    one that was taken. `band` is the 90 % interval of a prediction, as parts of it."""
    axes = figure.subplots()
    values = [value for _, predicted, measured in judged for value in (predicted, measured)] + [target_ms]
    low, high = limits_around(values, 0.25)
    for axis in (axes.xaxis, axes.yaxis):
        plain_logarithms(axis, low, high)
    ends = np.array([low, high])
    if band:
        axes.fill_between(ends, ends * band[0], ends * band[1], color=BAND, linewidth=0, label="90 % interval")
    axes.plot(ends, ends, color=GREY, linewidth=1, label="as predicted")
    _draw_target(axes, target_ms, across=True)
    for name, predicted, measured in judged:
        is_taken = name == judged[-1][0]
        (dot,) = axes.plot(predicted, measured, "o", color=RED if is_taken else BLUE, ms=9 if is_taken else 6, zorder=4)
        tip(dot, f"{name}: {milliseconds(predicted)} ms predicted, {milliseconds(measured)} ms measured")
    if len(judged) > 1:
        axes.plot([], [], "o", color=BLUE, ms=6, label="also timed")
    axes.plot([], [], "o", color=RED, ms=9, label="taken")
    axes.set(xlabel="predicted, ms", ylabel="measured, ms", box_aspect=1)
    label_points(axes, list(reversed(judged)))
    legend_below(figure, axes, room, most=4)


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
        axes.annotate(
            f"{milliseconds(bar.ms)} ms  {percent(bar.ms / total)}",
            (end, place),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=MUTED,
        )
    axes.set_xlim(0, reach * (1.6 if room.is_narrow else 1.2))
    names = [shortened(bar.scope if room.is_narrow else _whole_name(bar), 18 if room.is_narrow else 48) for bar in bars]
    axes.set_yticks(list(places), names, fontsize=8)
    axes.set_ylim(len(bars) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("ms")
    legend_below(figure, axes, room, most=5)


def _whole_name(bar: Bar) -> str:
    return bar.name if bar.name == bar.scope else f"{bar.scope} {bar.name}"


def shortened(text: str, most: int) -> str:
    """The text, or its beginning and end."""
    return text if len(text) <= most else f"{text[: most // 2 - 1]}…{text[-(most - most // 2) :]}"


def draw_shares(figure: FigureBase, room: Room, parts: Sequence[tuple[str, float]], unit: str) -> None:
    """A bar for each part of a whole."""
    axes = figure.subplots()
    total = sum(value for _, value in parts) or 1.0
    for place, (name, value) in enumerate(parts):
        (patch,) = axes.barh(place, value, color=BLUE, height=0.6)
        tip(patch, f"{name}: {value:.4g} {unit}, {percent(value / total)}")
        axes.annotate(
            f"{value:.3g} {unit}  {percent(value / total)}",
            (value, place),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
            color=MUTED,
        )
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


@dataclass(frozen=True)
class RecordDot:
    """A record of a profile: its latency, and how far its rounds agree."""

    name: str
    kind: str
    ms: float
    error: float
    """Relative standard error."""
    is_stable: bool


def draw_stability(figure: FigureBase, room: Room, records: Sequence[RecordDot], threshold: float) -> None:
    """Latency against relative standard error of each record; above the threshold, its rounds disagree."""
    axes = figure.subplots()
    plain_logarithms(axes.xaxis, *limits_around([one.ms for one in records], 0.04))
    errors = [max(100 * one.error, 1e-3) for one in records]
    plain_logarithms(axes.yaxis, *limits_around([*errors, 120 * threshold], 0.05))
    axes.axhline(
        100 * threshold, color=INK, linewidth=1, linestyle=(0, (4, 3)), label=f"stable up to {percent(threshold, 0)}"
    )
    for one, error in zip(records, errors, strict=True):
        colour = BLUE if one.is_stable else RED
        (dot,) = axes.plot(one.ms, error, "o" if one.kind == "block" else "D", color=colour, ms=5, alpha=0.65, mew=0)
        tip(dot, f"{one.name}: {milliseconds(one.ms)} ms ± {percent(one.error, 2)}")
    for kind, marker in (("block", "o"), ("network", "D")):
        if count := sum(one.kind == kind for one in records):
            axes.plot([], [], marker, color=BLUE, ms=5, label=f"{count} {kind}{'s' if count > 1 else ''}")
    if unstable := [one for one in records if not one.is_stable]:
        axes.plot([], [], "o", color=RED, ms=5, label=f"{len(unstable)} unstable")
        worst = sorted(unstable, key=lambda one: -one.error)[:3]
        label_points(axes, [(shortened(one.name, 28), one.ms, max(100 * one.error, 1e-3)) for one in worst])
    axes.set(xlabel="latency, ms (log scale)", ylabel="standard error, % (log scale)")
    legend_below(figure, axes, room)


@dataclass(frozen=True)
class Course:
    """A quantity over the rounds of a profile."""

    name: str
    unit: str
    values: tuple[float | None, ...]
    """One per round; None where it was not told."""
    usual: float | None = None
    """Value that stands for nothing out of the ordinary."""


def draw_courses(
    figure: FigureBase, room: Room, starts: Sequence[float], courses: Sequence[Course], redone: Sequence[bool]
) -> None:
    """Quantities over time, each on an axis of its own; rounds that did not count are open and red. Where rounds were
    made in several sittings, the time between is left out."""
    minutes, breaks = _working_minutes(starts)
    axes = figure.subplots(len(courses), 1, sharex=True, squeeze=False)[:, 0]
    for axis, course, colour in zip(axes, courses, SERIES * 3, strict=False):
        known = [
            (at, value, not counts)
            for at, value, counts in zip(minutes, course.values, redone, strict=True)
            if value is not None
        ]
        axis.plot([at for at, _, _ in known], [value for _, value, _ in known], color=colour, linewidth=1, alpha=0.7)
        axis.plot([at for at, _, ok in known if ok], [value for _, value, ok in known if ok], "o", color=colour, ms=3)
        axis.plot(
            [at for at, _, ok in known if not ok],
            [value for _, value, ok in known if not ok],
            "o",
            mfc="none",
            color=RED,
            ms=5.5,
        )
        for at in breaks:
            axis.axvline(at, color=GREY, linewidth=0.8, linestyle=":")
        if course.usual is not None:
            axis.axhline(course.usual, color=GREY, linewidth=0.8)
        above(axis, f"{course.name}{course.unit and ', ' + course.unit}")
        axis.yaxis.set_major_locator(MaxNLocator(4))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes[-1].set_xlabel("minutes of measuring" + (" (dotted: a break)" if breaks else ""))
    if any(redone):
        axes[0].plot([], [], "o", mfc="none", color=RED, ms=5.5, label="did not count, measured again")
        legend_below(figure, axes[0], room)


_BREAK_S = 300.0
"""Pause between two rounds from which on they are of two sittings."""


def _working_minutes(starts: Sequence[float]) -> tuple[list[float], list[float]]:
    """Minutes at which rounds started, without the breaks between sittings; and the places of these."""
    minutes, breaks, left_out = [], [], starts[0]
    for before, start in zip([starts[0], *starts], starts, strict=False):
        if start - before > _BREAK_S:
            left_out += start - before - _BREAK_S / 10
            breaks.append((start - left_out - _BREAK_S / 20) / 60)
        minutes.append((start - left_out) / 60)
    return minutes, breaks


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


@dataclass(frozen=True)
class HeldOut:
    """Held-out predictions of one split."""

    name: str
    names: tuple[str, ...]
    measured_ms: tuple[float, ...]
    predicted_ms: tuple[float, ...]
    half_widths: tuple[float, ...]
    """Half-widths of the 90 % intervals, in logarithms."""


_MOST_TIPS = 300
"""Most points of a chart that are told one by one: more would make the page large, and are a cloud anyway."""


def draw_held_out(figure: FigureBase, room: Room, splits: Sequence[HeldOut]) -> None:
    """Predicted against measured latency of what was held out, on logarithmic axes, with a band of ±10 %."""
    axes = figure.subplots()
    values = [ms for split in splits for ms in (*split.measured_ms, *split.predicted_ms)]
    low, high = limits_around(values, 0.06)
    for axis in (axes.xaxis, axes.yaxis):
        plain_logarithms(axis, low, high)
    ends = np.array([low, high])
    axes.fill_between(ends, ends * 0.9, ends * 1.1, color=BAND, linewidth=0, label="±10 %")
    axes.plot(ends, ends, color=GREY, linewidth=1)
    for split, colour, marker in zip(splits, SERIES, "oDs^vP", strict=False):
        _draw_points(axes, split, split.measured_ms, split.predicted_ms, colour, marker)
    axes.set(xlabel="measured, ms", ylabel="predicted, ms", box_aspect=1)
    legend_below(figure, axes, room)


def draw_errors(figure: FigureBase, room: Room, splits: Sequence[HeldOut]) -> None:
    """Measured over predicted by predicted latency, with each prediction's 90 % interval."""
    axes = figure.subplots()
    plain_logarithms(axes.xaxis, *limits_around([ms for split in splits for ms in split.predicted_ms], 0.04))
    axes.axhspan(-10, 10, color=BAND, linewidth=0, label="±10 %")
    axes.axhline(0, color=GREY, linewidth=1)
    offs = [_off(split) for split in splits]
    reach = float(np.clip(1.1 * max(np.abs(one).max() for one in offs), 15, 60))
    for split, off, colour, marker in zip(splits, offs, SERIES, "oDs^vP", strict=False):
        low, high = (100 * np.expm1(sign * np.array(split.half_widths)) for sign in (-1, 1))
        axes.vlines(split.predicted_ms, low, high, color=colour, alpha=0.15, linewidth=2)
        _draw_points(axes, split, split.predicted_ms, np.clip(off, -reach, reach).tolist(), colour, marker)
    axes.set(
        ylim=(-1.06 * reach, 1.06 * reach), xlabel="predicted, ms (log scale)", ylabel="measured over predicted, %"
    )
    legend_below(figure, axes, room)


def _off(split: HeldOut) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.asarray(100 * (np.array(split.measured_ms) / np.array(split.predicted_ms) - 1), dtype=np.float64)


def _draw_points(axes: Axes, split: HeldOut, x: Sequence[float], y: Sequence[float], colour: str, marker: str) -> None:
    label = f"{split.name} ({len(split.names)})"
    axes.plot([], [], marker, color=colour, ms=5, label=label)
    if len(split.names) > _MOST_TIPS:
        axes.plot(x, y, marker, color=colour, ms=3, alpha=0.5, mew=0)
        return
    for name, measured, predicted, across, up in zip(
        split.names, split.measured_ms, split.predicted_ms, x, y, strict=True
    ):
        (dot,) = axes.plot(across, up, marker, color=colour, ms=4.5, alpha=0.7, mew=0)
        tip(dot, f"{name}: {milliseconds(measured)} ms measured, {milliseconds(predicted)} ms predicted")


def draw_coverage(
    figure: FigureBase, room: Room, levels: Sequence[float], splits: Sequence[tuple[str, Sequence[float]]]
) -> None:
    """Share of measurements inside intervals of each nominal coverage; honest ones lie on the line."""
    axes = figure.subplots()
    nominal = 100 * np.array(levels)
    axes.fill_between(nominal, nominal - 5, np.minimum(nominal + 5, 100), color=BAND, linewidth=0, label="±5 points")
    axes.plot(nominal, nominal, color=GREY, linewidth=1)
    for (name, shares), colour, marker in zip(splits, SERIES, "oDs^vP", strict=False):
        axes.plot(nominal, [100 * share for share in shares], f"{marker}-", color=colour, ms=4.5, label=name)
    axes.set(xticks=nominal, xlabel="nominal coverage, %", ylabel="measurements inside, %")
    axes.set_ylim(min(40, *axes.get_ylim()), 102)
    legend_below(figure, axes, room, most=3)


def draw_kinds(figure: FigureBase, room: Room, kinds: Sequence[tuple[str, int, float]]) -> None:
    """(kind, items, mean absolute relative error) each."""
    axes = figure.subplots()
    for place, (name, count, error) in enumerate(kinds):
        (patch,) = axes.barh(place, 100 * error, color=BLUE, height=0.62)
        tip(patch, f"{name}: {percent(error)} mean error of {count}")
        axes.annotate(
            f"{percent(error)} of {count}",
            (100 * error, place),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=MUTED,
        )
    axes.set_yticks(range(len(kinds)), [shortened(name, 18 if room.is_narrow else 40) for name, _, _ in kinds])
    axes.set_ylim(len(kinds) - 0.4, -0.6)
    axes.set_xlim(0, max(100 * error for _, _, error in kinds) * (1.5 if room.is_narrow else 1.15) or 1.0)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("mean absolute error, %")
