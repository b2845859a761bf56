"""The bookkeeping of reading an .onnx file: which value is which operand of the graph, and in which layout; which is a
constant; which could not be read."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TypeProto, helper, shape_inference

from netlathe.archspace.errors import FormatError
from netlathe.archspace.forms.carried_weights import CarriedWeights, Stores
from netlathe.archspace.forms.interface import Interface, Port, TrainedModel
from netlathe.archspace.forms.layouts import (
    CHANNELS_FIRST,
    LINE,
    Axes,
    Group,
    Value,
    arranged,
    axes_after,
    compact,
    grouped_order,
    groups,
    in_file,
    in_graph,
    order,
    plain,
)
from netlathe.archspace.forms.onnx_constants import (
    DTYPES,
    FLOATS,
    REFUSALS,
    Inference,
    Stored,
    fixed_shape,
    stored_values,
    type_of,
)
from netlathe.archspace.forms.orders import NotSeparableError, Orders, met, orders_after, taken
from netlathe.archspace.forms.structure import NodeNames, finish_foreign
from netlathe.archspace.graph import GraphBuilder, Node
from netlathe.archspace.ops import (
    Constant,
    Dequantize,
    DType,
    Op,
    Opaque,
    Reshape,
    Shape,
    Transpose,
    is_integer,
    with_canonical_axes,
)

DOMAINS = ("", "ai.onnx")
"""The names of ONNX's own set of ops."""

_MOST_SETTINGS = 64
"""Numbers that steer one op."""
_NUMBERS = {dtype: number for number, dtype in DTYPES.items()}


class NotReadError(FormatError):
    """An op, or a variant of one, that netlathe has no op for; it is kept as an opaque one where shapes are known."""


