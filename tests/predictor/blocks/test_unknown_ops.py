"""Ops that nothing measured had: priced where they are next to nothing, or where they are asked for; always named."""

import dataclasses

import numpy as np
import pytest
from synthetic_latency import (
    SETUP,
    block_records,
    head_and_stem_records,
    network_records,
    random_blocks,
    random_network,
    true_latency_ms,
)

from netlathe.archspace.blocks import ConvBlock, MBConv
from netlathe.archspace.graph import Graph, GraphBuilder, Node
from netlathe.archspace.networks import network
from netlathe.archspace.ops import Add, Conv2d, Dequantize, Opaque, Pool2d, Resize, Softmax
from netlathe.predictor import LatencyPredictor, Prior, UnknownOpError, shipped_names
from netlathe.predictor.blocks.physics import RESOURCES, Physics, prior_rates
from netlathe.predictor.blocks.unknown_ops import DOUBT, MODEST, NEGLIGIBLE, UnknownOps
from netlathe.predictor.features.item_features import work_terms
from netlathe.predictor.features.op_work import REFINEMENTS, TERMS

BLOCKS = random_blocks(40)
STEM = ConvBlock(3, 16, 96, 96, 2)
CLASS_OF = np.array([term.partition(".")[0] if "." in term else "" for term in TERMS])


def ending_in(graph: Graph, *ops: object) -> Graph:
    """The graph with more ops behind its result, in a block of their own."""
    nodes = list(graph.nodes)
    for op in ops:
        nodes.append(Node(f"tail/{len(nodes)}", op, (len(nodes),), "tail"))
    return Graph(graph.inputs, tuple(nodes))


@pytest.fixture(scope="module")
def fitted() -> LatencyPredictor:
    return LatencyPredictor("none").fit([*block_records(BLOCKS), *head_and_stem_records()])


@pytest.fixture(scope="module")
def without_stems() -> LatencyPredictor:
    return LatencyPredictor("none").fit(block_records(BLOCKS))


@pytest.fixture(scope="module")
def adapted() -> LatencyPredictor:
    """To a device twice as fast as two known ones."""
    items = [r.graph for r in (*block_records(BLOCKS), *head_and_stem_records())]
    times = [true_latency_ms(item) for item in items]
    prior = Prior.learn({"a": (items, times), "b": (items, [1.3 * ms for ms in times])})
    return LatencyPredictor(prior=prior).fit(items[:10], [ms / 2 for ms in times[:10]])


@pytest.mark.parametrize("which", ["fitted", "adapted"])
def test_a_softmax_over_a_classifiers_results_is_priced_and_told(which, request):
    predictor = request.getfixturevalue(which)
    plain = network("mobilenet_v2").graph()
    graph = ending_in(plain, Softmax())
    assert predictor.knows([graph, plain]).tolist() == [True, True]
    (without_ms, with_ms), (low, high) = predictor.predict([plain, graph]), predictor.predict_interval([plain, graph])
    assert 1 <= with_ms / without_ms < 1 + NEGLIGIBLE
    shares, nothing = predictor.unknown_ops([graph, plain])
    assert list(shares) == ["softmax"]
    assert 0 < shares["softmax"] <= NEGLIGIBLE
    assert nothing == {}
    widened = np.log(high[1] / low[1]) - np.log(high[0] / low[0])
    assert 0 < widened < 2.5 * NEGLIGIBLE


@pytest.mark.parametrize("which", ["fitted", "adapted"])
def test_the_same_softmax_is_refused_by_name_where_it_is_much_of_the_work(which, request):
    predictor = request.getfixturevalue(which)
    small = ending_in(MBConv(8, 8, 4, 4, expand=1).graph(), Softmax())
    assert not predictor.knows([small])[0]
    for ask in (predictor.predict, predictor.predict_interval, lambda items: predictor.tabulate([items])):
        with pytest.raises(UnknownOpError, match=r"contains softmax.*--unknown price"):
            ask([small])


@pytest.mark.parametrize("which", ["fitted", "adapted"])
def test_what_only_moves_values_is_priced_in_a_wider_interval_where_it_is_a_modest_part(which, request):
    predictor, plain = request.getfixturevalue(which), network("mobilenet_v2").graph()
    builder = GraphBuilder((1, 448, 448, 3))
    resized = builder.add("image/resize", Resize((224, 224)), 0, scope="image")
    builder.inline("network", plain, resized)
    graph = builder.build()
    (share,) = predictor.unknown_ops([graph])[0].values()
    assert NEGLIGIBLE < share < MODEST
    assert predictor.knows([graph])[0]
    assert predictor.predict([graph])[0] == pytest.approx(predictor.assuming().predict([graph])[0])
    (low_ms, plain_low_ms), (high_ms, plain_high_ms) = predictor.predict_interval([graph, plain])
    assert high_ms / low_ms > (1 + share) * plain_high_ms / plain_low_ms


