"""The Gaussian process over decisions: unordered ones by how many differ, ordered ones by how far."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.gaussian_process.kernels import Matern

import netlathe as nl
from netlathe.archspace.decisions import option_places
from netlathe.archspace.presets import tiny
from netlathe.compress.joint import joint_space
from netlathe.search.strategies.blackbox.coarse import CoarseSpace
from netlathe.search.strategies.blackbox.decision_gp import DecisionGP, DecisionKernel

RNG = np.random.default_rng(0)
LINE = tuple(np.linspace(0, 1, 6).tolist())
NETWORKS: NDArray[np.int64] = RNG.integers(0, 6, (80, 5))


def test_without_an_order_the_kernel_counts_the_decisions_that_differ() -> None:
    differ = (NETWORKS[:, None] != NETWORKS).sum(axis=2)
    for places in ((), ((),) * 5):
        kernel = DecisionKernel(0.3, 1.0, places)
        assert np.array_equal(kernel.between(NETWORKS, NETWORKS), np.exp(-0.3 * differ))


def test_with_an_order_it_is_materns_and_mixed_the_product() -> None:
    whole = DecisionKernel(0.3, 0.7, (LINE,) * 5).between(NETWORKS, NETWORKS[:9])
    matern = Matern(1 / 0.7, nu=2.5)(NETWORKS / 5, NETWORKS[:9] / 5)
    assert whole == pytest.approx(matern)
    mixed = DecisionKernel(0.3, 0.7, ((), LINE, (), LINE, LINE)).between(NETWORKS, NETWORKS[:9])
    differ = (NETWORKS[:, None, [0, 2]] != NETWORKS[:9, [0, 2]]).sum(axis=2)
    near = Matern(1 / 0.7, nu=2.5)(NETWORKS[:, [1, 3, 4]] / 5, NETWORKS[:9, [1, 3, 4]] / 5)
    assert mixed == pytest.approx(np.exp(-0.3 * differ) * near)


@pytest.mark.parametrize("places", [(LINE,) * 5, (LINE, LINE, (), LINE, ())])
def test_of_a_score_that_goes_by_the_order_it_tells_more_than_without_one(
    places: tuple[tuple[float, ...], ...],
) -> None:
    scores = -((NETWORKS / 5) ** 2).sum(axis=1)  # the narrower, the worse, and the more so
    scores = (scores - scores.mean()) / scores.std()
    rest = slice(20, None)

    def error(process: DecisionGP) -> float:
        return float(np.abs(process.predict(NETWORKS[rest])[0] - scores[rest]).mean())

    ordered = error(DecisionGP.fit(NETWORKS[:20], scores[:20], places))
    assert ordered < 0.6 * error(DecisionGP.fit(NETWORKS[:20], scores[:20]))


def test_places_are_those_of_widths_and_of_nothing_else() -> None:
    graph = nl.network("mobilenet_v2_0.35_96").graph()
    space = joint_space(graph, precisions=("float32", "int8"), leave_out=True)
    places = option_places(space)
    assert len(places) == len(space.option_counts)
    for widths, own in zip(space.widths, places, strict=False):
        shares = np.log(widths[0] / np.array(widths))
        assert own == pytest.approx(shares / shares[-1])
    assert set(places[len(space.widths) :]) == {()}
    coarse = CoarseSpace.of(space, np.arange(max(space.option_counts)) < np.array(space.option_counts)[:, None])
    for kept, own, thinned in zip(coarse.kept, places, option_places(coarse), strict=True):
        assert thinned == (tuple(own[option] for option in kept) if own else ())
    blocks = tiny(8)
    assert option_places(blocks) == ((),) * len(blocks.option_counts)
