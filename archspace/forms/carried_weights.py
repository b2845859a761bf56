"""Weights of a foreign file on their way into its graph: what each node stores, in the order of values that the graph
has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netlathe.archspace.errors import FormatError
from netlathe.archspace.forms.orders import Arrays, Order, Orders, carried, is_pointwise, reordered, turned
from netlathe.archspace.forms.weights import Weights
from netlathe.archspace.graph import Graph, GraphBuilder
from netlathe.archspace.ops import Constant, DType, Op

Stores = Callable[[], Arrays]
"""A function that gives a node's arrays by the names of Op.stored_shapes, of these shapes but for axes of one value."""


class CarriedWeights:
    """Arrays by the node of the graph that is being built, and the orders of tensors that are not in the file's."""

    def __init__(self, builder: GraphBuilder) -> None:
        self._builder = builder
        self._arrays: dict[int, dict[str, NDArray[Any]]] = {}
        self._orders: dict[int, Orders] = {}
        self._turned: set[int] = set()
        self._mixed: set[int] = set()

    def orders(self, operand: int) -> Orders:
        """The orders of a tensor's axes that are not as in the file."""
        return self._orders.get(operand, {})

    def mix(self, operand: int) -> None:
        """Says that a reshape has mixed channels with pixels in a tensor, so that no axis has an order of its own."""
        self._mixed.add(operand)

    def check_order(self, operand: int) -> None:
        """Raises FormatError for a tensor whose values the graph has in another order than the file."""
        if operand in self._mixed or operand in self._turned or self.orders(operand):
            raise FormatError("it gives a flattened image, whose values the file has in another order than netlathe")

    def add(self, results: range, stored: Stores | None = None, orders: Orders | None = None) -> None:
        """Takes in what the node that was added last stores. `orders` are those of its results where the node's op
        does not tell them. Raises FormatError for weights that are no float32 ones, and for an op that cannot take a
        flattened image."""
        index, node = len(self._builder.nodes) - 1, self._builder.nodes[-1]
        if not self._mixed.isdisjoint(node.inputs):
            raise FormatError("it takes what a reshape has mixed an image's channels and pixels in")
        if not self._turned.isdisjoint(node.inputs):
            raise FormatError("it takes values that a layer computes in the order of an image, in which others need it")
        arrays = stored() if stored is not None else {}
        taken = [self.orders(operand) for operand in node.inputs]
        if any(taken):
            shapes = [self._builder.shape(operand) for operand in node.inputs]
            arrays = reordered(node.op, arrays, taken[0])
            orders = carried(node.op, taken, shapes) if orders is None else orders
        if orders:
            self._orders.update((result, orders) for result in results)
        self._store(index, node.op, arrays)

    def _store(self, index: int, op: Op, arrays: Arrays) -> None:
        shapes = op.stored_shapes(*[self._builder.shape(operand) for operand in self._builder.nodes[index].inputs])
        if not shapes:
            return
        dtype = op.stored_dtype
        if dtype != DType.FLOAT32 and not isinstance(op, Constant):
            raise FormatError(f"its weights are {dtype}: quantized already, or halved; give the float32 model")
        missing = [key for key in shapes if key not in arrays]
        if missing:
            raise FormatError(f"its {missing[0]} cannot be read")
        self._arrays[index] = {
            key: np.ascontiguousarray(arrays[key].reshape(shape), dtype.value) for key, shape in shapes.items()
        }

    def turn(self, operand: int, axis: int, order: Order) -> None:
        """Has the layer that computes a tensor give it in that order along an axis. Raises FormatError where no layer
        can, or where others take the tensor, too."""
        while True:
            self._turned.add(operand)
            index = self._builder.producer(operand)
            users = sum(node.inputs.count(operand) for node in self._builder.nodes)
            if index < 0 or users != 1 or self.orders(operand):
                break
            node = self._builder.nodes[index]
            arrays = self._arrays.get(index, {})
            if (found := turned(node.op, arrays, axis, order)) is not None:
                self._arrays[index] = dict(found)
                return
            if not is_pointwise(node.op):
                break
            self._arrays[index] = dict(reordered(node.op, arrays, {axis: order}))
            (operand,) = node.inputs
        raise FormatError("it makes channels and pixels of one axis that no layer alone computes")

    def finish(self, kept: Sequence[int], graph: Graph) -> Weights:
        """The weights of a graph whose nodes are those of these indices."""
        return {
            node.name: self._arrays[index]
            for index, node in zip(kept, graph.nodes, strict=True)
            if index in self._arrays
        }