class Reader:
    """Rebuilds the graph. Values of the file go by name, operands of the graph by number; images are NHWC there.

    Where it `carries` weights, nodes bring what they store along; `folder` is where files of weights lie."""

    def __init__(
        self,
        model: ModelProto,
        shapes: Mapping[str, Sequence[int]] | None = None,
        batch: int = 1,
        *,
        carries: bool = False,
        folder: Path | None = None,
    ) -> None:
        self.model = model
        opsets = {"" if o.domain in DOMAINS else o.domain: o.version for o in model.opset_import}
        self.opset = opsets.get("", 0)
        most = stored_values(model, folder) if carries else 0
        self.inference = Inference(opsets, model.ir_version, most)
        self.outputs = [value.name for value in model.graph.output]
        self._constants = {tensor.name: Stored.of(tensor, folder) for tensor in model.graph.initializer}
        for sparse in model.graph.sparse_initializer:
            self._constants[sparse.values.name] = Stored(tuple(sparse.dims), sparse.values.data_type)
        self._users: dict[str, list[NodeProto]] = {}
        self.producers: dict[str, NodeProto] = {}
        for node in model.graph.node:
            for name in names_taken(node):
                self._users.setdefault(name, []).append(node)
            self.producers.update((name, node) for name in node.output if name)
        self._done: dict[int, NodeProto] = {}  # by id: nodes that became part of others, kept so that it is theirs
        self._unreadable: set[str] = set()
        self._names = NodeNames()
        self._values: dict[str, Value] = {}
        self._dequantized: dict[str, Value] = {}  # integers whose real values nothing has asked for yet
        self._on_integers: set[str] = set()
        self._kept: list[NodeProto] = []
        self._placed: dict[tuple[int, Axes, Axes, int], int] = {}
        self._recorded: dict[str, TypeProto] | None = None
        self._open_inputs(shapes or {}, batch)
        self._carried = CarriedWeights(self._builder) if carries else None

    def _open_inputs(self, shapes: Mapping[str, Sequence[int]], batch: int) -> None:
        inputs = [value for value in self.model.graph.input if value.name not in self._constants]
        self.input_types = input_types(inputs, shapes, batch)
        layouts = [_input_layout(self, value.name, self.input_types[value.name]) for value in inputs]
        graphs = [
            in_graph(self.input_types[v.name][1], axes, rank) or (1,)
            for v, (axes, rank) in zip(inputs, layouts, strict=True)
        ]
        self._dtypes = [DTYPES[self.input_types[value.name][0]] for value in inputs]
        self._builder = GraphBuilder(*graphs)
        for index, (value, (axes, _)) in enumerate(zip(inputs, layouts, strict=True)):
            self._values[value.name] = Value(index, axes)

    # What a name stands for

    def constant(self, name: str) -> Stored | None:
        """The constant of that name, None for what is computed at run time."""
        return self._constants.get(name)

    def is_known(self, name: str) -> bool:
        """Whether the name stands for something that has been read."""
        return name in self._values or name in self._constants or name in self._dequantized

    def is_unreadable(self, node: NodeProto) -> bool:
        """Whether it takes what could not be read."""
        return not self._unreadable.isdisjoint(names_taken(node))

    def give_up(self, node: NodeProto) -> None:
        """The node's results cannot be read."""
        self._unreadable.update(node.output)

    def value(self, name: str) -> Value:
        """The tensor of that name; a constant becomes one. Raises FormatError for what nothing has computed before."""
        if name in self._dequantized:
            self._dequantize(name)
        if name in self._values:
            return self._values[name]
        stored = self._constants.get(name)
        if stored is None:
            raise FormatError(f"it takes something not computed before, {name!r:.80}")
        operand = self.stored(stored, name, stored.shape or (1,), plain(len(stored.shape)))
        self._values[name] = Value(operand, plain(len(stored.shape)))
        return self._values[name]

    def stored(self, stored: Stored, name: str, shape: Shape, axes: Axes, meets: int | None = None) -> int:
        """A constant as an operand of that shape, with these axes; it `meets` an operand, whose values it goes by."""
        if stored.dtype not in DTYPES:
            raise FormatError(f"constant {name!r:.80} has a dtype that netlathe does not have")
        if 0 in shape:
            raise FormatError(f"constant {name!r:.80} holds no values")
        op = Constant(shape, DTYPES[stored.dtype])
        if self._carried is None:
            return self.emit(name, "", op)
        rank = max(len(shape) if meets is None else len(self._builder.shape(meets)), 1)
        orders = {} if meets is None else self._carried.orders(meets)

        def values() -> dict[str, NDArray[Any]]:
            found = arranged(stored.values(name), axes, rank)
            return {"values": taken(found, orders)}

        return self.emit(name, "", op, stored=values, orders=met(shape, orders))

    def values(self, name: str) -> NDArray[Any]:
        """The values of a constant, however many. Raises FormatError for what is none."""
        stored = self._constants.get(name)
        if stored is None:
            raise FormatError(f"{name!r:.80} is computed at run time, and no weight")
        return stored.values(name)

    def expect_exact(self, is_exact: bool, why: str) -> None:
        """Says whether the graph's op computes just what the node does. Where not, it still takes as long. Raises
        FormatError then if weights are read, too."""
        if not is_exact and self._carried is not None:
            raise FormatError(why)

    def shape(self, name: str) -> Shape:
        """Its shape in the file."""
        stored = self._constants.get(name)
        if stored is not None:
            return stored.shape
        value = self._dequantized.get(name) or self.value(name)
        return in_file(self._builder.shape(value.operand), value.axes)

    def graph_shape(self, operand: int) -> Shape:
        return self._builder.shape(operand)

    def dtype(self, name: str) -> DType:
        return self._dtypes[self.value(name).operand]

    def kernel(self, name: str, *ranks: int) -> tuple[Shape, DType]:
        """The shape and dtype of a layer's weights."""
        tensor = self._constants.get(name)
        if tensor is None:
            raise NotReadError(f"its weights {name!r:.80} are no constant")
        if len(tensor.shape) not in ranks or 0 in tensor.shape:
            raise NotReadError(f"its weights have the shape {tensor.shape}")
        if tensor.quantized is not None:
            return tensor.shape, tensor.quantized
        if tensor.dtype not in DTYPES:
            raise FormatError(f"its weights {name!r:.80} have a dtype that netlathe does not have")
        return tensor.shape, DTYPES[tensor.dtype]

    def setting(self, node: NodeProto, name: str, position: int, default: Any = None) -> Any:
        """A setting that newer opsets pass as a constant input and older ones as an attribute: a number or a list."""
        if len(node.input) <= position or not node.input[position]:
            return attributes_of(node).get(name, default)
        stored = self._constants.get(node.input[position])
        if stored is None:
            raise NotReadError(
                f"its {name} must be a constant; fold what computes it (onnxsim, or a fixed-size export)"
            )
        if math.prod(stored.shape) > _MOST_SETTINGS or len(stored.shape) > 2:
            raise FormatError(f"its {name} is a constant of shape {stored.shape!s:.60}, and no list of a few numbers")
        return stored.array(name).tolist()

    def define(self, name: str, stored: Stored) -> None:
        """The name stands for a constant."""
        self._constants[name] = stored

    def bind(self, name: str, value: Value) -> None:
        """The name stands for that value."""
        self._values[name] = value

    def bind_dequantized(self, name: str, value: Value) -> None:
        """The name stands for the real values of these integers, computed where something asks for them."""
        self._dequantized[name] = value

    def integers_of(self, name: str) -> Value | None:
        """The integers whose real values a name stands for."""
        return self._dequantized.get(name)

    def is_on_integers(self, name: str) -> bool:
        """Whether a name stands for real values of which only integers are computed."""
        return name in self._on_integers

    def run_on_integers(self, node: NodeProto, read: Callable[[Reader, NodeProto], None]) -> None:
        """Reads a node on the integers whose real values it takes; what it gives are integers, too."""
        hidden = {name: value for name in node.input if (value := self._dequantized.pop(name, None))}
        kept = {name: value for name in hidden if (value := self._values.get(name))}
        self._values.update(hidden)
        try:
            read(self, node)
        finally:
            for name, value in hidden.items():
                self._dequantized[name] = value
                self._values.pop(name, None)
            self._values.update(kept)
        self._on_integers.update(node.output)

    def _dequantize(self, name: str) -> None:
        integers = self._dequantized.pop(name)
        operand = self.emit(name, "", Dequantize(), integers.operand)
        self._values[name] = Value(operand, integers.axes, integers.is_transposed)

    def rename(self, name: str, into: str) -> None:
        """The results of a branch are those of its If."""
        stored = self._constants.get(name)
        if stored is not None:
            self._constants[into] = stored
        else:
            self._values[into] = self.value(name)

    def constant_axes(self, node: NodeProto) -> tuple[int, ...]:
        """The axes of a reduction, as the file gives them; none where it reduces all, or computes them."""
        try:
            axes = self.setting(node, "axes", 1)
        except FormatError:
            return ()
        return tuple(axes) if isinstance(axes, list | tuple) else ()

    # Layouts

    def placed(self, value: Value, axes: Axes, rank: int) -> int:
        """The operand that holds a value with these axes in a tensor of that rank: itself, or behind a Reshape or a
        Transpose."""
        shape = self._builder.shape(value.operand)
        if value.axes == axes and len(shape) == rank:
            return value.operand
        key = value.operand, value.axes, axes, rank
        if key not in self._placed:
            self._placed[key] = self._place(value, shape, axes, rank)
        return self._placed[key]

    def _place(self, value: Value, shape: Shape, axes: Axes, rank: int) -> int:
        file = in_file(shape, value.axes)
        name = self._title(value.operand)
        wanted, operand = in_graph(file, axes, rank) or (1,), value.operand
        if order(file, value.axes) == order(file, axes):
            return self.reshaped(operand, wanted, name)
        now, then = compact(value.axes), compact(axes)
        operand = self.reshaped(operand, in_graph(file, now, len(file)), name)
        perm = dict(zip(then, now, strict=True))
        operand = self.emit(name, "_transposed", Transpose(tuple(perm[i] for i in range(len(file)))), operand)
        return self.reshaped(operand, wanted, name)

    def reshaped(self, operand: int, shape: Shape, name: str, orders: Orders | None = None) -> int:
        """The operand in another shape. `orders` are those of its axes then, where a reshape does not tell them."""
        before = self._builder.shape(operand)
        if before == shape:
            return operand
        whole = len(shape) == 1 or before[0] != shape[0]
        op = Reshape(shape, whole=True) if whole else Reshape(shape[1:])
        return self.emit(name, "_shaped", op, operand, orders=orders)

    def image(self, name: str) -> int:
        """The operand that holds a value (N, C, H, W) as (N, H, W, C), and (N, C, L) as (N, 1, L, C)."""
        value, rank = self.value(name), len(self.shape(name))
        if rank not in (3, 4):
            raise NotReadError(f"its input has the shape {self.shape(name)}; only images and sequences can be read")
        return self.placed(value, CHANNELS_FIRST[4] if rank == 4 else LINE, 4)

    def plain(self, name: str) -> int:
        """The operand that holds a value as the file does."""
        value = self.value(name)
        return self.placed(value, plain(len(value.axes)), max(len(value.axes), 1))

    def reshape(self, name: str, after: Shape) -> Value:
        """A value in another shape of the file. Where that mixes an image's channels with pixels, their order is the
        weights' affair, which a graph does not have: those that are carried are put into it."""
        value = self.value(name)
        before = self.shape(name)
        parts = groups(before, after)
        found = grouped_order(before, value.axes, parts, exact=value.is_transposed)
        if found is None:
            axes = self._regrouped(value, before, after, parts)
            value = Value(self.placed(value, axes, len(before)), axes)
            found = grouped_order(before, axes, parts, exact=True)
            assert found is not None
        image = value.axes != plain(len(before)) or (len(before) < 3 and len(after) == 4)
        sequence = [axis for part in found for axis in self._spread(part.after, after)]
        axes = axes_after(after, sequence, image=image)
        if self._carried is None:
            operand = self.reshaped(value.operand, in_graph(after, axes, max(len(after), 1)), name)
        else:
            operand = self._reshaped_with(self._carried, value, found, (before, after), axes, name)
        return Value(
            operand, axes, value.is_transposed and axes not in (plain(len(after)), CHANNELS_FIRST.get(len(after)))
        )

    def _reshaped_with(
        self, carried: CarriedWeights, value: Value, parts: Sequence[Group], shapes: tuple[Shape, Shape], axes: Axes,
        name: str,
    ) -> int:  # fmt: skip
        """The operand in another shape, with the orders of its axes. Where they have none, the layer that computes it
        has to give it in the order that they would have."""
        (before, after), rank = shapes, max(len(shapes[1]), 1)
        given = (before, value.axes, len(self._builder.shape(value.operand)))
        orders: Orders = {}
        turns, is_mixed = [], False
        for part in parts:
            try:
                orders |= orders_after(part, given, carried.orders(value.operand), (after, axes, rank))
            except NotSeparableError as error:
                if error.wanted is None:
                    is_mixed = True
                else:
                    turns.append((value.axes[part.before[0]] - given[2], error.wanted))
        operand = self.reshaped(value.operand, in_graph(after, axes, rank), name, orders)
        for axis, wanted in turns:
            carried.turn(value.operand, axis, wanted)
        if is_mixed:  # which does no harm where nothing takes it, as in a GroupNorm of many ops
            carried.mix(operand)
        return operand

    @staticmethod
    def _regrouped(value: Value, before: Shape, after: Shape, parts: Sequence[Group]) -> Axes:
        """The axes in which all groups stand together: in the graph's order where an image or what the file has comes
        of it, else in the file's."""
        firsts = {part: min(value.axes[axis] for axis in part.before) for part in parts}
        ordered = sorted(parts, key=firsts.__getitem__)
        sequence = [axis for part in ordered for axis in part.after]
        known = [plain(len(after)), *([CHANNELS_FIRST[4]] if len(after) == 4 else [])]
        if not any(order(after, axes) == sequence for axes in known):
            return plain(len(before))
        return axes_after(before, [axis for part in ordered for axis in part.before], image=False)

    @staticmethod
    def _spread(axes: tuple[int, ...], shape: Shape) -> tuple[int, ...]:
        """Axes that come out of one, in the graph's order: those of an image have the channels last."""
        return (*axes[1:], axes[0]) if len(shape) == 4 and axes == (1, 2, 3) else axes

    # Nodes of the graph

    def emit(
        self,
        wanted: str,
        suffix: str,
        op: Op,
        *inputs: int,
        stored: Stores | None = None,
        orders: Orders | None = None,
    ) -> int:
        """Adds an op, with what it stores; returns its first result. `orders` are those of its results, where the op
        does not tell them."""
        op = with_canonical_axes(op, len(self._builder.shape(inputs[0]))) if inputs else op
        results = len(op.output_shapes(*[self._builder.shape(t) for t in inputs]))
        dtypes = op.output_dtypes(tuple([self._dtypes[t] for t in inputs]), results)
        first = self._builder.add(self._names.take(f"{wanted}{suffix}", op.kind), op, *inputs)
        self._dtypes += dtypes
        if self._carried is not None:
            self._carried.add(range(first, first + results), stored, orders)
        return first

    def _title(self, operand: int) -> str:
        index = self._builder.producer(operand)
        return self._builder.nodes[index].name if index >= 0 else "input"

    def add(
        self,
        node: NodeProto,
        op: Op,
        *inputs: int,
        axes: Axes,
        transposed: bool = False,
        into: str = "",
        stored: Stores | None = None,
    ) -> None:
        """Adds the op that computes the node's first result (or what the file calls `into`), with these axes, and what
        it stores."""
        operand = self.emit(node.name or node.output[0], "", op, *inputs, stored=stored)
        self.bind(into or node.output[0], Value(operand, axes, transposed))

    def add_broadcast(self, node: NodeProto, op: Op, names: Sequence[str]) -> None:
        """Adds an op of two values that broadcasts, over any number of them from the left, in the layout of the
        largest."""
        computed = [name for name in names if name not in self._constants]
        rank = max(len(self.shape(name)) for name in names)
        largest = max(computed, key=lambda name: (len(self.shape(name)), math.prod(self.shape(name))))
        main, shape = self.value(largest), self.shape(largest)
        if len(shape) < rank:
            main = self.reshape(largest, (1,) * (rank - len(shape)) + shape)
        operands = [self._meeting(name, main) for name in names]
        title, x = node.name or node.output[0], operands[0]
        for other in operands[1:-1]:
            x = self.emit(title, "_part", op, x, other)
        self.add(node, op, x, operands[-1], axes=main.axes, transposed=main.is_transposed)

    def _meeting(self, name: str, main: Value) -> int:
        """An operand that broadcasts against another value in the graph as the file's does in the file."""
        stored = self._constants.get(name)
        if stored is not None:
            return self.stored(stored, name, self.aligned(stored.shape, main), main.axes, main.operand)
        value, shape = self.value(name), self.shape(name)
        if len(shape) < len(main.axes):
            value = self.reshape(name, (1,) * (len(main.axes) - len(shape)) + shape)
        return self.placed(value, main.axes, len(self.graph_shape(main.operand)))

    def aligned(self, shape: Shape, value: Value) -> Shape:
        """The graph's shape of a constant that meets a value there, without ones in front."""
        missing = len(value.axes) - len(shape)
        if missing < 0:
            raise NotReadError(f"it meets a constant of shape {shape}, of more axes than it has itself")
        found = in_graph((1,) * missing + shape, value.axes, len(self.graph_shape(value.operand)))
        while len(found) > 1 and found[0] == 1:
            found = found[1:]
        return found or (1,)

    def add_several(self, node: NodeProto, op: Op, x: Value) -> None:
        """Adds the op that computes all of the node's results, of the axes that its input has."""
        first = self.emit(node.name or node.output[0], "", op, x.operand)
        for operand, name in enumerate(node.output, start=first):
            if name:
                self.bind(name, Value(operand, x.axes, x.is_transposed))

    def opaque(self, node: NodeProto, why: str) -> None:
        """Keeps a node as an opaque op, of the shapes that ONNX or the file tells. Raises FormatError where neither
        does, and if weights are read, too."""
        self.expect_exact(False, f"{why}, so that its weights cannot be read")
        types = self._result_types(node)
        named = [name for name in node.output if name]
        for name in named:
            known = types.get(name)
            if known is None or 0 in known[1]:
                raise FormatError(f"{why}, and the shape of its result is not known; cut the model before it")
            if known[0] not in DTYPES:
                raise FormatError(f"{why}, nor the dtype of its result; cut the model before it")
        values = [self.value(name) for name in names_taken(node) if name and name not in self._constants]
        layouts = [self._like(values, types[name][1]) for name in named]
        shapes = tuple(
            in_graph(types[n][1], axes, rank) or (1,) for n, (axes, rank) in zip(named, layouts, strict=True)
        )
        dtypes = tuple(DTYPES[types[name][0]] for name in named)
        weights = sum(stored_bytes(c) for n in dict.fromkeys(names_taken(node)) if (c := self._constants.get(n)))
        kind = f"{node.domain}::{node.op_type}" if node.domain not in DOMAINS else node.op_type
        op = Opaque(kind[:200], shapes, () if {*dtypes} == {DType.FLOAT32} else dtypes, weights)
        first = self.emit(node.name or node.output[0], "", op, *[value.operand for value in values])
        for operand, (name, (axes, _)) in enumerate(zip(named, layouts, strict=True), start=first):
            self.bind(name, Value(operand, axes))

    def _like(self, values: Iterable[Value], shape: Shape) -> tuple[Axes, int]:
        """The axes and rank of an opaque result: those of an input of as many axes, else as in the file."""
        for value in values:
            if len(value.axes) == len(shape):
                return value.axes, len(self._builder.shape(value.operand))
        return plain(len(shape)), len(shape)

    def _result_types(self, node: NodeProto) -> dict[str, tuple[int, Shape]]:
        names = {name for name in node.input if name}
        types = {name: self._type(name) for name in names}
        constants = {name: self._constants[name] for name in names if name in self._constants}
        found = self.inference.types(node, types, constants)
        known = {name: fixed for name, kind in found.items() if (fixed := fixed_shape(kind))}
        for name in node.output:
            if name and name not in known and (recorded := self._recorded_types().get(name)):
                fixed = fixed_shape(recorded)
                if fixed:
                    known[name] = fixed
        return known

    def _type(self, name: str) -> TypeProto:
        stored = self._constants.get(name)
        if stored is not None:
            return stored.type
        shape = self.shape(name)
        integers = self._dequantized.get(name)
        return type_of(_NUMBERS[DType.FLOAT32 if integers else self.dtype(name)], shape)

    def _recorded_types(self) -> dict[str, TypeProto]:
        """Shapes that the file, or inference over all of it, says of its values."""
        if self._recorded is None:
            light = lightened(self.model, {name: type_of(*known) for name, known in self.input_types.items()})
            with suppress(*REFUSALS):
                light = shape_inference.infer_shapes(light, data_prop=True)
            values = (*light.graph.value_info, *light.graph.output)
            self._recorded = {value.name: value.type for value in values}
        return self._recorded

    # Neighbours

    def mark_done(self, *nodes: NodeProto) -> None:
        """These nodes have become part of another."""
        self._done.update((id(node), node) for node in nodes)

    def keep_alive(self, node: NodeProto) -> None:
        """A node that is none of the file's is known by its id for as long as the file is read."""
        self._kept.append(node)

    def is_done(self, node: NodeProto) -> bool:
        """Whether the node has become part of another."""
        return id(node) in self._done

    def sole_user(self, name: str) -> NodeProto | None:
        """The node that alone takes a value, once."""
        users = self._users.get(name, [])
        return users[0] if len(users) == 1 and name not in self.outputs else None

    def users(self, name: str) -> list[NodeProto]:
        return self._users.get(name, [])

    def absorb_user(self, name: str, kind: str, fits: Callable[[NodeProto], bool]) -> NodeProto | None:
        """The node that alone uses a value, if it is of that kind and fits; it then counts as read."""
        user = self.sole_user(name)
        if user is None or user.op_type != kind or user.domain not in DOMAINS or self.is_done(user) or not fits(user):
            return None
        self.mark_done(user)
        return user

    def needed(self) -> set[int]:
        """By id: the nodes that an output depends on."""
        found: set[int] = set()
        waiting = list(self.outputs)
        while waiting:
            node = self.producers.get(waiting.pop())
            if node is not None and id(node) not in found:
                found.add(id(node))
                waiting += names_taken(node)
        return found

    def finish(self) -> TrainedModel:
        """The graph, and its weights where they are carried."""
        if not self.outputs:
            raise FormatError("the model has no outputs")
        values = []
        for name in self.outputs:
            value = self.value(name)
            values.append(Value(self.plain(name), plain(len(value.axes))) if value.is_transposed else value)
            if self._carried is not None:
                self._carried.check_order(values[-1].operand)
        outputs = tuple(dict.fromkeys(value.operand for value in values))
        ports = [
            Port(name, outputs.index(value.operand), value.axes)
            for name, value in zip(self.outputs, values, strict=True)
        ]
        return self._pruned(outputs, tuple(ports))

    def _pruned(self, outputs: tuple[int, ...], ports: tuple[Port, ...]) -> TrainedModel:
        """The graph without what no output needs; `ports` are the outputs."""
        builder = self._builder
        firsts, count = [], len(builder.inputs)
        for node in builder.nodes:
            firsts.append(count)
            count += len(node.op.output_shapes(*[builder.shape(t) for t in node.inputs]))
        needed, kept = set(outputs), set()
        ends = [*firsts[1:], count]
        for index in reversed(range(len(builder.nodes))):
            if not needed.isdisjoint(range(firsts[index], ends[index])):
                kept.add(index)
                needed.update(builder.nodes[index].inputs)
        inputs = [t for t in range(len(builder.inputs)) if t in needed]
        tensors = [*inputs, *(t for i in sorted(kept) for t in range(firsts[i], ends[i]))]
        places = {tensor: place for place, tensor in enumerate(tensors)}
        nodes = [
            Node(n.name, n.op, tuple([places[t] for t in n.inputs]), n.scope)
            for n in (builder.nodes[i] for i in sorted(kept))
        ]
        if not inputs:
            raise FormatError("none of the model's outputs depends on its inputs")
        graph = finish_foreign(
            tuple(builder.inputs[t] for t in inputs),
            nodes,
            tuple(places[t] for t in outputs),
            tuple(self._dtypes[t] for t in inputs),
        )
        weights = self._carried.finish(sorted(kept), graph) if self._carried is not None else {}
        names = [*self.input_types]
        taken = [Port(names[t], place, self.value(names[t]).axes) for place, t in enumerate(inputs)]
        return TrainedModel(graph, weights, Interface(tuple(taken), ports))


