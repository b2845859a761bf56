"""Where the time of a network goes: its kernels and stages, what they move and compute, and what bounds them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from netlathe.advice import Advice, advise
from netlathe.archspace.graph import Graph
from netlathe.archspace.kernel_space import kernel_name
from netlathe.archspace.kernels import LAYOUT_CHANGE, kernel_bytes, named_kernels
from netlathe.archspace.ops import Constant, Opaque, Pad, Shape
from netlathe.archspace.spaces import block_scope
from netlathe.pricing import Unknown, load_predictor, naming_others
from netlathe.runs.files import write_csv
from netlathe.subjects import Given, Subject, find_subject

if TYPE_CHECKING:
    from netlathe.predictor import LatencyPredictor
    from netlathe.predictor.blocks.roofline import Roofline
    from netlathe.predictor.networks.segments import Unit
    from netlathe.predictor.own_model import Predicts

Bound = Literal["compute", "memory", "launch"]
_BOUNDS: tuple[Bound, ...] = ("compute", "memory", "launch")

NEAR = 0.5
"""Part of a kernel's time that a limit alone must take, for the kernel to be bound by it."""
_BEYOND = 1.25
"""The same, from which on the fitted limit and the predicted time contradict each other, and nothing is said."""
MOST_SCOPES = 30
"""Most blocks that stages may be; a network of more is told by its resolutions."""
_ITEMSIZES = {"int8": 1, "float16": 2}
"""Bytes of a value that a graph has as float32, by the dtype that the network runs in."""


@dataclass(frozen=True)
class Cost:
    """Work and time of a part of a network."""

    macs: int
    parameters: int
    bytes: int
    """Bytes moved: each kernel's inputs, weights and results, once."""
    latency_ms: float | None
    """Predicted latency that the part adds; None without a predictor."""
    share: float | None
    """Part of the network's latency."""
    bound: Bound | None
    """Limit that takes most of the time: the peak rate of computing, the bandwidth, or the launch of kernels; None
    where none comes near, or the predictor cannot tell."""

    @property
    def intensity(self) -> float:
        """Arithmetic intensity, in MACs per byte moved."""
        return self.macs / self.bytes if self.bytes else 0.0


@dataclass(frozen=True)
class KernelCost(Cost):
    """A kernel: what the runtime launches as one op."""

    name: str
    """Name of the node in the network that does its work, such as 'b03/expand'."""
    kernel: str
    """Ops and shapes, such as 'conv k3x3 s2x2+activation relu 56x56x24 -> 28x28x144'."""
    stage: str
    output_shape: Shape
    limits: Mapping[Bound, float]
    """Part of its latency that each limit alone would take, where the predictor tells it."""


@dataclass(frozen=True)
class StageCost(Cost):
    """Kernels of one block, or of one resolution."""

    name: str
    """Scope of the block, such as 'b03', or the resolution, such as '56x56'."""
    block: str
    """Name of the block where it has one, such as 'mbconv_k3_e6_s1_c24-24_56x56_relu6'."""
    kernels: int
    """Number of its kernels."""
    output_shape: Shape


@dataclass(frozen=True)
class OpaqueOp:
    """Foreign ops of one name, of which no more than shapes are known."""

    name: str
    count: int
    bytes: int
    """Bytes that they read and write together."""


@dataclass(frozen=True)
class Limits:
    """The fastest that a setup does anything, as its predictor was fitted; None for what its measurements do not
    tell."""

    macs_per_s: float | None
    """Peak rate of computing."""
    bytes_per_s: float | None
    """Bandwidth to what fits into the second-level cache."""
    far_bytes_per_s: float | None
    """Bandwidth to what does not, where it is another one."""
    launch_ms: float | None
    """Time to launch a kernel."""


