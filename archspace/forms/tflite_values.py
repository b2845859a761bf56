"""The bookkeeping of reading a .tflite file: which tensor is which operand of the graph, which is a constant."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netlathe.archspace.errors import FormatError, GraphError
from netlathe.archspace.forms.carried_weights import CarriedWeights, Stores
from netlathe.archspace.forms.structure import NodeNames, finish_foreign
from netlathe.archspace.forms.tflite_file import Model, Operator, Tensor
from netlathe.archspace.forms.weights import Weights
from netlathe.archspace.graph import Graph, GraphBuilder, Node
from netlathe.archspace.ops import (
    Activation,
    ActivationKind,
    Clip,
    Constant,
    DType,
    Op,
    Opaque,
    Shape,
    Unary,
    UnaryKind,
    Zeros,
    check_shape,
    with_canonical_axes,
)

_MOST_SETTINGS = 64
"""Integers that steer one op."""
FUSED_OPS: dict[int, Op | None] = {
    0: None,
    1: Activation(ActivationKind.RELU),
    2: Clip(-1.0, 1.0),
    3: Activation(ActivationKind.RELU6),
    4: Unary(UnaryKind.TANH),
}
"""Activations that an op may do to its result itself, as the schema numbers it."""
_STAND_INS = {
    "BFLOAT16": DType.FLOAT16, "COMPLEX128": DType.COMPLEX64, "FLOAT8_E4M3FN": DType.INT8, "FLOAT8_E5M2": DType.INT8,
    "INT2": DType.INT8, "INT4": DType.INT8, "UINT4": DType.UINT8, "STRING": DType.UINT8, "RESOURCE": DType.UINT8,
    "VARIANT": DType.UINT8,
}  # fmt: skip
"""Types of a file's tensors that are no dtype of a graph's -> the one of the nearest size."""
_DTYPES = {dtype.name: dtype for dtype in DType} | _STAND_INS


class ForeignOpError(Exception):
    """No op of a graph does what this one does, so that it becomes an Opaque."""


class Reader:
    """Rebuilds the graph. Tensors of the file are numbered by the file, operands by the graph. Where it `carries`
    weights, nodes bring what they store along."""

    def __init__(self, model: Model, shapes: Sequence[Shape], *, carries: bool = False) -> None:
        self.model = model
        self.is_resized = any(
            shape != (model.tensors[t].shape or (1,)) for t, shape in zip(model.inputs, shapes, strict=True)
        )
        self._names = NodeNames()
        self._builder = GraphBuilder(*shapes)
        self._dtypes = [_dtype(model.tensors[t]) for t in model.inputs]
        self._operands = {tensor: index for index, tensor in enumerate(model.inputs)}
        self._carried = CarriedWeights(self._builder) if carries else None
        self._computed: dict[int, Tensor] = {}  # constants that ops make of constants
        self._makers: dict[int, Callable[[], NDArray[Any]]] = {}  # of the values of the larger ones
        self._done: set[int] = set()  # operators that became part of an earlier node
        self._users: dict[int, list[int]] = {}
        for index, operator in enumerate(model.operators):
            for tensor in operator.inputs:
                self._users.setdefault(tensor, []).append(index)

    @property
    def carries(self) -> bool:
        """Whether weights are read, too."""
        return self._carried is not None

    def is_done(self, index: int) -> bool:
        """Whether the operator has become part of an earlier one's node."""
        return index in self._done

    def finish(self) -> tuple[Graph, Weights]:
        """The graph of what the outputs need, and its weights where they are carried. Raises FormatError where they
        need none of the inputs."""
        outputs = tuple(map(self.operand, self.model.outputs))
        if not outputs:
            raise FormatError("the model has no outputs")
        nodes, kept_nodes, tensors = self._needed(outputs)
        count = len(self._builder.inputs)
        kept = [t for t in range(count) if t in tensors]
        if not kept:
            raise FormatError("the model's outputs do not depend on its inputs")
        dtypes = tuple(self._dtypes[t] for t in kept)
        shapes = tuple(self._builder.inputs[t] for t in kept)
        plain = {*dtypes} == {DType.FLOAT32}
        graph = finish_foreign(shapes, nodes, tuple(tensors[t] for t in outputs), () if plain else dtypes)
        return graph, self._carried.finish(kept_nodes, graph) if self._carried is not None else {}

    def _needed(self, outputs: tuple[int, ...]) -> tuple[list[Node], list[int], dict[int, int]]:
        """The nodes that the outputs need, their indices, and what becomes of the number of each tensor that is
        left."""
        count, builder = len(self._builder.inputs), self._builder
        ends = [*itertools.accumulate(map(len, builder.results), initial=count)]
        results = [range(begin, end) for begin, end in itertools.pairwise(ends)]
        needed, kept = {*outputs}, []
        for index in range(len(builder.nodes) - 1, -1, -1):
            if not needed.isdisjoint(results[index]):
                needed.update(results[index], builder.nodes[index].inputs)
                kept.append(index)
        kept.reverse()
        inputs = [t for t in range(count) if t in needed]
        places = {t: place for place, t in enumerate([*inputs, *(t for index in kept for t in results[index])])}
        nodes = [builder.nodes[index] for index in kept]
        if len(places) < ends[-1]:
            nodes = [dataclasses.replace(n, inputs=tuple(places[t] for t in n.inputs)) for n in nodes]
        return nodes, kept, places

    def constant(self, tensor: int) -> Tensor | None:
        """A tensor whose values do not depend on the model's inputs, as far as it is known to be one; its data may be
        left out where only the shape matters."""
        if tensor < 0:
            return None
        found = self._computed.get(tensor)
        if found is None and tensor not in self._operands:
            found = self.model.tensors[tensor]
            if found.data is None and not found.is_external:
                return dataclasses.replace(found, data=_nothing(found)) if 0 in found.shape else None
        return found

    def define(self, tensor: int, constant: Tensor, make: Callable[[], NDArray[Any]] | None = None) -> None:
        """Says that a tensor which an op computes is that constant; `make` gives its values where it has none."""
        self._computed[tensor] = constant
        if make is not None:
            self._makers[tensor] = make

    def values(self, tensor: int) -> NDArray[Any]:
        """The values of a constant, however many, the real ones of integers. Raises FormatError for what is none."""
        found = self.constant(tensor)
        if found is None:
            raise FormatError(f"{self.name(tensor)!r:.80} is computed at run time, and no weight")
        if found.data is None and tensor in self._makers:
            return self._makers[tensor]()
        if found.data is None or found.data.shape != found.shape:
            why = "lies in another file" if found.is_external else "is sparse, packed or not stored"
            raise FormatError(f"constant {found.name!r:.80} {why}, so that its values cannot be read")
        return real_values(found)

    def operand(self, tensor: int) -> int:
        """The graph's operand for a tensor of the file."""
        if tensor < 0:
            raise FormatError("one of its tensors is missing")
        if tensor not in self._operands:
            found, constant = self.model.tensors[tensor], self.constant(tensor)
            if constant is not None:
                self._operands[tensor] = self._stored(tensor, constant)
            elif found.is_variable:
                self._operands[tensor] = self.intermediate(found.name, Opaque("variable", (_sizes(found),)))
            else:
                raise FormatError(f"it takes tensor {found.name!r:.80}, which nothing has computed before")
        return self._operands[tensor]

    def _stored(self, tensor: int, constant: Tensor) -> int:
        shape, data = constant.shape or (1,), constant.data
        is_image = len(shape) > 1 and shape[0] == self._builder.inputs[0][0]
        if is_image and constant.dtype == "FLOAT32" and data is not None and not data.reshape(-1).view(np.uint8).any():
            return self.intermediate(constant.name, Zeros(shape[1:]), 0)
        op = Constant(shape, _dtype(constant))
        return self.intermediate(constant.name.partition(";")[0], op, stored=lambda: {"values": self.values(tensor)})

    def operands(self, operator: Operator, count: int | None = None) -> tuple[int, ...]:
        """The operands for all tensors that an op takes, of which there must be so many."""
        if count is not None and len(operator.inputs) != count:
            raise FormatError(f"it takes {len(operator.inputs)} tensors where {count} are expected")
        return tuple(self.operand(t) for t in operator.inputs)

    def kernel(self, operator: Operator, rank: int, place: int = 1) -> Tensor:
        """A layer's weights. Raises ForeignOpError where they are computed at run time."""
        tensor = operator.inputs[place] if len(operator.inputs) > place else -1
        found = self.constant(tensor)
        if found is None and tensor >= 0 and tensor in self._operands:
            raise ForeignOpError("its weights are computed at run time")
        if found is None or len(found.shape) != rank:
            raise FormatError(f"its weights must be a constant of rank {rank}")
        return found

    def integers(self, operator: Operator, place: int = 1) -> list[int]:
        """The integers that an op is steered by, in a row. Raises ForeignOpError where they are not known."""
        tensor = operator.inputs[place] if len(operator.inputs) > place else -1
        found = self.constant(tensor)
        if found is None or found.data is None:
            raise ForeignOpError("what steers it is computed at run time")
        if found.data.dtype.kind not in "iu":
            raise FormatError(f"constant {found.name!r:.80} must hold integers")
        if found.data.size > _MOST_SETTINGS:
            raise FormatError(f"constant {found.name!r:.80} holds {found.data.size} integers, and not a few")
        return [int(value) for value in found.data.reshape(-1)]

    def scalar(self, tensor: int) -> float | None:
        """The real value of a constant that holds just one; None for any other tensor."""
        found = self.constant(tensor)
        if found is None or found.data is None or found.data.size != 1 or found.data.dtype.kind not in "iuf":
            return None
        return float(real_values(found).reshape(-1)[0])

    def shape(self, tensor: int) -> Shape:
        """A tensor's shape at run time."""
        constant = self.constant(tensor)
        return constant.shape or (1,) if constant is not None else self._builder.shape(self.operand(tensor))

    def recorded(self, tensor: int) -> Shape | None:
        """The shape that the file states for a result, where it holds for the sizes at hand."""
        found = self.model.tensors[tensor]
        known = not self.is_resized and -1 not in found.signature[1:] and min(found.shape, default=0) > 0
        return found.shape if known else None

    def name(self, tensor: int) -> str:
        """A tensor's name without what converters append to it: the names of the ops that they fused, behind
        semicolons."""
        return self.model.tensors[tensor].name.partition(";")[0]

    def dtype(self, tensor: int) -> DType:
        """The dtype of a tensor of the file."""
        return _dtype(self.model.tensors[tensor])

    def add(
        self, op: Op, inputs: tuple[int, ...], output: int, fused: int = 0, *, stored: Stores | None = None
    ) -> None:
        """Adds the op, with what it stores and the activation fused into it, that compute the file's tensor
        `output`."""
        if fused not in FUSED_OPS:
            raise ForeignOpError(f"it applies the fused activation {fused}")
        name, function = self.name(output), FUSED_OPS[fused]
        result = self.intermediate(name, op, *inputs, stored=stored)
        if function:
            result = self.intermediate(f"{name}_act", function, result)
        self._give(output, result)

    def add_several(self, op: Op, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> None:
        """Adds the op that computes several of the file's tensors."""
        first = self.intermediate(self.name(outputs[0]), op, *inputs)
        for result, output in enumerate(outputs, start=first):
            self._give(output, result)

    def add_opaque(self, operator: Operator) -> None:
        """Adds a foreign op by its name, with the shapes that the file records for its results."""
        outputs = [t for t in operator.outputs if t >= 0]
        if not outputs:
            return
        taken = tuple(self._operands[t] for t in operator.inputs if t in self._operands)
        stored = [found for t in operator.inputs if (found := self.constant(t)) is not None and t not in self._operands]
        size = sum(found.data.nbytes for found in stored if found.data is not None)
        if self.is_resized and not self._takes_what_is_recorded(operator):
            raise FormatError(
                "netlathe has no such op, so that its results' shapes are known only at the file's own sizes"
            )
        shapes = tuple(_sizes(self.model.tensors[t]) for t in outputs)
        name = operator.options.get("name") or operator.kind or "unnamed"  # a composite op has a name of its own
        op = Opaque(str(name)[:200], shapes, tuple(map(self.dtype, outputs)), size)
        first = self.intermediate(self.name(outputs[0]), op, *taken)
        self._operands.update(zip(outputs, range(first, first + len(outputs)), strict=True))

    def _takes_what_is_recorded(self, operator: Operator) -> bool:
        """Whether all that an op takes has the shape that the file records."""
        return all(self._fits(t, self.shape(t), strictly=True) for t in operator.inputs if t in self._operands)

    def intermediate(self, name: str, op: Op, *inputs: int, stored: Stores | None = None) -> int:
        """Adds an op whose result the file has no tensor for, with what it stores."""
        op = with_canonical_axes(op, len(self._builder.shape(inputs[0]))) if inputs else op
        shapes = op.result_shapes(*[self._builder.shape(t) for t in inputs])
        try:
            dtypes = op.output_dtypes(tuple([self._dtypes[t] for t in inputs]), len(shapes))
        except GraphError as error:
            raise ForeignOpError(str(error)) from None
        self._dtypes += dtypes
        first = self._builder.add(self._names.take(name, op.kind), op, *inputs)
        if self._carried is not None:
            self._carried.add(range(first, first + len(shapes)), stored)
        return first

    def _give(self, output: int, result: int) -> None:
        """Says that a result of the graph's is the file's tensor, which must have its shape."""
        computed = self._builder.shape(result)
        if not self._fits(output, computed):
            raise FormatError(f"it computes {computed} where the file says {self.model.tensors[output].shape}")
        if self._dtypes[result] != self.dtype(output):
            raise ForeignOpError(f"it gives {self.dtype(output)} where {self._dtypes[result]} is expected")
        self._operands[output] = result

    def _fits(self, tensor: int, shape: Shape, *, strictly: bool = False) -> bool:
        """Whether a shape is what the file records, as far as that holds: a shape of no axes may be unknown."""
        found = self.model.tensors[tensor]
        if found.shape in ((), shape):
            return True
        if len(found.shape) != len(shape) or strictly:
            return False
        pairs = zip(shape, found.shape, found.signature or found.shape, strict=True)
        return self.is_resized or all(size == stated or min(stated, mark) < 1 for size, stated, mark in pairs)

    def sole_user(self, tensor: int) -> int | None:
        """The index of the op that alone takes a tensor."""
        users = self._users.get(tensor, [])
        return users[0] if len(users) == 1 and tensor not in self.model.outputs else None

    def absorb(self, index: int) -> Operator:
        """The op of that index, which counts as read from now on."""
        self._done.add(index)
        return self.model.operators[index]

    def absorb_user(self, tensor: int, kind: str, fits: Callable[[Operator], bool]) -> Operator | None:
        """The op of two inputs that alone uses a tensor, if it is of that kind and fits; it then counts as read."""
        index = self.sole_user(tensor)
        if index is None:
            return None
        user = self.model.operators[index]
        if user.kind != kind or len(user.inputs) != 2 or len(user.outputs) != 1 or not fits(user):
            return None
        return self.absorb(index)


def input_shapes(model: Model, given: Mapping[str, Sequence[int]] | None, batch: int = 1) -> list[Shape]:
    """The shape of each input: the given one, by the tensor's name (or '' where there is only one), else that of the
    file, an open batch being `batch`.

    Raises FormatError for other open sizes that are not given, and for names and shapes that do not fit.
    """
    left, inputs = dict(given or {}), [model.tensors[t] for t in model.inputs]
    found = []
    for tensor in inputs:
        keys = (tensor.name, _short_name(tensor.name), *([""] if len(inputs) == 1 else []))
        key = next((key for key in keys if key in left), None)
        found.append(None if key is None else tuple(left.pop(key)))
    if left:
        names = ", ".join(_short_name(tensor.name) for tensor in inputs)
        raise FormatError(f"shapes are given for {', '.join(map(repr, left))}; the inputs are {names}")
    return [
        _recorded_input(tensor, batch) if shape is None else _given_input(tensor, shape)
        for tensor, shape in zip(inputs, found, strict=True)
    ]


def _short_name(name: str) -> str:
    """An input's name without what converters put around it."""
    return name.removeprefix("serving_default_").removesuffix(":0")


def _given_input(tensor: Tensor, shape: Shape) -> Shape:
    check_shape(shape, f"the shape given for input {tensor.name!r:.80}")
    if tensor.shape and len(tensor.shape) != len(shape):
        raise FormatError(f"input {tensor.name!r:.80} has {len(tensor.shape)} axes, and is given the shape {shape}")
    return shape


def has_open_batch(tensor: Tensor) -> bool:
    """Whether an input leaves its first axis open."""
    return min((tensor.signature or tensor.shape or (1,))[0], (tensor.shape or (1,))[0]) < 1


def _recorded_input(tensor: Tensor, batch: int) -> Shape:
    shape, signature = tensor.shape or (1,), tensor.signature or tensor.shape or (1,)
    stated = (batch, *shape[1:]) if has_open_batch(tensor) else shape
    is_open = len(shape) != len(signature) or any(
        size < 1 or (size == 1 and mark < 0) for size, mark in zip(stated[1:], signature[1:], strict=True)
    )
    if is_open:
        name = _short_name(tensor.name)
        example = "x".join("1" if axis == 0 else "224" if n < 0 else str(n) for axis, n in enumerate(signature))
        raise FormatError(
            f"input {name!r:.80} has the open shape {signature}; give its sizes, such as --shape {name:.80}={example}"
        )
    check_shape(stated, f"input {tensor.name!r:.80}: its shape")
    return stated


def real_values(constant: Tensor) -> NDArray[Any]:
    """Values that the integers of a quantized constant stand for; the data of any other as they are."""
    assert constant.data is not None
    if constant.quantization is None:
        return constant.data
    scales = np.array(constant.quantization.scales, np.float32)
    if len(scales) > 1:
        scales = scales.reshape(-1, *(1,) * (constant.data.ndim - 1 - constant.quantization.axis))
    return np.asarray((constant.data.astype(np.float32) - constant.quantization.zero_point) * scales)


def _sizes(tensor: Tensor) -> Shape:
    """The shape that the file records for a tensor; a size that only a run tells counts as 1."""
    return tuple(max(size, 1) for size in tensor.shape) or (1,)


def _dtype(tensor: Tensor) -> DType:
    return _DTYPES[tensor.dtype]


def _nothing(tensor: Tensor) -> NDArray[Any]:
    return np.zeros(tensor.shape, _dtype(tensor))