def input_types(
    inputs: Sequence[Any], shapes: Mapping[str, Sequence[int]], batch: int = 1
) -> dict[str, tuple[int, Shape]]:
    """Dtype and shape of each input, of those that a call fixes as it says. An open first axis alone is the batch.

    Raises FormatError for an open size that nothing fixes, and for a shape that fits no input.
    """
    names = [value.name for value in inputs]
    if [*shapes] == [""] and len(names) == 1:
        shapes = dict(zip(names, shapes.values(), strict=True))
    for name in shapes:
        if name not in names:
            raise FormatError(f"a shape is given for {name!r:.80}, but the model's inputs are {', '.join(names):.200}")
    types = {value.name: _input_type(value, shapes.get(value.name), batch) for value in inputs}
    unknown = [value for value in inputs if types[value.name] is None]
    if unknown:
        raise FormatError(
            f"{'; '.join(map(_told_open, unknown)):.1000}; say which size is meant "
            f"({' '.join(f'--shape {v.name}={_example(v)}' for v in unknown):.1000}; shapes= in Python), "
            "or export the model with a fixed size"
        )
    return {name: known for name, known in types.items() if known is not None}


def _dims(value: Any) -> list[Any]:
    return [dim.dim_param or dim.dim_value or "?" for dim in value.type.tensor_type.shape.dim]


