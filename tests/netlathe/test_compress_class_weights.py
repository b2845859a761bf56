"""`--class-weights` in a compression: importance and comparisons count classes as the training's loss does."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from test_compress import ONE, Digits, predictor_of
from torch.nn import functional as F

import netlathe as nl
from netlathe.archspace.records import Setup
from netlathe.events import Listener
from netlathe.runs.compression.scored import Scored, ScorePhase
from netlathe.runs.compression.sensitivity import Rise
from netlathe.runs.compression.settings import CompressSettings, read_original
from netlathe.runs.compression.shaped import FinalistLoss, original_network
from netlathe.runs.folder import RunFolder, Workplace
from netlathe.targets import make_goal
from netlathe.training import Compute, TrainConfig, load_images, train
from netlathe.training.images import ImageSplit

REPEATED = 8


def with_more_of_the_first(split: ImageSplit) -> ImageSplit:
    """A split in which each image of the first class is there several times."""
    return split.take(torch.arange(len(split)).repeat_interleave(torch.where(split.labels == 0, REPEATED, 1)))


@pytest.fixture(scope="module")
def even() -> CompressSettings:
    """A compression of a network that is trained a little, its classes balanced in every loss."""
    data = load_images("digits", (8, 8), channels=1, limit=150)
    torch.manual_seed(0)
    module = Digits()
    train(module, data, TrainConfig(epochs=8, batch_size=32, learning_rate=0.1), compute=Compute(threads=1))
    original = read_original(module, ONE, None)
    predictor = predictor_of(original.graph, Setup("bench", "cpu", "os", "litert", "2"))
    goal = make_goal([nl.Target(predictor, 0.5 * float(predictor.predict([original.graph])[0]), "bench")])
    return CompressSettings(original, goal, data, TrainConfig(class_weights="balanced"), step=4)


@pytest.fixture(scope="module")
def uneven(even: CompressSettings) -> CompressSettings:
    """The same with more images of the first class to judge by."""
    assert even.data is not None
    return replace(even, data=replace(even.data, validation=with_more_of_the_first(even.data.validation)))


def plain(settings: CompressSettings) -> CompressSettings:
    return replace(settings, training=TrainConfig())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return Workplace(RunFolder(tmp_path_factory.mktemp("weights")), Compute(threads=1), Listener())


@pytest.fixture(scope="module")
def scored(even: CompressSettings, place: Workplace) -> Scored:
    found = ScorePhase(even, place).work()
    assert found.teacher == "labels"
    return found


def test_the_loss_of_a_finalist_is_the_mean_over_classes_of_their_own(
    uneven: CompressSettings, scored: Scored, place: Workplace
) -> None:
    data = uneven.data
    assert data is not None
    split, reference = data.validation, uneven.space.reference
    index = torch.arange(len(split))
    with torch.no_grad():
        told = original_network(uneven)(split.normalization(split.load(index)))
        losses = F.cross_entropy(told.double(), split.labels, reduction="none")
    of_classes = [losses[split.labels == label].mean() for label in split.labels.unique()]
    assert len(of_classes) == 10
    balanced = float(torch.stack(of_classes).mean())
    assert FinalistLoss(uneven, place, scored)(reference).loss == pytest.approx(balanced, rel=1e-5)
    assert FinalistLoss(plain(uneven), place, scored)(reference).loss == pytest.approx(float(losses.mean()), rel=1e-5)
    assert balanced != pytest.approx(float(losses.mean()), rel=0.01)


def test_what_a_decision_is_worth_does_not_depend_on_how_many_images_a_class_has(
    even: CompressSettings, uneven: CompressSettings, scored: Scored, place: Workplace
) -> None:
    cut = tuple(count - 1 for count in even.space.option_counts)
    rises = [Rise(one, place, scored)(cut) for one in (even, uneven, plain(even), plain(uneven))]
    assert rises[1] == pytest.approx(rises[0], rel=1e-3)
    assert rises[3] != pytest.approx(rises[2], rel=0.01)
    own = replace(scored, teacher="own")  # labels of other classes
    assert Rise(uneven, place, own)(cut) == pytest.approx(Rise(plain(uneven), place, own)(cut), rel=1e-5)


def test_importance_is_of_balanced_classes_and_known_by_them(even: CompressSettings, place: Workplace) -> None:
    assert even.data is not None
    uneven = replace(even, data=replace(even.data, train=with_more_of_the_first(even.data.train)))
    scored, others = (ScorePhase(one, place).work() for one in (uneven, plain(uneven)))
    assert scored.by == f"{others.by}, all classes alike"
    first, theirs = (next(iter(one.scores.values())).tolist() for one in (scored, others))
    assert first != pytest.approx(theirs, rel=1e-3)
    assert {**plain(even).importance_inputs(), "class_weights": "balanced"} == even.importance_inputs()
