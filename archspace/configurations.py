"""Tables of configurations, one row a block or kernel, and their graphs.

The columns carry the names that published latency tables use. `op` says what a row is, the rest of the columns its
sizes; what an op does not need may be missing or empty:

- mbconv: height, cin, cout, kernel, stride; expand or mid; activation, se (ratio), skip (1: identity residual where
  shapes allow it), shortcut ("conv": a 1x1 convolution beside the block where the shapes differ, behind an average pool
  where it has a stride)
- sepconv: height, cin, cout, kernel, stride, activation
- conv, depthwise: height, cin, cout, kernel, stride, groups, activation
- fully_connected: cin, cout, activation
- avg_pool, max_pool: height, cin, kernel, stride
- global_pool, relu and the other activations, softmax, add, mul: height, cin
- concat: height, cin (of the first part), cout (of all parts)

`fused` names what a runtime does in the same kernel behind it, joined by "+": relu, hard_swish, add, mul, ... A column
`block` with canonical block names takes the place of all others where there is no `op`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping
from typing import TYPE_CHECKING, Any

from archspace.block_names import parse_block
from archspace.blocks import MBConv, SeparableConv
from archspace.errors import NetlatheError, RecordError
from archspace.graph import Graph, GraphBuilder
from archspace.ops import (
    Activation,
    ActivationKind,
    Add,
    Concat,
    Conv2d,
    FullyConnected,
    GlobalAvgPool,
    Mul,
    Padding,
    Pool2d,
    Softmax,
)

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = {
    "height": ("h", "hw_in", "hw"),
    "width": ("w",),
    "out_height": ("h_out",),
    "mid": ("middle",),
    "expand": ("expansion", "expand_ratio"),
    "kernel": ("k", "kernel_size"),
    "stride": ("s",),
    "activation": ("act",),
    "skip": ("residual", "idskip"),
}
"""Canonical column -> other names for it."""
_OPS = {
    "depthwise": ("dwconv", "depthwise_conv", "depthwise_conv_2d"),
    "conv": ("conv_2d", "conv1x1", "pointwise", "conv_2d_group", "grouped_conv"),
    "fully_connected": ("fc", "linear"),
    "global_pool": ("mean", "global_avg_pool", "gap"),
    "avg_pool": ("average_pool_2d", "avgpool"),
    "max_pool": ("max_pool_2d", "maxpool"),
    "concat": ("concatenation",),
}
_OP_BY_ALIAS = {alias: op for op, aliases in _OPS.items() for alias in aliases}
_CANONICAL = {alias: name for name, aliases in _COLUMNS.items() for alias in aliases}
_ACTIVATIONS = {**{str(kind): kind for kind in ActivationKind}, "hswish": ActivationKind.HARD_SWISH}
CONFIGURATION_COLUMNS = (
    "op", "height", "width", "out_height", "cin", "cout", "mid", "expand", "kernel", "stride", "groups", "se",
    "activation", "skip", "shortcut", "fused",
)  # fmt: skip
"""Columns that graphs_of reads; a table may have any others beside them."""


def graphs_of(table: pd.DataFrame, batch: int = 1) -> list[Graph]:
    """The graph of each row, in the table's order; equal rows share one. Raises RecordError that names the row."""
    if "block" in table and "op" not in table:
        return _by_row(table["block"].tolist(), lambda name: parse_block(name).graph(batch))
    renamed = table.rename(columns=str).rename(columns=_CANONICAL)
    columns = [name for name in CONFIGURATION_COLUMNS if name in renamed]
    if "op" not in columns:
        raise RecordError(f"the table has neither a column `op` nor `block`; it has {', '.join(map(str, table))}")
    rows = list(zip(*(renamed[name].tolist() for name in columns), strict=True))
    return _by_row(rows, lambda row: graph_of(dict(zip(columns, row, strict=True)), batch))


def _by_row(rows: list[Any], lower: Callable[[Any], Graph]) -> list[Graph]:
    graphs: dict[Hashable, Graph] = {}
    for index, row in enumerate(rows):
        if row not in graphs:
            try:
                graphs[row] = lower(row)
            except (NetlatheError, ValueError, TypeError) as error:
                raise RecordError(f"row {index}: {error}") from error
    return [graphs[row] for row in rows]


def graph_of(row: Mapping[str, Any], batch: int = 1) -> Graph:
    """The graph of one configuration, by canonical column names. Raises RecordError or what the op itself raises."""
    given = {name: value for name, value in row.items() if value is not None and value == value and value != ""}
    op = str(given.get("op", "")).lower()
    configuration = _Configuration(_OP_BY_ALIAS.get(op, op), given, batch)
    lower = _LOWERINGS.get(configuration.op)
    if lower is None:
        known = ", ".join([*_LOWERINGS])
        raise RecordError(f"unknown op {op!r}; known: {known}")
    return lower(configuration)


