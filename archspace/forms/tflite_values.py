"""The bookkeeping of reading a .tflite file: which tensor is which operand of the graph, which is a constant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from netlathe.archspace.errors import FormatError
from netlathe.archspace.forms.structure import NodeNames, finish_foreign
from netlathe.archspace.forms.tflite_file import Model, Operator, Tensor
from netlathe.archspace.forms.tflite_lowering import FUSED
from netlathe.archspace.graph import Graph, GraphBuilder
from netlathe.archspace.ops import Activation, Op, Shape, Zeros

_MOST_SETTINGS = 64
"""Integers that steer one op."""
FUSED_KINDS = {number: function for function, number in FUSED.items()}
"""The activations that an op may apply itself, as the schema numbers them."""


class Reader:
    """Rebuilds the graph. Tensors of the file are numbered by the file, operands by the graph."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._names = NodeNames()
        self._builder = GraphBuilder(*(self._runtime(t).shape for t in model.inputs))
        self._operands = {tensor: index for index, tensor in enumerate(model.inputs)}
        self._done: set[int] = set()  # operators that became part of an earlier node
        self._users: dict[int, list[int]] = {}
        for index, operator in enumerate(model.operators):
            for tensor in operator.inputs:
                self._users.setdefault(tensor, []).append(index)

    def is_done(self, index: int) -> bool:
        """Whether the operator has become part of an earlier one's node."""
        return index in self._done

    def finish(self) -> Graph:
        outputs = tuple(map(self.operand, self.model.outputs))
        if not outputs:
            raise FormatError("the model has no outputs")
        return finish_foreign(self._builder.inputs, self._builder.nodes, outputs)

    def operand(self, tensor: int) -> int:
        """The graph's operand for a tensor of the file; a constant can be one only where it is all zeros."""
        found = self._runtime(tensor)
        if tensor not in self._operands:
            if found.data is None:
                raise FormatError(f"it takes tensor {found.name!r}, which nothing has computed before")
            if len(found.shape) < 2 or found.data.any():
                raise FormatError(f"it takes the constant {found.name!r}, which no op of netlathe expresses")
            self.add(Zeros(found.shape[1:]), (0,), tensor)
        return self._operands[tensor]

    def operands(self, operator: Operator, count: int) -> tuple[int, ...]:
        if len(operator.inputs) != count:
            raise FormatError(f"it takes {len(operator.inputs)} tensors where {count} are expected")
        return tuple(self.operand(t) for t in operator.inputs)

    def kernel(self, operator: Operator, rank: int) -> Shape:
        """The shape of a layer's weights."""
        return self._constant(operator, rank).shape

    def integers(self, operator: Operator) -> Any:
        """The (nested) list of integers that an op is steered by."""
        tensor = self._constant(operator)
        if tensor.data is None or tensor.dtype == "FLOAT32":
            raise FormatError(f"constant {tensor.name!r:.80} must hold integers")
        if tensor.data.size > _MOST_SETTINGS:
            raise FormatError(f"constant {tensor.name!r:.80} holds {tensor.data.size} integers, and not a few")
        return tensor.data.tolist()

    def _constant(self, operator: Operator, rank: int | None = None) -> Tensor:
        index = operator.inputs[1] if len(operator.inputs) > 1 else -1
        tensor = self.model.tensors[index] if index >= 0 else None
        if tensor is None or tensor.data is None or rank not in (None, len(tensor.shape)):
            raise FormatError(f"its second input must be a constant{f' of rank {rank}' if rank else ''}")
        _expect_readable(tensor, "FLOAT32", "INT32", "INT64")
        return tensor

    def scalar(self, tensor: int) -> float | None:
        """The value of a constant that holds just one; None for any other tensor."""
        data = self.model.tensors[tensor].data
        return float(data.reshape(-1)[0]) if data is not None and data.size == 1 else None

    def shape(self, tensor: int) -> Shape:
        return self._runtime(tensor).shape

    def name(self, tensor: int) -> str:
        """A tensor's name without what converters append to it: the names of the ops that they fused, behind
        semicolons."""
        return self.model.tensors[tensor].name.partition(";")[0]

    def is_integer(self, tensor: int) -> bool:
        return self.model.tensors[tensor].dtype in ("INT32", "INT64")

    def add(self, op: Op, inputs: tuple[int, ...], output: int, fused: int = 0) -> None:
        """Adds the op, and the activation fused into it, that compute the file's tensor `output`."""
        expected = self._runtime(output)
        if fused not in FUSED_KINDS:
            raise FormatError(f"it applies the fused activation {fused}; only none, relu and relu6 can be read")
        function = FUSED_KINDS[fused]
        name = self.name(output)
        result = self.intermediate(name, op, *inputs)
        if function:
            result = self.intermediate(f"{name}_act", Activation(function), result)
        if self._builder.shape(result) != expected.shape:
            raise FormatError(f"it computes {self._builder.shape(result)} where the file says {expected.shape}")
        self._operands[output] = result

    def add_several(self, op: Op, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> None:
        """Adds the op that computes several of the file's tensors."""
        first = self.intermediate(self.name(outputs[0]), op, *inputs)
        for result, output in enumerate(outputs, start=first):
            if self._builder.shape(result) != self._runtime(output).shape:
                raise FormatError(f"it computes {self._builder.shape(result)} where the file says {self.shape(output)}")
            self._operands[output] = result

    def intermediate(self, name: str, op: Op, *inputs: int) -> int:
        """Adds an op whose result the file has no tensor for."""
        return self._builder.add(self._names.take(name, op.kind), op, *inputs)

    def absorb_user(self, tensor: int, kind: str, fits: Callable[[Operator], bool]) -> Operator | None:
        """The op that alone uses a tensor, if it is of that kind and fits; it then counts as read."""
        users = self._users.get(tensor, [])
        if len(users) != 1 or tensor in self.model.outputs:
            return None
        user = self.model.operators[users[0]]
        if user.kind != kind or len(user.inputs) != 2 or len(user.outputs) != 1 or not fits(user):
            return None
        self._done.add(users[0])
        return user

    def _runtime(self, tensor: int) -> Tensor:
        if tensor < 0:
            raise FormatError("one of its tensors is missing")
        _expect_readable(self.model.tensors[tensor], "FLOAT32")
        return self.model.tensors[tensor]


def _expect_readable(tensor: Tensor, *dtypes: str) -> None:
    if tensor.dtype not in dtypes:
        hint = "; give the file that it was quantized from" if tensor.quantization else ""
        raise FormatError(f"tensor {tensor.name!r} is {tensor.dtype}; only float32 models can be read so far{hint}")
