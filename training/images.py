"""Image classification data: splits of images in memory, and the batches made of them (encoded.py: on disk)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split
from torch import Tensor

from netlathe.archspace.files import digest
from netlathe.training.augmentation import PLAIN, Augmentation, crop_box
from netlathe.training.errors import DataError
from netlathe.training.normalization import SYMMETRIC, Normalization

Pixels = tuple[int, int]
"""(height, width)."""


class ImageSplit(ABC):
    """Images of one shape with int64 labels (N,), wherever the pixels are kept. An index is an int64 tensor (n,)."""

    labels: Tensor
    normalization: Normalization = SYMMETRIC
    """How networks take the pixels."""

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {len(self)} images of {self.shape}>"

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of an image."""

    @abstractmethod
    def take(self, index: Tensor) -> ImageSplit:
        """The split of these images, in this order; reads no pixels that are not in memory."""

    @abstractmethod
    def load(self, index: Tensor) -> Tensor:
        """uint8 (n, C, H, W). Raises DataError, with the image's name, for one that cannot be read."""

    def augmented(
        self,
        index: Tensor,
        generator: torch.Generator,
        *,
        mirror: bool,
        kept: Tensor | None = None,
        augmentation: Augmentation = PLAIN,
    ) -> Tensor:
        """Like `load`, each image cut or shifted at random as the augmentation says and, if `mirror`, mirrored.

        kept: bool (n,), the images that are wanted; they are what they are among all, since random numbers are drawn
        for all. None: all.
        """
        wanted = index if kept is None else index[kept]
        return augment(self.load(wanted), generator, mirror=mirror, kept=kept, augmentation=augmentation)

    def order(self, generator: torch.Generator) -> Tensor:
        """int64 (N,): an order for one pass of training."""
        return torch.randperm(len(self), generator=generator)

    @property
    def reads_in_order(self) -> bool:
        """Whether images that follow one another are read faster than any others."""
        return False

    @property
    def is_encoded(self) -> bool:
        """Whether images are decoded whenever they are used."""
        return False

    def prepare(self) -> None:  # noqa: B027  # most have nothing to read
        """Reads what is kept in memory: to be called before processes are started that load images."""

    def digest(self) -> str:
        """Digest of the images, in this order, by three of them: enough to tell other images or another way to decode,
        without reading all."""
        few = torch.tensor([0, len(self) // 2, len(self) - 1])
        return digest(self.load(few).contiguous().numpy().tobytes())

    def joined(self, other: ImageSplit) -> ImageSplit:
        """These images, then those of `other`. Raises DataError when their shapes or normalizations differ."""
        if self.shape != other.shape:
            raise DataError(f"images of {self.shape} and of {other.shape} (channels, height, width) cannot be joined")
        if self.normalization != other.normalization:
            raise DataError(f"images normalized as {self.normalization} and {other.normalization} cannot be joined")
        return self._joined(other)

    def _joined(self, other: ImageSplit) -> ImageSplit:
        return JoinedSplit(self, other, torch.arange(len(self) + len(other)), torch.cat([self.labels, other.labels]))


@dataclass(frozen=True, eq=False, repr=False)
class MemorySplit(ImageSplit):
    """uint8 images (N, C, H, W) and int64 labels (N,), in memory."""

    images: Tensor
    labels: Tensor

    @property
    def shape(self) -> tuple[int, int, int]:
        _, channels, height, width = self.images.shape
        return channels, height, width

    def take(self, index: Tensor) -> MemorySplit:
        return MemorySplit(self.images[index], self.labels[index])

    def load(self, index: Tensor) -> Tensor:
        return self.images[index]

    def _joined(self, other: ImageSplit) -> ImageSplit:
        if not isinstance(other, MemorySplit):
            return super()._joined(other)
        return MemorySplit(torch.cat([self.images, other.images]), torch.cat([self.labels, other.labels]))


@dataclass(frozen=True, eq=False, repr=False)
class JoinedSplit(ImageSplit):
    """Images of two splits that are kept in different ways; `rows` counts through the first, then the second."""

    first: ImageSplit
    second: ImageSplit
    rows: Tensor
    labels: Tensor

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.first.shape

    def take(self, index: Tensor) -> JoinedSplit:
        return JoinedSplit(self.first, self.second, self.rows[index], self.labels[index])

    def load(self, index: Tensor) -> Tensor:
        one, two, of_first = self._indices(index)
        return _merged(self.first.load(one), self.second.load(two), of_first)

    def augmented(
        self,
        index: Tensor,
        generator: torch.Generator,
        *,
        mirror: bool,
        kept: Tensor | None = None,
        augmentation: Augmentation = PLAIN,
    ) -> Tensor:
        one, two, of_first = self._indices(index)
        kept = torch.ones_like(of_first) if kept is None else kept
        first = self.first.augmented(one, generator, mirror=mirror, kept=kept[of_first], augmentation=augmentation)
        second = self.second.augmented(two, generator, mirror=mirror, kept=kept[~of_first], augmentation=augmentation)
        return _merged(first, second, of_first[kept])

    @property
    def is_encoded(self) -> bool:
        return self.first.is_encoded or self.second.is_encoded

    def prepare(self) -> None:
        self.first.prepare()
        self.second.prepare()

    def _indices(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The index into the first split, that into the second, and which of the rows are in the first."""
        rows = self.rows[index]
        of_first = rows < len(self.first)
        return rows[of_first], rows[~of_first] - len(self.first), of_first


@dataclass(frozen=True, eq=False, repr=False)
class NormalizedSplit(ImageSplit):
    """A split whose pixels are given to networks in another way."""

    split: ImageSplit
    normalization: Normalization

    @property
    def labels(self) -> Tensor:  # type: ignore[override]
        return self.split.labels

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.split.shape

    def take(self, index: Tensor) -> NormalizedSplit:
        return replace(self, split=self.split.take(index))

    def load(self, index: Tensor) -> Tensor:
        return self.split.load(index)

    def augmented(
        self,
        index: Tensor,
        generator: torch.Generator,
        *,
        mirror: bool,
        kept: Tensor | None = None,
        augmentation: Augmentation = PLAIN,
    ) -> Tensor:
        return self.split.augmented(index, generator, mirror=mirror, kept=kept, augmentation=augmentation)

    def order(self, generator: torch.Generator) -> Tensor:
        return self.split.order(generator)

    @property
    def reads_in_order(self) -> bool:
        return self.split.reads_in_order

    @property
    def is_encoded(self) -> bool:
        return self.split.is_encoded

    def prepare(self) -> None:
        self.split.prepare()

    def digest(self) -> str:
        return self.split.digest()

    def _joined(self, other: ImageSplit) -> NormalizedSplit:
        inner = other.split if isinstance(other, NormalizedSplit) else other
        return replace(self, split=self.split._joined(inner))


def _merged(first: Tensor, second: Tensor, of_first: Tensor) -> Tensor:
    images = torch.empty((len(of_first), *first.shape[1:]), dtype=first.dtype)
    images[of_first] = first
    images[~of_first] = second
    return images


@dataclass(frozen=True, repr=False)
class ImageData:
    """Images of a classification task: weights learn from `train`, architecture parameters from `validation`; `test` is
    looked at once, at the end."""

    name: str
    classes: tuple[str, ...]
    train: ImageSplit
    validation: ImageSplit
    test: ImageSplit
    mirror: bool = True
    """Whether an image flipped left to right still shows its class."""
    notes: tuple[str, ...] = ()
    """Lines on files that were passed over, classes that a split lacks, images that cannot be read."""

    def __repr__(self) -> str:
        counts = f"{len(self.train)} train, {len(self.validation)} validation, {len(self.test)} test"
        return f"<ImageData {self.name}: {len(self.classes)} classes, {counts} images of {self.input_shape}>"

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        channels, height, width = self.train.shape
        return height, width, channels

    @property
    def normalization(self) -> Normalization:
        """How networks take the pixels."""
        return self.train.normalization

    def normalized(self, normalization: Normalization) -> ImageData:
        """The same images, their pixels given to networks in another way. Raises DataError where it is of other
        channels."""
        normalization.check(self.input_shape[2])
        splits = (self.train, self.validation, self.test)
        inner = (one.split if isinstance(one, NormalizedSplit) else one for one in splits)
        train, validation, test = (NormalizedSplit(one, normalization) for one in inner)
        return replace(self, train=train, validation=validation, test=test)


def augment(
    x: Tensor,
    generator: torch.Generator,
    *,
    mirror: bool,
    still: Tensor | None = None,
    kept: Tensor | None = None,
    augmentation: Augmentation = PLAIN,
) -> Tensor:
    """Shifts each image by up to an eighth of its size, border repeated, or cuts a part out of each and gives it that
    size, or neither, as the augmentation's `crop` says; mirrors half of them when allowed.

    x: (N, C, H, W) of any type; uint8 to be cut. still: bool (N,), the images that are only to be mirrored. kept: bool
    (M,), which of the M images that random numbers are drawn for are these N; None: M is N.
    """
    _, _, height, width = x.shape
    kept = torch.ones(len(x), dtype=torch.bool) if kept is None else kept
    n = len(kept)
    if augmentation.crop == "none":
        still = torch.ones(len(x), dtype=torch.bool)
    if augmentation.crop == "resized":
        draws = torch.rand((n, 4), generator=generator, dtype=torch.float64)[kept]
        flipped = torch.rand(n, generator=generator)[kept] < 0.5 if mirror else torch.zeros(len(x), dtype=torch.bool)
        is_cut = torch.ones(len(x), dtype=torch.bool) if still is None else ~still
        return _cut(x, draws, is_cut, flipped, augmentation.least_area)
    reach_y, reach_x = max(1, height // 8), max(1, width // 8)
    dy = torch.randint(-reach_y, reach_y + 1, (n, 1), generator=generator)
    dx = torch.randint(-reach_x, reach_x + 1, (n, 1), generator=generator)
    dy, dx = dy[kept], dx[kept]
    rows = (torch.arange(height) + dy).clamp_(0, height - 1)
    columns = (torch.arange(width) + dx).clamp_(0, width - 1)
    flipped = torch.rand((n, 1), generator=generator)[kept] < 0.5 if mirror else torch.zeros_like(dy, dtype=torch.bool)
    columns = torch.where(flipped, columns.flip(1), columns)
    if still is None:
        return _picked(x, rows, columns)
    changed, moved, turned = x.clone(), ~still, still & flipped[:, 0]
    changed[moved] = _picked(x[moved], rows[moved], columns[moved])
    changed[turned] = x[turned].flip(3)  # by far the cheaper way
    return changed


def _cut(x: Tensor, draws: Tensor, is_cut: Tensor, flipped: Tensor, least_area: float) -> Tensor:
    """A part of each image that is to be cut, in the whole one's size, and mirrored images."""
    height, width = x.shape[2:]
    changed = torch.empty_like(x)
    for row, (four, cuts, turns) in enumerate(zip(draws.tolist(), is_cut.tolist(), flipped.tolist(), strict=True)):
        image = x[row : row + 1]
        if cuts:
            left, top, right, bottom = crop_box((width, height), four, least_area)
            part = image[:, :, top:bottom, left:right]
            image = torch.nn.functional.interpolate(part, (height, width), mode="bilinear", antialias=True)
        changed[row] = (image.flip(3) if turns else image)[0]
    return changed


def _picked(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The pixels at (n, height) rows and (n, width) columns of each image."""
    index = torch.arange(len(x))
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
    notes: tuple[str, ...] = (),
) -> ImageData:
    """Completes the splits 'train', 'validation', 'test': what is missing is held out of train, a fifth each, with
    every class in proportion. `limit` keeps at most so many images per split. Raises DataError for splits that cannot
    be made so, and for a class that is not in the training split."""
    splits = dict(splits)
    if len(classes) < 2:
        raise DataError(f"{name}: there is one class only ({', '.join(classes)}); a classifier needs two")
    if "train" not in splits:
        raise DataError(f"{name}: there is no training split, only {', '.join(splits) or 'nothing'}")
    notes += _check_classes(name, classes, splits)
    for wanted in ("test", "validation"):
        if wanted not in splits:
            splits["train"], splits[wanted] = _hold_out(name, splits["train"], classes, seed)
    if limit is not None:
        splits = {key: _limited(split, limit, seed) for key, split in splits.items()}
    for key, split in splits.items():
        if len(split) == 0:
            raise DataError(f"{name}: the {key} split has no images")
    return ImageData(name, classes, splits["train"], splits["validation"], splits["test"], mirror, notes)


def _check_classes(name: str, classes: tuple[str, ...], splits: Mapping[str, ImageSplit]) -> tuple[str, ...]:
    """Notes on classes that a split lacks. Raises DataError for those that the training split lacks."""
    notes = []
    learned = set(splits["train"].labels.tolist())
    for key, split in splits.items():
        present = set(split.labels.tolist())
        if present - learned:
            raise DataError(
                f"{name}: the {key} split has images of {_named(classes, present - learned)}, and the training split "
                "none; add some there, or remove them"
            )
        if learned - present:
            notes.append(f"{name}: the {key} split has no images of {_named(classes, learned - present)}")
    return tuple(notes)


def _named(classes: tuple[str, ...], labels: Collection[int]) -> str:
    """Some classes by name."""
    names = [repr(classes[label]) for label in sorted(labels)]
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"class{'es'[: 2 * (len(names) > 1)]} {', '.join(names[:5])}{more}"


def _hold_out(
    name: str, split: ImageSplit, classes: tuple[str, ...], seed: int, share: float = 0.2
) -> tuple[ImageSplit, ImageSplit]:
    """Split into what stays and a share that is held out, every class in proportion."""
    labels = split.labels.numpy()
    counts = np.bincount(labels, minlength=len(classes))
    few = np.flatnonzero(counts == 1)
    if len(few) == np.count_nonzero(counts):
        raise DataError(
            f"{name}: every class has one image, too few to hold some out; labels must name what several images share "
            "(if they are numbers that were measured, ranges of these)"
        )
    if len(few):
        raise DataError(
            f"{name}: {_named(classes, few.tolist())} ha{'ve' if len(few) > 1 else 's'} a single image left, too "
            "few to hold some out for validation and test; add images, or remove the class"
        )
    if math.ceil(len(split) * share) < np.count_nonzero(counts):
        raise DataError(
            f"{name}: {len(split)} images are too few to hold a fifth out with each of {np.count_nonzero(counts)} "
            "classes among them; add images, or a validation and a test split"
        )
    kept, out = train_test_split(np.arange(len(split)), test_size=share, random_state=seed, stratify=labels)
    if split.reads_in_order:
        kept, out = np.sort(kept), np.sort(out)
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
