"""A new device from a handful of measurements, on devices whose latency laws are known."""

import dataclasses
import json

import numpy as np
import pytest
from synthetic_latency import random_blocks, random_network, true_latency_ms

from netlathe.archspace.blocks import ConvBlock, MBConv, Skip
from netlathe.archspace.errors import FormatError
from netlathe.archspace.graph import chain
from netlathe.predictor import LatencyPredictor, Prior
from netlathe.predictor.errors import PredictorError, TooFewRecordsError, UnknownOpError
from netlathe.predictor.features.inputs import OpShares
from netlathe.predictor.features.samples import sample_of
from netlathe.predictor.transfer import few_shot
from netlathe.predictor.transfer.few_shot import TransferModel
from netlathe.predictor.transfer.robust import robust_process

BLOCKS = [block.graph() for block in random_blocks(60, seed=1, kernels=(3, 5))]
NEW = [block.graph() for block in random_blocks(80, seed=2, kernels=(3, 5))]


def device_ms(graphs, speed=1.0, overhead_ms=0.0, noise=0.0, seed=0):
    """A device `speed` times as slow as the law, with a constant on top."""
    rng = np.random.default_rng(seed)
    exact = np.array([speed * true_latency_ms(g) + overhead_ms for g in graphs])
    return exact * np.exp(noise * rng.standard_normal(len(graphs)))


@pytest.fixture(scope="module")
def prior():
    """Six known devices: three speeds, with and without an overhead per call."""
    laws = [(speed, extra) for speed in (0.5, 1.0, 3.0) for extra in (0.0, 0.05)]
    return Prior.learn(
        {f"phone {i}": (BLOCKS, device_ms(BLOCKS, *law, noise=0.01, seed=i)) for i, law in enumerate(laws)}
    )


def adapt(prior, items, latency_ms):
    return few_shot.adapt(prior, sample_of(items, latency_ms, None))


def within_10(predicted, truth):
    return np.mean(np.abs(predicted / truth - 1) <= 0.1)


def test_three_measurements_find_the_speed_of_a_device_like_a_known_one(prior):
    truth = device_ms(NEW, speed=1.7)
    predictor = LatencyPredictor(prior=prior).fit(NEW[:3], truth[:3])
    assert (predictor.residual_, predictor.prior_share_) == ("few-shot", 1)
    assert within_10(predictor.predict(NEW[3:]), truth[3:]) > 0.9


def test_more_measurements_are_better(prior):
    truth = device_ms(NEW, speed=2.0, overhead_ms=0.3)
    errors = []
    for n in (3, 10, 40):
        predictor = LatencyPredictor(prior=prior).fit(NEW[:n], truth[:n])
        errors.append(np.mean(np.abs(predictor.predict(NEW[40:]) / truth[40:] - 1)))
    assert errors[2] < errors[0]
    assert errors[2] < 0.06


def test_what_was_measured_on_known_devices_counts_exactly():
    """A graph that no law explains: 3 times as slow on all devices as its work says."""
    odd = NEW[0]
    law = {g.key: true_latency_ms(g) * (3 if g is odd else 1) for g in [*BLOCKS, odd]}
    known = [*BLOCKS, odd]
    prior = Prior.learn({str(s): (known, [s * law[g.key] for g in known]) for s in (1.0, 2.0)})
    predictor = LatencyPredictor(prior=prior).fit(BLOCKS[:6], [1.5 * law[g.key] for g in BLOCKS[:6]])
    assert predictor.predict([odd])[0] == pytest.approx(1.5 * law[odd.key], rel=0.05)


def test_a_disturbed_measurement_does_not_count(prior):
    truth = device_ms(NEW, speed=1.7)
    disturbed = truth[:10].copy()
    disturbed[4] *= 4
    predictor = LatencyPredictor(prior=prior).fit(NEW[:10], disturbed)
    assert within_10(predictor.predict(NEW[10:]), truth[10:]) > 0.9


def test_disturbed_measurements_of_known_devices_do_not_count():
    tables = {}
    for i in range(6):
        latency_ms = device_ms(BLOCKS, speed=1 + i, noise=0.01, seed=i)
        latency_ms[5 * i] *= 5
        tables[str(i)] = (BLOCKS, latency_ms)
    prior = Prior.learn(tables)
    truth = device_ms(BLOCKS, speed=2.5)
    predictor = LatencyPredictor(prior=prior).fit(BLOCKS[1:5], truth[1:5])
    assert within_10(predictor.predict(BLOCKS), truth) == 1


