"""`netlathe predict` and `netlathe show`: their options, and their reports as tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from netlathe.archspace.ops import Shape
from netlathe.cli.console import Terminal
from netlathe.cli.options import Json, Predictor, Shapes, UnknownOps, What, parse_shapes
from netlathe.words import millions, milliseconds

if TYPE_CHECKING:
    from netlathe.pricing import LayerReport, PredictReport, Refused


def predict(
    what: Annotated[
        list[str],
        typer.Argument(
            help="Names (also timm:..., torchvision:...), architecture .json, run folders, .tflite or .onnx files; any "
            "other folder stands for the model files below it."
        ),
    ],
    predictor: Predictor,
    coverage: Annotated[float, typer.Option(help="Share of measurements that the interval is to hold, 0 to 1.")] = 0.9,
    unknown: UnknownOps = "refuse",
    shape: Shapes = None,
    as_json: Json = False,
) -> None:
    """Predict the latency of networks or blocks in ms, with an interval.

    Of several, one that cannot be read or priced is a line of its own, and
    the exit code is 1.
    """
    from netlathe import pricing
    from netlathe.subjects import with_contents

    terminal = Terminal(as_json=as_json)
    shapes = parse_shapes(shape)
    settings: dict[str, Any] = {"coverage": coverage, "unknown": unknown, "shapes": shapes}
    if len(what) > 1 or with_contents(what) != what:
        show_predicted(pricing.predict_each(what, predictor, **settings), coverage, terminal)
        return
    report = pricing.predict(what[0], predictor, **settings)
    interval = f"{milliseconds(report.low_ms)} to {milliseconds(report.high_ms)}"
    columns = ("what", "predicted ms", f"{100 * coverage:g} % interval")
    terminal.table(columns, [(report.name, milliseconds(report.latency_ms), interval)])
    terminal.say(f"  on {report.setup}", style="dim")
    terminal.warn(report.warnings)
    terminal.result(report.to_json())


def show_predicted(found: Sequence[PredictReport | Refused], coverage: float, terminal: Terminal) -> None:
    """A line per network, and why some have no latency. Raises Exit(1) where there are such."""
    from netlathe.pricing import PredictReport

    predicted = [one for one in found if isinstance(one, PredictReport)]
    refused = [one for one in found if not isinstance(one, PredictReport)]
    if predicted:
        columns = ("what", "predicted ms", f"{100 * coverage:g} % interval")
        intervals = [f"{milliseconds(one.low_ms)} to {milliseconds(one.high_ms)}" for one in predicted]
        rows = [
            (one.name, milliseconds(one.latency_ms), interval)
            for one, interval in zip(predicted, intervals, strict=True)
        ]
        terminal.table(columns, rows)
        terminal.say(f"  on {predicted[0].setup}", style="dim")
    terminal.warn(list(dict.fromkeys(warning for one in predicted for warning in one.warnings)))
    for one in refused:
        terminal.say(f"  {one.name}: {one.error.removeprefix(f'{one.name}: ')}", style="red")
    if refused:
        terminal.say(f"  {len(refused)} of {len(found)} have no latency")
    terminal.result({"predicted": [one.to_json() for one in found]})
    if refused:
        raise typer.Exit(1)


def show(
    what: What,
    predictor: Annotated[
        Path | None, typer.Option(help="Also show latencies, by this predictor: a file, or a shipped name.")
    ] = None,
    unknown: UnknownOps = "refuse",
    shape: Shapes = None,
    as_json: Json = False,
) -> None:
    """Show a network layer by layer: shapes, MACs, parameters, and predicted latency in ms."""
    from netlathe import pricing

    terminal = Terminal(as_json=as_json)
    report = pricing.show(what, predictor, unknown=unknown, shapes=parse_shapes(shape))
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
    if report.opaque_ops:
        told = ", ".join(f"{count} {op}" for op, count in report.opaque_ops.items())
        terminal.say(f"  Ops that netlathe does not know, whose MACs are not counted: {told}")
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
