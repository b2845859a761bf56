"""The runtime's own times of single kernels (`netlathe profile --op-profile`) as records of kernels.

The table prints whole microseconds, but the share of each op to five digits: a kernel's time is its share of what the
whole graph takes when it is timed fairly.

A row of such a table tells a tensor's name, which is the node's, or, where a delegate ran the op, only its type; those
are told apart by their order. What cannot be matched beyond doubt is reported and left out.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from netlathe.archspace.graph import Graph
from netlathe.archspace.kernels import Fusion, fusion_of, gated_layers, kernel_label, kernel_starts, kernels_of
from netlathe.archspace.ops import Activation, ActivationKind, Conv2d, Op, Pool2d, Shape, Zeros
from netlathe.archspace.profile_file import ProfileFile
from netlathe.archspace.records import LatencyRecord, Measurement, Round, Setup, Status

_BUILTIN = {
    "CONV_2D": "conv", "DEPTHWISE_CONV_2D": "depthwise", "FULLY_CONNECTED": "fully_connected", "MEAN": "mean",
    "AVERAGE_POOL_2D": "avg_pool", "MAX_POOL_2D": "max_pool", "ADD": "add", "MUL": "mul", "HARD_SWISH": "hard_swish",
    "LOGISTIC": "sigmoid", "RELU": "clamp", "RELU6": "clamp", "CONCATENATION": "concat", "SOFTMAX": "softmax",
    "PAD": "pad", "RESHAPE": "reshape",
}  # fmt: skip
"""Op types of TFLite by name -> ours."""
_DELEGATED = (
    ("dwconv", "depthwise"), ("convolution", "conv"), ("fully connected", "fully_connected"), ("mean", "mean"),
    ("reduce", "mean"), ("global average pooling", "mean"), ("average pooling", "avg_pool"),
    ("max pooling", "max_pool"), ("binary elementwise", "add mul"), ("unary elementwise", "hard_swish sigmoid clamp"),
    ("add ", "add"), ("multiply", "mul"), ("hardswish", "hard_swish"), ("sigmoid", "sigmoid"), ("clamp", "clamp"),
    ("concat", "concat"), ("softmax", "softmax"), ("pad ", "pad"), ("reshape", "reshape"),
)  # fmt: skip
"""Parts of XNNPACK's op types -> ours, or the several that it may be; the first that fits counts."""
_DELEGATE = re.compile(r"tflite\w*delegate", re.IGNORECASE)
_ALONE = {
    ActivationKind.RELU: "clamp",
    ActivationKind.RELU6: "clamp",
    ActivationKind.SIGMOID: "sigmoid",
    ActivationKind.HARD_SWISH: "hard_swish",
}


class KernelTimes(NamedTuple):
    """Latency records of kernels, equal kernels as one with a round for each of their times."""

    records: list[LatencyRecord]
    unmatched: list[str]
    """Rows and kernels that the tables hold beside them, in words."""
    of_networks: bool = False
    """Whether the times are parts of whole networks' latencies, so that no network can be held out from them."""


@dataclass(frozen=True)
class _Step:
    """An op of a graph's file that the runtime runs: the tensor that it writes, its type, and the kernel that it is (a
    part of)."""

    tensor: str
    kind: str
    kernel: int


def kernel_records(file: ProfileFile, setup: Setup) -> KernelTimes:
    """Records of the kernels that a profile file has times of, for LatencyPredictor.fit, beside records of whole
    networks: those of its blocks. Only where blocks tell none, those of its networks, which are shares of the networks'
    latencies."""
    records = {record.graph.key: record for record in file.records(setup) if record.status is Status.OK}
    of_blocks: dict[str, list[dict[str, Any]]] = defaultdict(list)
    of_networks: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in file.op_times(setup):
        key = row["graph"]
        is_network = key in records and records[key].kind == "network"
        (of_networks if is_network else of_blocks)[key].append(row)
    blocks = _kernel_times(of_blocks, records, setup)
    if blocks.records or not of_networks:
        return blocks
    networks = _kernel_times(of_networks, records, setup)
    return KernelTimes(networks.records, blocks.unmatched + networks.unmatched, of_networks=bool(networks.records))


def _kernel_times(
    tables: Mapping[str, list[dict[str, Any]]], records: Mapping[str, LatencyRecord], setup: Setup
) -> KernelTimes:
    """Kernels' times from the op tables of some graphs, by the graphs' keys."""
    fusion = fusion_of(setup)
    times: dict[str, list[float]] = defaultdict(list)
    kernels: dict[str, Graph] = {}
    unmatched: list[str] = []
    for key, rows in tables.items():
        name = str(rows[0]["graph_name"])
        if key not in records:
            unmatched.append(f"{name}: has no finished record")
            continue
        matched, rest = match_rows(records[key].graph, rows, records[key].latency_ms, fusion)
        unmatched += [f"{name}: {text}" for text in rest]
        for kernel, latency_ms in matched:
            kernels[kernel.key] = kernel
            times[kernel.key].append(latency_ms)
    return KernelTimes([_record(kernels[key], setup, values) for key, values in times.items()], unmatched)


