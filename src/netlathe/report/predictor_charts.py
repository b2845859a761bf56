"""Charts of what a predictor says of measurements that it has not seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from netlathe.report.style import (
    BAND,
    BLUE,
    GREY,
    MUTED,
    SERIES,
    Room,
    legend_below,
    limits_around,
    plain_logarithms,
    shortened,
    tip,
)
from netlathe.words import milliseconds, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import FigureBase


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
