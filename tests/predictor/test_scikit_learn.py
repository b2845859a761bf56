"""A LatencyPredictor is a scikit-learn regressor on tables of configurations."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from synthetic_latency import SETUP, random_blocks, true_latency_ms

from netlathe.archspace.blocks import ConvBlock, Skip
from netlathe.archspace.errors import RecordError
from netlathe.predictor import LatencyPredictor, PredictorError

BLOCKS = random_blocks(60, seed=4)
TABLE = pd.DataFrame(
    [
        {"op": "mbconv", "h": b.height, "cin": b.cin, "cout": b.cout, "kernel": b.kernel, "stride": b.stride,
         "expand": b.expand, "se": b.se}
        for b in BLOCKS
    ]
)  # fmt: skip
LATENCY_MS = np.array([true_latency_ms(b.graph()) for b in BLOCKS])


def test_a_table_says_the_same_as_the_blocks_it_describes():
    by_table = LatencyPredictor("none").fit(TABLE, LATENCY_MS)
    by_blocks = LatencyPredictor("none").fit(BLOCKS, LATENCY_MS)
    assert np.array_equal(by_table.predict(TABLE), by_blocks.predict(BLOCKS))
    assert by_table.predict(TABLE) == pytest.approx(LATENCY_MS, rel=0.05)


def test_parameters_are_read_set_and_cloned():
    predictor = LatencyPredictor("gp", random_state=3)
    assert predictor.get_params() == {"residual": "gp", "random_state": 3, "prior": None}
    assert clone(predictor.set_params(residual="none")).residual == "none"
    assert is_regressor(predictor)
    with pytest.raises(ValueError, match="Invalid parameter 'depth'"):
        predictor.set_params(depth=3)


def test_fit_returns_the_predictor_and_a_clone_is_not_fitted():
    predictor = LatencyPredictor("none")
    assert predictor.fit(TABLE, LATENCY_MS) is predictor
    with pytest.raises(NotFittedError, match=r"call fit.*or LatencyPredictor.load"):
        clone(predictor).predict(TABLE)


def test_it_works_in_a_pipeline_and_a_grid_search():
    only_known = FunctionTransformer(lambda table: table.drop(columns=["comment"]))
    pipeline = Pipeline([("columns", only_known), ("latency", LatencyPredictor())])
    search = GridSearchCV(pipeline, {"latency__residual": ["none", "gp"]}, cv=3)
    search.fit(TABLE.assign(comment="measured in spring"), LATENCY_MS)
    assert search.best_score_ > 0.9
    assert set(search.cv_results_["param_latency__residual"]) == {"none", "gp"}


def test_graphs_can_be_cross_validated_too():
    scores = cross_val_score(LatencyPredictor("none"), [b.graph() for b in BLOCKS], LATENCY_MS, cv=4)
    assert scores.min() > 0.9


def test_a_setup_can_be_named_and_is_unknown_otherwise():
    assert LatencyPredictor("none").fit(BLOCKS, LATENCY_MS, setup=SETUP).setup_ == SETUP
    assert LatencyPredictor("none").fit(BLOCKS, LATENCY_MS).setup_.device == "unknown device"


def test_the_batch_of_graphs_is_that_of_the_predictor():
    predictor = LatencyPredictor("none").fit([b.graph(8) for b in BLOCKS], LATENCY_MS)
    assert predictor.setup_.batch == 8
    with pytest.raises(PredictorError, match="batches of 1, but the predictor was fitted on batches of 8"):
        predictor.predict([BLOCKS[0].graph()])


@pytest.mark.parametrize(
    ("latency_ms", "message"),
    [
        ([1.0, 2.0], "60 items need as many latencies"),
        ([*LATENCY_MS[:-1], 0.0], "latency 59 is 0 ms"),
        ([*LATENCY_MS[:-1], float("nan")], "latency 59 is nan ms"),
        (["fast"] * 60, "not numbers"),
    ],
)
def test_latencies_that_are_none_are_refused(latency_ms, message):
    with pytest.raises(PredictorError, match=message):
        LatencyPredictor("none").fit(BLOCKS, latency_ms)


def test_arrays_and_series_of_graphs_are_lists_too():
    graphs = [b.graph(8) for b in BLOCKS]
    array = np.empty(len(graphs), dtype=object)
    array[:] = graphs
    expected = LatencyPredictor("none").fit(graphs, LATENCY_MS).predict(graphs)
    for given in (array, pd.Series(graphs)):
        assert np.array_equal(LatencyPredictor("none").fit(given, LATENCY_MS).predict(given), expected)


def test_an_identity_is_no_measurement():
    with_identity = [Skip(24, 24, 56, 56), *BLOCKS]
    predictor = LatencyPredictor("none").fit(with_identity, [0.001, *LATENCY_MS])
    assert predictor.n_blocks_ == len(BLOCKS)


def test_a_loaded_predictor_still_names_its_prior(tmp_path):
    items = [ConvBlock(32, 64, s, s, kernel=1) for s in (7, 14, 28)]
    LatencyPredictor(prior="phones49").fit(items, [0.1, 0.3, 1.0]).save(tmp_path / "p.json")
    assert LatencyPredictor.load(tmp_path / "p.json").get_params()["prior"] == "phones49"


def test_items_without_latencies_are_refused():
    with pytest.raises(PredictorError, match="give the latencies in ms as the second argument"):
        LatencyPredictor("none").fit(BLOCKS)


def test_a_bad_row_is_named():
    table = TABLE.assign(op=["mbconv"] * 59 + ["warp"])
    with pytest.raises(RecordError, match="row 59: unknown op 'warp'"):
        LatencyPredictor("none").fit(table, LATENCY_MS)


def test_networks_alone_are_enough():
    """Three blocks each, of which only the sum was ever measured."""
    networks = [tuple(b.graph() for b in BLOCKS[i : i + 3]) for i in range(40)]
    truth = np.array([sum(map(true_latency_ms, network)) for network in networks])
    predictor = LatencyPredictor("none").fit(networks[:30], truth[:30])
    assert (predictor.n_blocks_, predictor.n_networks_) == (0, 30)
    assert predictor.predict(networks[30:]) == pytest.approx(truth[30:], rel=0.15)
    low, high = predictor.predict_interval(networks[30:])
    assert ((low < truth[30:]) & (truth[30:] < high)).mean() >= 0.8


def test_an_empty_network_in_pieces_is_refused():
    with pytest.raises(PredictorError):
        LatencyPredictor("none").fit([(), *BLOCKS], [1.0, *LATENCY_MS])
