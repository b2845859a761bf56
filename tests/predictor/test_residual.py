import json

import numpy as np
import pytest
import xgboost
from scipy.optimize import approx_fprime

from predictor.boosted_trees import _ROUNDS, _SETTINGS, BoostedTrees, fit_boosted_trees
from predictor.gaussian_process import GaussianProcess, _negative_log_likelihood, fit_gaussian_process
from predictor.residual import NoResidual, fit_residual, residual_from_json

RNG = np.random.default_rng(0)
Z = RNG.standard_normal((80, 4))
EFFECT = 0.2 * np.sin(Z[:, 0]) + 0.1 * (Z[:, 1] > 0)
NEAR = np.zeros(80)
KINDS = ("none", "gp", "xgboost")


def test_no_residual_says_nothing():
    assert np.array_equal(fit_residual("none", Z, EFFECT, 0).predict(Z, NEAR), np.zeros(80))
    assert isinstance(residual_from_json("none", {}, 4), NoResidual)


@pytest.mark.parametrize("kind", ["gp", "xgboost"])
def test_an_effect_of_the_features_is_learnt(kind):
    other = np.random.default_rng(1).standard_normal((200, 4))
    truth = 0.2 * np.sin(other[:, 0]) + 0.1 * (other[:, 1] > 0)
    found = fit_residual(kind, Z, EFFECT, 0).predict(other, np.zeros(200))
    assert np.mean(np.abs(found - truth)) < 0.4 * np.mean(np.abs(truth))


@pytest.mark.parametrize("kind", ["gp", "xgboost"])
def test_far_from_the_records_only_the_physics_speaks(kind):
    residual = fit_residual(kind, Z, EFFECT + 0.5, 0)
    far = residual.predict(Z[:5] + 200, np.full(5, 100.0))
    assert np.abs(far).max() < 1e-3
    assert np.abs(residual.predict(Z[:5], NEAR[:5])).min() > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_an_isolated_outlier_counts_little(kind):
    spoiled = EFFECT.copy()
    spoiled[::20] += np.log(3)
    clean = fit_residual(kind, Z, EFFECT, 0).predict(Z, NEAR)
    assert np.abs(fit_residual(kind, Z, spoiled, 0).predict(Z, NEAR) - clean).max() < np.log(3) / 2


@pytest.mark.parametrize("kind", ["gp", "xgboost"])
def test_a_whole_group_that_stands_out_is_learnt(kind):
    cliff = np.where(np.arange(80) < 10, 1.5, 0.0)
    z = Z.copy()
    z[:10, 2] += 8
    found = fit_residual(kind, z, cliff, 0).predict(z[:10], NEAR[:10])
    assert np.median(found) > 1.2


@pytest.mark.parametrize("kind", KINDS)
def test_json_gives_exactly_the_same_residual_back(kind):
    residual = fit_residual(kind, Z, EFFECT, 0)
    again = residual_from_json(kind, json.loads(json.dumps(residual.to_json())), 4)
    assert np.array_equal(again.predict(Z, NEAR), residual.predict(Z, NEAR))
    assert again.kind == kind


@pytest.mark.parametrize("kind", KINDS)
def test_equal_seeds_give_equal_residuals(kind):
    first, second = (fit_residual(kind, Z, EFFECT, 3).predict(Z, NEAR) for _ in range(2))
    assert np.array_equal(first, second)


@pytest.mark.parametrize("kind", KINDS)
def test_no_items_give_no_values(kind):
    assert fit_residual(kind, Z, EFFECT, 0).predict(np.zeros((0, 4)), np.zeros(0)).shape == (0,)


def test_the_gradient_of_the_likelihood_is_its_derivative():
    squares = (Z[:12, None] - Z[None, :12]) ** 2
    logs = np.log([0.2, 0.05, 1.0, 2.0, 0.7, 3.0])
    _, gradient = _negative_log_likelihood(logs, squares, EFFECT[:12])
    numeric = approx_fprime(logs, lambda x: _negative_log_likelihood(x, squares, EFFECT[:12])[0], 1e-6)
    assert gradient == pytest.approx(numeric, rel=1e-3, abs=1e-3)


def test_a_process_without_noise_passes_through_its_points():
    process = fit_gaussian_process(Z[:20], np.sin(Z[:20, 0]), 0)
    assert process.predict(Z[:20], NEAR[:20]) == pytest.approx(np.sin(Z[:20, 0]), abs=0.05)


def test_many_records_choose_hyperparameters_on_a_part_and_use_all_points():
    z = np.random.default_rng(2).standard_normal((400, 2))
    assert fit_gaussian_process(z, np.sin(z[:, 0]), 0).points.shape == (400, 2)


@pytest.mark.parametrize(
    "damage",
    [
        {"lengths": [1, 1, 1]},
        {"lengths": [1, 1, 1, 0]},
        {"signal": -1},
        {"signal": "NaN"},
        {"weights": [1.0]},
        {"points": [1]},
    ],
)
def test_a_process_whose_arrays_do_not_fit_is_refused(damage):
    data = {**fit_gaussian_process(Z, EFFECT, 0).to_json(), **damage}
    with pytest.raises(ValueError, match=r"shape|above zero|finite"):
        GaussianProcess.from_json(data, 4)


def test_trees_say_what_xgboost_says():
    trees = fit_boosted_trees(Z, EFFECT, 5)
    booster = xgboost.train({**_SETTINGS, "seed": 5}, xgboost.DMatrix(Z, EFFECT), _ROUNDS)
    other = np.random.default_rng(3).standard_normal((5000, 4))
    expected = booster.predict(xgboost.DMatrix(other))
    assert trees.predict(other, np.zeros(5000)) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "index", "bad"),
    [
        ("left", 1, 0),  # a circle
        ("right", 0, 10**6),  # beyond the trees
        ("left", 0, -1),
        ("feature", 0, 77),  # a feature that does not exist
        ("feature", 0, -1),
        ("roots", 3, -1),
        ("roots", 3, 10**6),
        ("value", 0, float("inf")),
        ("value", 0, "NaN"),
        ("feature", 0, 0.5),
        ("left", 0, 1e300),
        ("right", 0, [1]),
    ],
)
def test_trees_that_lead_nowhere_are_refused(name, index, bad):
    data = fit_boosted_trees(Z, EFFECT, 0).to_json()
    data[name][index] = bad
    with pytest.raises(ValueError, match=r"circles|no index|finite|inhomogeneous"):
        BoostedTrees.from_json(data, 4)


def test_trees_for_more_features_than_there_are_or_of_unequal_lengths_are_refused():
    data = fit_boosted_trees(Z, EFFECT, 0).to_json()
    with pytest.raises(ValueError, match="no index below 3"):
        BoostedTrees.from_json(data, 3)
    with pytest.raises(ValueError, match="shape"):
        BoostedTrees.from_json({**data, "left": data["left"][:-1]}, 4)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="'forest'"):
        residual_from_json("forest", {}, 4)
