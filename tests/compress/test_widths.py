"""Widths and residual blocks as a decision space, and the importance of channels."""

from __future__ import annotations

import random

import numpy as np
import pytest
from networks import Drawn, run

from netlathe.archspace.decisions import DecisionSpace
from netlathe.archspace.errors import SpaceError
from netlathe.archspace.forms.weights import check_weights, random_weights
from netlathe.archspace.graph import Graph, GraphBuilder
from netlathe.archspace.networks import network
from netlathe.archspace.ops import Add, Conv2d
from netlathe.compress import CompressError, couple_channels, magnitudes, most_important, width_space
from netlathe.search import Constraint, CostTable, decode


def two_layers(batch: int = 1) -> Graph:
    builder = GraphBuilder((batch, 8, 8, 3))
    x = builder.add("a", Conv2d(30), 0)
    y = builder.add("sum", Add(), x, builder.add("c", Conv2d(30), builder.add("b", Conv2d(8), x)))
    return builder.build(builder.add("head", Conv2d(5), y))


def test_options_are_multiples_of_the_step_from_the_whole_width_down() -> None:
    space = width_space(two_layers(), "two")
    checked: DecisionSpace = space
    assert (space.decision_names, space.widths) == (("a", "sum"), ((30, 24, 16, 8),))  # "b" has one width alone
    assert (checked.option_counts, checked.reference, checked.name) == ((4, 2), (0, 0), "two")
    assert width_space(two_layers(), step=4, least_share=0.5).widths == ((30, 28, 24, 20, 16), (8, 4))
    assert width_space(two_layers(), widths={"b": [2, 8, 5]}, leave_out=False).option_counts == (4, 3)
    assert width_space(two_layers(), ignored=["a", "b"]).decision_names == ("sum",)


def test_units_of_several_channels_are_never_cut_in_two() -> None:
    builder = GraphBuilder((1, 8, 8, 3))
    x = builder.add("b", Conv2d(48, groups=3), builder.add("a", Conv2d(48), 0))
    space = width_space(builder.build(builder.add("head", Conv2d(5), x)))
    assert [group.channels_per_unit for group in space.groups] == [3, 3]
    assert space.widths == ((48, 24), (48, 24))


def test_the_reference_is_the_network_itself_and_any_choices_are_a_network() -> None:
    graph = network("mobilenet_v2").graph()
    space = width_space(graph)
    assert space.graph(space.reference) == graph
    rng = random.Random(0)
    weights = random_weights(graph)
    scores = magnitudes(space.coupled, weights)
    for _ in range(3):
        choices = tuple(rng.randrange(count) for count in space.option_counts)
        found, left = space.pruned(choices, weights, scores)
        assert space.graph(choices) == found
        check_weights(found, left)
        given = {node.name: results[0][-1] for node, _, results in found.steps()}
        for group, widths, choice in zip(space.groups, space.widths, choices, strict=False):
            assert given.get(group.name, widths[choice]) == widths[choice]


def test_drawn_networks_are_networks_at_any_choices() -> None:
    for seed in range(20):
        graph = Drawn(seed).graph
        space = width_space(graph, step=2)
        rng = random.Random(seed)
        for _ in range(5):
            choices = tuple(rng.randrange(count) for count in space.option_counts)
            found = space.graph(choices)
            assert (found.inputs, found.output_shapes) == (graph.inputs, graph.output_shapes)
            assert found.macs <= graph.macs


def test_another_batch_is_read_again() -> None:
    space = width_space(two_layers(), "two", at_batch=two_layers)
    assert space.graph((1, 1), batch=4).shapes == tuple((4, *s[1:]) for s in space.graph((1, 1)).shapes)
    with pytest.raises(SpaceError, match="'two' is of batch 1; to have it at 4, read it so"):
        width_space(two_layers(), "two").graph((1, 1), batch=4)
    other = width_space(two_layers(), "two", at_batch=lambda batch: Drawn(0).graph)
    with pytest.raises(SpaceError, match="another network at batch 4"):
        other.graph((1, 1), batch=4)


@pytest.mark.parametrize("choices", [(0,), (0, 0, 0), (4, 0), (-1, 0), (0, 2)])
def test_choices_that_there_are_not_are_refused(choices: tuple[int, ...]) -> None:
    space = width_space(two_layers(), "two")
    for ask in (space.graph, space.network_name):
        with pytest.raises(SpaceError, match=r"'two' has 2 decisions|has [24] options, there is no number"):
            ask(choices)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"step": 0}, "step must be a positive number of channels, got 0"),
        ({"least_share": 0}, "least_share must be above 0 and at most 1, got 0"),
        ({"widths": {"a": [40]}}, "group 'a' can have 1 to 30 channels in steps of 1, not 40"),
        ({"widths": {"x": [4]}}, "no group of channels 'x'"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(CompressError, match=message):
        width_space(two_layers(), **settings)  # type: ignore[arg-type]


def test_magnitudes_are_norms_over_all_kernels_that_a_unit_is_in() -> None:
    graph = two_layers()
    weights = random_weights(graph)
    kernels = {name: arrays["kernel"][..., 0, 0].astype(float) for name, arrays in weights.items()}
    found = magnitudes(couple_channels(graph), weights)
    squares = sum((kernels[name] ** 2).sum(1) for name in "ac") + sum((kernels[n] ** 2).sum(0) for n in ("b", "head"))
    np.testing.assert_allclose(found["a"], np.sqrt(squares))
    absolute = magnitudes(couple_channels(graph), weights, order=1)["b"]
    np.testing.assert_allclose(absolute, np.abs(kernels["b"]).sum(1) + np.abs(kernels["c"]).sum(0))
    with pytest.raises(CompressError, match="norms of order 1 or 2, got 3"):
        magnitudes(couple_channels(graph), weights, order=3)


def test_the_most_important_units_are_kept_in_order() -> None:
    assert most_important(np.array([1.0, 5.0, 2.0, 5.0, 0.5]), 3).tolist() == [1, 2, 3]
    assert most_important(np.ones(4), 2).tolist() == [0, 1]


def test_cutting_by_importance_changes_less_than_cutting_the_most_important() -> None:
    graph = two_layers()
    weights = random_weights(graph)
    weights["a"]["kernel"][::2] *= 0.01
    weights["c"]["kernel"][::2] *= 0.01
    space = width_space(graph, leave_out=False)
    scores = magnitudes(space.coupled, weights)
    whole = run(graph, weights)[0]
    best, worst = (
        np.abs(run(*space.pruned((2,), weights, given))[0] - whole).max()
        for given in (scores, {name: -found for name, found in scores.items()})
    )
    assert best < worst / 3
    with pytest.raises(CompressError, match="group 'a' needs a score for each of its 30 units"):
        space.pruned((2,), weights, {})


def test_a_search_finds_the_widest_network_under_a_limit() -> None:
    """Tables, limits and exact decoding take the space as it is."""
    space = width_space(two_layers(), leave_out=False)

    class Macs:
        def predict(self, graphs: list[Graph]) -> np.ndarray:
            return np.array([graph.macs / 1e3 for graph in graphs])

    table = CostTable.tabulate(space, Macs())
    limit = Constraint(table, space.graph((2,)).macs / 1e3)
    assert decode(np.array([space.widths[0]], float), [limit]) == (2,)
