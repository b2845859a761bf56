"""Random changes of training images: each image's own, mostly by kornia, and mixtures of a batch's images.

All that is drawn is a function of a seed, a batch's number and an image's place in the batch: not of the processes that
share the batch, nor of those that prepare it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from statistics import fmean
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from netlathe.training.errors import TrainingError, refuse
from netlathe.training.normalization import Normalization

Crop = Literal["none", "shift", "resized"]
"""none: images in memory stay whole. shift: they are shifted by up to an eighth of their size. resized: a random part
of each takes the whole image's size. Encoded images that are larger than the network's are cut while they are decoded
in any way."""
Policy = Literal["none", "randaugment", "trivialaugment"]
Range = tuple[float, float]
MODERATE_AREA = 0.35
"""Small networks do better without the smallest of Inception's crops, which begin at 0.08 of the area (MobileNets,
arXiv:1704.04861, section 4)."""

WIDEST_RATIO = 4 / 3
"""Largest ratio of a cut's sides (Inception, arXiv:1409.4842)."""

# What a seed is used for, beside the order of images and their crops (`stream.py`), so that no two uses share numbers.
_OF_AN_IMAGE, _OF_A_BATCH = 2, 3


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Random changes of training images, in the order in which they are made. By default images are only shifted (or
    cut while they are decoded) and mirrored where a mirrored image still shows its class.

    Color jitter, policies and erasing are kornia's (extra `recipes`). Raises TrainingError for values out of range.
    """

    crop: Crop = "shift"
    least_area: float = MODERATE_AREA
    """Least share of an image that a cut takes (random resized crop, arXiv:1409.4842)."""
    color_jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """Brightness, contrast and saturation change by a factor of up to 1 +- these, the hue by up to the last, in
    turns."""
    policy: Policy = "none"
    """Image operations drawn anew for each image: RandAugment (arXiv:1909.13719), or TrivialAugment
    (arXiv:2103.10158)."""
    operations: int = 2
    """Operations of RandAugment, one after the other."""
    magnitude: int = 9
    """Strength of RandAugment's operations, 1 to 29."""
    erasing: float = 0.0
    """Probability that a rectangle gets the normalization's mean (random erasing, arXiv:1708.04896)."""
    erased_area: Range = (0.02, 0.33)
    """Least and largest share of the image that it takes."""
    erased_ratio: Range = (0.3, 3.3)
    """Least and largest ratio of its sides."""
    mixup: float = 0.0
    """Alpha of the Beta distribution of how far images and labels are mixed with the next ones' (arXiv:1710.09412)."""
    cutmix: float = 0.0
    """Alpha of that of a box's area, which is filled from the next image (arXiv:1905.04899). With both, each batch gets
    either, with equal probability."""

    def __post_init__(self) -> None:
        least, most = self.erased_area
        narrow, wide = self.erased_ratio
        jitter = self.color_jitter
        refuse(self, {
            "crop": self.crop not in get_args(Crop),
            "least_area": not 0 < self.least_area <= 1,
            "color_jitter": len(jitter) != 4 or not all(0 <= one < math.inf for one in jitter) or jitter[3] > 0.5,
            "policy": self.policy not in get_args(Policy),
            "operations": not 1 <= self.operations <= 10,
            "magnitude": not 1 <= self.magnitude <= 29,
            "erasing": not 0 <= self.erasing <= 1,
            "erased_area": not 0 < least <= most < 1,
            "erased_ratio": not 0 < narrow <= wide < math.inf,
            "mixup": not 0 <= self.mixup < math.inf,
            "cutmix": not 0 <= self.cutmix < math.inf,
        })  # fmt: skip

    def check_packages(self) -> None:
        """Raises TrainingError where kornia is needed and not installed."""
        if self.changes_images:
            library()

    @property
    def changes_images(self) -> bool:
        """Whether single images are changed by more than a crop and a mirror."""
        return any(self.color_jitter) or self.policy != "none" or self.erasing > 0

    @property
    def mixes(self) -> bool:
        """Whether images of a batch are mixed."""
        return self.mixup > 0 or self.cutmix > 0


PLAIN = Augmentation()
"""Shifts, or cuts, and mirrors alone."""