@dataclass(frozen=True)
class Breakdown:
    """A network kernel by kernel. The latencies of the kernels and `rest_ms` add up to `predicted_ms`."""

    name: str
    kernels: tuple[KernelCost, ...]
    """In the order in which they start."""
    stages: tuple[StageCost, ...]
    """In the order in which they begin."""
    opaque: tuple[OpaqueOp, ...]
    predicted_ms: float | None = None
    rest_ms: float | None = None
    """Latency beside the kernels: of the call itself; below zero where kernels take less together than alone."""
    setup: str = ""
    unit: Unit | None = None
    """Unit that the predictor prices by itself; kernels share what a larger one takes, by their work."""
    limits: Limits | None = None
    """Limits of the setup as fitted; None where the predictor tells none of this very setup."""
    advice: tuple[Advice, ...] = ()
    """Changes that are predicted to be worth more than the work that they save."""

    @property
    def total(self) -> Cost:
        """Work and time of the whole network."""
        macs, parameters, moved = _work(self.kernels)
        share = 1.0 if self.predicted_ms else None
        return Cost(macs, parameters, moved, self.predicted_ms, share, _main_bound(self.kernels, self.predicted_ms))

    @cached_property
    def bound_ms(self) -> Mapping[Bound, float]:
        """Latency of the kernels that each limit bounds, in ms."""
        return _bound_ms(self.kernels)

    def to_json(self) -> dict[str, Any]:
        kernels = [{**asdict(one), "intensity": one.intensity} for one in self.kernels]
        stages = [{**asdict(one), "intensity": one.intensity} for one in self.stages]
        return {
            "name": self.name, "predicted_ms": self.predicted_ms, "rest_ms": self.rest_ms, "setup": self.setup,
            "unit": self.unit, "limits": asdict(self.limits) if self.limits else None,
            "bound_ms": dict(self.bound_ms), "stages": stages, "kernels": kernels,
            "opaque": [asdict(one) for one in self.opaque], "advice": [asdict(one) for one in self.advice],
        }  # fmt: skip


