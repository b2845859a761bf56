"""Pictures of a run: the architecture layer by layer, how the search came to it, and where it stands among others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from netlathe.archspace.blocks import Block, MBConv, Skip
from netlathe.archspace.files import writing
from netlathe.archspace.spaces import Architecture

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
    """Each constraint's cost against its limit, a row of its own; below them the multipliers, then accuracy and
    entropy; all by epoch. `chosen` are the costs of the network that was taken."""
    count = len(constraints)
    figure = Figure(figsize=(10, 2.3 * (count + 2)), layout="constrained")
    axes = figure.subplots(count + 2, 1, sharex=True)
    epochs = [row.epoch + 1 for row in history]
    for index, (constraint, cost, axis) in enumerate(zip(constraints, chosen, axes, strict=False)):
        table, limit = constraint.table, constraint.limit
        scale, unit = _scale(limit, table.unit)
        axis.plot(epochs, [r.expected[index] / scale for r in history], color="#219ebc", label="expected")
        likeliest = [r.likeliest[index] / scale for r in history]
        axis.plot(epochs, likeliest, color="#fb8500", label="most probable network")
        label = f"limit {limit / scale:.3g} {unit}"
        axis.axhline(limit / scale, color="black", linewidth=1, linestyle="--", label=label)
        axis.plot(epochs[-1], cost / scale, "o", color="#d00000", label=f"chosen {cost / scale:.3g} {unit}")
        axis.set_title(table.name, loc="left", fontsize=10)
        axis.set_ylabel(unit)
        axis.set_ylim(bottom=0)
    for index, constraint in enumerate(constraints):
        label = constraint.table.name if count > 1 else "multiplier λ"
        axes[-2].plot(epochs, [r.multipliers[index] for r in history], label=label)
    axes[-2].set_title("price of the excess (multiplier λ)", loc="left", fontsize=10)
    axes[-1].plot(epochs, [r.entropy for r in history], color="#2a9d8f", label="entropy per position, nats")
    axes[-1].plot(epochs, [r.accuracy for r in history], color="#adb5bd", label="accuracy of sampled paths")
    axes[-1].set_ylim(bottom=0)
    axes[-1].set_xlabel("epoch")
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    for axis in axes:
        _mark_phases(axis, history)
        axis.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))
        axis.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def _mark_phases(axis: Axes, history: Sequence[EpochRow]) -> None:
    """Grey where only weights were trained."""
    start = next((row.epoch for row in history if row.phase == "search"), 0)
    if start:
        axis.axvspan(0.5, start + 0.5, color="#f1f3f5", zorder=0)
    axis.set_xlim(0.5, len(history) + 0.5)


def _scale(limit: float, unit: str) -> tuple[float, str]:
    """Counts in millions or thousands."""
    if unit:
        return 1.0, unit
    return (1e6, "M") if limit >= 1e6 else (1e3, "K") if limit >= 1e4 else (1.0, "")


def draw_pareto(points: Sequence[Point], setup: str, path: Path) -> None:
    """Latency, measured where it was, against accuracy; the front as a line, dominated networks grey; what was
    predicted of those that were measured as open circles."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axis = figure.subplots()
    front = [p for p in points if p.on_front]
    others = [p for p in points if not p.on_front]
    for group, style, color, label in (
        (others, "o", "#adb5bd", "dominated"),
        (front, "o-", "#219ebc", "on the front"),
    ):
        if group:
            places = [p.ms for p in group], [100 * p.accuracy for p in group]
            axis.plot(*places, style, color=color, label=label)
    measured = [(p.predicted_ms, p.measured_ms, 100 * p.accuracy) for p in points if p.measured_ms is not None]
    for predicted_ms, measured_ms, height in measured:
        axis.plot([predicted_ms, measured_ms], [height, height], color="#fb8500", linewidth=0.8, zorder=0)
    if measured:
        places = [p for p, _, _ in measured], [height for _, _, height in measured]
        axis.plot(*places, "o", mfc="none", color="#fb8500", markersize=9, label="predicted")
    for point in points:
        axis.annotate(
            f"{point.ms:.3g} ms, {100 * point.accuracy:.1f} %", (point.ms, 100 * point.accuracy),
            (0, -14), textcoords="offset points", ha="center", fontsize=8, color="#495057",
        )  # fmt: skip
    axis.set_xlabel("latency, ms (measured, where it was)")
    axis.set_ylabel("accuracy on the test images, %")
    axis.set_title(setup, loc="left", fontsize=9, color="#6c757d", wrap=True)
    axis.margins(x=0.15, y=0.15)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def draw_judged(judged: Sequence[tuple[str, float, float]], target_ms: float, path: Path) -> None:
    """Predicted against measured: (name, predicted ms, measured ms) of the networks that were timed; the last is the
    one that was taken."""
    figure = Figure(figsize=(5.6, 5.2), layout="constrained")
    axis = figure.subplots()
    values = [value for _, predicted, measured in judged for value in (predicted, measured)] + [target_ms]
    low, high = 0.9 * min(values), 1.1 * max(values)
    axis.plot([low, high], [low, high], color="#adb5bd", linewidth=1, label="equal")
    axis.axhline(target_ms, color="black", linewidth=1, linestyle="--", label=f"target {target_ms:.3g} ms")
    if len(judged) > 1:
        tried = judged[:-1]
        axis.plot([j[1] for j in tried], [j[2] for j in tried], "o", color="#8ecae6", label="also timed")
    name, predicted, measured = judged[-1]
    axis.plot(predicted, measured, "o", color="#d00000", label=f"{name} ({measured:.3g} ms)")
    axis.set(xlim=(low, high), ylim=(low, high), xlabel="predicted, ms", ylabel="measured, ms", aspect="equal")
    axis.legend(frameon=False, fontsize=9, loc="upper left")
    axis.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def draw_finalists(
    points: Sequence[tuple[float, float, bool]], target_ms: float, device: str, loss: str, path: Path
) -> None:
    """(predicted ms, loss, whether it was chosen) of the networks that were looked at."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axis = figure.subplots()
    for is_chosen, color, label in ((False, "#8ecae6", "looked at"), (True, "#d00000", "chosen")):
        of_these = [(ms, height) for ms, height, is_it in points if is_it == is_chosen]
        if of_these:
            axis.plot(*zip(*of_these, strict=True), "o", color=color, label=label)
    axis.axvline(target_ms, color="black", linewidth=1, linestyle="--", label=f"target {target_ms:.3g} ms")
    axis.set_xlabel(f"predicted latency on {device}, ms")
    axis.set_ylabel(f"{loss}, before training")
    axis.margins(x=0.08)
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    _save(figure, path)


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