def test_devices_may_have_been_measured_on_different_items():
    half = len(BLOCKS) // 2
    prior = Prior.learn({
        "a": (BLOCKS[:half], device_ms(BLOCKS[:half])),
        "b": (BLOCKS[half - 5 :], device_ms(BLOCKS[half - 5 :], speed=2)),
    })  # fmt: skip
    truth = device_ms(NEW, speed=4)
    predictor = LatencyPredictor(prior=prior).fit(NEW[:5], truth[:5])
    assert within_10(predictor.predict(NEW[5:]), truth[5:]) > 0.85


def test_whole_networks_and_pieces_can_be_what_is_measured():
    networks = [random_network(seed) for seed in range(30)]
    pieces = [tuple(network.segments()) for network in networks]
    truth = np.array([sum(true_latency_ms(s) for s in network.segments()) for network in networks])
    prior = Prior.learn({"a": (networks, truth), "b": (networks, 2 * truth)})
    for items in (networks, pieces):
        predictor = LatencyPredictor(prior=prior).fit(items[:5], 3 * truth[:5])
        assert predictor.n_networks_ == 5
        assert within_10(predictor.predict(items), 3 * truth) > 0.9


def test_a_device_unlike_all_known_ones_is_fitted_by_itself(prior):
    """Time is memory here, whatever is computed."""
    truth = np.array([1e-5 * (g.bytes_read() + g.bytes_written()) ** 1.0 for g in NEW])
    predictor = LatencyPredictor("none", prior=prior).fit(NEW[:40], truth[:40])
    alone = LatencyPredictor("none").fit(NEW[:40], truth[:40])
    error, error_alone = (np.mean(np.abs(p.predict(NEW[40:]) / truth[40:] - 1)) for p in (predictor, alone))
    assert error <= error_alone * 1.5


def test_intervals_hold_what_they_say_and_widen_with_distance(prior):
    truth = device_ms(NEW, speed=1.7, noise=0.03, seed=5)
    predictor = LatencyPredictor(prior=prior).fit(NEW[:15], truth[:15])
    low, high = predictor.predict_interval(NEW[15:])
    inside = np.mean((low <= truth[15:]) & (truth[15:] <= high))
    assert inside >= 0.85
    giant = MBConv(960, 960, 224, 224, kernel=5, expand=6)
    width, far_width = np.median(np.log(high / low)), np.log(np.divide(*predictor.predict_interval([giant])[::-1]))[0]
    assert far_width > 1.5 * width


def test_a_kernel_size_that_no_known_device_was_measured_with_is_in_doubt(prior):
    truth = device_ms(NEW)
    predictor = LatencyPredictor(prior=prior).fit(NEW[:10], truth[:10])
    low, high = predictor.predict_interval([MBConv(32, 32, 28, 28, kernel=7)])
    assert high[0] / low[0] > 10


def test_the_identity_takes_nothing(prior):
    predictor = LatencyPredictor(prior=prior).fit(NEW[:5], device_ms(NEW[:5]))
    assert predictor.predict([Skip(24, 24, 56, 56), NEW[7]])[0] == 0


def test_an_op_that_nobody_measured_is_an_error_not_a_number(prior):
    predictor = LatencyPredictor(prior=prior).fit(NEW[:5], device_ms(NEW[:5]))
    stem = ConvBlock(3, 16, 96, 96, 2)
    assert predictor.knows([stem, NEW[9]]).tolist() == [False, True]
    with pytest.raises(UnknownOpError, match="conv"):
        predictor.predict([stem])


def test_a_prior_that_does_not_know_an_op_leaves_the_measurements_to_themselves(prior):
    stems = [ConvBlock(3, c, 96, 96, 2).graph() for c in (8, 16, 24, 32)]
    predictor = LatencyPredictor("none", prior=prior).fit(stems, [1.0, 2.0, 3.0, 4.0])
    assert (predictor.residual_, predictor.prior_share_) == ("none", 0)


