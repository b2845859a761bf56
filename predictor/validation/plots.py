"""Pictures of a predictor's held-out errors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

from netlathe.archspace.records import Setup
from netlathe.predictor.errors import TooFewRecordsError
from netlathe.predictor.intervals import USUAL_COVERAGE
from netlathe.predictor.validation.crossval import CrossValidation
from netlathe.predictor.validation.metrics import LEVELS, Predictions

_INK, _PALE_INK, _BAND, _GRID = "#333333", "#666666", "#e6e6e6", "#eeeeee"
_COLOURS = {
    "configuration": "#3b6fb6", "random": "#7fb2e5", "kernel": "#2a9d8f", "stage": "#e9a23b", "larger": "#8d5fb0",
    "network": "#d1495b",
}  # fmt: skip
_LABELS = {
    "configuration": "blocks", "random": "blocks, at random", "kernel": "kernel size left out",
    "stage": "stage left out", "larger": "larger inputs", "network": "networks",
}  # fmt: skip
_MARKERS = {"configuration": ("o", 20.0), "network": ("D", 30.0)}
_LEAST_PERCENT, _MOST_PERCENT = 15.0, 60.0
"""Least and largest range of the axis of residuals either way; what is farther off stands at its border."""


def plot_validation(validation: CrossValidation, path: str | Path) -> None:
    """Writes a PNG of what was held out: predicted against measured latency, residuals by size, and how many
    measurements the intervals hold. Raises TooFewRecordsError when nothing was held out."""
    series = {split: validation.splits[split] for split in _MARKERS if split in validation.splits}
    if not series:
        raise TooFewRecordsError("nothing was held out, so there is nothing to draw; profile more blocks")
    figure = Figure(figsize=(15, 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, middle, right = figure.subplots(1, 3)
    _draw_predicted(left, series)
    _draw_residuals(middle, series)
    _draw_coverage(right, validation.splits)
    for axes in (left, middle, right):
        _dress(axes)
    setup = validation.setup
    figure.suptitle(
        f"{setup.device} · {setup.processor}", x=0.008, ha="left", fontsize=13, fontweight="bold", color=_INK
    )
    figure.text(0.992, 0.985, _conditions(setup), ha="right", va="top", fontsize=9.5, color=_PALE_INK)
    figure.savefig(path, dpi=150, format="png")


def _conditions(setup: Setup) -> str:
    runtime = " ".join(
        part for part in (setup.runtime, setup.runtime_version, setup.delegate) if part not in ("", "none")
    )
    threads = f"{setup.threads} thread{'s' if setup.threads > 1 else ''}"
    return f"{runtime}, {threads}, {setup.dtype}, batch {setup.batch}"


def _draw_predicted(axes: Axes, series: Mapping[str, Predictions]) -> None:
    """Predicted against measured on log axes, with the band of 10 % either way."""
    everything = np.concatenate([np.r_[p.measured_ms, p.predicted_ms] for p in series.values()])
    ends = np.array([everything.min() / 1.3, everything.max() * 1.3])
    axes.fill_between(ends, ends * 0.9, ends * 1.1, color=_BAND, linewidth=0, label="±10 %")
    axes.plot(ends, ends, color=_INK, linewidth=0.8)
    for split, points in series.items():
        m = points.metrics
        label = f"{m.n} {_LABELS[split]}: {100 * m.within_10:.0f} % within ±10 %, mean error {100 * m.mape:.1f} %"
        _scatter(axes, split, points.measured_ms, points.predicted_ms, label)
    axes.set(xlim=ends, ylim=ends, title="predicted against measured, held out")
    axes.set(xlabel="measured latency (ms)", ylabel="predicted latency (ms)", xscale="log", yscale="log")
    for axis in (axes.xaxis, axes.yaxis):
        _plain_logarithms(axis, ends)
    axes.legend(frameon=False, fontsize=9, loc="upper left")


def _draw_residuals(axes: Axes, series: Mapping[str, Predictions]) -> None:
    """Relative error of each prediction, by its size, with its interval as a bar behind."""
    off = {split: 100 * (p.measured_ms / p.predicted_ms - 1) for split, p in series.items()}
    largest = float(np.quantile(np.abs(np.concatenate(list(off.values()))), 0.99))
    limit = float(np.clip(1.3 * largest, _LEAST_PERCENT, _MOST_PERCENT))
    axes.axhspan(-10, 10, color=_BAND, linewidth=0, label="±10 %")
    axes.axhline(0, color=_INK, linewidth=0.8)
    for split, points in series.items():
        low, high = (100 * (bound / points.predicted_ms - 1) for bound in points.interval_ms())
        axes.vlines(points.predicted_ms, low, high, color=_COLOURS[split], alpha=0.16, linewidth=2)
        _scatter(axes, split, points.predicted_ms, np.clip(off[split], -limit, limit), None)
    beyond = sum(int((np.abs(one) > limit).sum()) for one in off.values())
    note = f"bars: {100 * USUAL_COVERAGE:.0f} % intervals" + (
        f"; {beyond} farther off, at the border" if beyond else ""
    )
    axes.set(xscale="log", ylim=(-1.05 * limit, 1.05 * limit), title="residuals by size")
    axes.set(xlabel="predicted latency (ms)", ylabel="measured over predicted (%)")
    predicted = np.concatenate([p.predicted_ms for p in series.values()])
    ends = np.array([predicted.min() / 1.3, predicted.max() * 1.3])
    axes.set_xlim(*ends)
    _plain_logarithms(axes.xaxis, ends)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+g}" if value else "0"))
    axes.text(0.02, 0.02, note, transform=axes.transAxes, fontsize=9, color=_PALE_INK)


def _draw_coverage(axes: Axes, splits: Mapping[str, Predictions]) -> None:
    """Share of measurements inside intervals of each nominal coverage, for each split; honest ones lie on the line."""
    nominal = 100 * np.array(LEVELS)
    axes.fill_between(nominal, nominal - 5, np.minimum(nominal + 5, 100), color=_BAND, linewidth=0, label="±5 points")
    axes.plot(nominal, nominal, color=_INK, linewidth=0.8)
    for split, points in splits.items():
        label = f"{_LABELS[split]} (n = {len(points.names)})"
        axes.plot(nominal, 100 * points.coverages(), "o-", color=_COLOURS[split], markersize=4, label=label)
    axes.set(title="coverage of the intervals", xlabel="nominal coverage (%)", ylabel="measurements inside (%)")
    axes.set(xlim=(48, 97), ylim=(min(40, *axes.get_ylim()), 102), xticks=nominal)
    axes.legend(frameon=False, fontsize=9, loc="best")


def _scatter(axes: Axes, split: str, x: NDArray[np.float64], y: NDArray[np.float64], label: str | None) -> None:
    marker, size = _MARKERS[split]
    axes.scatter(
        x, y, s=size, c=_COLOURS[split], marker=marker, alpha=0.75, linewidth=0.4, edgecolor="white", label=label,
        zorder=3,
    )  # fmt: skip


def _plain_logarithms(axis: Axis, ends: NDArray[np.float64]) -> None:
    """Ticks at 1, 2, 5, 10 as plain numbers; at powers of ten where there are many."""
    few_decades = np.log10(ends[1] / ends[0]) < 2.5
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few_decades else (1.0,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _dress(axes: Axes) -> None:
    axes.set_box_aspect(1)
    axes.set_title(axes.get_title(), fontsize=11, loc="left", color=_INK)
    axes.set_title("", loc="center")
    axes.xaxis.label.set(fontsize=10.5, color=_INK)
    axes.yaxis.label.set(fontsize=10.5, color=_INK)
    axes.tick_params(labelsize=9.5, colors=_INK)
    axes.grid(which="major", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
