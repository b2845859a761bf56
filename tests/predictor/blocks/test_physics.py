import numpy as np
import pytest
from synthetic_latency import block_records, random_blocks, true_latency_ms

from netlathe.archspace.blocks import ConvBlock, MBConv
from netlathe.archspace.graph import Graph, GraphBuilder
from netlathe.archspace.ops import Conv2d
from netlathe.predictor.blocks.physics import _CLIFF_DOUBT, _KERNEL_DOUBT, RESOURCES, Physics, fit_physics, prior_rates
from netlathe.predictor.errors import UnknownOpError
from netlathe.predictor.features.item_features import work_terms
from netlathe.predictor.features.op_work import TERMS

COLUMN = {term: i for i, term in enumerate(TERMS)}


def terms_and_ms(blocks):
    records = block_records(blocks)
    return work_terms([r.graph for r in records]), np.array([r.latency_ms for r in records])


def test_a_known_law_is_recovered_within_two_percent():
    physics = fit_physics(*terms_and_ms(random_blocks(60)))
    terms, truth = terms_and_ms(random_blocks(200, seed=1))
    assert np.abs(physics.predict(terms) / truth - 1).max() < 0.02


def test_the_rates_of_the_big_terms_are_the_law_s_own():
    physics = fit_physics(*terms_and_ms(random_blocks(200)))
    # On whole vectors of channels, as here, a MAC counts under both terms.
    rates = {kind: physics.rates[COLUMN[kind]] for kind in ("pointwise.macs", "pointwise.aligned")}
    assert sum(rates.values()) == pytest.approx(5e-8, rel=0.1)
    # The written byte per MAC is part of a depthwise kernel's rate: 4 bytes per 49 MACs.
    assert physics.rates[COLUMN["depthwise.macs_k7"]] == pytest.approx(40 * 1.5e-7 + 1.2e-7 * 4 / 49, rel=0.02)


def test_rates_are_positive_even_where_the_latencies_would_have_them_negative():
    terms, _ = terms_and_ms(random_blocks(50))
    falling = 1e3 / (terms @ np.ones(len(TERMS)))
    physics = fit_physics(terms, falling)
    assert (physics.rates[physics.seen] > 0).all()


def test_three_records_already_give_the_right_size():
    physics = fit_physics(*terms_and_ms([MBConv(32, 32, s, s, kernel=k) for s, k in ((14, 3), (28, 5), (56, 3))]))
    graph = MBConv(64, 64, 28, 28, kernel=3).graph()
    assert physics.predict(work_terms([graph]))[0] == pytest.approx(true_latency_ms(graph), rel=0.25)


@pytest.mark.parametrize("factor", [0.1, 0.2, 3, 10])
def test_five_percent_of_outliers_do_not_move_the_fit(factor):
    blocks = random_blocks(100)
    terms, truth = terms_and_ms(blocks)
    spoiled = truth.copy()
    spoiled[::20] *= factor
    assert np.abs(fit_physics(terms, spoiled).predict(terms) / truth - 1).max() < 0.03


@pytest.mark.parametrize("costs", [(30, 1, 1), (1, 30, 1), (1, 1, 100), (1, 30, 30)], ids=str)
def test_records_tell_how_far_computing_moving_and_starting_are_from_what_is_typical(costs):
    law = 1e-7 * prior_rates() * np.array(costs)[RESOURCES]
    terms, unseen = (work_terms([b.graph() for b in random_blocks(n, seed=n)]) for n in (25, 200))
    assert fit_physics(terms, terms @ law).predict(unseen) == pytest.approx(unseen @ law, rel=1e-3)


def test_an_op_class_that_no_record_had_is_named():
    physics = fit_physics(*terms_and_ms(random_blocks(20)))
    terms = work_terms([ConvBlock(3, 16, 32, 32, 2).graph(), MBConv(16, 16, 14, 14).graph()])
    assert physics.knows(terms).tolist() == [False, True]
    with pytest.raises(UnknownOpError, match="no measured block contains conv"):
        physics.predict(terms)


def test_an_unmeasured_depthwise_kernel_costs_what_its_neighbour_costs_and_is_doubted():
    physics = fit_physics(*terms_and_ms(random_blocks(40, kernels=(3, 5))))
    assert physics.rates[COLUMN["depthwise.macs_k7"]] == physics.rates[COLUMN["depthwise.macs_k5"]]
    assert physics.rates[COLUMN["depthwise.macs_k9"]] == physics.rates[COLUMN["depthwise.macs_k5"]]
    known, unknown = work_terms([MBConv(16, 16, 28, 28, kernel=k).graph() for k in (5, 7)])
    assert physics.doubt(known[None]) == [0]
    assert _KERNEL_DOUBT < np.exp(physics.doubt(unknown[None])[0]) < _CLIFF_DOUBT


