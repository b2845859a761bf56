"""`netlathe predict` and `netlathe show`: their options, and their reports as tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from netlathe.archspace.ops import Shape
from netlathe.cli.console import Terminal
from netlathe.cli.options import AssumeUnknown, Json, Predictor, Shapes, What, parse_shapes
from netlathe.words import millions, milliseconds

if TYPE_CHECKING:
    from netlathe.pricing import LayerReport


def predict(
    what: What,
    predictor: Predictor,
    coverage: Annotated[float, typer.Option(help="Share of measurements that the interval is to hold, 0 to 1.")] = 0.9,
    assume_unknown: AssumeUnknown = False,
    shape: Shapes = None,
    as_json: Json = False,
) -> None:
    """Predict the latency of a network or block in ms, with an interval."""
    from netlathe import pricing

    terminal = Terminal(as_json=as_json)
    shapes = parse_shapes(shape)
    report = pricing.predict(what, predictor, coverage=coverage, assume_unknown=assume_unknown, shapes=shapes)
    interval = f"{milliseconds(report.low_ms)} to {milliseconds(report.high_ms)}"
    columns = ("what", "predicted ms", f"{100 * coverage:g} % interval")
    terminal.table(columns, [(report.name, milliseconds(report.latency_ms), interval)])
    terminal.say(f"  on {report.setup}", style="dim")
    terminal.warn(report.warnings)
    terminal.result(report.to_json())


def show(
    what: What,
    predictor: Annotated[
        Path | None, typer.Option(help="Also show latencies, by this predictor: a file, or a shipped name.")
    ] = None,
    assume_unknown: AssumeUnknown = False,
    shape: Shapes = None,
    as_json: Json = False,
) -> None:
    """Show a network layer by layer: shapes, MACs, parameters, and predicted latency in ms."""
    from netlathe import pricing

    terminal = Terminal(as_json=as_json)
    report = pricing.show(what, predictor, assume_unknown=assume_unknown, shapes=parse_shapes(shape))
    show_layers(report, terminal)
    terminal.result(report.to_json())


def show_layers(report: LayerReport, terminal: Terminal) -> None:
    """A line per block, and one for the whole."""
    graph, model = report.subject.graph, report.model
    columns = ["layer", "output", "MACs", "parameters"] + (["predicted ms"] if model else [])
    layers = report.layers if graph.is_network else ()
    rows = [[x["name"], shape(x["output_shape"]), millions(x["macs"]), f"{x['parameters']:,}"] for x in layers]
    rows.append([report.subject.name, shape(graph.output_shape), millions(graph.macs), f"{graph.parameters:,}"])
    if model:
        for row, ms in zip(rows, [*(x["predicted_ms"] for x in layers), report.predicted_ms], strict=True):
            row.append(milliseconds(ms))
    terminal.table(columns, rows, last=True)
    if model and graph.is_network:
        what = "What each layer takes by itself; together they take what the last line says"
        if model.adds_up_:
            offset = f"the total includes {model.network_offset_ms_:.3g} ms for the network as such"
            what = f"What each layer adds to the network; {offset}"
        terminal.say(f"  {what}. On {model.setup_}.", style="dim")
    terminal.warn(report.warnings)


def shape(dimensions: Shape | list[int]) -> str:
    """(1, 56, 56, 24) -> '56x56x24'; the batch only where it is not 1."""
    batch, *rest = dimensions
    return (f"{batch}x" if batch != 1 else "") + "x".join(map(str, rest))
