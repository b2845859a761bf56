"""Batches for training: endless, in an order that only the seed decides, decoded by worker processes if wanted."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from netlathe.training.augmentation import PLAIN, Augmentation, ImageChanges, Mixing, seeds_of
from netlathe.training.errors import DataError
from netlathe.training.images import ImageSplit
from netlathe.training.ranks import Share

_WORTH_WORKERS = 5000
"""Images from which on processes are started: that costs about as much as decoding a thousand small ones."""
_MOST_WORKERS = 32
"""Each holds two batches ahead."""
T = TypeVar("T")
Batch = tuple[Tensor, Tensor]

# What a seed is used for, so that no two uses share random numbers.
_ORDER, _AUGMENTATION = 0, 1


def batches_per_pass(split: ImageSplit, batch_size: int) -> int:
    """Full batches in the split; a split smaller than a batch is one batch."""
    return len(split) // images_per_batch(split, batch_size)


def images_per_batch(split: ImageSplit, batch_size: int) -> int:
    """Images in each batch: those of the split where it is smaller. Raises DataError for an empty split."""
    if len(split) == 0:
        raise DataError("there are no images to make batches of")
    if batch_size < 1:
        raise DataError(f"a batch needs at least one image, got a batch size of {batch_size}")
    return min(batch_size, len(split))


def stream(
    split: ImageSplit,
    batch_size: int,
    *,
    seed: int,
    start: int = 0,
    augment: bool = False,
    mirror: bool = False,
    augmentation: Augmentation = PLAIN,
    classes: int = 0,
    workers: int | None = 0,
    share: Share | None = None,
) -> Generator[Batch, None, None]:
    """Batches without end, from number `start` on: float32 images as networks take them, and int64 labels, or where
    images are mixed, float32 (n, classes), the share of each class.

    Batch b depends on `seed` and b alone, so a stream that starts at b goes on exactly where another one stopped, with
    any number of workers. Each pass has an order of its own and shows an image at most once, in full batches (one of
    few images would spoil BatchNorm's statistics). `augment` changes the images at random, as the augmentation says,
    mirroring some if `mirror`.

    classes: how many there are, for the labels of mixed images.
    share: of each batch, the images that this process computes, as it is without others.
    workers: processes that load images ahead of time; they end when the generator is closed. None: as many as there
    are cores, where images are decoded while they are used.
    Raises DataError for an empty split, or an image that cannot be read.
    """
    split.prepare()
    kept = share.kept if share else None
    mixing = Mixing(augmentation, classes, seed, kept) if augment and augmentation.mixes else None
    size, needed = images_per_batch(split, batch_size), mixing.needed if mixing else kept
    task = _Batches(split, size, seed, augmentation if augment else None, mirror, needed)
    return _inputs(fetch(task.__getitem__, itertools.count(start), _count(split, workers)), split, start, mixing)


def chunks(split: ImageSplit, size: int, *, workers: int | None = 0) -> Generator[Batch, None, None]:
    """Parts of a split, each image once and in order, unchanged: uint8 (up to `size`, C, H, W) and labels (n,).

    workers: as for `stream`. Raises DataError for an image that cannot be read.
    """
    split.prepare()
    return fetch(_Chunks(split, size).__getitem__, range(0, len(split), size), _count(split, workers))


def fetch(task: Callable[[int], T], numbers: Iterable[int], workers: int) -> Generator[T, None, None]:
    """task(number) for each number in order, worked out by `workers` processes (0: none) ahead of time.

    The processes start with the first item and end with the generator. A DataError in one is the same error here, and
    a process that dies is one too.
    """
    if workers == 0:
        yield from map(task, numbers)
        return
    # fork shares the images with the workers; elsewhere torch's default sends them through shared memory.
    context = "fork" if sys.platform == "linux" else None
    loader = DataLoader(
        _Guarded(task),
        batch_size=None,
        sampler=numbers,
        num_workers=workers,
        collate_fn=_same,
        worker_init_fn=_leave_interrupts_to_the_parent,
        multiprocessing_context=context,
        generator=torch.Generator(),  # else it would draw from the global one
    )
    items = None
    try:
        items = iter(loader)
        for item in items:
            if isinstance(item, _Failure):
                raise DataError(item.message)
            yield item
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise DataError(
            f"a process that loads images ended unexpectedly ({error}); if memory ran out, use fewer workers or "
            "smaller batches"
        ) from error
    finally:
        del items  # ends the workers


def workers_for(images: int) -> int:
    """Number of processes that decode so many images: one a core, where starting them is safe and worth it. Of several
    processes that torchrun started, each takes its share of the cores."""
    if sys.platform != "linux" or images < _WORTH_WORKERS or multiprocessing.current_process().daemon:
        return 0
    return min(_MOST_WORKERS, max(1, len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


def _count(split: ImageSplit, workers: int | None) -> int:
    if workers is not None:
        return workers
    return workers_for(len(split)) if split.is_encoded else 0


@dataclass
class _Batches:
    """Batch b of a stream. Keeps the order of the latest pass."""

    split: ImageSplit
    size: int
    seed: int
    augmentation: Augmentation | None
    mirror: bool
    kept: Tensor | None
    """Which images of a batch are wanted, bool (size,); None: all."""
    order: tuple[int, Tensor] = field(default=(-1, torch.empty(0)))
    changes: ImageChanges | None = None

    def __getitem__(self, number: int) -> Batch:
        """uint8 images and labels."""
        turn, place = divmod(number, len(self.split) // self.size)
        if self.order[0] != turn:
            self.order = turn, self.split.order(_generator(self.seed, _ORDER, turn))
        index = self.order[1][place * self.size : (place + 1) * self.size]
        wanted = index if self.kept is None else index[self.kept]
        if self.augmentation is None:
            return self.split.load(wanted), self.split.labels[wanted]
        generator = _generator(self.seed, _AUGMENTATION, number)
        images = self.split.augmented(
            index, generator, mirror=self.mirror, kept=self.kept, augmentation=self.augmentation
        )
        places = range(len(index)) if self.kept is None else self.kept.nonzero()[:, 0].tolist()
        return self._changes(self.augmentation)(images, self.seed, number, places), self.split.labels[wanted]

    def _changes(self, augmentation: Augmentation) -> ImageChanges:
        """Made in the process that uses them, once."""
        if self.changes is None:
            self.changes = ImageChanges(augmentation, self.split.normalization)
        return self.changes


@dataclass(frozen=True)
class _Chunks:
    split: ImageSplit
    size: int

    def __getitem__(self, start: int) -> Batch:
        index = torch.arange(start, min(start + self.size, len(self.split)))
        return self.split.load(index), self.split.labels[index]


class _Guarded(Dataset[T], Generic[T]):
    """A task as a dataset. A DataError is handed over as a value: torch would wrap it into the worker's traceback."""

    def __init__(self, task: Callable[[int], T]):
        self.task = task

    def __getitem__(self, number: int) -> T | _Failure:  # type: ignore[override]
        try:
            return self.task(number)
        except DataError as error:
            return _Failure(str(error))


@dataclass(frozen=True)
class _Failure:
    message: str


def _inputs(
    batches: Generator[Batch, None, None], split: ImageSplit, start: int, mixing: Mixing | None
) -> Generator[Batch, None, None]:
    """Batches as networks take them; made here, as bytes are a quarter of what workers would have to send otherwise."""
    try:
        for number, (images, labels) in enumerate(batches, start):
            x = split.normalization(images)
            yield mixing(x, labels, number) if mixing else (x, labels)
    finally:
        batches.close()


def _generator(seed: int, use: int, number: int) -> torch.Generator:
    return torch.Generator().manual_seed(*seeds_of(seed, use, number, 1))


def _same(item: T) -> T:
    return item


def _leave_interrupts_to_the_parent(_: int) -> None:
    """Ctrl-C reaches every process of a terminal; the parent decides whether to stop, and may want more batches."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
