"""Charts of a profile: how far its rounds agree, and the machine over time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from matplotlib.ticker import FuncFormatter, MaxNLocator

from netlathe.report.style import (
    BLUE,
    GREY,
    INK,
    RED,
    SERIES,
    Room,
    above,
    label_points,
    legend_below,
    limits_around,
    plain_logarithms,
    shortened,
    tip,
)
from netlathe.words import milliseconds, percent

if TYPE_CHECKING:
    from matplotlib.figure import FigureBase


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
        marker = "o" if one.kind == "block" else "D"
        (dot,) = axes.plot(one.ms, error, marker, color=BLUE, ms=5, alpha=0.65, mew=0)
        if not one.is_stable:
            dot.set(color=RED, markerfacecolor="none", markeredgewidth=1.4, alpha=1)  # open: not by its colour alone
        tip(dot, f"{one.name}: {milliseconds(one.ms)} ms ± {percent(one.error, 2)}")
    for kind, marker in (("block", "o"), ("network", "D")):
        if count := sum(one.kind == kind for one in records):
            axes.plot([], [], marker, color=BLUE, ms=5, label=f"{count} {kind}{'s' if count > 1 else ''}")
    if unstable := [one for one in records if not one.is_stable]:
        axes.plot([], [], "o", color=RED, mfc="none", mew=1.4, ms=5, label=f"{len(unstable)} unstable")
    axes.set(xlabel="latency, ms (log scale)", ylabel="standard error, % (log scale)")
    legend_below(figure, axes, room)
    worst = sorted(unstable, key=lambda one: -one.error)[:3]
    label_points(axes, [(shortened(one.name, 28), one.ms, max(100 * one.error, 1e-3)) for one in worst])


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
    unit, scale = ("minutes", 1.0) if minutes[-1] >= _SHORT_MIN else ("seconds", 60.0)
    places = [scale * one for one in minutes]
    axes = figure.subplots(len(courses), 1, sharex=True, squeeze=False)[:, 0]
    for axis, course, colour in zip(axes, courses, SERIES * 3, strict=False):
        known = [
            (at, value, not counts)
            for at, value, counts in zip(places, course.values, redone, strict=True)
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
            axis.axvline(scale * at, color=GREY, linewidth=0.8, linestyle=":")
        if course.usual is not None:
            axis.axhline(course.usual, color=GREY, linewidth=0.8)
        above(axis, f"{course.name}{course.unit and ', ' + course.unit}")
        axis.yaxis.set_major_locator(MaxNLocator(4))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes[-1].set_xlabel(f"{unit} of measuring" + (" (dotted: a break)" if breaks else ""))
    if any(redone):
        axes[0].plot([], [], "o", mfc="none", color=RED, ms=5.5, label="did not count, measured again")
        legend_below(figure, axes[0], room)


_SHORT_MIN = 2.0
"""Minutes below which a profile's time is told in seconds."""
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
