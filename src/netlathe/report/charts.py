"""Charts of networks between latency and accuracy: trained ones, compared ones, and those that were timed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from netlathe.report.style import (
    BAND,
    BLUE,
    GREY,
    INK,
    MUTED,
    ORANGE,
    PURPLE,
    RED,
    Room,
    above,
    label_points,
    legend_below,
    limits_around,
    plain_logarithms,
    tip,
)
from netlathe.words import milliseconds, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase

Role = Literal["chosen", "front", "other", "baseline", "original", "finalist", "uniform"]
_ROLES: dict[Role, tuple[str, str, float, str]] = {
    "chosen": ("*", RED, 14, "this network"),
    "front": ("o", BLUE, 8, "on the front"),
    "other": ("v", GREY, 6, "beaten by another"),
    "baseline": ("s", ORANGE, 7, "baseline"),
    "original": ("D", PURPLE, 7.5, "the original"),
    "uniform": ("v", GREY, 6, "uniform widths, untrained"),
    "finalist": ("o", BLUE, 4.5, "finalists, untrained"),
}
"""Marker, colour, size and word of each role."""
_UNTRAINED: tuple[Role, ...] = ("finalist", "uniform")


@dataclass(frozen=True)
class Mark:
    """A network between latency and accuracy."""

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
    def is_trained(self) -> bool:
        """Whether its accuracy is that after its training, on the test images; else before any, on validation ones."""
        return self.role not in _UNTRAINED

    @property
    def words(self) -> str:
        """Name and numbers."""
        how = "measured" if self.is_measured else "predicted"
        ends = self.interval
        trained = "" if self.is_trained else " before training"
        told = f", 95 % interval {percent(ends[0])} to {percent(ends[1])}" if ends else ""
        return f"{self.name}: {milliseconds(self.ms)} ms {how}, {percent(self.accuracy)} accurate{trained}{told}"


def draw_marks(figure: FigureBase, room: Room, marks: Sequence[Mark], target_ms: float | None = None) -> None:
    """Latency against accuracy of networks, with intervals either way; filled where the latency was measured. Baselines
    are joined by a line, and so are the front and the original at uniform widths."""
    axes = figure.subplots()
    reach = [ms for one in marks for ms in (one.ms, *(one.interval_ms or ()), *_known(one.predicted_ms))]
    plain_logarithms(axes.xaxis, *limits_around([*reach, *_known(target_ms)], 0.2))
    heights = [share for one in marks for share in (one.accuracy, *(one.interval or ()))]
    low, high = min(heights), max(heights)
    room_above = max(0.15 * (high - low), 0.006)
    axes.set_ylim(100 * max(low - room_above, -0.01), 100 * min(high + 1.6 * room_above, 1 + 0.3 * room_above))
    for role in ("front", "baseline", "uniform"):
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
    order: list[Role] = ["chosen", "original", "baseline", "front", "other", "uniform"]
    named = sorted((one for one in marks if one.role in order), key=lambda one: order.index(one.role))
    ylabel = "accuracy on the test images, %"
    if not all(one.is_trained for one in marks):
        ylabel = "accuracy, %" if room.is_narrow else "accuracy, % (test images; untrained: validation images)"
    axes.set(xlabel="latency, ms (log scale)", ylabel=ylabel)
    _explain_marks(figure, axes, marks, room)
    points = [(one.ms, 100 * one.accuracy) for one in marks]
    label_points(axes, [(one.name, one.ms, 100 * one.accuracy) for one in named], points)


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
        one.ms, height, marker, color=colour, mfc=colour if one.is_measured else "none", ms=size,
        mew=1.6 if one.is_trained else 0.9, zorder=4 if one.is_trained else 3,
    )  # fmt: skip
    tip(dot, one.words)


def _explain_marks(figure: FigureBase, axes: Axes, marks: Sequence[Mark], room: Room) -> None:
    """The legend below: roles, and what filled and open markers are."""
    for role, (marker, colour, size, word) in _ROLES.items():
        if any(one.role == role for one in marks):
            axes.plot([], [], marker, color=colour, ms=size, label=word)
    if any(one.is_measured for one in marks):
        axes.plot([], [], "o", color=MUTED, ms=6, label="measured")
    if any(not one.is_measured or one.predicted_ms for one in marks):
        axes.plot([], [], "o", color=MUTED, mfc="none", ms=6, label="predicted")
    legend_below(figure, axes, room)


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
        marker, colour, size = ("*", RED, 14) if one.is_chosen else ("o", BLUE, 5)
        (dot,) = axes.plot(one.ms, one.score, marker, color=colour, ms=size, alpha=1 if one.is_chosen else 0.55, mew=0)
        tip(dot, f"{one.name}: {milliseconds(one.ms)} ms predicted, {label} {one.score:.4g}")
    taken = [one for one in found if one.is_chosen]
    axes.plot([], [], "o", color=BLUE, ms=5, alpha=0.55, label=f"{len(found)} networks compared")
    if taken:
        axes.plot([], [], "*", color=RED, ms=12, label="the one that was chosen")
    elif chosen:
        tip(axes.axvline(chosen[1], color=RED, linewidth=1.4, label="the one that was chosen"), chosen[0])
    axes.margins(y=0.12)
    if lower_is_better:
        axes.invert_yaxis()
    axes.set_xlabel("predicted latency, ms (log scale)")
    above(axes, f"{label}{' (better upwards)' if lower_is_better else ''}")
    legend_below(figure, axes, room)
    label_points(axes, [(one.name, one.ms, one.score) for one in taken], [(one.ms, one.score) for one in found])


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
        marker, colour, size = ("*", RED, 14) if is_taken else ("o", BLUE, 6)
        (dot,) = axes.plot(predicted, measured, marker, color=colour, ms=size, mew=0, zorder=4)
        tip(dot, f"{name}: {milliseconds(predicted)} ms predicted, {milliseconds(measured)} ms measured")
    if len(judged) > 1:
        axes.plot([], [], "o", color=BLUE, ms=6, label="also timed")
    axes.plot([], [], "*", color=RED, ms=12, label="taken")
    axes.set(xlabel="predicted, ms", ylabel="measured, ms", box_aspect=1)
    legend_below(figure, axes, room, most=4)
    label_points(axes, list(reversed(judged)))