def _told_open(value: Any) -> str:
    has_shape = value.type.tensor_type.HasField("shape")
    return f"input {value.name!r:.80} has the dynamic shape {_dims(value)[:8] if has_shape else 'of any rank'}"


def _example(value: Any) -> str:
    """Advice on how its shape may be given."""
    if not value.type.tensor_type.HasField("shape"):
        return "1x3x224x224"
    dims = value.type.tensor_type.shape.dim
    is_batch = [place == 0 or "batch" in dim.dim_param.lower() for place, dim in enumerate(dims)]
    sizes = [max(0, dim.dim_value) or (1 if one else 224) for dim, one in zip(dims, is_batch, strict=True)]
    return "x".join(map(str, sizes))


def _input_type(value: Any, wanted: Sequence[int] | None, batch: int) -> tuple[int, Shape] | None:
    """None where a size is open and nothing fixes it."""
    title, kind = f"input {value.name!r:.80}", value.type.tensor_type
    if not value.type.HasField("tensor_type"):
        raise FormatError(f"{title} is no tensor")
    if kind.elem_type not in DTYPES:
        raise FormatError(f"{title} has a dtype that netlathe does not have; known: {', '.join(DType)}")
    has_shape, sizes = kind.HasField("shape"), [dim.dim_value for dim in kind.shape.dim]
    if wanted is not None:
        fits = not has_shape or (
            len(wanted) == len(sizes) and all(m < 1 or n == m for n, m in zip(wanted, sizes, strict=True))
        )
        if not fits or not all(is_integer(n, 1) for n in wanted):
            raise FormatError(f"{title} has the shape {_dims(value)[:8]}, which {tuple(wanted)!s:.80} does not fit")
        return kind.elem_type, tuple(wanted)
    if has_open_batch(value):
        sizes[0] = batch
    if not has_shape or (sizes and min(sizes) < 1):
        return None
    return kind.elem_type, tuple(sizes)