def test_many_ops_that_are_nothing_one_by_one_are_refused_together(fitted):
    plain = network("mobilenet_v2_0.35").graph()
    assert fitted.knows([ending_in(plain, Softmax())])[0]
    assert not fitted.knows([ending_in(plain, *[Softmax()] * 500)])[0]


def test_an_op_that_computes_is_never_negligible(without_stems):
    builder = GraphBuilder((1, 112, 112, 64))
    x = 0
    for index in range(8):
        x = builder.inline(f"b{index}", MBConv(64, 64, 112, 112).graph(), x)
    x = builder.add("end/pool", Pool2d("avg", (112, 112), (112, 112)), x, scope="end")
    plain = builder.build()
    graph = ending_in(plain, Conv2d(64, (3, 3), groups=1))
    assert work_terms([graph])[0, TERMS.index("conv.macs")] < 1e-4 * graph.macs
    with pytest.raises(UnknownOpError, match="conv"):
        without_stems.predict([graph])


def test_what_is_asked_for_is_priced_with_a_wide_interval_and_named(without_stems, fitted):
    asked = without_stems.assuming()
    (expected_ms,) = fitted.predict([STEM])
    ((latency_ms,), (low,), (high,)) = asked.predict([STEM]), *asked.predict_interval([STEM])
    assert low < expected_ms < high
    assert expected_ms / 3 < latency_ms < 3 * expected_ms
    assert high / low > DOUBT
    assert list(asked.unknown_ops([STEM])[0]) == ["conv"]
    graph = random_network(3)
    (whole_ms,), ((low,), (high,)) = asked.predict([graph]), asked.predict_interval([graph])
    assert low < sum(map(true_latency_ms, graph.segments())) < high
    table = asked.tabulate([[STEM], [BLOCKS[0]]])
    assert table.latency_ms[0, 0] == pytest.approx(latency_ms)
    assert whole_ms == pytest.approx(asked.tabulate([[s] for s in graph.segments()]).latency_ms.sum())


def test_asking_changes_nothing_that_is_known_and_nothing_in_the_file(without_stems, adapted, tmp_path):
    for predictor in (without_stems, adapted):
        asked = predictor.assuming()
        assert asked.assumes_
        assert not predictor.assumes_
        assert (asked.predict(BLOCKS) == predictor.predict(BLOCKS)).all()
        assert np.array_equal(asked.predict_interval(BLOCKS), predictor.predict_interval(BLOCKS))
        asked.save(tmp_path / "p.json")
        assert not LatencyPredictor.load(tmp_path / "p.json").assumes_


def test_what_is_adapted_prices_what_is_asked_for(adapted):
    asked, plain = adapted.assuming(), random_network(4)
    graph = ending_in(plain, *[Softmax()] * 100)
    with pytest.raises(UnknownOpError, match="contains softmax"):
        adapted.predict([ending_in(plain, *[Softmax()] * 500)])
    (plain_ms, with_ms), (low, high) = asked.predict([plain, graph]), asked.predict_interval([plain, graph])
    assert plain_ms < with_ms < 1.5 * plain_ms
    assert high[1] / low[1] > 1.2 * high[0] / low[0]
    builder = GraphBuilder((1, 1000))
    builder.add("softmax", Softmax(), 0)
    assert asked.predict([builder.build()])[0] > 0


def test_an_unknown_op_costs_what_the_known_ones_do_in_proportion_to_the_prior():
    """Without refinements, whose prior costs stand in place of those of the MACs."""
    factor, unknown = np.array([2e-8, 5e-8, 1e-7]), CLASS_OF == "conv"
    refined = np.isin(TERMS, [f"conv.{name}" for name in REFINEMENTS])
    rates = np.where(refined, 0, prior_rates() * factor[RESOURCES])
    found = UnknownOps(Physics(np.where(unknown, 0, rates), ~unknown))
    assert found.kinds == ("conv",)
    assert found.complete.rates == pytest.approx(rates)
    (terms,) = work_terms([STEM.graph()])
    assert found.complete.predict(terms[None])[0] == pytest.approx(terms @ rates)


@pytest.mark.parametrize("name", shipped_names())
def test_ops_of_shipped_predictors_cost_what_the_others_tell_within_the_doubt(name):
    physics = LatencyPredictor.load(name).model_.blocks.physics
    ratios = []
    for op_class in sorted({op for op, seen in zip(CLASS_OF, physics.seen, strict=True) if op and seen}):
        columns = op_class == CLASS_OF
        ops = {n.op for n in network("mobilenet_v2").graph().nodes}
        steps = [(node.op, inputs) for node, inputs, _ in network("mobilenet_v2").graph().steps() if node.op in ops]
        graphs = [Graph(inputs, (Node("x", op, tuple(range(len(inputs)))),)) for op, inputs in steps]
        terms = work_terms(graphs)
        terms = terms[(terms[:, columns] > 0).any(axis=1)]
        if len(terms):
            found = UnknownOps(Physics(np.where(columns, 0, physics.rates), physics.seen & ~columns))
            ratios += ((terms @ found.complete.rates) / (terms @ physics.rates)).tolist()
    assert np.mean((np.array(ratios) > 1 / DOUBT) & (np.array(ratios) < DOUBT)) > 0.8


