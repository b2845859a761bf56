import json

import numpy as np
import pytest
import xgboost
from scipy.optimize import approx_fprime
from sklearn.ensemble import RandomForestRegressor

from netlathe.predictor.blocks.boosted_trees import _ROUNDS, _SETTINGS, fit_boosted_trees
from netlathe.predictor.blocks.gaussian_process import (
    GaussianProcess,
    _negative_log_likelihood,
    fit_gaussian_process,
    op_covariance,
    op_variances,
)
from netlathe.predictor.blocks.random_forest import _MOST_LEAVES, _TREES, fit_random_forest
from netlathe.predictor.blocks.residual import Mixture, NoResidual, fit_residuals, residual_from_json
from netlathe.predictor.blocks.trees import Trees
from netlathe.predictor.features.inputs import Inputs, OpShares, classes_to_json, read_classes
from netlathe.predictor.features.item_features import LOG_FEATURES, Ops
from netlathe.predictor.features.op_work import FIRST_CLASSES, OP_CLASSES, OP_SIZES, TERMS
from netlathe.predictor.numbers import FloatArray
from netlathe.predictor.sparse_rows import SparseRows


def points(n: int, seed: int) -> FloatArray:
    """Items that differ in four of their features."""
    z = np.zeros((n, len(LOG_FEATURES)))
    z[:, :4] = np.random.default_rng(seed).standard_normal((n, 4))
    return z


def inputs(z: FloatArray) -> Inputs:
    """Items of a single op each, whose sizes differ as the items do."""
    sizes = np.zeros((len(z), len(OP_SIZES)))
    sizes[:, :4] = 2 * z[:, :4]
    ops = Ops(np.zeros(len(z), dtype=np.intp), sizes, np.ones((len(z), len(TERMS))))
    return Inputs(z, SparseRows.of(np.eye(len(z))), ops)


def fit_residual(kind, seen, log_ratio, seed):
    return fit_residuals([kind], seen, log_ratio, seed)[kind]


Z = points(80, 0)
EFFECT = 0.2 * np.sin(Z[:, 0]) + 0.1 * (Z[:, 1] > 0)
SEEN = inputs(Z)
KINDS = ("none", "gp", "xgboost", "forest")
REGRESSORS = KINDS[1:]


def test_no_residual_says_nothing():
    assert np.array_equal(fit_residual("none", SEEN, EFFECT, 0).predict(SEEN), np.zeros(80))
    assert isinstance(residual_from_json("none", {}), NoResidual)


@pytest.mark.parametrize("kind", REGRESSORS)
def test_an_effect_of_the_features_is_learnt(kind):
    other = points(200, 1)
    truth = 0.2 * np.sin(other[:, 0]) + 0.1 * (other[:, 1] > 0)
    found = fit_residual(kind, SEEN, EFFECT, 0).predict(inputs(other))
    assert np.mean(np.abs(found - truth)) < 0.4 * np.mean(np.abs(truth))


def test_far_from_the_records_a_process_leaves_the_word_to_the_physics():
    residual = fit_residual("gp", SEEN, EFFECT + 0.5, 0)
    assert residual.fades
    assert np.abs(residual.predict(inputs(Z[:5] + 200))).max() < 1e-3
    assert np.abs(residual.predict(SEEN)).min() > 0.1


def test_what_is_learnt_on_an_op_serves_all_that_contain_one_like_it():
    slow = np.where(np.arange(80) % 2, 0.4, 0.0)
    ops = SEEN.ops._replace(classes=np.arange(80) % 2)
    residual = fit_residual("gp", SEEN._replace(ops=ops), slow, 0)
    half_slow = SparseRows.of(
        np.full((1, 2), 0.5)
    )  # half of its time in an op of each class, at the middle of the sizes
    mixed = Inputs(Z[:1], half_slow, Ops(np.array([0, 1]), np.zeros((2, len(OP_SIZES))), ops.terms[:2]))
    assert residual.predict(mixed) == pytest.approx([0.2], abs=0.03)


@pytest.mark.parametrize("kind", KINDS)
def test_an_isolated_outlier_counts_little(kind):
    spoiled = EFFECT.copy()
    spoiled[::20] += np.log(3)
    clean = fit_residual(kind, SEEN, EFFECT, 0).predict(SEEN)
    assert np.abs(fit_residual(kind, SEEN, spoiled, 0).predict(SEEN) - clean).max() < np.log(3) / 2


