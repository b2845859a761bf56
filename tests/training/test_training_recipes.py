"""Published recipes by name, their overrides, and the parts of a training that they are made of."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from netlathe.archspace.forms.torch import TorchGraph
from netlathe.archspace.networks import network
from netlathe.training.compute import Compute
from netlathe.training.errors import TrainingError
from netlathe.training.images import MemorySplit
from netlathe.training.loop import TrainConfig, learning_rate_at
from netlathe.training.losses import class_weights, classes_of_labels, cross_entropy
from netlathe.training.metrics import Classification, classify
from netlathe.training.recipes import RECIPES, make_training, training_recipe
from netlathe.training.sgd import WeightStep, make_optimizer

# Names and overrides


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_data_with_its_source(name: str) -> None:
    config = training_recipe(name)
    assert config.recipe == name
    assert config == RECIPES[name]()
    told = RECIPES[name].__doc__ or ""
    assert "Source: " in told
    assert "arXiv:" in told or "pytorch.org" in told
    assert "Differs: " in told
    with pytest.raises(FrozenInstanceError):
        config.epochs = 1  # type: ignore[misc]


def test_what_is_given_wins_and_what_goes_with_it_follows() -> None:
    own = training_recipe("imagenet-short", epochs=24, batch_size=256, seed=7, ema_decay=None)
    assert (own.epochs, own.batch_size, own.seed) == (24, 256, 7)
    assert own.warmup_epochs == pytest.approx(1.0)  # 5 of 120
    assert own.learning_rate == pytest.approx(0.1)  # a quarter of the batch
    assert own.ema_decay == 0
    given = training_recipe("imagenet-short", epochs=24, batch_size=256, warmup_epochs=3.0, learning_rate=0.4)
    assert (given.warmup_epochs, given.learning_rate) == (3.0, 0.4)
    assert training_recipe("imagenet-adamw", batch_size=512).learning_rate == pytest.approx(1e-3)  # the square root
    assert make_training(None, epochs=3, learning_rate=None) == TrainConfig(epochs=3)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cifer", "did you mean 'cifar'?"), ("imagenet300", "did you mean 'imagenet-300'"),
        ("zzz", "there are cifar, "),
    ],
)  # fmt: skip
def test_a_wrong_name_suggests_another_in_one_line(name: str, words: str) -> None:
    with pytest.raises(TrainingError) as told:
        training_recipe(name)
    assert words in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("optimizer", "lamb"), ("dropout", 1.0), ("drop_path", -0.1), ("resolutions", ()), ("resolutions", (0.5, 1.1)),
        ("class_weights", "equal"), ("warmup_epochs", 300.0),
    ],
)  # fmt: skip
def test_settings_that_make_no_training_are_named(field: str, value: object) -> None:
    with pytest.raises(TrainingError, match=f"^{field} = .* is out of range") as told:
        training_recipe("cifar", **{field: value})
    assert "\n" not in str(told.value)


# Parts


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_exactly_normalizations_and_biases_are_not_decayed(kind: str) -> None:
    net = TorchGraph(network("mobilenet_v2").graph())
    optimizer = make_optimizer(net, 0.1, 0.9, 1e-4, kind)  # type: ignore[arg-type]
    decayed, plain = ({id(p) for p in group["params"]} for group in optimizer.param_groups)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [1e-4, 0.0]
    expected = {
        id(parameter)
        for module in net.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if isinstance(module, nn.modules.batchnorm._NormBase) or name == "bias"
    }
    assert plain == expected
    assert decayed | plain == {id(p) for p in net.parameters()}
    assert not decayed & plain


def test_adamw_takes_its_first_step_by_the_sign_of_the_gradient() -> None:
    """Kingma and Ba, arXiv:1412.6980: corrected for bias, the first moments' ratio is the sign; decay is apart."""
    layer = nn.Linear(3, 2)
    before = [p.detach().clone() for p in layer.parameters()]
    optimizer = make_optimizer(layer, 0.01, 0.9, 0.1, "adamw")
    layer(torch.rand(4, 3)).square().sum().backward()
    gradients = [p.grad.clone() for p in layer.parameters() if p.grad is not None]
    optimizer.step()
    for (weight, found), gradient in zip(zip(before, layer.parameters(), strict=True), gradients, strict=True):
        kept = weight * (1 - 0.01 * 0.1) if weight.dim() > 1 else weight
        torch.testing.assert_close(found.detach(), kept - 0.01 * gradient.sign(), atol=1e-6, rtol=1e-4)


