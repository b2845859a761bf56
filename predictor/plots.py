"""Pictures of how good a predictor is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from predictor.crossval import CrossValidation, Predictions

_BLOCK_COLOUR, _NETWORK_COLOUR, _INK, _BAND = "#3b6fb6", "#d1495b", "#333333", "#e6e6e6"


def plot_predicted_measured(validation: CrossValidation, path: str | Path) -> None:
    """Writes a PNG: predicted against measured latency on log axes, with the band of 10 % either way."""
    figure = Figure(figsize=(6.4, 6.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    series = [("blocks", validation.blocks, "o", _BLOCK_COLOUR, 22.0)]
    if validation.networks is not None:
        series.append(("networks", validation.networks, "D", _NETWORK_COLOUR, 34.0))
    everything = np.concatenate([np.r_[s.measured_ms, s.predicted_ms] for _, s, *_ in series])
    ends = np.array([everything.min() / 1.3, everything.max() * 1.3])
    axes.fill_between(ends, ends * 0.9, ends * 1.1, color=_BAND, linewidth=0, label="±10 %")
    axes.plot(ends, ends, color=_INK, linewidth=0.8)
    for name, points, marker, colour, size in series:
        axes.scatter(
            points.measured_ms, points.predicted_ms, s=size, c=colour, marker=marker, alpha=0.75, linewidth=0.4,
            edgecolor="white", label=_label(name, points), zorder=3,
        )  # fmt: skip
    _dress(axes, ends, validation)
    figure.savefig(path, dpi=150, format="png")


def _label(name: str, points: Predictions) -> str:
    m = points.metrics
    return f"{m.n} {name}: {100 * m.within_10:.0f} % within ±10 %, mean error {100 * m.mape:.1f} %"


def _dress(axes: Axes, ends: np.ndarray[tuple[int], np.dtype[np.float64]], validation: CrossValidation) -> None:
    axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends, aspect="equal")
    axes.set_xlabel("measured latency (ms)", fontsize=11, color=_INK)
    axes.set_ylabel("predicted latency, held out (ms)", fontsize=11, color=_INK)
    setup = validation.setup
    runtime = " ".join(part for part in (setup.runtime, setup.runtime_version, setup.delegate) if part != "none")
    threads = f"{setup.threads} thread{'s' if setup.threads > 1 else ''}"
    axes.set_title(f"{setup.device} · {setup.processor}", fontsize=13, loc="left", color=_INK, pad=22)
    axes.text(
        0, 1.015, f"{runtime}, {threads}, {setup.dtype}, batch {setup.batch}",
        transform=axes.transAxes, fontsize=9.5, color="#666666",
    )  # fmt: skip
    few_decades = np.log10(ends[1] / ends[0]) < 2.5
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few_decades else (1.0,)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.tick_params(labelsize=10, colors=_INK)
    axes.grid(which="major", color="#eeeeee", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(frameon=False, fontsize=10, loc="upper left")
