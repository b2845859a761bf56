"""Pictures of a run: the architecture layer by layer, how the search came to it, and where it stands among others."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from netlathe.archspace.blocks import Block, MBConv, Skip
from netlathe.archspace.spaces import Architecture
from netlathe.report import charts
from netlathe.report.charts import Candidate, Mark, draw_candidates, draw_marks
from netlathe.report.layer_charts import BlockRow, ChannelRow, draw_blocks, draw_channels, height_of_rows
from netlathe.report.learning_charts import CostLine, Epoch, draw_decisions, draw_expectations
from netlathe.report.style import BLUE, GREEN, GREY, MUTED, ORANGE, PALE, PURPLE, Room, save_png
from netlathe.words import milliseconds, percent

if TYPE_CHECKING:
    from matplotlib.figure import FigureBase

    from netlathe.pareto_front import Point
    from netlathe.search.costs import Constraint
    from netlathe.search.strategies.binarized.outcome import EpochRow

_WIDTH_IN = 6.4
"""Width of pictures with a row for each layer: shown at 640 pixels, their small text has 12."""
_KINDS = {
    "3×3 MBConv": PALE,
    "5×5 MBConv": BLUE,
    "7×7 MBConv": ORANGE,
    "other MBConv": PURPLE,
    "skip": GREEN,
    "fixed": GREY,
}
"""Kinds of blocks, as a legend has them, with their colours."""
_OF_PRECISION = {"float32": BLUE, "float16": GREEN, "int8": ORANGE, "int8-weights": PURPLE}
_MOST_ROWS = 150
"""Layers of a picture; of more, those that lose most are drawn."""


def draw_architectures(architectures: Sequence[tuple[str, Architecture, Sequence[float]]], path: Path) -> None:
    """(title, architecture, predicted ms per block) each: a bar for each block, from the first down, its kernel as its
    colour and in its name; scales are shared, so networks compare."""
    networks = [
        (title, [_row(block, ms) for block, ms in zip(architecture.blocks, parts, strict=True)])
        for title, architecture, parts in architectures
    ]
    height_in = height_of_rows([title for title, _ in networks], sum(len(rows) for _, rows in networks))
    draw = partial(draw_blocks, networks=networks, colours=_KINDS)
    save_png(draw, path, width_in=_WIDTH_IN, height=height_in / _WIDTH_IN)


def _row(block: Block, ms: float) -> BlockRow:
    """A user's own class need not have more than a name and shapes."""
    label = " ".join(str(getattr(block, "label", block.name)).split())
    inputs, outputs = block.input_shape, block.output_shape
    return BlockRow(f"{label}  {inputs[-1]}→{outputs[-1]}  {inputs[0]}×{inputs[1]}", ms, _kind(block))


def _kind(block: Block) -> str:
    if isinstance(block, MBConv):
        kind = f"{block.kernel}×{block.kernel} MBConv"
        return kind if kind in _KINDS else "other MBConv"
    return "skip" if isinstance(block, Skip) else "fixed"


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


def draw_widths(layers: Sequence[tuple[str, int, int, str]], title: str, path: Path) -> None:
    """(layer, channels before, channels after, precision) each: a bar of what is left, in its precision's color, in one
    of what was there, from the first layer down. Of very many layers, those that lose most."""
    rows = [ChannelRow(*layer) for layer in layers]
    if len(rows) > _MOST_ROWS:
        lost = sorted(range(len(rows)), key=lambda index: rows[index].after - rows[index].before)[:_MOST_ROWS]
        title = f"{title} ({_MOST_ROWS} of {len(rows)} layers, those that lose most)"
        rows = [rows[index] for index in sorted(lost)]
    draw = partial(draw_channels, title=title, rows=rows, colours=_OF_PRECISION)
    save_png(draw, path, width_in=_WIDTH_IN, height=height_of_rows([title], len(rows)) / _WIDTH_IN)
