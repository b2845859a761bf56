import collections
import gc
import subprocess
import sys
import weakref

import numpy as np
import pandas as pd
import pytest
import sklearn.base
import sklearn.exceptions
from synthetic_latency import (
    SETUP,
    block_records,
    head_and_stem_records,
    network_records,
    random_blocks,
    random_network,
    record,
    true_latency_ms,
    unscoped,
)

from netlathe.archspace.blocks import Block, ConvBlock, MBConv, Skip
from netlathe.archspace.errors import NetlatheError, RecordError
from netlathe.archspace.graph import chain
from netlathe.archspace.records import LatencyRecord, Setup, Status
from netlathe.archspace.spaces import SearchSpace
from netlathe.predictor import LatencyPredictor, NotFittedError, PredictorError, TooFewRecordsError, UnknownOpError

BLOCKS = random_blocks(100)
OTHERS = [b for b in random_blocks(300, seed=1) if b not in BLOCKS]
OTHERS_MS = np.array([true_latency_ms(b.graph()) for b in OTHERS])


@pytest.fixture(scope="module")
def fitted() -> LatencyPredictor:
    records = block_records(BLOCKS, noise=0.01) + head_and_stem_records()
    return LatencyPredictor().fit(records + network_records(range(12), slope=1.1, offset_ms=0.4, noise=0.01))


def test_blocks_never_seen_are_predicted_within_a_few_percent(fitted):
    assert np.mean(np.abs(fitted.predict(OTHERS) / OTHERS_MS - 1)) < 0.03
    assert np.mean(np.abs(fitted.predict(OTHERS) / OTHERS_MS - 1) < 0.1) > 0.98


def test_what_is_predicted_does_not_depend_on_how_many_are_lowered_at_once(fitted, monkeypatch):
    items = [*OTHERS[:40], *BLOCKS[:5], *OTHERS[:40], random_network(3), random_network(3)]
    alone = [fitted.predict([item])[0] for item in items]
    bounds = np.array(fitted.predict_interval(items))
    monkeypatch.setattr("netlathe.predictor.predictor._BATCH", 7)
    monkeypatch.setattr("netlathe.predictor.predictor._WINDOW", 20)
    assert fitted.predict(items) == pytest.approx(alone, rel=1e-12)
    assert fitted.predict(collections.deque(items)) == pytest.approx(alone, rel=1e-12)
    assert np.array(fitted.predict_interval(items)) == pytest.approx(bounds, rel=1e-12)
    assert len(fitted.predict([])) == 0


def test_only_a_part_of_many_graphs_is_in_memory_at_once_and_equal_blocks_are_lowered_once(fitted, monkeypatch):
    monkeypatch.setattr("netlathe.predictor.predictor._BATCH", 7)
    lowered, alive, most = [], weakref.WeakValueDictionary(), []

    def graph(block, batch=1):
        found = Block.graph(block, batch)
        lowered.append(block)
        alive[len(lowered)] = found
        most.append(len(alive))
        return found

    monkeypatch.setattr(MBConv, "graph", graph)
    monkeypatch.setattr(ConvBlock, "graph", graph)
    fitted.predict([*OTHERS[:50], *OTHERS[:50]])
    assert lowered == OTHERS[:50]
    assert max(most) <= 2 * 7


def test_a_bad_row_of_a_large_table_is_named_by_its_number_in_the_whole(fitted, monkeypatch):
    monkeypatch.setattr("netlathe.predictor.predictor._WINDOW", 20)
    table = pd.DataFrame({"op": "mbconv", "height": 14, "cin": 16, "cout": 16, "kernel": [3] * 44 + [4], "expand": 3})
    with pytest.raises(RecordError, match="row 44: MBConv: kernel must be odd"):
        fitted.predict(table)


def test_the_cliff_at_seven_by_seven_is_predicted(fitted):
    five, seven = fitted.predict([MBConv(32, 32, 28, 28, kernel=k) for k in (5, 7)])
    truth = [true_latency_ms(MBConv(32, 32, 28, 28, kernel=k).graph()) for k in (5, 7)]
    assert seven / five == pytest.approx(truth[1] / truth[0], rel=0.1)


def test_a_residual_learns_what_the_physics_cannot_say():
    def uneven(record_: LatencyRecord) -> float:  # wide inputs are 30 % dearer than their work
        return record_.latency_ms * (1.3 if record_.graph.input_shape[3] >= 40 else 1.0)

    train, test = block_records(BLOCKS, noise=0.01), block_records(OTHERS)
    train = [record(r.name, r.graph, uneven(r)) for r in train]
    truth = np.array([uneven(r) for r in test])
    errors = {}
    for residual in ("none", "auto"):
        predictor = LatencyPredictor(residual).fit(train)
        errors[residual] = np.mean(np.abs(predictor.predict(OTHERS) / truth - 1))
    assert predictor.residual_ != "none"
    assert errors["auto"] < 0.5 * errors["none"]


