"""Encoded images before they are used: all are looked at once, and what cannot be read is named at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from netlathe.training.encoded import EncodedSplit
from netlathe.training.errors import DataError, UnreadableError
from netlathe.training.held import CHUNK, Held, HeldSplit
from netlathe.training.images import ImageData
from netlathe.training.stream import fetch, workers_for

Told = Callable[[int, int], None]
"""(images looked at, of how many)."""


def examined(
    data: ImageData, remember: Callable[[], None], *, in_memory_bytes: int, skip_unreadable: int, told: Told
) -> ImageData:
    """The data without images that cannot be read, held in memory if all pixels take no more than `in_memory_bytes`.

    Only encoded images are looked at, and only those that were not found to be readable before; they are decoded if
    they are to be held. `remember` is called afterwards. Raises DataError with the names of all that cannot be read, if
    they are more than `skip_unreadable`, and for a class that these leave without images.
    """
    whole = data.train.joined(data.validation).joined(data.test)
    if not isinstance(whole, EncodedSplit):
        return data
    is_held = len(whole) * int(np.prod(whole.shape)) <= in_memory_bytes
    unknown = np.flatnonzero(whole.source.marks[whole.rows.numpy()] == 0)
    images = (
        torch.empty((len(whole), *whole.shape), dtype=torch.uint8) if is_held and len(unknown) == len(whole) else None
    )
    failures = _examine(whole, unknown, images, is_decoded=is_held, told=told)
    if len(unknown) > len(failures):
        remember()
    if len(failures) > skip_unreadable:
        raise _all_of(failures, skip_unreadable)
    readable = torch.ones(len(whole), dtype=torch.bool)
    readable[list(failures)] = False
    if images is not None and failures:
        images = images[readable]
    data = _left(data, readable, failures)
    return _held(data, images) if is_held else data


@dataclass(frozen=True)
class _Examination:
    """A look at some images of a split; they are decoded if `is_decoded`, and handed over if `is_kept`."""

    split: EncodedSplit
    index: NDArray[np.int64]
    is_decoded: bool
    is_kept: bool

    def look(self, start: int) -> tuple[NDArray[np.uint64], dict[int, str], Tensor | None]:
        """Fingerprints, errors by place in the split, and pixels (n, C, H, W), of the images from `start` on."""
        channels, height, width = self.split.shape
        part = self.index[start : start + CHUNK]
        marks, failures = np.zeros(len(part), np.uint64), {}
        pixels = np.zeros((len(part), height, width, channels), np.uint8) if self.is_decoded else None
        for i, (place, row) in enumerate(zip(part.tolist(), self.split.rows[part].tolist(), strict=True)):
            try:
                marks[i] = self.split.examine(row, None if pixels is None else pixels[i])
            except DataError as error:
                failures[place] = str(error)
        return marks, failures, torch.from_numpy(pixels).permute(0, 3, 1, 2) if self.is_kept else None


def _examine(
    whole: EncodedSplit, unknown: NDArray[np.int64], images: Tensor | None, *, is_decoded: bool, told: Told
) -> dict[int, str]:
    """Looks at the images `unknown` of a split: sets the marks of its source, fills `images`; errors by place."""
    index = unknown[np.argsort(whole.rows.numpy()[unknown], kind="stable")]  # in the order of the files
    task = _Examination(whole, index, is_decoded, images is not None)
    starts = range(0, len(index), CHUNK)
    failures: dict[int, str] = {}
    for start, (marks, some, pixels) in zip(starts, fetch(task.look, starts, workers_for(len(index))), strict=True):
        places = torch.from_numpy(index[start : start + CHUNK])
        whole.source.marks[whole.rows[places].numpy()] = marks
        failures |= some
        if images is not None and pixels is not None:
            images[places] = pixels
        told(start + len(places), len(index))
    return failures


def _all_of(failures: dict[int, str], skipped: int) -> DataError:
    if len(failures) == 1:
        return DataError(*failures.values())
    limit = f" (--skip-unreadable {skipped})" if skipped else ""
    return UnreadableError(
        f"{len(failures)} images cannot be used{limit}; remove or replace them, or leave them out with "
        f"--skip-unreadable {len(failures)}:\n" + "\n".join(f"  {text}" for text in _reasons(failures))
    )


def _reasons(failures: dict[int, str]) -> list[str]:
    return [text.removesuffix("; remove or replace it") for text in failures.values()]


def _left(data: ImageData, readable: Tensor, failures: dict[int, str]) -> ImageData:
    """The data without images that are not readable. Raises DataError where that takes all of a split or a class."""
    if not failures:
        return data
    sizes = [len(data.train), len(data.validation), len(data.test)]
    of_train, of_validation, of_test = (one.nonzero()[:, 0] for one in torch.split(readable, sizes))
    train, validation, test = data.train.take(of_train), data.validation.take(of_validation), data.test.take(of_test)
    for name, split in (("training", train), ("validation", validation), ("test", test)):
        if len(split) == 0:
            raise DataError(f"{data.name}: no image of the {name} split can be read")
    lost = sorted(set(data.train.labels.tolist()) - set(train.labels.tolist()))
    if lost:
        raise DataError(f"{data.name}: no training image of {data.classes[lost[0]]!r} can be read")
    note = f"{data.name}: left out {len(failures)} unreadable image{'s'[: len(failures) > 1]}: "
    note += "; ".join(_reasons(failures))
    return replace(data, train=train, validation=validation, test=test, notes=(*data.notes, note))


def _held(data: ImageData, images: Tensor | None) -> ImageData:
    """The data with all pixels in one memory, where joined splits are one split again."""
    splits = (data.train, data.validation, data.test)
    whole = splits[0].joined(splits[1]).joined(splits[2])
    assert isinstance(whole, EncodedSplit)
    held = Held(whole, images)
    places = torch.split(torch.arange(len(whole)), [len(split) for split in splits])
    train, validation, test = (HeldSplit(held, rows, one.labels) for rows, one in zip(places, splits, strict=True))
    return replace(data, train=train, validation=validation, test=test)