def has_open_batch(value: Any) -> bool:
    """Whether an input leaves its first axis open, and no other."""
    sizes = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    return len(sizes) > 1 and sizes[0] < 1 and min(sizes[1:]) >= 1


_CHANNELS_SECOND = {
    "Conv", "ConvTranspose", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "BatchNormalization",
    "InstanceNormalization", "QLinearConv", "ConvInteger", "PRelu", "Resize", "Upsample", "DepthToSpace",
    "SpaceToDepth", "LRN",
}  # fmt: skip
"""Ops that tell that their input's channels are its second axis."""
_NEUTRAL = {
    "Add", "Sub", "Mul", "Div", "Cast", "Clip", "Identity", "Pad", "QuantizeLinear", "DequantizeLinear",
    "DynamicQuantizeLinear", "Slice", "Split", "Concat", "Gather", "Relu",
}  # fmt: skip
"""Ops that give what they take in its layout."""


def _input_layout(reader: Reader, name: str, known: tuple[int, Shape]) -> tuple[Axes, int]:
    """An input's axes and its rank in the graph: of rank 4 an image with its channels second, unless a transpose brings
    them there first; of rank 3 a sequence where a convolution takes it."""
    rank = len(known[1])
    if rank not in (3, 4) or known[0] not in (*FLOATS, *(_NUMBERS[d] for d in (DType.UINT8, DType.INT8))):
        return plain(rank), rank
    waiting, seen = [name], {name}
    while waiting:
        for user in reader.users(waiting.pop()):
            if user.op_type in _CHANNELS_SECOND:
                return (CHANNELS_FIRST[4] if rank == 4 else LINE), 4
            if user.op_type == "Transpose":
                perm = tuple(attributes_of(user).get("perm", ()))
                return (plain(rank), rank) if rank == 3 or perm == (0, 3, 1, 2) else (CHANNELS_FIRST[4], 4)
            if user.op_type in _NEUTRAL:
                waiting += [output for output in user.output if output not in seen]
                seen.update(user.output)
    return (CHANNELS_FIRST[4] if rank == 4 else plain(rank)), rank