def breakdown(
    what: Given,
    predictor: str | Path | LatencyPredictor | Predicts | None = None,
    *,
    unknown: Unknown = "refuse",
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> Breakdown:
    """A network kernel by kernel and stage by stage: MACs, bytes moved and MACs per byte, and with a predictor the
    latency of each in ms, its share, and whether computing, memory or its launch takes most of that.

    Kernels are what the runtime launches as one op. What bounds them is told by the roofline (Williams et al., 2009) as
    the predictor was fitted: the fastest that its setup computes, moves and launches anything. Where the predictor
    prices a small change out of proportion lower (channels just above a multiple of 8, 16 or 32, a depthwise kernel
    size that the runtime has no fast kernel of, int8), it is in `advice`. Arguments and errors are those of predict.
    """
    model = None if predictor is None else load_predictor(predictor, unknown=unknown)
    subject = find_subject(what, batch=model.setup_.batch if model else None, shapes=shapes)
    with naming_others(predictor or "", [subject.graph]):
        return breakdown_of(subject, model)


def breakdown_of(subject: Subject, model: LatencyPredictor | None, *, advises: bool = True) -> Breakdown:
    """The same of a network that is read already; without `advises`, no alternatives are priced. Raises
    UnknownOpError."""
    graph = subject.graph
    itemsize = _ITEMSIZES.get(model.setup_.dtype if model else subject.dtype or "", 4)
    if model is None:
        found = named_kernels(graph)
        names, graphs = [one for one, _ in found], [kernel for _, kernel in found]
        kernels = _kernel_rows(subject, names, graphs, itemsize, [None] * len(names), None, [{}] * len(names))
        return Breakdown(subject.name, kernels, _stages(subject, kernels, None), _opaque(graph, itemsize))
    priced, work = model.kernels(graph), model.model_.work
    limits = [
        {name: float(part) for name, part in zip(_BOUNDS, row, strict=True) if math.isfinite(part)}
        for row in priced.limits.tolist()
    ]
    kernels = _kernel_rows(
        subject, priced.names, priced.graphs, itemsize, priced.latency_ms.tolist(), priced.total_ms, limits
    )
    return Breakdown(
        subject.name, kernels, _stages(subject, kernels, priced.total_ms), _opaque(graph, itemsize), priced.total_ms,
        priced.rest_ms, str(model.setup_), work.unit, _told(work.roofline, itemsize),
        advise(graph, model, priced, _bound_ms(kernels)["launch"]) if advises else (),
    )  # fmt: skip


def _kernel_rows(
    subject: Subject,
    names: Sequence[tuple[str, ...]],
    graphs: Sequence[Graph],
    itemsize: int,
    latencies_ms: Sequence[float | None],
    total_ms: float | None,
    limits: Sequence[Mapping[Bound, float]],
) -> tuple[KernelCost, ...]:
    main = [_main(nodes, kernel) for nodes, kernel in zip(names, graphs, strict=True)]
    stages = _stage_names(subject, main, graphs)
    return tuple(
        KernelCost(
            graph.macs, graph.parameters, kernel_bytes(graph, itemsize), ms, _share(ms, total_ms), _bound(near),
            name, _kernel_name(graph), stage, graph.output_shape, near,
        )
        for name, graph, stage, ms, near in zip(main, graphs, stages, latencies_ms, limits, strict=True)
    )  # fmt: skip


def _kernel_name(kernel: Graph) -> str:
    if kernel.nodes[0].name == LAYOUT_CHANGE:
        return f"change of layout {_words(kernel.output_shape[1:])}"
    return kernel_name(kernel)


def _main(names: Sequence[str], kernel: Graph) -> str:
    """Name of the first node that does more than bring stored values or pad."""
    pairs = zip(names, kernel.nodes, strict=True)
    return next((name for name, node in pairs if not isinstance(node.op, Constant | Pad)), names[0])


def _share(ms: float | None, total_ms: float | None) -> float | None:
    return ms / total_ms if ms is not None and total_ms else None


def _bound(limits: Mapping[Bound, float]) -> Bound | None:
    """The limit that a kernel comes nearest to, if near at all."""
    largest = max(limits, key=lambda name: limits[name], default=None)
    return largest if largest and NEAR <= limits[largest] <= _BEYOND else None


def _stage_names(subject: Subject, names: Sequence[str], graphs: Sequence[Graph]) -> list[str]:
    """Stage of each kernel: its block, or in networks of many its resolution."""
    graph = subject.graph
    if not graph.is_network:
        return [subject.name] * len(names)
    scopes = {node.name: node.scope for node in graph.nodes}
    if len(set(scopes.values())) > MOST_SCOPES:
        return _resolutions(graphs)
    return [scopes[name] for name in names]


def _block_names(subject: Subject) -> dict[str, str]:
    """Names of a network's blocks by their scopes; the parts of a foreign one have no other names than these."""
    names = {block_scope(index): part.name for index, part in enumerate(subject.parts)}
    return names if names.keys().isdisjoint(names.values()) else {}


def _resolutions(graphs: Sequence[Graph]) -> list[str]:
    """Resolution that each kernel computes at: that of the last layer with weights whose result is an image, or several
    tokens; behind the last of these the head."""
    sizes = [graph.output_shape[1:-1] if graph.parameters else () for graph in graphs]
    images = [index for index, size in enumerate(sizes) if math.prod(size) > 1]
    names, current = [], _words(sizes[images[0]]) if images else ""
    for index, size in enumerate(sizes):
        if math.prod(size) > 1:
            current = _words(size)
        is_head = not images or (index > images[-1] and math.prod(graphs[index].output_shape[1:-1]) == 1)
        names.append("head" if is_head else current)
    return names


def _words(size: Shape) -> str:
    return "x".join(map(str, size))


def _stages(subject: Subject, kernels: Sequence[KernelCost], total_ms: float | None) -> tuple[StageCost, ...]:
    members: dict[str, list[KernelCost]] = {}
    for kernel in kernels:
        members.setdefault(kernel.stage, []).append(kernel)
    blocks = _block_names(subject)
    return tuple(_stage(name, blocks.get(name, ""), found, total_ms) for name, found in members.items())


def _stage(name: str, block: str, kernels: Sequence[KernelCost], total_ms: float | None) -> StageCost:
    macs, parameters, moved = _work(kernels)
    ms = None if total_ms is None else sum(one.latency_ms or 0.0 for one in kernels)
    share, bound = _share(ms, total_ms), _main_bound(kernels, ms)
    return StageCost(
        macs, parameters, moved, ms, share, bound, name, block, len(kernels), kernels[-1].output_shape
    )  # fmt: skip


def _work(kernels: Sequence[KernelCost]) -> tuple[int, int, int]:
    """MACs, parameters and bytes."""
    return sum(one.macs for one in kernels), sum(one.parameters for one in kernels), sum(one.bytes for one in kernels)


def _bound_ms(kernels: Sequence[KernelCost]) -> dict[Bound, float]:
    """Latency of the kernels that each limit bounds, in ms."""
    return {bound: sum(one.latency_ms or 0.0 for one in kernels if one.bound == bound) for bound in _BOUNDS}


def _main_bound(kernels: Sequence[KernelCost], total_ms: float | None) -> Bound | None:
    """The limit that bounds kernels of half of the time or more."""
    found = _bound_ms(kernels)
    largest = max(_BOUNDS, key=lambda bound: found[bound])
    return largest if total_ms and found[largest] >= NEAR * total_ms else None


def _opaque(graph: Graph, itemsize: int) -> tuple[OpaqueOp, ...]:
    """Foreign ops by name, those that move most first."""
    found: dict[str, list[int]] = {}
    for node, cost in zip(graph.nodes, graph.costs(itemsize), strict=True):
        if isinstance(node.op, Opaque):
            found.setdefault(node.op.name, []).append(cost.bytes_read + cost.bytes_written)
    ops = [OpaqueOp(name, len(sizes), sum(sizes)) for name, sizes in found.items()]
    return tuple(sorted(ops, key=lambda one: -one.bytes))


def _told(roofline: Roofline | None, itemsize: int) -> Limits | None:
    """Limits in seconds and bytes of the setup's dtype."""
    if roofline is None:
        return None
    peak, near, far = (
        None if rate is None else 1e3 * rate
        for rate in (roofline.macs_per_ms, roofline.bytes_per_ms, roofline.far_bytes_per_ms)
    )
    scale = itemsize / 4
    return Limits(peak, near and scale * near, far and scale * far, roofline.launch_ms)


_COLUMNS = (
    "level", "name", "kernel", "stage", "output_shape", "macs", "parameters", "bytes", "intensity", "latency_ms",
    "share", "bound", "compute", "memory", "launch",
)  # fmt: skip


def write_breakdown(report: Breakdown, path: Path) -> None:
    """A row for each stage, each kernel, the rest and the network, whole or not at all. Raises OSError."""
    rows: list[Sequence[object]] = []
    for stage in report.stages:
        rows.append(
            (
                "stage",
                stage.name,
                stage.block or f"{stage.kernels} kernels",
                stage.name,
                *_cells(stage, stage.output_shape),
            )
        )
    for one in report.kernels:
        limits = [one.limits.get(bound, "") for bound in _BOUNDS]
        rows.append(("kernel", one.name, one.kernel, one.stage, *_cells(one, one.output_shape), *limits))
    if report.predicted_ms is not None:
        rows.append(("rest", "", "", "", "", 0, 0, 0, "", report.rest_ms, _share(report.rest_ms, report.predicted_ms)))
    rows.append(("network", report.name, f"{len(report.kernels)} kernels", "", *_cells(report.total, None)))
    write_csv(path, _COLUMNS, [(*row, *[""] * (len(_COLUMNS) - len(row))) for row in rows])


def _cells(cost: Cost, output_shape: Shape | None) -> tuple[object, ...]:
    shape = _words(output_shape) if output_shape else ""
    told = (cost.macs, cost.parameters, cost.bytes, cost.intensity, cost.latency_ms, cost.share, cost.bound)
    return shape, *("" if value is None else value for value in told)