def test_blocks_and_networks_with_more_kinds_of_ops_are_adapted_together(prior):
    """What a network has beside its measured blocks, the prior knows."""
    stem = ConvBlock(3, 16, 96, 96, 2)
    everything = [*BLOCKS, stem.graph(), ConvBlock(3, 32, 64, 64, 2).graph()]
    richer = Prior.learn({str(s): (everything, device_ms(everything, speed=s)) for s in (1, 2)})
    first = MBConv(16, 16, 48, 48, expand=3)
    networks = [chain([("b0", stem.graph()), ("b1", first.graph())])] * 2
    items = [*NEW[:10], *networks]
    truth = [*device_ms(NEW[:10]), *[sum(map(true_latency_ms, network.segments())) for network in networks]]
    predictor = LatencyPredictor(prior=richer).fit(items, truth)
    assert (predictor.residual_, predictor.prior_share_) == ("few-shot", 1)
    assert not predictor.adds_up_


def test_an_item_is_left_out_with_all_its_repetitions(prior):
    """As fitting again without them."""
    truth = device_ms(NEW, speed=1.7, noise=0.05)
    again = [0, 1, 2, 3, 2, 2]
    items, latency_ms = [NEW[i] for i in again], truth[again] * np.array([1, 1, 1, 1, 1.1, 0.9])
    _, left_out = adapt(prior, items, latency_ms)
    others = [place for place, index in enumerate(again) if index != 2]
    without, _ = adapt(prior, [items[i] for i in others], latency_ms[others])
    assert left_out.errors[[2, 4, 5]] == pytest.approx(np.log(latency_ms[[2, 4, 5]] / without.predict([NEW[2]])))


def test_repetitions_make_no_more_scores(prior):
    truth = device_ms(NEW, speed=1.7, noise=0.05)
    again = [*range(8), *[3] * 30]
    once, often = (adapt(prior, [NEW[i] for i in rows], truth[rows])[0] for rows in ([*range(8)], again))
    assert len(once.errors.scores) == len(often.errors.scores)


def test_the_only_item_measured_cannot_be_left_out(prior, tmp_path):
    _, left_out = adapt(prior, [NEW[0]] * 2, device_ms(NEW)[[0, 0]])
    assert np.isnan(left_out.errors).all()
    predictor = LatencyPredictor(prior=prior).fit(NEW[:1], device_ms(NEW)[:1])
    predictor.save(tmp_path / "one.json")
    low, high = LatencyPredictor.load(tmp_path / "one.json").predict_interval(NEW[1:])
    assert (high / low > 1.2).all()


@pytest.mark.parametrize("n", [3, 5, 7, 12])
@pytest.mark.parametrize("devices", [1, 6])
def test_a_prior_that_says_nothing_of_the_device_is_not_believed(n, devices):
    truth = device_ms(NEW)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        nonsense = Prior.learn({str(i): (BLOCKS, np.exp(rng.standard_normal(len(BLOCKS)))) for i in range(devices)})
        predictor = LatencyPredictor("none", prior=nonsense).fit(NEW[:n], truth[:n])
        assert (predictor.residual_, predictor.prior_share_) == ("none", 0)


@pytest.mark.parametrize("n", [1, 2])
def test_a_prior_that_cannot_be_judged_yet_and_disagrees_with_itself_is_doubted(n):
    rng = np.random.default_rng(0)
    nonsense = Prior.learn({str(i): (BLOCKS, np.exp(rng.standard_normal(len(BLOCKS)))) for i in range(4)})
    low, high = LatencyPredictor(prior=nonsense).fit(NEW[:n], device_ms(NEW)[:n]).predict_interval(NEW[n:])
    assert (high / low > 5).all()


def test_items_that_no_known_device_was_measured_on_are_doubted_by_what_such_items_turn_out_to_be():
    """Each item is off its work by 15 % of its own, on all devices alike."""
    rng = np.random.default_rng(0)
    peculiar = {g.key: np.exp(0.15 * rng.standard_normal()) for g in [*BLOCKS, *NEW]}

    def law(graphs, speed=1.0):
        return [speed * true_latency_ms(g) * peculiar[g.key] for g in graphs]

    prior = Prior.learn({str(speed): (BLOCKS, law(BLOCKS, speed)) for speed in (1.0, 2.0, 5.0)})
    for measured in (BLOCKS[:10], BLOCKS[:50], NEW[:10]):
        predictor = LatencyPredictor("none", prior=prior).fit(measured, law(measured, 3.0))
        new, known = NEW[10:], BLOCKS[50:]
        (low, high), truth = predictor.predict_interval(new), np.array(law(new, 3.0))
        assert 0.8 <= np.mean((low <= truth) & (truth <= high)) <= 1
        narrow = np.log(np.divide(*predictor.predict_interval(known)[::-1]))
        assert np.median(np.log(high / low)) > 1.3 * np.median(narrow)


