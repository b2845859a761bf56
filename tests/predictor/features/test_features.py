import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest
from synthetic_latency import random_blocks, random_network

from netlathe.archspace import ops
from netlathe.archspace.blocks import ConvBlock, MBConv, Pool, Skip
from netlathe.archspace.graph import Graph, GraphBuilder, chain
from netlathe.archspace.kernel_space import sample_kernels
from netlathe.archspace.kernels import Fusion, kernels_of
from netlathe.archspace.ops import (
    OPS,
    Activation,
    ActivationKind,
    Add,
    Concat,
    Conv2d,
    FullyConnected,
    GlobalAvgPool,
    Mul,
    Op,
    Opaque,
    Pad,
    Pool2d,
    Reshape,
    Softmax,
    Split,
    Zeros,
)
from netlathe.predictor.errors import PredictorError, UnknownOpError
from netlathe.predictor.features.item_features import LOG_FEATURES, features_of, log_features, work_terms
from netlathe.predictor.features.op_work import TERMS
from netlathe.predictor.features.samples import key_of


def terms_of(graph: Graph, fusion: Fusion = "cpu") -> dict[str, float]:
    """The terms that are not zero."""
    (row,) = features_of([graph], fusion).terms
    return {term: float(value) for term, value in zip(TERMS, row, strict=True) if value}


def single(op: Op, *shapes: tuple[int, ...]) -> Graph:
    builder = GraphBuilder(*shapes)
    builder.add("op", op, *range(len(shapes)))
    return builder.build()


def test_a_pointwise_convolution_is_charged_for_its_macs_and_bytes():
    # 4x4 pixels, 8 -> 16 channels: 16 * 8 * 16 MACs, 128 values in, 256 out, 128 weights and 16 biases.
    assert terms_of(single(Conv2d(16), (1, 4, 4, 8))) == {
        "calls": 1,
        "launches": 1,
        "pointwise.macs": 2048,
        "pointwise.aligned": 2048,
        "pointwise.half": 2048,
        "pointwise.depth": 8,
        "pointwise.read": 512,
        "pointwise.written": 1024,
        "pointwise.weights": 576,
    }


@pytest.mark.parametrize(
    ("kernel", "term"), [(3, "macs_k3"), (5, "macs_k5"), (7, "macs_k7"), (9, "macs_k9"), (11, "macs_k9")]
)
def test_depthwise_macs_are_filed_by_kernel_size(kernel, term):
    graph = single(Conv2d(8, (kernel, kernel), groups=8), (1, 6, 6, 8))
    assert {t: v for t, v in terms_of(graph).items() if "macs" in t} == {f"depthwise.{term}": 36 * 8 * kernel**2}


def test_a_pointwise_convolution_on_one_pixel_counts_as_fully_connected():
    convolution = terms_of(single(Conv2d(16, batch_norm=False), (1, 1, 1, 8)))
    assert convolution == terms_of(single(FullyConnected(16), (1, 8))) == {
        "calls": 1, "launches": 1, "fully_connected.macs": 128, "fully_connected.half": 128,
        "fully_connected.depth": 8,
    }  # fmt: skip


@pytest.mark.parametrize(("groups", "depth", "patches"), [(1, 72, 16 * 72), (2, 36, 2 * 16 * 36)])
def test_a_convolution_lays_out_its_patches_once_per_group_and_is_as_deep_as_one_window(groups, depth, patches):
    # 4x4 pixels, 8 -> 16 channels, windows of 3x3: 9 * 8 / groups values each.
    terms = terms_of(single(Conv2d(16, (3, 3), groups=groups), (1, 4, 4, 8)))
    name = "conv" if groups == 1 else "grouped_conv"
    assert (terms[f"{name}.depth"], terms[f"{name}.patches"]) == (depth, 4 * patches)