def test_a_kernel_size_that_all_runtimes_have_is_doubted_less():
    for measured, unknown in (((5, 7), 3), ((3,), 5)):
        physics = fit_physics(*terms_and_ms(random_blocks(40, kernels=measured)))
        graph = MBConv(16, 16, 28, 28, kernel=unknown).graph()
        assert 1 < np.exp(physics.doubt(work_terms([graph]))[0]) < _KERNEL_DOUBT


def test_between_two_kernel_sizes_the_doubt_is_what_they_differ_by():
    physics = fit_physics(*terms_and_ms(random_blocks(40, kernels=(3, 7))))  # 7x7 costs 40 times as much per MAC
    graph = MBConv(16, 16, 28, 28, kernel=5).graph()
    assert 10 < np.exp(physics.doubt(work_terms([graph]))[0]) < 60


def test_of_two_neighbours_the_larger_kernel_lends_its_cost():
    physics = fit_physics(*terms_and_ms(random_blocks(40, kernels=(3, 7))))
    assert physics.rates[COLUMN["depthwise.macs_k5"]] == physics.rates[COLUMN["depthwise.macs_k7"]]


def test_physics_survives_json():
    physics = fit_physics(*terms_and_ms(random_blocks(20, kernels=(3, 5))))
    again = Physics.from_json(physics.to_json())
    assert np.array_equal(again.rates, physics.rates)
    assert np.array_equal(again.seen, physics.seen)


@pytest.mark.parametrize(
    ("part", "damage"),
    [
        ("rates", {"warp.macs": 1.0}),
        *(("rates", {"calls": bad}) for bad in (-1.0, 0.0, float("nan"), "x")),
        ("seen", {"warp.macs": 0}),
        ("seen", {"conv.macs": 0}),
    ],
)
def test_impossible_rates_are_refused(part, damage):
    data = fit_physics(*terms_and_ms(random_blocks(10))).to_json()
    changed = {**data["rates"], **damage} if part == "rates" else [*data["seen"], *damage]
    with pytest.raises(ValueError, match=r"not those of this version|above zero|finite|convert"):
        Physics.from_json({**data, part: changed})


def test_an_addition_that_no_record_had_is_guessed_and_doubted():
    blocks = [b for b in random_blocks(60) if not b.residual]
    physics = fit_physics(*terms_and_ms(blocks))
    block = MBConv(32, 32, 28, 28)
    terms = work_terms([block.graph()])
    assert physics.predict(terms)[0] == pytest.approx(true_latency_ms(block.graph()), rel=0.15)
    assert 0.02 < physics.doubt(terms)[0] < 1
    assert physics.doubt(work_terms([blocks[0].graph()])) == [0]


def test_work_that_does_not_fit_a_cache_may_cost_more():
    blocks = random_blocks(80)
    terms, truth = terms_and_ms(blocks)
    spilled = terms[:, COLUMN["spilled"]] * 3e-7
    physics = fit_physics(terms, truth + spilled)
    assert physics.rates[COLUMN["spilled"]] == pytest.approx(3e-7, rel=0.1)


def scaled(factor: int, **changes: int) -> np.ndarray:
    """Work of a block whose named sizes are `factor` times as large."""
    sizes = {"cin": 16, "cout": 24, "height": 14, "width": 14}
    return work_terms([MBConv(**{**sizes, **{n: factor * sizes[n] for n in changes}}, kernel=3).graph()])


@pytest.mark.parametrize("measured", [3, 12, 80])
@pytest.mark.parametrize("grown", ["cin", "cout", "height"])
def test_more_work_of_a_kind_is_never_cheaper(measured, grown):
    physics = fit_physics(*terms_and_ms(random_blocks(measured)))
    latency_ms = np.concatenate([physics.predict(scaled(factor, **{grown: 1})) for factor in (1, 2, 4, 8, 64)])
    assert latency_ms[0] > 0
    assert (np.diff(latency_ms) > 0).all()


def test_a_channel_more_is_never_cheaper_where_odd_numbers_of_channels_are_slow():
    blocks = [MBConv(c, 24, 14, 14) for c in range(16, 80)]
    terms = work_terms([b.graph() for b in blocks])
    slow_when_odd = terms[:, COLUMN["pointwise.macs"]] * np.where(np.arange(16, 80) % 8, 2.0, 1.0)
    latency_ms = fit_physics(terms, slow_when_odd).predict(terms)
    assert (np.diff(latency_ms) > -1e-9).all()