def networks_of_convolutions(count, seed):
    """Networks in pieces, which differ in how many of their channels do not fill vectors."""
    rng = np.random.default_rng(seed)
    channels, sides = [16, 18, 27, 32, 48, 54, 81, 96], [7, 14, 28, 56]
    return [
        tuple(
            ConvBlock(*map(int, rng.choice(channels, 2)), int(s), int(s), kernel=1).graph()
            for s in rng.choice(sides, 8)
        )
        for _ in range(count)
    ]


def ragged_ms(networks, speed=1.0):
    """Pieces with odd channels out take twice as long as their work, on all devices alike."""
    return np.array(
        [
            speed * sum(true_latency_ms(piece) * (1 + piece.output_shape[-1] % 2) for piece in network)
            for network in networks
        ]
    )


@pytest.fixture(scope="module")
def ragged():
    known = networks_of_convolutions(60, seed=1)
    return Prior.learn({str(speed): (known, ragged_ms(known, speed)) for speed in (1.0, 2.0, 5.0)})


def test_what_ops_cost_on_known_devices_serves_networks_that_none_of_them_was_measured_on(ragged):
    assert ragged.op_deviation > 0
    without = dataclasses.replace(ragged, ops=OpShares.unknown(60), op_deviation=0.0)
    new = networks_of_convolutions(60, seed=2)
    truth = ragged_ms(new, 3.0)
    with_ops, by_work = (few_shot.adapt(p, sample_of(new[:5], truth[:5], None))[0] for p in (ragged, without))
    errors = [np.abs(np.log(p.predict(new[5:]) / truth[5:])).mean() for p in (with_ops, by_work)]
    assert errors[0] < 0.8 * errors[1]


def test_a_prior_keeps_what_it_knows_of_ops_and_one_from_before_they_counted_does_without(ragged, tmp_path):
    ragged.save(tmp_path / "ragged.json")
    new = networks_of_convolutions(20, seed=2)
    again = Prior.load(tmp_path / "ragged.json")
    assert np.allclose(again.on_known_devices(new).log_ms, ragged.on_known_devices(new).log_ms, rtol=1e-9)
    assert np.allclose(again.on_known_devices(new).peculiar, ragged.on_known_devices(new).peculiar, rtol=1e-9)
    older = {name: value for name, value in ragged.to_json().items() if name not in ("ops", "op_deviation")}
    without = dataclasses.replace(ragged, ops=OpShares.unknown(60), op_deviation=0.0)
    assert np.allclose(
        Prior.from_json(older).on_known_devices(new).log_ms, without.on_known_devices(new).log_ms, rtol=1e-9
    )


@pytest.mark.parametrize(
    "change",
    [{"counts": [1] * 60}, {"counts": [-1] * 60}, {"columns": [10**6]}, {"shares": [2.0]}, {"classes": [99]}],
)
def test_a_prior_with_nonsense_about_ops_is_no_prior(ragged, change):
    data = ragged.to_json()
    data["ops"] = {**data["ops"], **change}
    with pytest.raises((ValueError, KeyError, TypeError)):
        Prior.from_json(data)
    with pytest.raises(ValueError, match="op_deviation"):
        Prior.from_json({**ragged.to_json(), "op_deviation": -1.0})


def test_an_adapted_predictor_of_many_items_is_small(prior, tmp_path):
    many = [block.graph() for block in random_blocks(300, seed=9, kernels=(3, 5))]
    predictor = LatencyPredictor("none", prior=prior).fit(many, device_ms(many, speed=2, overhead_ms=0.01))
    assert "few-shot" in predictor.residual_
    predictor.save(tmp_path / "many.json")
    assert (tmp_path / "many.json").stat().st_size < 1e6
    assert np.allclose(LatencyPredictor.load(tmp_path / "many.json").predict(NEW), predictor.predict(NEW))


def test_no_measurements_and_no_devices_say_what_to_do(prior):
    with pytest.raises(TooFewRecordsError, match="3 items are a start"):
        LatencyPredictor(prior=prior).fit([], [])
    with pytest.raises(PredictorError, match="at least one device"):
        Prior.learn({})