@pytest.mark.parametrize(
    ("op", "shapes", "term", "depth"),
    [
        (Pool2d("max", (3, 3)), [(1, 8, 8, 4)], "pool", 9),
        (GlobalAvgPool(), [(1, 8, 8, 4)], "global_avg_pool", 64),
        (Concat(), [(1, 8, 8, 4), (1, 8, 8, 12)], "concat", 16),
    ],
)
def test_the_depth_of_an_op_without_macs_is_what_one_thread_visits(op, shapes, term, depth):
    assert terms_of(single(op, *shapes))[f"{term}.depth"] == depth


def test_relu_behind_a_convolution_is_fused_and_hard_swish_is_not():
    plain = ConvBlock(8, 16, 10, 10, activation=None).graph()
    fused = ConvBlock(8, 16, 10, 10, activation=ActivationKind.RELU6).graph()
    loose = ConvBlock(8, 16, 10, 10, activation=ActivationKind.HARD_SWISH).graph()
    assert terms_of(plain) == terms_of(fused)
    assert terms_of(loose) == {**terms_of(plain), "launches": 2, "activation.moved": 2 * 4 * 1600}


def test_relu_is_not_fused_when_the_value_before_it_is_needed_elsewhere():
    builder = GraphBuilder((1, 4, 4, 8))
    before = builder.add("conv", Conv2d(8), 0)
    after = builder.add("relu", Activation(ActivationKind.RELU), before)
    builder.add("add", Add(), before, after)
    assert terms_of(builder.build())["launches"] == 3


def test_relu_behind_a_pool_is_fused_by_xnnpack_and_not_by_onnx_runtime():
    builder = GraphBuilder((1, 4, 4, 8))
    pooled = builder.add("pool", Pool2d("max", (3, 3)), 0)
    builder.add("relu", Activation(ActivationKind.RELU), pooled)
    assert terms_of(builder.build())["launches"] == 1
    assert len(kernels_of(builder.build(), "onnx")) == 2


def test_all_macs_are_charged_once():
    graphs = [b.graph() for b in random_blocks(40)] + [random_network(seed) for seed in range(3)]
    columns = [i for i, term in enumerate(TERMS) if ".macs" in term]
    assert work_terms(graphs)[:, columns].sum(axis=1).tolist() == [g.macs for g in graphs]


def test_the_work_of_a_network_is_the_sum_of_its_segments():
    network = random_network(0)
    segments = work_terms(network.segments()).sum(axis=0)
    segments[TERMS.index("calls")] = 1
    assert np.array_equal(work_terms([network])[0], segments)


def test_names_of_nodes_do_not_matter():
    graph = MBConv(16, 24, 20, 20, 2, kernel=5).graph()
    renamed = Graph(graph.inputs, tuple(dataclasses.replace(n, name=f"x{i}") for i, n in enumerate(graph.nodes)))
    assert np.array_equal(work_terms([graph]), work_terms([renamed]))
    assert np.array_equal(log_features([graph]), log_features([renamed]))


OF_ONE_IMAGE: list[Op] = [
    ops.Unary(ops.UnaryKind.TANH), ops.Gelu(), ops.Clip(0, 1), ops.Cast(ops.DType.FLOAT16), ops.DepthToSpace(2),
    ops.SpaceToDepth(2), ops.Reduce(ops.ReduceKind.MAX, (1, 2)), ops.BatchNorm(), ops.LayerNorm(), ops.GroupNorm(2),
    ops.LocalResponseNorm(5), ops.ArgMax(), ops.L2Norm(), ops.Resize((8, 8)), ops.TransposeConv2d(4, (2, 2), (2, 2)),
    ops.PadAxes(((0, 0), (0, 0), (0, 0), (1, 1))), ops.PReLU((8,)), ops.LeakyReLU(), ops.ELU(), ops.Quantize(),
    ops.Dequantize(),
]  # fmt: skip


def gather(image):
    builder = GraphBuilder(image)
    indices = builder.add("indices", ops.Constant((3,), ops.DType.INT32))
    return builder.build(builder.add("gather", ops.Gather(3), 0, indices))