def test_networks_that_end_in_a_softmax_are_fitted_on():
    records = [*block_records(BLOCKS), *head_and_stem_records()]
    networks = [
        dataclasses.replace(r, graph=ending_in(r.graph, Softmax()))
        for r in network_records(range(8), slope=0.9, offset_ms=0.05)
    ]
    predictor = LatencyPredictor("none").fit([*records, *networks])
    assert predictor.setup_ == SETUP
    assert predictor.predict([networks[0].graph])[0] == pytest.approx(networks[0].latency_ms, rel=0.1)


def with_opaque(graph: Graph, weight_bytes: int = 0) -> Graph:
    return ending_in(graph, Opaque("com.example::Mystery", (graph.output_shape,), weight_bytes=weight_bytes))


@pytest.mark.parametrize("which", ["fitted", "adapted"])
def test_an_opaque_op_is_refused_by_its_own_name(which, request):
    predictor, graph = request.getfixturevalue(which), with_opaque(random_network(2), 1 << 20)
    with pytest.raises(UnknownOpError, match=r"contains com\.example::Mystery, so its cost"):
        predictor.predict([random_network(1), graph])
    assert "opaque" not in predictor.model_.unknown_kinds


def test_an_opaque_op_that_is_asked_for_costs_its_bytes_and_a_launch_and_is_told(fitted):
    plain, asked = random_network(2), fitted.assuming()
    small, large = with_opaque(plain), with_opaque(plain, 1 << 24)
    plain_ms, small_ms, large_ms = asked.predict([plain, small, large])
    assert plain_ms < small_ms < large_ms
    low, high = asked.predict_interval([plain, large])
    assert high[1] / low[1] > 2 * high[0] / low[0]
    told = asked.unknown_ops([plain, large])
    assert list(told[0]) == []
    assert list(told[1]) == ["com.example::Mystery"]
    assert 0 < told[1]["com.example::Mystery"] < 1


def test_the_known_shares_are_of_the_macs_and_of_the_predicted_latency(without_stems, fitted):
    graph = random_network(3)
    stem, *others = graph.segments()
    ((macs_share, ms_share),) = without_stems.known_shares([graph])
    unknown_macs = sum(node.op.macs(*inputs) for node, inputs, _ in stem.steps() if node.op.kind == "conv")
    assert macs_share == pytest.approx(1 - unknown_macs / graph.macs)
    asked = without_stems.assuming()
    of_others = asked.tabulate([[one] for one in others]).latency_ms.sum() / asked.predict([graph])[0]
    assert of_others <= ms_share < 1  # the stem's activation is known, too
    assert ms_share == pytest.approx(of_others, abs=0.1)
    assert fitted.known_shares([graph, BLOCKS[0]]) == [(1.0, 1.0)] * 2


def test_an_opaque_op_has_no_macs_to_know_and_takes_a_part_of_the_latency(fitted):
    plain = random_network(2)
    small, large = fitted.known_shares([with_opaque(plain), with_opaque(plain, 1 << 24)])
    assert small[0] == large[0] == 1.0
    assert 1 > small[1] > large[1] > 0
    low, high = fitted.assuming().predict_interval([with_opaque(plain, 1 << 24)])
    assert high[0] / low[0] > 2


def test_one_opaque_op_tells_nothing_of_another():
    blocks = [with_opaque(block.graph(), 1 << 20) for block in BLOCKS]
    times = [true_latency_ms(block.graph()) for block in BLOCKS]
    predictor = LatencyPredictor("none").fit(blocks, times)
    with pytest.raises(UnknownOpError, match="Other"):
        predictor.predict([ending_in(BLOCKS[0].graph(), Opaque("Other", ((1, 8, 8, 64),)))])


def test_bytes_of_int8_tensors_are_a_quarter_beside_float32_and_count_as_float32_where_all_are_int8():
    shape = (1, 16, 16, 64)
    graphs = []
    for dtype in ("float32", "int8"):
        builder = GraphBuilder(shape, shape, dtypes=(dtype, dtype))
        builder.add("sum", Add(), 0, 1)
        graphs.append(builder.build())
    plain, int8 = work_terms(graphs)[:, TERMS.index("add.moved")]
    assert int8 == plain  # the dtype is the setup's, whose rates are fitted to graphs of float32
    builder = GraphBuilder(shape, dtypes=("int8",))
    builder.add("real", Dequantize(), 0)
    (border,) = work_terms([builder.build()])[:, TERMS.index("dequantize.moved")]
    assert border == (4 + 1) * 16 * 16 * 64