def crop_box(size: tuple[int, int], draws: Sequence[float], least_area: float) -> tuple[int, int, int, int]:
    """A random part (left, top, right, bottom) of an image of `size` (width, height), of at least a share of its area.

    draws: four numbers in 0..1 for its area, its shape and its place. A side that would be longer than the image's is
    as long as the image's.
    """
    width, height = size
    area = width * height * (least_area + (1 - least_area) * draws[0])
    ratio = WIDEST_RATIO ** (2 * draws[1] - 1)
    wide, high = (max(1, round(side)) for side in ((area * ratio) ** 0.5, (area / ratio) ** 0.5))
    wide, high = min(wide, width), min(high, height)
    left, top = int(draws[2] * (width - wide + 1)), int(draws[3] * (height - high + 1))
    return left, top, left + wide, top + high


def library() -> Any:
    """The module kornia.augmentation. Raises TrainingError where it is not installed."""
    try:
        return import_module("kornia.augmentation")
    except ImportError as error:
        raise TrainingError(
            f"this training's augmentation needs kornia ({error}); pip install 'netlathe[recipes]', or choose a recipe "
            "of crops, mirrors, mixup and cutmix alone"
        ) from error


_SHEAR = 1 / 180
"""Kornia's shears are angles, as shares of 180 degrees."""
_RANDAUGMENT = (
    *((name, 0, 1) for name in ("auto_contrast", "equalize", "invert")), ("rotate", -30.0, 30.0),
    ("posterize", 4.0, 8.0), ("solarize", 0.0, 1.0), ("solarize_add", 0.0, 0.43),
    *((name, 0.1, 1.9) for name in ("color", "contrast", "brightness", "sharpness")),
    *((name, -16.7 * _SHEAR, 16.7 * _SHEAR) for name in ("shear_x", "shear_y")),
    *((name, -0.45, 0.45) for name in ("translate_x", "translate_y")),
)  # fmt: skip
"""Operations with their ranges, as in the authors' code: shears by up to 0.3 (16.7 degrees), shifts by 100 pixels of
224."""
_TRIVIALAUGMENT = (
    *((name, 0, 1) for name in ("auto_contrast", "equalize")), ("rotate", -135.0, 135.0), ("posterize", 2.0, 8.0),
    ("solarize", 0.0, 1.0), *((name, 0.01, 2.0) for name in ("color", "contrast", "brightness", "sharpness")),
    *((name, -44.7 * _SHEAR, 44.7 * _SHEAR) for name in ("shear_x", "shear_y")),
    *((name, -32 / 224, 32 / 224) for name in ("translate_x", "translate_y")),
)  # fmt: skip
"""The wide space of the paper's table 1, without the identity, which is drawn apart: shears by up to 0.99 (44.7
degrees), shifts by 32 pixels of 224."""


@dataclass(frozen=True)
class ImageChanges:
    """The changes of single images behind crops and mirrors."""

    augmentation: Augmentation
    normalization: Normalization

    def __call__(self, images: Tensor, seed: int, batch: int, places: Sequence[int]) -> Tensor:
        """uint8 (n, C, H, W), images at these places of a batch of that number, changed."""
        if not self.augmentation.changes_images:
            return images
        seeds = seeds_of(seed, _OF_AN_IMAGE, batch, max(places, default=-1) + 1)
        changed = torch.empty(images.shape, dtype=torch.uint8)
        with torch.no_grad(), drawing():
            for row, place in enumerate(places):
                torch.default_generator.manual_seed(seeds[place])
                changed[row] = self._changed(images[row])
        return changed

    def _changed(self, image: Tensor) -> Tensor:
        """One at a time: over a batch, kornia draws the same operations for all."""
        x = image[None].expand(1, 3, -1, -1) / 255
        for change in self._changes:
            x = change(x)
        return (255 * x[0, : len(image)]).round_().clamp_(0, 255).to(torch.uint8)

    @cached_property
    def _changes(self) -> list[Callable[[Tensor], Tensor]]:
        own, kornia = self.augmentation, library()
        found: list[Callable[[Tensor], Tensor]] = []
        if any(own.color_jitter):
            found.append(kornia.ColorJitter(*own.color_jitter, p=1.0))
        if own.policy == "randaugment":
            policy = [[one] for one in _RANDAUGMENT]
            found.append(kornia.auto.RandAugment(own.operations, own.magnitude, policy=policy))
        if own.policy == "trivialaugment":
            found.append(_OneOf(kornia.auto.TrivialAugment(policy=[[one] for one in _TRIVIALAUGMENT])))
        if own.erasing:
            mean = fmean(self.normalization.mean)
            found.append(kornia.RandomErasing(own.erased_area, own.erased_ratio, min(1.0, mean), p=own.erasing))
        return found


