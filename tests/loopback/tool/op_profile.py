"""The tables of --enable_op_profiling.

LiteRT's Python interface has no op profiler. So each op is cut out into a model of its own, timed alone, and the times
are scaled together so that they add up to the measured runs.
"""

import dataclasses
import time
from collections.abc import Iterable, Sequence

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from netlathe.archspace.forms import tflite_file

from .delegates import NODE_NAMES, Session
from .inputs import random_inputs
from .output import Log, Statistics, Style, write

RUNS_PER_OP = 20
XNNPACK_NAMES = {
    "CONV_2D": "Convolution (NHWC, F32) IGEMM",
    "DEPTHWISE_CONV_2D": "Convolution (NHWC, F32) DWConv",
    "FULLY_CONNECTED": "Fully Connected (NC, F32) GEMM",
    "MEAN": "Global Average Pooling (NWC, F32)",
    "ADD": "Add (ND, F32)",
    "MUL": "Multiply (ND, F32)",
    "HARD_SWISH": "HardSwish (NC, F32)",
}


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of a table; times in ms, `first_ms` of the first run."""

    kind: str
    name: str
    first_ms: float
    mean_ms: float


def rows(model: bytes, session: Session, threads: int, runs: Statistics) -> list[Row]:
    """One row for each op, in run order. They add up to the mean of `runs`."""
    whole = tflite_file.unpack(model)
    resolver = OpResolverType.AUTO if session.delegate else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    alone_us = [_time_alone(whole, operator, resolver, threads) for operator in whole.operators]
    total_us = sum(alone_us) or 1.0
    found = []
    for index, (operator, op_us) in enumerate(zip(whole.operators, alone_us, strict=True)):
        share_ms = op_us / total_us / 1000
        name = ", ".join(whole.tensors[tensor].name for tensor in operator.outputs)
        found.append(Row(operator.kind, f"[{name}]:{index}", share_ms * runs.first, share_ms * runs.mean))
    return found


def _time_alone(
    whole: tflite_file.Model, operator: tflite_file.Operator, resolver: OpResolverType, threads: int
) -> float:
    inputs = tuple(t for t in operator.inputs if t >= 0 and whole.tensors[t].data is None)
    used = {*operator.inputs, *operator.outputs}
    # Tensors keep their numbers; those of other ops lose their data, which would be packed for nothing.
    tensors = tuple(
        tensor if index in used else dataclasses.replace(tensor, data=None)
        for index, tensor in enumerate(whole.tensors)
    )
    alone = tflite_file.Model(tensors, (operator,), inputs, operator.outputs)
    interpreter = Interpreter(
        model_content=tflite_file.pack(alone, "one op"), num_threads=threads, experimental_op_resolver_type=resolver
    )
    interpreter.allocate_tensors()
    for index, values in random_inputs(interpreter, np.random.default_rng()):
        interpreter.set_tensor(index, values)
    interpreter.invoke()
    began_ns = time.perf_counter_ns()
    for _ in range(RUNS_PER_OP):
        interpreter.invoke()
    return (time.perf_counter_ns() - began_ns) / RUNS_PER_OP / 1000


def report(log: Log, session: Session, operations: Sequence[Row], runs: Statistics) -> None:
    """Prints both profiles: of the initialization, and of the ops."""
    allocate = Row("AllocateTensors", "AllocateTensors/0", session.allocate_us / 1000, session.allocate_us / 1000)
    log.info("Profiling Info for Benchmark Initialization:")
    _print(log.style, [allocate], Statistics([session.allocate_us]))
    log.info("Operator-wise Profiling Info for Regular Benchmark Runs:")
    _print(log.style, _nodes(session, operations, inner=not log.style.start_column), runs)


def _nodes(session: Session, operations: Sequence[Row], *, inner: bool) -> list[Row]:
    """The rows as a tool of the time shows them: newer ones name a delegate's own ops, older ones one row for each
    stretch that a delegate takes."""
    nodes: list[Row] = []
    before = False
    for index, (row, taken) in enumerate(zip(operations, session.taken, strict=True)):
        if not taken or session.delegate is None:
            nodes.append(row)
        elif not inner:
            first = nodes.pop() if before else Row("", "", 0.0, 0.0)
            kind = NODE_NAMES[session.delegate]
            nodes.append(Row(kind, row.name, first.first_ms + row.first_ms, first.mean_ms + row.mean_ms))
        else:
            kind = _inner_kind(session.delegate, row.kind, index)
            nodes.append(dataclasses.replace(row, kind=kind, name=f"Delegate/{kind}:{index}"))
        before = taken
    return nodes


def _inner_kind(delegate: str, kind: str, index: int) -> str:
    if delegate == "XNNPACK":
        return XNNPACK_NAMES.get(kind, f"{kind.replace('_', ' ').title()} (NC, F32)")
    return f"{kind.lower()} {index}"


def _print(style: Style, table: Sequence[Row], runs: Statistics) -> None:
    by_time = sorted(table, key=lambda row: -row.mean_ms)
    text = _table(style, "Run Order", table) + "\n" + _table(style, "Top by Computation Time", by_time) + "\n"
    text += f"Number of nodes executed: {len(table)}\n" + _summary(table) + "\n"
    text += f"Timings (microseconds): {runs.line(percentiles=False)}\nMemory (bytes): count=0\n"
    write(1, f"{text}{len(table)} nodes observed\n\n\n\n".encode("utf-8", "surrogateescape"))


def _table(style: Style, title: str, table: Iterable[Row]) -> str:
    """Times start at 0 and follow one another; shares are of the sum. The newest tool has no [start] column."""
    table = list(table)
    width = 24 if style.start_column else 40
    start = f"\t{'[start]':>17}" if style.start_column else ""
    lines = [
        f"{'=' * 30} {title} {'=' * 30}",
        f"\t{'[node type]':>{width}}{start}\t{'[first]':>9}\t{'[avg ms]':>9}\t{'[%]':>8}\t{'[cdf%]':>8}"
        f"\t{'[mem KB]':>10}\t[times called]\t[Name]",
    ]
    total_ms = sum(row.mean_ms for row in table) or 1.0
    passed_ms = 0.0
    for row in table:
        start = f"\t{passed_ms:17.3f}" if style.start_column else ""
        passed_ms += row.mean_ms
        lines.append(
            f"\t{row.kind:>{width}}{start}\t{row.first_ms:9.3f}\t{row.mean_ms:9.3f}\t{row.mean_ms / total_ms:7.3%}"
            f"\t{passed_ms / total_ms:7.3%}\t{0:10.3f}\t{1:9}\t{row.name}"
        )
    return "\n".join(lines) + "\n"


def _summary(table: Sequence[Row]) -> str:
    kinds: dict[str, list[float]] = {}
    for row in table:
        kinds.setdefault(row.kind, []).append(row.mean_ms)
    total_ms = sum(row.mean_ms for row in table) or 1.0
    lines = [
        f"{'=' * 30} Summary by node type {'=' * 30}",
        f"\t{'[Node type]':>24}\t{'[count]':>9}\t{'[avg ms]':>10}\t{'[avg %]':>11}\t{'[cdf %]':>11}\t{'[mem KB]':>10}"
        "\t[times called]",
    ]
    passed_ms = 0.0
    for kind, times_ms in sorted(kinds.items(), key=lambda item: -sum(item[1])):
        passed_ms += sum(times_ms)
        lines.append(
            f"\t{kind:>24}\t{len(times_ms):9}\t{sum(times_ms):10.3f}\t{sum(times_ms) / total_ms:10.3%}"
            f"\t{passed_ms / total_ms:10.3%}\t{0:10.3f}\t{len(times_ms):9}"
        )
    return "\n".join(lines) + "\n"
