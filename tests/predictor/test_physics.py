import numpy as np
import pytest
from synthetic_latency import block_records, random_blocks, true_latency_ms

from archspace.blocks import ConvBlock, MBConv
from predictor.errors import UnknownOpError
from predictor.features import TERMS, work_terms
from predictor.physics import _KERNEL_DOUBT, Physics, fit_physics

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
    assert physics.rates[COLUMN["pointwise.macs"]] == pytest.approx(5e-8, rel=0.1)
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


def test_five_percent_of_outliers_do_not_move_the_fit():
    blocks = random_blocks(100)
    terms, truth = terms_and_ms(blocks)
    spoiled = truth.copy()
    spoiled[::20] *= 3
    assert np.abs(fit_physics(terms, spoiled).predict(terms) / truth - 1).max() < 0.03


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
    assert 1 < np.exp(physics.doubt(unknown[None])[0]) < _KERNEL_DOUBT


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