class _Configuration:
    """One row: its op, and its cells with a clear error for what is missing."""

    def __init__(self, op: str, cells: Mapping[str, Any], batch: int) -> None:
        self.op, self.cells, self.batch = op, cells, batch

    def integer(self, name: str, default: int | None = None) -> int:
        value = self.cells.get(name, default)
        if value is None:
            raise RecordError(f"{self.op} needs a value in the column {name!r}")
        if float(value) != int(value):
            raise RecordError(f"{self.op}: {name} must be a whole number, got {value!r}")
        return int(value)

    @property
    def size(self) -> tuple[int, int]:
        height = self.integer("height")
        return height, self.integer("width", height)

    @property
    def image(self) -> tuple[int, int, int, int]:
        return (self.batch, *self.size, self.integer("cin"))

    def padding(self, size: int, kernel: int, stride: int) -> Padding:
        """SAME, unless the output's height says that nothing was padded."""
        out = self.integer("out_height", math.ceil(size / stride))
        if out == math.ceil(size / stride):
            return Padding.SAME
        if out == (size - kernel) // stride + 1:
            return Padding.VALID
        raise RecordError(f"{self.op}: {size} pixels, kernel {kernel} and stride {stride} do not give {out} pixels")

    def activation(self, default: str = "") -> ActivationKind | None:
        name = str(self.cells.get("activation", default)).lower()
        return None if name in ("", "none", "0") else activation_kind(name)

    def finish(self, builder: GraphBuilder, x: int) -> Graph:
        """Behind the op itself: its activation, then what is fused."""
        kind = self.activation()
        if kind:
            x = builder.add("activation", Activation(kind), x)
        fused = str(self.cells.get("fused", ""))
        for index, name in enumerate(filter(None, fused.split("+"))):
            if name in ("add", "mul"):
                # The other side of the sum is as large as this one, and counts as one more input.
                x = builder.add(f"fused_{index}", Add() if name == "add" else Mul(), x, x)
            else:
                x = builder.add(f"fused_{index}", Activation(activation_kind(name)), x)
        return builder.build()


def activation_kind(name: str) -> ActivationKind:
    """Raises RecordError for a name that no activation has."""
    if name not in _ACTIVATIONS:
        raise RecordError(f"unknown activation {name!r}; known: {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]


def _mbconv(c: _Configuration) -> Graph:
    cin, cout, stride = c.integer("cin"), c.integer("cout"), c.integer("stride", 1)
    expand = c.integer("mid") / cin if "mid" in c.cells else float(c.cells.get("expand", 1))
    residual = bool(c.integer("skip", 1)) and "shortcut" not in c.cells
    block = MBConv(
        cin, cout, *c.size, stride, c.integer("kernel"), expand,
        c.activation("relu6") or ActivationKind.RELU6, float(c.cells.get("se", 0)), residual,
    )  # fmt: skip
    if c.cells.get("shortcut") != "conv":
        return block.graph(c.batch)
    builder = GraphBuilder(c.image)
    y = _append(builder, block.graph(c.batch))
    x = builder.add("shortcut_pool", Pool2d("avg", (stride, stride), (stride, stride)), 0) if stride > 1 else 0
    if cin != cout:
        x = builder.add("shortcut", Conv2d(cout), x)
    builder.add("residual", Add(), x, y)
    return builder.build()


def _append(builder: GraphBuilder, graph: Graph) -> int:
    """Adds a graph's nodes under their own names, so that the result is one block and no network of blocks."""
    tensors = [0]
    for node in graph.nodes:
        tensors.append(builder.add(node.name, node.op, *(tensors[t] for t in node.inputs)))
    return tensors[-1]


def _sepconv(c: _Configuration) -> Graph:
    kind = c.activation("relu6") or ActivationKind.RELU6
    return SeparableConv(
        c.integer("cin"), c.integer("cout"), *c.size, c.integer("stride", 1), c.integer("kernel"), kind
    ).graph(c.batch)  # fmt: skip


def _conv(c: _Configuration) -> Graph:
    kernel, stride, cin = c.integer("kernel", 1), c.integer("stride", 1), c.integer("cin")
    depthwise = c.op == "depthwise"
    groups, cout = (cin, c.integer("cout", cin)) if depthwise else (c.integer("groups", 1), c.integer("cout"))
    builder = GraphBuilder(c.image)
    op = Conv2d(cout, (kernel, kernel), (stride, stride), groups, c.padding(c.size[0], kernel, stride))
    return c.finish(builder, builder.add("conv", op, 0))


def _fully_connected(c: _Configuration) -> Graph:
    builder = GraphBuilder((c.batch, c.integer("cin")))
    return c.finish(builder, builder.add("linear", FullyConnected(c.integer("cout")), 0))


def _pool(c: _Configuration) -> Graph:
    kernel, stride = c.integer("kernel"), c.integer("stride", 1)
    builder = GraphBuilder(c.image)
    padding = c.padding(c.size[0], kernel, stride)
    op = Pool2d("avg" if c.op == "avg_pool" else "max", (kernel, kernel), (stride, stride), padding)
    return c.finish(builder, builder.add("pool", op, 0))


def _global_pool(c: _Configuration) -> Graph:
    builder = GraphBuilder(c.image)
    return c.finish(builder, builder.add("pool", GlobalAvgPool(), 0))


def _pair(c: _Configuration) -> Graph:
    builder = GraphBuilder(c.image, c.image)
    return c.finish(builder, builder.add(c.op, Add() if c.op == "add" else Mul(), 0, 1))


def _concat(c: _Configuration) -> Graph:
    image, rest = c.image, c.integer("cout") - c.integer("cin")
    builder = GraphBuilder(image, (*image[:3], rest))
    return c.finish(builder, builder.add("concat", Concat(), 0, 1))


def _softmax(c: _Configuration) -> Graph:
    builder = GraphBuilder((c.batch, c.integer("cin")))
    builder.add("softmax", Softmax(), 0)
    return builder.build()


def _element_wise(c: _Configuration) -> Graph:
    builder = GraphBuilder(c.image)
    builder.add("activation", Activation(activation_kind(c.op)), 0)
    return builder.build()


_LOWERINGS: dict[str, Callable[[_Configuration], Graph]] = {
    "mbconv": _mbconv,
    "sepconv": _sepconv,
    "conv": _conv,
    "depthwise": _conv,
    "fully_connected": _fully_connected,
    "avg_pool": _pool,
    "max_pool": _pool,
    "global_pool": _global_pool,
    "add": _pair,
    "mul": _pair,
    "concat": _concat,
    "softmax": _softmax,
    **dict.fromkeys(_ACTIVATIONS, _element_wise),
}
