"""Pictures of a run: the architecture layer by layer, how the search came to it, and where it stands among others."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure, FigureBase
from matplotlib.patches import Patch

from netlathe.archspace.blocks import Block, MBConv, Skip
from netlathe.archspace.files import writing
from netlathe.archspace.spaces import Architecture
from netlathe.report import charts
from netlathe.report.charts import Candidate, Mark, draw_candidates, draw_marks
from netlathe.report.learning_charts import CostLine, Epoch, draw_decisions, draw_expectations
from netlathe.report.style import MUTED, Room, save_png
from netlathe.words import milliseconds, percent

if TYPE_CHECKING:
    from netlathe.pareto_front import Point
    from netlathe.search.costs import Constraint
    from netlathe.search.strategies.binarized.outcome import EpochRow

_COLORS = {3: "#8ecae6", 5: "#219ebc", 7: "#fb8500"}
_OTHER = "#adb5bd"
_FIXED = "#6c757d"


def _save(figure: Figure, path: Path) -> None:
    """Saves a figure as PNG, whole or not at all."""
    with writing(path) as part:
        figure.savefig(part, dpi=130, format="png")


def draw_architectures(architectures: Sequence[tuple[str, Architecture, Sequence[float]]], path: Path) -> None:
    """(title, architecture, predicted ms per block) each: one row of bars, the height is the block's milliseconds, the
    color its kernel, the label its expansion; scales are shared, so rows compare."""
    figure = Figure(figsize=(11, 2.9 * len(architectures) + 0.5), layout="constrained")
    axes = figure.subplots(len(architectures), 1, squeeze=False, sharey=True)[:, 0]
    for axis, (title, architecture, ms) in zip(axes, architectures, strict=True):
        positions = range(len(architecture.blocks))
        axis.bar(positions, ms, color=[_color(b) for b in architecture.blocks], edgecolor="white", width=0.86)
        for x, (block, height) in enumerate(zip(architecture.blocks, ms, strict=True)):
            axis.annotate(_label(block), (x, height), (0, 3), textcoords="offset points", ha="center", fontsize=8)
        names = [
            f"{b.input_shape[2]}→{b.output_shape[-1]}\n{b.input_shape[0]}×{b.input_shape[1]}"
            for b in architecture.blocks
        ]
        axis.set_xticks(list(positions), names, fontsize=8)
        axis.set_title(title, loc="left", fontsize=11, fontweight="bold")
        axis.set_ylabel("predicted ms")
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(y=0.18)
    handles = [Patch(color=color, label=f"{k}×{k} MBConv") for k, color in _COLORS.items()]
    handles += [Patch(color=_OTHER, label="skip"), Patch(color=_FIXED, label="fixed")]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9)
    _save(figure, path)


def _label(block: Block) -> str:
    """Label of a block's bar; a user's own class need not have more than a name."""
    return str(getattr(block, "label", block.name))


def _color(block: Block) -> str:
    if isinstance(block, MBConv):
        return _COLORS.get(block.kernel, _OTHER)
    return _OTHER if isinstance(block, Skip) else _FIXED


def draw_search(
    history: Sequence[EpochRow], constraints: Sequence[Constraint], chosen: Sequence[float], path: Path
) -> None:
    """Each constraint's cost against its limit, and its multiplier; below them accuracy, loss and entropy, each on an
    axis of its own; all by epoch. `chosen` are the costs of the network that was taken."""
    lines = [
        CostLine(
            one.table.name,
            one.table.unit,
            one.limit,
            tuple(row.expected[index] for row in history),
            tuple(row.likeliest[index] for row in history),
            tuple(row.multipliers[index] for row in history),
            cost,
        )
        for index, (one, cost) in enumerate(zip(constraints, chosen, strict=True))
    ]
    epochs = [Epoch(row.epoch, row.phase, row.loss, row.accuracy, row.entropy) for row in history]
    warm = next((row.epoch for row in history if row.phase == "search"), 0)
    count = len(lines)

    def draw(figure: FigureBase, room: Room) -> None:
        upper, lower = figure.subfigures(2, 1, height_ratios=[2.2 * count, 2.4], squeeze=False)[:, 0]
        draw_expectations(upper, room, lines, warm)
        draw_decisions(lower, room, epochs, warm)

    save_png(draw, path, height=0.45 + 0.36 * count)


def draw_pareto(points: Sequence[Point], setup: str, path: Path) -> None:
    """Latency, measured where it was, against accuracy; the front as a line, beaten networks grey; what was predicted
    of those that were measured as open circles."""
    marks = [
        Mark(
            f"{one.name} ({milliseconds(one.ms)} ms, {percent(one.accuracy)})",
            one.ms,
            one.accuracy,
            "front" if one.on_front else "other",
            one.measured_ms is not None,
            predicted_ms=None if one.measured_ms is None else one.predicted_ms,
        )
        for one in points
    ]

    def draw(figure: FigureBase, room: Room) -> None:
        figure.suptitle(setup, x=0.01, ha="left", fontsize=9, color=MUTED)
        draw_marks(figure, room, marks)

    save_png(draw, path)


def draw_judged(
    judged: Sequence[tuple[str, float, float]],
    target_ms: float,
    path: Path,
    band: tuple[float, float] | None = None,
) -> None:
    """Predicted against measured: (name, predicted ms, measured ms) of the networks that were timed; the last is the
    one that was taken. `band` is the 90 % interval of its prediction, as parts of it."""
    draw = partial(charts.draw_judged, judged=judged, target_ms=target_ms, band=band)
    save_png(draw, path, width_in=6.4, height=1.0)


def draw_finalists(
    points: Sequence[tuple[float, float, bool]], target_ms: float, device: str, loss: str, path: Path
) -> None:
    """(predicted ms, loss, whether it was chosen) of the networks that were looked at, on that device."""
    found = [Candidate("chosen" if is_chosen else "", ms, height, is_chosen) for ms, height, is_chosen in points]
    label = f"{loss}, before training, by latency on {device}"
    save_png(partial(draw_candidates, found=found, target_ms=target_ms, label=label, lower_is_better=True), path)


def draw_compared(marks: Sequence[Mark], target_ms: float, device: str, path: Path) -> None:
    """Latency on a device against accuracy: a compression's result, the original, its baselines, and what was looked
    at before training."""

    def draw(figure: FigureBase, room: Room) -> None:
        figure.suptitle(f"on {device}", x=0.01, ha="left", fontsize=9, color=MUTED)
        draw_marks(figure, room, marks, target_ms)

    save_png(draw, path)


_OF_PRECISION = {"float32": "#219ebc", "float16": "#2a9d8f", "int8": "#fb8500", "int8-weights": "#9d4edd"}


def draw_widths(layers: Sequence[tuple[str, int, int, str]], title: str, path: Path) -> None:
    """(layer, channels before, channels after, precision) each: a bar of what is left, in its precision's color, in one
    of what was there, from the first layer down."""
    figure = Figure(figsize=(8, 0.24 * len(layers) + 1.4), layout="constrained")
    axis = figure.subplots()
    places = range(len(layers))
    axis.barh(places, [before for _, before, _, _ in layers], color="#dee2e6", label="before")
    found = {precision for _, _, after, precision in layers if after}
    for precision, color in _OF_PRECISION.items():
        if precision in found:
            rows = [(place, one[2]) for place, one in enumerate(layers) if one[3] == precision]
            label = f"after, {precision}" if len(found) > 1 or precision != "float32" else "after"
            axis.barh([place for place, _ in rows], [after for _, after in rows], color=color, label=label)
    for place, (_, before, after, _) in enumerate(layers):
        text = f"{before}" if after == before else f"{after} of {before}" if after else "left out"
        axis.annotate(
            text, (before, place), (4, 0), textcoords="offset points", va="center", fontsize=7, color="#495057"
        )
    names = [name if len(name) <= 40 else f"…{name[-39:]}" for name, *_ in layers]
    axis.set_yticks(list(places), names, fontsize=7)
    axis.invert_yaxis()
    axis.set_xlabel("channels")
    axis.set_title(title, loc="left", fontsize=10, fontweight="bold")
    axis.margins(x=0.12, y=0.01)
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    _save(figure, path)