def test_warm_up_and_cosine_are_closed_forms() -> None:
    config = training_recipe("imagenet-short", epochs=24, batch_size=256, learning_rate=1.0)
    steps, warm = 24 * 10, config.warmup_epochs * 10
    rates = [learning_rate_at(step, steps, warm, config.learning_rate) for step in range(steps)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[9:] == pytest.approx([0.5 * (1 + math.cos(math.pi * k / 231)) for k in range(231)])


# Losses


def test_weighted_losses_over_parts_add_up_to_the_batchs() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(12, 4), torch.arange(12) % 3
    weights = class_weights(torch.tensor([0] * 6 + [1] * 3 + [2]), 4)
    whole = cross_entropy(logits, labels, weights=weights, label_smoothing=0.1)
    halves = [
        cross_entropy(logits[part], labels[part], weights=weights, label_smoothing=0.1)
        for part in (slice(0, 5), slice(5, 12))
    ]
    torch.testing.assert_close(whole, (5 * halves[0] + 7 * halves[1]) / 12)
    by_hand = (weights[labels] * F.cross_entropy(logits, labels, reduction="none")).mean()
    torch.testing.assert_close(cross_entropy(logits, labels, weights=weights), by_hand)
    torch.testing.assert_close(cross_entropy(logits, labels, weights=torch.ones(4)), F.cross_entropy(logits, labels))


def test_shares_of_one_class_are_its_label() -> None:
    logits, labels = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 1, 1])
    shares = F.one_hot(labels, 4).float()
    weights = class_weights(labels, 4)
    for options in ({}, {"weights": weights}, {"label_smoothing": 0.1}):
        torch.testing.assert_close(cross_entropy(logits, shares, **options), cross_entropy(logits, labels, **options))  # type: ignore[arg-type]
    assert torch.equal(classes_of_labels(shares), labels)
    assert torch.equal(classes_of_labels(labels), labels)


class Leaning(nn.Module):
    """Class scores that are a weight each, for every image."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.zeros(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.scores.expand(len(x), 2)


@pytest.mark.parametrize(("kind", "share"), [("none", 0.9), ("balanced", 0.5)])
def test_a_network_that_sees_nothing_learns_what_classes_count(kind: str, share: float) -> None:
    labels = torch.tensor([0] * 9 + [1])
    config = TrainConfig(class_weights=kind, label_smoothing=0.0, weight_decay=0.0, momentum=0.0)  # type: ignore[arg-type]
    net = Leaning()
    step = WeightStep(net, config, Compute("cpu"), weights=config.weights_of(labels, 2))
    for _ in range(300):
        step((torch.zeros(10, 1, 1, 1), labels), net, 1.0, "")
    assert float(net.scores.detach().softmax(0)[0]) == pytest.approx(share, abs=1e-3)


# Accuracies


def test_a_balanced_accuracys_interval_covers_as_often_as_it_says() -> None:
    generator, right = torch.Generator().manual_seed(0), torch.tensor([0.9, 0.6, 0.97])
    images, held = torch.tensor([40, 200, 60]), 0
    for _ in range(400):
        found = torch.binomial(images.float(), right, generator=generator).long()
        confusion = torch.diag(found)
        confusion[0, 1], confusion[1, 2], confusion[2, 0] = (images - found).tolist()
        low, high = Classification(confusion.numpy(), 0).balanced_interval
        held += low <= float(right.mean()) <= high
    assert held / 400 == pytest.approx(0.95, abs=0.04)


def test_images_of_other_classes_than_a_networks_are_classified_too() -> None:
    split = MemorySplit(torch.zeros(6, 3, 2, 2, dtype=torch.uint8), torch.tensor([0, 1, 0, 1, 0, 1]))
    found = classify(lambda x: torch.arange(7.0).expand(len(x), 7), split, 7)
    assert found.confusion[:2].tolist() == [[0] * 6 + [3]] * 2
    assert found.to_json()["classes"] == 2
    few = classify(lambda x: torch.tensor([1.0, 0.0]).expand(len(x), 2), split, 2)
    assert few.top5_accuracy == 1
