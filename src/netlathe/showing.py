"""Networks shown block by block and kernel by kernel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netlathe.archspace.graph import SCOPE_SEPARATOR
from netlathe.archspace.spaces import block_scope
from netlathe.kernel_costs import Breakdown, breakdown_of, write_breakdown
from netlathe.outputs import Output, check_outputs
from netlathe.pricing import Unknown, doubts, load_predictor, naming_others
from netlathe.subjects import Given, Subject, find_subject

if TYPE_CHECKING:
    from netlathe.predictor import LatencyPredictor
    from netlathe.predictor.own_model import Predicts


@dataclass(frozen=True)
class LayerReport:
    """A network block by block."""

    subject: Subject
    layers: tuple[dict[str, Any], ...]
    """One object per block, in order: name, input_shape, output_shape, ops, macs, parameters, predicted_ms."""
    breakdown: Breakdown
    """The same kernel by kernel, and in stages."""
    predicted_ms: float | None = None
    """Prediction of the whole, where there is a predictor."""
    warnings: tuple[str, ...] = ()
    known_macs_share: float | None = None
    known_ms_share: float | None = None
    """As of PredictReport, where there is a predictor."""

    def to_json(self) -> dict[str, Any]:
        graph = self.subject.graph
        return {
            "name": self.subject.name,
            "input_shape": list(graph.inputs[0]),
            "output_shape": list(graph.output_shape),
            "macs": graph.macs,
            "parameters": graph.parameters,
            "bytes_read": graph.bytes_read(),
            "bytes_written": graph.bytes_written(),
            "predicted_ms": self.predicted_ms,
            "known_macs_share": self.known_macs_share,
            "known_ms_share": self.known_ms_share,
            "layers": list(self.layers),
            "warnings": list(self.warnings),
            "notes": list(self.subject.notes),
            **{name: value for name, value in self.breakdown.to_json().items() if name not in ("name", "predicted_ms")},
        }


def show(
    what: Given,
    predictor: str | Path | LatencyPredictor | Predicts | None = None,
    *,
    unknown: Unknown = "refuse",
    shapes: Mapping[str, Sequence[int]] | None = None,
    csv: str | Path | None = None,
) -> LayerReport:
    """A network block by block and kernel by kernel: shapes, MACs, parameters, bytes moved, and with a predictor what
    each adds to the latency, in ms, and what bounds it (see breakdown).

    `csv` is a table of all of it to write. Arguments and errors are those of predict.
    """
    if csv is not None:
        inputs = [one for one in (what, predictor) if isinstance(one, str | Path)]
        check_outputs([Output("--csv", Path(csv), "breakdown")], inputs)
    model = None if predictor is None else load_predictor(predictor, unknown=unknown)
    subject = find_subject(what, batch=model.setup_.batch if model else None, shapes=shapes)
    with naming_others(predictor or "", [subject.graph]):
        found = breakdown_of(subject, model)
        layers = _layer_rows(subject, found)
        known = model.known_shares([subject.graph])[0] if model else (None, None)
        warnings = doubts(model, subject.name, subject.graph, subject.dtype) if model else []
    if not subject.graph.is_network:  # the block itself is the total
        layers = [{**layer, "predicted_ms": found.predicted_ms} for layer in layers]
    if csv is not None:
        write_breakdown(found, Path(csv))
    return LayerReport(subject, tuple(layers), found, found.predicted_ms, tuple(warnings), *known)


def _layer_rows(subject: Subject, found: Breakdown) -> list[dict[str, Any]]:
    """Rows of the table; a layer's latency is that of the kernels that begin in it."""
    names = {node.name for node in subject.graph.nodes}
    layer_of = {
        node.name if node.name in names else f"{block_scope(index)}{SCOPE_SEPARATOR}{node.name}": index
        for index, part in enumerate(subject.parts)
        for node in part.graph.nodes
    }
    has_ms = found.predicted_ms is not None
    latencies_ms = [0.0 if has_ms else None for _ in subject.parts]
    for kernel in found.kernels if has_ms else ():
        layer = layer_of[kernel.name]
        latencies_ms[layer] = (latencies_ms[layer] or 0.0) + (kernel.latency_ms or 0.0)
    return [
        {
            "name": part.name,
            "input_shape": list(part.graph.inputs[0]),
            "output_shape": list(part.graph.output_shape),
            "ops": [node.op.kind for node in part.graph.nodes],
            "macs": part.graph.macs,
            "parameters": part.graph.parameters,
            "predicted_ms": ms,
        }
        for part, ms in zip(subject.parts, latencies_ms, strict=True)
    ]