@pytest.mark.parametrize(
    ("channels", "groups", "wide", "half"),
    [(32, 1, 32, 0), (40, 1, 0, 48), (56, 1, 64, 0), (8, 1, 0, 16), (64, 2, 64, 0), (64, 8, 0, 128), (48, 1, 0, 48)],
)
def test_matrices_are_multiplied_in_columns_of_32_channels_or_of_16_where_half_a_column_would_be_empty(
    channels, groups, wide, half
):
    # 4x4 pixels, 64 channels in: 16 * 64 / groups MACs for each channel of the result, or of its filled columns.
    terms = terms_of(single(Conv2d(channels, groups=groups), (1, 4, 4, 64)))
    name = "grouped_conv" if groups > 1 else "pointwise"
    found = (terms.get(f"{name}.wide", 0), terms.get(f"{name}.half", 0))
    assert found == (16 * 64 // groups * wide, 16 * 64 // groups * half)


def test_a_column_of_weights_beyond_the_second_level_cache_is_read_anew():
    small, large = (terms_of(single(Conv2d(32, (3, 3)), (1, 4, 4, cin))) for cin in (512, 1024))
    assert "conv.streamed" not in small  # 9 * 512 * 32 * 4 bytes are 0.56 MiB
    assert large["conv.streamed"] == large["conv.macs"]


def test_a_matrix_beyond_the_second_level_cache_comes_from_further_away_and_beyond_16_mib_from_memory():
    bytes_of = {features: 4 * features * 1001 for features in (64, 1024, 8192)}
    terms = {features: terms_of(single(FullyConnected(1001), (1, features - 1))) for features in bytes_of}
    assert "fully_connected.outer" not in terms[64]
    assert terms[1024]["fully_connected.outer"] == bytes_of[1024] - (1 << 20)
    assert "fully_connected.far" not in terms[1024]
    assert terms[8192]["fully_connected.far"] == bytes_of[8192] - (16 << 20)


def test_a_fully_connected_layer_of_many_rows_is_charged_as_a_pointwise_convolution():
    rows, pixels = single(FullyConnected(40), (1, 49, 64)), single(Conv2d(40, batch_norm=False), (1, 7, 7, 64))
    assert terms_of(rows) == terms_of(pixels)


def test_a_depthwise_kernel_whose_last_vector_is_not_full_pays_for_each_pixel_that_it_looks_up():
    full, ragged = (terms_of(single(Conv2d(c, (3, 3), groups=c), (1, 4, 4, c))) for c in (32, 40))
    assert "depthwise.tails" not in full
    assert ragged["depthwise.tails"] == ragged["depthwise.windows"] == 16 * 9


PLAIN = ("plain", "gathered", "groups")


@pytest.mark.parametrize(
    ("conv", "channels", "plain"),
    [
        # 8x8 pixels out: 64 * 9 * 8 MACs for each channel of the result, patches of 9 * 40 values in lines of 8
        (Conv2d(40, (3, 3), groups=5), 40, {"plain": 64 * 72 * 40, "gathered": 64 * 9 * 40 / 8, "groups": 5}),
        # 4x4 pixels out, whose patches are fetched value by value
        (Conv2d(40, (3, 3), (2, 2), groups=5), 40, {"plain": 16 * 72 * 40, "gathered": 16 * 9 * 40, "groups": 5}),
        (Conv2d(42, (3, 3), groups=42), 42, {"plain": 64 * 9 * 42, "gathered": 64 * 9 * 42 / 8, "groups": 42}),
        (Conv2d(40), 42, {"plain": 64 * 40 * 42}),
        (Conv2d(64, (3, 3), groups=2), 64, {}),
        (Conv2d(40, (3, 3), groups=40), 40, {}),
        (Conv2d(40), 40, {}),
    ],
)
def test_what_does_not_run_in_blocks_of_channels_is_charged_for_its_patches_and_groups(conv, channels, plain):
    graph = single(conv, (1, 8, 8, channels))
    terms, others = terms_of(graph, "onnx16"), terms_of(graph)
    name = next(term for term in others if term.endswith(".read")).partition(".")[0]
    assert {q: terms[f"{name}.{q}"] for q in PLAIN if f"{name}.{q}" in terms} == plain
    assert not any(f"{name}.{q}" in others for q in PLAIN)


def test_a_product_on_plain_images_has_pixels_for_columns_however_few_channels_a_group_has():
    graph = single(Conv2d(40, groups=5), (1, 8, 8, 40))
    assert terms_of(graph)["grouped_conv.half"] == 2 * 64 * 8 * 40
    assert terms_of(graph, "onnx16")["grouped_conv.wide"] == 64 * 8 * 40


def test_a_shuffle_of_channels_moves_whole_images_where_channels_come_first():
    builder = GraphBuilder((1, 5, 6, 12))
    x = builder.add("groups", Reshape((5, 6, 3, 4)), 0)
    x = builder.add("swapped", ops.Transpose((0, 1, 2, 4, 3)), x)
    graph = builder.build(builder.add("joined", Reshape((5, 6, 12)), x))
    moved = 2 * 4 * 360
    assert terms_of(graph, "onnx16") == {"calls": 1, "launches": 1, "transpose.moved": moved, "transpose.rows": 12}
    assert terms_of(graph)["transpose.rows"] == 360


def test_several_results_per_channel_are_no_depthwise_kernel():
    terms = terms_of(single(Conv2d(16, (3, 3), groups=8), (1, 4, 4, 8)))
    assert terms["grouped_conv.macs"] == 16 * 9 * 16


@pytest.mark.parametrize(
    ("op", "inputs", "rows"),
    [
        (Add(), [(1, 4, 6, 8), (1, 4, 6, 8)], 0),
        (Add(), [(1, 4, 6, 8), (1, 1, 1, 8)], 24),
        (Mul(), [(1, 4, 6, 8), (1, 4, 6, 1)], 24),
        (Mul(), [(1, 4, 6, 8), (1, 1, 6, 8)], 4),
        (Add(), [(1, 4, 6, 8), (1, 1, 1, 1)], 0),
        (Concat(), [(1, 4, 6, 8), (1, 4, 6, 3)], 48),
        (Pad((1, 1), (0, 0)), [(1, 4, 6, 8)], 36),
        (Pool2d("max", (2, 2), (2, 2)), [(1, 4, 6, 8)], 6),
        (Softmax(), [(1, 5, 10)], 5),
    ],
)
def test_runs_of_values_that_are_begun_anew_are_counted(op, inputs, rows):
    terms = terms_of(single(op, *inputs))
    assert terms.get(f"{op.kind}.rows", 0) == rows


def test_functions_that_go_over_their_values_twice_are_charged_again():
    for function in ActivationKind:
        terms = terms_of(single(Activation(function), (1, 4, 4, 8)))
        name = "smooth_activation" if function in (ActivationKind.SIGMOID, ActivationKind.SWISH) else "activation"
        twice = function in (ActivationKind.HARD_SIGMOID, ActivationKind.SWISH)
        assert terms.get(f"{name}.again", 0) == (1024 if twice else 0)


def test_every_op_of_archspace_has_work_terms():
    image = (1, 4, 4, 8)
    builder = GraphBuilder(image)
    parts = builder.build(builder.add("split", Split((4, 4)), 0), 2)
    sampled = {k.graph.nodes[0].op.kind: k.graph for k in sample_kernels(100) if len(k.graph.nodes) == 1}
    examples = sampled | {
        "conv": single(Conv2d(8), image), "fully_connected": single(FullyConnected(3), (1, 8)),
        "pool": single(Pool2d("avg", (2, 2)), image), "global_avg_pool": single(GlobalAvgPool(), image),
        "pad": single(Pad((1, 1), (1, 1)), image), "activation": single(Activation(ActivationKind.SWISH), image),
        "add": single(Add(), image, image), "mul": single(Mul(), image, image),
        "concat": single(Concat(), image, image), "softmax": single(Softmax(), (1, 8)),
        "reshape": single(Reshape((128,)), image), "zeros": single(Zeros((4, 4, 8)), image),
        "split": parts, "opaque": single(Opaque("LSTM", (image,)), image), "gather": gather(image),
        "matmul": single(ops.MatMul(), (1, 4, 8), (1, 8, 3)), "slice": single(ops.Slice((0,) * 4, (1, 2, 2, 8)), image),
        "transpose": single(ops.Transpose((0, 3, 1, 2)), image), "tile": single(ops.Tile((1, 2, 2, 1)), image),
        **{op.kind: single(op, image, image) for op in (ops.Sub(), ops.Div(), ops.Minimum(), ops.Maximum(), ops.Pow())},
        **{op.kind: single(op, image) for op in OF_ONE_IMAGE},
    }  # fmt: skip
    assert set(examples) == set(OPS) - {"constant"}  # which runs nothing: what reads it is charged for it
    for graph in examples.values():
        assert len(terms_of(graph)) >= 3
        assert np.isfinite(log_features([graph])).all()


def test_an_op_without_work_terms_is_named():
    @dataclass(frozen=True, slots=True)
    class Fourier(Op):
        kind = "fourier"

        def output_shape(self, *inputs):
            return inputs[0]

    with pytest.raises(UnknownOpError, match="'fourier'"):
        work_terms([single(Fourier(), (1, 4, 4, 8))])


def test_a_graph_that_does_nothing_is_no_work():
    assert terms_of(Skip(8, 8, 4, 4).graph()) == {}


def test_log_features_have_a_column_each_and_accept_no_graphs():
    assert log_features([Pool("max", 8, 4, 4).graph(), ConvBlock(3, 8, 9, 9, 2).graph()]).shape == (
        2,
        len(LOG_FEATURES),
    )
    assert log_features([]).shape == (0, len(LOG_FEATURES))
    assert work_terms([]).shape == (0, len(TERMS))


def test_log_features_read_sizes_off_the_graph():
    values = dict(
        zip(LOG_FEATURES, log_features([MBConv(16, 24, 20, 20, 2, kernel=5, se=0.25).graph()])[0], strict=True)
    )
    expected = {"side": 20, "cin": 16, "cout": 24, "stride": 2, "widest": 6, "kernel": 5}
    assert {name: round(float(np.exp(values[name]))) for name in expected} == expected
    assert (values["gated"], values["residual"], values["ragged"]) == (1, 0, 0)


def test_a_network_in_pieces_has_the_work_and_the_size_of_the_network():
    network = random_network(0)
    whole, pieces = features_of([network]), features_of([tuple(network.segments())])
    assert np.array_equal(pieces.terms, whole.terms)
    assert pieces.logs == pytest.approx(whole.logs, abs=1e-12)


def test_a_piece_that_occurs_five_times_works_five_times_and_is_called_once():
    piece = MBConv(16, 16, 20, 20).graph()
    five, one = work_terms([(piece,) * 5, piece])
    assert five.tolist() == [5 * value if term != "calls" else 1 for term, value in zip(TERMS, one, strict=True)]


def test_pieces_with_and_without_an_image_have_finite_features():
    head = single(FullyConnected(10), (1, 8))
    pool = single(GlobalAvgPool(), (1, 4, 4, 8))
    for item in (head, (head,), (pool, head), (Skip(8, 8, 4, 4).graph(), pool)):
        assert np.isfinite(log_features([item])).all()


def test_a_network_of_no_pieces_is_refused():
    with pytest.raises(PredictorError, match="no pieces"):
        work_terms([()])


def test_a_predictor_tells_a_block_from_the_network_of_it():
    block = MBConv(8, 8, 4, 4).graph()
    assert key_of(chain([("b00", block)])) != key_of(block) == block.key
    two = chain([("b00", block), ("b01", block)])
    assert key_of(two) == two.key
