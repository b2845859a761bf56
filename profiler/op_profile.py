"""Reader of the table of operators that benchmark_model prints with --enable_op_profiling=true."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from netlathe.profiler.errors import MeasurementError

_SECTION = "Operator-wise Profiling Info"
_TABLE = "= Run Order ="
_COLUMN = re.compile(r"\[([^\]]+)\]")


@dataclass(frozen=True)
class OpTime:
    """One row: an operator of the graph, or what a delegate made of one or several."""

    node_type: str
    """Kind of the operator in the runtime's words: CONV_2D, TfLiteGpuDelegateV2, Convolution (NHWC, F32) GEMM."""
    name: str
    mean_ms: float
    """Mean time of one call; an inference spends mean_ms x times_called in it."""
    share: float
    """Share of the inference's time, 0 to 1."""
    times_called: int
    """Calls per inference; the tool rounds down, so rare calls count 0."""
    memory_kb: float


def read_op_times(output: str, section: str = _SECTION) -> tuple[OpTime, ...]:
    """The operators in the order in which they run.

    The table is the first behind the words `section`: of the timed runs, not of the initialization, which has a table
    of its own before; of the primary graph where there are several. Versions differ in their columns (only older ones
    print [start]), so the header says which is which.
    Raises MeasurementError where there is no whole table.
    """
    _, found, rest = output.partition(section)
    lines = [line.rstrip("\r") for line in rest.split("\n")]
    start = next((at for at, line in enumerate(lines) if _TABLE in line), None)
    if not found or start is None or start + 1 >= len(lines):
        raise MeasurementError(f"benchmark_model printed no table of operators ({section!r}, 'Run Order')")
    columns = _COLUMN.findall(lines[start + 1])
    # The table ends with an empty line, and other tables follow; else the output was cut, perhaps in a number.
    rows = lines[start + 2 : -1]
    end = next((at for at, row in enumerate(rows) if not row.strip()), None)
    if end is None:
        raise MeasurementError("benchmark_model's table of operators is cut off")
    return tuple(_op_time(columns, row) for row in rows[:end])


def _op_time(columns: Sequence[str], row: str) -> OpTime:
    # A terminal may have turned tabs into blanks, and types and names hold single ones.
    cells = row.removeprefix("\t").split("\t") if "\t" in row else re.split(r"\s{2,}", row.strip())
    if len(cells) != len(columns):
        raise MeasurementError(f"benchmark_model's table of operators has a row of {len(cells)} cells: {row[:200]!r}")
    values = {column: cell.strip() for column, cell in zip(columns, cells, strict=True)}
    try:
        one = OpTime(
            node_type=values["node type"],
            name=values["Name"],
            mean_ms=float(values["avg ms"]),
            share=float(values["%"].removesuffix("%")) / 100,
            times_called=int(values["times called"]),
            memory_kb=float(values["mem KB"]),
        )
    except (KeyError, ValueError) as error:
        raise MeasurementError(
            f"benchmark_model's table of operators has a strange row ({error}): {row[:200]!r}"
        ) from None
    if not (math.isfinite(one.mean_ms + one.share + one.memory_kb) and min(one.mean_ms, one.share) >= 0):
        raise MeasurementError(f"benchmark_model's table of operators has impossible numbers: {row[:200]!r}")
    return one
