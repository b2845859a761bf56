"""Tables of configurations, one row a block or kernel, and their graphs.

The columns carry the names that published latency tables use. `op` says what a row is, the rest of the columns its
sizes; what an op does not need may be missing or empty:

- mbconv: height, cin, cout, kernel, stride; expand or mid; activation, se (ratio), skip (1: identity residual where
  shapes allow it), shortcut ("conv": a 1x1 convolution beside the block where the shapes differ, behind an average pool
  where it has a stride)
- sepconv: height, cin, cout, kernel, stride, activation
- conv, depthwise: height, cin, cout, kernel, stride, groups, activation; conv1x1 and pointwise need no kernel
- fully_connected: cin, cout, activation
- avg_pool, max_pool: height, cin, kernel, stride
- global_pool, softmax, add, mul: height, cin, activation
- relu and the other activations: height, cin
- concat: height, cin (of the first part), cout (of all parts), activation

`padding` is "same" (the default), "valid", or the pixels on every side as PyTorch counts them; of mbconv and sepconv
also "symmetric". Groups that an op does not have, `dilation` other than 1 and another `batch` than the setup's are
refused. A table with `expand` or `mid`, but neither `op` nor `block`, is one of mbconv.

`fused` names what a runtime does in the same kernel behind any of them, joined by "+": relu, hard_swish, add, mul, ...
A column `block` with canonical block names takes the place of all others where there is no `op`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from netlathe.archspace import ops
from netlathe.archspace.block_names import parse_block
from netlathe.archspace.blocks import BlockPadding, MBConv, SeparableConv
from netlathe.archspace.errors import NetlatheError, RecordError, did_you_mean
from netlathe.archspace.graph import Graph, GraphBuilder
from netlathe.archspace.ops import ActivationKind, Padding

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")

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
    "groups": ("group",),
    "dilation": ("dilations", "dilation_rate"),
    "padding": ("pad",),
}
"""Canonical column -> other names for it."""
_OPS = {
    "depthwise": ("dwconv", "depthwise_conv", "depthwise_conv_2d"),
    "conv": ("conv_2d", "conv1x1", "pointwise", "conv_2d_group", "grouped_conv", "conv_stem", "conv1x1_head"),
    "fully_connected": ("fc", "linear", "logits"),
    "global_pool": ("mean", "global_avg_pool", "gap"),
    "avg_pool": ("average_pool_2d", "avgpool"),
    "max_pool": ("max_pool_2d", "maxpool"),
    "concat": ("concatenation",),
}
_POINTWISE = ("conv1x1", "pointwise", "conv1x1_head")
_OP_BY_ALIAS = {alias: op for op, aliases in _OPS.items() for alias in aliases}
_CANONICAL = {alias: name for name, aliases in _COLUMNS.items() for alias in aliases}
_ACTIVATIONS = {**{str(kind): kind for kind in ActivationKind}, "hswish": ActivationKind.HARD_SWISH}
CONFIGURATION_COLUMNS = (
    "op", "height", "width", "out_height", "cin", "cout", "mid", "expand", "kernel", "stride", "groups", "se",
    "activation", "skip", "shortcut", "fused", "padding", "dilation", "batch",
)  # fmt: skip
"""Columns that graphs_of reads; a table may have any others beside them."""


_CHANGING = {
    "groups": {"conv", "depthwise"},
    "padding": {"mbconv", "sepconv", "conv", "depthwise", "avg_pool", "max_pool"},
    "expand": {"mbconv"},
    "mid": {"mbconv"},
    "se": {"mbconv"},
    "skip": {"mbconv"},
    "shortcut": {"mbconv"},
}
"""Columns that change what is computed, and the ops that have them; in the row of another op they must say nothing."""
_SAYS_NOTHING = {
    "groups": ("0", "1"), "padding": ("same", "0"), "expand": ("0", "1"), "mid": ("0",), "se": ("0",), "skip": ("0",),
    "shortcut": (),
}  # fmt: skip


def graphs_of(table: pd.DataFrame, batch: int = 1, first_row: int = 0) -> list[Graph]:
    """The graph of each row, in the table's order; equal rows share one. RecordErrors name the row, counted from
    `first_row`: a part of a larger table says where it begins."""
    cells = _cells(table)
    if not cells.keys() - {"batch"}:
        raise RecordError(f"the table has neither a column `op` nor `block`; it has {', '.join(map(str, table))}")
    if "block" in cells:
        _by_row(cells.get("batch", []), lambda cell: _check_batch(cell, batch), first_row)
        return _by_row(cells["block"], lambda name: parse_block(str(name or "")).graph(batch), first_row)
    rows = list(zip(*cells.values(), strict=True))
    return _by_row(rows, lambda row: graph_of(dict(zip(cells, row, strict=True)), batch), first_row)


def _cells(table: pd.DataFrame) -> dict[str, list[Any]]:
    """The cells of each column that is read, by its canonical name. An empty cell is None, since a NaN equals no other.
    Raises RecordError where several columns mean the same."""
    cells: dict[str, list[Any]] = {}
    names = [_CANONICAL.get(str(column), str(column)) for column in table]
    is_mbconv = not {"op", "block"} & set(names) and bool({"expand", "mid"} & set(names))
    read = CONFIGURATION_COLUMNS if "op" in names or is_mbconv else ("block", "batch")
    if is_mbconv:
        cells["op"] = ["mbconv"] * len(table)
    for index, name in enumerate(names):
        if name in cells:
            same = ", ".join(str(column) for column, other in zip(table, names, strict=True) if other == name)
            raise RecordError(f"several columns of the table mean {name!r}: {same}; keep one")
        if name in read:
            column = table.iloc[:, index]
            pairs = zip(column.tolist(), column.isna().tolist(), strict=True)
            cells[name] = [None if empty else cell for cell, empty in pairs]
    return cells


def _by_row(rows: list[Any], lower: Callable[[Any], T], first_row: int) -> list[T]:
    graphs: dict[Hashable, T] = {}
    for index, row in enumerate(rows, start=first_row):
        try:
            if row not in graphs:
                graphs[row] = lower(row)
        except TypeError as error:
            raise RecordError(f"row {index}: every cell must be one number or word, got {row!r:.200}") from error
        except (NetlatheError, ValueError, ArithmeticError) as error:
            raise RecordError(f"row {index}: {error}") from error
    return [graphs[row] for row in rows]


def graph_of(row: Mapping[str, Any], batch: int = 1) -> Graph:
    """The graph of one configuration, by canonical column names. Raises RecordError or what the op itself raises."""
    given = {name: value for name, value in row.items() if value is not None and value == value and value != ""}
    op = str(given.get("op", "")).lower()
    configuration = _Configuration(_OP_BY_ALIAS.get(op, op), given, batch)
    if op in _POINTWISE:
        given.setdefault("kernel", 1)
        if configuration.integer("kernel") != 1:
            raise RecordError(f"{op} has kernel 1, got {given['kernel']!r}; call it conv")
    if configuration.op not in _LOWERINGS:
        meant = did_you_mean(op, (*_LOWERINGS, *_OP_BY_ALIAS))
        raise RecordError(f"unknown op {op!r:.60}{meant}; known: {', '.join(_LOWERINGS)}")
    _check_batch(given.get("batch"), batch)
    configuration.check_unused()
    return _LOWERINGS[configuration.op](configuration)


def _check_batch(cell: Any, batch: int) -> None:
    """Raises RecordError where a row is of another batch than what it is taken for."""
    if cell is not None and cell != "" and str(cell) not in (str(batch), f"{batch}.0"):
        raise RecordError(f"the column batch says {cell!r:.60} where batches of {batch} are expected; fit them apart")


class _Configuration:
    """One row: its op, and its cells with a clear error for what is missing."""

    def __init__(self, op: str, cells: Mapping[str, Any], batch: int) -> None:
        self.op, self.cells, self.batch = op, cells, batch

    def number(self, name: str, default: float | None = None) -> float:
        value = self.cells.get(name, default)
        if value is None:
            raise RecordError(f"{self.op} needs a value in the column {name!r}")
        try:
            return float(value)
        except (TypeError, ValueError, OverflowError):
            raise RecordError(f"{self.op}: {name} must be a number, got {value!r:.60}") from None

    def integer(self, name: str, default: int | None = None, least: int = 1) -> int:
        number = self.number(name, default)
        if not number.is_integer() or number < least:
            wanted = f"at least {least}" if number.is_integer() else "a whole number"
            raise RecordError(f"{self.op}: {name} must be {wanted}, got {self.cells.get(name, default)!r:.60}")
        return int(number)

    def check_unused(self) -> None:
        """Raises RecordError for a cell that would change what is computed, were it not for the op."""
        if self.number("dilation", 1) != 1:
            raise RecordError(f"{self.op}: no block or op here has a dilation, got {self.cells['dilation']!r:.60}")
        for name, having in _CHANGING.items():
            text = str(self.cells.get(name, "")).lower().removesuffix(".0")
            if self.op not in having and text not in ("", "false", *_SAYS_NOTHING[name]):
                raise RecordError(f"{self.op} has no {name}, got {self.cells[name]!r:.60}; leave the cell empty")

    @property
    def size(self) -> tuple[int, int]:
        height = self.integer("height")
        return height, self.integer("width", height)

    @property
    def image(self) -> tuple[int, int, int, int]:
        return (self.batch, *self.size, self.integer("cin"))

    def padding(self, size: int, kernel: int, stride: int) -> Padding:
        """The padding that the cell says, else SAME, unless the output's height says that nothing was padded."""
        same, valid = -(-size // stride), (size - kernel) // stride + 1
        given = str(self.cells.get("padding", "")).lower()
        asked = {"same": same, "valid": valid, "": same}.get(given)
        if asked is None:
            asked = (size + 2 * self.integer("padding", least=0) - kernel) // stride + 1
        out = self.integer("out_height", asked)
        if given and out != asked:
            raise RecordError(f"{self.op}: padding {given:.60} gives {asked} pixels, the output's height says {out}")
        if out == same:
            return Padding.SAME
        if out == valid:
            return Padding.VALID
        raise RecordError(f"{self.op}: {size} pixels, kernel {kernel} and stride {stride} do not give {out} pixels")

    def block_padding(self, kernel: int) -> BlockPadding:
        """A block's padding: as many pixels on every side as PyTorch adds are symmetric."""
        given = str(self.cells.get("padding", "same")).lower()
        if given in ("same", "symmetric"):
            return "symmetric" if given == "symmetric" else "same"
        if given == "valid" or self.integer("padding", least=0) != kernel // 2:
            raise RecordError(f"{self.op}: padding must be same, symmetric or {kernel // 2} pixels, got {given:.60}")
        return "symmetric"

    def activation(self) -> ActivationKind | None:
        name = str(self.cells.get("activation", "none")).lower()
        return None if name in ("none", "0") else activation_kind(name)

    def block_activation(self) -> ActivationKind:
        """Blocks have one in their middle: relu6 where the cell is empty."""
        kind = self.activation() if "activation" in self.cells else ActivationKind.RELU6
        if kind is None:
            raise RecordError(f"{self.op} cannot be without an activation; name one, or leave the cell empty for relu6")
        return kind

    def finish(self, builder: GraphBuilder, x: int) -> Graph:
        """Behind the op itself: its activation, then what is fused."""
        kind = self.activation()
        return self.fuse(builder, builder.add("activation", ops.Activation(kind), x) if kind else x)

    def fuse(self, builder: GraphBuilder, x: int) -> Graph:
        """Behind an op or block: what the row says is fused."""
        for index, name in enumerate(filter(None, str(self.cells.get("fused", "")).split("+"))):
            if name in ("add", "mul"):
                # The other side of the sum is as large as this one, and counts as one more input.
                x = builder.add(f"fused_{index}", ops.Add() if name == "add" else ops.Mul(), x, x)
            else:
                x = builder.add(f"fused_{index}", ops.Activation(activation_kind(name)), x)
        return builder.build()


def activation_kind(name: str) -> ActivationKind:
    """Raises RecordError for a name that no activation has."""
    if name not in _ACTIVATIONS:
        meant = did_you_mean(name, _ACTIVATIONS)
        raise RecordError(f"unknown activation {name!r:.60}{meant}; known: {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]


def _mbconv(c: _Configuration) -> Graph:
    cin, cout, stride = c.integer("cin"), c.integer("cout"), c.integer("stride", 1)
    expand = c.integer("mid") / cin if "mid" in c.cells else c.number("expand", 1)
    if c.cells.get("shortcut", "conv") != "conv":
        raise RecordError(f"mbconv: shortcut must be 'conv' or empty, got {c.cells['shortcut']!r}")
    residual = bool(c.integer("skip", 1, least=0)) and "shortcut" not in c.cells
    block = MBConv(
        cin,
        cout,
        *c.size,
        stride,
        c.integer("kernel"),
        expand,
        c.block_activation(),
        c.number("se", 0),
        residual,
        c.block_padding(c.integer("kernel")),
    )
    builder = GraphBuilder(c.image)
    y = builder.inline("", block.graph(c.batch), 0)
    if "shortcut" in c.cells:
        x = builder.add("shortcut_pool", ops.Pool2d("avg", (stride, stride), (stride, stride)), 0) if stride > 1 else 0
        if cin != cout:
            x = builder.add("shortcut", ops.Conv2d(cout), x)
        y = builder.add("residual", ops.Add(), x, y)
    return c.fuse(builder, y)


def _sepconv(c: _Configuration) -> Graph:
    block = SeparableConv(
        c.integer("cin"),
        c.integer("cout"),
        *c.size,
        c.integer("stride", 1),
        c.integer("kernel"),
        c.block_activation(),
        c.block_padding(c.integer("kernel")),
    )
    builder = GraphBuilder(c.image)
    return c.fuse(builder, builder.inline("", block.graph(c.batch), 0))


def _conv(c: _Configuration) -> Graph:
    kernel, stride, cin = c.integer("kernel"), c.integer("stride", 1), c.integer("cin")
    depthwise = c.op == "depthwise"
    groups, cout = c.integer("groups", 1), c.integer("cout", cin if depthwise else None)
    if depthwise and groups not in (1, cin):  # some tables count them, some do not
        raise RecordError(f"depthwise has as many groups as channels ({cin}), got {groups}; call it conv")
    groups = cin if depthwise else groups
    builder = GraphBuilder(c.image)
    op = ops.Conv2d(cout, (kernel, kernel), (stride, stride), groups, c.padding(c.size[0], kernel, stride))
    return c.finish(builder, builder.add("conv", op, 0))


def _features(c: _Configuration) -> Graph:
    builder = GraphBuilder((c.batch, c.integer("cin")))
    if c.op == "softmax":
        return c.finish(builder, builder.add("softmax", ops.Softmax(), 0))
    return c.finish(builder, builder.add("linear", ops.FullyConnected(c.integer("cout")), 0))


def _pool(c: _Configuration) -> Graph:
    builder = GraphBuilder(c.image)
    if c.op == "global_pool":
        return c.finish(builder, builder.add("pool", ops.GlobalAvgPool(), 0))
    kernel, stride = c.integer("kernel"), c.integer("stride", 1)
    padding = c.padding(c.size[0], kernel, stride)
    op = ops.Pool2d("avg" if c.op == "avg_pool" else "max", (kernel, kernel), (stride, stride), padding)
    return c.finish(builder, builder.add("pool", op, 0))


def _pair(c: _Configuration) -> Graph:
    image, op = c.image, ops.Add() if c.op == "add" else ops.Mul() if c.op == "mul" else ops.Concat()
    second = (*image[:3], c.integer("cout") - c.integer("cin")) if c.op == "concat" else image
    builder = GraphBuilder(image, second)
    return c.finish(builder, builder.add(c.op, op, 0, 1))


def _element_wise(c: _Configuration) -> Graph:
    kind, given = activation_kind(c.op), c.activation()
    if given not in (None, kind):
        raise RecordError(f"{c.op}: the column 'activation' says {given}; leave it empty, or fuse that behind it")
    builder = GraphBuilder(c.image)
    return c.fuse(builder, builder.add("activation", ops.Activation(kind), 0))


_LOWERINGS: dict[str, Callable[[_Configuration], Graph]] = {
    "mbconv": _mbconv,
    "sepconv": _sepconv,
    "conv": _conv,
    "depthwise": _conv,
    "fully_connected": _features,
    "avg_pool": _pool,
    "max_pool": _pool,
    "global_pool": _pool,
    "add": _pair,
    "mul": _pair,
    "concat": _pair,
    "softmax": _features,
    **dict.fromkeys(_ACTIVATIONS, _element_wise),
}