def match_rows(
    graph: Graph, rows: Sequence[Mapping[str, Any]], latency_ms: float, fusion: Fusion = "cpu"
) -> tuple[list[tuple[Graph, float]], list[str]]:
    """Latencies in ms of the kernels of a graph that takes `latency_ms`, as far as the rows, in the order in which they
    ran, give their shares; and, in words, the rows and kernels without a partner."""
    kernels = kernels_of(graph, fusion)
    if len(rows) == 1 and len(kernels) == 1 and _DELEGATE.search(str(rows[0]["node_type"])):
        found, unmatched = {0: [1.0]}, list[str]()
    else:
        found, unmatched = _match_steps(_steps(graph, fusion), rows)
    matched = []
    for index, kernel in enumerate(kernels):
        share = sum(found.get(index, []))
        if share > 0:
            matched.append((kernel, share * latency_ms))
        elif not isinstance(kernel.nodes[0].op, Zeros):  # a constant of the model, which runs nothing
            unmatched.append(f"no time of {kernel_label(kernel)}")
    return matched, unmatched


def _record(kernel: Graph, setup: Setup, times_ms: Sequence[float]) -> LatencyRecord:
    rounds = tuple(Round((value,), started_at=float(index)) for index, value in enumerate(times_ms))
    return LatencyRecord(kernel_label(kernel), "block", kernel, setup, Status.OK, Measurement(rounds))


def _match_steps(steps: Sequence[_Step], rows: Sequence[Mapping[str, Any]]) -> tuple[dict[int, list[float]], list[str]]:
    """Shares of the steps of each kernel all of whose steps have one, and in words the rows without a step."""
    by_tensor = {step.tensor: step for step in steps}
    shares: dict[_Step, float] = {}
    delegated: list[tuple[str, Mapping[str, Any]]] = []
    unmatched = []
    for row in rows:
        kind, step = _kind_of(row), by_tensor.get(_tensor_of(row))
        if row["times_called"] != 1 or kind is None:
            unmatched.append(f"{row['node_type']} {row['name']} (called {row['times_called']} times) is no single op")
        elif step is not None and step.kind == kind:
            shares[step] = float(row["share"])
        elif str(row["name"]).startswith("Delegate/"):
            delegated.append((kind, row))
        else:
            unmatched.append(f"{row['node_type']} {row['name']} is no op of the graph")
    nameless = [step for step in steps if step not in shares]
    fits = [step.kind in kind.split() for (kind, _), step in zip(delegated, nameless, strict=False)]
    if len(delegated) == len(nameless) == sum(fits):
        shares |= {step: float(row["share"]) for step, (_, row) in zip(nameless, delegated, strict=True)}
    elif delegated:
        unmatched.append(f"the delegate's {len(delegated)} ops are not the graph's {len(nameless)} in their order")
    whole = {step.kernel for step in steps} - {step.kernel for step in steps if step not in shares}
    return {kernel: [shares[step] for step in steps if step.kernel == kernel] for kernel in whole}, unmatched


def _tensor_of(row: Mapping[str, Any]) -> str:
    """Tensor that a row's name, such as "[b01/expand]:3", tells; "" where there is none, or several."""
    found = re.fullmatch(r"\[([^,\]]+)\]:\d+", str(row["name"]))
    return found[1] if found else ""


def _kind_of(row: Mapping[str, Any]) -> str | None:
    """Op type of a row in our words; None for one that is none."""
    node_type = str(row["node_type"])
    if node_type in _BUILTIN:
        return _BUILTIN[node_type]
    if not str(row["name"]).startswith("Delegate/"):
        return None
    return next((kind for text, kind in _DELEGATED if text in node_type.lower()), None)


def _steps(graph: Graph, fusion: Fusion) -> list[_Step]:
    """The ops of the graph's .tflite file in their order (netlathe.archspace.forms.tflite_lowering)."""
    starts, fused = kernel_starts(graph, fusion), kernel_starts(graph, "cpu" if fusion == "gpu" else fusion)
    kernel_of = {start: place for place, start in enumerate(sorted(set(starts)))}
    results = {start: graph.nodes[index].name for index, start in enumerate(fused)}  # a fused activation names it
    gated = gated_layers(graph)
    results |= {layer: f"{graph.nodes[activation].name}.relu6" for layer, activation in gated.items()}
    steps = []
    for index, (node, shapes, _) in enumerate(graph.steps()):
        if fused[index] == index:
            for suffix, kind in _runtime_ops(node.op, shapes[0], index in gated.values()):
                tensor = f"{node.name}{suffix}" if suffix else results[index]
                steps.append(_Step(tensor, kind, kernel_of[starts[index]]))
    return steps


def _runtime_ops(op: Op, x: Shape, is_clamped: bool) -> list[tuple[str, str]]:
    """Runtime ops that a node becomes: what is appended to the node's name, and the type."""
    if isinstance(op, Conv2d):
        return [("", "depthwise" if op.is_depthwise(x) else "conv")]
    if isinstance(op, Pool2d):
        return [("", f"{op.mode}_pool")]
    if isinstance(op, Activation):
        if op.function is ActivationKind.HARD_SIGMOID:
            return [("", "mul")] if is_clamped else [(".relu6", "add"), ("", "mul")]
        if op.function is ActivationKind.SWISH:
            return [(".sigmoid", "sigmoid"), ("", "mul")]
        return [("", _ALONE[op.function])]
    if isinstance(op, Zeros):
        return []
    return [("", "mean" if op.kind == "global_avg_pool" else op.kind)]
