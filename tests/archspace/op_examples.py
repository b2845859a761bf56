"""One or more examples of every op, with what it must say of itself in closed form: add a row with each new op."""

from __future__ import annotations

from dataclasses import dataclass, field

from netlathe.archspace.graph import Graph, GraphBuilder
from netlathe.archspace.ops import (
    Activation,
    ActivationKind,
    Add,
    Concat,
    Constant,
    Conv2d,
    FullyConnected,
    GlobalAvgPool,
    Mul,
    Op,
    Pad,
    Padding,
    Pool2d,
    Reshape,
    Shape,
    Softmax,
    Split,
    Zeros,
)

X = (2, 7, 9, 6)


@dataclass(frozen=True)
class OpExample:
    """An op on inputs of these shapes, and what it gives and costs."""

    op: Op
    inputs: list[Shape]
    results: list[Shape]
    macs: int = 0
    parameters: int = 0
    stored: dict[str, Shape] = field(default_factory=dict)
    unread: tuple[str, ...] = ()
    """The forms in which a foreign file of it cannot be read so far."""

    @property
    def graph(self) -> Graph:
        """The op alone, all of whose results are outputs; what takes no input is added to one of its shape."""
        builder = GraphBuilder(*(self.inputs or self.results))
        first = builder.add("op", self.op, *range(len(self.inputs)))
        if not self.inputs:
            return builder.build(builder.add("sum", Add(), 0, first))
        return builder.build(*range(first, first + len(self.results)))

    def __str__(self) -> str:
        return f"{self.op}-{self.inputs}".replace(" ", "")


EXAMPLES = [
    OpExample(
        Conv2d(8, (3, 3), (2, 2)), [X], [(2, 4, 5, 8)], 2 * 4 * 5 * 8 * 9 * 6, 8 * 9 * 6 + 16,
        {"kernel": (8, 6, 3, 3), "bias": (8,)},
    ),
    OpExample(
        Conv2d(8, (3, 1), padding=Padding.VALID), [X], [(2, 5, 9, 8)], 2 * 5 * 9 * 8 * 3 * 6, 8 * 3 * 6 + 16,
        {"kernel": (8, 6, 3, 1), "bias": (8,)},
    ),
    OpExample(
        Conv2d(6, (5, 5), groups=6), [X], [X], 2 * 7 * 9 * 6 * 25, 6 * 25 + 12, {"kernel": (6, 1, 5, 5), "bias": (6,)}
    ),
    OpExample(
        Conv2d(4, groups=2, batch_norm=False), [X], [(2, 7, 9, 4)], 2 * 7 * 9 * 4 * 3, 4 * 3 + 4,
        {"kernel": (4, 3, 1, 1), "bias": (4,)},
    ),
    OpExample(FullyConnected(5), [(2, 6)], [(2, 5)], 60, 35, {"kernel": (5, 6), "bias": (5,)}),
    OpExample(Pool2d("max", (3, 3), (2, 2)), [X], [(2, 4, 5, 6)]),
    OpExample(Pool2d("avg", (2, 2), (2, 2), Padding.VALID), [X], [(2, 3, 4, 6)]),
    OpExample(GlobalAvgPool(), [X], [(2, 6)]),
    OpExample(GlobalAvgPool(keep_dims=True), [X], [(2, 1, 1, 6)]),
    OpExample(Pad((1, 2), (0, 3)), [X], [(2, 10, 12, 6)]),
    *(OpExample(Activation(function), [X], [X]) for function in ActivationKind),
    OpExample(Add(), [X, X], [X]),
    OpExample(Add(), [X, (6,)], [X], unread=("onnx",)),
    OpExample(Add(), [(9, 6), X], [X], unread=("onnx",)),
    OpExample(Mul(), [X, (2, 1, 1, 6)], [X]),
    OpExample(Mul(), [(2, 4, 6), (6,)], [(2, 4, 6)], unread=("onnx",)),
    OpExample(Concat(), [X, (2, 7, 9, 4)], [(2, 7, 9, 10)]),
    OpExample(Concat(), [X, (2, 7, 9, 4), X], [(2, 7, 9, 16)]),
    OpExample(Concat(), [(2, 4), (2, 3), (2, 1)], [(2, 8)]),
    OpExample(Split((2, 2, 2)), [X], [(2, 7, 9, 2)] * 3),
    OpExample(Split((1, 5)), [X], [(2, 7, 9, 1), (2, 7, 9, 5)]),
    OpExample(Split((3, 4), axis=1), [X], [(2, 3, 9, 6), (2, 4, 9, 6)]),
    OpExample(Split((2, 3)), [(4, 5)], [(4, 2), (4, 3)]),
    OpExample(Softmax(), [(2, 6)], [(2, 6)]),
    OpExample(Reshape((3, 21, 6)), [X], [(2, 3, 21, 6)], unread=("onnx",)),
    OpExample(Zeros((4, 4, 3)), [X], [(2, 4, 4, 3)], unread=("onnx",)),
    OpExample(Constant(X), [], [X], stored={"values": X}, unread=("onnx", "tflite")),
    OpExample(Constant((6,)), [], [(6,)], stored={"values": (6,)}, unread=("onnx", "tflite")),
]  # fmt: skip
