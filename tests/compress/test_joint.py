"""Widths, blocks and precisions as one decision space, with scores in one unit."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from netlathe.archspace.decisions import DecisionSpace
from netlathe.archspace.errors import SpaceError
from netlathe.archspace.forms.tflite import write_tflite
from netlathe.archspace.forms.tflite_size import tflite_bytes
from netlathe.archspace.forms.weights import random_weights
from netlathe.archspace.graph import Graph, GraphBuilder
from netlathe.archspace.networks import network
from netlathe.archspace.ops import Activation, ActivationKind, Add, Conv2d, FullyConnected, GlobalAvgPool
from netlathe.archspace.precisions import Precision, precisions_of, unmixed
from netlathe.compress import (
    CompressError,
    JointSpace,
    Sensitivity,
    check_precisions,
    joint_space,
    magnitudes,
    sensitivity_by_weights,
    width_space,
)

RELU = Activation(ActivationKind.RELU)


def residual(batch: int = 1) -> Graph:
    """A stem without an activation, a residual block whose sum one follows, a head."""
    builder = GraphBuilder((batch, 8, 8, 3))
    stem = builder.add("stem", Conv2d(16, (3, 3)), 0, scope="a")
    x = builder.add("first", Conv2d(24, (3, 3)), stem, scope="b")
    x = builder.add("first_relu", RELU, x, scope="b")
    x = builder.add("second", Conv2d(16, (3, 3)), x, scope="b")
    x = builder.add("sum", Add(), stem, x, scope="b")
    x = builder.add("relu", RELU, x, scope="b")
    x = builder.add("pool", GlobalAvgPool(), x, scope="c")
    return builder.build(builder.add("head", FullyConnected(10), x, scope="c"))


ALL = ("int8", "float32", "float16", "int8-weights")
SPACE = joint_space(residual(), "small", precisions=ALL, leave_out=True, at_batch=residual)


def test_decisions_on_widths_blocks_and_precisions_stand_one_behind_the_other() -> None:
    space: DecisionSpace = SPACE
    assert SPACE.decision_names == (
        "stem", "first", "sum", "precision of a", "precision of b", "precision of c",
    )  # fmt: skip
    assert space.option_counts == (2, 3, 2, 4, 4, 4)
    assert SPACE.precisions == ("float32", "float16", "int8", "int8-weights")
    assert space.graph(space.reference) == residual()
    assert space.graph((1, 2, 0, 0, 2, 1), 4).inputs == ((4, 8, 8, 3),)
    assert space.network_name((1, 2, 0, 0, 2, 1)) == "small-120021"
    assert SPACE.alike(0.5, 2) == (1, 1, 0, 2, 2, 2)
    with pytest.raises(SpaceError, match="'precision of c' has 4 options, there is no number 4"):
        space.graph((0, 0, 0, 0, 0, 4))


def test_of_float32_alone_it_is_the_space_of_widths() -> None:
    plain, widths = joint_space(residual(), "small"), width_space(residual(), "small", leave_out=False)
    assert plain.option_counts == widths.option_counts
    assert plain.decision_names == widths.decision_names
    for choices in itertools.product(*map(range, widths.option_counts)):
        assert plain.graph(choices) == widths.graph(choices)
        assert plain.network_name(choices) == widths.network_name(choices)


def test_each_network_is_the_narrower_one_in_its_precisions_and_so_is_its_file() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        choices = tuple(int(rng.integers(count)) for count in SPACE.option_counts)
        graph, shaped = SPACE.graph(choices), SPACE.shaped_graph(choices)
        assert unmixed(graph) == shaped
        content = write_tflite(graph, random_weights(shaped))
        check_precisions(content, SPACE.segments_at(choices, shaped), SPACE.plan(choices))


def test_an_activation_behind_a_block_left_out_goes_with_the_layer_that_applies_it() -> None:
    choices = (0, 0, 1, 2, 0, 0)
    graph = SPACE.graph(choices)
    assert precisions_of(graph) == {"stem": "int8", "relu": "int8", "pool": "float32", "head": "float32"}
    segments = SPACE.segments_at(choices, SPACE.shaped_graph(choices))
    assert [(one.name, one.nodes) for one in segments] == [("a", ("stem", "relu")), ("b", ()), ("c", ("pool", "head"))]


def test_scores_are_minus_the_rise_of_the_loss() -> None:
    scores = magnitudes(SPACE.coupled, random_weights(residual()))
    rises = {
        "sum": (0.0, 0.5), "precision of a": (0, 0.01, 0.2, 0.1), "precision of b": (0, 0, 0.3, 0.1),
        "precision of c": (0, 0, 0.4, 0.1),
    }  # fmt: skip
    plain = SPACE.option_scores(scores, comparable=False)
    assert np.isneginf(plain[2:, 1:]).all()
    found = SPACE.option_scores(scores, comparable=False, sensitivity=Sensitivity(3.0, rises))
    assert found[:2].tolist() == (3 * plain[:2]).tolist()
    assert found[2].tolist() == [0.0, -0.5, -np.inf, -np.inf]
    assert found[3].tolist() == [0.0, -0.01, -0.2, -0.1]
    with pytest.raises(CompressError, match="'precision of c' needs a rise of the loss for each of 4 options"):
        SPACE.option_scores(scores, sensitivity=Sensitivity(1.0, {**rises, "precision of c": (0, 1)}))


def test_without_images_what_weights_round_badly_is_worth_more() -> None:
    """A kernel with one far outlier loses the most in int8; float16 loses next to nothing, a block the most."""
    weights = {
        name: {key: array.copy() for key, array in one.items()} for name, one in random_weights(residual()).items()
    }
    weights["head"]["kernel"][:, 0] = 50.0
    rises = sensitivity_by_weights(SPACE, weights).rises
    a, b, c = (rises[f"precision of {name}"] for name in "abc")
    assert a[0] == b[0] == c[0] == 0
    assert all(one[1] < 1e-6 < one[3] < one[2] for one in (a, b, c))
    assert c[3] > 5 * b[3] / 2
    assert rises["sum"][1] > 100 * max(a[2], b[2], c[2])


@pytest.mark.parametrize("precision", range(4))
def test_the_size_of_a_file_is_known_before_it_is_written(precision: int) -> None:
    space = joint_space(network("mobilenet_v2_0.35_96").graph(), precisions=ALL)
    for choices in (space.alike(0.6, precision), (*space.alike(0.3)[: len(space.groups)], *[0, precision] * 10)):
        graph = space.graph(choices)
        assert tflite_bytes(graph) == pytest.approx(len(write_tflite(graph)), rel=0.01)


def test_precisions_are_refused_in_a_sentence() -> None:
    for given, message in (
        (("int8",), "float32 must be among the precisions"),
        (("float32", "float32"), "precisions must be different ones"),
        (("float32", "int4"), "int4 is not written: LiteRT 2.3 refuses depthwise"),
        (("float32", "int7"), "the precision must be one of float32, float16, int8, int8-weights, got 'int7'"),
    ):
        with pytest.raises(CompressError, match=message):
            joint_space(residual(), precisions=given)


def test_a_space_of_precisions_alone_has_no_widths() -> None:
    space: JointSpace = joint_space(residual(), precisions=("float32", "int8"), least_share=1.0)
    assert space.option_counts == (2, 2, 2)
    assert space.graph((0, 1, 0)) != space.graph((0, 0, 0))
    assert space.plan((0, 1, 0)) == {"a": Precision.FLOAT32, "b": Precision.INT8, "c": Precision.FLOAT32}