@pytest.mark.parametrize(
    ("residual", "factor"),
    [
        *((residual, 0.2) for residual in ("none", "gp", "xgboost", "forest")),
        ("auto", 3),
        pytest.param("auto", 0.2, marks=pytest.mark.slow),
        *(pytest.param(residual, 3, marks=pytest.mark.slow) for residual in ("none", "gp", "xgboost", "forest")),
    ],
)
def test_outliers_among_the_records_do_not_spoil_the_rest(residual, factor):
    records = block_records(BLOCKS, noise=0.01)
    records = [record(r.name, r.graph, r.latency_ms * (factor if i % 20 == 0 else 1)) for i, r in enumerate(records)]
    predicted = LatencyPredictor(residual).fit(records).predict(OTHERS)
    assert np.mean(np.abs(predicted / OTHERS_MS - 1) < 0.1) > 0.93


def test_intervals_cover_nine_tenths_of_new_blocks(fitted):
    noisy = OTHERS_MS * np.exp(0.01 * np.random.default_rng(5).standard_normal(len(OTHERS)))
    low, high = fitted.predict_interval(OTHERS, 0.9)
    assert np.mean((low <= noisy) & (noisy <= high)) >= 0.85
    normal = 2 * 1.645 * 0.01  # log width of nine tenths of the noise, were everything else known
    assert 1 < np.median(np.log(high / low)) / normal < 1.6
    assert (low < fitted.predict(OTHERS)).all()
    assert (fitted.predict(OTHERS) < high).all()


def test_intervals_widen_away_from_the_records(fitted):
    near, far = MBConv(32, 32, 28, 28), MBConv(512, 512, 300, 300)
    low, high = fitted.predict_interval([near, far])
    widths = np.log(high / low)
    assert widths[1] > 4 * widths[0]


def test_intervals_widen_for_a_kernel_size_that_was_never_measured():
    predictor = LatencyPredictor("none").fit(block_records(random_blocks(60, kernels=(3, 5)), noise=0.01))
    low, high = predictor.predict_interval([MBConv(32, 32, 28, 28, kernel=k) for k in (5, 7)])
    assert high[0] / low[0] < 1.2
    assert low[1] < true_latency_ms(MBConv(32, 32, 28, 28, kernel=7).graph()) < high[1]


def test_latency_grows_with_size_far_outside_the_records(fitted):
    sizes = fitted.predict([MBConv(64, 64, s, s) for s in (200, 300, 500, 800, 1200)])
    assert (np.diff(sizes) > 0).all()
    widths = fitted.predict([MBConv(c, c, 56, 56) for c in (256, 512, 1024, 2048)])
    assert (np.diff(widths) > 0).all()


def test_predictions_are_positive_for_the_smallest_blocks(fitted):
    assert fitted.predict([MBConv(1, 1, 1, 1, expand=1)])[0] > 0


def test_the_identity_takes_exactly_nothing(fitted):
    skip = Skip(24, 24, 56, 56)
    low, high = fitted.predict_interval([skip])
    assert fitted.predict([skip])[0] == low[0] == high[0] == 0
    assert fitted.predict([chain([("b00", skip.graph()), ("b01", skip.graph())])])[0] == 0


def test_networks_take_offset_plus_slope_times_their_blocks(fitted):
    assert fitted.model_.networks.slope == pytest.approx(1.1, rel=0.03)
    assert fitted.network_offset_ms_ == pytest.approx(0.4, abs=0.1)
    networks = [random_network(seed) for seed in range(50, 60)]
    truth = [0.4 + 1.1 * sum(map(true_latency_ms, n.segments())) for n in networks]
    assert fitted.predict(networks) == pytest.approx(truth, rel=0.04)
    sums = [fitted.predict([unscoped(s) for s in n.segments()]).sum() for n in networks]
    by_hand = fitted.network_offset_ms_ + fitted.model_.networks.slope * np.array(sums)
    assert fitted.predict(networks) == pytest.approx(by_hand)