def test_an_adapted_predictor_is_saved_whole(prior, tmp_path):
    truth = device_ms(NEW, speed=1.7)
    predictor = LatencyPredictor(prior=prior).fit(NEW[:10], truth[:10])
    path = tmp_path / "new.json"
    predictor.save(path)
    loaded = LatencyPredictor.load(path)
    assert np.allclose(loaded.predict(NEW), predictor.predict(NEW), rtol=1e-12)
    for mine, theirs in zip(loaded.predict_interval(NEW), predictor.predict_interval(NEW), strict=True):
        assert np.allclose(mine, theirs, rtol=1e-9)


def test_a_prior_is_saved_and_read_and_checked(prior, tmp_path):
    path = tmp_path / "known.json"
    prior.save(path)
    truth = device_ms(NEW)
    first, second = (LatencyPredictor(prior=p).fit(NEW[:5], truth[:5]).predict(NEW) for p in (prior, str(path)))
    assert np.allclose(first, second, rtol=1e-9)
    file = json.loads(path.read_text())
    file["content"]["devices"][0] = "another"
    path.write_text(json.dumps(file))
    with pytest.raises(FormatError, match="checksum"):
        Prior.load(path)
    with pytest.raises(FormatError, match=r"priors that ship .*: phones49"):
        Prior.load("phones50")


@pytest.mark.parametrize(
    ("change", "value"),
    [("devices", []), ("keys", ["x"]), ("terms", ["conv.macs", "conv.macs"]), ("unit", -1.0), ("rates", "x")],
)
def test_a_prior_with_nonsense_in_it_is_no_prior(prior, change, value):
    data = prior.to_json()
    data[change] = value
    with pytest.raises((ValueError, KeyError, TypeError)):
        Prior.from_json(data)


def test_an_adapted_model_with_nonsense_in_it_is_none(prior):
    model = LatencyPredictor(prior=prior).fit(NEW[:5], device_ms(NEW[:5])).model_
    assert isinstance(model, TransferModel)
    with pytest.raises(ValueError, match="ascending"):
        TransferModel.from_json({**model.to_json(), "errors": {"scores": [-1.0]}})
    with pytest.raises(ValueError, match="trust"):
        TransferModel.from_json({**model.to_json(), "trust": [1.0]})


def test_the_robust_process_is_the_plain_one_on_clean_values_and_drops_an_outlier():
    x = np.linspace(0, 1, 12)
    covariance = np.exp(-0.5 * (x[:, None] - x) ** 2 / 0.3**2)
    values = np.sin(3 * x)
    assert robust_process(covariance, values, 0.01).fitted == pytest.approx(values, abs=0.02)
    spoiled = values.copy()
    spoiled[6] += 5
    process = robust_process(covariance, spoiled, 0.01)
    assert process.fitted == pytest.approx(values, abs=0.05)
    assert np.argmin(process.noise_divisors) == 6


def test_a_saved_model_is_named_as_in_the_first_files(prior):
    """So that these stay readable, whatever the fields are called."""
    saved = LatencyPredictor(prior=prior).fit(NEW[:5], device_ms(NEW[:5])).to_json()
    assert saved["kind"] == "adapted"
    names = {"prior", "log_ms", "deviations", "places", "peculiar", "identity", "speed", "weights", "trust"}
    assert saved["model"].keys() == names | {"scatter", "errors"}
    assert list(saved["model"]["scatter"]) == ["among", "slope", "bend", "reach", "noise"]


def test_a_model_saved_when_there_were_fewer_terms_of_work_predicts_the_same(prior):
    """The first files hold a column of places for every term, whether or not it is used."""
    model = LatencyPredictor(prior=prior).fit(NEW[:5], device_ms(NEW[:5])).model_
    saved, used = model.to_json(), model.prior.space.used
    assert np.array_equal(saved["places"], model.measured.coordinates[:, used])
    assert not np.delete(model.measured.coordinates, used, axis=1).any()
    all_terms = model.measured.coordinates
    fewer_terms = np.delete(all_terms, np.arange(used[-2] + 1, used[-1]), axis=1)
    for places in (saved["places"], all_terms, fewer_terms):
        again = TransferModel.from_json({**saved, "places": places})
        assert np.array_equal(again.measured.coordinates, all_terms)
        assert again.predict(NEW) == pytest.approx(model.predict(NEW), rel=1e-12)
    for columns in (1, len(used) - 1, all_terms.shape[1] + 1):
        with pytest.raises(ValueError, match="places has"):
            TransferModel.from_json({**saved, "places": np.zeros((5, columns))})
