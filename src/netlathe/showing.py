"""A network as a table: one line per block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from netlathe.archspace.ops import Shape
from netlathe.console import Terminal, millions, milliseconds
from netlathe.pricing import doubts
from netlathe.subjects import Subject

if TYPE_CHECKING:
    from netlathe.predictor import LatencyPredictor


def show_subject(subject: Subject, model: LatencyPredictor | None, terminal: Terminal) -> None:
    """Prints the table; with a predictor also what each block adds to the latency."""
    total_ms = float(model.predict([subject.graph])[0]) if model else None
    layers = layer_rows(subject, model)
    warnings = doubts(model, subject.name, subject.graph, subject.dtype) if model else []
    columns = ["layer", "output", "MACs", "parameters"] + (["predicted ms"] if model else [])
    rows = [[x["name"], shape(x["output_shape"]), millions(x["macs"]), f"{x['parameters']:,}"] for x in layers]
    graph = subject.graph
    if not subject.graph.is_network:
        layers = [{**layer, "predicted_ms": total_ms} for layer in layers]
        rows = []  # the block itself is the total
    rows.append([subject.name, shape(graph.output_shape), millions(graph.macs), f"{graph.parameters:,}"])
    if model:
        for row, layer in zip(rows, layers, strict=False):
            row.append(milliseconds(layer["predicted_ms"]))
        rows[-1].append(milliseconds(total_ms))
    terminal.table(columns, rows, last=True)
    if model and subject.graph.is_network:
        what = "What each layer takes by itself; together they take what the last line says"
        if model.adds_up_:
            offset = f"the total includes {model.network_offset_ms_:.3g} ms for the network as such"
            what = f"What each layer adds to the network; {offset}"
        terminal.say(f"  {what}. On {model.setup_}.", style="dim")
    terminal.warn(warnings)
    terminal.result(
        {
            "name": subject.name,
            "input_shape": list(graph.input_shape),
            "output_shape": list(graph.output_shape),
            "macs": graph.macs,
            "parameters": graph.parameters,
            "bytes_read": graph.bytes_read(),
            "bytes_written": graph.bytes_written(),
            "predicted_ms": total_ms,
            "layers": layers,
            "warnings": warnings,
        }
    )


def layer_rows(subject: Subject, model: LatencyPredictor | None) -> list[dict[str, Any]]:
    """One object per block, in order. What may be unknown of a network may be all of one of its blocks."""
    graphs = [part.graph for part in subject.parts]
    table = model.assuming().tabulate([[g] for g in graphs]).latency_ms[:, 0].tolist() if model else None
    return [
        {
            "name": part.name,
            "input_shape": list(part.graph.input_shape),
            "output_shape": list(part.graph.output_shape),
            "ops": [node.op.kind for node in part.graph.nodes],
            "macs": part.graph.macs,
            "parameters": part.graph.parameters,
            "predicted_ms": ms,
        }
        for part, ms in zip(subject.parts, table or [None] * len(graphs), strict=True)
    ]


def shape(dimensions: Shape | list[int]) -> str:
    """(1, 56, 56, 24) -> '56x56x24'; the batch only where it is not 1."""
    batch, *rest = dimensions
    return (f"{batch}x" if batch != 1 else "") + "x".join(map(str, rest))
