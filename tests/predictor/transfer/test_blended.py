"""Known devices and a device's own measurements, mixed where neither is right alone."""

import dataclasses

import numpy as np
import pytest
from synthetic_latency import random_blocks, true_latency_ms

from netlathe.archspace.blocks import ConvBlock, Skip
from netlathe.predictor import LatencyPredictor, Prior, cross_validate
from netlathe.predictor.errors import UnknownOpError
from netlathe.predictor.features.samples import sample_of
from netlathe.predictor.transfer.blended import Blended
from netlathe.predictor.validation.choose_model import _share, fit_model

BLOCKS = [block.graph() for block in random_blocks(60, seed=1, kernels=(3, 5))]
NEW = [block.graph() for block in random_blocks(90, seed=2, kernels=(3, 5))]
STEM = ConvBlock(16, 32, 28, 28).graph()
LAW = {graph.key: true_latency_ms(graph) for graph in [*BLOCKS, *NEW, STEM]}
RNG = np.random.default_rng(0)
N = 40
WRONG, OTHER = 0.1 * RNG.standard_normal((2, N))
ALIKE = np.ones(N)


def law(graphs, speed=1.0, noise=0.0):
    rng = np.random.default_rng(3)
    return np.array([speed * LAW[graph.key] for graph in graphs]) * np.exp(noise * rng.standard_normal(len(graphs)))


@pytest.fixture(scope="module")
def prior():
    known = [*BLOCKS, STEM]
    return Prior.learn({str(speed): (known, law(known, speed)) for speed in (1.0, 2.0, 5.0)})


def mixed(prior, items, latency_ms, share=0.5):
    model = fit_model(sample_of(items, latency_ms, None), prior, "none", 0, share)
    assert isinstance(model, Blended)
    return model


def test_two_that_are_wrong_in_opposite_ways_are_mixed():
    assert _share(WRONG, -WRONG, ALIKE, N) == 0.5
    assert _share(WRONG / 4, -WRONG, ALIKE, N) == 0.8


def test_one_that_is_far_better_is_taken_alone():
    assert _share(WRONG / 50, OTHER, ALIKE, N) == 1
    assert _share(OTHER, WRONG / 50, ALIKE, N) == 0


def test_of_a_few_one_is_taken_as_their_errors_go_together_by_chance():
    assert _share(WRONG[:9], -WRONG[:9], ALIKE[:9], 9) == 1
    assert _share(WRONG[:9], -WRONG[:9] / 2, ALIKE[:9], 9) == 0


def test_what_the_measurements_alone_cannot_tell_is_left_to_the_known_devices():
    """It counts as wrong for the measurements alone, and not for a mixture."""
    unknown = np.where(np.arange(N) < 5, np.nan, WRONG)
    assert _share(-WRONG, unknown, ALIKE, N) >= 0.5
    assert _share(np.full(N, np.nan), WRONG, ALIKE, N) == 0


def test_the_mean_is_one_of_logarithms_and_nothing_stays_nothing(prior):
    model = mixed(prior, NEW[:12], law(NEW[:12], 3.0, noise=0.1), share=0.3)
    told, own, both = (part.predict(NEW[12:]) for part in (model.adapted, model.alone, model))
    assert both == pytest.approx(told**0.3 * own**0.7)
    identity = Skip(24, 24, 56, 56).graph()
    assert [float(x[0]) for x in model.predict_interval([identity], 0.9)] == [0, 0, 0]


def test_an_op_that_only_known_devices_were_measured_with_is_predicted_as_they_say(prior):
    model = mixed(prior, NEW[:12], law(NEW[:12], 3.0, noise=0.1))
    with pytest.raises(UnknownOpError):
        model.alone.predict([STEM])
    assert model.unknown([STEM]).is_negligible.all()
    mine, theirs = (np.array(one.predict_interval([STEM, NEW[20]], 0.8)) for one in (model, model.adapted))
    assert mine[:, 0] == pytest.approx(theirs[:, 0])
    assert mine[0, 1] != theirs[0, 1]


def test_intervals_are_made_of_the_errors_of_the_mixture(prior):
    latency_ms = law(NEW, 3.0, noise=0.1)
    model = mixed(prior, NEW[:40], latency_ms[:40])
    for level in (0.5, 0.9):
        found = model.predict_interval(NEW[40:], level)
        inside = np.mean((found.low_ms <= latency_ms[40:]) & (latency_ms[40:] <= found.high_ms))
        assert level - 0.12 <= inside <= level + 0.12
    doubled = dataclasses.replace(model, errors=dataclasses.replace(model.errors, scores=2 * model.errors.scores))
    once, twice = (np.log(np.divide(*m.predict_interval(NEW[40:], 0.9)[2:0:-1])) for m in (model, doubled))
    assert twice == pytest.approx(2 * once)


def peculiar_ms(graphs):
    """A device with a speed of its own for narrow blocks, where known ones are off, and much noise."""
    return law(graphs, 3.0, noise=0.15) * np.array([1.3 if graph.input_shape[-1] < 30 else 1.0 for graph in graphs])


def test_a_fit_mixes_and_is_saved_and_cross_validated_so(prior, tmp_path):
    items, latency_ms = NEW[:30], peculiar_ms(NEW[:30])
    predictor = LatencyPredictor("none", prior=prior).fit(items, latency_ms)
    predictor.model_ = mixed(prior, items, latency_ms, share=0.6)
    assert predictor.residual_ == "0.6 few-shot + 0.4 (none)"
    assert predictor.prior_share_ == 0.6
    predictor.save(tmp_path / "p.json")
    again = LatencyPredictor.load(tmp_path / "p.json")
    assert again.predict(NEW) == pytest.approx(predictor.predict(NEW), rel=1e-9)
    for mine, theirs in zip(again.predict_interval(NEW), predictor.predict_interval(NEW), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-9)


def test_cross_validation_mixes_as_the_fit_does(prior, monkeypatch):
    items, latency_ms = NEW[:20], peculiar_ms(NEW[:20])
    monkeypatch.setattr("netlathe.predictor.validation.choose_model._share", lambda *_: 0.4)
    found = cross_validate(items, latency_ms, residual="none", prior=prior, splits=["configuration"], folds=4).splits
    monkeypatch.undo()
    place = found["configuration"].measured_ms.tolist().index(latency_ms[0])
    fold = [i for i in range(20) if latency_ms[i] in found["configuration"].measured_ms[place - place % 5 :][:5]]
    rest = [i for i in range(20) if i not in fold]
    expected = mixed(prior, [items[i] for i in rest], latency_ms[rest], share=0.4).predict([items[0]])[0]
    assert found["configuration"].predicted_ms[place] == pytest.approx(expected)


@pytest.mark.parametrize("change", [{"share": 1.5}, {"share": None}, {"version": 2}, {"errors": {"scores": [-1.0]}}])
def test_a_mixture_with_nonsense_in_it_is_none(prior, change):
    model = mixed(prior, NEW[:12], law(NEW[:12], 3.0, noise=0.1))
    assert isinstance(Blended.from_json(model.to_json()), Blended)
    with pytest.raises((ValueError, TypeError)):
        Blended.from_json({**model.to_json(), **change})
