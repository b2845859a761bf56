"""Blocks: their arithmetic by hand, names both ways, validation that names the value."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netlathe.archspace.block_names import parse_block
from netlathe.archspace.blocks import Block, ConvBlock, LinearHead, MBConv, Pool, SeparableConv, Skip, Zero
from netlathe.archspace.errors import BlockError
from netlathe.archspace.ops import ActivationKind

channels, sides = st.integers(1, 2000), st.integers(1, 400)
strides, kernels = st.sampled_from([1, 2, 3, 4]), st.sampled_from([1, 3, 5, 7, 9, 11])
activations, paddings = st.sampled_from(list(ActivationKind)), st.sampled_from(["same", "symmetric"])
spatial = (channels, channels, sides, sides, strides)
blocks: st.SearchStrategy[Block] = st.one_of(
    st.builds(
        MBConv, *spatial, kernels, st.floats(1, 12), activations,
        st.sampled_from([0, 0.25, 0.0625, 1]), st.booleans(), paddings,
    ),
    st.builds(ConvBlock, *spatial, kernels, st.one_of(st.none(), activations), paddings),
    st.builds(SeparableConv, *spatial, kernels, activations, paddings),
    st.builds(Pool, st.sampled_from(["avg", "max"]), channels, sides, sides, st.integers(1, 11), strides),
    st.builds(LinearHead, channels, channels, sides, sides),
    st.builds(Skip, *spatial),
    st.builds(Zero, *spatial),
)  # fmt: skip


@given(blocks)
def test_a_name_parses_back_to_the_block(block: Block) -> None:
    assert parse_block(block.name) == block
    assert hash(parse_block(block.name)) == hash(block)


@pytest.mark.parametrize(
    "name",
    [
        "mbconv_k5_e6_s2_c24-40_56x56_relu6",
        "mbconv_k3_e3.5_s1_c16-16_12x9_hard_swish_se0.25_nores_sym",
        "conv_k3_s2_c3-32_224x224_relu6",
        "conv_k1_s1_c320-1280_7x7_none",
        "sepconv_k3_s1_c32-16_112x112_relu",
        "avgpool_k3_s2_c32_56x56",
        "maxpool_k2_s2_c32_56x56",
        "linear_c1280-1000_7x7",
        "skip_s2_c32-64_8x8",
        "zero_s1_c32-32_8x8",
    ],
)
def test_names_of_every_kind_are_canonical(name: str) -> None:
    assert parse_block(name).name == str(parse_block(name)) == name


def test_mbconv_counts_by_hand() -> None:
    block = MBConv(24, 40, 56, 56, stride=2, kernel=5, expand=6)
    graph = block.graph()
    expand, depthwise, project = 56 * 56 * 24 * 144, 28 * 28 * 144 * 25, 28 * 28 * 144 * 40
    assert graph.macs == expand + depthwise + project
    assert graph.parameters == 24 * 144 + 144 * 25 + 144 * 40 + 2 * (144 + 144 + 40)
    assert block.output_shape == (28, 28, 40)
    assert [node.name for node in graph.nodes] == ["expand", "expand_act", "depthwise", "depthwise_act", "project"]


def test_squeeze_excite_reduces_the_middle_and_counts_its_biases() -> None:
    plain, gated = (MBConv(8, 16, 4, 4, kernel=3, expand=4, se=se) for se in (0, 0.25))
    assert gated.graph().parameters - plain.graph().parameters == (32 * 8 + 8) + (8 * 32 + 32)
    assert gated.graph().macs - plain.graph().macs == 2 * 32 * 8


@pytest.mark.parametrize(("activation", "gate"), [("hard_swish", "hard_sigmoid"), ("relu6", "sigmoid")])
def test_the_gate_of_squeeze_excite_follows_the_activation(activation: str, gate: str) -> None:
    nodes = {n.name: n.op for n in MBConv(8, 8, 4, 4, se=0.25, activation=ActivationKind(activation)).graph().nodes}
    assert nodes["se_gate"].function == gate  # type: ignore[attr-defined]


@pytest.mark.parametrize(("cout", "stride", "residual"), [(8, 1, True), (8, 2, False), (16, 1, False)])
def test_a_residual_stands_where_the_shape_stays(cout: int, stride: int, residual: bool) -> None:
    block = MBConv(8, cout, 6, 6, stride)
    assert block.residual is residual
    assert ("residual" in [n.name for n in block.graph().nodes]) is residual
    assert MBConv(8, cout, 6, 6, stride, residual=False).graph().nodes[-1].name == "project"


def test_expansion_1_has_no_expansion_layer() -> None:
    assert MBConv(32, 16, 8, 8, expand=1).graph().nodes[0].name == "depthwise"


@pytest.mark.parametrize("stride", [1, 2])
def test_symmetric_padding_adds_a_pad_only_where_it_differs(stride: int) -> None:
    block = ConvBlock(3, 8, 10, 10, stride, padding="symmetric")
    assert (block.graph().nodes[0].op.kind == "pad") is (stride == 2)
    assert block.output_shape == ConvBlock(3, 8, 10, 10, stride).output_shape


def test_skip_is_nothing_or_a_1x1_convolution() -> None:
    assert Skip(8, 8, 4, 4).graph().nodes == ()
    assert Skip(8, 16, 4, 4, 2).graph().macs == 2 * 2 * 8 * 16
    assert Skip(8, 16, 4, 4, 2).output_shape == Zero(8, 16, 4, 4, 2).output_shape == (2, 2, 16)


def test_the_batch_scales_macs_but_not_parameters() -> None:
    one, eight = (MBConv(8, 8, 4, 4).graph(batch) for batch in (1, 8))
    assert eight.macs == 8 * one.macs
    assert eight.parameters == one.parameters
    assert eight.key != one.key


def test_blocks_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        MBConv(8, 8, 4, 4).cin = 9  # type: ignore[misc]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MBConv(0, 8, 4, 4), "MBConv: cin must be an integer from 1 to 2\\^31 - 1, got 0"),
        (lambda: MBConv(8, 8, 4.5, 4), "height must be an integer from 1 to 2\\^31 - 1, got 4.5"),
        (lambda: MBConv(8, 8, 4, 4, 5), "stride must be 1, 2, 3 or 4, got 5"),
        (lambda: MBConv(8, 8, 4, 4, kernel=4), "kernel must be odd, from 1 to 11, got 4"),
        (lambda: MBConv(8, 8, 4, 4, expand=0), "expand must be in"),
        (lambda: MBConv(1, 1, 4, 4, expand=0.1), "middle channels must be at least 1"),
        (lambda: MBConv(8, 8, 4, 4, se=-1), "se must be in"),
        (lambda: MBConv(8, 8, 4, 4, activation="gelu"), "activation must be one of relu, .* got 'gelu'"),
        (lambda: MBConv(8, 8, 4, 4, padding="full"), "padding must be 'same' or 'symmetric', got 'full'"),
        (lambda: Pool("min", 8, 4, 4), "mode must be 'avg' or 'max', got 'min'"),
        (lambda: Pool("avg", 8, 4, 4, kernel=0), "kernel must be an integer from 1 to 11, got 0"),
        (lambda: LinearHead(8, -1, 4, 4), "classes must be an integer from 1 to 2\\^31 - 1, got -1"),
        (lambda: Skip(True, 8, 4, 4), "cin must be an integer from 1 to 2\\^31 - 1, got True"),
    ],
)
def test_impossible_values_are_named(make, message: str) -> None:
    with pytest.raises(BlockError, match=message):
        make()


def test_equal_convolutions_are_shared_but_a_number_that_only_equals_a_size_is_refused() -> None:
    one, other = (MBConv(8, cout, 4, 4, kernel=3).graph().nodes for cout in (8, 12))
    assert one[2].op is other[2].op
    for kernel in (3.0, 1.0):
        with pytest.raises(BlockError, match="conv: kernel must be a positive integer, got"):
            MBConv(8, 8, 4, 4, kernel=kernel).graph()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "unknown block name ''"),
        ("mbconv", "names look like mbconv_k5_e6"),
        ("mbconv_k3_e6_s1_c8-8_4x4_relu6_extra", "activation must be one of|unknown"),
        ("mbconv_k03_e6_s1_c8-8_4x4_relu6", "not canonical; the same block is called 'mbconv_k3_"),
        ("mbconv_k3_e6.0_s1_c8-8_4x4_relu6", "not canonical"),
        ("mbconv_k3_e1.2.3_s1_c8-8_4x4_relu6", "not a number"),
        ("mbconv_k3_e6_s2_c8-8_4x4_relu6_nores", "not canonical"),
        ("skip_s1_c8-8_4x0", "width must be an integer from 1 to 2\\^31 - 1, got 0"),
    ],
)
def test_names_that_are_none_are_refused(name: str, message: str) -> None:
    with pytest.raises(BlockError, match=message):
        parse_block(name)