@dataclass(frozen=True)
class _OneOf:
    """An operation of TrivialAugment, or with the probability of any other, the image as it is."""

    change: Callable[[Tensor], Tensor]

    def __call__(self, x: Tensor) -> Tensor:
        is_same = int(torch.randint(len(_TRIVIALAUGMENT) + 1, ())) == len(_TRIVIALAUGMENT)
        return x if is_same else self.change(x)


@dataclass(frozen=True)
class Mixing:
    """Mixtures of a batch's images with those before them, and of their labels.

    By torch's own operations: kornia's mixup draws other shares than the paper's, and its pairs are of a whole batch,
    of which a process may have a part.
    """

    augmentation: Augmentation
    classes: int
    seed: int
    kept: Tensor | None = None
    """Images of the batch that are wanted, bool (size,); None: all."""

    @property
    def needed(self) -> Tensor | None:
        """Images that these are made of, bool (size,); None: all."""
        return None if self.kept is None else self.kept | self.kept.roll(-1)

    def __call__(self, images: Tensor, labels: Tensor, batch: int) -> tuple[Tensor, Tensor]:
        """float32 images (n, C, H, W) and int64 labels (n,) of those that are needed -> mixed ones of those that are
        wanted, and float32 (m, classes), the shares that each class has in them."""
        rng = np.random.default_rng(seeds_of(self.seed, _OF_A_BATCH, batch, 1))
        own, other = self._pairs(len(labels))
        x, y = images[own], torch.nn.functional.one_hot(labels, self.classes).float()
        is_cut = self.augmentation.cutmix > 0 and (self.augmentation.mixup == 0 or rng.random() < 0.5)
        alpha = self.augmentation.cutmix if is_cut else self.augmentation.mixup
        share = float(rng.beta(alpha, alpha))
        if is_cut:
            top, bottom, left, right = cut_box(images.shape[2], images.shape[3], share, rng)
            x[:, :, top:bottom, left:right] = images[other, :, top:bottom, left:right]
            share = 1 - (bottom - top) * (right - left) / (images.shape[2] * images.shape[3])
        else:
            x = _between(images[other], x, share)
        return x, _between(y[other], y[own], share)

    def _pairs(self, count: int) -> tuple[Tensor, Tensor]:
        """Rows among the `count` needed images: of the wanted ones, and of those that each is mixed with."""
        if self.kept is None or self.needed is None:
            rows = torch.arange(count)
            return rows, rows.roll(1)
        rows = self.needed.cumsum(0) - 1
        wanted = self.kept.nonzero()[:, 0]
        return rows[wanted], rows[(wanted - 1) % len(self.kept)]


def _between(start: Tensor, end: Tensor, share: float) -> Tensor:
    """torch.lerp in place of both, of the same bits however many values there are: its last ones are rounded in another
    way than those that fill a vector register."""
    return start.mul_(1 - share).add_(end.mul_(share))


def cut_box(height: int, width: int, share: float, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Box of cutmix (top, bottom, left, right) for a `share` of the image that stays: of sides sqrt(1 - share) of the
    image's, about a random pixel, as far as it lies inside (arXiv:1905.04899, section 3.1)."""
    ends: list[int] = []
    for side in (height, width):
        half, centre = int(side * math.sqrt(1 - share) / 2), int(rng.integers(side))
        ends += [max(0, centre - half), min(side, centre + half)]
    return ends[0], ends[1], ends[2], ends[3]


@contextmanager
def drawing() -> Iterator[None]:
    """Context in which torch's global generator, by which kornia draws, may be seeded; it is put back."""
    state = torch.random.get_rng_state()
    try:
        yield
    finally:
        torch.random.set_rng_state(state)


def seeds_of(seed: int, use: int, number: int, count: int) -> list[int]:
    """Seeds of generators: a function of a training's seed, what it is used for, and a number."""
    state = np.random.SeedSequence(seed, spawn_key=(use, number)).generate_state(count, np.uint64)
    return [int(one) for one in state]
