"""Random weights and the checking of given ones."""

from __future__ import annotations

import numpy as np
import pytest

from netlathe.archspace.blocks import LinearHead, MBConv
from netlathe.archspace.errors import FormatError
from netlathe.archspace.forms.weights import (
    StoredArrays,
    Weights,
    check_weights,
    placeholder_weights,
    random_weights,
    stored_shapes,
)
from netlathe.archspace.graph import chain
from netlathe.archspace.ops import ActivationKind

GRAPH = chain(
    [
        ("b00", MBConv(4, 4, 8, 8, kernel=5, se=0.25, activation=ActivationKind.RELU).graph()),
        ("head", LinearHead(4, 10, 8, 8).graph()),
    ]
)


def test_kernels_are_oihw_and_depthwise_ones_have_a_single_input_channel() -> None:
    assert {name: shapes["kernel"] for name, shapes in stored_shapes(GRAPH).items()} == {
        "b00/expand": (24, 4, 1, 1),
        "b00/depthwise": (24, 1, 5, 5),
        "b00/se_reduce": (6, 24, 1, 1),
        "b00/se_expand": (24, 6, 1, 1),
        "b00/project": (4, 24, 1, 1),
        "head/linear": (10, 4),
    }


def test_random_weights_fit_their_graph_and_follow_the_seed() -> None:
    weights = random_weights(GRAPH, seed=3)
    check_weights(GRAPH, weights)
    again, other = random_weights(GRAPH, seed=3), random_weights(GRAPH, seed=4)
    for name, layer in weights.items():
        assert np.array_equal(layer["kernel"], again[name]["kernel"])
        assert np.array_equal(layer["bias"], again[name]["bias"])
        assert not np.array_equal(layer["kernel"], other[name]["kernel"])


def test_the_variance_of_random_weights_depends_on_what_uses_the_result() -> None:
    graph = MBConv(64, 64, 8, 8, activation=ActivationKind.RELU).graph()
    weights = random_weights(graph)
    assert weights["expand"]["kernel"].var() == pytest.approx(2 / 64, rel=0.05)  # an activation
    assert weights["depthwise"]["kernel"].var() == pytest.approx(2 / 9, rel=0.05)
    assert weights["project"]["kernel"].var() == pytest.approx(0.25 / 384, rel=0.05)  # the residual sum
    plain = random_weights(MBConv(64, 64, 8, 8, residual=False).graph())
    assert plain["project"]["kernel"].var() == pytest.approx(1 / 384, rel=0.05)  # nothing


def test_a_missing_layer_is_named() -> None:
    weights = {name: layer for name, layer in random_weights(GRAPH).items() if name != "b00/se_expand"}
    with pytest.raises(FormatError, match=r"no weights for layer 'b00/se_expand'.*\(24, 6, 1, 1\)"):
        check_weights(GRAPH, weights)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("kernel", np.zeros((24, 5, 5, 1), np.float32), r"kernel of layer 'b00/depthwise'.*\(24, 1, 5, 5\)"),
        ("kernel", np.zeros((24, 1, 5, 5), np.float64), r"kernel of layer 'b00/depthwise'.*float64"),
        ("bias", np.zeros(23, np.float32), r"bias of layer 'b00/depthwise'.*\(24,\), got float32 of shape \(23,\)"),
    ],
)
def test_a_misshapen_layer_is_named(field: str, value: np.ndarray, message: str) -> None:
    weights: dict[str, StoredArrays] = dict(random_weights(GRAPH))
    weights["b00/depthwise"] = {**weights["b00/depthwise"], field: value}
    with pytest.raises(FormatError, match=message):
        check_weights(GRAPH, weights)


def test_placeholders_fit_their_graph_and_take_no_memory() -> None:
    weights: Weights = placeholder_weights(GRAPH)
    check_weights(GRAPH, weights)
    assert {layer["kernel"].strides for layer in weights.values()} == {(0, 0, 0, 0), (0, 0)}
