"""Costs of other hardware: a table of layers by op, shape and bits, in ms, mJ or any unit that adds up."""

from __future__ import annotations

import csv
import math
import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from netlathe.archspace.errors import FormatError
from netlathe.archspace.files import check_plain, digest
from netlathe.archspace.graph import Graph
from netlathe.archspace.kernel_space import settings_of
from netlathe.archspace.kernels import kernels_of
from netlathe.archspace.ops import Constant, Conv2d, DType, Pad
from netlathe.archspace.precisions import Precision, precisions_of

COLUMNS = ("op", "shape", "bits")
_BITS = {Precision.FLOAT32: "32", Precision.FLOAT16: "16", Precision.INT8: "8", Precision.INT8_WEIGHTS: "8w"}
_SHAPE = re.compile(r"(?:(\d+)x(\d+)x)?(\d+)->(?:(\d+)x(\d+)x)?(\d+)")


class Layer(NamedTuple):
    """A kernel as rows tell it: ops that differ in channels alone have equal `kind`s."""

    op: str
    """Op and settings, such as "conv k3x3 s2x2", without the activation."""
    shape: str
    """Result of its values, such as "56x56x24->28x28x144"."""
    bits: str
    """32, 16 (weights alone), 8, or 8w (weights alone)."""

    @property
    def kind(self) -> tuple[str, ...]:
        """The op, its images and its bits."""
        match = _SHAPE.fullmatch(self.shape)
        images = [str(match[part]) for part in (1, 2, 4, 5)] if match else [self.shape]
        return (self.op, *images, self.bits)

    @property
    def work(self) -> float:
        """Size that costs go by within a kind: the product of its channels, or those of its result."""
        match = _SHAPE.fullmatch(self.shape)
        if match is None:
            return 0.0
        return float(int(match[6]) * (int(match[3]) if self.op.startswith(("conv", "fully_connected")) else 1))


@dataclass(frozen=True, eq=False)
class LayerTable:
    """Cost model of a table with the columns `op`, `shape`, `bits` and that of the cost, one row per layer.

    A layer with channels that no row has is interpolated, linearly in the product of its channels (in those of its
    result, where no dense layer), between the next rows of its op, images and bits. Ops without MACs that no row
    names at all, such as reshapes and what converts between precisions, cost nothing. `read_layer_table` makes it.
    """

    path: Path
    column: str
    costs: Mapping[Layer, float]

    def predict(self, graphs: Sequence[Graph]) -> Any:
        """The cost of each graph. Raises FormatError for layers that the table does not tell of."""
        return np.array([self._of_graph(graph) for graph in graphs], float)

    def _of_graph(self, graph: Graph) -> float:
        found = [self._of_kernel(kernel) for kernel in kernels_of(graph)]
        lacking = [one for one in found if isinstance(one, Layer)]
        if lacking:
            first, more = lacking[0], f", nor for {len(lacking) - 1} others" if len(lacking) > 1 else ""
            raise FormatError(
                f"{self.path}: has no row for op {first.op!r}, shape {first.shape!r}, bits {first.bits}, and none of "
                f"fewer and of more channels to interpolate between{more}; add rows"
            )
        return sum(one for one in found if not isinstance(one, Layer))

    def _of_kernel(self, kernel: Graph) -> float | Layer:
        layer = layer_of(kernel)
        if layer in self.costs:
            return self.costs[layer]
        works, costs = self._by_kind.get(layer.kind, ([], []))
        place = bisect_left(works, layer.work)
        if 0 < place < len(works):
            return float(np.interp(layer.work, works, costs))
        is_free = not kernel.macs and layer.op not in self._ops
        return 0.0 if is_free else layer

    @cached_property
    def _ops(self) -> set[str]:
        return {layer.op for layer in self.costs}

    @cached_property
    def _by_kind(self) -> dict[tuple[str, ...], tuple[list[float], list[float]]]:
        """Works and costs of each kind, by rising work."""
        rows: dict[tuple[str, ...], list[tuple[float, float]]] = {}
        for layer, cost in self.costs.items():
            rows.setdefault(layer.kind, []).append((layer.work, cost))
        return {kind: ([w for w, _ in sorted(one)], [c for _, c in sorted(one)]) for kind, one in rows.items()}

    @cached_property
    def digest(self) -> str:
        """Digest of the column's costs."""
        return digest(repr(sorted(self.costs.items())))


def layer_of(kernel: Graph) -> Layer:
    """The layer that a kernel is, as a table names it."""
    main = next((n for n in kernel.nodes if not isinstance(n.op, Constant | Pad)), kernel.nodes[0])
    op = main.op
    is_depthwise = isinstance(op, Conv2d) and op.is_depthwise(kernel.shapes[main.inputs[0]])
    words = [word for word in settings_of(op) if not (is_depthwise and re.fullmatch(r"g\d+", word))]
    x, y = ("x".join(map(str, shape[1:])) for shape in (kernel.inputs[0], kernel.output_shape))
    converts = {*kernel.dtypes} >= {DType.FLOAT32, DType.INT8}
    bits = "8" if converts else _BITS[precisions_of(kernel)[main.name]]
    return Layer(" ".join(["depthwise" if is_depthwise else op.name, *words]), f"{x}->{y}", bits)


def read_layer_table(path: Path, column: str) -> LayerTable:
    """The table in a CSV. Raises FormatError, naming the line, for anything in it that is no layer or no cost."""
    try:
        check_plain(path)
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FormatError(f"{path}: cannot be read as CSV ({error})") from error
    given = [str(name) for name in rows[0]] if rows else []
    for name in (*COLUMNS, column):
        if name not in given:
            raise FormatError(f"{path}: has no column {name!r}, only {', '.join(given) or 'no lines'}")
    costs: dict[Layer, float] = {}
    for line, row in enumerate(rows, start=2):
        layer = _layer(row, f"{path}: line {line}")
        if layer in costs:
            raise FormatError(f"{path}: line {line} tells of {', '.join(layer)} again")
        costs[layer] = read_cost(row[column], f"{path}: line {line}", column)
    return LayerTable(path, column, costs)


def _layer(row: Mapping[str, str | None], where: str) -> Layer:
    op, shape, bits = (" ".join((row[name] or "").split()) for name in COLUMNS)
    if not op:
        raise FormatError(f"{where} names no op")
    shape = shape.replace(" ", "")
    if not re.fullmatch(r"\d+(x\d+)*->\d+(x\d+)*", shape):
        raise FormatError(f"{where} has the shape {shape!r:.60}; it must be like 56x56x24->28x28x144, or 1280->1000")
    if bits not in _BITS.values():
        raise FormatError(f"{where} has {bits!r:.20} bits; they must be {', '.join(_BITS.values())}")
    return Layer(op, shape, bits)


def read_cost(text: str | None, where: str, column: str) -> float:
    """The cost that a cell of a table says. Raises FormatError for what is no number of at least zero."""
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise FormatError(f"{where} has {text!r:.40} as its {column}; it must be a number of at least zero")
    return value


def has_layers(path: Path) -> bool:
    """Whether a CSV's first line names the columns of layers."""
    try:
        check_plain(path)
        with path.open(newline="", encoding="utf-8-sig") as stream:
            return {*COLUMNS} <= {*next(csv.reader(stream), [])}
    except (OSError, UnicodeDecodeError, csv.Error):
        return False
