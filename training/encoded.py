"""Images that stay encoded and are decoded when they are asked for: more of them than memory holds."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from netlathe.archspace.files import digest
from netlathe.training.augmentation import PLAIN, Augmentation
from netlathe.training.decoding import UNREADABLE, Cut, TooDeepError, check, decode, fingerprint
from netlathe.training.errors import DataError
from netlathe.training.images import ImageSplit, Pixels, augment

_DECODING = 2
"""Version of how images become pixels; a part of the digest of all images that are decoded."""


class Encoded(ABC):
    """Encoded images by row."""

    marks: NDArray[np.uint64]
    """(rows,): the fingerprint of each image that was found to be readable; 0 for others."""

    @abstractmethod
    def name(self, row: int) -> str:
        """Name of the image in errors."""

    @abstractmethod
    def open(self, row: int) -> BinaryIO:
        """Seekable stream of the file's content. Raises OSError."""

    def order(self, rows: NDArray[np.int64], generator: torch.Generator) -> Tensor:
        """int64 (n,), an order of images for a pass of training; any random one, unless some are read together."""
        return torch.randperm(len(rows), generator=generator)

    def prepare(self) -> None:  # noqa: B027  # most have nothing to read
        """Reads what all processes that load images can share."""

    @property
    def reads_in_order(self) -> bool:
        """Whether images in the order of their rows are read faster than in any other."""
        return False


@dataclass(frozen=True, eq=False)
class Files(Encoded):
    """Image files below a folder. `paths`: relative to it, bytes of one width, since workers share an array, but soon
    copy a list of strings."""

    folder: str
    paths: NDArray[np.bytes_]
    marks: NDArray[np.uint64]

    def name(self, row: int) -> str:
        return os.path.join(self.folder, os.fsdecode(self.paths[row]))

    def open(self, row: int) -> BinaryIO:
        return open(self.name(row), "rb")


@dataclass(frozen=True, eq=False, repr=False)
class EncodedSplit(ImageSplit):
    """Images `rows` (N,) of a source, decoded on demand, resized to `size` and turned into `channels` (1: grey,
    3: RGB)."""

    source: Encoded
    rows: Tensor
    labels: Tensor
    size: Pixels
    channels: int

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, *self.size

    @property
    def is_encoded(self) -> bool:
        return True

    @property
    def reads_in_order(self) -> bool:
        return self.source.reads_in_order

    def take(self, index: Tensor) -> EncodedSplit:
        return EncodedSplit(self.source, self.rows[index], self.labels[index], self.size, self.channels)

    def load(self, index: Tensor) -> Tensor:
        return self._decoded(index, None)[0]

    def augmented(
        self,
        index: Tensor,
        generator: torch.Generator,
        *,
        mirror: bool,
        kept: Tensor | None = None,
        augmentation: Augmentation = PLAIN,
    ) -> Tensor:
        """Cuts a random part out of each image that is larger than the network's input; shifts the others, or cuts
        them as they are, as the augmentation says."""
        draws = torch.rand((len(index), 4), generator=generator, dtype=torch.float64)
        wanted = slice(None) if kept is None else kept
        cuts = [Cut(four, augmentation.least_area) for four in draws[wanted].tolist()]
        images, is_cut = self._decoded(index[wanted], cuts)
        return augment(images, generator, mirror=mirror, still=is_cut, kept=kept, augmentation=augmentation)

    def prepare(self) -> None:
        self.source.prepare()

    def order(self, generator: torch.Generator) -> Tensor:
        return self.source.order(self.rows.numpy(), generator)

    def digest(self) -> str:
        """By the fingerprints of the files: nothing is decoded, and nothing opened that was found to be readable."""
        marks = self.source.marks[self.rows.numpy()]
        for i in np.flatnonzero(marks == 0).tolist():
            marks[i] = self.examine(int(self.rows[i]))
        return digest(repr((_DECODING, self.size, self.channels)).encode() + marks.tobytes())

    def examine(self, row: int, into: NDArray[np.uint8] | None = None) -> int:
        """The fingerprint of an image of the source. Raises DataError, with its name, for one that is unreadable by
        its two ends; or, with `into` (height, width, channels), by all of it, which is decoded there."""
        with _reading(self.source, row) as stream:
            mark = fingerprint(stream)
            stream.seek(0)
            if into is None:
                check(stream)
            else:
                self._fill(into, stream, None)
            return mark

    def _joined(self, other: ImageSplit) -> ImageSplit:
        if not isinstance(other, EncodedSplit) or other.source is not self.source:
            return super()._joined(other)
        rows, labels = torch.cat([self.rows, other.rows]), torch.cat([self.labels, other.labels])
        return EncodedSplit(self.source, rows, labels, self.size, self.channels)

    def _decoded(self, index: Tensor, cuts: Sequence[Cut | None] | None) -> tuple[Tensor, Tensor]:
        """uint8 images (n, C, H, W), and which of them are cuts (n,). cuts: that of each, or None to cut none."""
        rows = self.rows[index].tolist()
        cuts = [None] * len(rows) if cuts is None else cuts
        images = np.empty((len(rows), *self.size, self.channels), np.uint8)
        is_cut = torch.zeros(len(rows), dtype=torch.bool)
        for i, (row, cut) in enumerate(zip(rows, cuts, strict=True)):
            with _reading(self.source, row) as stream:
                is_cut[i] = self._fill(images[i], stream, cut)
        return torch.from_numpy(images).permute(0, 3, 1, 2), is_cut

    def _fill(self, place: NDArray[np.uint8], stream: BinaryIO, cut: Cut | None) -> bool:
        """Decodes into (height, width, channels), and returns whether it is a cut."""
        picture, is_cut = decode(stream, self.size, "RGB" if self.channels == 3 else "L", cut)
        place[...] = np.asarray(picture).reshape(place.shape)
        return is_cut


@contextmanager
def _reading(source: Encoded, row: int) -> Iterator[BinaryIO]:
    """Context with an image's stream; what damage raises in it is a DataError with the image's name."""
    try:
        with source.open(row) as stream:
            yield stream
    except TooDeepError as error:
        raise DataError(f"{source.name(row)}: {error}") from error
    except UNREADABLE as error:
        name = source.name(row)
        raise DataError(f"{name}: not a readable image ({error!s:.200}); remove or replace it") from error
