"""Image classification data in memory: what the searches train on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split
from torch import Tensor

from search.errors import DataError

Pixels = tuple[int, int]
"""(height, width)."""


@dataclass(frozen=True)
class ImageSplit:
    """uint8 images (N, C, H, W) and int64 labels (N,)."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def joined(self, other: ImageSplit) -> ImageSplit:
        return ImageSplit(torch.cat([self.images, other.images]), torch.cat([self.labels, other.labels]))

    def take(self, index: Tensor) -> ImageSplit:
        return ImageSplit(self.images[index], self.labels[index])


@dataclass(frozen=True)
class ImageData:
    """Weights learn from `train`, architecture parameters from `validation`; `test` is looked at once, at the end."""

    name: str
    classes: tuple[str, ...]
    train: ImageSplit
    validation: ImageSplit
    test: ImageSplit
    mirror: bool = True
    """Whether an image flipped left to right still shows its class."""

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        _, channels, height, width = self.train.images.shape
        return height, width, channels


def to_input(images: Tensor) -> Tensor:
    """uint8 (N, C, H, W) -> what networks take: float32 in [-1, 1], channels last in memory (depthwise convolutions
    train 3 to 5 times faster so)."""
    return images.float().div_(127.5).sub_(1.0).contiguous(memory_format=torch.channels_last)


def batches(split: ImageSplit, size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """One pass in random order, in full batches (a batch of few images would spoil BatchNorm's statistics)."""
    order = torch.randperm(len(split), generator=generator)
    size = min(size, len(split))
    for start in range(0, len(split) - size + 1, size):
        index = order[start : start + size]
        yield to_input(split.images[index]), split.labels[index]


def endless(split: ImageSplit, size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches, pass after pass."""
    while True:
        yield from batches(split, size, generator)


def augment(x: Tensor, generator: torch.Generator, *, mirror: bool) -> Tensor:
    """Shifts each image by up to an eighth of its size, border repeated; mirrors half of them when allowed."""
    n, _, height, width = x.shape
    reach_y, reach_x = max(1, height // 8), max(1, width // 8)
    dy = torch.randint(-reach_y, reach_y + 1, (n, 1), generator=generator)
    dx = torch.randint(-reach_x, reach_x + 1, (n, 1), generator=generator)
    rows = (torch.arange(height) + dy).clamp_(0, height - 1)
    columns = (torch.arange(width) + dx).clamp_(0, width - 1)
    if mirror:
        flipped = torch.rand((n, 1), generator=generator) < 0.5
        columns = torch.where(flipped, columns.flip(1), columns)
    index = torch.arange(n)
    # Advanced indices are split by a slice, so the indexed axes come first: (N, H, W, C), channels last as before.
    return x[index[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def make_data(
    name: str,
    classes: tuple[str, ...],
    splits: dict[str, ImageSplit],
    *,
    seed: int,
    mirror: bool = True,
    limit: int | None = None,
) -> ImageData:
    """Completes the splits 'train', 'validation', 'test': what is missing is held out of train, a fifth each, with
    every class in proportion. `limit` keeps at most so many images per split."""
    splits = dict(splits)
    if len(classes) < 2:
        raise DataError(f"{name}: there is one class only ({', '.join(classes)}); a classifier needs two")
    if "train" not in splits:
        raise DataError(f"{name}: there is no training split, only {', '.join(splits) or 'nothing'}")
    for wanted in ("test", "validation"):
        if wanted not in splits:
            splits["train"], splits[wanted] = _hold_out(name, splits["train"], 0.2, seed)
    if limit is not None:
        splits = {key: _limited(split, limit, seed) for key, split in splits.items()}
    for key, split in splits.items():
        if len(split) == 0:
            raise DataError(f"{name}: the {key} split has no images")
    return ImageData(name, classes, splits["train"], splits["validation"], splits["test"], mirror)


def _hold_out(name: str, split: ImageSplit, share: float, seed: int) -> tuple[ImageSplit, ImageSplit]:
    """What stays, and the share that is held out, every class in proportion."""
    indices = np.arange(len(split))
    try:
        kept, out = train_test_split(indices, test_size=share, random_state=seed, stratify=split.labels.numpy())
    except ValueError as error:
        raise DataError(
            f"{name}: {len(split)} images are too few to hold some of every class out ({error}); add images"
        ) from error
    return split.take(torch.from_numpy(kept)), split.take(torch.from_numpy(out))


def spread_over_classes(labels: NDArray[np.int64], limit: int, seed: int) -> NDArray[np.intp]:
    """Indices, in order, of at most `limit` images: one of each class in turn, which one at random."""
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    starts = np.r_[0, np.flatnonzero(np.diff(labels[by_class])) + 1]
    turn = np.arange(len(labels)) - np.repeat(starts, np.diff(np.r_[starts, len(labels)]))
    return np.sort(by_class[np.argsort(turn, kind="stable")[:limit]])


def _limited(split: ImageSplit, limit: int, seed: int) -> ImageSplit:
    if len(split) <= limit:
        return split
    return split.take(torch.from_numpy(spread_over_classes(split.labels.numpy(), limit, seed)))
