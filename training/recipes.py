"""Published training recipes by name: settings of a training as data, each with its source and with what differs here.

In all of them, weight decay leaves out biases and normalizations, BatchNorm's statistics are set on clean images at the
end, and images are judged whole rather than by their centre.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from netlathe.training.augmentation import Augmentation
from netlathe.training.loop import TrainConfig
from netlathe.training.recipe_names import RECIPE_NAMES, check_recipe
from netlathe.training.sgd import Optimizer

_CUTOUT = Augmentation(erasing=1.0, erased_area=(0.25, 0.25), erased_ratio=(1.0, 1.0))
_COLORS = Augmentation(crop="resized", least_area=0.08, color_jitter=(0.4, 0.0, 0.4, 0.0))
_STRONG_COLORS = Augmentation(crop="resized", least_area=0.08, color_jitter=(0.4, 0.4, 0.4, 0.1))
_TRIVIAL = Augmentation(crop="resized", least_area=0.08, policy="trivialaugment", erasing=0.1, mixup=0.2, cutmix=1.0)
_RANDOM = Augmentation(crop="resized", least_area=0.08, policy="randaugment", magnitude=21, mixup=0.1, cutmix=1.0)


@dataclass(frozen=True, kw_only=True)
class Cifar(TrainConfig):
    """Images of 32 pixels: 200 epochs with shifts, mirrors and cutout.

    Source: DeVries and Taylor, Improved Regularization of Convolutional Neural Networks with Cutout (arXiv:1708.04552),
    with the shifts by 4 pixels and mirrors of He et al. (arXiv:1512.03385, section 4.2): SGD with Nesterov momentum
    0.9, batches of 128, learning rate 0.1, weight decay 5e-4, squares of 16 pixels cut out (CIFAR-10). A ResNet-18 has
    96.0 % on CIFAR-10 there, and 95.3 % without cutout.

    Differs: a cosine takes the learning rate down, in place of steps at 60, 120 and 160 epochs; a shift repeats the
    border, in place of zeros; the square lies wholly inside the image.
    """

    recipe: str = "cifar"
    epochs: int = 200
    batch_size: int = 128
    learning_rate: float = 0.1
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    augmentation: Augmentation = _CUTOUT


@dataclass(frozen=True, kw_only=True)
class ImageNetShort(TrainConfig):
    """Photos, MobileNets among the networks: 120 epochs with changes of brightness and color.

    Source: He et al., Bag of Tricks for Image Classification with Convolutional Neural Networks (arXiv:1812.01187): SGD
    with Nesterov momentum 0.9, batches of 1024, learning rate 0.4 after 5 epochs of linear warm-up, then a cosine,
    weight decay 1e-4 but not of biases and normalizations, label smoothing 0.1, crops from 8 % of the area up,
    brightness and saturation by a factor of 0.6 to 1.4.

    Differs: no noise along the colors' principal components, and no changes of hue, which are scaled in another way
    there; no weights of 0 at the ends of residual branches; float32, or bfloat16 on GPUs that have it.
    """

    recipe: str = "imagenet-short"
    epochs: int = 120
    batch_size: int = 1024
    learning_rate: float = 0.4
    warmup_epochs: float = 5.0
    weight_decay: float = 1e-4
    augmentation: Augmentation = _COLORS


@dataclass(frozen=True, kw_only=True)
class ImageNet300(TrainConfig):
    """Photos, networks of ProxylessNAS's kind: 300 epochs with strong color changes.

    Source: Cai et al., ProxylessNAS (arXiv:1812.00332), by the settings of the authors' code
    (github.com/mit-han-lab/proxylessnas, search/imagenet_run_exp.py): SGD with Nesterov momentum 0.9, batches of 256,
    learning rate 0.05 along a cosine, weight decay 4e-5 but not of normalizations, label smoothing 0.1, crops from 8 %
    of the area up, brightness, contrast and saturation by up to 0.4, hue by up to 0.1. ProxylessNAS's network for
    mobile phones has 74.6 % on ImageNet there.

    Differs: weight decay leaves out the classifier's biases, too.
    """

    recipe: str = "imagenet-300"
    epochs: int = 300
    batch_size: int = 256
    learning_rate: float = 0.05
    augmentation: Augmentation = _STRONG_COLORS


@dataclass(frozen=True, kw_only=True)
class ImageNet600(TrainConfig):
    """Photos, larger networks: 600 epochs with TrivialAugment, mixup, cutmix, erasing and averaged weights.

    Source: Vryniotis, How to Train State-Of-The-Art Models Using TorchVision's Latest Primitives (pytorch.org/blog,
    2021): SGD with momentum 0.9, batches of 1024, learning rate 0.5 after 5 epochs of linear warm-up, then a cosine,
    weight decay 2e-5 but not of normalizations, label smoothing 0.1, mixup 0.2, cutmix 1, TrivialAugment, erasing of
    0.1 of the images, images of 176 pixels for networks of 224, an average of the weights. A ResNet-50 has 80.9 % on
    ImageNet there.

    Differs: Nesterov momentum; an image is seen once per epoch, not four times in a quarter of the epochs (repeated
    augmentation); the average is taken at each step, with the decay that theirs at each 32nd step comes to; images have
    the size nearest to 176 pixels at which the network's layers are padded alike, which is 192 for strides of 32.
    """

    recipe: str = "imagenet-600"
    epochs: int = 600
    batch_size: int = 1024
    learning_rate: float = 0.5
    warmup_epochs: float = 5.0
    weight_decay: float = 2e-5
    ema_decay: float = 0.99997
    resolutions: tuple[float, ...] = (176 / 224,)
    augmentation: Augmentation = _TRIVIAL


@dataclass(frozen=True, kw_only=True)
class ImageNetAdamW(TrainConfig):
    """Photos, networks with residual blocks: 300 epochs with RandAugment, mixup, cutmix and stochastic depth.

    Source: Wightman et al., ResNet strikes back (arXiv:2110.00476), procedure A2: batches of 2048, 5 epochs of linear
    warm-up, then a cosine, weight decay 0.02, stochastic depth 0.05, RandAugment of magnitude 7 (of 10), mixup 0.1,
    cutmix 1, no label smoothing. A ResNet-50 has 79.8 % on ImageNet there.

    Differs: AdamW with a learning rate of 2e-3, where they have LAMB with 5e-3, which torch lacks; cross-entropy, where
    they have a binary one of each class; RandAugment's magnitude does not vary; no repeated augmentation. So the
    accuracy there is no promise for this one.
    """

    recipe: str = "imagenet-adamw"
    optimizer: Optimizer = "adamw"
    epochs: int = 300
    batch_size: int = 2048
    learning_rate: float = 2e-3
    warmup_epochs: float = 5.0
    weight_decay: float = 0.02
    label_smoothing: float = 0.0
    drop_path: float = 0.05
    augmentation: Augmentation = _RANDOM


RECIPES: dict[str, type[TrainConfig]] = dict(
    zip(RECIPE_NAMES, (Cifar, ImageNetShort, ImageNet300, ImageNet600, ImageNetAdamW), strict=True)
)
"""Recipes by name; of each, the class's defaults are the settings, and its docstring is the source."""


