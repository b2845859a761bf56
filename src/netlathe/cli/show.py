"""`netlathe show`: its options, and its report as tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from netlathe.archspace.errors import FormatError
from netlathe.cli.console import Terminal
from netlathe.cli.options import Json, Shapes, UnknownOps, What, parse_shapes
from netlathe.words import millions, milliseconds, percent

if TYPE_CHECKING:
    from netlathe.archspace.ops import Shape
    from netlathe.kernel_costs import Breakdown, Cost
    from netlathe.showing import LayerReport

_COSTS = ("ms", "of all", "MACs", "MB", "MACs/B", "bound by")


def show(
    what: What,
    predictor: Annotated[
        Path | None, typer.Option(help="Also show latencies, by this predictor: a file, or a shipped name.")
    ] = None,
    kernels: Annotated[
        str, typer.Option(help="So many kernels to show, those that cost most; or all, in the order in which they run.")
    ] = "10",
    csv: Annotated[Path | None, typer.Option(help="Write all stages and kernels to this .csv file, too.")] = None,
    unknown: UnknownOps = "refuse",
    shape: Shapes = None,
    as_json: Json = False,
) -> None:
    """Show where the time of a network goes: its blocks and kernels, their MACs, bytes moved, and predicted ms.

    A network of more than 30 blocks is shown by its resolutions. What bounds a kernel is told where one limit of the
    device, as the predictor was fitted, alone takes half of its time or more: the peak rate of computing, the
    bandwidth, or launching it.
    """
    from netlathe import showing

    terminal = Terminal(as_json=as_json)
    most = _parse_count(kernels)
    report = showing.show(what, predictor, unknown=unknown, shapes=parse_shapes(shape), csv=csv)
    show_stages(report, terminal)
    show_kernels(report.breakdown, most, terminal)
    _tell_limits(report.breakdown, terminal)
    for advice in report.breakdown.advice:
        terminal.say(f"  Advice: {advice.text}", style="green")
    for note in report.subject.notes:
        terminal.say(f"  Note: {note}", style="dim")
    terminal.warn(report.warnings)
    terminal.result(report.to_json())


def _parse_count(text: str) -> int | None:
    """A number of kernels; None for all. Raises FormatError."""
    if text == "all":
        return None
    if not (text.isdecimal() and len(text) < 6):
        raise FormatError(f"--kernels {text!r:.40}: expected a number such as 10, or all")
    return int(text)


def show_stages(report: LayerReport, terminal: Terminal) -> None:
    """A line per stage, what remains beside them, and the whole. Where there is little room, blocks go by their
    scopes."""
    found, graph = report.breakdown, report.subject.graph
    has_ms = found.predicted_ms is not None
    stages = found.stages if graph.is_network else ()
    rows = [(one.name, shape(one.output_shape), *_stage_cells(one, has_ms)) for one in stages]
    if has_ms and found.rest_ms and abs(found.rest_ms) >= 5e-4 * (found.predicted_ms or 0):
        rows.append(("the call", "", milliseconds(found.rest_ms), _share(found.rest_ms, found), "", "", "", ""))
    rows.append((report.subject.name, shape(graph.output_shape), *_stage_cells(found.total, has_ms)))
    named = [(stage.block or stage.name, *row[1:]) for stage, row in zip(stages, rows, strict=False)]
    columns = ("stage", "output", *(_columns(has_ms) if has_ms else ("parameters", *_columns(has_ms))))
    named += rows[len(stages) :]
    terminal.table(columns, named if terminal.fits(columns, named) else rows, text=2, last=True)


def show_kernels(found: Breakdown, most: int | None, terminal: Terminal) -> None:
    """A line per kernel: of the most expensive ones, or all in their order. Where there is little room, their names
    are enough."""
    has_ms = found.predicted_ms is not None
    kernels = list(found.kernels)
    if most is not None:
        key = (lambda one: -(one.latency_ms or 0.0)) if has_ms else (lambda one: -one.macs)
        kernels = sorted(kernels, key=key)[:most]
    if not kernels:
        return
    terminal.say("")
    which = "kernel" if most is None or len(kernels) == len(found.kernels) else f"{len(kernels)} largest kernels"
    rows = [(one.name, one.kernel, *_cells(one, has_ms)) for one in kernels]
    columns = (which, "ops", *_columns(has_ms))
    if terminal.fits(columns, rows):
        terminal.table(columns, rows, text=2)
    else:
        terminal.table((which, *columns[2:]), [(row[0], *row[2:]) for row in rows])


def _columns(has_ms: bool) -> Sequence[str]:
    return _COSTS if has_ms else _COSTS[2:5]


def _cells(cost: Cost, has_ms: bool) -> tuple[str, ...]:
    work = (millions(cost.macs), f"{cost.bytes / 1e6:.2f}", f"{cost.intensity:.1f}")
    return (milliseconds(cost.latency_ms), percent(cost.share), *work, cost.bound or "-") if has_ms else work


def _stage_cells(cost: Cost, has_ms: bool) -> tuple[str, ...]:
    """Cells of a stage: where there is no latency, there is room for its parameters."""
    return _cells(cost, has_ms) if has_ms else (f"{cost.parameters:,}", *_cells(cost, has_ms))


def _share(ms: float, found: Breakdown) -> str:
    return percent(ms / found.predicted_ms) if found.predicted_ms else "-"


def _tell_limits(found: Breakdown, terminal: Terminal) -> None:
    """The limits that bounds are told by, and the ops of which no more than bytes are known."""
    limits, words = found.limits, []
    if limits and limits.macs_per_s:
        words.append(f"{limits.macs_per_s / 1e9:.3g} GMAC/s")
    if limits and limits.bytes_per_s:
        far = f" ({limits.far_bytes_per_s / 1e9:.3g} beyond 1 MiB)" if limits.far_bytes_per_s else ""
        words.append(f"{limits.bytes_per_s / 1e9:.3g} GB/s{far}")
    if limits and limits.launch_ms:
        words.append(f"{milliseconds(1e3 * limits.launch_ms)} us a launch")
    if found.unit in ("block", "network"):
        terminal.say(f"  The predictor prices {found.unit}s; kernels share their time by their work.", style="dim")
    if words:
        terminal.say(f"  Limits as fitted: {', '.join(words)}.", style="dim")
    if found.setup:
        terminal.say(f"  On {found.setup}.", style="dim")
    for op in found.opaque:
        terminal.say(f"  No op of netlathe's: {op.name}, {op.count} times, {op.bytes / 1e6:.2f} MB moved")


def shape(dimensions: Shape | list[int]) -> str:
    """(1, 56, 56, 24) -> '56x56x24'; the batch only where it is not 1."""
    batch, *rest = dimensions
    return (f"{batch}x" if batch != 1 else "") + "x".join(map(str, rest))
