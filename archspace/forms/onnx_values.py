"""The bookkeeping of reading an .onnx file: which value is which operand of the graph, which is a constant."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from netlathe.archspace.errors import FormatError
from netlathe.archspace.forms.structure import NodeNames, finish_foreign
from netlathe.archspace.graph import Graph, GraphBuilder
from netlathe.archspace.kernels import is_never_negative
from netlathe.archspace.ops import Op, Shape

DOMAINS = ("", "ai.onnx")
"""The names of ONNX's own set of ops."""

_MOST_SETTINGS = 64
"""Numbers that steer one op."""


class Reader:
    """Rebuilds the graph. Values of the file go by name, operands of the graph by number; shapes are NHWC."""

    def __init__(self, model: ModelProto) -> None:
        graph = model.graph
        self.opset = max((o.version for o in model.opset_import if o.domain in DOMAINS), default=0)
        self.outputs = [value.name for value in graph.output]
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._users: dict[str, list[NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self._users.setdefault(name, []).append(node)
        self._done: dict[
            int, NodeProto
        ] = {}  # by id: nodes that became part of an earlier one, kept so that it is theirs
        self._names = NodeNames()
        inputs = [value for value in graph.input if value.name not in self._constants]
        self._builder = GraphBuilder(*map(_input_shape, inputs))
        self._operands = {value.name: index for index, value in enumerate(inputs)}

    def is_done(self, node: NodeProto) -> bool:
        """Whether the node has become part of an earlier one."""
        return id(node) in self._done

    def finish(self) -> Graph:
        outputs = tuple(map(self.operand, self.outputs))
        if not outputs:
            raise FormatError("the model has no outputs")
        return finish_foreign(self._builder.inputs, self._builder.nodes, outputs)

    def operand(self, name: str) -> int:
        if name not in self._operands:
            found = "the constant" if name in self._constants else "something not computed before,"
            raise FormatError(f"it takes {found} {name!r}, which no op of netlathe expresses")
        return self._operands[name]

    def shape(self, name: str) -> Shape:
        return self._builder.shape(self.operand(name))

    def kernel(self, node: NodeProto, rank: int) -> Shape:
        """The shape of a layer's weights."""
        tensor = self._constants.get(node.input[1])
        if tensor is None or len(tensor.dims) != rank or tensor.data_type != TensorProto.FLOAT:
            raise FormatError(f"its weights must be a float32 constant of rank {rank}")
        return tuple(tensor.dims)

    def setting(self, node: NodeProto, name: str, position: int, default: Any = None) -> Any:
        """A setting that newer opsets pass as a constant input and older ones as an attribute: a number or a list."""
        if len(node.input) <= position or not node.input[position]:
            return attributes_of(node).get(name, default)
        if node.input[position] not in self._constants:
            raise FormatError(f"its {name} must be a constant; fold what computes it (onnxsim, or a fixed-size export)")
        return _values(self._constants[node.input[position]], name)

    def define(self, name: str, tensor: TensorProto) -> None:
        self._constants[name] = tensor

    def rename_constant(self, node: NodeProto) -> bool:
        """Gives a constant the name of the node's result too; False where its input is no constant."""
        constant = self._constants.get(node.input[0])
        if constant is not None:
            self._constants[node.output[0]] = constant
        return constant is not None

    def alias(self, node: NodeProto, operand: int) -> None:
        """The node's result is an operand that exists."""
        if any(name in self._users or name in self.outputs for name in node.output[1:]):
            raise FormatError("only the first of its results can be read")
        self._operands[node.output[0]] = operand

    def add(self, node: NodeProto, op: Op, *inputs: int) -> None:
        """Adds the op that computes the node's result."""
        self.alias(node, self.intermediate(node, "", op, *inputs))

    def add_several(self, node: NodeProto, op: Op, *inputs: int) -> None:
        """Adds the op that computes all of the node's results."""
        first = self.intermediate(node, "", op, *inputs)
        self._operands.update({name: result for result, name in enumerate(node.output, start=first) if name})

    def intermediate(self, node: NodeProto, suffix: str, op: Op, *inputs: int) -> int:
        """Adds an op whose result the file has no value for."""
        wanted = f"{node.name or node.output[0]}{suffix}"
        return self._builder.add(self._names.take(wanted, op.kind), op, *inputs)

    def absorb_user(self, name: str, kind: str, fits: Callable[[NodeProto], bool]) -> NodeProto | None:
        """The node that alone uses a value, if it is of that kind and fits; it then counts as read."""
        users = self._users.get(name, [])
        if len(users) != 1 or name in self.outputs or users[0].op_type != kind or not fits(users[0]):
            return None
        self._done[id(users[0])] = users[0]
        return users[0]

    def never_negative(self, name: str) -> bool:
        """Whether a value comes straight from an activation that gives no negative numbers."""
        return is_never_negative(self._builder.nodes, self._builder.producer(self.operand(name)))


def _values(tensor: TensorProto, name: str) -> Any:
    """Values of a small constant within the file. What it says of other files is not followed: it might name any of the
    user's own."""
    if tensor.data_location == TensorProto.EXTERNAL:
        raise FormatError(f"its {name} lies in another file; save the model with its constants inside")
    if math.prod(tensor.dims) > _MOST_SETTINGS or len(tensor.dims) > 2:
        raise FormatError(f"its {name} is a constant of shape {tuple(tensor.dims)!s:.60}, and no list of a few numbers")
    return numpy_helper.to_array(tensor).tolist()


def _input_shape(value: Any) -> Shape:
    """NHWC, from a float32 input of fixed size."""
    kind = value.type.tensor_type
    sizes = [dim.dim_value for dim in kind.shape.dim]
    if kind.elem_type != TensorProto.FLOAT:
        raise FormatError(f"input {value.name!r} is not float32; only float32 models can be read so far")
    if not sizes or min(sizes) < 1:
        found = [dim.dim_param or dim.dim_value or "?" for dim in kind.shape.dim]
        raise FormatError(
            f"input {value.name!r:.80} has the dynamic shape {found[:8]}; export the model with a fixed size"
        )
    return (sizes[0], *sizes[2:], sizes[1]) if len(sizes) == 4 else tuple(sizes)


def attributes_of(node: NodeProto) -> dict[str, Any]:
    """A node's attributes as plain values."""
    values = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return {key: value.decode() if isinstance(value, bytes) else value for key, value in values.items()}