@pytest.mark.parametrize("kind", REGRESSORS)
def test_a_whole_group_that_stands_out_is_learnt(kind):
    cliff = np.where(np.arange(80) < 10, 1.5, 0.0)
    z = Z.copy()
    z[:10, 2] += 8
    found = fit_residual(kind, inputs(z), cliff, 0).predict(inputs(z[:10]))
    assert np.median(found) > 1.2


@pytest.mark.parametrize("kind", KINDS)
def test_json_gives_exactly_the_same_residual_back(kind):
    residual = fit_residual(kind, SEEN, EFFECT, 0)
    again = residual_from_json(kind, json.loads(json.dumps(residual.to_json())))
    assert np.array_equal(again.predict(SEEN), residual.predict(SEEN))
    assert again.kind == kind


@pytest.mark.parametrize("kind", KINDS)
def test_equal_seeds_give_equal_residuals(kind):
    first, second = (fit_residual(kind, SEEN, EFFECT, 3).predict(SEEN) for _ in range(2))
    assert np.array_equal(first, second)


@pytest.mark.parametrize("kind", KINDS)
def test_no_items_give_no_values(kind):
    assert fit_residual(kind, SEEN, EFFECT, 0).predict(inputs(Z[:0])).shape == (0,)


def mixture():
    weights = {"gp": 0.7, "forest": 0.3}
    return Mixture(weights, fit_residuals(list(weights), SEEN, EFFECT, 0))


def test_a_mixture_is_the_weighted_mean_of_its_parts_of_which_trees_are_made_to_fade():
    trust, mixed = np.linspace(0, 1, 80), mixture()
    gp, forest = (residual.predict(SEEN) for residual in mixed.residuals.values())
    assert mixed.predict(SEEN, lambda: trust) == pytest.approx(0.7 * gp + 0.3 * forest * trust)
    assert mixed.name == "0.7 gp + 0.3 forest"


def test_what_fades_by_itself_asks_for_no_distances():
    alone = Mixture.alone(fit_residual("gp", SEEN, EFFECT, 0))
    assert alone.name == "gp"
    assert np.array_equal(alone.predict(SEEN, pytest.fail), alone.residuals["gp"].predict(SEEN))


@pytest.mark.parametrize("mixed", [mixture(), Mixture.alone(NoResidual())], ids=["of two", "of one"])
def test_json_gives_exactly_the_same_mixture_back(mixed):
    again = Mixture.from_json(json.loads(json.dumps(mixed.to_json())))
    assert again.weights == mixed.weights
    assert np.array_equal(*(one.predict(SEEN, lambda: np.ones(80)) for one in (again, mixed)))


@pytest.mark.parametrize("weights", [[0.7], [0.7, 0.4], [1.5, -0.5], [0.7, "x"], [0.7, 0.2, 0.1], None])
def test_weights_that_are_none_are_refused(weights):
    with pytest.raises((ValueError, TypeError)):
        Mixture.from_json({**mixture().to_json(), "weights": weights})


def test_a_mixture_has_each_kind_once():
    parts = mixture().to_json()["parts"]
    with pytest.raises(ValueError, match="different"):
        Mixture.from_json({"kind": "mixture", "weights": [0.5, 0.5], "parts": [parts[0], parts[0]]})


def test_items_covary_as_their_ops_do():
    """By the shares of both, among ops of a class, like a Matern process of order 5/2."""
    rng = np.random.default_rng(5)
    parts, classes, sizes = rng.random((6, 9)), np.arange(9) % 2, rng.standard_normal((9, len(OP_SIZES)))
    items = OpShares(SparseRows.of(parts), classes, sizes)
    scaled = sizes / np.array([3, 3, 3, 1.5, 1.5, 0.4, 0.4])
    r = np.sqrt(5) * np.linalg.norm(scaled[:, None] - scaled, axis=2)
    among_ops = (1 + r + r**2 / 3) * np.exp(-r) * (classes[:, None] == classes)
    expected = parts @ among_ops @ parts.T
    assert op_covariance(items.take(np.arange(2)), items) == pytest.approx(expected[:2])
    many = items.take(np.arange(600) % 6)
    assert op_variances(many) == pytest.approx(np.tile(np.diag(expected), 100))
    assert op_variances(items.take(np.zeros(0, dtype=int))).shape == (0,)


