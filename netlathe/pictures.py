"""Pictures of a run: the architecture layer by layer, and how the search came to it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from archspace.blocks import Block, ConvBlock, LinearHead, MBConv, Skip
from archspace.spaces import Architecture

if TYPE_CHECKING:
    from search.loop import EpochRow

_COLORS = {3: "#8ecae6", 5: "#219ebc", 7: "#fb8500"}
_OTHER = "#adb5bd"
_FIXED = "#6c757d"


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
    figure.savefig(path, dpi=130)


def _color(block: Block) -> str:
    if isinstance(block, MBConv):
        return _COLORS.get(block.kernel, _OTHER)
    return _OTHER if isinstance(block, Skip) else _FIXED


def _label(block: Block) -> str:
    match block:
        case MBConv():
            return f"k{block.kernel}\ne{block.expand:g}"
        case Skip():
            return "skip"
        case ConvBlock():
            return f"conv\n{block.kernel}×{block.kernel}"
        case LinearHead():
            return "linear"
        case _:
            return block.name.partition("_")[0]


def draw_search(history: Sequence[EpochRow], target_ms: float, predicted_ms: float, path: Path) -> None:
    """Latency against the target above; multiplier, accuracy and entropy below; by epoch."""
    figure = Figure(figsize=(9.5, 5.4), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    epochs = [row.epoch + 1 for row in history]
    upper.plot(epochs, [r.expected_ms for r in history], color="#219ebc", label="expected")
    upper.plot(epochs, [r.likeliest_ms for r in history], color="#fb8500", label="most probable network")
    upper.axhline(target_ms, color="black", linewidth=1, linestyle="--", label=f"target {target_ms:.3g} ms")
    upper.plot(epochs[-1], predicted_ms, "o", color="#d00000", label=f"chosen {predicted_ms:.3g} ms")
    upper.set_ylabel("predicted latency, ms")
    upper.set_ylim(bottom=0)
    lower.plot(epochs, [r.multiplier for r in history], color="#6a4c93", label="multiplier λ")
    lower.plot(epochs, [r.entropy for r in history], color="#2a9d8f", label="entropy per position, nats")
    lower.plot(epochs, [r.accuracy for r in history], color="#adb5bd", label="accuracy of sampled paths")
    lower.set_xlabel("epoch")
    for axis in (upper, lower):
        axis.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