def training_recipe(name: str, **given: Any) -> TrainConfig:
    """The settings of a recipe by name, with those that are `given` by their names in TrainConfig in their place; None
    leaves the recipe's.

    What goes with a given setting follows it, unless it is given, too: warm-up keeps its part of the epochs, and the
    learning rate goes with the batch's size, in proportion (Goyal et al., arXiv:1706.02677), or for AdamW with its
    square root (Malladi et al., arXiv:2205.10287). Raises TrainingError for a name that there is not, with the nearest
    one, and for settings out of range.
    """
    check_recipe(name)
    kind = RECIPES[name]
    own = kind()
    chosen = {key: value for key, value in given.items() if value is not None}
    if "epochs" in chosen and "warmup_epochs" not in chosen:
        chosen["warmup_epochs"] = warmup_of(own.warmup_epochs, own.epochs, chosen["epochs"])
    if "batch_size" in chosen and "learning_rate" not in chosen:
        times = chosen["batch_size"] / own.batch_size
        chosen["learning_rate"] = own.learning_rate * (math.sqrt(times) if own.optimizer == "adamw" else times)
    return kind(**chosen)


def make_training(name: str | None, **given: Any) -> TrainConfig:
    """The settings of a recipe, or without a name those of TrainConfig, with those that are `given` in their place;
    None leaves them. Raises TrainingError as `training_recipe` does."""
    if name is not None:
        return training_recipe(name, **given)
    return TrainConfig(**{key: value for key, value in given.items() if value is not None})


def warmup_of(warmup_epochs: float, epochs: int, wanted: int) -> float:
    """The same part of `wanted` epochs as a warm-up is of `epochs`."""
    return warmup_epochs * wanted / epochs if epochs else 0.0