def in_out(cin: int, cout: int) -> np.ndarray:
    return work_terms([ConvBlock(cin, cout, 14, 14, kernel=1).graph()])


def test_odd_channel_counts_cost_more_and_ragged_even_ones_do_not_where_the_records_say_so():
    blocks = [ConvBlock(cin, cout, 14, 14, kernel=1) for cin in range(16, 40, 3) for cout in range(40, 60)]
    terms = work_terms([b.graph() for b in blocks])
    odd, macs = (terms[:, COLUMN[f"pointwise.{quantity}"]] for quantity in ("odd", "macs"))
    assert ((odd > 0) == [b.cout % 2 for b in blocks]).all()
    physics = fit_physics(terms, 1e-7 * macs + 5e-8 * odd)
    per_mac = {cout: (physics.predict(in_out(64, cout)) / (64 * cout * 14**2))[0] for cout in (94, 95, 96)}
    assert per_mac[95] / per_mac[96] == pytest.approx(1.5, rel=0.05)
    assert per_mac[94] / per_mac[96] == pytest.approx(1.0, rel=0.05)


def depthwise(channels: int) -> Graph:
    builder = GraphBuilder((1, 14, 14, channels))
    builder.add("dw", Conv2d(channels, (5, 5), groups=channels), 0)
    return builder.build()


def test_a_depthwise_window_that_does_not_fit_the_first_level_cache_may_cost_more():
    # 25 taps, 8 bytes each (a value and its weight): 48 KiB is 245.76 channels, 64 KiB 327.68.
    terms = work_terms([depthwise(c) for c in range(64, 512, 8)])
    macs, refetched = (terms[:, COLUMN[f"depthwise.{quantity}"]] for quantity in ("macs_k5", "refetched"))
    channels = np.arange(64, 512, 8)
    assert (refetched[channels < 245] == 0).all()
    assert np.array_equal(refetched[channels > 328], macs[channels > 328])
    physics = fit_physics(terms, 1e-7 * macs + 2e-8 * refetched)
    costs = physics.predict(terms) / macs
    assert costs[channels == 504] / costs[channels == 64] == pytest.approx(1.2, rel=0.03)


def test_a_file_from_before_a_term_existed_predicts_what_it_did():
    terms, truth = terms_and_ms(random_blocks(60))
    physics = fit_physics(terms, truth)
    data = physics.to_json()
    later = [term for term in data["rates"] if term.endswith(("odd", "windows", "refetched"))]
    assert later
    earlier = {
        "rates": {t: r for t, r in data["rates"].items() if t not in later},
        "seen": sorted({*data["seen"]} - {*later}),
    }
    without = np.where(np.isin(TERMS, later), 0, terms)
    assert np.array_equal(Physics.from_json(earlier).predict(terms), physics.predict(without))


def test_a_larger_kernel_is_never_cheaper():
    physics = fit_physics(*terms_and_ms(random_blocks(80)))
    blocks = [MBConv(16, 24, 28, 28, kernel=kernel) for kernel in (3, 5, 7, 9, 11)]
    assert (np.diff(physics.predict(work_terms([b.graph() for b in blocks]))) > 0).all()


def test_a_thousand_times_the_pixels_take_about_a_thousand_times_as_long():
    physics = fit_physics(*terms_and_ms(random_blocks(80)))
    small, large = (MBConv(32, 32, side, side).graph() for side in (100, 3200))
    ratio = physics.predict(work_terms([large]))[0] / physics.predict(work_terms([small]))[0]
    assert 900 < ratio < 1200


def test_the_order_of_the_records_does_not_matter():
    terms, latency_ms = terms_and_ms(random_blocks(40))
    order = np.random.default_rng(0).permutation(40)
    shuffled = fit_physics(terms[order], latency_ms[order])
    assert shuffled.predict(terms) == pytest.approx(fit_physics(terms, latency_ms).predict(terms), rel=1e-6)


@pytest.mark.parametrize("factor", [1e-3, 7.0, 1e3])
def test_a_device_that_is_slower_by_a_factor_is_predicted_slower_by_that_factor(factor):
    terms, latency_ms = terms_and_ms(random_blocks(40))
    slower = fit_physics(terms, factor * latency_ms)
    assert slower.predict(terms) == pytest.approx(factor * fit_physics(terms, latency_ms).predict(terms), rel=1e-6)
