"""One or more examples of every op, with what it must say of itself in closed form: add a row with each new op."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from netlathe.archspace.graph import Graph, GraphBuilder
from netlathe.archspace.ops import (
    ELU,
    Activation,
    ActivationKind,
    Add,
    ArgMax,
    BatchNorm,
    Clip,
    Concat,
    Constant,
    Conv2d,
    DepthToSpace,
    Div,
    DType,
    FullyConnected,
    Gather,
    Gelu,
    GlobalAvgPool,
    GroupNorm,
    Interpolation,
    L2Norm,
    LayerNorm,
    LeakyReLU,
    LocalResponseNorm,
    MatMul,
    Maximum,
    Minimum,
    Mul,
    Op,
    Pad,
    PadAxes,
    Padding,
    PadMode,
    Pool2d,
    PReLU,
    Reduce,
    ReduceKind,
    Reshape,
    Resize,
    Shape,
    Slice,
    Softmax,
    SpaceToDepth,
    Split,
    Sub,
    Tile,
    Transpose,
    TransposeConv2d,
    Unary,
    UnaryKind,
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
    """The forms of which a foreign file alone is refused, as it depends on no input."""
    constants: list[Constant] = field(default_factory=list)
    """Further inputs, that are stored."""
    lacks: tuple[str, ...] = ()
    """The forms that have no such op: "tflite", "onnx", "torch"."""

    @property
    def graph(self) -> Graph:
        """The op alone, all of whose results are outputs; what takes no input is added to one of its shape."""
        given = range(len(self.inputs) - len(self.constants))
        builder = GraphBuilder(*(self.inputs[: len(given)] or self.results))
        stored = [builder.add(f"constant{place}", constant) for place, constant in enumerate(self.constants)]
        first = builder.add("op", self.op, *given, *stored)
        if not self.inputs:
            return builder.build(builder.add("sum", Add(), 0, first))
        return builder.build(*range(first, first + len(self.results)))

    def __str__(self) -> str:
        return f"{self.op}-{self.inputs}".replace(" ", "")


POSITIVE = (UnaryKind.LOG, UnaryKind.SQRT, UnaryKind.RSQRT, UnaryKind.RECIPROCAL)
"""Functions that are not for all the values that examples run on; `test_functions_of_positive_values` has them."""


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
    OpExample(Add(), [X, (6,)], [X]),
    OpExample(Add(), [(9, 6), X], [X]),
    OpExample(Mul(), [X, (2, 1, 1, 6)], [X]),
    OpExample(Mul(), [(2, 4, 6), (6,)], [(2, 4, 6)]),
    OpExample(Concat(), [X, (2, 7, 9, 4)], [(2, 7, 9, 10)]),
    OpExample(Concat(), [X, (2, 7, 9, 4), X], [(2, 7, 9, 16)]),
    OpExample(Concat(), [(2, 4), (2, 3), (2, 1)], [(2, 8)]),
    OpExample(Split((2, 2, 2)), [X], [(2, 7, 9, 2)] * 3),
    OpExample(Split((1, 5)), [X], [(2, 7, 9, 1), (2, 7, 9, 5)]),
    OpExample(Split((3, 4), axis=1), [X], [(2, 3, 9, 6), (2, 4, 9, 6)]),
    OpExample(Split((2, 3)), [(4, 5)], [(4, 2), (4, 3)]),
    OpExample(Softmax(), [(2, 6)], [(2, 6)]),
    OpExample(Reshape((3, 21, 6)), [X], [(2, 3, 21, 6)]),
    OpExample(FullyConnected(5), [(2, 7, 6)], [(2, 7, 5)], 420, 35, {"kernel": (5, 6), "bias": (5,)}),
    OpExample(FullyConnected(5), [X], [(2, 7, 9, 5)], 2 * 7 * 9 * 30, 35, {"kernel": (5, 6), "bias": (5,)}),
    OpExample(Pool2d("max", (3, 3), (2, 2), Padding.VALID, ((1, 1), (1, 0))), [X], [(2, 4, 4, 6)]),
    OpExample(Pool2d("avg", (3, 3), (2, 2), Padding.VALID, ((1, 1), (0, 2))), [X], [(2, 4, 5, 6)]),
    OpExample(Activation(ActivationKind.HARD_SIGMOID, 0.2), [X], [X]),
    *(OpExample(op, [X, (6,)], [X]) for op in (Sub(), Div(), Minimum(), Maximum())),
    OpExample(Sub(), [(7, 1, 6), X], [X]),
    *(OpExample(Unary(function), [X], [X]) for function in UnaryKind if function not in (UnaryKind.ERF, *POSITIVE)),
    OpExample(Unary(UnaryKind.ERF), [X], [X], lacks=("tflite",)),
    OpExample(Gelu(), [X], [X]),
    OpExample(Gelu(approximate=True), [(2, 6)], [(2, 6)]),
    *(OpExample(Clip(*limits), [X], [X]) for limits in ((0, 1), (-1, 1), (-0.5, None), (None, 0.5), (-0.5, 0.25))),
    OpExample(Softmax(1), [X], [X]),
    OpExample(Softmax(0), [(3, 4, 5)], [(3, 4, 5)]),
    OpExample(Concat(1), [X, (2, 3, 9, 6)], [(2, 10, 9, 6)]),
    OpExample(Concat(-3), [(2, 3, 4), (5, 3, 4)], [(7, 3, 4)]),
    OpExample(Slice((0, 1, 2, 3), (1, 5, 4, 2)), [X], [(1, 5, 4, 2)]),
    OpExample(Slice((0, 6, 0, 1), (2, 4, 3, 2), (1, -2, 4, 2)), [X], [(2, 4, 3, 2)]),
    OpExample(Transpose((0, 3, 1, 2)), [X], [(2, 6, 7, 9)]),
    OpExample(Transpose((2, 0, 1)), [(2, 3, 4)], [(4, 2, 3)]),
    OpExample(Transpose((0, 1, 2, 4, 3)), [(1, 3, 4, 2, 5)], [(1, 3, 4, 5, 2)]),
    OpExample(Gather(3), [X, (4,)], [(2, 7, 9, 4)], constants=[Constant((4,), DType.INT32)]),
    OpExample(Gather(1), [(2, 7, 6), (3, 2)], [(2, 3, 2, 6)], constants=[Constant((3, 2), DType.INT32)]),
    OpExample(Tile((1, 2, 1, 3)), [X], [(2, 14, 9, 18)]),
    OpExample(DepthToSpace(2), [(2, 3, 5, 8)], [(2, 6, 10, 2)]),
    OpExample(DepthToSpace(2, pixel_shuffle=True), [(2, 3, 5, 8)], [(2, 6, 10, 2)]),
    OpExample(SpaceToDepth(2), [(2, 6, 10, 3)], [(2, 3, 5, 12)]),
    OpExample(Reshape((42, 9, 2), whole=True), [X], [(42, 9, 2)]),
    OpExample(Reshape((3, 14, 9, 2), whole=True), [X], [(3, 14, 9, 2)]),
    OpExample(MatMul(), [(2, 7, 6), (2, 6, 4)], [(2, 7, 4)], 2 * 7 * 6 * 4),
    OpExample(MatMul(transpose_b=True), [(2, 3, 7, 6), (2, 3, 4, 6)], [(2, 3, 7, 4)], 2 * 3 * 7 * 6 * 4),
    OpExample(MatMul(transpose_a=True), [(5, 6), (5, 4)], [(6, 4)], 5 * 6 * 4),
    *(OpExample(Reduce(function, (1, 3), keep_dims=True), [X], [(2, 1, 9, 1)]) for function in ReduceKind),
    OpExample(Reduce(ReduceKind.SUM, (1,)), [X], [(2, 9, 6)]),
    OpExample(Reduce(ReduceKind.MAX, (1,)), [(2, 3, 4, 5, 6)], [(2, 4, 5, 6)]),
    OpExample(Reduce(ReduceKind.MEAN, (-1,)), [(2, 5, 6)], [(2, 5)]),
    OpExample(Reduce(ReduceKind.MAX, (0, 1)), [(5, 6)], [(1,)]),
    OpExample(BatchNorm(), [X], [X], 0, 12, {"scale": (6,), "bias": (6,)}),
    OpExample(BatchNorm(), [(2, 6)], [(2, 6)], 0, 12, {"scale": (6,), "bias": (6,)}),
    OpExample(BatchNorm(), [(2, 5, 6)], [(2, 5, 6)], 0, 12, {"scale": (6,), "bias": (6,)}),
    OpExample(LayerNorm(), [(2, 5, 6)], [(2, 5, 6)], 0, 12, {"scale": (6,), "bias": (6,)}),
    OpExample(LayerNorm(2), [X], [X], 0, 108, {"scale": (9, 6), "bias": (9, 6)}),
    OpExample(LayerNorm(affine=False), [X], [X]),
    OpExample(GroupNorm(3), [X], [X], 0, 12, {"scale": (6,), "bias": (6,)}),
    OpExample(GroupNorm(6), [(2, 5, 6)], [(2, 5, 6)], 0, 12, {"scale": (6,), "bias": (6,)}),
    OpExample(LocalResponseNorm(5, 0.5), [X], [X]),
    OpExample(
        Conv2d(8, (3, 3), dilation=(2, 3), batch_norm=False), [X], [(2, 7, 9, 8)], 2 * 7 * 9 * 8 * 9 * 6, 8 * 9 * 6 + 8,
        {"kernel": (8, 6, 3, 3), "bias": (8,)},
    ),
    OpExample(
        Conv2d(6, (3, 3), (2, 2), groups=6, padding=Padding.VALID, dilation=(2, 2)), [X], [(2, 2, 3, 6)],
        2 * 2 * 3 * 6 * 9, 6 * 9 + 12, {"kernel": (6, 1, 3, 3), "bias": (6,)},
    ),
    *(
        OpExample(Resize(size, mode, **places), [X], [(2, *size, 6)])
        for mode in Interpolation
        for places in ({}, {"align_corners": True}, {"half_pixel": True})
        for size in ((14, 18), (5, 12), (1, 1))
    ),
    OpExample(
        TransposeConv2d(4, (3, 3), (2, 2)), [X], [(2, 15, 19, 4)], 2 * 7 * 9 * 6 * 9 * 4, 4 * 6 * 9 + 4,
        {"kernel": (4, 6, 3, 3), "bias": (4,)},
    ),
    OpExample(
        TransposeConv2d(4, (4, 3), (2, 2), height=(1, 1), width=(0, 1)), [X], [(2, 14, 18, 4)], 2 * 7 * 9 * 6 * 12 * 4,
        4 * 6 * 12 + 4, {"kernel": (4, 6, 4, 3), "bias": (4,)},
    ),
    OpExample(
        TransposeConv2d(4, (3, 3), (2, 2), height=(1, 0), width=(2, 1)), [X], [(2, 14, 16, 4)], 2 * 7 * 9 * 6 * 9 * 4,
        4 * 6 * 9 + 4, {"kernel": (4, 6, 3, 3), "bias": (4,)},
    ),
    OpExample(
        TransposeConv2d(4, (2, 2), (3, 3), groups=2, height=(0, -1), width=(0, -1)), [X], [(2, 21, 27, 4)],
        2 * 7 * 9 * 6 * 4 * 2, 4 * 3 * 4 + 4, {"kernel": (4, 3, 2, 2), "bias": (4,)}, lacks=("tflite",),
    ),
    *(
        OpExample(PReLU(slopes), [X], [X], 0, math.prod(slopes), {"slopes": slopes})
        for slopes in ((6,), (1, 1, 6), (7, 9, 6), (1,))
    ),
    OpExample(PReLU((6,)), [(2, 6)], [(2, 6)], 0, 6, {"slopes": (6,)}),
    OpExample(LeakyReLU(0.25), [X], [X]),
    OpExample(ELU(), [X], [X]),
    OpExample(ELU(0.5), [X], [X], lacks=("tflite",)),
    OpExample(PadAxes(((0, 0), (0, 0), (0, 0), (0, 10))), [X], [(2, 7, 9, 16)]),
    OpExample(PadAxes(((1, 0), (0, 2))), [(2, 6)], [(3, 8)]),
    OpExample(PadAxes(((0, 0), (1, 1), (2, 0), (0, 0)), value=-2.0), [X], [(2, 9, 11, 6)]),
    OpExample(PadAxes(((0, 0), (2, 1), (0, 3), (0, 0)), PadMode.REFLECT), [X], [(2, 10, 12, 6)]),
    OpExample(PadAxes(((0, 0), (2, 1), (0, 3), (0, 0)), PadMode.SYMMETRIC), [X], [(2, 10, 12, 6)], lacks=("onnx",)),
    OpExample(PadAxes(((0, 0), (2, 1), (0, 3), (0, 0)), PadMode.EDGE), [X], [(2, 10, 12, 6)], lacks=("tflite",)),
    OpExample(ArgMax(dtype=DType.INT32), [X], [(2, 7, 9)]),
    OpExample(ArgMax(1, keep_dims=True, mode="min"), [X], [(2, 1, 9, 6)]),
    OpExample(ArgMax(1), [(2, 5, 4, 3, 2)], [(2, 4, 3, 2)]),
    OpExample(ArgMax(), [(2, 6)], [(2,)]),
    OpExample(L2Norm(), [X], [X]),
    OpExample(L2Norm(1), [X], [X]),
    OpExample(Zeros((4, 4, 3)), [X], [(2, 4, 4, 3)], unread=("onnx",)),
    OpExample(Constant(X), [], [X], stored={"values": X}),
    OpExample(Constant((6,)), [], [(6,)], stored={"values": (6,)}),
]  # fmt: skip
