"""Charts of a load that lasts: speed, heat, clocks and power over time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from matplotlib.ticker import FuncFormatter, MaxNLocator

from netlathe.report.style import GREY, SERIES, Room, above

if TYPE_CHECKING:
    from matplotlib.figure import FigureBase


@dataclass(frozen=True)
class LoadCourse:
    """A quantity over the time of a load, visit by visit and as means of stretches."""

    name: str
    visits: tuple[tuple[float, float], ...]
    """(minutes, value) of each visit of a network."""
    stretches: tuple[tuple[float, float], ...]
    """(minutes at the middle, value) of each stretch."""
    usual: float | None = None
    """Value that stands for nothing out of the ordinary."""


def draw_load(figure: FigureBase, room: Room, courses: Sequence[LoadCourse]) -> None:
    """Quantities over the minutes of a load, each on an axis of its own."""
    axes = figure.subplots(len(courses), 1, sharex=True, squeeze=False)[:, 0]
    for axis, course, colour in zip(axes, courses, SERIES, strict=False):
        if course.usual is not None:
            axis.axhline(course.usual, color=GREY, linewidth=0.8)
        axis.plot(*_columns(course.visits), "o", color=colour, ms=2, alpha=0.35, mew=0)
        axis.plot(*_columns(course.stretches), "o-", color=colour, ms=3.5, linewidth=1.4)
        above(axis, course.name)
        axis.yaxis.set_major_locator(MaxNLocator(4))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes[-1].set_xlabel("minutes under load")


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """Minutes and values of those that are numbers."""
    known = [(at, value) for at, value in points if math.isfinite(value)]
    return [at for at, _ in known], [value for _, value in known]