def test_without_measured_networks_a_network_is_the_sum_of_its_blocks():
    predictor = LatencyPredictor("none").fit(block_records(BLOCKS) + head_and_stem_records())
    network = random_network(3)
    parts = predictor.predict([unscoped(s) for s in network.segments()])
    assert (predictor.model_.networks.slope, predictor.network_offset_ms_) == (1, 0)
    assert predictor.predict([network])[0] == pytest.approx(parts.sum())


def test_intervals_of_networks_cover_what_they_should(fitted):
    networks = network_records(range(100, 160), slope=1.1, offset_ms=0.4, noise=0.01)
    low, high = fitted.predict_interval([r.graph for r in networks])
    inside = [a <= r.latency_ms <= b for a, b, r in zip(low, high, networks, strict=True)]
    assert np.mean(inside) > 0.85
    assert np.median(high / low) < 1.15


def test_the_table_adds_up_to_the_network(fitted):
    positions = [
        [MBConv(16, 16, 40, 40), MBConv(16, 16, 40, 40, kernel=5), Skip(16, 16, 40, 40)],
        [MBConv(16, 24, 40, 40, 2), MBConv(16, 24, 40, 40, 2, expand=3)],
    ]
    table, low, high = fitted.tabulate(positions)
    assert table.shape == (2, 3)
    assert np.isnan(table).tolist() == [[False] * 3, [False, False, True]]
    assert table[0, 2] == low[0, 2] == high[0, 2] == 0
    known = ~np.isnan(table)
    assert (low[known] <= table[known]).all()
    assert (table[known] <= high[known]).all()
    for choice in ((0, 0), (1, 1), (2, 0)):
        blocks = [position[c] for position, c in zip(positions, choice, strict=True)]
        network = chain((f"b{i}", b.graph()) for i, b in enumerate(blocks))
        total = fitted.network_offset_ms_ + sum(table[i, c] for i, c in enumerate(choice))
        assert fitted.predict([network])[0] == pytest.approx(total)


def test_a_space_is_tabulated_as_its_positions(fitted):
    candidates = [MBConv(16, 16, 40, 40), MBConv(16, 16, 40, 40, kernel=5), Skip(16, 16, 40, 40)]
    space = SearchSpace("two", ((MBConv(16, 16, 40, 40, expand=3),), tuple(candidates)))
    of_space, of_positions = (fitted.tabulate(given) for given in (space, space.positions))
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(of_space, of_positions, strict=True))


def test_a_decision_space_without_blocks_is_refused(fitted):
    class Widths:
        name, option_counts, reference = "widths", (2,), (0,)

    with pytest.raises(PredictorError, match="a sequence of"):
        fitted.tabulate(Widths())


def test_an_empty_table_and_no_items_are_fine(fitted):
    assert fitted.tabulate([]).latency_ms.shape == (0, 0)
    assert fitted.tabulate([[], []]).latency_ms.shape == (2, 0)
    assert fitted.predict([]).shape == (0,)
    assert fitted.predict_interval([])[0].shape == (0,)


def test_blocks_graphs_and_batches_are_told_apart(fitted):
    block = MBConv(32, 32, 28, 28)
    assert fitted.predict([block])[0] == fitted.predict([block.graph()])[0]
    batched = Setup(**{**SETUP.to_json(), "details": (), "batch": 4})
    records = [record(b.name, b.graph(4), true_latency_ms(b.graph(4)), setup=batched) for b in BLOCKS[:50]]
    four = LatencyPredictor("none").fit(records).predict([block])[0]
    assert four == pytest.approx(true_latency_ms(block.graph(4)), rel=0.05)


def test_equal_records_and_seeds_give_equal_predictors():
    records = block_records(BLOCKS[:18], noise=0.02)
    first, second = (LatencyPredictor(random_state=7).fit(records) for _ in range(2))
    assert first.residual_ == second.residual_
    assert np.array_equal(first.predict(OTHERS[:60]), second.predict(OTHERS[:60]))


def test_failed_records_are_left_out():
    records = block_records(BLOCKS[:20])
    failed = LatencyRecord("bad", "block", OTHERS[0].graph(), SETUP, Status.FAILED, None, "the phone rebooted")
    predictor = LatencyPredictor("none").fit([*records, failed])
    assert predictor.n_blocks_ == 20
    assert np.array_equal(predictor.predict(OTHERS), LatencyPredictor("none").fit(records).predict(OTHERS))


def test_unlike_setups_do_not_mix():
    other = Setup(**{**SETUP.to_json(), "details": (), "threads": 4})
    records = block_records(BLOCKS[:5])
    with pytest.raises(RecordError, match="threads: 1 / 4"):
        LatencyPredictor().fit([*records, record("x", BLOCKS[9].graph(), 1.0, setup=other)])