def lightened(model: ModelProto, inputs: Mapping[str, TypeProto]) -> ModelProto:
    """The model with inputs of these types and without the values of its larger constants, for inference."""
    light = ModelProto(ir_version=max(model.ir_version, 4))
    light.opset_import.extend(model.opset_import)
    light.functions.extend(model.functions)
    body = light.graph
    body.name = "light"
    body.node.extend(model.graph.node)
    body.output.extend(model.graph.output)
    body.value_info.extend(model.graph.value_info)
    for value in model.graph.input:
        body.input.add(name=value.name).type.CopyFrom(inputs.get(value.name, value.type))
    named = {value.name for value in model.graph.input}
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) <= _MOST_SETTINGS:
            body.initializer.add().CopyFrom(tensor)
        elif tensor.name not in named:
            body.input.add(name=tensor.name).type.CopyFrom(type_of(tensor.data_type, tuple(tensor.dims)))
    return light


def stored_bytes(stored: Stored) -> int:
    """Bytes of a constant of the file."""
    try:
        itemsize = helper.tensor_dtype_to_np_dtype(stored.dtype).itemsize
    except KeyError:
        return 0
    return min(int(itemsize) * stored.count, 2**31 - 1)


def names_taken(node: NodeProto) -> list[str]:
    """All that a node takes, also within its branches."""
    if not any(a.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for a in node.attribute):
        return [name for name in node.input if name]
    return [*(name for name in node.input if name), *_taken_within(node)]


def _taken_within(node: NodeProto) -> Iterator[str]:
    for attribute in node.attribute:
        for graph in (*attribute.graphs, *((attribute.g,) if attribute.type == AttributeProto.GRAPH else ())):
            own = {*_defined(graph)}
            yield from (name for inner in graph.node for name in names_taken(inner) if name not in own)
            yield from (value.name for value in graph.output if value.name not in own)


def _defined(graph: GraphProto) -> Iterator[str]:
    yield from (value.name for value in (*graph.input, *graph.initializer))
    yield from (name for node in graph.node for name in node.output)


def attributes_of(node: NodeProto) -> dict[str, Any]:
    """A node's attributes as plain values."""
    values = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return {key: value.decode() if isinstance(value, bytes) else value for key, value in values.items()}