def test_the_gradient_of_the_likelihood_is_its_derivative():
    rng = np.random.default_rng(4)
    shares, classes, sizes = rng.random((8, 12)), np.arange(12) % 3, rng.standard_normal((12, len(OP_SIZES)))
    logs = np.log([0.2, 0.05, 1.0, 2.0, 0.7, 3.0, 1.5, 0.9, 1.1])
    given = (shares, classes, sizes, EFFECT[:8])
    _, gradient = _negative_log_likelihood(logs, *given)
    numeric = approx_fprime(logs, lambda x: _negative_log_likelihood(x, *given)[0], 1e-6)
    assert gradient == pytest.approx(numeric, rel=1e-3, abs=1e-3)


def test_a_process_without_noise_passes_through_its_points():
    seen = SEEN.take(np.arange(20))
    process = fit_gaussian_process(seen, np.sin(Z[:20, 0]), 0)
    assert process.predict(seen) == pytest.approx(np.sin(Z[:20, 0]), abs=0.05)


def test_many_records_choose_hyperparameters_on_a_part_and_use_all_points():
    many = inputs(points(400, 2))
    process = fit_gaussian_process(many, np.sin(many.z[:, 0]), 0)
    assert len(process.weights) == 400
    assert process.predict(many) == pytest.approx(np.sin(many.z[:, 0]), abs=0.1)


@pytest.mark.parametrize(
    "damage",
    [
        {"lengths": [1, 1, 1]},
        {"lengths": [1, 1, 1, 1, 1, 1, 0]},
        {"signal": -1},
        {"signal": "NaN"},
        {"weights": [1.0]},
        {"sizes": [1]},
        {"classes": [99] * 80},
    ],
)
def test_a_process_whose_arrays_do_not_fit_is_refused(damage):
    data = {**fit_gaussian_process(SEEN, EFFECT, 0).to_json(), **damage}
    with pytest.raises(ValueError, match=r"shape|above zero|finite|no index"):
        GaussianProcess.from_json(data)


def test_trees_say_what_xgboost_says():
    trees = fit_boosted_trees(SEEN, EFFECT, 5)
    booster = xgboost.train({**_SETTINGS, "seed": 5}, xgboost.DMatrix(Z, EFFECT), _ROUNDS)
    other = points(5000, 3)
    assert trees.predict(inputs(other)) == pytest.approx(booster.predict(xgboost.DMatrix(other)), abs=1e-5)


def test_trees_say_what_scikit_learn_s_forest_says_also_on_the_thresholds():
    z = np.round(points(80, 0), 1)  # so that records sit on midpoints between others
    trees = fit_random_forest(inputs(z), EFFECT, 5)
    forest = RandomForestRegressor(_TREES, max_leaf_nodes=_MOST_LEAVES, max_features=0.5, random_state=5)
    other = np.round(points(5000, 3), 2)
    assert trees.predict(inputs(other)) == pytest.approx(forest.fit(z, EFFECT).predict(other), abs=1e-12)


@pytest.mark.parametrize(
    ("name", "index", "bad"),
    [
        ("left", 1, 0),  # a circle
        ("right", 0, 10**6),  # beyond the trees
        ("left", 0, -1),
        ("feature", 0, len(LOG_FEATURES)),  # a feature that does not exist
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
    data = fit_boosted_trees(SEEN, EFFECT, 0).to_json()
    data[name][index] = bad
    with pytest.raises(ValueError, match=r"circles|no index|finite|inhomogeneous"):
        Trees.from_json("xgboost", data)


def test_trees_of_unequal_lengths_are_refused():
    data = fit_random_forest(SEEN, EFFECT, 0).to_json()
    with pytest.raises(ValueError, match="shape"):
        Trees.from_json("forest", {**data, "left": data["left"][:-1]})


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="'jungle'"):
        residual_from_json("jungle", {})


def test_op_classes_that_came_later_are_known_by_name_in_files():
    assert set(classes_to_json(np.array([0, FIRST_CLASSES - 1]))) == {"classes"}
    later = np.array([0, OP_CLASSES.index("split"), OP_CLASSES.index("conv")])
    data = json.loads(json.dumps(classes_to_json(later)))
    assert (read_classes(data, 3) == later).all()
    names = [*reversed(OP_CLASSES)]
    turned = {"op_classes": names, "classes": [names.index(OP_CLASSES[number]) for number in later]}
    assert (read_classes(turned, 3) == later).all()  # of another version's order
    with pytest.raises(ValueError, match="not in tuple"):
        read_classes({"op_classes": ["warp"], "classes": [0]}, 1)
    with pytest.raises(ValueError, match="no index below"):
        read_classes({"classes": [FIRST_CLASSES]}, 1)