@pytest.mark.parametrize("n", [0, 1, 2])
def test_too_few_blocks_say_what_to_do(n):
    records = block_records(BLOCKS[:n]) * 4  # the same block again is not another block
    with pytest.raises(TooFewRecordsError, match=f"{n} different blocks .* profile more"):
        LatencyPredictor().fit(records)


@pytest.mark.parametrize("residual", ["none", "gp", "xgboost", "forest", "auto"])
def test_three_blocks_are_enough_to_start(residual):
    blocks = [MBConv(32, 32, 14, 14), MBConv(32, 32, 28, 28, kernel=5), MBConv(32, 32, 56, 56)]
    predictor = LatencyPredictor(residual).fit(block_records(blocks))
    graph = MBConv(48, 48, 28, 28).graph()
    low, high = predictor.predict_interval([graph])
    assert predictor.predict([graph])[0] == pytest.approx(true_latency_ms(graph), rel=0.25)
    assert low[0] < high[0]


def test_an_op_that_was_never_measured_is_an_error_not_a_number():
    predictor = LatencyPredictor("none").fit(block_records(BLOCKS[:20]))
    stem = ConvBlock(3, 16, 96, 96, 2)
    assert predictor.knows([stem, BLOCKS[30]]).tolist() == [False, True]
    for ask in (predictor.predict, predictor.predict_interval, lambda items: predictor.tabulate([items])):
        with pytest.raises(UnknownOpError, match="contains conv"):
            ask([stem])


@pytest.mark.parametrize("collects", [True, False])
def test_the_garbage_collector_is_left_as_it_was(fitted, collects):
    before = gc.isenabled()
    try:
        (gc.enable if collects else gc.disable)()
        fitted.predict(OTHERS[:3])
        assert gc.isenabled() == collects
        with pytest.raises(UnknownOpError):
            LatencyPredictor("none").fit(block_records(BLOCKS[:20])).predict([ConvBlock(3, 16, 96, 96, 2)])
        assert gc.isenabled() == collects
    finally:
        (gc.enable if before else gc.disable)()


def test_a_network_whose_graph_names_no_blocks_is_refused():
    network = record("foreign", unscoped(random_network(0)), 3.0, "network")
    with pytest.raises(PredictorError, match=r"foreign does not name its blocks.*scoped"):
        LatencyPredictor("none").fit([*block_records(BLOCKS[:20]), network])


def test_a_failed_fit_leaves_the_predictor_as_it_was():
    predictor = LatencyPredictor("none").fit(block_records(BLOCKS[:20]))
    before = predictor.predict(OTHERS)
    with pytest.raises(UnknownOpError):
        predictor.fit([*block_records(BLOCKS[20:40]), *network_records(range(1), 1, 0)])
    assert np.array_equal(predictor.predict(OTHERS), before)
    assert predictor.n_blocks_ == 20


@pytest.mark.parametrize("use", ["predict", "predict_interval", "tabulate", "knows"])
def test_an_unfitted_predictor_says_so(use):
    with pytest.raises(NotFittedError, match="call fit") as raised:
        getattr(LatencyPredictor(), use)([])
    assert isinstance(raised.value, sklearn.exceptions.NotFittedError)
    assert isinstance(raised.value, NetlatheError)


def test_saving_an_unfitted_predictor_says_so(tmp_path):
    with pytest.raises(NotFittedError, match="call fit"):
        LatencyPredictor().save(tmp_path / "p.json")


@pytest.mark.parametrize("items", [BLOCKS[0], [3], "mbconv", [None]])
def test_what_is_not_a_list_of_blocks_is_refused(fitted, items):
    with pytest.raises(PredictorError, match="needed, got"):
        fitted.predict(items)


def test_an_unknown_residual_is_refused():
    with pytest.raises(PredictorError, match="'magic'"):
        LatencyPredictor("magic").fit(block_records(BLOCKS[:10]))


def test_scikit_learn_can_clone_it(fitted):
    copy = sklearn.base.clone(LatencyPredictor("gp", random_state=3))
    assert copy.get_params() == {"residual": "gp", "random_state": 3, "prior": None}
    assert not hasattr(sklearn.base.clone(fitted), "model_")


def test_importing_the_package_imports_nothing_heavy():
    heavy = {"torch", "xgboost", "matplotlib", "sklearn", "pandas"}
    code = f"import sys, netlathe.predictor; print(*sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""
    code = "import sys; import netlathe.predictor.predictor; print('torch' in sys.modules, 'xgboost' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["False", "False"]
